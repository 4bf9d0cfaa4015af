"""Derivatives of every cell and transformation against finite differences, in float64.

The loss is a random weighting of outputs, final states and recorded values, over a ragged batch
that holds a row without steps and NaN in its padding. ``backward()`` runs our backward Program;
inside ``torch.func`` and for second derivatives torch's autograd differentiates the forward run.
"""

from __future__ import annotations

import itertools
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError

from headgate import cells
from headgate.engines import MaskKey, run
from headgate.program import Cell, Program
from headgate.program.transform import transform

T, N, I, H = 3, 3, 2, 3
SIZES = {"projection": 2}
LENGTHS = torch.tensor([2, 0, 3])
GALLERY: dict[str, Cell] = {
    file.stem: runpy.run_path(str(file))[file.stem]
    for file in sorted((Path(__file__).parents[2] / "examples" / "cells").glob("*.py"))
}
CELLS = dict(cells.BUILT_IN) | GALLERY
STRUCTURES = ("lstm", "gru_reset_before", "FGR", "slstm")

COMMON: dict[str, dict[str, Any]] = {
    "state_activation": {"state_activation": "softsign"},
    "gate_activation": {"gate_activation": "hard_sigmoid"},
    "activations": {"activations": {"g": "sigmoid"}},
    "clip_state": {"clip_state": 0.3},
    "clip_preactivation": {"clip_preactivation": 0.5},
    "layer_norm": {"layer_norm": True},
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "variational_dropout": {"variational_dropout": 0.4},
    "zoneout": {"zoneout": 0.4},
}
"""Each option as most cells take it, and below where a cell's names ask for another form."""

SPECIAL: dict[tuple[str, str], dict[str, Any]] = {
    # A hard_sigmoid may give z = 1 exactly, and a clipped h then stays on its edge, where there is
    # no slope.
    ("gru_reset_before", "gate_activation"): {"gate_activation": "softsign"},
    ("gru_reset_before", "activations"): {"activations": {"n": "sigmoid"}},
    ("slstm", "activations"): {"activations": {"z": "softsign"}},
    ("slstm", "gate_activation"): {"activations": {"o": "hard_sigmoid"}},
    # Likewise c, where f = 1 and the update is dropped.
    ("slstm", "clip_state"): {"clip_state": {"h": 0.2, "n": 1.5}},
    ("slstm", "zoneout"): {"zoneout": {"h": 0.4, "c": 0.2, "n": 0.3}},
}


def option(cell: str, name: str) -> dict[str, Any]:
    return SPECIAL.get((cell, name), COMMON[name])


def options(cell: str, names: Sequence[str]) -> dict[str, Any]:
    """Several options together; two that both name sites are merged."""
    merged: dict[str, Any] = {}
    for name in names:
        for key, value in option(cell, name).items():
            merged[key] = merged[key] | value if isinstance(merged.get(key), dict) else value
    return merged


