#include "circuit/dictionary/train/cross_layer_trainer.hpp"

#include <ATen/TensorOperators.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "circuit/dictionary/load/circuit_tracer.hpp"
#include "circuit/dictionary/save/circuit_tracer.hpp"
#include "circuit/dictionary/save/gemma_scope.hpp"
#include "circuit/dictionary/train/checkpoint.hpp"
#include "circuit/model/gradient.hpp"
#include "support.hpp"
#include "tensors.hpp"

using namespace circuit;
using circuit_test::ContainsSubstring;
using train::Target;
using training::tensors_of;
using namespace training::small;

namespace {

constexpr std::int64_t n_layers = 3;

/// Layers of unlike size and place.
std::vector<train::TokenBatch> layers_of(std::uint64_t seed, at::ScalarType dtype = at::kDouble) {
  random_model::Source random{seed, dtype};
  std::vector<train::TokenBatch> out;
  for (int l = 0; l < n_layers; ++l) {
    out.push_back({random({tokens, d_in}, 1.0 + l, 0.4), random({tokens, d_out}, 0.5 + l, -0.2 * l)});
  }
  return out;
}

train::Options options_of(train::DecoderRows decoder = train::DecoderRows::free) {
  train::Options options;
  options.features = d_sae;
  options.decoder = decoder;
  options.schedule = {.steps = 40, .rate = 3e-3, .warm_up = 5};
  return options;
}

/// The trainer's parameters as leaves of a graph, and its loss spelt anew: the features of layer l write
/// W_dec[:, (m - l) d_out : (m - l + 1) d_out] into output m. `activate(pre, own)`; `price(acts, lengths, pre, own)`, a
/// sum.
template <class Trainer, class Activate, class Price>
void check_gradients(Trainer& trainer, std::int64_t own_params, Activate&& activate, Price&& price,
                     Target target = Target::other) {
  const auto data = layers_of(31);
  auto state = tensors_of(trainer);
  for (auto& [name, value] : state) {  // nothing zero
    if (name.starts_with("param.") && value.abs().max().template item<double>() < 1e-9) value.add_(0.05);
  }
  const auto got = trainer.gradients(data);
  std::vector<at::Tensor> params;
  for (int i = 0; state.contains("param." + std::to_string(i)); ++i) {
    params.push_back(state["param." + std::to_string(i)].detach().clone().requires_grad_(true));
  }
  const std::int64_t skips = target == Target::other_with_skip ? 1 : 0;
  const auto each = 3 + skips + own_params;
  REQUIRE(static_cast<std::int64_t>(params.size()) == n_layers * each + 1);
  const auto param = [&](std::int64_t l, std::int64_t i) { return params[static_cast<std::size_t>(l * each + i)]; };

  std::vector<at::Tensor> acts;
  std::vector<at::Tensor> inputs;
  auto loss = params.back().sum() * 0;
  for (std::int64_t l = 0; l < n_layers; ++l) {
    const auto name = "layer." + std::to_string(l);
    inputs.push_back((data[static_cast<std::size_t>(l)].x - state[name + ".center_in"]) /
                     training::number_of(trainer, name + ".size_in"));
    const auto pre = inputs.back().matmul(param(l, 0)) + param(l, 1);
    const auto own = own_params > 0 ? param(l, 3 + skips) : at::Tensor{};
    acts.push_back(activate(pre, own));
    loss = loss + price(acts.back(), param(l, 2).norm(2, {-1}), pre, own) / tokens;
  }
  for (std::int64_t m = 0; m < n_layers; ++m) {
    const auto name = "layer." + std::to_string(m);
    auto out = params.back().narrow(0, m * d_out, d_out).unsqueeze(0);
    for (std::int64_t l = 0; l <= m; ++l) {
      out = out + acts[static_cast<std::size_t>(l)].matmul(param(l, 2).narrow(1, (m - l) * d_out, d_out));
    }
    if (skips > 0) out = out + inputs[static_cast<std::size_t>(m)].matmul(param(m, 3));
    const auto y = (data[static_cast<std::size_t>(m)].y - state[name + ".center_out"]) /
                   training::number_of(trainer, name + ".size_out");
    loss = loss + (out - y).pow(2).sum() / tokens;
  }
  const auto wanted = gradient_of(loss, params);
  REQUIRE(got.size() == wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("parameter " << i);
    REQUIRE(wanted[i].abs().max().template item<double>() > 1e-6);
    REQUIRE_CLOSE(got[i], wanted[i], 1e-12);
  }
}

const auto nothing = [](const at::Tensor& acts, const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  return acts.sum() * 0;
};

std::vector<at::Tensor> written(const std::vector<SparseDictionary<>>& layers,
                                const std::vector<train::TokenBatch>& data) {
  std::vector<at::Tensor> out;
  for (std::size_t m = 0; m < layers.size(); ++m) {
    auto y = layers[m].reconstruct(data[m].x);
    for (std::size_t l = 0; l < m; ++l) {
      y = y + layers[l].encode(data[l].x).matmul(layers[l].W_later.select(1, static_cast<std::int64_t>(m - l) - 1));
    }
    out.push_back(y);
  }
  return out;
}

}  // namespace

