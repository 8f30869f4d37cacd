#pragma once

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/core/error.hpp"
#include "circuit/core/shown_text.hpp"
#include "circuit/graph/circuit.hpp"
#include "circuit/graph/json_fields.hpp"
#include "circuit/report/graph_page_assets.hpp"

namespace circuit {

/// Where on the web a dictionary's features are shown: a path on neuronpedia.org, or a whole address, in which `{layer}`
/// and `{feature}` stand for the numbers, `gpt2-small/{layer}-att-kk/{feature}`. Empty: nowhere.
struct FeatureLinks {
  std::string attn{};
  std::string mlp{};
  std::string resid{};

  /// The address of a node's feature, empty when it has none.
  [[nodiscard]] std::string address(const Node& node) const;
};

struct GraphPageOptions {
  std::string title{"circuit"};
  Attribution shown{Attribution::em};  ///< the attribution shown at first
  double threshold{0};                 ///< the threshold at first; 0 shows every edge that is not hidden otherwise
  bool position_zero{false};           ///< whether nodes at position 0 are shown at first
  bool errors{false};                  ///< whether error nodes are shown at first
  FeatureLinks links{};
  std::function<std::string(const Node&)> link{};   ///< address of a node's page; asked before `links`
  std::function<std::string(const Node&)> label{};  ///< a name for a node, shown beside its number
};

namespace detail {

inline void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (auto i = text.find(from); i != std::string::npos; i = text.find(from, i + to.size())) {
    text.replace(i, from.size(), to);
  }
}

/// An address that a page may link to: other schemes could run code when clicked.
[[nodiscard]] inline std::string web_address(std::string address, const Node& node) {
  if (address.empty() || address.starts_with("https://") || address.starts_with("http://")) return address;
  throw ValueError{{.tensor = to_string(node),
                    .problem = "address of a feature's page",
                    .expected = "http:// or https://",
                    .got = '"' + std::move(address) + '"'}};
}

/// JSON that can stand inside an HTML script element: no `<`, so neither `</script` nor `<!--` can occur.
[[nodiscard]] inline std::string json_in_html(const nlohmann::ordered_json& json) {
  auto text = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  replace_all(text, "<", "\\u003c");
  return text;
}

[[nodiscard]] inline nlohmann::ordered_json graph_page_data(const Circuit& circuit, const GraphPageOptions& options) {
  using json = nlohmann::ordered_json;
  json data{{"title", options.title},       {"prompts", circuit.info().prompts}, {"settings", circuit.info().settings},
            {"shown", name(options.shown)}, {"threshold", options.threshold},    {"first", options.position_zero},
            {"errors", options.errors},     {"tokens", json::array()},           {"nodes", json::array()},
            {"edges", json::array()}};
  for (const auto& token : circuit.info().tokens) data["tokens"].push_back(token_label(token));
  for (const auto& [node, activation, contrast, attribution, nodegrad] : circuit.nodes()) {
    json item{{"id", to_string(node)},           {"kind", name(node.kind)},    {"activation", activation},
              {"contrast_activation", contrast}, {"attribution", attribution}, {"nodegrad", nodegrad}};
    if (has_layer(node.kind)) item["layer"] = node.layer.value;
    if (has_position(node.kind)) item["position"] = node.position.value;
    if (has_feature(node.kind)) item["feature"] = node.feature.value;
    auto address = options.link ? options.link(node) : std::string{};
    if (address.empty()) address = options.links.address(node);
    if (!address.empty()) item["url"] = web_address(std::move(address), node);
    if (options.label) {
      if (auto label = options.label(node); !label.empty()) item["label"] = one_line(label);
    }
    data["nodes"].push_back(std::move(item));
  }
  for (const auto& [up, down, edge] : circuit.edges()) {
    data["edges"].push_back({{"up", circuit.vertex(up)}, {"down", circuit.vertex(down)}});
    add_fields(data["edges"].back(), edge);
  }
  for (const auto& row : circuit.biases()) {
    auto& biases = data["nodes"][circuit.vertex(row.target)]["biases"];
    biases.push_back(json::object());
    add_fields(biases.back(), row);
  }
  return data;
}

}  // namespace detail

inline std::string FeatureLinks::address(const Node& node) const {
  std::string text = node.kind == NodeKind::attn_feature    ? attn
                     : node.kind == NodeKind::mlp_feature   ? mlp
                     : node.kind == NodeKind::resid_feature ? resid
                                                            : "";
  if (text.empty()) return text;
  if (text.find("://") == std::string::npos) text.insert(0, "https://www.neuronpedia.org/");
  detail::replace_all(text, "{layer}", std::to_string(node.layer.value));
  detail::replace_all(text, "{feature}", std::to_string(node.feature.value));
  return text;
}

/// One HTML page that shows a circuit without any network: layers upward, positions across, an edge's colour its type
/// and its width its attribution (dashed where negative); hovering shows the values, clicking a node isolates the paths
/// through it. Its own content policy forbids it to load or send anything.
/// throws  ValueError  when a link is neither http nor https, or the threshold is not a number of 0 or more
[[nodiscard]] inline std::string graph_page(const Circuit& circuit, const GraphPageOptions& options = {}) {
  if (!(options.threshold >= 0) || !std::isfinite(options.threshold)) {
    throw ValueError{{.tensor = "threshold",
                      .problem = "cannot be used",
                      .expected = "a number of 0 or more",
                      .got = std::to_string(options.threshold)}};
  }
  std::string page = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
  page +=
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>";
  page += xml_escape(options.title);
  page += "</title>\n<style>";
  page += detail::graph_page_style;
  page += "</style>\n</head>\n<body>";
  page += detail::graph_page_body;
  page += "<script type=\"application/json\" id=\"circuit-data\">";
  page += detail::json_in_html(detail::graph_page_data(circuit, options));
  page += "</script>\n<script>";
  page += detail::graph_page_script;
  page += "</script>\n</body>\n</html>\n";
  return page;
}

/// Writes the page, whole or not at all.
/// throws  FileError   when the file cannot be written
/// throws  ValueError  as graph_page
inline void save_graph_page(const std::filesystem::path& path, const Circuit& circuit,
                            const GraphPageOptions& options = {}) {
  write_file(path, graph_page(circuit, options));
}

}  // namespace circuit
