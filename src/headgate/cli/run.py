"""From the command line to a verb, and from its errors to one line and an exit code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Toml

from headgate.training import NonFiniteLossError

app = App(
    name="headgate",
    help="Gated recurrent networks whose cells are their textbook equations.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)
VERBS = {
    "forecast": ("forecast", "Forecast the series of a table, beside naive forecasts."),
    "fit": ("app", "Fit a model of one task and write its folder."),
    "predict": ("predict", "Forecast with a model folder."),
    "evaluate": ("evaluate", "Judge a model folder on later data, beside naive forecasts."),
    "inspect": ("inspect", "Look inside a model: every gate, state and error term."),
    "info": ("info", "Versions, threads, the compiled part, and the engine that would run."),
}
for verb, (function, text) in VERBS.items():  # imported when it is used: each takes its time
    app.command(f"headgate.cli.{verb}:{function}", name=verb, help=text)

app.meta.suppress_keyboard_interrupt = False


@app.meta.default
def with_config(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Path | None = None,
) -> None:
    """Options of a verb may also stand in a TOML file; the command line goes first.

    Parameters
    ----------
    config
        A TOML file with options of the verb, such as epochs = 40.
    """
    app.config = () if config is None else _file(config)
    app(tokens)


def _file(path: Path) -> Toml:
    if not path.is_file():
        raise ValueError(f"--config {path}: there is no such file")
    return Toml(path, must_exist=True, use_commands_as_keys=False)


OPTION = re.compile(
    r"\b(time|target|id|known|past|static|layout|decimal|day_first|timezone|resample|aggregate|fill"
    r"|season|transform|difference|lags|strategy|output|horizon|harmonics)=(?=([\w'\"*])?)"
)
"""How the library's errors write an option that the command line spells --option."""


def run(arguments: Sequence[str] | None) -> int:
    """The exit code: 0, 1 where data, settings or files are at fault, 2 for wrong usage."""
    try:
        app.meta(arguments)
    except CycloptsError as error:
        return _fail(error, 2, "; see headgate --help")
    except BrokenPipeError:  # as with `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, NonFiniteLossError) as error:
        return _fail(error, 1)
    return 0


def _fail(error: Exception, code: int, hint: str = "") -> int:
    line = " ".join(str(error).split()) or type(error).__name__
    line = OPTION.sub(_option, line)
    print(f"headgate: {line}{hint}", file=sys.stderr)
    return code


def _option(found: re.Match[str]) -> str:
    option = f"--{found[1].replace('_', '-')}"
    return f"{option} " if found[2] else option
