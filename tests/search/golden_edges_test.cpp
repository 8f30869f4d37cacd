#include "circuit/metric/logit_difference.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "intervene/golden_dictionaries.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

/// Every edge into every active target of the reference's prompt 0, the final norm's scale live as in the reference.
template <ContrastRule Contrast>
Circuit every_edge() {
  const auto model = golden::model(weights::folded_and_centered);
  const auto right = golden::answers("answers");
  const auto wrong = golden::answers("wrong_answers");
  const LogitDifference metric{std::span{right}.first(1), std::span{wrong}.first(1)};
  const Leap search{
      .keep = keep::All{}, .contrast = Contrast{}, .targets = targets::AllActive{}, .final_norm = final_norm::Exact{}};
  return search(model, golden::dictionaries(),
                {golden::tokens("clean").narrow(0, 0, 1), golden::tokens("corrupt").narrow(0, 0, 1)}, metric);
}

/// Direct numbers alone: the reference chains through a nodegrad of its own, which is none of those that chain/ defines.
/// Nodes are spelled "attn.1.8.17": layer, position, feature.
void compare(const Circuit& found, const nlohmann::json& run) {
  // The reference also expands features that are active on the corrupt prompt alone. Their pre-activation is below 0 on the
  // clean one, where gradients are taken, so their slope is 0 and they are sources, never targets.
  int compared = 0;
  for (const auto& row : run.at("edges")) {
    const auto up = parse_node(row.at("up").get<std::string>());
    const auto down = parse_node(row.at("down").get<std::string>());
    INFO(up << " -> " << down);
    if (found.bundle(down).activation == 0.0) continue;
    ++compared;
    const auto* edge = found.find_edge(up, down, EdgeType::ov);
    REQUIRE(edge != nullptr);
    REQUIRE(edge->nn_grad == Approx(row.at("nn_grad").get<double>()).epsilon(1e-9).margin(1e-12));
    REQUIRE(edge->nn_attrib == Approx(row.at("nn_attrib").get<double>()).epsilon(1e-9).margin(1e-12));
  }
  REQUIRE(compared > 15);
}

}  // namespace

TEST_CASE("ov edges equal the reference's, with contrast and without") {
  const auto runs = read_json(golden::folder() / "reference_ov_edges.json").at("runs");
  compare(every_edge<contrast::Signed>(), runs.at(0));
  compare(every_edge<contrast::None>(), runs.at(1));
}

TEST_CASE("metric gradients at every module equal the reference's") {
  const auto model = golden::model(weights::folded_and_centered);
  const auto found =
      linearize<final_norm::Exact>(model, golden::dictionaries(), golden::tokens("clean"), {}, golden::metric());
  for (const std::int32_t l : {0, 1, 2}) {
    const auto at_layer = "folded/clean/metric_grad/blocks." + std::to_string(l);
    const auto slot = static_cast<std::size_t>(l);
    // The reference differentiates the batch mean.
    REQUIRE_CLOSE(found.gradients.attn_out[slot].div(4), golden::fact(at_layer + ".hook_attn_out"), 1e-10);
    REQUIRE_CLOSE(found.gradients.mlp_out[slot].div(4), golden::fact(at_layer + ".hook_mlp_out"), 1e-10);
  }
}
