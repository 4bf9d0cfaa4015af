"""Timing side by side: a subject and its peers take turns, and ratios are of medians."""

from __future__ import annotations

import gc
import operator
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Call = Callable[[], object]
Shape = tuple[int, ...]
SETTLING = 1e-2  # seconds in which waiting threads stop spinning
SHORTEST_SAMPLE = 2e-2  # seconds; shorter calls are repeated within a sample


@dataclass(frozen=True)
class Target:
    """What a ratio must reach: at least a speed over the peer, or at most a share of time.

    The ratio is peer's time ÷ ours where it must be at least the bound, ours ÷ peer's otherwise.
    """

    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"

    def met(self, ratio: float) -> bool:
        return (operator.ge if self.sign == "≥" else operator.le)(ratio, self.bound)


def at_least(bound: float) -> Target:
    return Target("≥", bound)


def at_most(bound: float) -> Target:
    return Target("≤", bound)


@dataclass(frozen=True)
class Measurement:
    """One line of the table. Times are medians in milliseconds; a line that was skipped has none.

    spread: the 10th and 90th percentile of the ratios of neighbouring samples.
    """

    what: str
    shape: Shape = ()
    target: Target | None = None
    ratio: float | None = None
    ours_ms: float | None = None
    peer_ms: float | None = None
    peer: str = ""
    spread: tuple[float, float] | None = None
    samples: int = 0
    skipped: str = ""

    @property
    def met(self) -> bool | None:
        if self.target is None or self.ratio is None:
            return None
        return self.target.met(self.ratio)


@dataclass(frozen=True)
class Options:
    """seconds: for each line. shapes: in place of the table's, in every row."""

    seconds: float = 2.0
    threads: int = 2
    shapes: tuple[Shape, ...] = ()

    def of(self, *table: Shape) -> tuple[Shape, ...]:
        return self.shapes or table


Rows = Iterator[Measurement]


def sample(call: Call, count: int) -> float:
    """Seconds of one call, the mean of `count`."""
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count


def take_turns(
    calls: Sequence[Call], seconds: float, single: bool = False, apart: bool = False
) -> list[list[float]]:
    """Samples of each call in turn, A B A B, until the seconds are over.

    At the least three turns; one where no seconds are given.

    single: a sample is one call however short, and nothing is called beforehand.
    apart: before each sample wait until the other's threads sleep, then call once untimed; for
        calls with thread pools of their own, which else take the cores from each other.
    """
    counts = [1 for _ in calls]
    if not single:
        for call in calls:
            call()
        counts = [max(1, int(SHORTEST_SAMPLE / max(sample(c, 2), 1e-9))) for c in calls]
    found: list[list[float]] = [[] for _ in calls]
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        least = 3 if seconds else 1
        while len(found[0]) < least or time.perf_counter() < end:
            for samples, call, count in zip(found, calls, counts, strict=True):
                if apart:
                    time.sleep(SETTLING)
                    call()
                samples.append(sample(call, count))
    finally:
        gc.enable()
    return found


def compare(
    what: str,
    shape: Shape,
    ours: Call,
    peers: Mapping[str, Call],
    seconds: float,
    target: Target | None = None,
    *,
    scale: float = 1.0,
    single: bool = False,
    apart: bool = False,
) -> Measurement:
    """Ours against the fastest of the peers.

    scale: multiplies the ratio, where the two do not do the same work.
    """
    own, *others = take_turns([ours, *peers.values()], seconds, single, apart)
    medians = [statistics.median(samples) for samples in others]
    best = min(range(len(others)), key=medians.__getitem__)
    over = target is not None and target.sign == "≤"

    def ratio(a: float, b: float) -> float:
        return scale * (a / b if over else b / a)

    pairs = sorted(ratio(a, b) for a, b in zip(own, others[best], strict=True))
    median = statistics.median(own)
    return Measurement(
        what,
        shape,
        target,
        ratio(median, medians[best]),
        median * 1e3,
        medians[best] * 1e3,
        list(peers)[best],
        (pairs[len(pairs) // 10], pairs[len(pairs) * 9 // 10]),
        len(own),
    )


def geometric_mean(what: str, rows: Sequence[Measurement], target: Target) -> Measurement:
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return Measurement(what, (), target, statistics.geometric_mean(ratios))
