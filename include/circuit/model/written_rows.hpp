#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/model/generate.hpp"

namespace circuit {

struct WritingOptions {
  std::int32_t first = 0;    ///< the token that every row begins with, such as the BOS
  std::int64_t length = 64;  ///< tokens of a row, the first included
  double temperature = 1.0;
  std::uint64_t seed = 1;
  std::int64_t rows_per_run = 8;
};

/// Rows of text that a model writes itself: every next token is drawn by its probability. `rows(first, count)` gives
/// rows first, first + 1, ... of an endless sequence, up to rounding the same at every reading.
template <Architecture A>
class WrittenRows {
 public:
  /// Keeps a reference to the model.
  /// throws  ValueError  for a length that cannot be;  `rows` throws as generate and choose::Sample
  WrittenRows(const HookedTransformer<A>& model, const WritingOptions& options) : model_{model}, options_{options} {
    if (options.length >= 2 && options.length <= model.config().n_ctx && options.rows_per_run >= 1) return;
    throw ValueError{{.tensor = "length",
                      .expected = "2 to " + std::to_string(model.config().n_ctx),
                      .got = std::to_string(options.length)}};
  }

  [[nodiscard]] std::vector<std::vector<std::int32_t>> rows(std::int64_t first, std::int64_t count) const {
    std::vector<std::vector<std::int32_t>> out;
    for (auto from = first; from < first + count; from += options_.rows_per_run) {
      write(from, std::min(options_.rows_per_run, first + count - from), out);
    }
    return out;
  }

 private:
  /// Each row draws for itself, so that it does not matter which rows are written together.
  struct EachRow {
    std::vector<choose::Sample> samples;

    [[nodiscard]] at::Tensor next(const at::Tensor& logits) {
      std::vector<at::Tensor> tokens;
      for (std::size_t r = 0; r < samples.size(); ++r) {
        tokens.push_back(samples[r].next(logits.narrow(0, static_cast<std::int64_t>(r), 1)));
      }
      return make::cat(tokens);
    }
  };

  void write(std::int64_t first, std::int64_t count, std::vector<std::vector<std::int32_t>>& out) const {
    EachRow choice;
    for (auto i = first; i < first + count; ++i) {
      choice.samples.emplace_back(options_.seed * 0x9E3779B97F4A7C15ULL + static_cast<std::uint64_t>(i),
                                  options_.temperature);
    }
    const auto start = make::full({count, 1}, options_.first, at::kLong).to(model_.device());
    const auto tokens =
        generate_tokens(model_, start, options_.length - 1, std::move(choice)).to(at::kCPU).contiguous();
    const auto* id = data_of<std::int64_t>(tokens);
    for (std::int64_t r = 0; r < count; ++r, id += options_.length) out.emplace_back(id, id + options_.length);
  }

  const HookedTransformer<A>& model_;
  WritingOptions options_;
};

}  // namespace circuit
