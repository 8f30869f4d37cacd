#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "circuit/core/error.hpp"

namespace circuit {

/// One of `categories` values, 0 first, at every position of a prompt.
struct Variable {
  std::size_t index = 0;  ///< in its program
  std::int64_t categories = 0;
};

/// RASP's select and aggregate in one: what a variable is at the earlier positions that match. Where nothing matches it
/// is the first position's, so prompts begin with a token of their own; that one counts as nothing else.
struct Gather {
  Variable query{};
  Variable key{};
  std::function<bool(std::int64_t query, std::int64_t key)> matches{};
  Variable value{};
  std::int64_t categories = 0;                             ///< 0: the value's own, ...
  std::function<std::int64_t(std::int64_t value)> read{};  ///< ... else what the value becomes
  bool own_place = true;                                   ///< whether a position may match itself
};

/// A variable that is a function of others at the same position.
struct Map {
  std::vector<Variable> of{};
  std::int64_t categories = 0;
  std::function<std::int64_t(std::span<const std::int64_t> values)> table{};
};

/// A program over the words of a prompt, step by step, such as `compile_program` makes a transformer of.
///
///     Program p{words, length};
///     const auto before = p.add(Gather{.query = p.places(), .key = p.places(), .matches = one_behind, .value = p.words()});
///     p.say(p.add(Map{.of = {before, p.words()}, .categories = 2, .table = equal}));
///
/// source  Weiss et al. 2021 (RASP); Lindner et al. 2023 (Tracr), whose programs are compiled likewise
class Program {
 public:
  using Step = std::variant<Gather, Map>;

  /// Of prompts of at most `length` tokens, the first of which is `words` and the others 0 to words - 1.
  Program(std::int64_t words, std::int64_t length) : variables_{{0, words + 1}, {1, length}} {}

  [[nodiscard]] Variable words() const { return variables_[0]; }
  [[nodiscard]] Variable places() const { return variables_[1]; }

  /// throws  ValueError  for a step without what it needs, or of a variable that is not there yet
  Variable add(Gather step);
  Variable add(Map step);
  /// The next token is this variable's category at the last position.
  void say(Variable answer) { answer_ = known(answer); }

  /// Words and places first, then one for every step.
  [[nodiscard]] std::span<const Variable> variables() const { return variables_; }
  [[nodiscard]] std::span<const Step> steps() const { return steps_; }
  [[nodiscard]] Variable answer() const { return answer_; }
  /// What a step reads: a gather's query, key and value, or all that is mapped.
  [[nodiscard]] static std::vector<Variable> reads(const Step& step);

  /// What the program computes, by hand: [variable][pos].
  /// throws  ValueError  for too long a prompt, another first token, or where positions that match do not agree
  [[nodiscard]] std::vector<std::vector<std::int64_t>> values(std::span<const std::int32_t> tokens) const;

 private:
  using Values = std::vector<std::vector<std::int64_t>>;

  [[nodiscard]] Variable known(Variable v) const;
  Variable append(Step step, std::int64_t categories);
  [[nodiscard]] static std::int64_t at_position(const Gather& step, const Values& values, std::size_t position);
  [[nodiscard]] static std::int64_t at_position(const Map& step, const Values& values, std::size_t position);

  std::vector<Variable> variables_;
  std::vector<Step> steps_;
  Variable answer_{};
};

}  // namespace circuit

namespace circuit::detail {

/// throws  ValueError  for what no category is
[[nodiscard]] inline std::int64_t checked_category(std::int64_t category, std::int64_t categories) {
  if (category >= 0 && category < categories) return category;
  throw ValueError{{.tensor = "program",
                    .problem = "a step gives no category",
                    .expected = "0 to " + std::to_string(categories - 1),
                    .got = std::to_string(category)}};
}

/// What a gather makes of a value.
[[nodiscard]] inline std::int64_t read_by(const Gather& step, std::int64_t value) {
  return step.read ? checked_category(step.read(value), step.categories) : value;
}

}  // namespace circuit::detail

inline circuit::Variable circuit::Program::known(Variable v) const {
  if (v.index < variables_.size() && variables_[v.index].categories == v.categories) return v;
  throw ValueError{
      {.tensor = "program", .problem = "the variable is not this program's", .got = std::to_string(v.index)}};
}

inline circuit::Variable circuit::Program::append(Step step, std::int64_t categories) {
  for (const auto& variable : reads(step)) static_cast<void>(known(variable));
  steps_.push_back(std::move(step));
  variables_.push_back({variables_.size(), categories});
  return variables_.back();
}

inline circuit::Variable circuit::Program::add(Gather step) {
  if (!step.matches || (step.categories > 0) != static_cast<bool>(step.read)) {
    throw ValueError{{.tensor = "program", .expected = "matches, and read with its categories or neither"}};
  }
  if (!step.read) step.categories = step.value.categories;
  const auto categories = step.categories;
  return append(std::move(step), categories);
}

inline circuit::Variable circuit::Program::add(Map step) {
  if (!step.table || step.of.empty() || step.categories < 1) {
    throw ValueError{{.tensor = "program", .expected = "a table of one variable or more, and its categories"}};
  }
  const auto categories = step.categories;
  return append(std::move(step), categories);
}

inline std::vector<circuit::Variable> circuit::Program::reads(const Step& step) {
  if (const auto* map = std::get_if<Map>(&step)) return map->of;
  const auto& gather = std::get<Gather>(step);
  return {gather.query, gather.key, gather.value};
}

inline std::int64_t circuit::Program::at_position(const Gather& step, const Values& values, std::size_t position) {
  const auto value_at = [&](std::size_t key) { return detail::read_by(step, values[step.value.index][key]); };
  const auto query = values[step.query.index][position];
  std::int64_t found = -1;
  for (std::size_t key = 1; key < position + (step.own_place ? 1U : 0U); ++key) {
    if (!step.matches(query, values[step.key.index][key])) continue;
    if (found >= 0 && found != value_at(key)) {
      throw ValueError{{.tensor = "program", .problem = "positions that match do not agree"}};
    }
    found = value_at(key);
  }
  return found >= 0 ? found : value_at(0);
}

inline std::int64_t circuit::Program::at_position(const Map& step, const Values& values, std::size_t position) {
  std::vector<std::int64_t> read;
  for (const auto& variable : step.of) read.push_back(values[variable.index][position]);
  return detail::checked_category(step.table(read), step.categories);
}

inline std::vector<std::vector<std::int64_t>> circuit::Program::values(std::span<const std::int32_t> tokens) const {
  if (tokens.empty() || std::ssize(tokens) > places().categories || tokens.front() != words().categories - 1) {
    throw ValueError{{.tensor = "tokens",
                      .expected = "the first token " + std::to_string(words().categories - 1) + ", and at most " +
                                  std::to_string(places().categories) + " tokens"}};
  }
  Values all(2);
  for (std::size_t p = 0; p < tokens.size(); ++p) {
    all[0].push_back(detail::checked_category(tokens[p], words().categories));
    all[1].push_back(static_cast<std::int64_t>(p));
  }
  for (const auto& step : steps_) {
    std::vector<std::int64_t> values;
    for (std::size_t p = 0; p < tokens.size(); ++p) {
      values.push_back(std::visit([&](const auto& s) { return at_position(s, all, p); }, step));
    }
    all.push_back(std::move(values));
  }
  return all;
}
