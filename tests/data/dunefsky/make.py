"""Writes a transcoder file of the kind published for GPT-2 small, with a pickled configuration object of a class that the
reader does not have, and the numbers it must give. Needs torch and safetensors; run in this folder."""

import sys
import types

import torch
from safetensors.torch import save_file

module = types.ModuleType("sae_training.config")


class LanguageModelSAERunnerConfig:
    pass


LanguageModelSAERunnerConfig.__module__ = module.__name__
module.LanguageModelSAERunnerConfig = LanguageModelSAERunnerConfig
sys.modules["sae_training"] = types.ModuleType("sae_training")
sys.modules[module.__name__] = module

torch.manual_seed(3)
cfg = LanguageModelSAERunnerConfig()
cfg.__dict__.update(d_in=4, d_out=4, d_sae=6, is_transcoder=True, dtype=torch.float32, device=torch.device("cpu"),
                    hook_point="blocks.2.ln2.hook_normalized", hook_point_layer=2,
                    out_hook_point="blocks.2.hook_mlp_out", out_hook_point_layer=2)
state = {"W_enc": torch.randn(4, 6), "b_enc": torch.randn(6), "W_dec": torch.randn(6, 4), "b_dec": torch.randn(4),
         "b_dec_out": torch.randn(4)}
torch.save({"cfg": cfg, "state_dict": state},
           "final_sparse_autoencoder_gpt2-small_blocks.2.ln2.hook_normalized_6.pt")
x = torch.randn(2, 3, 4)
acts = torch.relu((x - state["b_dec"]) @ state["W_enc"] + state["b_enc"])
save_file({"x": x, "acts": acts, "out": acts @ state["W_dec"] + state["b_dec_out"]}, "expected.safetensors")
