#pragma once

#include <concepts>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/model/activation.hpp"
#include "circuit/model/weights.hpp"

namespace circuit {

/// What stands between an MLP's input and its output.
template <class M>
concept MlpKind = requires {
  { M::gated } -> std::convertible_to<bool>;
};

}  // namespace circuit

namespace circuit::mlp {

/// No MLP: blocks are attention alone, without ln2.
struct None {
  static constexpr bool gated = false;
};

/// act(x W_in + b_in) W_out + b_out.
template <MlpActivation Act>
struct Plain {
  using Activation = Act;
  static constexpr bool gated = false;

  /// x      [batch, pos, d_model]  the normalised input
  /// visit  called as visit(point, value&) at mlp.hook_pre and mlp.hook_post
  template <class Visit>
  [[nodiscard]] static at::Tensor forward(const at::Tensor& x, const MlpWeights& w, Visit&& visit) {
    auto pre = affine(x, w.W_in, w.b_in);
    visit(hook::mlp::pre{}, pre);
    auto post = Act::apply(pre);
    visit(hook::mlp::post{}, post);
    return affine(post, w.W_out, w.b_out);
  }
};

/// (act(x W_gate + b_gate) * (x W_in + b_in)) W_out + b_out; hook_pre is the gate before its activation.
template <MlpActivation Act>
struct Gated {
  using Activation = Act;
  static constexpr bool gated = true;

  template <class Visit>
  [[nodiscard]] static at::Tensor forward(const at::Tensor& x, const MlpWeights& w, Visit&& visit) {
    auto gate = affine(x, w.W_gate, w.b_gate);
    visit(hook::mlp::pre{}, gate);
    auto linear = affine(x, w.W_in, w.b_in);
    visit(hook::mlp::pre_linear{}, linear);
    auto post = Act::apply(gate).mul(linear);
    visit(hook::mlp::post{}, post);
    return affine(post, w.W_out, w.b_out);
  }
};

}  // namespace circuit::mlp
