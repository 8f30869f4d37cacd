"""Writes pytorch_model.bin, the state dict of a small module with tied weights, a transposed one, a buffer and half
precision, and legacy.bin, the same in the format that PyTorch wrote before 1.6. Element i of every tensor is i, times 10
for the biases.

pip install torch; python make.py
"""

import pathlib

import torch

HERE = pathlib.Path(__file__).parent


def counted(*shape, times=1):
    count = torch.Size(shape).numel()
    return torch.nn.Parameter((torch.arange(count) * times).float().reshape(shape))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = torch.nn.Embedding(5, 4)
        self.wte.weight = counted(5, 4)
        self.ln = torch.nn.LayerNorm(4)
        self.ln.weight, self.ln.bias = counted(4), counted(4, times=10)
        self.proj = torch.nn.Linear(4, 2, dtype=torch.float16)
        self.proj.weight = torch.nn.Parameter(counted(4, 2).detach().half().t())
        self.proj.bias = torch.nn.Parameter(counted(2, times=10).detach().bfloat16())
        self.register_buffer("mask", torch.arange(4).reshape(2, 2) > 1)
        self.head = torch.nn.Linear(4, 5, bias=False)
        self.head.weight = self.wte.weight


state = Model().state_dict()
torch.save(state, HERE / "pytorch_model.bin")
torch.save(state, HERE / "legacy.bin", _use_new_zipfile_serialization=False)
