"""The compiled engine against the reference engine: every cell, odd sizes, ragged rows, any layout
of memory. ``test_cpu_calls.py`` runs this file once more for each other instruction set."""

from __future__ import annotations

import runpy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headgate import cells, native
from headgate.engines import MaskKey, run
from headgate.engines.cpu import memory
from headgate.program import Program, cell
from headgate.program.functions import (
    clip,
    exp,
    layer_norm,
    log_sigmoid,
    maximum,
    minimum,
    relu,
    sigmoid,
    softsign,
    sqrt,
    tanh,
    where,
)
from headgate.program.transform import transform

pytestmark = pytest.mark.skipif(not native.available, reason=f"compiled engine {native.reason}")

GALLERY = Path(__file__).parents[2] / "examples" / "cells"
CELLS = dict(cells.BUILT_IN) | {
    f.stem: runpy.run_path(str(f))[f.stem] for f in sorted(GALLERY.glob("*.py"))
}
PROGRAMS = {name: c.program for name, c in CELLS.items()}
NAMED = {"projection": 3, "rank": 2}
SIZES = (1, 2, 3, 5, 7, 13, 17, 31, 33, 63, 65, 100, 129)


@dataclass
class Case:
    """A Program, its sizes, and random numbers for all that it is given."""

    program: Program
    T: int = 5
    N: int = 3
    I: int = 2
    H: int = 5
    lengths: Sequence[int] | None = None
    reverse: bool = False
    training: bool = False
    recorded: bool = True
    dtype: torch.dtype = torch.float64
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.program.names) if self.recorded else ()

    def tensors(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        p = self.program
        inputs = self.H if p.input_width == "hidden" else self.I
        sizes = p.sizes(inputs, self.H, {k: v for k, v in NAMED.items() if k in p.size_names})

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            drawn = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
            return drawn.to(self.dtype)

        found = {"x": draw(self.T, self.N, inputs)}
        found |= {f"state {s.name}": draw(self.N, sizes[s.width]) for s in p.states}
        if p.name == "slstm":  # its normaliser is positive
            found["state n"] = 1 + found["state n"].abs()
        for name in p.families:
            shape = p.shape(name, sizes)
            found[f"family {name}"] = draw(*shape, scale=0.8 / shape[-1] ** 0.5)
        for name in self.names:
            found[f"probe {name}"] = draw(self.T, self.N, sizes[p.width_of(name)], scale=0.0)
        if self.lengths is not None:
            past = torch.arange(self.T)[:, None] >= torch.tensor(self.lengths)
            found["x"][past] = torch.nan
        return found

    def result(self, engine: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        def part(kind: str) -> dict[str, Tensor]:
            return {k.split()[1]: t for k, t in tensors.items() if k.startswith(kind)}

        found = run(
            self.program, part("family"), tensors["x"], tuple(part("state").values()),
            lengths=None if self.lengths is None else torch.tensor(self.lengths),
            reverse=self.reverse, mask_key=MaskKey(7, 1, 0) if self.training else None,
            names=self.names, probes=part("probe"), engine=engine,
        )  # fmt: skip
        states = {f"final {k}": s for k, s in enumerate(found.states)}
        records = {f"record {k}": v for k, v in found.records.items()}
        return {"output": found.output} | states | records

    def everything(
        self, engine: str, tensors: Mapping[str, Tensor] | None = None, *, expand: bool = False
    ) -> dict[str, Tensor]:
        """Results and the gradients of all tensors under random cotangents."""
        leaves = {k: t.detach().requires_grad_() for k, t in (tensors or self.tensors()).items()}
        found = self.result(engine, leaves)
        generator = torch.Generator().manual_seed(99)
        cotangents = []
        for value in found.values():
            shape = (1, 1, value.shape[-1]) if expand and value.dim() == 3 else value.shape
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
            cotangents.append(drawn.to(self.dtype).expand(value.shape))
        ends = [(f, c) for f, c in zip(found.values(), cotangents, strict=True) if f.requires_grad]
        grads = torch.autograd.grad(
            [f for f, _ in ends], list(leaves.values()), [c for _, c in ends],
            allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        named = {f"gradient of {k}": g for k, g in zip(leaves, grads, strict=True)}
        return {k: v.detach() for k, v in found.items()} | named


def assert_close(
    ours: Mapping[str, Tensor], expected: Mapping[str, Tensor], within: float = 1e-10
) -> None:
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, float(value.nan_to_num(0, 0, 0).abs().max())) if value.numel() else 1.0
        torch.testing.assert_close(
            ours[name].to(value.dtype), value, rtol=0, atol=within * scale, equal_nan=True,
            msg=lambda m, name=name: f"{name}: {m}",
        )  # fmt: skip


def check(case: Case) -> None:
    assert_close(case.everything("cpu"), case.everything("reference"))


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Uninitialised memory and the engine's kept buffers hold NaN."""
    torch.use_deterministic_algorithms(True)
    for buffer in memory.free.values():
        buffer.fill_(torch.nan)
    yield
    torch.use_deterministic_algorithms(False)


def test_memory_is_poisoned():
    assert torch.empty(1000).isnan().all()


@pytest.mark.parametrize("name", PROGRAMS)
def test_cell(name: str):
    program = PROGRAMS[name]
    check(Case(program, T=6, N=3, I=3, H=7))
    check(Case(program, T=5, N=9, I=4, H=17, lengths=[3, 0, 5, 1, 5, 4, 2, 5, 0], reverse=True))
    check(Case(program, T=4, N=8, I=3, H=5, reverse=True, recorded=False))
    check(Case(program, T=4, N=2, I=3, H=33, lengths=[4, 2], recorded=False))


@pytest.mark.parametrize("name", ["lstm_peephole", "lstm_layer_norm", "gru_reset_before"])
def test_transformed_cell_in_training(name: str):
    options: dict[str, Any] = {"zoneout": 0.3, "variational_dropout": 0.4, "clip_state": 0.7}
    program = transform(PROGRAMS[name], **options)
    for reverse in (False, True):
        for lengths in (None, [3, 0, 6, 5]):
            check(Case(program, 6, 4, 3, 7, lengths, reverse=reverse, training=True))
    check(Case(program, 6, 4, 3, 7, [3, 0, 6, 5]))


cases = st.builds(
    Case,
    program=st.sampled_from(list(PROGRAMS.values())),
    T=st.sampled_from((1, 2, 3, 7)),
    N=st.sampled_from((1, 2, 3, 7, 8, 13, 33)),
    I=st.sampled_from(SIZES),
    H=st.sampled_from(SIZES),
    reverse=st.booleans(),
    recorded=st.booleans(),
    seed=st.integers(0, 2**16),
)


@st.composite
def ragged(draw: st.DrawFn, of: st.SearchStrategy[Case]) -> Case:
    case = draw(of)
    if draw(st.booleans()):
        lengths = st.lists(st.integers(0, case.T), min_size=case.N, max_size=case.N)
        case = replace(case, lengths=draw(lengths))
    return case


@given(ragged(cases))
@settings(max_examples=60)
def test_any_size(case: Case):
    check(case)


UNARY = {
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": relu,
    "exp": lambda v: exp(clip(v, -3, 1)),
    "log_sigmoid": log_sigmoid,
    "softsign": softsign,
    "sqrt": lambda v: sqrt(v * v + 0.1),
    "layer_norm": layer_norm,
    "clip": lambda v: clip(v, -0.6, 0.4),
    "neg": lambda v: -v,
    "half": lambda v: 0.5 - v,
}
BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (1 + b * b),
    "maximum": maximum,
    "minimum": minimum,
    "where": lambda a, b: where(a > b, 0.3 * a, b),
    "where_less": lambda a, b: where(a <= 0.1, b, a * b),
}
PRODUCTS = ("W", "R", "of value", "of rank", "pair", "peephole", "bias")
Step = tuple[str, int, int]


def compose(steps: Sequence[Step], squash: tuple[str, str]) -> Program:
    """A cell whose equations are the steps, each on two of the values made so far."""

    @cell(widths={"V": "rank"} | dict.fromkeys("WRUpb", "hidden"))
    def composed(x, h, c, *, W, R, U, V, p, b):
        z = W.z @ x + R.z @ h + p.z * c + b.z
        values = [h, c, z, U.z @ tanh(V.z @ z)]
        for k, (kind, left, right) in enumerate(steps):
            at, a, d = f"s{k}", values[left % len(values)], values[right % len(values)]
            if kind in UNARY:
                values.append(UNARY[kind](a))
            elif kind in BINARY:
                values.append(BINARY[kind](a, d))
            elif kind == "W":
                values.append(W[at] @ x + a)
            elif kind in ("R", "of value"):
                values.append(R[at] @ a + (b[at] if kind == "R" else d))
            elif kind == "of rank":
                values.append(U[at] @ (V[at] @ a * sigmoid(V.z @ d)))
            elif kind == "pair":
                values.append(R[at] @ a + R[at + "d"] @ d + W[at] @ x)
            elif kind == "peephole":
                values.append(a + p[at] * d)
            else:
                values.append(tanh(a + b[at]))
        last, mix = values[-1] + 0.3 * z + values[3], values[len(values) // 2]
        c = UNARY[squash[0]](0.5 * c + last)
        h = UNARY[squash[1]](mix - c * sigmoid(last))
        return h, c

    return composed.program


steps = st.tuples(
    st.sampled_from((*UNARY, *BINARY, *PRODUCTS)), st.integers(0, 12), st.integers(0, 12)
)
programs = st.builds(
    compose,
    st.lists(steps, max_size=10),
    st.tuples(*[st.sampled_from(("tanh", "softsign", "clip", "sigmoid"))] * 2),
)
random_cells = st.builds(
    Case,
    program=programs,
    T=st.integers(1, 4),
    N=st.sampled_from((1, 2, 3, 9)),
    I=st.sampled_from((1, 3, 17)),
    H=st.sampled_from((2, 3, 5, 17, 33)),
    reverse=st.booleans(),
    recorded=st.booleans(),
    seed=st.integers(0, 2**16),
)


@given(ragged(random_cells))
@settings(max_examples=80)
def test_random_cell(case: Case):
    check(case)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "lengths",
    [None, [7] * 20, [(5 * n) % 41 for n in range(20)], [40, *[0] * 19]],
    ids=["full", "all short", "any", "one row"],
)
@pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "lstm_layer_norm"])
def test_products_of_a_few_steps_at_a_time(name: str, lengths: list[int] | None, reverse: bool):
    """Stretches are of 256 rows; in some no row has a step."""
    check(Case(PROGRAMS[name], 40, 20, 9, 70, lengths, reverse, recorded=False))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("lengths", [None, [8, *[7] * 9, 3, *[2] * 9]], ids=["full", "ragged"])
