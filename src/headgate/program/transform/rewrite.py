"""What the transformations share: copying a Program with changes, and reading their options."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NoReturn

from headgate.program.builder import Builder
from headgate.program.errors import ProgramError
from headgate.program.program import Family, Program

Moved = Callable[[int], int]
Change = Callable[[Builder, int, Moved], int | None]


def fail(program: Program, option: str, message: str) -> NoReturn:
    raise ProgramError(f"{option} of cell '{program.name}': {message}")


def rewrite(
    program: Program, change: Change, families: Mapping[str, Family] | None = None
) -> Program:
    """The Program copied node by node; ``change`` may return another node in place of one.

    ``change(builder, index, moved)`` is asked for every node in order, with ``moved`` giving the
    new index of any earlier one; None copies the node as it is.
    """
    builder, moved = copied(program, change)
    return assemble(program, builder, moved, families=families)


def copied(program: Program, change: Change) -> tuple[Builder, Moved]:
    """The first half of ``rewrite``: more nodes may be added before the Program is assembled."""
    builder = Builder()
    new: list[int] = []
    for index, node in enumerate(program.nodes):
        other = change(builder, index, new.__getitem__)
        if other is None:
            other = builder.copy(node, program.widths[index], new.__getitem__)
        new.append(other)
    return builder, new.__getitem__


def assemble(
    program: Program,
    builder: Builder,
    moved: Moved,
    *,
    nexts: Mapping[str, int] | None = None,
    families: Mapping[str, Family] | None = None,
) -> Program:
    """The builder's nodes as a Program, with the ends of ``program`` and without unused nodes.

    ``nexts`` gives new nodes for the next values of states, and so for what bears their names.
    """
    nexts = dict(nexts or {})
    ends = {state.name: nexts.get(state.name, moved(state.next)) for state in program.states}
    names = {name: nexts.get(name, moved(index)) for name, index in program.names.items()}
    order = _reachable(builder, {*ends.values(), *names.values()})
    place = {index: position for position, index in enumerate(order)}
    return replace(
        program,
        nodes=tuple(
            replace(builder.nodes[i], args=tuple(place[a] for a in builder.nodes[i].args))
            for i in order
        ),
        widths=tuple(builder.widths[i] for i in order),
        states=tuple(replace(s, next=place[ends[s.name]]) for s in program.states),
        families=dict(families or program.families),
        names=dict(sorted(((n, place[i]) for n, i in names.items()), key=lambda item: item[1])),
    )


def _reachable(builder: Builder, ends: set[int]) -> list[int]:
    needed = set(ends)
    for index in reversed(range(len(builder.nodes))):
        if builder.nodes[index].op in ("input", "state"):
            needed.add(index)
        if index in needed:
            needed.update(builder.nodes[index].args)
    return sorted(needed)


def mask(builder: Builder, program: Program, name: str, width: str, **attrs: float | str) -> int:
    """A mask node: ``hit`` with probability ``rate``, else ``miss``; drawn per step or sequence."""
    if any(node.op == "mask" and node["name"] == name for node in program.nodes):
        option, _, site = name.partition(":")
        fail(program, option, f"the Program already has it on {site}; give the rate once")
    return builder.add("mask", (), width, name=name, **attrs)


def dropout_mask(
    builder: Builder, program: Program, name: str, width: str, rate: float, per: str
) -> int:
    return mask(builder, program, name, width, rate=rate, hit=0.0, miss=1.0 / (1.0 - rate), per=per)


def check_rate(program: Program, option: str, rate: float) -> float:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        fail(program, option, f"expected a rate in [0, 1), the probability to drop; got {rate!r}")
    return float(rate)


def check_bound(program: Program, option: str, bound: float) -> float:
    if (
        isinstance(bound, bool)
        or not isinstance(bound, (int, float))
        or not (math.isfinite(bound) and bound > 0)
    ):
        fail(program, option, f"expected a positive, finite bound; got {bound!r}")
    return float(bound)


def per_state(
    program: Program, option: str, given: float | Mapping[str, float]
) -> dict[str, float]:
    """The option for each state: one number means all of them."""
    states = [state.name for state in program.states]
    if not isinstance(given, Mapping):
        return dict.fromkeys(states, given)
    for name in given:
        if name not in states:
            fail(program, option, f"no state is named {name!r}; its states: {', '.join(states)}")
    return dict(given)
