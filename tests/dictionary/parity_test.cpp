// Dictionaries written by the libraries that people publish them with, held to what those libraries make of them
// (tests/data/dictionaries/make.py).
#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "circuit/dictionary/recognise.hpp"
#include "circuit/model/load/gpt2.hpp"
#include "io/files.hpp"
#include "tensors.hpp"

using namespace circuit;
namespace fs = std::filesystem;

namespace {

struct Case {
  const char* folder;
  const char* inside;  // what is loaded
  dictionary::Format format;
  const char* reads;
  const char* writes;
  const char* reference;  // who computed the expected numbers
  double scale = 0;       // DictionaryOptions::activation_scale, where it is needed
};

constexpr auto resid = "blocks.1.hook_resid_post";
constexpr auto normalized = "blocks.1.ln2.hook_normalized";
constexpr auto mlp_out = "blocks.1.hook_mlp_out";

std::vector<Case> cases() {
  using enum dictionary::Format;
  constexpr auto lens = "sae_lens";
  constexpr auto eai = "eai-sparsify";
  constexpr auto learning = "dictionary_learning";
  constexpr auto tracer = "circuit-tracer";
  return {
      {"sae_lens_standard", "", sae_lens, resid, resid, lens},
      {"sae_lens_standard_no_input_bias", "", sae_lens, resid, resid, lens},
      {"sae_lens_hook_z", "", sae_lens, "blocks.1.attn.hook_z", "blocks.1.attn.hook_z", lens},
      {"sae_lens_constant_norm", "", sae_lens, resid, resid, lens},
      {"sae_lens_layer_norm", "", sae_lens, resid, resid, lens},
      {"sae_lens_expected_average", "", sae_lens, resid, resid, lens, 1.7},
      {"sae_lens_gated", "", sae_lens, resid, resid, lens},
      {"sae_lens_topk", "", sae_lens, resid, resid, lens},
      {"sae_lens_topk_decoder_norms", "", sae_lens, resid, resid, lens},
      {"sae_lens_topk_layer_norm", "", sae_lens, resid, resid, lens},
      {"sae_lens_jumprelu", "", sae_lens, resid, resid, lens},
      {"sae_lens_jumprelu_expected_average", "", sae_lens, resid, resid, lens, 1.7},
      {"sae_lens_batchtopk", "", sae_lens, resid, resid, lens},
      {"sae_lens_before_6", "", sae_lens, resid, resid, lens},
      {"sae_lens_transcoder", "", sae_lens, normalized, mlp_out, lens},
      {"sae_lens_transcoder_layer_norm", "", sae_lens, normalized, mlp_out, lens},
      {"sae_lens_skip_transcoder", "", sae_lens, normalized, mlp_out, lens},
      {"sae_lens_jumprelu_transcoder", "", sae_lens, normalized, mlp_out, lens},
      {"gemma_scope_res", "gemma-scope-2b-pt-res/layer_1/width_16k/average_l0_71", gemma_scope, resid, resid, lens},
      {"gemma_scope_embedding", "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", gemma_scope, "hook_embed",
       "hook_embed", lens},
      {"gemma_scope_transcoder", "gemma-scope-2b-pt-transcoders/layer_1/width_16k/average_l0_5", gemma_scope,
       normalized, mlp_out, lens},
      {"gemma_scope_2_transcoder", "transcoder/layer_1_width_16k_l0_small_affine", gemma_scope, normalized, mlp_out,
       lens},
      {"llama_scope", "Llama3_1-8B-Base-L1R-8x", llama_scope, resid, resid, lens},
      {"llama_scope_r1", "L1R", llama_scope, resid, resid, lens},
      {"sparsify_topk", "layers.1", sparsify, resid, resid, eai},
      {"sparsify_groupmax", "layers.1", sparsify, resid, resid, eai},
      {"sparsify_transcoder", "h.1.mlp", sparsify, "blocks.1.mlp.hook_in", mlp_out, eai},
      {"sparsify_skip_transcoder", "layers.1.mlp", sparsify, "blocks.1.mlp.hook_in", mlp_out, eai},
      {"dictionary_learning_auto_encoder", "", dictionary_learning, resid, resid, learning},
      {"dictionary_learning_auto_encoder_new", "", dictionary_learning, resid, resid, learning},
      {"dictionary_learning_gated", "", dictionary_learning, resid, resid, learning},
      {"dictionary_learning_jump_relu", "", dictionary_learning, resid, resid, learning},
      {"dictionary_learning_top_k", "", dictionary_learning, resid, resid, learning},
      {"dictionary_learning_batch_top_k", "", dictionary_learning, resid, resid, learning},
      {"circuit_tracer_relu", "layer_1.safetensors", circuit_tracer, normalized, mlp_out, tracer},
      {"circuit_tracer_jump_relu", "layer_1.safetensors", circuit_tracer, normalized, mlp_out, tracer},
      {"circuit_tracer_topk", "layer_1.safetensors", circuit_tracer, normalized, mlp_out, tracer},
      {"circuit_tracer_skip", "layer_1.safetensors", circuit_tracer, normalized, mlp_out, tracer},
  };
}

/// Transcoders of both layers of the tiny model that write into later layers too.
struct CrossLayerCase {
  const char* folder;
  const char* inside;
  dictionary::Format format;
};

std::vector<CrossLayerCase> cross_layer_cases() {
  using enum dictionary::Format;
  return {{"circuit_tracer_cross_layer", "", circuit_tracer_set},
          {"circuit_tracer_cross_layer_jump_relu", "", circuit_tracer_set},
          {"gemma_scope_2_clt", "clt/width_1k_l0_small_affine", gemma_scope_set}};
}

fs::path folder() { return fs::path{CIRCUIT_TEST_DATA} / "dictionaries"; }

/// Puts what a dictionary makes of what it reads in the place of what it describes.
struct InPlace {
  const SparseDictionary<>& dictionary;
  DictionaryHooks hooks;
  at::Tensor read{};

