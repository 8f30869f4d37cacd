#include <filesystem>
#include <fstream>
#include <limits>

#include "circuit/dictionary/train/checkpoint.hpp"
#include "support.hpp"
#include "tensors.hpp"

using namespace circuit;
using circuit_test::ContainsSubstring;
using training::KnownFeatures;

namespace {

train::Options quick(std::int64_t features, std::int64_t steps, train::DecoderRows decoder = train::DecoderRows::unit) {
  train::Options options;
  options.features = features;
  options.schedule = {.steps = steps, .rate = 3e-3, .warm_up = 20};
  options.decoder = decoder;
  return options;
}

template <class A, class Dead = train::dead::Ignored>
auto trained(const KnownFeatures& known, const train::Options& options, A activation, Dead dead = {},
             double share = 0.25) {
  const auto sample = known.tokens(400, 1);
  train::Trainer trainer{sample, sample, train::Target::same, options, activation, dead};
  double first = 0.0;
  double last = 0.0;
  double active = 0.0;
  for (std::int64_t i = 0; i < options.schedule.steps; ++i) {
    const auto x = known.tokens(128, 100 + static_cast<std::uint64_t>(i));
    const auto report = trainer.step(x, x);
    if (i == 0) first = report.error;
    last = report.error;
    active = report.active;
  }
  INFO("error " << first << " to " << last << ", active " << active);
  REQUIRE(last < share * first);
  return trainer;
}

struct Known {
  random_model::Source random{5, at::kFloat};
  KnownFeatures known{random, 20, 16, 2.0};
};

}  // namespace

TEST_CASE("every activation finds features that are known") {
  const Known data;
  SECTION("TopK") {
    const auto found = trained(data.known, quick(32, 500), train::TopK{.k = 4}).finish();
    CHECK(data.known.found(found.W_dec) > 0.97);
  }
  SECTION("TopK, from random directions") {
    auto options = quick(32, 500);
    options.start = train::Start::directions;
    const auto found = trained(data.known, options, train::TopK{.k = 4}).finish();
    CHECK(data.known.found(found.W_dec) > 0.95);
  }
  SECTION("BatchTopK, with an auxiliary loss") {
    const auto found =
        trained(data.known, quick(32, 500), train::BatchTopK{.k = 2}, train::dead::Auxiliary{.k = 4, .after = 1000})
            .finish();
    CHECK(data.known.found(found.W_dec) > 0.97);
  }
  SECTION("ReLU, with resampling") {
    const auto found = trained(data.known, quick(32, 500, train::DecoderRows::free),
                               train::Relu{.price = {.price = 0.05, .wished = 3.0}},
                               train::dead::Resampled{.every = 100}, /*share=*/0.5)
                           .finish();
    CHECK(data.known.found(found.W_dec) > 0.97);
  }
  SECTION("JumpReLU") {
    const auto found =
        trained(data.known, quick(32, 500), train::JumpRelu{.price = {.price = 0.01, .wished = 2.5}}).finish();
    CHECK(data.known.found(found.W_dec) > 0.97);
  }
}

TEST_CASE("the finished dictionary computes what was trained") {
  random_model::Source random{7};
  const auto x = random({50, 6}, 1.5, 0.7);
  const auto y = random({50, 4}, 0.3, -1.0);
  const auto check = [&](auto trainer, bool sae) {
    const auto& target = sae ? x : y;
    for (int i = 0; i < 3; ++i) static_cast<void>(trainer.step(x, target));
    const auto dictionary = trainer.finish("blocks.0.any");
    dictionary.check();
    const auto size = training::number_of(trainer, "size_out");
    const auto squared = dictionary.reconstruct(x).sub(target).square().sum().template item<double>();
    CHECK(squared / 50 / size / size == Approx(trainer.step(x, target).error).epsilon(1e-9));
    CHECK(dictionary.name == "blocks.0.any");
  };
  using train::Target;
  check(train::Trainer{x, x, Target::same, quick(9, 9), train::TopK{.k = 2}}, true);
  check(train::Trainer{x, y, Target::other, quick(9, 9, train::DecoderRows::free), train::Relu{}}, false);
  check(train::Trainer{x, x, Target::same, quick(9, 9, train::DecoderRows::free), train::JumpRelu{}}, true);
  check(train::Trainer{x, y, Target::other_with_skip, quick(9, 9), train::TopK{.k = 2}}, false);
}

