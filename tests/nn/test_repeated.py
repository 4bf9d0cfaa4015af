"""A call that predicts takes the shortest way, and gives what the long one gives."""

from __future__ import annotations

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import headgate
from headgate import Recurrent
from headgate.nn import Record

CELLS = ("rnn", "lstm", "gru", "lstm_peephole", "lstm_layer_norm", "lstm_coupled")


def both_ways(layer: Any, x: torch.Tensor) -> tuple[Any, Any]:
    """The short way, and the long one, which a record asks for."""
    with torch.no_grad():
        return layer(x), layer(x, record=Record("h"))


def assert_equal(found: Any, expected: Any) -> None:
    assert torch.equal(found[0], expected[0])
    assert len(found[1]) == len(expected[1])
    for one, other in zip(found[1], expected[1], strict=True):
        assert one.shape == other.shape
        assert torch.equal(one, other)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 3},
        {"output_mode": "last"},
        {"bidirectional": True},
        {"bidirectional": True, "num_layers": 2, "output_mode": "last"},
        {"bidirectional": True, "merge": "mean"},
    ],
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_both_ways_agree_bit_for_bit(cell: str, options: dict[str, Any], batch_first: bool) -> None:
    torch.manual_seed(0)
    layer = Recurrent(cell, 5, 7, batch_first=batch_first, **options)
    for shape in ((4, 6, 5), (1, 1, 5), (6, 4, 5)):
        for _ in range(2):
            assert_equal(*both_ways(layer, torch.randn(shape)))


def test_a_changed_weight_is_noticed() -> None:
    layer, x = Recurrent("lstm", 3, 4), torch.randn(5, 2, 3)
    with torch.no_grad():
        before = layer(x)[0]
        weight = layer.get_parameter("W_l0")
        weight.data.mul_(2)
        changed = layer(x)[0]
        halves = torch.nn.Parameter(weight.t().contiguous().t() / 2)  # lies otherwise in memory
        layer.register_parameter("W_l0", halves)
        again = layer(x)[0]
    assert not torch.equal(before, changed)
    assert torch.equal(before, again)


def test_what_is_returned_is_never_written_again() -> None:
    layer = Recurrent("gru", 3, 4)
    with torch.no_grad():
        output, (h,) = layer(torch.ones(5, 2, 3))
        kept = output.clone(), h.clone()
        layer(torch.zeros(5, 2, 3))
    assert torch.equal(output, kept[0])
    assert torch.equal(h, kept[1])


def test_mistakes_are_still_said() -> None:
    layer, drop_in = Recurrent("lstm", 3, 4), headgate.LSTM(3, 4)
    with torch.no_grad():
        layer(torch.randn(5, 2, 3))
        with pytest.raises(ValueError, match="expected input of width 3"):
            layer(torch.randn(5, 2, 4))
        with pytest.raises(ValueError, match=r"input is torch.float64"):
            layer(torch.randn(5, 2, 3).double())
        layer.R_l0 = torch.nn.Parameter(torch.zeros(3, 3))
        with pytest.raises(ValueError, match="family R must have shape"):
            layer(torch.randn(5, 2, 3))
        with pytest.raises(RuntimeError, match=r"input.size"):
            drop_in(torch.randn(5, 2, 4))


