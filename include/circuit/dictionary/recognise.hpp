#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/dictionary/load.hpp"
#include "circuit/dictionary/load/circuit_tracer.hpp"
#include "circuit/dictionary/load/crosscoder.hpp"
#include "circuit/dictionary/load/dictionary_learning.hpp"
#include "circuit/dictionary/load/gemma_scope.hpp"
#include "circuit/dictionary/load/llama_scope.hpp"
#include "circuit/dictionary/load/set_of_files.hpp"
#include "circuit/dictionary/load/sparsify.hpp"

/// Dictionaries of every format there is a loader for. `circuit/dictionary/load.hpp` alone reads those that circuits
/// were first found with, and costs less to include.
namespace circuit::dictionary {

enum class Format {
  sae_lens,
  sparsify,
  gemma_scope,
  llama_scope,
  dictionary_learning,
  circuit_tracer,
  circuit_tracer_set,
  gemma_scope_set,         ///< a cross-layer transcoder of Gemma Scope 2
  gemma_scope_crosscoder,  ///< a folder of Gemma Scope 2
  crosscoder,              ///< in one file, as dictionary_learning's forks and others save them
  published_pt,            ///< Kissane's or Dunefsky's
  bare,
};

/// What people call it: "SAELens", "EleutherAI sparsify".
[[nodiscard]] constexpr std::string_view name(Format format) noexcept {
  switch (format) {
    case Format::sae_lens: return "SAELens";
    case Format::sparsify: return "EleutherAI sparsify";
    case Format::gemma_scope: return "Gemma Scope";
    case Format::llama_scope: return "Llama Scope";
    case Format::dictionary_learning: return "dictionary_learning";
    case Format::circuit_tracer: return "circuit-tracer transcoder";
    case Format::circuit_tracer_set: return "circuit-tracer set";
    case Format::gemma_scope_set: return "Gemma Scope 2 cross-layer transcoder";
    case Format::gemma_scope_crosscoder: return "Gemma Scope 2 crosscoder";
    case Format::crosscoder: return "crosscoder";
    case Format::published_pt: return "published .pt file";
    case Format::bare: break;
  }
  return "bare tensors";
}

/// A dictionary, or a set of them, and the path that its loader takes: a folder for some, a file for others.
struct Recognised {
  Format format;
  std::filesystem::path path;
};

/// Says what a folder or file is, from names alone where they say it; a file that may be a crosscoder is opened.
/// throws  FileError    when there is no such path
/// throws  FormatError  for a file that is opened and is broken
/// throws  ConfigError  for what is none of the formats
[[nodiscard]] Recognised recognise(const std::filesystem::path& path);

/// Reads one dictionary of any format.
/// throws  as recognise and the format's own loader;  ConfigError for a set or a crosscoder (load_crosscoder)
[[nodiscard]] LoadedDictionary load(const std::filesystem::path& path, const DictionaryOptions& options = {});

/// Reads dictionaries of any formats, each placed by its hooks; a set of transcoders counts as all that it holds, a
/// crosscoder as one dictionary of all its layers.
/// throws  ConfigError  for a hook that a DictionarySet has no place for, two dictionaries of one place, a crosscoder whose
///                      files do not name its layers (load_listed), or dictionaries that expect different weight
///                      processings;  as load
[[nodiscard]] DictionarySet load_set(const std::vector<std::filesystem::path>& paths,
                                     const DictionaryOptions& options = {});

/// The same for one model's: transcoders that read what its MLPs read (`mlp.hook_in`) have a place too, and SAEs of one
/// head.
/// throws  as load_set, read_before_gain and over_all_heads
template <Architecture A>
[[nodiscard]] DictionarySet load_set(const std::vector<std::filesystem::path>& paths, const HookedTransformer<A>& model,
                                     const DictionaryOptions& options = {});

}  // namespace circuit::dictionary

