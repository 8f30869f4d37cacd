#include <functional>
#include <set>

#include "circuit/model/load/llama.hpp"
#include "circuit/model/record.hpp"
#include "golden.hpp"
#include "io/files.hpp"
#include "tensors.hpp"

using namespace circuit;
using namespace circuit_test;
namespace fs = std::filesystem;

namespace {

fs::path folder_of(const std::string& family) { return fs::path{CIRCUIT_TEST_DATA} / "architectures" / family; }

auto every_point() {
  return record<hook::embed, hook::resid_pre, hook::ln1::scale, hook::ln1::normalized, hook::attn::q, hook::attn::k,
                hook::attn::v, hook::attn::q_norm::scale, hook::attn::q_norm::normalized, hook::attn::k_norm::scale,
                hook::attn::k_norm::normalized, hook::attn::rot_q, hook::attn::rot_k, hook::attn::attn_scores,
                hook::attn::pattern, hook::attn::z, hook::ln1_post::scale, hook::ln1_post::normalized, hook::attn_out,
                hook::resid_mid, hook::ln2::scale, hook::ln2::normalized, hook::mlp::pre, hook::mlp::pre_linear,
                hook::mlp::post, hook::ln2_post::scale, hook::ln2_post::normalized, hook::mlp_out, hook::resid_post,
                hook::ln_final::scale, hook::ln_final::normalized>();
}

/// What the reference calls a point: "0/z", "embed".
template <class P>
std::string reference_name(P, Layer layer) {
  std::string name{P::name};
  for (const std::string part : {"attn.", "mlp.", "hook_"}) {
    if (const auto at = name.find(part); at != name.npos) name.erase(at, part.size());
  }
  return P::per_layer ? std::to_string(layer.value) + '/' + name : name;
}

/// The gain behind which the reference shows a norm, undefined where TransformerLens' point stands behind it too.
template <class A, class P>
at::Tensor gain_behind(const HookedTransformer<A>& model, P, Layer layer) {
  if (A::Norm::centers) return {};
  const auto& w = model.weights();
  const auto& block = w.blocks[static_cast<std::size_t>(layer.value)];
  if constexpr (std::same_as<P, hook::ln1::normalized>) return block.ln1.gain;
  if constexpr (std::same_as<P, hook::ln1_post::normalized>) return block.ln1_post.gain;
  if constexpr (std::same_as<P, hook::ln2::normalized>) return block.ln2.gain;
  if constexpr (std::same_as<P, hook::ln2_post::normalized>) return block.ln2_post.gain;
  if constexpr (std::same_as<P, hook::attn::q_norm::normalized>) return block.attn.q_gain;
  if constexpr (std::same_as<P, hook::attn::k_norm::normalized>) return block.attn.k_gain;
  if constexpr (std::same_as<P, hook::ln_final::normalized>) return w.ln_final.gain;
  return {};
}

/// Every tensor of the golden file is a point of ours with the same values, and every point of ours is in the file.
template <class A>
void compare(const std::string& family, at::ScalarType dtype) {
  const auto golden = open_safetensors(folder_of(family) / "golden.safetensors");
  const auto fact = [&](const std::string& name) { return to_tensor(golden.get(name)); };
  const auto model = load_model<A>(folder_of(family), {.processing = weights::unprocessed, .dtype = dtype});
  const auto [logits, cache] = model.run(fact("tokens"), every_point());
  REQUIRE_CLOSE(logits, fact("logits"), 1e-5);
  std::set<std::string> compared{"tokens", "logits"};
  const bool whole = golden.find("embed") != nullptr;
  cache.for_each([&]<class P>(P point, Layer layer, at::Tensor value) {
    auto name = reference_name(point, layer);
    if (const auto at = name.find("normalized"); at != name.npos) name.replace(at, 10, "output");
    if (!whole && golden.find(name) == nullptr) return;
    INFO(family << ' ' << name);
    if (const auto gain = gain_behind(model, point, layer); gain.defined()) value = value.mul(gain);
    REQUIRE_CLOSE(value, fact(name), 1e-5);
    compared.insert(name);
  });
  for (const auto& tensor : golden.tensors()) {
    INFO(family << ' ' << tensor.name);
    REQUIRE(compared.count(tensor.name) == 1);
  }
}

template <class A>
void compare(std::initializer_list<const char*> families) {
  for (const std::string family : families) {
    compare<A>(family, at::kFloat);
    compare<A>(family, at::kDouble);
  }
}

}  // namespace

TEST_CASE("Llama and its descendants equal transformers at every hook point") {
  compare<Llama>({"llama3", "smollm2", "mistral", "qwen2", "qwen3"});
}

TEST_CASE("every kind of rotary scaling equals transformers'") {
  compare<Llama>({"llama_linear", "llama_dynamic", "llama_yarn"});
}
