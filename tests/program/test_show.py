"""Programs for people: as text that reads like the equations, and as LaTeX."""

from __future__ import annotations

import math
import re
from typing import Any

import matplotlib
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import mathtext

import headgate
from headgate import (
    cell,
    cells,
    clip,
    exp,
    layer_norm,
    log_sigmoid,
    maximum,
    sigmoid,
    softplus,
    sqrt,
    tanh,
    where,
)
from headgate.engines import run
from headgate.program import Program, show
from headgate.program.lower import lower
from headgate.program.transform import transform

matplotlib.use("Agg")


def lines(program: Program) -> list[str]:
    return [line.strip() for line in str(program).splitlines()]


def latex_lines(entry: Any) -> list[str]:
    return entry.latex().removesuffix("\n\\end{aligned}").split("\n")[1:]


def test_text_of_the_lstm() -> None:
    assert lines(cells.lstm.program) == [
        "lstm(x: input; h: hidden = 0, c: hidden = 0; W[i, f, g, o]: hidden × input, "
        "R[i, f, g, o]: hidden × hidden, b[i, f, g, o]: hidden)",
        "i = sigmoid(W.i @ x[t] + R.i @ h[t-1] + b.i)",
        "f = sigmoid(W.f @ x[t] + R.f @ h[t-1] + b.f)",
        "g = tanh(W.g @ x[t] + R.g @ h[t-1] + b.g)",
        "o = sigmoid(W.o @ x[t] + R.o @ h[t-1] + b.o)",
        "c[t] = f * c[t-1] + i * g",
        "h[t] = o * tanh(c[t])",
    ]


def test_latex_of_the_lstm() -> None:
    assert cells.lstm.latex() == "\n".join(
        [
            r"\begin{aligned}",
            r"i_t &= \sigma(W_{i} x_t + R_{i} h_{t-1} + b_{i}) \\",
            r"f_t &= \sigma(W_{f} x_t + R_{f} h_{t-1} + b_{f}) \\",
            r"g_t &= \tanh(W_{g} x_t + R_{g} h_{t-1} + b_{g}) \\",
            r"o_t &= \sigma(W_{o} x_t + R_{o} h_{t-1} + b_{o}) \\",
            r"c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\",
            r"h_t &= o_t \odot \tanh(c_t)",
            r"\end{aligned}",
        ]
    )


def test_text_and_latex_of_every_other_form() -> None:
    @cell(widths={"V": "rank"})
    def forms(x, h, gamma, m=-math.inf, *, W, U, V, R, b):
        s = -(U @ (V @ h)) * 0.5 + layer_norm(W @ headgate.concat(h, x)).k
        hat_s = where(s > 0, exp(s), maximum(s, -1)) / (1 + abs(s))
        gamma = (gamma - (s - hat_s)) * sqrt(clip(s, 0, 2.5))
        m = log_sigmoid(R["if"] @ (h * s) * b["if"]) + m
        return gamma * gamma, gamma, m

    assert lines(forms.program) == [
        "forms(x: input; h: hidden = 0, gamma: hidden = 0, m: hidden = -inf; "
        "W[k]: hidden × (hidden + input), U: hidden × rank, V: rank × hidden, "
        "R[if]: hidden × hidden, b[if]: hidden)",
        "s = (-(U @ (V @ h[t-1]))) * 0.5 + layer_norm(W.k @ concat(h[t-1], x[t]))",
        "hat_s = where(s > 0, exp(s), maximum(s, -1)) / (1 + abs(s))",
        "gamma[t] = (gamma[t-1] - (s - hat_s)) * sqrt(clip(s, 0, 2.5))",
        'm[t] = log_sigmoid(R["if"] @ (h[t-1] * s) * b["if"]) + m[t-1]',
        "h[t] = gamma[t] * gamma[t]",
    ]
    assert latex_lines(forms) == [
        r"s_t &= (-U (V h_{t-1})) \cdot 0.5 + \mathrm{LN}(W_{k} [h_{t-1}; x_t]) \\",
        r"\mathrm{hat\_s}_t &= \frac{\begin{cases} \exp(s_t) & \text{if } s_t > 0 \\ "
        r"\max(s_t, -1) & \text{otherwise} \end{cases}}{1 + \left|s_t\right|} \\",
        r"\gamma_t &= (\gamma_{t-1} - (s_t - \mathrm{hat\_s}_t)) \odot "
        r"\sqrt{\mathrm{clip}(s_t, 0, 2.5)} \\",
        r"m_t &= \log \sigma(R_{\mathrm{if}} (h_{t-1} \odot s_t) \odot b_{\mathrm{if}}) "
        r"+ m_{t-1} \\",
        r"h_t &= \gamma_t \odot \gamma_t",
    ]


def test_a_large_value_used_twice_gets_a_line() -> None:
    @cell
    def shared(x, h, *, W, v1):
        return (lambda v: v * sigmoid(v))(W @ x + v1 * h)

    assert lines(shared.program)[1:] == [
        "v2 = W @ x[t] + v1 * h[t-1]",
        "h[t] = v2 * sigmoid(v2)",
    ]


def test_a_sign_turned_twice_is_none() -> None:
    @cell
    def decay(x, h, *, W, R):
        h = exp(-softplus(W @ x)) * tanh(R @ h)
        return h

    assert lines(decay.program)[1:] == ["h[t] = exp(log_sigmoid(-(W @ x[t]))) * tanh(R @ h[t-1])"]


