#include "circuit/report/graph_page.hpp"

#include <cmath>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

#include "../graph/made_up.hpp"
#include "catch.hpp"
#include "report/count.hpp"

using namespace circuit;
namespace in = made_up;

namespace {

/// The data of a page, found as a browser finds it: from the element's start to the first end tag.
nlohmann::json data_of(const std::string& page) {
  const std::string start = "<script type=\"application/json\" id=\"circuit-data\">";
  const auto from = page.find(start) + start.size();
  return nlohmann::json::parse(page.substr(from, page.find("</script", from) - from));
}

nlohmann::json node_data(const nlohmann::json& data, const Node& node) {
  for (const auto& item : data["nodes"]) {
    if (item["id"] == to_string(node)) return item;
  }
  return {};
}

}  // namespace

TEST_CASE("a page holds every node and edge with both attributions, both gradients and activations") {
  const auto circuit = in::circuit();
  const auto data = data_of(graph_page(circuit));
  REQUIRE(data["nodes"].size() == 8);
  REQUIRE(data["edges"].size() == 10);
  std::size_t i = 0;
  for (const auto& [up, down, edge] : circuit.edges()) {
    const auto& item = data["edges"][i++];
    CHECK(data["nodes"][item["up"].get<std::size_t>()]["id"] == to_string(up));
    CHECK(data["nodes"][item["down"].get<std::size_t>()]["id"] == to_string(down));
    CHECK(item["type"] == name(edge.type));
    CHECK(item["nn_grad"] == edge.nn_grad);
    CHECK(item["nn_attrib"] == edge.nn_attrib);
    CHECK(item["em_grad"] == edge.em_grad);
    CHECK(item["em_attrib"] == edge.em_attrib);
  }
  const auto mover = node_data(data, in::mover);
  CHECK(mover["activation"] == 1);
  CHECK(mover["contrast_activation"] == 0.5);
  CHECK(mover["layer"] == 1);
  CHECK(mover["position"] == 3);
  CHECK(mover["feature"] == 5);
  CHECK(mover["biases"][0]["em_attrib"] == 0.3);
  CHECK_FALSE(node_data(data, in::metric).contains("layer"));
}

TEST_CASE("a page holds what constants, changed maps and remainders give a node") {
  auto circuit = in::circuit();
  circuit.add_bias(
      {.target = in::mover, .type = EdgeType::q, .nn_attrib = 0, .em_attrib = 0, .nn_map = 0.25, .nn_remainder = -0.5});
  const auto rows = node_data(data_of(graph_page(circuit)), in::mover)["biases"];
  REQUIRE(rows.size() == 2);
  CHECK(rows[1]["type"] == "q");
  CHECK(rows[1]["nn_map"] == 0.25);
  CHECK(rows[1]["nn_remainder"] == -0.5);
  CHECK(rows[1]["em_remainder"] == 0);
}

TEST_CASE("position 0 and errors are hidden at first unless asked for") {
  const auto plain = data_of(graph_page(in::circuit()));
  CHECK(plain["first"] == false);
  CHECK(plain["errors"] == false);
  CHECK(plain["shown"] == "em");
  const auto asked = data_of(
      graph_page(in::circuit(), {.shown = Attribution::nn, .threshold = 0.25, .position_zero = true, .errors = true}));
  CHECK(asked["first"] == true);
  CHECK(asked["errors"] == true);
  CHECK(asked["shown"] == "nn");
  CHECK(asked["threshold"] == 0.25);
}

TEST_CASE("a page asks nobody for anything") {
  const auto page = graph_page(in::circuit());
  CHECK(count(page, "src=") == 0);
  CHECK(count(page, "<link") == 0);
  CHECK(count(page, "@import") + count(page, "url(") + count(page, "fetch(") == 0);
  CHECK(count(page, "default-src 'none'") == 1);
  // The only addresses are the SVG namespace's name and, here, no feature's.
  CHECK(count(page, "://") == count(page, "http://www.w3.org/2000/svg"));
}

TEST_CASE("nothing in tokens, titles, names or settings can leave its place") {
  auto circuit = in::circuit();
  const std::string attack = "</script><script>alert(1)</script><!--<b>\"'&\xE2\x80\xA8";
  circuit.info().tokens = {attack, attack, attack, "\xFF" + attack};
  circuit.info().settings = {{attack, attack}};
  const auto clean = graph_page(in::circuit(), {.title = "t"});
  const auto page = graph_page(circuit, {.title = attack, .label = [&](const Node&) { return attack; }});
  for (const auto* markup : {"<script", "</script", "<!--", "<b>", "alert(1)</"}) {
    CAPTURE(markup);
    CHECK(count(page, markup) == count(clean, markup));
  }
  const auto data = data_of(page);
  CHECK(data["tokens"][0] == attack);
  CHECK(data["title"] == attack);
  CHECK(data["nodes"][0]["label"] == attack);
}

TEST_CASE("a feature links to Neuronpedia where its module has a pattern") {
  const FeatureLinks links{.attn = "gpt2-small/{layer}-att-kk/{feature}"};
  const auto feature = Node::attn_feature(Layer{5}, Position{10}, Feature{7515});
  CHECK(links.address(feature) == "https://www.neuronpedia.org/gpt2-small/5-att-kk/7515");
  CHECK(links.address(Node::mlp_feature(Layer{5}, Position{10}, Feature{1})).empty());
  CHECK(links.address(Node::attn_error(Layer{5}, Position{10})).empty());
  const Node stream{NodeKind::resid_feature, Layer{8}, Position{1}, Feature{12}};
  CHECK(links.address(stream).empty());
  CHECK(FeatureLinks{.resid = "gpt2-small/{layer}-res-jb/{feature}"}.address(stream) ==
        "https://www.neuronpedia.org/gpt2-small/8-res-jb/12");
  CHECK(FeatureLinks{.mlp = "https://example.org/{feature}?l={layer}&again={feature}"}.address(
            Node::mlp_feature(Layer{2}, Position{0}, Feature{3})) == "https://example.org/3?l=2&again=3");

  const auto data = data_of(graph_page(in::circuit(), {.links = links}));
  CHECK(node_data(data, in::mover)["url"] == "https://www.neuronpedia.org/gpt2-small/1-att-kk/5");
  CHECK_FALSE(node_data(data, in::neuron).contains("url"));
}

TEST_CASE("a caller's own link goes before the patterns, and only web addresses are accepted") {
  const auto own = [](const Node& node) {
    return node == in::mover ? std::string{"http://localhost/mover"} : std::string{};
  };
  const auto data = data_of(graph_page(in::circuit(), {.links = {.attn = "a/{layer}/{feature}"}, .link = own}));
  CHECK(node_data(data, in::mover)["url"] == "http://localhost/mover");
  CHECK(node_data(data, in::dup)["url"] == "https://www.neuronpedia.org/a/0/3");
  CHECK_THROWS_AS(graph_page(in::circuit(), {.link = [](const Node&) { return "javascript:alert(1)"; }}), ValueError);
  CHECK_THROWS_AS(graph_page(in::circuit(), {.links = {.attn = "javascript://x/{feature}"}}), ValueError);
}

TEST_CASE("a threshold that is not a number of 0 or more is refused") {
  CHECK_THROWS_AS(graph_page(in::circuit(), {.threshold = -1}), ValueError);
  CHECK_THROWS_AS(graph_page(in::circuit(), {.threshold = std::nan("")}), ValueError);
}

TEST_CASE("a page that cannot be written is a file error") {
  CHECK_THROWS_AS(save_graph_page("/no/such/folder/page.html", in::circuit()), FileError);
}
