#include "circuit/dictionary/recognise.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "io/files.hpp"
#include "random_model.hpp"
#include "tensor_files.hpp"
#include "tensors.hpp"

using namespace circuit;
using namespace circuit_test;
namespace fs = std::filesystem;

namespace {

void write_text(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream{path} << text;
}

/// A sparsify folder, [3, 6].
struct Sparsify {
  nlohmann::json config{{"activation", "topk"}, {"k", 2}, {"d_in", 3}, {"num_latents", 6}, {"transcode", false}};
  Tensors tensors{{"encoder.weight", sines({6, 3}, 0)},
                  {"encoder.bias", sines({6}, 1)},
                  {"W_dec", sines({6, 3}, 2)},
                  {"b_dec", sines({3}, 3)}};

  fs::path write_to(const fs::path& folder) const {
    write_text(folder / "cfg.json", config.dump());
    write_tensors(folder / "sae.safetensors", tensors);
    return folder;
  }
};

/// A circuit-tracer transcoder, [3, 6].
Tensors tracer_tensors() {
  return {{"W_enc", sines({6, 3}, 0)}, {"b_enc", sines({6}, 1)}, {"W_dec", sines({6, 3}, 2)}, {"b_dec", sines({3}, 3)}};
}
const std::string tracer_config =
    "model_name: tiny\nmodel_kind: transcoder_set\nfeature_input_hook: ln2.hook_normalized\n"
    "feature_output_hook: hook_mlp_out\n";

}  // namespace

TEST_CASE("a transcoder of sparsify subtracts b_dec from its input only where it is said to be an old one") {
  const Folder folder;
  Sparsify s;
  s.config["transcode"] = true;
  s.config["num_latents"] = 0;
  const auto path = s.write_to(folder.path / "layers.0.mlp");
  const auto x = sines({4, 3}, 5);
  const auto encoded = [&](const at::Tensor& read) {
    const auto pre = read.matmul(s.tensors.at("encoder.weight").t()).add(s.tensors.at("encoder.bias"));
    return activation::TopK{.k = 2}.apply(pre);
  };
  REQUIRE_CLOSE(load_sparsify(path).dictionary.encode(x), encoded(x), 1e-6);
  REQUIRE_CLOSE(load_sparsify(path, {}, SparsifyInput::b_dec_too).dictionary.encode(x),
                encoded(x.sub(s.tensors.at("b_dec"))), 1e-6);
  REQUIRE(load_sparsify(path).hooks.out == "blocks.0.hook_mlp_out");
  REQUIRE(load_sparsify(path / "").hooks.out == "blocks.0.hook_mlp_out");  // as a shell completes it
}

TEST_CASE("sparsify folders that are not read are refused by name") {
  const Folder folder;
  const auto path = folder.path / "layers.0";
  const auto refused = [&](const std::function<void(Sparsify&)>& change) {
    Sparsify s;
    change(s);
    s.write_to(path);
    return said<Error>([&] { (void)dictionary::load(path); });
  };
  REQUIRE_THAT(refused([](auto& s) { s.config["signed"] = true; }), ContainsSubstring("signed"));
  REQUIRE_THAT(refused([](auto& s) { s.config["activation"] = "softmax"; }), ContainsSubstring("got softmax"));
  REQUIRE_THAT(refused([](auto& s) {
                 s.config["activation"] = "groupmax";
                 s.config["k"] = 4;
               }),
               ContainsSubstring("groups"));
  REQUIRE_THAT(refused([](auto& s) { s.config["k"] = 7; }), ContainsSubstring("expected 1 to 6, got 7"));
  REQUIRE_THAT(refused([](auto& s) { s.config["k"] = -1; }), ContainsSubstring("got -1"));
  REQUIRE_THAT(refused([](auto& s) { s.config.erase("k"); }), ContainsSubstring("k"));
  REQUIRE_THAT(refused([](auto& s) { s.config["num_latents"] = 12; }), ContainsSubstring("num_latents"));
  REQUIRE_THAT(refused([](auto& s) { s.config["skip_connection"] = true; }), ContainsSubstring("W_skip"));
  REQUIRE_THAT(refused([](auto& s) { s.tensors.erase("encoder.bias"); }), ContainsSubstring("encoder.bias"));
  REQUIRE_THAT(refused([](auto& s) { s.tensors["W_dec"] = sines({5, 3}, 0); }), ContainsSubstring("W_dec"));
  REQUIRE_THAT(refused([](auto& s) { s.tensors["b_dec"][1] = std::nan(""); }), ContainsSubstring("b_dec"));
  REQUIRE_THAT(refused([](auto& s) { s.tensors["b_dec"] = at::ones({3}, at::kInt); }), ContainsSubstring("b_dec"));
}

