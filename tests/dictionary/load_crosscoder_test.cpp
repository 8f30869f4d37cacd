#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "circuit/dictionary/load/crosscoder.hpp"
#include "circuit/dictionary/load_listed.hpp"
#include "circuit/dictionary/recognise.hpp"
#include "golden.hpp"
#include "io/files.hpp"
#include "random_model.hpp"
#include "tensor_files.hpp"
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

Tensors learned() {
  return {{"encoder.weight", sines({2, 4, 5})},
          {"encoder.bias", sines({5})},
          {"decoder.weight", sines({2, 5, 4})},
          {"decoder.bias", sines({2, 4})}};
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
  compare(load_crosscoder(data() / "batch_top_k/ae.pt", layers), data() / "batch_top_k");
  compare(load_crosscoder(data() / "normalized/ae.pt", layers), data() / "normalized");

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
    write_tensors(path / ("params_layer_" + std::to_string(own) + ".safetensors"), {{"w_enc", sines({4, 5})},
                                                                                    {"b_enc", sines({5})},
                                                                                    {"w_dec", sines({5, 2, 4})},
                                                                                    {"b_dec", sines({4})},
                                                                                    {"threshold", sines({5})}});
  }
  const auto across = load_crosscoder(path);
  REQUIRE(across.parts[1].writes == std::vector{Layer{3}, Layer{6}});
  REQUIRE_CLOSE(across.decoder(Layer{3}).narrow(0, 5, 5), sines({5, 2, 4}).select(1, 0), 0.0);
  write_tensors(path / "params_layer_2.safetensors", learned());
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
    write_tensors(path, tensors);
    return [&] { static_cast<void>(load_crosscoder(path, two)); };
  };
  REQUIRE_NOTHROW(with("encoder.bias", sines({5}))());
  REQUIRE_THROWS_WITH(load_crosscoder(path), ContainsSubstring("does not say which layers"));
  REQUIRE_THROWS_AS(load_crosscoder(path, {Layer{0}}), ShapeError);
  REQUIRE_THROWS_AS(load_crosscoder(path, {Layer{3}, Layer{0}}), ConfigError);
  REQUIRE_THROWS_AS(with("encoder.weight", sines({2, 4}))(), ShapeError);
  REQUIRE_THROWS_AS(with("decoder.weight", sines({2, 4, 5}))(), ShapeError);
  REQUIRE_THROWS_AS(with("decoder.bias", sines({2, 5}))(), ShapeError);
  REQUIRE_THROWS_AS(with("encoder.bias", sines({4}))(), ShapeError);
  REQUIRE_THROWS_AS(with("encoder.bias", sines({5}).mul(0).div(0))(), ValueError);
  REQUIRE_THROWS_WITH(with("threshold", sines({1}))(), ContainsSubstring("only crosscoders with a ReLU"));
  REQUIRE_THROWS_WITH(with("k", at::full({}, 3, at::kLong))(), ContainsSubstring("\"k\""));
  const auto normalized = [&](const at::Tensor& mean, const at::Tensor& scale) {
    auto tensors = learned();
    tensors["activation_mean"] = mean;
    tensors["activation_std"] = sines({2, 4});
    tensors["activation_global_scale"] = scale;
    write_tensors(path, tensors);
    return [&] { return load_crosscoder(path, two); };
  };
  const auto ones = at::full({2}, 1.0, at::kFloat);
  REQUIRE_NOTHROW(normalized(sines({2, 4}), ones)());
  const auto one = at::full({}, 2.0, at::kFloat);  // for all layers, as earlier versions have it
  const auto x = sines({3, 2, 4});
  REQUIRE_CLOSE(normalized(sines({2, 4}), one)().reconstruct(x),
                normalized(sines({2, 4}), ones.mul(2))().reconstruct(x), 0.0);
  const auto none = at::full({2, 4}, std::nan(""), at::kFloat);
  REQUIRE_CLOSE(normalized(none, ones.mul(7))().parts[0].dictionary.W_enc, sines({2, 4, 5}).view({8, 5}), 0.0);
  REQUIRE_THROWS_AS(normalized(sines({2, 3}), ones)(), ShapeError);
  REQUIRE_THROWS_AS(normalized(sines({2, 4}), at::full({3}, 1.0, at::kFloat))(), ShapeError);
  REQUIRE_THROWS_AS(normalized(sines({2, 4}), ones.sub(1))(), ValueError);
  REQUIRE_THROWS_WITH(normalized(at::full({2, 4}, 9.0, at::kFloat), ones.mul(3e38))(),
                      ContainsSubstring("folded into the weights"));
  REQUIRE_THROWS_AS(load_crosscoder(folder.path), ConfigError);
  REQUIRE_THROWS_AS(load_crosscoder(folder.path / "none.pt", two), FileError);
  auto tensors = learned();
  tensors.erase("decoder.bias");
  write_tensors(path, tensors);
  REQUIRE_THROWS_AS(load_crosscoder(path, two), NameError);
}

