// The page's script, run by a real browser. It needs Chromium, whose program the variable CIRCUIT_CHROMIUM names;
// without it these cases only say so, since neither the library nor its other tests need a browser.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "../graph/made_up.hpp"
#include "catch.hpp"
#include "circuit/graph/view.hpp"
#include "circuit/report/graph_page.hpp"

using namespace circuit;
namespace in = made_up;

namespace {

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("circuit_page_" + std::to_string(std::random_device{}()));
  Folder() { std::filesystem::create_directory(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path); }
};

const char* browser() { return std::getenv("CIRCUIT_CHROMIUM"); }

/// What `script` returns when it runs at the end of the page.
nlohmann::json ask(const std::string& page, const std::string& script) {
  const Folder folder;
  auto probe = page;
  const std::string code = "<script>let answer; try { answer = (() => {" + script +
                           "})(); } catch (error) { answer = { failed: String(error) }; }"
                           "document.body.replaceChildren(document.createTextNode('ANSWER' + "
                           "btoa(unescape(encodeURIComponent(JSON.stringify(answer)))) + 'END'));</script>";
  probe.insert(probe.rfind("</body>"), code);
  write_file(folder.path / "page.html", probe);
  const auto command = std::string{browser()} +
                       " --headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run"
                       " --window-size=1500,900 --user-data-dir=" +
                       (folder.path / "profile").string() + " --dump-dom file://" +
                       (folder.path / "page.html").string() + " 2>/dev/null";
  std::string dom;
  auto* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) dom += static_cast<char>(c);
  pclose(pipe);
  const auto from = dom.find(">ANSWER");
  REQUIRE(from != std::string::npos);
  const auto text = dom.substr(from + 7, dom.find("END", from) - from - 7);
  std::string bytes;
  unsigned bits = 0;
  int have = 0;
  for (const char c : text) {
    const auto at = std::string{"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"}.find(c);
    if (at == std::string::npos) break;
    bits = (bits << 6U) | static_cast<unsigned>(at);
    if ((have += 6) >= 8) bytes += static_cast<char>((bits >> static_cast<unsigned>(have -= 8)) & 255U);
  }
  return nlohmann::json::parse(bytes);
}

using Triple = std::tuple<std::string, std::string, std::string>;

std::vector<Triple> shown(const nlohmann::json& edges) {
  std::vector<Triple> triples;
  for (const auto& e : edges) triples.emplace_back(e["up"], e["down"], e["type"]);
  std::ranges::sort(triples);
  return triples;
}

std::vector<Triple> triples(const Circuit& circuit) {
  std::vector<Triple> found;
  for (const auto& [up, down, edge] : circuit.edges())
    found.emplace_back(to_string(up), to_string(down), name(edge.type));
  std::ranges::sort(found);
  return found;
}

#define NEEDS_BROWSER                                                  \
  if (browser() == nullptr) {                                          \
    WARN("CIRCUIT_CHROMIUM is not set: the page's script is not run"); \
    return;                                                            \
  }

}  // namespace

TEST_CASE("the page shows what the views of the circuit hold") {
  NEEDS_BROWSER
  const auto whole = in::circuit();
  const auto answer = ask(graph_page(whole), R"js(
    const page = window.circuitPage, answer = {};
    answer.first = page.edges();
    page.set({first: true, errors: true}); answer.all = page.edges();
    page.set({limit: 0.6}); answer.em = page.edges();
    page.set({shown: 'nn'}); answer.nn = page.edges();
    page.set({limit: 0, types: new Set(['q', 'metric'])}); answer.typed = page.edges();
    page.set({types: new Set(['ov', 'q', 'k', 'mlp', 'metric'])}); page.pin('mlp.0.2.8'); answer.pinned = page.edges();
    page.clear(); answer.cleared = page.edges();
    return answer;)js");
  CAPTURE(answer.dump());
  CHECK(shown(answer["first"]) == triples(without_errors(without_position(whole))));
  CHECK(shown(answer["all"]) == triples(whole));
  CHECK(shown(answer["em"]) == triples(above(whole, 0.6)));
  CHECK(shown(answer["nn"]) == triples(above(whole, 0.6, Attribution::nn)));
  CHECK(shown(answer["typed"]) == triples(with_edges(whole, [](const EdgeRef& ref) {
          return ref.edge.type == EdgeType::q || ref.edge.type == EdgeType::metric;
        })));
  CHECK(shown(answer["pinned"]) == triples(through(whole, in::neuron)));
  CHECK(shown(answer["cleared"]) == triples(whole));
}

