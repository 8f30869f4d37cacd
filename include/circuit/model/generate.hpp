#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/model/hooked_transformer.hpp"
#include "circuit/model/key_value_cache.hpp"

namespace circuit {

/// Picks the next token of every prompt.
template <class C>
concept TokenChoice = requires(C& choice, const at::Tensor& logits) {
  { choice.next(logits) } -> std::same_as<at::Tensor>;  // [batch, d_vocab] -> [batch] int64
};

namespace choose {

/// The most likely token.
struct Greedy {
  [[nodiscard]] at::Tensor next(const at::Tensor& logits) const { return logits.argmax(-1); }
};

/// A token drawn by its probability, the same for the same seed on every platform.
class Sample {
 public:
  /// temperature  logits are divided by it
  /// throws  ValueError  unless it is a positive number
  explicit Sample(std::uint64_t seed, double temperature = 1.0) : engine_{seed}, temperature_{temperature} {
    if (!(temperature > 0) || !std::isfinite(temperature)) {
      throw ValueError{{.tensor = "temperature", .expected = "a positive number", .got = std::to_string(temperature)}};
    }
  }

  [[nodiscard]] at::Tensor next(const at::Tensor& logits) {
    const auto up_to = logits.to(at::kCPU, at::kDouble).div(temperature_).softmax(-1).cumsum(-1).contiguous();
    auto tokens = make::empty({up_to.size(0)}, at::kLong);
    for (std::int64_t b = 0; b < up_to.size(0); ++b) {
      const auto* row = data_of<double>(up_to) + b * up_to.size(1);
      const auto drawn = static_cast<double>(engine_() >> 11U) * 0x1p-53 * row[up_to.size(1) - 1];
      tokens.data_ptr<std::int64_t>()[b] = std::upper_bound(row, row + up_to.size(1) - 1, drawn) - row;
    }
    return tokens.to(logits.device());
  }

 private:
  std::mt19937_64 engine_;
  double temperature_;
};

}  // namespace choose

/// What a model went on with.
struct Generated {
  at::Tensor tokens;  ///< [batch, prompt + new] int64
  at::Tensor logits;  ///< [batch, new, d_vocab]: what each new token was picked from
};

/// An attachment that acts on the prompt, and on nothing generated after it: what edits at positions need.
template <class A>
class PromptOnly {
 public:
  explicit PromptOnly(A attached) : attached_{std::move(attached)} {}

  template <HookPoint P>
    requires(AttachedTo<A, P> || std::same_as<P, hook::embed>)
  void visit(P point, Layer layer, at::Tensor& value) {
    if constexpr (std::same_as<P, hook::embed>) ++runs_;
    if constexpr (AttachedTo<A, P>) {
      if (runs_ == 1) attached_.visit(point, layer, value);
    }
  }

 private:
  A attached_;
  int runs_ = 0;
};

template <class A>
[[nodiscard]] PromptOnly<A> prompt_only(A attached) {
  return PromptOnly<A>{std::move(attached)};
}

}  // namespace circuit

namespace circuit::detail {

/// Draws `count` tokens after each prompt, and calls use(logits [batch, d_vocab]) with what each was picked from.
/// return  [batch, prompt + count]
template <Architecture A, TokenChoice Choice, class Use, class... Attached>
[[nodiscard]] at::Tensor go_on(const HookedTransformer<A>& model, const at::Tensor& prompts, std::int64_t count,
                               Choice choice, Use&& use, Attached... attached) {
  check_count(count, "count");
  KeyValueCache cache;
  std::vector<at::Tensor> tokens{prompts};
  for (std::int64_t i = 0; i < count; ++i) {
    const auto logits = model.run(tokens.back(), attached..., cache).logits.select(1, -1);
    use(logits);
    tokens.push_back(choice.next(logits).unsqueeze(1));
  }
  return make::cat(tokens, 1);
}

}  // namespace circuit::detail

namespace circuit {

/// Lets the model go on from prompts of one length, under attachments that act at every position, of the prompt and
/// behind it, such as a steering vector. Each position is computed once, its keys and values kept; what comes out is
/// what a run without a cache gives, as long as attachments treat each position by itself. count   how many tokens each
/// prompt gets throws  ValueError  for a count below 1, or more tokens than the model's context
template <Architecture A, TokenChoice Choice, class... Attached>
[[nodiscard]] Generated generate(const HookedTransformer<A>& model, const at::Tensor& prompts, std::int64_t count,
                                 Choice choice, Attached... attached) {
  std::vector<at::Tensor> logits;
  auto tokens = detail::go_on(
      model, prompts, count, std::move(choice), [&](const at::Tensor& each) { logits.push_back(each); },
      std::move(attached)...);
  return {std::move(tokens), make::stack(logits, 1)};
}

/// The same, taking the most likely token.
template <Architecture A>
[[nodiscard]] Generated generate(const HookedTransformer<A>& model, const at::Tensor& prompts, std::int64_t count) {
  return generate(model, prompts, count, choose::Greedy{});
}

/// The tokens alone, [batch, prompt + count]: no logits are kept, which for many rows would be gigabytes.
template <Architecture A, TokenChoice Choice, class... Attached>
[[nodiscard]] at::Tensor generate_tokens(const HookedTransformer<A>& model, const at::Tensor& prompts,
                                         std::int64_t count, Choice choice, Attached... attached) {
  return detail::go_on(
      model, prompts, count, std::move(choice), [](const at::Tensor&) {}, std::move(attached)...);
}

}  // namespace circuit
