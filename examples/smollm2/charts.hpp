#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/data/contrast_batch.hpp"
#include "circuit/report/svg_chart.hpp"
#include "circuit/text/tokenizer.hpp"

namespace smollm2 {

/// What stands at each position: the token where all prompts have the same, else the role of the one that differs.
[[nodiscard]] inline std::vector<std::string> position_labels(const circuit::ContrastBatch& batch,
                                                              const circuit::Tokenizer& tokenizer) {
  std::map<std::size_t, std::string> roles;
  for (const auto& [role, position] : batch.roles) roles[static_cast<std::size_t>(position.value)] = role;
  std::vector<std::string> labels;
  for (std::size_t p = 0; p < batch.length(); ++p) {
    bool same = true;
    for (const auto& prompt : batch.clean) same = same && prompt[p] == batch.clean.front()[p];
    const auto role = roles.find(p);
    labels.push_back(same || role == roles.end() ? tokenizer.token_text(batch.clean.front()[p]) : role->second);
    if (!same && role == roles.end()) labels.back() += ", ...";
  }
  return circuit::unique_labels(labels);
}

/// Where one head looks from the last position, mean over prompts. pattern [batch, head, query, key]
[[nodiscard]] inline std::vector<double> attention_from_end(const at::Tensor& pattern, circuit::Head head) {
  const auto row = pattern.select(1, head.value).mean(0).select(0, pattern.size(2) - 1).to(at::kDouble).contiguous();
  return {row.data_ptr<double>(), row.data_ptr<double>() + row.numel()};
}

/// Numbers of the circuit and of its two controls, one per size.
struct Curves {
  std::vector<std::string> sizes{};
  circuit::Series circuit{"circuit", {}};
  circuit::Series change{"as many of largest change", {}};
  circuit::Series random{"as many at random", {}};

  void add(std::string size, double of_circuit, double of_change, double of_random) {
    sizes.push_back(std::move(size));
    circuit.values.push_back(of_circuit);
    change.values.push_back(of_change);
    random.values.push_back(of_random);
  }
  [[nodiscard]] std::string chart(circuit::ChartOptions options) const {
    return circuit::line_chart(sizes, {circuit, change, random}, std::move(options));
  }
};

}  // namespace smollm2
