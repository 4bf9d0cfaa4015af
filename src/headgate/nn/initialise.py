"""Initial weights by name, for each family and each gate.

    init={"W": "glorot", "R": "orthogonal", "b": "unit-forget-gate", "b.o": "ones"}

A key is a family or ``family.gate``; gates are set after families. A value is a name of the table
below or a function that fills the tensor it is given (any of ``torch.nn.init``), or returns one. A
single name stands for all families.

Axes: a matrix is (rows, columns). Given for a whole family, rows are those of all gates, so an
LSTM's W is (4H, D); given for one gate, they are that gate's.

| name | values | source |
|---|---|---|
| glorot | uniform, variance 2 / (rows + columns): 2 / (D + 4H) | Glorot & Bengio 2010 |
| he | normal, variance 2 / columns | He et al. 2015 |
| orthogonal | Q of the QR of a normal matrix, of all gates together | Saxe et al. 2014 |
| orthogonal-gates | the same, each gate's block by itself | |
| narrow-normal | normal, standard deviation 0.01 | |
| zeros, ones | | |
| torch | uniform in ±1/√H, as ``torch.nn.LSTM`` does | |
| unit-forget-gate | 1 in the block f, 0 in the others | Jozefowicz et al. 2015 |
| chrono(max_steps) | b_f = log u, b_i = −b_f, u uniform in [1, T − 1] | Tallec & Ollivier 2018 |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headgate.program import Program


@dataclass(frozen=True)
class Place:
    """What is being initialised: a family or one gate of it, its blocks' rows, and H."""

    what: str
    rows: Mapping[str, slice]
    hidden_size: int


Initialiser = str | Callable[..., Any]
Init = Initialiser | Mapping[str, Initialiser] | None


def _glorot(tensor: Tensor, place: Place) -> None:
    rows, columns = _matrix(tensor, place, "glorot")
    bound = math.sqrt(6.0 / (rows + columns))
    tensor.uniform_(-bound, bound)


def _he(tensor: Tensor, place: Place) -> None:
    _, columns = _matrix(tensor, place, "he")
    tensor.normal_(0.0, math.sqrt(2.0 / columns))


def _orthogonal(tensor: Tensor, place: Place) -> None:
    _matrix(tensor, place, "orthogonal")
    torch.nn.init.orthogonal_(tensor)


def _orthogonal_gates(tensor: Tensor, place: Place) -> None:
    _matrix(tensor, place, "orthogonal-gates")
    for rows in place.rows.values():
        torch.nn.init.orthogonal_(tensor[rows])


def _torch(tensor: Tensor, place: Place) -> None:
    bound = 1.0 / math.sqrt(place.hidden_size)
    tensor.uniform_(-bound, bound)


def _unit_forget_gate(tensor: Tensor, place: Place) -> None:
    tensor.zero_()
    tensor[_forget(place, "unit-forget-gate")] = 1.0


@dataclass(frozen=True)
class Chrono:
    """The initialiser that ``chrono`` makes."""

    max_steps: int

    def __call__(self, tensor: Tensor, place: Place) -> None:
        tensor.zero_()
        single = len(place.rows) == 1
        forget = slice(None) if single else _forget(place, "chrono")
        tensor[forget] = torch.empty_like(tensor[forget]).uniform_(1.0, self.max_steps - 1.0).log()
        if "i" in place.rows and not single:
            tensor[place.rows["i"]] = -tensor[forget]


def chrono(max_steps: int) -> Chrono:
    """Biases for dependencies of up to T = max_steps steps (Tallec & Ollivier 2018).

        b_f = log u,  b_i = −b_f,  u uniform in [1, T − 1];  other gates 0

    Given for a single gate, as in ``{"b.z": chrono(100)}`` for a GRU, whose z keeps the old state,
    that gate gets log u. Raises ValueError below 3 steps.
    """
    if max_steps < 3:
        raise ValueError(f"chrono: max_steps must be at least 3, got {max_steps}")
    return Chrono(max_steps)


INITIALISERS: dict[str, Callable[[Tensor, Place], Any]] = {
    "glorot": _glorot,
    "he": _he,
    "orthogonal": _orthogonal,
    "orthogonal-gates": _orthogonal_gates,
    "narrow-normal": lambda tensor, place: tensor.normal_(0.0, 0.01),
    "zeros": lambda tensor, place: tensor.zero_(),
    "ones": lambda tensor, place: tensor.fill_(1.0),
    "torch": _torch,
    "unit-forget-gate": _unit_forget_gate,
}


