"""Transformations: what each does to the numbers, to the text, and where it refuses."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headgate import cells
from headgate.engines import MaskKey, run
from headgate.program import Program, ProgramError, cell
from headgate.program.functions import tanh
from headgate.program.transform import transform
from headgate.program.values import concat

GALLERY = Path(__file__).parents[2] / "examples" / "cells"
slstm = runpy.run_path(str(GALLERY / "slstm.py"))["slstm"]
indrnn = runpy.run_path(str(GALLERY / "indrnn.py"))["indrnn"]

T, N, I, H = 6, 3, 2, 4


@cell
def keeps_input(x, h):
    """The next state is the input: zoneout shows by itself."""
    h = x + 0 * h
    return h


@cell
def adds_input(x, c):
    """A memory that only accumulates."""
    c = c + x
    return c


@cell
def multiplies(x, h, *, R, W):
    h = R @ h + 0 * (W @ x)
    return h


def weights(program: Program, **sizes: int) -> dict[str, Tensor]:
    table = program.sizes(I, H, sizes)
    return {
        name: torch.randn(program.shape(name, table), dtype=torch.float64) / 2
        for name in program.families
    }


def evaluate(program: Program, key: MaskKey | None = None, names: tuple[str, ...] = ()):
    torch.manual_seed(1)
    families = weights(program)
    x = torch.randn(T, N, I, dtype=torch.float64)
    states = [torch.randn(N, H, dtype=torch.float64) for _ in program.states]
    result = run(program, families, x, states, mask_key=key, names=names)
    return result, families, x, states


def lstm_by_hand(
    families, x, h, c, *, norm=None, squash=torch.tanh, gate=torch.sigmoid, after=None
):
    """The LSTM as plain torch code, with the places where options act."""
    norm = norm or (lambda name, v: v)
    after = after or (lambda name, old, new: new)
    outputs = []
    for step in x:
        a = norm("W", step @ families["W"].T) + norm("R", h @ families["R"].T) + families["b"]
        i, f, g, o = a.chunk(4, -1)
        new_c = gate(f) * c + gate(i) * squash(g)
        new_h = gate(o) * squash(new_c)
        h, c = after("h", h, new_h), after("c", c, new_c)
        outputs.append(h)
    return torch.stack(outputs), h, c


# --- what each does -----------------------------------------------------------------------------


def test_nothing_asked_gives_the_same_program():
    assert transform(cells.lstm.program) == cells.lstm.program


def test_activations_of_every_tanh_and_sigmoid():
    program = transform(
        cells.lstm.program, state_activation="softsign", gate_activation="hard_sigmoid"
    )
    result, families, x, (h, c) = evaluate(program)
    expected, *_ = lstm_by_hand(
        families, x, h, c, squash=torch.nn.functional.softsign,
        gate=lambda v: (0.2 * v + 0.5).clamp(0, 1),
    )  # fmt: skip
    torch.testing.assert_close(result.output, expected)


def test_activation_of_one_site_goes_before_the_general_option():
    program = transform(
        cells.lstm.program, state_activation="identity", activations={"g": "relu", "o": "identity"}
    )
    result, *_ = evaluate(program, names=("g", "o", "i", "c", "h"))
    record = result.records
    assert (record["g"] >= 0).all()
    assert (record["g"] == 0).any()
    assert (record["o"] < 0).any()
    assert ((record["i"] > 0) & (record["i"] < 1)).all()
    torch.testing.assert_close(record["h"], record["o"] * record["c"])


def test_clip_state_is_seen_by_all_that_reads_the_state():
    program = transform(cells.lstm.program, clip_state={"c": 0.05})
    result, *_ = evaluate(program, names=("c", "o", "h"))
    record = result.records
    assert record["c"].abs().max() == 0.05
    torch.testing.assert_close(record["h"], record["o"] * record["c"].tanh())


def test_clip_state_limits_a_state_that_is_a_copy_of_another():
    @cell
    def delayed(x, h, p, *, W, R):
        p_next = h
        h = tanh(W @ x + R @ p)
        return h, p_next

    program = transform(delayed.program, clip_state={"p": 0.1})
    result, *_ = evaluate(program)
    assert result.output.abs().max() > 0.1
    assert result.states[1].abs().max() == 0.1


def test_clip_gradient_passes_inside_and_at_the_edge_and_is_zero_outside():
    program = transform(adds_input.program, clip_state=1.0)
    x = torch.tensor([[[0.5, 1.0, 1.5, -3.0]]], dtype=torch.float64, requires_grad=True)
    run(program, {}, x, [torch.zeros(1, 4, dtype=torch.float64)]).output.sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [1.0, 1.0, 0.0, 0.0]


def test_clip_preactivation_limits_the_arguments_of_activations():
    program = transform(cells.lstm.program, clip_preactivation=0.25)
    result, *_ = evaluate(program, names=("i", "f", "g", "o"))
    low, high = torch.sigmoid(torch.tensor([-0.25, 0.25], dtype=torch.float64))
    for gate in "ifo":
        torch.testing.assert_close(result.records[gate].min(), low)
        torch.testing.assert_close(result.records[gate].max(), high)
    assert result.records["g"].abs().max() <= torch.tanh(torch.tensor(0.25, dtype=torch.float64))


def test_layer_norm_spans_a_family_and_keeps_the_bias():
    program = transform(cells.lstm.program, layer_norm=True)
    result, families, x, (h, c) = evaluate(program)

    def norm(name, v):
        return torch.nn.functional.layer_norm(v, (4 * H,), families[f"gain_{name}"])

    expected, *_ = lstm_by_hand(families, x, h, c, norm=norm)
    torch.testing.assert_close(result.output, expected)
    assert program.families["gain_W"].blocks == cells.lstm.program.families["W"].blocks
    assert program.families["gain_W"].kind == "vector"


def test_layer_norm_takes_the_products_of_one_vector_together():
    program = transform(cells.gru_reset_before.program, layer_norm=True)
    result, families, x, (h,) = evaluate(program)
    W, R, b, gain = (families[k] for k in ("W", "R", "b", "gain_R"))
    norm = torch.nn.functional.layer_norm
    for step in x:
        a = norm(step @ W.T, (3 * H,), families["gain_W"]) + b
        r, z = torch.sigmoid(a[:, : 2 * H] + norm(h @ R[: 2 * H].T, (2 * H,), gain[: 2 * H])).chunk(
            2, -1
        )
        n = torch.tanh(a[:, 2 * H :] + norm((r * h) @ R[2 * H :].T, (H,), gain[2 * H :]))
        h = (1 - z) * n + z * h
    torch.testing.assert_close(result.output[-1], h)


def test_layer_norm_of_chained_products_and_of_concatenated_operands():
    @cell(widths={"V": "rank"})
    def low_rank(x, h, *, W, U, V):
        h = tanh(U @ (V @ h) + W @ concat(x, h))
        return h

    program = transform(low_rank.program, layer_norm=True, variational_dropout=0.5)
    assert {"gain_U", "gain_V", "gain_W"} <= set(program.families)
    assert program.families["gain_V"].blocks == (("", "rank"),)
    assert Program.from_json(program.to_json()) == program
    assert sum(node.op == "mask" for node in program.nodes) == 1


# --- masks --------------------------------------------------------------------------------------


def test_variational_dropout_keeps_one_mask_a_sequence():
    program = transform(multiplies.program, variational_dropout=0.25)
    families = {"R": torch.eye(400), "W": torch.zeros(400, 1)}
    result = run(
        program, families, torch.zeros(4, 5, 1), [torch.ones(5, 400)], mask_key=MaskKey(3, 0, 0)
    )
    kept = result.output[0] > 0
    assert abs(1 - kept.float().mean().item() - 0.25) < 0.04
    for step in range(4):
        scaled = kept * (1 / 0.75) ** (step + 1)
        torch.testing.assert_close(result.output[step], scaled, atol=1e-5, rtol=1e-5)
    assert (kept[0] != kept[1]).any()


def test_variational_dropout_shares_the_mask_of_a_state():
    """The product that sees r ∘ h is masked as those that see h; the input never is."""
    program = transform(cells.gru_reset_before.program, variational_dropout=0.5)
    masks = {node["name"] for node in program.nodes if node.op == "mask"}
    assert masks == {"variational_dropout:h"}
    masked = [n for n in program.nodes if n.op == "product" and n["family"] == "R"]
    assert all(program.nodes[a].op == "mul" for n in masked for a in n.args)
    untouched = [n for n in program.nodes if n.op == "product" and n["family"] == "W"]
    assert all(program.nodes[a].op == "input" for n in untouched for a in n.args)


def test_variational_dropout_leaves_a_projection_alone():
    program = transform(cells.lstm_projected.program, variational_dropout=0.5)
    projection = next(n for n in program.nodes if n.op == "product" and n["family"] == "P")
    assert {n["name"] for n in program.nodes if n.op == "mask"} == {"variational_dropout:h"}
    assert "v1" not in str(program).split("h[t] =")[1].split("\n")[0]
    assert len(projection.args) == 1


def test_recurrent_dropout_drops_updates_anew_each_step_and_never_the_memory():
    program = transform(adds_input.program, recurrent_dropout=0.25)
    x = torch.ones(50, 4, 64)
    result = run(program, {}, x, [torch.full((4, 64), 7.0)], mask_key=MaskKey(5, 0, 0))
    steps = torch.diff(result.output, dim=0, prepend=torch.full((1, 4, 64), 7.0))
    dropped = steps.abs() < 1e-3
    assert torch.allclose(steps[~dropped], torch.tensor(1 / 0.75), atol=1e-4)
    assert abs(dropped.float().mean().item() - 0.25) < 0.02
    assert (dropped[0] != dropped[1]).any()


@pytest.mark.parametrize(
    ("built_in", "state", "update"),
    [("lstm", "c", "(i * g)"), ("gru", "h", "((1 - z) * n)"), ("lstm_peephole", "c", "(i * g)")],
)
def test_recurrent_dropout_masks_the_update_of_the_paper(built_in: str, state: str, update: str):
    program = transform(cells.get(built_in).program, recurrent_dropout=0.5)
    line = next(v for v in str(program).splitlines() if v.strip().startswith(f"{state}[t] ="))
    mask = f'v1 = mask("recurrent_dropout:{state}", rate=0.5, hit=0, miss=2, per="step")'
    assert mask in str(program)
    assert f"v1 * {update}" in line
    assert str(program).count("mask(") == 1


def test_recurrent_dropout_reaches_an_update_written_as_a_difference():
    @cell
    def leaky(x, h, *, W, a):
        n = tanh(W @ x)
        h = h + a * (n - h)
        return h

    program = transform(leaky.program, recurrent_dropout=0.5)
    assert str(program).splitlines()[-1].endswith("* n - h[t-1])")


def test_recurrent_dropout_leaves_a_normaliser_alone():
    program = transform(slstm.program, recurrent_dropout=0.5)
    assert {n["name"] for n in program.nodes if n.op == "mask"} == {"recurrent_dropout:c"}


def test_zoneout_keeps_old_units_in_training_and_mixes_in_evaluation():
    program = transform(keeps_input.program, zoneout=0.3)
    x, h = torch.randn(40, 4, 64), torch.randn(4, 64)
    result = run(program, {}, x, [h], mask_key=MaskKey(9, 0, 0))
    old = torch.cat([h[None], result.output[:-1]])
    kept = result.output == old
    torch.testing.assert_close(result.output[~kept], x[~kept])
    assert abs(kept.float().mean().item() - 0.3) < 0.02
    expected = []
    for step in x:
        h = 0.3 * h + 0.7 * step
        expected.append(h)
    evaluated = run(program, {}, x, [torch.as_tensor(old[0])])
    torch.testing.assert_close(evaluated.output, torch.stack(expected))


def test_zoneout_of_an_lstm_in_evaluation_is_the_papers_expectation():
    program = transform(cells.lstm.program, zoneout={"h": 0.1, "c": 0.4})
    result, families, x, (h, c) = evaluate(program, names=("h", "c"))
    rates = {"h": 0.1, "c": 0.4}
    expected = lstm_by_hand(
        families, x, h, c,
        after=lambda name, old, new: rates[name] * old + (1 - rates[name]) * new,
    )  # fmt: skip
    torch.testing.assert_close(result.output, expected[0])
    torch.testing.assert_close(result.states[1], expected[2])
    assert torch.equal(result.records["h"], result.output)
    assert torch.equal(result.records["c"][-1], result.states[1])


def test_masks_depend_on_the_key_alone():
    program = transform(
        cells.lstm.program, recurrent_dropout=0.3, variational_dropout=0.3, zoneout=0.2
    )
    first, again = (evaluate(program, MaskKey(1, 0, 0))[0].output for _ in range(2))
    assert torch.equal(first, again)
    for other in (MaskKey(2, 0, 0), MaskKey(1, 1, 0), MaskKey(1, 0, 1)):
        assert not torch.equal(first, evaluate(program, other)[0].output)


def test_masks_of_states_are_drawn_independently():
    @cell
    def two(x, a, b):
        a, b = x + 0 * a, x + 0 * b
        return a, b

    result = run(
        transform(two.program, zoneout=0.5),
        {}, torch.ones(1, 8, 64), [torch.zeros(8, 64)] * 2, mask_key=MaskKey(0, 0, 0),
    )  # fmt: skip
    a, b = result.states
    assert 0.4 < (a == b).float().mean().item() < 0.6


# --- promises of every engine, with options built in ---------------------------------------------

FOR_ANY: dict[str, Any] = {
    "clip_state": {"h": 0.3},
    "clip_preactivation": 0.7,
    "layer_norm": True,
    "recurrent_dropout": 0.3,
    "state_activation": "softsign",
    "variational_dropout": 0.3,
    "zoneout": {"h": 0.2},
}


@st.composite
def transformed(draw: st.DrawFn) -> Program:
    cell_ = draw(st.sampled_from([cells.lstm, cells.gru_reset_before, cells.FGR, slstm]))
    chosen = draw(st.sets(st.sampled_from(sorted(FOR_ANY))))
    return transform(cell_.program, **{name: FOR_ANY[name] for name in chosen})


def start(program: Program) -> tuple[dict[str, Tensor], Tensor, list[Tensor]]:
    states = [torch.full((N, H), s.initial, dtype=torch.float64) for s in program.states]
    return weights(program), torch.randn(T, N, I, dtype=torch.float64), states


@given(transformed(), st.integers(0, T))
@settings(max_examples=25)
def test_a_sequence_in_pieces_is_the_whole_sequence(program: Program, cut: int):
    families, x, states = start(program)
    whole = run(program, families, x, states)
    first = run(program, families, x[:cut], states)
    second = run(program, families, x[cut:], first.states)
    torch.testing.assert_close(torch.cat([first.output, second.output]), whole.output)
    for pieces, expected in zip(second.states, whole.states, strict=True):
        torch.testing.assert_close(pieces, expected)


@given(transformed(), st.integers(1, N), st.lists(st.integers(0, T), min_size=N, max_size=N))
@settings(max_examples=25)
def test_a_row_does_not_depend_on_its_neighbours(program: Program, rows: int, lengths: list[int]):
    """In training too: a row's masks are its own."""
    families, x, states = start(program)
    steps, key = torch.tensor(lengths), MaskKey(4, 0, 0)
    together = run(program, families, x, states, lengths=steps, mask_key=key)
    few = [s[:rows] for s in states]
    alone = run(program, families, x[:, :rows], few, lengths=steps[:rows], mask_key=key)
    torch.testing.assert_close(alone.output, together.output[:, :rows])


