"""Compares what `examples/train_dictionaries --probe` saved with what sae_lens makes of the same files.

    pip install sae-lens
    build/examples/train_dictionaries --attn 0 --mlp 1 --out mine --probe
    python tests/data/dictionaries/trained.py mine

Every folder holds a dictionary in SAELens' layout and probe.safetensors: x, y (what is described), acts and out as our
library computes them. Printed are the largest differences and the mean squared error of both; exit 1 over 1e-4 of the
largest value.
"""

import pathlib
import sys

import torch
from safetensors.torch import load_file
from sae_lens import SAE


def compare(folder: pathlib.Path) -> bool:
    probe = load_file(folder / "probe.safetensors")
    x, y = probe["x"], probe["y"]
    sae = SAE.load_from_disk(str(folder), device="cpu").to(torch.float32)
    # Without this SAELens wants hook_z split into heads; ours come side by side.
    sae.turn_off_forward_pass_hook_z_reshaping()
    with torch.no_grad():
        acts = sae.encode(x)
        out = sae.decode(acts)
        if hasattr(sae, "W_skip"):
            out = out + x @ sae.W_skip.T
    errors = [(acts - probe["acts"]).abs().max().item(), (out - probe["out"]).abs().max().item()]
    losses = [((o - y) ** 2).sum(-1).mean().item() for o in (probe["out"], out)]
    scale = max(1.0, acts.abs().max().item(), out.abs().max().item())
    print(f"| {folder.name} | {sae.cfg.architecture()} | {errors[0]:.1e} | {errors[1]:.1e} | "
          f"{losses[0]:.6g} | {losses[1]:.6g} |")
    return max(errors) <= 1e-4 * scale and abs(losses[0] - losses[1]) <= 1e-4 * losses[0]


def main() -> int:
    folders = sorted(p.parent for root in sys.argv[1:] for p in pathlib.Path(root).rglob("probe.safetensors"))
    if not folders:
        print(__doc__)
        return 2
    print("| site | architecture | encode | decode | squared error, ours | sae_lens' |\n|---|---|---|---|---|---|")
    return 0 if all([compare(folder) for folder in folders]) else 1


if __name__ == "__main__":
    sys.exit(main())
