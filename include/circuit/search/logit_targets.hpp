#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/graph/influence.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/search/targets.hpp"

namespace circuit {

/// A logit that a graph explains.
struct ChosenLogit {
  std::int64_t token;
  double probability;
};

/// Which logits of the last position are explained.
struct LogitTargets {
  double mass = 0.95;                  ///< the fewest tokens that together have this probability ...
  std::int64_t most = 10;              ///< ... and no more than that many
  std::vector<std::int64_t> tokens{};  ///< these instead, if any are given

  /// logits  [d_vocab]
  /// throws  IndexError for a token that is not there, ValueError where the settings choose none
  [[nodiscard]] std::vector<ChosenLogit> choose(const at::Tensor& logits) const {
    const auto p = logits.to(at::kDouble).softmax(-1).cpu().contiguous();
    const auto* value = data_of<double>(p);
    std::vector<ChosenLogit> out;
    for (const auto token : tokens) {
      check_index(token, p.size(0), "token");
      out.push_back({token, value[token]});
    }
    if (!out.empty()) return out;
    const auto order = p.argsort(-1, /*descending=*/true).contiguous();
    double sum = 0;
    for (std::int64_t i = 0; i < std::min(most, p.size(0)) && sum < mass; ++i) {
      const auto token = data_of<std::int64_t>(order)[i];
      out.push_back({token, value[token]});
      sum += value[token];
    }
    if (out.empty())
      throw ValueError{
          {.tensor = "LogitTargets", .problem = "no logit is chosen", .expected = "mass and most above 0"}};
    return out;
  }
};

/// The chosen logits of the last position, each less the mean of all and weighted by its probability, which is held.
class ExpectedLogit {
 public:
  explicit ExpectedLogit(std::vector<ChosenLogit> chosen) : chosen_{std::move(chosen)} {}

  /// logits [batch, pos, d_vocab]  return [batch]
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const {
    const auto last = logits.select(1, -1);
    const auto centred = last.sub(last.mean(-1, /*keepdim=*/true));
    auto sum = centred.select(-1, chosen_.front().token).mul(chosen_.front().probability);
    for (std::size_t i = 1; i < chosen_.size(); ++i) {
      sum = sum.add(centred.select(-1, chosen_[i].token).mul(chosen_[i].probability));
    }
    return sum;
  }

 private:
  std::vector<ChosenLogit> chosen_;
};

}  // namespace circuit

namespace circuit::detail {

/// Mean of a matrix over its columns. [rows, columns] -> [rows]
[[nodiscard]] inline at::Tensor mean_column(const at::Tensor& W) {
  if (!is_half(W)) return W.mean(1);
  const auto n = W.size(1);
  return product(make::full({1, n}, 1.0 / static_cast<double>(n), W.options().dtype(at::kFloat)), W.t()).squeeze(0);
}

/// Chosen logits as targets of a search on one prompt.
struct LogitRows {
  StepTargets targets;
  std::vector<std::int64_t> index;  // 0, 1, ...
  at::Tensor grad;                  // [logits, d_model]  d centred logit / d last residual stream at the last position
  std::vector<double> constants;    // [logits]  the unembedding's and the final norm's biases
  NodeWeights weights;
};

template <Architecture A>
[[nodiscard]] LogitRows logit_rows(const HookedTransformer<A>& model, const Linearization& lin,
                                   const std::vector<ChosenLogit>& chosen) {
  using Norm = typename A::Norm;
  const auto& w = model.weights();
  const auto last = static_cast<std::int32_t>(lin.length()) - 1;
  std::vector<std::int64_t> ids;
  std::vector<Node> nodes;
  for (const auto& logit : chosen) {
    ids.push_back(logit.token);
    nodes.push_back(Node::logit(Position{last}, static_cast<std::int32_t>(logit.token)));
  }
  const auto tokens = ids_tensor(ids).to(model.device());
  const auto mean = mean_column(w.W_U);
  const auto columns = widened(w.W_U.index_select(1, tokens)).sub(mean.unsqueeze(-1)).t();  // [logits, d_model]
  const auto scale = lin.run.get<hook::ln_final::scale>().select(0, 0).select(0, -1);
  LogitRows out{.targets = StepTargets{nodes, 1},
                .index = std::vector<std::int64_t>(chosen.size()),
                .grad = Norm::pull_back(columns, scale, w.ln_final),
                .constants = std::vector<double>(chosen.size(), 0.0),
                .weights = {}};
  std::iota(out.index.begin(), out.index.end(), std::int64_t{0});
  const auto stream = lin.run.get<hook::resid_post>(Layer{static_cast<std::int32_t>(model.config().n_layers) - 1});
  const auto read = out.grad.matmul(stream.select(0, 0).select(0, -1)).to(at::kCPU, at::kDouble).contiguous();
  at::Tensor constant;
  if (const auto all = unembedding_constant_of(w); all.defined()) {
    constant = all.index_select(0, tokens).sub(all.mean()).to(at::kCPU, at::kDouble).contiguous();
  }
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (constant.defined()) out.constants[i] = data_of<double>(constant)[i];
    out.targets.at(Prompt{0}, static_cast<std::int64_t>(i)) = {
        .slope = 1, .nodegrad = chosen[i].probability, .activation = data_of<double>(read)[i] + out.constants[i]};
    out.weights[nodes[i]] = chosen[i].probability;
  }
  return out;
}

}  // namespace circuit::detail
