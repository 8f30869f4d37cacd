#pragma once

#include <concepts>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/linear/attention_map.hpp"
#include "circuit/linear/depth.hpp"
#include "circuit/linear/frozen_run.hpp"
#include "circuit/linear/modules.hpp"
#include "circuit/linear/post_norm.hpp"
#include "circuit/linear/skip_map.hpp"
#include "circuit/metric/metric.hpp"
#include "circuit/model/gradient.hpp"
#include "circuit/model/gradient_rule.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// Gradients of each prompt's own metric with respect to what is added to the residual stream, [batch, pos, d_model].
struct OutputGradients {
  at::Tensor embed;
  std::vector<at::Tensor> attn_out;  ///< by layer
  std::vector<at::Tensor> mlp_out;
  at::Tensor last;                 ///< at the residual stream after the last block
  std::vector<at::Tensor> stream;  ///< before each layer and behind the last; undefined where no dictionary is

  /// On what lies at a depth.
  [[nodiscard]] const at::Tensor& at_depth(std::int64_t depth) const {
    const auto layer = static_cast<std::size_t>(depth / 3);
    return depth % 3 == 0 ? stream[layer] : depth % 3 == 1 ? attn_out[layer] : mlp_out[layer];
  }
};

/// One module (attention or MLP of a layer) on one run, taken apart: features + rest + constant (+ the linear part of a
/// skip path, which is no node) = true output.
struct ModuleState {
  ActiveFeatures features;     ///< empty where the module has no dictionary
  at::Tensor rest;             ///< [batch, pos, d_model]  what the dictionary misses, or the whole output without one;
                               ///< undefined where it misses nothing
  at::Tensor constant{};       ///< [d_model] in any run, or [batch, pos, d_model] where it differs; undefined: nothing
  at::Tensor write_scale{};    ///< [batch, pos, 1]  by which writes are divided: the post-norm's, and the inverse of
                               ///< what the dictionary's own normalisation multiplies them by; undefined: 1
  HeldInputNorm input_norm{};  ///< [batch, pos, 1]  of the dictionary
};

/// A run of the model as its dictionaries describe it.
struct DescribedRun {
  at::Tensor embed;               ///< [batch, pos, d_model]  token embedding
  at::Tensor pos_embed;           ///< the same for positions; undefined where the model adds none
  std::vector<ModuleState> attn;  ///< by layer
  std::vector<ModuleState> mlp;
  std::vector<ModuleState> stream;  ///< before each layer and behind the last; empty where no dictionary describes it
};

/// Everything a linear search reads, from one clean run with its gradient and, for contrast, one corrupt run.
struct Linearization {
  FrozenRun run;  ///< clean
  DescribedRun clean;
  DescribedRun corrupt;                ///< empty vectors where there is no contrast
  std::vector<at::Tensor> map_change;  ///< [batch, pos, d_model] by depth, of transparent attention and skip paths with
                                       ///< contrast: (clean map - corrupt map) of the corrupt stream; else undefined
  at::Tensor metric;                   ///< [batch]  the metric of each prompt
  at::Tensor metric_constant;          ///< [batch]  what the unembedding's biases (the final norm's through it) give a
                                       ///< linear metric
  OutputGradients gradients;           ///< of the original model

  [[nodiscard]] bool has_contrast() const { return !corrupt.attn.empty(); }
  [[nodiscard]] std::int64_t batch() const { return clean.embed.size(0); }
  [[nodiscard]] std::int64_t length() const { return clean.embed.size(1); }
};

/// Whether the metric's gradient sees the final norm's scale move; or a gradient rule, for every part of the model.
template <class F>
concept FinalNorm = GradientRule<F> || requires { typename F::Attachment; };

namespace final_norm {
/// The scale is held fixed, so that metric edges and constants sum to the metric.
struct Frozen {
  using Attachment = FrozenFinalScale;
};
/// The exact gradient.
struct Exact {
  struct Attachment {};
};
}  // namespace final_norm

