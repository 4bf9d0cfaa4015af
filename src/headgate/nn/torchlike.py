"""RNN, LSTM and GRU in place of torch's, with Headgate's options beside.

Each is a subclass of torch's module: the signature, attributes, initial weights for a seed,
state-dict keys and checks are torch's own, and only the run is Headgate's. Axes: T steps, N rows,
I input size, H hidden size. ``torch.compile`` breaks the graph at a subclass of torch's modules, as
at these themselves, unless ``torch._dynamo.config.allow_rnn`` is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from headgate.nn.blocks import Block, suffix
from headgate.nn.eager import traced_if_allowed
from headgate.nn.initialise import check_init
from headgate.nn.options import Options, split_options
from headgate.nn.record import Record
from headgate.nn.stack import Stack
from headgate.nn.states import States
from headgate.nn.table import Mixture, TorchFamilies

Output = Tensor | PackedSequence


class TorchLike(Stack):
    """What the three share. Not for use by itself."""

    hidden_size: int
    proj_size: int
    _lowered_on_cpu = True
    """Whether torch's autocast lowers the precision of this network on a CPU."""

    def _become(self, kind: str, cell: str, options: Options, factory: dict[str, Any]) -> None:
        """Give a freshly built torch module its equations and options."""
        program, stack, init = split_options(type(self).__name__, cell, options)
        named = {"projection": self.proj_size} if self.proj_size else {}
        sizes, width = [], self.input_size
        for _ in range(self.num_layers):
            sizes.append(program.sizes(width, self.hidden_size, named))
            width = sizes[-1][program.output_width] * self.num_directions
        self._configure(program, sizes, **stack)
        self._torch = TorchFamilies(kind, program)
        for layer, direction in self._places():
            self._torch.add_others(self, sizes[layer], suffix(layer, direction), factory)
        self._add_initial_states(factory)
        self._init = {**self._torch.defaults(), **check_init(program, init)}
        self._initialise_options()

    def _initialise_options(self) -> None:
        self._initialise(self._init)
        self._reset_initial_states()

    def reset_parameters(self) -> None:
        """Initialise every weight anew: torch's uniform ±1/√H, then what the options say."""
        super().reset_parameters()  # type: ignore[misc]
        if "_init" in self.__dict__:
            self._initialise_options()

    def blocks(self) -> list[Block]:
        found = []
        for layer, direction in self._places():
            rows = self._torch.rows(self, self.layer_sizes[layer], suffix(layer, direction))
            found += [Block(p, f, b, layer, direction, at) for p, f, b, at in rows]
        return found

    def _families(self, layer: int, direction: int) -> dict[str, Tensor]:
        families = traced_families if torch.compiler.is_compiling() else TorchFamilies.families
        return families(self._torch, self, self.layer_sizes[layer], suffix(layer, direction))

    def _made_of(self, layer: int, direction: int) -> tuple[list[Tensor], Mixture]:
        return self._torch.parameters(self, self.layer_sizes[layer], suffix(layer, direction))

    @traced_if_allowed
    def _forward(
        self, input: Output, hx: Any, lengths: Any, record: Record | None
    ) -> tuple[Output, Any]:
        plain = record is None and not torch.compiler.is_compiling()
        found = self._again(input, hx, lengths) if plain else None
        if found is not None:
            return found
        if plain and lengths is None and self._is_torchs(input):
            return super().forward(input, hx)
        self._check_as_torch(input, hx)
        output, states = self._in_full(input, hx, lengths, record)
        if self._lowered_on_cpu and torch.is_autocast_enabled("cpu") and output.data.is_cpu:
            return _lowered(output), tuple(map(_lowered, states))
        return output, states

    def _check_as_torch(self, input: Any, hx: Any) -> None:
        """torch's own checks with torch's messages."""
        assert isinstance(self, nn.RNNBase)
        if isinstance(input, PackedSequence):
            self.check_input(input.data, input.batch_sizes)
            if hx is not None:
                self.check_forward_args(input.data, hx, input.batch_sizes)
            return
        if not isinstance(input, Tensor):
            return
        name = type(self).__name__
        if input.dim() not in (2, 3):
            raise ValueError(f"{name}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        if not batched:
            input = input.unsqueeze(0 if self.batch_first else 1)
        if hx is None:
            self.check_input(input, None)
            return
        parts: tuple[Any, ...] = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
        if any(part.dim() != (3 if batched else 2) for part in parts):
            raise RuntimeError(_wrong_dimensions(batched, [part.dim() for part in parts]))
        if not batched:
            parts = tuple(part.unsqueeze(1) for part in parts)
        hidden: Any = parts if isinstance(hx, (tuple, list)) else parts[0]
        self.check_forward_args(input, hidden, None)

    def _is_torchs(self, input: Output) -> bool:
        """Whether the whole stack, not only a layer of it, is one call of torch's."""
        data = input.data if isinstance(input, PackedSequence) else input
        plain = (
            not self.residual
            and not self.learn_initial_state
            and self.output_mode == "sequence"
            and not (self.checkpoint and torch.is_grad_enabled())
            and not self._draws()
            and isinstance(data, Tensor)
            and data.numel() > 0
        )
        return plain and self.explain(input).engine == "aten"


def _lowered(result: Any) -> Any:
    """What was computed in float32, in autocast's dtype, which torch's network returns."""
    lowered = torch.get_autocast_dtype("cpu")
    return result.to(lowered) if result.data.dtype == torch.float32 else result


class RNN(TorchLike, nn.RNN):
    """Elman network in place of ``torch.nn.RNN``.

        h_t = tanh(W x_t + R h_{t−1} + b)        (or relu)

    W is ``weight_ih``, R ``weight_hh``, b the sum of ``bias_ih`` and ``bias_hh``. Arguments, shapes
    and errors are torch's; options of Headgate follow by keyword (``headgate.nn.options``).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[Options],
    ) -> None:
        _no_projection(options)
        nn.RNN.__init__(
            self, input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout,
            bidirectional, device=device, dtype=dtype,
        )  # fmt: skip
        cell = "rnn" if nonlinearity == "tanh" else "rnn_relu"
        self._become("RNN", cell, options, {"device": device, "dtype": dtype})

    def forward(  # type: ignore[override]
        self,
        input: Output,
        hx: Tensor | None = None,
        *,
        lengths: Any = None,
        record: Record | None = None,
    ) -> tuple[Output, Tensor]:
        """Output (T, N, H) and h_n (layers · directions, N, H), as torch's; see ``Recurrent``."""
        return _one_state(self._forward(input, hx, lengths, record))


class LSTM(TorchLike, nn.LSTM):
    """Long short-term memory in place of ``torch.nn.LSTM``.

        i, f, o = σ(W x_t + R h_{t−1} + b)       g = tanh(W x_t + R h_{t−1} + b)
        c_t = f ∘ c_{t−1} + i ∘ g                h_t = o ∘ tanh(c_t), or P (o ∘ tanh(c_t))

    W is ``weight_ih``, R ``weight_hh`` (rows i, f, g, o), b the sum of ``bias_ih`` and ``bias_hh``,
    P ``weight_hr`` where ``proj_size`` is given. Arguments, shapes and errors are torch's; options
    of Headgate follow by keyword (``headgate.nn.options``).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[Options],
    ) -> None:
        nn.LSTM.__init__(
            self, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size, device=device, dtype=dtype,
        )  # fmt: skip
        cell = "lstm_projected" if proj_size else "lstm"
        self._become("LSTM", cell, options, {"device": device, "dtype": dtype})

    def forward(  # type: ignore[override]
        self,
        input: Output,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        lengths: Any = None,
        record: Record | None = None,
    ) -> tuple[Output, tuple[Tensor, Tensor]]:
        """Output (T, N, H) and (h_n, c_n), each (layers · directions, N, ·), as torch's."""
        return self._forward(input, hx, lengths, record)


class GRU(TorchLike, nn.GRU):
    """Gated recurrent unit in place of ``torch.nn.GRU``: reset after the product.

        r, z = σ(W x_t + R h_{t−1} + b)          n = tanh(W x_t + b + r ∘ (R h_{t−1} + d))
        h_t = (1 − z) ∘ n + z ∘ h_{t−1}

    W is ``weight_ih``, R ``weight_hh`` (rows r, z, n), b the sum of ``bias_ih`` and ``bias_hh`` but
    for the candidate's hidden-side bias d, the last rows of ``bias_hh``. Arguments, shapes and
    errors are torch's; options of Headgate follow by keyword (``headgate.nn.options``).
    """

    _lowered_on_cpu = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[Options],
    ) -> None:
        _no_projection(options)
        nn.GRU.__init__(
            self, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device=device, dtype=dtype,
        )  # fmt: skip
        self._become("GRU", "gru", options, {"device": device, "dtype": dtype})

    def forward(  # type: ignore[override]
        self,
        input: Output,
        hx: Tensor | None = None,
        *,
        lengths: Any = None,
        record: Record | None = None,
    ) -> tuple[Output, Tensor]:
        """Output (T, N, H) and h_n (layers · directions, N, H), as torch's; see ``Recurrent``."""
        return _one_state(self._forward(input, hx, lengths, record))


