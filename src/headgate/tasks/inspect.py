"""Looking inside: every gate, state and error term of a model while it reads some data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from headgate.data import DataError, Preprocessing, as_panel
from headgate.inspection.observation import Observation
from headgate.inspection.watch import observe, recurrent_of, watched
from headgate.training import Batch

from .encoder import Encoded
from .forecaster import Forecaster
from .intervals import _each
from .reader import Reader
from .sampling import WindowBatches, loss_of


def inspect(
    model: Forecaster | nn.Module | str | Path,
    data: Any = None,
    *,
    row: int | None = None,
    names: Sequence[str] = (),
    gradients: bool = False,
) -> Observation:
    """Everything that happens inside a model while it reads some data once, from fresh states.

    Axes: N rows, T steps, I inputs.

    model: a fitted `Forecaster`, the path of a saved one, or a torch module with one stack of
        Headgate's recurrent layers in it.
    data: for a forecaster, a series or a panel, anything that `headgate.data.as_panel` reads; None:
        the end of the fitted series that it keeps. For a module, an array or tensor (N, T, I), or
        (T, I) for one row, or a list of arrays (Tₙ, I) of different lengths; the module is given
        them in the layout of its recurrent layer (`batch_first`). A module that takes something
        else is for `headgate.inspection.observe`.
    row: this row alone; None: all.
    names: values of the equations, such as ("f", "c"); none means all.
    gradients: also the error terms ∂loss/∂value. A forecaster's loss is that of its training, of
        the forecasts at each step against what came; a module's is the sum of each row's last
        output.

    A forecaster's `series` and `prediction` are in the units of the data, a prediction being the
    forecast of one step that was made the step before. Differences need the first values, so the
    steps begin after them. Of several networks (`members`) it is the first.

    Raises ValueError for a row or a name that does not exist, DataError for data that cannot be
    read, ModelError where the path holds no model.
    """
    if isinstance(model, str | Path):
        model = Forecaster.load(model)
    if isinstance(model, Forecaster):
        return _of_forecaster(model, data, row, names, gradients)
    if isinstance(model, nn.Module):
        return _of_module(model, data, row, names, gradients)
    raise TypeError(
        "inspect: expected a fitted Forecaster, the path of a saved one, or a torch module; got "
        f"{type(model).__name__}"
    )


def _of_forecaster(
    forecaster: Forecaster, data: Any, row: int | None, names: Sequence[str], gradients: bool
) -> Observation:
    check_is_fitted(forecaster, "networks_")
    series = chosen((forecaster.history_ if data is None else as_panel(data)).series, row)
    reader, lag = forecaster._reader, forecaster.preprocessing_.lag
    steps = [forecaster._preprocessing(each) for each in series]
    shortest = min(map(len, series))
    if shortest <= lag:
        raise DataError(
            f"inspect: expected more than {lag} values, which the differences need; got {shortest}"
        )
    encoded = [
        reader.encoder.encode(each, pre, reader.steps, known=0)
        for each, pre in zip(series, steps, strict=True)
    ]
    batch = _whole(encoded, reader)
    inputs, ahead = batch.inputs if isinstance(batch.inputs, tuple) else (batch.inputs, None)
    observation, (raw, _) = watched(
        reader.network,
        inputs,
        [len(each.inputs) for each in encoded],
        names,
        gradients,
        _training_loss(reader, batch),
        {} if ahead is None else {"ahead": ahead},
    )
    first = series[0]
    return replace(
        observation,
        input_names=reader.encoder.names,
        time=[each.time[lag:] for each in series],
        ids=tuple(each.id for each in series),
        series=_padded([each.values[lag:] for each in series]),
        prediction=_padded(
            [
                _expected(reader, output, each, pre)
                for output, each, pre in zip(raw.detach(), encoded, steps, strict=True)
            ]
        ),
        name=(first.id or first.name) if len(series) == 1 else first.name,
        time_name=first.time_name,
    )


def _whole(encoded: Sequence[Encoded], reader: Reader) -> Batch:
    """Each series as one window; targets past its end do not count."""
    more = reader.steps
    longer = [
        replace(
            each,
            inputs=np.pad(each.inputs, ((0, more), (0, 0))),
            level=np.pad(each.level, (0, more), constant_values=np.nan),
        )
        for each in encoded
    ]
    length = max(len(each.inputs) for each in encoded)
    batches = WindowBatches(longer, length, more, local=reader.local, scaled=reader.output.counts)
    return batches.batch(np.arange(batches.windows()))


def _training_loss(reader: Reader, batch: Batch) -> Callable[[Any], Tensor]:
    """From what the network returns to the loss it was trained with."""
    loss = loss_of(reader.output)

    def mean(result: Any) -> Tensor:
        total, count = loss(result[0], batch.targets, batch.valid)
        return total / count.clamp_min(1)

    return mean


def _expected(reader: Reader, raw: Tensor, encoded: Encoded, steps: Preprocessing) -> np.ndarray:
    """(T,) in the series' units: each value as it was forecast one step before; first NaN."""
    output, count = reader.output, len(encoded.inputs) - 1
    scale = torch.tensor(steps.scale if output.counts else 1.0)
    values = reader.middle(raw[:count, : output.parameters].double(), scale)[:, 0].numpy()
    if not output.counts:
        values = _each(steps, encoded.level, np.arange(count) + 1, values)
    return np.concatenate([[np.nan], values])


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """(N, T), NaN past a row's end."""
    found = np.full((len(rows), max(map(len, rows))), np.nan)
    for place, row in zip(found, rows, strict=True):
        place[: len(row)] = row
    return found


def _of_module(
    module: nn.Module, data: Any, row: int | None, names: Sequence[str], gradients: bool
) -> Observation:
    recurrent = recurrent_of(module)
    rows = chosen(_rows(data), row)
    like = next(recurrent.parameters())
    x = pad_sequence([each.to(like) for each in rows], batch_first=recurrent.batch_first)
    lengths = [len(each) for each in rows]
    ragged = lengths if len(set(lengths)) > 1 else None
    return observe(module, x, lengths=ragged, names=names, gradients=gradients)


def _rows(data: Any) -> list[Tensor]:
    """Tensors (Tₙ, I)."""
    whole = None
    if isinstance(data, Tensor | np.ndarray):
        whole = torch.as_tensor(data)
    elif isinstance(data, list | tuple) and data:
        found = [torch.as_tensor(each) for each in data]
        if all(each.dim() == 2 for each in found) and len({e.shape[1] for e in found}) == 1:
            return found
    if whole is not None and whole.dim() in (2, 3):
        return list(whole[None] if whole.dim() == 2 else whole)
    came = type(data).__name__ if whole is None else f"shape {tuple(whole.shape)}"
    raise ValueError(
        "inspect: expected an array (N, T, I) or (T, I), or a list of arrays (T, I) of one width, "
        f"for a module to read; got {came}"
    )


def chosen(rows: Sequence[Any], row: int | None) -> Sequence[Any]:
    """All rows, or one alone; ValueError where there is none of that number."""
    if row is None:
        return rows
    if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < len(rows):
        count = f"{len(rows)} rows, 0 to {len(rows) - 1}" if len(rows) > 1 else "one row, 0"
        raise ValueError(f"inspect: there is no row {row!r}; the data has {count}")
    return rows[row : row + 1]
