#pragma once

#include <algorithm>
#include <array>
#include <boost/graph/adjacency_list.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <ostream>
#include <ranges>
#include <sstream>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/graph/edge.hpp"
#include "circuit/graph/node.hpp"

namespace circuit {

/// A node and what was measured at it, means over the prompts.
struct NodeBundle {
  Node node{};
  double activation{};           ///< on the clean run; 1 for errors and embeddings, the metric's value for the metric,
                                 ///< which is 1 in a circuit of components
  double contrast_activation{};  ///< on the corrupt run; 0 without one, and for the metric
  double attribution{};          ///< nodegrad times (contrasted) activation, metric units
  double nodegrad{};             ///< d metric / d activation

  friend bool operator==(const NodeBundle&, const NodeBundle&) = default;
};

/// An edge with its two ends.
struct EdgeRef {
  Node up{};
  Node down{};
  Edge edge{};

  friend bool operator==(const EdgeRef&, const EdgeRef&) = default;
};

/// All constants that a target reads by one type of edge: with the edges of every upstream node, kept or not, it makes
/// up what the target reads.
struct BiasRow {
  Node target{};
  EdgeType type{};
  double nn_attrib{};
  double em_attrib{};
  double nn_map{};  ///< with contrast: what the maps of transparent modules differ by between the two runs
  double em_map{};
  double nn_remainder{};  ///< without contrast: what a target reads of a module that is not linear, less what the
                          ///< module's derivative explains
  double em_remainder{};

  friend bool operator==(const BiasRow&, const BiasRow&) = default;
};

/// How a circuit came about.
struct CircuitInfo {
  std::map<std::string, std::string> settings{};  ///< policy or option and its value, both in words
  std::vector<std::string> tokens{};              ///< by position; of the first prompt where prompts differ
  std::int32_t prompts{1};                        ///< how many prompts the means are over

  friend bool operator==(const CircuitInfo&, const CircuitInfo&) = default;
};

namespace detail {

using CircuitGraph = boost::adjacency_list<boost::vecS, boost::vecS, boost::bidirectionalS, NodeBundle, Edge>;

[[nodiscard]] inline EdgeRef edge_ref(const CircuitGraph& graph, CircuitGraph::edge_descriptor e) {
  return {graph[source(e, graph)].node, graph[target(e, graph)].node, graph[e]};
}

/// Forward iterator over the nodes' values.
class NodeIterator {
 public:
  using value_type = NodeBundle;
  using difference_type = std::ptrdiff_t;
  using reference = const NodeBundle&;
  using pointer = const NodeBundle*;
  using iterator_category = std::forward_iterator_tag;

  NodeIterator() = default;
  NodeIterator(const CircuitGraph& graph, CircuitGraph::vertex_descriptor at) : graph_{&graph}, at_{at} {}

  reference operator*() const { return (*graph_)[at_]; }
  pointer operator->() const { return &(*graph_)[at_]; }
  NodeIterator& operator++() {
    ++at_;
    return *this;
  }
  NodeIterator operator++(int) {
    auto before = *this;
    ++at_;
    return before;
  }
  friend bool operator==(const NodeIterator& a, const NodeIterator& b) { return a.at_ == b.at_; }

 private:
  const CircuitGraph* graph_ = nullptr;
  CircuitGraph::vertex_descriptor at_{};
};

/// Forward iterator that turns an edge descriptor into the edge with its ends.
class EdgeIterator {
 public:
  using value_type = EdgeRef;
  using difference_type = std::ptrdiff_t;
  using reference = EdgeRef;
  using pointer = void;
  using iterator_category = std::input_iterator_tag;  // dereferencing makes a value
  using iterator_concept = std::forward_iterator_tag;

  EdgeIterator() = default;
  EdgeIterator(const CircuitGraph& graph, CircuitGraph::edge_iterator at) : graph_{&graph}, at_{at} {}

  EdgeRef operator*() const { return edge_ref(*graph_, *at_); }
  EdgeIterator& operator++() {
    ++at_;
    return *this;
  }
  EdgeIterator operator++(int) {
    auto before = *this;
    ++at_;
    return before;
  }
  friend bool operator==(const EdgeIterator& a, const EdgeIterator& b) { return a.at_ == b.at_; }

