#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "circuit/dictionary/recognise.hpp"
#include "circuit/io/json.hpp"

namespace circuit::dictionary {

/// Reads the dictionaries that a JSON file lists, with the places they have in a model:
///
///     {"dictionaries": [{"path": "attn/layer_3"},
///                       {"path": "own.safetensors", "reads": "blocks.3.ln2.hook_normalized",
///                        "writes": "blocks.3.hook_mlp_out"}]}
///
/// Paths are relative to the list. `reads` and `writes` (as `reads`, where it is not there) say what the dictionary's
/// own files do not; a file of bare tensors is an SAE or a transcoder by whether they are equal.
///
/// throws  ConfigError  for a list of another form, or hooks other than those the dictionary's files name;  as load_set
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
    throw ConfigError{{.file = list, .tensor = "reads", .problem = "is missing", .hint = path.string() + " does not say"}};
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

/// Calls use(path, loaded) for every dictionary of a list.
template <class Use>
void for_each_listed(const std::filesystem::path& list, const DictionaryOptions& options, Use&& use) {
  const auto json = read_json(list);
  for (const auto& entry : require<std::vector<nlohmann::json>>(json, "dictionaries", list)) {
    const auto path = list.parent_path() / require<std::string>(entry, "path", list);
    use(path, load_entry(entry, list, path, options));
  }
}

}  // namespace circuit::dictionary::detail

namespace circuit::dictionary {

inline DictionarySet load_listed(const std::filesystem::path& list, const DictionaryOptions& options) {
  detail::SetOfFiles set;
  detail::for_each_listed(list, options,
                          [&](const auto& path, LoadedDictionary loaded) { set.add(path, std::move(loaded)); });
  return std::move(set).finish();
}

template <Architecture A>
DictionarySet load_listed(const std::filesystem::path& list, const HookedTransformer<A>& model,
                          const DictionaryOptions& options) {
  detail::SetOfFiles set;
  detail::for_each_listed(list, options, [&](const auto& path, LoadedDictionary loaded) {
    set.add(path, std::move(loaded), model);
  });
  return std::move(set).finish();
}

}  // namespace circuit::dictionary
