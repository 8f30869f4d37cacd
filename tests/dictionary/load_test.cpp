#include "circuit/dictionary/load.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>

#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "golden.hpp"
#include "io/files.hpp"
#include "tensor_files.hpp"
#include "tensors.hpp"

using namespace circuit;
using namespace circuit_test;
namespace fs = std::filesystem;

namespace {

fs::path golden_file(const std::string& name) { return golden::folder() / "dictionaries" / name; }

/// Copies the golden dictionaries of one extension into a folder of their own.
void copy_golden(const fs::path& to, const std::string& extension) {
  for (const auto& entry : fs::directory_iterator{golden::folder() / "dictionaries"}) {
    if (entry.path().extension() == extension) fs::copy_file(entry.path(), to / entry.path().filename());
  }
}

/// A tiny SAE, [3, 5]; numbers differ everywhere.
Tensors sae_tensors(at::ScalarType dtype = at::kFloat) {
  return {{"W_enc", sines({3, 5}, 0, dtype)},
          {"b_enc", sines({5}, 1, dtype)},
          {"W_dec", sines({5, 3}, 2, dtype)},
          {"b_dec", sines({3}, 3, dtype)}};
}

nlohmann::json sae_lens_config() {
  return {{"architecture", "standard"},
          {"d_in", 3},
          {"d_sae", 5},
          {"apply_b_dec_to_input", true},
          {"normalize_activations", "none"},
          {"metadata", {{"hook_name", "blocks.1.attn.hook_z"}, {"neuronpedia_id", "tiny/1-att"}}}};
}

fs::path write_sae_lens(const Folder& folder, const nlohmann::json& config, const Tensors& tensors) {
  const auto path = folder.path / "sae";
  fs::create_directories(path);
  std::ofstream{path / "cfg.json"} << config.dump();
  write_tensors(path / "sae_weights.safetensors", tensors);
  return path;
}

}  // namespace

TEST_CASE("golden dictionaries, .safetensors and .pt, encode and reconstruct as the reference") {
  for (const std::string extension : {".safetensors", ".pt"}) {
    const Folder folder;
    copy_golden(folder.path, extension);
    for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-10}, std::pair{at::kFloat, 1e-4}}) {
      const auto set = load_dictionaries(folder.path, folder.path, {.dtype = dtype});
      for (const std::string weights : {"folded", "unfolded"}) {
        for (const std::string which : {"clean", "corrupt"}) {
          for (const Layer l : {Layer{0}, Layer{1}, Layer{2}}) {
            const auto prefix = weights + '/' + which + '/' + std::to_string(l.value) + '/';
            INFO(extension << ' ' << prefix);
            const auto z = golden::fact(prefix + "z").flatten(2).to(dtype);
            const auto attn_acts = set.encode_attn(l, z);
            REQUIRE_CLOSE(attn_acts, golden::fact(prefix + "attn_acts"), tolerance);
            REQUIRE_CLOSE(set.attn(l)->decode(attn_acts), golden::fact(prefix + "attn_z_recons"), tolerance);
            const auto x = golden::fact(prefix + "ln2.normalized").to(dtype);
            const auto mlp_acts = set.encode_mlp(l, x);
            REQUIRE_CLOSE(mlp_acts, golden::fact(prefix + "mlp_acts"), tolerance);
            REQUIRE_CLOSE(set.mlp(l)->decode(mlp_acts), golden::fact(prefix + "mlp_recons"), tolerance);
          }
        }
      }
    }
  }
}

TEST_CASE("a dictionary of the dtype asked for stays mapped, and outlives its file") {
  const Folder folder;
  write_tensors(folder.path / "attn.0.safetensors", sae_tensors());
  const auto mapped = load_bare(folder.path / "attn.0.safetensors", DictionaryKind::sae).dictionary.W_enc;
  REQUIRE_FALSE(mapped.storage().resizable());  // from_blob's memory is not the allocator's
  const auto widened = load_bare(folder.path / "attn.0.safetensors", DictionaryKind::sae, {.dtype = at::kDouble});
  REQUIRE(widened.dictionary.W_enc.scalar_type() == at::kDouble);
  fs::remove(folder.path / "attn.0.safetensors");
  REQUIRE_CLOSE(mapped, sae_tensors().at("W_enc"), 0.0);
}

