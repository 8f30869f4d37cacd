"""Writes tiny models with random weights as GGUF, laid out as llama.cpp's converter does, the first of them also as
Hugging Face's files and, in bfloat16, as PyTorch's; and golden.safetensors, what `transformers` computes on the same
weights.

    pip install torch transformers safetensors gguf
    python make.py
"""
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).parent
VOCABULARY = 260
SMALL = dict(vocab_size=VOCABULARY, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=32,
             rms_norm_eps=1e-5, max_position_embeddings=64, attn_implementation="eager", dtype="float32")
INNER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
LLAMA = ("model.layers.", {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}, INNER)
GEMMA2 = (*LLAMA[:2], INNER | {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                               "post_feedforward_layernorm": "post_ffw_norm"})
GPT2 = ("transformer.h.", {"transformer.wte": "token_embd", "transformer.wpe": "position_embd",
                           "transformer.ln_f": "output_norm", "lm_head": "output"},
        {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
         "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"})
GPT_NEOX = ("gpt_neox.layers.", {"gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm",
                                 "lm_head": "output"},
            {"input_layernorm": "attn_norm", "attention.query_key_value": "attn_qkv", "attention.dense": "attn_output",
             "post_attention_layernorm": "ffn_norm", "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down"})
NAMES = {"llama": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA, "gemma2": GEMMA2, "gpt2": GPT2, "gpt_neox": GPT_NEOX}


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        mean = 1.0 if p.dim() == 1 and name.endswith("weight") else 0.0
        p.data = torch.randn(p.shape, generator=generator) * (0.4 if p.dim() > 1 else 0.3) + mean


def gguf_name(name, model_type):
    layers, outer, inner = NAMES[model_type]
    stem, kind = name.rsplit(".", 1)
    if not stem.startswith(layers):
        return f"{outer[stem]}.{kind}"
    layer, part = stem.removeprefix(layers).split(".", 1)
    return f"blk.{layer}.{inner[part]}.{kind}"