TEST_CASE("a set of circuit-tracer's is every layer beside its configuration, or the files it lists") {
  const Folder folder;
  const auto set = folder.path / "set";
  for (const int layer : {0, 2})
    write_tensors(set / ("layer_" + std::to_string(layer) + ".safetensors"), tracer_tensors());
  write_text(set / "config.yaml", tracer_config);
  REQUIRE(dictionary::recognise(set).format == dictionary::Format::circuit_tracer_set);
  const auto all = load_circuit_tracer_set(set);
  REQUIRE(all.size() == 2);
  REQUIRE(all.at(Layer{2}).hooks.in == "blocks.2.ln2.hook_normalized");
  const auto placed = dictionary::load_set({set});
  REQUIRE(placed.mlp(Layer{2}) != nullptr);
  REQUIRE(placed.mlp(Layer{1}) == nullptr);
  REQUIRE_THROWS_AS(dictionary::load_set({set, set / "layer_2.safetensors"}), ConfigError);
  REQUIRE_THROWS_AS(dictionary::load(set), ConfigError);

  write_text(set / "config.yaml", tracer_config + "transcoders:\n  - layer_2.safetensors\n");
  REQUIRE(load_circuit_tracer_set(set).begin()->first == Layer{0});  // the list's order is the layers'
}

TEST_CASE("for a model, transcoders of the MLP's input have a place, its gain taken over") {
  const auto model = random_model::make<Llama>(3, at::kFloat);
  const Folder folder;
  const Tensors tensors{{"W_enc", sines({20, 16}, 0)},
                        {"b_enc", sines({20}, 1)},
                        {"W_dec", sines({20, 16}, 2)},
                        {"b_dec", sines({16}, 3)}};
  for (const int layer : {0, 1})
    write_tensors(folder.path / ("layer_" + std::to_string(layer) + ".safetensors"), tensors);
  write_text(folder.path / "config.yaml",
             "model_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: mlp.hook_out\n");
  REQUIRE_THROWS_AS(dictionary::load_set({folder.path}), ConfigError);
  const auto set = dictionary::load_set({folder.path}, model);
  set.check(model.config(), model.processing(), at::kFloat);
  const auto x = sines({1, 4, 16}, 5);
  const auto read = x.mul(model.weights().blocks[1].ln2.gain);
  REQUIRE_CLOSE(set.encode_mlp(Layer{1}, x), read.matmul(tensors.at("W_enc").t()).add(tensors.at("b_enc")).relu(),
                1e-5);
}

namespace {

/// A cross-layer transcoder of three layers as circuit-tracer keeps it, [3, 6] each.
fs::path write_cross_layers(const Folder& folder, int wrong_layer = -1) {
  for (int l = 0; l < 3; ++l) {
    const auto n = std::to_string(l);
    Tensors encoder{
        {"W_enc_" + n, sines({6, 3}, l)}, {"b_enc_" + n, sines({6}, 10 + l)}, {"b_dec_" + n, sines({3}, 20 + l)}};
    if (l == 1) encoder["threshold_1"] = at::full({6}, 0.2, at::kFloat);
    write_tensors(folder.path / ("W_enc_" + n + ".safetensors"), encoder);
    write_tensors(folder.path / ("W_dec_" + n + ".safetensors"),
                  {{"W_dec_" + n, sines({6, 3 - l + (l == wrong_layer ? 1 : 0), 3}, 30 + l)}});
  }
  write_text(folder.path / "config.yaml",
             "model_kind: cross_layer_transcoder\nfeature_input_hook: ln2.hook_normalized\n"
             "feature_output_hook: hook_mlp_out\n");
  return folder.path;
}

}  // namespace

