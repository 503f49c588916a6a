"""Makes the PyTorch reference values of `tests/parity/systems`.

usage: python tests/parity/systems.py [NAME …]        (needs torch and numpy; writes tests/parity/systems/*.json)

Weights and batches are those of `make.py`. Each system is written as PyTorch's users write it; names of weights are
those of the model file beside it.
"""
import json
import math
import pathlib
import sys

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from make import STEPS, fill, summary, uniform

HERE = pathlib.Path(__file__).parent / "systems"
BATCH = 8


class Mixer(nn.Module):
    def __init__(s, c, p, between, inside):
        super().__init__()
        s.norm1, s.norm2 = nn.LayerNorm(c), nn.LayerNorm(c)
        s.token1, s.token2 = nn.Linear(p, between), nn.Linear(between, p)
        s.channel1, s.channel2 = nn.Linear(c, inside), nn.Linear(inside, c)

    def forward(s, x):
        x = x + s.token2(F.gelu(s.token1(s.norm1(x).transpose(1, 2)))).transpose(1, 2)
        return x + s.channel2(F.gelu(s.channel1(s.norm2(x))))


class MlpMixer(nn.Module):
    def __init__(s):
        super().__init__()
        s.embed = nn.Linear(48, 24)
        s.mixer1, s.mixer2 = Mixer(24, 16, 20, 48), Mixer(24, 16, 20, 48)
        s.norm, s.head = nn.LayerNorm(24), nn.Linear(24, 5)

    def forward(s, x):
        p = x.reshape(-1, 3, 4, 4, 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 16, 48)
        return s.head(s.norm(s.mixer2(s.mixer1(s.embed(p)))).mean(1))


class SelfAttention(nn.MultiheadAttention):
    def __init__(s, c, heads):
        super().__init__(c, heads, batch_first=True)

    def forward(s, x):
        return super().forward(x, x, x, need_weights=False)[0]


class VitBlock(nn.Module):
    def __init__(s, c, heads, inside):
        super().__init__()
        s.norm1, s.norm2, s.attention = nn.LayerNorm(c), nn.LayerNorm(c), SelfAttention(c, heads)
        s.fc1, s.fc2 = nn.Linear(c, inside), nn.Linear(inside, c)

    def forward(s, x):
        x = x + s.attention(s.norm1(x))
        return x + s.fc2(F.gelu(s.fc1(s.norm2(x))))


class Vit(nn.Module):
    def __init__(s):
        super().__init__()
        s.token, s.positions = nn.Parameter(torch.zeros(1, 1, 24)), nn.Parameter(torch.zeros(1, 17, 24))
        s.patch = nn.Conv2d(3, 24, 4, 4)
        s.block1, s.block2 = VitBlock(24, 3, 48), VitBlock(24, 3, 48)
        s.norm, s.head = nn.LayerNorm(24), nn.Linear(24, 5)

    def forward(s, x):
        p = s.patch(x).flatten(2).transpose(1, 2)
        e = torch.cat([s.token.expand(len(x), 1, 24), p], 1) + s.positions
        return s.head(s.norm(s.block2(s.block1(e)))[:, 0])


class Dense(nn.Module):
    def __init__(s, c, growth):
        super().__init__()
        s.norm, s.conv = nn.BatchNorm2d(c), nn.Conv2d(c, growth, 3, padding=1, bias=False)

    def forward(s, x):
        return torch.cat([x, s.conv(F.gelu(s.norm(x)))], 1)


class DenseNet(nn.Module):
    def __init__(s):
        super().__init__()
        s.dense1, s.dense2 = Dense(4, 6), Dense(10, 6)
        s.norm, s.transition, s.head = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1, bias=False), nn.Linear(8, 5)

    def forward(s, x):
        x = s.dense2(s.dense1(x))
        return s.head(F.avg_pool2d(s.transition(F.gelu(s.norm(x))), 2).mean((2, 3)))


