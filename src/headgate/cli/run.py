"""From the command line to a verb, and from its errors to one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from headgate.training import NonFiniteLossError

from . import forecast, info

app = App(
    name="headgate",
    help="Gated recurrent networks whose cells are their textbook equations.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)
app.command(forecast.forecast)
app.command(info.info)


def run(arguments: Sequence[str] | None) -> int:
    """The exit code: 0, 1 where data, settings or files are at fault, 2 for wrong usage."""
    try:
        app(arguments)
    except CycloptsError as error:
        return _fail(error, 2, "; see headgate --help")
    except (ValueError, OSError, NonFiniteLossError) as error:
        return _fail(error, 1)
    return 0


def _fail(error: Exception, code: int, hint: str = "") -> int:
    line = " ".join(str(error).split()) or type(error).__name__
    print(f"headgate: {line}{hint}", file=sys.stderr)
    return code
