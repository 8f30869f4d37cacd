"""Writes one small dictionary of every kind with the library that people publish it with, and what that library makes of
some inputs: `expected.safetensors` in each folder holds x, the activations, the output, and the loss of a tiny GPT-2
(../spliced_model) whose activation the library's output stands in for.

Needs sae_lens 6.54, eai-sparsify 1.3, dictionary-learning 0.1 and circuit-tracer 0.5, which can share an environment; run
anywhere. Nothing is fetched: where sae_lens or circuit-tracer reads a published layout (Gemma Scope, Llama Scope), its own
converter is given the files written here.
"""

import functools
import json
import os
import shutil
from pathlib import Path

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # it has no CPU kernels
import numpy as np
import sae_lens
import torch
import yaml
from circuit_tracer.transcoder.activation_functions import JumpReLU, TopK
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder, load_clt, load_gemma_scope_2_clt
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, load_relu_transcoder
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.registry import get_sae_class
from safetensors.torch import load_file, save_file
from sparsify.config import SparseCoderConfig
from sparsify.sparse_coder import SparseCoder
from transformers import GPT2Config, GPT2LMHeadModel

HERE = Path(__file__).parent
D_IN, D_SAE = 6, 16
torch.manual_seed(11)


def fresh(name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def randomize(module):
    """Nothing zero, so that nothing can be forgotten: about half of the features active."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            scale = 0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape) * scale)
            if name.endswith("threshold"):
                parameter.copy_(torch.rand(parameter.shape) * 0.8)
    return module


def inputs():
    return torch.randn(5, D_IN) * 1.5 + 0.3


@functools.cache
def tiny_model():
    """A GPT-2 of the dictionaries' width with random weights, written once; and its prompts."""
    folder = HERE.parent / "spliced_model"
    if not folder.exists():
        generator = torch.Generator().manual_seed(5)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=16, n_embd=D_IN, n_layer=2, n_head=2, n_inner=12))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                mean = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 + mean)
        model.save_pretrained(folder)
        save_file({"tokens": torch.randint(20, (3, 8), generator=generator)}, folder / "prompts.safetensors")
    return GPT2LMHeadModel.from_pretrained(folder).eval(), load_file(folder / "prompts.safetensors")["tokens"]


def spliced_loss(forward, site):
    """The tiny model's loss with forward(x) in the place of what the dictionary describes."""
    with torch.random.fork_rng():
        model, tokens = tiny_model()
    block = model.transformer.h[1]
    f = lambda x: forward(x.reshape(-1, D_IN)).reshape(x.shape)
    read, hooks = {}, []
    if site == "resid":
        hooks.append(block.register_forward_hook(
            lambda _, __, out: (f(out[0]), *out[1:]) if isinstance(out, tuple) else f(out)))
    elif site == "z":
        hooks.append(block.attn.c_proj.register_forward_pre_hook(lambda _, args: (f(args[0]),)))
    elif site == "embed":
        hooks.append(model.transformer.wte.register_forward_hook(lambda _, __, out: f(out)))
    else:
        hooks.append(block.ln_2.register_forward_hook(lambda _, __, out: read.update(x=out)))
        hooks.append(block.mlp.register_forward_hook(lambda _, __, out: f(read["x"])))
    with torch.no_grad():
        loss = model(tokens, labels=tokens).loss
    for hook in hooks:
        hook.remove()
    return loss


def expect(folder, x, acts, forward, site="resid"):
    save_file({"x": x, "acts": acts.detach().contiguous(), "out": forward(x).detach().contiguous(),
               "loss": spliced_loss(forward, site).reshape(1)}, folder / "expected.safetensors")


def acts_of(sae, x):
    acts = sae.encode(x)
    return acts.to_dense() if acts.is_sparse else acts