/// Runs the model on clean (and corrupt) prompts, reads the metric from the logits before any soft cap, differentiates the
/// metric and encodes with every dictionary. This is all the work on the model itself; what follows only multiplies what is
/// kept here.
/// clean, corrupt  [batch, pos] int64; corrupt undefined for no contrast
/// throws  ShapeError when corrupt and clean disagree, ValueError for non-finite metrics or gradients, and what
///         `dictionaries.check` throws
template <FinalNorm Final, Architecture A, Dictionaries Set, Metric M>
[[nodiscard]] Linearization linearize(const HookedTransformer<A>& model, const Set& dictionaries,
                                      const at::Tensor& clean, const at::Tensor& corrupt, const M& metric);

}  // namespace circuit

namespace circuit::detail {

template <class Final, class A>
struct FinalAttachment {
  using type = typename Final::Attachment;
};
template <GradientRule Final, class A>
struct FinalAttachment<Final, A> {
  using type = typename Final::template For<A>;
};
template <class Final, class A>
using AttachmentOf = typename FinalAttachment<Final, A>::type;

/// The constant part of a hook_z dictionary's output behind W_O: b_dec W_O + b_O.
[[nodiscard]] inline at::Tensor constant_through_output(const at::Tensor& constant, const AttentionWeights& w) {
  if (!constant.defined()) return w.b_O;
  return affine(constant.unsqueeze(0), w.W_O, w.b_O).squeeze(0);
}

/// Holds a dictionary's own normalisation at what it read, [batch, pos, d_in], and turns the scale by which its writes
/// are divided behind it into one for both.
inline void hold_input_norm(const DictionaryWeights& dictionary, const at::Tensor& input, ModuleState& state) {
  state.input_norm = dictionary.input_norm.held(input);
  const auto& factor = state.input_norm.factor;
  if (!factor.defined()) return;
  state.write_scale = state.write_scale.defined() ? state.write_scale.div(factor) : factor.reciprocal();
}

/// What a layer's attention dictionary read in a recorded run, [batch, pos, d_in].
[[nodiscard]] inline at::Tensor attn_input(const FrozenRun& run, AttentionSite site, Layer layer) {
  return site == AttentionSite::z ? run.get<hook::attn::z>(layer).flatten(2) : run.get<hook::attn_out>(layer);
}

/// Sets what a layer's attention adds in a run whatever its features do, and the scale by which their writes are divided.
template <Architecture A, Dictionaries Set>
void set_attention_constant(const HookedTransformer<A>& model, const Set& dictionaries, const FrozenRun& run,
                            Layer layer, ModuleState& state) {
  const auto* dictionary = dictionaries.attn(layer);
  if (has_transparent_attention(dictionaries, layer)) {
    state.constant = attention_map_constant(model, run, layer);
  } else if (dictionary != nullptr) {
    const auto site = dictionaries.attn_site(layer);
    if constexpr (A::Wiring::post_norms) {
      if (site == AttentionSite::z) state.write_scale = run.get<hook::ln1_post::scale>(layer);
    }
    hold_input_norm(*dictionary, attn_input(run, site, layer), state);
    state.constant = dictionary->output_constant(state.input_norm);
    if (site == AttentionSite::attn_out) return;
    const auto& w = model.weights().blocks[static_cast<std::size_t>(layer.value)].attn;
    state.constant = behind_post_norm(model, run, layer, constant_through_output(state.constant, w));
  }
}

/// true output - features - constant
[[nodiscard]] inline at::Tensor rest_of(const at::Tensor& output, const at::Tensor& from_features,
                                        const at::Tensor& constant) {
  const auto rest = output.sub(from_features.view(output.sizes()));
  return constant.defined() ? rest.sub(constant) : rest;
}

/// Values of several runs, one run's prompts after another's, so that encoding all of them reads the encoder once.
[[nodiscard]] inline at::Tensor joined(const std::vector<at::Tensor>& of_runs) {
  return of_runs.size() == 1 ? of_runs.front() : make::cat(of_runs, 0);
}

/// Takes one module apart on every run, its constants known.
/// Exact      whether the features make up all of the output, but for the constant
/// active     in all runs together
/// outputs    without the linear part of a skip path
/// written    ActiveFeatures -> what they write into the residual stream, [rows, d_model], before it is divided by a scale
template <bool Exact, class Written>
void describe_module(const ActiveFeatures& active, const std::vector<at::Tensor>& outputs, Written&& written,
                     const std::vector<ModuleState*>& states) {
  const auto rows = active.rows() / static_cast<std::int64_t>(states.size());
  for (std::size_t r = 0; r < states.size(); ++r) {
    states[r]->features = active.slice(static_cast<std::int64_t>(r) * rows, rows);
  }
  if constexpr (Exact) return;
  const auto from_features = written(active);
  for (std::size_t r = 0; r < states.size(); ++r) {
    const auto first = static_cast<std::int64_t>(r) * rows;
    auto& state = *states[r];
    auto own = from_features.narrow(0, first, rows).view(outputs[r].sizes());
    if (state.write_scale.defined()) own = own.div(state.write_scale);
    state.rest = rest_of(outputs[r], own, state.constant);
  }
}

/// What an attention dictionary's active features write into the residual stream; those that pass a post-norm before they
/// are divided by its scale. return [rows, d_model]
template <Architecture A, Dictionaries Set>
[[nodiscard]] at::Tensor attn_written(const HookedTransformer<A>& model, const Set& dictionaries, Layer layer,
                                      const ActiveFeatures& active) {
  const auto written = decode_active(*dictionaries.attn(layer), active);
  if (dictionaries.attn_site(layer) != AttentionSite::z) return written;
  const auto& block = model.weights().blocks[static_cast<std::size_t>(layer.value)];
  const auto through = product(written, block.attn.W_O);
  if constexpr (A::Wiring::post_norms) return A::Norm::unscaled(through, block.ln1_post);
  return through;
}

/// The same of an MLP's.
template <Architecture A, Dictionaries Set>
[[nodiscard]] at::Tensor mlp_written(const HookedTransformer<A>& model, const Set& dictionaries, Layer layer,
                                     const ActiveFeatures& active) {
  const auto written = decode_active(*dictionaries.mlp(layer), active);
  if constexpr (mlp_writes_pass_post_norm<A, Set>) {
    return A::Norm::unscaled(written, model.weights().blocks[static_cast<std::size_t>(layer.value)].ln2_post);
  } else {
    return written;
  }
}

/// What an MLP's features and constant are behind the post-norm that they pass.
template <Architecture A>
void pass_mlp_post_norm(const HookedTransformer<A>& model, const FrozenRun& run, Layer layer, ModuleState& state) {
  const auto& norm = model.weights().blocks[static_cast<std::size_t>(layer.value)].ln2_post;
  const auto& scale = run.get<hook::ln2_post::scale>(layer);
  state.write_scale = state.write_scale.defined() ? state.write_scale.mul(scale) : scale;
  state.constant = constant_behind<typename A::Norm>(norm, scale, state.constant);
}

/// The features of crosscoders in some runs, which are referred to: each encoded once, however many layers it writes into.
template <Architecture A>
class CrosscoderFeatures {
 public:
  explicit CrosscoderFeatures(const std::vector<const FrozenRun*>& runs) : runs_{&runs} {}

