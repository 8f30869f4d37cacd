"""Writes tiny models without norms, with random weights, as TransformerLens' state dict and config, and beside each what
TransformerLens computes on them: golden.safetensors with tokens, logits and every hook point.

    pip install torch "transformer_lens<3" safetensors
    python make_plain.py
"""
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformer_lens import HookedTransformer, HookedTransformerConfig

HERE = Path(__file__).parent
KEPT = ("n_layers", "d_model", "n_ctx", "d_head", "n_heads", "d_mlp", "act_fn", "d_vocab", "normalization_type", "attn_only",
        "positional_embedding_type", "attention_dir", "use_attn_scale", "attn_scale", "parallel_attn_mlp", "gated_mlp")


def make(family, **more):
    config = HookedTransformerConfig(n_layers=2, d_model=16, n_ctx=12, d_head=4, n_heads=4, d_vocab=29,
                                     normalization_type=None, device="cpu", **more)
    model = HookedTransformer(config).eval()
    generator = torch.Generator().manual_seed(20)
    for _, p in sorted(model.named_parameters()):
        p.data = torch.randn(p.shape, generator=generator) * 0.3
    folder = HERE / family
    folder.mkdir(exist_ok=True)
    weights = {name: p.detach().contiguous() for name, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({k: config.to_dict()[k] for k in KEPT}, indent=2) + "\n")
    tokens = torch.randint(0, config.d_vocab, (2, 7), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens, prepend_bos=False)
    golden = {"tokens": tokens, "logits": logits.contiguous()}
    for name, value in cache.items():
        short = name.replace("blocks.", "").replace("hook_", "").replace(".attn.", "/").replace(".mlp.", "/")
        golden[short.replace(".", "/", 1)] = value.clone().contiguous()
    save_file(golden, folder / "golden.safetensors")
    print(family, sorted(golden))


if __name__ == "__main__":
    make("plain", d_mlp=24, act_fn="gelu")
    make("attention_only", attn_only=True)
