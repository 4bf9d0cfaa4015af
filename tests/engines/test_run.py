"""The promises of every engine: same answers, ragged batches, whole = pieces, independent rows."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from headgate import cell, layer_norm, native, sigmoid, tanh
from headgate.cells import BUILT_IN
from headgate.engines import Result, choose, run
from headgate.program import Program

PROGRAMS = {name: built_in.program for name, built_in in BUILT_IN.items()}
FUSED = ["rnn", "rnn_relu", "lstm", "lstm_projected", "gru"]


@cell(widths={"V": "rank"})
def factored(x, h, c, *, W, U, V, P, a):
    """Chained and dependent products, a norm and a coupled gate: every kind of phase at once."""
    k = sigmoid(W.k @ x + U.k @ (V.k @ h) + P.k * c)
    n = layer_norm(W.n @ x + U.n @ (V.n @ (k * h)))
    c = (1 - k) * c + k * tanh(a.n * n + P.n * c)
    h = k * tanh(c)
    return h, c


PROGRAMS["factored"] = factored.program


def random_problem(
    program: Program, T: int, N: int, I: int, H: int, seed: int = 0
) -> tuple[dict[str, Tensor], Tensor, list[Tensor]]:
    """Random families, input and initial states in float64, all asking for gradients."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return (0.7 * values).requires_grad_()

    named = {"projection": 2, "rank": 2}
    sizes = program.sizes(I, H, {k: v for k, v in named.items() if k in program.size_names})
    families = {name: draw(*program.shape(name, sizes)) for name in program.families}
    return families, draw(T, N, I), [draw(N, sizes[state.width]) for state in program.states]


def outputs(result: Result) -> list[Tensor]:
    return [result.output, *result.states, *result.records.values()]


def gradients(
    result: Result, families: Mapping[str, Tensor], x: Tensor, states: list[Tensor]
) -> dict[str, Tensor]:
    """Gradients of everything under random cotangents for every output, by name."""
    generator = torch.Generator().manual_seed(9)
    ends = [o for o in outputs(result) if o.requires_grad]
    cotangents = [torch.randn(o.shape, generator=generator, dtype=o.dtype) for o in ends]
    names = [*families, "x", *(f"state {k}" for k in range(len(states)))]
    tensors = [*families.values(), x, *states]
    found = torch.autograd.grad(ends, tensors, cotangents, allow_unused=True)
    zeros = [torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors, strict=True)]
    return dict(zip(names, zeros, strict=True))


def assert_same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-10, atol=1e-10, msg=name)


LENGTHS = {"full": None, "ragged": torch.tensor([4, 0, 7, 1, 6])}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", FUSED)
def test_torchs_fused_functions_agree_with_the_reference(name, reverse, lengths) -> None:
    program = PROGRAMS[name]
    families, x, states = random_problem(program, 7, 5, 3, 4)
    found = []
    for engine in ("reference", "aten"):
        result = run(
            program, families, x, states, lengths=lengths, reverse=reverse, engine=engine
        )  # fmt: skip
        both = {str(k): o for k, o in enumerate(outputs(result))}
        found.append(both | gradients(result, families, x, states))
    assert_same(*found)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_ragged_batch_is_its_rows_one_by_one(name) -> None:
    program = PROGRAMS[name]
    families, x, states = random_problem(program, 7, 5, 4, 4)
    lengths = LENGTHS["ragged"]
    assert lengths is not None
    names = list(program.names)
    for reverse in (False, True):
        whole = run(
            program, families, x, states, lengths=lengths, reverse=reverse, names=names
        )  # fmt: skip
        for row, length in enumerate(lengths.tolist()):
            alone = run(
                program, families, x[:length, row : row + 1], [s[row : row + 1] for s in states],
                reverse=reverse, names=names,
            )  # fmt: skip
            torch.testing.assert_close(whole.output[:length, row], alone.output[:, 0])
            assert not whole.output[length:, row].any()
            for value in names:
                torch.testing.assert_close(
                    whole.records[value][:length, row], alone.records[value][:, 0]
                )
                assert not whole.records[value][length:, row].any()
            for a, b in zip(whole.states, alone.states, strict=True):
                torch.testing.assert_close(a[row], b[0])


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_zero_length_row_hands_its_state_and_its_cotangent_through(name) -> None:
    program = PROGRAMS[name]
    families, x, states = random_problem(program, 3, 2, 4, 4)
    result = run(program, families, x, states, lengths=torch.tensor([0, 3]))
    for k, (final, initial) in enumerate(zip(result.states, states, strict=True)):
        assert torch.equal(final[0], initial[0])
        cotangent = torch.randn_like(final)
        cotangent[1] = 0
        (gradient,) = torch.autograd.grad(final, states[k], cotangent, retain_graph=True)
        assert torch.equal(gradient[0], cotangent[0])