TEST_CASE("a BatchTopK crosscoder holds activations times the norms of their rows against its threshold") {
  const Folder folder;
  const auto path = folder.path / "cc.safetensors";
  const std::vector<Layer> two{Layer{0}, Layer{3}};
  auto tensors = learned();
  tensors["decoder.weight"].select(1, 2).zero_();  // a feature that writes nothing
  tensors["k"] = at::full({}, 3, at::kLong);
  const auto W_dec = tensors.at("decoder.weight");
  const auto x = sines({7, 2, 4});
  const auto pre =
      x.reshape({7, 8}).matmul(tensors.at("encoder.weight").reshape({8, 5})).add(tensors.at("encoder.bias"));
  const auto acts = pre.relu();
  const auto expect = [&](std::int64_t id, double threshold, const at::Tensor& norms) {
    INFO("code_normalization_id " << id << " threshold " << threshold);
    tensors["code_normalization_id"] = at::full({}, id, at::kLong);
    tensors["threshold"] = at::full({}, threshold, at::kFloat);
    write_tensors(path, tensors);
    const auto expected = acts.mul(acts.mul(norms).gt(threshold).to(at::kFloat));
    REQUIRE_CLOSE(load_crosscoder(path, two).encode(x), expected, 1e-6);
    return expected.ne(acts).any().item<bool>();
  };
  const auto norms = W_dec.square().sum(-1);
  REQUIRE(expect(1, 0.9, norms.sqrt().sum(0)));
  REQUIRE(expect(2, 0.9, norms.sum(0).sqrt()));
  REQUIRE(expect(4, 0.9, at::full({5}, 1.0, at::kFloat)));
  REQUIRE(expect(1, 0.0, norms.sqrt().sum(0)));         // the feature without rows is over no threshold of 0
  REQUIRE_FALSE(expect(1, -1.0, norms.sqrt().sum(0)));  // as before a threshold was learned
  tensors.erase("code_normalization_id");
  write_tensors(path, tensors);
  REQUIRE_CLOSE(load_crosscoder(path, two).encode(x), acts, 1e-6);

  const auto refused = [&](const std::string& name, at::Tensor tensor) {
    auto changed = tensors;
    changed[name] = std::move(tensor);
    write_tensors(path, changed);
    return said<Error>([&] { (void)load_crosscoder(path, two); });
  };
  const auto id = [](std::int64_t value) { return at::full({}, value, at::kLong); };
  REQUIRE_THAT(refused("code_normalization_id", id(3)), ContainsSubstring("MIXED"));
  REQUIRE_THAT(refused("code_normalization_id", id(5)), ContainsSubstring("DECOUPLED"));
  REQUIRE_THAT(refused("code_normalization_id", id(9)), ContainsSubstring("not known"));
  REQUIRE_THAT(refused("threshold", sines({2})), ContainsSubstring("\"threshold\": expected [5], got [2]"));
  REQUIRE_THAT(refused("threshold", at::full({}, std::nan(""), at::kFloat)), ContainsSubstring("threshold"));
}

namespace {

fs::path scope_folder() { return data() / "gemma_scope_2/crosscoder/layer_0_1_3_width_30_l0_small"; }

}  // namespace

