#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>

#include <functional>

#include "circuit/model/gradient.hpp"
#include "support.hpp"
#include "tensors.hpp"

using namespace circuit;
using training::tensors_of;
using namespace training::small;

namespace {

struct Data {
  random_model::Source random{3};
  at::Tensor x = random({tokens, d_in}, 1.3, 0.4);
  at::Tensor y = random({tokens, d_out}, 0.7, -0.2);
};

train::Options dictionary_options(train::DecoderRows decoder = train::DecoderRows::free) {
  train::Options options;
  options.features = d_sae;
  options.decoder = decoder;
  return options;
}

/// What a price is computed from.
struct Seen {
  at::Tensor pre, acts, lengths, own;
};

/// Checks a trainer's written-out gradients against autograd of the same loss, spelt here anew: `activate(pre, own)`
/// and `price(seen)`, a sum over tokens.
template <class Trainer>
void check_dictionary_gradients(Trainer& trainer, const Data& data, bool sae,
                                const std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>& activate,
                                const std::function<at::Tensor(const Seen&)>& price) {
  auto state = tensors_of(trainer);
  for (auto& [name, value] : state) {  // nothing zero
    if (name.starts_with("param.") && name != "param.5") value.add_(data.x.mean() * 0.1);
  }
  const auto skip = state.contains("param.4") && state["param.4"].dim() == 2;
  std::vector<at::Tensor> params;
  for (int i = 0; state.contains("param." + std::to_string(i)); ++i) {
    params.push_back(state["param." + std::to_string(i)].detach().clone().requires_grad_(true));
  }
  const auto own = params.size() > (skip ? 5U : 4U) ? params.back() : at::Tensor{};
  const auto got = trainer.gradients(data.x, sae ? data.x : data.y);

  const auto x = (data.x - state["center_in"]) / training::number_of(trainer, "size_in");
  const auto y = sae ? x : (data.y - state["center_out"]) / training::number_of(trainer, "size_out");
  const auto pre = x.matmul(params[0]) + params[1];
  const auto acts = activate(pre, own);
  auto out = acts.matmul(params[2]) + params[3];
  if (skip) out = out + x.matmul(params[4]);
  const auto paid = price({pre, acts, params[2].norm(2, {-1}), own});
  const auto loss = ((out - y).pow(2).sum() + paid) / tokens;
  const auto wanted = gradient_of(loss, params);
  REQUIRE(got.size() == wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("parameter " << i);
    REQUIRE(wanted[i].abs().max().template item<double>() > 1e-6);
    REQUIRE_CLOSE(got[i], wanted[i], 1e-12);
  }
}

at::Tensor relu(const at::Tensor& pre, const at::Tensor& /*own*/) { return pre.relu(); }
at::Tensor free_of_charge(const Seen& seen) { return seen.pre.sum() * 0; }

}  // namespace

TEST_CASE("gradients of a ReLU SAE with an L1 price are autograd's") {
  Data data;
  train::Trainer trainer{data.x, data.x, train::Target::same, dictionary_options(),
                         train::Relu{.price = {.price = 0.07}}};
  check_dictionary_gradients(trainer, data, true, relu,
                             [](const Seen& s) { return (s.acts * s.lengths).sum() * 0.07; });
}

TEST_CASE("a token's strongest features pay nothing") {
  Data data;
  train::Trainer trainer{data.x, data.y, train::Target::other, dictionary_options(),
                         train::Relu{.price = {.price = 0.07}, .free = 3}};
  check_dictionary_gradients(trainer, data, false, relu, [](const Seen& s) {
    const auto priced = s.acts * s.lengths;
    const auto third = std::get<0>(std::get<0>(priced.detach().topk(3, -1)).min(-1, true));
    return (priced * priced.detach().lt(third)).sum() * 0.07;
  });
}

TEST_CASE("gradients of TopK, as an SAE and as a transcoder with a skip path, are autograd's") {
  Data data;
  const auto top3 = [](const at::Tensor& pre, const at::Tensor&) {
    const auto third = std::get<0>(std::get<0>(pre.detach().topk(3, -1)).min(-1, true));
    return pre.relu() * pre.detach().ge(third);
  };
  train::Trainer sae{data.x, data.x, train::Target::same, dictionary_options(), train::TopK{.k = 3}};
  check_dictionary_gradients(sae, data, true, top3, free_of_charge);
  train::Trainer transcoder{data.x, data.y, train::Target::other_with_skip, dictionary_options(), train::TopK{.k = 3}};
  check_dictionary_gradients(transcoder, data, false, top3, free_of_charge);
}

