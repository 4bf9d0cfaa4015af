"""Blocks: which rows of which parameter belong to which gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from headgate.nn.initialise import Initialiser, Place, initialise

if TYPE_CHECKING:
    from headgate.program import Program


@dataclass(frozen=True)
class Block:
    """One gate's rows of one parameter.

    parameter: its name in ``named_parameters()``. family, block: the names in the equations;
    block is "" where the family is not split. rows: where the block lies in the parameter.
    """

    parameter: str
    family: str
    block: str
    layer: int
    direction: int
    rows: slice

    @property
    def gate(self) -> str:
        """ "W.i", or "W" where the family is not split."""
        return f"{self.family}.{self.block}" if self.block else self.family


class WithBlocks:
    """What a module with gates offers on its parameters."""

    program: Program
    layer_sizes: tuple[dict[str, int], ...]

    def blocks(self) -> list[Block]:
        """Every gate's rows, by layer, direction and parameter."""
        raise NotImplementedError

    def weight(self, gate: str, layer: int = 0, direction: int = 0) -> dict[str, Tensor]:
        """One gate's parameters, views that share memory: ``layer.weight("f")["W"]`` is (H, I).

        The keys are the families of the equations; in ``RNN``, ``LSTM`` and ``GRU`` they are
        torch's names, "weight_ih", …, because there a family may be the sum of two parameters.

        Raises KeyError for a gate, layer or direction that the module does not have.
        """
        here = [b for b in self.blocks() if (b.layer, b.direction) == (layer, direction)]
        found = {
            b.parameter.removesuffix(suffix(layer, direction)): _parameter(self, b.parameter)[
                b.rows
            ]
            for b in here
            if b.block == gate
        }
        if not here:
            raise KeyError(f"weight: the module has no layer {layer} with direction {direction}")
        if not found:
            gates = ", ".join(dict.fromkeys(repr(b.block) for b in here))
            raise KeyError(f"weight: no gate named {gate!r}; the gates are {gates}")
        return found

    def _initialise(self, table: Mapping[str, Initialiser]) -> None:
        """Set parameters as ``init=`` says: families first, then single gates.

        Of two parameters that add up to one family (torch's two biases), the first is set and the
        other is zero.
        """
        for key, initialiser in sorted(table.items(), key=lambda item: "." in item[0]):
            family, _, gate = key.partition(".")
            done: set[tuple[int, int]] = set()
            for name, blocks in self._parameters_of(family, gate).items():
                first = blocks[0]
                place = (first.layer, first.direction)
                tensor = _parameter(self, name)
                self._set(tensor, blocks, "zeros" if place in done else initialiser, key)
                done.add(place)

    def _parameters_of(self, family: str, gate: str) -> dict[str, list[Block]]:
        found: dict[str, list[Block]] = {}
        for block in self.blocks():
            if block.family == family and gate in ("", block.block):
                found.setdefault(block.parameter, []).append(block)
        return found

    def _set(self, tensor: Tensor, blocks: list[Block], initialiser: Initialiser, key: str) -> None:
        start, stop = blocks[0].rows.start, blocks[-1].rows.stop
        rows = {b.block: slice(b.rows.start - start, b.rows.stop - start) for b in blocks}
        hidden = self.layer_sizes[blocks[0].layer]["hidden"]
        initialise(initialiser, tensor[start:stop], Place(key, rows, hidden))


def suffix(layer: int, direction: int) -> str:
    """How parameters of a layer and direction end: "_l0", "_l0_reverse"."""
    return f"_l{layer}{'_reverse' if direction else ''}"


def _parameter(module: object, name: str) -> Tensor:
    assert isinstance(module, nn.Module)
    value = getattr(module, name)
    assert isinstance(value, Tensor)
    return value
