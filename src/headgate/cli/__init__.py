"""The command `headgate`: one file a verb."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exit 1: data or files at fault, 2: usage, 130: Ctrl-C, else 0."""
    try:
        from .run import run

        sys.exit(run(arguments))
    except KeyboardInterrupt:
        print("headgate: stopped by Ctrl-C; nothing was written", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: CPython overrides its code where the interrupt came inside an exec().
        os._exit(130)