TEST_CASE("gradients of a cross-layer transcoder are autograd's") {
  const auto data = layers_of(31);
  SECTION("ReLU with a price on all that a feature writes") {
    train::CrossLayerTrainer trainer{data, Target::other, options_of(), train::Relu{.price = {.price = 0.07}}};
    check_gradients(
        trainer, 0, [](const at::Tensor& pre, const at::Tensor&) { return pre.relu(); },
        [](const at::Tensor& acts, const at::Tensor& lengths, const at::Tensor&, const at::Tensor&) {
          return (acts * lengths).sum() * 0.07;
        });
  }
  SECTION("ReLU beside skip paths") {
    train::CrossLayerTrainer trainer{data, Target::other_with_skip, options_of(), train::Relu{.price = {.price = 0}}};
    check_gradients(
        trainer, 0, [](const at::Tensor& pre, const at::Tensor&) { return pre.relu(); }, nothing,
        Target::other_with_skip);
  }
  SECTION("JumpReLU beside skip paths, by its straight-through surrogate") {
    train::CrossLayerTrainer trainer{
        data, Target::other_with_skip, options_of(),
        train::JumpRelu{.price = {.price = 0}, .bandwidth = 0.3, .initial_threshold = 0.2}};
    check_gradients(
        trainer, 1,
        [](const at::Tensor& pre, const at::Tensor& own) {
          const auto threshold = own.exp();
          const auto ramp = ((pre.detach() - threshold) / 0.3 + 0.5).clamp(0, 1);
          return pre * pre.detach().gt(threshold.detach()) + threshold.detach() * (ramp - ramp.detach());
        },
        nothing, Target::other_with_skip);
  }
  SECTION("TopK") {
    train::CrossLayerTrainer trainer{data, Target::other, options_of(), train::TopK{.k = 3}};
    check_gradients(
        trainer, 0,
        [](const at::Tensor& pre, const at::Tensor&) {
          return pre.relu() * pre.detach().ge(std::get<0>(std::get<0>(pre.detach().topk(3, -1)).min(-1, true)));
        },
        nothing);
  }
  SECTION("BatchTopK") {
    train::CrossLayerTrainer trainer{data, Target::other, options_of(), train::BatchTopK{.k = 2}};
    check_gradients(
        trainer, 0,
        [](const at::Tensor& pre, const at::Tensor&) {
          return pre.relu() * pre.detach().ge(std::get<0>(pre.detach().flatten().topk(tokens * 2)).min());
        },
        nothing);
  }
  SECTION("JumpReLU, by its straight-through surrogate") {
    train::CrossLayerTrainer trainer{
        data, Target::other, options_of(),
        train::JumpRelu{.price = {.price = 0.05}, .bandwidth = 0.3, .initial_threshold = 0.2}};
    const auto slope_only = [](const at::Tensor& pre, const at::Tensor& threshold) {
      const auto ramp = ((pre.detach() - threshold) / 0.3 + 0.5).clamp(0, 1);
      return ramp - ramp.detach();
    };
    check_gradients(
        trainer, 1,
        [&](const at::Tensor& pre, const at::Tensor& own) {
          const auto threshold = own.exp();
          return pre * pre.detach().gt(threshold.detach()) + threshold.detach() * slope_only(pre, threshold);
        },
        [&](const at::Tensor&, const at::Tensor&, const at::Tensor& pre, const at::Tensor& own) {
          return slope_only(pre, own.exp()).sum() * 0.05;
        });
  }
}