def test_random_masks_are_still_drawn() -> None:
    layer, x = Recurrent("lstm", 3, 8, zoneout=0.5), torch.randn(9, 2, 3)
    with torch.no_grad():
        assert not torch.equal(layer(x)[0], layer(x)[0])
        layer.eval()
        assert torch.equal(layer(x)[0], layer(x)[0])
        layer.train()
        assert not torch.equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize("lengths", [None, [9, 4]])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_masks_are_those_of_the_long_way(
    options: dict[str, Any], lengths: list[int] | None
) -> None:
    layer, x = Recurrent("gru", 3, 8, zoneout=0.5, **options), torch.randn(9, 2, 3)
    found = []
    for record in (None, None, Record("h")):
        torch.manual_seed(4)
        output, (state,) = layer(x, lengths=lengths, record=record)
        gradients = torch.autograd.grad(output.square().sum(), list(layer.parameters()))
        found.append([output, state, *gradients, torch.rand(2)])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_the_environment_chooses_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Recurrent("lstm", 3, 4), torch.randn(5, 2, 3)
    with torch.no_grad():
        compiled = layer(x)[0]
        monkeypatch.setenv("HEADGATE_ENGINE", "reference")
        reference = layer(x)[0]
    torch.testing.assert_close(compiled, reference)


def test_a_copy_of_a_used_module_works() -> None:
    layer, x = headgate.LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(layer)(x)[0], layer(x)[0])


def test_input_of_any_strides() -> None:
    layer, wide = Recurrent("lstm", 3, 4), torch.randn(5, 2, 6)
    with torch.no_grad():
        for x in (
            wide[..., ::2],
            wide[..., :3],
            wide[::2, :, 3:],
            wide[:, :1].expand(5, 3, 6)[..., :3],
        ):
            assert torch.equal(layer(x)[0], layer(x.contiguous())[0])


def given_states(layer: Any, rows: int, apart: bool = False) -> tuple[torch.Tensor, ...]:
    """Initial states as a user has them; ``apart``: not side by side in memory."""
    places = layer.num_layers * layer.num_directions
    shapes = [(places, rows, width) for width in layer._state_widths[0]]
    if apart:
        return tuple(torch.randn(*s[:2], 2 * s[2])[..., ::2].requires_grad_() for s in shapes)
    return tuple(torch.randn(s).requires_grad_() for s in shapes)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_from_given_states_both_ways_agree(cell: str, layers: int, both: bool, apart: bool) -> None:
    torch.manual_seed(0)
    layer = Recurrent(cell, 5, 7, num_layers=layers, bidirectional=both)
    hx = given_states(layer, 6, apart)
    x = torch.randn(4, 6, 5, requires_grad=True)
    with torch.no_grad():
        assert_equal(layer(x, hx), layer(x, hx, record=Record("h")))
    wanted = [x, *hx, *layer.parameters()]
    found = []
    for options in ({}, {"record": Record("h")}, {"lengths": [4] * 6}):
        output, states = layer(x, hx, **options)
        value = torch.stack([(k + 1) * (t**2).sum() for k, t in enumerate((output, *states))])
        found.append(torch.autograd.grad(value.sum(), wanted))
    for gradients in found[1:]:
        for one, other in zip(found[0], gradients, strict=True):
            assert one.shape == other.shape
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("both", [False, True])
def test_second_derivatives_from_given_states(layers: int, both: bool) -> None:
    torch.manual_seed(0)
    layer = headgate.LSTM(2, 3, num_layers=layers, bidirectional=both).double()
    hx = tuple(t.detach().double().requires_grad_() for t in given_states(layer, 2))
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, *hx: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output, states = layer(x, hx)
        return output, *states

    assert torch.autograd.gradgradcheck(run, (x, *hx))


def test_given_states_that_do_not_fit_are_still_refused() -> None:
    layer, drop_in, x = Recurrent("lstm", 3, 4), headgate.LSTM(3, 4), torch.randn(5, 2, 3)
    h = torch.zeros(1, 2, 4)
    with torch.no_grad():
        layer(x, (h, h))
        with pytest.raises(ValueError, match=r"expected initial state c of shape \(1, 2, 4\)"):
            layer(x, (h, torch.zeros(1, 3, 4)))
        with pytest.raises(TypeError, match="tuple of 2 initial states"):
            layer(x, (h,))
        with pytest.raises(RuntimeError, match=r"Expected hidden\[0\] size \(1, 2, 4\)"):
            drop_in(x, (torch.zeros(1, 3, 4), h))