class ConvNextBlock(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.dwconv, s.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c, eps=1e-6)
        s.pwconv1, s.pwconv2 = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)
        s.gamma = nn.Parameter(torch.zeros(c))

    def forward(s, x):
        y = s.dwconv(x).permute(0, 2, 3, 1)
        y = s.gamma * s.pwconv2(F.gelu(s.pwconv1(s.norm(y))))
        return x + y.permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    def __init__(s):
        super().__init__()
        s.stem, s.block1, s.block2 = nn.Conv2d(3, 12, 4, 4), ConvNextBlock(12), ConvNextBlock(12)
        s.norm, s.head = nn.LayerNorm(12, eps=1e-6), nn.Linear(12, 5)

    def forward(s, x):
        return s.head(s.norm(s.block2(s.block1(s.stem(x))).mean((2, 3))))


class WindowAttention(nn.Module):
    def __init__(s, c, heads, window=4, shift=2):
        super().__init__()
        s.heads, s.window, s.shift = heads, window, shift
        s.qkv, s.proj = nn.Linear(c, 3 * c), nn.Linear(c, c)
        s.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))

    def windows(s, x):
        n, h, w, c = x.shape
        k = s.window
        return x.reshape(n, h // k, k, w // k, k, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, k * k, c)

    def forward(s, x):
        n, h, w, c = x.shape
        k, d = s.window, c // s.heads
        y = s.windows(torch.roll(x, (-s.shift, -s.shift), (1, 2)))
        q, key, v = s.qkv(y).reshape(-1, k * k, 3, s.heads, d).permute(2, 0, 3, 1, 4)
        scores = q @ key.transpose(-2, -1) / math.sqrt(d)
        at = torch.stack(torch.meshgrid(torch.arange(k), torch.arange(k), indexing="ij")).flatten(1)
        far = at[:, :, None] - at[:, None, :] + k - 1
        scores = scores + s.table[far[0] * (2 * k - 1) + far[1]].permute(2, 0, 1)
        regions = torch.zeros(1, h, w, 1)
        cuts = (slice(0, -k), slice(-k, -s.shift), slice(-s.shift, None))
        for number, (rows, columns) in enumerate((a, b) for a in cuts for b in cuts):
            regions[:, rows, columns] = number
        regions = s.windows(regions).squeeze(-1)
        apart = (regions[:, None, :] != regions[:, :, None]).float() * -100
        scores = (scores.reshape(n, -1, s.heads, k * k, k * k) + apart[None, :, None]).reshape(-1, s.heads, k * k, k * k)
        o = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, k * k, c)
        o = s.proj(o).reshape(n, h // k, w // k, k, k, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return torch.roll(o, (s.shift, s.shift), (1, 2))


class Swin(nn.Module):
    def __init__(s):
        super().__init__()
        s.embed, s.norm1, s.norm2, s.attention = nn.Linear(6, 16), nn.LayerNorm(16), nn.LayerNorm(16), WindowAttention(16, 2)
        s.fc1, s.fc2, s.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(s, x):
        x = s.embed(x)
        x = x + s.attention(s.norm1(x))
        x = x + s.fc2(F.gelu(s.fc1(s.norm2(x))))
        return s.head(x.mean((1, 2)))


class CrossAttention(nn.Module):
    def __init__(s):
        super().__init__()
        s.queries, s.cross = nn.Parameter(torch.zeros(3, 12)), nn.MultiheadAttention(12, 3, batch_first=True)
        s.head = nn.Linear(36, 5)

    def forward(s, x):
        padding = x[:, :, 0] < 0
        padding[:, 0] = False
        y = s.cross(s.queries.expand(len(x), 3, 12), x, x, key_padding_mask=padding, need_weights=False)[0]
        return s.head(y.flatten(1))


class RotaryAttention(nn.Module):
    def __init__(s, c, heads):
        super().__init__()
        s.heads, s.qkv, s.out = heads, nn.Linear(c, 3 * c, bias=False), nn.Linear(c, c, bias=False)

    def forward(s, x):
        n, t, c = x.shape
        d = c // s.heads
        q, k, v = s.qkv(x).reshape(n, t, 3, s.heads, d).permute(2, 0, 3, 1, 4)
        angle = torch.outer(torch.arange(t).float(), 10000 ** (-torch.arange(0, d, 2).float() / d))
        cos, sin = torch.cat([angle, angle], 1).cos(), torch.cat([angle, angle], 1).sin()
        turn = lambda y: torch.cat([-y[..., d // 2:], y[..., :d // 2]], -1)
        q, k = q * cos + turn(q) * sin, k * cos + turn(k) * sin
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return s.out(y.transpose(1, 2).reshape(n, t, c))


class Rotary(nn.Module):
    def __init__(s):
        super().__init__()
        s.embed, s.norm1, s.norm = nn.Linear(12, 24), nn.RMSNorm(24, eps=1e-6), nn.RMSNorm(24, eps=1e-6)
        s.attention, s.head = RotaryAttention(24, 3), nn.Linear(24, 5)

    def forward(s, x):
        x = s.embed(x)
        return s.head(s.norm(x + s.attention(s.norm1(x))).mean(1))


class BiasedAttention(nn.Module):
    def __init__(s, c, heads, reach=4):
        super().__init__()
        s.heads, s.reach, s.qkv, s.out = heads, reach, nn.Linear(c, 3 * c, bias=False), nn.Linear(c, c, bias=False)
        s.relative = nn.Parameter(torch.zeros(2 * reach + 1, heads))

    def forward(s, x):
        n, t, c = x.shape
        q, k, v = s.qkv(x).reshape(n, t, 3, s.heads, c // s.heads).permute(2, 0, 3, 1, 4)
        far = (torch.arange(t)[None, :] - torch.arange(t)[:, None]).clamp(-s.reach, s.reach) + s.reach
        scores = q @ k.transpose(-2, -1) + s.relative[far].permute(2, 0, 1)
        return s.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, c))


class T5(nn.Module):
    def __init__(s):
        super().__init__()
        s.embed, s.attention = nn.Linear(12, 24), BiasedAttention(24, 3)
        s.norm1, s.norm2, s.norm = (nn.RMSNorm(24, eps=1e-6) for _ in range(3))
        s.wi, s.wo, s.head = nn.Linear(24, 48, bias=False), nn.Linear(48, 24, bias=False), nn.Linear(24, 5)

    def forward(s, x):
        x = s.embed(x)
        x = x + s.attention(s.norm1(x))
        x = x + s.wo(F.gelu(s.wi(s.norm2(x))))
        return s.head(s.norm(x).mean(1))


class Experts(nn.Module):
    def __init__(s, c, e, inside):
        super().__init__()
        s.router = nn.Linear(c, e)
        s.weight1, s.weight2 = nn.Parameter(torch.zeros(e, inside, c)), nn.Parameter(torch.zeros(e, c, inside))

    def forward(s, x):
        gate = s.router(x).softmax(-1)
        share, e = gate.max(-1)
        a = torch.einsum("nc,nkc->nk", x, s.weight1[e])
        return share[:, None] * torch.einsum("nk,nck->nc", F.gelu(a), s.weight2[e])


class Moe(nn.Module):
    def __init__(s):
        super().__init__()
        s.embed, s.norm, s.experts, s.head = nn.Linear(12, 16), nn.LayerNorm(16), Experts(16, 4, 32), nn.Linear(16, 5)

    def forward(s, x):
        x = s.embed(x)
        return s.head(x + s.experts(s.norm(x)))


class SqueezeExcite(nn.Module):
    def __init__(s, c, inside):
        super().__init__()
        s.fc1, s.fc2 = nn.Linear(c, inside), nn.Linear(inside, c)

    def forward(s, x):
        return x * torch.sigmoid(s.fc2(F.silu(s.fc1(x.mean((2, 3))))))[:, :, None, None]


class InvertedResidual(nn.Module):
    def __init__(s, c, widen):
        super().__init__()
        w = widen * c
        s.conv1, s.bn1 = nn.Conv2d(c, w, 1, bias=False), nn.BatchNorm2d(w)
        s.conv2, s.bn2 = nn.Conv2d(w, w, 3, padding=1, groups=w, bias=False), nn.BatchNorm2d(w)
        s.se, s.conv3, s.bn3 = SqueezeExcite(w, 4), nn.Conv2d(w, c, 1, bias=False), nn.BatchNorm2d(c)

    def forward(s, x):
        y = F.silu(s.bn2(s.conv2(F.silu(s.bn1(s.conv1(x))))))
        return x + s.bn3(s.conv3(s.se(y)))


class MobileNet(nn.Module):
    def __init__(s):
        super().__init__()
        s.stem, s.block, s.head = nn.Conv2d(3, 8, 3, 2, 1), InvertedResidual(8, 3), nn.Linear(8, 5)

    def forward(s, x):
        return s.head(s.block(s.stem(x)).mean((2, 3)))


class GraphConv(nn.Module):
    def __init__(s, i, o):
        super().__init__()
        s.linear, s.bias = nn.Linear(i, o, bias=False), nn.Parameter(torch.zeros(o))

    def forward(s, x, a):
        d = a.sum(2).rsqrt()
        return d[:, :, None] * a * d[:, None, :] @ s.linear(x) + s.bias


class GraphNet(nn.Module):
    def __init__(s):
        super().__init__()
        s.first, s.second, s.head = GraphConv(5, 16), GraphConv(16, 16), nn.Linear(16, 5)

    def forward(s, x):
        a = x[:, :, :6].exp() + x[:, :, :6].exp().transpose(1, 2)
        return s.head(s.second(F.gelu(s.first(x[:, :, 6:], a)), a).mean(1))


class Siamese(nn.Module):
    def __init__(s):
        super().__init__()
        s.fc1, s.fc2 = nn.Linear(12, 32), nn.Linear(32, 8)

    def forward(s, x):
        return s.fc2(F.gelu(s.fc1(x)))


class Vae(nn.Module):
    def __init__(s):
        super().__init__()
        s.encode1, s.encode2 = nn.Linear(12, 32), nn.Linear(32, 8)
        s.decode1, s.decode2 = nn.Linear(4, 32), nn.Linear(32, 12)

    def forward(s, x):
        picture, noise = x[:, :12], x[:, 12:]
        mu, logvar = s.encode2(F.gelu(s.encode1(picture))).chunk(2, 1)
        return s.decode2(F.gelu(s.decode1(mu + (0.5 * logvar).exp() * noise))), mu, logvar


class Double(nn.Module):
    def __init__(s, i, o):
        super().__init__()
        s.conv1, s.norm1 = nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(2, o)
        s.conv2, s.norm2 = nn.Conv2d(o, o, 3, padding=1), nn.GroupNorm(2, o)

    def forward(s, x):
        return F.gelu(s.norm2(s.conv2(F.gelu(s.norm1(s.conv1(x))))))


class U(nn.Module):
    def __init__(s, depth, i, c):
        super().__init__()
        s.down, s.depth = Double(i, c), depth
        if depth:
            s.inner, s.up = U(depth - 1, c, 2 * c), Double(3 * c, c)

    def forward(s, x):
        a = s.down(x)
        if not s.depth:
            return a
        b = s.inner(F.avg_pool2d(a, 2))
        return s.up(torch.cat([F.interpolate(b, scale_factor=2), a], 1))


class UNet(nn.Module):
    def __init__(s):
        super().__init__()
        s.net, s.head = U(2, 3, 6), nn.Conv2d(6, 5, 1)

    def forward(s, x):
        return s.head(s.net(x))


class Transposed(nn.Module):
    def __init__(s):
        super().__init__()
        s.up1, s.norm1 = nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.BatchNorm2d(8)
        s.up2, s.norm2 = nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1, groups=2), nn.BatchNorm2d(6)
        s.up3 = nn.ConvTranspose2d(6, 5, (3, 2), (1, 2), dilation=(2, 1))

    def forward(s, x):
        return s.up3(F.gelu(s.norm2(s.up2(F.gelu(s.norm1(s.up1(x)))))))


class Small(nn.Module):
    def __init__(s):
        super().__init__()
        s.fc1, s.fc2 = nn.Linear(12, 32), nn.Linear(32, 5)

    def forward(s, x):
        return s.fc2(torch.tanh(s.fc1(x)))


class Critic(nn.Module):
    def __init__(s):
        super().__init__()
        s.fc1, s.fc2, s.fc3 = nn.Linear(12, 32), nn.Linear(32, 32), nn.Linear(32, 1)

    def forward(s, x):
        x = x.clone().requires_grad_()
        score = s.fc3(F.silu(s.fc2(torch.tanh(s.fc1(x)))))
        return score, torch.autograd.grad(score.sum(), x, create_graph=True)[0]


def classes(output, x, y):
    return F.cross_entropy(output, y)


def pixels(output, x, y):
    return F.cross_entropy(output, y[:, None, None].expand(len(y), *output.shape[2:]))


def triplet(output, x, y):
    return F.triplet_margin_loss(output[:, 0], output[:, 1], output[:, 2])


def evidence(output, x, y):
    rebuilt, mu, logvar = output
    error = (rebuilt - x[:, :12]).square().sum(1).mean()
    return error + (logvar.exp() + mu.square() - 1 - logvar).sum(1).mean() / 2


OPTIMIZERS = {
    "adamax": lambda p: torch.optim.Adamax(p, lr=5e-3, weight_decay=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5, weight_decay=0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=5e-3, weight_decay=0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.02, lr_decay=0.1),
}
# Adam makes steps of full size of what is rounding alone: weights whose gradient is 0 on paper, as the biases of an
# attention's keys, or of what is normalised at once. These systems have momentum.
STEADY = ["mixer", "vit", "swin", "cross_attention", "siamese", "transposed"]

def critic(output, x, y):
    score, slope = output
    signed = torch.where(y < 2, score[:, 0], -score[:, 0]).mean()
    return signed + 10 * (slope.square().sum(1).sqrt() - 1).square().mean()


SYSTEMS = {
    "mixer": (MlpMixer, (3, 16, 16), classes),
    "vit": (Vit, (3, 16, 16), classes),
    "densenet": (DenseNet, (4, 8, 8), classes),
    "convnext": (ConvNext, (3, 16, 16), classes),
    "swin": (Swin, (8, 8, 6), classes),
    "cross_attention": (CrossAttention, (10, 12), classes),
    "rotary": (Rotary, (9, 12), classes),
    "t5": (T5, (9, 12), classes),
    "moe": (Moe, (12,), classes),
    "squeeze_excite": (MobileNet, (3, 12, 12), classes),
    "graph_convolution": (GraphNet, (6, 11), classes),
    "siamese": (Siamese, (3, 12), triplet),
    "vae": (Vae, (16,), evidence),
    "adamax": (Small, (12,), classes),
    "adadelta": (Small, (12,), classes),
    "amsgrad": (Small, (12,), classes),
    "rmsprop": (Small, (12,), classes),
    "adagrad": (Small, (12,), classes),
    "gradient_penalty": (Critic, (12,), critic),
    "transposed": (Transposed, (12, 3, 3), pixels),
    "unet": (UNet, (3, 16, 16), pixels),
}


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or SYSTEMS:
        build, shape, loss_of = SYSTEMS[name]
        model = build()
        fill(model)
        count = STEPS * BATCH
        x = torch.from_numpy(2 * uniform(1000, count * math.prod(shape)) - 1).reshape(count, *shape)
        y = torch.from_numpy((uniform(1001, count) * 5).astype(np.int64))
        parameters = model.parameters()
        steady = name in STEADY
        if name in OPTIMIZERS:
            optimizer = OPTIMIZERS[name](parameters)
        else:
            optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9) if steady else torch.optim.AdamW(parameters, lr=1e-3)
        losses = []
        for step in range(STEPS):
            rows = slice(step * BATCH, (step + 1) * BATCH)
            loss = loss_of(model(x[rows]), x[rows], y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        text = json.dumps({"torch": torch.__version__, "losses": losses, "final": summary(model, 16)})
        (HERE / f"{name}.json").write_text(text + "\n")
        print(name, losses[0], losses[-1], flush=True)


if __name__ == "__main__":
    main()
