"""Training in pieces of k steps: the run without them, on every engine, in less memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from headgate import cell, native
from headgate.cells import BUILT_IN
from headgate.engines import Direction, MaskKey, run, run_directions
from headgate.engines.pieces import InPieces
from headgate.program import Program
from headgate.program.transform import transform

ENGINES = ("reference", "aten", "cpu") if native.available else ("reference", "aten")
PROGRAMS = {name: built_in.program for name, built_in in BUILT_IN.items()}
WITHIN = {torch.float64: 1e-12, torch.float32: 1e-5}
T, N, I, H = 11, 5, 3, 7
RAGGED = [4, 0, 11, 1, 6]
LENGTHS: dict[str, list[int] | None] = {"full": None, "ragged": RAGGED, "short": [4, 0, 2, 1, 0]}

Tensors = dict[str, Tensor]


@dataclass
class Case:
    """A Program with random tensors of every kind; NaN lies past each row's end."""

    program: Program
    dtype: torch.dtype = torch.float64
    lengths: list[int] | None = None
    reverse: bool = False
    key: MaskKey | None = None
    recorded: bool = True
    derivative: str = "program"

    def tensors(self) -> Tensors:
        generator = torch.Generator().manual_seed(3)
        p = self.program
        sizes = p.sizes(I, H, {n: 2 for n in p.size_names if n == "projection"})

        def draw(*shape: int, scale: float = 0.7) -> Tensor:
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
            return drawn.to(self.dtype)

        found = {"x": draw(T, N, sizes[p.input_width])}
        found |= {f"state {s.name}": draw(N, sizes[s.width]) for s in p.states}
        found |= {f"family {f}": draw(*p.shape(f, sizes)) for f in p.families}
        for name in p.names if self.recorded else ():
            found[f"probe {name}"] = draw(T, N, sizes[p.width_of(name)], scale=0.0)
        if self.lengths is not None:
            found["x"][torch.arange(T)[:, None] >= torch.tensor(self.lengths)] = torch.nan
        return {name: t.requires_grad_() for name, t in found.items()}

    def run(self, engine: str | None, k: int | None, tensors: Mapping[str, Tensor]) -> Tensors:
        def part(kind: str) -> Tensors:
            return {n.split()[1]: t for n, t in tensors.items() if n.startswith(kind)}

        found = run(
            self.program, part("family"), tensors["x"], tuple(part("state").values()),
            lengths=None if self.lengths is None else torch.tensor(self.lengths),
            reverse=self.reverse, mask_key=self.key, probes=part("probe"),
            names=tuple(self.program.names) if self.recorded else (),
            engine=engine, derivative=self.derivative, checkpoint=k,
        )  # fmt: skip
        finals = {f"final {k}": s for k, s in enumerate(found.states)}
        return (
            {"output": found.output} | finals | {f"record {n}": v for n, v in found.records.items()}
        )

    def everything(self, engine: str | None, k: int | None) -> tuple[Tensors, Tensors]:
        """What is returned, and the gradients by all tensors under random cotangents."""
        tensors = self.tensors()
        found = self.run(engine, k, tensors)
        return found, pulled(found, tensors)


def pulled(found: Mapping[str, Tensor], tensors: Mapping[str, Tensor], **options: Any) -> Tensors:
    generator = torch.Generator().manual_seed(8)
    cotangents = {
        name: torch.randn(v.shape, generator=generator, dtype=torch.float64).to(v.dtype)
        for name, v in found.items()
    }
    ends = [name for name, value in found.items() if value.requires_grad]
    gradients = torch.autograd.grad(
        [found[name] for name in ends], list(tensors.values()), [cotangents[n] for n in ends],
        materialize_grads=True, **options,
    )  # fmt: skip
    return dict(zip(tensors, gradients, strict=True))


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        within = WITHIN[value.dtype] * max(1.0, float(value.detach().abs().max()))
        torch.testing.assert_close(found[name], value, rtol=0, atol=within, msg=name)


def check(case: Case, engine: str, k: int) -> None:
    values, gradients = case.everything(engine, k)
    whole, expected = case.everything(engine, None)
    if engine == "cpu":
        assert all(torch.equal(values[name], whole[name]) for name in whole)
    assert_close(values, whole)
    assert_close(gradients, expected)
    truth = case.everything("reference", None)
    assert_close(values, truth[0])
    assert_close(gradients, truth[1])