@pytest.mark.parametrize("make", [headgate.GRU, partial(Recurrent, "gru")])
def test_weights_that_moved_to_another_device_are_refused(make: Any) -> None:
    layer, x = make(3, 4), torch.randn(5, 2, 3)
    with torch.no_grad():
        layer(x)
        with pytest.raises(ValueError, match=r"is torch\.float32 on cpu, another .* on meta"):
            layer.to("meta")(x)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"num_layers": 2}, {"num_layers": 2, "bidirectional": True}]
)
def test_gradients_by_torchs_parameters_again_and_again(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(3, 4, **options)
    ours = getattr(headgate, name)(3, 4, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 2, 3)  # needs no gradient, as in most training
    for _ in range(2):
        for layer in (ours, theirs):
            layer(x)[0].square().sum().backward()  # adds to what was there
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    grads = [p.grad for p in ours.parameters()]
    assert len({g.data_ptr() for g in grads if g is not None}) == len(grads)


@pytest.mark.parametrize("cell", [*CELLS, "gru_reset_before"])
def test_an_input_that_needs_no_gradient_changes_no_other(cell: str) -> None:
    torch.manual_seed(0)
    layer = Recurrent(cell, 3, 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    weights = list(layer.parameters())
    with_input = torch.autograd.grad(layer(x)[0].square().sum(), [x, *weights])
    without = torch.autograd.grad(layer(x.detach())[0].square().sum(), weights)
    for one, other in zip(with_input[1:], without, strict=True):
        assert torch.equal(one, other)


def test_second_derivatives_by_torchs_parameters() -> None:
    torch.manual_seed(0)
    layer = headgate.GRU(2, 3).double()
    x = torch.randn(3, 2, 2, dtype=torch.float64)
    names, weights = zip(*layer.named_parameters(), strict=True)

    def run(*weights: torch.Tensor) -> torch.Tensor:
        own = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(layer, own, (x,))[0]

    assert torch.autograd.gradgradcheck(run, tuple(w.detach().requires_grad_() for w in weights))


def test_a_weight_changed_between_forward_and_backward_is_an_error() -> None:
    for name in ("weight_hh_l0", "bias_hh_l0"):
        layer = headgate.GRU(3, 4)
        output = layer(torch.randn(5, 2, 3))[0]
        with torch.no_grad():
            layer.get_parameter(name).mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


def test_an_output_of_both_directions_may_be_changed_in_place() -> None:
    layer, x = headgate.LSTM(3, 4, bidirectional=True), torch.randn(5, 2, 3)
    found = []
    for inplace in (True, False):
        layer.zero_grad()
        torch.nn.functional.relu(layer(x)[0], inplace=inplace).sum().backward()
        found.append([p.grad.clone() for p in layer.parameters() if p.grad is not None])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("lengths", [None, [6, 0, 3, 5, 6, 1, 2, 4]])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (6, 8, 3, 1), (6, 8, 3, 17), (6, 8, 2, 16)])
@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_side_by_side_have_the_bits_of_each_by_itself(
    cell: str, sizes: tuple[int, int, int, int], lengths: list[int] | None
) -> None:
    T, N, I, H = sizes
    own = None if lengths is None else [min(length, T) for length in lengths[:N]]
    layer, x = Recurrent(cell, I, H, num_layers=2, bidirectional=True), torch.randn(T, N, I)
    with torch.no_grad():
        assert_equal(layer(x, lengths=own), layer(x, lengths=own, record=Record("h")))
    assert_equal(layer(x, lengths=own), layer(x, lengths=own, record=Record("h")))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}])
def test_lengths_may_be_overwritten_before_the_way_back(options: dict[str, Any]) -> None:
    layer, x = Recurrent("lstm", 3, 4, **options), torch.randn(5, 2, 3)
    found = []
    for later in ([5, 2], [2, 10**6]):
        lengths = torch.tensor([5, 2])
        output = layer(x, lengths=lengths)[0]
        lengths.copy_(torch.tensor(later))
        found.append(torch.autograd.grad(output.square().sum(), list(layer.parameters())))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


