"""A script as a user would write it, for the tests that need processes of their own.

    fit_script.py JOBS     runs every job of a JSON list, one after the other
    fit_script.py          reads one job a line; each runs in a process of its own, forked from this
                           one, whose imports are done, and its exit code is printed

A job is {"out": file, "checkpoint": folder or null, …}, the rest being settings of `train`; or
{"folder": folder}, to save checkpoints until killed. With "kill_after" the job's process is killed
after so many seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from headgate.training import (
    ArrayBatches,
    Checkpoint,
    FitConfig,
    fit,
    load_checkpoint,
    save_checkpoint,
)


class Net(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layer = nn.GRU(2, 6, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor, state: Tensor | None = None, lengths: Tensor | None = None):
        y, state = self.layer(x, state)
        return self.head(self.dropout(y)), state


class Interrupted(ArrayBatches):
    """Batches during whose third epoch the process of the highest rank is sent a Ctrl-C."""

    def epoch(self, k, generator):
        for number, batch in enumerate(super().epoch(k, generator)):
            last = os.environ.get("RANK", "0") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1)
            if (k, number) == (2, 1) and last:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch


def train(checkpoint: str | None = None, dropout: float = 0.0, interrupt=False, **settings) -> dict:
    """Nine rows in batches of four: the last batch has one row."""
    torch.manual_seed(0)
    x = torch.randn(9, 8, 2, dtype=torch.float64)
    y = 0.3 * x[..., :1].cumsum(1) - 0.2 * x[..., 1:]
    lengths = torch.tensor([8, 3, 8, 1, 6, 8, 2, 8, 5])
    net = Net(dropout).double()
    kind = Interrupted if interrupt else ArrayBatches
    result = fit(
        net,
        kind(x, y, lengths, batch_size=4),
        loss="mse",
        config=FitConfig(**settings),
        validation=ArrayBatches(x + 0.1, y, lengths, batch_size=2),
        checkpoint=checkpoint,
        resume=checkpoint is not None,
    )
    history = [(r.train_loss, r.validation_loss, r.gradient_norm) for r in result.history]
    weights = [p.flatten().tolist() for p in net.parameters()]
    return {"reason": result.stop_reason, "history": history, "weights": weights}


def work(out: str, **settings) -> None:
    document = train(**settings)
    Path(f"{out}.{os.environ.get('RANK', 0)}").write_text(json.dumps(document))


def save(folder: str) -> None:
    found = load_checkpoint(folder)
    step = found.state["epoch"] if found else 0
    while True:
        step += 1
        tensors = {"w": torch.full((2000,), float(step))}
        save_checkpoint(folder, step, Checkpoint({"epoch": step}, tensors, tensors, tensors))


def serve() -> None:
    torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)  # imports what optimisers need
    for line in sys.stdin:
        job = json.loads(line)
        seconds = job.pop("kill_after", None)
        child = os.fork()
        if not child:
            save(**job) if "folder" in job else work(**job)
            os._exit(0)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 1:
        serve()
    else:
        for job in json.loads(sys.argv[1]):
            work(**job)
