"""Makes the PyTorch reference values of the parity tests.

usage: python tests/parity/make.py        (needs torch and numpy; writes tests/parity/*.json)

Weights and batches come from an integer hash, so that the files hold only results: the loss of each of twenty steps,
and for every tensor after the last step its norm and up to 64 evenly spaced elements. `tests/parity.rs` makes the
same weights and batches, trains with `ansatz train --init … --no-shuffle --steps 20 --log …`, and compares.
"""
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent
STEPS = 20


def uniform(stream, count):
    """U[0, 1) of 32 bits from MurmurHash3's finaliser on (stream, position); `tests/parity.rs` has the same."""
    h = (np.arange(count, dtype=np.uint64) * 0x9E3779B1 + np.uint64(stream) * 0x85EBCA77 + 1) & 0xFFFFFFFF
    h ^= h >> np.uint64(16)
    h = (h * 0x85EBCA6B) & 0xFFFFFFFF
    h ^= h >> np.uint64(13)
    h = (h * 0xC2B2AE35) & 0xFFFFFFFF
    h ^= h >> np.uint64(16)
    return (h.astype(np.float64) / 2**32).astype(np.float32)


def fill(model):
    """U(-b, b) with b = 1/sqrt(fan-in) for weights; batch-norm scales near 1; everything by name order."""
    with torch.no_grad():
        for stream, (name, p) in enumerate(sorted(model.named_parameters())):
            u = torch.from_numpy(uniform(stream, p.numel())).reshape(p.shape)
            if p.dim() > 1:
                bound = 1 / math.sqrt(p[0].numel())
                p.copy_((2 * u - 1) * np.float32(bound))
            elif name.endswith("weight"):
                p.copy_(0.5 + u)
            else:
                p.copy_((2 * u - 1) * np.float32(0.1))


def summary(model, most):
    """Of each tensor its norm and up to so many evenly spaced elements."""
    final = {}
    for key, tensor in sorted(model.state_dict().items()):
        if key.endswith("num_batches_tracked"):
            continue
        flat = tensor.double().flatten()
        stride = max(1, flat.numel() // most)
        final[key] = {"norm": flat.norm().item(), "stride": stride, "elements": flat[::stride].tolist()[:most]}
    return final


class TextMlp(nn.Module):
    def __init__(s):
        super().__init__()
        s.fc1, s.fc2, s.fc3 = nn.Linear(1000, 500), nn.Linear(500, 250), nn.Linear(250, 10)

    def forward(s, x):
        return s.fc3(F.relu(s.fc2(F.relu(s.fc1(x)))))


class SeedCnn(nn.Module):
    def __init__(s):
        super().__init__()
        s.conv1, s.conv2 = nn.Conv2d(3, 32, 5), nn.Conv2d(32, 64, 5)
        s.fc1, s.fc2 = nn.Linear(1600, 1024), nn.Linear(1024, 10)

    def forward(s, x):
        x = F.max_pool2d(F.relu(s.conv1(x)), 2)
        x = F.max_pool2d(F.relu(s.conv2(x)), 2)
        return s.fc2(F.relu(s.fc1(x.flatten(1))))


class SmallCnn(nn.Module):
    def __init__(s):
        super().__init__()
        s.conv1, s.bn1 = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        s.conv2, s.bn2 = nn.Conv2d(12, 20, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(20)
        s.fc = nn.Linear(20, 7)

    def forward(s, x):
        x = F.relu(s.bn1(s.conv1(x)))
        x = F.relu(s.bn2(s.conv2(x)))
        return s.fc(x.mean((2, 3)))


def warmup_cosine(completed, warm=5, to=0.1):
    """The factor after `completed` steps: up in a line over `warm` steps, then half a cosine down to `to`."""
    if completed < warm:
        return completed / warm
    progress = (completed - warm) / (STEPS - warm)
    return to + (1 - to) * (1 + math.cos(math.pi * progress)) / 2


CASES = {
    "text_mlp": (TextMlp, (1000,), 64, 10, lambda p: torch.optim.SGD(p, lr=0.1), None),
    "seed_cnn": (SeedCnn, (3, 32, 32), 16, 10, lambda p: torch.optim.Adam(p, lr=1e-4), None),
    "small_cnn": (SmallCnn, (3, 13, 11), 24, 7,
                  lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.05), warmup_cosine),
}


def main():
    torch.set_num_threads(1)
    for name, (build, shape, batch, classes, optimizer, schedule) in CASES.items():
        model = build()
        fill(model)
        count = STEPS * batch
        x = torch.from_numpy(2 * uniform(1000, count * math.prod(shape)) - 1).reshape(count, *shape)
        y = torch.from_numpy((uniform(1001, count) * classes).astype(np.int64))
        opt = optimizer(model.parameters())
        scheduler = torch.optim.lr_scheduler.LambdaLR(opt, schedule) if schedule else None
        losses = []
        for i in range(STEPS):
            rows = slice(i * batch, (i + 1) * batch)
            loss = F.cross_entropy(model(x[rows]), y[rows])
            opt.zero_grad()
            loss.backward()
            opt.step()
            if scheduler:
                scheduler.step()
            losses.append(loss.item())
        text = json.dumps({"torch": torch.__version__, "losses": losses, "final": summary(model, 64)}, indent=1)
        (HERE / f"{name}.json").write_text(text + "\n")
        print(name, losses[0], losses[-1])


if __name__ == "__main__":
    main()
