"""Every value of a step, the unnamed ones between the names as well."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headgate.engines.evaluate import Weights, operation
from headgate.inspection.observation import Layer
from headgate.program import Program
from headgate.program.program import Node


def step_values(layer: Layer, row: int, length: int, reverse: bool) -> dict[int, np.ndarray]:
    """The value (T, width) of each node of the Program, (1, width) where it never changes.

    Steps stand in the order in which the cell read them. Recorded values are taken as they are, and
    the others are computed from them, in float64: nothing is run through time again.
    """
    read = slice(None, None, -1) if reverse else slice(None)

    def taken(array: np.ndarray) -> Tensor:
        steps = np.ascontiguousarray(np.asarray(array)[row, :length][read], np.float64)
        return torch.from_numpy(steps)

    states = {name: taken(values) for name, values in layer.states.items()}
    known = _recorded(layer.program, {k: taken(v) for k, v in layer.values.items()} | states)
    before = {
        name: torch.cat([_first(layer.initial[name][row]), values[:-1]])
        for name, values in states.items()
    }
    found = _Values(layer, taken(layer.input), before)
    for index, (node, width) in enumerate(
        zip(layer.program.nodes, layer.program.widths, strict=True)
    ):
        found.nodes[index] = known[index] if index in known else found.of(node, width)
    return {index: value.numpy() for index, value in found.nodes.items()}


def _recorded(program: Program, values: dict[str, Tensor]) -> dict[int, Tensor]:
    """Recorded values by their node; what is only another name for a leaf is left out."""
    places = {name: program.names[name] for name in values}
    return {
        index: values[name]
        for name, index in places.items()
        if program.nodes[index].op not in ("input", "state")
    }


def _first(initial: np.ndarray) -> Tensor:
    return torch.as_tensor(np.asarray(initial, np.float64))[None]


class _Values:
    """The table of values while it is filled, node by node."""

    def __init__(self, layer: Layer, x: Tensor, before: dict[str, Tensor]) -> None:
        self.nodes: dict[int, Tensor] = {}
        self.x, self.before, self.sizes = x, before, layer.sizes
        tensors = {k: torch.as_tensor(np.asarray(v, np.float64)) for k, v in layer.weights.items()}
        self.weights = Weights(layer.program, tensors, layer.sizes)

    def of(self, node: Node, width: str) -> Tensor:
        match node.op:
            case "input":
                return self.x
            case "state":
                return self.before[node["name"]]
            case "parameter":
                return self.weights.vector(node["family"], node["block"])[None]
            case "constant":
                return self.x.new_full((1, 1), node["value"])
            case "mask":  # what evaluation takes in its place
                mean = node["rate"] * node["hit"] + (1 - node["rate"]) * node["miss"]
                return self.x.new_full((1, self.sizes.get(width, 1)), mean)
            case "product":
                return self._product(node)
            case "layer_norm":
                return self._layer_norm(node)
        return operation(node)(*(self.nodes[a] for a in node.args))

    def _product(self, node: Node) -> Tensor:
        operand = torch.cat(self._as_long(node), dim=-1)
        rows = self.weights.rows[node["family"]][node["block"]]
        return F.linear(operand, self.weights.families[node["family"]][rows])

    def _layer_norm(self, node: Node) -> Tensor:
        members = self._as_long(node)
        whole = torch.cat(members, dim=-1)
        variance = whole.var(-1, keepdim=True, correction=0)
        value = members[node["part"]] - whole.mean(-1, keepdim=True)
        return value / torch.sqrt(variance + node["eps"])

    def _as_long(self, node: Node) -> list[Tensor]:
        """The operands, each with as many steps as the longest."""
        values = [self.nodes[a] for a in node.args]
        steps = max(value.shape[0] for value in values)
        return [value.expand(steps, -1) for value in values]