namespace circuit::dictionary::detail {

/// A format that a folder is known by: the files that must be there, and which of them the loader takes, if any.
struct FolderMark {
  Format format;
  std::vector<std::string_view> files;
  std::string_view path{};
};

[[nodiscard]] inline std::vector<FolderMark> folder_marks() {
  return {{Format::sae_lens, {"cfg.json", "sae_weights.safetensors"}},
          {Format::sparsify, {"cfg.json", "sae.safetensors"}},
          {Format::llama_scope, {"hyperparams.json"}},
          {Format::llama_scope, {"config.json", "sae_weights.safetensors"}},
          {Format::gemma_scope, {"params.npz"}, "params.npz"},
          {Format::gemma_scope, {"params.safetensors"}, "params.safetensors"},
          {Format::gemma_scope_set, {"params_layer_0.safetensors"}},
          {Format::dictionary_learning, {"ae.pt"}, "ae.pt"},
          {Format::circuit_tracer_set, {"config.yaml"}}};
}

/// What looks like another format by its names and is a crosscoder.
[[nodiscard]] inline Recognised or_crosscoder(Recognised found) {
  namespace cross = circuit::detail::crosscoder;
  if (found.format == Format::gemma_scope_set && cross::is_folder(found.path)) {
    found.format = Format::gemma_scope_crosscoder;
  }
  if (found.format == Format::dictionary_learning && cross::is_file(found.path)) found.format = Format::crosscoder;
  return found;
}

[[nodiscard]] inline Recognised recognise_folder(const std::filesystem::path& folder) {
  for (const auto& mark : folder_marks()) {
    bool all = true;
    for (const auto file : mark.files) all = all && std::filesystem::exists(folder / file);
    if (all) return or_crosscoder({mark.format, mark.path.empty() ? folder : folder / mark.path});
  }
  std::string known;
  for (const auto& mark : folder_marks()) {
    if (!known.empty()) known += ", ";
    for (const auto file : mark.files) known += (file == mark.files.front() ? "" : " with ") + std::string{file};
  }
  throw ConfigError{{.file = folder, .problem = "is no folder of a dictionary", .expected = known}};
}

/// return  nothing for a file whose name does not say
[[nodiscard]] inline std::optional<Recognised> recognise_name(const std::filesystem::path& file) {
  const auto name = file.filename().string();
  if (name == "ae.pt") return or_crosscoder({Format::dictionary_learning, file});
  if (file.extension() == ".npz" || name == "params.safetensors" ||
      (name.starts_with("params_layer_") && file.extension() == ".safetensors")) {
    return Recognised{Format::gemma_scope, file};
  }
  if (name == "sae_weights.safetensors" || name == "sae.safetensors") return recognise_folder(file.parent_path());
  const bool layer = circuit::detail::number_in_path(file.filename(), "layer_").has_value();
  if (layer && file.extension() == ".safetensors" && std::filesystem::exists(file.parent_path() / "config.yaml")) {
    return Recognised{Format::circuit_tracer, file};
  }
  return {};
}

/// Calls use(path, loaded) for every dictionary and crosscoder of some paths.
template <class Use>
void load_each(const std::vector<std::filesystem::path>& paths, const DictionaryOptions& options, Use&& use) {
  for (const auto& path : paths) {
    const auto found = recognise(path);
    switch (found.format) {
      case Format::circuit_tracer_set:
        for (auto& [layer, loaded] : load_circuit_tracer_set(found.path, options)) use(path, std::move(loaded));
        break;
      case Format::gemma_scope_set:
        for (std::size_t l = 0; std::filesystem::exists(circuit::detail::crosscoder::file_of_layer(found.path, l));
             ++l) {
          use(path, load_gemma_scope(circuit::detail::crosscoder::file_of_layer(found.path, l), options));
        }
        break;
      case Format::gemma_scope_crosscoder:
      case Format::crosscoder: use(path, load_crosscoder(found.path, {}, options)); break;
      default: use(path, load(path, options));
    }
  }
}

}  // namespace circuit::dictionary::detail

namespace circuit::dictionary {

inline Recognised recognise(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) throw FileError{{.file = path, .problem = "does not exist"}};
  if (std::filesystem::is_directory(path)) return detail::recognise_folder(path);
  if (const auto found = detail::recognise_name(path)) return *found;
  if (circuit::detail::crosscoder::is_file(path)) return {Format::crosscoder, path};
  if (const auto found = circuit::detail::recognize(path)) {
    const bool bare = found->format == circuit::detail::DictionaryFormat::bare;
    return {bare ? Format::bare : Format::published_pt, path};
  }
  throw ConfigError{{.file = path,
                     .problem = "is no dictionary that is known by its name or content",
                     .expected = "ae.pt, params.npz, layer_{l}.safetensors beside config.yaml, a published .pt file",
                     .hint = "load_bare reads a file of any name"}};
}

inline LoadedDictionary load(const std::filesystem::path& path, const DictionaryOptions& options) {
  const auto found = recognise(path);
  switch (found.format) {
    case Format::sae_lens: return load_sae_lens(found.path, options);
    case Format::sparsify: return load_sparsify(found.path, options);
    case Format::gemma_scope: return load_gemma_scope(found.path, options);
    case Format::llama_scope: return load_llama_scope(found.path, options);
    case Format::dictionary_learning: return load_dictionary_learning(found.path, options);
    case Format::circuit_tracer: return load_circuit_tracer(found.path, options);
    case Format::circuit_tracer_set:
    case Format::gemma_scope_set:
      throw ConfigError{{.file = path, .problem = "is a set of transcoders", .hint = "use dictionary::load_set"}};
    case Format::gemma_scope_crosscoder:
    case Format::crosscoder:
      throw ConfigError{
          {.file = path, .problem = "is a crosscoder", .hint = "use dictionary::load_set, or load_crosscoder"}};
    case Format::published_pt:
    case Format::bare: break;
  }
  return load_dictionary(found.path, options);
}

inline DictionarySet load_set(const std::vector<std::filesystem::path>& paths, const DictionaryOptions& options) {
  detail::SetOfFiles set;
  detail::load_each(paths, options, [&](const auto& path, auto loaded) { set.add(path, std::move(loaded)); });
  return std::move(set).finish();
}

template <Architecture A>
DictionarySet load_set(const std::vector<std::filesystem::path>& paths, const HookedTransformer<A>& model,
                       const DictionaryOptions& options) {
  detail::SetOfFiles set;
  detail::load_each(paths, options, [&](const auto& path, auto loaded) { set.add(path, std::move(loaded), model); });
  return std::move(set).finish();
}

}  // namespace circuit::dictionary