# ---- SAELens ---------------------------------------------------------------------------------------------------------
def lens_config(architecture, hook, **more):
    metadata = {"hook_name": f"blocks.1.{hook}", "model_name": "tiny", "prepend_bos": True}
    if "transcoder" in architecture:
        metadata["hook_name_out"] = "blocks.1.hook_mlp_out"
        more |= {"d_out": D_IN, "apply_b_dec_to_input": False}
    return {"architecture": architecture, "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu",
            "metadata": metadata} | more


def lens(name, architecture, hook="hook_resid_post", fold=None, **more):
    folder = fresh(f"sae_lens_{name}")
    sae = randomize(get_sae_class(architecture)[0].from_dict(lens_config(architecture, hook, **more)))
    sae.save_model(folder)
    if fold is not None:
        sae.fold_activation_norm_scaling_factor(fold)
    x = inputs()
    if hook.endswith("hook_z"):
        heads = lambda x: x.view(-1, 2, 3)
        return expect(folder, x, acts_of(sae, heads(x)), lambda x: sae(heads(x)).reshape(-1, D_IN), "z")
    expect(folder, x, acts_of(sae, x), sae, "mlp" if "transcoder" in architecture else "resid")


def lens_before_6():
    """The flat configuration of version 3, as sae_lens itself still reads it."""
    folder = fresh("sae_lens_before_6")
    sae = randomize(get_sae_class("topk")[0].from_dict(lens_config("topk", "hook_resid_post", k=4)))
    save_file(dict(sae.state_dict()), folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({
        "model_name": "tiny", "hook_point": "blocks.1.hook_resid_post", "hook_point_head_index": None, "d_in": D_IN,
        "d_sae": D_SAE, "dtype": "float32", "device": "cpu", "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 4}, "normalize_activations": False, "finetuning_scaling_factor": False}))
    again = sae_lens.SAE.load_from_disk(folder)
    x = inputs()
    expect(folder, x, acts_of(again, x), again)


def lens_trained(name, **more):
    """BatchTopK is a kind for training; for inference sae_lens saves it as jumprelu."""
    folder = fresh(f"sae_lens_{name}")
    training, config = sae_lens.registry.get_sae_training_class("batchtopk")
    sae = randomize(training(config.from_dict(
        {"architecture": "batchtopk", "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu", "k": 4.0,
         "metadata": {"hook_name": "blocks.1.hook_resid_post"}} | more)))
    sae.topk_threshold = torch.tensor(0.35, dtype=torch.double)
    sae.save_inference_model(folder)
    again = sae_lens.SAE.load_from_disk(folder)
    x = inputs()
    expect(folder, x, acts_of(again, x), again)


# ---- published layouts, read by sae_lens' converters ------------------------------------------------------------------
def converted(folder, loader, name_in_repo, x=None, repo="local", fold=None, **overrides):
    """What sae_lens makes of files in `folder`, once they are on this machine."""
    def local(repo_id, filename, subfolder=None, **_):
        return str(folder / Path(f"{subfolder}/{filename}" if subfolder else filename).relative_to(name_in_repo)
                   if name_in_repo else folder / filename)
    loaders.hf_hub_download = local
    config, state, _ = loader(repo, name_in_repo, cfg_overrides={"device": "cpu", "dtype": "float32"} | overrides)
    config = loaders.handle_config_defaulting(config)
    sae = get_sae_class(config["architecture"])[0].from_dict(config)
    sae.load_state_dict({k: v.float() for k, v in state.items()})
    if fold is not None:
        sae.fold_activation_norm_scaling_factor(fold)
    x = inputs()
    name = folder.relative_to(HERE).parts[0]
    site = "embed" if "embedding" in name else "mlp" if "transcoder" in name else "resid"
    expect(HERE / name, x, acts_of(sae, x), sae, site)


def numbers(**more):
    return {"W_enc": torch.randn(D_IN, D_SAE) * 0.5, "b_enc": torch.randn(D_SAE) * 0.3,
            "W_dec": torch.randn(D_SAE, D_IN) * 0.5, "b_dec": torch.randn(D_IN) * 0.3,
            "threshold": torch.rand(D_SAE) * 0.8} | more


def gemma_scope(name, repo, inside, loader):
    folder = fresh(name) / repo / inside
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **{k: v.numpy() for k, v in numbers().items()})
    converted(folder, loader, inside, repo=repo, d_in=D_IN, d_sae=D_SAE, d_out=D_IN)


def gemma_scope_2():
    inside = "transcoder/layer_1_width_16k_l0_small_affine"
    folder = fresh("gemma_scope_2_transcoder") / inside
    folder.mkdir(parents=True)
    state = {k.replace("W_", "w_"): v for k, v in numbers().items()}
    state["affine_skip_connection"] = torch.randn(D_IN, D_IN) * 0.5
    save_file(state, folder / "params.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "jump_relu", "model_name": "tiny",
                                                    "affine_connection": True}))
    loaders.get_safetensors_tensor_shapes = lambda *_: {k: list(v.shape) for k, v in state.items()}
    converted(folder, loaders.gemma_3_sae_huggingface_loader, inside, d_out=D_IN)


