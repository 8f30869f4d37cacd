#include "circuit/graph/edge_table.hpp"

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "made_up.hpp"

using namespace circuit;
namespace in = made_up;

namespace {

std::vector<std::vector<std::string>> rows_of(const std::string& text, char separator) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream lines{text};
  for (std::string line; std::getline(lines, line);) {
    auto& row = rows.emplace_back(1);
    for (const char c : line) {
      if (c == separator) {
        row.emplace_back();
      } else {
        row.back() += c;
      }
    }
  }
  return rows;
}

}  // namespace

TEST_CASE("an edge table has one header, one row per edge and one per constant, all of 16 fields") {
  EdgeTable table;
  table.append(in::circuit());
  const auto rows = rows_of(table.text(), ',');
  CHECK(rows.size() == 1 + 10 + 2);
  for (const auto& row : rows) CHECK(row.size() == 16);
  CHECK(table.text().starts_with(
      "prompt,up_kind,up_layer,up_position,up_feature,down_kind,down_layer,down_position,down_feature,type,nn_grad,"
      "nn_attrib,em_grad,em_attrib,activation,contrast_activation\n"));
}

TEST_CASE("an edge's row holds its ends, its numbers and the upstream node's activations") {
  EdgeTable table{'\t'};
  table.append(in::circuit());
  const auto rows = rows_of(table.text(), '\t');
  CHECK(rows[2] == std::vector<std::string>{"mean", "attn", "0", "2", "3", "mlp", "0", "2", "8", "mlp", "0.1",
                                            "0.3333333333333333", "0.7", "-1", "1", "0.5"});
  CHECK(rows[8] == std::vector<std::string>{"mean", "attn", "1", "3", "5", "metric", "", "", "", "metric", "0.1",
                                            "-1.6666666666666667", "0.7", "5", "1", "0.5"});
}

TEST_CASE("a target's constants are rows whose upstream kind is bias") {
  EdgeTable table;
  table.append(in::circuit());
  const auto rows = rows_of(table.text(), ',');
  CHECK(rows[11] == std::vector<std::string>{"mean", "bias", "", "", "", "attn", "1", "3", "5", "ov", "", "0.1", "",
                                             "0.3", "", ""});
}

TEST_CASE("numbers in a table read back exactly") {
  Circuit circuit;
  circuit.add_node({.node = in::embed1, .activation = 1.0 / 3});
  circuit.add_node({.node = in::metric});
  const Edge edge{.type = EdgeType::metric,
                  .nn_grad = 1e-300,
                  .nn_attrib = 0.1 + 0.2,
                  .em_grad = -2.0 / 3,
                  .em_attrib = 123456789.123456789};
  circuit.add_edge(in::embed1, in::metric, edge);
  EdgeTable table;
  table.append(circuit);
  const auto row = rows_of(table.text(), ',')[1];
  CHECK(std::strtod(row[10].c_str(), nullptr) == edge.nn_grad);
  CHECK(std::strtod(row[11].c_str(), nullptr) == edge.nn_attrib);
  CHECK(std::strtod(row[12].c_str(), nullptr) == edge.em_grad);
  CHECK(std::strtod(row[13].c_str(), nullptr) == edge.em_attrib);
  CHECK(std::strtod(row[14].c_str(), nullptr) == 1.0 / 3);
}

TEST_CASE("one table holds several prompts, each row under its prompt") {
  EdgeTable table;
  table.append(in::circuit(), Prompt{0});
  table.append(in::circuit(), Prompt{1});
  const auto rows = rows_of(table.text(), ',');
  CHECK(rows.size() == 1 + 2 * 12);
  CHECK(rows[1][0] == "0");
  CHECK(rows[13][0] == "1");
}

TEST_CASE("a label that would break the table is refused and adds nothing") {
  EdgeTable table;
  const auto before = table.text();
  for (const auto* label : {"", "a,b", "a\nb", "\"a\""})
    CHECK_THROWS_AS(table.append(in::circuit(), label), ValueError);
  CHECK(table.text() == before);
}

TEST_CASE("the separator follows the file's name") {
  CHECK(table_separator("edges.tsv") == '\t');
  CHECK(table_separator("edges.csv") == ',');
  CHECK(table_separator("edges") == ',');
}

TEST_CASE("a table that cannot be written is a file error") {
  CHECK_THROWS_AS(save_edge_table("/no/such/folder/edges.csv", in::circuit()), FileError);
}
