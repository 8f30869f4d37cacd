#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "circuit/model/load/gemma2.hpp"
#include "circuit/model/load/gguf.hpp"
#include "circuit/model/load/gpt2.hpp"
#include "circuit/model/load/gpt_neox.hpp"
#include "circuit/model/load/llama.hpp"

namespace circuit {

/// Which files are architecture A's: specialise it with `static constexpr std::array<std::string_view, n> model_types`,
/// the words under "model_type" in config.json, and `static bool fits(const nlohmann::json& config)` where they do not
/// decide.
template <class A>
struct FilesOf;

/// Something that is called with the model, whichever of the architectures A it is, and returns one type for all.
template <class Visit, class First, class... A>
concept ModelVisitor =
    std::invocable<Visit&, HookedTransformer<First>> && (std::invocable<Visit&, HookedTransformer<A>> && ...) &&
    (std::same_as<std::invoke_result_t<Visit&, HookedTransformer<First>>,
                  std::invoke_result_t<Visit&, HookedTransformer<A>>> &&
     ...);

/// Opens a model without knowing its kind: a Hugging Face folder (safetensors or PyTorch files, one or sharded) or a
/// GGUF file. `visit` is called once, with the model as `HookedTransformer<A>` of the right A, and its result returned:
/// `open_model(path, [](const auto& model) { return model.config().n_layers; })`. Everything that `visit` does is
/// compiled once for each of the architectures; `open_model<Llama, Gpt2>(path, visit)` names fewer, or ones of your
/// own.
/// throws  FileError    when there is no model at `path`
/// throws  ConfigError  for a model of another architecture, named with those that are known;  as load_model and load_gguf
template <LoadableArchitecture First, LoadableArchitecture... Rest, class Visit>
  requires ModelVisitor<Visit, First, Rest...>
decltype(auto) open_model(const std::filesystem::path& path, Visit&& visit, const LoadOptions& options = {});
template <class Visit>
  requires ModelVisitor<Visit, Llama, Gpt2, GptNeox, SequentialGptNeox, Gemma2>
decltype(auto) open_model(const std::filesystem::path& path, Visit&& visit, const LoadOptions& options = {}) {
  return open_model<Llama, Gpt2, GptNeox, SequentialGptNeox, Gemma2>(path, std::forward<Visit>(visit), options);
}

/// A model that was found and not yet read.
struct ModelFound {
  std::filesystem::path config_file;                      ///< config.json, or the GGUF file
  nlohmann::json config;                                  ///< in Hugging Face's words
  std::variant<std::filesystem::path, GgufFile> weights;  ///< the folder, or the file
};

/// throws  FileError, ConfigError  when there is no model at `path`;  as read_json, open_gguf and hugging_face_config
[[nodiscard]] ModelFound find_model(const std::filesystem::path& path);

template <>
struct FilesOf<Gpt2> {
  static constexpr std::array<std::string_view, 1> model_types{"gpt2"};
};
template <>
struct FilesOf<Llama> {
  static constexpr std::array<std::string_view, 4> model_types{"llama", "mistral", "qwen2", "qwen3"};
};
template <>
struct FilesOf<Gemma2> {
  static constexpr std::array<std::string_view, 1> model_types{"gemma2"};
};
template <BlockWiring W>
struct FilesOf<BasicGptNeox<W>> {
  static constexpr std::array<std::string_view, 1> model_types{"gpt_neox"};
  [[nodiscard]] static bool fits(const nlohmann::json& config) {
    return value_or(config, "use_parallel_residual", {}, true) == W::parallel;
  }
};

}  // namespace circuit

namespace circuit::detail {

template <class A>
[[nodiscard]] bool files_are_of(const nlohmann::json& config, std::string_view type) {
  const auto& types = FilesOf<A>::model_types;
  if (std::find(types.begin(), types.end(), type) == types.end()) return false;
  if constexpr (requires { FilesOf<A>::fits(config); }) {
    return FilesOf<A>::fits(config);
  } else {
    return true;
  }
}

/// The words of all architectures A, each once: "llama, mistral or gpt2".
template <class... A>
[[nodiscard]] std::string known_types() {
  std::vector<std::string_view> words;
  const auto add = [&](std::string_view word) {
    if (std::find(words.begin(), words.end(), word) == words.end()) words.push_back(word);
  };
  (std::for_each(FilesOf<A>::model_types.begin(), FilesOf<A>::model_types.end(), add), ...);
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    text += (i == 0 ? "" : i + 1 == words.size() ? " or " : ", ") + std::string{words[i]};
  }
  return text;
}

template <class A>
[[nodiscard]] HookedTransformer<A> load_found(ModelFound found, const LoadOptions& options) {
  if (auto* gguf = std::get_if<GgufFile>(&found.weights)) return load_gguf<A>(std::move(*gguf), options);
  return load_model<A>(std::get<std::filesystem::path>(found.weights), options);
}

/// The first of the architectures that fits visits; `Result` is what every visit returns.
template <class Result, class First, class... Rest, class Visit>
Result visit_found(ModelFound& found, const std::string& type, Visit& visit, const LoadOptions& options) {
  if (files_are_of<First>(found.config, type)) {
    return std::invoke(visit, load_found<First>(std::move(found), options));
  }
  if constexpr (sizeof...(Rest) > 0) {
    return visit_found<Result, Rest...>(found, type, visit, options);
  } else {
    throw ConfigError{{.file = found.config_file,
                       .tensor = "model_type",
                       .problem = "of this model_type only some models are among the architectures asked for",
                       .got = type}};
  }
}

}  // namespace circuit::detail

namespace circuit {

inline ModelFound find_model(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    const auto config = path / "config.json";
    if (!std::filesystem::exists(config)) {
      throw FileError{{.file = path, .problem = "is no folder with a model", .expected = "a config.json in it"}};
    }
    return {config, read_json(config), path};
  }
  const auto mapping = Mapping::open(path);
  const std::string_view text{reinterpret_cast<const char*>(mapping->bytes().data()), mapping->bytes().size()};
  if (!text.starts_with(detail::gguf::magic)) {
    throw FormatError{{.file = path,
                       .problem = "is no model",
                       .expected = "a GGUF file or a folder with a config.json",
                       .hint = "for other files of weights, give the folder they lie in"}};
  }
  auto file = open_gguf(path);
  auto config = hugging_face_config(file);
  return {path, std::move(config), std::move(file)};
}

template <LoadableArchitecture First, LoadableArchitecture... Rest, class Visit>
  requires ModelVisitor<Visit, First, Rest...>
decltype(auto) open_model(const std::filesystem::path& path, Visit&& visit, const LoadOptions& options) {
  auto found = find_model(path);
  const auto type = require<std::string>(found.config, "model_type", found.config_file);
  const auto has_type = [&](const auto& types) { return std::find(types.begin(), types.end(), type) != types.end(); };
  if (!has_type(FilesOf<First>::model_types) && !(has_type(FilesOf<Rest>::model_types) || ...)) {
    throw ConfigError{{.file = found.config_file,
                       .tensor = "model_type",
                       .problem = "is not supported",
                       .expected = detail::known_types<First, Rest...>(),
                       .got = type}};
  }
  using Result = std::invoke_result_t<Visit&, HookedTransformer<First>>;
  return detail::visit_found<Result, First, Rest...>(found, type, visit, options);
}

}  // namespace circuit
