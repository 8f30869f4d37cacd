#include "circuit/model/written_rows.hpp"

#include <ATen/TensorOperators.h>

#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

TEST_CASE("rows that a model writes do not depend on which are written together") {
  const auto model = random_model::make<Gpt2>(41);
  const WrittenRows rows{model, {.first = 3, .length = 9, .seed = 5, .rows_per_run = 4}};
  const auto ten = rows.rows(0, 10);
  REQUIRE(ten.size() == 10);
  for (const auto& row : ten) {
    CHECK(row.size() == 9);
    CHECK(row.front() == 3);
  }
  CHECK(rows.rows(5, 3) == std::vector{ten[5], ten[6], ten[7]});
  CHECK(WrittenRows{model, {.first = 3, .length = 9, .seed = 6}}.rows(0, 10) != ten);
}

TEST_CASE("what a model writes follows its own probabilities") {
  const auto model = random_model::make<Gpt2>(42);
  const auto rows = WrittenRows{model, {.first = 0, .length = 2, .rows_per_run = 4000}}.rows(0, 4000);
  auto counts = at::zeros({23}, at::kDouble);
  for (const auto& row : rows) counts[row[1]] += 1.0 / 4000;
  const std::vector<std::vector<std::int32_t>> start{{0}};
  const auto wanted = model.run(to_tokens(start)).logits[0][0].softmax(-1);
  REQUIRE(wanted.max().item<double>() > 0.1);
  REQUIRE_CLOSE(counts, wanted, 0.03);  // four standard deviations
  const auto cold = WrittenRows{model, {.first = 0, .length = 2, .temperature = 1e-3}}.rows(0, 5);
  for (const auto& row : cold) CHECK(row[1] == wanted.argmax().item<std::int64_t>());
}

TEST_CASE("lengths, temperatures and tokens that cannot be are one clear error") {
  const auto model = random_model::make<Gpt2>(43);
  CHECK_THROWS_AS((WrittenRows{model, {.length = 1}}), ValueError);
  CHECK_THROWS_AS((WrittenRows{model, {.length = 13}}), ValueError);
  CHECK_THROWS_AS((WrittenRows{model, {.length = 4, .temperature = 0}}.rows(0, 1)), ValueError);
  CHECK_THROWS_AS((WrittenRows{model, {.first = 23, .length = 4}}.rows(0, 1)), IndexError);
}