@pytest.mark.parametrize("engine", ["reference", None], ids=["reference", "chosen"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_padding_may_hold_nan(name, engine) -> None:
    program = PROGRAMS[name]
    families, x, states = random_problem(program, 5, 3, 4, 4)
    lengths = torch.tensor([2, 5, 0])
    poisoned = x.detach().clone()
    poisoned[2:, 0] = float("nan")
    poisoned[:, 2] = float("inf")
    poisoned.requires_grad_()
    found = []
    for values in (x, poisoned):
        result = run(program, families, values, states, lengths=lengths, engine=engine)
        found.append(gradients(result, families, values, states) | {"output": result.output})
    assert_same(*found)
    assert not found[1]["x"][2:, 0].any()


@pytest.mark.parametrize("name", PROGRAMS)
def test_one_call_equals_pieces_with_carried_state(name) -> None:
    program = PROGRAMS[name]
    families, x, states = random_problem(program, 7, 3, 4, 4)
    whole = run(program, families, x, states)
    carried, pieces = states, []
    for piece in x.split([1, 4, 2]):
        part = run(program, families, piece, carried)
        carried = list(part.states)
        pieces.append(part.output)
    torch.testing.assert_close(torch.cat(pieces), whole.output, rtol=1e-12, atol=1e-12)
    for a, b in zip(carried, whole.states, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_backward_program_agrees_with_autograd(name) -> None:
    """Gradients and error terms of every named value, by our Program and by torch's autograd."""
    program = PROGRAMS[name]
    families, x, states = random_problem(program, 6, 4, 4, 4)
    lengths = torch.tensor([6, 0, 3, 5])
    found = []
    for through in ("program", "autograd"):
        probes = {
            n: torch.zeros(6, 4, 2 if program.width_of(n) in ("projection", "rank") else 4)
            .double()
            .requires_grad_()
            for n in program.names
        }
        result = run(
            program, families, x, states, lengths=lengths, names=list(program.names),
            probes=probes, derivative=through,
        )  # fmt: skip
        errors = {f"error of {n}": p for n, p in probes.items()}
        found.append(gradients(result, {**families, **errors}, x, states))
    assert_same(*found)


def test_t_zero_returns_the_states_and_nothing_else() -> None:
    program = PROGRAMS["lstm"]
    families, x, states = random_problem(program, 3, 2, 4, 5)
    result = run(program, families, x[:0], states, names=["f"])
    assert result.output.shape == (0, 2, 5)
    assert result.records["f"].shape == (0, 2, 5)
    assert all(torch.equal(a, b) for a, b in zip(result.states, states, strict=True))


def test_a_fused_layer_has_second_derivatives_in_float32() -> None:
    program = PROGRAMS["lstm"]
    families, x, states = random_problem(program, 3, 2, 2, 3)
    tensors = [t.detach().float().requires_grad_() for t in (*families.values(), x, *states)]

    def squared_gradient(engine: str) -> list[Tensor]:
        given = dict(zip(families, tensors, strict=False))
        result = run(program, given, tensors[3], tensors[4:], engine=engine)
        (first,) = torch.autograd.grad((result.output**2).sum(), tensors[3], create_graph=True)
        return list(torch.autograd.grad((first**2).sum(), tensors))

    for a, b in zip(squared_gradient("aten"), squared_gradient("reference"), strict=True):
        torch.testing.assert_close(a, b)


def test_a_users_own_text_of_the_lstm_gets_the_fused_function() -> None:
    @cell
    def mine(u, y, s, *, A, B, v):
        a = sigmoid(A.a @ u + B.a @ y + v.a)
        b = sigmoid(A.b @ u + B.b @ y + v.b)
        d = tanh(A.d @ u + B.d @ y + v.d)
        e = sigmoid(A.e @ u + B.e @ y + v.e)
        s = b * s + a * d
        y = e * tanh(s)
        return y, s

    assert choose(mine.program, engine="aten").engine == "aten"


def test_which_engine_and_why_can_be_asked(monkeypatch) -> None:
    lstm, peephole = PROGRAMS["lstm"], PROGRAMS["lstm_peephole"]
    x = torch.zeros(3, 1, 2)
    if native.available:
        assert choose(lstm, like=x).engine == "cpu"
        assert choose(lstm, like=x[:1]).engine == "cpu"
        assert choose(lstm, like=x.half()).engine == "aten"
        assert choose(peephole, like=x.expand(3, 32, 2)).engine == "cpu"
        assert "knows float32 and float64" in choose(peephole, like=x.half()).reason
    monkeypatch.setattr(native, "available", False)
    assert choose(lstm).engine == "aten"
    assert "recorded" in choose(lstm, names=["f"]).reason
    assert "no fused function" in choose(peephole).reason
    monkeypatch.setitem(os.environ, "HEADGATE_ENGINE", "reference")
    assert choose(lstm).engine == "reference"


def test_errors_say_what_was_expected_and_what_came() -> None:
    program = PROGRAMS["lstm"]
    families, x, states = random_problem(program, 3, 2, 4, 5)
    with pytest.raises(ValueError, match=r"expected one of .*, got 'gpu'"):
        run(program, families, x, states, engine="gpu")
    with pytest.raises(ValueError, match=r"aten cannot run cell 'lstm_peephole': torch has no"):
        choose(PROGRAMS["lstm_peephole"], engine="aten")
    with pytest.raises(ValueError, match=r"family R must have shape \(20, 5\), got \(19, 5\)"):
        run(program, families | {"R": families["R"][1:]}, x, states)
    with pytest.raises(ValueError, match=r"state c must be \(N, hidden\) with N = 2, got \(3, 5\)"):
        run(program, families, x, [states[0], torch.zeros(3, 5).double()])
    with pytest.raises(ValueError, match="must share dtype and device"):
        run(program, families, x.float(), states)
    with pytest.raises(ValueError, match=r"must be \(T, N, I\)"):
        run(program, families, x[0], states)
    with pytest.raises(ValueError, match=r"families \['b'\] have no tensor"):
        run(program, {k: v for k, v in families.items() if k != "b"}, x, states)


def test_the_reference_runs_under_vmap_and_forward_mode() -> None:
    program = PROGRAMS["gru_reset_before"]
    families, x, states = random_problem(program, 3, 2, 3, 4)

    def loss(weights: dict[str, Tensor], values: Tensor) -> Tensor:
        return run(program, weights, values, states).output.pow(2).sum()

    batch = torch.stack([x, 2 * x, -x])
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(families, batch)
    for k in range(3):
        alone = torch.autograd.grad(loss(families, batch[k]), list(families.values()))
        for name, expected in zip(families, alone, strict=True):
            torch.testing.assert_close(each[name][k], expected)
    tangent = torch.randn_like(x)
    forward_mode = torch.func.jvp(lambda v: loss(families, v), (x,), (tangent,))[1]
    (reverse_mode,) = torch.autograd.grad(loss(families, x), x)
    torch.testing.assert_close(forward_mode, (reverse_mode * tangent).sum())