TEST_CASE("on the page deeper nodes stand higher, later positions further right, and no two nodes overlap") {
  NEEDS_BROWSER
  auto crowded = in::circuit();
  for (int f = 100; f < 140; ++f) {
    crowded.add_node({.node = Node::mlp_feature(Layer{0}, Position{2}, Feature{f}), .attribution = 1.0 + f});
    crowded.add_edge(in::dup, Node::mlp_feature(Layer{0}, Position{2}, Feature{f}), {.type = EdgeType::mlp});
  }
  const auto answer = ask(graph_page(crowded, {.position_zero = true, .errors = true}), R"js(
    const page = window.circuitPage, views = [page.nodes()];
    page.set({spacing: 60}); views.push(page.nodes());
    return views;)js");
  REQUIRE(answer.size() == 2);
  double widest = 0;
  for (const auto& nodes : answer) {
    REQUIRE(nodes.size() == crowded.node_count());
    double least = 1e9;
    double most = 0;
    for (const auto& a : nodes) {
      const auto first = parse_node(a["id"].get<std::string>());
      least = std::min(least, a["x"].get<double>());
      most = std::max(most, a["x"].get<double>());
      for (const auto& b : nodes) {
        const auto second = parse_node(b["id"].get<std::string>());
        const double dx = a["x"].get<double>() - b["x"].get<double>();
        const double dy = a["y"].get<double>() - b["y"].get<double>();
        CAPTURE(a.dump(), b.dump());
        if (depth(first) < depth(second)) CHECK(dy > 0);
        if (has_position(first.kind) && has_position(second.kind) && first.position < second.position) CHECK(dx < 0);
        if (first != second) CHECK(std::hypot(dx, dy) > a["r"].get<double>() + b["r"].get<double>());
      }
    }
    CHECK(most - least > widest);  // the spacing slider spreads the nodes
    widest = most - least;
  }
}

TEST_CASE("components stand in one column without a token, the input below all layers, and logits beside each other") {
  NEEDS_BROWSER
  Circuit c;
  c.info().tokens = {"<bos>", " a"};
  const auto head = Node::head(Layer{0}, Head{1});
  for (const auto& node : {Node::input(), head, Node::mlp_block(Layer{1})})
    c.add_node({.node = node, .attribution = 1});
  for (std::int32_t token = 0; token < 5; ++token) c.add_node({.node = Node::logit(Position{1}, 1000 + token)});
  c.add_edge(Node::input(), head, {.type = EdgeType::q, .em_attrib = 1});
  c.add_edge(head, Node::mlp_block(Layer{1}), {.type = EdgeType::mlp, .em_attrib = 1});
  c.add_edge(Node::mlp_block(Layer{1}), Node::logit(Position{1}, 1000), {.type = EdgeType::metric, .em_attrib = 1});
  const auto only_components = [](const Node& node) {
    return node.kind != NodeKind::logit ? "x" : "logit " + std::to_string(node.feature.value);
  };
  const auto answer = ask(graph_page(c, {.label = only_components}),
                          "window.circuitPage.set({names: false}); return {nodes: window.circuitPage.nodes(), pills: "
                          "[...document.querySelectorAll('.node.metric rect')].map(r => [Number(r.getAttribute('x')), "
                          "Number(r.getAttribute('width'))])};");
  std::map<std::string, double> height;
  for (const auto& n : answer.at("nodes")) {
    REQUIRE(n.at("x").is_number());
    height[n.at("id").get<std::string>()] = n.at("y").get<double>();
  }
  REQUIRE(height.at("input") > height.at("head.0.1"));
  REQUIRE(height.at("head.0.1") > height.at("mlp_block.1"));
  REQUIRE(height.at("mlp_block.1") > height.at("logit.1.1000"));
  auto pills = answer.at("pills").get<std::vector<std::pair<double, double>>>();
  REQUIRE(pills.size() == 5);
  std::ranges::sort(pills);
  for (std::size_t i = 1; i < pills.size(); ++i) REQUIRE(pills[i - 1].first + pills[i - 1].second < pills[i].first);
}

