#pragma once

#include <concepts>
#include <string>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/activation/any.hpp"
#include "circuit/dictionary/half_storage.hpp"
#include "circuit/dictionary/input_norm.hpp"
#include "circuit/io/mapping.hpp"

namespace circuit {

/// Encoder and decoder of a sparse dictionary: acts = activation((x - b_in) W_enc + b_enc), out = acts W_dec + b_out,
/// and for a skip transcoder + x W_skip; x may first be normalised. SAELens' `b_dec` of an SAE is both b_in (where
/// `apply_b_dec_to_input`) and b_out; a transcoder's b_in and b_out differ. W_enc and W_dec may be stored in half
/// precision (half_storage.hpp); all else, and what is computed, has b_enc's type.
struct DictionaryWeights {
  at::Tensor W_enc;      ///< [d_in, d_sae]   like W_dec, not to be written to while it is a view of a mapped file
  at::Tensor b_enc;      ///< [d_sae]
  at::Tensor W_dec;      ///< [d_sae, d_out]
  at::Tensor b_in;       ///< [d_in], or undefined: nothing is subtracted
  at::Tensor b_out;      ///< [d_out], or undefined
  at::Tensor W_skip{};   ///< [d_in, d_out], or undefined
  at::Tensor W_later{};  ///< [d_sae, later layers, d_out]  what a cross-layer transcoder's features also write into the
                         ///< outputs of the layers after its own, one after another; or undefined
  InputNorm input_norm{};
  std::string name{};         ///< where it came from, for errors and pages: a path, or "gpt2-small/5-att-kk"
  MappedPages W_dec_pages{};  ///< where W_dec is mapped, so that rows read now and then do not keep all of it in memory
  MappedPages W_enc_pages{};  ///< the same of W_enc, from which blocks are read where it is of half precision

  [[nodiscard]] std::int64_t d_in() const { return W_enc.size(0); }
  [[nodiscard]] std::int64_t d_sae() const { return W_enc.size(1); }
  [[nodiscard]] std::int64_t d_out() const { return W_dec.size(1); }
  /// The type and device of activations and outputs.
  [[nodiscard]] at::TensorOptions options() const { return b_enc.options(); }
  [[nodiscard]] at::ScalarType dtype() const { return b_enc.scalar_type(); }

  /// throws  ShapeError, DTypeError  when the parts disagree
  /// throws  ConfigError             for cross-layer writes whose normalisation would be undone
  void check() const {
    check_shape(W_enc, {-1, -1}, "W_enc", name);
    check_shape(b_enc, {d_sae()}, "b_enc", name);
    check_shape(W_dec, {d_sae(), -1}, "W_dec", name);
    if (b_in.defined()) check_shape(b_in, {d_in()}, "b_in", name);
    if (b_out.defined()) check_shape(b_out, {d_out()}, "b_out", name);
    if (has_skip()) check_shape(W_skip, {d_in(), d_out()}, "W_skip", name);
    if (W_later.defined()) {
      if (input_norm.scales_output()) {
        throw ConfigError{{.file = name,
                           .tensor = "input_norm",
                           .problem = "what a cross-layer transcoder writes has no input's scale to be brought back to",
                           .hint = "set `undone` to false"}};
      }
      check_shape(W_later, {d_sae(), -1, d_out()}, "W_later", name);
      check_stored_dtype(W_later, dtype(), "W_later", name);
    }
    check_compute_dtype(dtype(), "b_enc");
    check_stored_dtype(W_enc, dtype(), "W_enc", name);
    check_stored_dtype(W_dec, dtype(), "W_dec", name);
  }

  /// What the encoder multiplies: x normalised, less the input bias, where there is one.
  [[nodiscard]] at::Tensor encoder_input(const at::Tensor& x) const {
    const auto normalized = input_norm.apply(x);
    return b_in.defined() ? normalized.sub(b_in) : normalized;
  }
  /// x [..., d_in]  return [..., d_sae]
  [[nodiscard]] at::Tensor pre_activations(const at::Tensor& x) const {
    check_input(x);
    return affine(encoder_input(x), widened(W_enc), b_enc);
  }
  /// Without the skip path and before a normalisation is undone. acts [..., d_sae]  return [..., d_out]
  [[nodiscard]] at::Tensor decode(const at::Tensor& acts) const { return affine(acts, widened(W_dec), b_out); }

  [[nodiscard]] bool has_skip() const { return W_skip.defined(); }
  /// What the skip path, which must be there, makes of the input. x [..., d_in]  return [..., d_out]
  [[nodiscard]] at::Tensor skip(const at::Tensor& x) const { return x.matmul(W_skip); }
  /// How many layers after its own a cross-layer transcoder writes into; 0 for every other.
  [[nodiscard]] std::int64_t later_layers() const { return W_later.defined() ? W_later.size(1) : 0; }
  /// The dictionary's output: what was decoded, a normalisation undone, and what the skip path makes of the input.
  /// decoded [..., d_out]  x [..., d_in]
  [[nodiscard]] at::Tensor output(const at::Tensor& decoded, const at::Tensor& x) const {
    const auto out = input_norm.undo(decoded, x);
    return has_skip() ? out.add(skip(x)) : out;
  }

