#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/active_features.hpp"
#include "circuit/dictionary/train/activation_stream.hpp"
#include "circuit/dictionary/train/site.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// A dictionary and where it sits.
struct PlacedDictionary {
  DictionaryHooks hooks;
  SparseDictionary<> dictionary;
};

/// Cross-entropy per token of a model, of the model with its modules replaced by dictionaries without error terms, and
/// with them replaced by zeros.
struct SplicedLoss {
  double clean = 0.0;
  double spliced = 0.0;
  double zero = 0.0;

  /// The share of what the modules are worth that the dictionaries keep.
  [[nodiscard]] double recovered() const { return (zero - spliced) / (zero - clean); }
};

struct SiteQuality {
  DictionaryHooks hooks;
  std::int64_t features = 0;
  double active = 0.0;              ///< mean number of active features per token (L0)
  double explained = 0.0;           ///< 1 - squared error / squared distance from the mean
  double dead = 0.0;                ///< share of features that never fired
  std::vector<double> frequency{};  ///< of each feature, the share of tokens at which it fired
  SplicedLoss alone{};              ///< this site alone replaced; zeros unless asked for
};

struct DictionaryQuality {
  std::int64_t tokens = 0;
  std::vector<SiteQuality> sites{};
  SplicedLoss loss{};  ///< all sites replaced at once
};

struct QualityOptions {
  std::int64_t rows_per_run = 8;
  std::int64_t skip = 0;  ///< first positions of each row that are not replaced, nor counted in what sites are measured
                          ///< by; losses are of every next token
  bool each_alone = false;  ///< also replaces each site by itself: two more passes per site
};

/// What dictionaries are worth on rows of token ids. What features of a cross-layer transcoder write into later layers
/// counts there, in the explained variance as in the loss.
/// throws  ValueError   without rows;  ShapeError, NameError, IndexError  for a dictionary that does not fit the model
/// throws  ConfigError  for a cross-layer transcoder that writes into a layer without a dictionary
template <Architecture A>
[[nodiscard]] DictionaryQuality measure_quality(const HookedTransformer<A>& model,
                                                std::span<const PlacedDictionary> dictionaries,
                                                const std::vector<std::vector<std::int32_t>>& rows,
                                                const QualityOptions& options = {});

}  // namespace circuit

namespace circuit::detail {

/// Which dictionaries write into which sites: each into its own, a cross-layer transcoder into later ones too.
class SiteWriters {
 public:
  struct Write {
    std::size_t from;    ///< the dictionary whose features write
    std::int64_t ahead;  ///< how many layers after its own, from 1 on
  };

  /// throws  NameError, ConfigError  for a cross-layer transcoder that writes into a layer without a dictionary
  SiteWriters(std::span<const PlacedDictionary> placed, std::int64_t n_layers) : placed_{placed}, into_(placed.size()) {
    for (std::size_t from = 0; from < placed.size(); ++from) {
      const auto& [hooks, dictionary] = placed[from];
      for (std::int64_t ahead = 1; ahead <= dictionary.later_layers(); ++ahead) {
        into_[site_after(hooks.out, ahead, dictionary.name, n_layers)].push_back({from, ahead});
      }
    }
  }

  [[nodiscard]] std::span<const PlacedDictionary> placed() const noexcept { return placed_; }
  [[nodiscard]] const std::vector<Write>& into(std::size_t site) const { return into_[site]; }

  /// What is written into a site. x [..., d_in]: what its dictionary reads; acts: of all dictionaries that write there
  [[nodiscard]] at::Tensor output(std::size_t site, const at::Tensor& x, const std::vector<at::Tensor>& acts) const {
    const auto& own = placed_[site].dictionary;
    auto out = own.output(own.decode(acts[site]), x);
    for (const auto& [from, ahead] : into_[site]) {
      out = out.add(acts[from].matmul(widened(placed_[from].dictionary.W_later.select(1, ahead - 1))));
    }
    return out;
  }

 private:
  [[nodiscard]] std::size_t site_after(const std::string& hook, std::int64_t ahead, const std::string& name,
                                       std::int64_t n_layers) const {
    const auto layer = train::layer_of(hook, n_layers).value + ahead;
    const auto wanted = "blocks." + std::to_string(layer) + '.' + std::string{split_hook(hook)->second};
    for (std::size_t i = 0; i < placed_.size(); ++i) {
      if (placed_[i].hooks.out == wanted) return i;
    }
    throw ConfigError{
        {.file = name, .tensor = "W_later", .problem = "writes into " + wanted + ", which has no dictionary"}};
  }

