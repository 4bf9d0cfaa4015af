"""Peak memory of training steps, in a process of its own (Linux).

    python -m benchmarks.peak_memory torch 200 64 512 512

Prints the bytes that the steps needed at their peak beyond what the process held before. The
process's own peak is set back before the steps, since `ru_maxrss` would hold the imports' peak and,
where the process was forked, its parent's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.timing import Shape

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
STEPS = 2


def available() -> bool:
    return STATUS.exists() and CLEAR.exists()


def status(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"{STATUS} has no field {field}")


def measure(who: str, shape: Shape, threads: int) -> int:
    """Bytes at the peak of `who`'s training steps, one of "torch" and "headgate"."""
    command = [sys.executable, "-m", "benchmarks.peak_memory", who, *map(str, shape), str(threads)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def main(who: str, *numbers: str) -> None:
    import torch

    import headgate
    from benchmarks.subjects import like_torch, training

    *shape, threads = map(int, numbers)
    torch.set_num_threads(threads)
    family = {"torch": torch.nn, "headgate": headgate}[who]
    warm = (2, 2, *shape[2:])
    module = like_torch(family, "LSTM", warm)
    training(module, warm)()  # libraries make their lasting buffers
    step = training(module, tuple(shape))
    CLEAR.write_text("5")
    before = status("VmRSS")
    for _ in range(STEPS):
        step()
    print(status("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
