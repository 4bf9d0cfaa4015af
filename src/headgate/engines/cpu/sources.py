"""What of a Plan is compiled: the forward loop, and the loop of backpropagation through time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from headgate.engines.cpu.compile import Machine, Name, Source
from headgate.engines.reference import cotangent_name
from headgate.program.program import SCALAR, Node, Program
from headgate.program.schedule import Group, Phase, Plan, phases, schedule


@dataclass(frozen=True)
class Layout:
    """What a compiled loop is for, besides its Program and machine.

    ``drawn``: masks are drawn, not their expectation. ``kept``: values are kept for the way back.
    ``shifted``: a state's history of T + 1 steps serves as its old and its new values.
    ``fused``: products of the input are taken in the loop, in the tile of those of the states;
    otherwise before it, for many steps at once.
    """

    sizes: tuple[tuple[str, int], ...]
    double: bool
    machine: Machine
    drawn: bool
    kept: bool
    shifted: bool
    fused: bool
    names: tuple[str, ...]
    probed: tuple[str, ...]

    def plan(self, program: Program) -> Plan:
        return schedule(program, self.names, bool(self.probed))

    def table(self) -> dict[str, int]:
        return {**dict(self.sizes), SCALAR: 1}


@lru_cache(maxsize=256)
def fixed_nodes(plan: Plan) -> list[int]:
    """Values before the loop that are the same at every step and row: torch computes them."""
    nodes, drawn = plan.program.nodes, _made_of_masks(plan)
    made = [n for p in plan.before for g in p.products for n in g.nodes]
    made += [i for p in plan.before for i in p.values if not _is_leaf(nodes[i])]
    varying = plan.timed | drawn
    return [i for i in sorted(made) if i not in varying and plan.program.widths[i] != SCALAR]


def _made_of_masks(plan: Plan) -> set[int]:
    found: set[int] = set()
    for index, node in enumerate(plan.program.nodes):
        if node.op == "mask" or found.intersection(node.args):
            found.add(index)
    return found


@lru_cache(maxsize=512)
def histories(plan: Plan, layout: Layout) -> dict[str, tuple[int, int]]:
    """States whose old value is kept, and whose history serves: name → (old node, new node)."""
    if not (layout.kept and layout.shifted):
        return {}
    nodes, kept = plan.program.nodes, set(plan.back.kept)
    old = {node["name"]: i for i, node in enumerate(nodes) if node.op == "state"}
    return {s.name: (old[s.name], s.next) for s in plan.program.states if old[s.name] in kept}


def constant_leaves(
    nodes: Sequence[Node], sizes: Mapping[str, int], drawn: bool
) -> dict[int, float]:
    """Leaves that are numbers: constants, counts, and masks outside training."""
    found: dict[int, float] = {}
    for index, node in enumerate(nodes):
        if node.op == "constant":
            found[index] = node["value"]
        elif node.op == "count":
            found[index] = float(sum(sizes[width] for width in node["widths"]))
        elif node.op == "mask" and not drawn:
            found[index] = node["rate"] * node["hit"] + (1.0 - node["rate"]) * node["miss"]
    return found


def forward_source(program: Program, layout: Layout) -> Source:
    plan, sizes = layout.plan(program), layout.table()
    lowered = plan.program
    leaves: dict[int, Name | float] = dict(constant_leaves(lowered.nodes, sizes, layout.drawn))
    kinds: dict[Name, str] = {("x",): "step", ("output",): "step"}
    remembered = histories(plan, layout)
    for index, node in enumerate(lowered.nodes):
        if node.op == "input":
            leaves[index] = ("x",)
        elif node.op == "state":
            past = node["name"] in remembered
            name = ("past" if past else "state", node["name"])
            leaves[index], kinds[name] = name, "step" if past else "state"
        elif node.op == "parameter":
            leaves[index] = ("value", index)
        elif node.op == "mask" and layout.drawn:
            leaves[index] = ("mask", node)
    for index in fixed_nodes(plan):
        leaves[index] = ("value", index)
    kinds.update({("value", i): "vector" for i in leaves if leaves[i] == ("value", i)})
    before = _without(plan.before, set(leaves))
    stores = _forward_stores(plan, layout, leaves)
    kinds.update({n: "step" for names in stores.values() for n in names if n[0] != "state"})
    return Source(
        nodes=lowered.nodes,
        widths=lowered.widths,
        sizes=sizes,
        before=() if layout.fused else before,
        loop=phases(lowered.nodes, sorted(members(before) | members(plan.loop)))
        if layout.fused
        else plan.loop,
        leaves=leaves,
        kinds=kinds,
        stores=stores,
        lazy=frozenset(),
    )


_STATES = ("state", "past")


def _forward_stores(
    plan: Plan, layout: Layout, leaves: Mapping[int, Name | float]
) -> dict[int, list[Name]]:
    program = plan.program
    stores: dict[int, list[Name]] = {}
    known = histories(plan, layout)
    for state in program.states:
        kind = "history" if state.name in known else "state"
        stores.setdefault(state.next, []).append((kind, state.name))
    if program.states[0].name not in known:
        stores[program.states[0].next].append(("output",))
    covered = {i for pair in known.values() for i in pair}
    for index in plan.back.kept if layout.kept else ():
        leaf = leaves.get(index)
        outside = leaf is not None and not (isinstance(leaf, tuple) and leaf[0] in _STATES)
        if index not in covered and not outside:
            stores.setdefault(index, []).append(("keep", index))
    for name in layout.names:
        stores.setdefault(program.names[name], []).append(("record", name))
    return stores


def backward_source(program: Program, layout: Layout) -> Source:
    plan, sizes = layout.plan(program), layout.table()
    back = plan.back
    nodes, widths = back.backward.nodes, back.backward.widths
    leaves: dict[int, Name | float] = dict(constant_leaves(nodes, sizes, layout.drawn))
    numbers = constant_leaves(plan.program.nodes, sizes, layout.drawn)
    kinds: dict[Name, str] = {}
    for index, node in enumerate(nodes):
        if node.op == "kept":
            kept = node["node"]
            made = plan.program.nodes[kept]
            leaves[index] = numbers.get(kept, ("kept", kept))
            if made.op == "mask" and layout.drawn:
                leaves[index] = ("mask", made)
            fixed = made.op == "parameter" or kept in fixed_nodes(plan)
            kinds["kept", kept] = "vector" if fixed else "step"
        elif node.op == "cotangent" and node.attrs[0][0] == "state":
            leaves[index] = ("carry", node["state"])
            kinds["carry", node["state"]] = "state"
        elif node.op == "cotangent":
            name = ("cotangent", cotangent_name(node))
            leaves[index], kinds[name] = name, "step"
    products, sums = late(plan)
    outside = {g.nodes[0] for g in products} | sums
    early = members(back.before)
    inside = early | members(back.loop) | (members(back.after) - outside)
    multiplied = {o for i in inside if nodes[i].op == "product_transpose" for o in nodes[i].args}
    multiplied |= {o for g in products for o in g.operands}
    stores = _backward_stores(plan, layout)
    for name in (n for names in stores.values() for n in names if n[0] != "carry"):
        kinds[name] = "row" if name[0] == "total" else "step"
    return Source(
        nodes=nodes,
        widths=widths,
        sizes=sizes,
        before=(),
        loop=phases(nodes, sorted(inside)),
        leaves=leaves,
        kinds=kinds,
        stores=stores,
        lazy=frozenset(i for i in early - multiplied if _only_elementwise(nodes, i)),
        backward=True,
    )


@lru_cache(maxsize=256)
def late(plan: Plan) -> tuple[tuple[Group, ...], set[int]]:
    """Products for all steps at once after the loop, whose sum is the input's gradient.

    And the sums that make it of them. Nothing is late where the gradient is made of anything else.
    """
    back = plan.back
    nodes, end = back.backward.nodes, back.backward.input
    after = members(back.after)
    groups = {g.nodes[0]: g for p in back.after for g in p.products}
    users: dict[int, int] = {}
    for index in after:
        for arg in nodes[index].args:
            users[arg] = users.get(arg, 0) + 1
    found, sums, stack = [], set[int](), [end]
    while stack:
        index = stack.pop()
        if index is None or index not in after or users.get(index, 0) != (index != end):
            return (), set()
        if index in groups:
            found.append(groups[index])
        elif nodes[index].op == "add":
            sums.add(index)
            stack += nodes[index].args
        else:
            return (), set()
    terms = {t.delta for t in back.backward.terms} | set(back.backward.errors.values())
    if terms.intersection(g.nodes[0] for g in found) or terms & sums:
        return (), set()
    return tuple(reversed(found)), sums


def wanted(plan: Plan, layout: Layout) -> dict[int, list[Name]]:
    """Backward values that are read after the loop, and the tensors that must hold them."""
    back, products = plan.back, late(plan)[0]
    found: dict[int, list[Name]] = {}
    for index in _multiplied_later(plan):
        found[index] = [("carried", index)]
    for index in totals(plan):
        found[index] = [("total", index)]
    if not products and back.backward.input is not None:
        found.setdefault(back.backward.input, []).append(("gradient",))
    for name in layout.probed:
        error = back.backward.errors[name]
        if error is not None:
            found.setdefault(error, []).append(("error", name))
    return found


def _multiplied_later(plan: Plan) -> set[int]:
    """Error terms that products after the loop read."""
    nodes, products = plan.back.backward.nodes, late(plan)[0]
    found = {o for g in products for o in g.operands}
    found |= {t.delta for t in plan.back.backward.terms if t.operand is not None}
    return {i for i in found if nodes[i].op not in ("cotangent", "kept")}


def totals(plan: Plan) -> set[int]:
    """Error terms of which only the sum over all steps is needed: the loop adds them up by row."""
    nodes = plan.back.backward.nodes
    found = {t.delta for t in plan.back.backward.terms if t.operand is None}
    found -= _multiplied_later(plan)
    return {i for i in found if nodes[i].op not in ("cotangent", "kept")}


def _backward_stores(plan: Plan, layout: Layout) -> dict[int, list[Name]]:
    stores: dict[int, list[Name]] = {}
    for state, end in zip(plan.program.states, plan.back.backward.states, strict=True):
        assert end is not None
        stores.setdefault(end, []).append(("carry", state.name))
    for index, names in wanted(plan, layout).items():
        stores.setdefault(index, []).extend(names)
    return stores


@lru_cache(maxsize=256)
def supported(program: Program, names: tuple[str, ...] = ()) -> bool:
    """Whether the compiled loop knows everything in a Program: every state must pass a gradient."""
    plan = schedule(program, names)
    return all(end is not None for end in plan.back.backward.states)


def members(list_: Sequence[Phase]) -> set[int]:
    """Every node of some phases."""
    return {i for p in list_ for i in (*p.values, *(n for g in p.products for n in g.nodes))}


def _without(list_: Sequence[Phase], gone: set[int]) -> tuple[Phase, ...]:
    """Phases less the nodes that are given from outside."""
    found = []
    for phase in list_:
        groups = tuple(g for g in phase.products if g.nodes[0] not in gone)
        values = tuple(i for i in phase.values if i not in gone)
        if groups or values:
            found.append(Phase(groups, values))
    return tuple(found)


def _is_leaf(node: Node) -> bool:
    return node.op in ("input", "state", "parameter", "constant", "count", "mask")


def _only_elementwise(nodes: Sequence[Node], index: int) -> bool:
    stack = [index]
    while stack:
        node = nodes[stack.pop()]
        if node.op in ("row_sum", "product_transpose"):
            return False
        stack.extend(node.args)
    return True
