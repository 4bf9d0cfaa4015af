"""What the inside of a module shows, read off its equations: the way of each state, and its gates.

A state whose next value is a sum of products has a lane: what it starts from, × what keeps or lets
out, + what comes in. So an LSTM's c is a conveyor belt with f and i ∘ g on it, and its h is tanh(c)
behind the gate o. Nothing here knows a cell by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headgate.program import Program
from headgate.program.notation import LEAF_SYMBOLS

KNOWN = {
    ("f", "keep"): "forget gate",
    ("z", "keep"): "update gate",
    ("i", "in"): "input gate",
    ("o", "out"): "output gate",
    ("r", "inside"): "reset gate",
}
"""Gates that bear their usual name where they do what it says."""

ROLES = {"keep": "what stays", "in": "what comes in", "out": "what goes out", "inside": "gate"}


@dataclass(frozen=True)
class Station:
    """Where a lane is changed: ``sign`` ×, + or −, what comes in there, and the term that makes."""

    sign: str
    feeds: tuple[int, ...]
    term: int


@dataclass(frozen=True)
class Lane:
    """The way to the value ``end``. ``carries``: it starts from a state's previous value."""

    start: int
    end: int
    carries: bool
    stations: tuple[Station, ...]


class Inside:
    """The lanes of a Program, which of its values are gates, and what each gate does.

    labels: the nodes that have a line of their own in the equations.
    """

    def __init__(self, program: Program, labels: Mapping[int, object]) -> None:
        self.nodes, self.states = program.nodes, program.states
        self.labels = {i for i in labels if self.nodes[i].op not in LEAF_SYMBOLS}
        self.lanes: list[Lane] = []
        for state in program.states:
            self._add_lane(state.next, self._old(state.name))
        self.lanes.sort(key=lambda lane: lane.end)

    def is_gate(self, index: int) -> bool:
        """Whether the value lies in 0 … 1 by its equation: a sigmoid, 1 − one, a product of two."""
        node = self.nodes[index]
        match node.op:
            case "sigmoid":
                return True
            case "clip":
                return node["low"] >= 0 and node["high"] <= 1
            case "sub":
                one = self.nodes[node.args[0]]
                return one.op == "constant" and one["value"] == 1 and self.is_gate(node.args[1])
            case "mul":
                return all(self.is_gate(a) for a in node.args)
            case "mask":
                return 0 <= node["hit"] <= 1 and 0 <= node["miss"] <= 1
            case "state":
                state = next(s for s in self.states if s.name == node["name"])
                new = self.nodes[state.next].op
                return new == "sigmoid" and 0 <= state.initial <= 1
        return False

    def role(self, index: int) -> str:
        """keep, in or out by its place in the lanes; inside where it has none there."""
        for lane in self.lanes:
            for station in lane.stations:
                if index in station.feeds:
                    through = "keep" if lane.carries else "out"
                    return through if station.sign == "×" else "in"
        return "inside"

    def called(self, index: int, name: str) -> str:
        """What the gate is called or does, in a word or two."""
        role = self.role(index)
        return KNOWN.get((name, role), ROLES[role])

    def rest(self) -> list[int]:
        """Named values that stand in no lane."""
        shown: set[int] = set()
        for lane in self.lanes:
            shown |= {lane.start, lane.end}
            for station in lane.stations:
                shown |= {station.term, *station.feeds}
        return sorted(self.labels - shown)

    def _old(self, state: str) -> int:
        """The node of a state's previous value."""
        nodes = enumerate(self.nodes)
        return next(i for i, n in nodes if n.op == "state" and n["name"] == state)

    def _add_lane(self, end: int, old: int) -> None:
        """The lane to a value, and those of named values on the way that carry the state too."""
        found = self._terms(end, "+", root=True)
        terms = [(sign, i, self._factors(i, old, end)) for sign, i in found]
        first = next((t for t in terms if t[0] == "+" and old in t[2]), terms[0])
        sign, term, factors = first
        carries = old in factors
        start = old if carries else self._flow(factors)
        through = list(factors)
        through.remove(start)
        stations = [Station("×", tuple(through), term)] if through else []
        stations += [Station(t[0], tuple(t[2]), t[1]) for t in terms if t is not first]
        if not stations or sign == "−":
            return
        self.lanes.append(Lane(start, end, carries, tuple(stations)))
        for feed in {feed for station in stations for feed in station.feeds} & self.labels:
            if any(
                old in self._factors(i, old, feed) for _, i in self._terms(feed, "+", root=True)
            ):
                self._add_lane(feed, old)

    def _flow(self, factors: list[int]) -> int:
        """What the others let through: the first factor that is no gate, if there is one."""
        return next((i for i in factors if not self.is_gate(i)), factors[0])

    def _terms(self, index: int, sign: str, *, root: bool = False) -> list[tuple[str, int]]:
        node = self.nodes[index]
        if node.op not in ("add", "sub", "neg") or (index in self.labels and not root):
            return [(sign, index)]
        turned = {"+": "−", "−": "+"}[sign]
        signs = {"add": (sign, sign), "sub": (sign, turned), "neg": (turned,)}[node.op]
        return [t for a, s in zip(node.args, signs, strict=True) for t in self._terms(a, s)]

    def _factors(self, index: int, old: int, end: int) -> list[int]:
        """The factors of a product; one with a name is opened where the old state is in it."""
        node = self.nodes[index]
        closed = index in self.labels and index != end and old not in node.args
        if node.op != "mul" or closed:
            return [index]
        return [factor for a in node.args for factor in self._factors(a, old, end)]