  /// Those that write into the stream before a layer, in all runs together.
  [[nodiscard]] ActiveFeatures into(const Crosscoder& crosscoder, Layer layer) {
    const auto [found, added] = parts_.try_emplace(&crosscoder);
    if (added) found->second = encode_parts(crosscoder, read(crosscoder));
    return writing_into(crosscoder, found->second, layer);
  }

 private:
  /// return  [runs * batch, pos, layers, d_model]
  [[nodiscard]] at::Tensor read(const Crosscoder& crosscoder) const {
    std::vector<at::Tensor> of_runs;
    for (const auto* run : *runs_) {
      std::vector<at::Tensor> streams;
      for (const auto layer : crosscoder.layers) streams.push_back(stream_before<A>(*run, layer));
      of_runs.push_back(make::stack(streams, -2));
    }
    return joined(of_runs);
  }

  const std::vector<const FrozenRun*>* runs_;
  std::map<const Crosscoder*, std::vector<ActiveFeatures>> parts_;
};

/// Describes the stream wherever a dictionary or a crosscoder does.
template <Architecture A, DescribesStream Set>
void describe_streams(const Set& dictionaries, const std::vector<const FrozenRun*>& runs,
                      std::vector<DescribedRun>& out) {
  CrosscoderFeatures<A> across{runs};
  for (std::size_t slot = 0; slot < out.front().stream.size(); ++slot) {
    const Layer layer{static_cast<std::int32_t>(slot)};
    const auto* dictionary = dictionaries.stream(layer);
    if (dictionary == nullptr) continue;
    std::vector<at::Tensor> values;
    std::vector<ModuleState*> states;
    for (std::size_t r = 0; r < runs.size(); ++r) {
      auto& state = out[r].stream[slot];
      values.push_back(stream_before<A>(*runs[r], layer));
      hold_input_norm(*dictionary, values.back(), state);
      state.constant = dictionary->output_constant(state.input_norm);
      states.push_back(&state);
    }
    const auto* crosscoder = crosscoder_of(dictionaries, layer);
    const auto active =
        crosscoder != nullptr ? across.into(*crosscoder, layer) : dictionaries.active_stream(layer, joined(values));
    describe_module<false>(
        active, values, [&](const ActiveFeatures& features) { return decode_active(*dictionary, features); }, states);
  }
}

/// The runs as the dictionaries describe them, all of one shape.
template <Architecture A, Dictionaries Set>
[[nodiscard]] std::vector<DescribedRun> describe(const HookedTransformer<A>& model, const Set& dictionaries,
                                                 const std::vector<const FrozenRun*>& runs) {
  const auto layers = static_cast<std::size_t>(model.config().n_layers);
  std::vector<DescribedRun> out(runs.size());
  for (std::size_t r = 0; r < runs.size(); ++r) {
    out[r].embed = runs[r]->get<hook::embed>();
    if constexpr (A::Positions::adds_embedding) out[r].pos_embed = runs[r]->get<hook::pos_embed>();
    out[r].attn.resize(layers);
    out[r].mlp.resize(layers);
    out[r].stream.resize(layers + 1);
  }
  const auto values = [&]<HookPoint P>(P, Layer layer) {
    std::vector<at::Tensor> of_runs;
    for (const auto* run : runs) of_runs.push_back(run->template get<P>(layer));
    return of_runs;
  };
  const auto states = [&](auto modules, std::size_t slot) {
    std::vector<ModuleState*> of_runs;
    for (auto& run : out) of_runs.push_back(&(run.*modules)[slot]);
    return of_runs;
  };
  ActiveFeatures none;
  none.row_begin.assign(static_cast<std::size_t>(out.front().embed.size(0) * out.front().embed.size(1)) + 1, 0);
  const auto whole = [&](const std::vector<at::Tensor>& outputs, const std::vector<ModuleState*>& modules) {
    for (std::size_t r = 0; r < modules.size(); ++r) {
      modules[r]->features = none;
      modules[r]->rest = outputs[r];
    }
  };
  if constexpr (DescribesStream<Set>) describe_streams<A>(dictionaries, runs, out);
  for (std::size_t slot = 0; slot < layers; ++slot) {
    const Layer layer{static_cast<std::int32_t>(slot)};
    const auto attn_outs = values(hook::attn_out{}, layer);
    const auto attn_states = states(&DescribedRun::attn, slot);
    for (std::size_t r = 0; r < runs.size(); ++r) {
      set_attention_constant(model, dictionaries, *runs[r], layer, *attn_states[r]);
    }
    if (dictionaries.attn(layer) != nullptr) {
      std::vector<at::Tensor> inputs;
      for (const auto* run : runs) inputs.push_back(attn_input(*run, dictionaries.attn_site(layer), layer));
      describe_module<describes_exactly<Set>>(
          dictionaries.active_attn(layer, joined(inputs)), attn_outs,
          [&](const ActiveFeatures& active) { return attn_written(model, dictionaries, layer, active); }, attn_states);
    } else {
      whole(attn_outs, attn_states);
    }
    if constexpr (!has_mlp<A>) continue;
    auto mlp_outs = values(hook::mlp_out{}, layer);
    const auto mlp_states = states(&DescribedRun::mlp, slot);
    for_each_cross_layer(
        dictionaries, layer, [&](Layer from, std::int64_t ahead) {  // is not missing, nor this layer's own
          for (std::size_t r = 0; r < runs.size(); ++r) {
            const auto& active = out[r].mlp[static_cast<std::size_t>(from.value)].features;
            mlp_outs[r] =
                mlp_outs[r].sub(decode_active(*dictionaries.mlp(from), active, ahead).view(mlp_outs[r].sizes()));
          }
        });
    if (const auto* dictionary = dictionaries.mlp(layer)) {
      auto outputs = mlp_outs;
      std::vector<at::Tensor> inputs;
      for (std::size_t r = 0; r < runs.size(); ++r) {
        const auto site = mlp_site(dictionaries, layer);
        inputs.push_back(mlp_input<A>(*runs[r], site, layer));
        hold_input_norm(*dictionary, inputs.back(), *mlp_states[r]);
        mlp_states[r]->constant = mlp_constant(model, *dictionary, mlp_states[r]->input_norm, site, layer);
        if constexpr (mlp_writes_pass_post_norm<A, Set>) pass_mlp_post_norm(model, *runs[r], layer, *mlp_states[r]);
        if (dictionary->has_skip()) outputs[r] = outputs[r].sub(skip_map(model, *dictionary, *runs[r], site, layer));
      }
      describe_module<describes_exactly<Set>>(
          dictionaries.active_mlp(layer, joined(inputs)), outputs,
          [&](const ActiveFeatures& active) { return mlp_written(model, dictionaries, layer, active); }, mlp_states);
    } else {
      whole(mlp_outs, mlp_states);
    }
  }
  return out;
}

/// What the clean run's transparent attention and skip paths make of the corrupt stream, less what the corrupt run's own
/// made of it; by the depth at which gradients pass them.
template <Architecture A, Dictionaries Set>
[[nodiscard]] std::vector<at::Tensor> map_changes(const HookedTransformer<A>& model, const Set& dictionaries,
                                                  const Linearization& lin, const FrozenRun& corrupt) {
  std::vector<at::Tensor> changes(3 * lin.corrupt.attn.size());
  const auto add = [&](std::int64_t depth, const at::Tensor& change) {
    auto& sum = changes[static_cast<std::size_t>(depth)];
    sum = sum.defined() ? sum.add(change) : change;
  };
  for (std::size_t slot = 0; slot < lin.corrupt.attn.size(); ++slot) {
    const Layer layer{static_cast<std::int32_t>(slot)};
    if (has_transparent_attention(dictionaries, layer)) {
      const auto& constant = lin.corrupt.attn[slot].constant;
      const auto& own = corrupt.get<hook::attn_out>(layer);
      add(attn_depth(layer), attention_map(model, lin.run, layer, stream_before<A>(corrupt, layer))
                                 .sub(constant.defined() ? own.sub(constant) : own));
    }
    if constexpr (has_mlp<A>) {
      if (!has_skip(dictionaries, layer) || mlp_site(dictionaries, layer) == MlpSite::resid_mid) continue;
      const auto ratio = corrupt.get<hook::ln2::scale>(layer).div(lin.run.get<hook::ln2::scale>(layer));
      add(mlp_depth<A>(layer),
          skip_map(model, *dictionaries.mlp(layer), corrupt, MlpSite::normalized, layer).mul(ratio.sub(1.0)));
    }
  }
  return changes;
}

/// The part of the logits that depends on no residual stream: b_U and the final norm's bias through W_U; or undefined.
[[nodiscard]] inline at::Tensor unembedding_constant_of(const ModelWeights& w) {
  if (!w.ln_final.bias.defined()) return w.b_U;
  return affine(w.ln_final.bias.unsqueeze(0), w.W_U, w.b_U).squeeze(0);
}

/// The logits of a pass in which a run is recorded. Clean and corrupt passes have the same attachments, which in gradient
/// mode alone do anything, so that a program instantiates one forward pass for both.
template <FinalNorm Final, Architecture A>
[[nodiscard]] at::Tensor record_pass(const HookedTransformer<A>& model, const at::Tensor& tokens, RecordedFor use,
                                     FrozenRun& run) {
  LeafAtEmbedding leaf;
  AttachmentOf<Final, A> final_norm;
  FrozenRunRecorder recorder{model.config(), use};
  auto logits = model.uncapped_logits(tokens, leaf, final_norm, recorder);
  run = std::move(recorder).take();
  return logits;
}

/// A clean forward pass in gradient mode, the metric of each prompt, and one backward pass to every output.
template <FinalNorm Final, Architecture A, Metric M>
void run_with_gradients(const HookedTransformer<A>& model, const at::Tensor& tokens, const M& metric,
                        Linearization& out) {
  FrozenRun graph;
  {
    const c10::AutoGradMode with_gradient{true};
    const auto logits = record_pass<Final>(model, tokens, RecordedFor::maps, graph);
    const auto metrics = metric.per_prompt(logits);
    check_shape(metrics, {tokens.size(0)}, "metric");
    out.metric = metrics.detach();
    check_finite(out.metric, "metric");

    const auto layers = static_cast<std::int32_t>(model.config().n_layers);
    std::vector<at::Tensor> inputs{graph.get<hook::embed>(), graph.get<hook::resid_post>(Layer{layers - 1}), logits};
    for (std::int32_t l = 0; l < layers; ++l) {
      inputs.push_back(graph.get<hook::attn_out>(Layer{l}));
      if constexpr (has_mlp<A>) inputs.push_back(graph.get<hook::mlp_out>(Layer{l}));
    }
    // Prompts do not see each other, so the gradient of the sum is each prompt's own.
    const auto grads = gradient_of(metrics.sum(), inputs);
    out.gradients.embed = grads[0];
    out.gradients.last = grads[1];
    check_finite(out.gradients.last, "gradient at " + hook_name(hook::resid_post{}, Layer{layers - 1}));
    const auto unembedding_constant = unembedding_constant_of(model.weights());
    out.metric_constant = unembedding_constant.defined() ? grads[2].mul(unembedding_constant).sum(-1).sum(-1)
                                                         : make::zeros_like(out.metric);
    std::size_t next = 3;
    const auto keep = [&](auto point, Layer layer, std::vector<at::Tensor>& into) {
      check_finite(grads[next], "gradient at " + hook_name(point, layer));
      into.push_back(grads[next++]);
    };
    for (std::int32_t l = 0; l < layers; ++l) {
      keep(hook::attn_out{}, Layer{l}, out.gradients.attn_out);
      if constexpr (has_mlp<A>) keep(hook::mlp_out{}, Layer{l}, out.gradients.mlp_out);
    }
    // The stream behind a module is the module's output and what was there, so they share their gradient.
    const auto& written_last = has_mlp<A> ? out.gradients.mlp_out : out.gradients.attn_out;
    out.gradients.stream = {out.gradients.embed};
    out.gradients.stream.insert(out.gradients.stream.end(), written_last.begin(), written_last.end());
  }
  graph.for_each(
      [&]<class P>(P, Layer layer, const at::Tensor& value) { out.run.template put<P>(layer, value.detach()); });
}

}  // namespace circuit::detail

namespace circuit {

template <FinalNorm Final, Architecture A, Dictionaries Set, Metric M>
Linearization linearize(const HookedTransformer<A>& model, const Set& dictionaries, const at::Tensor& clean,
                        const at::Tensor& corrupt, const M& metric) {
  dictionaries.check(model.config(), model.processing(), model.dtype());
  if (corrupt.defined()) {
    check_shape(corrupt, shape_of(clean), "corrupt tokens", {}, "a contrast pair has prompts of one length");
  }
  Linearization out;
  detail::run_with_gradients<Final>(model, clean, metric, out);

  const c10::AutoGradMode no_gradient{false};
  FrozenRun corrupt_run;
  std::vector<const FrozenRun*> runs{&out.run};
  if (corrupt.defined()) {
    // Frozen are the clean run's maps.
    static_cast<void>(detail::record_pass<Final>(model, corrupt, RecordedFor::values, corrupt_run));
    runs.push_back(&corrupt_run);
  }
  auto described = detail::describe(model, dictionaries, runs);
  out.clean = std::move(described.front());
  if (corrupt.defined()) {
    out.corrupt = std::move(described.back());
    out.map_change = detail::map_changes(model, dictionaries, out, corrupt_run);
  }
  return out;
}

}  // namespace circuit
