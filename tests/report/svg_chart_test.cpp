#include "circuit/report/svg_chart.hpp"

#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "report/count.hpp"

using namespace circuit;

namespace {

/// Values of an attribute in the order in which they stand, from `start` on.
std::vector<double> attributes(const std::string& svg, const std::string& name, std::size_t start = 0) {
  std::vector<double> values;
  const auto key = ' ' + name + "=\"";
  for (auto at = svg.find(key, start); at != std::string::npos; at = svg.find(key, at + 1)) {
    values.push_back(std::strtod(svg.c_str() + at + key.size(), nullptr));
  }
  return values;
}

/// Heights of a bar chart's bars, in series order.
std::vector<double> bar_heights(const std::string& svg) { return attributes(svg, "height", svg.find("<g fill")); }

const std::vector<std::string> abc{"a", "b", "c"};

}  // namespace

TEST_CASE("a bar chart has a bar per label and series, in proportion to the values") {
  const auto svg = bar_chart(abc, {{"one", {1, 2, 4}}, {"two", {0, 1, 2}}}, {.title = "T"});
  const auto heights = bar_heights(svg);
  REQUIRE(heights.size() == 6);
  CHECK(heights[1] == Approx(2 * heights[0]).margin(0.2));
  CHECK(heights[2] == Approx(4 * heights[0]).margin(0.4));
  CHECK(heights[3] == 0);
  CHECK(heights[5] == Approx(heights[1]).margin(0.2));
}

TEST_CASE("negative bars hang from the zero line") {
  const auto svg = bar_chart(abc, {{"one", {2, -2, 0}}});
  const auto tops = attributes(svg, "y", svg.find("<g fill"));
  const auto heights = bar_heights(svg);
  CHECK(heights[0] == Approx(heights[1]).margin(0.2));
  CHECK(tops[0] + heights[0] == Approx(tops[1]).margin(0.2));
}

TEST_CASE("a line chart has a line per series with a point per label, larger values higher up") {
  const auto svg = line_chart(abc, {{"one", {1, 3, 2}}, {"two", {5, 5, 5}}});
  CHECK(count(svg, "<polyline") == 2);
  const auto y = attributes(svg, "cy");
  REQUIRE(y.size() == 6);
  CHECK(y[1] < y[2]);
  CHECK(y[2] < y[0]);
  CHECK(y[3] < y[1]);
}

TEST_CASE("a line chart of many steps stays narrow and writes some of their labels") {
  for (const std::size_t points : {50U, 400U}) {
    std::vector<std::string> steps;
    Series series{"one", {}};
    for (std::size_t i = 0; i < points; ++i) {
      steps.push_back(std::to_string(1000 + i));
      series.values.push_back(static_cast<double>(i));
    }
    const auto svg = line_chart(steps, {series});
    CHECK(attributes(svg, "width").front() <= 900);
    CHECK(count(svg, "<circle") == points);
    CHECK(count(svg, ">1000</text>") == 1);
    const auto written = count(svg, "text-anchor=\"middle\"");
    CHECK(written >= 10);
    CHECK(written <= 24);
    CHECK(count(svg, "rotate(") == 0);
  }
}

TEST_CASE("title, axis titles, legend and guide lines are there") {
  const auto svg =
      line_chart(abc, {{"first", {1, 2, 3}}, {"second", {2, 2, 2}}},
                 {.title = "A title", .x_title = "layer", .y_title = "logits", .guides = {{"clean", 2.5}}});
  for (const auto* words :
       {">A title<", ">layer<", ">logits<", ">first<", ">second<", ">clean<", ">a<", ">b<", ">c<"}) {
    CAPTURE(words);
    CHECK(count(svg, words) >= 1);
  }
  CHECK(count(line_chart(abc, {{"only", {1, 2, 3}}}), ">only<") == 0);  // one series needs no legend
}