TEST_CASE("a trained BatchTopK is a JumpReLU at the running mean of the least that was kept") {
  random_model::Source random{8};
  const auto x = random({50, 6});
  train::Trainer trainer{x, x, train::Target::same, quick(9, 9), train::BatchTopK{.k = 2, .momentum = 0.0}};
  static_cast<void>(trainer.step(x, x));
  const auto before = trainer.finish();  // the weights have moved on by one small step
  const auto active = before.encode(x).ne(0).sum().item<double>() / 50;
  CHECK(active == Approx(2.0).margin(0.1));
}

TEST_CASE("products of bfloat16 are those of rounded operands") {
  random_model::Source random{13, at::kFloat};
  const auto a = random({30, 200}, 1.5);
  const auto b = random({20, 200}).t();
  const auto round = [](const at::Tensor& t) { return t.to(at::kBFloat16).to(at::kDouble); };
  const auto exact = round(a).matmul(round(b));
  const train::products::Bfloat16 products;
  const auto close = [&](const at::Tensor& got) {  // the result has 8 bits
    return got.to(at::kDouble).sub(exact).abs().le(exact.abs().mul(1.0 / 256).add(1e-4)).all().item<bool>();
  };
  const auto got = products.product(a, b);
  CHECK(got.scalar_type() == at::kFloat);
  CHECK(close(got));
  CHECK_FALSE(got.equal(a.matmul(b)));
  auto out = make::full({30, 20}, 7.0);
  products.write(out, a, b);
  CHECK(close(out));
  products.add(out, a, b);
  CHECK(close(out.mul(0.5)));
}

TEST_CASE("a dictionary trained by products of bfloat16 is as good") {
  const Known data;
  const auto learn = [&](auto products) {
    const auto sample = data.known.tokens(400, 1);
    train::Trainer trainer{sample,
                           sample,
                           train::Target::same,
                           quick(32, 500),
                           train::BatchTopK{.k = 2},
                           train::dead::Auxiliary{.k = 4, .after = 1000},
                           products};
    for (std::uint64_t i = 0; i < 500; ++i) {
      const auto x = data.known.tokens(128, 100 + i);
      static_cast<void>(trainer.step(x, x));
    }
    const auto fresh = data.known.tokens(2000, 9999);
    const auto found = trainer.finish();
    CHECK(found.W_enc.scalar_type() == at::kFloat);
    return found.reconstruct(fresh).sub(fresh).square().mean().template item<double>();
  };
  const auto full = learn(train::products::Full{});
  const auto narrow = learn(train::products::Bfloat16{});
  CHECK(narrow != full);
  CHECK(narrow == Approx(full).epsilon(0.05));
}

TEST_CASE("before any training a transcoder is better than the mean") {
  random_model::Source random{10};
  const auto x = random({300, 16});
  const auto y = x.matmul(random({16, 12}));
  for (const auto start : {train::Start::tokens, train::Start::directions}) {
    auto options = quick(64, 9);
    options.start = start;
    train::Trainer trainer{x, y, train::Target::other, options, train::TopK{.k = 16}};
    CHECK(trainer.step(x, y).error < 0.9);
  }
}

