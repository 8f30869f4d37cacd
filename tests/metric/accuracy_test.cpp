#include "circuit/metric/accuracy.hpp"

#include "by_hand.hpp"

using namespace circuit;
using Ids = std::vector<std::vector<std::int64_t>>;

namespace {

/// [3, 1, 4]: the order of tokens is 3 1 0 2; 0 and 1 tie before 2 and 3; 2 0 3 1
at::Tensor ordered() {
  const std::vector<std::vector<std::int32_t>> rows{{2, 5, 0, 9}, {7, 7, 1, 1}, {4, -2, 8, 1}};
  return to_tokens(rows).to(at::kDouble).unsqueeze(1);
}

std::vector<double> values(const at::Tensor& t) {
  std::vector<double> out;
  for (std::int64_t i = 0; i < t.numel(); ++i) out.push_back(t[i].item<double>());
  return out;
}

}  // namespace

TEST_CASE("an answer is found when fewer than k tokens are likelier than the best of them") {
  const Ids answers{{0, 1}, {1}, {1, 3}};
  using Row = std::vector<double>;
  CHECK(values(Accuracy{answers}.per_prompt(ordered())) == Row{0, 1, 0});
  CHECK(values(InTopK{2, answers}.per_prompt(ordered())) == Row{1, 1, 0});
  CHECK(values(InTopK{3, answers}.per_prompt(ordered())) == Row{1, 1, 1});
  CHECK(mean(Accuracy{answers}, ordered()).item<double>() == Approx(1.0 / 3));
}

TEST_CASE("logits that are no numbers are not right") {
  const auto nan = at::full({2, 1, 4}, std::nan(""), at::kDouble);
  CHECK(values(Accuracy{Ids{{0}, {3}}}.per_prompt(nan)) == std::vector<double>{0, 0});
  auto one = ordered();
  one.select(0, 0).select(0, 0).select(0, 3).fill_(std::nan(""));  // the answer's own
  CHECK(values(InTopK{3, Ids{{3}, {1}, {1}}}.per_prompt(one))[0] == 0);
}

TEST_CASE("a gradient of accuracy is refused, and so is a k below 1") {
  const c10::AutoGradMode gradient{true};
  const auto logits = ordered().requires_grad_(true);
  CHECK_THROWS_AS(gradient_of(mean(Accuracy{Ids{{0}, {1}, {2}}}, logits), {logits}), ValueError);
  CHECK_THROWS_AS((InTopK{0, Ids{{1}}}), ValueError);
}
