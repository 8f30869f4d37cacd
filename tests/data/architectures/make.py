"""Writes tiny models with random weights, one folder per family, as `transformers` saves them, and beside each what
`transformers` computes on them: golden.safetensors with tokens, logits and every hook point.

    pip install torch transformers safetensors
    python make.py [family...]
"""
import copy
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).parent
SMALL = dict(vocab_size=59, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
             max_position_embeddings=32, attn_implementation="eager", dtype="float32")
LONG = SMALL | dict(max_position_embeddings=256)
GROUPED = dict(num_key_value_heads=2, rms_norm_eps=1e-5)


def rotary(kind, **more):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=10000.0, **more))


FAMILIES = {
    "gpt2": lambda: transformers.GPT2Config(**SMALL, n_inner=24, bos_token_id=None, eos_token_id=None),
    # Llama, grouped queries, Llama 3.1's rotary scaling, all biases
    "llama3": lambda: transformers.LlamaConfig(**LONG, **GROUPED, head_dim=8, attention_bias=True, mlp_bias=True, **rotary(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)),
    # SmolLM2 is Llama with its unembedding tied
    "smollm2": lambda: transformers.LlamaConfig(**SMALL, **GROUPED, tie_word_embeddings=True, **rotary("default")),
    "llama_linear": lambda: transformers.LlamaConfig(**SMALL, **GROUPED, **rotary("linear", factor=4.0)),
    "llama_dynamic": lambda: transformers.LlamaConfig(**SMALL, **GROUPED, **rotary("dynamic", factor=4.0)),
    "llama_yarn": lambda: transformers.LlamaConfig(**LONG, **GROUPED, head_dim=16, **rotary(
        "yarn", factor=4.0, original_max_position_embeddings=64)),
    "mistral": lambda: transformers.MistralConfig(**SMALL, **GROUPED, head_dim=6, sliding_window=3, **rotary("default")),
    "qwen2": lambda: transformers.Qwen2Config(**SMALL, **GROUPED, use_sliding_window=True, sliding_window=3,
                                              max_window_layers=1, **rotary("default")),
    "qwen3": lambda: transformers.Qwen3Config(**SMALL, **GROUPED, head_dim=8, **rotary("default")),
    "pythia": lambda: transformers.GPTNeoXConfig(**SMALL, use_parallel_residual=True, rope_parameters=dict(
        rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)),
    "gpt_neox_sequential": lambda: transformers.GPTNeoXConfig(**SMALL, use_parallel_residual=False, rope_parameters=dict(
        rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)),
    "gemma2": lambda: transformers.Gemma2Config(**SMALL, **GROUPED, head_dim=8, query_pre_attn_scalar=12,
                                                sliding_window=3, attn_logit_softcapping=2.0,
                                                final_logit_softcapping=3.0, **rotary("default")),
}


def randomize(model):
    """Nothing zero, nothing one: gains, biases and matrices all differ from what they are made as."""
    generator = torch.Generator().manual_seed(20)
    for name, p in sorted(model.named_parameters()):
        scale = 0.4 if p.dim() > 1 else 0.3
        mean = 1.0 if p.dim() == 1 and name.endswith("weight") and "gemma" not in type(model).__name__.lower() else 0.0
        p.data = torch.randn(p.shape, generator=generator) * scale + mean


class Points:
    """Collects hook points under TransformerLens' names."""

    def __init__(self):
        self.values = {}
        self.gains = {}  # of norms that TransformerLens shows before their gain

    def put(self, name, value):
        self.values[name] = value.detach().clone().contiguous()

    def output(self, module, name, shape=None):
        module.register_forward_hook(
            lambda _m, _i, out: self.put(name, self.shaped(out[0] if isinstance(out, tuple) else out, shape)))

    def input(self, module, name, shape=None):
        module.register_forward_pre_hook(lambda _m, args: self.put(name, self.shaped(args[0], shape)))

    def norm(self, module, name):
        """The scale at TransformerLens' hook_scale, and what comes out behind gain and bias."""
        centred = isinstance(module, torch.nn.LayerNorm)
        if not centred:
            self.gains[name] = module.weight.detach() + (1.0 if "Gemma" in type(module).__name__ else 0.0)
        eps = module.eps if centred else getattr(module, "variance_epsilon", getattr(module, "eps", None))

        def hook(_m, args, out):
            x = args[0] - args[0].mean(-1, keepdim=True) if centred else args[0]
            self.put(name + ".scale", (x.pow(2).mean(-1, keepdim=True) + eps).sqrt())
            self.put(name + ".output", out)

        module.register_forward_hook(hook)

    @staticmethod
    def shaped(x, shape):
        return x if shape is None else x.reshape(*x.shape[:2], *shape)


