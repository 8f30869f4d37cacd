#error "circuit::core must not need PCRE2"
