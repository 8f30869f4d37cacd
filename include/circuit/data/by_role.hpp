#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/id.hpp"

namespace circuit {

/// Takes positions of some prompts to where the same roles stand in others, of another template or length:
///
///     const ByRole there{abba.roles, baba.roles};
///     there(abba.role("S2")) == baba.role("S2");
///
/// The maps are those of a ContrastBatch, a PromptGroup's or a RolePrompt. What has no role is nowhere in the other
/// prompts; a first token that both have is given one by `roles["bos"] = Position{0}`, and so is a word beside a role's.
class ByRole {
 public:
  using Roles = std::map<std::string, Position, std::less<>>;

  ByRole(const Roles& from, Roles to) : to_{std::move(to)} {
    for (const auto& [role, position] : from) roles_[position].push_back(role);
  }

  /// Whether a position has a role that the other prompts have too.
  [[nodiscard]] bool knows(Position from) const { return !places_of(from).empty(); }

  /// throws  NameError   for a position without a role, or whose roles the other prompts lack
  /// throws  ValueError  when it has several, which stand apart there
  [[nodiscard]] Position operator()(Position from) const {
    const auto places = places_of(from);
    if (places.empty()) throw NameError{missing(from)};
    for (const auto& [role, place] : places) {
      if (place == places.front().second) continue;
      throw ValueError{{.tensor = "position " + std::to_string(from.value),
                        .problem = "its roles stand at different places in the other prompts",
                        .got = text(places.front()) + ", " + text({role, place})}};
    }
    return places.front().second;
  }
  [[nodiscard]] std::vector<Position> operator()(std::span<const Position> from) const {
    std::vector<Position> out;
    for (const auto position : from) out.push_back((*this)(position));
    return out;
  }

 private:
  using Place = std::pair<std::string, Position>;

  [[nodiscard]] static std::string text(const Place& place) {
    return place.first + " at " + std::to_string(place.second.value);
  }

  /// A position's roles, as far as the other prompts have them, and where.
  [[nodiscard]] std::vector<Place> places_of(Position from) const {
    std::vector<Place> out;
    const auto here = roles_.find(from);
    if (here == roles_.end()) return out;
    for (const auto& role : here->second) {
      if (const auto there = to_.find(role); there != to_.end()) out.emplace_back(role, there->second);
    }
    return out;
  }

  [[nodiscard]] ErrorDetails missing(Position from) const {
    const auto where = "position " + std::to_string(from.value);
    const auto here = roles_.find(from);
    if (here == roles_.end()) {
      std::string known;
      for (const auto& [position, roles] : roles_) {
        for (const auto& role : roles) known += (known.empty() ? "" : ", ") + text({role, position});
      }
      return {.tensor = where, .problem = "has no role", .expected = known.empty() ? "roles: there are none" : known};
    }
    std::string known;
    for (const auto& [role, position] : to_) known += (known.empty() ? "" : ", ") + role;
    return {.tensor = where,
            .problem = "the other prompts have no role " + here->second.front(),
            .expected = known.empty() ? "roles: there are none" : "one of " + known};
  }

  std::map<Position, std::vector<std::string>> roles_{};
  Roles to_;
};

}  // namespace circuit