TEST_CASE("decoder rows read now and then do not keep a mapped decoder in memory") {
  const Folder folder;
  const auto file = folder.path / "attn.0.safetensors";
  auto tensors = sae_tensors();
  tensors["W_dec"] = at::arange(4096 * 3, at::kFloat).view({4096, 3});  // 12 pages of 4096 bytes
  tensors["W_enc"] = at::ones({3, 4096}, at::kFloat);
  tensors["b_enc"] = at::ones({4096}, at::kFloat);
  write_tensors(file, tensors);
  const auto mapped = load_bare(file, DictionaryKind::sae).dictionary;
  REQUIRE(mapped.W_dec_pages.hold(mapped.W_dec.data_ptr()));
  const auto features = at::arange(5, at::kLong).mul(1000);
  const auto expected = tensors.at("W_dec").index_select(0, features);
  for (int time = 0; time < 3; ++time) REQUIRE_CLOSE(mapped.decoder_rows(features), expected, 0.0);
  // Pages that were given back are the file's again: what somebody wrote to them by mistake is gone.
  mapped.W_dec.select(0, 1000).fill_(-1);
  REQUIRE(mapped.decoder_rows(features)[1][0].item<double>() == -1);
  REQUIRE_CLOSE(mapped.decoder_rows(features), expected, 0.0);

  const auto converted = load_bare(file, DictionaryKind::sae, {.dtype = at::kDouble}).dictionary;
  REQUIRE_FALSE(converted.W_dec_pages.hold(converted.W_dec.data_ptr()));
  converted.W_dec.select(0, 1000).fill_(-1);  // memory of its own
  for (int time = 0; time < 2; ++time) REQUIRE(converted.decoder_rows(features)[1][0].item<double>() == -1);
}

TEST_CASE("half-precision files are widened where that is asked for") {
  const Folder folder;
  write_tensors(folder.path / "attn.0.safetensors", sae_tensors(at::kHalf));
  const auto d = load_dictionary(folder.path / "attn.0.safetensors", {.half = HalfPrecision::widened}).dictionary;
  REQUIRE(d.W_dec.scalar_type() == at::kFloat);
  REQUIRE_CLOSE(d.W_dec, sae_tensors().at("W_dec"), 1e-3);
}

TEST_CASE("SAELens folders are read as written since version 6 and before") {
  const auto tensors = sae_tensors();
  const auto x = at::arange(3, at::kFloat).sub(1);
  const auto pre = x.sub(tensors.at("b_dec")).matmul(tensors.at("W_enc")).add(tensors.at("b_enc"));
  const auto expected = pre.clamp_min(0).matmul(tensors.at("W_dec")).add(tensors.at("b_dec"));

  const Folder folder;
  const auto loaded = load_sae_lens(write_sae_lens(folder, sae_lens_config(), tensors));
  REQUIRE(loaded.hooks.in == "blocks.1.attn.hook_z");
  REQUIRE(loaded.dictionary.name == "tiny/1-att");
  REQUIRE_FALSE(loaded.expects.has_value());
  REQUIRE_CLOSE(loaded.dictionary.reconstruct(x), expected, 1e-6);

  const nlohmann::json old{{"hook_point", "blocks.1.hook_attn_out"},
                           {"hook_point_head_index", nullptr},
                           {"d_in", 3},
                           {"d_sae", 5},
                           {"activation_fn_str", "relu"},
                           {"normalize_activations", false},
                           {"model_from_pretrained_kwargs", {{"center_writing_weights", false}}}};
  auto with_ones = tensors;
  with_ones["scaling_factor"] = at::ones({5});
  const auto before = load_sae_lens(write_sae_lens(folder, old, with_ones));
  REQUIRE(before.hooks.out == "blocks.1.hook_attn_out");
  REQUIRE(before.expects == weights::unprocessed);  // a missing option is off
  REQUIRE_CLOSE(before.dictionary.reconstruct(x), expected, 1e-6);
}

