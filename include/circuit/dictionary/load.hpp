#pragma once

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "circuit/core/compiled.hpp"
#include "circuit/core/order.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/dictionary_set.hpp"
#include "circuit/dictionary/load/bare.hpp"
#include "circuit/dictionary/load/dunefsky.hpp"
#include "circuit/dictionary/load/kissane.hpp"
#include "circuit/dictionary/load/loaded.hpp"
#include "circuit/dictionary/load/sae_lens.hpp"
#include "circuit/hook/points.hpp"

namespace circuit {

/// Reads one dictionary, whichever of the formats in dictionary/load/ it has: a SAELens folder, or a .pt or
/// .safetensors file. Bare files are placed by their name: `attn.{layer}` is an SAE on hook_z, `attn_out.{layer}` one
/// on hook_attn_out, `mlp.{layer}` a transcoder from ln2.hook_normalized to hook_mlp_out.
///
/// throws  FileError    when there is no such path
/// throws  ConfigError  for a format that this library does not read;  as the formats' own loaders
[[nodiscard]] LoadedDictionary load_dictionary(const std::filesystem::path& path,
                                               const DictionaryOptions& options = {});

/// Reads every dictionary of two folders, which may be the same, and either empty for none: attention SAEs from the
/// first, MLP transcoders from the second. A folder holds one dictionary per layer as load_dictionary reads them, in
/// any mix of formats, or is itself one SAELens dictionary; files of other kinds are left alone.
///
/// throws  ConfigError  for a folder without such a dictionary, two dictionaries of one layer, a hook that neither kind
///                      reads, or dictionaries that expect different weight processings;  as load_dictionary
[[nodiscard]] DictionarySet load_dictionaries(const std::filesystem::path& attn_folder,
                                              const std::filesystem::path& mlp_folder,
                                              const DictionaryOptions& options = {});

}  // namespace circuit

namespace circuit::detail {

enum class DictionaryFormat { sae_lens, kissane, dunefsky, bare };

/// What can be known of a dictionary without its tensors.
struct DictionaryFound {
  std::filesystem::path path;
  DictionaryFormat format;
  DictionaryHooks hooks;
};

/// The place that a bare file's name gives it.
[[nodiscard]] inline std::optional<DictionaryHooks> hooks_of_name(std::string_view stem) {
  const auto dot = stem.rfind('.');
  if (dot == stem.npos) return {};
  const auto block = "blocks." + std::string{stem.substr(dot + 1)} + '.';
  if (!split_hook(block)) return {};
  const auto kind = stem.substr(0, dot);
  if (kind == "attn") return DictionaryHooks{block + "attn.hook_z", block + "attn.hook_z"};
  if (kind == "attn_out") return DictionaryHooks{block + "hook_attn_out", block + "hook_attn_out"};
  if (kind == "mlp") return DictionaryHooks{block + "ln2.hook_normalized", block + "hook_mlp_out"};
  return {};
}

/// return  nothing for a path that is no dictionary in any format
[[nodiscard]] inline std::optional<DictionaryFound> recognize(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    if (!std::filesystem::exists(path / "cfg.json")) return {};
    return DictionaryFound{path, DictionaryFormat::sae_lens, sae_lens::config(path / "cfg.json").hooks};
  }
  const auto stem = path.stem().string();
  const bool torch = path.extension() == ".pt";
  if (!torch && path.extension() != ".safetensors") return {};
  if (auto hooks = hooks_of_name(stem)) return DictionaryFound{path, DictionaryFormat::bare, *std::move(hooks)};
  if (!torch) return {};
  if (std::filesystem::exists(kissane::config_file(path)) || kissane::layer_of_run(stem)) {
    const auto hook = kissane::hook_of(path);
    return DictionaryFound{path, DictionaryFormat::kissane, {hook, hook}};
  }
  const auto file = read_torch(path);
  if (const auto* config = dunefsky::config(file)) {
    return DictionaryFound{path, DictionaryFormat::dunefsky, dunefsky::hooks(*config, path)};
  }
  return {};
}

