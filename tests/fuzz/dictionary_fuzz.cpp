#include <ATen/Parallel.h>

#include <vector>

#include "circuit/core/make.hpp"
#include "circuit/dictionary/load_listed.hpp"
#include "circuit/model/load/llama.hpp"
#include "folder.hpp"
#include "input.hpp"

namespace {

using namespace circuit;

/// A published layout: the files that an input fills in, and the path that is loaded, in a folder made for it.
struct Layout {
  std::string path;
  std::vector<std::string> files;
};

const std::vector<Layout>& layouts() {
  static const std::vector<Layout> all = {
      {"sae", {"sae/cfg.json", "sae/sae_weights.safetensors"}},
      {"layers.1", {"layers.1/cfg.json", "layers.1/sae.safetensors"}},
      {"h.1.mlp", {"h.1.mlp/cfg.json", "h.1.mlp/sae.safetensors"}},
      {"gemma-scope-2b-pt-res/layer_1", {"gemma-scope-2b-pt-res/layer_1/params.npz"}},
      {"gemma-scope-2b-pt-res/embedding", {"gemma-scope-2b-pt-res/embedding/params.npz"}},
      {"transcoder/layer_1_width_16k", {"transcoder/layer_1_width_16k/params.safetensors"}},
      {"clt", {"clt/config.json", "clt/params_layer_0.safetensors", "clt/params_layer_1.safetensors"}},
      {"crosscoder/layer_0_1_width_30",
       {"crosscoder/layer_0_1_width_30/config.json", "crosscoder/layer_0_1_width_30/params_layer_0.safetensors",
        "crosscoder/layer_0_1_width_30/params_layer_1.safetensors"}},
      {"any", {"any/config.json", "any/params_layer_0.safetensors", "any/params_layer_1.safetensors"}},
      {"dl", {"dl/config.json", "dl/ae.pt"}},
      {"dl/ae.pt", {"dl/ae.pt"}},
      {"L1R", {"L1R/hyperparams.json", "L1R/checkpoints/final.safetensors"}},
      {"L1R", {"L1R/config.json", "L1R/sae_weights.safetensors"}},
      {"kk.pt", {"kk_cfg.json", "kk.pt"}},
      {"gpt2-small_L5_Hcat_z_lr1.pt", {"gpt2-small_L5_Hcat_z_lr1.pt"}},
      {"transcoder.pt", {"transcoder.pt"}},
      {"tracer", {"tracer/config.yaml", "tracer/layer_1.safetensors"}},
      {"tracer/layer_1.safetensors", {"tracer/config.yaml", "tracer/layer_1.safetensors"}},
      {"tracer",
       {"tracer/config.yaml", "tracer/W_enc_0.safetensors", "tracer/W_dec_0.safetensors", "tracer/W_enc_1.safetensors",
        "tracer/W_dec_1.safetensors"}},
      {"crosscoder.safetensors", {"crosscoder.safetensors"}},
      {"crosscoder.pt", {"crosscoder.pt"}},
      {"attn.1.safetensors", {"attn.1.safetensors"}},
      {"mlp.1.pt", {"mlp.1.pt"}},
      {"list.json", {"list.json", "own.safetensors", "sae/cfg.json", "sae/sae_weights.safetensors"}}};
  return all;
}

/// A model of two layers that reads through gains, for dictionaries that are placed by a model's sizes and weights.
HookedTransformer<Llama> small_model(const Folder& folder) {
  folder.write("config.json",
               R"({"model_type": "llama", "hidden_size": 6, "num_attention_heads": 3, "num_key_value_heads": 3,
                   "head_dim": 2, "num_hidden_layers": 2, "intermediate_size": 4, "vocab_size": 3, "rms_norm_eps": 1e-5,
                   "max_position_embeddings": 8, "rope_theta": 1e4, "hidden_act": "silu", "tie_word_embeddings": true})");
  std::string tensors = "#model.embed_tokens.weight F32 3 6\nmodel.norm.weight F32 6\n";
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    for (const std::string norm : {"input", "post_attention"}) tensors += layer + norm + "_layernorm.weight F32 6\n";
    for (const std::string part : {"q", "k", "v", "o"})
      tensors += layer + "self_attn." + part + "_proj.weight F32 6 6\n";
    for (const std::string part : {"gate", "up"}) tensors += layer + "mlp." + part + "_proj.weight F32 4 6\n";
    tensors += layer + "mlp.down_proj.weight F32 6 4\n";
  }
  folder.write("model.safetensors", safetensors_of(tensors));
  return load_model<Llama>(folder.path());
}

