"""One file holds all that is needed to predict and to go on training: weights, notation, classes, normalisation.

The format is safetensors: numbers and text, never code. The text that describes the tensors is JSON in its header.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from . import files, notation
from .datasets import Normalisation
from .errors import CheckpointError, StriateError
from .networks import Network, network
from .options import options_of
from .readers import TYPES, Reader

FORMAT = "striate checkpoint 4"
FILE = "checkpoint.safetensors"
BEST = "best.safetensors"
OPTIMIZER, RAW = "optimizer/", "raw/"
TASKS = ("classes", "masks")
FIGURES = ("epoch", "train_loss", "train_accuracy", "loss", "accuracy", "seconds")
"""What is known of each finished epoch, at least."""

Count = Annotated[int, Field(ge=0)]
Figure = Annotated[int, Field(gt=-(2**63), lt=2**63)] | float  # what is larger becomes infinite


@dataclass
class Sums:
    """What an epoch adds up, so that it can be left in the middle and gone on with.

    Args:
        step: Steps of the epoch that are done.
        totals: Of each term of the loss.
        counts: What these are divided by.
        right: Examples or pixels that were recognised, and how many there were.
        seconds: Spent.
    """

    step: Count = 0
    totals: list[float] = field(default_factory=list)
    counts: list[float] = field(default_factory=list)
    right: tuple[float, float] = (0.0, 0.0)
    seconds: float = 0.0

    @property
    def loss(self) -> float:
        """The mean so far."""
        return sum(total / count if count else 0.0 for total, count in zip(self.totals, self.counts, strict=True))


class Training(BaseModel):
    """How a network was trained so far.

    Args:
        options: Those of :class:`striate.options.Options`.
        data: The data set's name or folder; None if it was in memory.
        examples: How many it was trained on.
        digest: Of these examples and their targets, so that a run goes on with the same ones only.
        history: Figures of each finished epoch.
        sums: Of the epoch that was begun.
        updates: How often the moving average of the weights was updated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, ser_json_inf_nan="constants")

    options: dict[str, Any]
    data: str | None
    examples: Count
    digest: str
    history: list[dict[str, Figure]]
    sums: Sums = Sums()
    updates: Count = 0


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, as it stands on disk.

    Args:
        notation: The network's text, complete.
        classes: Names, in the order of the outputs.
        normalisation: What the pictures went through before the first layer.
        weights: The network's state dict.
        reader: How a file becomes an input; None if it was trained on arrays that no file gives.
        dtype: Of the inputs before normalisation: "uint8", "int16" or "float32".
        task: "classes" or "masks".
        optimizer: State tensors of the optimiser, named ``parameter number/state name``.
        raw: The weights themselves, where ``weights`` are their moving average.
        training: How it was trained so far, if it is known.
    """

    notation: str
    classes: tuple[str, ...]
    normalisation: Normalisation
    weights: Mapping[str, Tensor]
    reader: Reader | None = None
    dtype: str = "uint8"
    task: str = "classes"
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    raw: Mapping[str, Tensor] = field(default_factory=dict)
    training: Training | None = None

    def network(self) -> Network:
        """Build the network and give it the weights.

        Raises:
            CheckpointError: The weights are of another network than the notation says.
        """
        with torch.device("meta"):  # nothing is allocated until the weights are known to fit
            built = network(self.notation)
        fit(built, self.weights, assign=True)
        return built.eval()


def fit(built: Network, weights: Mapping[str, Tensor], *, assign: bool = False) -> None:
    """Load weights into a network, exactly.

    Args:
        built: The network.
        weights: Its state dict.
        assign: Take copies of these tensors in place of the network's own, which may have no memory yet.

    Raises:
        CheckpointError: A name, shape or number type differs; the message shows the first few.
    """
    wanted, found = _signatures(built.state_dict()), _signatures(weights)
    differences = [
        f"{name} is {found.get(name, 'missing')} in the file, {wanted.get(name, 'not there')} in the network"
        for name in [*wanted, *(name for name in found if name not in wanted)]
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise CheckpointError(
            f"the weights belong to another network than {notation.format(built.architecture)}: "
            f"{'; '.join(differences[:3])}{more}."
        )
    built.load_state_dict({name: tensor.clone() for name, tensor in weights.items()}, assign=assign)


def _signatures(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Shape and type of each."""
    return {name: f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for name, t in tensors.items()}


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the file is either the old one or the new one, never something between.

    Raises:
        OutputError: It cannot be written; an earlier file of the same name is as it was.
    """
    from safetensors.torch import save as serialise

    groups = {"": checkpoint.weights, OPTIMIZER: checkpoint.optimizer, RAW: checkpoint.raw}
    tensors = {
        group + name: tensor.detach().contiguous().cpu()
        for group, entries in groups.items()
        for name, tensor in entries.items()
    }
    header = {
        "format": FORMAT,
        "notation": checkpoint.notation,
        "classes": json.dumps(checkpoint.classes),
        "task": checkpoint.task,
        "reader": json.dumps(None if checkpoint.reader is None else checkpoint.reader.to_dict()),
        "dtype": checkpoint.dtype,
        "mean": json.dumps(checkpoint.normalisation.mean),
        "std": json.dumps(checkpoint.normalisation.std),
        "training": "null" if checkpoint.training is None else checkpoint.training.model_dump_json(),
    }
    files.write(path, serialise(tensors, metadata=header | {"digest": digest(tensors, header)}))


def digest(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """SHA-256 of the description and of all numbers, in the order of their names; a digest in the header is left out.

    >>> digest({}, {"task": "masks"}) == digest({}, {"task": "classes"})
    False
    """
    entries = sorted((name, text) for name, text in header.items() if name != "digest")
    shapes = sorted(_signatures(tensors).items())
    found = hashlib.sha256(json.dumps([entries, shapes]).encode())
    for name in sorted(tensors):
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _instead(named: Path) -> str:
    """What to type in place of a run that is not there: its neighbour of nearly that name, or how to get one."""
    folder = named.parent if named.name in (FILE, BEST) else named
    try:
        known = [] if os.path.lexists(folder) else [found.parent.name for found in folder.parent.glob(f"*/{FILE}")]
    except (OSError, ValueError):
        known = []
    near = [folder.name] if named != folder and files.is_file(folder / FILE) else get_close_matches(folder.name, known)
    if near:
        return f"did you mean {folder.parent / near[0]}?"
    return "train one with: striate train lenet5 --data fashion-mnist-mini"


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint; a run's folder means the checkpoint in it.

    Raises:
        CheckpointError: There is no such file, it is damaged, or it was not written by Striate.
    """
    from safetensors import SafetensorError, safe_open

    named = Path(path)
    path = named / FILE if files.is_folder(named) else named
    if not files.is_file(path):
        raise CheckpointError(f"{path}: there is no such checkpoint; {_instead(named)}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as safetensors ({error}); it is damaged or of another kind."
        ) from None
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: holds weights, but not the network, classes and normalisation that a Striate checkpoint holds "
            f"(its format is {header.get('format')!r}, expected {FORMAT!r})."
        )
    if header.get("digest") != digest(tensors, header):
        raise CheckpointError(f"{path}: is damaged: its numbers or its description are not those that were written.")
    try:
        return _read(header, tensors)
    except (KeyError, TypeError, ValueError, RecursionError, StriateError) as error:
        raise CheckpointError(f"{path}: its description is damaged ({error}).") from None


