"""Writes scores.safetensors: what EAP-IG's tool (github.com/hannamw/EAP-IG) finds on models whose weights lie in this
repository, in float64.

    pip install torch "transformer_lens<4" matplotlib safetensors
    python make.py path/to/EAP-IG

The tool writes to a GPU and tokenises text; both are replaced here, its sums are not.
"""
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
DATA = HERE.parent
FOLDERS = {"gpt2": DATA / "golden" / "model", "neox": DATA / "architectures" / "pythia",
           "llama": DATA / "architectures" / "smollm2"}
STEPS = 3
SIZES = [0, 5, 20, 60]

# The tool's tensors are made with device='cuda'.
for name in ("zeros", "ones"):
    made = getattr(torch, name)
    setattr(torch, name, lambda *a, _made=made, **k: _made(*a, **{**k, "device": "cpu"} if k.get("device") == "cuda" else k))

sys.path.insert(0, str(Path(sys.argv[1]) / "src"))
import eap.attribute
import eap.evaluate
import eap.graph
import transformers
import transformer_lens
from transformer_lens.pretrained import weight_conversions


def tokens_as_they_are(_model, rows, max_length=None):
    tokens = torch.stack(list(rows))
    return tokens, torch.ones_like(tokens), torch.full((len(tokens),), tokens.shape[1]), tokens.shape[1]


eap.attribute.tokenize_plus = tokens_as_they_are
eap.evaluate.tokenize_plus = tokens_as_they_are


def load(kind):
    hf = transformers.AutoModelForCausalLM.from_pretrained(FOLDERS[kind], dtype=torch.float32).eval()
    c = hf.config
    d, heads = c.hidden_size, c.num_attention_heads
    common = dict(n_layers=c.num_hidden_layers, d_model=d, n_heads=heads, d_head=d // heads, d_vocab=c.vocab_size,
                  n_ctx=c.max_position_embeddings, dtype=torch.float64, device="cpu", use_attn_result=True,
                  use_split_qkv_input=True, use_hook_mlp_in=True, d_mlp=4 * d if kind == "gpt2" else c.intermediate_size)
    own = {"gpt2": dict(act_fn="gelu_new", normalization_type="LN", eps=1e-5),
           "neox": dict(act_fn="gelu", normalization_type="LN", eps=1e-5, positional_embedding_type="rotary",
                        rotary_dim=d // heads // 2, rotary_adjacent_pairs=False, parallel_attn_mlp=True),
           "llama": dict(act_fn="silu", normalization_type="RMS", eps=1e-5, positional_embedding_type="rotary",
                         rotary_dim=d // heads, rotary_adjacent_pairs=False, gated_mlp=True, final_rms=True,
                         n_key_value_heads=getattr(c, "num_key_value_heads", None),
                         ungroup_grouped_query_attention=True)}[kind]
    if kind == "llama":
        own["original_architecture"] = "LlamaForCausalLM"
    model = transformer_lens.HookedTransformer(transformer_lens.HookedTransformerConfig(**common, **own))
    convert = {"gpt2": weight_conversions.convert_gpt2_weights, "neox": weight_conversions.convert_neox_weights,
               "llama": weight_conversions.convert_llama_weights}[kind]
    weights = {k: v.detach().to(torch.float64) for k, v in convert(hf, model.cfg).items()}
    model.load_and_process_state_dict(weights, fold_ln=False, center_writing_weights=False, center_unembed=False,
                                      fold_value_biases=False)
    for block in model.blocks:  # TransformerLens' rotary angles have passed float32
        if kind == "gpt2":
            break
        n = model.cfg.rotary_dim // 2
        angles = torch.arange(model.cfg.n_ctx)[:, None] * 10000.0 ** (-torch.arange(n, dtype=torch.float64) / n)
        block.attn.rotary_sin.copy_(angles.sin().repeat(1, 2))
        block.attn.rotary_cos.copy_(angles.cos().repeat(1, 2))
    model.requires_grad_(True)
    tokens = torch.arange(10).reshape(2, 5) * 7 % c.vocab_size
    gap = (hf.double()(tokens).logits - model(tokens)).abs().max()
    assert gap < 1e-5, (kind, gap)  # transformers works partly in float32
    return model


def run(kind, out):
    model = load(kind)
    generator = torch.Generator().manual_seed(11)
    clean = torch.randint(model.cfg.d_vocab, (3, 6), generator=generator)
    corrupt = clean.clone()
    corrupt[:, 2:4] = torch.randint(model.cfg.d_vocab, (3, 2), generator=generator)
    right = torch.randint(model.cfg.d_vocab, (3,), generator=generator)
    wrong = (right + 1 + torch.randint(model.cfg.d_vocab - 1, (3,), generator=generator)) % model.cfg.d_vocab
    data = [(list(clean), list(corrupt), None)]

    def per_prompt(logits, *_):
        last = logits[:, -1]
        return last.gather(1, right[:, None])[:, 0] - last.gather(1, wrong[:, None])[:, 0]

    # The tool divides its sum by the number of prompts, so the metric it is given is the sum over prompts.
    total = lambda *a: per_prompt(*a).sum()
    new_graph = lambda: eap.graph.Graph.from_model(model)
    scores = {
        "eap": eap.attribute.get_scores_eap(model, new_graph(), data, total, quiet=True),
        "inputs": eap.attribute.get_scores_eap_ig(model, new_graph(), data, total, steps=STEPS, quiet=True),
        "activations_as_is": eap.attribute.get_scores_ig_activations(model, new_graph(), data, total, steps=STEPS, quiet=True),
        "clean_corrupt": eap.attribute.get_scores_clean_corrupted(model, new_graph(), data, total, quiet=True),
        "flow_routes": eap.attribute.get_scores_information_flow_routes(model, new_graph(), data, quiet=True),
    }
    # Without position embeddings nothing before layer 0 asks for a gradient once hook_embed is a constant, so the tool
    # leaves out what layer 0 reads on the steps that move the input; here the stream asks for it.
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda x, hook: x.detach().requires_grad_(True))]):
        scores["activations"] = eap.attribute.get_scores_ig_activations(model, new_graph(), data, total, steps=STEPS,
                                                                        quiet=True)
    # Judging a graph prunes it for good, so once a component's last edge has been tried the tool judges all later edges in
    # a graph without what that component reads; "exact" is what it finds when it does not prune.
    for name in ("exact", "exact_as_is"):
        graph = new_graph()
        graph.scores = graph.scores.to(torch.float64)
        if name == "exact":
            graph.nodes_in_graph[:] = True
            graph.prune = lambda: None
        scores[name] = eap.attribute.get_scores_exact(model, graph, data, per_prompt, quiet=True).clone()
    graph = new_graph()
    graph.scores = scores["eap"].clone()
    kept = []
    for n in SIZES:
        graph.apply_topn(n, absolute=True, prune=False)
        graph.nodes_in_graph[:] = True
        kept.append(eap.evaluate.evaluate_graph(model, graph, data, per_prompt, quiet=True).detach())
    out |= {f"{kind}/{name}": value.detach().to(torch.float64).contiguous().clone() for name, value in scores.items()}
    out |= {f"{kind}/clean": clean, f"{kind}/corrupt": corrupt, f"{kind}/right": right, f"{kind}/wrong": wrong,
            f"{kind}/top_n": torch.stack(kept).contiguous(),
            f"{kind}/metric": torch.stack([per_prompt(model(clean)), per_prompt(model(corrupt))]).detach().contiguous()}


out = {}
for kind in FOLDERS:
    run(kind, out)
save_file(out, HERE / "scores.safetensors")