  std::span<const PlacedDictionary> placed_;
  std::vector<std::vector<Write>> into_;
};

/// An attachment that replaces what dictionaries describe, by what they make of it or by zeros.
class SiteReplacer {
 public:
  enum class By { dictionaries, zeros };

  /// only  the one site to replace, if not all of them
  SiteReplacer(const SiteWriters& writers, By by, std::int64_t skip, std::optional<std::size_t> only = {})
      : writers_{writers},
        replaced_(writers.placed().size(), !only),
        encoded_(replaced_.size(), false),
        inputs_(replaced_.size()),
        acts_(replaced_.size()),
        by_{by},
        skip_{skip} {
    if (only) replaced_[*only] = true;
    for (std::size_t i = 0; i < replaced_.size() && by == By::dictionaries; ++i) {
      if (!replaced_[i]) continue;
      encoded_[i] = true;
      for (const auto& write : writers.into(i)) encoded_[write.from] = true;
    }
  }

  template <train::TokenPoint P>
  void visit(P point, Layer layer, at::Tensor& value) {
    const auto shown = value.size(1) - skip_;
    if (shown <= 0) return;
    const auto name = hook_name(point, layer);
    for (std::size_t i = 0; i < replaced_.size(); ++i) {
      const auto& [hooks, dictionary] = writers_.placed()[i];
      if (encoded_[i] && hooks.in == name) {
        inputs_[i] = value.narrow(1, skip_, shown).flatten(2);
        acts_[i] = dictionary.encode(inputs_[i]);
      }
      if (replaced_[i] && hooks.out == name) value = replaced(value, i);
    }
  }

 private:
  [[nodiscard]] at::Tensor replaced(const at::Tensor& value, std::size_t i) const {
    auto out = value.clone();
    const auto rest = out.narrow(1, skip_, value.size(1) - skip_);
    if (by_ == By::zeros) {
      rest.zero_();
    } else {
      rest.copy_(writers_.output(i, inputs_[i], acts_).view(rest.sizes()));
    }
    return out;
  }

  const SiteWriters& writers_;
  std::vector<bool> replaced_;
  std::vector<bool> encoded_;
  std::vector<at::Tensor> inputs_;  // behind the positions that are skipped
  std::vector<at::Tensor> acts_;
  By by_;
  std::int64_t skip_;
};

/// Sums over tokens from which a site's figures are made.
class SiteSums {
 public:
  /// y, y_hat [n, d_out]: what is there and what is written in its place; acts [n, d_sae] of the site's own dictionary
  void add(const at::Tensor& acts, const at::Tensor& y, const at::Tensor& y_hat) {
    const auto wide = y.to(at::kDouble);
    const auto put = [](at::Tensor& sum, const at::Tensor& more) { sum = sum.defined() ? sum.add(more) : more; };
    put(fires_, acts.ne(0).sum(0).to(at::kDouble));
    put(sum_, wide.sum(0));
    put(squares_, wide.square().sum());
    put(errors_, wide.sub(y_hat).square().sum());
    tokens_ += y.size(0);
  }

  [[nodiscard]] SiteQuality finish(const PlacedDictionary& placed) const {
    const auto n = static_cast<double>(tokens_);
    const auto variance = squares_.sub(sum_.square().sum().div(n)).template item<double>();
    SiteQuality out{.hooks = placed.hooks, .features = placed.dictionary.d_sae()};
    out.active = fires_.sum().template item<double>() / n;
    out.explained = 1.0 - errors_.template item<double>() / variance;
    out.dead = fires_.eq(0).to(at::kDouble).mean().template item<double>();
    const auto share = fires_.div(n).to(at::kCPU).contiguous();
    out.frequency.assign(data_of<double>(share), data_of<double>(share) + share.numel());
    return out;
  }

 private:
  at::Tensor fires_, sum_, squares_, errors_;
  std::int64_t tokens_ = 0;
};

/// Cross-entropy of every next token within rows, summed. return the number of tokens beside it
[[nodiscard]] inline std::pair<double, std::int64_t> summed_loss(const at::Tensor& logits, const at::Tensor& tokens,
                                                                 const std::vector<std::vector<std::int32_t>>& rows) {
  double sum = 0.0;
  std::int64_t count = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const auto length = static_cast<std::int64_t>(rows[r].size()) - 1;
    if (length < 1) continue;
    const auto row = static_cast<std::int64_t>(r);
    const auto said = logits.select(0, row).narrow(0, 0, length).log_softmax(-1);
    sum -=
        said.gather(1, tokens.select(0, row).narrow(0, 1, length).unsqueeze(-1)).to(at::kDouble).sum().item<double>();
    count += length;
  }
  return {sum, count};
}