def check_init(program: Program, init: Init) -> dict[str, Initialiser]:
    """``init`` as a table from "family" or "family.gate" to initialisers.

    Raises ValueError for a key the cell does not have or a name that is no initialiser.
    """
    if init is None:
        return {}
    table = dict(init) if isinstance(init, Mapping) else dict.fromkeys(program.families, init)
    known = {}
    for family in program.families.values():
        known[family.name] = None
        known.update({f"{family.name}.{b}": None for b in family.block_names if b})
    for key, initialiser in table.items():
        if key not in known:
            raise ValueError(
                f"init: cell '{program.name}' has no parameters {key!r}; it has {', '.join(known)}"
            )
        if not callable(initialiser) and initialiser not in INITIALISERS:
            raise ValueError(
                f"init of {key!r}: unknown initialiser {initialiser!r}; give a function or one of "
                f"{', '.join(INITIALISERS)}, chrono(max_steps)"
            )
    return table


def defaults(program: Program) -> dict[str, Initialiser]:
    """How ``Recurrent`` initialises: glorot for matrices that see the input, orthogonal for those
    that see a state, 1 in the forget gate's bias where there is one.

    A vector that multiplies (a peephole) starts narrow-normal, a gain of layer normalisation at 1,
    any other vector at 0.
    """
    table: dict[str, Initialiser] = {}
    recurrent, factors = recurrent_families(program), multiplying_families(program)
    gains = normalisation_gains(program)
    for family in program.families.values():
        if family.kind == "matrix":
            table[family.name] = "orthogonal" if family.name in recurrent else "glorot"
        elif family.name in gains:
            table[family.name] = "ones"
        elif family.name in factors:
            table[family.name] = "narrow-normal"
        else:
            forget = "f" in family.block_names and len(family.blocks) > 1
            table[family.name] = "unit-forget-gate" if forget else "zeros"
    return table


def recurrent_families(program: Program) -> tuple[str, ...]:
    """Matrix families that multiply a state, dropped out or not."""
    nodes = program.nodes

    def is_state(index: int) -> bool:
        node = nodes[index]
        if node.op == "mul" and any(nodes[arg].op == "mask" for arg in node.args):
            return any(map(is_state, node.args))
        return node.op == "state"

    return tuple(
        dict.fromkeys(
            node["family"]
            for node in nodes
            if node.op == "product" and any(map(is_state, node.args))
        )
    )


def multiplying_families(program: Program) -> set[str]:
    """Vector families that stand in a product of elements: peepholes, gains."""
    return {
        program.nodes[arg]["family"]
        for node in program.nodes
        if node.op == "mul"
        for arg in node.args
        if program.nodes[arg].op == "parameter"
    }


def normalisation_gains(program: Program) -> set[str]:
    """Vector families that multiply a layer-normalised value."""
    nodes = program.nodes
    return {
        nodes[a]["family"]
        for node in nodes
        if node.op == "mul"
        for a, b in (node.args, node.args[::-1])
        if nodes[a].op == "parameter" and nodes[b].op == "layer_norm"
    }


@torch.no_grad()
def initialise(initialiser: Initialiser, tensor: Tensor, place: Place) -> None:
    """Fill ``tensor`` in place, in a plain contiguous copy so that any function may be given."""
    values = tensor.detach().clone()
    if isinstance(initialiser, str):
        INITIALISERS[initialiser](values, place)
        tensor.copy_(values)
        return
    made = initialiser(values, place) if isinstance(initialiser, Chrono) else initialiser(values)
    made = values if made is None else torch.as_tensor(made)
    if made.shape != tensor.shape:
        raise ValueError(
            f"init of {place.what!r}: the given function must make values of shape "
            f"{tuple(tensor.shape)}, got {tuple(made.shape)}"
        )
    tensor.copy_(made)


def _matrix(tensor: Tensor, place: Place, name: str) -> tuple[int, int]:
    if tensor.dim() != 2:
        raise ValueError(
            f"init of {place.what!r}: {name} needs a matrix, but this is a vector; take "
            "narrow-normal, zeros, ones, torch or a function"
        )
    return tensor.shape[0], tensor.shape[1]


def _forget(place: Place, name: str) -> slice:
    if "f" not in place.rows:
        raise ValueError(
            f"init of {place.what!r}: {name} needs a gate named f, but the gates are "
            f"{', '.join(b or '(one)' for b in place.rows)}; name a gate, as in "
            f"'{place.what.split('.')[0]}.z'"
        )
    return place.rows["f"]
