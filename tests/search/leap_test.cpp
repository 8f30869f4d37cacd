#define CIRCUIT_IDENTITIES_OF Gpt2, Llama

#include "search/identities.hpp"

TEST_CASE("a batch is the mean of its prompts searched alone") {
  const Setup<Gpt2> s;
  const auto search = Leap{.keep = keep::All{}, .targets = targets::AllActive{}};
  const auto together = search(s.model, s.set, {s.clean, s.corrupt}, s.metric());
  std::vector<Circuit> alone;
  for (std::int64_t b = 0; b < 3; ++b)
    alone.push_back(search(s.model, s.set, {s.prompt(b), s.corrupt.narrow(0, b, 1)}, s.metric(b)));
  REQUIRE(together.edge_count() > 1000);
  for (const auto& e : together.edges()) {
    double em = 0;
    double grad = 0;
    for (const auto& c : alone) {
      const auto* edge = c.contains(e.up) && c.contains(e.down) ? c.find_edge(e.up, e.down, e.edge.type) : nullptr;
      if (edge == nullptr) continue;
      em += edge->em_attrib / 3;
      grad += edge->nn_grad / 3;
    }
    INFO(e.up << " -> " << e.down);
    REQUIRE(e.edge.em_attrib == Approx(em).epsilon(1e-8).margin(1e-11));
    REQUIRE(e.edge.nn_grad == Approx(grad).epsilon(1e-8).margin(1e-11));
  }
}

TEST_CASE("float agrees with double to 1e-4") {
  const Setup<Gpt2> s;
  const auto model = random_model::make<Gpt2>(7, at::kFloat);
  const auto set = random_model::dictionaries(model.config(), 8, at::kFloat);
  const auto search = Leap{.keep = keep::Above{.threshold = 0.01}};
  const auto exact = search(s.model, s.set, {s.clean, s.corrupt}, s.metric());
  const auto rough = search(model, set, {s.clean, s.corrupt}, s.metric());
  double largest = 0;
  for (const auto& e : exact.edges()) largest = std::max(largest, std::abs(e.edge.em_attrib));
  REQUIRE(exact.edge_count() > 100);
  std::size_t missing = 0;
  for (const auto& e : exact.edges()) {
    const auto* edge =
        rough.contains(e.up) && rough.contains(e.down) ? rough.find_edge(e.up, e.down, e.edge.type) : nullptr;
    if (edge == nullptr) {
      ++missing;
      REQUIRE(std::abs(e.edge.em_attrib) == Approx(0.01).epsilon(1e-3));
      continue;
    }
    REQUIRE(edge->em_attrib == Approx(e.edge.em_attrib).margin(1e-4 * largest));
  }
  REQUIRE(missing < 5);
}
