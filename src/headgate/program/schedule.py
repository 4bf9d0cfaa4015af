"""Scheduling: a Program becomes a Plan, which says what is done when.

A Plan has three parts forward and backward: what is done *before* the time loop for all steps at
once, what is done *inside* it, and what is done *after* it. Each part is a list of phases. A phase
begins with grouped matrix products and sums over rows, which need whole rows of earlier values,
and goes on with the elementwise values that follow from them unit by unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from headgate.program.differentiate import Backward, differentiate
from headgate.program.lower import lower
from headgate.program.program import Node, Program
from headgate.program.recompute import recompute


@dataclass(frozen=True)
class Group:
    """Products done as one: forward, blocks of a family times one operand, giving one node each;
    backward (``transpose``), the blocks' transposes times a cotangent each, summed to one node."""

    family: str
    part: int
    blocks: tuple[str, ...]
    operands: tuple[int, ...]
    nodes: tuple[int, ...]
    transpose: bool = False


@dataclass(frozen=True)
class Phase:
    """Grouped products, then values in order."""

    products: tuple[Group, ...]
    values: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class BackwardPlan:
    """How one step of backpropagation through time is run.

    ``kept`` are the forward nodes that it reads; ``carried`` the nodes of the loop whose values of
    every step are needed after it.
    """

    backward: Backward
    before: tuple[Phase, ...]
    loop: tuple[Phase, ...]
    after: tuple[Phase, ...]
    kept: tuple[int, ...]
    carried: tuple[int, ...]
    timed: frozenset[int]


@dataclass(frozen=True, eq=False)
class Plan:
    """How a Program is run; ``program`` is ``source`` lowered.

    ``timed`` are the nodes that differ by step.
    """

    source: Program
    program: Program
    before: tuple[Phase, ...]
    loop: tuple[Phase, ...]
    timed: frozenset[int]
    back: BackwardPlan

    def __str__(self) -> str:
        lines = []
        for title, phases in (
            ("before the loop", self.before),
            ("each step", self.loop),
            ("back, before the loop", self.back.before),
            ("back, each step", self.back.loop),
            ("back, after the loop", self.back.after),
        ):
            lines.append(f"{title}:")
            for phase in phases:
                groups = [
                    f"{g.family}{'ᵀ' if g.transpose else ''}[{' '.join(g.blocks)}]"
                    for g in phase.products
                ]
                lines.append(f"  {', '.join(groups) or '-'}; {len(phase.values)} values")
        return "\n".join(lines)


@lru_cache(maxsize=256)
def schedule(program: Program, names: tuple[str, ...] = (), errors: bool = False) -> Plan:
    """The Plan of a Program whose named values ``names`` are recorded.

    With ``errors``, the backward part also gives the error terms of those values.
    """
    lowered = lower(program)
    states = {i for i, node in enumerate(lowered.nodes) if node.op == "state"}
    in_loop = _downstream(lowered.nodes, states)
    needed = _reachable(
        lowered.nodes,
        [s.next for s in lowered.states] + [lowered.names[n] for n in names],
    )
    ahead = [i for i in range(len(lowered.nodes)) if i not in in_loop and i in needed]
    within = [i for i in sorted(in_loop) if i in needed and lowered.nodes[i].op != "state"]
    return Plan(
        source=program,
        program=lowered,
        before=phases(lowered.nodes, ahead),
        loop=phases(lowered.nodes, within),
        timed=frozenset(_timed(lowered.nodes)),
        back=_schedule_backward(lowered, differentiate(lowered, names), errors),
    )


def _ends(backward: Backward, errors: bool) -> list[int | None]:
    ends = [*backward.states, backward.input, *(term.delta for term in backward.terms)]
    return ends + (list(backward.errors.values()) if errors else [])


def _needed(backward: Backward, errors: bool) -> set[int]:
    return _reachable(backward.nodes, [e for e in _ends(backward, errors) if e is not None])


