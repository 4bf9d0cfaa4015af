"""Plans: what leaves the time loop, what opens a phase, and what is kept for the way back."""

from __future__ import annotations

from headgate import cell, concat, sigmoid, tanh
from headgate.cells import BUILT_IN
from headgate.program.lower import lower
from headgate.program.schedule import Phase, Plan, schedule


def products(phases: tuple[Phase, ...]) -> list[list[tuple[str, tuple[str, ...]]]]:
    return [[(g.family, g.blocks) for g in phase.products] for phase in phases]


def plan(name: str) -> Plan:
    return schedule(BUILT_IN[name].program)


def test_the_inputs_products_leave_the_loop_as_one() -> None:
    lstm = plan("lstm")
    assert products(lstm.before)[-1] == [("W", ("i", "f", "g", "o"))]
    assert products(lstm.loop) == [[("R", ("i", "f", "g", "o"))]]


def test_a_dependent_product_opens_a_phase() -> None:
    phases = products(plan("gru_reset_before").loop)
    assert [dict(phase) for phase in phases] == [{"R": ("r", "z")}, {"R": ("n",)}]


def test_a_projection_is_the_last_phase() -> None:
    phases = products(plan("lstm_projected").loop)
    assert phases[-1] == [("P", ("",))]


def test_a_layer_norm_opens_a_phase_for_each_sum_over_the_row() -> None:
    norm = plan("lstm_layer_norm")
    opened = [
        phase
        for phase in norm.loop
        if any(norm.program.nodes[i].op == "row_sum" for i in phase.values)
    ]
    assert len(opened) == 4  # mean and variance, of R h and of c


def test_values_side_by_side_are_split_so_that_the_inputs_part_leaves_the_loop() -> None:
    @cell
    def textbook(x, h, *, W, b):
        z = sigmoid(W.z @ concat(h, x) + b.z)
        h = (1 - z) * h + z * tanh(W.n @ concat(h, x) + b.n)
        return h

    made = schedule(textbook.program)
    (loop,) = [phase.products for phase in made.loop if phase.products]
    assert [(g.family, g.part, g.blocks) for g in loop] == [("W", 0, ("z", "n"))]
    before = [g for phase in made.before for g in phase.products]
    assert [(g.part, g.blocks) for g in before] == [(1, ("z", "n"))]


def test_one_product_a_step_on_the_way_back_and_the_rest_after_the_loop() -> None:
    back = plan("lstm").back
    assert sum(len(phase.products) for phase in back.loop) == 1
    after = [g for phase in back.after for g in phase.products]
    assert [(g.family, g.transpose) for g in after] == [("W", True)]


def test_what_is_kept_is_what_the_way_back_reads() -> None:
    made = plan("lstm")
    read = {n["node"] for n in made.back.backward.nodes if n.op == "kept"}
    operands = {t.operand for t in made.back.backward.terms if t.operand is not None}
    assert set(made.back.kept) <= read | operands
    sums = {i for i, node in enumerate(made.program.nodes) if node.op == "add"}
    c = made.program.names["c"]
    assert set(made.back.kept) & (sums - {c}) == set()


def test_lowering_twice_changes_nothing() -> None:
    for built_in in BUILT_IN.values():
        once = lower(built_in.program)
        assert lower(once).nodes == once.nodes


def test_a_plan_prints_its_phases() -> None:
    text = str(plan("gru_reset_before"))
    assert "each step:" in text
    assert "R[r z]" in text