 private:
  const CircuitGraph* graph_ = nullptr;
  CircuitGraph::edge_iterator at_{};
};

[[nodiscard]] inline std::string edge_text(const Node& up, const Node& down, EdgeType type) {
  return to_string(up) + " -" + std::string{name(type)} + "-> " + to_string(down);
}

inline void require_finite(double value, std::string_view what, const std::string& where) {
  if (std::isfinite(value)) return;
  throw ValueError{{.tensor = where, .problem = std::string{what} + " is not finite", .got = std::to_string(value)}};
}

}  // namespace detail

/// The nodes and edges that a search kept: a value type around a Boost.Graph. Nodes and edges stay in the order in
/// which they were added. Between two nodes there is at most one edge of each type; edges of different types beside
/// each other are normal (an attention feature reads the same node by ov, q and k).
class Circuit {
 public:
  using Graph = detail::CircuitGraph;
  using Vertex = Graph::vertex_descriptor;

  Circuit() = default;
  explicit Circuit(CircuitInfo info) : info_{std::move(info)} {}

  /// Adds a node, or replaces the values of one that is there: a search often learns a node's attribution late.
  /// throws  ValueError  when a value is not finite or the node is a `bias`
  /// throws  IndexError  when a part of the node is negative
  Vertex add_node(const NodeBundle& bundle);

  /// Adds an edge between two nodes that are there.
  /// throws  NameError   when an end is not there
  /// throws  ValueError  when a number is not finite (names the edge), the target has no readers of this type, the
  ///                     upstream node does not come before the target, or the edge is there already
  void add_edge(const Node& up, const Node& down, const Edge& edge) { add_edge(vertex(up), vertex(down), edge); }
  void add_edge(Vertex up, Vertex down, const Edge& edge);

  /// Adds the constants that a target reads.
  /// throws  NameError   when the target is not there
  /// throws  ValueError  when a number is not finite, the target has no readers of this type, or the row is there already
  void add_bias(const BiasRow& row);

  [[nodiscard]] std::size_t node_count() const { return num_vertices(graph_); }
  [[nodiscard]] std::size_t edge_count() const { return num_edges(graph_); }
  [[nodiscard]] bool empty() const { return node_count() == 0; }

  [[nodiscard]] bool contains(const Node& node) const { return vertices_.contains(node); }
  [[nodiscard]] std::optional<Vertex> find_vertex(const Node& node) const;
  /// The node with its values, or nullptr.
  [[nodiscard]] const NodeBundle* find(const Node& node) const;
  /// The node with its values.
  /// throws  NameError  when it is not there
  [[nodiscard]] const NodeBundle& bundle(const Node& node) const { return graph_[vertex(node)]; }
  /// throws  NameError  when it is not there
  [[nodiscard]] Vertex vertex(const Node& node) const;

  [[nodiscard]] bool contains_edge(const Node& up, const Node& down, EdgeType type) const {
    return ends_of(up, down, type).has_value();
  }
  /// The edge of a type between two nodes, or nullptr; looked for among those into `down`.
  [[nodiscard]] const Edge* find_edge(const Node& up, const Node& down, EdgeType type) const;
  /// Edges into, or out of, a node, in the order in which they were added.
  /// throws  NameError  when the node is not there
  [[nodiscard]] std::vector<EdgeRef> incoming(const Node& node) const;
  [[nodiscard]] std::vector<EdgeRef> outgoing(const Node& node) const;

  using NodeRange = std::ranges::subrange<detail::NodeIterator>;
  using EdgeRange = std::ranges::subrange<detail::EdgeIterator>;

  /// All nodes, as a range of `const NodeBundle&`; like all ranges here, it is good as long as the circuit is.
  [[nodiscard]] NodeRange nodes() const& {
    return {detail::NodeIterator{graph_, 0}, detail::NodeIterator{graph_, num_vertices(graph_)}};
  }
  void nodes() const&& = delete;

  /// All edges, as a forward range of `EdgeRef`.
  [[nodiscard]] EdgeRange edges() const& {
    const auto [first, last] = boost::edges(graph_);
    return {detail::EdgeIterator{graph_, first}, detail::EdgeIterator{graph_, last}};
  }
  void edges() const&& = delete;

  [[nodiscard]] const std::vector<BiasRow>& biases() const { return biases_; }

  [[nodiscard]] const CircuitInfo& info() const { return info_; }
  [[nodiscard]] CircuitInfo& info() { return info_; }

  /// The graph for Boost's algorithms; vertices are 0, 1, ... in the order of `nodes()`.
  [[nodiscard]] const Graph& graph() const { return graph_; }

  /// Same nodes, edges, constants and information in the same order.
  friend bool operator==(const Circuit& a, const Circuit& b) {
    return std::ranges::equal(a.nodes(), b.nodes()) && std::ranges::equal(a.edges(), b.edges()) &&
           a.biases_ == b.biases_ && a.info_ == b.info_;
  }

