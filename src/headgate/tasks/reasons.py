"""Why a forecaster says what it says: how far back it can look, and which inputs moved it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from headgate.data import as_panel
from headgate.inspection import Flow, attribute, gradient_flow

from .forecaster import Forecaster
from .reader import Reader


@dataclass(frozen=True, eq=False)
class Reasons:
    """What the forecast after the last value of a series rests on.

    flow: the gradient of the forecast by every state, by steps back. inputs: what the network read
    (T, I), by input_names at the times `time` (T,). attribution: what each of them adds to the
    forecast (T, I), by integrated gradients from zeros: in network units, all steps of the horizon
    together.
    """

    flow: Flow
    inputs: np.ndarray
    attribution: np.ndarray
    input_names: tuple[str, ...]
    time: np.ndarray


def reasons(forecaster: Forecaster, data: Any = None, *, row: int = 0) -> Reasons:
    """The reasons of the forecast that follows a series.

    data: a series or a panel, of which `row` is taken; None: the end of the fitted series.

    Raises DataError for data that cannot be read, IndexError for a row that is not there.
    """
    check_is_fitted(forecaster, "networks_")
    series = (forecaster.history_ if data is None else as_panel(data)).series[row]
    reader, preprocessing = forecaster._reader, forecaster._preprocessing(series)
    encoded = reader.encoder.encode(series, preprocessing, reader.steps, known=0)
    scale = torch.tensor(preprocessing.scale if reader.output.counts else 1.0)
    last = _LastForecast(reader, encoded.ahead, scale)
    x = torch.from_numpy(encoded.inputs)[None]
    return Reasons(
        gradient_flow(last, x, loss=torch.sum),
        encoded.inputs,
        attribute(last, x, method="integrated_gradients", target=lambda total: total)[0],
        reader.encoder.names,
        series.time[preprocessing.lag :],
    )


class _LastForecast(nn.Module):
    """From inputs (N, T, I) to the sum of the steps forecast after the last one (N,)."""

    def __init__(self, reader: Reader, ahead: np.ndarray, scale: Tensor) -> None:
        super().__init__()
        self.network, self.reader, self.scale = reader.network, reader, scale
        self.ahead = torch.from_numpy(ahead[None, -reader.steps :]) if reader.local else None

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, _ = self.network.recurrent(inputs)
        given = [] if self.ahead is None else [self.ahead.expand(len(inputs), -1, -1)]
        raw = self.network.head(hidden[:, -1], *given)
        return self.reader.middle(raw, self.scale).sum(-1)
