#include "circuit/model/gradient.hpp"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <future>

#include "circuit/model/edit.hpp"
#include "circuit/model/hooked_transformer.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

at::Tensor output_of(const at::Tensor& logits) { return logits.select(1, -1).select(1, 3).sum(); }

/// The gradient at a point by central differences along one direction, against autograd's along the same.
template <class P, Architecture A>
void requires_true_gradient(const HookedTransformer<A>& model, const at::Tensor& tokens, Layer layer) {
  const auto value = model.run(tokens, record<P>()).cache.template get<P>(layer);
  const auto direction = random_model::Source{9}(value.sizes());
  const auto moved = [&](double step) {
    const auto shift = [&](const at::Tensor& v, Layer) { return v.add(direction, step); };
    return output_of(model.run(tokens, edit<P>(shift, {.layers = {layer}})).logits).template item<double>();
  };
  constexpr double step = 1e-5;
  const auto numeric = (moved(step) - moved(-step)) / (2 * step);
  const c10::AutoGradMode gradient{true};
  LeafAtEmbedding leaf;
  auto recorder = record<P>();
  const auto output = output_of(model.forward(tokens, leaf, recorder));
  const auto grad = gradients_at(output, recorder.cache()).template get<P>(layer);
  INFO(hook_name(P{}, layer) << " of " << A::name);
  REQUIRE(std::abs(numeric) > 1e-4);
  REQUIRE(grad.mul(direction).sum().template item<double>() == Approx(numeric).epsilon(1e-6));
}

template <Architecture A>
void requires_true_gradients() {
  const auto model = random_model::make<A>(11);
  const auto tokens = random_model::Source{12}.tokens(2, 7, model.config().d_vocab);
  for (const Layer l : {Layer{0}, Layer{1}}) {
    requires_true_gradient<hook::resid_pre>(model, tokens, l);
    requires_true_gradient<hook::attn::q>(model, tokens, l);
    requires_true_gradient<hook::attn::k>(model, tokens, l);
    requires_true_gradient<hook::attn::v>(model, tokens, l);
    requires_true_gradient<hook::attn::pattern>(model, tokens, l);
    requires_true_gradient<hook::attn::z>(model, tokens, l);
    requires_true_gradient<hook::attn_out>(model, tokens, l);
    requires_true_gradient<hook::ln2::scale>(model, tokens, l);
    requires_true_gradient<hook::ln2::normalized>(model, tokens, l);
    requires_true_gradient<hook::mlp::post>(model, tokens, l);
    requires_true_gradient<hook::mlp_out>(model, tokens, l);
    requires_true_gradient<hook::resid_post>(model, tokens, l);
  }
}

}  // namespace

TEST_CASE("gradients at every kind of point equal finite differences, GPT-2 and Llama") {
  requires_true_gradients<Gpt2>();
  requires_true_gradients<Llama>();
}

TEST_CASE("a frozen final scale is held fixed by the gradient, and changes no value") {
  const auto model = random_model::make<Gpt2>(11);
  const auto tokens = random_model::Source{12}.tokens(2, 7, model.config().d_vocab);
  const auto scale = model.run(tokens, record<hook::ln_final::scale>()).cache.get<hook::ln_final::scale>();
  const auto gradient_at_last = [&](auto attached) {
    const c10::AutoGradMode gradient{true};
    LeafAtEmbedding leaf;
    auto recorder = record<hook::resid_post>();
    const auto logits = model.forward(tokens, leaf, recorder, attached);
    REQUIRE_CLOSE(logits, model.run(tokens).logits, 1e-12);
    return gradients_at(output_of(logits), recorder.cache()).template get<hook::resid_post>(Layer{1});
  };
  const auto fixed = edit<hook::ln_final::scale>([&](const at::Tensor&, Layer) { return scale; });
  REQUIRE_CLOSE(gradient_at_last(FrozenFinalScale{}), gradient_at_last(fixed), 1e-12);
  const auto nothing = edit<hook::ln_final::scale>([](const at::Tensor& v, Layer) { return v; });
  REQUIRE_FALSE(difference(gradient_at_last(FrozenFinalScale{}), gradient_at_last(nothing), 1e-4).close);
}

TEST_CASE("what the output does not depend on has a zero gradient, and no weight gets a .grad") {
  const auto model = random_model::make<Gpt2>(11);
  const auto tokens = random_model::Source{12}.tokens(2, 7, model.config().d_vocab);
  const c10::AutoGradMode gradient{true};
  LeafAtEmbedding leaf;
  auto recorder = record<hook::attn::z, hook::resid_post>();
  const auto logits = model.forward(tokens, leaf, recorder);
  const auto first = logits.select(1, 0).sum();
  const auto grads = gradients_at(first, recorder.cache());
  REQUIRE_CLOSE(grads.get<hook::resid_post>(Layer{1}).narrow(1, 1, 6), at::zeros({2, 6, 16}, at::kDouble), 0.0);
  const auto apart = at::ones({3}, at::kDouble).requires_grad_(true);
  auto other = at::ones({2}, at::kDouble).requires_grad_(true);
  REQUIRE_CLOSE(gradient_of(apart.sum(), {other}).front(), at::zeros({2}, at::kDouble), 0.0);
  REQUIRE_FALSE(model.weights().W_E.requires_grad());
  REQUIRE_FALSE(other.grad().defined());
}

TEST_CASE("one model serves two threads at once, with gradients") {
  const auto model = random_model::make<Gpt2>(11);
  const auto tokens = random_model::Source{12}.tokens(2, 7, model.config().d_vocab);
  const auto work = [&](std::int64_t last) {
    const c10::AutoGradMode gradient{true};
    LeafAtEmbedding leaf;
    auto recorder = record<hook::resid_pre>();
    const auto logits = model.forward(tokens, leaf, recorder);
    return gradients_at(logits.select(1, last).sum(), recorder.cache()).get<hook::resid_pre>(Layer{0});
  };
  const auto serial_a = work(6);
  const auto serial_b = work(3);
  for (int round = 0; round < 5; ++round) {
    auto a = std::async(std::launch::async, work, 6);
    auto b = std::async(std::launch::async, work, 3);
    REQUIRE_CLOSE(a.get(), serial_a, 1e-12);
    REQUIRE_CLOSE(b.get(), serial_b, 1e-12);
  }
}
