#pragma once

#include <filesystem>
#include <string>

#include "circuit/dictionary/load.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "golden.hpp"

namespace golden {

/// The reference's dictionaries, attention on hook_z and transcoders, in layers 0 to 2.
inline circuit::DictionarySet dictionaries(at::ScalarType dtype = at::kDouble) {
  const circuit::DictionaryOptions options{.dtype = dtype};
  circuit::DictionarySet set;
  for (const auto layer : {circuit::Layer{0}, circuit::Layer{1}, circuit::Layer{2}}) {
    const auto file = [&](const std::string& module) {
      return folder() / "dictionaries" / (module + '.' + std::to_string(layer.value) + ".safetensors");
    };
    set.set_attn(layer, circuit::load_dictionary(file("attn"), options).dictionary, circuit::AttentionSite::z);
    set.set_mlp(layer, circuit::load_dictionary(file("mlp"), options).dictionary);
  }
  return set;
}

inline circuit::LogitDifference metric() { return {answers("answers"), answers("wrong_answers")}; }

}  // namespace golden