def traced_families(
    table: TorchFamilies, module: nn.Module, sizes: Mapping[str, int], end: str
) -> dict[str, Tensor]:
    """``TorchFamilies.families`` in torch operations alone: a compiler warns of caches."""
    program = table.program
    found: dict[str, dict[str, Tensor]] = {family: {} for family in program.families}
    for name, family, block, rows in table.rows(module, sizes, end):
        share, blocks = getattr(module, name)[rows], found[family]
        blocks[block] = blocks[block] + share if block in blocks else share
    like = next(module.parameters())
    return {
        family: torch.cat([blocks[name] for name in program.families[family].block_names])
        if blocks
        else like.new_zeros(program.shape(family, sizes))
        for family, blocks in found.items()
    }


def _one_state(result: tuple[Output, Tensor | States]) -> tuple[Output, Any]:
    output, state = result
    return output, state[0] if isinstance(state, tuple) else state


def _wrong_dimensions(batched: bool, dims: list[int]) -> str:
    """torch's message about initial states that do not fit a batched or unbatched input."""
    words = "batched 3-D" if batched else "unbatched 2-D"
    names, came = "hx", f"{dims[0]}-D tensor"
    if len(dims) > 1:
        names, came = "hx and cx", f"({', '.join(f'{d}-D' for d in dims)}) tensors"
    return f"For {words} input, {names} should also be {words[-3:]} but got {came}"


def _no_projection(options: Any) -> None:
    if "proj_size" in options:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
