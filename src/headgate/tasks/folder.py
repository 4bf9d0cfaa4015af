"""Folders that are written whole or not at all, and model folders."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

import headgate

FORMAT_VERSION = 2
WEIGHTS = "model.safetensors"
PARTS = ("config.json", "preprocessing.json", "history.json", "metrics.json")


class ModelError(ValueError):
    """A model folder that cannot be read or written; the message says what to do."""


@contextmanager
def whole_folder(path: str | Path, names: tuple[str, ...]) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends without an error.

    A folder that is already there is replaced, but only where it holds nothing else than `names`.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or {entry.name for entry in path.iterdir()} - {*names}):
        raise ModelError(
            f"{path} exists and holds something else than {', '.join(names)}; choose another folder"
        )
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        with _writable(path):
            made.chmod(0o777 & ~_umask())
            yield made
            if path.exists():
                old = made.with_name(made.name + "-old")
                os.rename(path, old)
                os.rename(made, path)
                shutil.rmtree(old)
            else:
                os.rename(made, path)
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Raise ModelError with the path that was asked for where the system refuses to write."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(
            f"{path} cannot be written: {reason}; choose another place, or make room there"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_model(
    path: str | Path, task: str, network: nn.Module, parts: dict[str, dict[str, Any]]
) -> None:
    """Write a model folder: the parts as JSON, the weights as safetensors."""
    heading = {
        "format_version": FORMAT_VERSION,
        "headgate_version": headgate.__version__,
        "task": task,
    }
    parts = {**parts, "config.json": {**heading, **parts["config.json"]}}
    with whole_folder(path, (*PARTS, WEIGHTS)) as made:
        for name in PARTS:
            text = json.dumps(parts[name], indent=2, ensure_ascii=False, allow_nan=False)
            (made / name).write_text(text + "\n", encoding="utf-8")
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        (made / WEIGHTS).write_bytes(save(weights))


def read_model(path: str | Path, task: str) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """The parts and the weights of a model folder of this task; ModelError where it is none."""
    path = Path(path)
    if not path.is_dir():
        raise ModelError(f"{path}: there is no such model folder")
    config = _read_json(path, "config.json")
    version = config.get("format_version")
    if not isinstance(version, int) or "task" not in config:
        raise ModelError(f"{path}: config.json is not that of a Headgate model")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: the model has format version {version}, this Headgate "
            f"({headgate.__version__}) reads "
            f"up to {FORMAT_VERSION}; install a newer one"
        )
    if version < FORMAT_VERSION:
        raise ModelError(
            f"{path}: the model has format version {version}, written before the first release; "
            "fit it again"
        )
    if config["task"] != task:
        raise ModelError(f"{path}: this is a {config['task']}, a {task} was expected")
    parts = {name: config if name == "config.json" else _read_json(path, name) for name in PARTS}
    try:
        return parts, load_file(path / WEIGHTS)
    except FileNotFoundError:
        raise ModelError(f"{path}: {WEIGHTS} is missing; the folder is incomplete") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: {WEIGHTS} cannot be read: {error}") from None


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((path / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: {name} is missing; this is not a whole model folder") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {name} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: {name} is not that of a Headgate model")
    return content


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends without an error."""
    path = Path(path).absolute()
    if path.is_dir():
        raise ModelError(f"{path} is a folder; name a file")
    made = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with _writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield made
            os.replace(made, path)
    finally:
        with suppress(OSError):
            made.unlink(missing_ok=True)
