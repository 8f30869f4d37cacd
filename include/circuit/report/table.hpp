#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/shown_text.hpp"

namespace circuit {

/// A number with a fixed count of decimals, independent of the locale; a zero never has a sign.
[[nodiscard]] inline std::string fixed(double value, int decimals = 3) {
  std::array<char, 512> buffer{};
  const auto [end, error] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed, decimals);
  std::string text{buffer.data(), end};
  if (text.starts_with('-') && text.find_first_not_of("-0.") == std::string::npos) text.erase(0, 1);
  return text;
}

/// A share as a percentage: `percent(0.125)` is `12.5 %`.
[[nodiscard]] inline std::string percent(double share, int decimals = 1) { return fixed(100 * share, decimals) + " %"; }

/// Rows of text under headings, columns aligned: to the right where every cell starts like a number, else to the left.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> headings) : headings_{std::move(headings)} {}

  /// throws  ValueError  when the row has not as many cells as there are headings
  TextTable& add_row(std::vector<std::string> cells) {
    if (cells.size() != headings_.size()) {
      throw ValueError{{.tensor = "table row",
                        .problem = "wrong number of cells",
                        .expected = std::to_string(headings_.size()),
                        .got = std::to_string(cells.size())}};
    }
    for (auto& cell : cells) cell = one_line(cell);
    rows_.push_back(std::move(cells));
    return *this;
  }

  [[nodiscard]] std::size_t row_count() const { return rows_.size(); }

  friend std::ostream& operator<<(std::ostream& out, const TextTable& table) {
    std::vector<Column> columns;
    for (std::size_t c = 0; c < table.headings_.size(); ++c) columns.push_back(table.measure(c));
    print(out, table.headings_, columns);
    std::vector<std::string> rule;
    for (const auto& column : columns) rule.emplace_back(column.width, '-');
    print(out, rule, columns);
    for (const auto& row : table.rows_) print(out, row, columns);
    return out;
  }

 private:
  struct Column {
    std::size_t width;
    bool right;
  };

  [[nodiscard]] static bool like_a_number(std::string_view cell) {
    return cell.empty() || cell == "-" ||
           cell.find_first_of("0123456789") == (cell.find_first_of("+-.") == 0 ? 1U : 0U);
  }

  [[nodiscard]] Column measure(std::size_t c) const {
    Column column{text_width(headings_[c]), !rows_.empty()};
    for (const auto& row : rows_) {
      column.width = std::max(column.width, text_width(row[c]));
      column.right = column.right && like_a_number(row[c]);
    }
    return column;
  }

  static void print(std::ostream& out, const std::vector<std::string>& cells, const std::vector<Column>& columns) {
    std::string line;
    for (std::size_t c = 0; c < cells.size(); ++c) {
      const std::string padding(columns[c].width - text_width(cells[c]), ' ');
      if (c > 0) line += "  ";
      line += columns[c].right ? padding + cells[c] : cells[c] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << '\n';
  }

  std::vector<std::string> headings_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace circuit