/// Calls use(rows of one pass).
template <class Use>
void for_each_run(const std::vector<std::vector<std::int32_t>>& rows, std::int64_t step, Use&& use) {
  for (std::size_t from = 0; from < rows.size(); from += static_cast<std::size_t>(step)) {
    const auto end = std::min(rows.size(), from + static_cast<std::size_t>(step));
    use(std::vector<std::vector<std::int32_t>>{rows.begin() + static_cast<std::ptrdiff_t>(from),
                                               rows.begin() + static_cast<std::ptrdiff_t>(end)});
  }
}

template <Architecture A>
[[nodiscard]] SplicedLoss spliced_loss(const HookedTransformer<A>& model, const SiteWriters& writers,
                                       const std::vector<std::vector<std::int32_t>>& rows,
                                       const QualityOptions& options, std::optional<std::size_t> only = {}) {
  SplicedLoss sums;
  std::int64_t count = 0;
  for_each_run(rows, options.rows_per_run, [&](const auto& some) {
    const auto tokens = train::pad_rows(some).tokens.to(model.device());
    SiteReplacer by_dictionaries{writers, SiteReplacer::By::dictionaries, options.skip, only};
    SiteReplacer by_zeros{writers, SiteReplacer::By::zeros, options.skip, only};
    const auto [clean, more] = summed_loss(model.forward(tokens), tokens, some);
    sums.clean += clean;
    sums.spliced += summed_loss(model.forward(tokens, by_dictionaries), tokens, some).first;
    sums.zero += summed_loss(model.forward(tokens, by_zeros), tokens, some).first;
    count += more;
  });
  const auto n = static_cast<double>(std::max<std::int64_t>(1, count));
  return {sums.clean / n, sums.spliced / n, sums.zero / n};
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A>
DictionaryQuality measure_quality(const HookedTransformer<A>& model, std::span<const PlacedDictionary> dictionaries,
                                  const std::vector<std::vector<std::int32_t>>& rows, const QualityOptions& options) {
  const c10::AutoGradMode no_gradient{false};
  if (rows.empty()) throw ValueError{{.tensor = "rows", .expected = "at least one", .got = "none"}};
  std::vector<std::string> hooks;
  for (const auto& placed : dictionaries) {
    for (const auto& hook : {placed.hooks.in, placed.hooks.out}) {
      static_cast<void>(train::layer_of(hook, model.config().n_layers));
      hooks.push_back(hook);
    }
  }
  const detail::SiteWriters writers{dictionaries, model.config().n_layers};
  std::vector<detail::SiteSums> sums(dictionaries.size());
  DictionaryQuality out;
  detail::for_each_run(rows, options.rows_per_run, [&](const auto& some) {
    const auto padded = train::pad_rows(some, options.skip);
    const auto real = padded.real.to(model.device());
    train::NamedRecorder recorder{hooks};
    static_cast<void>(model.forward(padded.tokens.to(model.device()), recorder));
    const auto pick = [&](std::size_t i) {
      if (!recorder.values()[i].defined())
        throw NameError{{.tensor = hooks[i], .problem = "this model has no such place"}};
      return recorder.values()[i].flatten(0, 1).index_select(0, real);
    };
    std::vector<at::Tensor> acts;
    for (std::size_t i = 0; i < dictionaries.size(); ++i)
      acts.push_back(dictionaries[i].dictionary.encode(pick(2 * i)));
    for (std::size_t i = 0; i < dictionaries.size(); ++i) {
      const auto y = pick(2 * i + 1);
      check_shape(dictionaries[i].dictionary.W_dec, {-1, y.size(1)}, "W_dec", dictionaries[i].dictionary.name,
                  "this dictionary does not fit the model");
      sums[i].add(acts[i], y, writers.output(i, pick(2 * i), acts));
    }
    out.tokens += padded.real.numel();
  });
  for (std::size_t i = 0; i < dictionaries.size(); ++i) {
    out.sites.push_back(sums[i].finish(dictionaries[i]));
    if (options.each_alone) out.sites[i].alone = detail::spliced_loss(model, writers, rows, options, i);
  }
  out.loss = detail::spliced_loss(model, writers, rows, options);
  return out;
}

}  // namespace circuit
