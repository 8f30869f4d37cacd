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
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INNER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        mean = 1.0 if p.dim() == 1 and name.endswith("weight") else 0.0
        p.data = torch.randn(p.shape, generator=generator) * (0.4 if p.dim() > 1 else 0.3) + mean


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    if not stem.startswith("model.layers."):
        return f"{OUTER[stem]}.{kind}"
    layer, part = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{INNER[part]}.{kind}"


def permute(rows, heads):
    """From halves to neighbouring pairs, as the converter stores queries and keys of Llama."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows, heads):
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def heads_of(name, config):
    if config.model_type != "llama":
        return 0
    return {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2], 0)


def tokens():
    """A byte-level vocabulary: the 256 bytes, two merges, a BOS and one unused token."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode
    spelt = list(bytes_to_unicode().values())
    space = bytes_to_unicode()[ord(" ")]
    return spelt + [space + "t", "he", "<s>", "<unused>"], [space + " t", "h e"]


def write_rotary(writer, model):
    """The scaling of rotary positions: metadata, or, for Llama 3.1, a tensor of factors."""
    rotary = model.config.rope_parameters
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
    writer = gguf.GGUFWriter(str(path), config.model_type)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    write_rotary(writer, model)
    if config.model_type == "llama":
        writer.add_rope_dimension_count(head)
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
        heads = heads_of(name, config)
        stored = np.ascontiguousarray(permute(values, heads) if heads else values)
        kind = quantize(name, values)
        data = gguf.quants.quantize(stored, kind)
        writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
        back = gguf.quants.dequantize(data, kind)
        held[name] = torch.from_numpy(np.ascontiguousarray(unpermute(back, heads) if heads else back))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def logits(model, values, ids):
    model.load_state_dict(values, strict=False)
    with torch.no_grad():
        return model(ids).logits.clone()


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

    save_file(golden, HERE / "golden.safetensors")


if __name__ == "__main__":
    main()
