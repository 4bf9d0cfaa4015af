"""From equations to a Program: shapes from use, block order, names, initial values."""

from __future__ import annotations

import builtins
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import cell, concat, exp, layer_norm, log_sigmoid, maximum, sigmoid, tanh, where
from headgate.program import Cell, Program, ProgramError, State

LSTM_LINES = {
    "i": "sigmoid(W.i @ x + R.i @ h + b.i)",
    "f": "sigmoid(W.f @ x + R.f @ h + b.f)",
    "g": "tanh(W.g @ x + R.g @ h + b.g)",
    "o": "sigmoid(W.o @ x + R.o @ h + b.o)",
}


def lstm_source(order: str = "ifgo") -> str:
    lines = [f"    {gate} = {LSTM_LINES[gate]}" for gate in order]
    tail = ["    c = f * c + i * g", "    h = o * tanh(c)", "    return h, c"]
    return "\n".join(["def lstm(x, h, c, *, W, R, b):", *lines, *tail, ""])


def from_source(source: str, filename: str = "<string>") -> Program:
    scope = {"sigmoid": sigmoid, "tanh": tanh}
    exec(builtins.compile(source, filename, "exec"), scope)
    return cell(scope["lstm"]).program


def test_shapes_follow_from_use() -> None:
    @cell
    def mixed(x, h, c, *, W, R, p, b):
        i = sigmoid(W.i @ x + R.i @ h + p.i * c + b.i)
        c = c + i * tanh(W.g @ x + b.g)
        return tanh(c), c

    program = mixed.program
    sizes = program.sizes(3, 5)
    assert {name: program.shape(name, sizes) for name in program.families} == {
        "W": (10, 3),
        "R": (5, 5),
        "p": (5,),
        "b": (10,),
    }
    assert program.rows("W", sizes) == {"i": slice(0, 5), "g": slice(5, 10)}
    assert [family.kind for family in program.families.values()] == [
        *("matrix", "matrix", "vector", "vector")
    ]


def test_states_have_widths_of_their_own_where_named() -> None:
    @cell(widths={"h": "projection"})
    def projected(x, h, c, *, W, R, P):
        c = tanh(W @ x + R @ h) + c
        h = P @ c
        return h, c

    program = projected.program
    sizes = program.sizes(3, 5, {"projection": 2})
    assert program.states == (
        State("h", 0.0, "projection", program.names["h"]),
        State("c", 0.0, "hidden", program.names["c"]),
    )
    assert program.shape("R", sizes) == (5, 2)
    assert program.shape("P", sizes) == (2, 5)
    assert program.size_names == ("input", "projection", "hidden")


@pytest.mark.parametrize("named", ["V", "narrow"])
def test_a_chained_products_inner_width_is_named_by_family_or_value(named: str) -> None:
    @cell(widths={named: "rank"})
    def low_rank(x, h, *, W, U, V):
        narrow = V @ h
        h = tanh(W @ x + U @ narrow)
        return h

    sizes = low_rank.program.sizes(3, 5, {"rank": 2})
    assert low_rank.program.shape("U", sizes) == (5, 2)
    assert low_rank.program.shape("V", sizes) == (2, 5)


def test_values_may_be_multiplied_by_a_matrix() -> None:
    @cell
    def chained(x, h, *, W, R, U, V):
        r = sigmoid(W.r @ x + U.i @ (V.i @ h + h))
        return tanh(W.n @ x + R.n @ (r * h))

    assert chained.program.families["V"].columns == ("hidden",)
    assert chained.program.families["V"].blocks == (("i", "hidden"),)


@given(st.permutations("ifgo"))
def test_block_order_is_first_use(order: list[str]) -> None:
    program = from_source(lstm_source("".join(order)))
    for family in ("W", "R", "b"):
        assert program.families[family].block_names == tuple(order)


def test_a_block_may_have_any_name() -> None:
    @cell
    def keywords(x, h, *, W, R):
        h = tanh(W["if"] @ x + R["if"] @ h) * sigmoid(W["a b"] @ x)
        return h

    assert keywords.program.families["W"].block_names == ("if", "a b")
    assert 'W["if"] @ x[t]' in str(keywords.program)


def test_bundles_are_the_same_equations_as_blocks() -> None:
    @cell(name="lstm")
    def bundled(x, h, c, *, W, R, b):
        v = W @ x + R @ h + b
        i, f, g, o = sigmoid(v.i), sigmoid(v.f), tanh(v["g"]), sigmoid(v.o)
        c = f * c + i * g
        h = o * tanh(c)
        return h, c

    blocks = from_source(lstm_source())
    assert bundled.program.families == blocks.families
    assert str(bundled.program) == str(blocks)


def test_bare_families_are_one_block() -> None:
    @cell
    def bare(x, h, *, W, R, b):
        return tanh(W @ x + R @ h + b)

    families = bare.program.families
    assert [f.block_names for f in families.values()] == [("",)] * 3
    assert families["W"].columns == ("input",)


def test_concat_is_side_by_side() -> None:
    @cell
    def textbook(x, h, *, W, b):
        return tanh(W.h @ concat(h, x) + b.h)

    program = textbook.program
    assert program.families["W"].columns == ("hidden", "input")
    assert program.shape("W", program.sizes(3, 5)) == (5, 8)