TEST_CASE("hovering a node shows its values and its link, and hovering an edge both gradients and attributions") {
  NEEDS_BROWSER
  auto circuit = in::circuit();
  circuit.info().tokens[3] = "<img src=x onerror=alert(1)>";
  const auto answer = ask(graph_page(circuit, {.links = {.attn = "gpt2-small/{layer}-att-kk/{feature}"}}), R"js(
    const tip = document.getElementById('tip'), answer = {};
    const node = [...document.querySelectorAll('.node')].find(n => n.textContent === '5');
    node.dispatchEvent(new PointerEvent('pointerenter', {clientX: 300, clientY: 300}));
    answer.node = tip.textContent; answer.hidden = tip.hidden;
    answer.link = tip.querySelector('a').href;
    node.dispatchEvent(new MouseEvent('click', {bubbles: true}));
    answer.side = document.getElementById('side').textContent;
    const path = [...document.querySelectorAll('.edge')].find(e => e.getAttribute('stroke') === 'var(--metric)');
    const at = path.getPointAtLength(path.getTotalLength() / 2).matrixTransform(path.getScreenCTM());
    document.querySelector('#stage svg').dispatchEvent(
        new PointerEvent('pointermove', {clientX: at.x, clientY: at.y, bubbles: true}));
    answer.edge = tip.textContent;
    answer.images = document.images.length;
    return answer;)js");
  CAPTURE(answer.dump());
  const auto holds = [](const nlohmann::json& text, const char* words) {
    return text.get<std::string>().find(words) != std::string::npos;
  };
  CHECK(answer["hidden"] == false);
  CHECK(holds(answer["node"], "attn.1.3.5"));
  CHECK(holds(answer["node"], "contrast activation0.5"));
  CHECK(holds(answer["node"], "<img src=x"));
  CHECK(answer["link"] == "https://www.neuronpedia.org/gpt2-small/1-att-kk/5");
  CHECK(holds(answer["side"], "mlp.0.2.8"));
  CHECK(holds(answer["edge"], "attn.1.3.5 \xE2\x86\x92 metric by metric"));
  CHECK(holds(answer["edge"], "0.7"));     // em gradient
  CHECK(holds(answer["edge"], "-1.667"));  // nn attribution
  CHECK(answer["images"] == 0);
}

TEST_CASE("pages of an empty circuit and of a large one run") {
  NEEDS_BROWSER
  const auto empty = ask(graph_page(Circuit{}), "return window.circuitPage.edges().length;");
  CHECK(empty == 0);
  Circuit large;
  large.add_node({.node = in::metric});
  for (int f = 0; f < 2000; ++f) {
    const auto node = Node::mlp_feature(Layer{f % 12}, Position{1 + f % 16}, Feature{f});
    large.add_node({.node = node, .attribution = 1});
    large.add_edge(node, in::metric, {.type = EdgeType::metric, .em_attrib = f + 1.0});
  }
  const auto answer = ask(graph_page(large), R"js(
    const start = performance.now();
    window.circuitPage.set({spacing: 30});
    return {edges: window.circuitPage.edges().length, ms: performance.now() - start};)js");
  CAPTURE(answer.dump());
  CHECK(answer["edges"] == 2000);
  CHECK(answer["ms"] < 2000);
}