@dataclass
class Case:
    """A Program on random numbers: the tensors that have gradients, and a scalar loss of them."""

    program: Program
    reverse: bool = False
    training: bool = True
    lengths: Tensor | None = None
    names: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)

        def random(*shape: int, scale: float = 1.0) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator) * scale

        program = self.program
        chosen = {k: v for k, v in SIZES.items() if k in program.size_names}
        sizes = program.sizes(H if program.input_width == "hidden" else I, H, chosen)
        if self.names is None:
            self.names = tuple(program.names)
        self.tensors = {"x": random(T, N, I)}
        self.tensors |= {f"state {s.name}": random(N, sizes[s.width]) for s in program.states}
        if "n" in [s.name for s in program.states]:
            self.tensors["state n"] = 1 + self.tensors["state n"].abs()
        for name in program.families:
            self.tensors[f"family {name}"] = random(*program.shape(name, sizes), scale=0.4)
        for name in self.names:
            self.tensors[f"probe {name}"] = 0.0 * random(T, N, sizes[program.width_of(name)])
        if self.lengths is not None:
            past = torch.arange(T)[:, None] >= self.lengths
            self.tensors["x"][past] = torch.nan
        self.cotangents = [random(T, N, sizes[program.output_width])]
        self.cotangents += [random(N, sizes[s.width]) for s in program.states]
        self.cotangents += [random(T, N, sizes[program.width_of(name)]) for name in self.names]

    def inputs(self) -> list[Tensor]:
        return [t.clone().requires_grad_() for t in self.tensors.values()]

    def part(self, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {k.split()[1]: t for k, t in tensors.items() if k.startswith(kind)}

    def loss(self, *inputs: Tensor) -> Tensor:
        table = dict(zip(self.tensors, inputs, strict=True))
        assert self.names is not None
        result = run(
            self.program,
            self.part("family", table),
            table["x"],
            tuple(self.part("state", table).values()),
            lengths=self.lengths,
            reverse=self.reverse,
            mask_key=MaskKey(7, 1, 0) if self.training else None,
            names=self.names,
            probes=self.part("probe", table),
            engine="reference",
        )
        found = [result.output, *result.states, *(result.records[n] for n in self.names)]
        return torch.stack(
            [(f * c).sum() for f, c in zip(found, self.cotangents, strict=True)]
        ).sum()

    def backward(self) -> tuple[Tensor, ...]:
        """All gradients by our backward Program."""
        inputs = self.inputs()
        grads = torch.autograd.grad(self.loss(*inputs), inputs, materialize_grads=True)
        return tuple(grads)

    def autograd(self) -> tuple[Tensor, ...]:
        """All gradients by torch's autograd through the forward run."""
        pull = torch.func.vjp(self.loss, *self.tensors.values())[1]
        return pull(torch.ones((), dtype=torch.float64))


def check_ways_agree(case: Case) -> None:
    for name, ours, torchs in zip(case.tensors, case.backward(), case.autograd(), strict=True):
        torch.testing.assert_close(
            ours, torchs, atol=1e-10, rtol=1e-10, msg=lambda m, name=name: f"{name}: {m}"
        )


def check_first(case: Case, *, entries: bool = True) -> None:
    """One way against the other, and against central differences: every entry, or for each tensor
    one random direction."""
    check_ways_agree(case)
    assert gradcheck(
        case.loss, case.inputs(), eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=not entries
    )


def check_second(program: Program) -> None:
    """Second derivatives, one random direction for each tensor; the states are recorded."""
    case = Case(program, lengths=LENGTHS, names=tuple(s.name for s in program.states))
    assert gradgradcheck(case.loss, case.inputs(), eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("name", CELLS)
def test_cell(name: str):
    program = CELLS[name].program
    check_first(Case(program, lengths=LENGTHS), entries=name in ("lstm", "gru_reset_before"))
    check_second(program)


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_cell_in_every_entry(name: str):
    for reverse in (False, True):
        check_first(Case(CELLS[name].program, lengths=LENGTHS, reverse=reverse, seed=1))


@pytest.mark.parametrize("option_name", COMMON)
@pytest.mark.parametrize("name", STRUCTURES)
def test_transformation(name: str, option_name: str):
    program = transform(CELLS[name].program, **option(name, option_name))
    case = Case(program, lengths=LENGTHS, training=True)
    check_first(case, entries=False)
    check_second(program)
    if program.has_masks:
        check_ways_agree(Case(program, lengths=LENGTHS, training=False))


@st.composite
def pairs_of_options(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(STRUCTURES))
    chosen = draw(st.lists(st.sampled_from(list(COMMON)), min_size=2, max_size=2, unique=True))
    program = transform(CELLS[name].program, **options(name, chosen))
    lengths = draw(st.none() | st.lists(st.integers(0, T), min_size=N, max_size=N))
    return Case(
        program,
        reverse=draw(st.booleans()),
        training=draw(st.booleans()),
        lengths=None if lengths is None else torch.tensor(lengths),
        names=tuple(draw(st.lists(st.sampled_from(list(program.names)), unique=True))),
        seed=draw(st.integers(0, 2**16)),
    )


@given(pairs_of_options())
@settings(max_examples=25)
def test_pairs_of_options(case: Case):
    check_ways_agree(case)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", list(itertools.combinations(COMMON, 2)), ids="+".join)
@pytest.mark.parametrize("name", STRUCTURES)
def test_every_pair_of_options(name: str, chosen: tuple[str, str]):
    program = transform(CELLS[name].program, **options(name, chosen))
    for reverse, training in itertools.product((False, True), (False, True)):
        case = Case(program, reverse=reverse, training=training, lengths=LENGTHS)
        check_first(case, entries=False)
    check_second(program)


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_option_at_once(name: str):
    merged = options(name, tuple(o for o in COMMON if o != "state_activation"))
    program = transform(CELLS[name].program, **merged)
    check_first(Case(program, lengths=LENGTHS, reverse=True), entries=False)
    check_second(program)


def from_initial_states(name: str, lengths: Tensor) -> Case:
    case = Case(CELLS[name].program, lengths=lengths)
    for state in case.program.states:
        case.tensors[f"state {state.name}"].fill_(state.initial)
    return case


def test_gradients_from_a_state_that_starts_at_minus_infinity():
    """sLSTM from its own initial states: right by everything but the infinity."""
    check_ways_agree(from_initial_states("slstm", LENGTHS))
    # A row without steps would return its infinite state, and make the loss infinite.
    case = from_initial_states("slstm", torch.tensor([2, 1, 3]))
    fixed = {k: t for k, t in case.tensors.items() if k.startswith("state")}
    free = {k: t.clone().requires_grad_() for k, t in case.tensors.items() if k not in fixed}

    def loss(*inputs: Tensor) -> Tensor:
        table = dict(zip(free, inputs, strict=True)) | fixed
        return case.loss(*(table[k] for k in case.tensors))

    assert gradcheck(loss, tuple(free.values()), eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_a_wrong_derivative_is_seen():
    """The check itself: a loss whose gradient is cut must fail it."""
    case = Case(CELLS["lstm"].program)

    def cut(x: Tensor, *rest: Tensor) -> Tensor:
        return case.loss(x.detach(), *rest) + 0.0 * x.sum()

    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        gradcheck(cut, case.inputs(), eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)
