"""The compiled extension, where this installation has one.

Everything works without it. `available` says whether it is there and `reason` why, or why not;
HEADGATE_NATIVE=0 in the environment switches it off.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType


def _load() -> tuple[ModuleType | None, str]:
    if os.environ.get("HEADGATE_NATIVE") == "0":
        return None, "switched off by HEADGATE_NATIVE=0"
    try:
        extension = importlib.import_module("headgate._native")
    except ModuleNotFoundError:
        return None, "not built: install Headgate again where a C++ compiler is found"
    except ImportError as error:
        return None, f"built but cannot be loaded: {error}"
    info = extension.build_info()
    return extension, f"built by {info['compiler']}, C++ {info['cxx_standard']}"


extension, reason = _load()
available = extension is not None


def environment(name: str) -> str:
    """An environment variable's value now, or an empty string."""
    return os.environ.get(name, "") if extension is None else extension.environment(name)
