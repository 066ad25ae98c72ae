"""From a trained network and its data to the pictures and the report that a person looks at."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import checkpoint as checkpoints
from . import files, notation, pictures, rendering, report
from .analysis import describe
from .datasets import Dataset
from .errors import OptionError
from .layers import Conv
from .options import options_of
from .prediction import Classifier, check_classes, load_for

OPEN = ("filters", "hidden", "size")  # settled in the network's text
SHOWN = ("curves", "accuracy", "confusion", "mistakes", "calibration", "filters", "columns")


@dataclass(frozen=True)
class Material:
    """All that the pictures and the report are made from.

    Args:
        classifier: The trained network.
        data: What it was trained and tested on.
        evaluation: On the test pictures.
        history: Figures of each epoch.
        settings: How it was trained.
        folder: Where the run is kept.
        source: How the data is called on the command line, if it can be.
        example: Which test picture is followed through the layers.
    """

    classifier: Classifier
    data: Dataset
    evaluation: Any
    history: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]
    folder: Path
    source: str | None
    example: int = 0


def material(
    run: str | Path,
    data: str | Path | Dataset | None = None,
    example: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> Material:
    """Read a run and its data again; ``progress`` is called with ``(done, total, what)`` while pictures are read.

    Raises:
        CheckpointError: The run cannot be read.
        DataError: The data cannot be used.
        OptionError: There is no such example.
    """
    found = checkpoints.load(run)
    classifier = Classifier.load(found)
    settings = options_of(found.training.options).changed() if found.training else {}
    source = data if data is not None or found.training is None else found.training.data
    loaded = load_for(
        found.reader.shape if found.reader else classifier.network.input_shape, source, settings, progress
    )
    check_classes(classifier.classes, loaded)
    if not 0 <= example < len(loaded.test):
        raise OptionError(f"example={example}: {loaded.name} has test pictures 0 to {len(loaded.test) - 1}.")
    return Material(
        classifier=classifier,
        data=loaded,
        evaluation=classifier.evaluate(loaded.test, settings.get("loss", "softmax")),
        history=tuple(found.training.history if found.training else ()),
        settings=settings,
        folder=Path(run) if Path(run).is_dir() else Path(run).parent,
        source=None if isinstance(source, Dataset) else str(source),
        example=example,
    )


@torch.no_grad()
def activations(network: nn.Module, x: Tensor) -> list[tuple[str, Tensor]]:
    """The output of every layer for one example, in the order of computation.

    Args:
        network: Of named layers.
        x: ``(1, C, *spatial)``.
    """
    outputs: list[tuple[str, Tensor]] = []

    def keeping(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            result = output[0] if isinstance(output, tuple) else output  # a pooling may give its switches, too
            outputs.append((name, result[0].clone().cpu()))  # copied at once: the next layer may write over it

        return keep

    layers = ((name, layer) for name, layer in network.named_modules() if name and not any(layer.children()))
    hooks = [layer.register_forward_hook(keeping(name)) for name, layer in layers]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def filters(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Name and weights of every convolution, in order."""
    return [(name, layer.weight.detach().cpu()) for name, layer in network.named_modules() if isinstance(layer, Conv)]


def _columns(m: Material) -> tuple[Sequence[tuple[str, Tensor]], Tensor, list[tuple[str, float]], str]:
    image, truth = m.data.test.inputs[m.example], m.data.classes[int(m.data.test.targets[m.example])]
    network = m.classifier.network
    where = next(network.parameters()).device
    layers = activations(network, m.classifier.normalisation(image[None]).to(where))
    probabilities = m.evaluation.probabilities[m.example]
    order = probabilities.argsort(descending=True, stable=True).tolist()
    return layers, image, [(m.data.classes[i], probabilities[i].item()) for i in order], truth


def _train_command(m: Material) -> list[str]:
    """The command line that trains the same network again; none if the data is not to be had by a name."""
    if m.source is None:
        return []
    text = notation.format(m.classifier.network.architecture)
    flags = [_flag(name.replace("_", "-"), value) for name, value in m.settings.items() if name not in OPEN]
    return [" ".join(["striate train", shlex.quote(text), "--data", shlex.quote(m.source), *flags])]


def _flag(name: str, value: Any) -> str:
    """An option as it is typed."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    if isinstance(value, list | tuple):
        return f"--{name} {('x' if name == 'patch' else ',').join(map(str, value))}"
    return f"--{name} {shlex.quote(str(value))}"


def write_report(m: Material) -> Path:
    """Write ``report.html`` into the run's folder and return its path."""
    described = describe(m.classifier.network)
    seconds = sum(figures["seconds"] for figures in m.history)
    speed = len(m.data.train) * len(m.history) / max(seconds, 1e-9)
    run = shlex.quote(m.folder.as_posix())
    facts = {
        "Training pictures": f"{len(m.data.train):,}",
        "Parameters": f"{described.totals.parameters:,}",
        "Multiply-adds": f"{described.totals.macs:,}",
        "Epochs": f"{len(m.history)}",
        "Training time": f"{seconds:.1f} s",
        "Pictures per second": f"{speed:,.0f}",
    }
    html = report.render(
        title=m.folder.name,
        facts=facts,
        history=m.history,
        evaluation=m.evaluation,
        images=m.data.test.inputs,
        table=described.cells(),
        filters=filters(m.classifier.network),
        columns=_columns(m),
        notation=notation.format(m.classifier.network.architecture),
        settings=m.settings,
        commands=[f"striate predict {run} photo.png", f"striate evaluate {run}", f"striate show {run}"],
        reproduce=_train_command(m),
    )
    path = m.folder / "report.html"
    files.write(path, html.encode("utf-8", errors="replace"))
    return path


def write_pictures(m: Material, folder: Path, which: Sequence[str] = SHOWN) -> list[Path]:
    """Write the report's pictures as PNG files and return their paths.

    Raises:
        OutputError: A file cannot be written.
    """
    figures: dict[str, Any] = {}
    if "curves" in which and m.history:
        figures["curves"] = pictures.curves(m.history)
    if "accuracy" in which:
        figures["accuracy"] = pictures.accuracy_per_class(m.evaluation)
    if "confusion" in which:
        figures["confusion"] = pictures.confusion(m.evaluation)
    if "mistakes" in which:
        figures["mistakes"] = pictures.mistakes(m.data.test.inputs, m.evaluation)
    if "calibration" in which:
        figures["calibration"] = pictures.calibration(m.evaluation)
    if "filters" in which:
        figures |= {f"filters-{name}": pictures.filters(weight, name) for name, weight in filters(m.classifier.network)}
    if "columns" in which:
        layers, image, scores, truth = _columns(m)
        figures["columns"] = pictures.columns(layers, image, scores, truth=truth)
    for name, figure in figures.items():
        files.write(folder / f"{name}.png", rendering.to_png(figure, margin=0.2))
    return [folder / f"{name}.png" for name in figures]
