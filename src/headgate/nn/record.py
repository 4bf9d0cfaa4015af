"""Record: named values of every step, layer and direction, and their error terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from headgate.program import Program

Layout = Callable[[Tensor], Tensor]


class Record:
    """What a run of a layer shall keep: ``output, state = layer(x, record=Record("i", "c"))``.

    names: values of the cell's equations by their names there; none means all of them. A state is
    found under its argument's name and holds its value after the step.
    gradients: keep room for the error terms as well.

    ``record["c"]`` is (layers · directions, T, N, H), or (…, N, T, H) where the layer has
    ``batch_first``, or (…, T, H) for one sequence without a batch axis. A ``PackedSequence`` is
    recorded padded, (…, T, N, H). The reverse direction is aligned to the input's time. Values past
    a row's end are zero. Losses may be made of recorded values: they are differentiable.

    ``record.gradient("i")`` after ``loss.backward()`` is ∂loss/∂i at every step, in the same shape.

    One Record serves any number of calls; each call replaces what it holds.
    """

    def __init__(self, *names: str, gradients: bool = False) -> None:
        for name in names:
            if not isinstance(name, str):
                raise TypeError(
                    f"Record: names must be strings, got {type(name).__name__}; "
                    'write Record("i", "f")'
                )
        self.gradients = gradients
        self._asked = tuple(dict.fromkeys(names))
        self._names: tuple[str, ...] = self._asked
        self._values: dict[tuple[int, int], Mapping[str, Tensor]] = {}
        self._probes: dict[tuple[int, int], Mapping[str, Tensor]] = {}
        self._layout: Layout = _as_it_is

    @property
    def names(self) -> tuple[str, ...]:
        """The recorded names; before the first run, those that were asked for."""
        return self._names

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> Tensor:
        """Values (layers · directions, T, N, width).

        Raises KeyError for a name that was not recorded, RuntimeError before a run.
        """
        self._check(name)
        return self._joined(name, [values[name] for values in self._values.values()])

    def at(self, name: str, layer: int, direction: int = 0) -> Tensor:
        """Values (T, N, width) of one layer; direction 1 is the reverse one."""
        self._check(name)
        return self._layout(self._find(self._values, layer, direction)[name])

    def gradient(self, name: str) -> Tensor:
        """∂loss/∂value after ``backward()``, in the shape of ``record[name]``."""
        self._check_gradient(name)
        return self._joined(name, [_error_term(probes[name]) for probes in self._probes.values()])

    def gradient_at(self, name: str, layer: int, direction: int = 0) -> Tensor:
        """∂loss/∂value (T, N, width) of one layer after ``backward()``."""
        self._check_gradient(name)
        return self._layout(_error_term(self._find(self._probes, layer, direction)[name]))

    def resolve(self, program: Program) -> tuple[str, ...]:
        """The names to record of this cell. Raises ValueError for one it does not have."""
        unknown = [name for name in self._asked if name not in program.names]
        if unknown:
            raise ValueError(
                f"Record: cell '{program.name}' has no value named {unknown[0]!r}; "
                f"its values are {', '.join(program.names)}"
            )
        return self._asked or tuple(program.names)

    def start(self, program: Program, layout: Layout) -> tuple[str, ...]:
        """Forget the last run and return the names to record. Called by the layers."""
        self._names = self.resolve(program)
        self._values, self._probes, self._layout = {}, {}, layout
        return self._names

    def probes(
        self, program: Program, sizes: Mapping[str, int], x: Tensor, layer: int, direction: int
    ) -> dict[str, Tensor] | None:
        """Zeros (T, N, width) to add to each value, whose gradients are the error terms."""
        if not (self.gradients and torch.is_grad_enabled()):
            return None
        probes = {
            name: x.new_zeros(
                (*x.shape[:2], sizes.get(program.width_of(name), 1)), requires_grad=True
            )
            for name in self._names
        }
        self._probes[layer, direction] = probes
        return probes

    def keep(self, records: Mapping[str, Tensor], layer: int, direction: int) -> None:
        """Take one layer's and direction's values (T, N, width). Called by the layers."""
        self._values[layer, direction] = dict(records)

    def _check(self, name: str) -> None:
        if not self._values:
            raise RuntimeError(
                f"Record: nothing recorded yet; pass this record to a layer, as in "
                f"layer(x, record=record), before asking for {name!r}"
            )
        if name not in self._names:
            raise KeyError(f"Record: {name!r} was not recorded; recorded: {', '.join(self._names)}")

    def _check_gradient(self, name: str) -> None:
        if not self.gradients:
            raise RuntimeError(
                "Record: gradients were not asked for; make it with Record(..., gradients=True)"
            )
        self._check(name)
        if not self._probes:
            raise RuntimeError(
                "Record: the run was made without gradients (torch.no_grad); run it with them"
            )
        if all(p.grad is None for probes in self._probes.values() for p in probes.values()):
            raise RuntimeError(
                "Record: no error terms yet; call backward() on a loss made of this run's output"
            )

    def _joined(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        if len({part.shape for part in parts}) > 1:
            raise ValueError(
                f"Record: {name!r} has another width in each layer "
                f"({', '.join(str(part.shape[-1]) for part in parts)}); "
                f"ask for one at a time: record.at({name!r}, layer, direction)"
            )
        return self._layout(torch.stack(list(parts)))

    @staticmethod
    def _find(
        kept: Mapping[tuple[int, int], Mapping[str, Tensor]], layer: int, direction: int
    ) -> Mapping[str, Tensor]:
        if (layer, direction) not in kept:
            raise KeyError(
                f"Record: no layer {layer} with direction {direction}; recorded are "
                f"(layer, direction) = {', '.join(map(str, kept))}"
            )
        return kept[layer, direction]


def _error_term(probe: Tensor) -> Tensor:
    return torch.zeros_like(probe) if probe.grad is None else probe.grad


def _as_it_is(value: Tensor) -> Tensor:
    return value
