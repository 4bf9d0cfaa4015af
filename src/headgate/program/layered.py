"""A layered drawing of a small graph: where each box stands, and by which way each line goes.

Boxes stand in columns, each right of all that it reads (longest path). A line that passes a column
takes a slot of its own there, so lines meet boxes only at their ends. Slots are ordered by
barycentres with the fewest crossings found (Sugiyama, Tagawa & Toda, 1981); heights are means of
the neighbours' that keep order and distance. One path, the belt, is straight along the top; what
else goes into it comes from below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import fsum, inf

APART = 16.0
"""Room between two slots of a column."""
GAP = 46.0
"""Room between two columns, in which lines change their height."""
ON_BELT, RISING, BELOW = range(3)


@dataclass(frozen=True)
class Box:
    """What is placed: its size, the room that a label right of it needs, and what it reads.

    ``late`` boxes stand just before their first reader, ``last`` ones in the last column.
    """

    width: float
    height: float
    label: float
    args: tuple[int, ...]
    late: bool = False
    last: bool = False


@dataclass(frozen=True)
class Line:
    """From one box to another: the stretches (left, right, y) on which it is level, in order.

    ``rises`` where it ends by turning up into the belt at the right end of its last stretch.
    """

    start: int
    end: int
    levels: tuple[tuple[float, float, float], ...]
    rises: bool


@dataclass
class _Slots:
    """Boxes, then the places that lines take in columns: one entry each in every list.

    ``ways`` are the places of each line between its ends, one in each column it passes.
    """

    column: list[int] = field(default_factory=list)
    height: list[float] = field(default_factory=list)
    rank: list[int] = field(default_factory=list)
    before: list[list[int]] = field(default_factory=list)
    after: list[list[int]] = field(default_factory=list)
    ways: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def add(self, column: int, rank: int, height: float = 0.0) -> int:
        self.column.append(column)
        self.rank.append(rank)
        self.height.append(height)
        self.before.append([])
        self.after.append([])
        return len(self.column) - 1

    def link(self, way: Sequence[int]) -> None:
        for a, b in pairwise(way):
            if b not in self.after[a]:
                self.after[a].append(b)
                self.before[b].append(a)

    def apart(self, a: int, b: int) -> float:
        """The least distance of two neighbours in a column."""
        return (self.height[a] + self.height[b]) / 2 + APART

    def level(self, a: int, b: int) -> bool:
        """Whether the line from a to b is best level: nothing else joins it or leaves it."""
        line = self.height[a] == self.height[b] == 0
        return b in self.after[a] and (line or len(self.after[a]) == len(self.before[b]) == 1)


def arrange(
    boxes: Sequence[Box], belt: Sequence[int]
) -> tuple[list[tuple[float, float]], list[Line]]:
    """The centre of each box, and the lines. ``belt`` is a path of boxes, from first to last."""
    slots = _slots(boxes, belt)
    y = _heights(slots, _order(slots))
    spans = _spans(boxes, slots)
    middles = [(left + right) / 2 for left, right, _ in spans]
    centres = [(middles[c], y[i]) for i, c in enumerate(slots.column[: len(boxes)])]
    lines = []
    for (start, end), way in slots.ways.items():
        x, level = centres[start]
        levels = [(x + boxes[start].width / 2, spans[slots.column[start]][2], level)]
        rises = bool(way) and slots.rank[way[-1]] == RISING
        for place in way:
            left, _, end_of_label = spans[slots.column[place]]
            turn = rises and place == way[-1]
            levels.append((left, middles[slots.column[place]] if turn else end_of_label, y[place]))
        if not rises:
            x, level = centres[end]
            levels.append((spans[slots.column[end]][0], x - boxes[end].width / 2, level))
        lines.append(Line(start, end, tuple(levels), rises))
    return centres, lines


def _slots(boxes: Sequence[Box], belt: Sequence[int]) -> _Slots:
    slots = _Slots()
    for index, column in enumerate(_longest_paths(boxes)):
        slots.add(column, ON_BELT if index in belt else BELOW, boxes[index].height)
    along = set(pairwise(belt))
    shared: dict[tuple[int, int], int] = {}
    for end, box in enumerate(boxes):
        for start in box.args:
            way, columns = [], range(slots.column[start] + 1, slots.column[end])
            if (start, end) in along:
                way = [slots.add(column, ON_BELT) for column in columns]
                slots.link([start, *way, end])
            else:
                for column in columns:
                    if (start, column) not in shared:
                        shared[start, column] = slots.add(column, BELOW)
                    way.append(shared[start, column])
                if end in belt:
                    way.append(slots.add(slots.column[end], RISING))
                slots.link([start, *way] if end in belt else [start, *way, end])
            slots.ways[start, end] = way
    return slots


def _longest_paths(boxes: Sequence[Box]) -> list[int]:
    """The column of each box."""
    column: dict[int, int] = {}

    def place(index: int) -> int:
        if index not in column:
            column[index] = 1 + max(map(place, boxes[index].args), default=-1)
        return column[index]

    for index, box in enumerate(boxes):
        if not box.last:
            place(index)
    end = 1 + max(column.values(), default=0)
    column |= {index: end for index, box in enumerate(boxes) if box.last}
    for index, box in enumerate(boxes):
        if box.late:
            column[index] = (
                min((column[i] for i in column if index in boxes[i].args), default=1) - 1
            )
    return [column[index] for index in range(len(boxes))]


def _order(slots: _Slots) -> list[list[int]]:
    """The slots of each column from top to bottom."""
    columns: list[list[int]] = [[] for _ in range(max(slots.column) + 1)]
    for slot, column in enumerate(slots.column):
        columns[column].append(slot)
    for column in columns:
        column.sort(key=lambda s: slots.rank[s])
    best, fewest = [*map(list, columns)], _crossings(slots, columns)
    for sweep in range(16):
        rightwards = sweep % 2 == 0
        for column in columns if rightwards else reversed(columns):
            _by_barycentre(slots, columns, column, slots.before if rightwards else slots.after)
        crossings = _crossings(slots, columns)
        if crossings < fewest:
            best, fewest = [*map(list, columns)], crossings
    return best


def _by_barycentre(
    slots: _Slots, columns: list[list[int]], column: list[int], neighbours: list[list[int]]
) -> None:
    place = {slot: k for other in columns for k, slot in enumerate(other)}

    def key(slot: int) -> tuple[int, float]:
        near = [place[n] for n in neighbours[slot]]
        return slots.rank[slot], sum(near) / len(near) if near else place[slot]

    column.sort(key=key)


def _crossings(slots: _Slots, columns: list[list[int]]) -> int:
    total = 0
    for left, right in pairwise(columns):
        place = {slot: k for k, slot in enumerate(right)}
        ends = [sorted(place[b] for b in slots.after[a]) for a in left]
        for k, upper in enumerate(ends):
            total += sum(a > b for lower in ends[k + 1 :] for a in upper for b in lower)
    return total


def _heights(slots: _Slots, columns: list[list[int]]) -> list[float]:
    """The height of each slot: near its neighbours', and the same along a run.

    The sums are fsum's, which are the same on every Python.
    """
    y = [0.0] * len(slots.column)
    near = [
        [(n, 8.0 if slots.level(slot, n) or slots.level(n, slot) else 1.0) for n in both]
        for slot, both in enumerate(map(list.__add__, slots.before, slots.after))
    ]
    for sweep in range(100):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wanted = [y[slot] for slot in column]
            for k, slot in enumerate(column):
                if near[slot] and sweep:
                    weight = fsum(pull for _, pull in near[slot])
                    wanted[k] = fsum(y[n] * pull for n, pull in near[slot]) / weight
            _settle(slots, column, y, wanted)
    for _ in range(4):
        for run in _runs(slots):
            _level(slots, columns, y, run)
    _close_up(slots, columns, y)
    return y


def _close_up(slots: _Slots, columns: list[list[int]], y: list[float]) -> None:
    """Everything below the belt moves up to it."""
    tops = [(c[0], c[1]) for c in columns if len(c) > 1 and slots.rank[c[0]] == ON_BELT]
    free = min((y[b] - slots.apart(a, b) for a, b in tops), default=0.0)
    for slot, rank in enumerate(slots.rank):
        y[slot] -= free if rank != ON_BELT else 0.0


def _settle(slots: _Slots, column: list[int], y: list[float], wanted: list[float]) -> None:
    """The heights nearest to the wanted ones that keep order and distance: isotonic regression.

    What is on the belt stays at height 0, and the rest below it.
    """
    offsets = [0.0]
    for a, b in pairwise(column):
        offsets.append(offsets[-1] + slots.apart(a, b))
    belt = slots.rank[column[0]] == ON_BELT
    blocks: list[tuple[float, int]] = []
    for k in range(belt, len(column)):
        mean, size = wanted[k] - offsets[k], 1
        while blocks and blocks[-1][0] > mean:
            other, number = blocks.pop()
            mean, size = (mean * size + other * number) / (size + number), size + number
        blocks.append((mean, size))
    settled = [0.0] * belt + [mean for mean, size in blocks for _ in range(size)]
    for slot, offset, mean in zip(column, offsets, settled, strict=True):
        y[slot] = offset + (max(mean, 0.0) if belt else mean)


def _runs(slots: _Slots) -> list[list[int]]:
    """Slots in a row that are best at one height, the longest runs first."""
    below = [slot for slot, rank in enumerate(slots.rank) if rank != ON_BELT]
    following = {a: b for a in below for b in slots.after[a] if slots.level(a, b)}
    runs = []
    for first in set(following) - set(following.values()):
        run = [first]
        while run[-1] in following:
            run.append(following[run[-1]])
        runs.append(run)
    return sorted(runs, key=lambda run: (-len(run), run))


def _level(slots: _Slots, columns: list[list[int]], y: list[float], run: list[int]) -> None:
    """Bring a run to one height, in pieces where its neighbours leave no room for all of it."""
    pieces: list[tuple[list[int], float, float]] = [([], -inf, inf)]
    for slot in run:
        column = columns[slots.column[slot]]
        k = column.index(slot)
        low = y[column[k - 1]] + slots.apart(column[k - 1], slot) if k else -inf
        high = y[column[k + 1]] - slots.apart(slot, column[k + 1]) if column[k + 1 :] else inf
        piece, lowest, highest = pieces[-1]
        if max(low, lowest) <= min(high, highest):
            pieces[-1] = ([*piece, slot], max(low, lowest), min(high, highest))
        else:
            pieces.append(([slot], low, high))
    for piece, low, high in pieces:
        mean = fsum(y[slot] for slot in piece) / len(piece) if piece else 0.0
        for slot in piece:
            y[slot] = min(max(mean, low), high)


def _spans(boxes: Sequence[Box], slots: _Slots) -> list[tuple[float, float, float]]:
    """Of each column: where its boxes begin and end, and where their labels end."""
    spans, x = [], 0.0
    for column in range(max(slots.column) + 1):
        here = [box for box, c in zip(boxes, slots.column, strict=False) if c == column]
        right = x + max((box.width for box in here), default=0.0)
        spans.append((x, right, right + max((box.label for box in here), default=0.0)))
        x = spans[-1][2] + GAP
    return spans
