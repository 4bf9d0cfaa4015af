"""Forecasts of real series against published results: `python -m benchmarks.forecast --help`."""
