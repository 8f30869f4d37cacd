#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/io/json.hpp"
#include "circuit/text/normalization.hpp"
#include "circuit/text/split.hpp"
#include "circuit/text/words.hpp"

/// What a tokenizer.json says about text before and after its model: normalizer, pre_tokenizer, decoder,
/// post_processor. Every name is resolved here, once.
namespace circuit::detail::tokenizer_json {

struct Layout {
  bool byte_level = false;  ///< tokens are spelt one character per byte; else with U+2581 for a space
  Normalization normalization{};
  std::vector<SplitStep> steps{};
  bool decode_drops_space = false;
  std::optional<std::string> first{};  ///< special token that the post-processor puts first
};

/// The bytes that base64 text spells; nothing when it is none.
[[nodiscard]] inline std::optional<std::string> from_base64(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) return {};
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  std::string bytes;
  std::uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    const auto digit = digits.find(c);
    if (digit == digits.npos) return {};
    bits = ((bits << 6U) | static_cast<std::uint32_t>(digit)) & 0xFFFU;
    held += 6;
    if (held < 8) continue;
    held -= 8;
    bytes += static_cast<char>((bits >> static_cast<unsigned>(held)) & 0xFFU);
  }
  return bytes;
}

[[nodiscard]] inline bool is_empty(const nlohmann::json& object, const char* key) {
  const auto* found = find_field(object, key);
  if (found == nullptr || found->is_null()) return true;
  if (const auto* flag = stored<bool>(*found)) return !*flag;
  if (found->is_number()) return json_as<double>(*found) == 0.0;
  const auto* text = stored<std::string>(*found);
  return text != nullptr && text->empty();
}

/// Refuses settings that would change the tokens.
inline void refuse(const nlohmann::json& object, std::initializer_list<const char*> keys,
                   const std::filesystem::path& file) {
  for (const char* const key : keys) {
    if (is_empty(object, key)) continue;
    throw ConfigError{{.file = file,
                       .tensor = key,
                       .problem = "is not supported",
                       .expected = "absent, null, false or empty",
                       .got = short_dump(*find_field(object, key))}};
  }
}

class LayoutReader {
 public:
  explicit LayoutReader(const std::filesystem::path& file) : file_{file} {}

  [[nodiscard]] Layout read(const nlohmann::json& root) {
    layout_.normalization.rules.as_tokenizers = true;
    each("normalizer", root, "normalizers", &LayoutReader::normalizer);
    (void)require_field(root, "pre_tokenizer", file_);
    each("pre_tokenizer", root, "pretokenizers", &LayoutReader::pre_tokenizer);
    each("decoder", root, "decoders", &LayoutReader::decoder);
    each("post_processor", root, "processors", &LayoutReader::post_processor);
    if (layout_.byte_level && layout_.normalization.rules.any()) {
      fail("normalizer", require_field(root, "normalizer", file_),
           "no Precompiled, Strip or joined spaces beside ByteLevel");
    }
    if (layout_.normalization.rules.all_whitespace && layout_.normalization.prefix != PrefixSpace::unless_there) {
      fail("pre_tokenizer", require_field(root, "pre_tokenizer", file_),
           "WhitespaceSplit with a Metaspace that begins every word");
    }
    if (!layout_.byte_level && !layout_.normalization.mark_is_space) {
      fail("pre_tokenizer", require_field(root, "pre_tokenizer", file_), "ByteLevel, or U+2581 in place of spaces");
    }
    return std::move(layout_);
  }

 private:
  [[noreturn]] void fail(const char* part, const nlohmann::json& got, const char* expected) const {
    throw ConfigError{
        {.file = file_, .tensor = part, .problem = "is not supported", .expected = expected, .got = short_dump(got)}};
  }

  /// The part of the file named `key`: nothing, one step or a sequence of them.
  void each(const char* key, const nlohmann::json& root, const char* list,
            void (LayoutReader::*on_step)(const nlohmann::json&)) {
    const auto* found = find_field(root, key);
    if (found == nullptr || found->is_null()) return;
    if (!found->is_object()) fail(key, *found, "an object");
    if (type(*found) != "Sequence") return (this->*on_step)(*found);
    const auto& steps = require_field(*found, list, file_);
    if (!steps.is_array()) fail(key, steps, "a list of steps");
    for (const auto& step : items(steps)) {
      if (!step.is_object()) fail(key, step, "a list of steps");
      (this->*on_step)(step);
    }
  }

