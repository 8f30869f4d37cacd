#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/data/random.hpp"
#include "circuit/data/training_text.hpp"
#include "circuit/io/mapping.hpp"
#include "circuit/text/tokenizer.hpp"

namespace circuit::data {

/// How a text becomes rows.
enum class Cut {
  packed,  ///< every row full, wherever in the text it begins
  lines,   ///< a row per line, cut off where it is too long; empty lines are left out
};

struct RowOptions {
  std::size_t length = 128;  ///< most tokens of a row, a BOS included
  Cut cut = Cut::packed;
  Bos bos = Bos::prepend;  ///< before every row, where the tokenizer has one
  std::uint64_t seed = 1;  ///< of the order, which is another one each time through
};

/// Rows of text files, in random order, again and again: `rows(first, count)` gives rows first, first + 1, ... of an
/// endless sequence, the same at every reading. All tokens are kept in memory: four bytes each.
class TextRows {
 public:
  /// throws  FileError;  ValueError  for a text that is not UTF-8, or too short for one row
  TextRows(const Tokenizer& tokenizer, std::span<const std::filesystem::path> files, const RowOptions& options);
  /// throws  ValueError  for a text that is not UTF-8, or too short for one row
  TextRows(const Tokenizer& tokenizer, std::string_view text, const RowOptions& options);
  /// Rows that are there already, such as a model wrote.
  /// throws  ValueError  when there is none
  explicit TextRows(std::vector<std::vector<std::int32_t>> rows, std::uint64_t seed = 1);

  [[nodiscard]] std::vector<std::vector<std::int32_t>> rows(std::int64_t first, std::int64_t count);
  /// Takes rows out, spread over the whole text, for measuring; `rows` never gives them.
  /// throws  ValueError  unless some rows are left
  [[nodiscard]] std::vector<std::vector<std::int32_t>> hold_out(std::int64_t count);
  /// Rows until all have been given once.
  [[nodiscard]] std::int64_t size() const noexcept { return static_cast<std::int64_t>(rows_.size()); }
  [[nodiscard]] std::int64_t tokens() const noexcept;

 private:
  void add(const Tokenizer& tokenizer, std::string_view text);
  void add_row(std::span<const std::int32_t> ids);
  void check() const;
  void arrange(std::uint64_t epoch);

  RowOptions options_;
  std::int32_t bos_ = -1;
  std::vector<std::vector<std::int32_t>> rows_;
  std::vector<std::size_t> order_;
  std::uint64_t epoch_ = ~std::uint64_t{0};
};

/// Rows of several sources in turn: row i is row i / n of source i % n.
template <class Source>
class RowsInTurn {
 public:
  /// throws  ValueError  without a source
  explicit RowsInTurn(std::vector<Source> sources) : sources_{std::move(sources)} {
    if (sources_.empty()) throw ValueError{{.tensor = "sources", .expected = "at least one", .got = "none"}};
  }

  [[nodiscard]] std::vector<std::vector<std::int32_t>> rows(std::int64_t first, std::int64_t count) {
    const auto n = static_cast<std::int64_t>(sources_.size());
    std::vector<std::vector<std::int32_t>> out(static_cast<std::size_t>(count));
    for (std::int64_t s = 0; s < n; ++s) {
      const auto before = [&](std::int64_t row) { return (row - s + n - 1) / n; };  // its own rows before that one
      auto some = sources_[static_cast<std::size_t>(s)].rows(before(first), before(first + count) - before(first));
      for (std::size_t i = 0; i < some.size(); ++i) {
        const auto row = (before(first) + static_cast<std::int64_t>(i)) * n + s;
        out[static_cast<std::size_t>(row - first)] = std::move(some[i]);
      }
    }
    return out;
  }

 private:
  std::vector<Source> sources_;
};

/// Rows of the library's own tasks, never the same twice: names, friends, years, agreement, plain sentences (see
/// training_text.hpp).
class TaskRows {
 public:
  TaskRows(Tokenizer tokenizer, const RowOptions& options) : tokenizer_{std::move(tokenizer)}, options_{options} {}

  [[nodiscard]] std::vector<std::vector<std::int32_t>> rows(std::int64_t first, std::int64_t count) const;

 private:
  Tokenizer tokenizer_;
  RowOptions options_;
};

}  // namespace circuit::data

namespace circuit::data::detail {

/// A seed of its own for each of many draws.
[[nodiscard]] inline std::uint64_t mixed(std::uint64_t seed, std::uint64_t number) {
  auto x = seed * 0x9E3779B97F4A7C15ULL + number;  // SplitMix64's finaliser
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31U);
}

}  // namespace circuit::data::detail