TEST_CASE("a SAELens dictionary subtracts b_dec only where its configuration says so; a transcoder never does") {
  const auto tensors = sae_tensors();
  const auto x = at::arange(3, at::kFloat).sub(1);
  const auto expected = x.matmul(tensors.at("W_enc"))
                            .add(tensors.at("b_enc"))
                            .clamp_min(0)
                            .matmul(tensors.at("W_dec"))
                            .add(tensors.at("b_dec"));
  const Folder folder;
  auto config = sae_lens_config();
  config["apply_b_dec_to_input"] = false;
  REQUIRE_CLOSE(load_sae_lens(write_sae_lens(folder, config, tensors)).dictionary.reconstruct(x), expected, 1e-6);

  config["architecture"] = "transcoder";
  config["metadata"] = {{"hook_name", "blocks.1.ln2.hook_normalized"}, {"hook_name_out", "blocks.1.hook_mlp_out"}};
  const auto path = write_sae_lens(folder, config, tensors);
  REQUIRE_CLOSE(load_sae_lens(path).dictionary.reconstruct(x), expected, 1e-6);
  REQUIRE(load_dictionaries({}, folder.path).mlp(Layer{1}) != nullptr);  // a folder of SAELens folders
  REQUIRE(load_dictionaries({}, path).mlp(Layer{1}) != nullptr);         // the folder itself
}

TEST_CASE("SAELens dictionaries of other kinds are refused by name") {
  const Folder folder;
  const auto refused = [&](const std::function<void(nlohmann::json&)>& change) {
    auto config = sae_lens_config();
    change(config);
    const auto path = write_sae_lens(folder, config, sae_tensors());
    return said<ConfigError>([&] { (void)load_sae_lens(path); });
  };
  for (const std::string architecture : {"batchtopk", "matryoshka_batchtopk", "temporal", "matching_pursuit"}) {
    REQUIRE_THAT(refused([&](auto& c) { c["architecture"] = architecture; }), ContainsSubstring("got " + architecture));
  }
  REQUIRE_THAT(refused([](auto& c) { c["activation_fn_str"] = "tanh-relu"; }), ContainsSubstring("activation_fn_str"));
  REQUIRE_THAT(refused([](auto& c) { c["normalize_activations"] = "covariance_whitening"; }),
               ContainsSubstring("covariance_whitening"));
  REQUIRE_THAT(refused([](auto& c) { c["normalize_activations"] = true; }), ContainsSubstring("activation_scale"));
  REQUIRE_THAT(refused([](auto& c) { c["metadata"]["hook_head_index"] = "3"; }), ContainsSubstring("hook_head_index"));
  REQUIRE_THAT(refused([](auto& c) { c["metadata"]["hook_head_index"] = -1; }), ContainsSubstring("hook_head_index"));
  REQUIRE_THAT(refused([](auto& c) {
                 c["metadata"]["hook_head_index"] = 3;
                 c["metadata"]["hook_name"] = "blocks.1.hook_resid_post";
               }),
               ContainsSubstring("hook_head_index"));
  REQUIRE_THAT(refused([](auto& c) { c["metadata"] = nlohmann::json::object(); }), ContainsSubstring("hook_point"));
  REQUIRE_THAT(refused([](auto& c) { c["architecture"] = "transcoder"; }), ContainsSubstring("apply_b_dec_to_input"));
  REQUIRE_THAT(refused([](auto& c) { c["d_sae"] = 6; }), ContainsSubstring("expected 6, got 5"));
  REQUIRE_THAT(refused([](auto& c) { c.erase("d_in"); }), ContainsSubstring("d_in"));
  auto scaled = sae_tensors();
  scaled["scaling_factor"] = at::full({5}, 2.0);
  const auto path = write_sae_lens(folder, sae_lens_config(), scaled);
  REQUIRE_THAT(said<ConfigError>([&] { (void)load_sae_lens(path); }), ContainsSubstring("scaling_factor"));
}