  template <HookPoint P>
    requires(std::same_as<P, hook::embed> || std::same_as<P, hook::attn::z> || std::same_as<P, hook::resid_post> ||
             std::same_as<P, hook::ln2::normalized> || std::same_as<P, hook::mlp_out>)
  void visit(P point, Layer layer, at::Tensor& value) {
    const auto here = hook_name(point, layer);
    if (here == hooks.in) read = value.reshape({value.size(0), value.size(1), -1});
    if (here == hooks.out) value = dictionary.reconstruct(read).view(value.sizes());
  }
};

/// The mean loss of the tiny GPT-2 with something attached.
template <class Attached>
double loss_with(Attached attached) {
  const auto folder = fs::path{CIRCUIT_TEST_DATA} / "spliced_model";
  static const auto model = load_model<Gpt2>(folder, {.processing = weights::Processing{}});
  const auto tokens = to_tensor(open_safetensors(folder / "prompts.safetensors").get("tokens"));
  const auto logits = model.run(tokens, attached).logits;
  const auto next = tokens.narrow(1, 1, tokens.size(1) - 1).unsqueeze(-1);
  const auto all = logits.narrow(1, 0, tokens.size(1) - 1).log_softmax(-1);
  const at::Tensor loss = all.gather(-1, next).mean();
  return -loss.item<double>();
}

double spliced_loss(const LoadedDictionary& loaded) {
  auto hooks = loaded.hooks;
  if (hooks.in == "blocks.1.mlp.hook_in") hooks.in = normalized;  // after LayerNorm they are one
  return loss_with(InPlace{loaded.dictionary, hooks});
}

/// What a cross-layer transcoder makes of one layer's MLP: written(earlier layer, how far ahead) of all up to it, its bias,
/// and its skip path. read [..., d_model] by that layer
template <class Written>
at::Tensor cross_layer_output(const DictionarySet& set, Layer layer, const at::Tensor& read, const Written& written) {
  const auto& own = *set.mlp(layer);
  auto out = own.b_out;
  for (std::int32_t l = 0; l <= layer.value; ++l) out = out.add(written(Layer{l}, layer.value - l));
  return own.has_skip() ? out.add(own.skip(read)) : out;
}

/// What dense activations write. acts [..., d_sae]
at::Tensor dense_writes(const DictionarySet& set, Layer layer, std::int64_t ahead, const at::Tensor& acts) {
  const auto& d = *set.mlp(layer);
  return acts.matmul(ahead == 0 ? d.W_dec : d.W_later.select(1, ahead - 1));
}

/// Puts what a cross-layer transcoder makes of it in the place of every MLP's output.
struct CrossLayerInPlace {
  const DictionarySet& set;
  std::vector<at::Tensor> read{};
  std::vector<at::Tensor> acts{};

