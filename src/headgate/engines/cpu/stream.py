"""One layer's compiled loop laid out for a native Stream, which runs it a step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from headgate.engines.cpu.compile import Name
from headgate.engines.cpu.engine import compiled, known_values, start
from headgate.engines.cpu.weights import packed
from headgate.engines.reference import Call


@dataclass(frozen=True)
class Prepared:
    """What the native Stream takes for a layer, and what must outlive it."""

    arguments: tuple[Any, ...]
    kept: tuple[Any, ...]


def prepared(call: Call, tensors: Sequence[Tensor], residual: bool) -> Prepared:
    """``tensors`` as for ``returned``: x (1, N, I), the states, the families.

    The tensors' values are copied where a step reads them.
    """
    job = start(call, tensors, None, False, False, kept=False)
    job.layout = replace(job.layout, fused=True)  # no other step could share the input's products
    made = compiled(job.program, job.layout, False)
    weights = [packed(job.weights, packing) for packing in made.weights]
    fixed = {("value", index): value for index, value in known_values(job, tensors[0]).items()}
    fixed = {name: value.clone() for name, value in fixed.items() if name in made.tensors}
    for name, value in fixed.items():
        job.fixed(name, value)
    states: list[Name] = [("state", state.name) for state in call.plan.program.states]

    def place(name: Name) -> int:
        return made.tensors.index(name) if name in made.tensors else -1

    arguments = (
        made.plan,
        [job.arguments.get(name, (0, 0, 0, 0)) for name in made.tensors],
        [weight.data_ptr() for weight in weights],
        place(("x",)),
        place(("output",)),
        [place(name) for name in states],
        residual,
    )
    return Prepared(arguments, (made.plan, weights, fixed))