TEST_CASE("what a SAELens dictionary is folded by is checked first, and what that makes is finite") {
  const Folder folder;
  auto config = sae_lens_config();
  config["architecture"] = "topk";
  config["k"] = 2;
  config["rescale_acts_by_decoder_norm"] = true;
  auto tensors = sae_tensors();
  tensors["W_enc"] = tensors["W_enc"].narrow(1, 0, 1).contiguous();  // would be broadcast over the features
  const auto told = said<ShapeError>([&] { (void)load_sae_lens(write_sae_lens(folder, config, tensors)); });
  REQUIRE_THAT(told, ContainsSubstring("b_enc") && ContainsSubstring("sae_weights.safetensors"));
  tensors = sae_tensors();
  tensors["W_dec"][2].zero_();
  const auto dictionary = load_sae_lens(write_sae_lens(folder, config, tensors)).dictionary;
  REQUIRE_CLOSE(dictionary.W_dec[2], at::full({3}, 0.0, at::kFloat), 0.0);
  REQUIRE_CLOSE(dictionary.W_enc.narrow(1, 2, 1), at::full({3, 1}, 0.0, at::kFloat), 0.0);

  config = sae_lens_config();
  config["normalize_activations"] = "expected_average_only_in";
  const auto path = write_sae_lens(folder, config, sae_tensors());
  for (const double scale : {0.0, -1.0, 1e-310, 1e300, std::nan("")}) {
    REQUIRE_THROWS_AS(load_sae_lens(path, {.activation_scale = scale}), ConfigError);
  }
  tensors = sae_tensors();
  tensors["W_enc"].mul_(1e10);
  REQUIRE_THAT(said<ValueError>(
                   [&] { (void)load_sae_lens(write_sae_lens(folder, config, tensors), {.activation_scale = 1e30}); }),
               ContainsSubstring("W_enc") && ContainsSubstring("sae_weights.safetensors"));
  config = sae_lens_config();
  config["architecture"] = "gated";
  tensors = sae_tensors();
  tensors.erase("b_enc");
  for (const auto* part : {"b_gate", "b_mag", "r_mag"}) tensors[part] = at::full({5}, 100.0, at::kFloat);
  REQUIRE_THAT(said<ValueError>([&] { (void)load_sae_lens(write_sae_lens(folder, config, tensors)); }),
               ContainsSubstring("r_mag"));
}

TEST_CASE("a layer that no model has is refused before it costs memory") {
  const Folder folder;
  auto config = sae_lens_config();
  for (const std::string hook : {"attn.hook_z", "hook_mlp_out"}) {
    config["metadata"]["hook_name"] = "blocks.2147483646." + hook;
    const auto path = write_sae_lens(folder, config, sae_tensors());
    const auto told = said<ConfigError>(
        [&] { (void)(hook == "hook_mlp_out" ? load_dictionaries({}, path) : load_dictionaries(path, {})); });
    REQUIRE_THAT(told, ContainsSubstring("got blocks.2147483646") && ContainsSubstring(path.string()));
  }
}

TEST_CASE("Kissane's attention SAEs take their layer from the configuration, or from the run's name") {
  const Folder folder;
  const auto run = folder.path / "gpt2-small_L5_Hcat_z_lr1.20e-03_l11.00e+00_ds96_v9.pt";
  fs::copy_file(golden_file("attn.1.pt"), run);
  const auto named = load_kissane(run, {.dtype = at::kDouble});
  REQUIRE(named.hooks.in == "blocks.5.attn.hook_z");
  REQUIRE(named.dictionary.name == "gpt2-small/5-att-kk");
  REQUIRE(named.expects == weights::folded_and_centered);
  const auto z = golden::fact("folded/clean/1/z").flatten(2);
  REQUIRE_CLOSE(named.dictionary.encode(z), golden::fact("folded/clean/1/attn_acts"), 1e-10);

  const auto config = folder.path / "gpt2-small_L5_Hcat_z_lr1.20e-03_l11.00e+00_ds96_v9_cfg.json";
  std::ofstream{config} << R"({"act_name": "blocks.7.attn.hook_z", "act_size": 32, "dict_size": 96})";
  REQUIRE(load_dictionary(run).hooks.in == "blocks.7.attn.hook_z");
  std::ofstream{config} << R"({"act_name": "blocks.7.attn.hook_z", "act_size": 32, "dict_size": 97})";
  REQUIRE_THROWS_AS(load_dictionary(run), ConfigError);
  std::ofstream{config} << R"({"act_size": 32})";
  REQUIRE_THROWS_AS(load_dictionary(run), ConfigError);
}