TEST_CASE("an SAE of one head describes that head, and leaves the others to the error") {
  const auto model = random_model::make<Gpt2>(3, at::kFloat);
  const auto d_head = model.config().d_head;
  const Tensors tensors{{"W_enc", sines({d_head, 9}, 0)},
                        {"b_enc", sines({9}, 1)},
                        {"W_dec", sines({9, d_head}, 2)},
                        {"b_dec", sines({d_head}, 3)}};
  const Folder folder;
  write_tensors(folder.path / "sae_weights.safetensors", tensors);
  const auto config = [&](int head) {
    write_text(folder.path / "cfg.json",
               nlohmann::json{{"architecture", "standard"},
                              {"d_in", d_head},
                              {"d_sae", 9},
                              {"apply_b_dec_to_input", true},
                              {"normalize_activations", "none"},
                              {"metadata", {{"hook_name", "blocks.1.attn.hook_z"}, {"hook_head_index", head}}}}
                   .dump());
  };
  config(2);
  REQUIRE(dictionary::load(folder.path).hooks.head == 2);
  REQUIRE_THROWS_AS(dictionary::load_set({folder.path}), ConfigError);
  const auto set = dictionary::load_set({folder.path}, model);
  set.check(model.config(), model.processing(), at::kFloat);
  const auto z = sines({1, 5, model.config().n_heads * d_head}, 5);
  const auto own = z.narrow(-1, 2 * d_head, d_head);
  const auto acts = own.sub(tensors.at("b_dec")).matmul(tensors.at("W_enc")).add(tensors.at("b_enc")).relu();
  REQUIRE_CLOSE(set.encode_attn(Layer{1}, z), acts, 1e-6);
  const auto described = set.attn(Layer{1})->decode(acts);
  REQUIRE_CLOSE(described.narrow(-1, 2 * d_head, d_head), acts.matmul(tensors.at("W_dec")).add(tensors.at("b_dec")),
                1e-6);
  REQUIRE(described.ne(0).sum().item<std::int64_t>() == 5 * d_head);
  config(static_cast<int>(model.config().n_heads));
  REQUIRE_THROWS_AS(dictionary::load_set({folder.path}, model), IndexError);

  auto normalised = dictionary::load(folder.path).dictionary;
  normalised.input_norm = {InputNorm::Kind::layer_norm};
  REQUIRE_THROWS_AS(over_all_heads(normalised, Head{0}, 4), ConfigError);
}

TEST_CASE("SAEs of several heads of one layer describe a head each") {
  const auto model = random_model::make<Gpt2>(3, at::kFloat);
  const auto d_head = model.config().d_head;
  const Folder folder;
  const auto write_head = [&](const std::string& name, int head, int features) {
    const auto path = folder.path / name;
    std::filesystem::create_directories(path);
    write_tensors(path / "sae_weights.safetensors", Tensors{{"W_enc", sines({d_head, features}, 0)},
                                                            {"b_enc", sines({features}, head)},
                                                            {"W_dec", sines({features, d_head}, 2)},
                                                            {"b_dec", sines({d_head}, 3)}});
    write_text(path / "cfg.json",
               nlohmann::json{{"architecture", "standard"},
                              {"d_in", d_head},
                              {"d_sae", features},
                              {"apply_b_dec_to_input", true},
                              {"normalize_activations", "none"},
                              {"metadata", {{"hook_name", "blocks.1.attn.hook_z"}, {"hook_head_index", head}}}}
                   .dump());
    return path;
  };
  const auto paths = std::vector{write_head("a", 2, 9), write_head("b", 0, 7)};
  const auto set = dictionary::load_set(paths, model);
  set.check(model.config(), model.processing(), at::kFloat);
  const auto z = sines({1, 5, model.config().n_heads * d_head}, 5);
  const auto acts = set.encode_attn(Layer{1}, z);
  const auto out = set.attn(Layer{1})->decode(acts);
  REQUIRE(acts.size(-1) == 16);
  std::int64_t first = 0;
  for (const auto& path : paths) {
    const auto own = dictionary::load(path);
    const auto d = own.dictionary;
    const auto x = z.narrow(-1, *own.hooks.head * d_head, d_head);
    REQUIRE_CLOSE(acts.narrow(-1, first, d.d_sae()), d.encode(x), 1e-6);
    REQUIRE_CLOSE(out.narrow(-1, *own.hooks.head * d_head, d_head), d.reconstruct(x), 1e-5);
    first += d.d_sae();
  }
  REQUIRE(out.narrow(-1, d_head, d_head).abs().sum().item<double>() == 0);  // of a head without an SAE

  const auto refused = [&](const std::vector<std::filesystem::path>& of) {
    return said<ConfigError>([&] { (void)dictionary::load_set(of, model); });
  };
  REQUIRE_THAT(refused({paths[0], write_head("c", 2, 5)}), ContainsSubstring("two dictionaries of head 2"));
  auto selects = dictionary::load(paths[0]).dictionary;
  selects.activation.chosen = activation::TopK{.k = 3};
  REQUIRE_THROWS_AS(over_all_heads({{Head{0}, selects}, {Head{1}, selects}}, 4), ConfigError);
  auto jumps = dictionary::load(paths[1]).dictionary;
  jumps.activation.chosen = activation::JumpRelu{at::full({7}, 0.5, at::kFloat)};
  const auto mixed = over_all_heads({{Head{3}, dictionary::load(paths[0]).dictionary}, {Head{1}, jumps}}, 4);
  REQUIRE_CLOSE(mixed.encode(z).narrow(-1, 9, 7), jumps.encode(z.narrow(-1, d_head, d_head)), 1e-6);
  auto wide = jumps;
  wide.W_enc = wide.W_enc.to(at::kDouble);
  REQUIRE_THROWS_AS(over_all_heads({{Head{3}, jumps}, {Head{1}, wide}}, 4), DTypeError);
}