def regroup(rows, first, second):
    """From the order first, second to the order second, first."""
    rest = rows.shape[0] // first // second
    return rows.reshape(first, second, rest, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def permute(rows, heads, halves_first):
    """Between halves of a head and neighbouring pairs, as which the converter stores queries and keys of Llama."""
    shape = (2, -1) if halves_first else (rows.shape[0] // heads // 2, 2)
    return rows.reshape(heads, *shape, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def stored_as(name, values, config, back=False):
    """The values of a tensor as the converter stores them, or back."""
    part, kind = name.split(".")[-2:]
    heads = {"q_proj": config.num_attention_heads,
             "k_proj": getattr(config, "num_key_value_heads", 0)}.get(part, 0)
    if config.model_type == "llama" and heads:
        return permute(values, heads, halves_first=not back)
    if config.model_type == "gemma2" and part.endswith("norm"):
        return values - 1 if back else values + 1
    if config.model_type == "gpt2" and part.startswith("c_") and kind == "weight":
        return values.T
    if config.model_type == "gpt_neox" and part == "query_key_value":
        return regroup(values, *((3, config.num_attention_heads) if back else (config.num_attention_heads, 3)))
    return values


def tokens():
    """A byte-level vocabulary: the 256 bytes, two merges, a BOS and one unused token."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode
    spelt = list(bytes_to_unicode().values())
    space = bytes_to_unicode()[ord(" ")]
    return spelt + [space + "t", "he", "<s>", "<unused>"], [space + " t", "h e"]


def write_rotary(writer, model):
    """The scaling of rotary positions: metadata, or, for Llama 3.1, a tensor of factors."""
    rotary = getattr(model.config, "rope_parameters", None)
    if not rotary:
        return
    writer.add_rope_freq_base(rotary["rope_theta"])
    kind = rotary["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rotary["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rotary["original_max_position_embeddings"])
    if kind == "llama3":
        speeds = model.model.rotary_emb.inv_freq.numpy()
        plain_speeds = rotary["rope_theta"] ** -(np.arange(len(speeds)) / len(speeds))
        factors = (plain_speeds / speeds).astype(np.float32)
        writer.add_tensor("rope_freqs.weight", factors)


def write_gguf(path, model, quantize):
    """quantize  the type of a tensor by its name and shape
    return    the values that the file holds, under Hugging Face's names and in its layout"""
    config = model.config
    writer = gguf.GGUFWriter(str(path), config.model_type.replace("_", ""))
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.n_inner if config.model_type == "gpt2" else config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if hasattr(config, "num_key_value_heads"):
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(config.layer_norm_epsilon if config.model_type == "gpt2" else config.layer_norm_eps)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    write_rotary(writer, model)
    if config.model_type == "llama":
        writer.add_rope_dimension_count(head)
    if config.model_type == "gpt_neox":
        writer.add_rope_dimension_count(int(head * config.rope_parameters["partial_rotary_factor"]))
        writer.add_parallel_residual(config.use_parallel_residual)
    if config.model_type == "gemma2":
        assert config.query_pre_attn_scalar == head, "GGUF holds no scale of queries"
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
        writer.add_sliding_window(config.sliding_window)
    if head != config.hidden_size // config.num_attention_heads:
        writer.add_key_length(head)
        writer.add_value_length(head)
    vocabulary, merges = tokens()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([1] * 258 + [3, 5])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(258)
    held = {}
    for name, p in sorted(model.state_dict().items()):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = p.numpy()
        stored = np.ascontiguousarray(stored_as(name, values, config))
        kind = quantize(name, stored)
        data = gguf.quants.quantize(stored, kind)
        writer.add_tensor(gguf_name(name, config.model_type), data, raw_dtype=kind)
        read = stored_as(name, gguf.quants.dequantize(data, kind), config, back=True)
        held[name] = torch.from_numpy(np.ascontiguousarray(read))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def logits(model, values, ids):
    model.load_state_dict(values, strict=False)
    with torch.no_grad():
        return model.eval()(ids).logits.clone()


def plain(kind):
    """Matrices of one type, vectors in float32, as the converter does."""
    return lambda _name, values: kind if values.ndim > 1 else gguf.GGMLQuantizationType.F32


def main():
    kinds = gguf.GGMLQuantizationType
    ids = torch.randint(0, VOCABULARY, (1, 12), generator=torch.Generator().manual_seed(7))
    golden = {"tokens": ids}

    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        **SMALL, num_hidden_layers=2, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=100000.0)))
    randomize(llama, 1)
    llama.save_pretrained(HERE / "llama")
    (HERE / "llama" / "generation_config.json").unlink(missing_ok=True)
    torch_folder = HERE / "llama_torch"
    torch_folder.mkdir(exist_ok=True)
    shutil.copy(HERE / "llama" / "config.json", torch_folder)
    torch.save({name: p.bfloat16() for name, p in llama.state_dict().items() if not name.startswith("lm_head")},
               torch_folder / "pytorch_model.bin")
    original = {name: p.clone() for name, p in llama.state_dict().items()}
    for name, kind in (("f32", kinds.F32), ("q8_0", kinds.Q8_0)):
        llama.load_state_dict(original)
        held = write_gguf(HERE / f"llama_{name}.gguf", llama, plain(kind))
        golden[f"llama_{name}"] = logits(llama, held, ids)

    # Llama 3.1: factors of the rotary speeds in a tensor; the unembedding of its own; biases.
    scaling = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=32)
    llama3 = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        **SMALL, num_hidden_layers=1, tie_word_embeddings=False, attention_bias=True, rope_parameters=scaling))
    randomize(llama3, 2)
    held = write_gguf(HERE / "llama3_f16.gguf", llama3, plain(kinds.F16))
    golden["llama3_f16"] = logits(llama3, held, ids)

    theta = dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0))
    qwen2 = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
        **SMALL, **theta, num_hidden_layers=1, tie_word_embeddings=True))
    randomize(qwen2, 3)
    golden["qwen2_bf16"] = logits(qwen2, write_gguf(HERE / "qwen2_bf16.gguf", qwen2, plain(kinds.BF16)), ids)

    qwen3 = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
        **SMALL, **theta, num_hidden_layers=1, head_dim=16, tie_word_embeddings=True))
    randomize(qwen3, 4)
    golden["qwen3_q4_0"] = logits(qwen3, write_gguf(HERE / "qwen3_q4_0.gguf", qwen3, plain(kinds.Q4_0)), ids)

    rotary = dict(rope_type="default", rope_theta=10000.0)
    gemma2 = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(
        **SMALL, num_hidden_layers=2, head_dim=16, query_pre_attn_scalar=16, sliding_window=3, attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0, rope_parameters=rotary))
    randomize(gemma2, 5)
    golden["gemma2_f16"] = logits(gemma2, write_gguf(HERE / "gemma2_f16.gguf", gemma2, plain(kinds.F16)), ids)

    others = {name: value for name, value in SMALL.items() if name not in ("num_key_value_heads", "rms_norm_eps")}
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        **others, num_hidden_layers=1, n_inner=64, bos_token_id=None, eos_token_id=None))
    randomize(gpt2, 6)
    golden["gpt2_q8_0"] = logits(gpt2, write_gguf(HERE / "gpt2_q8_0.gguf", gpt2, plain(kinds.Q8_0)), ids)

    for seed, (name, parallel) in enumerate((("pythia_q8_0", True), ("gpt_neox_q8_0", False)), 7):
        neox = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(
            **others, num_hidden_layers=1, use_parallel_residual=parallel,
            rope_parameters=rotary | dict(partial_rotary_factor=0.5)))
        randomize(neox, seed)
        golden[name] = logits(neox, write_gguf(HERE / f"{name}.gguf", neox, plain(kinds.Q8_0)), ids)

    save_file(golden, HERE / "golden.safetensors")


if __name__ == "__main__":
    main()
