"""torch's parameters in the words of the equations: the one table, and what follows from it.

Each of torch's parameters is a stack of row blocks, named here by family and gate. Two parameters
with the same block add up, as torch's two biases do; the hidden-side bias of a GRU's candidate
stays inside r ∘ (…) and is a family of its own, d.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from headgate.nn.initialise import Initialiser, defaults
from headgate.program import Program

TABLE: dict[str, dict[str, tuple[str, ...]]] = {
    "RNN": {
        "weight_ih": ("W",),
        "weight_hh": ("R",),
        "bias_ih": ("b",),
        "bias_hh": ("b",),
    },
    "LSTM": {
        "weight_ih": ("W.i", "W.f", "W.g", "W.o"),
        "weight_hh": ("R.i", "R.f", "R.g", "R.o"),
        "bias_ih": ("b.i", "b.f", "b.g", "b.o"),
        "bias_hh": ("b.i", "b.f", "b.g", "b.o"),
        "weight_hr": ("P",),
    },
    "GRU": {
        "weight_ih": ("W.r", "W.z", "W.n"),
        "weight_hh": ("R.r", "R.z", "R.n"),
        "bias_ih": ("b.r", "b.z", "b.n"),
        "bias_hh": ("b.r", "b.z", "d.n"),
    },
}


def split_gate(entry: str) -> tuple[str, str]:
    """ "W.i" as family and block; "W" is the family whose one block has no name."""
    family, _, block = entry.partition(".")
    return family, block


def parameter_rows(
    entries: Sequence[str], program: Program, sizes: Mapping[str, int]
) -> list[tuple[str, str, slice]]:
    """Family, block and rows of each block of one of torch's parameters."""
    found, start = [], 0
    for entry in entries:
        family, block = split_gate(entry)
        rows = program.rows(family, sizes)[block]
        stop = start + rows.stop - rows.start
        found.append((family, block, slice(start, stop)))
        start = stop
    return found


def families_from_torch(
    kind: str, program: Program, sizes: Mapping[str, int], get: Callable[[str], Tensor | None]
) -> dict[str, Tensor]:
    """The families of the table, made of torch's parameters; ``get`` returns one by its stem.

    A family that has no parameter, because the module has no biases, is zero.
    """
    found = {stem: get(stem) for stem in TABLE[kind]}
    given = {stem: parameter for stem, parameter in found.items() if parameter is not None}
    families: dict[str, Tensor] = {}
    for family, stem, pieces in _shares(kind, program, tuple(sizes.items()), tuple(given)):
        parameter = given[stem]
        share = parameter if pieces is None else _joined(parameter, pieces)
        families[family] = families[family] + share if family in families else share
    for family in families_of(kind, program):
        if family not in families:
            like = next(iter(given.values()))
            families[family] = like.new_zeros(program.shape(family, sizes))
    return families


@lru_cache(maxsize=256)
def families_of(kind: str, program: Program) -> list[str]:
    """The program's families that torch's parameters make up."""
    entries = [entry for entries in TABLE[kind].values() for entry in entries]
    return [f for f in dict.fromkeys(split_gate(e)[0] for e in entries) if f in program.families]


Piece = slice | int
"""Rows of a parameter, or a number of rows of zeros."""


def _joined(parameter: Tensor, pieces: Sequence[Piece]) -> Tensor:
    rest = parameter.shape[1:]
    return torch.cat(
        [parameter.new_zeros(p, *rest) if isinstance(p, int) else parameter[p] for p in pieces]
    )


@lru_cache(maxsize=256)
def _shares(
    kind: str, program: Program, sizes: tuple[tuple[str, int], ...], stems: tuple[str, ...]
) -> list[tuple[str, str, list[Piece] | None]]:
    """Each parameter's share of each family, in the family's order of blocks; None: all of it."""
    found = []
    for stem in stems:
        rows = parameter_rows(TABLE[kind][stem], program, dict(sizes))
        for family in dict.fromkeys(name for name, _, _ in rows):
            mine = {block: at for name, block, at in rows if name == family}
            blocks = program.rows(family, dict(sizes))
            if len(mine) == len(rows) and tuple(mine) == tuple(blocks):
                found.append((family, stem, None))
                continue
            pieces: list[Piece] = [
                mine[block] if block in mine else at.stop - at.start for block, at in blocks.items()
            ]
            found.append((family, stem, pieces))
    return found


def _parameter(module: nn.Module, name: str) -> Tensor | None:
    """A parameter or what a parametrisation put in its place; None where there is none."""
    found = module._parameters.get(name)
    return getattr(module, name, None) if found is None else found


class TorchFamilies:
    """How a module with torch's parameters provides the families of a Program.

    Families that torch does not know, such as the gains of layer normalisation, are parameters
    under their own name. ``end`` closes the parameters' names: "_l0_reverse", "" in a cell.
    """

    def __init__(self, kind: str, program: Program) -> None:
        self.kind = kind
        self.program = program
        known = families_of(kind, program)
        self.others = [family for family in program.families if family not in known]

    def add_others(
        self, module: nn.Module, sizes: Mapping[str, int], end: str, factory: dict[str, Any]
    ) -> None:
        """Register the parameters of the families that torch does not know."""
        for family in self.others:
            shape = self.program.shape(family, sizes)
            module.register_parameter(family + end, nn.Parameter(torch.empty(shape, **factory)))

    def defaults(self) -> dict[str, Initialiser]:
        """Initialisers of the families that torch does not know."""
        return {f: how for f, how in defaults(self.program).items() if f in self.others}

    def families(self, module: nn.Module, sizes: Mapping[str, int], end: str) -> dict[str, Tensor]:
        found = families_from_torch(
            self.kind, self.program, sizes, lambda stem: _parameter(module, stem + end)
        )
        return found | {family: getattr(module, family + end) for family in self.others}

    def rows(
        self, module: nn.Module, sizes: Mapping[str, int], end: str
    ) -> list[tuple[str, str, str, slice]]:
        """Parameter, family, block and rows of every block."""
        found = []
        for stem, entries in TABLE[self.kind].items():
            if getattr(module, stem + end, None) is not None:
                rows = parameter_rows(entries, self.program, sizes)
                found += [(stem + end, *row) for row in rows]
        for family in self.others:
            rows = self.program.rows(family, sizes)
            found += [(family + end, family, block, at) for block, at in rows.items()]
        return found
