#include "circuit/metric/to_clean.hpp"

#include "by_hand.hpp"

using namespace circuit;

namespace {

at::Tensor clean() { return by_hand::logits().flip(2).mul(0.7); }

double kl(double p, double q) { return p * (std::log(p) - std::log(q)); }

struct Pair {
  double kl = 0;
  double js = 0;
};
Pair divergences(std::int64_t b, std::int64_t pos) {
  Pair out;
  for (std::int64_t v = 0; v < 6; ++v) {
    const auto p = by_hand::probability(clean(), b, pos, v);
    const auto q = by_hand::probability(by_hand::logits(), b, pos, v);
    out.kl += kl(p, q);
    out.js += (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2;
  }
  return out;
}

}  // namespace

TEST_CASE("divergences from the clean run at the last position, by hand") {
  const auto kl_found = KlToClean{clean()}.per_prompt(by_hand::logits());
  const auto js_found = JsToClean{clean()}.per_prompt(by_hand::logits());
  for (std::int64_t b = 0; b < 3; ++b) {
    CHECK(std::abs(kl_found[b].item<double>() - divergences(b, 3).kl) < 1e-13);
    CHECK(std::abs(js_found[b].item<double>() - divergences(b, 3).js) < 1e-13);
  }
}

TEST_CASE("divergences over all positions are their mean, over a padded prompt's own alone") {
  const auto found = KlToClean{clean(), Reading::every({4, 2, 1})}.per_prompt(by_hand::logits());
  const auto all = JsToClean{clean(), Reading::every()}.per_prompt(by_hand::logits());
  const std::vector<std::int64_t> lengths{4, 2, 1};
  for (std::int64_t b = 0; b < 3; ++b) {
    const auto n = lengths[static_cast<std::size_t>(b)];
    double own = 0;
    double every = 0;
    for (std::int64_t p = 0; p < 4; ++p) {
      if (p < n) own += divergences(b, p).kl / static_cast<double>(n);
      every += divergences(b, p).js / 4;
    }
    CHECK(std::abs(found[b].item<double>() - own) < 1e-13);
    CHECK(std::abs(all[b].item<double>() - every) < 1e-13);
  }
}

TEST_CASE("divergences are 0 at the clean run and have the gradient of central differences elsewhere") {
  CHECK(KlToClean{clean()}.per_prompt(clean()).abs().max().item<double>() < 1e-15);
  CHECK(JsToClean{clean()}.per_prompt(clean()).abs().max().item<double>() < 1e-15);
  CHECK(by_hand::gradient_gap(KlToClean{clean(), {Position{1}}}) < 1e-8);
  CHECK(by_hand::gradient_gap(JsToClean{clean(), Reading::every({4, 2, 1})}) < 1e-8);
}

TEST_CASE("another run's shape, and clean logits that are not finite, are refused") {
  CHECK_THROWS_AS(KlToClean{clean()}.per_prompt(by_hand::logits(2)), ShapeError);
  CHECK_THROWS_AS(KlToClean{clean().div(0.0)}, ValueError);
  CHECK_THROWS_AS(KlToClean{clean()[0]}, ShapeError);
  CHECK_THROWS_AS((KlToClean{clean(), {Position{4}}}), IndexError);
  CHECK_THROWS_AS((KlToClean{clean(), {Position{0}, Position{1}}}), ValueError);
  CHECK_THROWS_AS((KlToClean{clean(), Reading::every({4, 5, 1})}.per_prompt(clean())), IndexError);
}
