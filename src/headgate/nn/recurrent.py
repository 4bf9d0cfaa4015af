"""Recurrent: a layer, or a stack of layers, over any cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from headgate.nn.blocks import Block, suffix
from headgate.nn.initialise import Init, check_init, defaults
from headgate.nn.record import Record
from headgate.nn.resolve import resolve_program
from headgate.nn.stack import Stack
from headgate.nn.states import States
from headgate.program import Cell, Program
from headgate.program.transform import transform


class Recurrent(Stack):
    """A stack of recurrent layers whose cell is its equations.

        h_t, c_t, … = cell(x_t, h_{t-1}, c_{t-1}, …)

    Axes: T steps, N rows, I input size, H hidden size (the width of the cell's first state).

    cell: a ``Cell``, a ``Program``, or a built-in's name, such as "lstm".
    hidden_size: one number, or one per layer.
    merge: how both directions' outputs join: "concat" (…, 2H), "sum", "mean" or "product" (…, H).
    dropout: rate on what each layer but the first receives; never inside the recurrence.
    residual: add what a layer receives (before dropout) to its output. The first layer is left out
        where its widths differ.
    learn_initial_state: learn each state's start, one vector for each layer and direction, used
        where no state is given. A state that starts at infinity keeps its start.
    weight_drop: rate of DropConnect on the matrices that multiply a state, one mask a call
        (Merity, Keskar & Socher 2018).
    output_mode: "sequence", or "last": each direction's own final output (N, H or 2H).
    checkpoint: for less memory in training, keep the states of every so many steps only; on the way
        back each piece of that many steps is run again, the last one first, which costs one forward
        run more. Results are the same, gradients up to the rounding of sums over pieces. About √T
        steps need the least memory. None keeps every step. It does nothing without gradients, and
        where torch.func or forward mode differentiates; second derivatives keep every step.
    sizes: numbers for named widths, such as ``{"projection": 32}``.
    init: initialisers by family and gate (see ``headgate.nn.initialise``), over the defaults:
        "glorot" for matrices of the input, "orthogonal" for those of a state, "narrow-normal" for
        peepholes, "unit-forget-gate" for biases with a block f, "zeros" for the rest.

    The remaining options transform the equations (see ``headgate.program.transform``).

    Parameters are named ``{family}_l{layer}{_reverse}``, one stacked tensor a family.
    Raises ValueError, TypeError or ProgramError, saying what does not fit.
    """

    def __init__(
        self,
        cell: Cell | Program | str,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        batch_first: bool = False,
        merge: str = "concat",
        dropout: float = 0.0,
        residual: bool = False,
        learn_initial_state: bool = False,
        weight_drop: float = 0.0,
        output_mode: str = "sequence",
        checkpoint: int | None = None,
        sizes: Mapping[str, int] | None = None,
        init: Init = None,
        state_activation: str | None = None,
        gate_activation: str | None = None,
        activations: Mapping[str, str] | None = None,
        clip_state: float | Mapping[str, float] | None = None,
        clip_preactivation: float | None = None,
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        variational_dropout: float = 0.0,
        zoneout: float | Mapping[str, float] = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.input_size = _positive("input_size", input_size)
        self.hidden_size = _hidden_sizes(hidden_size, _positive("num_layers", num_layers))
        self.num_layers = num_layers
        self.bidirectional = bool(bidirectional)
        self.batch_first = bool(batch_first)
        self.dropout = _rate("dropout", dropout)
        self.sizes = dict(sizes or {})
        program = transform(
            resolve_program(cell),
            state_activation=state_activation,
            gate_activation=gate_activation,
            activations=activations,
            clip_state=clip_state,
            clip_preactivation=clip_preactivation,
            layer_norm=layer_norm,
            recurrent_dropout=recurrent_dropout,
            variational_dropout=variational_dropout,
            zoneout=zoneout,
        )
        self._configure(
            program,
            _layer_sizes(program, input_size, self._each(), self.sizes, bidirectional, merge),
            merge=merge,
            residual=residual,
            learn_initial_state=learn_initial_state,
            weight_drop=weight_drop,
            output_mode=output_mode,
            checkpoint=checkpoint,
        )
        self._init = {**defaults(program), **check_init(program, init)}
        self._add_parameters({"device": device, "dtype": dtype})
        self.reset_parameters()

    def _add_parameters(self, factory: dict[str, Any]) -> None:
        for layer, direction in self._places():
            for family in self.program.families:
                shape = self.program.shape(family, self.layer_sizes[layer])
                name = family + suffix(layer, direction)
                self.register_parameter(name, nn.Parameter(torch.empty(shape, **factory)))
        self._add_initial_states(factory)

    def reset_parameters(self) -> None:
        """Initialise every weight anew, from torch's generator."""
        self._initialise(self._init)
        self._reset_initial_states()

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Sequence[Any] | Tensor | None = None,
        *,
        lengths: Any = None,
        record: Record | None = None,
    ) -> tuple[Tensor | PackedSequence, States]:
        """Run the layers.

        input: (T, N, I), (N, T, I) with ``batch_first``, (T, I) for one sequence, or a
            PackedSequence.
        hx: the initial states, a tuple with one tensor (layers · directions, N, width) a state;
            zeros (each state's own start) where None.
        lengths: valid steps of each row, integers (N,) in 0 … T, in any order.
        record: a ``Record`` for this run to fill.

        Returns the output, (T, N, H) in the input's layout, or (N, H) with output_mode "last", and
        the final states in the form of hx. Where the layers' widths differ, a state is a tuple of
        tensors (N, width), one for each layer and direction. Past a row's end outputs are zero;
        final states are those of a row's last step; a row of length 0 returns its initial state.
        """
        return self._run(input, hx, lengths, record)

    def blocks(self) -> list[Block]:
        found = []
        for layer, direction in self._places():
            for family in self.program.families:
                name = family + suffix(layer, direction)
                rows = self.program.rows(family, self.layer_sizes[layer])
                found += [Block(name, family, b, layer, direction, r) for b, r in rows.items()]
        return found

    def config(self) -> dict[str, Any]:
        """What ``from_config`` needs, in plain values for JSON; the equations are inside.

        Transforming options are part of the stored equations. How weights were initialised is not
        kept.
        """
        return {
            "program": self.program.to_json(),
            "input_size": self.input_size,
            "hidden_size": self._each(),
            "num_layers": self.num_layers,
            "bidirectional": self.bidirectional,
            "batch_first": self.batch_first,
            "merge": self.merge,
            "dropout": self.dropout,
            "residual": self.residual,
            "learn_initial_state": self.learn_initial_state,
            "weight_drop": self.weight_drop,
            "output_mode": self.output_mode,
            "checkpoint": self.checkpoint,
            "sizes": dict(self.sizes),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **factory: Any) -> Recurrent:
        """The layer that ``config()`` describes; ``factory`` may give device and dtype."""
        options = dict(config)
        program = Program.from_json(options.pop("program"))
        return cls(program, **options, **factory)

    def extra_repr(self) -> str:
        hidden = self.hidden_size if isinstance(self.hidden_size, int) else list(self.hidden_size)
        text = f"{self.program.name}, {self.input_size}, {hidden}"
        plain = {
            "num_layers": 1,
            "bidirectional": False,
            "batch_first": False,
            "merge": "concat",
            "dropout": 0.0,
            "residual": False,
            "learn_initial_state": False,
            "weight_drop": 0.0,
            "output_mode": "sequence",
            "checkpoint": None,
            "sizes": {},
        }
        for name, usual in plain.items():
            if getattr(self, name) != usual:
                text += f", {name}={getattr(self, name)!r}"
        return text

    def _families(self, layer: int, direction: int) -> dict[str, Tensor]:
        end = suffix(layer, direction)
        return {family: getattr(self, family + end) for family in self.program.families}

    def _each(self) -> list[int]:
        size = self.hidden_size
        return [size] * self.num_layers if isinstance(size, int) else list(size)


