"""Writes effects.safetensors: what the tool of Marks et al. (github.com/saprmarks/feature-circuits) finds on the GPT-2 whose
weights lie in ../golden/model, with sparse autoencoders on attention's outputs, in float64.

    pip install torch "nnsight<0.4" "transformers<4.50" "numpy<2" dictionary_learning safetensors
    python make.py path/to/feature-circuits
"""
import sys
from pathlib import Path

import torch
import tokenizers
import transformers
from safetensors.torch import save_file

sys.path.insert(0, sys.argv[1])
from attribution import jvp, patching_effect
from dictionary_learning import AutoEncoder
from dictionary_learning.dictionary import IdentityDict
from loading_utils import Submodule
from nnsight import LanguageModel

HERE = Path(__file__).parent
FEATURES = 12
STEPS = 4
torch.set_default_dtype(torch.float64)
generator = torch.Generator().manual_seed(3)
random = lambda *size: torch.randn(*size, generator=generator)

hf = transformers.AutoModelForCausalLM.from_pretrained(HERE.parent / "golden" / "model", torch_dtype=torch.float64,
                                                       attn_implementation="eager").eval()
words = {f"t{i}": i for i in range(hf.config.vocab_size)}
tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="t0")), pad_token="<pad>")
tokenizer.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
model = LanguageModel(hf, tokenizer=tokenizer, dispatch=True)
layers = hf.config.n_layer
width = hf.config.n_embd

clean = torch.randint(hf.config.vocab_size, (2, 5), generator=generator)
corrupt = torch.randint(hf.config.vocab_size, (2, 5), generator=generator)
right, wrong = torch.tensor([3, 5]), torch.tensor([4, 6])
text = lambda tokens: [" ".join(f"t{int(t)}" for t in row) for row in tokens]


def metric(model):
    # Not model.output.logits, as the tool's own metrics: of an output that is no tensor nnsight 0.3 hands every step of
    # integrated gradients all steps' logits, and gather then reads the first step's, so that no step but that counts.
    last = model.lm_head.output[:, -1, :]
    return last.gather(1, right[:, None])[:, 0] - last.gather(1, wrong[:, None])[:, 0]


out = {"clean": clean, "corrupt": corrupt, "right": right, "wrong": wrong}
embed = Submodule("embed", model.transformer.wte)
attns = [Submodule(f"attn_{l}", model.transformer.h[l].attn, is_tuple=True) for l in range(layers)]
mlps = [Submodule(f"mlp_{l}", model.transformer.h[l].mlp) for l in range(layers)]
dictionaries = {embed: IdentityDict(width)}
for l, attn in enumerate(attns):
    sae = AutoEncoder(width, FEATURES)
    sae.encoder.weight.data = 0.5 * random(FEATURES, width)
    sae.encoder.bias.data = 0.3 * random(FEATURES) - 0.3
    sae.decoder.weight.data = 0.4 * random(width, FEATURES)
    sae.bias.data = 0.1 * random(width)
    out |= {f"{l}/W_enc": sae.encoder.weight.data.T, f"{l}/b_enc": sae.encoder.bias.data,
            f"{l}/W_dec": sae.decoder.weight.data.T, f"{l}/b_dec": sae.bias.data}
    dictionaries[attn] = sae

found = patching_effect(text(clean), text(corrupt), model, [embed, *attns], dictionaries, metric, method="ig", steps=STEPS)
for site in [embed, *attns]:
    effect = found.effects[site]
    out[f"nodes/{site.name}"] = torch.cat([effect.act, effect.resc], -1).mean(0)
for l, down in enumerate(attns):
    for m, up in enumerate(attns[:l]):  # the tool's matrix needs dictionaries of one size, so embeddings have no edges here
        between = [site for k in range(m, l) for site in (attns[k], mlps[k]) if site is not up]
        product = jvp(text(clean), model, dictionaries, down, found.effects[down].abs() > 0, up, found.grads[down],
                      found.deltas[up], between)
        # [pos, down, pos, up], errors last, a mean over prompts as the tool has it
        out[f"edges/{m}/{l}"] = product.to_dense().sum(dim=(0, 3)) / len(clean)
out = {k: v.detach().contiguous().clone() for k, v in out.items()}
print({k: tuple(v.shape) for k, v in out.items()})
save_file(out, HERE / "effects.safetensors")
