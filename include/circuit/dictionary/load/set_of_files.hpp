#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "circuit/dictionary/behind_gain.hpp"
#include "circuit/dictionary/crosscoder.hpp"
#include "circuit/dictionary/load.hpp"
#include "circuit/dictionary/load/assemble.hpp"
#include "circuit/dictionary/one_head.hpp"

namespace circuit::dictionary::detail {

/// A transcoder of an MLP's own input as one of ln2.hook_normalized; any other as it is.
template <Architecture A>
[[nodiscard]] LoadedDictionary for_model(LoadedDictionary loaded, const HookedTransformer<A>& model) {
  const auto in = circuit::detail::split_hook(loaded.hooks.in);
  if (!in || in->second != "mlp.hook_in") return loaded;
  const auto layer = in->first;
  loaded.dictionary = read_before_gain(std::move(loaded.dictionary), model, layer);
  loaded.hooks.in = circuit::detail::hook_in_block(layer.value, hook::ln2::normalized::name);
  // Without a post-norm, what the MLP gives is what it adds.
  if (!A::Wiring::post_norms && loaded.hooks.out == circuit::detail::hook_in_block(layer.value, "mlp.hook_out")) {
    loaded.hooks.out = circuit::detail::hook_in_block(layer.value, hook::mlp_out::name);
  }
  return loaded;
}

/// A set in the making, each dictionary placed by its hooks.
class SetOfFiles {
 public:
  void add(const std::filesystem::path& path, LoadedDictionary loaded) {
    const auto place = circuit::detail::place_of(path, loaded.hooks);
    put(path, std::move(loaded), place, /*again=*/false);
  }
  /// The same for a model's, whose heads are counted: an SAE of one head joins those of the layer's other heads.
  template <Architecture A>
  void add(const std::filesystem::path& path, LoadedDictionary loaded, const HookedTransformer<A>& model) {
    const auto head = std::exchange(loaded.hooks.head, {});
    if (!head) return add(path, for_model(std::move(loaded), model));
    check_shape(loaded.dictionary.W_enc, {model.config().d_head, -1}, "W_enc", loaded.dictionary.name,
                "this dictionary does not fit the model's heads");
    const auto place = circuit::detail::place_of(path, loaded.hooks);
    auto& others = heads_[place.layer];
    others.push_back({Head{*head}, loaded.dictionary});
    loaded.dictionary = over_all_heads(others, model.config().n_heads);
    put(path, std::move(loaded), place, /*again=*/others.size() > 1);
  }
  /// A crosscoder, in a model's set or any.
  template <class... Model>
  void add(const std::filesystem::path& /*path*/, Crosscoder crosscoder, const Model&... /*model*/) {
    set_.set_crosscoder(std::move(crosscoder));
  }
  [[nodiscard]] DictionarySet finish() && {
    if (expected_) set_.expect(*expected_);
    return std::move(set_);
  }

 private:
  /// again  whether a dictionary that is there already is part of the new one
  void put(const std::filesystem::path& path, LoadedDictionary loaded, const circuit::detail::DictionaryPlace& place,
           bool again) {
    if (!again && circuit::detail::found_in(set_, place) != nullptr) {
      throw ConfigError{{.file = path, .problem = "two dictionaries of " + loaded.hooks.in}};
    }
    if (expected_ && loaded.expects && *expected_ != *loaded.expects) {
      throw ConfigError{{.file = path, .problem = "expects another weight processing than the dictionaries before it"}};
    }
    if (loaded.expects) expected_ = loaded.expects;
    circuit::detail::put_into(set_, place, std::move(loaded.dictionary));
  }

  DictionarySet set_;
  std::map<Layer, std::vector<HeadDictionary>> heads_;
  std::optional<weights::Processing> expected_;
};

}  // namespace circuit::dictionary::detail