def _schedule_backward(program: Program, backward: Backward, errors: bool) -> BackwardPlan:
    backward = recompute(program, backward, _needed(backward, errors))
    nodes, ends, needed = backward.nodes, _ends(backward, errors), _needed(backward, errors)
    leaves = {i for i, n in enumerate(nodes) if n.op == "cotangent" and _is_state(n)}
    depends = _downstream(nodes, leaves)
    chain = _reachable(nodes, [e for e in backward.states if e is not None])
    before = [i for i in sorted(needed) if i not in depends]
    loop = [i for i in sorted(needed & chain & depends) if i not in leaves]
    after = [i for i in sorted((needed & depends) - chain) if i not in leaves]
    outside = set(after)
    read = {a for i in after for a in nodes[i].args}
    read |= {e for e in ends[len(backward.states) :] if e is not None}
    kept = {nodes[i]["node"] for i in needed if nodes[i].op == "kept"}
    kept |= {t.operand for t in backward.terms if t.operand is not None}
    return BackwardPlan(
        backward=backward,
        before=phases(nodes, before),
        loop=phases(nodes, loop),
        after=phases(nodes, after),
        kept=tuple(sorted(kept)),
        carried=tuple(sorted(i for i in read if i in depends and i not in outside)),
        timed=frozenset(_timed_backward(program.nodes, nodes)),
    )


def _is_state(node: Node) -> bool:
    return node.attrs[0][0] == "state"


def _reachable(nodes: Sequence[Node], ends: Iterable[int]) -> set[int]:
    found: set[int] = set()
    stack = list(ends)
    while stack:
        index = stack.pop()
        if index not in found:
            found.add(index)
            stack.extend(nodes[index].args)
    return found


def _downstream(nodes: Sequence[Node], leaves: set[int]) -> set[int]:
    found = set(leaves)
    for index, node in enumerate(nodes):
        if any(a in found for a in node.args):
            found.add(index)
    return found


def _timed(nodes: Sequence[Node]) -> set[int]:
    leaves = {
        i
        for i, n in enumerate(nodes)
        if n.op in ("input", "state") or (n.op == "mask" and n["per"] == "step")
    }
    return _downstream(nodes, leaves)


def _timed_backward(forward: Sequence[Node], nodes: Sequence[Node]) -> set[int]:
    timed = _timed(forward)
    leaves = {
        i
        for i, n in enumerate(nodes)
        if n.op == "cotangent" or (n.op == "kept" and n["node"] in timed)
    }
    return _downstream(nodes, leaves)


def phases(nodes: Sequence[Node], members: Sequence[int]) -> tuple[Phase, ...]:
    """Members in phases: a product or a sum over the row opens the phase after its operands'."""
    inside = set(members)
    stage: dict[int, int] = {}
    for index in members:
        reached = max((stage[a] for a in nodes[index].args if a in inside), default=0)
        opens = nodes[index].op in ("product", "product_transpose", "row_sum")
        stage[index] = reached + opens
    found = []
    for number in range(max(stage.values(), default=-1) + 1):
        here = [i for i in members if stage[i] == number]
        products = [i for i in here if nodes[i].op.startswith("product")]
        values = [i for i in here if i not in set(products)]
        if here:
            found.append(Phase(_groups(nodes, products), tuple(values)))
    return tuple(found)


def _groups(nodes: Sequence[Node], products: Sequence[int]) -> tuple[Group, ...]:
    gathered: dict[tuple[str, int, tuple[int, ...]], list[int]] = {}
    groups = []
    for index in products:
        node = nodes[index]
        if node.op == "product_transpose":
            blocks = node["blocks"]
            groups.append(Group(node["family"], node["part"], blocks, node.args, (index,), True))
        else:
            gathered.setdefault((node["family"], node["part"], node.args), []).append(index)
    for (family, part, operands), members in gathered.items():
        blocks = tuple(nodes[i]["block"] for i in members)
        groups.append(Group(family, part, blocks, operands, tuple(members)))
    return tuple(groups)
