"""Cells as one writes them in torch: a loop over time, the input's product ahead of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import headgate

Step = Callable[..., tuple[Tensor, ...]]


def peephole(w: dict[str, Tensor], a: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, f, g, o = (a + h @ w["R"].T).chunk(4, -1)
    p_i, p_f, p_o = w["p"].chunk(3)
    c = torch.sigmoid(f + p_f * c) * c + torch.sigmoid(i + p_i * c) * torch.tanh(g)
    return torch.sigmoid(o + p_o * c) * torch.tanh(c), c


def coupled(w: dict[str, Tensor], a: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, g, o = (a + h @ w["R"].T).chunk(3, -1)
    i = torch.sigmoid(i)
    c = (1 - i) * c + i * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def layer_norm(w: dict[str, Tensor], a: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    H = c.shape[-1]
    a = a + F.layer_norm(h @ w["R"].T, (4 * H,), w["gain_R"])
    i, f, g, o = a.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    normal = F.layer_norm(c, (H,), w["gain_c"], w["bias_c"])
    return torch.sigmoid(o) * torch.tanh(normal), c


def gru_reset_before(w: dict[str, Tensor], a: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    H = h.shape[-1]
    r, z = torch.sigmoid(a[:, : 2 * H] + h @ w["R"][: 2 * H].T).chunk(2, -1)
    n = torch.tanh(a[:, 2 * H :] + (r * h) @ w["R"][2 * H :].T)
    return ((1 - z) * n + z * h,)


def projected(w: dict[str, Tensor], a: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, f, g, o = (a + h @ w["R"].T).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return (torch.sigmoid(o) * torch.tanh(c)) @ w["P"].T, c


def own(w: dict[str, Tensor], a: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, f, g, o = (a + h @ w["R"].T).chunk(4, -1)
    f = torch.exp(-F.softplus(f + w["p"] * c))
    c = f * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


STEPS: dict[str, Step] = {
    "peephole": peephole,
    "coupled": coupled,
    "layer norm": layer_norm,
    "GRU, reset before": gru_reset_before,
    "projected": projected,
    "a user's own": own,
}


def loop(step: Step, module: headgate.Recurrent) -> Callable[..., Any]:
    """`module`'s cell as a torch loop over its own weights; called like the module."""
    w: dict[str, Tensor] = {k.removesuffix("_l0"): v for k, v in module.named_parameters()}
    rows = module.program.states
    sizes = module.layer_sizes[0]

    def run(x: Tensor, hx: Any = None) -> Any:
        if "gain_W" in w:
            a = F.layer_norm(x @ w["W"].T, (len(w["W"]),), w["gain_W"], w["b"])
        else:
            a = F.linear(x, w["W"], w["b"])
        if hx is None:
            states = tuple(x.new_zeros(x.shape[1], sizes[s.width]) for s in rows)
        else:
            states = tuple(s[0] for s in hx)
        outputs = []
        for t in range(x.shape[0]):
            states = step(w, a[t], *states)
            outputs.append(states[0])
        return torch.stack(outputs), tuple(s[None] for s in states)

    return run
