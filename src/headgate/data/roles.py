"""Which column of a table is the time, which the values, and which tells series apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from .cells import holds_numbers
from .errors import DataError
from .options import Options
from .times import holds_times, join_time, split_time

MOST_SHOWN = 10
ID, TIME, TARGET = "unique_id", "ds", "y"


@dataclass(frozen=True)
class Roles:
    """The columns by what they are; `time` None: rows are numbered; `id` None: one series a target.

    `listed`: the targets were given as several, so that a series is called by its target.
    """

    time: str | None
    targets: tuple[str, ...]
    listed: bool
    id: str | None


def assign(
    frame: pl.DataFrame, rows: np.ndarray, options: Options, notes: list[str]
) -> tuple[pl.DataFrame, Roles]:
    """What each column is, and the frame, with a column "time" where its parts were joined.

    What one choice only allows is taken, and noted. Raises DataError where a named column is
    absent or named twice, or where several columns could be meant.
    """
    _check_named(frame.columns, options)
    listed = isinstance(options.target, tuple) or options.target == "*"
    given = options.targets
    named = set(given)
    id = options.id
    if id is None and ID in frame.columns and ID not in options.covariates | named | {options.time}:
        id = ID
        notes.append(f"id: column '{ID}'")
    taken = options.covariates | named | ({id} if id else set())
    time = options.time
    if time is None:
        free = frame.select(name for name in frame.columns if name not in taken)
        frame, time = _guess_time(frame, free, rows, notes)
    free = [n for n in frame.columns if n not in taken | {time}]
    if time == "time" and "time" not in free and options.time is None:
        free = [n for n in free if n not in split_time(frame.columns)]
    if options.target == "*":
        targets = tuple(name for name in free if holds_numbers(frame[name]))
        if not targets:
            raise DataError(f"no column holds numbers; the columns are {_listed(frame.columns)}")
        notes.append(f"targets: columns {_listed(targets)}")
    else:
        targets = given or _guess_target(frame, free, notes)
    if id is None and not listed:
        id = _guess_id(frame, time, [n for n in free if n not in targets], notes)
    return frame, Roles(time, targets, listed, id)


def _check_named(columns: list[str], options: Options) -> None:
    if options.target is not None and not options.target:
        raise DataError("target= names no column; name at least one")
    asked = [("time", options.time), ("id", options.id)]
    asked += [("target", name) for name in options.targets]
    asked += [(kind, n) for kind in ("known", "past", "static") for n in getattr(options, kind)]
    seen: dict[str, str] = {}
    for kind, name in asked:
        if name is None:
            continue
        if name not in columns:
            raise DataError(f"there is no column '{name}'; the columns are {_listed(columns)}")
        if name in seen:
            raise DataError(f"column '{name}' is named twice, as {seen[name]}= and {kind}=")
        seen[name] = kind


def _guess_time(
    frame: pl.DataFrame, free: pl.DataFrame, rows: np.ndarray, notes: list[str]
) -> tuple[pl.DataFrame, str | None]:
    if TIME in free.columns:
        notes.append(f"time: column '{TIME}'")
        return frame, TIME
    choices = [column.name for column in free.get_columns() if holds_times(column)]
    parts = split_time(free.columns)
    if parts and set(choices) <= set(parts):
        notes.append(f"time: columns {_listed(parts)} joined")
        return frame.with_columns(join_time(frame, parts, rows)), "time"
    if len(choices) > 1:
        raise DataError(
            f"{len(choices)} columns could be the time: {_listed(choices)}; name one with time="
        )
    notes.append(f"time: column '{choices[0]}'" if choices else "no time column: rows are numbered")
    return frame, choices[0] if choices else None


def _guess_target(frame: pl.DataFrame, free: list[str], notes: list[str]) -> tuple[str]:
    choices = [name for name in free if holds_numbers(frame[name])]
    if TARGET in free:
        choices = [TARGET]
    elif len(free) == 1:
        choices = free
    if len(choices) != 1:
        found = f"{len(choices)} columns hold numbers: {_listed(choices)}"
        if not choices:
            found = f"no column holds numbers; the columns are {_listed(frame.columns)}"
        raise DataError(f"{found}; name the one to forecast with target=, or all with target='*'")
    notes.append(f"target: column '{choices[0]}'")
    return (choices[0],)


def _guess_id(
    frame: pl.DataFrame, time: str | None, free: list[str], notes: list[str]
) -> str | None:
    """The only column of text beside times that repeat."""
    texts = [n for n in free if not holds_numbers(frame[n]) and not holds_times(frame[n])]
    if time is None or len(texts) != 1 or frame[time].n_unique() == frame.height:
        return None
    if frame.select(time, texts[0]).is_duplicated().any():
        return None
    notes.append(f"id: column '{texts[0]}'")
    return texts[0]


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(f"'{name}'" for name in names[:MOST_SHOWN])
    return shown if len(names) <= MOST_SHOWN else f"{shown} and {len(names) - MOST_SHOWN} more"
