#include "circuit/graph/io.hpp"

#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "catch.hpp"
#include "made_up.hpp"

using namespace circuit;
namespace in = made_up;

namespace {

/// A folder that is there for one test.
struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("circuit_io_" + std::to_string(std::random_device{}()));
  Folder() { std::filesystem::create_directory(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path); }
};

/// The JSON of the made-up circuit with one part of the text replaced.
std::string damaged(const std::string& from, const std::string& to) {
  auto text = circuit_json(in::circuit());
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("a circuit comes back from JSON equal, to the last bit of every number") {
  auto circuit = in::circuit();
  std::mt19937_64 random{5};
  std::uniform_real_distribution<double> exponent{-300, 300};
  for (int f = 100; f < 160; ++f) {
    const auto node = Node::attn_feature(Layer{2}, Position{3}, Feature{f});
    const auto wild = [&] { return std::pow(10.0, exponent(random)) * (f % 2 == 0 ? 1 : -1); };
    circuit.add_node({.node = node, .activation = wild(), .attribution = wild(), .nodegrad = wild()});
    circuit.add_edge(node, in::metric,
                     {.type = EdgeType::metric,
                      .nn_grad = wild(),
                      .nn_attrib = wild(),
                      .em_grad = wild(),
                      .em_attrib = wild(),
                      .prompts = f});
  }
  CHECK(parse_circuit(circuit_json(circuit)) == circuit);
  CHECK(parse_circuit(circuit_json(Circuit{})) == Circuit{});
}

TEST_CASE("a circuit comes back from a file equal") {
  const Folder folder;
  save_circuit(folder.path / "c.json", in::circuit());
  CHECK(load_circuit(folder.path / "c.json") == in::circuit());
}

TEST_CASE("tokens with quotes, controls and other scripts come back; broken UTF-8 becomes a replacement character") {
  Circuit circuit{
      {.settings = {{"a\"b", "</script>"}}, .tokens = {"\"", "\n", "\xC3\xA9", std::string("\0", 1), "\xC3"}}};
  const auto back = parse_circuit(circuit_json(circuit));
  circuit.info().tokens.back() = "\xEF\xBF\xBD";
  CHECK(back == circuit);
}

TEST_CASE("text that is not a circuit is refused with file and place") {
  struct Case {
    std::string text;
    std::string place;
  };
  const std::string deep(100000, '[');
  const std::vector<Case> cases{
      {"", ""},
      {"{", ""},
      {deep, ""},
      {"\xFF\xFE", ""},
      {"[]", "format"},
      {"{}", "format"},
      {damaged("circuit-graph", "circuit-tree"), "format"},
      {damaged("\"version\": 1", "\"version\": 2"), "version"},
      {damaged("\"version\": 1", "\"version\": true"), "version"},
      {damaged("\"prompts\": 2", "\"prompts\": 4294967297"), "prompts"},
      {damaged("\"prompts\": 2", "\"prompts\": -1"), "prompts"},
      {damaged("\"prompts\": 2", "\"prompts\": 2.5"), "prompts"},
      {damaged("\"<s>\"", "7"), "tokens"},
      {damaged("\"model gradient\"", "[]"), "settings"},
      {damaged("\"embed.0\"", "\"embed.x\""), "nodes[0]"},
      {damaged("\"embed.0\"", "\"bias\""), "nodes[0]"},
      {damaged("\"embed.1\"", "\"embed.0\""), "nodes[1]"},
      {damaged("\"activation\": 1.0", "\"activation\": null"), "nodes[0]"},
      {damaged("\"activation\": 1.0", "\"activation\": true"), "nodes[0]"},
      {damaged("\"activation\": 1.0", "\"activation\": NaN"), ""},
      {damaged("\"activation\": 1.0", "\"activation\": 1e999"), ""},
      {damaged("\"activation\": 1.0,", ""), "nodes[0]"},
      {damaged("\"up\": \"embed.1\"", "\"up\": \"embed.7\""), "edges[0]"},
      {damaged("\"type\": \"ov\"", "\"type\": \"vo\""), "edges[0]"},
      {damaged("\"type\": \"ov\"", "\"type\": \"mlp\""), "edges[0]"},
      {damaged("\"type\": \"mlp\"", "\"type\": 3"), "edges[1]"},
      {damaged("\"target\": \"metric\"", "\"target\": \"embed.1\""), "biases[1]"},
      {damaged("\"biases\"", "\"bises\""), "biases"},
  };
  for (const auto& [text, place] : cases) {
    CAPTURE(text.substr(0, 60), place);
    try {
      static_cast<void>(parse_circuit(text, "c.json"));
      FAIL("accepted");
    } catch (const FormatError& e) {
      CHECK(e.details().file == "c.json");
      CHECK(e.details().tensor == place);
    }
  }
}

TEST_CASE("every truncation of a circuit's file is refused") {
  const auto text = circuit_json(in::circuit());
  for (std::size_t size = 0; size + 2 < text.size(); size += 7) {
    CHECK_THROWS_AS(parse_circuit(std::string_view{text}.substr(0, size)), FormatError);
  }
}

TEST_CASE("a file that is missing, a folder, or a place that cannot be written is a file error") {
  const Folder folder;
  CHECK_THROWS_AS(load_circuit(folder.path / "none.json"), FileError);
  CHECK_THROWS_AS(load_circuit(folder.path), FileError);
  CHECK_THROWS_AS(save_circuit(folder.path / "none" / "c.json", in::circuit()), FileError);
  CHECK(std::filesystem::is_empty(folder.path));
}
