from __future__ import annotations

import io

from rich.console import Console

from headgate.training import ArrayBatches, EpochRecord, FitConfig, fit
from headgate.training.progress import Bar


def test_the_bar_shows_losses_rate_and_time_left() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with Bar(4, True, console=console) as bar:
        bar.show(EpochRecord(2, 0.25, 0.5, 0.01, 1.0, 3.0))
    text = screen.getvalue()
    for part in ("2/4", "loss 0.25", "validation 0.5", "rate 0.01", ":"):
        assert part in text


def test_it_is_silent_where_there_is_no_terminal(make_net, data, capfd) -> None:
    fit(make_net(), ArrayBatches(*data), loss="mse", config=FitConfig(epochs=2))
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")


def test_it_can_be_switched_off() -> None:
    screen = io.StringIO()
    with Bar(4, False, console=Console(file=screen, force_terminal=True)) as bar:
        bar.show(EpochRecord(2, 0.25, None, 0.01, 1.0, 3.0))
    assert screen.getvalue() == ""