def _layer_sizes(
    program: Program,
    input_size: int,
    hidden_sizes: Sequence[int],
    sizes: Mapping[str, int],
    bidirectional: bool,
    merge: str,
) -> list[dict[str, int]]:
    """Numbers for every width of each layer: a layer's input is the output of the one below."""
    table, width = [], input_size
    for hidden_size in hidden_sizes:
        table.append(program.sizes(width, hidden_size, sizes))
        width = table[-1][program.output_width]
        if bidirectional and merge == "concat":
            width *= 2
    return table


def _hidden_sizes(given: int | Sequence[int], num_layers: int) -> int | tuple[int, ...]:
    if isinstance(given, (list, tuple)):
        if len(given) != num_layers:
            raise ValueError(
                f"Recurrent: hidden_size needs one number a layer, {num_layers} in all, got "
                f"{len(given)}: {list(given)}"
            )
        each = tuple(_positive("hidden_size", size) for size in given)
        return each[0] if len(set(each)) == 1 else each
    return _positive("hidden_size", given)


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"Recurrent: {name} must be a positive integer, got {value!r}")
    return value


def _rate(name: str, value: float) -> float:
    if isinstance(value, bool) or not 0.0 <= value <= 1.0:
        raise ValueError(f"Recurrent: {name} must lie in [0, 1], got {value!r}")
    return float(value)
