// Every intervention that the reference ran, with its numbers.
#include <ATen/ops/full.h>

#include <string>
#include <string_view>
#include <vector>

#include "circuit/intervene/ablate.hpp"
#include "circuit/intervene/delete_at.hpp"
#include "circuit/intervene/freeze_at.hpp"
#include "circuit/intervene/keep_circuit.hpp"
#include "intervene/golden_dictionaries.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

FeatureId feature_of(const nlohmann::json& entry) {
  const auto module = entry.at(0) == "attn" ? Module::attn : Module::mlp;
  return {module, Layer{entry.at(1).get<std::int32_t>()}, Feature{entry.at(2).get<std::int32_t>()}};
}
On position_of(const nlohmann::json& entry) { return on(Position{entry.at(3).get<std::int32_t>()}); }

struct Outcome {
  at::Tensor logits;
  ActivationCache<hook::attn::pattern> cache;
};

/// Runs the clean prompts with the ablations and with at most one addition to the residual stream.
Outcome run(const nlohmann::json& entry) {
  const auto model = golden::model(weights::folded_and_centered);
  const auto dictionaries = golden::dictionaries();
  const auto tokens = golden::tokens("clean");
  std::vector<FeatureEdit> edits;
  for (const auto& e : entry.at("ablation_list")) edits.push_back({.feature = feature_of(e), .where = position_of(e)});
  if (edits.empty()) {  // an edit that changes nothing
    edits.push_back({.feature = attn_feature(Layer{0}, Feature{0}), .where = everywhere, .scale = 1});
  }
  auto ablations = edit_features(dictionaries, edits);
  auto recorder = record<hook::attn::pattern>();
  const auto done = [](auto result) { return Outcome{result.logits, std::move(result.cache)}; };
  if (entry.at("patch_list").empty()) return done(model.run(tokens, ablations, recorder));
  const auto& patch = entry.at("patch_list").at(0);
  const auto hook = patch.at(4).get<std::string>();
  const auto place = detail::split_hook(hook);
  const auto scale = patch.at(5).get<double>();
  if (place->second == hook::resid_pre::name) {
    return done(model.run(
        tokens, ablations,
        add_at<hook::resid_pre>(place->first, model, dictionaries, feature_of(patch), scale, position_of(patch)),
        recorder));
  }
  REQUIRE(place->second == hook::resid_mid::name);
  return done(model.run(
      tokens, ablations,
      add_at<hook::resid_mid>(place->first, model, dictionaries, feature_of(patch), scale, position_of(patch)),
      recorder));
}

}  // namespace

TEST_CASE("every intervention of the reference gives its logits, patterns and logit difference") {
  const auto facts = read_json(golden::folder() / "facts.json").at("interventions");
  std::size_t compared = 0;
  for (const auto& entry : facts) {
    const auto name = entry.at("name").get<std::string>();
    INFO(name);
    const auto [logits, cache] = run(entry);
    if (entry.contains("error")) continue;  // the reference failed; see the next case
    REQUIRE_CLOSE(mean(golden::metric(), logits), at::full({}, entry.at("logit_diff").get<double>(), at::kDouble),
                  1e-10);
    REQUIRE_CLOSE(logits, golden::fact("intervention/" + name + "/logits"), 1e-10);
    for (const Layer l : {Layer{0}, Layer{1}, Layer{2}}) {
      REQUIRE_CLOSE(cache.get<hook::attn::pattern>(l),
                    golden::fact("intervention/" + name + '/' + std::to_string(l.value) + "/pattern"), 1e-10);
    }
    ++compared;
  }
  REQUIRE(compared == 12);
}

TEST_CASE("where the reference failed, a feature's write is added to the stream by plain arithmetic") {
  const auto facts = read_json(golden::folder() / "facts.json").at("interventions");
  std::size_t found = 0;
  for (const auto& entry : facts) {
    if (!entry.contains("error")) continue;
    ++found;
    REQUIRE(entry.at("name") == "patch mlp.0 into resid_pre 1 at 4, scale 2.5");
    const auto decoder = to_tensor(open_safetensors(golden::folder() / "dictionaries/mlp.0.safetensors").get("W_dec"));
    const auto added = decoder[80].to(at::kDouble).mul(2.5);
    const auto by_hand = golden::model(weights::folded_and_centered)
                             .run(golden::tokens("clean"), edit<hook::resid_pre>(
                                                               [&](const at::Tensor& resid, Layer) {
                                                                 auto changed = resid.clone();
                                                                 changed.select(1, 4).add_(added);
                                                                 return changed;
                                                               },
                                                               {.layers = {Layer{1}}}))
                             .logits;
    REQUIRE_CLOSE(run(entry).logits, by_hand, 1e-10);
    REQUIRE_FALSE(difference(by_hand, golden::fact("intervention/none/logits"), 1e-3).close);
  }
  REQUIRE(found == 1);
}

TEST_CASE("running on a circuit alone gives the reference's logit differences") {
  const auto model = golden::model(weights::folded_and_centered);
  const auto dictionaries = golden::dictionaries();
  const auto corrupt = model.run(golden::tokens("corrupt"), record_modules()).cache;
  const auto outside = [](const nlohmann::json& type) {
    if (type.is_null()) return Outside::left;
    return type == "zero" ? Outside::zero : Outside::reference_mean;
  };
  const auto facts = read_json(golden::folder() / "facts.json").at("circuits");
  for (const auto& entry : facts) {
    KeptNodes kept;
    for (const auto& text : entry.at("src_nodes")) {
      const auto node = text.get<std::string>();
      char module[8] = {};
      int layer = 0;
      int position = 0;
      int feature = 0;
      REQUIRE(std::sscanf(node.c_str(), "%7[a-z].%d.%d.%d", module, &layer, &position, &feature) == 4);
      if (std::string_view{module} == "metric") continue;
      kept.features.push_back(
          {{std::string_view{module} == "attn" ? Module::attn : Module::mlp, Layer{layer}, Feature{feature}},
           Position{position}});
    }
    REQUIRE(kept.features.size() == (entry.at("graph") == "empty" ? 0 : 47));
    const KeepCircuitOptions options{.features = outside(entry.at("feature_ablate_type")),
                                     .errors = outside(entry.at("error_ablate_type")),
                                     .first_layer = Layer{entry.at("first_ablated_layer").get<std::int32_t>()}};
    INFO(entry.at("graph") << ' ' << entry.at("feature_ablate_type") << ' ' << entry.at("error_ablate_type") << ' '
                           << options.first_layer);
    const auto logits = model.run(golden::tokens("clean"), keep_circuit(dictionaries, kept, corrupt, options)).logits;
    REQUIRE_CLOSE(mean(golden::metric(), logits), at::full({}, entry.at("logit_diff").get<double>(), at::kDouble),
                  1e-10);
  }
  REQUIRE(facts.size() == 36);
}
