#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/shown_text.hpp"
#include "circuit/report/table.hpp"

namespace circuit {

/// Numbers of one colour in a chart, one per label.
struct Series {
  std::string name{};
  std::vector<double> values{};
};

/// A horizontal line across a chart at a value worth comparing with, such as the clean run's.
struct GuideLine {
  std::string name{};
  double value{};
};

struct ChartOptions {
  std::string title{};
  std::string x_title{};
  std::string y_title{};
  int width{0};  ///< pixels; 0 chooses by the number of labels
  int height{420};
  std::vector<GuideLine> guides{};
};

namespace detail {

inline constexpr std::array<std::string_view, 8> chart_colors{"#3b7dd8", "#e0802a", "#2f9e63", "#b3499e",
                                                              "#8a6fd1", "#c23b4b", "#6b7a89", "#b39b1f"};

/// Round steps that cover a range: 1, 2 or 5 times a power of ten.
struct Scale {
  double low;
  double high;
  double step;
  int decimals;

  [[nodiscard]] static Scale covering(double low, double high) {
    if (!(high > low)) {
      const double around = std::max(std::abs(low) * 0.1, 1e-12);
      low -= around;
      high += around;
      if (low < 0 && low + around >= 0) low = 0, high = std::max(high, 1.0);
    }
    const double raw = (high - low) / 5;
    const double power = std::pow(10.0, std::floor(std::log10(raw)));
    const double lead = raw / power;
    const double step = power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
    const int decimals = std::clamp(static_cast<int>(-std::floor(std::log10(step) + 1e-9)), 0, 12);
    return {step * std::floor(low / step + 1e-9), step * std::ceil(high / step - 1e-9), step, decimals};
  }
  [[nodiscard]] int steps() const { return static_cast<int>(std::lround((high - low) / step)); }
};

class ChartWriter {
 public:
  ChartWriter(const std::vector<std::string>& labels, const std::vector<Series>& series, ChartOptions options)
      : labels_{labels}, series_{series}, options_{std::move(options)} {
    check();
  }

  [[nodiscard]] std::string bars() {
    frame(/*zero=*/true, 30.0 + 9.0 * static_cast<double>(series_.size()));
    const double group = slot() * 0.8;
    const double width = group / static_cast<double>(series_.size());
    for (std::size_t s = 0; s < series_.size(); ++s) {
      svg_ += "<g fill=\"" + color(s) + "\">\n";
      for (std::size_t i = 0; i < labels_.size(); ++i) {
        const double value = series_[s].values[i];
        const double top = y(std::max(value, 0.0));
        const double bottom = y(std::min(value, 0.0));
        svg_ += "<rect x=\"" + px(center(i) - group / 2 + width * static_cast<double>(s)) + "\" y=\"" + px(top) +
                "\" width=\"" + px(std::max(width - 1, 1.0)) + "\" height=\"" + px(bottom - top) + "\">" + hover(s, i) +
                "</rect>\n";
      }
      svg_ += "</g>\n";
    }
    return finish();
  }

  [[nodiscard]] std::string lines() {
    thinned_ = labels_.size() > 20 && text_width(std::ranges::max(labels_, {}, text_width)) <= 8;
    frame(/*zero=*/false, thinned_ ? 16 : 54);
    for (std::size_t s = 0; s < series_.size(); ++s) {
      std::string points;
      for (std::size_t i = 0; i < labels_.size(); ++i) {
        if (i > 0) points += ' ';
        points += px(center(i)) + ',' + px(y(series_[s].values[i]));
      }
      svg_ += "<polyline points=\"" + points + "\" fill=\"none\" stroke=\"" + color(s) +
              "\" stroke-width=\"2.2\" stroke-linejoin=\"round\"/>\n<g fill=\"" + color(s) + "\">\n";
      for (std::size_t i = 0; i < labels_.size(); ++i) {
        svg_ += "<circle cx=\"" + px(center(i)) + "\" cy=\"" + px(y(series_[s].values[i])) + "\" r=\"3.6\">" +
                hover(s, i) + "</circle>\n";
      }
      svg_ += "</g>\n";
    }
    return finish();
  }