TEST_CASE("Dunefsky's transcoders are read past their pickled configuration class") {
  const auto folder = fs::path{CIRCUIT_TEST_DATA} / "dunefsky";
  const auto path = folder / "final_sparse_autoencoder_gpt2-small_blocks.2.ln2.hook_normalized_6.pt";
  const auto expected = open_safetensors(folder / "expected.safetensors");
  const auto loaded = load_dunefsky(path);
  REQUIRE(loaded.hooks.in == "blocks.2.ln2.hook_normalized");
  REQUIRE(loaded.hooks.out == "blocks.2.hook_mlp_out");
  REQUIRE(loaded.dictionary.name == "gpt2-small/2-tres-dc");
  const auto x = to_tensor(expected.get("x"));
  REQUIRE_CLOSE(loaded.dictionary.encode(x), to_tensor(expected.get("acts")), 1e-6);
  REQUIRE_CLOSE(loaded.dictionary.reconstruct(x), to_tensor(expected.get("out")), 1e-6);
  const auto set = load_dictionaries({}, folder);
  REQUIRE(set.mlp(Layer{2}) != nullptr);
  REQUIRE(set.mlp(Layer{0}) == nullptr);
  REQUIRE_THROWS_AS(load_dunefsky(golden_file("mlp.0.pt")), ConfigError);  // no configuration
}

TEST_CASE("a set of published dictionaries holds a model to their weight processing") {
  const Folder folder;
  for (const int l : {0, 1, 2}) {
    fs::copy_file(golden_file("attn." + std::to_string(l) + ".pt"),
                  folder.path / ("run_L" + std::to_string(l) + "_Hcat_z_v9.pt"));
  }
  const auto set = load_dictionaries(folder.path, {}, {.dtype = at::kDouble});
  const auto folded = golden::model(weights::folded_and_centered);
  REQUIRE_NOTHROW(set.check(folded.config(), folded.processing(), folded.dtype()));
  REQUIRE_THROWS_AS(set.check(folded.config(), weights::unprocessed, folded.dtype()), ConfigError);
  REQUIRE_THROWS_AS(set.check(folded.config(), folded.processing(), at::kFloat), DTypeError);
}

TEST_CASE("folders that are missing, empty or hold one layer twice are refused") {
  const Folder folder;
  REQUIRE_THROWS_AS(load_dictionaries(folder.path / "none", {}), FileError);
  REQUIRE_THROWS_AS(load_dictionaries(folder.path, {}), ConfigError);
  write_tensors(folder.path / "attn.0.safetensors", sae_tensors());
  REQUIRE_NOTHROW(load_dictionaries(folder.path, {}));
  REQUIRE_THROWS_AS(load_dictionaries({}, folder.path), ConfigError);  // no transcoder
  fs::copy_file(golden_file("attn.0.pt"), folder.path / "attn.0.pt");
  REQUIRE_THAT(said<ConfigError>([&] { (void)load_dictionaries(folder.path, {}); }),
               ContainsSubstring("two dictionaries of blocks.0.attn.hook_z"));
}

TEST_CASE("a dictionary that a set has no place for is refused by its hook") {
  const Folder folder;
  auto config = sae_lens_config();
  config["metadata"]["hook_name"] = "blocks.1.hook_resid_pre";
  const auto path = write_sae_lens(folder, config, sae_tensors());
  REQUIRE(load_dictionary(path).hooks.in == "blocks.1.hook_resid_pre");  // on its own it is welcome
  REQUIRE_THAT(said<ConfigError>([&] { (void)load_dictionaries(folder.path, {}); }),
               ContainsSubstring("blocks.1.hook_resid_pre"));
}

