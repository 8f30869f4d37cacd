#include "circuit/metric/logit_difference.hpp"
#include "circuit/metric/sequence.hpp"
#include "circuit/metric/to_clean.hpp"
#include "circuit/model/gradient.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

using Ids = std::vector<std::vector<std::int64_t>>;

const std::vector<std::int64_t> lengths{7, 4, 9, 1};
const std::vector<Position> last{Position{6}, Position{3}, Position{8}, Position{0}};
const std::vector<std::vector<std::int64_t>> right{{1, 2}, {3}, {4}, {0}};
const std::vector<std::vector<std::int64_t>> wrong{{5}, {6, 7}, {8}, {9}};

/// Prompts of those lengths, filled up on the right with one token.
at::Tensor padded(std::int64_t filler) {
  auto tokens = random_model::Source{3}.tokens(4, 9, 23);
  for (std::int64_t b = 0; b < 4; ++b) {
    const auto n = lengths[static_cast<std::size_t>(b)];
    tokens[b].narrow(0, n, 9 - n).fill_(filler);
  }
  return tokens;
}

}  // namespace

TEMPLATE_TEST_CASE("prompts filled up on the right run as they do alone, in values and in gradients", "", Gpt2, Llama,
                   GptNeox, Gemma2, Plain, random_model::MixedParts) {
  const auto model = random_model::make<TestType>(5);
  const auto tokens = padded(11);
  const c10::AutoGradMode gradient{true};
  LeafAtEmbedding leaf;
  auto recorder = record<hook::embed>();
  const auto logits = model.forward(tokens, leaf, recorder);
  const auto metric = LogitDifference{right, wrong, last};
  const auto values = metric.per_prompt(logits);
  const auto grads = gradient_of(values.sum(), {recorder.cache().template get<hook::embed>()}, /*keep_graph=*/true)[0];
  const auto losses =
      SequenceLogProbability{tokens.narrow(0, 0, 3), {.lengths = {7, 4, 9}}}.per_prompt(logits.narrow(0, 0, 3));
  const auto other = model.run(padded(11).flip(0).contiguous()).logits;
  const auto divergence = KlToClean{other, Reading::every(lengths)}.per_prompt(logits);
  for (std::int64_t b = 0; b < 4; ++b) {
    const auto slot = static_cast<std::size_t>(b);
    const auto n = lengths[slot];
    const auto alone_tokens = tokens.narrow(0, b, 1).narrow(1, 0, n);
    auto alone_recorder = record<hook::embed>();
    const auto alone = model.forward(alone_tokens, leaf, alone_recorder);
    REQUIRE_CLOSE(logits[b].narrow(0, 0, n), alone[0], 1e-9);
    const auto value = LogitDifference{Ids{right[slot]}, Ids{wrong[slot]}}.per_prompt(alone);
    REQUIRE_CLOSE(values.narrow(0, b, 1), value, 1e-9);
    const auto own = gradient_of(value.sum(), {alone_recorder.cache().template get<hook::embed>()}, true)[0];
    REQUIRE_CLOSE(grads[b].narrow(0, 0, n), own[0], 1e-9);
    CHECK(grads[b].narrow(0, n, 9 - n).abs().sum().template item<double>() == 0.0);
    if (b < 3) REQUIRE_CLOSE(losses.narrow(0, b, 1), SequenceLogProbability{alone_tokens}.per_prompt(alone), 1e-9);
    const auto own_other = other.narrow(0, b, 1).narrow(1, 0, n);
    REQUIRE_CLOSE(divergence.narrow(0, b, 1), (KlToClean{own_other, Reading::every()}.per_prompt(alone)), 1e-9);
  }
}

TEST_CASE("what the filling is does not matter") {
  const auto model = random_model::make<Llama>(5);
  const auto metric = LogitDifference{right, wrong, last};
  CHECK(metric.per_prompt(model.run(padded(11)).logits).equal(metric.per_prompt(model.run(padded(0)).logits)));
}