 private:
  // The two vertices and the type in one word; circuits stay far below 2^30 nodes.
  [[nodiscard]] static std::uint64_t edge_key(Vertex up, Vertex down, EdgeType type) {
    return (static_cast<std::uint64_t>(up) << 33U) | (static_cast<std::uint64_t>(down) << 3U) |
           static_cast<std::uint64_t>(type);
  }
  /// The vertices that an edge joins, or nothing where there is no such edge.
  [[nodiscard]] std::optional<std::pair<Vertex, Vertex>> ends_of(const Node& up, const Node& down, EdgeType type) const;

  Graph graph_;
  std::unordered_map<Node, Vertex> vertices_;
  std::unordered_set<std::uint64_t> edge_keys_;
  std::vector<BiasRow> biases_;
  CircuitInfo info_;
};

/// How many edges there are of each type. Prints as `ov 312  q 40  k 77  mlp 128  metric 25`, and resid where there are
/// any.
struct EdgeCounts {
  std::array<std::size_t, all_edge_types.size()> by_type{};

  [[nodiscard]] constexpr std::size_t operator[](EdgeType type) const {
    return by_type[static_cast<std::size_t>(type)];
  }
  constexpr std::size_t& operator[](EdgeType type) { return by_type[static_cast<std::size_t>(type)]; }
  [[nodiscard]] constexpr std::size_t total() const {
    std::size_t sum = 0;
    for (const auto count : by_type) sum += count;
    return sum;
  }
  /// What the original implementation counts under the type `None`: mlp and metric edges together.
  [[nodiscard]] constexpr std::size_t none() const { return (*this)[EdgeType::mlp] + (*this)[EdgeType::metric]; }

