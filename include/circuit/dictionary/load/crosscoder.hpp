#pragma once

#include <filesystem>
#include <utility>
#include <vector>

#include "circuit/dictionary/crosscoder.hpp"
#include "circuit/dictionary/load/crosscoder/gemma_scope.hpp"
#include "circuit/dictionary/load/crosscoder/one_file.hpp"

namespace circuit {

/// Reads a crosscoder of the residual stream. Of Gemma Scope 2, a folder `crosscoder/layer_7_13_17_22_width_.../` with
/// params_layer_0.safetensors and so on: a part for each layer, which reads that layer and writes into it and later ones
/// (or all, where the file has it write into earlier ones too). Else a file (.pt, .safetensors) of one part that reads
/// and writes all layers: `encoder.weight` [layers, d_model, d_sae] and `decoder.weight` [layers, d_sae, d_model], as
/// CrossCoder of dictionary_learning's forks has them, or `W_enc` and `W_dec` [d_sae, layers, d_model]; with a ReLU, or
/// (`k` and `threshold`) a BatchTopK, which is a JumpReLU in use: a feature is kept where its activation times the norms of
/// its decoder rows, as `code_normalization_id` joins them, is over the threshold. The forks' statistics of the streams, by
/// which some are normalised, are folded into the weights.
///
/// layers   the streams that it describes, each by the layer behind it: hook_resid_post of layer 7 is the stream before
///          layer 8. None: as a Gemma Scope folder's name or its config.json says
/// throws   FileError, FormatError, ConfigError (layers that nothing says; nonlinearities, code normalisations and skip
///          paths that are not known; hooks other than the stream's)
/// throws   NameError, DTypeError, ShapeError, ValueError (NaN)  naming the tensor
[[nodiscard]] inline Crosscoder load_crosscoder(const std::filesystem::path& path, std::vector<Layer> layers = {},
                                                const DictionaryOptions& options = {}) {
  namespace cross = detail::crosscoder;
  Crosscoder out;
  if (std::filesystem::is_directory(path)) {
    if (!std::filesystem::exists(cross::file_of_layer(path, 0))) {
      cross::refuse(path, "params_layer_0.safetensors", "is not in this folder",
                    "a crosscoder in one file is read by the file's path");
    }
    out = cross::gemma_scope(path, std::move(layers), options);
  } else {
    out = cross::acausal(cross::open(path), layers, options);
  }
  out.check();
  return out;
}

}  // namespace circuit
