#include "circuit/dictionary/train/activation_stream.hpp"

#include <set>

#include "circuit/model/record.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;
using circuit_test::ContainsSubstring;

namespace {

/// Row i holds i % 5 + 2 tokens.
struct Rows {
  [[nodiscard]] std::vector<std::vector<std::int32_t>> rows(std::int64_t first, std::int64_t count) const {
    std::vector<std::vector<std::int32_t>> out;
    for (auto i = first; i < first + count; ++i) {
      std::vector<std::int32_t> row;
      for (std::int64_t t = 0; t < i % 5 + 2; ++t) row.push_back(static_cast<std::int32_t>((7 * i + 3 * t) % 23));
      out.push_back(std::move(row));
    }
    return out;
  }
};

const std::vector<DictionaryHooks> sites{{"blocks.0.attn.hook_z", "blocks.0.attn.hook_z"},
                                         {"blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"}};

std::vector<double> sorted_sums(const at::Tensor& rows) {
  const auto sums = rows.sum(-1).to(at::kDouble).contiguous();
  std::vector<double> out(data_of<double>(sums), data_of<double>(sums) + sums.numel());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

TEST_CASE("a buffer gives every token of its rows once, with what each site holds there") {
  const auto model = random_model::make<Gpt2>(31);
  Rows source;
  train::ActivationStream stream{model, source, sites, {.batch = 8, .buffer_rows = 10, .rows_per_run = 4, .skip = 1}};
  std::vector<at::Tensor> z, x, y;
  for (std::int64_t buffer = 0; stream.place().buffer == buffer;) {
    const auto batch = stream.next();
    REQUIRE(batch.size() == 2);
    CHECK(batch[0].x.data_ptr() == batch[0].y.data_ptr());
    z.push_back(batch[0].x);
    x.push_back(batch[1].x);
    y.push_back(batch[1].y);
  }
  CHECK(z.size() == 3);  // 30 tokens

  // One row at a time, unpadded, unshuffled.
  std::vector<at::Tensor> wanted_z, wanted_x, wanted_y;
  for (const auto& row : source.rows(0, 10)) {
    const std::vector<std::vector<std::int32_t>> one{row};
    const auto cache = model.run(to_tokens(one), record<hook::attn::z, hook::ln2::normalized, hook::mlp_out>()).cache;
    const auto rest = [](const at::Tensor& t) { return t.flatten(2)[0].narrow(0, 1, t.size(1) - 1); };
    wanted_z.push_back(rest(cache.get<hook::attn::z>(Layer{0})));
    wanted_x.push_back(rest(cache.get<hook::ln2::normalized>(Layer{1})));
    wanted_y.push_back(rest(cache.get<hook::mlp_out>(Layer{1})));
  }
  for (const auto& [got, wanted] : {std::pair{z, wanted_z}, {x, wanted_x}, {y, wanted_y}}) {
    const auto a = sorted_sums(make::cat(got));
    const auto b = sorted_sums(make::cat(wanted));
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).margin(1e-10));
  }
  CHECK_FALSE(make::cat(z).equal(make::cat(wanted_z)));  // shuffled
}

TEST_CASE("a stream goes on exactly from a place") {
  const auto model = random_model::make<Gpt2>(32);
  Rows source;
  const train::StreamOptions options{.batch = 8, .buffer_rows = 10, .rows_per_run = 4};
  train::ActivationStream stream{model, source, sites, options};
  for (int i = 0; i < 7; ++i) static_cast<void>(stream.next());
  train::ActivationStream other{model, source, sites, options};
  other.seek(stream.place());
  CHECK(stream.place().buffer == 1);
  for (int i = 0; i < 5; ++i) {
    const auto a = stream.next();
    const auto b = other.next();
    CHECK(a[1].x.equal(b[1].x));
    CHECK(a[1].y.equal(b[1].y));
  }
}

TEST_CASE("sites, options and rows that cannot be are one clear error") {
  const auto model = random_model::make<Gpt2>(33);
  Rows source;
  const auto make = [&](std::string in, std::string out, train::StreamOptions options = {}) {
    train::ActivationStream stream{model, source, {{std::move(in), std::move(out)}}, options};
    return stream.next();
  };
  CHECK_THROWS_WITH(make("blocks.0.hook_nothing", "blocks.0.hook_mlp_out"), ContainsSubstring("blocks.0.hook_nothing"));
  CHECK_THROWS_AS(make("attn.hook_z", "attn.hook_z"), NameError);
  CHECK_THROWS_AS(make("blocks.2.attn.hook_z", "blocks.2.attn.hook_z"), IndexError);
  CHECK_THROWS_AS(make("blocks.0.attn.hook_z", "blocks.0.attn.hook_z", {.batch = 0}), ConfigError);
  CHECK_THROWS_AS(make("blocks.0.attn.hook_z", "blocks.0.attn.hook_z", {.skip = 99}), ValueError);
  CHECK_THROWS_AS((train::ActivationStream<Gpt2, Rows>{model, source, {}, {}}), ConfigError);
  struct None {
    [[nodiscard]] std::vector<std::vector<std::int32_t>> rows(std::int64_t, std::int64_t) const { return {}; }
  };
  None none;
  train::ActivationStream empty{model, none, sites, {}};
  CHECK_THROWS_WITH(empty.next(), ContainsSubstring("no rows"));
}