  friend bool operator==(const EdgeCounts&, const EdgeCounts&) = default;
  friend std::ostream& operator<<(std::ostream& out, const EdgeCounts& counts) {
    std::string_view separator;
    for (const auto type : all_edge_types) {
      if (type == EdgeType::resid && counts[type] == 0) continue;
      out << std::exchange(separator, "  ") << name(type) << ' ' << counts[type];
    }
    return out;
  }
};

[[nodiscard]] inline EdgeCounts edge_counts(const Circuit& circuit) {
  EdgeCounts counts;
  for (const auto& [up, down, edge] : circuit.edges()) ++counts[edge.type];
  return counts;
}

/// Counts by layer: an edge belongs to its target's layer, a metric edge to the layer that wrote it (embeddings: 0).
[[nodiscard]] inline std::map<Layer, EdgeCounts> edge_counts_by_layer(const Circuit& circuit) {
  std::map<Layer, EdgeCounts> counts;
  for (const auto& [up, down, edge] : circuit.edges()) {
    ++counts[edge.type == EdgeType::metric ? up.layer : down.layer][edge.type];
  }
  return counts;
}

/// How many nodes there are of each kind.
[[nodiscard]] inline std::map<NodeKind, std::size_t> node_counts(const Circuit& circuit) {
  std::map<NodeKind, std::size_t> counts;
  for (const auto& bundle : circuit.nodes()) ++counts[bundle.node.kind];
  return counts;
}

/// Both ways of counting: by our types, and with mlp and metric edges together as the original implementation has them.
[[nodiscard]] inline std::string edge_summary(const Circuit& circuit) {
  const auto counts = edge_counts(circuit);
  std::ostringstream out;
  out << counts << '\n'
      << "ov " << counts[EdgeType::ov] << "  q " << counts[EdgeType::q] << "  k " << counts[EdgeType::k]
      << "  None (mlp+metric) " << counts.none();
  return out.str();
}

inline std::ostream& operator<<(std::ostream& out, const Circuit& circuit) {
  return out << circuit.node_count() << " nodes, " << circuit.edge_count() << " edges (" << edge_counts(circuit)
             << "), mean over " << circuit.info().prompts << (circuit.info().prompts == 1 ? " prompt" : " prompts");
}

inline Circuit::Vertex Circuit::add_node(const NodeBundle& bundle) {
  const auto& node = bundle.node;
  const auto where = to_string(node);
  if (is_table_row(node.kind)) {
    throw ValueError{{.tensor = where, .problem = "is not a node of a graph", .hint = "use add_bias"}};
  }
  if (node.layer.value < 0 || node.position.value < 0 || node.feature.value < 0) {
    throw IndexError{{.tensor = where, .problem = "has a negative part", .expected = "0 or more"}};
  }
  detail::require_finite(bundle.activation, "activation", where);
  detail::require_finite(bundle.contrast_activation, "contrast activation", where);
  detail::require_finite(bundle.attribution, "attribution", where);
  detail::require_finite(bundle.nodegrad, "nodegrad", where);
  const auto [at, added] = vertices_.try_emplace(node, num_vertices(graph_));
  if (added) boost::add_vertex(graph_);
  graph_[at->second] = bundle;
  return at->second;
}

inline void Circuit::add_edge(Vertex up, Vertex down, const Edge& edge) {
  if (up >= node_count() || down >= node_count()) {
    throw IndexError{{.problem = "no such vertex",
                      .expected = "below " + std::to_string(node_count()),
                      .got = std::to_string(std::max(up, down))}};
  }
  const auto& source = graph_[up].node;
  const auto& target = graph_[down].node;
  const auto where = [&] { return detail::edge_text(source, target, edge.type); };
  for (const auto& [value, what] : {std::pair{edge.nn_grad, "nn_grad"}, std::pair{edge.nn_attrib, "nn_attrib"},
                                    std::pair{edge.em_grad, "em_grad"}, std::pair{edge.em_attrib, "em_attrib"}}) {
    if (!std::isfinite(value)) detail::require_finite(value, what, where());
  }
  if (!may_enter(target.kind, edge.type)) {
    throw ValueError{{.tensor = where(), .problem = "the target has no readers of this type"}};
  }
  if (depth(source) >= depth(target)) {
    throw ValueError{{.tensor = where(), .problem = "the upstream node does not come before the target"}};
  }
  if (edge.prompts < 0) {
    throw ValueError{{.tensor = where(),
                      .problem = "number of prompts",
                      .expected = "0 or more",
                      .got = std::to_string(edge.prompts)}};
  }
  if (!edge_keys_.insert(edge_key(up, down, edge.type)).second) {
    throw ValueError{{.tensor = where(), .problem = "the edge is there already", .hint = "add the values up first"}};
  }
  boost::add_edge(up, down, edge, graph_);
}

inline void Circuit::add_bias(const BiasRow& row) {
  const auto target = vertex(row.target);
  const auto where = "bias -" + std::string{name(row.type)} + "-> " + to_string(row.target);
  detail::require_finite(row.nn_attrib, "nn_attrib", where);
  detail::require_finite(row.em_attrib, "em_attrib", where);
  detail::require_finite(row.nn_map, "nn_map", where);
  detail::require_finite(row.em_map, "em_map", where);
  detail::require_finite(row.nn_remainder, "nn_remainder", where);
  detail::require_finite(row.em_remainder, "em_remainder", where);
  if (!reads_by(row.target.kind, row.type)) {
    throw ValueError{{.tensor = where, .problem = "the target has no readers of this type"}};
  }
  // No edge joins a node to itself, so that key is free for the target's constants.
  if (!edge_keys_.insert(edge_key(target, target, row.type)).second) {
    throw ValueError{{.tensor = where, .problem = "the row is there already"}};
  }
  biases_.push_back(row);
}

inline std::optional<Circuit::Vertex> Circuit::find_vertex(const Node& node) const {
  const auto at = vertices_.find(node);
  return at == vertices_.end() ? std::nullopt : std::optional{at->second};
}

inline const NodeBundle* Circuit::find(const Node& node) const {
  const auto v = find_vertex(node);
  return v ? &graph_[*v] : nullptr;
}

inline Circuit::Vertex Circuit::vertex(const Node& node) const {
  if (const auto v = find_vertex(node)) return *v;
  throw NameError{{.tensor = to_string(node), .problem = "no such node in this circuit"}};
}

inline std::optional<std::pair<Circuit::Vertex, Circuit::Vertex>> Circuit::ends_of(const Node& up, const Node& down,
                                                                                   EdgeType type) const {
  const auto u = find_vertex(up);
  const auto d = find_vertex(down);
  if (!u || !d || !edge_keys_.contains(edge_key(*u, *d, type))) return {};
  return std::pair{*u, *d};
}

inline const Edge* Circuit::find_edge(const Node& up, const Node& down, EdgeType type) const {
  const auto ends = ends_of(up, down, type);
  if (!ends) return nullptr;
  const auto [first, last] = boost::in_edges(ends->second, graph_);
  for (auto it = first; it != last; ++it) {
    if (source(*it, graph_) == ends->first && graph_[*it].type == type) return &graph_[*it];
  }
  return nullptr;
}

inline std::vector<EdgeRef> Circuit::incoming(const Node& node) const {
  std::vector<EdgeRef> found;
  const auto [first, last] = boost::in_edges(vertex(node), graph_);
  for (auto it = first; it != last; ++it) found.push_back(detail::edge_ref(graph_, *it));
  return found;
}

inline std::vector<EdgeRef> Circuit::outgoing(const Node& node) const {
  std::vector<EdgeRef> found;
  const auto [first, last] = boost::out_edges(vertex(node), graph_);
  for (auto it = first; it != last; ++it) found.push_back(detail::edge_ref(graph_, *it));
  return found;
}

}  // namespace circuit
