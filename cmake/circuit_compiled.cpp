// The functions that circuit::compiled holds (circuit/core/compiled.hpp).
#define CIRCUIT_COMPILED_HERE
#include <circuit/leap.hpp>
#include <circuit/model/load/llama.hpp>

namespace circuit {

template HookedTransformer<Gpt2> load_model<Gpt2>(const std::filesystem::path&, const LoadOptions&);
template HookedTransformer<Llama> load_model<Llama>(const std::filesystem::path&, const LoadOptions&);

}  // namespace circuit