  /// What is written whatever the features do, the skip path aside: [d_out], or [..., d_out] where a normalisation
  /// scales it, held at some inputs; undefined for nothing.
  [[nodiscard]] at::Tensor output_constant(const HeldInputNorm& held) const {
    if (!held.factor.defined()) return b_out;
    auto out = b_out.defined() ? held.factor.mul(b_out) : at::Tensor{};
    if (!held.shift.defined()) return out;
    return out.defined() ? out.add(held.shift) : held.shift.mul(make::ones({d_out()}, options()));
  }

  /// Activations as multiples of decoder rows: times what a normalisation multiplies the output by.
  /// acts [..., n]  x [..., d_in]
  [[nodiscard]] at::Tensor in_writes(const at::Tensor& acts, const at::Tensor& x) const {
    return input_norm.scales_output() ? acts.mul(input_norm.held(x).factor) : acts;
  }

  /// What some features read of the normalised input. features [n] int64  return [n, d_in]
  [[nodiscard]] at::Tensor readers(const at::Tensor& features) const { return encoder_columns(features).t(); }
  /// What they read of the input itself, before a normalisation divides it by its scale. return [n, d_in]
  [[nodiscard]] at::Tensor input_readers(const at::Tensor& features) const {
    return input_norm.unscaled(readers(features));
  }
  /// Encoder columns of some features. return [d_in, n]
  [[nodiscard]] at::Tensor encoder_columns(const at::Tensor& features) const {
    return gather_columns(W_enc, W_enc_pages, features);
  }
  /// Decoder rows of some features. features [n] int64  return [n, d_out]
  [[nodiscard]] at::Tensor decoder_rows(const at::Tensor& features) const {
    return gather_rows(W_dec, W_dec_pages, features);
  }

  /// Decoder rows of some features for a layer `ahead` of the dictionary's own: 0 for its own, at most later_layers().
  /// features [n] int64  return [n, d_out]
  [[nodiscard]] at::Tensor decoder_rows(const at::Tensor& features, std::int64_t ahead) const {
    return ahead == 0 ? decoder_rows(features) : gather_rows(W_later.select(1, ahead - 1), W_dec_pages, features);
  }

  /// throws  ShapeError  unless the last axis of x is d_in
  void check_input(const at::Tensor& x) const {
    if (x.dim() > 0 && x.size(-1) == d_in()) return;
    throw ShapeError{{.file = name, .tensor = "input", .expected = {-1, d_in()}, .got = shape_of(x)}};
  }
};

/// What some features read of their module's input, linearised at that input: pre-activation = `<readers, x> +
/// constant`.
struct InputReaders {
  at::Tensor readers;   ///< [n, d_in]
  at::Tensor constant;  ///< [n]
};

/// A sparse autoencoder (d_out = d_in: it describes the activation it reads) or a transcoder (it reads an MLP's input
/// and describes its output). The activation is a policy; the default is chosen when a file is read.
template <SparseActivation A = activation::Any>
struct SparseDictionary : DictionaryWeights {
  [[no_unique_address]] A activation{};

  /// throws  ShapeError, DTypeError, ValueError  when the parts disagree
  void check() const {
    DictionaryWeights::check();
    detail::with_activation(activation, [&]<class Chosen>(const Chosen& chosen) {
      if constexpr (requires { chosen.check(this->d_sae()); }) chosen.check(this->d_sae());
    });
  }

  /// x [..., d_in]  return [..., d_sae]  mostly zeros
  [[nodiscard]] at::Tensor encode(const at::Tensor& x) const { return activation.apply(this->pre_activations(x)); }
  /// Activations of some features alone: only their encoder columns are read, unless the nonlinearity needs all.
  /// x [..., d_in]  features [n] int64  return [..., n]
  [[nodiscard]] at::Tensor encode(const at::Tensor& x, const at::Tensor& features) const {
    return detail::with_activation(activation, [&]<class Chosen>(const Chosen& chosen) -> at::Tensor {
      if constexpr (ElementwiseActivation<Chosen>) {
        this->check_input(x);
        const auto pre =
            affine(this->encoder_input(x), this->encoder_columns(features), this->b_enc.index_select(0, features));
        return chosen.of_features(features).apply(pre);
      } else {
        return encode(x).index_select(-1, features);
      }
    });
  }
  /// x [..., d_in]  return [..., d_out]
  [[nodiscard]] at::Tensor reconstruct(const at::Tensor& x) const { return this->output(this->decode(encode(x)), x); }

  /// The same dictionary, its nonlinearity chosen at run time.
  [[nodiscard]] operator SparseDictionary<activation::Any>() const  // NOLINT(google-explicit-constructor): no loss
    requires(std::constructible_from<decltype(activation::Any::chosen), A>)
  {
    return {static_cast<const DictionaryWeights&>(*this), {activation}};
  }
};

}  // namespace circuit
