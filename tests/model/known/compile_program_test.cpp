#include "circuit/model/known/compile_program.hpp"

#include "circuit/model/known/repeated_pair.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

/// Every prompt of a first token and `length` - 1 of `words` words.
std::vector<std::vector<std::int32_t>> all_prompts(std::int32_t words, std::int64_t length) {
  std::vector<std::vector<std::int32_t>> rows{{words}};
  for (std::int64_t p = 1; p < length; ++p) {
    std::vector<std::vector<std::int32_t>> longer;
    for (const auto& row : rows) {
      for (std::int32_t w = 0; w < words; ++w) {
        longer.push_back(row);
        longer.back().push_back(w);
      }
    }
    rows = std::move(longer);
  }
  return rows;
}

/// What each variable is in the last stream, as one-hot as the weights make it.
at::Tensor categories_of(const at::Tensor& stream, const CompiledProgram& compiled, Variable v) {
  return stream.narrow(-1, compiled.columns[v.index], v.categories);
}

/// [batch, pos] of a variable by the program itself.
at::Tensor by_hand(const Program& program, const std::vector<std::vector<std::int32_t>>& rows, Variable v) {
  std::vector<std::vector<std::int32_t>> out;
  for (const auto& row : rows) {
    const auto values = program.values(row)[v.index];
    out.emplace_back(values.begin(), values.end());
  }
  return to_tokens(out);
}

/// Whether the last three words are one: two gathers in one layer, a map of three variables, and a step that the answer
/// does not need.
Program thrice_program(std::int64_t words, std::int64_t length) {
  Program p{words, length};
  const auto back = [&](std::int64_t n) {
    return p.add(Gather{.query = p.places(),
                        .key = p.places(),
                        .matches = [n](std::int64_t query, std::int64_t key) { return key + n == query; },
                        .value = p.words()});
  };
  const auto one = back(1);
  const auto two = back(2);
  const auto equal =
      p.add(Map{.of = {one, two, p.words()}, .categories = 2, .table = [](std::span<const std::int64_t> v) {
                  return std::int64_t{v[0] == v[1] && v[1] == v[2]};
                }});
  p.add(Map{.of = {p.words()}, .categories = 3, .table = [](std::span<const std::int64_t> v) { return v[0] % 3; }});
  p.say(equal);
  return p;
}

}  // namespace

TEST_CASE("compiled weights compute every step of a program on every prompt of a small vocabulary") {
  const auto check = [](const Program& program, const std::vector<std::vector<std::int32_t>>& rows) {
    const auto compiled = compile_program(program, {.distractors = 2, .sharpness = 80, .noise = 0});
    const auto last = Layer{static_cast<std::int32_t>(compiled.model.config().n_layers - 1)};
    const auto run = compiled.model.run(to_tokens(rows), record<hook::resid_post>());
    const auto stream = run.cache.get<hook::resid_post>(last);
    for (const auto& v : program.variables()) {
      const auto expected = by_hand(program, rows, v);
      const auto one_hot = make::zeros({expected.size(0), expected.size(1), v.categories}, at::kDouble)
                               .scatter(-1, expected.unsqueeze(-1), 1);
      REQUIRE_CLOSE(categories_of(stream, compiled, v), one_hot, 1e-12);
    }
    CHECK(run.logits.argmax(-1).equal(by_hand(program, rows, program.answer())));
  };
  check(repeated_pair_program(3, 7), all_prompts(3, 7));
  check(thrice_program(3, 5), all_prompts(3, 5));
  Program twice{3, 4};  // one variable named twice
  twice.say(twice.add(Map{.of = {twice.words(), twice.words()},
                          .categories = 3,
                          .table = [](std::span<const std::int64_t> v) { return (v[0] + v[1]) % 3; }}));
  check(twice, all_prompts(3, 4));
}

TEST_CASE("what a program says survives distractors, and blunt scores") {
  const auto rows = all_prompts(3, 7);
  const auto program = repeated_pair_program(3, 7);
  const auto expected = by_hand(program, rows, program.answer()).select(1, -1);
  for (const std::int64_t distractors : {0, 3}) {
    const auto compiled = compile_program(program, {.distractors = distractors, .sharpness = 8, .noise = 0.02});
    CHECK(compiled.model.run(to_tokens(rows)).logits.select(1, -1).argmax(-1).equal(expected));
  }
}

TEST_CASE("the true edges are those that carry what the words decide") {
  const auto edges_of = [](const CompiledProgram& compiled) {
    std::vector<std::pair<std::int64_t, std::int64_t>> edges;
    const auto found = compiled.edges.nonzero();
    for (std::int64_t i = 0; i < found.size(0); ++i) {
      edges.emplace_back(found[i][0].item<std::int64_t>(), found[i][1].item<std::int64_t>());
    }
    return edges;
  };
  using Edges = std::vector<std::pair<std::int64_t, std::int64_t>>;
  const Layer first{0};
  const Layer second{1};
  {
    const auto compiled = compile_program(repeated_pair_program(3, 7), {.distractors = 3});
    const auto c = Components::of(compiled.model);
    CHECK(c.n_layers == 2);
    CHECK(c.n_heads == 4);
    CHECK(edges_of(compiled) == Edges{{0, c.first_value(first)},
                                      {0, c.mlp_in(first)},
                                      {c.first_head(first), c.mlp_in(first)},
                                      {c.mlp(first), c.first_query(second)},
                                      {c.mlp(first), c.first_key(second)},
                                      {c.first_head(second), c.mlp_in(second)},
                                      {c.mlp(second), c.logits()}});
  }
  {
    const auto compiled = compile_program(thrice_program(3, 5), {.distractors = 0});
    const auto c = Components::of(compiled.model);
    CHECK(c.n_layers == 1);
    CHECK(c.n_heads == 2);
    CHECK(edges_of(compiled) == Edges{{0, c.first_value(first)},
                                      {0, c.first_value(first) + 1},
                                      {0, c.mlp_in(first)},
                                      {c.first_head(first), c.mlp_in(first)},
                                      {c.first_head(first) + 1, c.mlp_in(first)},
                                      {c.mlp(first), c.logits()}});
  }
}

TEST_CASE("a program that cannot be compiled is refused") {
  Program silent{3, 5};
  CHECK_THROWS_AS(compile_program(silent), ValueError);
  Program many{3, 5};
  many.say(many.places());
  CHECK_THROWS_AS(compile_program(many), ValueError);
  Program large{400, 5};
  large.say(large.add(
      Map{.of = {large.words(), large.words()}, .categories = 2, .table = [](auto) { return std::int64_t{0}; }}));
  CHECK_THROWS_AS(compile_program(large), ValueError);
  Program wrong{3, 5};
  wrong.say(wrong.add(Map{.of = {wrong.words()}, .categories = 2, .table = [](auto v) { return v[0]; }}));
  CHECK_THROWS_AS(compile_program(wrong), ValueError);
  CHECK_THROWS_AS(compile_program(repeated_pair_program(3, 5), {.distractors = -1}), ValueError);
}
