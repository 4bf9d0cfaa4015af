"""headgate inspect: what goes on inside a model while it reads a series."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import CycloptsError, Parameter

from headgate.data import Panel
from headgate.tasks import Forecaster
from headgate.tasks.folder import whole_folder
from headgate.tasks.inspect import chosen
from headgate.tasks.inspect import inspect as look_inside
from headgate.tasks.reasons import reasons

from .inside import FILES, Inside, InsideReport, write
from .options import Count, Data, Json, Table

STEPS = 200
"""Steps that are shown, or that a row has of which cells are compared."""


@Parameter(name="*", group="With --compare")
@dataclass(frozen=True)
class Trained:
    """How cells are trained to be compared.

    Parameters
    ----------
    hidden_size
        Units of the layer.
    epochs
        Passes over the training data.
    seed
        Fixes everything random.
    """

    hidden_size: Count = 16
    epochs: Count = 60
    seed: int = 0


TABLE, TRAINED = Table(), Trained()


def inspect(
    model: str | None = None,
    data: Data | None = None,
    *,
    row: int = 0,
    names: str = "",
    gradients: Annotated[bool, Parameter(negative="")] = False,
    unit: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = (),
    steps: Count | None = None,
    format: Literal["csv", "parquet"] = "csv",
    compare: str = "",
    trained: Trained = TRAINED,
    table: Table = TABLE,
    out: Path | None = None,
    as_json: Json = False,
) -> None:
    """Look inside a model: what every gate and state of every unit does over the steps of a series.

    The folder receives every value (values.csv), how far gates stand open (saturation.csv), how
    long units remember (memory.csv), the units that do nothing (units.csv), pictures, and one page
    with all of them (report.html).

    Parameters
    ----------
    model
        A folder that `headgate fit forecast` or `headgate forecast` wrote; left out with --compare.
    data
        A table that the model reads, as for fitting; by default the end of the series of the fit.
    row
        Which of several series, from 0.
    names
        Values of the equations to show, with commas, such as i,f,o,c; by default all.
    gradients
        Also the error terms, how the loss changes with each value; how far back the next forecast
        reaches (flow.csv); and what each input adds to it (attribution.csv).
    unit
        Units to draw one by one, from 0.
    steps
        Steps to show, up to the last, or with --compare steps of a row; by default 200.
    format
        That of the table of values.
    compare
        Cells to train side by side, with commas, such as rnn,lstm,gru, in place of a model.
    out
        The folder to write; by default inspect-output, or compare-output.
    as_json
        JSON lines instead of tables.
    """
    if compare:
        if data or row or names or gradients or unit or format != "csv":
            raise CycloptsError(msg="--compare takes a table and no model, no row, names or units")
        from .compare import compare as run

        run(
            _listed(compare), model, table=table, steps=steps or STEPS, **asdict(trained),
            out=out or Path("compare-output"), as_json=as_json,
        )  # fmt: skip
        return
    if model is None:
        raise CycloptsError(msg="name a model folder, or cells with --compare rnn,lstm,gru")
    if trained != TRAINED:
        raise CycloptsError(msg="--hidden-size, --epochs and --seed are for --compare")
    out = out or Path("inspect-output")
    report = InsideReport(as_json)
    with whole_folder(out, FILES) as folder:
        forecaster = Forecaster.load(model)
        panel = forecaster.history_ if data is None else table.read(data)
        report.panel(panel)
        series = chosen(panel.series, row)[0]
        settings, lag = forecaster.settings_, forecaster.preprocessing_.lag
        more = settings.window + lag + forecaster.encoder_.memory
        part = series[max(0, len(series) - (steps or STEPS) - more) :]
        seen = look_inside(
            forecaster, Panel((part,)), names=_listed(names), gradients=gradients
        ).last(steps or STEPS)
        found = Inside.of(seen, reasons(forecaster, Panel((part,))) if gradients else None)
        write(folder, found, unit, format)
    report.inside(found, out)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