at::Tensor input(std::vector<std::int64_t> shape, at::ScalarType dtype) {
  return make::full(shape, 0.5, at::TensorOptions{}.dtype(dtype));
}
at::Tensor input_of(const DictionaryWeights& dictionary) { return input({2, dictionary.d_in()}, dictionary.dtype()); }

/// Every function of a dictionary on a small input.
template <class D>
void use(const D& dictionary) {
  const auto x = input_of(dictionary);
  const auto acts = dictionary.encode(x);
  const auto out = dictionary.output(dictionary.decode(acts), x);
  if (acts.size(1) != dictionary.d_sae() || out.size(1) != dictionary.d_out()) __builtin_trap();
  if (dictionary.d_sae() > 0) {
    const auto first = make::zeros({1}, at::TensorOptions{}.dtype(at::kLong));
    static_cast<void>(dictionary.encode(x, first).add(dictionary.decoder_rows(first).sum()).sum());
    for (std::int64_t ahead = 1; ahead <= dictionary.later_layers(); ++ahead) {
      static_cast<void>(dictionary.decoder_rows(first, ahead).sum());
    }
  }
}

void use(const Crosscoder& crosscoder) {
  const auto layers = static_cast<std::int64_t>(crosscoder.layers.size());
  const auto x = input({2, layers, crosscoder.d_model()}, crosscoder.b_out.scalar_type());
  if (crosscoder.reconstruct(x).sizes() != x.sizes()) __builtin_trap();
}

/// What a set of dictionaries that was read answers.
void use(const DictionarySet& set, std::int32_t layers) {
  for (const auto& crosscoder : set.crosscoders()) use(crosscoder);
  for (std::int32_t l = 0; l < layers; ++l) {
    const Layer layer{l};
    if (const auto* sae = set.attn(layer)) static_cast<void>(set.encode_attn(layer, input_of(*sae)));
    if (const auto* mlp = set.mlp(layer)) static_cast<void>(set.encode_mlp(layer, input_of(*mlp)));
    if (set.crosscoder(layer) != nullptr) continue;
    if (const auto* sae = set.stream(layer)) static_cast<void>(set.encode_stream(layer, input_of(*sae)));
  }
}

}  // namespace

// The readers of dictionaries, on folders of every layout that is published. The first byte chooses the layout, the second
// the options and how many streams a crosscoder is told that it describes.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder folder;
  if (size < 2) return 0;
  at::set_num_threads(1);
  static const auto model = small_model(folder);
  const auto& layout = layouts()[(data[0] - 'A') % layouts().size()];
  DictionaryOptions options;
  if ((data[1] & 1U) != 0) options.dtype = at::kDouble;
  if ((data[1] & 2U) != 0) options.activation_scale = 2;
  folder.clear();
  const auto contents = split_files({reinterpret_cast<const char*>(data) + 2, size - 2}, layout.files.size());
  for (std::size_t i = 0; i < contents.size(); ++i) {
    const bool tensors = layout.files[i].ends_with(".safetensors");
    folder.write(layout.files[i], tensors ? safetensors_of(contents[i]) : std::string{contents[i]});
  }
  const auto path = folder.path() / layout.path;
  const auto use_set = [](const DictionarySet& set) { use(set, /*layers=*/8); };
  const auto fitting = [&](DictionarySet set) {
    set.check(model.config(), model.processing(), options.dtype);
    return set;
  };
  if (layout.path == "list.json") {
    read_and_use([&] { return fitting(dictionary::load_listed(path, model, options)); }, use_set);
    return read_and_use([&] { return dictionary::load_listed(path, options); }, use_set);
  }
  std::vector<Layer> streams{Layer{0}, Layer{1}};
  if ((data[1] & 4U) != 0) streams.push_back(Layer{3});
  read_and_use([&] { return fitting(dictionary::load_set({path}, model, options)); }, use_set);
  read_and_use([&] { return dictionary::load_set({path}, options); }, use_set);
  read_and_use([&] { return load_crosscoder(path, streams, options); }, [](const Crosscoder& loaded) { use(loaded); });
  return read_and_use([&] { return dictionary::load(path, options); },
                      [](const LoadedDictionary& loaded) { use(loaded.dictionary); });
}
