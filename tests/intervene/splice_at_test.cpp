#include "circuit/intervene/splice_at.hpp"

#include "circuit/model/gradient.hpp"
#include "circuit/model/record.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

struct SpliceAtSetting {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(1);
  at::Tensor tokens = random_model::Source{3}.tokens(2, 5, model.config().d_vocab);
  SparseDictionary<> sae;

  SpliceAtSetting() {
    random_model::Source random{5};
    const auto d = model.config().d_model;
    sae.W_enc = random({d, 30}, 0.5);
    sae.b_enc = random({30}, 0.3);
    sae.W_dec = random({30, d}, 0.4);
    sae.b_in = sae.b_out = random({d}, 0.3);
    sae.name = "resid";
  }
};

}  // namespace

TEST_CASE("with its error an SAE of the residual stream changes nothing; without, the stream is its reconstruction") {
  const SpliceAtSetting s;
  const auto own = s.model.run(s.tokens, record<hook::resid_pre>());
  REQUIRE_CLOSE(s.model.run(s.tokens, splice_at<hook::resid_pre>(Layer{1}, s.sae)).logits, own.logits, 1e-10);

  const auto [logits, cache] = s.model.run(s.tokens, splice_at<hook::resid_pre>(Layer{1}, s.sae, StreamError::dropped),
                                           record<hook::resid_pre>());
  const auto x = own.cache.get<hook::resid_pre>(Layer{1});
  const auto acts = x.sub(s.sae.b_in).matmul(s.sae.W_enc).add(s.sae.b_enc).clamp_min(0);
  REQUIRE_CLOSE(cache.get<hook::resid_pre>(Layer{1}), acts.matmul(s.sae.W_dec).add(s.sae.b_out), 1e-12);
  REQUIRE_CLOSE(cache.get<hook::resid_pre>(Layer{0}), own.cache.get<hook::resid_pre>(Layer{0}), 0.0);
  REQUIRE_FALSE(difference(logits, own.logits, 1e-2).close);
}

TEST_CASE("gradients end at the features of a spliced SAE: the error passes none on") {
  const SpliceAtSetting s;
  const c10::AutoGradMode gradient{true};
  const auto of = [&](StreamError error) {
    LeafAtEmbedding leaf;
    auto spliced = splice_at<hook::resid_pre>(Layer{0}, s.sae, error);
    auto recorder = record<hook::embed, hook::resid_pre>();
    const auto logits = s.model.forward(s.tokens, leaf, spliced, recorder);
    REQUIRE(logits.defined());
    const auto& cache = recorder.cache();
    return gradient_of(cache.get<hook::resid_pre>(Layer{0}).sum(), {cache.get<hook::embed>()}).front();
  };
  REQUIRE_CLOSE(of(StreamError::kept), of(StreamError::dropped), 1e-12);
  REQUIRE_FALSE(
      difference(of(StreamError::kept), of(StreamError::kept).mul(0).add(1), 1e-3).close);  // not the identity's
}

TEST_CASE("a dictionary that does not fit the stream is refused by name") {
  SpliceAtSetting s;
  auto wide = s.sae;
  wide.W_enc = wide.W_enc.narrow(0, 0, 4);
  wide.b_in = wide.b_in.narrow(0, 0, 4);
  REQUIRE_THROWS_AS((splice_at<hook::resid_pre>(Layer{0}, wide)), ShapeError);
  wide.W_dec = wide.W_dec.narrow(1, 0, 4);
  wide.b_out = wide.b_out.narrow(0, 0, 4);
  REQUIRE_THROWS_AS(s.model.run(s.tokens, splice_at<hook::resid_pre>(Layer{0}, wide)), ShapeError);
}
