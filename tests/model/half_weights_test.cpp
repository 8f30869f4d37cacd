#include <limits>
#include <map>

#include "circuit/model/gradient.hpp"
#include "circuit/model/load/gemma2.hpp"
#include "circuit/model/load/gguf.hpp"
#include "circuit/model/load/gpt2.hpp"
#include "circuit/model/load/llama.hpp"
#include "io/files.hpp"
#include "random_model.hpp"
#include "tensor_files.hpp"

using namespace circuit;
using namespace circuit_test;
namespace fs = std::filesystem;

namespace {

const fs::path test_data = fs::path{CIRCUIT_TEST_DATA};
const LoadOptions stays{.half = HalfPrecision::mapped};
const LoadOptions widens{.processing = weights::unprocessed};

/// The golden GPT-2 with its tensors as `dtype`, in a folder of its own.
struct Stored {
  Folder folder;
  Tensors tensors = read_tensors(test_data / "architectures/gpt2/model.safetensors");

  explicit Stored(at::ScalarType dtype) {
    for (auto& [name, tensor] : tensors) {
      if (tensor.is_floating_point()) tensor = tensor.to(dtype);
    }
    write();
    fs::copy_file(test_data / "architectures/gpt2/config.json", folder.path / "config.json");
  }
  void write() const { write_tensors(folder.path / "model.safetensors", tensors); }
};

at::Tensor gradient_at_embedding(const auto& model, const at::Tensor& tokens) {
  Recorder<hook::embed> recorder;
  LeafAtEmbedding leaf;
  const auto logits = model.forward(tokens, leaf, recorder);
  return gradient_of(logits.square().sum(), {std::move(recorder).cache().template get<hook::embed>()})[0];
}

/// Both computed with, value and gradient.
void check_as_widened(const auto& half, const auto& widened) {
  CHECK(is_half(half.weights().W_E));
  CHECK(is_half(half.weights().blocks[0].attn.W_Q));
  CHECK_FALSE(is_half(widened.weights().W_E));
  CHECK(half.dtype() == at::kFloat);
  CHECK(half.processing() == weights::unprocessed);
  const auto tokens = random_model::Source{3}.tokens(2, 7, half.config().d_vocab);
  CHECK(half.run(tokens).logits.equal(widened.run(tokens).logits));
  REQUIRE_CLOSE(gradient_at_embedding(half, tokens), gradient_at_embedding(widened, tokens), 1e-5);
}

}  // namespace

TEST_CASE("matrices of half precision stay as they are in a file, and compute what they compute widened") {
  for (const auto dtype : {at::kHalf, at::kBFloat16}) {
    const Stored stored{dtype};
    check_as_widened(load_model<Gpt2>(stored.folder.path, stays), load_model<Gpt2>(stored.folder.path, widens));
  }
}

TEST_CASE("so do those of a GGUF file") {
  const auto compare = [&]<class A>(std::type_identity<A>, const char* name) {
    const auto file = test_data / "gguf_models" / name;
    check_as_widened(load_gguf<A>(file, stays), load_gguf<A>(file, widens));
  };
  compare(std::type_identity<Llama>{}, "llama3_f16.gguf");
  compare(std::type_identity<Llama>{}, "qwen2_bf16.gguf");
  compare(std::type_identity<Gemma2>{}, "gemma2_f16.gguf");
}

TEST_CASE("a mapped matrix is the file's bytes, and no copy of them") {
  const Stored stored{at::kHalf};
  const auto model = load_model<Gpt2>(stored.folder.path, stays);
  const auto& W_E = model.weights().W_E;
  CHECK(W_E.storage().nbytes() == W_E.nbytes());
  CHECK(W_E.equal(stored.tensors.at("transformer.wte.weight")));
  // What is not a matrix is small and widened.
  CHECK(model.weights().blocks[0].ln1.gain.scalar_type() == at::kFloat);
}

