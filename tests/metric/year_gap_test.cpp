#include "circuit/metric/year_gap.hpp"

#include "by_hand.hpp"
#include "circuit/text/train_bpe.hpp"

using namespace circuit;

namespace {

Tokenizer tokenizer_of(const std::vector<std::string>& words) {
  const BpeTrainingOptions options{.whole_words = words};
  return train_bpe(WordCounts{}, options).tokenizer();
}

Tokenizer two_digits() {
  std::vector<std::string> words;
  for (int i = 0; i < 100; ++i) words.push_back((i < 10 ? "0" : "") + std::to_string(i));
  return tokenizer_of(words);
}

}  // namespace

TEST_CASE("where two digits are a token, the gap is the probability of later years minus that of the rest") {
  const auto tokenizer = two_digits();
  const auto years = YearTokens::of(tokenizer);
  REQUIRE(years.digits == 2);
  CHECK(years.ids[7] == tokenizer.single_token("07"));
  const std::vector<int> starts{32, 98};
  const auto logits = by_hand::logits(2, 3, 600);
  const auto gap = year_gap(years, starts).per_prompt(logits);
  for (std::int64_t b = 0; b < 2; ++b) {
    double expected = 0;
    for (int year = 0; year < 100; ++year) {
      const auto p = by_hand::probability(logits, b, 2, years.ids[static_cast<std::size_t>(year)]);
      expected += year > starts[static_cast<std::size_t>(b)] ? p : -p;
    }
    CHECK(std::abs(gap[b].item<double>() - expected) < 1e-13);
  }
}

TEST_CASE("where each digit is a token, the tens digit decides and the start's own does not count") {
  const auto tokenizer = tokenizer_of({"war"});  // bytes are tokens, and so is each digit
  const auto years = YearTokens::of(tokenizer);
  REQUIRE(years.digits == 1);
  const std::vector<int> starts{32, 80};
  const auto logits = by_hand::logits(2, 3, 600);
  const auto gap = year_gap(years, starts).per_prompt(logits);
  for (std::int64_t b = 0; b < 2; ++b) {
    double expected = 0;
    for (int digit = 0; digit < 10; ++digit) {
      const auto p = by_hand::probability(logits, b, 2, years.ids[static_cast<std::size_t>(digit)]);
      const auto tens = starts[static_cast<std::size_t>(b)] / 10;
      expected += digit > tens ? p : digit < tens ? -p : 0;
    }
    CHECK(std::abs(gap[b].item<double>() - expected) < 1e-13);
  }
}

TEST_CASE("starts that no year lies above or below are refused") {
  const auto years = YearTokens::of(two_digits());
  for (const int start : {-1, 99, 100}) CHECK_THROWS_AS((year_gap(years, std::vector{start})), ValueError);
  const auto digits = YearTokens::of(tokenizer_of({"war"}));
  for (const int start : {5, 95}) CHECK_THROWS_AS((year_gap(digits, std::vector{start})), ValueError);
  CHECK_THROWS_AS((year_gap(years, std::vector<int>{})), ValueError);
}