 private:
  static constexpr double character = 6.4;  // width of a 12 px sans-serif character, on average

  void check() const {
    if (labels_.empty() || series_.empty()) {
      throw ValueError{{.tensor = options_.title, .problem = "a chart needs at least one label and one series"}};
    }
    for (const auto& [name, values] : series_) {
      if (values.size() != labels_.size()) {
        throw ValueError{{.tensor = name,
                          .problem = "a series has not one value per label",
                          .expected = std::to_string(labels_.size()),
                          .got = std::to_string(values.size())}};
      }
      for (std::size_t i = 0; i < values.size(); ++i) {
        if (!std::isfinite(values[i])) {
          throw ValueError{{.tensor = name,
                            .problem = "value at \"" + one_line(labels_[i]) + "\" is not finite",
                            .got = std::to_string(values[i])}};
        }
      }
    }
    for (const auto& [name, value] : options_.guides) {
      if (!std::isfinite(value)) {
        throw ValueError{{.tensor = name, .problem = "guide line is not finite", .got = std::to_string(value)}};
      }
    }
    if (options_.width < 0 || options_.height < 120) {
      throw ValueError{{.tensor = options_.title, .problem = "size of a chart", .expected = "height of 120 or more"}};
    }
  }

  [[nodiscard]] static std::string px(double value) { return fixed(value, 1); }
  [[nodiscard]] static std::string color(std::size_t s) { return std::string{chart_colors[s % chart_colors.size()]}; }
  [[nodiscard]] static std::string clipped(const std::string& label, std::size_t most) {
    if (text_width(label) <= most) return label;
    std::string start;
    std::size_t taken = 0;
    for_each_character(label, [&](std::string_view c) {
      if (++taken < most) start += c;
    });
    return start + "\xE2\x80\xA6";
  }

  [[nodiscard]] double slot() const { return (right_ - left_) / static_cast<double>(labels_.size()); }
  [[nodiscard]] double center(std::size_t i) const { return left_ + slot() * (static_cast<double>(i) + 0.5); }
  [[nodiscard]] double y(double value) const {
    return bottom_ - (value - scale_.low) / (scale_.high - scale_.low) * (bottom_ - top_);
  }
  [[nodiscard]] std::string hover(std::size_t s, std::size_t i) const {
    return "<title>" + xml_escape(labels_[i]) + (series_[s].name.empty() ? "" : ", " + xml_escape(series_[s].name)) +
           ": " + fixed(series_[s].values[i], scale_.decimals + 2) + "</title>";
  }

  void text(double x, double at, std::string_view anchor, std::string_view words, std::string_view more = {}) {
    svg_ += "<text x=\"" + px(x) + "\" y=\"" + px(at) + "\" text-anchor=\"" + std::string{anchor} + "\"" +
            std::string{more} + ">" + xml_escape(words) + "</text>\n";
  }
  void horizontal(double value, std::string_view kind) {
    svg_ += "<line class=\"" + std::string{kind} + "\" x1=\"" + px(left_) + "\" x2=\"" + px(right_) + "\" y1=\"" +
            px(y(value)) + "\" y2=\"" + px(y(value)) + "\"/>\n";
  }

  void choose_scale(bool zero) {
    double low = zero ? 0 : series_.front().values.front();
    double high = low;
    const auto include = [&](double value) {
      low = std::min(low, value);
      high = std::max(high, value);
    };
    for (const auto& s : series_) std::ranges::for_each(s.values, include);
    for (const auto& guide : options_.guides) include(guide.value);
    scale_ = Scale::covering(low, high);
  }

