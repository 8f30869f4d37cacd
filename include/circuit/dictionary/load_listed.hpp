#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "circuit/dictionary/recognise.hpp"
#include "circuit/io/json.hpp"

namespace circuit::dictionary {

/// Reads the dictionaries that a JSON file lists, with the places they have in a model:
///
///     {"dictionaries": [{"path": "attn/layer_3"},
///                       {"path": "own.safetensors", "reads": "blocks.3.ln2.hook_normalized",
///                        "writes": "blocks.3.hook_mlp_out"},
///                       {"path": "crosscoder/ae.pt",
///                        "reads": ["blocks.7.hook_resid_post", "blocks.13.hook_resid_post"]}]}
///
/// Paths are relative to the list. `reads` and `writes` (as `reads`, where it is not there) say what the dictionary's
/// own files do not; a file of bare tensors is an SAE or a transcoder by whether they are equal. A crosscoder reads and
/// writes a list of them, all of the residual stream.
///
/// throws  ConfigError  for a list of another form, or hooks other than those the dictionary's files name, or, of a
///                      crosscoder, than the stream's;  as load_set
[[nodiscard]] DictionarySet load_listed(const std::filesystem::path& list, const DictionaryOptions& options = {});

/// The same for one model's: transcoders that read what its MLPs read (`mlp.hook_in`) have a place too.
template <Architecture A>
[[nodiscard]] DictionarySet load_listed(const std::filesystem::path& list, const HookedTransformer<A>& model,
                                        const DictionaryOptions& options = {});

}  // namespace circuit::dictionary

namespace circuit::dictionary::detail {

/// One entry of a list, with the hooks that it or the dictionary's files name.
[[nodiscard]] inline LoadedDictionary load_entry(const nlohmann::json& entry, const std::filesystem::path& list,
                                                 const std::filesystem::path& path, const DictionaryOptions& options) {
  const auto reads = value_or<std::string>(entry, "reads", list, "");
  const auto writes = value_or(entry, "writes", list, reads);
  const bool tensors = path.extension() == ".safetensors" || path.extension() == ".pt";
  const bool bare = tensors && !recognise_name(path) && !circuit::detail::recognize(path);
  if (bare && reads.empty()) {
    throw ConfigError{
        {.file = list, .tensor = "reads", .problem = "is missing", .hint = path.string() + " does not say"}};
  }
  auto loaded = bare ? load_bare(path, reads == writes ? DictionaryKind::sae : DictionaryKind::transcoder, options)
                     : load(path, options);
  if (reads.empty()) return loaded;
  if (!loaded.hooks.in.empty() && (loaded.hooks.in != reads || loaded.hooks.out != writes)) {
    throw ConfigError{{.file = list,
                       .tensor = path.string(),
                       .problem = "sits elsewhere by its own files",
                       .expected = loaded.hooks.in + " to " + loaded.hooks.out,
                       .got = reads + " to " + writes}};
  }
  loaded.hooks = {reads, writes, loaded.hooks.head};
  return loaded;
}

/// The streams that an entry says a crosscoder reads and writes; none where it says nothing.
[[nodiscard]] inline std::vector<Layer> streams_of_entry(const nlohmann::json& entry, const std::filesystem::path& list,
                                                         const std::filesystem::path& path) {
  const auto reads = value_or<std::vector<std::string>>(entry, "reads", list, {});
  if (value_or(entry, "writes", list, reads) != reads) {
    throw ConfigError{{.file = list,
                       .tensor = "writes",
                       .problem = "is not what `reads` is",
                       .hint = path.string() + " is a crosscoder, which describes what it reads"}};
  }
  std::vector<Layer> streams;
  for (const auto& hook : reads) {
    const auto layer = circuit::detail::stream_of(hook);
    if (!layer) {
      throw ConfigError{{.file = list,
                         .tensor = "reads",
                         .problem = "there is no place for a crosscoder of this hook",
                         .expected = "hook_resid_pre or hook_resid_post of some layers",
                         .got = hook}};
    }
    streams.push_back(*layer);
  }
  return streams;
}

[[nodiscard]] inline Crosscoder load_crosscoder_entry(const nlohmann::json& entry, const std::filesystem::path& list,
                                                      const std::filesystem::path& path, const Recognised& found,
                                                      const DictionaryOptions& options) {
  auto streams = streams_of_entry(entry, list, path);
  const auto own = found.format == Format::crosscoder ? std::vector<Layer>{}
                                                      : circuit::detail::crosscoder::layers_of_folder(found.path);
  if (!streams.empty() && !own.empty() && streams != own) {
    throw ConfigError{{.file = list, .tensor = path.string(), .problem = "describes other layers by its own files"}};
  }
  return load_crosscoder(found.path, std::move(streams), options);
}

/// Whether a path, which need not be one of a format that is known, is a crosscoder's.
[[nodiscard]] inline std::optional<Recognised> crosscoder_at(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return {};  // loading says so
  if (std::filesystem::is_directory(path) || recognise_name(path)) {
    const auto found = recognise(path);
    const bool across = found.format == Format::crosscoder || found.format == Format::gemma_scope_crosscoder;
    return across ? std::optional{found} : std::nullopt;
  }
  if (circuit::detail::crosscoder::is_file(path)) return Recognised{Format::crosscoder, path};
  return {};
}

/// Calls use(path, loaded) for every dictionary and crosscoder of a list.
template <class Use>
void for_each_listed(const std::filesystem::path& list, const DictionaryOptions& options, Use&& use) {
  const auto json = read_json(list);
  for (const auto& entry : require<std::vector<nlohmann::json>>(json, "dictionaries", list)) {
    const auto path = list.parent_path() / require<std::string>(entry, "path", list);
    if (const auto found = crosscoder_at(path)) {
      use(path, load_crosscoder_entry(entry, list, path, *found, options));
    } else {
      use(path, load_entry(entry, list, path, options));
    }
  }
}

}  // namespace circuit::dictionary::detail

namespace circuit::dictionary {

inline DictionarySet load_listed(const std::filesystem::path& list, const DictionaryOptions& options) {
  detail::SetOfFiles set;
  detail::for_each_listed(list, options, [&](const auto& path, auto loaded) { set.add(path, std::move(loaded)); });
  return std::move(set).finish();
}

template <Architecture A>
DictionarySet load_listed(const std::filesystem::path& list, const HookedTransformer<A>& model,
                          const DictionaryOptions& options) {
  detail::SetOfFiles set;
  detail::for_each_listed(list, options,
                          [&](const auto& path, auto loaded) { set.add(path, std::move(loaded), model); });
  return std::move(set).finish();
}

}  // namespace circuit::dictionary