class Halved(torch.nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight / 2


def _parametrised(m: Any) -> None:
    torch.nn.utils.parametrize.register_parametrization(m, "weight_hh_l0", Halved())


def _replaced(m: Any) -> None:
    m.weight_ih_l0 = torch.nn.Parameter(torch.ones_like(m.weight_ih_l0))


def _moved(m: Any) -> None:
    m.weight_ih_l0.data = m.weight_ih_l0.data.t().contiguous().t() / 2


CHANGES: dict[str, Any] = {
    "dropout": lambda m: setattr(m, "dropout", 0.5),
    "weight drop": lambda m: setattr(m, "weight_drop", 0.5),
    "residual": lambda m: setattr(m, "residual", True),
    "merge": lambda m: setattr(m, "merge", "sum"),
    "last output": lambda m: setattr(m, "output_mode", "last"),
    "batch first": lambda m: setattr(m, "batch_first", True),
    "checkpoint": lambda m: setattr(m, "checkpoint", 2),
    "a new parameter": _replaced,
    "a parameter's memory": _moved,
    "no bias": lambda m: m.register_parameter("bias_hh_l0", None),
    "a parametrisation": _parametrised,
    "float64": lambda m: m.double(),
}


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changed_since_the_last_call_is_noticed(
    change: Any, both: bool, gradients: bool
) -> None:
    width = 8 if both else 4
    layers = 1 if change is CHANGES["merge"] else 2  # widths of more would no longer fit
    layer, x = headgate.LSTM(width, 4, layers, bidirectional=both), torch.randn(5, 5, width)
    with torch.set_grad_enabled(gradients):
        for _ in range(2):
            layer(x)
        change(layer)
        x = x.to(next(layer.parameters()).dtype)
        unused = copy.deepcopy(layer)  # knows no earlier call
        found = []
        for module in (layer, unused):
            torch.manual_seed(1)
            output, states = module(x)
            found.append([output, *states])
    assert all(map(torch.equal, *found))


def test_a_used_module_is_written_to_a_file(tmp_path: Path) -> None:
    layer, x = headgate.GRU(3, 4), torch.randn(5, 2, 3)
    expected = layer(x)[0]
    torch.save(layer, tmp_path / "layer.pt")
    assert torch.equal(torch.load(tmp_path / "layer.pt", weights_only=False)(x)[0], expected)


def test_threads_share_a_module_at_different_shapes() -> None:
    layer = headgate.LSTM(3, 8)
    inputs = [torch.randn(T, N, 3) for T, N in ((5, 2), (60, 7), (1, 1), (33, 4))]
    with torch.no_grad():
        expected = [layer(x)[0] for x in inputs]

    def run(k: int) -> bool:
        with torch.no_grad():
            return torch.equal(layer(inputs[k % 4])[0], expected[k % 4])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(run, range(4000)))
    finally:
        sys.setswitchinterval(interval)


def test_parameters_that_come_later_or_part_are_noticed() -> None:
    layer, x = headgate.RNN(4, 4, bias=False), torch.randn(5, 2, 4)

    def added() -> None:
        layer.bias_ih_l0 = torch.nn.Parameter(torch.ones(4))

    def tied() -> None:
        layer.weight_ih_l0 = layer.weight_hh_l0

    def parted() -> None:
        layer.weight_ih_l0 = torch.nn.Parameter(torch.zeros(4, 4))

    with torch.no_grad():
        for change in (added, tied, parted):
            before = layer(x)[0]
            assert torch.equal(layer(x)[0], before)
            change()
            assert not torch.equal(layer(x)[0], before)
            assert_equal(layer(x), copy.deepcopy(layer)(x))
