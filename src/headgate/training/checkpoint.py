"""Checkpoints: a folder that a kill at any moment leaves whole.

    folder/latest              the name of the newest whole step
    folder/step-000012/        model, best and optimizer.safetensors; state.json

A step is written under another name, brought to disk and renamed; only then `latest` is replaced,
and only then the steps before it are removed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not belong to this fit."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything a fit needs to go on after a whole epoch.

    `state` is what JSON can hold: epoch, history, configuration. `optimizer` is the optimiser's
    state_dict.
    """

    state: dict[str, Any]
    model: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    best: Mapping[str, Tensor] | None = None


def save_checkpoint(folder: str | os.PathLike[str], step: int, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` as the folder's newest; the one before stays whole until this one is."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{step:06d}"
    draft = folder / f"{name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    _write(draft, checkpoint)
    if (folder / name).exists() and _latest(folder) != name:
        shutil.rmtree(folder / name)
    os.replace(draft, folder / name)
    _sync(folder)
    pointer = folder / "latest.draft"
    pointer.write_text(name, encoding="utf-8")
    _sync(pointer)
    os.replace(pointer, folder / "latest")
    _sync(folder)
    for other in folder.glob("step-*"):
        if other.name != name:
            shutil.rmtree(other, ignore_errors=True)


def load_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint | None:
    """The folder's newest checkpoint, or None. Raises CheckpointError if it is damaged."""
    folder = Path(folder)
    name = _latest(folder)
    if name is None:
        return None
    step = folder / name
    try:
        document = json.loads((step / "state.json").read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise CheckpointError(
                f"checkpoint {step}: expected format {FORMAT}, got {document['format']}; read it "
                "with the version of headgate that wrote it"
            )
        tensors = _read(step / "optimizer.safetensors")
        best = step / "best.safetensors"
        return Checkpoint(
            document["state"],
            _read(step / "model.safetensors"),
            unflatten(document["optimizer"], tensors),
            _read(best) if best.exists() else None,
        )
    except (OSError, KeyError, json.JSONDecodeError, SafetensorError) as error:
        raise CheckpointError(
            f"checkpoint {step}: expected model, optimizer and state.json written by a fit, got "
            f"{error!r}; remove the folder to start again"
        ) from error


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    tensors: dict[str, Tensor] = {}
    document = {
        "format": FORMAT,
        "state": checkpoint.state,
        "optimizer": flatten(checkpoint.optimizer, tensors),
    }
    files = {"model": checkpoint.model, "optimizer": tensors}
    if checkpoint.best is not None:
        files["best"] = checkpoint.best
    for name, values in files.items():
        save_file(on_cpu(values), folder / f"{name}.safetensors")
    (folder / "state.json").write_text(json.dumps(document), encoding="utf-8")
    for file in folder.iterdir():
        _sync(file)
    _sync(folder)


def _read(file: Path) -> dict[str, Tensor]:
    """Tensors in memory of their own: the file may be removed, and sums keep their alignment."""
    return {key: value.clone() for key, value in load_file(file).items()}


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that share nothing, as safetensors wants them."""
    return {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}


def flatten(value: Any, tensors: dict[str, Tensor], place: str = "") -> Any:
    """Dicts, lists, tuples and numbers as JSON; their tensors go to `tensors` by their place."""
    if isinstance(value, Tensor):
        tensors[place] = value
        return {"tensor": place}
    if isinstance(value, dict):
        items = [[key, flatten(item, tensors, f"{place}/{key}")] for key, item in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        items = [flatten(item, tensors, f"{place}/{k}") for k, item in enumerate(value)]
        return {type(value).__name__: items}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(
        f"checkpoint: cannot store {type(value).__name__} at {place}; expected tensors or numbers"
    )


def unflatten(document: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The nest that `flatten` described."""
    ((kind, content),) = document.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unflatten(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](unflatten(item, tensors) for item in content)
    return content


def _latest(folder: Path) -> str | None:
    try:
        return (folder / "latest").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _sync(path: Path) -> None:
    """Bring a file or a folder's entries to the disk."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def same_shapes(model: torch.nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless `saved` holds exactly the model's tensors."""
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    other = {key: tuple(value.shape) for key, value in saved.items()}
    for key in sorted(own.keys() | other.keys()):
        if own.get(key) != other.get(key):
            raise CheckpointError(
                f"resume: expected {key} of shape {own.get(key, 'none')} as in this model, the "
                f"checkpoint has {other.get(key, 'none')}; build the model it was made with, or "
                "remove the folder"
            )
