#pragma once

#include <array>
#include <filesystem>
#include <system_error>

#include "circuit/core/error.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/sharded.hpp"
#include "circuit/io/torch_pickle.hpp"

namespace circuit {

/// The weights in a Hugging Face folder: the first there is of model.safetensors, model.safetensors.index.json with its
/// shards, pytorch_model.bin and pytorch_model.bin.index.json.
/// throws  FileError  when there is none;  as open_safetensors, open_torch and open_sharded
[[nodiscard]] inline TensorFile open_weights(const std::filesystem::path& folder) {
  constexpr auto torch_shards = [](const std::filesystem::path& index) { return open_sharded(index, open_torch); };
  struct Kind {
    const char* name;
    TensorFile (*open)(const std::filesystem::path&);
  };
  const std::array<Kind, 4> kinds{{{"model.safetensors", open_safetensors},
                                   {"model.safetensors.index.json", open_sharded_safetensors},
                                   {"pytorch_model.bin", open_torch},
                                   {"pytorch_model.bin.index.json", torch_shards}}};
  std::error_code ignored;
  for (const auto& kind : kinds) {
    if (std::filesystem::exists(folder / kind.name, ignored)) return kind.open(folder / kind.name);
  }
  throw FileError{{.file = folder,
                   .problem = "there are no weights",
                   .expected = "model.safetensors, pytorch_model.bin, or the index of shards of either"}};
}

}  // namespace circuit
