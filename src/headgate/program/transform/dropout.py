"""Dropout inside the recurrence: variational, and recurrent without loss of memory."""

from __future__ import annotations

from headgate.program.builder import Builder
from headgate.program.program import LEAVES, Program
from headgate.program.transform.rewrite import Moved, check_rate, dropout_mask, fail, rewrite


def variational_dropout(program: Program, rate: float) -> Program:
    """One mask a sequence on the states where matrices read them (Gal & Ghahramani 2016).

        R·h  →  R·(m ∘ h),    m = 0 with probability rate, else 1 / (1 − rate)

    It falls on every operand of a product that is a previous state or made from one elementwise
    (the r ∘ h of a GRU). All gates share the mask of a state. The second factor of a
    chain, U·(V·h), and values that are this step's own states are left alone. In
    evaluation m is its mean, one.

    Raises ProgramError for a cell that multiplies no previous state by a matrix.
    """
    rate = check_rate(program, "variational_dropout", rate)
    sources = _sources(program)
    if not any(sources[a] for n in program.nodes if n.op == "product" for a in n.args):
        fail(
            program,
            "variational_dropout",
            "it multiplies no previous state by a matrix, so there is nothing to mask",
        )

    def masked(builder: Builder, operand: int, moved: Moved) -> int:
        if not sources[operand]:
            return moved(operand)
        name = "variational_dropout:" + ",".join(sources[operand])
        width = program.widths[operand]
        m = dropout_mask(builder, program, name, width, rate, "sequence")
        return builder.add("mul", [m, moved(operand)])

    def change(builder: Builder, index: int, moved: Moved) -> int | None:
        node = program.nodes[index]
        if node.op != "product":
            return None
        operands = [masked(builder, a, moved) for a in node.args]
        return builder.add("product", operands, program.widths[index], **dict(node.attrs))

    return rewrite(program, change)


def _sources(program: Program) -> list[tuple[str, ...]]:
    """For each node the previous states it is made from, not through a product or a new state."""
    nexts = {state.next for state in program.states}
    order = [state.name for state in program.states]
    found: list[tuple[str, ...]] = []
    for index, node in enumerate(program.nodes):
        if node.op == "state":
            found.append((node["name"],))
        elif node.op == "product" or index in nexts:
            found.append(())
        else:
            names = {name for a in node.args for name in found[a]}
            found.append(tuple(name for name in order if name in names))
    return found


def recurrent_dropout(program: Program, rate: float) -> Program:
    """Recurrent dropout without memory loss (Semeniuta, Severyn & Barth 2016).

        s = a ∘ s(t−1) + b  →  s = a ∘ s(t−1) + m ∘ b

    m is drawn anew for each unit and step: 0 with probability rate, else 1 / (1 − rate); one in
    evaluation. It falls on what is added to the memory, never on the memory: on i ∘ g in an LSTM,
    on (1 − z) ∘ n in a GRU. States whose next value does not carry the old one (an LSTM's h)
    are left alone, and so is a state that something is divided by (a normaliser, sLSTM's n): a
    dropped update could leave it zero.

    Raises ProgramError for a cell without such a memory.
    """
    rate = check_rate(program, "recurrent_dropout", rate)
    carried = {s.next: s.name for s in program.states if _has_memory(program, s.name)}
    if not carried:
        fail(
            program,
            "recurrent_dropout",
            "no state has the form a * old + b, whose update b could be dropped without losing "
            "memory; use variational_dropout or zoneout",
        )

    def change(builder: Builder, index: int, moved: Moved) -> int | None:
        if index not in carried:
            return None
        name, width = carried[index], program.widths[index]
        m = dropout_mask(builder, program, f"recurrent_dropout:{name}", width, rate, "step")
        return _mask_update(builder, program, index, m, moved, _carriers(program, name))

    return rewrite(program, change)


def _has_memory(program: Program, state: str) -> bool:
    end = next(s.next for s in program.states if s.name == state)
    if program.nodes[end].op in LEAVES or end not in _carriers(program, state):
        return False
    divisors = {node.args[1] for node in program.nodes if node.op == "div"}
    return not divisors & _carriers(program, state, end)


def _carriers(program: Program, state: str, *more: int) -> set[int]:
    """The nodes that are linear in the previous value of a state (or in the nodes ``more``)."""
    found: set[int] = set()
    for index, node in enumerate(program.nodes):
        if (
            index in more
            or (node.op == "state" and node["name"] == state)
            or (node.op in ("add", "sub", "neg") and found.intersection(node.args))
            or (node.op == "mul" and len(found.intersection(node.args)) == 1)
            or (node.op == "div" and node.args[0] in found and node.args[1] not in found)
        ):
            found.add(index)
    return found


def _mask_update(
    builder: Builder, program: Program, index: int, m: int, moved: Moved, carriers: set[int]
) -> int:
    """The node with the mask on every term that does not carry the state."""
    node = program.nodes[index]
    if index not in carriers:
        return builder.add("mul", [m, moved(index)])
    if node.op == "state":
        return moved(index)

    def inside(operand: int) -> int:
        if node.op in ("mul", "div") and operand not in carriers:
            return moved(operand)
        return _mask_update(builder, program, operand, m, moved, carriers)

    return builder.add(node.op, [inside(a) for a in node.args], program.widths[index])
