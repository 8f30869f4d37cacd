#include "circuit/report/dot.hpp"

#include <boost/property_tree/ptree.hpp>
#include <boost/property_tree/xml_parser.hpp>
#include <sstream>
#include <string>

#include "../graph/made_up.hpp"
#include "catch.hpp"
#include "report/count.hpp"

using namespace circuit;
namespace in = made_up;

TEST_CASE("DOT has every node once, every edge once, and layers upward") {
  const auto text = dot(in::circuit());
  CHECK(count(text, " [label=") == 8);
  CHECK(count(text, " -> ") == 10);
  CHECK(count(text, "\"attn.0.2.3\" -> \"attn.1.3.5\"") == 2);
  CHECK(count(text, "rankdir=BT") == 1);
  CHECK(count(text, "rank=same") == 5);
  CHECK(count(text, "style=dashed") == 2);
}

TEST_CASE("DOT quotes what tokens hold") {
  auto circuit = in::circuit();
  circuit.info().tokens[1] = " \"];\n\\";
  const auto text = dot(circuit);
  CHECK(text.find(R"(label="embed.1 \"];\\n\\")") != std::string::npos);
}

TEST_CASE("GraphML is well formed and holds every value exactly") {
  auto circuit = in::circuit();
  circuit.info().tokens[1] = " </data><x a='\"&";
  std::istringstream stream{graphml(circuit)};
  boost::property_tree::ptree tree;
  read_xml(stream, tree);
  std::size_t nodes = 0;
  std::vector<EdgeRef> edges;
  std::string token;
  for (const auto& [tag, item] : tree.get_child("graphml.graph")) {
    if (tag == "node") {
      ++nodes;
      const auto node = parse_node(item.get<std::string>("<xmlattr>.id"));
      for (const auto& [part, data] : item) {
        if (node == in::embed1 && part == "data" && data.get<std::string>("<xmlattr>.key") == "node_token") {
          token = data.data();
        }
      }
    }
    if (tag != "edge") continue;
    auto& ref = edges.emplace_back(EdgeRef{parse_node(item.get<std::string>("<xmlattr>.source")),
                                           parse_node(item.get<std::string>("<xmlattr>.target")),
                                           {}});
    for (const auto& [part, data] : item) {
      if (part != "data") continue;
      const auto key = data.get<std::string>("<xmlattr>.key");
      if (key == "edge_type") ref.edge.type = parse_edge_type(data.data());
      if (key == "edge_nn_grad") ref.edge.nn_grad = std::stod(data.data());
      if (key == "edge_nn_attrib") ref.edge.nn_attrib = std::stod(data.data());
      if (key == "edge_em_grad") ref.edge.em_grad = std::stod(data.data());
      if (key == "edge_em_attrib") ref.edge.em_attrib = std::stod(data.data());
      if (key == "edge_prompts") ref.edge.prompts = std::stoi(data.data());
    }
  }
  CHECK(nodes == 8);
  CHECK(token == "</data><x a='\"&");
  CHECK(std::ranges::equal(edges, circuit.edges()));
}

TEST_CASE("empty circuits export too") {
  CHECK(count(dot(Circuit{}), "->") == 0);
  CHECK(count(graphml(Circuit{}), "<edge") == 0);
}