TEST_CASE("a finished cross-layer transcoder computes what was trained") {
  const auto data = layers_of(32);
  const auto check = [&](auto trainer) {
    for (int i = 0; i < 3; ++i) static_cast<void>(trainer.step(data));
    const auto layers = trainer.finish();
    const auto out = written(layers, data);
    double error = 0.0;
    for (std::size_t m = 0; m < layers.size(); ++m) {
      layers[m].check();
      CHECK(layers[m].later_layers() == n_layers - 1 - static_cast<std::int64_t>(m));
      const auto size = training::number_of(trainer, "layer." + std::to_string(m) + ".size_out");
      error += (out[m] - data[m].y).square().sum().template item<double>() / tokens / size / size / n_layers;
    }
    CHECK(error == Approx(trainer.step(data).error).epsilon(1e-9));
  };
  check(train::CrossLayerTrainer{data, Target::other, options_of(train::DecoderRows::unit), train::TopK{.k = 3}});
  check(train::CrossLayerTrainer{data, Target::other, options_of(), train::Relu{.price = {.price = 0.01}}});
  check(train::CrossLayerTrainer{data, Target::other, options_of(), train::JumpRelu{}});
  check(train::CrossLayerTrainer{data, Target::other_with_skip, options_of(), train::TopK{.k = 3}});
  check(
      train::CrossLayerTrainer{data, Target::other_with_skip, options_of(train::DecoderRows::unit), train::JumpRelu{}});
}

TEST_CASE("what is linear goes through the skip paths of a cross-layer transcoder") {
  random_model::Source random{37};
  const auto first = random({d_in, d_out});
  const auto second = random({d_in, d_out});
  const auto batch = [&](std::uint64_t seed) {
    random_model::Source inputs{seed};
    const auto a = inputs({100, d_in}, 1.0, 0.3);
    const auto b = inputs({100, d_in}, 2.0, -0.5);
    return std::vector<train::TokenBatch>{{a, a.matmul(first)}, {b, b.matmul(second)}};
  };
  auto options = options_of(train::DecoderRows::unit);
  options.schedule = {.steps = 400, .rate = 1e-2, .warm_up = 20};
  const auto left = [&](Target target) {
    train::CrossLayerTrainer trainer{batch(1), target, options, train::TopK{.k = 1}};
    for (std::uint64_t i = 0; i < 400; ++i) static_cast<void>(trainer.step(batch(100 + i)));
    return trainer.step(batch(9999)).error;
  };
  CHECK(left(Target::other_with_skip) < 0.01);
  CHECK(left(Target::other) > 0.1);
}

TEST_CASE("a cross-layer transcoder learns what a layer's features write later") {
  random_model::Source random{33};
  const training::KnownFeatures known{random, 8, 10, 1.5};
  const auto first = random({8, d_out});
  const auto later = random({8, d_out});
  const auto batch = [&](std::uint64_t seed) {
    const auto acts = known.activations(200, seed);
    const auto x = acts.matmul(known.features);
    // The second layer reads noise: only the first layer's features can tell what it writes.
    random_model::Source noise{seed + 7};
    return std::vector<train::TokenBatch>{{x, acts.matmul(first)}, {noise({200, 10}), acts.matmul(later)}};
  };
  auto options = options_of(train::DecoderRows::unit);
  options.features = 16;
  options.schedule = {.steps = 400, .rate = 5e-3, .warm_up = 20};
  train::CrossLayerTrainer trainer{batch(1), Target::other, options, train::TopK{.k = 3}};
  for (std::uint64_t i = 0; i < 400; ++i) static_cast<void>(trainer.step(batch(100 + i)));
  const auto fresh = batch(9999);
  const auto out = written(trainer.finish(), fresh);
  for (std::size_t m = 0; m < 2; ++m) {
    const auto& y = fresh[m].y;
    const auto left = (out[m] - y).square().sum() / (y - y.mean(0)).square().sum();
    INFO("layer " << m);
    CHECK(left.item<double>() < 0.15);
  }
}

