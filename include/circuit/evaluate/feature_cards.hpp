#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "circuit/core/id.hpp"
#include "circuit/core/shown_text.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/active_features.hpp"
#include "circuit/dictionary/train/activation_stream.hpp"
#include "circuit/evaluate/dictionary_quality.hpp"
#include "circuit/model/hooked_transformer.hpp"
#include "circuit/text/tokenizer.hpp"

namespace circuit {

/// A place in the text at which a feature fires, with the tokens around it.
struct FeatureContext {
  double activation = 0.0;
  std::int64_t row = 0;
  std::int64_t position = 0;
  std::vector<std::string> tokens{};
  std::size_t at_token = 0;  ///< which of `tokens` it is
};

/// What one unit of a feature adds to a token's logit, on the direct path, before the final norm divides.
struct TokenEffect {
  std::string token;
  double effect;
};

struct LikeFeature {
  Feature feature;
  double cosine;  ///< of the decoder rows
};

/// Activations from `from` up to twice that.
struct ActivationBin {
  double from;
  std::int64_t count;
};

/// What a feature seems to be about.
struct FeatureCard {
  Feature feature{0};
  std::int64_t fires = 0;  ///< tokens
  double frequency = 0.0;  ///< share of all tokens
  double mean = 0.0;       ///< activation where it fires
  double largest = 0.0;
  std::vector<FeatureContext> contexts{};  ///< largest activation first
  std::vector<ActivationBin> histogram{};  ///< bins that are not empty
  std::vector<TokenEffect> raises{};       ///< largest effect first; none where what it writes is not in the stream
  std::vector<TokenEffect> lowers{};
  std::vector<LikeFeature> like{};
};

struct CardOptions {
  std::size_t contexts = 5;
  std::int64_t before = 8;  ///< tokens shown of a context
  std::int64_t after = 3;
  std::int64_t effects = 5;  ///< tokens that are raised most, and lowered most
  std::int64_t like = 3;     ///< features with the nearest decoder rows
  std::int64_t rows_per_run = 8;
  std::int64_t skip = 0;  ///< first positions of each row that are left out
};

/// Cards for every feature of a dictionary, in one pass over rows of token ids.
/// throws  ValueError  without rows;  ShapeError, NameError, IndexError  for a dictionary that does not fit the model;
///         ConfigError  for a model without a tokenizer
template <Architecture A>
[[nodiscard]] std::vector<FeatureCard> feature_cards(const HookedTransformer<A>& model, const PlacedDictionary& placed,
                                                     const std::vector<std::vector<std::int32_t>>& rows,
                                                     const CardOptions& options = {});

[[nodiscard]] nlohmann::json to_json(const FeatureCard& card);
[[nodiscard]] std::string to_text(const FeatureCard& card);

}  // namespace circuit

namespace circuit::detail {

/// What is known of one feature while the text goes by.
class CardSums {
 public:
  struct Fire {
    double activation;
    std::int64_t row;
    std::int64_t position;
  };

  void add(const Fire& fire, std::size_t most) {
    largest_ = fires_ == 0 ? fire.activation : std::max(largest_, fire.activation);
    ++fires_;
    sum_ += fire.activation;
    const auto power = static_cast<int>(std::floor(std::log2(std::abs(fire.activation))));
    ++bins_[static_cast<std::size_t>(std::clamp(power + middle, 0, bins - 1))];
    const auto stronger = [](const Fire& a, const Fire& b) { return a.activation > b.activation; };
    if (top_.size() == most && (most == 0 || !stronger(fire, top_.back()))) return;
    top_.insert(std::upper_bound(top_.begin(), top_.end(), fire, stronger), fire);
    if (top_.size() > most) top_.pop_back();
  }

  void write(FeatureCard& card, std::int64_t tokens) const {
    card.fires = fires_;
    card.frequency = static_cast<double>(fires_) / static_cast<double>(std::max<std::int64_t>(1, tokens));
    card.mean = fires_ > 0 ? sum_ / static_cast<double>(fires_) : 0.0;
    card.largest = largest_;
    for (int i = 0; i < bins; ++i) {
      const auto count = bins_[static_cast<std::size_t>(i)];
      if (count > 0) card.histogram.push_back({std::exp2(i - middle), count});
    }
  }
  [[nodiscard]] const std::vector<Fire>& top() const noexcept { return top_; }

