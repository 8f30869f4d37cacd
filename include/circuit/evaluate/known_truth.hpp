#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"

namespace circuit {

/// Something that a search scored, and whether it belongs to the true circuit.
struct Judged {
  double score = 0;
  bool is_true = false;
};

/// How well scores tell the true from the rest.
struct Separation {
  double auroc = 0;              ///< chance that a true one scores above another, ties half; 0.5 is guessing
  double average_precision = 0;  ///< mean precision at each true one, from the top; ties count as a group
};

/// A point of a precision-recall curve: everything that scores at least `threshold`.
struct PrecisionRecall {
  double threshold = 0;
  double precision = 0;
  double recall = 0;
};

/// Precision and recall at every distinct score, highest first.
/// throws  ValueError  unless there are true and other ones, all finite
[[nodiscard]] inline std::vector<PrecisionRecall> precision_recall(std::vector<Judged> judged);

/// throws  ValueError  unless there are true and other ones, all finite
[[nodiscard]] inline Separation separation(std::vector<Judged> judged);

}  // namespace circuit

namespace circuit::detail {

/// Those with one score, as counts of the true and the others.
struct Tied {
  double score;
  double yes;
  double no;
};

/// Highest score first.
[[nodiscard]] inline std::vector<Tied> by_score(std::vector<Judged> judged) {
  double yes = 0;
  for (const auto& j : judged) {
    if (!std::isfinite(j.score)) throw ValueError{{.tensor = "score", .expected = "a finite number"}};
    yes += j.is_true ? 1 : 0;
  }
  if (yes == 0 || yes == static_cast<double>(judged.size())) {
    throw ValueError{
        {.tensor = "known truth",
         .expected = "both true and other ones",
         .got = std::to_string(static_cast<std::size_t>(yes)) + " of " + std::to_string(judged.size()) + " true"}};
  }
  std::ranges::sort(judged, std::ranges::greater{}, &Judged::score);
  std::vector<Tied> groups;
  for (const auto& j : judged) {
    if (groups.empty() || groups.back().score != j.score) groups.push_back({j.score, 0, 0});
    (j.is_true ? groups.back().yes : groups.back().no) += 1;
  }
  return groups;
}

}  // namespace circuit::detail

inline std::vector<circuit::PrecisionRecall> circuit::precision_recall(std::vector<Judged> judged) {
  const auto groups = detail::by_score(std::move(judged));
  const auto all =
      std::accumulate(groups.begin(), groups.end(), 0.0, [](double n, const auto& g) { return n + g.yes; });
  std::vector<PrecisionRecall> curve;
  double yes = 0;
  double seen = 0;
  for (const auto& g : groups) {
    yes += g.yes;
    seen += g.yes + g.no;
    curve.push_back({g.score, yes / seen, yes / all});
  }
  return curve;
}

inline circuit::Separation circuit::separation(std::vector<Judged> judged) {
  const auto groups = detail::by_score(judged);
  double above = 0;  // true ones with a higher score
  double others = 0;
  double pairs_won = 0;
  for (const auto& g : groups) {
    pairs_won += g.no * (above + g.yes / 2);
    above += g.yes;
    others += g.no;
  }
  Separation out{.auroc = pairs_won / (above * others)};
  double recall = 0;
  for (const auto& point : precision_recall(std::move(judged))) {
    out.average_precision += (point.recall - recall) * point.precision;
    recall = point.recall;
  }
  return out;
}
