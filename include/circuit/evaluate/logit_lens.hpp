#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/linear/frozen_run.hpp"
#include "circuit/metric/metric.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// What the model would say if the residual stream at one place were its last: means over prompts, at the last
/// position.
struct LogitLensRow {
  std::int32_t blocks_done{};  ///< 0: only the embeddings are there
  double metric{};
  double answer_probability{};
  double answer_rank{};      ///< 0: the answer has the largest logit of all
  std::int32_t top_token{};  ///< of the first prompt
};

/// The logit lens at every layer: the residual stream before the first block and after each, through the model's own
/// final norm and unembedding.
/// answers  [batch]  right token of each prompt
/// throws   ShapeError  unless there is one answer per prompt;  IndexError for one that the vocabulary has not
/// source   nostalgebraist 2020, "interpreting GPT: the logit lens"
template <Architecture A, Metric M>
[[nodiscard]] std::vector<LogitLensRow> logit_lens(const HookedTransformer<A>& model, const FrozenRun& run,
                                                   const M& metric, std::span<const std::int64_t> answers) {
  const c10::AutoGradMode no_gradient{false};
  auto resid = run.get<hook::embed>();
  if constexpr (A::Positions::adds_embedding) resid = resid.add(run.get<hook::pos_embed>());
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): copied before anything writes to it
  const auto wanted = at::from_blob(const_cast<std::int64_t*>(answers.data()),
                                    {static_cast<std::int64_t>(answers.size()), 1}, at::kLong)
                          .clone()
                          .to(model.device());
  check_shape(wanted, {resid.size(0), 1}, "answers", {}, "one answer for each prompt");
  for (const auto answer : answers) check_index(answer, model.config().d_vocab, "answers");
  std::vector<LogitLensRow> rows;
  for (std::int32_t done = 0; done <= model.config().n_layers; ++done) {
    if (done > 0) resid = run.get<hook::resid_post>(Layer{done - 1});
    const auto logits = soft_cap(model.unembed(resid), model.config().logit_soft_cap);
    const auto last = logits.select(1, logits.size(1) - 1);  // [batch, d_vocab]
    const auto answer = last.gather(1, wanted);
    const auto number = [](const at::Tensor& t) { return t.to(at::kDouble).mean().template item<double>(); };
    rows.push_back({.blocks_done = done,
                    .metric = number(metric.per_prompt(logits)),
                    .answer_probability = number(last.softmax(-1).gather(1, wanted)),
                    .answer_rank = number(last.gt(answer).sum(-1)),
                    .top_token = static_cast<std::int32_t>(last[0].argmax().template item<std::int64_t>())});
  }
  return rows;
}

}  // namespace circuit
