"""Writes graph.safetensors: what circuit-tracer 0.5.0 finds on models whose weights lie in this repository, in float64.

    pip install torch circuit-tracer==0.5.0 safetensors
    python make.py

The tool leaves out everything that features and errors of the first position write; here it is told not to, except in the
run "bos".
"""
from pathlib import Path
from types import SimpleNamespace

import torch
import transformer_lens
import transformers
from circuit_tracer.attribution.attribute import attribute
from circuit_tracer.graph import compute_graph_scores, compute_node_influence, prune_graph
from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
from safetensors.torch import save_file
from transformer_lens.pretrained import weight_conversions

HERE = Path(__file__).parent
FOLDERS = {"gpt2": HERE.parent / "golden" / "model", "llama": HERE.parent / "architectures" / "smollm2"}
FEATURES = 10
BUDGET = 20  # two rounds of eight targets and a rest
torch.set_default_dtype(torch.float64)


def load(kind):
    hf = transformers.AutoModelForCausalLM.from_pretrained(FOLDERS[kind], dtype=torch.float32).eval()
    c = hf.config
    d, heads = c.hidden_size, c.num_attention_heads
    common = dict(n_layers=c.num_hidden_layers, d_model=d, n_heads=heads, d_head=d // heads, d_vocab=c.vocab_size,
                  n_ctx=c.max_position_embeddings, dtype=torch.float64, device="cpu", eps=1e-5, model_name=kind,
                  tokenizer_name=None, d_mlp=4 * d if kind == "gpt2" else c.intermediate_size)
    own = {"gpt2": dict(act_fn="gelu_new", normalization_type="LN", original_architecture="GPT2LMHeadModel"),
           "llama": dict(act_fn="silu", normalization_type="RMS", positional_embedding_type="rotary",
                         rotary_dim=d // heads, rotary_adjacent_pairs=False, gated_mlp=True, final_rms=True,
                         n_key_value_heads=getattr(c, "num_key_value_heads", None),
                         original_architecture="LlamaForCausalLM")}[kind]
    model = transformer_lens.HookedTransformer(transformer_lens.HookedTransformerConfig(**common, **own))
    convert = {"gpt2": weight_conversions.convert_gpt2_weights, "llama": weight_conversions.convert_llama_weights}[kind]
    weights = {k: v.detach().to(torch.float64) for k, v in convert(hf, model.cfg).items()}
    model.load_and_process_state_dict(weights, fold_ln=False, center_writing_weights=False, center_unembed=False,
                                      fold_value_biases=False)
    for block in model.blocks if kind == "llama" else ():  # TransformerLens' rotary angles have passed float32
        n = model.cfg.rotary_dim // 2
        angles = torch.arange(model.cfg.n_ctx)[:, None] * 10000.0 ** (-torch.arange(n) / n)
        block.attn.rotary_sin.copy_(angles.sin().repeat(1, 2))
        block.attn.rotary_cos.copy_(angles.cos().repeat(1, 2))
    return model


def transcoders(model, generator, kind):
    random = lambda *size: torch.randn(*size, generator=generator)
    layers = {}
    for layer in range(model.cfg.n_layers):
        t = SingleLayerTranscoder(model.cfg.d_model, FEATURES, torch.nn.ReLU(), layer, skip_connection=True,
                                  dtype=torch.float64)
        t.W_enc.data = 0.5 * random(FEATURES, model.cfg.d_model)
        t.b_enc.data = 0.3 * random(FEATURES) - 0.6
        t.W_dec.data = 0.4 * random(FEATURES, model.cfg.d_model)
        t.b_dec.data = 0.3 * random(model.cfg.d_model)
        t.W_skip.data = 0.1 * random(model.cfg.d_model, model.cfg.d_model)
        layers[layer] = t
    # TransformerLens 3's hook_normalized stands before a LayerNorm's gain and bias, ours (and TransformerLens 2's) behind.
    return TranscoderSet(layers, "mlp.hook_in" if kind == "gpt2" else "ln2.hook_normalized", "hook_mlp_out")


def run(kind, out):
    generator = torch.Generator().manual_seed(5)
    model = load(kind)
    dictionaries = transcoders(model, generator, kind)
    for layer, t in enumerate(dictionaries):
        out |= {f"{kind}/{layer}/{name}": value.detach().contiguous().clone() for name, value in t.state_dict().items()}
    model.__class__ = TransformerLensReplacementModel
    model._configure_replacement_model(dictionaries)
    model.ensure_tokenized = lambda tokens: tokens
    model.tokenizer = SimpleNamespace(decode=lambda ids: "", vocab_size=model.cfg.d_vocab, padding_side="right")
    tokens = torch.randint(model.cfg.d_vocab, (6,), generator=generator)
    out[f"{kind}/tokens"] = tokens

    for name, first, budget in (("all", slice(0, 0), None), ("budget", slice(0, 0), BUDGET), ("bos", slice(0, 1), None)):
        if kind == "gpt2" and name == "bos":
            continue
        model.zero_positions = first
        graph = attribute(tokens, model, max_n_logits=5, desired_logit_prob=0.9, batch_size=4, update_interval=2,
                          max_feature_nodes=budget)
        weights = torch.zeros(len(graph.adjacency_matrix))
        weights[-len(graph.logit_targets):] = graph.logit_probabilities
        pruned = prune_graph(graph)
        found = {"adjacency": graph.adjacency_matrix, "features": graph.active_features[graph.selected_features],
                 "activations": graph.activation_values[graph.selected_features],
                 "logits": graph.logit_token_ids, "probabilities": graph.logit_probabilities,
                 "influence": compute_node_influence(graph.adjacency_matrix, weights),
                 "scores": torch.tensor(compute_graph_scores(graph)), "kept_nodes": pruned.node_mask,
                 "kept_edges": pruned.edge_mask, "cumulative": pruned.cumulative_scores}
        if name == "bos":
            found = {k: found[k] for k in ("adjacency", "features", "logits", "scores")}
        print(kind, name, {k: tuple(v.shape) for k, v in found.items()}, found["scores"])
        out |= {f"{kind}/{name}/{k}": v.detach().contiguous().clone() for k, v in found.items()}


out = {}
for kind in FOLDERS:
    run(kind, out)
save_file(out, HERE / "graph.safetensors")