def llama_scope():
    inside = "Llama3_1-8B-Base-L1R-8x"
    folder = fresh("llama_scope") / inside
    (folder / "checkpoints").mkdir(parents=True)
    n = numbers()
    save_file({"encoder.weight": n["W_enc"].T.contiguous(), "encoder.bias": n["b_enc"],
               "decoder.weight": n["W_dec"].T.contiguous(), "decoder.bias": n["b_dec"]},
              folder / "checkpoints" / "final.safetensors")
    norm = 1.7
    (folder / "hyperparams.json").write_text(json.dumps(
        {"d_model": D_IN, "d_sae": D_SAE, "hook_point_in": "blocks.1.hook_resid_post",
         "hook_point_out": "blocks.1.hook_resid_post", "jump_relu_threshold": 0.25,
         "dataset_average_activation_norm": {"in": norm, "out": norm}}))
    converted(folder, loaders.llama_scope_sae_huggingface_loader, inside, fold=D_IN ** 0.5 / norm)


def llama_scope_r1():
    inside = "400M-Slimpajama-400M-OpenR1-Math-220k/L1R"
    folder = fresh("llama_scope_r1") / "L1R"
    folder.mkdir(parents=True)
    n = numbers()
    save_file({"encoder.weight": n["W_enc"].T.contiguous(), "encoder.bias": n["b_enc"],
               "decoder.weight": n["W_dec"].T.contiguous(), "decoder.bias": n["b_dec"],
               "log_jumprelu_threshold": n["threshold"].log()}, folder / "sae_weights.safetensors")
    (folder / "config.json").write_text(json.dumps(
        {"d_model": D_IN, "expansion_factor": D_SAE / D_IN, "hook_point_in": "blocks.1.hook_resid_post",
         "hook_point_out": "blocks.1.hook_resid_post"}))
    converted(folder, loaders.llama_scope_r1_distill_sae_huggingface_loader, inside, d_sae=D_SAE)


# ---- sparsify --------------------------------------------------------------------------------------------------------
def sparse_coder(name, hookpoint, **config):
    folder = fresh(name)
    coder = randomize(SparseCoder(D_IN, SparseCoderConfig(num_latents=D_SAE, k=4, **config)))
    coder.save_to_disk(folder / hookpoint)
    x = inputs()
    values, places, _ = coder.encode(x)
    acts = torch.zeros(len(x), D_SAE).scatter(1, places, values)
    expect(folder, x, acts, lambda x: coder(x).sae_out, "mlp" if config.get("transcode") else "resid")


