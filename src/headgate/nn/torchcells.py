"""RNNCell, LSTMCell and GRUCell in place of torch's: one step of one layer.

A call is a sequence of one step, so a mask of variational dropout lasts one call here; to keep one
over a sequence, use the layer.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from headgate.engines import choose, run
from headgate.engines.random import MaskKey
from headgate.nn.autocast import caster
from headgate.nn.blocks import Block, WithBlocks
from headgate.nn.eager import traced
from headgate.nn.initialise import check_init
from headgate.nn.operator import Options, call_operator
from headgate.nn.options import CellOptions, split_options
from headgate.nn.randomness import draw_seed
from headgate.nn.table import TorchFamilies
from headgate.nn.torchlike import traced_families


class TorchLikeCell(WithBlocks, nn.Module):
    """What the three share. Not for use by itself."""

    input_size: int
    hidden_size: int

    def _become(self, kind: str, cell: str, options: CellOptions, factory: dict[str, Any]) -> None:
        program, _, init = split_options(type(self).__name__, cell, options, CellOptions)
        self.program = program
        self._equations, self._masked = program.to_json(), program.has_masks
        self.layer_sizes = (program.sizes(self.input_size, self.hidden_size),)
        self._torch = TorchFamilies(kind, program)
        self._torch.add_others(self, self.layer_sizes[0], "", factory)
        self._init = {**self._torch.defaults(), **check_init(program, init)}
        self._initialise(self._init)

    def reset_parameters(self) -> None:
        """Initialise every weight anew: torch's uniform ±1/√H, then what the options say."""
        super().reset_parameters()  # type: ignore[misc]
        if "_init" in self.__dict__:
            self._initialise(self._init)

    def blocks(self) -> list[Block]:
        rows = self._torch.rows(self, self.layer_sizes[0], "")
        return [Block(p, family, block, 0, 0, at) for p, family, block, at in rows]

    @traced
    def _step(self, input: Tensor, hx: Any) -> Any:
        """The next states: torch's own result where its function is chosen, else a tuple."""
        states, compiling = self._checked(input, hx), torch.compiler.is_compiling()
        like = input.reshape(1, -1, self.input_size)
        if not compiling and choose(self.program, like=like, one_step=True).engine == "aten":
            return super().forward(input, hx)  # type: ignore[misc]
        x = input if input.dim() == 2 else input.unsqueeze(0)
        cast = caster(x, next(self.parameters()).dtype)
        families = traced_families if compiling else TorchFamilies.families
        weights = families(self._torch, self, self.layer_sizes[0], "")
        weights = {name: cast(value) for name, value in weights.items()}
        finals = self._finals(cast(x).unsqueeze(0), tuple(map(cast, states)), weights)
        return finals if input.dim() == 2 else tuple(state.squeeze(0) for state in finals)

    def _finals(
        self, x: Tensor, states: tuple[Tensor, ...], families: dict[str, Tensor]
    ) -> tuple[Tensor, ...]:
        """The states (N, H) after the one step of x (1, N, I)."""
        draws = self.training and self._masked
        if torch.compiler.is_compiling():
            options = Options(type(self).__name__)
            _, (finals,) = call_operator(
                self._equations, options, x, [states], [families], None, draws=draws
            )
            return finals
        key = MaskKey(draw_seed(), 0, 0) if draws else None
        return run(self.program, families, x, states, mask_key=key).states

    def _checked(self, input: Tensor, hx: Any) -> tuple[Tensor, ...]:
        """The states (N, H), after torch's checks with torch's messages."""
        name, batched = type(self).__name__, input.dim() == 2
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {input.shape[-1]} expected "
                f"{self.input_size}"
            )
        program, rows = self.program, input.shape[0] if batched else 1
        if hx is None:
            return tuple(
                input.new_full((rows, self.hidden_size), s.initial) for s in program.states
            )
        given = hx if isinstance(hx, (tuple, list)) else (hx,)
        if len(given) != len(program.states):
            raise ValueError(
                f"{name}: expected {len(program.states)} states "
                f"({', '.join(s.name for s in program.states)}), got {len(given)}"
            )
        for index, state in enumerate(given):
            if state.dim() != input.dim():
                raise ValueError(
                    f"{name}: Expected hx[{index}] to be {input.dim()}D as the input, got "
                    f"{state.dim()}D instead"
                )
            if state.shape != (*input.shape[:-1], self.hidden_size):
                raise RuntimeError(
                    f"hidden{index} has inconsistent shape: got {tuple(state.shape)}, expected "
                    f"{(*input.shape[:-1], self.hidden_size)}"
                )
        return tuple(given) if batched else tuple(state.unsqueeze(0) for state in given)


def _only(states: Any) -> Tensor:
    return states[0] if isinstance(states, tuple) else states


class RNNCell(TorchLikeCell, nn.RNNCell):
    """One step of an Elman network in place of ``torch.nn.RNNCell``: h' = tanh(W x + R h + b).

    x (N, I) or (I,), h (N, H) or (H,). Options of Headgate follow by keyword.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[CellOptions],
    ) -> None:
        nn.RNNCell.__init__(self, input_size, hidden_size, bias, nonlinearity, device, dtype)
        if nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {nonlinearity}")
        cell = "rnn" if nonlinearity == "tanh" else "rnn_relu"
        self._become("RNN", cell, options, {"device": device, "dtype": dtype})

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next h, shaped as h."""
        return _only(self._step(input, hx))


class LSTMCell(TorchLikeCell, nn.LSTMCell):
    """One step of a long short-term memory in place of ``torch.nn.LSTMCell``; see ``LSTM``.

    x (N, I) or (I,), h and c (N, H) or (H,). Options of Headgate follow by keyword.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[CellOptions],
    ) -> None:
        nn.LSTMCell.__init__(self, input_size, hidden_size, bias, device, dtype)
        self._become("LSTM", "lstm", options, {"device": device, "dtype": dtype})

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The next (h, c), shaped as they came."""
        h, c = self._step(input, hx)
        return h, c


class GRUCell(TorchLikeCell, nn.GRUCell):
    """One step of a gated recurrent unit in place of ``torch.nn.GRUCell``; see ``GRU``.

    x (N, I) or (I,), h (N, H) or (H,). Options of Headgate follow by keyword.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[CellOptions],
    ) -> None:
        nn.GRUCell.__init__(self, input_size, hidden_size, bias, device, dtype)
        self._become("GRU", "gru", options, {"device": device, "dtype": dtype})

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next h, shaped as h."""
        return _only(self._step(input, hx))
