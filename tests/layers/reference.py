"""Writes reference.json: what PyTorch's layers give in float64, for src/model/tests/layers.rs.

Names and shapes of weights are PyTorch's; `num_batches_tracked` is left out.
Input element i is sin(1.3 i + 0.5); weight element i is 0.5 cos(0.7 i + p), where p is the sum of the bytes of the
weight's own name modulo 10; running means are 0.1 i and running variances 1 + 0.1 i.
"""

import json
import math
import pathlib

import torch
from torch import nn
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)


def filled(shape, formula):
    count = math.prod(shape)
    return torch.tensor([formula(i) for i in range(count)]).reshape(shape)


def fill(module):
    for name, tensor in module.state_dict().items():
        phase = sum(name.rsplit(".")[-1].encode()) % 10
        if name == "running_mean":
            formula = lambda i: 0.1 * i
        elif name == "running_var":
            formula = lambda i: 1 + 0.1 * i
        elif name == "num_batches_tracked":
            continue
        else:
            formula = lambda i: 0.5 * math.cos(0.7 * i + phase)
        tensor.copy_(filled(tensor.shape, formula))
    return module


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Attention(nn.Module):
    """MultiheadAttention of a tensor with itself; the weights stand at the top, as a stage has them."""

    def __init__(self, width, heads, causal=False, bias=True):
        super().__init__()
        self.inner, self.causal = nn.MultiheadAttention(width, heads, bias=bias, batch_first=True), causal

    def state_dict(self, *args, **kwargs):
        return self.inner.state_dict(*args, **kwargs)

    def forward(self, x):
        length = x.shape[1]
        mask = torch.full((length, length), -math.inf).triu(1) if self.causal else None
        return self.inner(x, x, x, attn_mask=mask, need_weights=False)[0]


def case(stage, shape, module, train=False):
    module = fill(module)
    module.train(train)
    x = filled(shape, lambda i: math.sin(1.3 * i + 0.5))
    y = module(x)
    states = {n: t.tolist() for n, t in module.state_dict().items() if n.startswith("running")} if train else {}
    weights = {n: list(t.shape) for n, t in module.state_dict().items() if n != "num_batches_tracked"}
    return {"stage": stage, "shape": list(shape), "train": train, "output": list(y.shape),
            "values": y.detach().flatten().tolist(), "states": states, "weights": weights}


cases = [
    case("Linear(5)", (3, 4), nn.Linear(4, 5)),
    case("Linear(5, bias = false)", (2, 3, 4), nn.Linear(4, 5, bias=False)),
    case("Conv(4, 3)", (2, 3, 7), nn.Conv1d(3, 4, 3)),
    case("Conv(4, 3, stride = 2, pad = 1)", (2, 3, 7, 6), nn.Conv2d(3, 4, 3, stride=2, padding=1)),
    case("Conv(4, 3, pad = 2, dilation = 2, bias = false)", (1, 2, 6, 7), nn.Conv2d(2, 4, 3, padding=2, dilation=2, bias=False)),
    case("Conv(6, 3, pad = 1, groups = 2)", (2, 4, 5, 5), nn.Conv2d(4, 6, 3, padding=1, groups=2)),
    case("Conv(4, 3, pad = 1, groups = 4)", (2, 4, 5, 5), nn.Conv2d(4, 4, 3, padding=1, groups=4)),
    case("Conv(4, 2, groups = 2)", (1, 2, 5), nn.Conv1d(2, 4, 2, groups=2)),
    case("Conv(2, 2, stride = 2)", (1, 2, 4, 5, 4), nn.Conv3d(2, 2, 2, stride=2)),
    case("Conv(4, [3, 2], stride = [1, 2], pad = [1, 0])", (2, 3, 5, 6), nn.Conv2d(3, 4, (3, 2), stride=(1, 2), padding=(1, 0))),
    case("max_pool([2, 3], pad = [1, 0])", (2, 2, 5, 6), nn.MaxPool2d((2, 3), padding=(1, 0))),
    case("max_pool(2)", (2, 2, 5, 6), nn.MaxPool2d(2)),
    case("max_pool(3, stride = 2, pad = 1)", (2, 2, 7, 6), nn.MaxPool2d(3, stride=2, padding=1)),
    case("max_pool(2)", (2, 2, 5), nn.MaxPool1d(2)),
    case("avg_pool(2)", (2, 2, 5, 6), nn.AvgPool2d(2)),
    case("avg_pool(3, stride = 2, pad = 1)", (2, 2, 7, 6), nn.AvgPool2d(3, stride=2, padding=1)),
    case("adaptive_avg_pool(2)", (2, 2, 4, 6), nn.AdaptiveAvgPool2d(2)),
    case("adaptive_max_pool(2)", (2, 2, 4, 6), nn.AdaptiveMaxPool2d(2)),
    case("BatchNorm", (3, 4), nn.BatchNorm1d(4), train=True),
    case("BatchNorm", (2, 3, 4, 5), nn.BatchNorm2d(3), train=True),
    case("BatchNorm(affine = false, momentum = 0.3)", (2, 3, 4), nn.BatchNorm1d(3, affine=False, momentum=0.3), train=True),
    case("BatchNorm", (2, 3, 4, 5), nn.BatchNorm2d(3)),
    case("LayerNorm", (2, 3, 5), nn.LayerNorm(5)),
    case("LayerNorm(bias = false)", (3, 5), nn.LayerNorm(5, bias=False)),
    case("RMSNorm", (3, 5), nn.RMSNorm(5, eps=1e-6)),
    case("GroupNorm(2)", (2, 4, 3, 3), nn.GroupNorm(2, 4)),
    case("Attention(2)", (2, 5, 6), Attention(6, 2)),
    case("Attention(3, causal = true)", (2, 5, 6), Attention(6, 3, causal=True)),
    case("Attention(2, bias = false)", (1, 4, 4), Attention(4, 2, bias=False)),
] + [
    case(stage, (3, 7), Function(function))
    for stage, function in [
        ("relu", F.relu), ("relu6", F.relu6), ("leaky_relu", F.leaky_relu), ("elu", F.elu), ("selu", F.selu),
        ("gelu", F.gelu), ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")), ("silu", F.silu),
        ("softplus", F.softplus), ("mish", F.mish), ("hard_sigmoid", F.hardsigmoid), ("hard_swish", F.hardswish),
        ("tanh", torch.tanh), ("sigmoid", torch.sigmoid),
        ("softmax", lambda x: F.softmax(x, -1)), ("log_softmax", lambda x: F.log_softmax(x, -1)),
    ]
]

path = pathlib.Path(__file__).with_name("reference.json")
lines = ",\n".join(json.dumps(c) for c in cases)
path.write_text(f"[\n{lines}\n]\n")
print(len(cases), "cases,", path.stat().st_size, "bytes")
