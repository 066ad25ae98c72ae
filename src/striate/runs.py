"""A run: from a network's text and a data set to a folder with checkpoint, figures and report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

from . import checkpoint as checkpoints
from . import datasets, files, notation, showing, training, zoo
from .analysis import analyse
from .architecture import DEFAULTS, Architecture
from .checkpoint import Checkpoint, Training
from .datasets import Dataset, Normalisation
from .errors import CheckpointError, OptionError, OutputError
from .metrics import Evaluation
from .networks import Network
from .operations import BatchNorm
from .options import Options, options_of
from .prediction import check_classes
from .training import Trainer, Watcher


@dataclass(frozen=True)
class Run:
    """The outcome of training.

    Args:
        folder: Where everything was written.
        checkpoint: The file that predicts and resumes.
        report: The page to look at.
        metrics: "accuracy" and "loss" on the test pictures after the last epoch.
        images_per_second: Training pictures per second, evaluation and reading not counted.
        history: One mapping per epoch.
        evaluation: Of the last epoch, on the test pictures.
    """

    folder: Path
    checkpoint: Path
    report: Path
    metrics: dict[str, float]
    images_per_second: float
    history: tuple[dict[str, float], ...]
    evaluation: Evaluation = field(repr=False)


def train(
    network: str | Path | Architecture | None = None,
    data: str | Path | Dataset | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Watcher | None = None,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
    **options: Any,
) -> Run:
    """Train a network on labelled pictures and write a run: checkpoint, metrics, report.

    Args:
        network: Notation text, zoo name or file. A zoo network is adapted to the data's shape and classes; of a text,
            only what it leaves open.
        data: A data set's name or folder, or one in memory.
        out: The run's folder; None makes a new one under ``runs/``.
        resume: The folder of an interrupted run: it goes on as if it had never stopped. ``epochs`` may be raised
            under the constant schedule.
        progress: Called with ``(done, total, what)``.
        on_epoch: Called with the figures of each finished epoch.
        **options: Fields of :class:`Options`.

    Raises:
        OptionError: An option cannot be used.
        NotationError: The text cannot be read.
        DataError: The data cannot be used; the message names the file.
        CheckpointError: The run cannot be resumed.
        OutputError: The run cannot be written.
    """
    if resume is not None:
        start, folder = _resumed(resume, network, data, out, options, progress), Path(resume)
    else:
        start = _fresh(network, data, options, progress)
        folder = _new_folder(out, start.name)
    trainer = _trainer(start)
    tick = progress or (lambda done, total, what: None)
    _save(folder, start, trainer)
    evaluation = None
    try:
        while len(trainer.history) < start.options.epochs:
            evaluation = trainer.epoch(tick)
            _save(folder, start, trainer)
            if on_epoch is not None:
                on_epoch(trainer.history[-1])
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Stopped after {len(trainer.history)} of {start.options.epochs} epochs, which are kept in {folder}; "
            f"go on with: striate train --resume {shlex.quote(str(folder))}"
        ) from None
    return _finish(folder, start, trainer, evaluation)


@dataclass(frozen=True)
class _Start:
    """Everything that a run needs, settled."""

    name: str
    options: Options
    data: Dataset
    source: str | None
    architecture: Architecture
    normalisation: Normalisation
    checkpoint: Checkpoint | None = None

    @cached_property
    def digest(self) -> str:
        """Of the training pictures and their labels."""
        return _digest(self.data)


def _fresh(network: Any, data: Any, given: Mapping[str, Any], progress: Watcher | None) -> _Start:
    if network is None or data is None:
        raise OptionError(
            "name a network and a data set to train, as in striate train lenet5 --data fashion-mnist-mini, "
            "or striate.train('lenet5', 'fashion-mnist-mini')."
        )
    options = options_of(given)
    if hasattr(network, "architecture") and not isinstance(network, Architecture):
        raise OptionError(
            "train starts weights of its own, from a text, a zoo name or a file, and got a network that has some; "
            "give striate.notation.format(network.architecture) to train its text anew."
        )
    paper = zoo.architecture(network)
    named = not isinstance(network, Architecture) and str(network) in zoo.names()
    loaded = data if isinstance(data, Dataset) else _loaded(data, None if named else paper, options, progress)
    if named:
        paper = paper.adapted(loaded.shape, len(loaded.classes))
    bound = paper.bind(filters=options.filters, hidden=options.hidden)
    known: dict[str, Any] = DEFAULTS | {"input": loaded.shape, "classes": len(loaded.classes)}
    bound = bound.bind(**{name: known[name] for name in bound.open})
    _check_fit(bound, loaded)
    _check_batches(bound, options, len(loaded.train))
    source = None if isinstance(data, Dataset) else _source(data)
    name = f"{network if named else 'network'}-{loaded.name}"
    return _Start(name, options, loaded, source, bound, Normalisation.of(loaded.train.inputs))


def _source(data: str | Path) -> str:
    """A data set's own name, or its folder's whole path, so that it is found again from anywhere."""
    return str(data) if data in datasets.BUNDLED else str(Path(data).expanduser().resolve())


def _check_batches(paper: Architecture, options: Options, count: int) -> None:
    """Refuse a batch of one picture where batch normalisation would have a single value for each channel."""
    size = count if options.batch_size == "full" else min(options.batch_size, count)
    lone = size == 1 or count % size == 1
    for node, row in zip(paper, analyse(paper).rows, strict=True):
        if lone and isinstance(node.operation, BatchNorm) and prod(row.output_shape[1:]) == 1:
            raise OptionError(
                f"{node.name} cannot normalise a batch of 1 picture, which batch_size={options.batch_size} leaves of "
                f"{count}; give another batch_size, or leave out BN."
            )


def _loaded(data: Any, paper: Architecture | None, options: Options, progress: Watcher | None) -> Dataset:
    """The data set, at the size that the text or the options ask for."""
    channels, size = None, options.size
    if paper is not None and paper.input_shape is not None:
        channels, *spatial = paper.input_shape
        if len(spatial) != 2:
            raise OptionError(
                f"INPUT {paper.input_shape} is not a picture (C, H, W); pictures are what can be trained on."
            )
        if size is not None and tuple(spatial) != size:
            raise OptionError(
                f"size={size} contradicts the network's INPUT {paper.input_shape}; leave one of them out."
            )
        size = (spatial[0], spatial[1])
    return datasets.load(data, channels=channels, size=size, seed=options.seed, progress=progress)


def _check_fit(paper: Architecture, data: Dataset) -> None:
    if paper.input_shape != data.shape:
        raise OptionError(f"the network takes {paper.input_shape}, the pictures of {data.name} are {data.shape}.")
    if paper.classes != len(data.classes):
        ending = f"ends in {paper.classes} scores" if paper.classes else "has no FC layer to end in"
        count = len(data.classes)
        raise OptionError(f"the network {ending}, but {data.name} has {count} classes; end it in FC, or FC {count}.")


def _resumed(
    resume: str | Path, network: Any, data: Any, out: Any, given: Mapping[str, Any], progress: Watcher | None
) -> _Start:
    """Where an interrupted run stands."""
    found = checkpoints.load(Path(resume))
    path = Path(resume)
    if out is not None:
        raise OptionError(f"{path}: a resumed run stays in its folder; leave out={str(out)!r} out.")
    if not path.is_dir() or found.training is None:
        raise CheckpointError(f"{path}: resume takes the folder of a run.")
    stored = options_of(found.training.options)
    if network is not None and zoo.architecture(network) != (kept := notation.parse(found.notation)):
        raise CheckpointError(
            f"{path}: holds another network, {notation.format(kept)}; leave the network out to resume it."
        )
    options = options_of(stored.model_dump() | dict(given))
    changed = [name for name, value in stored if name != "epochs" and getattr(options, name) != value]
    if changed:
        raise OptionError(f"{path}: a run goes on with its own {', '.join(changed)}; start a new run to change that.")
    if options.epochs != stored.epochs and options.schedule != "constant":
        raise OptionError(
            f"{path}: its schedule was laid out for {stored.epochs} epochs; "
            "only a run with the constant schedule can be prolonged."
        )
    if options.epochs < len(found.training.history):
        raise OptionError(f"{path}: {len(found.training.history)} epochs are done already, more than {options.epochs}.")
    source = found.training.data if data is None else data
    if source is None:
        raise OptionError(f"{path}: was trained on data in memory; give it again.")
    paper = notation.parse(found.notation)
    loaded = (
        source
        if isinstance(source, Dataset)
        else _loaded(source, paper, options.model_copy(update={"size": None}), progress)
    )
    check_classes(found.classes, loaded)
    if (count := len(loaded.train)) != found.training.pictures:
        raise CheckpointError(
            f"{path}: was trained on {found.training.pictures} pictures, {loaded.name} has {count} now; "
            "a run can only go on with the same data."
        )
    if _digest(loaded) != found.training.digest:
        raise CheckpointError(
            f"{path}: the pictures or labels of {loaded.name} have changed since it was trained; "
            "a run can only go on with the same data."
        )
    source = None if isinstance(source, Dataset) else _source(source)
    return _Start(path.name, options, loaded, source, paper, found.normalisation, found)


def _digest(data: Dataset) -> str:
    """Of the training pictures and their labels."""
    digest = sha256(data.train.inputs.contiguous().numpy().data)
    digest.update(data.train.targets.contiguous().numpy().data)
    return digest.hexdigest()


def _new_folder(out: str | Path | None, name: str) -> Path:
    if out is not None:
        folder = Path(out)
        if folder.exists() and not folder.is_dir():
            raise OptionError(f"{out}: is a file; a run needs a folder of its own.")
        if (folder / checkpoints.FILE).exists():
            raise OptionError(f"{out}: holds a run already; resume it, or choose another folder.")
        if folder.exists() and any(folder.iterdir()):
            raise OptionError(f"{out}: is not empty; a run needs a folder of its own.")
        return folder
    number = 1
    while True:
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error.strerror}); name a folder with out.") from None


def _trainer(start: _Start) -> Trainer:
    """The network and optimiser, as new or as the checkpoint left them."""
    try:
        with training.randomness(start.options.seed, -1):
            network = Network(start.architecture)
    except RuntimeError as error:
        if "alloc" not in str(error):
            raise
        count = analyse(start.architecture).totals.parameters
        raise OptionError(f"the network's {count:,} parameters need more memory than there is.") from None
    history: list[dict[str, float]] = []
    if start.checkpoint and start.checkpoint.training:
        history = start.checkpoint.training.history
        checkpoints.fit(network, start.checkpoint.weights)
    trainer = Trainer(network, start.data, start.normalisation, start.options, history)
    if start.checkpoint:
        training.restore(trainer.optimizer, start.checkpoint.optimizer)
    return trainer


def _save(folder: Path, start: _Start, trainer: Trainer) -> None:
    """Write the checkpoint, then the figures of all epochs, each under a temporary name first."""
    content = Checkpoint(
        notation=notation.format(start.architecture),
        classes=start.data.classes,
        normalisation=start.normalisation,
        weights=trainer.network.state_dict(),
        optimizer=training.state(trainer.optimizer),
        training=Training(
            options=start.options.model_dump(mode="json"),
            data=start.source,
            pictures=len(start.data.train),
            digest=start.digest,
            history=trainer.history,
        ),
    )
    checkpoints.save(folder / checkpoints.FILE, content)
    lines = "".join(json.dumps(figures) + "\n" for figures in trainer.history)
    files.write(folder / "metrics.jsonl", lines.encode())


def _finish(folder: Path, start: _Start, trainer: Trainer, last: Evaluation | None) -> Run:
    """Write the report and sum up."""
    evaluation = last or trainer.classifier.evaluate(start.data.test, start.options.loss)
    seconds = sum(figures["seconds"] for figures in trainer.history)
    settings = start.options.settled()
    history = tuple(trainer.history)
    material = showing.Material(trainer.classifier, start.data, evaluation, history, settings, folder, start.source)
    return Run(
        folder=folder,
        checkpoint=folder / checkpoints.FILE,
        report=showing.write_report(material),
        metrics={"accuracy": evaluation.accuracy, "loss": evaluation.loss},
        images_per_second=len(start.data.train) * len(history) / max(seconds, 1e-9),
        history=history,
        evaluation=evaluation,
    )
