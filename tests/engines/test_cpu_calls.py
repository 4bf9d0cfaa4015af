"""Calls of the compiled engine: bit for bit on any threads and in pieces, weights that change under
it, forks and Python threads, instruction sets, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from headgate import native
from headgate.cells import BUILT_IN
from headgate.engines import MaskKey, Result, choose, run
from headgate.engines.cpu.weights import instruction_set
from headgate.nn import Recurrent
from headgate.program import Program
from headgate.program.transform import transform

pytestmark = pytest.mark.skipif(not native.available, reason=f"compiled engine {native.reason}")

PROGRAMS = {name: built_in.program for name, built_in in BUILT_IN.items()}
DTYPES = [torch.float32, torch.float64]
THREE = ["lstm", "gru_reset_before", "lstm_layer_norm"]
SPLITS = {"rows": (45, 16, 32, 64), "units": (25, 2, 32, 160), "one row's units": (40, 1, 16, 192)}
Shape = tuple[int, int, int, int]
"""T, N, I, H at which two threads split the rows, or the hidden units (csrc/job.cpp)."""


@pytest.fixture(autouse=True)
def one_thread_again() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


class Problem:
    def __init__(
        self, program: Program, T: int, N: int, I: int, H: int, dtype: torch.dtype = torch.float64
    ) -> None:
        generator = torch.Generator().manual_seed(1)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(*shape, generator=generator) * scale).to(dtype)

        sizes = program.sizes(I, H, {n: 5 for n in program.size_names if n == "projection"})
        self.program = program
        self.families = {
            name: draw(*(shape := program.shape(name, sizes)), scale=shape[-1] ** -0.5)
            for name in program.families
        }
        self.x, self.states = draw(T, N, I), [draw(N, sizes[s.width]) for s in program.states]

    def run(
        self,
        x: Tensor | None = None,
        states: list[Tensor] | None = None,
        *,
        lengths: Tensor | None = None,
        reverse: bool = False,
        key: MaskKey | None = None,
        engine: str = "cpu",
    ) -> Result:
        return run(
            self.program, self.families, self.x if x is None else x,
            self.states if states is None else states, lengths=lengths, reverse=reverse,
            mask_key=key, names=tuple(self.program.names), engine=engine,
        )  # fmt: skip

    def trained(
        self, lengths: Tensor | None = None, threads_back: int | None = None
    ) -> list[Tensor]:
        """Outputs, states, records and all gradients of a training step."""
        leaves = [*self.families.values(), self.x, *self.states]
        for leaf in leaves:
            leaf.requires_grad_()
        found = everything(self.run(lengths=lengths, key=MaskKey(3, 0, 0)))
        generator = torch.Generator().manual_seed(2)
        cotangents = [torch.randn(f.shape, generator=generator).to(f.dtype) for f in found]
        torch.set_num_threads(threads_back or torch.get_num_threads())
        return found + list(torch.autograd.grad(found, leaves, cotangents))


def everything(result: Result) -> list[Tensor]:
    return [result.output, *result.states, *result.records.values()]


def assert_bits(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("name", THREE)
def test_threads_change_no_bit(name: str, shape: Shape, dtype: torch.dtype):
    problem = Problem(PROGRAMS[name], *shape, dtype)
    lengths = torch.arange(shape[1]) * 5 % (shape[0] + 1)
    for given in (None, lengths):
        alone = everything(problem.run(lengths=given))
        torch.set_num_threads(2)
        assert_bits(everything(problem.run(lengths=given)), alone)
        torch.set_num_threads(1)


@pytest.mark.parametrize("shape", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("name", THREE)
def test_threads_change_no_bit_of_training_with_dropout(name: str, shape: Shape):
    program = transform(PROGRAMS[name], zoneout=0.2, variational_dropout=0.3)
    problem = Problem(program, *shape, torch.float32)
    for lengths in (None, torch.arange(shape[1]) * 5 % (shape[0] + 1)):
        alone = problem.trained(lengths)
        torch.set_num_threads(2)
        assert_bits(problem.trained(lengths), alone)
        torch.set_num_threads(1)


@pytest.mark.parametrize("seconds", [[1.0, 3.0], [2.0, 1.5], [1000.0, 1.0]], ids=str)
@pytest.mark.parametrize("shape", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("name", THREE)
def test_which_thread_was_faster_changes_no_bit(name: str, shape: Shape, seconds: list[float]):
    problem = Problem(PROGRAMS[name], *shape, torch.float32)
    extension = native.extension
    assert extension is not None
    for lengths in (None, torch.arange(shape[1]) * 5 % (shape[0] + 1)):
        alone = problem.trained(lengths)
        torch.set_num_threads(2)
        extension.remember_seconds(seconds)
        for _ in range(3):  # the engine finds out by and by how it is
            assert_bits(problem.trained(lengths), alone)
        extension.remember_seconds([1.0, 1.0])
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", THREE)
def test_ragged_rows_find_their_kept_values_on_other_threads_too(name: str):
    problem = Problem(PROGRAMS[name], *SPLITS["rows"], torch.float32)
    lengths = torch.arange(16) * 5 % 46
    alone = problem.trained(lengths)
    assert_bits(problem.trained(lengths, threads_back=2), alone)
    assert_bits(problem.trained(lengths, threads_back=1), alone)  # and forward on two


def test_steps_that_no_row_has_may_lie_rows_first():
    """Their products have no rows to read: a sanitizer sees whether any is looked for."""
    problem = Problem(PROGRAMS["lstm"], 100, 32, 5, 16, torch.float32)
    lengths = torch.full((32,), 32)
    expected = problem.trained(lengths)
    problem.x = problem.x.detach().transpose(0, 1).contiguous().transpose(0, 1)
    assert_bits(problem.trained(lengths), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_row_alone_has_the_bits_it_has_in_a_batch(name: str, dtype: torch.dtype):
    T, N = 6, 11
    problem = Problem(PROGRAMS[name], T, N, 3, 19, dtype)
    whole = everything(problem.run())
    for rows in (slice(0, 1), slice(4, 7), slice(2, 11)):
        part = problem.run(problem.x[:, rows], [s[rows] for s in problem.states])
        assert_bits(everything(part), [w[:, rows] if w.dim() == 3 else w[rows] for w in whole])
    lengths = torch.arange(N) % (T + 1)
    some = problem.run(lengths=lengths).output
    for row, length in enumerate(lengths):
        assert torch.equal(some[:length, row], whole[0][:length, row])


@pytest.mark.parametrize("N", [1, 3, 9])
@pytest.mark.parametrize("name", PROGRAMS)
def test_pieces_have_the_bits_of_one_call(name: str, N: int):
    problem = Problem(PROGRAMS[name], 101, N, 3, 9, torch.float32)
    whole, states, outputs = problem.run(), problem.states, []
    for piece in problem.x.split([1, 64, 35, 1]):
        part = problem.run(piece, states)
        states = list(part.states)
        outputs.append(part.output)
    assert_bits([torch.cat(outputs), *states], [whole.output, *whole.states])


def test_the_same_call_again_has_the_same_bits():
    problem = Problem(transform(PROGRAMS["lstm"], zoneout=0.2), 20, 4, 3, 33)
    assert_bits(problem.trained(), problem.trained())


def test_a_weight_changed_in_any_way_is_noticed():
    module = Recurrent("lstm_peephole", 3, 17)
    x = torch.randn(5, 2, 3)

    def by_data() -> None:
        next(module.parameters()).data[1, 1] += 1.0

    def by_numpy() -> None:
        next(module.parameters()).detach().numpy()[2, 0] *= -2.0

    def by_vector() -> None:
        vector = torch.nn.utils.parameters_to_vector(module.parameters())
        torch.nn.utils.vector_to_parameters(vector * 1.1, module.parameters())

    def by_adam() -> None:
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1, fused=True)
        module(x)[0].sum().backward()
        optimizer.step()

    def by_swap() -> None:
        weight = next(module.parameters())
        weight.data = torch.randn_like(weight)

    families = {name.removesuffix("_l0"): p for name, p in module.named_parameters()}
    program = PROGRAMS["lstm_peephole"]
    start = [torch.zeros(2, 17)] * 2
    before = module(x)[0].detach()
    for change in (by_data, by_numpy, by_vector, by_adam, by_swap):
        change()
        with torch.no_grad():
            after = module(x)[0]
            expected = run(program, families, x, start, engine="reference").output
        assert not torch.equal(after, before), change.__name__
        torch.testing.assert_close(after, expected)
        before = after


FORKS = """
import os, signal, torch
from headgate.nn import Recurrent
torch.set_num_threads(2)
module = Recurrent("lstm_peephole", 32, 64)
x = torch.randn(20, 16, 32)
expected = module(x)[0]
expected.sum().backward()
for _ in range(3):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        with torch.no_grad():
            found = module(x)[0]
        torch.set_num_threads(1)  # torch's own operations would wait for the pool's lost threads
        module(x)[0].sum().backward()
        os._exit(0 if torch.equal(found, expected) else 3)
    assert os.waitpid(child, 0)[1] == 0, "the forked process failed or hung"