  void frame(bool zero, double least_slot) {
    choose_scale(zero);
    const std::size_t longest = text_width(std::ranges::max(labels_, {}, text_width));
    const std::size_t shown = std::min<std::size_t>(longest, 18);
    if (!thinned_) least_slot = std::max(least_slot, 22.0);
    const auto count = static_cast<double>(labels_.size());
    std::size_t tick_width = 0;
    for (int i = 0; i <= scale_.steps(); ++i) tick_width = std::max(tick_width, text_width(tick(i)));
    left_ = 20 + static_cast<double>(tick_width) * character + (options_.y_title.empty() ? 0 : 24);
    if (options_.width == 0) {
      const double wanted = std::max(least_slot * count, title_width());
      options_.width = static_cast<int>(std::clamp(left_ + 20 + wanted, 560.0, thinned_ ? 900.0 : 1600.0));
    }
    right_ = std::max(options_.width - 20.0, left_ + 40);
    slanted_ = !thinned_ && static_cast<double>(longest) * character > slot() - 6;
    if (slanted_) {  // the first label reaches to the left of its slot
      left_ = std::max(left_,
                       static_cast<double>(std::min<std::size_t>(text_width(labels_.front()), 18)) * character * 0.76 -
                           slot() / 2 + 6);
    }
    top_ = 22 + (options_.title.empty() ? 0 : 26) + 22 * legend_rows();
    bottom_ = options_.height - (options_.x_title.empty() ? 14 : 36) -
              (slanted_ ? 14 + static_cast<double>(shown) * character * 0.72 : 24);
    bottom_ = std::max(bottom_, top_ + 40);

    svg_ = "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"circuit-chart\" width=\"" +
           std::to_string(options_.width) + "\" height=\"" + std::to_string(options_.height) + "\" viewBox=\"0 0 " +
           std::to_string(options_.width) + ' ' + std::to_string(options_.height) + "\" role=\"img\">\n<title>" +
           xml_escape(options_.title) + "</title>\n<style>" + std::string{style} + "</style>\n" +
           "<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n";
    if (!options_.title.empty()) text(left_, 30, "start", options_.title, " class=\"title\"");
    legend();
    for (int i = 0; i <= scale_.steps(); ++i) {
      const double value = scale_.low + scale_.step * i;
      const bool base = std::abs(value) < scale_.step * 1e-6;
      horizontal(value, base ? "axis" : "grid");
      text(left_ - 8, y(value) + 4, "end", tick(i));
    }
    svg_ += "<line class=\"axis\" x1=\"" + px(left_) + "\" x2=\"" + px(left_) + "\" y1=\"" + px(top_) + "\" y2=\"" +
            px(bottom_) + "\"/>\n";
    const double room = thinned_ ? static_cast<double>(shown) * character + 12 : 15;  // slanted labels need 15 px
    const auto every = static_cast<std::size_t>(std::ceil(room / slot()));
    for (std::size_t i = 0; i < labels_.size(); i += std::max<std::size_t>(every, 1)) {
      const auto label = clipped(labels_[i], 18);
      if (slanted_) {
        const auto spot = px(center(i) + 4) + ' ' + px(bottom_ + 14);
        text(center(i) + 4, bottom_ + 14, "end", label, " transform=\"rotate(-42 " + spot + ")\"");
      } else {
        text(center(i), bottom_ + 18, "middle", label);
      }
    }
    if (!options_.x_title.empty()) {
      text((left_ + right_) / 2, options_.height - 10.0, "middle", options_.x_title, " class=\"axis-title\"");
    }
    if (!options_.y_title.empty()) {
      const double middle = (top_ + bottom_) / 2;
      text(16, middle, "middle", options_.y_title,
           " class=\"axis-title\" transform=\"rotate(-90 16 " + px(middle) + ")\"");
    }
  }

  [[nodiscard]] double title_width() const { return 8.6 * static_cast<double>(text_width(options_.title)); }
  [[nodiscard]] std::string tick(int i) const { return fixed(scale_.low + scale_.step * i, scale_.decimals); }