namespace circuit::data {

inline TextRows::TextRows(const Tokenizer& tokenizer, std::span<const std::filesystem::path> files,
                          const RowOptions& options)
    : options_{options} {
  for (const auto& file : files) {
    const auto mapping = Mapping::open(file);
    const auto bytes = mapping->bytes();
    add(tokenizer, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  check();
}

inline TextRows::TextRows(const Tokenizer& tokenizer, std::string_view text, const RowOptions& options)
    : options_{options} {
  add(tokenizer, text);
  check();
}

inline TextRows::TextRows(std::vector<std::vector<std::int32_t>> rows, std::uint64_t seed)
    : options_{.seed = seed}, rows_{std::move(rows)} {
  check();
}

inline void TextRows::check() const {
  if (!rows_.empty()) return;
  throw ValueError{{.tensor = "text",
                    .problem = "is too short",
                    .expected = options_.cut == Cut::lines ? "a line that is not empty" : "tokens for one row",
                    .got = "none"}};
}

inline void TextRows::add(const Tokenizer& tokenizer, std::string_view text) {
  if (options_.bos == Bos::prepend && tokenizer.bos_id()) bos_ = *tokenizer.bos_id();
  const std::size_t room = options_.length - (bos_ >= 0 ? 1 : 0);
  if (options_.length < 2 || room == 0) {
    throw ValueError{{.tensor = "length", .expected = "at least 2", .got = std::to_string(options_.length)}};
  }
  if (options_.cut == Cut::packed) {
    const auto ids = tokenizer.encode(text);
    for (std::size_t from = 0; from + room <= ids.size(); from += room) add_row(std::span{ids}.subspan(from, room));
    return;
  }
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    auto line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    const auto ids = tokenizer.encode(line);
    if (!ids.empty()) add_row(std::span{ids}.subspan(0, std::min(room, ids.size())));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

inline void TextRows::add_row(std::span<const std::int32_t> ids) {
  std::vector<std::int32_t> row;
  row.reserve(ids.size() + 1);
  if (bos_ >= 0) row.push_back(bos_);
  row.insert(row.end(), ids.begin(), ids.end());
  rows_.push_back(std::move(row));
}

inline std::int64_t TextRows::tokens() const noexcept {
  std::size_t sum = 0;
  for (const auto& row : rows_) sum += row.size();
  return static_cast<std::int64_t>(sum);
}

inline void TextRows::arrange(std::uint64_t epoch) {
  if (epoch == epoch_) return;
  epoch_ = epoch;
  order_.resize(rows_.size());
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  Random random{detail::mixed(options_.seed, epoch)};
  for (std::size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random.below(i)]);
}

inline std::vector<std::vector<std::int32_t>> TextRows::rows(std::int64_t first, std::int64_t count) {
  std::vector<std::vector<std::int32_t>> out;
  for (auto i = first; i < first + count; ++i) {
    arrange(static_cast<std::uint64_t>(i / size()));
    out.push_back(rows_[order_[static_cast<std::size_t>(i % size())]]);
  }
  return out;
}

inline std::vector<std::vector<std::int32_t>> TextRows::hold_out(std::int64_t count) {
  if (count < 0 || count >= size()) {
    throw ValueError{{.tensor = "text",
                      .problem = "is too short to hold out " + std::to_string(count) + " rows",
                      .expected = "more rows than these",
                      .got = std::to_string(size())}};
  }
  std::vector<std::vector<std::int32_t>> out;
  std::vector<std::vector<std::int32_t>> rest;
  for (std::int64_t i = 0; i < size(); ++i) {
    const bool taken = (i + 1) * count / size() > i * count / size();
    (taken ? out : rest).push_back(std::move(rows_[static_cast<std::size_t>(i)]));
  }
  rows_ = std::move(rest);
  epoch_ = ~std::uint64_t{0};
  return out;
}

inline std::vector<std::vector<std::int32_t>> TaskRows::rows(std::int64_t first, std::int64_t count) const {
  const bool has_bos = options_.bos == Bos::prepend && tokenizer_.bos_id();
  std::vector<std::vector<std::int32_t>> out;
  for (auto i = first; i < first + count; ++i) {
    Random random{detail::mixed(options_.seed, static_cast<std::uint64_t>(i))};
    std::string text;
    for (const auto& piece : make_training_line(random).pieces) text += piece;
    auto ids = tokenizer_.encode(text, has_bos ? Bos::prepend : Bos::none);
    if (ids.size() > options_.length) ids.resize(options_.length);
    out.push_back(std::move(ids));
  }
  return out;
}

}  // namespace circuit::data