[[nodiscard]] inline LoadedDictionary load_found(const DictionaryFound& found, const DictionaryOptions& options) {
  switch (found.format) {
    case DictionaryFormat::sae_lens: return load_sae_lens(found.path, options);
    case DictionaryFormat::kissane: return load_kissane(found.path, options);
    case DictionaryFormat::dunefsky: return load_dunefsky(found.path, options);
    case DictionaryFormat::bare: break;
  }
  const auto kind = found.hooks.in == found.hooks.out ? DictionaryKind::sae : DictionaryKind::transcoder;
  auto loaded = load_bare(found.path, kind, options);
  loaded.hooks = found.hooks;
  return loaded;
}

/// The layer before which a hook's stream lies: that of hook_resid_pre, the one after that of hook_resid_post.
[[nodiscard]] inline std::optional<Layer> stream_of(std::string_view hook) {
  const auto place = split_hook(hook);
  if (place && place->second == hook::resid_pre::name) return place->first;
  if (place && place->second == hook::resid_post::name) return Layer{place->first.value + 1};
  return {};
}

/// A dictionary's place in a DictionarySet.
struct DictionaryPlace {
  Module module;
  Layer layer;
  AttentionSite attn_site = AttentionSite::z;  ///< of attention
  MlpSite mlp_site = MlpSite::normalized;      ///< of an MLP
};

/// The dictionary in its place, or nullptr.
[[nodiscard]] inline const DictionaryWeights* found_in(const DictionarySet& set, const DictionaryPlace& place) {
  switch (place.module) {
    case Module::stream: return set.stream(place.layer);
    case Module::mlp: return set.mlp(place.layer);
    case Module::attn: break;
  }
  return set.attn(place.layer);
}

inline void put_into(DictionarySet& set, const DictionaryPlace& place, SparseDictionary<> dictionary) {
  switch (place.module) {
    case Module::stream: return set.set_stream(place.layer, std::move(dictionary));
    case Module::mlp: return set.set_mlp(place.layer, std::move(dictionary), place.mlp_site);
    case Module::attn: return set.set_attn(place.layer, std::move(dictionary), place.attn_site);
  }
}

/// throws  ConfigError  for hooks that a DictionarySet has no place for
[[nodiscard]] inline DictionaryPlace place_of(const std::filesystem::path& path, const DictionaryHooks& hooks) {
  if (hooks.head) {
    throw ConfigError{{.file = path,
                       .tensor = "hook_head_index",
                       .problem = "is of one head, and how many there are is the model's to say",
                       .hint = "use dictionary::load_set(paths, model), or over_all_heads"}};
  }
  const auto in = split_hook(hooks.in);
  const auto out = split_hook(hooks.out);
  if (in && out && in->first == out->first) {
    const auto layer = in->first;
    const auto attn = [&](AttentionSite site) { return DictionaryPlace{Module::attn, layer, site}; };
    const auto mlp = [&](MlpSite site) { return DictionaryPlace{Module::mlp, layer, {}, site}; };
    if (in->second == out->second) {
      if (in->second == hook::attn::z::name) return attn(AttentionSite::z);
      if (in->second == hook::attn_out::name) return attn(AttentionSite::attn_out);
      if (in->second == hook::mlp_out::name) return mlp(MlpSite::mlp_out);
      if (const auto before = stream_of(hooks.in)) return {Module::stream, *before};
    } else if (out->second == hook::mlp_out::name) {
      if (in->second == hook::ln2::normalized::name) return mlp(MlpSite::normalized);
      if (in->second == hook::resid_mid::name) return mlp(MlpSite::resid_mid);
    }
  }
  throw ConfigError{{.file = path,
                     .tensor = "hook",
                     .problem = "there is no place for this dictionary",
                     .expected = "attn.hook_z, hook_attn_out, hook_mlp_out, hook_resid_pre, hook_resid_post, or "
                                 "ln2.hook_normalized or hook_resid_mid to hook_mlp_out of one layer",
                     .got = hooks.in + (hooks.out == hooks.in ? "" : " to " + hooks.out)}};
}

