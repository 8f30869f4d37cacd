#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "circuit/io/json.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/to_tensor.hpp"
#include "circuit/model/load/gpt2.hpp"

/// The numbers that a Python reference computed on a tiny random GPT-2; see tests/data/golden.
namespace golden {

inline std::filesystem::path folder() { return std::filesystem::path{CIRCUIT_TEST_DATA} / "golden"; }

inline circuit::HookedTransformer<circuit::Gpt2> model(const circuit::weights::Processing& processing,
                                                       at::ScalarType dtype = at::kDouble) {
  return circuit::load_model<circuit::Gpt2>(folder() / "model", {.processing = processing, .dtype = dtype});
}

inline const circuit::TensorFile& facts() {
  static const auto file = circuit::open_safetensors(folder() / "facts.safetensors");
  return file;
}

inline at::Tensor fact(const std::string& name) { return circuit::to_tensor(facts().get(name)); }

/// which: "clean" or "corrupt"
inline at::Tensor tokens(const std::string& which) {
  std::vector<std::vector<std::int32_t>> rows;
  const auto json = circuit::read_json(folder() / "prompts.json");
  for (const auto& prompt : json.at("prompts")) rows.push_back(prompt.at(which).get<std::vector<std::int32_t>>());
  return circuit::to_tokens(rows);
}

/// which: "answers" or "wrong_answers"; [batch]
inline std::vector<std::int64_t> answers(const std::string& which) {
  std::vector<std::int64_t> ids;
  const auto json = circuit::read_json(folder() / "prompts.json");
  for (const auto& prompt : json.at("prompts")) ids.push_back(prompt.at(which).at(0).get<std::int64_t>());
  return ids;
}

}  // namespace golden
