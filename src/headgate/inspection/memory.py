"""How long each unit of a cell remembers, from what its equations multiply the old state by.

Where the new value of a state is s(t) = a(t) ∘ s(t−1) + b(t), as in c = f ∘ c + i ∘ g, the factor a
says how much of the old value stays. It is found in the equations: sums, differences, products,
quotients, clipping and choices are followed from the new value back to the old one; activations and
matrix products end the way, for what passes them is b.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from headgate.engines.evaluate import Values, Weights, leaf_constants, operation
from headgate.engines.reference import mask_values
from headgate.program import Program
from headgate.program.builder import Builder
from headgate.program.lower import lower
from headgate.program.show import Text
from headgate.program.transform.rewrite import assemble, copied

from .observation import Layer, Observation

LEAST = 1e-6
"""A factor below this counts as this: a gate that is once quite closed has a logarithm too."""

FACTOR = " factor"
"""No name in equations: it holds a space."""

SCHEMA = {
    "layer": pl.Int32,
    "direction": pl.Int32,
    "state": pl.String,
    "factor": pl.String,
    "unit": pl.Int32,
    "memory": pl.Float64,
}


def memory_lengths(observation: Observation) -> pl.DataFrame:
    """For each unit of each state that carries its old value: in how many steps it forgets.

        memory = −1 / mean(log |a|)

    over all valid steps of all rows but a row's first, which has no old value: the steps after
    which the product of the factors a has fallen to 1/e. It is infinite where the factors do not
    shrink (a = 1 without a forget gate); factors below 10⁻⁶ count as that.

    Columns: layer, direction, state, factor (as the equations write it: "f", "z", "1 - f"), unit,
    memory. Without lines where no state carries its old value, as in a plain recurrent network.
    """
    parts = [pl.DataFrame(schema=SCHEMA)]
    for (layer, direction), each in observation.layers.items():
        for state in each.program.states:
            found = with_factor(each.program, state.name)
            if found is None:
                continue
            factor = _inside(
                _value(each, found, state.name, direction, observation), direction, observation
            )
            parts.append(
                pl.DataFrame(
                    {
                        "layer": layer,
                        "direction": direction,
                        "state": state.name,
                        "factor": _written(found),
                        "unit": np.arange(factor.shape[1]),
                        "memory": _steps(factor),
                    },
                    schema=SCHEMA,
                )
            )
    return pl.concat(parts)


def _steps(factor: np.ndarray) -> np.ndarray:
    """(M, H) factors as (H,) steps; NaN where there is none to count."""
    if not len(factor):
        return np.full(factor.shape[1], np.nan)
    mean = np.log(np.maximum(np.abs(factor), LEAST)).mean(axis=0)
    return np.divide(-1.0, mean, out=np.full(len(mean), np.inf), where=mean < 0)


def _inside(factor: np.ndarray, direction: int, observation: Observation) -> np.ndarray:
    """(M, H) of the steps that have a value before them."""
    chosen = observation.valid.copy()
    first = observation.lengths - 1 if direction else np.zeros_like(observation.lengths)
    read = observation.lengths > 0
    chosen[np.flatnonzero(read), first[read]] = False
    return factor[chosen]


def with_factor(program: Program, state: str) -> Program | None:
    """The Program with one more named value: what the old state is multiplied by; None without."""
    builder, moved = copied(program, lambda *_: None)
    end = next(s.next for s in program.states if s.name == state)
    factor = _factor(program, builder, moved, state, end)
    if factor is None:
        return None
    named = replace(program, names={**program.names, FACTOR: -1})
    return assemble(named, builder, lambda index: factor if index < 0 else moved(index))


def _factor(
    program: Program, builder: Builder, moved: Callable[[int], int], state: str, index: int
) -> int | None:
    """The builder's node of ∂(node)/∂(old state) along the way that is linear in it."""
    node = program.nodes[index]
    if node.op == "state":
        return builder.constant(1.0) if node["name"] == state else None
    if node.op not in ("add", "sub", "neg", "mul", "div", "clip", "where"):
        return None
    parts = [_factor(program, builder, moved, state, arg) for arg in node.args]
    carrying = [place for place, part in enumerate(parts) if part is not None]
    if not carrying:
        return None
    first, zero = carrying[0], builder.constant(0.0)
    one: int = parts[first]  # type: ignore[assignment]
    both = [zero if part is None else part for part in parts]
    match node.op:
        case "clip":
            return one
        case "neg":
            return builder.add("neg", [one])
        case "add":
            return builder.add("add", both)
        case "sub":
            return builder.add("neg", [both[1]]) if carrying == [1] else builder.add("sub", both)
        case "where":
            return builder.add("where", [moved(node.args[0]), both[1], both[2]])
        case "div":
            return builder.add("div", [one, moved(node.args[1])]) if carrying == [0] else None
    if len(carrying) == 2:  # the old state times itself
        return None
    return builder.add("mul", [one, moved(node.args[1 - first])])


def _written(program: Program) -> str:
    """The factor by its name in the equations, or written out."""
    node = program.names[FACTOR]
    for name, index in program.names.items():
        if index == node and name != FACTOR:
            return name
    return dict(Text(program).equations())[FACTOR]


def _value(
    layer: Layer, program: Program, state: str, direction: int, observation: Observation
) -> np.ndarray:
    """The factor (N, T, H) at every step: recorded where it was, else computed from the states."""
    program = lower(program)
    nodes, end = program.nodes, program.names[FACTOR]
    known = {**layer.states, **layer.values}
    values = {program.names[n]: torch.from_numpy(v).double() for n, v in known.items()}
    x = torch.from_numpy(layer.input).double()
    families = {k: torch.from_numpy(v).double() for k, v in layer.weights.items()}
    weights = Weights(program, families, layer.sizes)
    values |= leaf_constants(nodes, x, layer.sizes) | mask_values(program, None, x, layer.sizes)
    for index in _needed(program, end, values):
        node = nodes[index]
        args = [values[a] for a in node.args]
        match node.op:
            case "input":
                values[index] = x
            case "state":
                values[index] = _before(layer, node["name"], direction, observation)
            case "parameter":
                values[index] = weights.vector(node["family"], node["block"])
            case "product":
                matrix = weights.matrix(node["family"], node["part"], (node["block"],))
                values[index] = F.linear(args[0], matrix)
            case _:
                values[index] = operation(node)(*args)
    return values[end].expand(layer.states[state].shape).numpy()


def _needed(program: Program, end: int, known: Values) -> list[int]:
    """The nodes to compute for one, arguments first."""
    found: set[int] = set()
    stack = [end]
    while stack:
        index = stack.pop()
        if index not in known and index not in found:
            found.add(index)
            stack.extend(program.nodes[index].args)
    return sorted(found)


def _before(layer: Layer, state: str, direction: int, observation: Observation) -> Tensor:
    """The state that each step starts from (N, T, H)."""
    after, initial = layer.states[state], layer.initial[state]
    before = np.roll(after, -1 if direction else 1, axis=1)
    read = np.flatnonzero(observation.lengths > 0)
    before[read, observation.lengths[read] - 1 if direction else 0] = initial[read]
    return torch.from_numpy(before).double()
