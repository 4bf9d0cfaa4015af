"""Layers inside torch.compile and torch.export: one operator for a whole stack."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import headgate as hg
from headgate import Record, Recurrent, cell, sigmoid, tanh
from headgate.nn.operator import Options

T, N, I, H = 5, 3, 2, 4
LENGTHS = [2, 0, 5]
RAGGED = torch.tensor(LENGTHS)


@cell
def mgu(x, h, c=0.5, *, W, R, b):  # type: ignore[no-untyped-def]
    f = sigmoid(W.f @ x + R.f @ h + b.f)
    n = tanh(W.n @ x + R.n @ (f * h) + b.n)
    c = f * c + n
    h = (1 - f) * h + f * tanh(c)
    return h, c


def recurrent(**options: Any) -> Recurrent:
    settings = {"num_layers": 2, "bidirectional": True, "dtype": torch.float64} | options
    return Recurrent(mgu, I, H, **settings)


def like_torch(name: str) -> Callable[..., nn.Module]:
    def make(**options: Any) -> nn.Module:
        settings = {"num_layers": 2, "bidirectional": True, "dtype": torch.float64} | options
        return getattr(hg, name)(I, H, **settings)

    return make


MAKERS = {"Recurrent": recurrent} | {name: like_torch(name) for name in ("LSTM", "GRU", "RNN")}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    # torch.compile takes no subclass of nn.LSTM and its like into a graph unless this is set.
    with torch._dynamo.config.patch(allow_rnn=True):
        yield


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype)


def compiled(module: Any, **options: Any) -> Any:
    return torch.compile(module, **{"fullgraph": True, "backend": "aot_eager"} | options)


def flat(returned: Any) -> list[Tensor]:
    if isinstance(returned, Tensor):
        return [returned]
    return [tensor for part in returned for tensor in flat(part)]


def states_for(module: Any) -> Any:
    states = module.num_layers * module.num_directions
    given = tuple(random(states, N, H).requires_grad_() for _ in module.program.states)
    return given if isinstance(module, Recurrent | hg.LSTM) else given[0]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("given", [False, True])
def test_outputs_states_and_every_gradient_are_those_of_the_module(
    name: str, given: bool, assert_same: Any, gradients: Any
) -> None:
    module = MAKERS[name]()
    x = random(T, N, I).requires_grad_()
    hx = states_for(module) if given else None
    expected, found = flat(module(x, hx)), flat(compiled(module)(x, hx))
    assert_same(found, expected, "returned")
    inputs = [x, *module.parameters(), *(flat(hx) if given else [])]
    assert_same(gradients(found, inputs), gradients(expected, inputs), "gradients")


OPTIONS: list[dict[str, Any]] = [
    {"output_mode": "last", "batch_first": True},
    {"residual": True, "merge": "mean", "learn_initial_state": True},
    {"residual": True, "output_mode": "last", "bidirectional": False},
    {"dropout": 0.5, "weight_drop": 0.3, "zoneout": 0.2, "variational_dropout": 0.1},
    {"bidirectional": False, "num_layers": 1, "layer_norm": True},
]


@pytest.mark.parametrize("lengths", [None, LENGTHS, RAGGED], ids=["full", "list", "tensor"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
def test_every_option_compiles(
    options: dict[str, Any], lengths: Any, assert_same: Any, gradients: Any
) -> None:
    module = recurrent(**options)
    x = random(N, T, I) if module.batch_first else random(T, N, I)
    x.requires_grad_()
    torch.manual_seed(1)
    expected = flat(module(x, lengths=lengths))
    torch.manual_seed(1)
    found = flat(compiled(module)(x, lengths=lengths))
    assert_same(found, expected, "returned")
    inputs = [x, *module.parameters()]
    assert_same(gradients(found, inputs), gradients(expected, inputs), "gradients")


@pytest.mark.parametrize("name", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells_compile(name: str, assert_same: Any, gradients: Any) -> None:
    module = getattr(hg, name)(I, H, dtype=torch.float64, zoneout=0.3)
    for x in (random(N, I).requires_grad_(), random(I).requires_grad_()):
        torch.manual_seed(1)
        expected = flat(module(x))
        torch.manual_seed(1)
        found = flat(compiled(module)(x))
        assert_same(found, expected, "returned")
        inputs = [x, *module.parameters()]
        assert_same(gradients(found, inputs), gradients(expected, inputs), "gradients")


class Model(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(2 * H, 1, dtype=torch.float64)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.head(torch.relu(self.layer(2 * x, lengths=lengths)[0] + 1.0))


@pytest.mark.slow
def test_inductor(assert_same: Any, gradients: Any) -> None:
    model, x = Model(recurrent(dropout=0.5)), random(T, N, I).requires_grad_()
    run = compiled(model, backend="inductor")
    torch.manual_seed(1)
    first, second = run(x), run(x)
    torch.manual_seed(1)
    assert torch.equal(run(x), first)
    assert not torch.equal(second, first)
    model.eval()
    expected, found = [model(x, RAGGED)], [run(x, RAGGED)]
    assert_same(found, expected)
    inputs = [x, *model.parameters()]
    assert_same(gradients(found, inputs), gradients(expected, inputs), "gradients")


@pytest.mark.parametrize("name", MAKERS)
def test_padding_may_hold_nan(name: str, assert_same: Any, gradients: Any) -> None:
    module, x = MAKERS[name](), random(T, N, I)
    for row, length in enumerate(LENGTHS):
        x[length:, row] = torch.nan
    x.requires_grad_()
    expected = flat(module(x, lengths=RAGGED))
    found = flat(compiled(module)(x, lengths=RAGGED))
    assert_same(found, expected, "returned")
    inputs = [x, *module.parameters()]
    assert_same(gradients(found, inputs), gradients(expected, inputs), "gradients")


@pytest.mark.parametrize("lengths", [[2, 9, 5], [2, -1, 5], [2, 5], [0.5, 1.0, 2.0]])
def test_wrong_lengths_raise_the_modules_own_error(lengths: list[Any]) -> None:
    module, x = recurrent(), random(T, N, I)
    run = compiled(module)
    for given in (lengths, torch.tensor(lengths)):
        with pytest.raises((TypeError, ValueError)) as expected:
            module(x, lengths=given)
        with pytest.raises(expected.type) as found:
            run(x, lengths=given)
        assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("name", MAKERS)
def test_other_numbers_of_steps_and_rows_need_no_other_graph(name: str, assert_same: Any) -> None:
    module = MAKERS[name](dropout=0.5)
    run = compiled(module, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for steps, rows in ((5, 3), (7, 4), (2, 9)):
            x, lengths = random(steps, rows, I), torch.randint(steps + 1, (rows,))
            torch.manual_seed(1)
            expected = flat(module(x, lengths=lengths))
            torch.manual_seed(1)
            assert_same(flat(run(x, lengths=lengths)), expected)


def test_nothing_to_do(assert_same: Any) -> None:
    module = recurrent()
    for x in (random(0, N, I), random(T, 0, I)):
        assert_same(flat(compiled(module)(x)), flat(module(x)))


def test_masks_are_drawn_anew_in_every_call() -> None:
    module, x = recurrent(dropout=0.5, zoneout=0.2, weight_drop=0.2), random(T, N, I)
    run = compiled(module)
    torch.manual_seed(1)
    first, second = run(x)[0], run(x)[0]
    torch.manual_seed(1)
    again = run(x)[0]
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
    torch.manual_seed(1)
    eager = module(x)[0]
    assert torch.equal(first, eager)
    module.eval()
    assert torch.equal(run(x)[0], run(x)[0])


@pytest.mark.parametrize("make", [recurrent, MAKERS["LSTM"], MAKERS["GRU"]])
def test_autocast_is_that_of_the_module(make: Any) -> None:
    module, x = make(dtype=torch.float32), random(T, N, I, dtype=torch.float32)
    run = compiled(module)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = flat(module(x)), flat(run(x))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b)
    weights = torch.randn_like(expected[0])
    inputs = list(module.parameters())
    assert all(g.isfinite().all() for g in torch.autograd.grad((found[0] * weights).sum(), inputs))


# The compiler itself looks at .grad of whatever enters a graph, and would hide the warning.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["Recurrent", "LSTM"])
def test_what_cannot_be_traced_breaks_the_graph_and_runs(name: str) -> None:
    module: Any = MAKERS[name]()
    x = random(T, N, I)
    names = module.program.states[-1].name
    packed = pack_padded_sequence(x, [5, 3, 2])

    def recording(x: Tensor) -> Tensor:
        record = Record(names)
        module(2 * x, record=record)
        return record[names] + 1

    def packing(packed: PackedSequence) -> Tensor:
        return module(packed)[0].data + 1

    pairs: list[tuple[Any, Any]] = [(recording, x), (packing, packed)]
    for call, given in pairs:
        torch.testing.assert_close(compiled(call, fullgraph=False)(given), call(given))


def test_torchs_own_rule_for_lstms_breaks_the_graph_once() -> None:
    """Nothing inside the layer is compiled piece by piece."""
    module, x = hg.LSTM(I, H, bidirectional=True, dtype=torch.float64), random(T, N, I)
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    with torch._dynamo.config.patch(allow_rnn=False):
        found = torch.compile(module, backend=graphs)(x)[0]
    torch.testing.assert_close(found, module(x)[0])
    assert graphs.frame_count == 0


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("transform", ["grad", "jvp"])
def test_torch_func_inside_and_outside_of_compiled_functions(transform: str) -> None:
    module, x, tangent = recurrent(), random(T, N, I), random(T, N, I)

    def total(x: Tensor) -> Tensor:
        return module(x)[0].square().sum()

    def derivative(x: Tensor) -> Tensor:
        if transform == "grad":
            return (torch.func.grad(total)(x) * tangent).sum()
        return torch.func.jvp(total, (x,), (tangent,))[1]

    step = 1e-6
    expected = (total(x + step * tangent) - total(x - step * tangent)) / (2 * step)
    assert expected.abs() > 1e-3
    torch.testing.assert_close(derivative(x), expected, rtol=1e-6, atol=1e-6)
    found = compiled(derivative, fullgraph=False)(x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def exported(module: nn.Module, x: Tensor, dynamic: bool = True, **options: Any) -> Any:
    sizes = (torch.export.Dim("T", max=100), torch.export.Dim("N", max=100))
    shapes = {"x" if isinstance(module, Model) else "input": dict(enumerate(sizes))}
    return torch.export.export(module, (x,), dynamic_shapes=shapes if dynamic else None, **options)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_an_exported_module_takes_other_steps_and_rows(
    name: str, strict: bool, assert_same: Any, gradients: Any
) -> None:
    module = MAKERS[name](dropout=0.5).eval()
    program = exported(module, random(T, N, I), strict=strict)
    nodes = [str(node.target) for node in program.graph.nodes]
    assert nodes.count("headgate.stack.default") == 1
    for x in (random(T, N, I).requires_grad_(), random(9, 2, I).requires_grad_()):
        expected, found = flat(module(x)), flat(program.module()(x))
        assert_same(found, expected)
        assert_same(gradients(found, [x]), gradients(expected, [x]), "gradients")


def test_an_exported_file_runs_in_a_process_that_imports_headgate(
    tmp_path: Path, assert_same: Any
) -> None:
    model, x = Model(recurrent()).eval(), random(9, 2, I)
    torch.export.save(exported(model, random(T, N, I)), tmp_path / "model.pt2")
    torch.save(x, tmp_path / "x.pt")
    lines = (
        "import sys, torch, headgate.nn",
        "folder = sys.argv[1]",
        "model = torch.export.load(folder + '/model.pt2').module()",
        "torch.save(model(torch.load(folder + '/x.pt')).detach(), folder + '/y.pt')",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines), str(tmp_path)], check=True)
    assert_same([torch.load(tmp_path / "y.pt")], [model(x).detach()])


def test_an_exported_module_refuses_what_its_operator_does_not_know() -> None:
    module, x = recurrent(), random(T, N, I)
    run = exported(module, x).module()
    with pytest.raises(RuntimeError, match="expected no forward-mode differentiation"):
        torch.func.jvp(lambda x: run(x)[0], (x,), (x,))
    with pytest.raises(RuntimeError, match="Batching rule not implemented"):
        torch.func.vmap(lambda x: run(x)[0])(torch.stack([x, x]))


def test_an_exported_module_has_second_derivatives() -> None:
    module, x = recurrent(num_layers=1), random(T, N, I).requires_grad_()
    found = []
    for call in (module, exported(module, random(T, N, I)).module()):
        (first,) = torch.autograd.grad(call(x)[0].square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(found[1], found[0])


def test_export_says_what_it_cannot_take() -> None:
    class Recording(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = recurrent()

        def forward(self, x: Tensor) -> Tensor:
            record = Record("f")
            self.layer(x, record=record)
            return record["f"]

    x = random(T, N, I)
    with pytest.raises(ValueError, match="cannot export a call with a record; leave record out"):
        torch.export.export(Recording(), (x,))
    with pytest.raises(ValueError, match="cannot export a PackedSequence; give the padded input"):
        torch.export.export(recurrent(), (pack_padded_sequence(x, [5, 5, 5]),))


def sample(requires_grad: bool, lengths: Tensor | None, seed: Tensor | None) -> tuple[Any, ...]:
    """Arguments of the operator: two layers in both directions, of other widths."""
    module = recurrent(dropout=0.5, zoneout=0.2)
    families = [p.detach().requires_grad_(requires_grad) for p in module.parameters()]
    states = [random(N, H).requires_grad_(requires_grad) for _ in range(8)]
    options = Options("Recurrent", num_layers=2, num_directions=2, dropout=0.5)
    x = random(T, N, I).requires_grad_(requires_grad)
    return x, states, families, lengths, seed, module.program.to_json(), *options


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["full", "ragged"])
@pytest.mark.parametrize("seed", [None, torch.tensor(3)], ids=["still", "drawn"])
def test_the_operator_keeps_torchs_rules(
    requires_grad: bool, lengths: Tensor | None, seed: Tensor | None
) -> None:
    torch.library.opcheck(torch.ops.headgate.stack, sample(requires_grad, lengths, seed))


@pytest.mark.parametrize("wanted", [True, False])
def test_its_backward_keeps_torchs_rules(wanted: bool) -> None:
    x, states, families, lengths, seed, *options = sample(False, RAGGED, torch.tensor(3))
    needs = [wanted, *[True] * len(states), *[wanted] * len(families)]
    cotangents = [random(T, N, 2 * H), None, *(random(N, H) for _ in range(7))]
    arguments = (x, states, families, lengths, seed, cotangents, needs, *options)
    torch.library.opcheck(torch.ops.headgate.stack_backward, arguments)
