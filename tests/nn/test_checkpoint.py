"""checkpoint=k of a layer: the same results, whatever else the layer does."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import headgate as hg
from headgate.engines.pieces import InPieces

T, N, I, H = 7, 4, 3, 5
LENGTHS = [3, 7, 0, 5]
OPTIONS: list[dict[str, Any]] = [
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "dropout": 0.3, "weight_drop": 0.2, "zoneout": 0.2},
    {"bidirectional": True, "output_mode": "last", "learn_initial_state": True},
    {"num_layers": 2, "residual": True, "batch_first": True, "variational_dropout": 0.3},
]
MAKERS = {
    "Recurrent": lambda **o: hg.Recurrent("lstm_peephole", I, H, **o),
    "LSTM": lambda **o: hg.LSTM(I, H, **o),
    "GRU": lambda **o: hg.GRU(I, H, **o),
    "RNN": lambda **o: hg.RNN(I, H, **o),
}


def pair(name: str, k: int = 3, **options: Any) -> tuple[Any, Any]:
    """The layer without pieces and with them, of the same random parameters."""
    whole = MAKERS[name](dtype=torch.float64, **options)
    pieces = MAKERS[name](dtype=torch.float64, checkpoint=k, **options)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.uniform_(-0.8, 0.8)
    pieces.load_state_dict(whole.state_dict())
    return whole, pieces


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for part in value for t in flat(part)]


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each run that is cut: the steps of its pieces."""
    found, apply = [], InPieces.apply

    def counted(pieces: Any, *tensors: Tensor) -> Any:
        found.append(pieces.size)
        return apply(pieces, *tensors)

    monkeypatch.setattr(InPieces, "apply", counted)
    return found


def everything(module: nn.Module, x: Tensor, gradients: Any, **call: Any) -> list[Tensor]:
    torch.manual_seed(4)
    found = flat(module(x, **call))
    if record := call.get("record"):
        found += [record[name] for name in record.names]
    pulled = gradients(found, [x, *module.parameters()])
    errors = [record.gradient(n) for n in record.names] if record and record.gradients else []
    return [*found, *pulled, *errors]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
@pytest.mark.parametrize("name", MAKERS)
def test_results_are_those_without(
    name: str, options: Any, lengths: Any, engine: str, assert_same, gradients, cuts
) -> None:
    whole, pieces = pair(name, **options)
    x = random(N, T, I) if whole.batch_first else random(T, N, I)
    expected = everything(whole, x, gradients, lengths=lengths)
    assert cuts == []
    assert_same(everything(pieces, x, gradients, lengths=lengths), expected)
    assert cuts == [3] * whole.num_layers * whole.num_directions


def test_records_and_error_terms(engine: str, assert_same) -> None:
    whole, pieces = pair("LSTM", num_layers=2, bidirectional=True)
    x, found = random(T, N, I), []
    for module in (whole, pieces):
        record = hg.Record("i", "c", gradients=True)
        output, _ = module(x, lengths=LENGTHS, record=record)
        (output.square().sum() + record["c"].sin().sum()).backward()
        names = record.names
        found.append([*(record[n] for n in names), *(record.gradient(n) for n in names)])
    assert_same(found[1], found[0])


def test_a_packed_sequence(assert_same) -> None:
    whole, pieces = pair("GRU", bidirectional=True)
    x, lengths = random(T, N, I), torch.tensor([3, 7, 1, 5])
    found = []
    for module in (whole, pieces):
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        output, h = module(packed)
        found.append([output.data, h, *torch.autograd.grad(output.data.sum(), [x])])
    assert_same(found[1], found[0])


@pytest.mark.filterwarnings("ignore:Online softmax is disabled:UserWarning")
def test_a_compiled_layer(assert_same, gradients, cuts) -> None:
    whole, pieces = pair("Recurrent", num_layers=2, zoneout=0.2)
    x = random(T, N, I)
    expected = everything(whole, x, gradients)
    torch.compiler.reset()
    compiled = torch.compile(pieces, backend="aot_eager", fullgraph=True)
    torch.manual_seed(4)
    seen = flat(compiled(x))
    assert cuts == []  # an operator keeps nothing, so its forward run is whole
    assert_same([*seen, *gradients(seen, [x, *pieces.parameters()])], expected)
    assert cuts == [3, 3]


def test_autocast(assert_same, gradients) -> None:
    whole, pieces = pair("LSTM", num_layers=2)
    x = random(T, N, I).float().detach().requires_grad_()
    found = []
    for module in (whole.float(), pieces.float()):
        with torch.autocast("cpu", torch.bfloat16):
            found.append(everything(module, x, gradients))
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)


def test_nothing_is_cut_without_gradients(cuts) -> None:
    whole, pieces = pair("LSTM")
    x = random(T, N, I)
    with torch.no_grad():
        assert torch.equal(pieces(x)[0], whole(x)[0])
        assert torch.equal(
            torch.as_tensor(pieces.stream(N).step(x[0].numpy())), pieces(x[:1])[0][0]
        )
    assert cuts == []


def test_the_option_is_part_of_the_configuration() -> None:
    made = hg.Recurrent("gru", I, H, checkpoint=20)
    assert "checkpoint=20" in repr(made)
    assert hg.Recurrent.from_config(json.loads(json.dumps(made.config()))).checkpoint == 20
    older = {name: value for name, value in made.config().items() if name != "checkpoint"}
    assert hg.Recurrent.from_config(older).checkpoint is None


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "all"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_wrong_number_of_steps_is_explained(name: str, wrong: Any) -> None:
    message = f"{name}: checkpoint must be a positive integer, the steps of .*; got {wrong!r}"
    with pytest.raises(ValueError, match=message):
        MAKERS[name](checkpoint=wrong)