TEST_CASE("transcoders of hook_resid_mid have a place of their own") {
  const Folder folder;
  const auto path = write_cross_layers(folder);
  write_text(path / "config.yaml",
             "model_kind: cross_layer_transcoder\nfeature_input_hook: hook_resid_mid\n"
             "feature_output_hook: hook_mlp_out\n");
  const auto set = dictionary::load_set({path});
  REQUIRE(set.mlp_site(Layer{1}) == MlpSite::resid_mid);
  REQUIRE(set.mlp_site(Layer{7}) == MlpSite::normalized);  // where there is none
}

TEST_CASE("circuit-tracer files say how many features a TopK keeps, negative values among them") {
  const Folder folder;
  auto tensors = tracer_tensors();
  tensors["k"] = at::full({}, 5, at::kLong);
  write_tensors(folder.path / "layer_0.safetensors", tensors);
  write_text(folder.path / "config.yaml", tracer_config);
  const auto d = dictionary::load(folder.path / "layer_0.safetensors").dictionary;
  const auto acts = d.encode(sines({4, 3}, 5));
  REQUIRE(acts.ne(0).sum().item<std::int64_t>() == 4 * 5);
  REQUIRE(acts.lt(0).any().item<bool>());
}

TEST_CASE("circuit-tracer configurations that are not read are refused by name") {
  const Folder folder;
  const auto file = folder.path / "layer_0.safetensors";
  write_tensors(file, tracer_tensors());
  const auto refused = [&](const std::string& config) {
    write_text(folder.path / "config.yaml", config);
    return said<Error>([&] { (void)load_circuit_tracer_set(folder.path); });
  };
  REQUIRE_THAT(refused("model_kind: crosscoder\n"), ContainsSubstring("got crosscoder"));
  REQUIRE_THAT(refused("model_kind: transcoder_set\n"), ContainsSubstring("feature_input_hook"));
  REQUIRE_THAT(refused(tracer_config + "activation: tanh\n"), ContainsSubstring("got tanh"));
  REQUIRE_THAT(refused(tracer_config + "activation: topk\n"), ContainsSubstring("got 0"));
  REQUIRE_THAT(refused(tracer_config + "k: many\n"), ContainsSubstring("many"));
  REQUIRE_THAT(refused(tracer_config + "transcoders:\n  - hf://org/repo/layer_0.safetensors\n"),
               ContainsSubstring("hf://"));
  REQUIRE_THAT(refused(tracer_config + "transcoders:\n  - ../layer_0.safetensors\n"), ContainsSubstring("outside"));
  REQUIRE_THAT(refused(tracer_config + "transcoders:\n  - layer_9.safetensors\n"), ContainsSubstring("layer_9"));
  REQUIRE_THAT(refused(tracer_config + "nested:\n  a: 1\n"), ContainsSubstring("nested"));
}