TEST_CASE("features that do not fire late are left out") {
  random_model::Source random{9};
  const auto x = random({50, 6});
  auto options = quick(80, 10);  // more than there are tokens
  options.least_fired = 1.0;
  train::Trainer trainer{x, x, train::Target::same, options, train::TopK{.k = 1}};
  for (int i = 0; i < 10; ++i) static_cast<void>(trainer.step(x, x));
  const auto kept = training::tensors_of(trainer)["late_fires"].gt(0).sum().item<std::int64_t>();
  CHECK(kept > 0);
  CHECK(kept <= 50);
  CHECK(trainer.finish().d_sae() == kept);
}

TEST_CASE("training that is resumed goes on bit for bit", "[checkpoint]") {
  const Known data;
  const auto folder = std::filesystem::path{"trainer_test_files"};
  std::filesystem::create_directories(folder);
  const auto path = folder / "run.checkpoint";
  const auto check = [&](auto activation, auto dead) {
    const auto sample = data.known.tokens(60, 1);
    const auto make = [&] {
      return std::vector{
          train::Trainer{sample, sample, train::Target::same, quick(32, 40), activation, dead},
          train::Trainer{sample, sample, train::Target::other_with_skip, quick(32, 40), activation, dead}};
    };
    const auto run = [&](auto& trainers, std::uint64_t from, std::uint64_t to) {
      for (auto i = from; i < to; ++i) {
        const auto x = data.known.tokens(32, 50 + i);
        for (auto& trainer : trainers) static_cast<void>(trainer.step(x, x));
      }
    };
    auto whole = make();
    run(whole, 0, 40);
    auto first = make();
    run(first, 0, 20);
    train::save_checkpoint(path, first, {.counts = {{"row", 7}}, .settings = {{"k", "3"}}});
    auto second = make();
    const auto progress = train::load_checkpoint(path, second, {{"k", "3"}});
    CHECK(progress.counts.at("row") == 7);
    CHECK(progress.settings.at("k") == "3");
    CHECK(second[0].steps_done() == 20);
    run(second, 20, 40);
    for (std::size_t t = 0; t < 2; ++t) {
      const auto a = training::tensors_of(whole[t]);
      const auto b = training::tensors_of(second[t]);
      for (const auto& [name, value] : a) {
        INFO(name);
        CHECK(value.equal(b.at(name)));
      }
      CHECK(whole[t].finish().reconstruct(sample).equal(second[t].finish().reconstruct(sample)));
    }
  };
  check(train::TopK{.k = 3}, train::dead::Auxiliary{.k = 4, .after = 64});
  check(train::BatchTopK{.k = 3}, train::dead::Ignored{});
  check(train::Relu{.price = {.price = 0.05, .wished = 3.0}}, train::dead::Resampled{.every = 5});
  check(train::JumpRelu{.price = {.wished = 3.0}}, train::dead::Ignored{});
}

