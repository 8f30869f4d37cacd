#pragma once

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8  // NOLINT(cppcoreguidelines-macro-usage): PCRE2 asks for it
#endif
#include <pcre2.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "circuit/core/error.hpp"

namespace circuit {

/// A compiled regular expression over UTF-8, immutable and shared by its copies; scanning is safe from several threads.
class Pattern {
 public:
  /// throws  ConfigError  when `expression` is not valid
  explicit Pattern(std::string_view expression) : code_{compile(expression)} {}

  /// Calls `visit(piece, matched)` for the matches from left to right and for the stretches between them, so that the
  /// pieces joined are `text` again. `text` must be valid UTF-8.
  /// throws  ValueError  when matching needs more work than its limits allow
  template <class Visit>
  void scan(std::string_view text, Visit&& visit) const {
    Matcher match{*code_};
    std::size_t done = 0;
    while (const auto* const span = match(text, done)) {
      if (span[0] > done) visit(text.substr(done, span[0] - done), false);
      visit(text.substr(span[0], span[1] - span[0]), true);
      done = span[1];
    }
    if (done < text.size()) visit(text.substr(done), false);
  }

  /// Whether some part of `text`, which must be valid UTF-8, matches.
  /// throws  ValueError  as scan
  [[nodiscard]] bool matches(std::string_view text) const { return Matcher{*code_}(text, 0) != nullptr; }

  /// Whether a match could be empty; `scan` passes over such matches.
  [[nodiscard]] bool may_match_nothing() const noexcept {
    std::uint32_t may = 0;
    pcre2_pattern_info(code_.get(), PCRE2_INFO_MATCHEMPTY, &may);
    return may != 0;
  }

 private:
  static constexpr std::uint32_t match_limit = 10'000'000;
  static constexpr std::uint32_t depth_limit = 100'000;

  struct Free {
    void operator()(pcre2_match_data* data) const noexcept { pcre2_match_data_free(data); }
    void operator()(pcre2_match_context* context) const noexcept { pcre2_match_context_free(context); }
  };

  /// What one thread needs for matching.
  class Matcher {
   public:
    explicit Matcher(const pcre2_code& code)
        : code_{code},
          found_{pcre2_match_data_create_from_pattern(&code, nullptr)},
          limits_{pcre2_match_context_create(nullptr)} {
      if (!found_ || !limits_) throw std::bad_alloc{};
      pcre2_set_match_limit(limits_.get(), match_limit);
      pcre2_set_depth_limit(limits_.get(), depth_limit);
    }

    /// return  begin and end of the first match at or after `from`, or nullptr
    [[nodiscard]] const PCRE2_SIZE* operator()(std::string_view text, std::size_t from) {
      if (from >= text.size()) return nullptr;
      const int status = pcre2_match(&code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                     PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, found_.get(), limits_.get());
      if (status == PCRE2_ERROR_NOMATCH) return nullptr;
      if (status < 0) {
        throw ValueError{{.problem = "text cannot be split at byte " + std::to_string(from), .got = message(status)}};
      }
      return pcre2_get_ovector_pointer(found_.get());
    }

   private:
    const pcre2_code& code_;
    std::unique_ptr<pcre2_match_data, Free> found_;
    std::unique_ptr<pcre2_match_context, Free> limits_;
  };

  [[nodiscard]] static std::string message(int status) {
    std::array<PCRE2_UCHAR, 128> text{};
    pcre2_get_error_message(status, text.data(), text.size());
    return reinterpret_cast<const char*>(text.data());
  }

  [[nodiscard]] static std::shared_ptr<const pcre2_code> compile(std::string_view expression) {
    int status = 0;
    PCRE2_SIZE offset = 0;
    auto* const code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                                     PCRE2_UTF | PCRE2_UCP, &status, &offset, nullptr);
    if (code == nullptr) {
      throw ConfigError{{.tensor = std::string{expression},
                         .problem = "not a valid regular expression at byte " + std::to_string(offset),
                         .got = message(status)}};
    }
    // Where there is no just-in-time compiler this fails and matching is interpreted, with the same results.
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    return {code, [](pcre2_code* p) { pcre2_code_free(p); }};
  }

  std::shared_ptr<const pcre2_code> code_;
};

}  // namespace circuit
