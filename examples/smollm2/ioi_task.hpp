#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/data/ioi.hpp"
#include "circuit/text/tokenizer.hpp"

/// "When Alice and Bob went to the store, Bob gave a ring to": how often a model says "Alice".
namespace smollm2 {

using circuit::Bos;

struct IoiPrompt {
  circuit::data::IoiOrder order;
  std::string text;
  std::int32_t answer;   ///< " Alice"
  std::int32_t subject;  ///< " Bob"
};

/// Whether every one of the names is one token with its leading space.
[[nodiscard]] inline bool names_are_tokens(const circuit::data::TaskPrompt& prompt,
                                           const circuit::Tokenizer& tokenizer) {
  const auto is_token = [&](const std::string& name) { return tokenizer.encode(name).size() == 1; };
  return is_token(prompt.answers.front()) && is_token(prompt.wrong_answers.front());
}

/// Prompts of two people and one giver, half of them named in either order, no distractors.
/// throws  ValueError  when the tokenizer splits too many names
[[nodiscard]] inline std::vector<IoiPrompt> draw_ioi_prompts(const circuit::Tokenizer& tokenizer, std::size_t count,
                                                             std::uint64_t seed) {
  using namespace circuit::data;
  Random random{seed};
  std::vector<IoiPrompt> prompts;
  for (std::size_t drawn = 0; prompts.size() < count; ++drawn) {
    if (drawn > 100 * count) {
      throw circuit::ValueError{{.tensor = "names", .problem = "this tokenizer splits nearly all of them"}};
    }
    const auto order = prompts.size() % 2 == 0 ? IoiOrder::abba : IoiOrder::baba;
    const auto prompt = make_ioi(random, {.order = order, .distractor = IoiDistractor::none, .aside = false});
    if (!names_are_tokens(prompt, tokenizer)) continue;
    prompts.push_back({order, text_of(prompt.clean), tokenizer.single_token(prompt.answers.front()),
                       tokenizer.single_token(prompt.wrong_answers.front())});
  }
  return prompts;
}

/// What a model makes of one prompt.
struct IoiOutcome {
  bool over_subject = false;      ///< the answer's logit is over the subject's
  bool top = false;               ///< the answer's logit is the highest of all
  double logit_difference = 0.0;  ///< answer minus subject
};

/// Logits of each prompt's last position, [batch, d_vocab]; other positions are not unembedded.
/// attachments  edits of the forward pass
template <class Model, class... Attachments>
[[nodiscard]] at::Tensor last_logits(const Model& model, const at::Tensor& tokens, Attachments&&... attachments) {
  const c10::AutoGradMode no_gradient{false};
  using circuit::Layer;
  const Layer end{static_cast<std::int32_t>(model.config().n_layers)};
  const auto resid = model.blocks(model.embed(tokens, attachments...), Layer{0}, end, attachments...);
  return model.unembed(resid.narrow(1, -1, 1)).squeeze(1);
}

/// Runs prompts of one length together. `use(numbers of the prompts, tokens [batch, pos], last logits [batch,
/// d_vocab])` is called for each batch.
template <class Model, class Use>
void run_by_length(const Model& model, const std::vector<IoiPrompt>& prompts, Bos bos, Use&& use) {
  constexpr std::size_t most = 16;
  std::map<std::size_t, std::vector<std::size_t>> by_length;
  std::vector<std::vector<std::int32_t>> ids;
  for (const auto& prompt : prompts) {
    by_length[model.tokenizer().encode(prompt.text, bos).size()].push_back(ids.size());
    ids.push_back(model.tokenizer().encode(prompt.text, bos));
  }
  for (const auto& [length, numbers] : by_length) {
    for (std::size_t first = 0; first < numbers.size(); first += most) {
      const auto end = std::min(first + most, numbers.size());
      std::vector<std::size_t> chosen(numbers.begin() + static_cast<std::ptrdiff_t>(first),
                                      numbers.begin() + static_cast<std::ptrdiff_t>(end));
      std::vector<std::vector<std::int32_t>> rows;
      for (const auto number : chosen) rows.push_back(ids[number]);
      const auto tokens = circuit::to_tokens(rows);
      use(chosen, tokens, last_logits(model, tokens));
    }
  }
}

/// What the model makes of each prompt, in their order.
template <class Model>
[[nodiscard]] std::vector<IoiOutcome> answer(const Model& model, const std::vector<IoiPrompt>& prompts, Bos bos) {
  std::vector<IoiOutcome> outcomes(prompts.size());
  run_by_length(model, prompts, bos, [&](const auto& numbers, const at::Tensor&, const at::Tensor& last) {
    for (std::size_t row = 0; row < numbers.size(); ++row) {
      const auto& prompt = prompts[numbers[row]];
      const auto scores = last[static_cast<std::int64_t>(row)];
      const auto right = scores[prompt.answer].template item<double>();
      const auto wrong = scores[prompt.subject].template item<double>();
      const auto best = scores.argmax().template item<std::int64_t>();
      outcomes[numbers[row]] = {right > wrong, best == prompt.answer, right - wrong};
    }
  });
  return outcomes;
}

}  // namespace smollm2
