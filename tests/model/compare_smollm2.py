"""Compares logits of the program `smollm2` with those of `transformers` on the same GGUF file, which the latter
dequantises with the package `gguf`. Prints the largest difference and fails over 1e-3.

    pip install torch transformers gguf safetensors accelerate
    python compare_smollm2.py build/examples/smollm2 SmolLM2-135M-Instruct.Q4_1.gguf [prompts]
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ALLOWED = 1e-3


def ours(program, gguf, prompts):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "logits.safetensors"
        command = [program, "--model", gguf, "--prompts", str(prompts), "--no-search", "--logits", file]
        subprocess.run(command, check=True)
        return load_file(file)


def main():
    program, gguf = sys.argv[1], Path(sys.argv[2])
    prompts = int(sys.argv[3]) if len(sys.argv) > 3 else 24
    facts = ours(program, gguf, prompts)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    worst = 0.0
    rows = 0
    for name, tokens in facts.items():
        if not name.startswith("tokens."):
            continue
        with torch.no_grad():
            theirs = model(tokens).logits[:, -1]
        logits = facts[name.replace("tokens", "logits")]
        worst = max(worst, (theirs - logits).abs().max().item())
        rows += len(tokens)
        for row in tokens:
            start = 1 if row[0] == tokenizer.bos_token_id else 0
            text = tokenizer.decode(row[start:])
            again = tokenizer(text, add_special_tokens=False).input_ids
            assert again == row[start:].tolist(), f"tokens differ: {text!r}"
    print(f"{rows} prompts, largest difference of a last logit: {worst:.2e} (allowed {ALLOWED:.0e}); tokens agree")
    return 0 if rows > 0 and worst <= ALLOWED else 1


sys.exit(main())
