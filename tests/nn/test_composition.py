"""torch's own tools around layers: torch.func, compile, second derivatives, conversions."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacfwd, jacrev, stack_module_state, vmap

from headgate import nn as hn
from headgate.nn import Recurrent

T, N, I, H = 4, 3, 2, 3
LENGTHS = [2, 0, 4]


def make(name: str, **options: Any) -> Any:
    options = {"bidirectional": True, "dtype": torch.float64} | options
    if name in ("LSTM", "GRU", "RNN"):
        return getattr(hn, name)(I, H, **options)
    return Recurrent(name, I, H, **options)


NAMES = ("lstm", "gru_reset_before", "lstm_peephole", "LSTM", "GRU", "RNN")


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_functional_call_and_grad_give_autograds_gradients(name: str) -> None:
    made, x = make(name), random(T, N, I)
    parameters = dict(made.named_parameters())
    weights = random(T, N, 2 * H)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return (functional_call(made, parameters, (x,))[0] * weights).sum()

    found = grad(loss)(parameters)
    expected = torch.autograd.grad((made(x)[0] * weights).sum(), list(parameters.values()))
    for a, b in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_vmap_over_inputs_and_over_models(name: str, lengths: Any) -> None:
    made, x = make(name), random(5, T, N, I)
    found = vmap(lambda one: made(one, lengths=lengths)[0])(x)
    torch.testing.assert_close(found, torch.stack([made(one, lengths=lengths)[0] for one in x]))
    models = [make(name), make(name)]
    parameters, buffers = stack_module_state(models)
    ensemble = vmap(lambda p, b: functional_call(made, (p, b), (x[0],))[0])(parameters, buffers)
    torch.testing.assert_close(ensemble, torch.stack([model(x[0])[0] for model in models]))


def test_vmap_with_one_mask_for_all() -> None:
    made, x = make("lstm", num_layers=2, dropout=0.3, zoneout=0.2, weight_drop=0.1), random(T, N, I)
    found = vmap(lambda one: made(one)[0], randomness="same")(torch.stack([x, x]))
    torch.testing.assert_close(found[0], found[1])
    with pytest.raises(RuntimeError, match="randomness error mode"):
        vmap(lambda one: made(one)[0])(torch.stack([x, x]))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_each_sample(name: str) -> None:
    made, x = make(name), random(T, N, I)
    parameters = {key: value.detach() for key, value in made.named_parameters()}

    def loss(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(made, parameters, (one,))[0].square().sum()

    found = vmap(grad(loss), in_dims=(None, 1))(parameters, x)
    total = torch.autograd.grad(made(x)[0].square().sum(), list(made.parameters()))
    for a, b in zip(found.values(), total, strict=True):
        torch.testing.assert_close(a.sum(0), b)


@pytest.mark.parametrize("name", ["lstm", "LSTM", "GRU"])
def test_forward_and_reverse_jacobians_agree(name: str) -> None:
    made, x = make(name), random(T, 1, I)
    torch.testing.assert_close(jacfwd(lambda x: made(x)[0])(x), jacrev(lambda x: made(x)[0])(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_first_and_second_derivatives_against_finite_differences(
    name: str, lengths: Any, engine: str
) -> None:
    made = make(name)
    keys = [key for key, _ in made.named_parameters()]

    def call(x: Tensor, h: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(keys, parameters, strict=True))
        states = (h, 0.5 * h) if "lstm" in name.lower() else h
        return functional_call(made, given, (x, states), {"lengths": lengths})[0]

    inputs = [random(T, N, I), random(2, N, H), *(p.detach() for p in made.parameters())]
    for tensor in inputs:
        tensor.requires_grad_()
    torch.autograd.gradcheck(call, inputs, fast_mode=True)
    torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles_run_alike(name: str) -> None:
    made, x = make(name, num_layers=2), random(T, N, I)
    expected = made(x)[0]
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(twin(x)[0], expected)
        twin(x)[0].sum().backward()
    assert all(p.grad is None for p in made.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_conversions_move_everything(name: str) -> None:
    made = make(name, learn_initial_state=True)
    assert made.to(torch.float32)(random(T, N, I).float())[0].dtype == torch.float32
    assert made.bfloat16()(random(T, N, I).bfloat16())[0].dtype == torch.bfloat16
    assert all(p.is_meta for p in made.to("meta").parameters())


def test_factory_arguments_place_the_parameters() -> None:
    made = Recurrent("lstm", I, H, device="meta", dtype=torch.float64, learn_initial_state=True)
    assert all(p.is_meta and p.dtype == torch.float64 for p in made.parameters())


# The compiler itself looks at .grad of whatever enters a graph, and would hide the warning.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "LSTM"])
def test_compile_around_a_layer(name: str) -> None:
    torch._dynamo.reset()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = make(name)
            self.head = nn.Linear(2 * H, 1, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.layer(x)[0] + 1.0))

    model, x = Model(), random(T, N, I)
    compiled = torch.compile(model, fullgraph=False, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    compiled(x).sum().backward()
    found = [p.grad for p in model.parameters()]
    expected = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_an_optimiser_trains_a_users_model() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = hn.LSTM(1, 8, batch_first=True)
            self.head = nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x)[0][:, -1])

    model = Model()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    x = torch.randn(32, 5, 1)
    target = x.sum(1)
    losses = []
    for _ in range(60):
        loss = (model(x) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
