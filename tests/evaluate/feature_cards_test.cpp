#include "circuit/evaluate/feature_cards.hpp"

#include <memory>

#include "circuit/model/record.hpp"
#include "circuit/text/train_bpe.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;
using circuit_test::ContainsSubstring;

namespace {

const std::vector<std::vector<std::int32_t>> card_rows{{1, 2, 3, 4, 5, 6}, {7, 8, 9}, {2, 2, 4, 11, 20}};

HookedTransformer<Gpt2> speaking_model(std::uint64_t seed) {
  const auto silent = random_model::make<Gpt2>(seed);
  auto tokenizer = std::make_shared<Tokenizer>(train_bpe(WordCounts{}, BpeTrainingOptions{}).tokenizer());
  return {silent.config(), silent.weights(), silent.processing(), std::move(tokenizer)};
}

PlacedDictionary placed_sae(random_model::Source& random, std::string hook) {
  SparseDictionary<> d{{.W_enc = random({16, 30}, 0.4),
                        .b_enc = random({30}, 0.2, -0.3),
                        .W_dec = random({30, 16}, 0.3),
                        .b_in = {},
                        .b_out = random({16}, 0.3)},
                       {}};
  d.b_in = d.b_out;
  d.b_enc[7] = -1e6;  // never fires
  return {{hook, hook}, d};
}

struct Place {
  double activation;
  std::int64_t row;
  std::int64_t position;
};

/// Every place at which feature f fires, strongest first, found row by row.
std::vector<Place> places_of(const HookedTransformer<Gpt2>& model, const SparseDictionary<>& d, std::int64_t f) {
  std::vector<Place> out;
  for (std::size_t r = 0; r < card_rows.size(); ++r) {
    const std::vector<std::vector<std::int32_t>> one{card_rows[r]};
    const auto cache = model.run(to_tokens(one), record<hook::attn::z>()).cache;
    const auto acts = d.encode(cache.get<hook::attn::z>(Layer{1})[0].flatten(1)).select(-1, f);
    for (std::int64_t i = 0; i < acts.numel(); ++i) {
      const auto value = acts[i].item<double>();
      if (value != 0) out.push_back({value, static_cast<std::int64_t>(r), i});
    }
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.activation > b.activation; });
  return out;
}

}  // namespace

TEST_CASE("one pass finds for every feature where it fires, how often and how strongly") {
  const auto model = speaking_model(61);
  random_model::Source random{62};
  const auto placed = placed_sae(random, "blocks.1.attn.hook_z");
  const auto cards =
      feature_cards(model, placed, card_rows, {.contexts = 4, .before = 2, .after = 1, .rows_per_run = 2});
  REQUIRE(cards.size() == 30);
  for (const auto& card : cards) {
    const auto wanted = places_of(model, placed.dictionary, card.feature.value);
    INFO("feature " << card.feature.value);
    CHECK(card.fires == static_cast<std::int64_t>(wanted.size()));
    CHECK(card.frequency == Approx(static_cast<double>(wanted.size()) / 14));
    REQUIRE(card.contexts.size() == std::min<std::size_t>(4, wanted.size()));
    double sum = 0;
    for (const auto& place : wanted) sum += place.activation / static_cast<double>(wanted.size());
    CHECK(card.mean == Approx(sum));
    for (std::size_t i = 0; i < card.contexts.size(); ++i) {
      const auto& context = card.contexts[i];
      CHECK(context.activation == Approx(wanted[i].activation));
      CHECK(context.row == wanted[i].row);
      CHECK(context.position == wanted[i].position);
      const auto token = card_rows[static_cast<std::size_t>(context.row)][static_cast<std::size_t>(context.position)];
      CHECK(context.tokens[context.at_token] == model.tokenizer().token_text(token));
      CHECK(context.at_token == static_cast<std::size_t>(std::min<std::int64_t>(2, context.position)));
    }
    std::int64_t binned = 0;
    for (const auto& bin : card.histogram) {
      binned += bin.count;
      CHECK(bin.count == std::count_if(wanted.begin(), wanted.end(), [&](const Place& place) {
              return place.activation >= bin.from && place.activation < 2 * bin.from;
            }));
    }
    CHECK(binned == card.fires);
  }
  CHECK(cards[7].fires == 0);
  CHECK(cards[7].contexts.empty());
}

TEST_CASE("logit effects are what the model's own unembedding makes of a feature's write") {
  const auto model = speaking_model(63);
  random_model::Source random{64};
  const auto placed = placed_sae(random, "blocks.1.attn.hook_z");
  const auto cards = feature_cards(model, placed, card_rows, {.effects = 3});
  // The logits of a stream r + t w with the norm's scale held fixed, one unit of t apart.
  const auto& w = model.weights();
  const auto write = placed.dictionary.W_dec[5].matmul(w.blocks[1].attn.W_O);
  const auto centered = write.sub(write.mean());
  const auto logits = centered.mul(w.ln_final.gain).matmul(w.W_U);
  const auto [top, places] = logits.topk(3);
  REQUIRE(cards[5].raises.size() == 3);
  for (int i = 0; i < 3; ++i) {
    CHECK(cards[5].raises[static_cast<std::size_t>(i)].effect == Approx(top[i].item<double>()));
    CHECK(cards[5].raises[static_cast<std::size_t>(i)].token ==
          model.tokenizer().token_text(static_cast<std::int32_t>(places[i].item<std::int64_t>())));
  }
  CHECK(cards[5].lowers.front().effect == Approx(logits.min().item<double>()));
  // A hook whose values do not enter the stream in a straight line has none.
  CHECK(feature_cards(model, placed_sae(random, "blocks.0.ln2.hook_normalized"), card_rows)[5].raises.empty());
  CHECK_FALSE(feature_cards(model, placed_sae(random, "blocks.0.hook_resid_post"), card_rows)[5].raises.empty());
}