TEST_CASE("an SAE on hook_mlp_out is placed beside transcoders") {
  const Folder folder;
  auto config = sae_lens_config();
  config["metadata"]["hook_name"] = "blocks.1.hook_mlp_out";
  write_sae_lens(folder, config, sae_tensors());
  const auto set = load_dictionaries({}, folder.path);
  REQUIRE(set.mlp(Layer{1}) != nullptr);
  REQUIRE(set.mlp_site(Layer{1}) == MlpSite::mlp_out);
}

TEST_CASE("files that are missing, truncated or of another kind are refused") {
  const Folder folder;
  REQUIRE_THROWS_AS(load_dictionary(folder.path / "attn.0.safetensors"), FileError);
  REQUIRE_THROWS_AS(load_bare(folder.path / "attn.0.safetensors", DictionaryKind::sae), FileError);
  REQUIRE_THROWS_AS(load_kissane(folder.path / "x_L0_Hcat_z.pt"), FileError);
  REQUIRE_THROWS_AS(load_dunefsky(folder.path / "x.pt"), FileError);
  REQUIRE_THROWS_AS(load_sae_lens(folder.path), FileError);
  for (const std::string name : {"attn.0.safetensors", "attn.0.pt"}) {
    const auto whole = bytes_of(golden_file(name));
    for (const auto share : {0.0, 0.001, 0.3, 0.99}) {
      const auto cut = static_cast<std::size_t>(static_cast<double>(whole.size()) * share);
      const auto path = folder.file(name, whole.substr(0, cut));
      REQUIRE_THROWS_AS(load_bare(path, DictionaryKind::sae), FormatError);
    }
  }
  REQUIRE_THROWS_AS(load_dictionary(folder.file("attn.x.safetensors", "")), ConfigError);
  REQUIRE_THROWS_AS(load_dictionary(folder.file("notes.txt", "")), ConfigError);
  REQUIRE_THROWS_AS(load_sae_lens(write_sae_lens(folder, nlohmann::json::array(), sae_tensors())), ConfigError);
}

TEST_CASE("tensors that are missing or of a wrong shape, dtype or value are refused by name") {
  const Folder folder;
  const auto path = folder.path / "attn.0.safetensors";
  const auto load = [&](const std::function<void(Tensors&)>& change) {
    auto tensors = sae_tensors();
    change(tensors);
    write_tensors(path, tensors);
    (void)load_bare(path, DictionaryKind::sae);
  };
  for (const std::string name : {"W_enc", "b_enc", "W_dec", "b_dec"}) {
    INFO(name);
    REQUIRE_THAT(said<NameError>([&] { load([&](Tensors& t) { t.erase(name); }); }), ContainsSubstring(name));
    REQUIRE_THAT(said<ShapeError>([&] { load([&](Tensors& t) { t[name] = t[name].unsqueeze(0); }); }),
                 ContainsSubstring(name));
    REQUIRE_THAT(said<ShapeError>([&] { load([&](Tensors& t) { t[name] = t[name].narrow(0, 0, 2).contiguous(); }); }),
                 ContainsSubstring(path.string()));
    REQUIRE_THAT(said<DTypeError>([&] { load([&](Tensors& t) { t[name] = t[name].to(at::kInt); }); }),
                 ContainsSubstring(name));
    for (const auto bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
      REQUIRE_THAT(said<ValueError>([&] { load([&](Tensors& t) { t[name].flatten()[1].fill_(bad); }); }),
                   ContainsSubstring(name));
    }
  }
  REQUIRE_THROWS_AS(load([](Tensors& t) { std::swap(t["W_enc"], t["W_dec"]); }), ShapeError);
  REQUIRE_THROWS_AS(load([](Tensors& t) {
                      t["W_dec"] = at::ones({5, 4});
                    }),
                    ShapeError);  // an SAE writes what it reads
  load([](Tensors&) {});
  REQUIRE_THROWS_AS(load_bare(path, DictionaryKind::transcoder), NameError);
  REQUIRE_THROWS_AS(load_bare(path, DictionaryKind::sae, {.dtype = at::kHalf}), DTypeError);
}