  [[nodiscard]] std::string type(const nlohmann::json& step) const {
    return value_or<std::string>(step, "type", file_, "");
  }
  [[nodiscard]] bool flag(const nlohmann::json& step, const char* key, bool otherwise) const {
    return value_or(step, key, file_, otherwise);
  }
  /// The text of a pattern that is a plain string.
  [[nodiscard]] std::optional<std::string> plain(const nlohmann::json& step) const {
    const auto& pattern = require_field(step, "pattern", file_);
    if (!pattern.is_object() || find_field(pattern, "String") == nullptr) return {};
    return require<std::string>(pattern, "String", file_);
  }

  void normalizer(const nlohmann::json& step) {
    const auto kind = type(step);
    auto& how = layout_.normalization;
    auto& rules = how.rules;
    const bool first = !rules.any() && !how.mark_is_space && how.prefix == PrefixSpace::none;
    if ((kind == "NFC" || kind == "NFKC") && first && how.form == UnicodeForm::none) {
      how.form = kind == "NFC" ? UnicodeForm::c : UnicodeForm::kc;
    } else if (kind == "Nmt" && first && how.form == UnicodeForm::none) {
      how.controls = ControlCharacters::by_nmt;
    } else if (kind == "Precompiled" && !rules.any() && plain_so_far()) {
      const auto bytes = from_base64(require<std::string>(step, "precompiled_charsmap", file_));
      if (!bytes) {
        throw FormatError{{.file = file_, .tensor = "precompiled_charsmap", .problem = "is not base64"}};
      }
      // A map of nothing is what a model without rules has.
      if (!bytes->empty()) rules.map = std::make_shared<const Charsmap>(*bytes, file_);
    } else if (kind == "Strip") {
      refuse(step, {"strip_left"}, file_);
      rules.trim_right = require<bool>(step, "strip_right", file_);
    } else if (kind == "Replace" && joins_spaces(step)) {
      rules.join_spaces = true;
    } else if (kind == "Prepend" && require<std::string>(step, "prepend", file_) == space_mark) {
      how.prefix = PrefixSpace::always;
    } else if (kind == "Replace" && plain(step) == " " && require<std::string>(step, "content", file_) == space_mark) {
      how.mark_is_space = true;
    } else {
      fail("normalizer", step,
           "Nmt, NFC or NFKC in this order, or Precompiled; Prepend U+2581, Replace a space by U+2581, Strip, Replace "
           "\" {2,}\"; or a Sequence of them");
    }
  }

  /// Whether nothing changes characters so far.
  [[nodiscard]] bool plain_so_far() const {
    const auto& how = layout_.normalization;
    return how.form == UnicodeForm::none && how.controls == ControlCharacters::kept;
  }

  /// Whether runs of spaces become one, or the mark of one.
  [[nodiscard]] bool joins_spaces(const nlohmann::json& step) const {
    const auto& pattern = require_field(step, "pattern", file_);
    if (!pattern.is_object() || value_or<std::string>(pattern, "Regex", file_, "") != " {2,}") return false;
    const auto content = require<std::string>(step, "content", file_);
    return content == " " || content == space_mark;
  }

  void pre_tokenizer(const nlohmann::json& step) {
    if (closed_) fail("pre_tokenizer", step, "no step after ByteLevel or Metaspace");
    const auto kind = type(step);
    if (kind == "ByteLevel") {
      byte_level(step);
    } else if (kind == "Metaspace") {
      metaspace(step);
    } else if (kind == "WhitespaceSplit" && layout_.steps.empty()) {
      // Its words begin with Metaspace's mark, as if one space stood before each.
      auto& rules = layout_.normalization.rules;
      rules.join_spaces = rules.trim_left = rules.trim_right = rules.all_whitespace = true;
    } else if (kind == "Split") {
      split_step(step);
    } else if (kind == "Digits") {
      add({Pattern{require<bool>(step, "individual_digits", file_) ? R"(\p{N})" : R"(\p{N}+)"}}, step);
    } else {
      fail("pre_tokenizer", step, "ByteLevel, Split, Digits, Metaspace, or a Sequence of them");
    }
  }

  void add(SplitStep&& split, const nlohmann::json& step) {
    constexpr std::size_t most = 16;
    if (layout_.steps.size() == most) fail("pre_tokenizer", step, "at most 16 steps");
    layout_.steps.push_back(std::move(split));
  }