def watch_gpt2(model, points):
    """Every hook point that is a module's input or output, in GPT-2."""
    c = model.config
    head = (c.n_head, c.n_embd // c.n_head)
    inner = model.transformer
    points.output(inner.wte, "embed")
    points.output(inner.wpe, "pos_embed")
    for i, layer in enumerate(inner.h):
        p = f"{i}/"
        points.input(layer, p + "resid_pre")
        points.output(layer, p + "resid_post")
        points.norm(layer.ln_1, p + "ln1")
        points.output(layer.attn.c_attn, p + "qkv", (3, *head))
        points.input(layer.attn.c_proj, p + "z", head)
        points.output(layer.attn.c_proj, p + "attn_out")
        points.norm(layer.ln_2, p + "ln2")
        points.input(layer.ln_2, p + "resid_mid")
        points.output(layer.mlp.c_fc, p + "pre")
        points.input(layer.mlp.c_proj, p + "post")
        points.output(layer.mlp, p + "mlp_out")
    points.norm(inner.ln_f, "ln_final")


def watch_layers(model, points):
    """Every hook point that is a module's input or output, in the others."""
    c = model.config
    inner = model.base_model
    heads, kv = c.num_attention_heads, getattr(c, "num_key_value_heads", None) or c.num_attention_heads
    neox, gemma = c.model_type == "gpt_neox", c.model_type == "gemma2"
    points.output(inner.embed_in if neox else inner.embed_tokens, "embed")
    for i, layer in enumerate(inner.layers):
        p = f"{i}/"
        attn = layer.attention if neox else layer.self_attn
        d_head = attn.head_size if neox else attn.head_dim
        out = attn.dense if neox else attn.o_proj
        points.input(layer, p + "resid_pre")
        points.output(layer, p + "resid_post")
        points.norm(layer.input_layernorm, p + "ln1")
        points.input(out, p + "z", (heads, d_head))
        if neox:
            points.output(attn.query_key_value, p + "qkv", (heads, 3 * d_head))
            points.norm(layer.post_attention_layernorm, p + "ln2")
            points.output(layer.mlp.dense_h_to_4h, p + "pre")
            points.input(layer.mlp.dense_4h_to_h, p + "post")
            points.output(layer.mlp, p + "mlp_out")
            points.output(attn.dense, p + "attn_out")
            if not c.use_parallel_residual:
                points.input(layer.post_attention_layernorm, p + "resid_mid")
            continue
        points.output(attn.q_proj, p + "q", (heads, d_head))
        points.output(attn.k_proj, p + "k", (kv, d_head))
        points.output(attn.v_proj, p + "v", (kv, d_head))
        if c.model_type == "qwen3":
            points.norm(attn.q_norm, p + "q_norm")
            points.norm(attn.k_norm, p + "k_norm")
        if gemma:
            points.norm(layer.post_attention_layernorm, p + "ln1_post")
            points.norm(layer.post_feedforward_layernorm, p + "ln2_post")
        before_mlp = layer.pre_feedforward_layernorm if gemma else layer.post_attention_layernorm
        points.norm(before_mlp, p + "ln2")
        points.input(before_mlp, p + "resid_mid")
        points.output(layer.mlp.gate_proj, p + "pre")
        points.output(layer.mlp.up_proj, p + "pre_linear")
        points.input(layer.mlp.down_proj, p + "post")
        points.output(layer.post_attention_layernorm if gemma else out, p + "attn_out")
        points.output(layer.post_feedforward_layernorm if gemma else layer.mlp, p + "mlp_out")
    points.norm(inner.final_layer_norm if neox else inner.norm, "ln_final")


def watch_functions(model, points):
    """What passes functions instead: queries and keys behind the rotary map, scores before the softmax."""
    module = sys.modules[type(model).__module__]
    rotate, softmax = getattr(module, "apply_rotary_pos_emb", None), torch.nn.functional.softmax
    layers = {"rot": 0, "scores": 0}

    def rotated(*args, **kwargs):
        q, k = rotate(*args, **kwargs)
        points.put(f"{layers['rot']}/rot_q", q.transpose(1, 2))
        points.put(f"{layers['rot']}/rot_k", k.transpose(1, 2))
        layers["rot"] += 1
        return q, k

    def weighed(scores, *args, **kwargs):
        points.put(f"{layers['scores']}/attn_scores", scores.masked_fill(scores < -1e30, -torch.inf))
        layers["scores"] += 1
        return softmax(scores, *args, **kwargs)

    module.apply_rotary_pos_emb, torch.nn.functional.softmax = rotated, weighed

    def undo():
        module.apply_rotary_pos_emb, torch.nn.functional.softmax = rotate, softmax

    return undo


def observe(model, tokens):
    """What `transformers` computes: Points with the tokens, the logits and every hook point."""
    model = copy.deepcopy(model)  # which takes its hooks with it
    points = Points()
    gpt2 = model.config.model_type == "gpt2"
    (watch_gpt2 if gpt2 else watch_layers)(model, points)
    undo = watch_functions(model, points)
    with torch.no_grad():
        out = model(tokens, output_attentions=True, use_cache=False)
    undo()
    if gpt2:
        points.put("pos_embed", points.values["pos_embed"].expand_as(points.values["embed"]))
    if model.config.model_type == "gemma2":  # the embedding module's output is not scaled yet
        points.put("embed", points.values["0/resid_pre"])
    for i in range(model.config.num_hidden_layers):
        points.put(f"{i}/pattern", out.attentions[i])
        if (qkv := points.values.pop(f"{i}/qkv", None)) is not None:
            for name, part in zip("qkv", qkv.unbind(2) if gpt2 else qkv.chunk(3, -1)):
                points.put(f"{i}/{name}", part)
    points.put("logits", out.logits)
    points.put("tokens", tokens)
    return points


def build(config):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    randomize(model)
    model.tie_weights()
    return model


def make(family, config):
    model = build(config)
    folder = HERE / family
    folder.mkdir(exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    points = observe(model, torch.randint(0, config.vocab_size, (2, 7), generator=torch.Generator().manual_seed(3)))
    if family.startswith("llama_"):  # which differ from the others in their rotary map alone
        kept = ("tokens", "logits", "rot_q", "rot_k")
        points.values = {name: value for name, value in points.values.items() if name.split("/")[-1] in kept}
    save_file(points.values, folder / "golden.safetensors")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{family}: {size / 1000:.0f} kB, {len(points.values)} tensors, logits up to {points.values['logits'].abs().max():.2f}")


if __name__ == "__main__":
    for family in sys.argv[1:] or FAMILIES:
        make(family, FAMILIES[family]())
