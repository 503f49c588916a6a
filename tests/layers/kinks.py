"""Writes kinks.json: values and slopes of PyTorch's activations at their kinks, at the infinities and at NaN, in float64,
for src/model/tests/kinks.rs. Numbers are texts, since JSON has no infinities.

There are no slopes at NaN: PyTorch's scalar and vector code differ there (relu6 1 and 0, elu 1 and NaN).
"""

import json
import math
import pathlib

import torch
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)

points = [-math.inf, -4.0, -3.0, -1.0, 0.0, 1.0, 3.0, 4.0, 6.0, 7.0, math.inf, math.nan]


def case(stage, function):
    x = torch.tensor(points, requires_grad=True)
    y = function(x)
    y.backward(torch.ones_like(y))
    return {"stage": stage, "values": [repr(v) for v in y.tolist()], "slopes": [repr(v) for v in x.grad.tolist()[:-1]]}


def with_zero(function):
    return lambda x: function(x, torch.zeros_like(x))


cases = [
    case(stage, function)
    for stage, function in [
        ("relu", F.relu), ("relu6", F.relu6), ("leaky_relu", F.leaky_relu), ("elu", F.elu), ("selu", F.selu),
        ("gelu", F.gelu), ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")), ("silu", F.silu),
        ("softplus", F.softplus), ("mish", F.mish), ("hard_sigmoid", F.hardsigmoid), ("hard_swish", F.hardswish),
        ("tanh", torch.tanh), ("sigmoid", torch.sigmoid), ("abs", torch.abs),
        ("max(0)", with_zero(torch.maximum)), ("min(0)", with_zero(torch.minimum)),
    ]
]

path = pathlib.Path(__file__).with_name("kinks.json")
lines = ",\n".join(json.dumps(c) for c in cases)
path.write_text(f'{{"points": {json.dumps([repr(p) for p in points])},\n"cases": [\n{lines}\n]}}\n')
print(len(cases), "cases")
