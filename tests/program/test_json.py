"""Canonical JSON: what a saved model holds, and the key of everything derived from a Program."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import ProgramError, cell, cells, clip, hard_sigmoid, maximum, tanh
from headgate.program import Program


@cell
def awkward(x, h, m=-math.inf, *, W, λ):
    """States that start at −∞, names beyond ASCII, blocks that are no identifiers."""
    v = clip(W["a b"] @ x, -0.1, 1e-30)
    ünit = hard_sigmoid(v) * λ
    return ünit, maximum(m, v)


ALL = [*cells.BUILT_IN.values(), awkward]


@pytest.mark.parametrize("entry", ALL, ids=lambda c: c.name)
def test_there_and_back_byte_for_byte(entry: Any) -> None:
    program = entry.program
    again = Program.from_json(program.to_json())
    assert again == program
    assert again.to_json() == program.to_json()
    assert again.key == program.key
    assert hash(again) == hash(program)
    assert str(again) == str(program)


def test_the_text_is_canonical() -> None:
    text = awkward.program.to_json()
    data = json.loads(text)
    assert text == json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    shuffled = json.dumps(dict(reversed(data.items())), indent=2)
    assert Program.from_json(shuffled).to_json() == text


def test_the_text_is_the_same_today_as_when_it_was_written() -> None:
    nodes = (
        '[["input",[],{}],["state",[],{"name":"h"}],["product",[0],{"block":"","family":"W"}],'
        '["product",[1],{"block":"","family":"R"}],["add",[2,3],{}],'
        '["parameter",[],{"block":"","family":"b"}],["add",[4,5],{}],["tanh",[6],{}]]'
    )
    families = (
        '[["W",[["","hidden"]],["input"]],["R",[["","hidden"]],["hidden"]],'
        '["b",[["","hidden"]],[]]]'
    )
    widths = ",".join(['"input"', *['"hidden"'] * 7])
    assert cells.rnn.program.to_json() == (
        f'{{"families":{families},"format":1,"name":"rnn","names":[["h",7]],"nodes":{nodes},'
        f'"states":[["h",0.0,"hidden",7]],"widths":[{widths}]}}'
    )


def test_the_key_is_of_the_equations_and_not_of_words_about_them() -> None:
    def rnn(x, h, *, W, R, b):
        """Other words."""
        h = tanh(W @ x + R @ h + b)
        return h

    assert cell(rnn).program.key == cells.rnn.program.key
    assert cell(name="other")(rnn).program.key != cells.rnn.program.key


@pytest.mark.parametrize("entry", [cells.lstm, awkward], ids=lambda c: c.name)
def test_a_cell_pickles_and_copies_without_its_source(entry: Any) -> None:
    for again in (pickle.loads(pickle.dumps(entry)), copy.deepcopy(entry)):
        assert (again.name, again.doc) == (entry.name, entry.doc)
        assert again.program == entry.program


def damaged(change: Any) -> str:
    data = json.loads(cells.lstm.program.to_json())
    change(data)
    return json.dumps(data)


DAMAGE = {
    "format": (lambda d: d.update(format=99), "format 99 is not known to this version"),
    "no nodes": (lambda d: d.pop("nodes"), "not a valid description"),
    "nodes no list": (lambda d: d.update(nodes=3), "not a valid description"),
    "half a node": (lambda d: d["nodes"][0].pop(), "not a valid description"),
    "operation": (lambda d: d["nodes"][3].__setitem__(0, "system"), "unknown operation 'system'"),
    "later node": (lambda d: d["nodes"][4].__setitem__(1, [30, 3]), "uses a later node"),
    "width": (lambda d: d["widths"].pop(), "one width is needed for each node"),
    "no state": (lambda d: d["states"].clear(), "a state or name points to no node"),
    "state": (lambda d: d["states"][0].__setitem__(3, 99), "a state or name points to no node"),
    "name": (lambda d: d["names"][0].__setitem__(1, -1), "a state or name points to no node"),
    "family": (lambda d: d["families"].pop(0), "family 'W' with block 'i' is not listed"),
    "block": (lambda d: d["families"][0][1].pop(0), "family 'W' with block 'i' is not listed"),
    "arity": (lambda d: d["nodes"][8].__setitem__(1, []), "sigmoid takes 1 values, got 0"),
    "attribute": (lambda d: d["nodes"][2].__setitem__(2, {}), "state lacks 'name'"),
    "next of text": (lambda d: d["states"][0].__setitem__(3, "7"), "not a valid description"),
    "next width": (lambda d: d["states"][0].__setitem__(2, "wide"), "has another width"),
    "family width": (lambda d: d["families"][0].__setitem__(2, ["wide"]), "'W' does not fit"),
    "mixed widths": (lambda d: d["widths"].__setitem__(-1, "wide"), "of different widths"),
    "unknown state": (
        lambda d: d["nodes"][1].__setitem__(2, {"name": "q"}),
        "the nodes read states .*, not those that are listed",
    ),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_text_is_refused(change: Any, message: str) -> None:
    with pytest.raises(ProgramError, match=f"reading a Program: .*{message}"):
        Program.from_json(damaged(change))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"lstm"', "{}"])
def test_what_is_no_program_is_refused(text: str) -> None:
    with pytest.raises(ProgramError, match="reading a Program: not"):
        Program.from_json(text)


@given(st.data())
def test_text_cut_or_changed_anywhere_never_raises_anything_else(data: st.DataObject) -> None:
    text = cells.gru.program.to_json()
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.sampled_from(["", "0", '"', "x", "[", "-1", "null", "99"]))
    with contextlib.suppress(ProgramError):
        Program.from_json(text[:at] + put + text[at + 1 :])
