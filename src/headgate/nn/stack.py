"""Stack: what every recurrent layer does around the recurrence itself.

Layers one on another, both directions, merging, residual connections, dropout between layers,
initial states, last outputs and records. Where the parameters come from is left to the subclasses:
``Recurrent`` names them generically, ``LSTM`` and its like keep torch's names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from headgate.engines import Choice, Direction, Result, choose, run_directions
from headgate.engines.random import MaskKey
from headgate.nn import states
from headgate.nn.autocast import caster
from headgate.nn.blocks import WithBlocks
from headgate.nn.eager import eager
from headgate.nn.initialise import recurrent_families
from headgate.nn.layout import Batch, enter
from headgate.nn.randomness import draw_seed, dropout, weight_drop
from headgate.nn.record import Record
from headgate.nn.states import initial_name, learnable
from headgate.nn.stream import Stream
from headgate.program import Program, State

Merge = Callable[[Sequence[Tensor]], Tensor]

MERGES: dict[str, Merge] = {
    "concat": lambda ys: torch.cat(list(ys), -1),
    "sum": lambda ys: ys[0] + ys[1],
    "mean": lambda ys: (ys[0] + ys[1]) / 2,
    "product": lambda ys: ys[0] * ys[1],
}
OUTPUT_MODES = ("sequence", "last")


class Stack(WithBlocks, nn.Module):
    """Layers × directions of one Program. Not for use by itself."""

    input_size: int
    num_layers: int
    bidirectional: bool
    batch_first: bool
    dropout: float
    _autocasts_on_cpu = True

    def _configure(
        self,
        program: Program,
        layer_sizes: Sequence[dict[str, int]],
        *,
        merge: str = "concat",
        residual: bool = False,
        learn_initial_state: bool = False,
        weight_drop: float = 0.0,
        output_mode: str = "sequence",
    ) -> None:
        """Set what ``_run`` needs. Call after the sizes and flags above are attributes."""
        what = type(self).__name__
        if merge not in MERGES:
            raise ValueError(f"{what}: merge must be one of {', '.join(MERGES)}, got {merge!r}")
        if output_mode not in OUTPUT_MODES:
            raise ValueError(
                f"{what}: output_mode must be one of {', '.join(OUTPUT_MODES)}, got {output_mode!r}"
            )
        if not 0.0 <= weight_drop < 1.0:
            raise ValueError(f"{what}: weight_drop must lie in [0, 1), got {weight_drop}")
        self.program = program
        self.layer_sizes = tuple(layer_sizes)
        self.merge = merge
        self.residual = residual
        self.learn_initial_state = learn_initial_state
        self.weight_drop = weight_drop
        self.output_mode = output_mode
        self._dropped = recurrent_families(program) if weight_drop else ()
        if weight_drop and not self._dropped:
            raise ValueError(
                f"{what}: weight_drop needs a matrix that multiplies a state, but cell "
                f"'{program.name}' has none; leave weight_drop at 0"
            )
        self._residual_layers = self._check_residual(what) if residual else ()

    @property
    def num_directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _places(self) -> list[tuple[int, int]]:
        """Every (layer, direction), in torch's order."""
        return [(k, d) for k in range(self.num_layers) for d in range(self.num_directions)]

    def _output_size(self, layer: int) -> int:
        width = self.layer_sizes[layer][self.program.output_width]
        return width * (self.num_directions if self.merge == "concat" else 1)

    def _check_residual(self, what: str) -> tuple[int, ...]:
        sizes = [self.input_size, *map(self._output_size, range(self.num_layers))]
        agree = tuple(k for k in range(self.num_layers) if sizes[k] == sizes[k + 1])
        wrong = [
            k for k in range(self.num_layers) if k not in agree and (k or self.num_layers == 1)
        ]
        if wrong:
            k = wrong[0]
            raise ValueError(
                f"{what}: residual=True adds a layer's input to its output, but layer {k} takes "
                f"width {sizes[k]} and gives {sizes[k + 1]}; make them equal (only the first of "
                "several layers may change the width)"
            )
        if self.output_mode == "last" and self.bidirectional and self.merge != "concat":
            raise ValueError(
                f"{what}: residual=True with output_mode='last' in both directions needs "
                f"merge='concat', got {self.merge!r}"
            )
        return agree

    def _families(self, layer: int, direction: int) -> dict[str, Tensor]:
        raise NotImplementedError

    def _enter(self, input: Tensor | PackedSequence, lengths: Any) -> Batch:
        what = type(self).__name__
        batch = enter(what, input, lengths, batch_first=self.batch_first)
        if batch.x.shape[-1] != self.input_size:
            raise ValueError(
                f"{what}: expected input of width {self.input_size} (input_size), got "
                f"{batch.x.shape[-1]} in shape {tuple(batch.x.shape)} (T, N, I)"
            )
        dtype = next(self.parameters()).dtype
        if batch.x.dtype != dtype and not torch.is_autocast_enabled(batch.x.device.type):
            raise ValueError(
                f"{what}: input is {batch.x.dtype} but the parameters are {dtype}; convert one, "
                f"as in input.to({dtype})"
            )
        return batch

    @eager
    def _run(
        self, input: Tensor | PackedSequence, hx: Any, lengths: Any, record: Record | None
    ) -> tuple[Tensor | PackedSequence, states.States]:
        batch = self._enter(input, lengths)
        names = record.start(self.program, batch.sequence) if record is not None else ()
        initial = self._initial(hx, batch)
        seed = draw_seed() if self._draws() else None
        x, output, finals, results = batch.x, batch.x, [], []
        for layer in range(self.num_layers):
            seen = x
            if layer and seed is not None and self.dropout:
                seen = dropout(x, self.dropout, MaskKey(seed, layer, 0))
            results = self._layer(layer, seen, initial, batch, seed, record, names)
            finals += [result.states for result in results]
            output = self._merged(layer, [result.output for result in results], x, batch)
            if layer < self.num_layers - 1:
                x = output
        if self.output_mode == "last":
            top = [result.states[0] for result in results]
            return batch.state(self._last(top, x, batch)), states.join(finals, batch)
        return batch.output(output), states.join(finals, batch)

    def _layer(
        self,
        layer: int,
        x: Tensor,
        initial: states.Inner,
        batch: Batch,
        seed: int | None,
        record: Record | None,
        names: tuple[str, ...],
    ) -> list[Result]:
        """Each direction of a layer."""
        cast = caster(x, next(self.parameters()).dtype, on_cpu=self._autocasts_on_cpu)
        x, directions = cast(x), []
        for direction in range(self.num_directions):
            key = None if seed is None else MaskKey(seed, layer, direction)
            families = self._families(layer, direction)
            if key is not None:
                for family in self._dropped:
                    families[family] = weight_drop(families[family], self.weight_drop, key, family)
            probes = None
            if record is not None:
                probes = record.probes(self.program, self.layer_sizes[layer], x, layer, direction)
            start = initial[layer * self.num_directions + direction]
            directions.append(
                Direction(
                    {name: cast(value) for name, value in families.items()},
                    tuple(map(cast, start)),
                    direction == 1,
                    key if self.program.has_masks else None,
                    probes,
                )
            )
        results = run_directions(self.program, directions, x, lengths=batch.lengths, names=names)
        if record is not None:
            for direction, result in enumerate(results):
                record.keep(result.records, layer, direction)
        return results

    def _draws(self) -> bool:
        """Whether this call needs random numbers."""
        between = self.dropout > 0 and self.num_layers > 1
        return self.training and (between or self.weight_drop > 0 or self.program.has_masks)

    def _merged(self, layer: int, ys: Sequence[Tensor], x: Tensor, batch: Batch) -> Tensor:
        y = ys[0] if len(ys) == 1 else MERGES[self.merge](ys)
        return y + _inside(x, batch) if layer in self._residual_layers else y

    def _last(self, top: Sequence[Tensor], x: Tensor, batch: Batch) -> Tensor:
        """Each direction's own final output (N, H), merged; x (T, N, ·) enters the top layer."""
        y = top[0] if len(top) == 1 else MERGES[self.merge](top)
        if self.num_layers - 1 not in self._residual_layers or x.shape[0] == 0:
            return y
        x = _inside(x, batch)
        if batch.lengths is None:
            ends = x[-1]
        else:
            index = (batch.lengths - 1).clamp_min(0)
            ends = x[index, torch.arange(batch.rows, device=x.device)]
        if self.bidirectional:
            width = x.shape[-1] // 2
            ends = torch.cat([ends[:, :width], x[0][:, width:]], -1)
        return y + ends

    def _widths(self) -> list[tuple[int, ...]]:
        """For each layer and direction, the width of each state."""
        return [
            tuple(sizes[state.width] for state in self.program.states)
            for sizes in self.layer_sizes
            for _ in range(self.num_directions)
        ]

    def _initial(self, hx: Any, batch: Batch) -> states.Inner:
        if hx is not None:
            return states.split(type(self).__name__, self.program, self._widths(), hx, batch)
        return [
            tuple(
                self._start(state, width, layer, direction, batch)
                for state, width in zip(self.program.states, widths, strict=True)
            )
            for (layer, direction), widths in zip(self._places(), self._widths(), strict=True)
        ]

    def _start(self, state: State, width: int, layer: int, direction: int, batch: Batch) -> Tensor:
        name = initial_name(state.name, layer, direction)
        if self.learn_initial_state and learnable(state):
            return getattr(self, name).expand(batch.rows, width)
        return batch.x.new_full((batch.rows, width), state.initial)

    def _add_initial_states(self, factory: dict[str, Any]) -> None:
        if not self.learn_initial_state:
            return
        for place, widths in zip(self._places(), self._widths(), strict=True):
            for state, width in zip(self.program.states, widths, strict=True):
                if learnable(state):
                    value = nn.Parameter(torch.empty(width, **factory))
                    self.register_parameter(initial_name(state.name, *place), value)

    @torch.no_grad()
    def _reset_initial_states(self) -> None:
        if not self.learn_initial_state:
            return
        for place in self._places():
            for state in filter(learnable, self.program.states):
                getattr(self, initial_name(state.name, *place)).fill_(state.initial)

    def stream(self, batch_size: int = 1) -> Stream:
        """The layers one step at a time, ``batch_size`` rows side by side, in evaluation mode.

        NumPy in and out, the state kept inside: see ``Stream``. With output_mode "last" the last
        output of a single step is that step's, so a stream gives the same in either mode.

        Raises ValueError where the module is bidirectional: a stream has no end to read from.
        """
        return Stream(self, batch_size)

    def explain(
        self, input: Tensor | PackedSequence | None = None, *, record: Record | None = None
    ) -> Choice:
        """Which engine a call would run on, and why: ``.engine`` and ``.reason``.

        Without an input: one of few rows in float32 on the CPU.
        """
        names = record.resolve(self.program) if record is not None else ()
        return choose(self.program, like=self._by_time(input), names=names)

    def _by_time(self, input: Tensor | PackedSequence | None) -> Tensor | None:
        """An input as (T, N, I); what is packed counts as a single row."""
        if isinstance(input, PackedSequence):
            return input.data.unsqueeze(1)
        if input is None or input.dim() == 2:
            return None if input is None else input.unsqueeze(1)
        return input.transpose(0, 1) if self.batch_first else input


def _inside(x: Tensor, batch: Batch) -> Tensor:
    """x with zeros past each row's end, whatever the padding holds."""
    valid = batch.valid()
    return x if valid is None else torch.where(valid, x, 0.0)