DROPPED: dict[str, Any] = {"zoneout": 0.3, "variational_dropout": 0.2}
"""Masks of a step, and masks of the whole sequence."""


def case_for(engine: str, name: str = "lstm_peephole", **options: Any) -> Case:
    """With masks and records, but on torch's functions, which have neither."""
    if engine == "aten":
        return Case(PROGRAMS["lstm"], recorded=False, **options)
    return Case(transform(PROGRAMS[name], **DROPPED), key=MaskKey(7, 1, 1), **options)


@pytest.mark.parametrize("k", [1, 2, 3, 7])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("dtype", WITHIN, ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_pieces_give_what_the_whole_run_gives(engine, dtype, reverse, lengths, k) -> None:
    check(case_for(engine, dtype=dtype, lengths=lengths, reverse=reverse), engine, k)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("engine", [e for e in ENGINES if e != "aten"])
def test_every_cell(engine, name, reverse) -> None:
    check(case_for(engine, name, lengths=RAGGED, reverse=reverse), engine, 4)


def test_torchs_own_differentiation_of_the_reference() -> None:
    case = case_for("reference", lengths=RAGGED, reverse=True)
    assert_close(replace(case, derivative="autograd").everything("reference", 3)[1],
                 case.everything("reference", None)[1])  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_masks_go_on_from_the_key_s_first_step(engine) -> None:
    case = case_for(engine, lengths=RAGGED, reverse=True)
    check(case if case.key is None else replace(case, key=MaskKey(7, 1, 1, 5)), engine, 3)


@pytest.mark.parametrize("ends", [["final 1"], ["record c"], ["output", "record i"]], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_a_loss_may_be_made_of_any_part(lengths, ends) -> None:
    case = case_for("cpu", lengths=lengths)
    found = []
    for k in (None, 4):
        tensors = case.tensors()
        values = case.run(None, k, tensors)
        found.append(pulled({name: values[name] for name in ends}, tensors))
    assert_close(found[1], found[0])


@pytest.mark.parametrize("wanted", ["x", "state c", "family R", "probe f"])
@pytest.mark.parametrize("engine", [e for e in ENGINES if e != "aten"])
def test_any_tensor_alone_may_ask_for_gradients(engine, wanted) -> None:
    case = case_for(engine, lengths=RAGGED, reverse=True)
    found = []
    for k in (None, 4):
        tensors = {n: t.detach().requires_grad_(n == wanted) for n, t in case.tensors().items()}
        found.append(pulled(case.run(engine, k, tensors), {wanted: tensors[wanted]}))
    assert_close(found[1], found[0])


def test_a_probe_that_is_not_zero_changes_the_values() -> None:
    case = case_for("cpu", lengths=RAGGED)
    found = []
    for k in (None, 3):
        tensors = case.tensors()
        tensors["probe i"] = torch.full_like(tensors["probe i"], 0.3).requires_grad_()
        values = case.run(None, k, tensors)
        found.append(values | pulled(values, tensors))
    assert_close(found[1], found[0])
    assert not torch.allclose(found[1]["output"], case.everything(None, 3)[0]["output"])


@pytest.mark.parametrize("engine", ENGINES)
def test_both_directions(engine) -> None:
    case = replace(case_for(engine, lengths=RAGGED), recorded=False)
    found = []
    for k in (None, 3):
        tensors = case.tensors()
        families = {f: tensors[f"family {f}"] for f in case.program.families}
        states = [tensors[f"state {s.name}"] for s in case.program.states]
        directions = [Direction(families, states, d, case.key) for d in (False, True)]
        both = run_directions(
            case.program, directions, tensors["x"], lengths=torch.tensor(RAGGED), engine=engine,
            checkpoint=k,
        )  # fmt: skip
        values = {f"{d} {n}": t for d, r in enumerate(both) for n, t in enumerate(flat(r))}
        found.append(values | pulled(values, tensors))
    assert_close(found[1], found[0])


def flat(result: Any) -> list[Tensor]:
    return [result.output, *result.states]


@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["full", "ragged"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("engine", ENGINES)
def test_second_derivatives(engine, reverse, lengths) -> None:
    case = case_for(engine, lengths=lengths, reverse=reverse)
    found = []
    for name, k in (("reference", None), (engine, 4)):
        tensors = case.tensors()
        first = pulled(case.run(name, k, tensors), tensors, create_graph=True)
        found.append(pulled(first, tensors))
    assert_close(found[1], found[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_the_way_back_may_be_gone_twice(engine) -> None:
    tensors = (case := case_for(engine)).tensors()
    found = case.run(engine, 3, tensors)
    first = pulled(found, tensors, retain_graph=True)
    second = pulled(found, tensors)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("engine", [e for e in ENGINES if e != "aten"])
def test_a_state_that_a_cell_hands_on_unchanged(engine) -> None:
    @cell
    def keeps(x, h, c, *, W, R):
        h = W @ x + R @ (h * c)
        return h, c

    for lengths in LENGTHS.values():
        check(Case(keeps.program, lengths=lengths), engine, 3)


def test_an_input_that_was_changed_before_the_way_back_is_refused() -> None:
    tensors = (case := case_for("cpu")).tensors()
    changed = tensors["x"] * 1
    found = case.run(None, 3, tensors | {"x": changed})
    with torch.no_grad():
        changed += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found["output"].sum().backward()


class Cut:
    """Counts the runs that are cut in pieces."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, apply = 0, InPieces.apply

        def counted(*arguments: Any) -> Any:
            self.count += 1
            return apply(*arguments)

        monkeypatch.setattr(InPieces, "apply", counted)


def test_nothing_is_cut_where_nothing_would_be_kept(monkeypatch) -> None:
    cut, tensors = Cut(monkeypatch), (case := case_for("cpu")).tensors()
    whole = case.run(None, None, tensors)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            found = case.run(None, 3, tensors)
            assert all(torch.equal(found[name], whole[name]) for name in whole)
    case.run(None, 3, {name: t.detach() for name, t in tensors.items()})
    case.run(None, T, tensors)
    assert cut.count == 0
    case.run(None, T - 1, tensors)
    assert cut.count == 1


def test_torch_func_differentiates_through_the_whole_run() -> None:
    case = replace(case_for("reference"), recorded=False)
    tensors = {name: t.detach() for name, t in case.tensors().items()}

    def loss(given: Tensors) -> Tensor:
        return case.run(None, 3, given)["output"].square().sum()

    found = torch.func.grad(loss)(tensors)
    leaves = {name: t.clone().requires_grad_() for name, t in tensors.items()}
    loss(leaves).backward()
    assert_close(found, {name: t.grad for name, t in leaves.items() if t.grad is not None})


@pytest.mark.parametrize("wrong", [0, -3, 2.0, True, "4"])
def test_a_wrong_number_of_steps_is_explained(wrong) -> None:
    case = Case(PROGRAMS["lstm"], recorded=False)
    message = r"running cell 'lstm': checkpoint must be a positive integer.* or None .*; got "
    with pytest.raises(ValueError, match=message + repr(wrong)):
        case.run(None, wrong, case.tensors())


STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEASURE = """
import sys
from pathlib import Path
import torch
from headgate.engines import run
from headgate.cells import BUILT_IN

T, N, I, H = 400, 32, 8, 128
program, k, reverse = BUILT_IN["lstm"].program, int(sys.argv[1]) or None, sys.argv[2] == "True"
lengths = torch.arange(T - N, T) if reverse else None
families = {
    name: (torch.randn(program.shape(name, program.sizes(I, H, {}))) / 10).requires_grad_()
    for name in program.families
}

def step(T, k, lengths=None):
    x = torch.zeros(T, N, I, requires_grad=True)
    states = [torch.zeros(N, H)] * 2
    found = run(
        program, families, x, states,
        lengths=lengths, reverse=reverse, engine="cpu", checkpoint=k,
    )
    found.output.sum().backward()

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

torch.set_num_threads(1)
step(4, 2)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
step(T, k, lengths)
step(T, k, lengths)
print(status("VmHWM") - before)
"""


def peak(k: int, reverse: bool) -> int:
    """Bytes of two training steps at their peak, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(k), str(reverse)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(not native.available, reason=f"compiled engine {native.reason}")
@pytest.mark.skipif(not CLEAR.exists(), reason="the peak of a process is read from Linux's /proc")
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "ragged and reverse"])
def test_peak_memory_falls_below_half(reverse) -> None:
    assert 0 < peak(20, reverse) < peak(0, reverse) / 2
