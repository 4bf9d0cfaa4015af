"""What is done to the next values of states: clipping and zoneout."""

from __future__ import annotations

import math
from collections.abc import Mapping

from headgate.program.builder import Builder
from headgate.program.program import LEAVES, Program
from headgate.program.transform.rewrite import (
    Moved,
    assemble,
    check_bound,
    check_rate,
    copied,
    fail,
    mask,
    per_state,
)


def clip_state(program: Program, bounds: float | Mapping[str, float]) -> Program:
    """The next value of each state limited to [−bound, bound], wherever it is read.

    So an LSTM's output sees the clipped cell state, as in TensorFlow 1 and cuDNN. The gradient
    passes inside and at both edges, and is zero outside. Initial states are left as given.
    """
    limits: dict[int, float] = {}
    for name, bound in per_state(program, "clip_state", bounds).items():
        end = next(state.next for state in program.states if state.name == name)
        bound = check_bound(program, "clip_state", bound)
        limits[end] = min(bound, limits.get(end, bound))

    def clipped(builder: Builder, index: int, value: int) -> int:
        return builder.add("clip", [value], low=-limits[index], high=limits[index])

    def change(builder: Builder, index: int, moved: Moved) -> int | None:
        node = program.nodes[index]
        if index not in limits or node.op in LEAVES:
            return None
        return clipped(builder, index, builder.copy(node, program.widths[index], moved))

    builder, moved = copied(program, change)
    nexts = {
        state.name: clipped(builder, state.next, moved(state.next))
        for state in program.states
        if state.next in limits and program.nodes[state.next].op in LEAVES
    }
    return assemble(program, builder, moved, nexts=nexts)


def zoneout(program: Program, rates: float | Mapping[str, float]) -> Program:
    """Zoneout (Krueger et al. 2017): each unit of a state keeps its old value with the rate.

        s = z ∘ s(t−1) + (1 − z) ∘ s̃,    z ~ Bernoulli(rate), one for each unit and step

    In evaluation z is the rate, its expectation. Values of the same step read s̃, not s, as in the
    paper: h = o ∘ tanh(c̃).

    Raises ProgramError for a state that starts at infinity, of which no expectation exists.
    """
    table = {
        name: check_rate(program, "zoneout", rate)
        for name, rate in per_state(program, "zoneout", rates).items()
    }
    zoned = [state for state in program.states if table.get(state.name)]
    for state in zoned:
        if not math.isfinite(state.initial):
            others = [s.name for s in program.states if math.isfinite(s.initial)]
            fail(
                program,
                "zoneout",
                f"state {state.name} starts at {state.initial}, and evaluation needs a mean of old "
                "and new values, which infinity has not; give rates to the other states, "
                f"zoneout={{...}}: {', '.join(others) or 'none'}",
            )
    builder, moved = copied(program, lambda builder, index, moved: None)
    nexts = {}
    for state in sorted(zoned, key=lambda state: state.next):
        z = mask(
            builder, program, f"zoneout:{state.name}", state.width,
            rate=table[state.name], hit=1.0, miss=0.0, per="step",
        )  # fmt: skip
        old = builder.add("state", (), state.width, name=state.name)
        kept = builder.add("mul", [z, old])
        rest = builder.add("sub", [builder.constant(1.0), z])
        nexts[state.name] = builder.add(
            "add", [kept, builder.add("mul", [rest, moved(state.next)])]
        )
    return assemble(program, builder, moved, nexts=nexts) if zoned else program