/// What a folder holds that may be dictionaries, in order.
[[nodiscard]] inline std::vector<std::filesystem::path> dictionary_paths(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    throw FileError{{.file = folder, .problem = "is no folder that can be read"}};
  }
  if (std::filesystem::exists(folder / "cfg.json")) return {folder};
  return sorted_by<std::filesystem::path>(
      {std::filesystem::directory_iterator{folder}, std::filesystem::directory_iterator{}}, std::less<>{});
}

/// Puts every dictionary in a folder that is of one module into a set.
/// expected  what those so far say they were trained under
inline void load_folder(const std::filesystem::path& folder, Module module, const DictionaryOptions& options,
                        DictionarySet& set, std::optional<weights::Processing>& expected) {
  bool any = false;
  for (const auto& path : dictionary_paths(folder)) {
    const auto found = recognize(path);
    if (!found) continue;
    const auto place = place_of(path, found->hooks);
    if (place.module == Module::stream) {
      throw ConfigError{{.file = path,
                         .problem = "is of the residual stream, not of a module",
                         .got = found->hooks.in,
                         .hint = "use dictionary::load_set"}};
    }
    if (place.module != module) continue;
    if (const auto* other = found_in(set, place)) {
      throw ConfigError{{.file = path,
                         .problem = "two dictionaries of " + found->hooks.in,
                         .got = "also " + other->name,
                         .hint = "keep one of them in the folder"}};
    }
    auto loaded = load_found(*found, options);
    if (expected && loaded.expects && *expected != *loaded.expects) {
      throw ConfigError{{.file = path, .problem = "expects another weight processing than the dictionaries before it"}};
    }
    if (loaded.expects) expected = loaded.expects;
    put_into(set, place, std::move(loaded.dictionary));
    any = true;
  }
  if (!any) {
    const bool mlp = module == Module::mlp;
    throw ConfigError{{.file = folder,
                       .problem = std::string{"holds no "} + (mlp ? "MLP transcoder" : "attention SAE"),
                       .expected = mlp ? "mlp.0.safetensors, ..., SAELens folders or transcoders in .pt files"
                                       : "attn.0.safetensors, ..., SAELens folders or attention SAEs in .pt files"}};
  }
}

}  // namespace circuit::detail

namespace circuit {

#ifdef CIRCUIT_DEFINE

CIRCUIT_DEFINE LoadedDictionary load_dictionary(const std::filesystem::path& path, const DictionaryOptions& options) {
  if (!std::filesystem::exists(path)) throw FileError{{.file = path, .problem = "does not exist"}};
  const auto found = detail::recognize(path);
  if (!found) {
    throw ConfigError{{.file = path,
                       .problem = "is no dictionary that can be placed",
                       .expected = "a SAELens folder, a published .pt file, or attn.{layer} or mlp.{layer}",
                       .hint = "load_bare reads a file of any name"}};
  }
  return detail::load_found(*found, options);
}

CIRCUIT_DEFINE DictionarySet load_dictionaries(const std::filesystem::path& attn_folder,
                                               const std::filesystem::path& mlp_folder,
                                               const DictionaryOptions& options) {
  DictionarySet set;
  std::optional<weights::Processing> expected;
  if (!attn_folder.empty()) detail::load_folder(attn_folder, Module::attn, options, set, expected);
  if (!mlp_folder.empty()) detail::load_folder(mlp_folder, Module::mlp, options, set, expected);
  if (expected) set.expect(*expected);
  return set;
}

#endif

}  // namespace circuit