TEST_CASE("gradients of BatchTopK are autograd's, and a batch of n tokens keeps n k features") {
  Data data;
  const auto top = [](const at::Tensor& pre, const at::Tensor&) {
    const auto least = std::get<0>(pre.detach().flatten().topk(tokens * 2)).min();
    return pre.relu() * pre.detach().ge(least);
  };
  train::Trainer trainer{data.x, data.y, train::Target::other, dictionary_options(), train::BatchTopK{.k = 2}};
  check_dictionary_gradients(trainer, data, false, top, free_of_charge);
  const auto before = trainer.step(data.x, data.y);  // from here on the running mean narrows the search
  REQUIRE(before.active == 2.0);
  REQUIRE(trainer.step(data.x, data.y).active == 2.0);
}

TEST_CASE("gradients of JumpReLU are those of its straight-through surrogate") {
  Data data;
  const double width = 0.3;
  const double price = 0.05;
  train::Trainer trainer{data.x, data.y, train::Target::other, dictionary_options(),
                         train::JumpRelu{.price = {.price = price}, .bandwidth = width, .initial_threshold = 0.2}};
  // A ramp of that width in place of the jump, as far as thresholds go: its value is taken out, its slope stays.
  const auto slope_only = [=](const at::Tensor& pre, const at::Tensor& threshold) {
    const auto ramp = ((pre.detach() - threshold) / width + 0.5).clamp(0, 1);
    return ramp - ramp.detach();
  };
  check_dictionary_gradients(
      trainer, data, false,
      [&](const at::Tensor& pre, const at::Tensor& own) {
        const auto threshold = own.exp();
        return pre * pre.detach().gt(threshold.detach()) + threshold.detach() * slope_only(pre, threshold);
      },
      [&](const Seen& s) { return slope_only(s.pre, s.own.exp()).sum() * price; });
}

TEST_CASE("with decoder rows of length 1 the gradient has no part along a row") {
  Data data;
  train::Trainer trainer{data.x, data.x, train::Target::same, dictionary_options(train::DecoderRows::unit),
                         train::TopK{.k = 3}};
  const auto W_dec = tensors_of(trainer)["param.2"];
  const auto along = (trainer.gradients(data.x, data.x)[2] * W_dec).sum(-1);
  REQUIRE(along.abs().max().template item<double>() < 1e-14);
  trainer.step(data.x, data.x);
  REQUIRE_CLOSE(W_dec.norm(2, {-1}), at::ones({d_sae}), 1e-14);
}

TEST_CASE("the auxiliary loss of dead features has autograd's gradient") {
  Data data;
  const train::dead::Auxiliary rule{.k = 2, .weight = 0.3, .after = 1};
  train::Trainer trainer{data.x, data.x, train::Target::same, dictionary_options(), train::TopK{.k = 1}, rule};
  auto state = tensors_of(trainer);
  state["param.1"].narrow(0, 0, 6).sub_(0.8);  // at times over 0, seldom the largest
  state["unfired"].fill_(1000);                // all but those that fire now
  const auto got = trainer.gradients(data.x, data.x);
  const auto dead = (state["unfired"] > 0).nonzero().squeeze(-1);
  REQUIRE(dead.numel() >= 2);

  std::vector<at::Tensor> params;
  for (int i = 0; i < 4; ++i) {
    params.push_back(state["param." + std::to_string(i)].detach().clone().requires_grad_(true));
  }
  const auto x = (data.x - state["center_in"]) / training::number_of(trainer, "size_in");
  const auto pre = x.matmul(params[0]) + params[1];
  const auto keep = [](const at::Tensor& values, std::int64_t k) {
    const auto least = std::get<0>(std::get<0>(values.detach().topk(k, -1)).min(-1, true));
    return values.relu() * values.detach().ge(least);
  };
  const auto error = keep(pre, 1).matmul(params[2]) + params[3] - x;
  const auto revived = keep(pre.index_select(1, dead), 2).matmul(params[2].index_select(0, dead));
  const auto loss = (error.pow(2).sum() + (revived + error.detach()).pow(2).sum() * 0.3) / tokens;
  const auto wanted = gradient_of(loss, params);
  for (std::size_t i = 0; i < 4; ++i) REQUIRE_CLOSE(got[i], wanted[i], 1e-12);
  REQUIRE(got[0].index_select(1, dead).abs().max().template item<double>() > 1e-6);
}