# --- the result is a Program as any other -------------------------------------------------------

EVERYTHING: dict[str, Any] = {
    "state_activation": "softsign",
    "activations": {"o": "hard_sigmoid"},
    "clip_state": 3.0,
    "clip_preactivation": 4.0,
    "layer_norm": True,
    "recurrent_dropout": 0.1,
    "variational_dropout": 0.2,
    "zoneout": {"h": 0.05, "c": 0.1},
}


def test_a_transformed_program_prints_serialises_and_keeps_its_names():
    program = transform(cells.lstm.program, **EVERYTHING)
    assert Program.from_json(program.to_json()) == program
    assert program.key == Program.from_json(program.to_json()).key
    assert list(program.names) == list(cells.lstm.program.names)
    assert program.key != cells.lstm.program.key
    text = str(program)
    assert 'mask("zoneout:c"' in text
    assert "gain_R.i * layer_norm(R @" in text
    assert "clip(" in text


def test_no_node_is_left_that_nothing_uses():
    program = transform(cells.lstm.program, **EVERYTHING)
    used = {a for node in program.nodes for a in node.args}
    used |= {state.next for state in program.states} | set(program.names.values())
    loose = [n for k, n in enumerate(program.nodes) if k not in used and n.op != "state"]
    assert loose == []


