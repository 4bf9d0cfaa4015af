"""What ``torch.compile`` and ``torch.export`` trace of a layer, and what they leave alone.

The compiler is not imported before it is used, which takes seconds that most programs never need.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch.nn.utils.rnn import PackedSequence

from headgate.nn.record import Record

P = ParamSpec("P")
R = TypeVar("R")


def traced(method: Callable[P, R]) -> Callable[P, R]:
    """A compiled model holds this method of a layer in its graph.

    Where a call cannot be traced (a record, a ``PackedSequence``, transforms of torch.func), the
    graph breaks once around it and it runs as it is; ``torch.export``, whose graph must be whole,
    raises ValueError.
    """

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.compiler.is_compiling():
            return method(*args, **kwargs)
        obstacle = _obstacle(args[1:])
        if obstacle and torch.compiler.is_exporting():
            raise ValueError(f"{type(args[0]).__name__}: cannot export {obstacle}")
        if obstacle:
            disable: Any = torch.compiler.disable
            return disable(method)(*args, **kwargs)
        return method(*args, **kwargs)

    return wrapper


def traced_if_allowed(method: Callable[P, R]) -> Callable[P, R]:
    """``traced`` for subclasses of ``torch.nn.RNNBase``.

    ``torch.compile`` takes none of those into a graph, torch's own included, unless
    ``torch._dynamo.config.allow_rnn`` is set: until then the graph breaks once around them.
    """
    inside = traced(method)

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.compiler.is_compiling():
            return method(*args, **kwargs)
        if torch.compiler.is_dynamo_compiling() and not torch._dynamo.config.allow_rnn:
            disable: Any = torch.compiler.disable
            return disable(method)(*args, **kwargs)
        return inside(*args, **kwargs)

    return wrapper


def _obstacle(arguments: tuple[Any, ...]) -> str | None:
    for argument in arguments:
        if isinstance(argument, Record):
            return "a call with a record; leave record out, and record from the layer itself"
        if isinstance(argument, PackedSequence):
            return "a PackedSequence; give the padded input with lengths="
    depth = torch._C._functorch.get_dynamic_layer_stack_depth()  # pyright: ignore
    if depth > 0 or torch.autograd.forward_ad._current_level >= 0:
        return "inside torch.func or forward mode; export the plain module"
    return None