TEST_CASE("a vocabulary may be padded beyond its tokens, which raise and lower nothing") {
  const auto small = speaking_model(63);
  auto config = small.config();
  auto weights = small.weights();
  auto tokenizer = std::make_shared<Tokenizer>(small.tokenizer());
  const auto ids = tokenizer->size();
  REQUIRE(static_cast<std::int64_t>(ids) >= config.d_vocab);
  const auto more = static_cast<std::int64_t>(ids) + 5 - config.d_vocab;
  weights.W_E = make::cat({weights.W_E, at::zeros({more, config.d_model}, weights.W_E.options())}, 0);
  weights.W_U = make::cat({weights.W_U, at::full({config.d_model, more}, 100.0, weights.W_U.options())}, 1);
  if (weights.b_U.defined()) weights.b_U = make::cat({weights.b_U, at::zeros({more}, weights.b_U.options())}, 0);
  config.d_vocab += more;
  const HookedTransformer<Gpt2> padded{config, weights, small.processing(), tokenizer};
  random_model::Source random{64};
  const auto placed = placed_sae(random, "blocks.1.attn.hook_z");
  const auto count = static_cast<std::int64_t>(ids);
  const auto cards = feature_cards(padded, placed, card_rows, {.effects = count + 5});
  CHECK(static_cast<std::int64_t>(cards[5].raises.size()) == count);
}

TEST_CASE("the largest activation is known without contexts too") {
  const auto model = speaking_model(61);
  random_model::Source random{62};
  const auto placed = placed_sae(random, "blocks.1.attn.hook_z");
  const auto with = feature_cards(model, placed, card_rows, {.contexts = 3});
  const auto without = feature_cards(model, placed, card_rows, {.contexts = 0});
  REQUIRE(with[5].largest > 0);
  for (std::size_t f = 0; f < with.size(); ++f) CHECK(without[f].largest == with[f].largest);
}

TEST_CASE("features alike are those with the nearest decoder rows") {
  const auto model = speaking_model(65);
  random_model::Source random{66};
  auto placed = placed_sae(random, "blocks.0.hook_mlp_out");
  placed.dictionary.W_dec[3] = placed.dictionary.W_dec[20].mul(2.5);  // the same direction
  const auto cards = feature_cards(model, placed, card_rows, {.like = 2});
  REQUIRE(cards[3].like.size() == 2);
  CHECK(cards[3].like[0].feature == Feature{20});
  CHECK(cards[3].like[0].cosine == Approx(1.0));
  CHECK(cards[3].like[1].cosine < 1.0);
  CHECK(cards[20].like[0].feature == Feature{3});
}

TEST_CASE("a card reads as text and as JSON") {
  const FeatureCard card{.feature = Feature{12},
                         .fires = 5,
                         .frequency = 0.25,
                         .mean = 1.5,
                         .largest = 3.0,
                         .contexts = {{3.0, 1, 4, {" a", " b", "\r\n"}, 1}},
                         .histogram = {{1.0, 4}, {2.0, 1}},
                         .raises = {{" x", 0.5}},
                         .lowers = {{"\n", -0.25}},
                         .like = {{Feature{7}, 0.75}}};
  CHECK(to_text(card) ==
        "feature 12: fires at 25.00 % of tokens, mean 1.50, largest 3.00\n"
        "  raises  \" x\" 0.50\n"
        "  lowers  \"\\n\" -0.25\n"
        "  like    7 (0.75)\n"
        "  activations from  1.000: 4  2.000: 1\n"
        "  3.00   a[[ b]]\\r\\n\n");
  const auto json = to_json(card);
  CHECK(json.at("contexts")[0].at("at_token") == 1);
  CHECK(json.at("histogram")[1].at("count") == 1);
  CHECK(json.at("raises")[0].at("token") == " x");
  CHECK(json.at("like")[0].at("feature") == 7);
}

TEST_CASE("cards that cannot be made are one clear error") {
  const auto model = speaking_model(67);
  random_model::Source random{68};
  CHECK_THROWS_AS(feature_cards(model, placed_sae(random, "blocks.5.attn.hook_z"), card_rows), IndexError);
  CHECK_THROWS_AS(feature_cards(model, placed_sae(random, "nowhere"), card_rows), NameError);
  CHECK_THROWS_AS(feature_cards(model, placed_sae(random, "blocks.0.attn.hook_z"), {}), ValueError);
  CHECK_THROWS_AS(feature_cards(model, placed_sae(random, "blocks.0.mlp.hook_post"), card_rows), ShapeError);
  const auto silent = random_model::make<Gpt2>(67);
  CHECK_THROWS_WITH(feature_cards(silent, placed_sae(random, "blocks.0.attn.hook_z"), card_rows),
                    ContainsSubstring("tokenizer"));
}