TEST_CASE("crosscoders are recognised, said by name, and placed in a set") {
  using dictionary::Format;
  const auto scope = dictionary::recognise(scope_folder());
  REQUIRE(scope.format == Format::gemma_scope_crosscoder);
  REQUIRE(dictionary::name(scope.format) == "Gemma Scope 2 crosscoder");
  for (const auto* file : {"learned", "learned/ae.pt", "batch_top_k", "stacked/0.pt"}) {
    INFO(file);
    const auto found = dictionary::recognise(data() / file);
    REQUIRE(found.format == Format::crosscoder);
    REQUIRE(found.path.extension() == ".pt");
    REQUIRE_THAT(said<ConfigError>([&] { (void)dictionary::load(data() / file); }),
                 ContainsSubstring("is a crosscoder"));
    REQUIRE_THAT(said<ConfigError>([&] { (void)dictionary::load_set({data() / file}); }),
                 ContainsSubstring("does not say which layers"));
  }
  REQUIRE(dictionary::name(Format::crosscoder) == "crosscoder");
  REQUIRE_THROWS_AS(dictionary::load(scope_folder()), ConfigError);

  const auto set = dictionary::load_set({scope_folder()});
  REQUIRE(set.crosscoders().size() == 1);
  for (const std::int32_t l : {0, 1, 2, 3, 4}) REQUIRE((set.crosscoder(Layer{l}) != nullptr) == (l != 0 && l != 3));
  REQUIRE_THROWS_AS(dictionary::load_set({scope_folder(), scope_folder()}), ConfigError);
  const auto model = random_model::make<Gpt2>(3, at::kFloat);
  REQUIRE(dictionary::load_set({scope_folder()}, model).crosscoder(Layer{4}) != nullptr);
}

TEST_CASE("a folder of Gemma Scope 2 is a crosscoder of the layers and hooks that it names") {
  const Folder folder;
  const auto path = folder.path / "cc";
  fs::copy(scope_folder(), path, fs::copy_options::recursive);
  const auto config = [&](const nlohmann::json& json) { std::ofstream{path / "config.json"} << json.dump(); };
  const auto hooks = [&](const char* in, const char* out) {
    config({{"type", "crosscoder"}, {"hf_hook_point_in", in}, {"hf_hook_point_out", out}});
  };
  constexpr auto stream = "model.layers.{2,5,7}.output";
  hooks(stream, stream);
  REQUIRE(load_crosscoder(path).layers == std::vector{Layer{3}, Layer{6}, Layer{8}});
  REQUIRE(dictionary::recognise(path).format == dictionary::Format::gemma_scope_crosscoder);
  for (const auto* other :
       {"model.layers.{2,5,7}.mlp.output", "model.layers.{2,5,7}.self_attn.o_proj.input", "lm_head"}) {
    hooks(stream, other);
    REQUIRE_THAT(said<ConfigError>([&] { (void)dictionary::load_set({path}); }), ContainsSubstring(other));
    hooks(other, stream);
    REQUIRE_THAT(said<ConfigError>([&] { (void)load_crosscoder(path); }), ContainsSubstring("hf_hook_point_in"));
  }
  hooks("model.layers.{1,99999999999,3}.output", "");  // no number of a layer: two are left for three files
  REQUIRE_THROWS_WITH(load_crosscoder(path), ContainsSubstring("more files than layers"));
  config({{"type", "crosscoder"}});
  REQUIRE_THROWS_WITH(load_crosscoder(path), ContainsSubstring("neither the folder's name nor its config.json"));
  config({{"type", 3}});
  REQUIRE_THROWS_AS(dictionary::recognise(path), ConfigError);
  config({{"type", "clt"}});
  REQUIRE(dictionary::recognise(path).format == dictionary::Format::gemma_scope_set);
  REQUIRE(dictionary::name(dictionary::Format::gemma_scope_set) == "Gemma Scope 2 cross-layer transcoder");
  fs::remove(path / "config.json");
  REQUIRE(dictionary::recognise(path).format == dictionary::Format::gemma_scope_set);
  fs::rename(path, folder.path / "layer_2_5_7");
  REQUIRE(dictionary::recognise(folder.path / "layer_2_5_7").format == dictionary::Format::gemma_scope_crosscoder);
  REQUIRE(load_crosscoder(folder.path / "layer_2_5_7").layers.front() == Layer{3});
}

