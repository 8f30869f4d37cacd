#pragma once

#include <filesystem>
#include <string>

#include "circuit/io/safetensors.hpp"
#include "circuit/io/to_tensor.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/load/gpt2.hpp"
#include "circuit/model/load/gpt_neox.hpp"
#include "circuit/model/load/llama.hpp"
#include "circuit/search/prompt_pair.hpp"

/// What EAP-IG's tool found; see tests/data/searches/make.py. Its scores are corrupt minus clean, ours clean minus
/// corrupt.
namespace eap_golden {

template <class A>
struct Case {
  circuit::HookedTransformer<A> model;
  std::string name;

  [[nodiscard]] static at::Tensor fact(const std::string& name) {
    static const auto file =
        circuit::open_safetensors(std::filesystem::path{CIRCUIT_TEST_DATA} / "searches/scores.safetensors");
    return circuit::to_tensor(file.get(name));
  }
  [[nodiscard]] at::Tensor get(const std::string& what) const { return fact(name + '/' + what); }
  [[nodiscard]] circuit::PromptPair prompts() const { return {get("clean"), get("corrupt")}; }
  [[nodiscard]] circuit::LogitDifference metric() const {
    const auto ids = [&](const char* which) {
      const at::Tensor t = get(which).contiguous();
      return std::vector<std::int64_t>(t.data_ptr<std::int64_t>(), t.data_ptr<std::int64_t>() + t.numel());
    };
    const auto right = ids("right");
    const auto wrong = ids("wrong");
    return circuit::LogitDifference{std::span{right}, std::span{wrong}};
  }
};

/// Calls `use` with each model.
template <class Use>
void for_each(Use&& use) {
  const std::filesystem::path data{CIRCUIT_TEST_DATA};
  const circuit::LoadOptions in_double{.processing = circuit::weights::unprocessed, .dtype = at::kDouble};
  use(Case<circuit::Gpt2>{circuit::load_model<circuit::Gpt2>(data / "golden/model", in_double), "gpt2"});
  use(Case<circuit::GptNeox>{circuit::load_model<circuit::GptNeox>(data / "architectures/pythia", in_double), "neox"});
  use(Case<circuit::Llama>{circuit::load_model<circuit::Llama>(data / "architectures/smollm2", in_double), "llama"});
}

}  // namespace eap_golden
