// How far LEAP's edges, and not only its nodes, are the model: the strongest of them alone carry a change from each
// prompt's corrupt run to the clean one, through live patterns and norms. Beside them the same edges by their direct
// share of the target alone, and in an order drawn by chance.
//
//   342_edge_faithfulness [PROMPTS] [THRESHOLD] [SEED]     prompts to search and judge (16), on edges (0.001), of chance (1)
#include <circuit/evaluate/edge_run.hpp>
#include <circuit/evaluate/faithfulness.hpp>
#include <circuit/leap.hpp>
#include <circuit/model/gradient_rule.hpp>
#include <circuit/report/table.hpp>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <map>
#include <queue>
#include <random>

using namespace circuit;

namespace {

using Ranked = std::vector<ReadEdge>;

Ranked read_by(std::vector<EdgeRef> edges) {
  Ranked out;
  for (const auto& [up, down, edge] : edges) out.push_back({up, down, edge.type});
  return out;
}

/// The largest first.
Ranked largest(const Circuit& circuit, Attribution by) {
  std::vector<EdgeRef> edges;
  for (const auto& e : circuit.edges()) edges.push_back(e);
  std::ranges::stable_sort(edges, std::ranges::greater{}, [&](const EdgeRef& e) { return magnitude(e.edge, by); });
  return read_by(std::move(edges));
}

/// From the metric down: always the largest edge into what an edge taken before has reached, so that none leads nowhere.
Ranked grown(const Circuit& circuit) {
  const auto smaller = [](const EdgeRef& a, const EdgeRef& b) {
    return magnitude(a.edge, Attribution::em) < magnitude(b.edge, Attribution::em);
  };
  std::priority_queue<EdgeRef, std::vector<EdgeRef>, decltype(smaller)> next{smaller};
  std::map<Node, bool> reached;
  const auto reach = [&](const Node& node) {
    if (!std::exchange(reached[node], true)) {
      for (const auto& e : circuit.incoming(node)) next.push(e);
    }
  };
  reach(Node::metric());
  std::vector<EdgeRef> edges;
  while (!next.empty()) {
    edges.push_back(next.top());
    next.pop();
    reach(edges.back().up);
  }
  return read_by(std::move(edges));
}

}  // namespace

int main(int argc, char** argv) {
  const auto prompts = static_cast<std::size_t>(argc > 1 ? std::atoi(argv[1]) : 16);
  const keep::Above above{argc > 2 ? std::atof(argv[2]) : 0.001};
  const auto model = load_model<Gpt2>(CIRCUIT_EXAMPLE_DATA "/model");
  const auto dictionaries = load_dictionaries(CIRCUIT_EXAMPLE_DATA "/attn-saes", CIRCUIT_EXAMPLE_DATA "/transcoders");
  const auto batch = load_contrast_batch(CIRCUIT_EXAMPLE_DATA "/ioi_BABA.json", model.tokenizer(), {.size = prompts});
  const LogitDifference metric{batch};
  const auto by_gradient = Leap{.keep = above}(model, dictionaries, batch, metric);
  const auto by_paths = Leap{.keep = above, .chain = chain::AllPaths{}}(model, dictionaries, batch, metric);
  const auto by_relp = Leap{.keep = above, .final_norm = gradient_rule::Relp{}}(model, dictionaries, batch, metric);
  auto shuffled = largest(by_gradient, Attribution::em);
  std::mt19937_64 draw{argc > 3 ? static_cast<std::uint64_t>(std::atoi(argv[3])) : 1};
  for (auto i = shuffled.size(); i > 1; --i) std::swap(shuffled[i - 1], shuffled[draw() % i]);
  const std::vector<std::pair<std::string, Ranked>> rankings{{"leap", largest(by_gradient, Attribution::em)},
                                                             {"leap, grown", grown(by_gradient)},
                                                             {"all paths", largest(by_paths, Attribution::em)},
                                                             {"all paths, grown", grown(by_paths)},
                                                             {"relp, grown", grown(by_relp)},
                                                             {"direct", largest(by_gradient, Attribution::nn)},
                                                             {"random", shuffled}};

  const EdgeRun run{model, dictionaries, batch};
  const auto metric_of = [&](std::span<const ReadEdge> edges) {
    return mean(metric, run.logits(edges)).item<double>();
  };
  const MetricRange range{mean(metric, model.run(PromptPair{batch}.clean).logits).item<double>(), metric_of({})};
  std::cout << prompts << " prompts: metric " << fixed(range.full, 2) << ", no edges " << fixed(range.empty, 2)
            << "\nedges";
  for (const auto& [name, edges] : rankings) std::cout << " | " << name << " (" << edges.size() << ')';
  std::cout << '\n';
  for (const std::size_t count : {100, 300, 1000, 3000, 10000}) {
    std::cout << count;
    for (const auto& [name, edges] : rankings) {
      const auto first = std::span{edges}.first(std::min(count, edges.size()));
      std::cout << " | " << fixed(range.share(metric_of(first)), 2) << std::flush;
    }
    std::cout << '\n';
  }
}
