"""A bar with losses, learning rate and time left; nothing where there is no terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .stopping import EpochRecord


class Bar:
    """Within it, `show` moves the bar to an epoch. `console` is standard error unless given."""

    def __init__(
        self, epochs: int, shown: bool, done: int = 0, console: Console | None = None
    ) -> None:
        console = console or Console(stderr=True)
        self.progress = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[losses]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self.task = self.progress.add_task("fit", total=epochs, completed=done, losses="")

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def show(self, record: EpochRecord) -> None:
        losses = f"loss {record.train_loss:.4g}"
        if record.validation_loss is not None:
            losses += f"  validation {record.validation_loss:.4g}"
        losses += f"  rate {record.learning_rate:.3g}"
        self.progress.update(self.task, completed=record.epoch, losses=losses)

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
