"""One layer's compiled loop laid out for a native Stream, which runs it a step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from headgate.engines.cpu.compile import Name
from headgate.engines.cpu.engine import Job, Options, Run
from headgate.engines.cpu.loop import loop_for
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
    run = Run(Job(call, Options(None, False, None), tensors[1:]), tensors[0], kept=False)
    # no other step could share the input's products
    loop = loop_for(call.plan.source, replace(run.form.loop.layout, fused=True))
    program, made = loop.plan.program, loop.forward
    families = dict(zip(program.families, run.families, strict=True))
    copies = {name: family.clone() for name, family in families.items() if family.dim() == 1}
    values: dict[Name, tuple[int, int]] = {}
    for name in made.tensors:
        if name[0] != "value":
            continue
        node = program.nodes[name[1]]
        if node.op == "parameter":
            rows = program.rows(node["family"], call.sizes)[node["block"]]
            values[name] = copies[node["family"]][rows].data_ptr(), 0
        else:
            values[name] = run.fixed_value(name[1]).data_ptr(), 0
    weights = [
        (packed(p, 0, program, dict(loop.layout.sizes)), families[p.family].data_ptr())
        for p in made.weights
    ]

    def place(name: Name) -> int:
        return made.tensors.index(name) if name in made.tensors else -1

    arguments = (
        made.plan,
        [values.get(name, (0, 0)) for name in made.tensors],
        weights,
        place(("x",)),
        place(("output",)),
        [place(("state", state.name)) for state in program.states],
        residual,
    )
    return Prepared(arguments, (copies, run.fixed))