# ---- dictionary_learning ----------------------------------------------------------------------------------------------
def learned(name, dictionary, threshold=None, **trainer):
    folder = fresh(f"dictionary_learning_{name}")
    dictionary = randomize(dictionary)
    if threshold is not None:
        dictionary.threshold.fill_(threshold)
    torch.save(dictionary.state_dict(), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {
        "dict_class": type(dictionary).__name__, "activation_dim": D_IN, "dict_size": D_SAE, "layer": 1,
        "lm_name": "tiny", "submodule_name": "resid_post_layer_1"} | trainer, "buffer": {"ctx_len": 128}}))
    x = inputs()
    expect(folder, x, dictionary.encode(x), dictionary)


# ---- circuit-tracer ---------------------------------------------------------------------------------------------------
CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


def tracer_config(folder, kind, **more):
    (folder / "config.yaml").write_text(yaml.safe_dump(
        {"model_name": "tiny", "model_kind": kind, "feature_input_hook": "ln2.hook_normalized",
         "feature_output_hook": "hook_mlp_out"} | more))


def tracer(name, activation=None, threshold=False, skip=False):
    folder = fresh(f"circuit_tracer_{name}")
    n = numbers()
    function = JumpReLU(n["threshold"]) if threshold else TopK(4) if activation == "topk" else torch.relu
    transcoder = SingleLayerTranscoder(D_IN, D_SAE, function, 1, skip_connection=skip, **CPU)
    state = {"W_enc": n["W_enc"].T, "b_enc": n["b_enc"], "W_dec": n["W_dec"], "b_dec": n["b_dec"]}
    if skip:
        state["W_skip"] = torch.randn(D_IN, D_IN) * 0.5
    transcoder.load_state_dict(state, strict=False)
    transcoder.to_safetensors(folder / "layer_1.safetensors")
    tracer_config(folder, "transcoder_set", **({"activation": activation, "k": 4} if activation else {}))
    if activation != "topk":  # which its loader does not know
        transcoder = load_relu_transcoder(str(folder / "layer_1.safetensors"), 1, **CPU)
    x = inputs()
    expect(folder, x, transcoder.encode(x), transcoder, "mlp")


def cross_layer_expect(folder, clt):
    """x, acts and out are [layers, 5, ...]; for the loss each layer's output takes the place of the tiny model's MLP's."""
    layers = range(clt.n_layers)
    x = torch.stack([inputs() for _ in layers])
    acts = clt.encode(x)
    model, tokens = tiny_model()
    seen, read, hooks = torch.zeros(clt.n_layers, tokens.numel(), D_SAE), torch.zeros(clt.n_layers, tokens.numel(), D_IN), []

    def reads(layer):
        def hook(_, __, out):
            read[layer] = out.reshape(-1, D_IN)
            seen[layer] = clt.encode_layer(read[layer], layer)
        return hook

    for l in layers:
        block = model.transformer.h[l]
        hooks.append(block.ln_2.register_forward_hook(reads(l)))
        hooks.append(block.mlp.register_forward_hook(
            lambda _, __, out, l=l: clt.decode(seen, read)[l].reshape(out.shape)))  # later layers do not write here
    with torch.no_grad():
        loss = model(tokens, labels=tokens).loss
    for hook in hooks:
        hook.remove()
    save_file({"x": x, "acts": acts.detach().contiguous(), "out": clt.decode(acts, x).detach().contiguous(),
               "loss": loss.reshape(1)}, folder / "expected.safetensors")


def cross_layer_tracer(name, threshold=False):
    folder = fresh(f"circuit_tracer_{name}")
    clt = CrossLayerTranscoder(2, D_SAE, D_IN, "jump_relu" if threshold else "relu", lazy_decoder=False, **CPU)
    randomize(clt).to_safetensors(folder)
    tracer_config(folder, "cross_layer_transcoder")
    cross_layer_expect(folder, load_clt(str(folder), "ln2.hook_normalized", lazy_decoder=threshold, **CPU))


