#pragma once

#include <concepts>

namespace circuit {

/// How attention and MLP of a block stand to the residual stream.
template <class W>
concept BlockWiring = requires {
  { W::parallel } -> std::convertible_to<bool>;
  { W::post_norms } -> std::convertible_to<bool>;
};

namespace wiring {

/// The MLP reads what attention has written.
struct Sequential {
  static constexpr bool parallel = false;    ///< attention and MLP read the same stream
  static constexpr bool post_norms = false;  ///< what a module adds passes a norm of its own first
};

/// Attention and MLP read the same stream, so there is no hook_resid_mid.
struct Parallel {
  static constexpr bool parallel = true;
  static constexpr bool post_norms = false;
};

/// Sequential, and the outputs of attention and MLP pass a norm each (ln1_post, ln2_post) before they are added.
struct PostNormed {
  static constexpr bool parallel = false;
  static constexpr bool post_norms = true;
};

}  // namespace wiring
}  // namespace circuit
