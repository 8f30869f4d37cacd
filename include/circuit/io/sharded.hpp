#pragma once

#include <concepts>
#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/order.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/mapping.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/tensor_file.hpp"

namespace circuit {

/// The tensors of a model that lies in several files, its shards, as one TensorFile. `index` is the JSON file beside
/// them whose "weight_map" says which shard holds which tensor; `open` reads one shard (open_safetensors, open_torch).
/// What a shard holds beyond the index is left out.
/// throws  FileError    when the index or a shard cannot be read
/// throws  FormatError  the index is not JSON, a shard is no plain file name or lacks a tensor; as `open` does
/// throws  ConfigError  the index has no "weight_map" of file names
/// source  Hugging Face's description of sharded checkpoints
template <std::invocable<const std::filesystem::path&> Open>
[[nodiscard]] TensorFile open_sharded(const std::filesystem::path& index, Open&& open);

/// A model of `model.safetensors.index.json` and its shards.
[[nodiscard]] inline TensorFile open_sharded_safetensors(const std::filesystem::path& index) {
  return open_sharded(index, open_safetensors);
}

namespace detail::sharded {

/// Tensor i lies in shard i.
struct Index {
  std::vector<std::string> tensors{};
  std::vector<std::string> shards{};
};

/// throws  FormatError  unless `name` is the name of a file beside the index
inline void check_file_name(const std::string& name, const std::filesystem::path& index, const std::string& tensor) {
  constexpr std::string_view forbidden{"/\\:\0", 4};
  if (!name.empty() && name != "." && name != ".." && name.find_first_of(forbidden) == name.npos) return;
  throw FormatError{{.file = index,
                     .tensor = tensor,
                     .problem = "its shard is no file beside the index",
                     .expected = "a plain file name",
                     .got = short_dump(name)}};
}

[[nodiscard]] inline Index read_index(const std::filesystem::path& index) {
  const auto json = read_json(index, {.bytes = std::size_t{64} << 20U, .depth = 8});
  const auto& weights = require_field(json, "weight_map", index);
  if (!weights.is_object() || weights.empty()) {
    throw ConfigError{{.file = index,
                       .tensor = "weight_map",
                       .expected = "an object of tensor names and file names",
                       .got = short_dump(weights)}};
  }
  Index read;
  for (const auto& [tensor, shard] : members(weights)) {
    if (!shard.is_string()) {
      throw ConfigError{{.file = index, .tensor = tensor, .expected = "a file name", .got = short_dump(shard)}};
    }
    read.tensors.push_back(tensor);
    read.shards.push_back(json_as<std::string>(shard));
    check_file_name(read.shards.back(), index, tensor);
  }
  return read;
}

}  // namespace detail::sharded

template <std::invocable<const std::filesystem::path&> Open>
TensorFile open_sharded(const std::filesystem::path& index, Open&& open) {
  std::vector<std::shared_ptr<const Mapping>> mappings;
  std::vector<TensorView> tensors;
  std::map<std::string, std::string> metadata;
  const auto [names, shards] = detail::sharded::read_index(index);
  const auto by_shard =
      detail::order_by(names.size(), [&shards = shards](auto a, auto b) { return shards[a] < shards[b]; });
  for (auto i = by_shard.begin(); i != by_shard.end();) {
    const auto& name = shards[*i];
    const TensorFile shard = open(index.parent_path() / name);
    for (; i != by_shard.end() && shards[*i] == name; ++i) {
      const auto& tensor = names[*i];
      const auto* found = shard.find(tensor);
      if (found == nullptr) {
        throw FormatError{{.file = shard.path(),
                           .tensor = tensor,
                           .problem = "this shard lacks a tensor that the index says it holds",
                           .hint = "download shards and index again; they belong to different models"}};
      }
      tensors.push_back(*found);
    }
    mappings.insert(mappings.end(), shard.mappings().begin(), shard.mappings().end());
    metadata.insert(shard.metadata().begin(), shard.metadata().end());
  }
  return {index, std::move(mappings), std::move(tensors), std::move(metadata)};
}

}  // namespace circuit