def gemma_scope_2_clt():
    folder = fresh("gemma_scope_2_clt") / "clt" / "width_1k_l0_small_affine"
    folder.mkdir(parents=True)
    paths = {l: str(folder / f"params_layer_{l}.safetensors") for l in range(2)}
    for path in paths.values():
        state = {k.replace("W_", "w_"): v for k, v in numbers().items()}
        state["w_dec"] = torch.randn(D_SAE, 2, D_IN) * 0.5
        state["affine_skip_connection"] = torch.randn(D_IN, D_IN) * 0.5
        save_file(state, path)
    paths[2] = paths[1]  # circuit-tracer 0.5 leaves the last of them out
    cross_layer_expect(folder.parents[1], load_gemma_scope_2_clt(paths, "ln2.hook_normalized", **CPU))


if __name__ == "__main__":
    lens("standard", "standard")
    lens("standard_no_input_bias", "standard", apply_b_dec_to_input=False)
    lens("hook_z", "standard", "attn.hook_z", reshape_activations="hook_z")
    lens("constant_norm", "standard", normalize_activations="constant_norm_rescale")
    lens("layer_norm", "standard", normalize_activations="layer_norm")
    lens("expected_average", "standard", normalize_activations="expected_average_only_in", fold=1.7)
    lens("gated", "gated")
    lens("topk", "topk", k=4)
    lens("topk_decoder_norms", "topk", k=4, rescale_acts_by_decoder_norm=True)
    lens("topk_layer_norm", "topk", k=4, normalize_activations="layer_norm")
    lens("jumprelu", "jumprelu")
    lens("jumprelu_expected_average", "jumprelu", normalize_activations="expected_average_only_in", fold=1.7)
    lens("transcoder", "transcoder", "ln2.hook_normalized")
    lens("transcoder_layer_norm", "transcoder", "ln2.hook_normalized", normalize_activations="layer_norm")
    lens("skip_transcoder", "skip_transcoder", "ln2.hook_normalized")
    lens("jumprelu_transcoder", "jumprelu_transcoder", "ln2.hook_normalized")
    lens_before_6()
    lens_trained("batchtopk")
    gemma_scope("gemma_scope_res", "gemma-scope-2b-pt-res", "layer_1/width_16k/average_l0_71",
                loaders.gemma_2_sae_huggingface_loader)
    gemma_scope("gemma_scope_embedding", "gemma-scope-2b-pt-res", "embedding/width_4k/average_l0_6",
                loaders.gemma_2_sae_huggingface_loader)
    gemma_scope("gemma_scope_transcoder", "gemma-scope-2b-pt-transcoders", "layer_1/width_16k/average_l0_5",
                loaders.gemma_2_transcoder_huggingface_loader)
    gemma_scope_2()
    llama_scope()
    llama_scope_r1()
    sparse_coder("sparsify_topk", "layers.1")
    sparse_coder("sparsify_groupmax", "layers.1", activation="groupmax")
    sparse_coder("sparsify_transcoder", "h.1.mlp", transcode=True)
    sparse_coder("sparsify_skip_transcoder", "layers.1.mlp", transcode=True, skip_connection=True)
    learned("auto_encoder", AutoEncoder(D_IN, D_SAE))
    learned("auto_encoder_new", AutoEncoderNew(D_IN, D_SAE))
    learned("gated", GatedAutoEncoder(D_IN, D_SAE))
    learned("jump_relu", JumpReluAutoEncoder(D_IN, D_SAE))
    learned("top_k", AutoEncoderTopK(D_IN, D_SAE, 4), threshold=0.6, k=4)
    learned("batch_top_k", BatchTopKSAE(D_IN, D_SAE, 4), threshold=0.6, k=4)
    tracer("relu")
    tracer("jump_relu", threshold=True)
    tracer("topk", activation="topk")
    tracer("skip", threshold=True, skip=True)
    cross_layer_tracer("cross_layer")
    cross_layer_tracer("cross_layer_jump_relu", threshold=True)
    gemma_scope_2_clt()