@pytest.mark.parametrize(("N", "H"), [(20, 400), (33, 330)])
@pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "lstm_layer_norm"])
def test_weights_that_stay_in_no_cache(
    name: str, N: int, H: int, lengths: list[int] | None, threads: int
):
    torch.set_num_threads(threads)
    ragged = None if lengths is None else [*lengths, *lengths][:N]
    try:
        check(Case(PROGRAMS[name], 8, N, H, H, ragged, recorded=False))
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "lstm_layer_norm", "lstm_projected"])
@pytest.mark.parametrize(("T", "N"), [(5, 3), (1, 4), (4, 1), (1, 1), (3, 9)])
def test_any_layout_of_memory(name: str, T: int, N: int):
    case = Case(PROGRAMS[name], T, N, 4, 7)
    plain = case.tensors()
    expected = case.everything("reference", plain, expand=True)

    def padded(t: Tensor) -> Tensor:  # a slice of a larger tensor
        large = torch.full([n + 2 for n in t.shape], torch.nan, dtype=t.dtype)
        place = large[tuple(slice(1, n + 1) for n in t.shape)]
        return place.copy_(t)

    layouts = {
        "swapped": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1) if t.dim() > 1 else t,
        "columns first": lambda t: t.T.contiguous().T if t.dim() == 2 else t.mT.contiguous().mT,
        "slice": padded,
        "every second": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    }
    for layout, lay in layouts.items():
        laid = {k: lay(t) if t.dim() > 1 else t for k, t in plain.items()}
        try:
            assert_close(case.everything("cpu", laid, expand=True), expected)
        except AssertionError as error:
            raise AssertionError(f"{layout}: {error}") from error


@pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "lstm_layer_norm"])
def test_expanded_tensors(name: str):
    case = Case(PROGRAMS[name], 4, 3, 2, 5)
    tensors = case.tensors()
    tensors["x"] = tensors["x"][:1, :1].expand(4, 3, 2)
    tensors |= {k: t[:1].expand(t.shape) for k, t in tensors.items() if k.startswith("state")}
    check_tensors = {k: t.contiguous() for k, t in tensors.items()}
    ours = case.everything("cpu", tensors, expand=True)
    assert_close(ours, case.everything("reference", check_tensors, expand=True))


@pytest.mark.parametrize("name", PROGRAMS)
def test_float32(name: str):
    """Each step rounds, and steps and products pass the error on: ε times a few hundred here."""
    program, eps = PROGRAMS[name], torch.finfo(torch.float32).eps
    single = Case(program, 12, 9, 4, 17, [12, 0, 3, 7, 12, 1, 9, 12, 5], dtype=torch.float32)
    tensors = single.tensors()
    doubled = {k: t.double() for k, t in tensors.items()}
    expected = replace(single, dtype=torch.float64).everything("reference", doubled)
    assert_close(single.everything("cpu", tensors), expected, within=40 * eps * single.T)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_steps_are_those_of_the_reference(name: str, value: float):
    case = Case(PROGRAMS[name], 4, 3, 2, 5)
    tensors = case.tensors()
    tensors["x"][1, 1, 0] = value
    with torch.no_grad():
        ours, expected = (case.result(engine, tensors) for engine in ("cpu", "reference"))
    assert_close(ours, expected)


def test_scratch_that_held_nan_is_not_read():
    """The loop's own scratch memory is not poisoned from outside: a call full of NaN does it."""
    for name, program in PROGRAMS.items():
        case = Case(program, 4, 3, 2, 5, [4, 2, 0])
        spoiled = {k: torch.full_like(t, torch.nan) for k, t in case.tensors().items()}
        spoiled |= {k: t for k, t in case.tensors().items() if k.startswith("probe")}
        case.everything("cpu", spoiled)
        try:
            check(case)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