TEST_CASE("queries and keys that a GGUF file keeps in neighbouring pairs are views of it in the architecture's order") {
  const auto file = open_gguf(test_data / "gguf_models/llama3_f16.gguf");
  const auto half = load_gguf<Llama>(file, stays);
  const auto widened = load_gguf<Llama>(file, widens);
  for (std::int32_t l = 0; l < half.config().n_layers; ++l) {
    const auto& mine = half.weights().blocks[static_cast<std::size_t>(l)].attn;
    const auto& plain = widened.weights().blocks[static_cast<std::size_t>(l)].attn;
    const auto in = "blk." + std::to_string(l);
    CHECK(mine.W_Q.data_ptr() == file.get(in + ".attn_q.weight").bytes.data());
    CHECK(mine.W_K.data_ptr() == file.get(in + ".attn_k.weight").bytes.data());
    CHECK(mine.W_Q.to(at::kFloat).flatten(1).equal(plain.W_Q));
    CHECK(mine.W_K.to(at::kFloat).flatten(1).equal(plain.W_K));
  }
  // Whoever does not ask for heads gets rows in order, in memory of their own.
  const auto source = detail::gguf::weight_source(file, half.config(), at::kFloat, HalfPrecision::mapped);
  const auto& c = half.config();
  const auto rows = source.read("model.layers.0.self_attn.q_proj.weight", {c.n_heads * c.d_head, c.d_model});
  CHECK(rows.scalar_type() == at::kHalf);
  CHECK(rows.to(at::kFloat).equal(widened.weights().blocks[0].attn.W_Q.t()));
}

TEST_CASE("runs that split head inputs read views of a file too") {
  const auto file = test_data / "gguf_models/llama3_f16.gguf";
  const auto half = load_gguf<Llama>(file, stays);
  const auto tokens = random_model::Source{3}.tokens(2, 5, half.config().d_vocab);
  const auto with = [&](const auto& model) { return model.run(tokens, record<hook::q_input>()).logits; };
  REQUIRE_CLOSE(with(half), with(load_gguf<Llama>(file, widens)), 1e-6);
}

TEST_CASE("a processing, or another dtype, is refused for matrices that stay in half precision") {
  const Stored stored{at::kHalf};
  const auto asked = [&](LoadOptions options) {
    options.half = HalfPrecision::mapped;
    return said<ConfigError>([&] { (void)load_model<Gpt2>(stored.folder.path, options); });
  };
  CHECK(asked({.processing = weights::folded_and_centered}).find("cannot stay mapped and be processed") !=
        std::string::npos);
  CHECK(asked({.processing = weights::Processing{.center_unembed = true}}).find("be processed") != std::string::npos);
  CHECK(asked({.dtype = at::kDouble}).find("only where float32 is computed with") != std::string::npos);
}

TEST_CASE("infinity in a matrix of half precision is named, large sums are not taken for it") {
  Stored stored{at::kHalf};
  auto& W = stored.tensors.at("transformer.h.1.mlp.c_fc.weight");
  W.fill_(60000.0);  // whose sum no float16 holds
  stored.write();
  CHECK_NOTHROW(load_model<Gpt2>(stored.folder.path, stays));
  W[2][3].fill_(std::numeric_limits<double>::infinity());
  stored.write();
  const auto text = said<ValueError>([&] { (void)load_model<Gpt2>(stored.folder.path, stays); });
  CHECK(text.find("transformer.h.1.mlp.c_fc.weight") != std::string::npos);
}

TEST_CASE("runs that split head inputs widen what they take apart") {
  const random_model::HalfAndWidened<Gpt2> models{4};
  const auto tokens = random_model::Source{3}.tokens(2, 5, models.half.config().d_vocab);
  const auto with = [&](const auto& model) { return model.run(tokens, record<hook::q_input, hook::attn::z>()); };
  const auto half = with(models.half);
  const auto widened = with(models.widened);
  REQUIRE_CLOSE(half.logits, widened.logits, 1e-6);
  REQUIRE_CLOSE(half.cache.get<hook::attn::z>(Layer{1}), widened.cache.get<hook::attn::z>(Layer{1}), 1e-6);
}