  template <HookPoint P>
    requires(std::same_as<P, hook::ln2::normalized> || std::same_as<P, hook::mlp_out>)
  void visit(P /*point*/, Layer layer, at::Tensor& value) {
    if constexpr (std::same_as<P, hook::mlp_out>) {
      value = cross_layer_output(set, layer, read.back(), [&](Layer from, std::int64_t ahead) {
        return dense_writes(set, from, ahead, acts[static_cast<std::size_t>(from.value)]);
      });
    } else {
      read.push_back(value);
      acts.push_back(set.encode_mlp(layer, value));
    }
  }
};

/// Largest differences from what the library made of the same inputs, and of the spliced model's loss.
struct Differences {
  double encode, decode, error, loss, active;
};

Differences difference_of(const Case& c, LoadedDictionary& loaded) {
  loaded = dictionary::load(folder() / c.folder / c.inside,
                            {.activation_scale = c.scale > 0 ? std::optional{c.scale} : std::nullopt});
  const auto& d = loaded.dictionary;
  const auto expected = open_safetensors(folder() / c.folder / "expected.safetensors");
  const auto x = to_tensor(expected.get("x"));
  const auto acts = to_tensor(expected.get("acts"));
  const auto out = to_tensor(expected.get("out"));
  const auto largest = [](const at::Tensor& t) { return t.abs().max().item<double>(); };
  const auto streamed = encode_active(d, x.unsqueeze(0));
  const auto rebuilt = d.b_out.add(decode_active(d, streamed));
  // The error term of what the dictionary describes: for a transcoder any target will do, so both take the inputs.
  return {largest(d.encode(x).sub(acts)), largest(d.output(d.decode(acts), x).sub(out)),
          largest(x.sub(d.output(rebuilt, x)).sub(x.sub(out))),
          std::abs(spliced_loss(loaded) - to_tensor(expected.get("loss")).item<double>()),
          acts.ne(0).sum().item<double>()};
}

Differences difference_of(const CrossLayerCase& c) {
  const auto set = dictionary::load_set({folder() / c.folder / c.inside});
  const auto expected = open_safetensors(folder() / c.folder / "expected.safetensors");
  const auto x = to_tensor(expected.get("x"));
  const auto acts = to_tensor(expected.get("acts"));
  const auto out = to_tensor(expected.get("out"));
  const auto largest = [](double a, const at::Tensor& t) { return std::max(a, t.abs().max().item<double>()); };
  Differences d{};
  for (std::int64_t m = 0; m < x.size(0); ++m) {
    const Layer layer{static_cast<std::int32_t>(m)};
    d.encode = largest(d.encode, set.encode_mlp(layer, x[m]).sub(acts[m]));
    const auto decoded = cross_layer_output(set, layer, x[m], [&](Layer from, std::int64_t ahead) {
      return dense_writes(set, from, ahead, acts[from.value]);
    });
    d.decode = largest(d.decode, decoded.sub(out[m]));
    const auto rebuilt = cross_layer_output(set, layer, x[m], [&](Layer from, std::int64_t ahead) {
      return decode_active(*set.mlp(from), set.active_mlp(from, x[from.value].unsqueeze(0)), ahead);
    });
    d.error = largest(d.error, x[m].sub(rebuilt).sub(x[m].sub(out[m])));
  }
  d.loss = std::abs(loss_with(CrossLayerInPlace{set}) - to_tensor(expected.get("loss")).item<double>());
  d.active = acts.ne(0).sum().item<double>();
  return d;
}

void require_small(const Differences& difference) {
  REQUIRE(difference.active > 5);
  REQUIRE(difference.encode < 1e-5);
  REQUIRE(difference.decode < 1e-5);
  REQUIRE(difference.error < 1e-5);
  REQUIRE(difference.loss < 1e-5);
}

}  // namespace

