// How much of the model LEAP's circuit is: the metric with only its strongest nodes left and every other node at its
// corrupt value, errors too, on the prompts that were searched and on others. Beside it the nodes that masks rank
// first, those that change most, and random ones.
//
//   340_faithfulness [SEED]     of the random nodes (1)
#include <circuit/evaluate/node_faithfulness.hpp>
#include <circuit/leap.hpp>
#include <circuit/report/table.hpp>
#include <circuit/search/mask_attributions.hpp>
#include <cstdint>
#include <cstdlib>
#include <iostream>

using namespace circuit;

int main(int argc, char** argv) {
  const auto seed = static_cast<std::uint64_t>(argc > 1 ? std::atoi(argv[1]) : 1);
  const auto model = load_model<Gpt2>(CIRCUIT_EXAMPLE_DATA "/model");
  const auto dictionaries = load_dictionaries(CIRCUIT_EXAMPLE_DATA "/attn-saes", CIRCUIT_EXAMPLE_DATA "/transcoders");
  const auto prompts = [&](std::size_t first, std::size_t size) {
    return load_contrast_batch(CIRCUIT_EXAMPLE_DATA "/ioi_BABA.json", model.tokenizer(),
                               {.first = first, .size = size});
  };
  const auto searched = prompts(0, 88);
  const auto found =
      Leap{.keep = keep::Above{.threshold = 0.0005}}(model, dictionaries, searched, LogitDifference{searched});
  const auto ranked = ranked_by_attribution(found);

  const PromptPair pair = searched;
  const auto by_mask =
      in_order(mask_attributions(model, dictionaries, pair.clean, pair.corrupt, LogitDifference{searched}));

  for (const auto& batch : {searched, prompts(88, 40)}) {
    for (const auto errors : {ErrorsOutside::corrupt, ErrorsOutside::clean}) {
      const NodeEvaluation judge{model, dictionaries, batch, LogitDifference{batch}, errors};
      const auto [full, empty] = judge.range();
      std::cout << batch.clean.size() << " prompts, " << judge.changes().size() << " nodes differ, "
                << (errors == ErrorsOutside::clean ? "all errors kept" : "errors are nodes") << ": metric "
                << fixed(full, 2) << ", empty circuit " << fixed(empty, 2)
                << "\nshare of nodes  LEAP  by mask  largest change  random\n";
      for (const double share : {0.02, 0.05, 0.1, 0.2, 0.4}) {
        const std::vector sizes{static_cast<std::int64_t>(share * static_cast<double>(judge.changes().size()))};
        const auto at_size = [&](const std::vector<Node>& nodes) {
          return fixed(judge.curve(nodes, sizes).front().faithfulness, 2);
        };
        std::cout << fixed(100 * share, 0) << "%  " << at_size(ranked) << "  " << at_size(by_mask) << "  "
                  << at_size(ranked_by_change(judge.changes())) << "  "
                  << at_size(drawn_at_random(judge.changes(), seed)) << '\n';
      }
    }
  }
}
