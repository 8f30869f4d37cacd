#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/order.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/train/dead_features.hpp"
#include "circuit/dictionary/train/site.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit::train {

/// Where rows of token ids come from: `rows(first, count)` gives rows first, first + 1, ... of an endless sequence, the
/// same ones at every reading (data/token_rows.hpp, model/written_rows.hpp).
template <class S>
concept RowSource = requires(S& source, std::int64_t number) {
  { source.rows(number, number) } -> std::same_as<std::vector<std::vector<std::int32_t>>>;
};

struct StreamOptions {
  std::int64_t batch = 2048;       ///< tokens of a step, about
  std::int64_t buffer_rows = 256;  ///< rows whose tokens are shuffled together and kept in memory
  std::int64_t rows_per_run = 16;  ///< rows of one forward pass
  std::int64_t skip = 0;           ///< first positions of each row that are left out, such as a BOS
  std::uint64_t seed = 1;
};

/// Where a stream is.
struct Place {
  std::int64_t buffer = 0;  ///< buffers that are used up
  std::int64_t batch = 0;   ///< batches taken from the one at hand
};

/// Rows as one batch, padded behind their end, and where their own tokens are in it.
struct PaddedRows {
  at::Tensor tokens;  ///< [rows, longest] int64
  at::Tensor real;    ///< [n] int64  places in the flattened tokens
};

/// throws  ValueError  when there is no row, or an empty one
[[nodiscard]] PaddedRows pad_rows(const std::vector<std::vector<std::int32_t>>& rows, std::int64_t skip = 0);

/// Activations of a model at several sites, batch after batch: a buffer of rows is run through the model, its tokens
/// are shuffled and given out, then the next. The place in it is two numbers, from which it goes on exactly.
template <Architecture A, RowSource Source>
class ActivationStream {
 public:
  /// Keeps references to model and source.
  /// throws  NameError, IndexError  for a site that the model does not have;  ConfigError  for options that cannot be
  ActivationStream(const HookedTransformer<A>& model, Source& source, const std::vector<DictionaryHooks>& sites,
                   const StreamOptions& options);

  /// One per site, of the same tokens.
  /// throws  ValueError  when the source has nothing to give
  [[nodiscard]] std::vector<TokenBatch> next();

  /// All that the buffer at hand holds, for means and scales.
  [[nodiscard]] std::vector<TokenBatch> sample();

  [[nodiscard]] Place place() const noexcept { return place_; }
  void seek(Place place) {
    place_ = place;
    filled_ = -1;
  }
  [[nodiscard]] std::int64_t tokens_given() const noexcept { return given_; }

 private:
  void fill();
  void run(const std::vector<std::vector<std::int32_t>>& rows, std::vector<std::vector<at::Tensor>>& parts) const;
  [[nodiscard]] std::size_t hook_index(const std::string& hook);
  [[nodiscard]] std::int64_t tokens() const { return buffer_.front().size(0); }
  [[nodiscard]] std::int64_t batches() const { return std::max<std::int64_t>(1, tokens() / options_.batch); }

  const HookedTransformer<A>& model_;
  Source& source_;
  StreamOptions options_;
  std::vector<std::string> hooks_;                          // each once
  std::vector<std::pair<std::size_t, std::size_t>> sites_;  // what they read and write, in hooks_
  std::int32_t layers_ = 0;                                 // that have to be run
  std::vector<at::Tensor> buffer_;                          // per hook [tokens, width], shuffled
  std::int64_t filled_ = -1;                                // which buffer that is
  Place place_{};
  std::int64_t given_ = 0;
};

}  // namespace circuit::train

namespace circuit::train {

inline PaddedRows pad_rows(const std::vector<std::vector<std::int32_t>>& rows, std::int64_t skip) {
  std::size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  const auto width = static_cast<std::int64_t>(longest);
  auto padded = rows;
  std::vector<std::int64_t> real;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (rows[r].empty()) throw ValueError{{.tensor = "tokens", .problem = "a row is empty"}};
    padded[r].resize(longest, rows[r].back());  // nothing looks ahead, so any token does
    for (auto i = skip; i < static_cast<std::int64_t>(rows[r].size()); ++i) {
      real.push_back(static_cast<std::int64_t>(r) * width + i);
    }
  }
  auto index = make::empty({static_cast<std::int64_t>(real.size())}, at::kLong);
  std::copy(real.begin(), real.end(), index.data_ptr<std::int64_t>());
  return {to_tokens(padded), std::move(index)};
}

