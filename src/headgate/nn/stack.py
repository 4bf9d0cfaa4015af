"""Stack: what every recurrent layer does around the recurrence itself.

Layers one on another, both directions, merging, residual connections, dropout between layers,
initial states, last outputs and records. Where the parameters come from is left to the subclasses:
``Recurrent`` names them generically, ``LSTM`` and its like keep torch's names.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from headgate.engines import Choice, Known, Parameters, Place, choose, known_for, worth_remembering
from headgate.engines.pieces import check_checkpoint
from headgate.nn import states
from headgate.nn.autocast import caster
from headgate.nn.blocks import WithBlocks
from headgate.nn.eager import traced
from headgate.nn.initialise import recurrent_families
from headgate.nn.layout import Batch, enter, ragged
from headgate.nn.operator import MERGES, Options, call_operator, run_layers
from headgate.nn.randomness import draw_seed
from headgate.nn.recent import Recent
from headgate.nn.record import Record
from headgate.nn.states import initial_name, learnable
from headgate.nn.stream import Stream
from headgate.program import Program, State

OUTPUT_MODES = ("sequence", "last")


class Stack(WithBlocks, nn.Module):
    """Layers × directions of one Program. Not for use by itself."""

    input_size: int
    num_layers: int
    bidirectional: bool
    batch_first: bool
    dropout: float

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
        checkpoint: int | None = None,
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
        check_checkpoint(what, checkpoint)
        self.program = program
        self.layer_sizes = tuple(layer_sizes)
        self._state_widths = [
            tuple(sizes[state.width] for state in program.states)
            for sizes in self.layer_sizes
            for _ in range(self.num_directions)
        ]
        self._alike = len(set(self._state_widths)) == 1
        self._widest = max(map(max, self._state_widths))
        self._recent = Recent()
        self.merge = merge
        self.residual = residual
        self.learn_initial_state = learn_initial_state
        self.weight_drop = weight_drop
        self.output_mode = output_mode
        self.checkpoint = checkpoint
        self._equations, self._masked = program.to_json(), program.has_masks
        if weight_drop and not recurrent_families(program):
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

    def _made_of(self, layer: int, direction: int) -> tuple[list[Tensor], Parameters | None]:
        """A place's parameters, and how its families are made of them; None: they are these."""
        return list(self._families(layer, direction).values()), None

    def _enter(self, input: Tensor | PackedSequence, lengths: Any) -> Batch:
        what = type(self).__name__
        batch = enter(what, input, lengths, batch_first=self.batch_first)
        if batch.x.shape[-1] != self.input_size:
            raise ValueError(
                f"{what}: expected input of width {self.input_size} (input_size), got "
                f"{batch.x.shape[-1]} in shape {tuple(batch.x.shape)} (T, N, I)"
            )
        dtype = self._dtype()
        if batch.x.dtype != dtype and not torch.is_autocast_enabled(batch.x.device.type):
            raise ValueError(
                f"{what}: input is {batch.x.dtype} but the parameters are {dtype}; convert one, "
                f"as in input.to({dtype})"
            )
        return batch

    def _dtype(self) -> torch.dtype:
        for parameter in self._parameters.values():
            if parameter is not None:
                return parameter.dtype
        return next(self.parameters()).dtype  # a parametrisation holds them

    def _plain(self) -> bool:
        """Whether a call is through layers alike, with nothing between them, nothing drawn but the
        cell's own masks, and no step forgotten."""
        return self._alike and not (
            (self.bidirectional and self.merge != "concat")
            or self.residual
            or self.learn_initial_state
            or (self.checkpoint and torch.is_grad_enabled())
            or self._draws_outside()
        )

    def _again(
        self, input: Any, hx: Any, lengths: Any = None
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """What ``_run`` returns, by the shortest way. None where a call is not plain, or on
        anything but tensors of rows."""
        if type(input) is not Tensor or input.dim() != 3:
            return None
        x = input.transpose(0, 1) if self.batch_first else input
        found = self._recent.find(self, x) or self._served_by(x)
        if found is None:
            return None
        initial = None if hx is None else (hx,) if type(hx) is Tensor else hx
        if initial is not None and not self._are_states(initial, x):
            return None
        valid = None if lengths is None else ragged(type(self).__name__, lengths, x)
        known, places = found
        seed = draw_seed() if self._draws() else None
        output, states = known(x, places, initial, valid, seed)
        if self.output_mode == "last":
            ends = states[0][-known.directions :].unbind()
            return ends[0] if len(ends) == 1 else torch.cat(ends, -1), states
        return output.transpose(0, 1) if self.batch_first else output, states

    def _served_by(self, x: Tensor) -> tuple[Known, Sequence[Place]] | None:
        """What serves plain calls of an input (T, N, I); None where this one is not plain."""
        if x.shape[2] != self.input_size or x.dtype != self._dtype() or not self._plain():
            return None
        if not worth_remembering(x, self._widest):
            return None
        places = [self._made_of(*place) for place in self._places()]
        known = known_for(self.program, x, places, self.num_directions, self._state_widths)
        if known is None:
            return None
        self._recent.note(self, x, known, places)
        return known, places

    def _are_states(self, hx: Any, x: Tensor) -> bool:
        """Whether these are initial states, as one tensor for each, of an input (T, N, I) on the
        CPU."""
        widths = self._state_widths[0]
        if type(hx) is not tuple or len(hx) != len(widths):
            return False
        for t, width in zip(hx, widths, strict=True):
            fits = type(t) is Tensor and t.dtype == x.dtype and t.is_cpu
            if not fits or t.shape != (len(self._state_widths), x.shape[1], width):
                return False
        return True

    @traced
    def _run(
        self, input: Tensor | PackedSequence, hx: Any, lengths: Any, record: Record | None
    ) -> tuple[Tensor | PackedSequence, states.States]:
        if record is None and not torch.compiler.is_compiling():
            found = self._again(input, hx, lengths)
            if found is not None:
                return found
        return self._in_full(input, hx, lengths, record)

    def _in_full(
        self, input: Tensor | PackedSequence, hx: Any, lengths: Any, record: Record | None
    ) -> tuple[Tensor | PackedSequence, states.States]:
        """What ``_run`` returns, for any input and options."""
        traced = torch.compiler.is_compiling()
        batch = self._enter(input, None if traced else lengths)
        initial = self._initial(hx, batch)
        families = [self._families(*place) for place in self._places()]
        if traced:
            output, finals = call_operator(
                self._equations, self._options(batch.x), batch.x, initial, families, lengths,
                draws=self._draws(),
            )  # fmt: skip
        else:
            output, finals = self._now(batch, initial, families, record)
        output = batch.state(output) if self.output_mode == "last" else batch.output(output)
        return output, self._joined(finals, batch)

    def _now(
        self,
        batch: Batch,
        initial: states.Inner,
        families: Sequence[dict[str, Tensor]],
        record: Record | None,
    ) -> tuple[Tensor, states.Inner]:
        """Run without a graph in between: the output, and each place's final states."""
        names: tuple[str, ...] = ()
        probes = None
        if record is not None:
            names = record.start(self.program, batch.sequence)
            probes = partial(self._probes, record)
        seed = draw_seed() if self._draws() else None
        options = self._options(batch.x)
        output, results = run_layers(
            self.program, options, batch, initial, families, seed, names=names, probes=probes
        )
        if record is not None:
            for place, result in zip(self._places(), results, strict=True):
                record.keep(result.records, *place)
        return output, [result.states for result in results]

    def _probes(
        self, record: Record, x: Tensor, layer: int, direction: int
    ) -> dict[str, Tensor] | None:
        return record.probes(self.program, self.layer_sizes[layer], x, layer, direction)

    def _options(self, x: Tensor) -> Options:
        dtype = None
        if torch.is_autocast_enabled(x.device.type):
            dtype = caster(x, self._dtype())(x.new_empty(0)).dtype
        return Options(
            type(self).__name__,
            self.num_layers,
            self.num_directions,
            self.merge,
            self.residual,
            float(self.dropout),
            float(self.weight_drop),
            dtype,
            self.output_mode == "last",
            self.checkpoint,
        )

    def _draws(self) -> bool:
        """Whether this call needs random numbers."""
        return (self.training and self._masked) or self._draws_outside()

    def _draws_outside(self) -> bool:
        """Whether it needs them for other than the cell's masks."""
        between = self.dropout > 0 and self.num_layers > 1
        return self.training and (between or self.weight_drop > 0)

    def _joined(self, finals: states.Inner, batch: Batch) -> states.States:
        """The final states as a user gets them. Sizes may be a graph's symbols, so the layers'
        own widths say whether they agree."""
        return tuple(
            batch.state(torch.stack(parts) if len(parts) != 1 else parts[0].unsqueeze(0))
            if len(set(widths)) == 1
            else tuple(map(batch.state, parts))
            for parts, widths in zip(
                zip(*finals, strict=True), zip(*self._widths(), strict=True), strict=True
            )
        )

    def _widths(self) -> list[tuple[int, ...]]:
        """For each layer and direction, the width of each state."""
        return self._state_widths

    def _initial(self, hx: Any, batch: Batch) -> states.Inner:
        if hx is not None:
            return states.split(type(self).__name__, self.program, self._widths(), hx, batch)
        made: dict[tuple[int, float], Tensor] = {}
        return [
            tuple(
                self._start(state, width, place, batch, made)
                for state, width in zip(self.program.states, widths, strict=True)
            )
            for place, widths in zip(self._places(), self._widths(), strict=True)
        ]

    def _start(
        self,
        state: State,
        width: int,
        place: tuple[int, int],
        batch: Batch,
        made: dict[tuple[int, float], Tensor],
    ) -> Tensor:
        """The state's initial value (N, width); what is the same is made once."""
        if self.learn_initial_state and learnable(state):
            return getattr(self, initial_name(state.name, *place)).expand(batch.rows, width)
        found = made.get((width, state.initial))
        if found is None:
            found = batch.x.new_full((batch.rows, width), state.initial)
            made[width, state.initial] = found
        return found

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
