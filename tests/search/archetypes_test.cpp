#include "archetypes.hpp"

#include "random_model.hpp"

using namespace circuit;

TEST_CASE("a search runs on types that model its concepts and nothing more") {
  const auto model = random_model::make<Gpt2>(7);
  const archetype::Dictionaries set{random_model::dictionaries(model.config(), 8)};
  const Leap search{.keep = archetype::Keep{},
                    .chain = archetype::Chain{},
                    .contrast = archetype::Contrast{},
                    .batching = archetype::Batching{},
                    .score = archetype::Score{},
                    .targets = archetype::Targets{},
                    .softmax = archetype::Softmax{},
                    .final_norm = archetype::FinalNorm{}};
  archetype::Observer observer;
  const auto found = search(model, set, {random_model::Source{9}.tokens(2, 6, model.config().d_vocab), {}},
                            archetype::Metric{}, observer);
  REQUIRE(found.edge_count() > 50);
  REQUIRE(observer.seen == std::vector{Layer{1}, Layer{0}});
}