assert torch.equal(module(x)[0], expected)

class Set(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, k):
        with torch.no_grad():
            return module(x * k)[0]

if __name__ == "__main__":
    options = {"num_workers": 2, "timeout": 20, "multiprocessing_context": "fork"}
    for k, found in enumerate(torch.utils.data.DataLoader(Set(), **options)):
        with torch.no_grad():
            assert torch.equal(found[0], module(x * k)[0])
    print("all right")
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300,
        env={**os.environ, **environment}, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def test_forked_processes_may_use_the_engine_after_two_threads():
    done = python("-c", FORKS)
    assert "all right" in done.stdout, done.stderr


def test_many_python_threads_at_once():
    problems = [Problem(PROGRAMS[n], *s) for n in THREE for s in ((8, 16, 8, 64), (9, 3, 2, 17))]
    expected = [everything(p.run()) for p in problems]
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda p: everything(p.run()), problems * 5))
        for k, each in enumerate(found):
            assert_bits(each, expected[k % len(expected)])


def test_training_in_many_python_threads_at_once():
    problems = [Problem(PROGRAMS[n], 6, N, 4, 17) for n in THREE for N in (2, 9)]
    expected = [p.trained() for p in problems]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(pool.map(Problem.trained, problems), expected, strict=True):
            assert_bits(found, right)