TEST_CASE("a Llama Scope folder whose norms or sizes cannot be is refused by name") {
  const Folder folder;
  const Tensors tensors{{"encoder.weight", sines({6, 3}, 0)},
                        {"encoder.bias", sines({6}, 1)},
                        {"decoder.weight", sines({3, 6}, 2)},
                        {"decoder.bias", sines({3}, 3)}};
  write_tensors(folder.path / "checkpoints" / "final.safetensors", tensors);
  const nlohmann::json good{{"d_model", 3},
                            {"hook_point_in", "blocks.0.hook_resid_post"},
                            {"jump_relu_threshold", 0.5},
                            {"dataset_average_activation_norm", {{"in", 2.0}, {"out", 2.0}}}};
  const auto load_with = [&](const nlohmann::json& config) {
    write_text(folder.path / "hyperparams.json", config.dump());
    return dictionary::load(folder.path);
  };
  REQUIRE(load_with(good).dictionary.d_sae() == 6);
  const auto refused = [&](const std::function<void(nlohmann::json&)>& change) {
    auto config = good;
    change(config);
    return said<Error>([&] { (void)load_with(config); });
  };
  REQUIRE_THAT(refused([](auto& c) { c["dataset_average_activation_norm"]["in"] = 0.0; }),
               ContainsSubstring("norm.in"));
  REQUIRE_THAT(refused([](auto& c) { c["dataset_average_activation_norm"].erase("out"); }), ContainsSubstring("out"));
  for (const double norm : {1e-310, 1e300, -2.0}) {
    REQUIRE_THAT(refused([&](auto& c) { c["dataset_average_activation_norm"]["out"] = norm; }),
                 ContainsSubstring("norm.out"));
  }
  REQUIRE_THAT(refused([](auto& c) { c["jump_relu_threshold"] = 1e300; }), ContainsSubstring("jump_relu_threshold"));
  REQUIRE_THAT(refused([](auto& c) { c["d_model"] = 4; }), ContainsSubstring("d_model"));
  REQUIRE_THAT(refused([](auto& c) { c.erase("jump_relu_threshold"); }), ContainsSubstring("jump_relu_threshold"));
}

TEST_CASE("a cross-layer transcoder of Gemma Scope 2 is a file per layer, which writes from that layer on") {
  const Folder folder;
  const Tensors tensors{{"w_enc", sines({3, 6}, 0)},
                        {"b_enc", sines({6}, 1)},
                        {"w_dec", sines({6, 4, 3}, 2)},
                        {"b_dec", sines({3}, 3)},
                        {"affine_skip_connection", sines({3, 3}, 4)},
                        {"threshold", at::full({6}, 0.1, at::kFloat)}};
  const auto file = folder.path / "clt" / "width_1k" / "params_layer_1.safetensors";
  write_tensors(file, tensors);
  REQUIRE(dictionary::recognise(file).format == dictionary::Format::gemma_scope);
  const auto loaded = dictionary::load(file);
  REQUIRE(loaded.hooks.in == "blocks.1.ln2.hook_normalized");
  REQUIRE(loaded.hooks.out == "blocks.1.hook_mlp_out");
  const auto& d = loaded.dictionary;
  REQUIRE(d.later_layers() == 2);
  const auto features = at::arange(6, at::kLong);
  for (std::int64_t ahead = 0; ahead < 3; ++ahead) {
    REQUIRE_CLOSE(d.decoder_rows(features, ahead), tensors.at("w_dec").select(1, 1 + ahead), 0.0);
  }
  REQUIRE(d.has_skip());

  fs::rename(file, folder.path / "params.safetensors");
  REQUIRE_THAT(said<ConfigError>([&] { (void)dictionary::load(folder.path); }),
               ContainsSubstring("layer is not known"));
  fs::rename(folder.path / "params.safetensors", folder.path / "params_layer_4.safetensors");
  REQUIRE_THAT(said<ShapeError>([&] { (void)dictionary::load(folder.path / "params_layer_4.safetensors"); }),
               ContainsSubstring("[6, 4, 3]"));
}

