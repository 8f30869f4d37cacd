// Load a model, run a prompt, look at a hook point.
#include <circuit/leap.hpp>
#include <circuit/report/table.hpp>
#include <iostream>

using namespace circuit;

int main() {
  const auto model = load_model<Gpt2>(CIRCUIT_EXAMPLE_DATA "/model");
  std::cout << model.config().n_layers << " layers, " << model.config().n_heads << " heads\n";

  const std::vector<std::vector<std::int32_t>> prompt{
      model.tokenizer().encode("Then, Alice and Bob went to the store. Then Bob gave a ring to", Bos::prepend)};
  const auto [logits, cache] = model.run(to_tokens(prompt), record<hook::attn::pattern>());

  const auto next = logits[0][-1].argmax().item<std::int64_t>();
  std::cout << "next token:" << model.tokenizer().token_text(static_cast<std::int32_t>(next)) << '\n';

  // Where each layer's last token looks most, mean over heads.
  for (std::int32_t l = 0; l < model.config().n_layers; ++l) {
    const auto row = cache.get<hook::attn::pattern>(Layer{l})[0].mean(0)[-1];
    const auto key = static_cast<std::size_t>(row.argmax().item<std::int64_t>());
    std::cout << Layer{l} << ": \"" << model.tokenizer().token_text(prompt[0][key]) << "\" "
              << fixed(row.max().item<double>(), 1) << '\n';
  }
}