TEST_CASE("a cross-layer transcoder is saved in circuit-tracer's layout and read back equal") {
  const std::filesystem::path folder{"cross_layer_trainer_test_files"};
  const auto data = layers_of(34, at::kFloat);
  const auto check = [&](auto trainer) {
    for (int i = 0; i < 5; ++i) static_cast<void>(trainer.step(data));
    const auto layers = trainer.finish();
    save_circuit_tracer_cross_layer(folder, layers, {.hook_in = "hook_resid_mid"});
    const auto loaded = load_circuit_tracer_set(folder);
    REQUIRE(loaded.size() == layers.size());
    for (std::int32_t l = 0; l < n_layers; ++l) {
      const auto& [dictionary, hooks, expects] = loaded.at(Layer{l});
      const auto& saved = layers[static_cast<std::size_t>(l)];
      const auto& x = data[static_cast<std::size_t>(l)].x;
      CHECK(hooks.in == "blocks." + std::to_string(l) + ".hook_resid_mid");
      CHECK(hooks.out == "blocks." + std::to_string(l) + ".hook_mlp_out");
      const auto acts = saved.encode(x);
      CHECK(acts.ne(0).any().template item<bool>());
      CHECK(dictionary.encode(x).ne(0).equal(acts.ne(0)));
      REQUIRE_CLOSE(dictionary.encode(x), acts, 1e-6);
      REQUIRE_CLOSE(dictionary.decode(acts), saved.decode(acts), 1e-6);
      REQUIRE(dictionary.later_layers() == saved.later_layers());
      if (saved.later_layers() > 0) CHECK(dictionary.W_later.equal(saved.W_later));
    }
  };
  check(train::CrossLayerTrainer{data, Target::other, options_of(), train::Relu{.price = {.price = 0.01}}});
  check(train::CrossLayerTrainer{data, Target::other, options_of(train::DecoderRows::unit), train::BatchTopK{.k = 3}});

  std::filesystem::remove_all(folder);
  train::CrossLayerTrainer top_k{data, Target::other, options_of(), train::TopK{.k = 3}};
  static_cast<void>(top_k.step(data));
  auto layers = top_k.finish();
  REQUIRE_THROWS_WITH(save_circuit_tracer_cross_layer(folder, layers), ContainsSubstring("nonlinearity"));
  for (auto& layer : layers) layer.activation = {};
  REQUIRE_THROWS_AS(save_circuit_tracer_cross_layer(folder, {}), ConfigError);
  REQUIRE_THROWS_AS(save_circuit_tracer_cross_layer(folder, layers, {.dtype = at::kDouble}), ConfigError);
  layers[1].W_later = at::Tensor{};
  REQUIRE_THROWS_WITH(save_circuit_tracer_cross_layer(folder, layers), ContainsSubstring("W_later of layer 1"));
  CHECK_FALSE(std::filesystem::exists(folder));
}

TEST_CASE("a cross-layer transcoder with skip paths is saved in Gemma Scope 2's layout and read back equal") {
  const std::filesystem::path folder{"cross_layer_trainer_test_files/clt"};
  const auto data = layers_of(38, at::kFloat);
  const auto check = [&](auto trainer, const std::filesystem::path& out) {
    for (int i = 0; i < 5; ++i) static_cast<void>(trainer.step(data));
    const auto layers = trainer.finish();
    save_gemma_scope_cross_layer(out, layers, {.first_layer = 4});
    std::vector<SparseDictionary<>> loaded;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      const auto number = std::to_string(4 + l);
      auto [dictionary, hooks, expects] = load_gemma_scope(out / ("params_layer_" + number + ".safetensors"));
      CHECK(hooks.in == "blocks." + number + ".ln2.hook_normalized");
      CHECK(hooks.out == "blocks." + number + ".hook_mlp_out");
      CHECK(dictionary.has_skip() == layers[l].has_skip());
      CHECK(dictionary.encode(data[l].x).ne(0).equal(layers[l].encode(data[l].x).ne(0)));
      loaded.push_back(std::move(dictionary));
    }
    const auto back = written(loaded, data);
    const auto saved = written(layers, data);
    for (std::size_t m = 0; m < layers.size(); ++m) REQUIRE_CLOSE(back[m], saved[m], 1e-6);
  };
  check(train::CrossLayerTrainer{data, Target::other_with_skip, options_of(), train::JumpRelu{}}, folder);
  check(train::CrossLayerTrainer{data, Target::other, options_of(), train::Relu{}}, folder / "relu");

  train::CrossLayerTrainer top_k{data, Target::other, options_of(), train::TopK{.k = 3}};
  REQUIRE_THROWS_WITH(save_gemma_scope_cross_layer(folder, top_k.finish()),
                      ContainsSubstring("Gemma Scope 2's") && ContainsSubstring("nonlinearity"));
  const auto layers = train::CrossLayerTrainer{data, Target::other, options_of(), train::Relu{}}.finish();
  REQUIRE_THROWS_WITH(save_gemma_scope_cross_layer("unnamed", layers), ContainsSubstring("clt"));
  CHECK_FALSE(std::filesystem::exists("unnamed"));
}