TEST_CASE("a cross-layer transcoder of circuit-tracer gives every layer what its definition says") {
  const Folder folder;
  const auto path = write_cross_layers(folder);
  REQUIRE(dictionary::recognise(path).format == dictionary::Format::circuit_tracer_set);
  const auto set = dictionary::load_set({path});
  std::vector<at::Tensor> acts;
  std::vector<at::Tensor> inputs;
  for (int l = 0; l < 3; ++l) {
    inputs.push_back(sines({1, 5, 3}, 40 + l));
    const auto pre = inputs.back().matmul(sines({6, 3}, l).t()).add(sines({6}, 10 + l));
    acts.push_back(l == 1 ? pre.mul(pre.gt(0.2).to(at::kFloat)) : pre.relu());
  }
  for (std::int32_t m = 0; m < 3; ++m) {
    const Layer layer{m};
    REQUIRE_CLOSE(set.encode_mlp(layer, inputs[static_cast<std::size_t>(m)]), acts[static_cast<std::size_t>(m)], 1e-6);
    auto expected = sines({3}, 20.0 + m).expand({5, 3});
    auto got = set.mlp(layer)->b_out.expand({5, 3});
    for (std::int32_t l = 0; l <= m; ++l) {
      expected =
          expected.add(acts[static_cast<std::size_t>(l)][0].matmul(sines({6, 3 - l, 3}, 30 + l).select(1, m - l)));
      const auto active = set.active_mlp(Layer{l}, inputs[static_cast<std::size_t>(l)]);
      got = got.add(decode_active(*set.mlp(Layer{l}), active, m - l));
    }
    REQUIRE_CLOSE(got, expected, 1e-6);
  }
}

TEST_CASE("cross-layer transcoders that do not fit together are refused") {
  const Folder folder;
  const auto path = write_cross_layers(folder, /*wrong_layer=*/1);
  REQUIRE_THAT(said<ShapeError>([&] { (void)load_circuit_tracer_set(path); }), ContainsSubstring("W_dec_1"));
  (void)write_cross_layers(folder);
  write_tensors(path / "layer_0.safetensors", tracer_tensors());
  REQUIRE_THAT(said<ConfigError>([&] { (void)dictionary::load(path / "layer_0.safetensors"); }),
               ContainsSubstring("read together"));
  fs::remove(path / "W_dec_2.safetensors");
  REQUIRE_THROWS_AS(load_circuit_tracer_set(path), FileError);
  fs::remove(path / "W_enc_0.safetensors");
  REQUIRE_THAT(said<ConfigError>([&] { (void)load_circuit_tracer_set(path); }), ContainsSubstring("W_enc_0"));
}

TEST_CASE("a TopK of dictionary_learning without its configuration is not guessed at") {
  const Folder folder;
  const auto from = fs::path{CIRCUIT_TEST_DATA} / "dictionaries" / "dictionary_learning_top_k";
  fs::copy_file(from / "ae.pt", folder.path / "ae.pt");
  REQUIRE_THAT(said<ConfigError>([&] { (void)dictionary::load(folder.path); }), ContainsSubstring("dict_class"));
  write_text(folder.path / "config.json", R"({"trainer": {"dict_class": "Surprise"}})");
  REQUIRE_THAT(said<ConfigError>([&] { (void)dictionary::load(folder.path); }), ContainsSubstring("got Surprise"));
  write_text(folder.path / "config.json", R"({"trainer": {"dict_class": "AutoEncoderTopK", "layer": 3}})");
  REQUIRE(dictionary::load(folder.path).hooks.in == "blocks.3.hook_resid_post");
}

TEST_CASE("paths that hold no dictionary are refused") {
  const Folder folder;
  REQUIRE_THROWS_AS(dictionary::recognise(folder.path / "nowhere"), FileError);
  REQUIRE_THAT(said<ConfigError>([&] { (void)dictionary::recognise(folder.path); }),
               ContainsSubstring("cfg.json with"));
  REQUIRE_THROWS_AS(dictionary::recognise(folder.file("notes.txt", "no")), ConfigError);
  REQUIRE_THROWS_AS(dictionary::load(folder.file("params.npz", "no archive")), FormatError);
}
