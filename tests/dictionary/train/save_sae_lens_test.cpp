#include <filesystem>

#include "circuit/dictionary/load/sae_lens.hpp"
#include "circuit/dictionary/save/sae_lens.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;
using circuit_test::ContainsSubstring;

namespace {

const std::filesystem::path scratch{"save_sae_lens_test_files"};

struct Parts {
  random_model::Source random{21, at::kFloat};
  at::Tensor b_dec = random({6});

  SparseDictionary<> sae(activation::Any activation) {
    return {{.W_enc = random({6, 9}), .b_enc = random({9}), .W_dec = random({9, 6}), .b_in = b_dec, .b_out = b_dec},
            std::move(activation)};
  }
  SparseDictionary<> transcoder(activation::Any activation, bool skip) {
    return {{.W_enc = random({6, 9}),
             .b_enc = random({9}),
             .W_dec = random({9, 4}),
             .b_in = {},
             .b_out = random({4}),
             .W_skip = skip ? random({6, 4}) : at::Tensor{}},
            std::move(activation)};
  }
};

void check_round_trip(const SparseDictionary<>& saved, const DictionaryHooks& hooks, const char* architecture) {
  INFO(architecture);
  save_sae_lens(scratch, saved, {.hooks = hooks, .context_size = 48, .expects = weights::folded_and_centered});
  CHECK(read_json(scratch / "cfg.json").at("architecture") == architecture);
  const auto loaded = load_sae_lens(scratch);
  random_model::Source random{22, at::kFloat};
  const auto x = random({5, 6});
  CHECK(loaded.dictionary.encode(x).equal(saved.encode(x)));
  CHECK(loaded.dictionary.encode(x).ne(0).any().item<bool>());
  CHECK_FALSE(loaded.dictionary.encode(x).ne(0).all().item<bool>());
  REQUIRE_CLOSE(loaded.dictionary.reconstruct(x), saved.reconstruct(x), 1e-6);
  CHECK(loaded.hooks.in == hooks.in);
  CHECK(loaded.hooks.out == hooks.out);
  CHECK(loaded.hooks.head == hooks.head);
  REQUIRE(loaded.expects.has_value());
  CHECK(*loaded.expects == weights::folded_and_centered);
}

}  // namespace

TEST_CASE("what is saved in SAELens' layout is read back with the same numbers") {
  Parts parts;
  const DictionaryHooks z{"blocks.1.attn.hook_z", "blocks.1.attn.hook_z"};
  const DictionaryHooks mlp{"blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"};
  const activation::Any jump{activation::JumpRelu{parts.random({9}).abs()}};
  check_round_trip(parts.sae({}), z, "standard");
  check_round_trip(parts.sae({}), {"blocks.1.attn.hook_z", "blocks.1.attn.hook_z", 2}, "standard");
  check_round_trip(parts.sae({activation::TopK{.k = 3}}), z, "topk");
  check_round_trip(parts.sae(jump), z, "jumprelu");
  check_round_trip(parts.transcoder({}, false), mlp, "transcoder");
  check_round_trip(parts.transcoder({}, true), mlp, "skip_transcoder");
  check_round_trip(parts.transcoder(jump, false), mlp, "jumprelu_transcoder");
  check_round_trip(parts.transcoder(jump, true), mlp, "jumprelu_skip_transcoder");
}

TEST_CASE("float16 is rounded once") {
  Parts parts;
  const auto saved = parts.sae({});
  save_sae_lens(scratch, saved, {.hooks = {"blocks.0.hook_resid_pre", "blocks.0.hook_resid_pre"}, .dtype = at::kHalf});
  CHECK(load_sae_lens(scratch).dictionary.W_dec.equal(saved.W_dec.to(at::kHalf).to(at::kFloat)));
}

TEST_CASE("what SAELens has no place for is refused by name") {
  Parts parts;
  const SaeLensMetadata mlp{.hooks = {"blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"}};
  const SaeLensMetadata z{.hooks = {"blocks.1.attn.hook_z", "blocks.1.attn.hook_z"}};
  CHECK_THROWS_WITH(save_sae_lens(scratch, parts.transcoder({activation::TopK{.k = 3}}, false), mlp),
                    ContainsSubstring("TopK transcoder") && ContainsSubstring("BatchTopK"));
  CHECK_THROWS_AS(save_sae_lens(scratch, parts.sae({activation::GroupMax{.groups = 3}}), z), ConfigError);
  CHECK_THROWS_AS(save_sae_lens(scratch, parts.sae({activation::TopK{.k = 3, .inner = activation::Inner::none}}), z),
                  ConfigError);
  auto two = parts.sae({});
  two.b_in = parts.random({6});
  CHECK_THROWS_WITH(save_sae_lens(scratch, two, z), ContainsSubstring("b_in is not its b_out"));
  CHECK_THROWS_AS(save_sae_lens(scratch, parts.sae({}), mlp), ConfigError);
  auto across = parts.transcoder({}, false);
  across.W_later = parts.random({across.d_sae(), 2, across.d_out()});
  CHECK_THROWS_WITH(save_sae_lens(scratch, across, mlp), ContainsSubstring("W_later"));
  auto undoing = parts.transcoder({}, false);
  undoing.input_norm = {InputNorm::Kind::constant_norm};
  CHECK_THROWS_WITH(save_sae_lens(scratch, undoing, mlp), ContainsSubstring("undoes its normalisation"));
  auto keeping = parts.sae({});
  keeping.input_norm = {InputNorm::Kind::layer_norm, /*undone=*/false};
  CHECK_THROWS_WITH(save_sae_lens(scratch, keeping, z), ContainsSubstring("does not undo"));
  CHECK_THROWS_AS(save_sae_lens("/proc/no/such", parts.sae({}), z), FileError);
}
