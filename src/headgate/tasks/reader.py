"""How a fitted network reads series, and the state it carries from one value to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from headgate.data import Preprocessing, Series, fill_forward, fill_missing
from headgate.nn import Record
from headgate.nn.states import States

from .distributions import Output, Quantiles
from .encoder import Encoder
from .network import ForecastNetwork
from .settings import Resolved


@dataclass(frozen=True)
class Tail:
    """What a series leaves for those that go on from its end.

    `history`: the last values that differences and lags need, none missing. `series`: what was read
    last, for its covariates.
    """

    series: Series
    history: np.ndarray
    preprocessing: Preprocessing


@dataclass(frozen=True)
class CarriedState:
    """Everything a forecaster needs to go on from where it stopped reading some series.

    `recurrent` is the network's state, a row a series; `raw` (N, K·P) its output after each one's
    last value; `tails` what else is needed of each.
    """

    recurrent: States
    raw: Tensor
    tails: tuple[Tail, ...]

    @property
    def time(self) -> np.generic:
        """Of the last value, where a single series was read."""
        return self.tails[0].series.time[-1]


@dataclass(frozen=True)
class Reader:
    """A network with all that stands between it and the values of a series."""

    network: ForecastNetwork
    encoder: Encoder
    output: Output
    settings: Resolved
    direct: bool

    @property
    def steps(self) -> int:
        """Steps that the network forecasts at once."""
        return self.settings.horizon if self.direct else 1

    @property
    def local(self) -> bool:
        return self.direct and self.encoder.local

    def read(
        self,
        series: Sequence[Series],
        preprocessing: Sequence[Preprocessing],
        record: Record | None = None,
    ) -> CarriedState:
        """Read whole series from fresh states."""
        encoded = [
            self.encoder.encode(s, p, self.steps)
            for s, p in zip(series, preprocessing, strict=True)
        ]
        inputs = [torch.from_numpy(e.inputs) for e in encoded]
        ahead = np.stack([e.ahead[-self.steps :] for e in encoded]) if self.local else None
        raw, after = self._run(inputs, ahead, None, record)
        tails = [self._tail(s, p) for s, p in zip(series, preprocessing, strict=True)]
        return CarriedState(after, raw, tuple(tails))

    def advance(self, state: CarriedState, values: np.ndarray) -> CarriedState:
        """Read the values (T,) of a single series that came next, none missing."""
        (tail,) = state.tails
        times = tail.series.future(len(values))
        inputs, ahead = self.chunk(tail, values, times)
        raw, after = self._run([torch.from_numpy(inputs)], ahead, state.recurrent, None)
        series = Series(
            values, times, tail.series.frequency, tail.series.name, tail.series.time_name,
            id=tail.series.id, covariates=tail.series.covariates,
        )  # fmt: skip
        history = np.concatenate([tail.history, values])[len(values) :]
        return CarriedState(after, raw, (Tail(series, history, tail.preprocessing),))

    def chunk(
        self, tail: Tail, values: np.ndarray, times: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Inputs (T, I) of values that follow `tail`, and f (1, K, F) of the steps after them."""
        self.check_alone("advance")
        encoder, pre = self.encoder, tail.preprocessing
        u = pre.apply(np.concatenate([tail.history, values]))
        later = np.append(times, tail.series.frequency.future(times[-1], self.steps))
        lagged = encoder.lagged(u, len(u) + self.steps)[len(u) - len(values) :]
        ahead = np.concatenate([encoder.calendar_at(later), lagged], axis=1)
        columns = [u[len(u) - len(values) :, None]]
        if encoder.flags:
            columns.append(np.ones((len(values), 1)))
        columns += [ahead[1 : 1 + len(values)], encoder.static(tail.series, len(values))]
        inputs = np.concatenate(columns, axis=1).astype(np.float32)
        return inputs, ahead[None, -self.steps :].astype(np.float32) if self.local else None

    def check_alone(self, what: str) -> None:
        """Raise ValueError where a value alone does not say what the network reads."""
        if self.encoder.known or self.encoder.past:
            names = [*self.encoder.known, *self.encoder.past]
            raise ValueError(
                f"{what}: expected a model that reads values alone, but this one reads the "
                f"covariates {names} with each; forecast with series= instead"
            )

    @torch.no_grad()
    def closed_loop(
        self, state: CarriedState, steps: int, paths: int = 1, seed: int | None = None
    ) -> np.ndarray:
        """(N, paths, steps) in network units, counts in their own: each value is read as the next.

        With a seed the values are drawn; without, they are the expected ones.
        """
        encoder, rows = self.encoder, len(state.tails)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        raw = state.raw.repeat_interleave(paths, 0)
        recurrent = _repeated(state.recurrent, paths)
        scale = self.scale(state.tails).repeat_interleave(paths, 0)
        fixed, past, known = self._given(state.tails, steps)
        memory = np.stack([fill_forward(t.preprocessing.apply(t.history)) for t in state.tails])
        u = np.zeros((rows, paths, memory.shape[1] + steps))
        u[..., : memory.shape[1]] = memory[:, None]
        found = np.zeros((rows, paths, steps))
        for k in range(steps):
            value = (
                self.output.mean(raw, scale)
                if generator is None
                else self.output.sample(raw, generator, scale)
            )
            found[..., k] = value.double().numpy().reshape(rows, paths)
            if k == steps - 1:
                break
            here = memory.shape[1] + k
            u[..., here] = found[..., k] / scale.double().numpy().reshape(rows, paths)
            columns = [u[..., here, None]]
            if encoder.flags:
                columns.append(np.ones((rows, paths, 1)))
            columns.append(_wide(known[:, k + 1], paths))
            columns += [u[..., here + 1 - lag, None] for lag in encoder.lags]
            columns += [_wide(past, paths), _wide(fixed, paths)]
            inputs = np.concatenate(columns, axis=-1).reshape(rows * paths, 1, -1)
            raw, recurrent = self._run(
                list(torch.from_numpy(inputs.astype(np.float32))), None, recurrent, None
            )
        return found

    def values(self, tail: Tail, raw: Tensor) -> np.ndarray:
        """What the outputs (1, K·P) of one series expect of its next K values (K,)."""
        ahead = self.middle(raw.double(), self.scale([tail]))[0].numpy()
        return self.in_units(tail, ahead)

    def middle(self, raw: Tensor, scale: Tensor) -> Tensor:
        """(N, K): the median of learnt quantiles, else the expected value."""
        output = self.output
        if isinstance(output, Quantiles) and output.levels[0] <= 0.5 <= output.levels[-1]:
            return output.quantiles(raw, [0.5], scale)[..., 0]
        return output.mean(raw, scale)

    def in_units(self, tail: Tail, ahead: np.ndarray) -> np.ndarray:
        """Forecasts of K steps at once (K,) in the series' units."""
        if self.output.counts:
            return ahead
        return tail.preprocessing.invert_ahead(ahead, tail.history)

    def scale(self, tails: Sequence[Tail]) -> Tensor:
        """(N, 1): what the outputs are multiplied by; 1 but for counts."""
        scales = [t.preprocessing.scale if self.output.counts else 1.0 for t in tails]
        return torch.tensor(scales)[:, None]

    def _given(
        self, tails: Sequence[Tail], steps: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Static (N, ·) and past (N, ·) covariates, and what is known ahead (N, steps, ·)."""
        encoder, known = self.encoder, []
        for tail in tails:
            series, n = tail.series, len(tail.series)
            encoder.check(series, steps)
            known.append(
                np.concatenate(
                    [
                        encoder.calendar_at(series.future(steps)),
                        encoder.known_at(series, n, steps),
                    ],
                    axis=1,
                )
            )
        fixed = np.stack([encoder.static(t.series, 1)[0] for t in tails])
        past = np.stack([encoder.seen_at(t.series, 0)[-1] for t in tails])
        return fixed, past, np.stack(known)

    def _tail(self, series: Series, preprocessing: Preprocessing) -> Tail:
        count = preprocessing.lag + self.encoder.memory
        filled = fill_missing(series.values)
        return Tail(series, filled[len(filled) - count :], preprocessing)

    @torch.no_grad()
    def _run(
        self,
        inputs: list[Tensor],
        ahead: np.ndarray | None,
        recurrent: States | None,
        record: Record | None,
    ) -> tuple[Tensor, States]:
        """The raw output (N, K·P) after each row's last step, and the states."""
        self.network.eval()
        lengths = torch.tensor([len(row) for row in inputs])
        ragged = bool((lengths != lengths[0]).any())
        batch = pad_sequence(inputs, batch_first=True)
        output, after = self.network.recurrent(
            batch, recurrent, lengths=lengths if ragged else None, record=record
        )
        last = output[torch.arange(len(inputs)), lengths - 1]
        if ahead is None:
            return self.network.head(last), after
        return self.network.head(last, torch.from_numpy(ahead)), after


def _wide(values: np.ndarray, paths: int) -> np.ndarray:
    """(N, ·) as (N, paths, ·)."""
    return np.broadcast_to(values[:, None], (len(values), paths, values.shape[-1]))


def _repeated(states: States, paths: int) -> States:
    """A state (…, N, H), or one for each layer, with each row `paths` times."""
    return tuple(
        tuple(part.repeat_interleave(paths, -2) for part in state)
        if isinstance(state, tuple)
        else state.repeat_interleave(paths, -2)
        for state in states
    )
