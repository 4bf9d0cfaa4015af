from __future__ import annotations

import numpy as np
import pytest

from headgate.data import DataError, cut_windows


def test_each_step_is_followed_by_its_targets() -> None:
    series = np.arange(10.0)
    windows = cut_windows(series[:, None], series, length=4, ahead=3)
    assert windows.inputs.shape == (4, 4, 1)
    assert windows.targets.shape == (4, 4, 3)
    for row in range(4):
        for step in range(4):
            assert windows.inputs[row, step, 0] == row + step
            assert list(windows.targets[row, step]) == [row + step + k for k in (1, 2, 3)]


def test_missing_targets_do_not_count() -> None:
    targets = np.array([0, 1, np.nan, 3, 4])
    windows = cut_windows(np.zeros((5, 1)), targets, length=2, ahead=1)
    assert windows.valid[:, :, 0].tolist() == [[True, False], [False, True], [True, True]]
    assert np.isfinite(windows.targets).all()


def test_the_last_value_is_the_last_target() -> None:
    windows = cut_windows(np.zeros((5, 1)), np.arange(5.0), length=3, ahead=2)
    assert len(windows) == 1
    assert windows.targets[-1, -1].tolist() == [3, 4]


def test_too_short() -> None:
    with pytest.raises(DataError, match="a window of 12 steps and a horizon of 6 need at least 18"):
        cut_windows(np.zeros((10, 1)), np.zeros(10), length=12, ahead=6)
