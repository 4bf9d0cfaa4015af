"""How good a forecaster is: scores, backtests, intervals that hold what they say, anomalies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from sklearn.utils.validation import check_is_fitted

from headgate.data import Panel, as_panel

from .backtest import Backtest, backtest
from .forecast import Forecasts
from .intervals import margins_of, outside
from .metrics import measures, seasonal_scale

if TYPE_CHECKING:
    from .forecaster import Forecaster

INTERVALS = (0.8, 0.95)


class Judged:
    """What a `Forecaster` is judged by. Not for use by itself."""

    def score(self: Any, data: Any, y: None = None) -> float:
        """Minus the MASE of forecasting the last horizon of each series from the rest; 0 is best.

        The mean over the series.
        """
        steps, scores = self.settings_.horizon, []
        panel = as_panel(data)
        past = Panel(tuple(s[:-steps] for s in panel))
        found = self.predict(steps, series=past, intervals=())
        found = found if isinstance(found, Forecasts) else [found]
        for whole_series, known, forecast in zip(panel, past, found, strict=True):
            scale = seasonal_scale(known.values, self.settings_.season)
            actual = whole_series.values[len(known) :]
            scores.append(measures(actual, forecast.values, scale)["mase"])
        return -float(np.nanmean(scores))

    def backtest(
        self: Any,
        data: Any,
        horizon: int | None = None,
        *,
        origins: int | None = None,
        stride: int | None = None,
        refit: bool = False,
        intervals: Sequence[float] | None = None,
    ) -> Backtest:
        """Forecast from several past origins, beside naive, seasonal naive and drift forecasts.

        A copy is fitted once, on what precedes the first origin, or with `refit` anew at each; from
        each origin it reads only what precedes that one. `origins` are `stride` steps apart (None:
        the horizon), the last forecast ending with each series; None: as many as fit into the last
        quarter of the shortest, at most 10. Intervals are those of the output. This forecaster
        itself is not fitted.
        """
        self.backtest_ = backtest(self, as_panel(data), horizon, origins, stride, refit, intervals)
        return self.backtest_

    def evaluate(
        self: Any,
        data: Any,
        horizon: int | None = None,
        *,
        origins: int | None = None,
        stride: int | None = None,
        intervals: Sequence[float] | None = None,
    ) -> Backtest:
        """This fitted forecaster from several past origins of some series, as `backtest` does.

        Honest only for values that came after those of the fit.
        """
        check_is_fitted(self, "networks_")
        return backtest(self, as_panel(data), horizon, origins, stride, None, intervals)

    def calibrate(
        self: Any, tested: Backtest, intervals: Sequence[float] = INTERVALS
    ) -> Forecaster:
        """Make intervals cover what they promise, from the errors of a backtest.

        Their margins (`margins_`) widen or narrow the output's own intervals, or make some around
        point forecasts, step by step of the horizon: see `headgate.tasks.conformal`. A backtest
        from at least 19 origins (or series) is needed for 95 %; with fewer, steps share theirs.
        """
        self.margins_ = margins_of(tested, intervals)
        return self

    def anomalies(self: Any, data: Any, level: float = 0.99) -> pl.DataFrame:
        """The values outside the interval that was forecast one step before, one row each.

        The intervals are calibrated on these values themselves, so that about 1 − `level` of them
        fall outside; where nothing is odd those are the oddest. Columns: unique_id (of a panel),
        the time, value, expected, lower, upper.
        """
        check_is_fitted(self, "networks_")
        panel = as_panel(data)
        steps = [self._preprocessing(s) for s in panel]
        return outside(self._readers, panel, steps, self.settings_.season, level)
