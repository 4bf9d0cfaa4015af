"""Keep ``torch.compile`` out of a function, without importing the compiler before it is used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """A compiled model's graph breaks once around this function, which runs as it is.

    ``torch.compiler.disable`` does this too, but imports the compiler with the library, seconds
    that most programs never need.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            disable: Any = torch.compiler.disable
            return disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapper
