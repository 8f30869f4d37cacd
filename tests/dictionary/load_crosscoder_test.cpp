#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include "circuit/dictionary/load/crosscoder.hpp"
#include "circuit/dictionary/recognise.hpp"
#include "golden.hpp"
#include "io/files.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;
using namespace circuit_test;
namespace fs = std::filesystem;

namespace {

fs::path data() { return fs::path{CIRCUIT_TEST_DATA} / "crosscoders"; }

/// A crosscoder as tests/data/crosscoders/make.py defines it.
void compare(const Crosscoder& across, const fs::path& folder) {
  const auto expected = open_safetensors(folder / "expected.safetensors");
  const auto x = to_tensor(expected.get("x"));
  const auto acts = across.encode(x);
  REQUIRE_CLOSE(acts, to_tensor(expected.get("acts")), 1e-6);
  REQUIRE_CLOSE(across.reconstruct(x), to_tensor(expected.get("out")), 2e-6);
  const auto active = encode_active(across, x.unsqueeze(0), across.layers.back());
  REQUIRE(active.size() == acts.ne(0).sum().item<std::int64_t>());
}

using Tensors = std::map<std::string, at::Tensor>;

void write(const fs::path& path, const Tensors& tensors) {
  std::vector<TensorView> views;
  for (const auto& [name, tensor] : tensors) views.push_back(to_view(name, tensor));
  write_safetensors(path, views);
}

at::Tensor counted(std::vector<std::int64_t> shape) {
  std::int64_t size = 1;
  for (const auto s : shape) size *= s;
  return at::arange(size, at::kDouble).mul(0.37).sin().view(shape).to(at::kFloat);
}

Tensors learned() {
  return {{"encoder.weight", counted({2, 4, 5})},
          {"encoder.bias", counted({5})},
          {"decoder.weight", counted({2, 5, 4})},
          {"decoder.bias", counted({2, 4})}};
}

}  // namespace

TEST_CASE("crosscoders of every layout are what their definitions say") {
  const std::vector<Layer> layers{Layer{1}, Layer{2}, Layer{4}};
  const auto of_fork = load_crosscoder(data() / "learned/ae.pt", layers);
  REQUIRE(of_fork.parts.size() == 1);
  REQUIRE(of_fork.layers == layers);
  REQUIRE_FALSE(of_fork.parts[0].causal());
  compare(of_fork, data() / "learned");
  compare(load_crosscoder(data() / "stacked/0.pt", layers), data() / "stacked");

  const auto folder = data() / "gemma_scope_2/crosscoder/layer_0_1_3_width_30_l0_small";
  const auto scope = load_crosscoder(folder);
  compare(scope, data() / "gemma_scope_2");
  REQUIRE(scope.layers == layers);  // hook_resid_post of layers 0, 1 and 3
  REQUIRE(scope.parts.size() == 3);
  REQUIRE(scope.parts[1].reads == std::vector{Layer{2}});
  REQUIRE(scope.parts[2].causal());
  REQUIRE(scope.parts[1].writes == std::vector{Layer{2}, Layer{4}});  // rows of 0 before are no writes
  REQUIRE(load_crosscoder(folder / "").layers == layers);
  const std::vector<Layer> others{Layer{0}, Layer{1}, Layer{2}};
  REQUIRE(load_crosscoder(folder, others).layers == others);
}

TEST_CASE("features of Gemma Scope 2 that write before their layer do so") {
  const Folder folder;
  const auto path = folder.path / "layer_2_5_width_10_l0_small";
  fs::create_directories(path);
  for (int own = 0; own < 2; ++own) {
    write(path / ("params_layer_" + std::to_string(own) + ".safetensors"), {{"w_enc", counted({4, 5})},
                                                                           {"b_enc", counted({5})},
                                                                           {"w_dec", counted({5, 2, 4})},
                                                                           {"b_dec", counted({4})},
                                                                           {"threshold", counted({5})}});
  }
  const auto across = load_crosscoder(path);
  REQUIRE(across.parts[1].writes == std::vector{Layer{3}, Layer{6}});
  REQUIRE_CLOSE(across.decoder(Layer{3}).narrow(0, 5, 5), counted({5, 2, 4}).select(1, 0), 0.0);
  write(path / "params_layer_2.safetensors", learned());
  REQUIRE_THROWS_WITH(load_crosscoder(path), ContainsSubstring("more files than layers"));
  REQUIRE_THROWS_WITH(dictionary::load(data() / "gemma_scope_2/crosscoder/layer_0_1_3_width_30_l0_small" /
                                       "params_layer_1.safetensors"),
                      ContainsSubstring("load_crosscoder"));
}

TEST_CASE("crosscoders that are none are one clear error") {
  const Folder folder;
  const auto path = folder.path / "cc.safetensors";
  const std::vector<Layer> two{Layer{0}, Layer{3}};
  const auto with = [&](const std::string& name, at::Tensor tensor) {
    auto tensors = learned();
    tensors[name] = std::move(tensor);
    write(path, tensors);
    return [&] { static_cast<void>(load_crosscoder(path, two)); };
  };
  REQUIRE_NOTHROW(with("encoder.bias", counted({5}))());
  REQUIRE_THROWS_WITH(load_crosscoder(path), ContainsSubstring("does not say which layers"));
  REQUIRE_THROWS_AS(load_crosscoder(path, {Layer{0}}), ShapeError);
  REQUIRE_THROWS_AS(load_crosscoder(path, {Layer{3}, Layer{0}}), ConfigError);
  REQUIRE_THROWS_AS(with("encoder.weight", counted({2, 4}))(), ShapeError);
  REQUIRE_THROWS_AS(with("decoder.weight", counted({2, 4, 5}))(), ShapeError);
  REQUIRE_THROWS_AS(with("decoder.bias", counted({2, 5}))(), ShapeError);
  REQUIRE_THROWS_AS(with("encoder.bias", counted({4}))(), ShapeError);
  REQUIRE_THROWS_AS(with("encoder.bias", counted({5}).mul(0).div(0))(), ValueError);
  REQUIRE_THROWS_WITH(with("threshold", counted({1}))(), ContainsSubstring("only crosscoders with a ReLU"));
  REQUIRE_THROWS_AS(load_crosscoder(folder.path), ConfigError);
  REQUIRE_THROWS_AS(load_crosscoder(folder.path / "none.pt", two), FileError);
  auto tensors = learned();
  tensors.erase("decoder.bias");
  write(path, tensors);
  REQUIRE_THROWS_AS(load_crosscoder(path, two), NameError);
}
