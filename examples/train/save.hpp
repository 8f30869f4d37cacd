#pragma once

#include <ATen/ops/cat.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/save/sae_lens.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/to_tensor.hpp"
#include "dictionaries.hpp"
#include "language_model.hpp"

namespace train {

/// Writes tensors in float16 under their names.
inline void save_half(const std::filesystem::path& path,
                      const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<at::Tensor> kept;
  std::vector<circuit::TensorView> views;
  for (const auto& [name, tensor] : tensors) {
    kept.push_back(tensor.detach().to(at::kHalf).contiguous());
    const auto bytes = static_cast<std::size_t>(kept.back().nbytes());
    views.push_back({.name = name,
                     .dtype = circuit::DType::f16,
                     .shape = circuit::shape_of(kept.back()),
                     .bytes = {static_cast<const std::byte*>(kept.back().data_ptr()), bytes}});
  }
  circuit::write_safetensors(path, views, {{"format", "pt"}});
}

/// Writes a Hugging Face GPT-2 folder (without its tokenizer): config.json and model.safetensors.
inline void save_gpt2(const std::filesystem::path& folder, const circuit::ModelConfig& c,
                      const circuit::ModelWeights& w, std::int32_t bos) {
  std::filesystem::create_directories(folder);
  const nlohmann::ordered_json config{{"architectures", {"GPT2LMHeadModel"}},
                                      {"model_type", "gpt2"},
                                      {"activation_function", "gelu_new"},
                                      {"n_layer", c.n_layers},
                                      {"n_head", c.n_heads},
                                      {"n_embd", c.d_model},
                                      {"n_inner", c.d_mlp},
                                      {"n_positions", c.n_ctx},
                                      {"n_ctx", c.n_ctx},
                                      {"vocab_size", c.d_vocab},
                                      {"layer_norm_epsilon", c.norm_eps},
                                      {"scale_attn_weights", true},
                                      {"tie_word_embeddings", true},
                                      {"bos_token_id", bos},
                                      {"eos_token_id", bos},
                                      {"attn_pdrop", 0.0},
                                      {"embd_pdrop", 0.0},
                                      {"resid_pdrop", 0.0},
                                      {"torch_dtype", "float16"}};
  circuit::write_file(folder / "config.json", config.dump(2) + "\n");
  std::vector<std::pair<std::string, at::Tensor>> tensors{{"transformer.wte.weight", w.W_E},
                                                          {"transformer.wpe.weight", w.W_pos}};
  for (std::size_t l = 0; l < w.blocks.size(); ++l) {
    const auto& b = w.blocks[l];
    const auto put = [&](const std::string& name, const at::Tensor& value) {
      tensors.emplace_back("transformer.h." + std::to_string(l) + '.' + name, value);
    };
    put("ln_1.weight", b.ln1.gain);
    put("ln_1.bias", b.ln1.bias);
    put("attn.c_attn.weight", at::cat({b.attn.W_Q, b.attn.W_K, b.attn.W_V}, 1));
    put("attn.c_attn.bias", at::cat({b.attn.b_Q, b.attn.b_K, b.attn.b_V}));
    put("attn.c_proj.weight", b.attn.W_O);
    put("attn.c_proj.bias", b.attn.b_O);
    put("ln_2.weight", b.ln2.gain);
    put("ln_2.bias", b.ln2.bias);
    put("mlp.c_fc.weight", b.mlp.W_in);
    put("mlp.c_fc.bias", b.mlp.b_in);
    put("mlp.c_proj.weight", b.mlp.W_out);
    put("mlp.c_proj.bias", b.mlp.b_out);
  }
  tensors.emplace_back("transformer.ln_f.weight", w.ln_final.gain);
  tensors.emplace_back("transformer.ln_f.bias", w.ln_final.bias);
  save_half(folder / "model.safetensors", tensors);
}

/// Writes one dictionary as a SAELens folder, in float16.
inline void save_dictionary(const std::filesystem::path& folder, const Dictionary& dictionary,
                            const circuit::DictionaryHooks& hooks, std::int64_t context) {
  circuit::save_sae_lens(
      folder, dictionary,
      {.hooks = hooks, .context_size = context, .expects = circuit::weights::folded_and_centered, .dtype = at::kHalf});
}

}  // namespace train
