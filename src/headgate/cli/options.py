"""Options that several verbs share: how a table is read, and what is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from headgate.cells import get
from headgate.data import Panel, read_panel
from headgate.tasks import Forecaster

Count = Annotated[int, Parameter(validator=Number(gte=1))]
Share = Annotated[float, Parameter(validator=Number(gt=0, lt=1))]
Json = Annotated[bool, Parameter(name="--json", negative="")]
Data = Annotated[str, Parameter(allow_leading_hyphen=True)]
Names = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")]


def _is_built_in(kind: object, name: str) -> None:
    get(name)


@Parameter(name="*", group="The table")
@dataclass(frozen=True)
class Table:
    """How a table is read.

    Parameters
    ----------
    time
        The column of times; guessed where only one is possible.
    target
        The column to forecast, or several, or * for all that hold numbers; guessed where only one
        is possible.
    id
        The column that says which series a row belongs to.
    known
        Columns that are known ahead of time, such as holidays or prices; rows after the last value
        hold what is to come.
    past
        Columns that are known no earlier than the values.
    static
        Columns that stay the same within a series: numbers or categories.
    layout
        rows: each line is one series, its id first (the M4 competition's files).
    decimal
        "." or ",": the decimal mark, where no cell decides.
    day_first
        Whether 01/02/2024 is in February, where no cell decides.
    timezone
        Times are clock times of this zone, such as Europe/Berlin.
    resample
        A regular step such as 1h, D, W or MS, or auto; mends gaps, disorder and repeated times.
    aggregate
        How values within one step are combined.
    fill
        How missing values are mended: otherwise they do not count.
    """

    time: str | None = None
    target: Names = ()
    id: str | None = None
    known: Names = ()
    past: Names = ()
    static: Names = ()
    layout: Literal["columns", "rows"] = "columns"
    decimal: Literal[".", ","] | None = None
    day_first: bool | None = None
    timezone: str | None = None
    resample: str | None = None
    aggregate: Literal["mean", "sum", "last", "first", "min", "max"] | None = None
    fill: Literal["linear", "forward", "zero", "mask"] | None = None

    def read(self, path: str) -> Panel:
        """The series of a file; raises DataError."""
        given = asdict(self)
        target = given.pop("target")
        if len(target) == 1:
            target = target[0]
        return read_panel(path, target=target or None, **given)


@Parameter(name="*", group="The model")
@dataclass(frozen=True)
class Model:
    """What is fitted.

    Parameters
    ----------
    cell
        A built-in cell: lstm, gru, rnn, lstm_peephole, …
    hidden_size
        Units of each recurrent layer.
    num_layers
        Recurrent layers.
    members
        Networks whose forecasts are averaged.
    strategy
        All steps at once from the last state, or one by one, each fed back.
    output
        A value, quantiles, or a distribution; poisson and negative_binomial are for counts.
    season
        Steps of the season; by default what the frequency suggests (12 for monthly values).
    difference
        What is subtracted from each value: nothing, the one before, or the one a season before.
    transform
        log evens out swings that grow with the level; log1p and sqrt, for values down to zero, do
        less.
    calendar
        What of the calendar the network reads: auto, none, or of hour, weekday, day, year.
    lags
        The network also reads the values so many steps before those it forecasts.
    window
        Steps that it reads before it forecasts.
    loss
        What a forecast of single values is judged by in training.
    epochs
        Passes over the training windows.
    batch_size
        Windows of one step of training.
    samples
        Windows of an epoch; all by default.
    learning_rate
        Adam's, at the beginning; it falls to zero along half a cosine.
    seed
        Fixes everything random.
    """

    cell: Annotated[str, Parameter(validator=_is_built_in)] = "lstm"
    hidden_size: Count = 16
    num_layers: Count = 1
    members: Count = 1
    strategy: Literal["direct", "closed-loop"] = "direct"
    output: Literal[
        "point", "quantiles", "gaussian", "student_t", "poisson", "negative_binomial"
    ] = "point"
    season: Annotated[int | None, Parameter(validator=Number(gte=2))] = None
    difference: Literal["auto", "none", "first", "seasonal"] = "auto"
    transform: Literal["auto", "none", "log", "log1p", "sqrt"] = "auto"
    calendar: Names = ("auto",)
    lags: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = ()
    window: Count | None = None
    loss: Literal["mse", "mae", "huber"] = "mse"
    epochs: Count = 20
    batch_size: Count = 32
    samples: Count | None = None
    learning_rate: float = 0.01
    seed: int = 0

    def forecaster(self, horizon: int) -> Forecaster:
        given: dict[str, Any] = asdict(self)
        given["season"] = "auto" if self.season is None else self.season
        if len(self.calendar) == 1:
            given["calendar"] = self.calendar[0]
        return Forecaster(horizon=horizon, **given)


def shares(intervals: Sequence[float]) -> tuple[float, ...]:
    """Intervals as shares: 80 and 0.8 mean the same."""
    return tuple(round(each / 100, 6) if each >= 1 else each for each in intervals)