TEST_CASE("every kind of dictionary encodes, decodes and errs as in the library that wrote it") {
  for (const auto& c : cases()) {
    INFO(c.folder);
    const auto path = folder() / c.folder / c.inside;
    REQUIRE(dictionary::recognise(path).format ==
            (c.format == dictionary::Format::circuit_tracer ? dictionary::Format::circuit_tracer : c.format));
    LoadedDictionary loaded;
    const auto difference = difference_of(c, loaded);
    REQUIRE(loaded.hooks.in == c.reads);
    REQUIRE(loaded.hooks.out == c.writes);
    require_small(difference);
  }
}

TEST_CASE("so do cross-layer transcoders, layer by layer") {
  for (const auto& c : cross_layer_cases()) {
    INFO(c.folder);
    REQUIRE(dictionary::recognise(folder() / c.folder / c.inside).format == c.format);
    require_small(difference_of(c));
  }
}

TEST_CASE("a folder that happens to be called embedding makes no dictionary one of the embedding") {
  const fs::path inside = "gemma-scope-2b-pt-res/layer_1/width_16k/average_l0_71";
  const auto original = fs::path{CIRCUIT_TEST_DATA} / "dictionaries/gemma_scope_res" / inside;
  const circuit_test::Folder folder;
  const auto copy = folder.path / "embedding" / inside;
  fs::create_directories(copy.parent_path());
  fs::copy(original, copy, fs::copy_options::recursive);
  const auto expected = dictionary::load(original);
  const auto found = dictionary::load(copy);
  REQUIRE(found.hooks.in == expected.hooks.in);
  REQUIRE(found.dictionary.W_enc.equal(expected.dictionary.W_enc));
}

TEST_CASE("every folder of dictionaries is compared") {
  std::vector<std::string> compared;
  for (const auto& c : cases()) compared.emplace_back(c.folder);
  for (const auto& c : cross_layer_cases()) compared.emplace_back(c.folder);
  for (const auto& entry : fs::directory_iterator{folder()}) {
    if (entry.is_directory()) REQUIRE(std::count(compared.begin(), compared.end(), entry.path().filename()) == 1);
  }
}

// `circuit_dictionary_test "[.table]"` prints the rows of docs/dictionaries.md.
TEST_CASE("the table of differences", "[.table]") {
  const auto print = [](std::string kind, dictionary::Format format, const char* reference, const Differences& d) {
    std::ranges::replace(kind, '_', ' ');
    std::printf("| %s | %s | %s | %.1e | %.1e | %.1e | %.1e |\n", kind.c_str(),
                std::string{dictionary::name(format)}.c_str(), reference, d.encode, d.decode, d.error, d.loss);
  };
  for (const auto& c : cases()) {
    LoadedDictionary loaded;
    print(c.folder, c.format, c.reference, difference_of(c, loaded));
  }
  for (const auto& c : cross_layer_cases()) print(c.folder, c.format, "circuit-tracer", difference_of(c));
}