def _read(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Checkpoint:
    paper = notation.parse(header["notation"])
    outputs = paper.shapes()[paper.results[0]]
    if header["task"] not in TASKS:
        raise CheckpointError(f"its task is {header['task']!r}, expected {' or '.join(TASKS)}.")
    if header["dtype"] not in TYPES:
        raise CheckpointError(f"its inputs are {header['dtype']!r}, expected one of {', '.join(TYPES)}.")
    described = json.loads(header["reader"])
    return Checkpoint(
        notation=header["notation"],
        classes=_names(json.loads(header["classes"]), outputs, header["task"]),
        normalisation=Normalisation(_channels(header["mean"]), _channels(header["std"])),
        weights={name: tensor for name, tensor in tensors.items() if not name.startswith((OPTIMIZER, RAW))},
        reader=None if described is None else Reader.from_dict(described),
        dtype=header["dtype"],
        task=header["task"],
        optimizer=_below(OPTIMIZER, tensors),
        raw=_below(RAW, tensors),
        training=None if header["training"] == "null" else _training(header["training"]),
    )


def _training(written: str) -> Training:
    """How it was trained; the message names the first entry that cannot be."""
    try:
        found = Training.model_validate_json(written)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, ("training", *first["loc"])))
        raise CheckpointError(f"{place}: {first['msg'].lower()}, got {first['input']!r:.60}") from None
    for number, figures in enumerate(found.history, 1):
        if missing := [name for name in FIGURES if name not in figures]:
            raise CheckpointError(f"training.history: epoch {number} has no {', '.join(missing)}")
        if figures["epoch"] != number:
            raise CheckpointError(f"training.history: epoch {number} is called {figures['epoch']}")
    terms = len(options_of(found.options).loss.split("+"))
    held = len(found.sums.totals), len(found.sums.counts)
    if held not in ((0, 0), (terms, terms)):
        raise CheckpointError(f"training.sums: {held[0]} totals and {held[1]} counts for a loss of {terms}")
    return found


def _channels(written: str) -> tuple[float, ...]:
    """A number for each channel; one that is too large for a float is infinite."""
    return tuple(json.loads(written, parse_int=float))


def _below(group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a group, by their own names."""
    return {name.removeprefix(group): tensor for name, tensor in tensors.items() if name.startswith(group)}


def _names(values: Any, outputs: tuple[int, ...], task: str) -> tuple[str, ...]:
    """The class names: one text for each output, or map of outputs, all different."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise CheckpointError(f"class names must be a list of texts, got {values!r:.200}.")
    scores = outputs[:1] if task == "masks" and outputs[1:] else outputs if task == "classes" else ()
    if len(set(values)) < len(values) or scores != (len(values),):
        raise CheckpointError(f"{len(set(values))} different class names do not fit the network's output {outputs}.")
    return tuple(values)