def test_two_names_of_one_value_and_a_state_that_stays() -> None:
    @cell
    def twice(x, h, c, *, W):
        y = tanh(W @ x + h)
        return y, c

    assert lines(twice.program)[1:] == [
        "c[t] = c[t-1]",
        "h[t] = tanh(W @ x[t] + h[t-1])",
        "y = h[t]",
    ]


def test_a_family_whose_blocks_differ_in_rows() -> None:
    @cell(widths={"narrow": "rank"})
    def ragged(x, h, *, W, U):
        narrow = tanh(W.r @ x)
        return sigmoid(W.h @ x + U @ narrow)

    assert "W[r: rank, h: hidden]: rows × input, U: hidden × rank" in str(ragged.program)


def test_masks_and_whole_normalisation_of_a_transformed_program() -> None:
    program = transform(cells.gru.program, layer_norm=True, zoneout=0.1)
    shown = lines(program)
    assert 'v1 = mask("zoneout:h", rate=0.1, hit=1, miss=0, per="step")' in shown
    assert "r = sigmoid(gain_W.r * layer_norm(W @ x[t]).r" in str(program)
    assert shown[-1] == "h[t] = v1 * h[t-1] + (1 - v1) * ((1 - z) * n + z * h[t-1])"


OPTIONS = [
    {},
    {"layer_norm": True},
    {"zoneout": 0.1, "clip_state": 3.0},
    {"variational_dropout": 0.2, "clip_preactivation": 2.0, "state_activation": "softsign"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "+".join(o) or "plain")
@pytest.mark.parametrize("name", [n for n in cells.BUILT_IN if n != "lstm_layer_norm"])
def test_every_program_shows(name: str, options: dict[str, Any]) -> None:
    if "state_activation" in options and name == "rnn_relu":
        options = {**options, "state_activation": None}
    program = transform(cells.get(name).program, **options)
    for shown in (program, lower(program)):
        for state in shown.states:
            assert sum(line.startswith(f"{state.name}[t] =") for line in lines(shown)) == 1
        latex = show.latex(shown)
        assert latex.count("{") == latex.count("}")
        assert latex.count("(") == latex.count(")")


@pytest.mark.parametrize("entry", cells.BUILT_IN.values(), ids=lambda c: c.name)
def test_latex_is_understood_by_a_renderer(entry: Any) -> None:
    parser = mathtext.MathTextParser("path")
    for line in latex_lines(entry):
        equation = line.removesuffix(r" \\").replace("&", "")
        parser.parse(f"${equation}$")


# Text read back as equations computes the same.


FUNCTIONS = (
    *("sigmoid", "tanh", "exp", "log_sigmoid", "sqrt", "clip", "maximum", "where"),
    *("layer_norm", "concat", "relu"),
)


def read_back(program: Program) -> Program:
    body = str(program).splitlines()[1:]
    states = [state.name for state in program.states]
    families = list(program.families)
    source = re.sub(r"(\w+)\[t-1\]", r"\1", "\n".join(body))
    source = re.sub(r"(\w+)\[t\]", lambda m: "x" if m[1] == "x" else f"{m[1]}_next", source)
    signature = f"def read({', '.join(['x', *states])}, *, {', '.join(families)}):"
    end = f"    return {', '.join(f'{state}_next' for state in states)}"
    scope: dict[str, Any] = {name: getattr(headgate, name) for name in FUNCTIONS}
    exec("\n".join([signature, source, end]), scope)
    return cell(scope["read"]).program


VECTORS = ("x", "h", "c", "b", "(P @ h)")
LEAVES = st.sampled_from((*VECTORS, "2.0", "-0.5"))
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(
            "({} {} {})".format,
            inner,
            st.sampled_from(["+", "-", "*", "/"]),
            st.sampled_from(VECTORS),
        ),
        st.builds(
            "({} {} {})".format,
            st.sampled_from(VECTORS),
            st.sampled_from(["+", "-", "*", "/"]),
            inner,
        ),
        st.builds("(-({} + h))".format, inner),
        st.builds("tanh({} + c)".format, inner),
        st.builds("(P @ ({} - h))".format, inner),
        st.builds("where({} > c, h, -c)".format, inner),
        st.builds("maximum({}, b)".format, inner),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS, EXPRESSIONS)
def test_text_read_back_computes_the_same(first: str, second: str) -> None:
    lines = [f"a = {first} + h + x + b", f"return c * ({second}) - a + P @ h, a"]
    source = "\n    ".join(["def f(x, h, c, *, P, b):", *lines])
    scope: dict[str, Any] = {name: getattr(headgate, name) for name in FUNCTIONS}
    exec(source, scope)
    program = cell(scope["f"]).program
    again = read_back(program)
    torch.manual_seed(0)
    families = {
        "P": torch.randn(3, 3, dtype=torch.float64),
        "b": torch.randn(3, dtype=torch.float64),
    }
    x, h, c = torch.randn(3, 2, 3, dtype=torch.float64)
    wanted = run(program, families, x[None], (h, c), engine="reference")
    got = run(again, families, x[None], (h, c), engine="reference")
    for a, b in zip(wanted.states, got.states, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize(
    "name", [n for n in cells.BUILT_IN if n not in ("lstm_projected", "lstm_layer_norm")]
)
def test_text_of_a_cell_is_its_equations(name: str) -> None:
    program = cells.get(name).program
    assert read_back(program).families == program.families
    assert read_back(program).nodes == program.nodes
