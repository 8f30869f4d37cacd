#include "eap_golden.hpp"

#include "circuit/search/edge_attribution_patching.hpp"
#include "tensors.hpp"

using namespace circuit;

TEST_CASE("every edge's score is the one that EAP-IG's tool gives it, the other way round") {
  constexpr std::int64_t steps = 3;
  std::size_t models = 0;
  eap_golden::for_each([&](const auto& golden) {
    CAPTURE(golden.name);
    const auto compare = [&](const auto& search, const char* name) {
      CAPTURE(name);
      const auto expected = golden.get(name).neg();
      REQUIRE(expected.abs().max().template item<double>() > 0.3);
      REQUIRE_CLOSE(search.scores(golden.model, golden.prompts(), golden.metric()), expected, 1e-9);
    };
    compare(Eap{}, "eap");
    compare(EapIgInputs{.path = {.steps = steps}}, "inputs");
    compare(EapIgActivations{.path = {.steps = steps}}, "activations");
    compare(EdgeAttributionPatching<path::CleanCorrupt>{}, "clean_corrupt");
    ++models;
  });
  REQUIRE(models == 3);
}

TEST_CASE("on models without position embeddings the tool leaves out what layer 0 reads while the input moves") {
  eap_golden::for_each([&](const auto& golden) {
    const auto c = Components::of(golden.model);
    const auto gap = golden.get("activations").sub(golden.get("activations_as_is")).abs();
    auto elsewhere = gap.clone();
    elsewhere[0].narrow(0, 0, c.first_query(Layer{1})).zero_();
    REQUIRE(elsewhere.max().template item<double>() < 1e-12);
    REQUIRE((gap.max().template item<double>() > 0.01) == (golden.name != "gpt2"));
  });
}