TEST_CASE("cross-layer training that is resumed goes on bit for bit", "[checkpoint]") {
  const auto path = std::filesystem::path{"cross_layer_trainer_test.checkpoint"};
  const auto check = [&](auto activation, auto dead, Target target = Target::other) {
    const auto make = [&] {
      return std::vector{train::CrossLayerTrainer{layers_of(35), target, options_of(), activation, dead}};
    };
    const auto run = [&](auto& trainers, std::uint64_t from, std::uint64_t to) {
      for (auto i = from; i < to; ++i) static_cast<void>(trainers[0].step(layers_of(50 + i)));
    };
    auto whole = make();
    run(whole, 0, 40);
    auto first = make();
    run(first, 0, 20);
    train::save_checkpoint(path, first, {});
    auto second = make();
    static_cast<void>(train::load_checkpoint(path, second));
    CHECK(second[0].steps_done() == 20);
    run(second, 20, 40);
    const auto b = tensors_of(second[0]);
    for (const auto& [name, value] : tensors_of(whole[0])) {
      INFO(name);
      CHECK(value.equal(b.at(name)));
    }
    const auto data = layers_of(35);
    CHECK(written(whole[0].finish(), data).back().equal(written(second[0].finish(), data).back()));
  };
  check(train::BatchTopK{.k = 2}, train::dead::Auxiliary{.k = 4, .after = 100});
  check(train::Relu{.price = {.price = 0.02, .wished = 3.0}}, train::dead::Resampled{.every = 10});
  check(train::JumpRelu{}, train::dead::Ignored{});
  check(train::JumpRelu{}, train::dead::Ignored{}, Target::other_with_skip);
}

TEST_CASE("samples and batches of a cross-layer transcoder that cannot be are refused") {
  const auto data = layers_of(36);
  const auto start = [](const std::vector<train::TokenBatch>& sample, train::Options options = options_of()) {
    return train::CrossLayerTrainer{sample, Target::other, options, train::TopK{.k = 2}};
  };
  REQUIRE_THROWS_AS(start({}), ValueError);
  auto fewer = data;
  fewer[1].y = fewer[1].y.narrow(0, 0, 7);
  REQUIRE_THROWS_AS(start(fewer), ShapeError);
  auto nan = data;
  nan[2].x = nan[2].x.clone();
  nan[2].x[0][0] = std::numeric_limits<double>::quiet_NaN();
  REQUIRE_THROWS_AS(start(nan), ValueError);
  auto pruned = options_of();
  pruned.least_fired = 1.0;
  REQUIRE_THROWS_WITH(start(data, pruned), ContainsSubstring("least_fired"));
  REQUIRE_THROWS_WITH((train::CrossLayerTrainer{data, Target::same, options_of(), train::TopK{.k = 2}}),
                      ContainsSubstring("Target::other"));
  auto trainer = start(data);
  REQUIRE_THROWS_AS(trainer.step(std::span{data}.subspan(1)), ShapeError);
  auto narrow = data;
  narrow[0].x = narrow[0].x.narrow(1, 0, 3);
  REQUIRE_THROWS_AS(trainer.step(narrow), ShapeError);
}
