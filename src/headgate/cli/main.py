"""From the command line to a verb, and from its errors to one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError
from rich.console import Console

from . import forecast, info

app = App(
    name="headgate",
    help="Gated recurrent networks whose cells are their textbook equations.",
    version_flags=["--version"],
)
app.command(forecast.forecast)
app.command(info.info)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exit 1: data or files at fault, 2: usage, 130: Ctrl-C, else 0."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        errors.print(f"headgate: {_one_line(error)}; see headgate --help", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("headgate: stopped by Ctrl-C; nothing was written", markup=False)
        sys.exit(130)
    except (ValueError, TypeError, OSError, ArithmeticError) as error:
        errors.print(f"headgate: {_one_line(error)}", markup=False)
        sys.exit(1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