  [[nodiscard]] static double legend_entry(const std::string& name) {
    return 34 + static_cast<double>(text_width(name)) * character;
  }
  /// Where each series' entry of the legend stands, counted in pixels from the frame's left end and in rows; a single
  /// series needs no legend.
  [[nodiscard]] std::vector<std::pair<double, int>> legend_spots() const {
    std::vector<std::pair<double, int>> spots;
    if (series_.size() < 2) return spots;
    double x = 0;
    int row = 0;
    for (const auto& s : series_) {
      const auto entry = legend_entry(clipped(s.name, 40));
      if (x > 0 && x + entry > right_ - left_) {
        ++row;
        x = 0;
      }
      spots.emplace_back(x, row);
      x += entry;
    }
    return spots;
  }
  [[nodiscard]] int legend_rows() const {
    const auto spots = legend_spots();
    return spots.empty() ? 0 : spots.back().second + 1;
  }
  void legend() {
    const auto spots = legend_spots();
    for (std::size_t s = 0; s < spots.size(); ++s) {
      const double x = left_ + spots[s].first;
      const double at = 30 + (options_.title.empty() ? 0 : 24) - 4 + 22 * spots[s].second;
      svg_ += "<rect x=\"" + px(x + 1) + "\" y=\"" + px(at - 10) + "\" width=\"12\" height=\"12\" rx=\"2\" fill=\"" +
              color(s) + "\"/>\n";
      text(x + 19, at, "start", clipped(series_[s].name, 40));
    }
  }

  [[nodiscard]] std::string finish() {
    for (const auto& guide : options_.guides) {
      horizontal(guide.value, "guide");
      text(right_ - 2, y(guide.value) - 5, "end", clipped(guide.name, 40), " class=\"guide-name\"");
    }
    return std::move(svg_) + "</svg>\n";
  }

  static constexpr std::string_view style =
      ".circuit-chart{font:12px system-ui,sans-serif}.circuit-chart text{fill:#30363d}"
      ".circuit-chart .title{font-size:15px;font-weight:600}.circuit-chart .axis-title{fill:#59636e}"
      ".circuit-chart .ground{fill:#fff}.circuit-chart .grid{stroke:#e4e7eb}.circuit-chart .axis{stroke:#8b949e}"
      ".circuit-chart .guide{stroke:#59636e;stroke-width:1.4;stroke-dasharray:5 4}"
      ".circuit-chart .guide-name{fill:#59636e;paint-order:stroke;stroke:#fff;stroke-width:3px}"
      "@media(prefers-color-scheme:dark){.circuit-chart text{fill:#d7dde3}.circuit-chart .axis-title{fill:#a3adb8}"
      ".circuit-chart .ground{fill:#16191d}.circuit-chart .grid{stroke:#2c3239}.circuit-chart .axis{stroke:#79828c}"
      ".circuit-chart .guide{stroke:#a3adb8}.circuit-chart .guide-name{fill:#a3adb8;stroke:#16191d}}";

  const std::vector<std::string>& labels_;
  const std::vector<Series>& series_;
  ChartOptions options_;
  Scale scale_{0, 1, 1, 0};
  double left_ = 0, right_ = 0, top_ = 0, bottom_ = 0;
  bool slanted_ = false;
  bool thinned_ = false;
  std::string svg_;
};

}  // namespace detail

/// One group of bars per label, one bar per series, as a stand-alone SVG document that also reads well on a dark
/// ground. Bars start at zero and carry their value as hover text.
/// throws  ValueError  when there is no label or series, a series has not one value per label, or a value is not finite
[[nodiscard]] inline std::string bar_chart(const std::vector<std::string>& labels, const std::vector<Series>& series,
                                           ChartOptions options = {}) {
  return detail::ChartWriter{labels, series, std::move(options)}.bars();
}

/// One line per series over the labels, as a stand-alone SVG document; the axis need not include zero. Of more than 20
/// short labels, such as steps, only as many are written as have room.
/// throws  ValueError  as bar_chart
[[nodiscard]] inline std::string line_chart(const std::vector<std::string>& labels, const std::vector<Series>& series,
                                            ChartOptions options = {}) {
  return detail::ChartWriter{labels, series, std::move(options)}.lines();
}

}  // namespace circuit
