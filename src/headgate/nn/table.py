"""torch's parameters in the words of the equations: the one table, and what follows from it.

Each of torch's parameters is a stack of row blocks, named here by family and gate. Two parameters
with the same block add up, as torch's two biases do; the hidden-side bias of a GRU's candidate
stays inside r ∘ (…) and is a family of its own, d.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@lru_cache(maxsize=256)
def families_of(kind: str, program: Program) -> list[str]:
    """The program's families that torch's parameters make up."""
    entries = [entry for entries in TABLE[kind].values() for entry in entries]
    return [f for f in dict.fromkeys(split_gate(e)[0] for e in entries) if f in program.families]


Piece = slice | int
"""Rows of a parameter, or a number of rows of zeros."""
Share = tuple[int, list[Piece] | None]
"""What a parameter adds to a family, by its index; None: all of it, in the family's order."""
Source = tuple[int, slice]
"""Whose gradient a part of a parameter's is: a family's, by its index, in some rows."""


class Mixture:
    """How a program's families are made of torch's parameters, and what follows for gradients.

    Parameters: those that the module has of the table, in its order, by their ``stems``, and then
    the families that torch does not know. A family without a parameter, because the module has no
    biases, is zero.
    """

    def __init__(
        self, kind: str, program: Program, sizes: Mapping[str, int], stems: Sequence[str]
    ) -> None:
        known = families_of(kind, program)
        self._shapes = [program.shape(family, sizes) for family in program.families]
        self._shares: list[list[Share]] = [[] for _ in program.families]
        self._sources: list[list[Source] | int] = []  # or all of one family's
        order = list(program.families)
        for index, stem in enumerate(stems):
            rows = parameter_rows(TABLE[kind][stem], program, sizes)
            sources: list[Source] | int = [
                (order.index(f), program.rows(f, sizes)[b]) for f, b, _ in rows
            ]
            for family in dict.fromkeys(name for name, _, _ in rows):
                mine = {block: at for name, block, at in rows if name == family}
                blocks, number = program.rows(family, sizes), order.index(family)
                whole = len(mine) == len(rows) and tuple(mine) == tuple(blocks)
                pieces: list[Piece] = [
                    mine[block] if block in mine else at.stop - at.start
                    for block, at in blocks.items()
                ]
                self._shares[number].append((index, None if whole else pieces))
                if whole:
                    sources = number
            self._sources.append(sources)
        for family in program.families:
            if family not in known:
                self._shares[order.index(family)].append((len(self._sources), None))
                self._sources.append(order.index(family))

    def families(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """In the program's order, by operations that torch differentiates."""
        found = []
        for shares, shape in zip(self._shares, self._shapes, strict=True):
            family = None
            for index, pieces in shares:
                part = parameters[index] if pieces is None else _joined(parameters[index], pieces)
                family = part if family is None else family + part
            found.append(parameters[0].new_zeros(shape) if family is None else family)
        return found

    def gradients(self, families: Sequence[Tensor | None]) -> list[Tensor | None]:
        """By each parameter, out of those by each family; None where there is none."""
        return [
            families[sources] if isinstance(sources, int) else _gathered(families, sources)
            for sources in self._sources
        ]


def _gathered(families: Sequence[Tensor | None], sources: Sequence[Source]) -> Tensor | None:
    """A parameter's gradient out of rows of several families'."""
    like = next((families[k] for k, _ in sources if families[k] is not None), None)
    if like is None:
        return None
    parts = []
    for index, rows in sources:
        whole = families[index]
        count = rows.stop - rows.start
        parts.append(like.new_zeros(count, *like.shape[1:]) if whole is None else whole[rows])
    return torch.cat(parts)


@lru_cache(maxsize=256)
def mixture(
    kind: str, program: Program, sizes: tuple[tuple[str, int], ...], stems: tuple[str, ...]
) -> Mixture:
    """The same one for modules alike, so that calls of theirs count as alike."""
    return Mixture(kind, program, dict(sizes), stems)


def _joined(parameter: Tensor, pieces: Sequence[Piece]) -> Tensor:
    if len(pieces) == 1 and isinstance(pieces[0], slice):
        return parameter[pieces[0]]
    rest = parameter.shape[1:]
    return torch.cat(
        [parameter.new_zeros(p, *rest) if isinstance(p, int) else parameter[p] for p in pieces]
    )


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

    def parameters(
        self, module: nn.Module, sizes: Mapping[str, int], end: str
    ) -> tuple[list[Tensor], Mixture]:
        """A module's parameters, and how the program's families are made of them."""
        known = [(stem, _parameter(module, stem + end)) for stem in TABLE[self.kind]]
        given = [(stem, parameter) for stem, parameter in known if parameter is not None]
        stems = tuple([stem for stem, _ in given])
        made = mixture(self.kind, self.program, tuple(sizes.items()), stems)
        others = [getattr(module, family + end) for family in self.others]
        return [*[parameter for _, parameter in given], *others], made

    def families(self, module: nn.Module, sizes: Mapping[str, int], end: str) -> dict[str, Tensor]:
        parameters, made = self.parameters(module, sizes, end)
        return dict(zip(self.program.families, made.families(parameters), strict=True))

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
