"""A cell of one's own, from its equations to a forecast: minimal gated unit on monthly passengers.

python examples/forecast_own_cell.py
"""

from __future__ import annotations

from pathlib import Path

from headgate import Forecaster, Record, cell, sigmoid, tanh
from headgate.data import read_series

DATA = Path(__file__).parent / "data" / "air_passengers.csv"


@cell
def mgu(x, h, *, W, R, b):
    """Minimal gated unit (Zhou, Wu, Zhang & Zhou 2016)."""
    f = sigmoid(W.f @ x + R.f @ h + b.f)
    n = tanh(W.n @ x + R.n @ (f * h) + b.n)
    h = (1 - f) * h + f * n
    return h


def main() -> None:
    series = read_series(DATA)
    forecaster = Forecaster(mgu, horizon=12)
    for row in forecaster.backtest(series).table:
        print(f"{row['model']:16} MAPE {row['mape']:5.2f} %   MASE {row['mase']:.2f}")

    record = Record("f")
    forecast = forecaster.fit(series).predict(record=record)
    for month, value in zip(forecast.time, forecast.values, strict=True):
        print(f"{str(month)[:7]}  {value:5.0f} thousand passengers")
    print(f"its gate stood open at {record['f'].mean():.0%} on average")


if __name__ == "__main__":
    main()
