"""One file holds all that is needed to predict and to go on training: weights, notation, classes, normalisation.

The format is safetensors: numbers and text, never code. The text that describes the tensors is JSON in its header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from . import files, notation
from .analysis import analyse
from .datasets import Normalisation
from .errors import CheckpointError, StriateError
from .networks import Network, network
from .options import options_of

FORMAT = "striate checkpoint 1"
FILE = "checkpoint.safetensors"
OPTIMIZER = "optimizer/"


class Training(BaseModel):
    """How a network was trained so far.

    Args:
        options: Those of :class:`striate.options.Options`.
        data: The data set's name or folder; None if it was in memory.
        pictures: How many it was trained on.
        digest: Of these pictures and their labels, so that a run goes on with the same ones only.
        history: Figures of each finished epoch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    options: dict[str, Any]
    data: str | None
    pictures: int
    digest: str
    history: list[dict[str, float]]


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, as it stands on disk.

    Args:
        notation: The network's text, complete.
        classes: Names, in the order of the outputs.
        normalisation: What the pictures went through before the first layer.
        weights: The network's state dict.
        optimizer: State tensors of the optimiser, named ``parameter number/state name``.
        training: How it was trained so far, if it is known.
    """

    notation: str
    classes: tuple[str, ...]
    normalisation: Normalisation
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
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
        CheckpointError: A name or shape differs; the message shows the first few.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
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


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the file is either the old one or the new one, never something between.

    Raises:
        OutputError: It cannot be written; an earlier file of the same name is as it was.
    """
    from safetensors.torch import save as serialise

    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in checkpoint.weights.items()}
    tensors |= {OPTIMIZER + name: tensor.detach().contiguous().cpu() for name, tensor in checkpoint.optimizer.items()}
    header = {
        "format": FORMAT,
        "notation": checkpoint.notation,
        "classes": json.dumps(checkpoint.classes),
        "mean": json.dumps(checkpoint.normalisation.mean),
        "std": json.dumps(checkpoint.normalisation.std),
        "training": "null" if checkpoint.training is None else checkpoint.training.model_dump_json(),
    }
    files.write(path, serialise(tensors, metadata=header))


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint; a run's folder means the checkpoint in it.

    Raises:
        CheckpointError: There is no such file, it is damaged, or it was not written by Striate.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise CheckpointError(
            f"{path}: there is no such checkpoint; train one with: striate train lenet5 --data fashion-mnist-mini"
        )
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
    try:
        return _read(header, tensors)
    except (KeyError, TypeError, ValueError, RecursionError, StriateError) as error:
        raise CheckpointError(f"{path}: its description is damaged ({error}).") from None


def _read(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Checkpoint:
    outputs = analyse(notation.parse(header["notation"])).rows[-1].output_shape
    training = None if header["training"] == "null" else Training.model_validate_json(header["training"])
    if training is not None:
        options_of(training.options)
    return Checkpoint(
        notation=header["notation"],
        classes=_names(json.loads(header["classes"]), outputs),
        normalisation=Normalisation(tuple(json.loads(header["mean"])), tuple(json.loads(header["std"]))),
        weights={name: tensor for name, tensor in tensors.items() if not name.startswith(OPTIMIZER)},
        optimizer={
            name.removeprefix(OPTIMIZER): tensor for name, tensor in tensors.items() if name.startswith(OPTIMIZER)
        },
        training=training,
    )


def _names(values: Any, outputs: tuple[int, ...]) -> tuple[str, ...]:
    """The class names: one text for each output, all different."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise CheckpointError(f"class names must be a list of texts, got {values!r:.200}.")
    if len(set(values)) < len(values) or outputs != (len(values),):
        raise CheckpointError(f"{len(set(values))} different class names do not fit the network's output {outputs}.")
    return tuple(values)