TEST_CASE("labels and names are escaped and the whole is one SVG element") {
  const auto svg = bar_chart({"<b>", "\"", "&"}, {{"</svg><script>", {1, 2, 3}}, {"x", {1, 1, 1}}}, {.title = "<i>"});
  CHECK(count(svg, "<b>") + count(svg, "<script>") + count(svg, "<i>") == 0);
  CHECK(count(svg, "&lt;b&gt;") >= 1);
  CHECK(svg.starts_with("<svg "));
  CHECK(svg.ends_with("</svg>\n"));
  CHECK(count(svg, "</svg>") == 1);
}

TEST_CASE("everything drawn lies inside the picture, whatever the sizes of numbers and labels") {
  std::vector<std::string> many;
  std::vector<double> values;
  for (int i = 0; i < 200; ++i) {
    many.push_back(std::string(static_cast<std::size_t>(i % 30), 'w') + std::to_string(i));
    values.push_back(i % 3 - 1);
  }
  const std::vector<std::string> charts{
      bar_chart(many, {{"x", values}, {"y", values}}),
      bar_chart({"long label that is cut somewhere"}, {{"x", {0}}}),
      line_chart(abc, {{"x", {1e-9, 2e-9, 1.5e-9}}}),
      line_chart(abc, {{"x", {-1e12, 3e12, 0}}}, {.title = "t", .x_title = "x", .y_title = "y", .height = 120}),
      line_chart(abc, {{"x", {7, 7, 7}}}),
      line_chart(abc, {{"x", {-7, -7, -7}}}),
      line_chart({"one"}, {{"x", {0}}})};
  for (const auto& svg : charts) {
    const auto width = attributes(svg, "width").front();
    const auto height = attributes(svg, "height").front();
    CHECK(count(svg, "nan") + count(svg, "inf") == 0);
    CHECK(width >= 300);
    CHECK(width <= 1600);
    for (const auto* name : {"x", "x1", "x2", "cx"}) {
      for (const auto x : attributes(svg, name)) CHECK((x >= 0 && x <= width));
    }
    for (const auto* name : {"y", "y1", "y2", "cy"}) {
      for (const auto y : attributes(svg, name)) CHECK((y >= 0 && y <= height));
    }
  }
}

TEST_CASE("an axis has a handful of round numbers around the values") {
  using detail::Scale;
  for (const auto& [low, high] : {std::pair{0.0, 0.37}, {-3.0, 91.0}, {0.1, 0.1000001}, {1e-20, 3e-20}, {-5.0, -4.0}}) {
    const auto scale = Scale::covering(low, high);
    CAPTURE(low, high, scale.low, scale.high, scale.step);
    CHECK(scale.low <= low + scale.step * 1e-6);
    CHECK(scale.high >= high - scale.step * 1e-6);
    CHECK(scale.steps() >= 2);
    CHECK(scale.steps() <= 7);
  }
}

TEST_CASE("charts refuse what cannot be drawn and name the series") {
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  const auto inf = std::numeric_limits<double>::infinity();
  CHECK_THROWS_AS(bar_chart({}, {{"x", {}}}), ValueError);
  CHECK_THROWS_AS(bar_chart(abc, {}), ValueError);
  CHECK_THROWS_AS(bar_chart(abc, {{"x", {1, 2}}}), ValueError);
  CHECK_THROWS_AS(line_chart(abc, {{"x", {1, 2, inf}}}), ValueError);
  CHECK_THROWS_AS(line_chart(abc, {{"x", {1, 2, 3}}}, {.guides = {{"g", nan}}}), ValueError);
  CHECK_THROWS_AS(line_chart(abc, {{"x", {1, 2, 3}}}, {.height = 10}), ValueError);
  try {
    static_cast<void>(bar_chart(abc, {{"good", {1, 2, 3}}, {"bad", {1, nan, 3}}}));
    FAIL("accepted");
  } catch (const ValueError& e) {
    CHECK(e.details().tensor == "bad");
    CHECK(e.details().problem.find("\"b\"") != std::string::npos);
  }
}
