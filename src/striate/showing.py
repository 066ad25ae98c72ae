"""From a trained network and its data to the pictures and the report that a person looks at."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from . import checkpoint as checkpoints
from . import feature_maps, feeding, files, notation, overlays, pictures, rendering, report
from .analysis import describe
from .datasets import Dataset
from .errors import OptionError
from .layers import Conv
from .metrics import Evaluation, MaskEvaluation
from .options import options_of
from .overlays import Overlap
from .portraits import plural
from .prediction import Classifier, check_classes, load_for, shape_of
from .report import MISTAKES, Followed, Wording
from .splits import NOUNS

OPEN = ("filters", "hidden")  # settled in the network's text, and so is the size, unless that is of patches
SHOWN = ("curves", "accuracy", "confusion", "mistakes", "calibration", "masks", "filters", "columns")
FILES = {"signal": "sound.wav", "series": "series.csv", "volume": "volume.npy"}
WORST = 6
"""How many masks are shown."""
NAMED = 5
"""How many of the files that were left out are named."""
LOOKED_AT = 256
"""Among how many test examples, at even distances, the worst masks are looked for."""


@dataclass(frozen=True)
class Material:
    """All that the pictures and the report are made from.

    Args:
        classifier: The trained network.
        data: What it was trained and tested on.
        evaluation: On the test examples.
        history: Figures of each epoch.
        settings: How it was trained.
        folder: Where the run is kept.
        source: How the data is called on the command line, if it can be.
        example: Which test example is followed through the layers.
    """

    classifier: Classifier
    data: Dataset
    evaluation: Evaluation | MaskEvaluation
    history: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]
    folder: Path
    source: str | None
    example: int = 0

    @property
    def wording(self) -> Wording:
        """What its inputs are called, and what the figures of each epoch were measured on."""
        return Wording(noun_of(self.data), "test" if self.data.validation is None else "validation")


def noun_of(data: Dataset) -> str:
    """What one input of a data set is called: by the kind of its files, else by its shape.

    >>> from striate.datasets import Split
    >>> part = Split(torch.zeros(2, 1, 9), torch.tensor([0, 1]))
    >>> noun_of(Dataset("pulses", ("slow", "fast"), part, part))
    'signal'
    """
    return data.reader.kind if data.reader is not None else NOUNS.get(len(data.shape) - 1, "example")


def material(
    run: str | Path,
    data: str | Path | Dataset | None = None,
    example: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> Material:
    """Read a run and its data again; ``progress`` is called with ``(done, total, what)`` while files are read.

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
        shape_of(found),
        source,
        settings,
        progress,
        any_size=classifier.network.any_size,
    )
    check_classes(classifier.classes, loaded)
    if not 0 <= example < len(loaded.test):
        many = plural(noun_of(loaded))
        raise OptionError(f"example={example}: {loaded.name} has test {many} 0 to {len(loaded.test) - 1}.")
    return Material(
        classifier=classifier,
        data=loaded,
        evaluation=classifier.evaluate(loaded.test, options_of(settings).loss),
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


def overlap_of(m: Material, inputs: Tensor, truth: Tensor, number: int) -> Overlap:
    """One example of masks with what the network says about it.

    Args:
        m: Of a network for masks.
        inputs: ``(C, *spatial)``.
        truth: uint8 ``(*spatial)``.
        number: Of the example.
    """
    said = m.classifier.scores(inputs[None]).argmax(1)[0].byte().cpu()
    return Overlap.of(number, inputs, truth.cpu(), said, m.data.classes)


def worst_masks(m: Material) -> tuple[list[Overlap], int]:
    """The test examples whose masks overlap least with what the network says, worst first, and among how many."""
    count = len(m.data.test)
    step = max(1.0, (count - 1) / max(1, LOOKED_AT - 1))
    places = [round(step * i) for i in range(min(count, LOOKED_AT))]
    worst: list[Overlap] = []
    for place in places:
        inputs, targets = m.data.test.take([place])
        worst = sorted([*worst, overlap_of(m, inputs[0], targets[0], place)], key=lambda one: -one.badness)[:WORST]
    return worst, len(places)


def followed(m: Material) -> Followed:
    """One test example, what every layer makes of it, and where that leads."""
    inputs, targets = m.data.test.take([m.example])
    network = m.classifier.network
    where = next(network.parameters(), torch.empty(0)).device
    network.eval()
    layers = activations(network, m.classifier.normalisation(inputs.to(where)))
    if isinstance(m.evaluation, MaskEvaluation):
        return Followed(layers, inputs[0], overlap=overlap_of(m, inputs[0], targets[0], m.example))
    probabilities = m.evaluation.probabilities[m.example]
    order = probabilities.argsort(descending=True, stable=True).tolist()
    scores = [(m.data.classes[i], probabilities[i].item()) for i in order]
    return Followed(layers, inputs[0], scores, m.data.classes[int(targets[0])])


def mistaken(m: Material) -> dict[int, Tensor]:
    """The inputs of the most confident mistakes, by their numbers; no others are read."""
    worst = m.evaluation.confident_mistakes(MISTAKES) if isinstance(m.evaluation, Evaluation) else []
    return dict(zip(worst, m.data.test.take(worst)[0], strict=True)) if worst else {}


def _train_command(m: Material) -> list[str]:
    """The command line that trains the same network again; none if the data is not to be had by a name."""
    if m.source is None:
        return []
    text = notation.format(m.classifier.network.architecture)
    settled = OPEN if "patch" in m.settings else (*OPEN, "size")
    flags = [flag(name, value) for name, value in m.settings.items() if name not in settled]
    return [" ".join(["striate train", shlex.quote(text), "--data", shlex.quote(m.source), *flags])]


def flag(name: str, value: Any) -> str:
    """An option as it is typed.

    >>> flag("report", False), flag("size", (32, 48)), flag("augment", "shift 2, flip")
    ('--no-report', '--size 32x48', "--augment 'shift 2, flip'")
    """
    typed = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{typed}" if value else f"--no-{typed}"
    if isinstance(value, list | tuple):
        return f"--{typed} {('x' if name in ('size', 'patch') else ',').join(map(str, value))}"
    return f"--{typed} {shlex.quote(str(value))}"


def _facts(m: Material, parameters: int, macs: int | None) -> dict[str, str]:
    """The figures of the headline; what no finished epoch tells is left out."""
    many = m.wording.many
    facts = {
        f"Training {many}": f"{len(m.data.train):,}",
        "Parameters": f"{parameters:,}",
        "Multiply-adds": "unknown" if macs is None else f"{macs:,}",
        "Epochs": f"{len(m.history)}" if m.history else "none finished",
    }
    seconds = sum(figures["seconds"] for figures in m.history)
    if seconds:
        facts["Training time"] = f"{seconds:.1f} s"
        options, count = options_of(m.settings), len(m.data.train)
        shown = feeding.examples_shown(options, count, len(m.history) * feeding.steps_per_epoch(options, count))
        facts[f"{many.capitalize()} per second"] = f"{shown / seconds:,.0f}"
    if m.data.skipped:
        facts["Files left out"] = f"{len(m.data.skipped)}: {'; '.join(m.data.skipped[:NAMED])}"
        facts["Files left out"] += "; …" if len(m.data.skipped) > NAMED else ""
    return facts


def _commands(m: Material) -> list[str]:
    """What can be done with the run, as it is typed."""
    run = shlex.quote(m.folder.as_posix())
    masks = " --masks masks" if m.data.task == "masks" else ""
    data = "" if m.source is not None else " --data FOLDER"
    file = FILES.get(m.wording.noun, "photo.png") if m.classifier.reader is not None else "examples.npy"
    return [f"striate predict {run} {file}{masks}", f"striate evaluate {run}{data}", f"striate show {run}{data}"]


def write_report(m: Material) -> Path:
    """Write ``report.html`` into the run's folder and return its path."""
    described = describe(m.classifier.network, m.data.shape)
    overlaps, looked_at = worst_masks(m) if isinstance(m.evaluation, MaskEvaluation) else ([], 0)
    html = report.render(
        title=m.folder.name,
        facts=_facts(m, described.totals.parameters, described.totals.macs),
        history=m.history,
        evaluation=m.evaluation,
        images=mistaken(m),
        overlaps=overlaps,
        looked_at=looked_at,
        table=described.cells(),
        filters=filters(m.classifier.network),
        followed=followed(m),
        notation=notation.format(m.classifier.network.architecture),
        settings=m.settings,
        commands=_commands(m),
        reproduce=_train_command(m),
        wording=m.wording,
    )
    path = m.folder / "report.html"
    files.write(path, html.encode("utf-8", errors="replace"))
    return path


def lacking(m: Material) -> dict[str, str]:
    """The pictures that there are not of a run, and why."""
    reasons = {}
    if not m.history:
        reasons["curves"] = "no epoch was finished"
    if isinstance(m.evaluation, MaskEvaluation):
        reasons |= dict.fromkeys(("mistakes", "calibration"), "its network gives every pixel a class")
    else:
        reasons["masks"] = "its network gives every example one class"
    if not filters(m.classifier.network):
        reasons["filters"] = "its network has no convolution"
    return reasons


def _drawn(m: Material, name: str) -> dict[str, Figure]:
    """The figures of one of the pictures in :data:`SHOWN`, by the names of their files."""
    seen, noun = m.evaluation, m.wording.noun
    if name == "filters":
        found = filters(m.classifier.network)
        return {f"filters-{layer}": feature_maps.filters(weight, layer) for layer, weight in found}
    if name == "curves":
        return {name: pictures.curves(m.history, judged=m.wording.judged)}
    if name == "confusion":
        return {name: pictures.confusion(seen)}
    if name == "columns":
        one = followed(m)
        layers, x, scores = one.layers, one.inputs, one.scores
        return {name: feature_maps.columns(layers, x, scores, truth=one.truth, overlap=one.overlap, noun=noun)}
    if isinstance(seen, MaskEvaluation):
        if name == "masks":
            return {name: overlays.masks(worst_masks(m)[0], m.data.classes, noun=noun)}
        return {name: overlays.overlap_per_class(seen, unit=overlays.dots(m.data.shape))}
    if name == "mistakes":
        return {name: pictures.mistakes(mistaken(m), seen)}
    return {name: pictures.calibration(seen) if name == "calibration" else pictures.accuracy_per_class(seen)}


def write_pictures(m: Material, folder: Path, which: Sequence[str] = SHOWN) -> list[Path]:
    """Write the report's pictures as PNG files and return their paths.

    Args:
        m: The run.
        folder: Where to.
        which: Names in :data:`SHOWN`; all of them are those that there are.

    Raises:
        OptionError: There is no such picture of this run; the message says why.
        OutputError: A file cannot be written.
    """
    missing = lacking(m)
    if tuple(which) != SHOWN:
        for name in which:
            if name in missing:
                there = ", ".join(one for one in SHOWN if one not in missing)
                raise OptionError(f"there is no picture {name!r} of this run: {missing[name]}; there are {there}.")
    figures: dict[str, Figure] = {}
    for name in SHOWN:
        if name in which and name not in missing:
            figures |= _drawn(m, name)
    for name, figure in figures.items():
        files.write(folder / f"{name}.png", rendering.to_png(figure, margin=0.2))
    return [folder / f"{name}.png" for name in figures]
