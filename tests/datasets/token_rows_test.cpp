#include "circuit/data/token_rows.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "catch.hpp"
#include "circuit/core/atomic_file.hpp"
#include "circuit/text/train_bpe.hpp"

using namespace circuit;
using circuit_test::ContainsSubstring;
using data::Cut;
using data::TextRows;
using Rows = std::vector<std::vector<std::int32_t>>;

namespace {

/// Bytes, and a BOS.
const Tokenizer& bytes_only() {
  static const Tokenizer made = train_bpe(WordCounts{}, BpeTrainingOptions{}).tokenizer();
  return made;
}

std::string text_of(const std::vector<std::int32_t>& row) { return bytes_only().decode(row); }

Rows sorted(Rows rows) {
  std::sort(rows.begin(), rows.end());
  return rows;
}

}  // namespace

TEST_CASE("packed rows are the text, cut where they are full") {
  TextRows rows{bytes_only(), "abcdefghij", {.length = 3, .bos = Bos::none}};
  CHECK(rows.size() == 3);
  CHECK(rows.tokens() == 9);
  std::vector<std::string> texts;
  for (const auto& row : rows.rows(0, 3)) texts.push_back(text_of(row));
  std::sort(texts.begin(), texts.end());
  CHECK(texts == std::vector<std::string>{"abc", "def", "ghi"});
}

TEST_CASE("a row per line, each behind a BOS, long ones cut off") {
  REQUIRE(bytes_only().bos_id());
  TextRows rows{bytes_only(), "one\r\n\r\nthree\nx", {.length = 4, .cut = Cut::lines}};
  CHECK(rows.size() == 3);
  std::vector<std::string> texts;
  for (const auto& row : rows.rows(0, 3)) {
    CHECK(row.front() == *bytes_only().bos_id());
    texts.push_back(text_of({row.begin() + 1, row.end()}));
  }
  std::sort(texts.begin(), texts.end());
  CHECK(texts == std::vector<std::string>{"one", "thr", "x"});
}

TEST_CASE("every time through, each row comes once, in another order, from wherever one begins to read") {
  std::string text;
  for (char c = 'a'; c <= 'z'; ++c) text += std::string(2, c) + '\n';
  TextRows rows{bytes_only(), text, {.length = 8, .cut = Cut::lines}};
  const auto first = rows.rows(0, 26);
  const auto second = rows.rows(26, 26);
  CHECK(first != second);
  CHECK(sorted(first) == sorted(second));
  TextRows again{bytes_only(), text, {.length = 8, .cut = Cut::lines}};
  const auto middle = again.rows(20, 12);
  for (std::size_t i = 0; i < 12; ++i) CHECK(middle[i] == (i < 6 ? first[20 + i] : second[i - 6]));
  TextRows other{bytes_only(), text, {.length = 8, .cut = Cut::lines, .seed = 2}};
  CHECK(other.rows(0, 26) != first);
}

TEST_CASE("rows held out do not come back") {
  TextRows rows{bytes_only(), "a\nb\nc\nd\ne\nf\n", {.length = 4, .cut = Cut::lines}};
  const auto held_out = rows.hold_out(2);
  CHECK(held_out.size() == 2);
  CHECK(rows.size() == 4);
  for (const auto& row : rows.rows(0, 8)) CHECK(std::find(held_out.begin(), held_out.end(), row) == held_out.end());
  CHECK_THROWS_WITH(rows.hold_out(4), ContainsSubstring("too short to hold out 4 rows"));
}

TEST_CASE("rows that are there already come as those of a text do") {
  const Rows given{{1, 2}, {3}, {4, 5, 6}};
  TextRows rows{given, 3};
  CHECK(rows.size() == 3);
  CHECK(rows.tokens() == 6);
  CHECK(sorted(rows.rows(0, 3)) == given);
  CHECK(sorted(rows.rows(3, 3)) == given);
  CHECK_THROWS_AS(TextRows{Rows{}}, ValueError);
}

TEST_CASE("sources in turn give each its own rows, from wherever one begins to read") {
  struct Counted {
    std::int32_t source;
    [[nodiscard]] Rows rows(std::int64_t first, std::int64_t count) const {
      Rows out;
      for (auto i = first; i < first + count; ++i) out.push_back({source, static_cast<std::int32_t>(i)});
      return out;
    }
  };
  data::RowsInTurn rows{std::vector<Counted>{{7}, {8}, {9}}};
  CHECK(rows.rows(0, 5) == Rows{{7, 0}, {8, 0}, {9, 0}, {7, 1}, {8, 1}});
  CHECK(rows.rows(4, 4) == Rows{{8, 1}, {9, 1}, {7, 2}, {8, 2}});
  CHECK(rows.rows(2, 1) == Rows{{9, 0}});
  CHECK(rows.rows(3, 0).empty());
  CHECK_THROWS_AS(data::RowsInTurn{std::vector<Counted>{}}, ValueError);
}

TEST_CASE("texts that give no rows are one clear error") {
  CHECK_THROWS_WITH((TextRows{bytes_only(), "", {.length = 3}}), ContainsSubstring("\"text\": is too short"));
  CHECK_THROWS_AS((TextRows{bytes_only(), "ab", {.length = 9}}), ValueError);
  CHECK_THROWS_AS((TextRows{bytes_only(), "\n\n", {.length = 9, .cut = Cut::lines}}), ValueError);
  CHECK_THROWS_AS((TextRows{bytes_only(), "abcd", {.length = 1}}), ValueError);
  CHECK_THROWS_AS((TextRows{bytes_only(), "\xff\xfe abcd", {.length = 3}}), ValueError);
  const std::vector<std::filesystem::path> missing{"no/such/text"};
  CHECK_THROWS_AS((TextRows{bytes_only(), missing, {.length = 3}}), FileError);
}

TEST_CASE("task rows are the same at every reading, and no two alike") {
  const data::TaskRows rows{bytes_only(), {.length = 60}};
  const auto ten = rows.rows(0, 10);
  CHECK(rows.rows(4, 1).front() == ten[4]);
  for (std::size_t i = 1; i < ten.size(); ++i) CHECK(ten[i] != ten[0]);
  for (const auto& row : ten) CHECK(row.size() <= 60);
  CHECK(data::TaskRows{bytes_only(), {.length = 60, .seed = 2}}.rows(0, 10) != ten);
}
