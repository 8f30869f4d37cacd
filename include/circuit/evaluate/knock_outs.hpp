#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/data/random.hpp"
#include "circuit/evaluate/faithfulness.hpp"

namespace circuit {

/// How well the model does with some parts alone, nodes or edges: `NodeEvaluation`'s or `EdgeEvaluation`'s metric, or
/// faithfulness.
template <class F, class Part>
concept Measure = requires(const F& measure, std::span<const Part> kept) {
  { measure(kept) } -> std::convertible_to<double>;
};

/// An edge between components, by the indices of `Components`.
struct ComponentEdge {
  std::int64_t sender = 0;
  std::int64_t receiver = 0;

  friend constexpr auto operator<=>(const ComponentEdge&, const ComponentEdge&) = default;
};

/// The edges of a mask [senders, receivers], and back.
[[nodiscard]] inline std::vector<ComponentEdge> edges_of(const at::Tensor& mask);
[[nodiscard]] inline at::Tensor mask_of(const Components& c, std::span<const ComponentEdge> edges);

/// What is in the first and not in the second: a circuit's complement, or a circuit without a knock-out.
template <std::totally_ordered Part>
[[nodiscard]] std::vector<Part> without(std::span<const Part> all, std::span<const Part> removed) {
  std::vector<Part> a(all.begin(), all.end());
  std::vector<Part> b(removed.begin(), removed.end());
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  std::vector<Part> rest;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(rest));
  return rest;
}

/// The same parts taken out of the circuit and out of the model. A complete circuit loses what the model loses.
template <class Part>
struct KnockOut {
  std::vector<Part> removed;
  double circuit = 0;
  double model = 0;

  [[nodiscard]] double gap() const { return std::abs(circuit - model); }
};

/// Completeness under knock-outs: one result for each set of parts of the circuit.
/// source  Wang et al. 2022, section 4: |F(C \ K) - F(M \ K)|
template <std::totally_ordered Part, Measure<Part> F>
[[nodiscard]] std::vector<KnockOut<Part>> knock_out(std::span<const Part> circuit, std::span<const Part> model,
                                                    std::span<const std::vector<Part>> sets, const F& measure) {
  std::vector<KnockOut<Part>> out;
  for (const auto& set : sets) {
    const std::span<const Part> removed{set};
    const auto left = without(circuit, removed);
    const auto rest = without(model, removed);
    out.push_back({set, measure(std::span<const Part>{left}), measure(std::span<const Part>{rest})});
  }
  return out;
}

/// Sets of the circuit's parts, each in a set with probability one half.
template <class Part>
[[nodiscard]] std::vector<std::vector<Part>> draw_sets(std::span<const Part> circuit, std::size_t count,
                                                       data::Random& random) {
  std::vector<std::vector<Part>> sets(count);
  for (auto& set : sets) {
    std::copy_if(circuit.begin(), circuit.end(), std::back_inserter(set),
                 [&](const Part&) { return random.chance(1, 2); });
  }
  return sets;
}

/// The knock-out that looks worst, built part by part: of `tried` parts drawn anew each time, the one that widens the
/// gap most. throws  ValueError  for more parts than the circuit has
template <std::totally_ordered Part, Measure<Part> F>
[[nodiscard]] KnockOut<Part> greedy_knock_out(std::span<const Part> circuit, std::span<const Part> model,
                                              std::size_t size, std::size_t tried, const F& measure,
                                              data::Random& random) {
  if (size > circuit.size() || tried == 0) {
    throw ValueError{{.tensor = "knock-out",
                      .expected = "at most the circuit's " + std::to_string(circuit.size()) + " parts, some tried",
                      .got = std::to_string(size)}};
  }
  KnockOut<Part> worst;
  for (std::size_t step = 0; step < size; ++step) {
    const auto left = without(circuit, std::span<const Part>{worst.removed});
    std::vector<std::vector<Part>> candidates;
    for (const auto i : random.distinct(std::min(tried, left.size()), left.size())) {
      candidates.push_back(worst.removed);
      candidates.back().push_back(left[i]);
    }
    auto results = knock_out(circuit, model, std::span<const std::vector<Part>>{candidates}, measure);
    worst = *std::max_element(results.begin(), results.end(),
                              [](const auto& a, const auto& b) { return a.gap() < b.gap(); });
  }
  return worst;
}

/// Minimality: for each part of the circuit the most that its absence changes, over the circuit itself and the circuit
/// without each of some sets. A part near 0 is not needed.
/// return  [parts of the circuit]
/// source  Wang et al. 2022, section 4: |F(C \ (K + v)) - F(C \ K)| for the K that shows v best
template <std::totally_ordered Part, Measure<Part> F>
[[nodiscard]] std::vector<double> minimality(std::span<const Part> circuit, std::span<const std::vector<Part>> sets,
                                             const F& measure) {
  std::vector<double> most(circuit.size(), 0.0);
  const auto beyond = [&](const std::vector<Part>& removed) {
    const auto left = without(circuit, std::span<const Part>{removed});
    const double base = measure(std::span<const Part>{left});
    for (std::size_t i = 0; i < circuit.size(); ++i) {
      const auto rest = without(std::span<const Part>{left}, circuit.subspan(i, 1));
      if (rest.size() == left.size()) continue;
      most[i] = std::max(most[i], std::abs(base - static_cast<double>(measure(std::span<const Part>{rest}))));
    }
  };
  beyond({});
  for (const auto& set : sets) beyond(set);
  return most;
}

}  // namespace circuit

inline std::vector<circuit::ComponentEdge> circuit::edges_of(const at::Tensor& mask) {
  const auto places = mask.nonzero().contiguous();
  const auto* place = data_of<std::int64_t>(places);
  std::vector<ComponentEdge> edges;
  for (std::int64_t i = 0; i < places.size(0); ++i) edges.push_back({place[2 * i], place[2 * i + 1]});
  return edges;
}

inline at::Tensor circuit::mask_of(const Components& c, std::span<const ComponentEdge> edges) {
  auto mask = make::zeros({c.senders(), c.receivers()}, at::kBool);
  for (const auto& edge : edges) {
    if (edge.sender < 0 || edge.sender >= c.senders() || edge.receiver < 0 || edge.receiver >= c.receivers()) {
      throw IndexError{{.tensor = "edge",
                        .expected = "a sender below " + std::to_string(c.senders()) + " and a receiver below " +
                                    std::to_string(c.receivers()),
                        .got = std::to_string(edge.sender) + " and " + std::to_string(edge.receiver)}};
    }
    mask.data_ptr<bool>()[edge.sender * c.receivers() + edge.receiver] = true;
  }
  return mask;
}
