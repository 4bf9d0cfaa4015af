"""Options together: every pair keeps the promises, on structurally different cells."""

from __future__ import annotations

import inspect
import itertools
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate import cells
from headgate.nn import Recurrent
from headgate.nn.options import Options, Transformations
from headgate.program import Program, ProgramError
from headgate.program.transform import transform

T, N, I, H = 5, 3, 4, 4
LENGTHS = [3, 0, 5]
CELLS = ("rnn", "lstm", "gru_reset_before", "FGR", "lstm_layer_norm", "lstm_coupled")
OPTIONS: tuple[dict[str, Any], ...] = (
    {"num_layers": 2},
    {"bidirectional": True},
    {"bidirectional": True, "merge": "mean"},
    {"dropout": 0.3},
    {"residual": True},
    {"learn_initial_state": True},
    {"weight_drop": 0.3},
    {"output_mode": "last"},
    {"state_activation": "softsign"},
    {"gate_activation": "hard_sigmoid"},
    {"clip_state": 0.4},
    {"clip_preactivation": 0.5},
    {"layer_norm": True},
    {"recurrent_dropout": 0.3},
    {"variational_dropout": 0.3},
    {"zoneout": 0.3},
)
PAIRS = list(itertools.combinations(OPTIONS, 2))


def made_with(cell: str, pair: tuple[dict[str, Any], ...]) -> Recurrent | None:
    """The layer, or None where an option says that it makes no sense for the cell."""
    options = pair[0] | pair[1]
    if options.get("residual") and options.get("bidirectional") and "merge" not in options:
        return None
    try:
        made = Recurrent(cell, I, H, dtype=torch.float64, **options)
    except ProgramError:
        return None
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.uniform_(-0.8, 0.8)
    return made


def check(cell: str, pair: tuple[dict[str, Any], ...], gradients: Any) -> None:
    torch.manual_seed(5)
    made = made_with(cell, pair)
    if made is None:
        return
    x = torch.randn(T, N, I, dtype=torch.float64, requires_grad=True)
    wanted = [x, *made.parameters()]

    def outcome(module: Recurrent) -> list[torch.Tensor]:
        torch.manual_seed(6)
        output, states = module(x, lengths=LENGTHS)
        found = [output, *states]
        return [*found, *gradients(found, wanted)]

    for again, first in zip(outcome(made), outcome(made), strict=True):
        assert torch.equal(again, first)
    trained = outcome(made)[0]
    evaluated = made.eval()(x, lengths=LENGTHS)[0]
    random = any("drop" in name or name == "zoneout" for options in pair for name in options)
    if not random:
        assert torch.equal(trained, evaluated)
    rows = [made(x[:n, k])[0] for k, n in enumerate(LENGTHS)]
    for k, (n, row) in enumerate(zip(LENGTHS, rows, strict=True)):
        found = evaluated[k] if made.output_mode == "last" else evaluated[:n, k]
        torch.testing.assert_close(found, row)
    rebuilt = Recurrent.from_config(json.loads(json.dumps(made.config())), dtype=torch.float64)
    rebuilt.load_state_dict(made.state_dict())
    assert torch.equal(rebuilt.eval()(x, lengths=LENGTHS)[0], evaluated)


@settings(max_examples=80)
@given(cell=st.sampled_from(CELLS), pair=st.sampled_from(PAIRS))
def test_sampled_pairs_of_options_keep_the_promises(cell: str, pair: Any, gradients) -> None:
    check(cell, pair, gradients)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_all_pairs_of_options_keep_the_promises(cell: str, gradients) -> None:
    for pair in PAIRS:
        check(cell, pair, gradients)


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_option_changes_something(option: dict[str, Any]) -> None:
    """No option is accepted and then not read."""
    x = torch.randn(T, N, I)

    def outcome(**options: Any) -> list[torch.Tensor]:
        torch.manual_seed(7)
        arguments: dict[str, Any] = {"num_layers": 2, **options}
        made = Recurrent("lstm", I, H, **arguments)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        torch.manual_seed(8)
        return [made(x)[0], *made.parameters()]

    changed = {"num_layers": 1} if option == {"num_layers": 2} else option
    plain, found = outcome(), outcome(**changed)
    assert len(plain) != len(found) or not all(map(torch.equal, plain, found))


def test_options_are_named_alike_everywhere() -> None:
    transformations = set(inspect.signature(transform).parameters) - {"program"}
    layer = set(inspect.signature(Recurrent).parameters)
    assert set(Transformations.__annotations__) == transformations
    assert set(Options.__annotations__) <= layer


def test_a_program_may_stand_for_its_cell() -> None:
    program: Program = cells.get("gru").program
    assert Recurrent(program, I, H).config() == Recurrent("gru", I, H).config()
    assert Recurrent(cells.get("gru"), I, H).program == program
