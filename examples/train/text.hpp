#pragma once

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/data/training_text.hpp"
#include "circuit/text/train_bpe.hpp"

namespace train {

using circuit::data::IoiOptions;
using circuit::data::Random;
using circuit::data::Split;
using circuit::data::TaskPrompt;

/// The prompts that measure a task, with the bar they are held to.
struct Exam {
  std::string name;
  double bar;
  std::vector<TaskPrompt> prompts;
};

/// Prompts that training never sees: pairs of names held out, templates held out, and fresh draws of the other tasks.
[[nodiscard]] inline std::vector<Exam> make_exams(std::size_t count, std::uint64_t seed) {
  using namespace circuit::data;
  Random random{seed};
  constexpr std::size_t most_pieces = 47;  // as in training: with the BOS, 48 tokens
  const auto many = [&](const auto& make) {
    std::vector<TaskPrompt> prompts;
    while (prompts.size() < count) {
      if (auto prompt = make(prompts.size()); prompt.clean.size() <= most_pieces) prompts.push_back(std::move(prompt));
    }
    return prompts;
  };
  const IoiOptions pairs{.pairs = Split::held_out, .openings = Split::training, .actions = Split::training};
  auto later = pairs;
  later.filler_in_ten = 10;
  const IoiOptions openings{.openings = Split::held_out, .filler_in_ten = 1};
  const IoiOptions actions{.actions = Split::held_out, .filler_in_ten = 1};
  return {{"ioi, unseen pairs", 0.99, many([&](std::size_t) { return make_ioi(random, pairs); })},
          {"ioi, unseen templates", 0.95,
           many([&](std::size_t i) { return make_ioi(random, i % 2 ? openings : actions); })},
          {"induction", 0.90, many([&](std::size_t) { return make_induction(random); })},
          {"agreement", 0.90, many([&](std::size_t) { return make_agreement(random); })},
          {"greater-than", 0.90, many([&](std::size_t) { return make_greater_than(random); })},
          {"pronoun", 0.90, many([&](std::size_t) { return make_pronoun(random); })},
          {"ioi, behind filler", 0.90, many([&](std::size_t) { return make_ioi(random, later); })}};
}

/// A byte-level BPE in which every word of the generators is one token, with counts from the training text.
[[nodiscard]] inline circuit::TrainedBpe make_tokenizer(const std::vector<Exam>& exams, std::uint64_t seed) {
  std::map<std::string, std::size_t> counts;
  Random random{seed};
  for (int i = 0; i < 20000; ++i) {
    for (const auto& piece : circuit::data::make_training_line(random).pieces) ++counts[piece];
  }
  const auto know = [&](std::string_view word) { counts.try_emplace(' ' + std::string{word}, 1); };
  for (const auto& name : circuit::data::words::women) know(name);
  for (const auto& name : circuit::data::words::men) know(name);
  for (const auto& exam : exams) {
    for (const auto& prompt : exam.prompts) {
      for (const auto* pieces : {&prompt.clean, &prompt.corrupt, &prompt.answers, &prompt.wrong_answers}) {
        for (const auto& piece : *pieces) counts.try_emplace(piece, 1);
      }
    }
  }
  circuit::BpeTrainingOptions options;
  for (const auto& [piece, count] : counts) options.whole_words.push_back(piece);
  const circuit::WordCounts words(counts.begin(), counts.end());
  return circuit::train_bpe(words, options);
}

/// Lines as one padded batch.
struct Batch {
  at::Tensor tokens;   ///< [batch, pos] int64, the BOS first, padded with the BOS
  at::Tensor weights;  ///< [batch, pos]: what predicting this token counts; 0 for BOS and padding
  at::Tensor answers;  ///< [batch, pos]: 1 where the token can be known
};

/// An endless stream of training text, the same for the same seed.
class TextStream {
 public:
  TextStream(const circuit::Tokenizer& tokenizer, std::uint64_t seed, std::size_t batch_size, double answer_weight)
      : tokenizer_{tokenizer}, random_{seed}, batch_size_{batch_size}, answer_weight_{answer_weight} {}

  /// One batch in parts: short lines and long lines apart, so that little is spent on padding while every step still
  /// sees all tasks.
  std::vector<Batch> next(const circuit::data::TrainingMix& mix = {}) {
    constexpr std::size_t parts = 2;
    std::vector<Line> lines;
    for (std::size_t i = 0; i < batch_size_; ++i) lines.push_back(circuit::data::make_training_line(random_, mix));
    std::stable_sort(lines.begin(), lines.end(),
                     [](const Line& a, const Line& b) { return a.pieces.size() < b.pieces.size(); });
    std::vector<Batch> batches;
    for (std::size_t part = 0; part < parts; ++part) {
      const auto from = lines.begin() + static_cast<std::ptrdiff_t>(batch_size_ * part / parts);
      const auto to = lines.begin() + static_cast<std::ptrdiff_t>(batch_size_ * (part + 1) / parts);
      if (from != to) batches.push_back(to_batch({from, to}));
    }
    return batches;
  }

 private:
  using Line = circuit::data::TrainingLine;

  Batch to_batch(const std::vector<Line>& lines) {
    std::size_t length = 0;
    for (const auto& line : lines) length = std::max(length, line.pieces.size() + 1);
    const auto bos = *tokenizer_.bos_id();
    std::vector<std::vector<std::int32_t>> ids;
    const auto rows = static_cast<std::int64_t>(lines.size());
    Batch batch{
        {}, at::zeros({rows, static_cast<std::int64_t>(length)}), at::zeros({rows, static_cast<std::int64_t>(length)})};
    auto* weight = batch.weights.data_ptr<float>();
    auto* answer = batch.answers.data_ptr<float>();
    for (std::size_t row = 0; row < lines.size(); ++row) {
      std::vector<std::int32_t> line(length, bos);
      for (std::size_t i = 0; i < lines[row].pieces.size(); ++i) {
        line[i + 1] = id_of(lines[row].pieces[i]);
        weight[row * length + i + 1] = 1.0F;
      }
      for (const std::size_t at_piece : lines[row].answers) {
        weight[row * length + at_piece + 1] = static_cast<float>(answer_weight_);
        answer[row * length + at_piece + 1] = 1.0F;
      }
      ids.push_back(std::move(line));
    }
    batch.tokens = circuit::to_tokens(ids);
    return batch;
  }

  std::int32_t id_of(const std::string& piece) {
    const auto [found, fresh] = ids_.try_emplace(piece, 0);
    if (fresh) found->second = tokenizer_.single_token(piece);
    return found->second;
  }

  const circuit::Tokenizer& tokenizer_;
  Random random_;
  std::size_t batch_size_;
  double answer_weight_;
  std::map<std::string, std::int32_t> ids_;
};

}  // namespace train
