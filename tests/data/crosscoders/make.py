"""Writes one small crosscoder of every layout that people publish, and what its definition in PyTorch makes of some
inputs: `expected.safetensors` in each folder holds x [5, layers, 6], the activations and the output.

Needs torch and safetensors; run anywhere. `learned` is the layout of CrossCoder in forks of dictionary_learning, `stacked`
that of W_enc and W_dec of all layers in one tensor each, `gemma_scope_2` that of Gemma Scope 2 (with decoder rows of 0
before a feature's own layer), `batch_top_k` that of the forks' BatchTopKCrossCoder in use: activations times the summed norms
of their decoder rows are held against one threshold; `normalized` is one that also normalises the streams.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
D, F, L = 6, 10, 3


def folder(name):
    path = HERE / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def expect(path, x, acts, out):
    assert 0.1 < (acts != 0).float().mean() < 0.9
    save_file({"x": x, "acts": acts.contiguous(), "out": out.contiguous()}, path / "expected.safetensors")


def summed_encoder(x, W_enc, b_enc):
    return torch.relu(torch.einsum("bld,ldf->bf", x, W_enc) + b_enc)


def main():
    torch.manual_seed(5)
    x = torch.randn(5, L, D) * 1.2 + 0.2

    path = folder("learned")
    W_enc, W_dec = torch.randn(L, D, F) * 0.4, torch.randn(L, F, D) * 0.5
    b_enc, b_dec = torch.randn(F) * 0.3, torch.randn(L, D) * 0.3
    state = {"encoder.weight": W_enc, "encoder.bias": b_enc, "decoder.weight": W_dec, "decoder.bias": b_dec}
    torch.save(state, path / "ae.pt")
    acts = summed_encoder(x, W_enc, b_enc)
    expect(path, x, acts, torch.einsum("bf,lfd->bld", acts, W_dec) + b_dec)

    path = folder("stacked")
    W_enc, W_dec = torch.randn(L, D, F) * 0.4, torch.randn(F, L, D) * 0.5
    b_enc, b_dec = torch.randn(F) * 0.3, torch.randn(L, D) * 0.3
    torch.save({"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec}, path / "0.pt")
    acts = summed_encoder(x, W_enc, b_enc)
    expect(path, x, acts, torch.einsum("bf,fld->bld", acts, W_dec) + b_dec)

    path = folder("gemma_scope_2") / "crosscoder" / "layer_0_1_3_width_30_l0_small"
    path.mkdir(parents=True, exist_ok=True)
    W_enc, W_dec = torch.randn(L, D, F) * 0.4, torch.randn(L, F, L, D) * 0.5
    for own in range(L):
        W_dec[own, :, :own] = 0
    b_enc, b_dec, threshold = torch.randn(L, F) * 0.3, torch.randn(L, D) * 0.3, torch.rand(L, F) * 0.8
    for own in range(L):
        parts = {"w_enc": W_enc, "w_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec, "threshold": threshold}
        save_file({k: v[own].contiguous() for k, v in parts.items()}, path / f"params_layer_{own}.safetensors")
    hook = "model.layers.{0,1,3}.output"
    config = {"hf_hook_point_in": hook, "hf_hook_point_out": hook, "width": L * F, "architecture": "jump_relu",
              "affine_connection": False, "type": "crosscoder"}
    (path / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    pre = torch.einsum("bld,ldf->blf", x, W_enc) + b_enc
    acts = torch.relu(pre) * (pre > threshold)
    expect(HERE / "gemma_scope_2", x, acts.flatten(1), torch.einsum("blf,lfmd->bmd", acts, W_dec) + b_dec)

    path = folder("batch_top_k")
    W_enc, W_dec = torch.randn(L, D, F) * 0.4, torch.randn(L, F, D) * 0.5
    b_enc, b_dec, threshold = torch.randn(F) * 0.3, torch.randn(L, D) * 0.3, torch.tensor(3.0)
    torch.save({"encoder.weight": W_enc, "encoder.bias": b_enc, "decoder.weight": W_dec, "decoder.bias": b_dec,
                "code_normalization_id": torch.tensor(1), "k": torch.tensor(4, dtype=torch.int), "threshold": threshold},
               path / "ae.pt")
    acts = summed_encoder(x, W_enc, b_enc)
    kept = acts * (acts * W_dec.norm(dim=2).sum(dim=0) > threshold)
    assert (kept != acts).any()
    expect(path, x, kept, torch.einsum("bf,lfd->bld", kept, W_dec) + b_dec)

    path = folder("normalized")
    mean, std = torch.randn(L, D) * 0.4, torch.rand(L, D) + 0.5
    scale = 1.5 / std.square().sum(-1).sqrt()
    statistics = {"activation_mean": mean, "activation_std": std, "activation_global_scale": scale}
    torch.save(torch.load(HERE / "batch_top_k" / "ae.pt") | statistics | {"threshold": torch.tensor(1.5)}, path / "ae.pt")
    acts = summed_encoder((x - mean) * scale[:, None], W_enc, b_enc)
    kept = acts * (acts * W_dec.norm(dim=2).sum(dim=0) > 1.5)
    assert (kept != acts).any()
    out = torch.einsum("bf,lfd->bld", kept, W_dec) + b_dec
    expect(path, x, kept, out / (scale[:, None] + 1e-8) + mean)


if __name__ == "__main__":
    main()
