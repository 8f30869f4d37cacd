#error "circuit::core must not need LibTorch"
