#include "circuit/report/table.hpp"

#include <limits>
#include <sstream>

#include "catch.hpp"

using namespace circuit;

namespace {

std::string text(const TextTable& table) {
  std::ostringstream out;
  out << table;
  return out.str();
}

}  // namespace

TEST_CASE("columns line up, numbers to the right and words to the left") {
  TextTable table{{"cluster", "n", "reduction"}};
  table.add_row({"C1", "12", "-3.25"}).add_row({"control", "3", "10.5 %"});
  CHECK(text(table) ==
        "cluster   n  reduction\n"
        "-------  --  ---------\n"
        "C1       12      -3.25\n"
        "control   3     10.5 %\n");
}

TEST_CASE("a table without rows shows its headings") { CHECK(text(TextTable{{"a", "b"}}) == "a  b\n-  -\n"); }

TEST_CASE("cells of several bytes per character line up") {
  TextTable table{{"t", "x"}};
  table.add_row({"\xC3\xA9\xC3\xA9", "a"}).add_row({"ee", "a"});
  CHECK(text(table) == "t   x\n--  -\n\xC3\xA9\xC3\xA9  a\nee  a\n");
}

TEST_CASE("a cell stays on its line") {
  TextTable table{{"token"}};
  table.add_row({"a\nb"});
  CHECK(text(table) == "token\n-----\na\\nb\n");
}

TEST_CASE("a row of the wrong length is refused and not added") {
  TextTable table{{"a", "b"}};
  CHECK_THROWS_AS(table.add_row({"1"}), ValueError);
  CHECK_THROWS_AS(table.add_row({"1", "2", "3"}), ValueError);
  CHECK(table.row_count() == 0);
}

TEST_CASE("numbers have the decimals asked for, and no negative zero") {
  CHECK(fixed(3.14159, 2) == "3.14");
  CHECK(fixed(-0.0004) == "0.000");
  CHECK(fixed(-0.0006) == "-0.001");
  CHECK(fixed(1e20, 0) == "100000000000000000000");
  CHECK(fixed(std::numeric_limits<double>::max(), 0).size() == 309);
  CHECK(percent(0.2345) == "23.4 %");
}
