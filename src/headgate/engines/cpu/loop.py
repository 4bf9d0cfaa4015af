"""What is compiled for a Program with given sizes: the loops of both ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from headgate import native
from headgate.engines.cpu.code import Packing
from headgate.engines.cpu.compile import Compiler, Name
from headgate.engines.cpu.sources import Layout, backward_source, forward_source
from headgate.program.program import Program
from headgate.program.schedule import Plan


@dataclass(frozen=True)
class Compiled:
    """A native plan, its tensors, weights and masks by name, and which pass uses a tensor."""

    plan: Any
    tensors: tuple[Name, ...]
    weights: tuple[Packing, ...]
    masks: tuple[str, ...]
    last_read: Mapping[Name, int]
    written: Mapping[Name, int]


class Loop:
    """A Program laid out for calls of one kind; compiled when first needed."""

    def __init__(self, program: Program, layout: Layout) -> None:
        self.source, self.layout = program, layout
        self.plan: Plan = layout.plan(program)
        self.sizes = layout.table()
        self.forward_stores = forward_source(program, layout).stores

    @cached_property
    def forward(self) -> Compiled:
        return _compiled(Compiler(forward_source(self.source, self.layout), self.layout.machine))

    @cached_property
    def backward(self) -> Compiled:
        return _compiled(Compiler(backward_source(self.source, self.layout), self.layout.machine))

    @cached_property
    def covered_again(self) -> frozenset[str]:
        """Families whose gradient starts from zeros: a part has several terms, or none."""
        program = self.plan.program
        times = Counter((t.family, t.block, t.part) for t in self.plan.back.backward.terms)
        return frozenset(
            name
            for name, family in program.families.items()
            for block in family.block_names
            for part in range(max(1, len(family.columns)))
            if times[name, block, part] != 1
        )


def _compiled(compiler: Compiler) -> Compiled:
    plan = native.extension.Plan(**compiler.arguments())  # type: ignore[union-attr]
    return Compiled(
        plan,
        tuple(compiler.tensors),
        tuple(compiler.weights),
        tuple(compiler.masks),
        compiler.last_read(),
        compiler.written(),
    )


@lru_cache(maxsize=256)
def loop_for(program: Program, layout: Layout) -> Loop:
    return Loop(program, layout)