def test_denormals_are_flushed_inside_and_kept_outside():
    tiny = torch.tensor([1e-310], dtype=torch.float64)
    problem = Problem(PROGRAMS["rnn"], 4, 2, 3, 5)
    problem.x = problem.x * 1e-310
    problem.states = [s * 0 for s in problem.states]
    problem.families["b"] *= 0
    assert not problem.run().output.any()
    torch.set_num_threads(2)
    Problem(PROGRAMS["lstm"], *SPLITS["rows"]).run()
    assert (tiny / 2).item() > 0
    assert tiny.item() / 2 > 0


def test_needing_gradients_under_no_grad():
    problem = Problem(PROGRAMS["lstm_peephole"], 4, 2, 3, 5)
    plain = everything(problem.run())
    problem.x.requires_grad_()
    with torch.no_grad():
        found = everything(problem.run())
    assert_bits(found, plain)
    assert not any(f.requires_grad for f in found)
    with torch.inference_mode():
        assert_bits(everything(problem.run()), plain)


@pytest.mark.parametrize(("T", "N"), [(0, 3), (4, 0), (0, 0)])
def test_empty_batches(T: int, N: int):
    problem = Problem(PROGRAMS["lstm_peephole"], T, N, 3, 5)
    for requires_grad in (False, True):
        problem.x.requires_grad_(requires_grad)
        found, expected = problem.run(), problem.run(engine="reference")
        assert found.output.shape == (T, N, 5)
        assert_bits(everything(found), everything(expected))


def test_rows_without_any_step():
    problem = Problem(PROGRAMS["gru"], 4, 3, 3, 5)
    found = problem.run(lengths=torch.zeros(3, dtype=torch.int64))
    assert not found.output.any()
    assert torch.equal(found.states[0], problem.states[0])


def test_other_dtypes_are_named():
    problem = Problem(PROGRAMS["lstm_peephole"], 4, 2, 3, 5, torch.bfloat16)
    with pytest.raises(ValueError, match=r"knows float32 and float64, not torch.bfloat16"):
        problem.run()
    assert "not torch.bfloat16" in choose(problem.program, like=problem.x).reason


OTHERS = [entry[0] for entry in native.extension.instruction_sets()] if native.extension else []


@pytest.mark.slow
@pytest.mark.parametrize("isa", OTHERS)
def test_every_instruction_set_of_this_machine(isa: str):
    if isa == instruction_set()[0]:
        return  # this run is its run
    tests = Path(__file__).parent
    command = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(tests / "test_cpu.py"))
    done = python(*command, HEADGATE_ISA=isa, CI="1")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("isa", OTHERS)
def test_threads_change_no_bit_in_every_instruction_set(isa: str):
    if isa == instruction_set()[0]:
        return
    command = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k")
    done = python(*command, "change_no_bit or bits", HEADGATE_ISA=isa)
    assert done.returncode == 0, done.stdout


def test_an_unknown_instruction_set_is_named():
    code = "from headgate.engines.cpu.weights import instruction_set; instruction_set()"
    done = python("-c", code, HEADGATE_ISA="sse9")
    expected = f"HEADGATE_ISA: expected one of {', '.join(OTHERS)} on this machine, got 'sse9'"
    assert expected in done.stderr
