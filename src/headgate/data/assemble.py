"""From a table to a panel of series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl

from .calendar import Frequency, grid_of
from .cells import numbers, trimmed
from .errors import DataError
from .mend import Rows, filled, put_on_grid
from .options import Options
from .roles import Roles, assign
from .series import Covariates, Panel, Series, check_values
from .table import Table
from .times import read_times


def panel_of(table: Table, options: Options) -> Panel:
    """The series of a table; see `read_panel` for what is refused."""
    notes = list(table.notes)
    frame, roles = assign(table.frame, table.rows, options, notes)
    code, ids = _ids(frame, roles, table.rows)
    static = {name: _static(frame[name], code, ids, table.rows) for name in options.static}
    rows = _rows(frame, roles, options, table.rows, code, notes)
    if np.any(np.diff(rows.code) < 0):
        rows = rows.take(np.argsort(rows.code, kind="stable"))
    name, step = roles.time or "step", None
    if options.resample:
        rows, step = put_on_grid(rows, options.resample, options.aggregate, name, notes)
    others = set(frame.columns) - {roles.time, *roles.targets, *options.covariates}
    advice = ""
    if roles.id is None and others:
        advice = "; a column that tells several series apart is named by read_panel(…, id=)"
    bounds = list(pairwise(rows.bounds().tolist()))
    steps = [step] * len(bounds) if step else _grids(rows, bounds, name, ids, advice)
    series = []
    for (start, end), frequency in zip(bounds, steps, strict=True):
        place = int(rows.code[start])
        own = {key: values[place] for key, values in static.items()}
        for target in roles.targets:
            each = _series(rows, slice(start, end), target, options, own)
            id = _called(ids[place], target, roles)
            series.append(replace(each, frequency=frequency, time_name=name, id=id))
            _check(series[-1], roles)
    if options.fill:
        series = mended(series, options.fill, notes)
    return Panel(tuple(replace(each, notes=tuple(notes)) for each in series), tuple(notes))


def mended(series: list[Series], how: str, notes: list[str]) -> list[Series]:
    """The same with missing values and covariates mended by `filled`, and a note of how many."""
    before = sum(each.missing for each in series)
    result = []
    for each in series:
        kinds = (each.covariates.known, each.covariates.past)
        known, past = ({key: filled(v, how) for key, v in kind.items()} for kind in kinds)
        covariates = Covariates(known, past, each.covariates.static)
        result.append(replace(each, values=filled(each.values, how), covariates=covariates))
    after = sum(each.missing for each in result)
    notes.append(f"fill='{how}': {before - after} of {before} missing values were filled")
    return result


def _ids(frame: pl.DataFrame, roles: Roles, rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Which series each row belongs to, numbered as they come, and their names."""
    if roles.id is None:
        return np.zeros(frame.height, np.int32), [""]
    text = pl.col(roles.id).cast(pl.String).str.strip_chars()
    column = frame.select(text.replace("", None)).to_series()
    if column.null_count():
        row = rows[int(column.is_null().arg_max() or 0)]
        raise DataError(
            f"column '{roles.id}', row {row}: the id is missing; every row needs its series"
        )
    names = column.unique(maintain_order=True)
    return column.cast(pl.Enum(names)).to_physical().cast(pl.Int32).to_numpy(), names.to_list()


def _rows(
    frame: pl.DataFrame,
    roles: Roles,
    options: Options,
    rows: np.ndarray,
    code: np.ndarray,
    notes: list[str],
) -> Rows:
    def read(name: str) -> np.ndarray:
        values, found = numbers(frame[name], name, rows, options.decimal)
        notes.extend(found)
        return values

    values = {name: read(name) for name in roles.targets}
    covariates = {name: read(name) for name in (*options.known, *options.past)}
    if roles.time is None:
        count = pl.int_range(pl.len(), dtype=pl.Int64).over("code")
        time = pl.DataFrame({"code": code}).select(count).to_series().to_numpy()
        return Rows(code, time, rows, values, covariates)
    time, found = read_times(
        frame[roles.time],
        rows,
        pl.Series(code),
        day_first=options.day_first,
        timezone=options.timezone,
    )
    notes.extend(found)
    return Rows(code, time, rows, values, covariates)


def _grids(
    rows: Rows, bounds: list[tuple[int, int]], name: str, ids: list[str], repeated: str
) -> list[Frequency]:
    """The step of each series; one of a single value takes the first other's."""
    found: list[Frequency | None] = []
    for start, end in bounds:
        part = slice(start, end)
        try:
            grid = grid_of(rows.time[part], name, rows.row[part], repeated=repeated)
        except DataError as error:
            id = ids[int(rows.code[start])]
            raise DataError(f"series '{id}': {error}" if id else str(error)) from None
        found.append(grid if end - start > 1 else None)
    usual = next((grid for grid in found if grid), Frequency())
    return [grid or usual for grid in found]


def _series(
    rows: Rows, part: slice, target: str, options: Options, static: Mapping[str, float | str]
) -> Series:
    """One target of one series; steps after its last value whose `known` are filled lie ahead."""
    values = rows.values[target][part]
    known = {name: rows.covariates[name][part] for name in options.known}
    past = {name: rows.covariates[name][part] for name in options.past}
    length = len(values)
    if known:
        ahead = np.isnan(values)
        for column in known.values():
            ahead = ahead & ~np.isnan(column)
        behind = np.flatnonzero(~ahead)
        length = int(behind[-1]) + 1 if len(behind) else 0
    past = {name: column[:length] for name, column in past.items()}
    covariates = Covariates(known, past, static)
    return Series(values[:length], rows.time[part][:length], name=target, covariates=covariates)


def _called(id: str, target: str, roles: Roles) -> str:
    if not roles.listed:
        return id
    return f"{id}/{target}" if roles.id else target


def _check(series: Series, roles: Roles) -> None:
    try:
        check_values(series.values, series.name)
    except DataError as error:
        raise DataError(f"series '{series.id}': {error}" if roles.id else str(error)) from None


def _static(
    column: pl.Series, code: np.ndarray, ids: list[str], rows: np.ndarray
) -> list[float | str]:
    """Each series' number or category; raises DataError where it changes within a series."""
    name, cells = column.name, trimmed(column)
    if cells.dtype == pl.String:
        as_numbers = cells.cast(pl.Float64, strict=False)
        cells = as_numbers if as_numbers.null_count() == cells.null_count() else cells
    elif cells.dtype.is_numeric() or cells.dtype == pl.Boolean:
        cells = cells.cast(pl.Float64)
    else:
        cells = cells.cast(pl.String)
    frame = pl.DataFrame({"code": code, "row": rows, "cell": cells}).drop_nulls("cell")
    frame = frame.with_columns(first=pl.col("cell").first().over("code"))
    changed = frame.filter(pl.col("cell") != pl.col("first")).head(1)
    if changed.height:
        line = changed.row(0, named=True)
        of = f"series '{ids[line['code']]}': " if ids != [""] else ""
        raise DataError(
            f"{of}column '{name}', row {line['row']}: {line['cell']!r} was {line['first']!r} "
            f"above; a static covariate keeps one value, name a changing one in known= or past="
        )
    empty = np.nan if cells.dtype == pl.Float64 else ""
    found = dict(frame.group_by("code").agg(pl.col("cell").first()).iter_rows())
    return [found.get(place, empty) for place in range(len(ids))]
