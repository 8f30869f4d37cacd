#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>

#include "circuit/core/error.hpp"
#include "circuit/evaluate/faithfulness.hpp"

namespace circuit {

/// The shares of all edges at which MIB measures faithfulness.
inline constexpr std::array<double, 10> mib_shares{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0};

/// Two areas over a curve of faithfulness against size.
struct CurveAreas {
  double cpr = 0;  ///< area under the curve: large where small circuits already perform
  double cmd = 0;  ///< area between the curve and 1: small where circuits behave as the model does, no better either
};

/// By trapezoids over the share of edges.
/// throws  ValueError  unless there are two points or more, of ascending sizes
/// source  Mueller et al. 2025 (MIB), who call them integrated circuit performance ratio and model distance
[[nodiscard]] inline CurveAreas curve_areas(std::span<const SizePoint> curve) {
  if (curve.size() < 2) {
    throw ValueError{{.tensor = "curve", .expected = "two points or more", .got = std::to_string(curve.size())}};
  }
  CurveAreas areas;
  for (std::size_t i = 1; i < curve.size(); ++i) {
    const auto width = curve[i].share_of_edges - curve[i - 1].share_of_edges;
    if (!(width > 0)) {
      throw ValueError{{.tensor = "curve", .problem = "sizes must ascend", .got = "point " + std::to_string(i)}};
    }
    const auto trapezoid = [&](double a, double b) { return width * (a + b) / 2; };
    areas.cpr += trapezoid(curve[i - 1].faithfulness, curve[i].faithfulness);
    areas.cmd += trapezoid(std::abs(1 - curve[i - 1].faithfulness), std::abs(1 - curve[i].faithfulness));
  }
  return areas;
}

}  // namespace circuit