# --- where it refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "options", "message"),
    [
        (cells.lstm, {"zoneout": {"q": 0.1}}, r"zoneout .*'lstm'.*no state is named 'q'.*h, c"),
        (cells.lstm, {"clip_state": {"q": 1}}, "clip_state.*no state is named 'q'.*h, c"),
        (cells.lstm, {"zoneout": 1.0}, r"zoneout.*rate in \[0, 1\).*got 1.0"),
        (cells.lstm, {"variational_dropout": -0.1}, r"variational_dropout.*\[0, 1\).*-0.1"),
        (cells.lstm, {"recurrent_dropout": True}, "recurrent_dropout.*got True"),
        (cells.lstm, {"clip_state": 0}, "clip_state.*positive, finite bound; got 0"),
        (cells.lstm, {"clip_preactivation": float("inf")}, "clip_preactivation.*positive, finite"),
        (cells.lstm, {"activations": {"c": "relu"}}, "'c' is no activation.*: i, f, g, o"),
        (cells.lstm, {"activations": {"q": "relu"}}, "'q' does not exist.*: i, f, g, o"),
        (cells.lstm, {"gate_activation": "gelu"}, "no activation is named 'gelu'; known: sigmoid"),
        (cells.rnn, {"gate_activation": "relu"}, "gate_activation.*'rnn'.*no sigmoid to replace"),
        (cells.rnn_relu, {"state_activation": "tanh"}, "no tanh to replace"),
        (slstm, {"gate_activation": "hard_sigmoid"}, "log_sigmoid.*-inf; name the gates"),
        (slstm, {"zoneout": 0.1}, r"state m starts at -inf.*other states.*: h, c, n"),
        (cells.lstm_layer_norm, {"layer_norm": True}, "already normalise the products of W"),
        (adds_input, {"layer_norm": True}, "'adds_input'.*no matrix product"),
        (adds_input, {"clip_preactivation": 1.0}, "no activation"),
        (indrnn, {"variational_dropout": 0.1}, "multiplies no previous state by a matrix"),
        (cells.rnn, {"recurrent_dropout": 0.1}, r"a \* old \+ b.*use variational_dropout"),
        (indrnn, {"recurrent_dropout": 0.1}, "without losing memory"),
    ],
)
def test_an_option_that_makes_no_sense_says_why(program, options, message):
    with pytest.raises(ProgramError, match=message):
        transform(program.program, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zoneout": 0.1}, "zoneout.*already has it on c"),
        ({"recurrent_dropout": 0.1}, "recurrent_dropout.*already has it on c"),
        ({"variational_dropout": 0.1}, "variational_dropout.*already has it on h"),
        ({"layer_norm": True}, "already normalise"),
    ],
)
def test_an_option_given_twice_is_refused(options, message):
    with pytest.raises(ProgramError, match=message):
        transform(transform(cells.lstm.program, **options), **options)