 private:
  static constexpr int bins = 48;
  static constexpr int middle = 24;
  std::int64_t fires_ = 0;
  double sum_ = 0.0;
  double largest_ = 0.0;
  std::array<std::int64_t, bins> bins_{};
  std::vector<Fire> top_;
};

/// The activations that a dictionary reads on one pass: [tokens, d_in].
template <Architecture A>
[[nodiscard]] at::Tensor read_at(const HookedTransformer<A>& model, const std::string& hook,
                                 const train::PaddedRows& padded) {
  const auto last = train::layer_of(hook, model.config().n_layers);
  train::NamedRecorder recorder{{hook}};
  const auto embedded = model.embed(padded.tokens.to(model.device()), recorder);
  (void)model.blocks(embedded, Layer{0}, Layer{last.value + 1}, recorder);
  const auto& value = recorder.values().front();
  if (!value.defined()) throw NameError{{.tensor = hook, .problem = "this model has no such place"}};
  return value.flatten(0, 1).index_select(0, padded.real.to(model.device()));
}

[[nodiscard]] inline FeatureContext context_of(const CardSums::Fire& fire, const std::vector<std::int32_t>& row,
                                               const Tokenizer& tokenizer, const CardOptions& options) {
  const auto first = std::max<std::int64_t>(0, fire.position - options.before);
  const auto last = std::min(static_cast<std::int64_t>(row.size()) - 1, fire.position + options.after);
  FeatureContext out{.activation = fire.activation, .row = fire.row, .position = fire.position};
  for (auto i = first; i <= last; ++i) out.tokens.push_back(tokenizer.token_text(row[static_cast<std::size_t>(i)]));
  out.at_token = static_cast<std::size_t>(fire.position - first);
  return out;
}

/// Decoder rows as they enter the residual stream [n, d_model], or an undefined tensor for a hook that is not written
/// to it in a straight line.
template <Architecture A>
[[nodiscard]] at::Tensor stream_writes(const HookedTransformer<A>& model, const std::string& hook,
                                       const at::Tensor& rows) {
  const auto split = split_hook(hook);
  const auto& name = split->second;
  const bool residual =
      name == hook::resid_pre::name || name == hook::resid_mid::name || name == hook::resid_post::name;
  if (residual || name == hook::attn_out::name || name == hook::mlp_out::name) return rows;
  if constexpr (A::Wiring::post_norms) return {};
  if (name != hook::attn::z::name) return {};
  return product(rows, model.weights().blocks[static_cast<std::size_t>(split->first.value)].attn.W_O);
}

/// The strongest entries of each row, as (value, index), largest first (or smallest).
[[nodiscard]] inline std::vector<std::vector<std::pair<double, std::int64_t>>> extremes(const at::Tensor& values,
                                                                                        std::int64_t count,
                                                                                        bool largest) {
  const auto most = std::min(count, values.size(1));
  const auto [top, places] = values.topk(most, -1, largest);
  const auto value = top.to(at::kCPU, at::kDouble).contiguous();
  const auto place = places.to(at::kCPU).contiguous();
  std::vector<std::vector<std::pair<double, std::int64_t>>> out(static_cast<std::size_t>(values.size(0)));
  for (std::size_t r = 0; r < out.size(); ++r) {
    const auto from = static_cast<std::int64_t>(r) * most;
    for (auto i = from; i < from + most; ++i) {
      out[r].emplace_back(data_of<double>(value)[i], data_of<std::int64_t>(place)[i]);
    }
  }
  return out;
}

/// The columns of the unembedding that stand for a token; a vocabulary may be padded beyond them. [n] int64
template <Architecture A>
[[nodiscard]] at::Tensor token_columns(const HookedTransformer<A>& model) {
  std::vector<std::int64_t> ids;
  for (std::int64_t id = 0; id < model.config().d_vocab; ++id) {
    if (model.tokenizer().has_token(static_cast<std::int32_t>(id))) ids.push_back(id);
  }
  return ids_tensor(ids).to(model.weights().W_U.device());
}

/// Logit effects of the decoder rows of cards[first], cards[first + 1], ...
template <Architecture A>
void write_effects(const HookedTransformer<A>& model, const std::string& hook, const at::Tensor& rows,
                   std::size_t first, std::int64_t count, const at::Tensor& columns, std::vector<FeatureCard>& cards) {
  auto writes = stream_writes(model, hook, rows);
  if (!writes.defined() || count < 1) return;
  if constexpr (A::Norm::centers) writes = writes.sub(writes.mean(-1, /*keepdim=*/true));
  const auto& gain = model.weights().ln_final.gain;
  if (gain.defined()) writes = writes.mul(gain);
  auto logits = product(writes, model.weights().W_U);
  if (columns.numel() < logits.size(1)) logits = logits.index_select(1, columns);
  const auto ids = columns.to(at::kCPU);
  for (const bool largest : {true, false}) {
    const auto found = extremes(logits, count, largest);
    for (std::size_t r = 0; r < found.size(); ++r) {
      auto& effects = largest ? cards[first + r].raises : cards[first + r].lowers;
      for (const auto& [effect, column] : found[r]) {
        const auto token = static_cast<std::int32_t>(data_of<std::int64_t>(ids)[column]);
        effects.push_back({model.tokenizer().token_text(token), effect});
      }
    }
  }
}

inline void write_like(const at::Tensor& unit, std::int64_t first, std::int64_t rows, std::int64_t count,
                       std::vector<FeatureCard>& cards) {
  if (count < 1 || unit.size(0) < 2) return;
  const auto cosines = unit.narrow(0, first, rows).matmul(unit.t());
  const auto found = extremes(cosines, count + 1, /*largest=*/true);
  for (std::size_t r = 0; r < found.size(); ++r) {
    auto& card = cards[static_cast<std::size_t>(first) + r];
    for (const auto& [cosine, other] : found[r]) {
      const Feature feature{static_cast<std::int32_t>(other)};
      if (feature != card.feature && static_cast<std::int64_t>(card.like.size()) < count)
        card.like.push_back({feature, cosine});
    }
  }
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A>
std::vector<FeatureCard> feature_cards(const HookedTransformer<A>& model, const PlacedDictionary& placed,
                                       const std::vector<std::vector<std::int32_t>>& rows, const CardOptions& options) {
  const c10::AutoGradMode no_gradient{false};
  if (rows.empty()) throw ValueError{{.tensor = "rows", .expected = "at least one", .got = "none"}};
  const auto& dictionary = placed.dictionary;
  const auto& tokenizer = model.tokenizer();
  static_cast<void>(train::layer_of(placed.hooks.out, model.config().n_layers));
  std::vector<detail::CardSums> sums(static_cast<std::size_t>(dictionary.d_sae()));
  std::int64_t tokens = 0;
  std::int64_t first_row = 0;
  detail::for_each_run(rows, options.rows_per_run, [&](const auto& some) {
    const auto padded = train::pad_rows(some, options.skip);
    if (padded.real.numel() > 0) {
      const auto active = encode_active(dictionary, detail::read_at(model, placed.hooks.in, padded).unsqueeze(0));
      const auto acts = active.activation.to(at::kDouble).contiguous();
      const auto width = padded.tokens.size(1);
      for (std::int64_t r = 0; r < active.rows(); ++r) {
        const auto place = data_of<std::int64_t>(padded.real)[r];
        for (auto i = active.begin(r); i < active.end(r); ++i) {
          sums[static_cast<std::size_t>(active.feature[static_cast<std::size_t>(i)])].add(
              {data_of<double>(acts)[i], first_row + place / width, place % width}, options.contexts);
        }
      }
    }
    tokens += padded.real.numel();
    first_row += static_cast<std::int64_t>(some.size());
  });

  std::vector<FeatureCard> cards(sums.size());
  for (std::size_t f = 0; f < cards.size(); ++f) {
    cards[f].feature = Feature{static_cast<std::int32_t>(f)};
    sums[f].write(cards[f], tokens);
    for (const auto& fire : sums[f].top()) {
      const auto& row = rows[static_cast<std::size_t>(fire.row)];
      cards[f].contexts.push_back(detail::context_of(fire, row, tokenizer, options));
    }
  }
  const auto W_dec = dictionary.W_dec.to(model.dtype());
  const auto unit = train::detail::unit_rows(W_dec);
  const auto columns = detail::token_columns(model);
  constexpr std::int64_t block = 256;
  for (std::int64_t from = 0; from < dictionary.d_sae(); from += block) {
    const auto count = std::min(block, dictionary.d_sae() - from);
    detail::write_effects(model, placed.hooks.out, W_dec.narrow(0, from, count), static_cast<std::size_t>(from),
                          options.effects, columns, cards);
    detail::write_like(unit, from, count, options.like, cards);
  }
  return cards;
}

inline nlohmann::json to_json(const FeatureCard& card) {
  nlohmann::json json{{"feature", card.feature.value},
                      {"fires", card.fires},
                      {"frequency", card.frequency},
                      {"mean", card.mean},
                      {"largest", card.largest}};
  for (const auto* key : {"contexts", "histogram", "raises", "lowers", "like"}) json[key] = nlohmann::json::array();
  for (const auto& c : card.contexts) {
    json["contexts"].push_back({{"activation", c.activation},
                                {"row", c.row},
                                {"position", c.position},
                                {"tokens", c.tokens},
                                {"at_token", c.at_token}});
  }
  for (const auto& bin : card.histogram) json["histogram"].push_back({{"from", bin.from}, {"count", bin.count}});
  for (const auto& e : card.raises) json["raises"].push_back({{"token", e.token}, {"effect", e.effect}});
  for (const auto& e : card.lowers) json["lowers"].push_back({{"token", e.token}, {"effect", e.effect}});
  for (const auto& l : card.like) json["like"].push_back({{"feature", l.feature.value}, {"cosine", l.cosine}});
  return json;
}

}  // namespace circuit

namespace circuit::detail {

[[nodiscard]] inline std::string short_number(double value, int decimals) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", decimals, value);  // NOLINT(cppcoreguidelines-pro-type-vararg)
  return text.data();
}

[[nodiscard]] inline std::string effects_text(const std::vector<TokenEffect>& effects) {
  std::string out;
  for (const auto& e : effects) out += "  \"" + one_line(e.token) + "\" " + short_number(e.effect, 2);
  return out;
}

}  // namespace circuit::detail

