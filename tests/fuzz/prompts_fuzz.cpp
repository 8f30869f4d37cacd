#include <string>
#include <vector>

#include "circuit/data/load_prompt_set.hpp"
#include "circuit/text/train_bpe.hpp"
#include "input.hpp"

namespace {

using namespace circuit;

void use(const ContrastBatch& batch) {
  for (std::size_t b = 0; b < batch.size(); ++b) {
    if (batch.clean[b].size() != batch.length() || batch.corrupt[b].size() != batch.length()) __builtin_trap();
  }
  for (const auto& [name, position] : batch.roles) {
    if (static_cast<std::size_t>(batch.role(name).value) >= batch.length()) __builtin_trap();
  }
  static_cast<void>(batch.slice(0, 1).size());
}

void use(const PromptSet& set) {
  for (const auto& prompt : set.prompts) {
    for (const auto& [name, position] : prompt.roles) {
      if (static_cast<std::size_t>(position.value) >= prompt.clean.size()) __builtin_trap();
    }
  }
  static_cast<void>(set.positions("end"));
}

}  // namespace

// Every reader of prompt files; the first byte says whether prompts begin with a BOS, and whether those that cannot be used
// are left out.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto tokenizer =
      train_bpe(count_words(std::vector<std::string>{"When Mary and John went to the store, John gave a drink to"}),
                {.vocab_size = 300, .min_count = 1})
          .tokenizer();
  if (size == 0) return 0;
  const auto bos = (data[0] & 1U) != 0 ? Bos::prepend : Bos::none;
  const PromptSetOptions options{.bos = bos, .unfit = (data[0] & 2U) != 0 ? Unfit::skip : Unfit::refuse};
  const InputFile file{data + 1, size - 1};
  const auto path = file.path();
  read_or_refuse([&] { use(load_contrast_batch(path, tokenizer, {.bos = bos})); });
  read_or_refuse([&] { use(load_contrast_batch_ids(path)); });
  read_or_refuse([&] { use(load_prompt_set(path, tokenizer, options)); });
  read_or_refuse([&] { use(load_feature_circuits_prompts(path, tokenizer, options)); });
  return read_or_refuse([&] { use(load_mib_prompts(path, tokenizer, "other", options)); });
}
