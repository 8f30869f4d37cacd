#pragma once

#include <filesystem>
#include <string>

#include "circuit/dictionary/load/loaded.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/torch_pickle.hpp"

namespace circuit {

/// Reads W_enc [d_in, d_sae], b_enc, W_dec [d_sae, d_out] and b_dec, for a transcoder also b_dec_out, from a
/// .safetensors file, or from a .pt file that holds a plain state dict.
///
/// throws  FileError, FormatError
/// throws  NameError, DTypeError, ShapeError, ValueError (NaN)  naming the tensor
[[nodiscard]] inline LoadedDictionary load_bare(const std::filesystem::path& file, DictionaryKind kind,
                                                const DictionaryOptions& options = {}) {
  const auto tensors = file.extension() == ".pt" ? open_torch(file) : open_safetensors(file);
  const detail::DictionaryReader reader{tensors, "", options};
  return {kind == DictionaryKind::sae ? reader.sae(file.string()) : reader.transcoder(file.string())};
}

}  // namespace circuit