template <Architecture A, RowSource Source>
ActivationStream<A, Source>::ActivationStream(const HookedTransformer<A>& model, Source& source,
                                              const std::vector<DictionaryHooks>& sites, const StreamOptions& options)
    : model_{model}, source_{source}, options_{options} {
  for (const auto& [count, name] : {std::pair{options.batch, "batch"},
                                    {options.buffer_rows, "buffer_rows"},
                                    {options.rows_per_run, "rows_per_run"}}) {
    if (count < 1) throw ConfigError{{.tensor = name, .expected = "at least 1", .got = std::to_string(count)}};
  }
  if (sites.empty()) throw ConfigError{{.tensor = "sites", .expected = "at least one", .got = "none"}};
  for (const auto& site : sites) sites_.emplace_back(hook_index(site.in), hook_index(site.out));
}

template <Architecture A, RowSource Source>
std::size_t ActivationStream<A, Source>::hook_index(const std::string& hook) {
  const auto layer = layer_of(hook, model_.config().n_layers);
  layers_ = std::max(layers_, layer.value + 1);
  const auto found = std::find(hooks_.begin(), hooks_.end(), hook);
  if (found != hooks_.end()) return static_cast<std::size_t>(found - hooks_.begin());
  hooks_.push_back(hook);
  return hooks_.size() - 1;
}

template <Architecture A, RowSource Source>
void ActivationStream<A, Source>::run(const std::vector<std::vector<std::int32_t>>& rows,
                                      std::vector<std::vector<at::Tensor>>& parts) const {
  const auto padded = pad_rows(rows, options_.skip);
  NamedRecorder recorder{hooks_};
  const auto embedded = model_.embed(padded.tokens.to(model_.device()), recorder);
  (void)model_.blocks(embedded, Layer{0}, Layer{layers_}, recorder);
  const auto real = padded.real.to(model_.device());
  for (std::size_t i = 0; i < hooks_.size(); ++i) {
    const auto& value = recorder.values()[i];
    if (!value.defined()) throw NameError{{.tensor = hooks_[i], .problem = "this model has no such place"}};
    parts[i].push_back(value.flatten(0, 1).index_select(0, real));
  }
}

template <Architecture A, RowSource Source>
void ActivationStream<A, Source>::fill() {
  if (filled_ == place_.buffer) return;
  const c10::AutoGradMode no_gradient{false};
  buffer_.clear();
  auto rows = source_.rows(place_.buffer * options_.buffer_rows, options_.buffer_rows);
  if (rows.empty()) throw ValueError{{.tensor = "text", .problem = "there are no rows to train on"}};
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
  std::vector<std::vector<at::Tensor>> parts(hooks_.size());
  const auto step = static_cast<std::size_t>(options_.rows_per_run);
  for (std::size_t from = 0; from < rows.size(); from += step) {
    const auto end = std::min(rows.size(), from + step);
    run({rows.begin() + static_cast<std::ptrdiff_t>(from), rows.begin() + static_cast<std::ptrdiff_t>(end)}, parts);
  }
  at::Tensor order;
  for (auto& part : parts) {
    auto joined = make::cat(part);
    part.clear();
    if (joined.size(0) == 0) throw ValueError{{.tensor = "text", .problem = "no token is left of these rows"}};
    if (!order.defined()) {
      order = detail::draw_sample(joined, joined.size(0),
                                  options_.seed * 1'000'003 + static_cast<std::uint64_t>(place_.buffer));
    }
    buffer_.push_back(joined.index_select(0, order));
  }
  filled_ = place_.buffer;
}

template <Architecture A, RowSource Source>
std::vector<TokenBatch> ActivationStream<A, Source>::sample() {
  fill();
  std::vector<TokenBatch> out;
  for (const auto& [reads, writes] : sites_) out.push_back({buffer_[reads], buffer_[writes]});
  return out;
}

template <Architecture A, RowSource Source>
std::vector<TokenBatch> ActivationStream<A, Source>::next() {
  fill();
  const auto from = tokens() * place_.batch / batches();
  const auto count = tokens() * (place_.batch + 1) / batches() - from;
  std::vector<TokenBatch> out;
  for (const auto& [reads, writes] : sites_) {
    out.push_back({buffer_[reads].narrow(0, from, count), buffer_[writes].narrow(0, from, count)});
  }
  given_ += count;
  if (++place_.batch == batches()) place_ = {place_.buffer + 1, 0};
  return out;
}

}  // namespace circuit::train
