#pragma once

#include <concepts>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/model/activation.hpp"

namespace circuit {

namespace detail {

/// Stands for an architecture in the concept below.
struct AnyArchitecture {
  struct Mlp {
    using Activation = activation::Gelu;
    static constexpr bool gated = true;
  };
};

}  // namespace detail

/// What a backward pass takes for the gradient of a model's nonlinear parts: an attachment, made for an architecture,
/// that leaves every value as it is.
template <class R>
concept GradientRule = std::default_initializable<typename R::template For<detail::AnyArchitecture>>;

namespace gradient_rule {

/// The model's own gradient.
struct Exact {
  template <class A>
  struct For {};
};

/// Layer-wise relevance propagation as a gradient: norms' scales and attention's patterns are constants, an activation
/// f(z) passes f(z) / z, and each branch of a gated product half of its gradient. What is so differentiated is linear
/// or a product of two, so gradient times input adds up, constants included. source  Jafari et al. 2025 (RelP): LN-,
/// AH-, identity and half rule; they divide by z stabilised, here f(z) / z is known
struct Relp {
  template <class A>
  class For {
   public:
    void visit(hook::ln1::scale /*point*/, Layer /*layer*/, at::Tensor& value) const { value = value.detach(); }
    void visit(hook::ln1::head_scale /*point*/, Layer /*layer*/, at::Tensor& value) const { value = value.detach(); }
    void visit(hook::ln1_post::scale /*point*/, Layer /*layer*/, at::Tensor& value) const { value = value.detach(); }
    void visit(hook::ln2::scale /*point*/, Layer /*layer*/, at::Tensor& value) const { value = value.detach(); }
    void visit(hook::ln2_post::scale /*point*/, Layer /*layer*/, at::Tensor& value) const { value = value.detach(); }
    void visit(hook::ln_final::scale /*point*/, Layer /*layer*/, at::Tensor& value) const { value = value.detach(); }
    void visit(hook::attn::q_norm::scale /*point*/, Layer /*layer*/, at::Tensor& value) const {
      value = value.detach();
    }
    void visit(hook::attn::k_norm::scale /*point*/, Layer /*layer*/, at::Tensor& value) const {
      value = value.detach();
    }
    void visit(hook::attn::pattern /*point*/, Layer /*layer*/, at::Tensor& value) const { value = value.detach(); }
    void visit(hook::mlp::pre /*point*/, Layer /*layer*/, at::Tensor& value) { pre_ = value; }
    void visit(hook::mlp::pre_linear /*point*/, Layer /*layer*/, at::Tensor& value) { linear_ = value; }
    void visit(hook::mlp::post /*point*/, Layer /*layer*/, at::Tensor& value) {
      auto through = pre_.mul(A::Mlp::Activation::ratio(pre_).detach());
      if constexpr (A::Mlp::gated) through = through.mul(linear_).mul(0.5);
      value = value.detach().add(through.sub(through.detach()));  // the value's own, the gradient of `through`
      pre_ = linear_ = at::Tensor{};
    }

   private:
    at::Tensor pre_;
    at::Tensor linear_;
  };
};

}  // namespace gradient_rule
}  // namespace circuit