  void byte_level(const nlohmann::json& step) {
    if (layout_.normalization.mark_is_space) fail("pre_tokenizer", step, "no ByteLevel once U+2581 stands for spaces");
    if (require<bool>(step, "add_prefix_space", file_)) {
      if (!layout_.steps.empty()) fail("pre_tokenizer", step, "no add_prefix_space within words");
      layout_.normalization.prefix = PrefixSpace::unless_there;
    }
    if (flag(step, "use_regex", true)) add({tokenizer_pattern(gpt2_expression)}, step);
    layout_.byte_level = closed_ = true;
  }

  void metaspace(const nlohmann::json& step) {
    auto& how = layout_.normalization;
    const bool alone = layout_.steps.empty() && how.prefix == PrefixSpace::none;
    if (!alone || require<std::string>(step, "replacement", file_) != space_mark) {
      fail("pre_tokenizer", step, "Metaspace with U+2581, alone");
    }
    const auto* const older = flag(step, "add_prefix_space", true) ? "always" : "never";
    const auto scheme = value_or<std::string>(step, "prepend_scheme", file_, older);
    if (scheme != "always" && scheme != "first" && scheme != "never") {
      fail("prepend_scheme", require_field(step, "prepend_scheme", file_), "always, first or never");
    }
    if (scheme == "always") how.prefix = PrefixSpace::unless_there;
    if (scheme == "first") how.prefix = PrefixSpace::at_start_unless_there;
    how.mark_is_space = closed_ = true;
    if (flag(step, "split", true)) add({literal_pattern(" "), SplitBehavior::merged_with_next}, step);
  }

  void split_step(const nlohmann::json& step) {
    const auto behaviour = require<std::string>(step, "behavior", file_);
    const auto text = plain(step);
    if (layout_.normalization.mark_is_space) {
      // No space is left to split at there, while here the mark already is one.
      if (text == " ") return;
      fail("pre_tokenizer", step, "no Split, or one at spaces, once U+2581 stands for them");
    }
    if (text && text->empty()) fail("pre_tokenizer", step, "a pattern that is not empty");
    auto pattern =
        text ? literal_pattern(*text)
             : tokenizer_pattern(require<std::string>(require_field(step, "pattern", file_), "Regex", file_), file_);
    if (behaviour != "Isolated") refuse(step, {"invert"}, file_);
    if (behaviour == "Isolated") {
      add({std::move(pattern)}, step);
    } else if (behaviour == "MergedWithPrevious") {
      add({std::move(pattern), SplitBehavior::merged_with_previous}, step);
    } else if (behaviour == "MergedWithNext") {
      add({std::move(pattern), SplitBehavior::merged_with_next}, step);
    } else {
      fail("pre_tokenizer", step, "behavior Isolated, MergedWithPrevious or MergedWithNext");
    }
  }

  void decoder(const nlohmann::json& step) {
    const auto kind = type(step);
    if (kind == "Metaspace") {
      layout_.decode_drops_space = layout_.normalization.prefix != PrefixSpace::none;
    } else if (kind == "Strip") {
      if (value_or<std::string>(step, "content", file_, "") != " " || value_or(step, "start", file_, 0) != 1 ||
          value_or(step, "stop", file_, 0) != 0) {
        fail("decoder", step, "Strip of one space at the start");
      }
      layout_.decode_drops_space = true;
    } else if (kind == "Replace") {
      if (plain(step) != space_mark || require<std::string>(step, "content", file_) != " ") {
        fail("decoder", step, "Replace U+2581 by a space");
      }
    } else if (kind != "ByteLevel" && kind != "ByteFallback" && kind != "Fuse") {
      fail("decoder", step, "ByteLevel, Metaspace, or a Sequence of Replace, ByteFallback, Fuse and Strip");
    }
  }

  /// Only what it puts first is of interest: the BOS.
  void post_processor(const nlohmann::json& step) {
    if (type(step) != "TemplateProcessing") return;
    const auto& single = require_field(step, "single", file_);
    if (items(single).empty()) return;
    const auto* special = find_field(items(single)[0], "SpecialToken");
    if (special != nullptr) layout_.first = require<std::string>(*special, "id", file_);
  }

  const std::filesystem::path& file_;
  Layout layout_;
  bool closed_ = false;
};

}  // namespace circuit::detail::tokenizer_json
