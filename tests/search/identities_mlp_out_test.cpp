// The identities on SAEs that read hook_mlp_out, through the MLP's derivative.
#include "random_model.hpp"

namespace {
using MlpOutLayerNormed = circuit::Gpt2;
using MlpOutPostNormed = circuit::Gemma2;
}  // namespace

#define CIRCUIT_IDENTITIES_OF MlpOutLayerNormed, MlpOutPostNormed
#define CIRCUIT_IDENTITIES_DICTIONARIES random_model::mlp_out_dictionaries

#include "search/identities.hpp"

TEST_CASE("what an edge into an SAE on hook_mlp_out misses is the MLP's curvature") {
  const Setup<Gpt2> s;
  const auto found = everything(s.model, s.set, {s.prompt(0), {}}, s.metric(0));
  const auto cache = s.model.run(s.prompt(0), record<hook::ln2::normalized, hook::ln2::scale, hook::mlp_out>()).cache;
  const auto& d = *s.set.mlp(Layer{0});
  const auto& w = s.model.weights().blocks[0];
  const auto& read = cache.get<hook::ln2::normalized>(Layer{0})[0];
  const auto mlp = [&](const at::Tensor& x) { return Gpt2::Mlp::forward(x, w.mlp, [](auto, at::Tensor&) {}); };
  int compared = 0;
  for (const auto& row : found.biases()) {
    if (row.target.kind != NodeKind::mlp_feature) {
      REQUIRE(row.nn_remainder == 0);
      continue;
    }
    if (row.target.layer != Layer{0}) continue;
    const auto p = row.target.position.value;
    const auto reader = d.W_enc.select(1, row.target.feature.value);
    // By finite differences of the MLP alone: its value less its derivative along what it read.
    const auto value = [&](double t) { return mlp(read[p].unsqueeze(0).mul(t))[0].dot(reader).item<double>(); };
    const double slope = (value(1 + 1e-5) - value(1 - 1e-5)) / 2e-5;
    INFO(row.target);
    REQUIRE(row.nn_remainder == Approx(value(1) - slope).epsilon(1e-6).margin(1e-8));
    REQUIRE(std::abs(row.nn_remainder) > 1e-6);
    ++compared;
  }
  REQUIRE(compared > 5);
}

TEST_CASE("with contrast an SAE on hook_mlp_out has no remainder") {
  const Setup<Gpt2> s;
  const auto found = Leap{.keep = keep::All{}, .targets = targets::AllActive{}}(
      s.model, s.set, {s.prompt(0), s.corrupt.narrow(0, 0, 1)}, s.metric(0));
  for (const auto& row : found.biases()) REQUIRE(row.nn_remainder == 0);
}
