// A circuit that holds on prompts with other pairs of names: its nodes are found by training gates on many prompts of
// one template, drawn so that every name occurs in every role, and judged on pairs of the same names held out. The gates
// start from what masks rank first, or are those of LEAP's circuit alone, which so becomes smaller.
//
//   341_prune_nodes [NAMES] [PROMPTS] [STEPS] [SEED]     so many women and men (8), prompts to search (512), steps (400);
//                                                        another seed (0) draws other prompts, noise and random nodes
#include <circuit/data/ioi.hpp>
#include <circuit/evaluate/node_faithfulness.hpp>
#include <circuit/leap.hpp>
#include <circuit/report/table.hpp>
#include <circuit/search/node_pruning.hpp>
#include <cstdlib>
#include <iostream>
#include <set>
#include <span>

#include "train/demo_story.hpp"

using namespace circuit;

namespace {

/// Stories of the file ioi_BABA.json's template.
ContrastBatch stories(const Tokenizer& tokenizer, std::size_t count, std::size_t names, data::Split pairs,
                      std::uint64_t seed) {
  data::Random random{(pairs == data::Split::training ? 77U : 99U) + 1000 * seed};
  auto story = train::demo_story;
  story.names = names;
  story.order = data::IoiOrder::baba;
  story.pairs = pairs;
  std::vector<data::TaskPrompt> prompts;
  for (std::size_t i = 0; i < count; ++i) prompts.push_back(data::make_ioi(random, story));
  return make_contrast_batch(prompts, tokenizer);
}

/// How many nodes differ on one prompt alone, and how many of those are among the first of a ranking; means of 16.
template <class Judge>
std::pair<double, double> on_one_prompt(const Judge& judge_of, const ContrastBatch& batch, std::span<const Node> kept) {
  const std::set<Node> circuit{kept.begin(), kept.end()};
  double differ = 0;
  double inside = 0;
  constexpr std::size_t prompts = 16;
  for (std::size_t i = 0; i < prompts; ++i) {
    const auto judge = judge_of(batch.slice(i, 1));
    for (const auto& change : judge.changes()) {
      differ += 1.0 / prompts;
      inside += circuit.contains(change.node) ? 1.0 / prompts : 0.0;
    }
  }
  return {differ, inside};
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int i, std::size_t otherwise) {
    return argc > i ? static_cast<std::size_t>(std::atoi(argv[i])) : otherwise;
  };
  constexpr std::size_t batch_size = 32;
  constexpr std::size_t judged = 128;
  const auto names = number(1, 8);
  const std::uint64_t seed = number(4, 0);
  const auto model = load_model<Gpt2>(CIRCUIT_EXAMPLE_DATA "/model");
  const auto dictionaries = load_dictionaries(CIRCUIT_EXAMPLE_DATA "/attn-saes", CIRCUIT_EXAMPLE_DATA "/transcoders");
  const auto searched =
      stories(model.tokenizer(), std::max(number(2, 512), judged), names, data::Split::training, seed);
  const auto held_out = stories(model.tokenizer(), judged, names, data::Split::held_out, seed);
  std::vector<ContrastBatch> batches;
  for (std::size_t i = 0; i + batch_size <= searched.size(); i += batch_size) {
    batches.push_back(searched.slice(i, batch_size));
  }
  const auto metric_of = [](const ContrastBatch& batch) { return LogitDifference{batch}; };
  const auto masks = mask_attributions(model, dictionaries, batches, metric_of, {.steps = 6});
  const NodePruning pruning{.steps = static_cast<std::int64_t>(number(3, 400)), .seed = seed};
  const auto pruned = in_order(pruning(model, dictionaries, batches, metric_of), ByValue{});

  const auto first = searched.slice(0, judged);
  const auto found = Leap{.keep = keep::Above{.threshold = 0.0005}}(model, dictionaries, first, metric_of(first));
  const auto leap = ranked_by_attribution(found);
  std::cout << "LEAP's circuit of " << judged << " prompts: " << leap.size() << " nodes\n";
  auto of_leap = pruning;
  of_leap.price *= static_cast<double>(leap.size()) / static_cast<double>(masks.size());  // the same for each node
  const auto leap_pruned = in_order(of_leap.from(leap, model, dictionaries, batches, metric_of), ByValue{});

  const std::vector<ContrastBatch> shown{searched.slice(0, judged), held_out};
  for (const auto& batch : shown) {
    for (const auto errors : {ErrorsOutside::corrupt, ErrorsOutside::clean}) {
      const NodeEvaluation judge{model, dictionaries, batch, LogitDifference{batch}, errors};
      const auto [full, empty] = judge.range();
      std::cout << judge.changes().size() << " nodes differ, "
                << (errors == ErrorsOutside::clean ? "all errors kept" : "errors are nodes") << ": metric "
                << fixed(full, 2) << ", empty circuit " << fixed(empty, 2)
                << "\nshare of nodes  pruned  LEAP, pruned  LEAP  by mask  by mask, signed  largest change  random\n";
      const std::vector<std::vector<Node>> rankings{pruned,
                                                    leap_pruned,
                                                    leap,
                                                    in_order(masks),
                                                    in_order(masks, ByValue{}),
                                                    ranked_by_change(judge.changes()),
                                                    drawn_at_random(judge.changes(), seed + 1)};
      for (const double share : {0.02, 0.05, 0.1, 0.2}) {
        const std::vector sizes{static_cast<std::int64_t>(share * static_cast<double>(judge.changes().size()))};
        std::cout << fixed(100 * share, 0) << '%';
        for (const auto& ranked : rankings) {
          std::cout << "  " << fixed(judge.curve(ranked, sizes).front().faithfulness, 2);
        }
        std::cout << std::endl;
      }
    }
  }
  const auto judge_of = [&](const ContrastBatch& batch) {
    return NodeEvaluation{model, dictionaries, batch, LogitDifference{batch}};
  };
  const auto size = judge_of(held_out).changes().size() / 20;
  const auto [differ, inside] =
      on_one_prompt(judge_of, held_out, std::span{pruned}.first(std::min(size, pruned.size())));
  std::cout << "on one held-out prompt " << fixed(differ, 0) << " nodes differ, " << fixed(inside, 0)
            << " of them in the " << size << " of the circuit\n";
}