namespace circuit {

inline std::string to_text(const FeatureCard& card) {
  using detail::short_number;
  std::string out = "feature " + std::to_string(card.feature.value) + ": fires at " +
                    short_number(100 * card.frequency, 2) + " % of tokens, mean " + short_number(card.mean, 2) +
                    ", largest " + short_number(card.largest, 2) + '\n';
  if (!card.raises.empty()) out += "  raises" + detail::effects_text(card.raises) + '\n';
  if (!card.lowers.empty()) out += "  lowers" + detail::effects_text(card.lowers) + '\n';
  if (!card.like.empty()) out += "  like  ";
  for (const auto& l : card.like)
    out += "  " + std::to_string(l.feature.value) + " (" + short_number(l.cosine, 2) + ')';
  if (!card.like.empty()) out += '\n';
  if (!card.histogram.empty()) out += "  activations from";
  for (const auto& bin : card.histogram) out += "  " + short_number(bin.from, 3) + ": " + std::to_string(bin.count);
  if (!card.histogram.empty()) out += '\n';
  for (const auto& c : card.contexts) {
    out += "  " + short_number(c.activation, 2) + "  ";
    for (std::size_t i = 0; i < c.tokens.size(); ++i) {
      const auto token = one_line(c.tokens[i]);
      out += i == c.at_token ? "[[" + token + "]]" : token;
    }
    out += '\n';
  }
  return out;
}

}  // namespace circuit