TEST_CASE("a checkpoint that cannot be used says why, and changes nothing", "[checkpoint]") {
  random_model::Source random{11};
  const auto x = random({50, 6});
  const auto folder = std::filesystem::path{"trainer_test_files"};
  std::filesystem::create_directories(folder);
  const auto path = folder / "other.checkpoint";
  const auto make = [&](std::int64_t features) {
    return std::vector{train::Trainer{x, x, train::Target::same, quick(features, 9), train::TopK{.k = 2}}};
  };
  auto trainers = make(9);
  train::save_checkpoint(path, trainers, {.counts = {}, .settings = {{"k", "2"}}});
  auto wider = make(12);
  CHECK_THROWS_WITH(train::load_checkpoint(path, wider), ContainsSubstring("other.checkpoint") &&
                                                             ContainsSubstring("param.0") &&
                                                             ContainsSubstring("[6, 12], got [6, 9]"));
  CHECK_THROWS_WITH(train::load_checkpoint(path, trainers, {{"k", "3"}}),
                    ContainsSubstring("other settings: expected 3, got 2"));
  const auto before = training::tensors_of(trainers[0])["param.0"].clone();
  const auto refused_with = [&](const std::string& name, const at::Tensor& value) {
    const auto damaged = folder / "damaged.checkpoint";
    const auto whole = open_safetensors(path);
    std::vector<TensorView> views{to_view(name, value)};
    for (const auto& view : whole.tensors()) {
      if (view.name == name) continue;
      // Other weights, so that it shows whether any was taken over.
      views.push_back(view.name == "0.param.0" ? to_view(view.name, before.add(1)) : view);
    }
    write_safetensors(damaged, views, whole.metadata());
    std::string told;
    try {
      static_cast<void>(train::load_checkpoint(damaged, trainers));
    } catch (const Error& error) {
      told = error.what();
    }
    CHECK(before.equal(training::tensors_of(trainers[0])["param.0"]));
    return told;
  };
  CHECK_THAT(refused_with("count.row", at::full({}, 7.0, at::kFloat)), ContainsSubstring("count.row"));
  for (const std::string name : {"0.step", "0.adam_steps"}) {
    CHECK_THAT(refused_with(name, at::full({}, -1, at::kLong)), ContainsSubstring(name + "\": expected 0 to"));
    CHECK_THAT(refused_with(name, at::full({}, std::numeric_limits<std::int64_t>::max(), at::kLong)),
               ContainsSubstring(name));
  }
  std::vector more{trainers[0], trainers[0]};
  CHECK_THROWS_AS(train::load_checkpoint(path, more), NameError);
  CHECK_THROWS_AS(train::load_checkpoint(folder / "missing", trainers), FileError);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  CHECK_THROWS_AS(train::load_checkpoint(path, trainers), FormatError);
  CHECK(before.equal(training::tensors_of(trainers[0])["param.0"]));
}

TEST_CASE("options and batches that cannot be are one clear error") {
  random_model::Source random{12};
  const auto x = random({50, 6});
  const auto y = random({50, 4});
  using train::Target;
  CHECK_THROWS_WITH((train::Trainer{x, x, Target::same, quick(9, 9), train::TopK{.k = 10}}),
                    ContainsSubstring("\"k\"") && ContainsSubstring("expected 1 to 9, got 10"));
  CHECK_THROWS_AS((train::Trainer{x, x, Target::same, quick(9, 9), train::BatchTopK{.k = 0}}), ConfigError);
  CHECK_THROWS_AS((train::Trainer{x, x, Target::same, quick(0, 9), train::TopK{.k = 1}}), ConfigError);
  CHECK_THROWS_AS((train::Trainer{x, x, Target::same, quick(9, 9), train::Relu{.price = {.price = -1}}}), ConfigError);
  CHECK_THROWS_AS((train::Trainer{x, x, Target::same, quick(9, 9), train::JumpRelu{.bandwidth = 0}}), ConfigError);
  CHECK_THROWS_AS((train::Trainer{x, y, Target::same, quick(9, 9), train::TopK{.k = 1}}), ShapeError);
  CHECK_THROWS_AS(
      (train::Trainer{x.narrow(0, 0, 1), x.narrow(0, 0, 1), Target::same, quick(9, 9), train::TopK{.k = 1}}),
      ValueError);
  CHECK_THROWS_AS((train::Trainer{x.mul(NAN), x, Target::same, quick(9, 9), train::TopK{.k = 1}}), ValueError);
  CHECK_THROWS_AS((train::Trainer{x.to(at::kHalf), x, Target::same, quick(9, 9), train::TopK{.k = 1}}), DTypeError);
  train::Trainer trainer{x, y, Target::other, quick(9, 9), train::TopK{.k = 1}};
  CHECK_THROWS_WITH(trainer.step(y, y), ContainsSubstring("input") && ContainsSubstring("[any, 6], got [50, 4]"));
  CHECK_THROWS_AS(trainer.step(x, y.narrow(0, 0, 9)), ShapeError);
  CHECK_THROWS_WITH(trainer.step(x.mul(INFINITY), y), ContainsSubstring("not finite any more at step 0"));
}