def test_layer_norm_of_a_family_spans_its_blocks_and_of_a_value_its_row() -> None:
    @cell
    def normed(x, h, *, W, R):
        whole = layer_norm(W @ x)
        return tanh(whole.a + layer_norm(R.a @ h)) * sigmoid(whole.b)

    norms = [node for node in normed.program.nodes if node.op == "layer_norm"]
    assert sorted(len(node.args) for node in norms) == [1, 2, 2]


def test_a_name_is_its_last_binding_and_a_state_is_its_next_value() -> None:
    @cell
    def rebound(x, h, c, *, W):
        v = W.a @ x
        first = v  # noqa: F841
        v = tanh(v)
        c = c + v
        unused = c * h  # noqa: F841
        number = 2.0
        h = number * c
        return h, tanh(c)

    program = rebound.program
    ops = {name: program.nodes[index].op for name, index in program.names.items()}
    assert ops == {
        "first": "product",
        "v": "tanh",
        "unused": "mul",
        "h": "mul",
        "c": "tanh",
    }


def test_leaves_and_conditions_get_no_name() -> None:
    @cell
    def leaves(x, h, *, W, b):
        before, bias, on = h, b.a, h > 0
        return where(on, tanh(W.a @ x + bias), before)

    assert list(leaves.program.names) == ["h"]


def test_initial_values() -> None:
    @cell
    def stabilised(x, h, m=-math.inf, n=1, *, W):
        v = W @ x
        new = maximum(log_sigmoid(v) + m, v)
        return exp(m - new) * n, new, n

    assert [(s.name, s.initial) for s in stabilised.program.states] == [
        *(("h", 0.0), ("m", -math.inf), ("n", 1.0))
    ]


def test_sizes_are_checked() -> None:
    @cell(widths={"V": "rank"})
    def low_rank(x, h, *, W, U, V):
        return tanh(W @ x + U @ (V @ h))

    @cell
    def tied(x, h, *, R):
        return tanh(x + R @ h)

    with pytest.raises(ProgramError, match=r"width 'rank' has no number; give sizes=\{'rank'"):
        low_rank.program.sizes(3, 5)
    with pytest.raises(ProgramError, match=r"unknown \['ranks'\]; named widths: \['rank'\]"):
        low_rank.program.sizes(3, 5, {"rank": 2, "ranks": 2})
    with pytest.raises(ProgramError, match="hidden size must be a positive integer, got 0"):
        low_rank.program.sizes(3, 0, {"rank": 2})
    line = tied.program.tie
    with pytest.raises(ProgramError, match=rf"{line[2:-1]}.* input size 3 and hidden size 5"):
        tied.program.sizes(3, 5)
    assert tied.program.sizes(4, 4) == {"input": 4, "hidden": 4}


def test_a_cell_says_what_it_is() -> None:
    @cell(name="simple")
    def rnn(x, h, *, W, R):
        """Simple.

        Indented.
        """
        return tanh(W @ x + R @ h)

    assert (rnn.name, rnn.program.name, rnn.doc) == ("simple", "simple", "Simple.\n\nIndented.")
    assert repr(rnn) == "<cell simple: states h; families W, R>"


# Where a cell is made does not matter.


def test_made_by_exec_without_source() -> None:
    assert from_source(lstm_source()) == from_source(lstm_source(), "<ipython-input-1>")


def test_made_in_a_function_over_its_variables() -> None:
    def make(scale: float) -> Cell:
        @cell
        def scaled(x, h, *, W):
            v = W @ x
            h = tanh(scale * v)
            return h

        return scaled

    assert "tanh(0.5 * v)" in str(make(0.5).program)
    assert make(0.5).program != make(2.0).program


def test_made_of_a_wrapped_function_keeps_names() -> None:
    import functools

    def logged(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    @cell
    @logged
    def rnn(x, h, *, W):
        v = W @ x
        return tanh(v)

    assert list(rnn.program.names) == ["v", "h"]


@pytest.mark.parametrize("arguments", [["-"], ["-i", "-q"]], ids=["stdin", "interactive"])
def test_made_in_a_session(arguments: list[str]) -> None:
    script = (
        "from headgate import cell, sigmoid, tanh\n@cell\n"
        + lstm_source()
        + "\nprint(','.join(lstm.program.names))\n"
    )
    done = subprocess.run(
        [sys.executable, *arguments], input=script, capture_output=True, text=True, check=True
    )
    assert "i,f,g,o,c,h" in done.stdout


def test_made_in_a_notebook_names_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import linecache

    source = textwrap.dedent("""
        def lstm(x, h, *, W):
            v = W @ x
            return v @ h
    """)
    name = "<ipython-input-1>"
    lines = source.splitlines(keepends=True)
    monkeypatch.setitem(linecache.cache, name, (len(source), None, lines, name))
    with pytest.raises(ProgramError, match=r"line 4 \(`return v @ h`\)"):
        from_source(source, name)


@pytest.mark.parametrize("setter", ["settrace", "setprofile"])
def test_an_active_tracer_is_put_back(setter: str) -> None:
    def watch(frame, event, argument):
        return watch

    getter = getattr(sys, setter.replace("set", "get"))
    before = getter()
    getattr(sys, setter)(watch)
    try:
        program = from_source(lstm_source())
        with pytest.raises(ProgramError):
            from_source("def lstm(x, h, *, W):\n    return W @ x @ h\n")
        assert getter() is watch
    finally:
        getattr(sys, setter)(before)
    assert list(program.names) == ["i", "f", "g", "o", "c", "h"]


def test_the_package_is_found_without_torch() -> None:
    code = "import sys, headgate, headgate.cells; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False", Path.cwd()