TEST_CASE("a list may name crosscoders, and the hooks of those whose files do not") {
  const Folder folder;
  const auto list = folder.path / "list.json";
  const auto placed = [&](const nlohmann::json& entry) {
    std::ofstream{list} << nlohmann::json{{"dictionaries", {entry}}}.dump();
    return dictionary::load_listed(list);
  };
  const auto refused = [&](const nlohmann::json& entry) { return said<Error>([&] { (void)placed(entry); }); };
  fs::copy(data() / "learned", folder.path / "learned");
  fs::copy(scope_folder(), folder.path / "layer_0_1_3", fs::copy_options::recursive);
  write_tensors(folder.path / "two.safetensors", learned());
  const nlohmann::json three{"blocks.1.hook_resid_pre", "blocks.2.hook_resid_post", "blocks.5.hook_resid_pre"};
  for (const auto* path : {"learned", "learned/ae.pt"}) {
    const auto set = placed({{"path", path}, {"reads", three}});
    REQUIRE(set.crosscoders().at(0).layers == std::vector{Layer{1}, Layer{3}, Layer{5}});
  }
  REQUIRE(placed({{"path", "layer_0_1_3"}}).crosscoder(Layer{4}) != nullptr);
  const nlohmann::json own{"blocks.0.hook_resid_post", "blocks.2.hook_resid_pre", "blocks.3.hook_resid_post"};
  REQUIRE(placed({{"path", "layer_0_1_3"}, {"reads", own}, {"writes", own}}).crosscoder(Layer{4}) != nullptr);
  const nlohmann::json two{"blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"};
  REQUIRE(placed({{"path", "two.safetensors"}, {"reads", two}}).crosscoder(Layer{2}) != nullptr);

  REQUIRE_THAT(refused({{"path", "learned"}}), ContainsSubstring("does not say which layers"));
  REQUIRE_THAT(refused({{"path", "layer_0_1_3"}, {"reads", three}}),
               ContainsSubstring("other layers by its own files"));
  REQUIRE_THAT(refused({{"path", "learned"}, {"reads", three}, {"writes", own}}),
               ContainsSubstring("describes what it reads"));
  REQUIRE_THAT(refused({{"path", "learned"}, {"reads", "blocks.1.hook_resid_pre"}}), ContainsSubstring("a list"));
  REQUIRE_THAT(refused({{"path", "learned"}, {"reads", {"blocks.1.hook_mlp_out", "blocks.2.hook_mlp_out"}}}),
               ContainsSubstring("got blocks.1.hook_mlp_out"));
  REQUIRE_THROWS_AS(placed({{"path", "learned"}, {"reads", two}}), ShapeError);
  REQUIRE_THAT(refused({{"path", "learned"}, {"reads", {three[1], three[0], three[2]}}}), ContainsSubstring("ascend"));
}

TEST_CASE("a folder of Gemma Scope 2's cross-layer transcoder is all of its layers") {
  const Folder folder;
  const auto path = folder.path / "clt" / "width_1k";
  fs::create_directories(path);
  for (int l = 0; l < 3; ++l) {
    write_tensors(path / ("params_layer_" + std::to_string(l) + ".safetensors"), {{"w_enc", sines({4, 5})},
                                                                                  {"b_enc", sines({5})},
                                                                                  {"w_dec", sines({5, 3, 4})},
                                                                                  {"b_dec", sines({4})},
                                                                                  {"threshold", sines({5})}});
  }
  REQUIRE(dictionary::recognise(path).format == dictionary::Format::gemma_scope_set);
  REQUIRE_THROWS_AS(dictionary::load(path), ConfigError);
  const auto set = dictionary::load_set({path});
  for (std::int32_t l = 0; l < 3; ++l) REQUIRE(set.mlp(Layer{l})->later_layers() == 2 - l);
  REQUIRE(set.mlp(Layer{3}) == nullptr);
}
