#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/to_tensor.hpp"

namespace circuit::train {

/// Where a training run is, apart from the trainers: numbers such as the place in the text, and words such as the
/// options it was started with.
struct Progress {
  std::map<std::string, std::int64_t> counts{};
  std::map<std::string, std::string> settings{};
};

/// Writes everything that training depends on into one safetensors file, whole or not at all.
/// throws  FileError
template <class Trainer>
void save_checkpoint(const std::filesystem::path& path, std::vector<Trainer>& trainers, const Progress& progress);

/// Reads such a file into trainers made with the same options; they then go on exactly as the ones that were saved.
/// wanted   settings that the file must agree with
/// throws   FileError, FormatError (a truncated file), ConfigError (other settings), NameError, ShapeError, DTypeError,
///          ValueError (absurd numbers of steps), before any trainer has changed
template <class Trainer>
[[nodiscard]] Progress load_checkpoint(const std::filesystem::path& path, std::vector<Trainer>& trainers,
                                       const std::map<std::string, std::string>& wanted = {});

}  // namespace circuit::train

namespace circuit::train::detail {

/// A number as a tensor that a file holds exactly.
template <class T>
  requires std::same_as<T, double> || std::same_as<T, std::int64_t>
[[nodiscard]] at::Tensor number_tensor(T value) {
  auto out = make::empty({}, at::TensorOptions{}.dtype(std::same_as<T, double> ? at::kDouble : at::kLong));
  *out.template data_ptr<T>() = value;
  return out;
}
inline at::Tensor number_tensor(const at::Tensor& value) { return value; }

/// throws  NameError, ShapeError, DTypeError  unless the file holds such a value. return it
[[nodiscard]] inline at::Tensor stored(const TensorFile& file, const std::string& name, const at::Tensor& like) {
  auto value = to_tensor(file.get(name));
  check_shape(value, shape_of(like), name, file.path(), "this checkpoint is of other sizes");
  if (value.scalar_type() != like.scalar_type()) {
    throw DTypeError{{.file = file.path(),
                      .tensor = name,
                      .expected = at::toString(like.scalar_type()),
                      .got = at::toString(value.scalar_type())}};
  }
  return value;
}

/// throws  ValueError  for a number of steps that no run can have made
inline void check_steps(const at::Tensor& value, const std::string& name, const TensorFile& file) {
  constexpr std::int64_t most = std::int64_t{1} << 53U;  // which leaves room to count on
  const auto steps = value.item<std::int64_t>();
  if (steps >= 0 && steps <= most) return;
  throw ValueError{
      {.file = file.path(), .tensor = name, .expected = "0 to " + std::to_string(most), .got = std::to_string(steps)}};
}

[[nodiscard]] inline std::string state_name(std::size_t trainer, const std::string& name) {
  return std::to_string(trainer) + '.' + name;
}

inline void check_settings(const std::map<std::string, std::string>& saved,
                           const std::map<std::string, std::string>& wanted, const std::filesystem::path& path) {
  for (const auto& [name, value] : wanted) {
    const auto found = saved.find("setting." + name);
    if (found != saved.end() && found->second == value) continue;
    throw ConfigError{{.file = path,
                       .tensor = name,
                       .problem = "this checkpoint is of a run with other settings",
                       .expected = value,
                       .got = found == saved.end() ? "none" : found->second,
                       .hint = "resume with the settings it was started with"}};
  }
}

}  // namespace circuit::train::detail

namespace circuit::train {

template <class Trainer>
void save_checkpoint(const std::filesystem::path& path, std::vector<Trainer>& trainers, const Progress& progress) {
  std::vector<TensorView> views;
  for (std::size_t i = 0; i < trainers.size(); ++i) {
    trainers[i].visit_state([&](const std::string& name, const auto& value) {
      views.push_back(to_view(detail::state_name(i, name), detail::number_tensor(value)));
    });
  }
  for (const auto& [name, count] : progress.counts) {
    views.push_back(to_view("count." + name, detail::number_tensor(count)));
  }
  std::map<std::string, std::string> metadata{{"trainers", std::to_string(trainers.size())}};
  for (const auto& [name, value] : progress.settings) metadata.emplace("setting." + name, value);
  write_safetensors(path, views, metadata);
}

template <class Trainer>
Progress load_checkpoint(const std::filesystem::path& path, std::vector<Trainer>& trainers,
                         const std::map<std::string, std::string>& wanted) {
  const c10::AutoGradMode no_gradient{false};
  const auto file = open_safetensors(path);
  detail::check_settings(file.metadata(), wanted, path);
  const auto each = [&](auto&& use) {
    for (std::size_t i = 0; i < trainers.size(); ++i) {
      trainers[i].visit_state([&](const std::string& name, auto& value) { use(detail::state_name(i, name), value); });
    }
  };
  each([&]<class T>(const std::string& name, T& value) {  // all is looked at before anything changes
    const auto from = detail::stored(file, name, detail::number_tensor(value));
    if constexpr (std::same_as<T, std::int64_t>) detail::check_steps(from, name, file);
  });
  Progress progress;
  constexpr std::string_view count = "count.";
  for (const auto& view : file.tensors()) {
    if (!view.name.starts_with(count)) continue;
    const auto value = detail::stored(file, view.name, detail::number_tensor(std::int64_t{}));
    progress.counts.emplace(view.name.substr(count.size()), value.template item<std::int64_t>());
  }
  constexpr std::string_view setting = "setting.";
  for (const auto& [name, value] : file.metadata()) {
    if (name.starts_with(setting)) progress.settings.emplace(name.substr(setting.size()), value);
  }
  each([&]<class T>(const std::string& name, T& value) {
    const auto from = detail::stored(file, name, detail::number_tensor(value));
    if constexpr (std::same_as<T, double> || std::same_as<T, std::int64_t>) {
      value = from.template item<T>();
    } else {
      value.copy_(from);
    }
  });
  return progress;
}

}  // namespace circuit::train
