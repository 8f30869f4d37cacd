#include "circuit/dictionary/load_listed.hpp"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "io/files.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;
using namespace circuit_test;
namespace fs = std::filesystem;

namespace {

constexpr auto first_normalized = "blocks.0.ln2.hook_normalized";

fs::path golden(const std::string& name) { return fs::path{CIRCUIT_TEST_DATA} / "dictionaries" / name; }

/// A folder with a transcoder of layer 1 that says so, and a file of bare tensors that says nothing.
struct Listed {
  Folder folder;

  Listed() {
    fs::copy(golden("sae_lens_skip_transcoder"), folder.path / "mlp", fs::copy_options::recursive);
    random_model::Source random{4, at::kFloat};
    const auto W_enc = random({6, 9});
    const auto W_dec = random({9, 6});
    const auto b_enc = random({9});
    const auto b_dec = random({6});
    const auto b_dec_out = random({6});
    write_safetensors(folder.path / "own.safetensors",
                      std::vector<TensorView>{to_view("W_enc", W_enc), to_view("W_dec", W_dec), to_view("b_enc", b_enc),
                                              to_view("b_dec", b_dec), to_view("b_dec_out", b_dec_out)});
  }
  DictionarySet load(const nlohmann::json& entries) const {
    std::ofstream{folder.path / "list.json"} << nlohmann::json{{"dictionaries", entries}}.dump();
    return dictionary::load_listed(folder.path / "list.json");
  }
  std::string refused(const nlohmann::json& entries) const {
    return said<Error>([&] { (void)load(entries); });
  }
};

}  // namespace

TEST_CASE("a list places dictionaries by what their files say, or by what it says itself") {
  const Listed listed;
  const auto set =
      listed.load({{{"path", "mlp"}},
                   {{"path", "own.safetensors"}, {"reads", first_normalized}, {"writes", "blocks.0.hook_mlp_out"}}});
  REQUIRE(set.mlp(Layer{1})->has_skip());
  REQUIRE(set.mlp(Layer{0})->d_sae() == 9);
  REQUIRE_FALSE(set.mlp(Layer{0})->b_in.is_same(set.mlp(Layer{0})->b_out));  // a transcoder
  const auto sae = listed.load({{{"path", "own.safetensors"}, {"reads", "blocks.2.hook_attn_out"}}});
  REQUIRE(sae.attn(Layer{2})->b_in.is_same(sae.attn(Layer{2})->b_out));
  REQUIRE(sae.attn_site(Layer{2}) == AttentionSite::attn_out);
  REQUIRE(sae.attn_site(Layer{99}) == AttentionSite::z);  // of a layer without a dictionary, the default
}

TEST_CASE("SAEs of the residual stream are placed before the layer behind them") {
  const Listed listed;
  const auto entry = [](const char* hook) { return nlohmann::json{{"path", "own.safetensors"}, {"reads", hook}}; };
  const auto set = listed.load({entry("blocks.0.hook_resid_pre"), entry("blocks.2.hook_resid_post")});
  for (std::int32_t l = 0; l < 4; ++l) REQUIRE((set.stream(Layer{l}) != nullptr) == (l == 0 || l == 3));
  REQUIRE_THAT(listed.refused({entry("blocks.1.hook_resid_pre"), entry("blocks.0.hook_resid_post")}),
               ContainsSubstring("two dictionaries"));  // one stream
}

TEST_CASE("a list for a model may name transcoders of an MLP's input") {
  const Folder folder;
  const auto model = random_model::make<Llama>(3, at::kFloat);
  const auto width = model.config().d_model;
  random_model::Source random{4, at::kFloat};
  const auto W_enc = random({width, 9});
  const auto W_dec = random({9, width});
  const auto b_enc = random({9});
  const auto b_dec = random({width});
  write_safetensors(folder.path / "t.safetensors",
                    std::vector<TensorView>{to_view("W_enc", W_enc), to_view("W_dec", W_dec), to_view("b_enc", b_enc),
                                            to_view("b_dec", b_dec), to_view("b_dec_out", b_dec)});
  std::ofstream{folder.path / "list.json"} << R"({"dictionaries": [{"path": "t.safetensors",
      "reads": "blocks.1.mlp.hook_in", "writes": "blocks.1.mlp.hook_out"}]})";
  const auto set = dictionary::load_listed(folder.path / "list.json", model);
  REQUIRE_CLOSE(set.mlp(Layer{1})->W_enc, W_enc.mul(model.weights().blocks[1].ln2.gain.unsqueeze(-1)), 1e-6);
  REQUIRE_THROWS_AS(dictionary::load_listed(folder.path / "list.json"), ConfigError);
}

TEST_CASE("lists that cannot be followed are refused by name") {
  const Listed listed;
  REQUIRE_THAT(listed.refused({{{"path", "own.safetensors"}}}), ContainsSubstring("reads"));
  REQUIRE_THAT(listed.refused({{{"path", "nowhere"}}}), ContainsSubstring("nowhere"));
  REQUIRE_THAT(listed.refused({{{"reads", first_normalized}}}), ContainsSubstring("path"));
  REQUIRE_THAT(listed.refused({{{"path", "mlp"}}, {{"path", "mlp"}}}), ContainsSubstring("two dictionaries"));
  REQUIRE_THAT(listed.refused({{{"path", "mlp"}, {"reads", first_normalized}, {"writes", "blocks.0.hook_mlp_out"}}}),
               ContainsSubstring("sits elsewhere"));
  REQUIRE_THAT(listed.refused({{{"path", "own.safetensors"}, {"reads", "blocks.0.hook_resid_mid"}}}),
               ContainsSubstring("no place"));
  REQUIRE_THAT(listed.refused({"mlp"}), ContainsSubstring("path"));
  REQUIRE_THAT(listed.refused(nlohmann::json::object()), ContainsSubstring("dictionaries"));
}
