"""A run: from a network's text and a data set to a folder with checkpoints, figures and report."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from . import checkpoint as checkpoints
from . import feeding, files, machine, notation, optimizing, processes, range_test, showing, starts, training
from .architecture import Architecture
from .checkpoint import Checkpoint, Training
from .datasets import Dataset
from .errors import CheckpointError, OptionError, OutputError
from .options import TEXTS, read_config, written_config
from .prediction import Classifier
from .processes import Engine, Group
from .readers import counted, reader_of
from .starts import Start
from .training import Measured, Trainer, Watcher

CONFIG = "config.toml"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Run:
    """The outcome of training.

    Args:
        folder: Where everything was written.
        checkpoint: The file that predicts and resumes: the last weights.
        best: The weights of the epoch that did best on the examples to judge by.
        report: The page to look at, if there is one.
        metrics: "accuracy" and "loss" on the test examples after the last epoch, and "iou" for masks.
        images_per_second: Training examples per second, evaluation and reading not counted.
        history: One mapping per epoch.
        finished: Whether all epochs are done; else the time was up, and the run can be resumed.
        evaluation: Of the last weights, on the test examples.
        judged_by: The part on which the "loss" and "accuracy" of every epoch in ``history`` were measured: "validation"
            or "test".
        skipped: Messages about the files that were left out, each with its name.
        notes: Sentences about what was found out on the way, and why the run ended before its last epoch.
    """

    folder: Path
    checkpoint: Path
    best: Path
    report: Path | None
    metrics: dict[str, float]
    images_per_second: float
    history: tuple[dict[str, float], ...]
    finished: bool
    evaluation: Measured = field(repr=False)
    judged_by: str
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def train(
    network: str | Path | Architecture | None = None,
    data: str | Path | Dataset | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    config: str | Path | None = None,
    progress: Watcher | None = None,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    engine: Engine | None = None,
    **options: Any,
) -> Run:
    """Train a network on labelled examples and write a run: checkpoints, config, metrics, report.

    Under ``torchrun`` or SLURM the same call trains with all processes, with the numbers of one.
    Ctrl-C and SIGTERM end the step and keep the run; a second one ends it at once.

    Args:
        network: Notation text, zoo name or file. A zoo network is adapted to the data's shape and classes; of a text,
            only what it leaves open.
        data: A data set's name or path, or one in memory.
        out: The run's folder; None makes a new one under ``runs/``.
        resume: The folder of an interrupted run: it goes on as if it had never stopped. ``epochs`` may be raised
            under the constant schedule.
        config: A TOML file with any of the above and of the options; what is given here goes before it.
        progress: Called with ``(done, total, what)``.
        on_epoch: Called with the figures of each finished epoch; "part" is the one that they were measured on.
        on_note: Called, before the first step, with a sentence about each thing that was found out: a learning rate, or
            layers of ``weights`` that start anew. They are in :attr:`Run.notes` too.
        engine: Runs the steps, if not PyTorch itself; see :mod:`striate.engines`.
        **options: Fields of :class:`Options`.

    Raises:
        OptionError: An option cannot be used.
        NotationError: The text cannot be read.
        DataError: The data cannot be used; the message names the file.
        CheckpointError: The run cannot be resumed.
        OutputError: The run cannot be written.
        TrainingError: The loss ran away.
    """
    if resume is not None and config is None and not_begun(Path(resume)):
        config, out, resume = Path(resume) / CONFIG, resume, None
    if config is not None:
        given = read_config(config)
        if "steps" in options:
            given.pop("epochs", None)
        if "epochs" in options:
            given.pop("steps", None)
        network = network if network is not None else given.pop("network", None)
        data = data if data is not None else given.pop("data", None)
        out = out if out is not None else given.pop("out", None)
        options = {name: value for name, value in given.items() if name not in TEXTS} | options
    tick = progress or (lambda done, total, what: None)
    with processes.joined() as group:
        if resume is not None:
            start, folder = starts.resumed(resume, network, data, out, options, progress), Path(resume)
        else:
            start = starts.fresh(network, data, options, progress)
            folder = group.agree(_new_folder(out, start.name) if group.first else None)
        with deterministic(start.options.deterministic), alone(folder, group):
            return _run(start, folder, group, tick, on_epoch, on_note, engine)


def _run(
    start: Start,
    folder: Path,
    group: Group,
    tick: Watcher,
    on_epoch: Callable[[Mapping[str, Any]], None] | None,
    on_note: Callable[[str], None] | None,
    engine: Engine | None,
) -> Run:
    """From the start, or the middle, to the end, or to the end of the time."""
    start.check_same(group)
    notes: list[str] = []

    def tell(note: str) -> None:
        notes.append(note)
        if on_note is not None and group.first:
            on_note(note)

    start, trainer = _prepared(start, folder, group, engine, tick, tell)
    _check_step(folder, trainer)
    notes += ["The run was finished before: nothing was left to train."] if trainer.finished else []
    evaluation, keeper = None, _Keeper(folder, start, trainer, group)
    try:
        with interruptions() as asked:
            keeper.begin(asked)
            while not trainer.finished:
                evaluation = trainer.epoch(tick, keeper.pauses)
                keeper.save()
                if evaluation is not None:
                    keeper.keep_best()
                    if on_epoch is not None and group.first:
                        on_epoch({**trainer.history[-1], "part": start.judged_by})
                if group.agree(bool(asked)):
                    raise KeyboardInterrupt
                if keeper.time_is_up():
                    break
    except KeyboardInterrupt:
        raise stopped(keeper.kept, folder, f"striate train --resume {shlex.quote(str(folder))}") from None
    notes += _ended(trainer, keeper.kept)
    return _finish(folder, start, trainer, evaluation, group, tuple(notes))


def stopped(kept: str, folder: Path, command: str) -> KeyboardInterrupt:
    """Somebody's Ctrl-C, with what is kept and how to go on.

    >>> str(stopped("1 of 3 epochs", Path("one"), "striate train --resume one"))
    'Stopped after 1 of 3 epochs, which are kept in one; go on with: striate train --resume one'
    """
    return KeyboardInterrupt(f"Stopped after {kept}, which are kept in {folder}; go on with: {command}")


def _check_step(folder: Path, trainer: Trainer) -> None:
    """Refuse to go on behind the end of an epoch."""
    done, steps, number = trainer.sums.step, max(0, trainer.steps), len(trainer.history) + 1
    if done and done >= steps:
        raise CheckpointError(
            f"{folder}: step {done} of epoch {number} is done already, and the epoch has {steps}; the checkpoint is "
            "damaged, or more steps must be asked for."
        )


def _ended(trainer: Trainer, kept: str) -> list[str]:
    """Why a run ended before its last epoch."""
    options = trainer.options
    if not trainer.finished:
        return [f"Stopped after {kept}: {options.minutes:g} minutes are over."]
    if trainer.steps > 0:
        return [f"Stopped early, after {kept}: {options.early_stopping} without improvement on the validation part."]
    return []


@contextmanager
def interruptions() -> Iterator[list[int]]:
    """The first Ctrl-C or SIGTERM is noted, so that a step comes to its end; the next one ends everything."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals are the main thread's
        return

    def stop(number: int, frame: Any) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def alone(folder: Path, group: Group) -> Iterator[None]:
    """Nobody else trains in the folder; what a killed process left half written is taken away.

    Raises:
        OptionError: Somebody does.
        OutputError: The folder cannot be written.
    """
    if not group.first:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", blocking=False)
        lock.acquire()
    except Timeout:
        raise OptionError(f"{folder}: another process trains in it now; wait for its end, or stop it.") from None
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}).") from None
    try:
        for left in folder.glob(".*.partial"):
            left.unlink(missing_ok=True)
        yield
    finally:
        with suppress(OSError):  # an open file cannot be removed on Windows, nor a folder that holds something
            (folder / ".lock").unlink()
            folder.rmdir()
        lock.release()


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """PyTorch's deterministic algorithms, and its own choice again afterwards."""
    if not wanted or torch.are_deterministic_algorithms_enabled():
        yield  # the switch imports the compiler, which takes seconds
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _prepared(
    start: Start, folder: Path, group: Group, engine: Engine | None, tick: Watcher, tell: Callable[[str], None]
) -> tuple[Start, Trainer]:
    """The start with nothing left to find out, and the network in training, new or as it was left."""
    where = machine.device(start.options.device)
    settled = {"precision": training.precision(start.options, where)}
    start = replace(start, options=start.options.model_copy(update=settled))
    trainer, notes = _trainer(start, engine)
    for note in notes:
        tell(note)
    if start.options.learning_rate != "find":
        return start, trainer
    if group.first:
        _write_config(folder, start)  # what is killed in the test begins again
    found = range_test.best_rate(trainer, tick)
    start = replace(start, options=start.options.model_copy(update={"learning_rate": found}))
    tell(f"learning_rate={found:g} was found.")
    return start, _trainer(start, engine)[0]


def _write_config(folder: Path, start: Start) -> None:
    """What trains the same again."""
    text = written_config(notation.format(start.architecture), start.source, start.options)
    files.write(folder / CONFIG, text.encode())


def not_begun(folder: Path) -> bool:
    """Whether a run was ended before its first checkpoint."""
    return files.is_file(folder / CONFIG) and not (folder / checkpoints.FILE).exists()


def _trainer(start: Start, engine: Engine | None) -> tuple[Trainer, list[str]]:
    found = start.checkpoint
    network, notes = start.network()
    known = found.training if found is not None else None
    trainer = Trainer(
        network,
        start.data,
        start.normalisation,
        start.options,
        list(known.history) if known else [],
        augmentation=start.augmentation,
        engine=engine,
        loss=start.loss,
    )
    if found is not None and known is not None:
        optimizing.restore(trainer.optimizer, found.optimizer)
        trainer.sums = known.sums
        if trainer.average is not None:
            trainer.average.restore(found.weights, known.updates)
    return trainer, notes


class _Keeper:
    """Writes what is to be kept, when it is due."""

    def __init__(self, folder: Path, start: Start, trainer: Trainer, group: Group) -> None:
        self.folder, self.start, self.trainer, self.group = folder, start, trainer, group
        self.began = self.saved = time.monotonic()
        self.asked: Sequence[int] = ()
        self.kept = ""

    def pauses(self) -> bool:
        """Whether a checkpoint is due in the middle of an epoch, the time is up, or somebody asked for the end."""
        due = time.monotonic() - self.saved > 60 * self.start.options.checkpoint_minutes
        return due or self._late() or bool(self.asked)

    def _late(self) -> bool:
        minutes = self.start.options.minutes
        return minutes is not None and time.monotonic() - self.began > 60 * minutes

    def time_is_up(self) -> bool:
        """Whether the minutes are spent, by the first process's clock."""
        return bool(self.group.agree(self._late()))

    def begin(self, asked: Sequence[int]) -> None:
        """Write what trains the same again, and the first checkpoint; from now on, look whether a signal came."""
        self.asked = asked
        if self.group.first:
            _write_config(self.folder, self.start)
        self.save()
        if self.trainer.history and self.trainer.sums.step == 0:
            self.keep_best()  # an earlier process may have ended between the checkpoint and this

    def save(self) -> None:
        """Write the checkpoint, then the figures of all finished epochs, each under a temporary name first."""
        content = _content(self.start, self.trainer)
        self.saved = time.monotonic()
        step = f" and {counted(self.trainer.sums.step, 'step')}" if self.trainer.sums.step else ""
        self.kept = f"{len(self.trainer.history)} of {self.trainer.epochs} epochs{step}"
        if not self.group.first:
            return
        checkpoints.save(self.folder / checkpoints.FILE, content)
        if self.trainer.sums.step == 0:
            _write_figures(self.folder, self.trainer.history, self.start.options.log)

    def keep_best(self) -> None:
        """Keep the weights of the epoch that is just done if it is the best so far."""
        if training.best_epoch(self.trainer.history) == len(self.trainer.history):
            content = replace(_content(self.start, self.trainer), optimizer={}, raw={})
            if self.group.first:
                checkpoints.save(self.folder / checkpoints.BEST, content)


def _content(start: Start, trainer: Trainer) -> Checkpoint:
    """Everything that is needed to predict and to go on; each process must ask."""
    own = {name: processes.whole(tensor) for name, tensor in trainer.network.state_dict().items()}
    average = trainer.average
    return Checkpoint(
        notation=notation.format(start.architecture),
        classes=start.data.classes,
        normalisation=start.normalisation,
        reader=start.data.reader or reader_of(start.data.shape, start.data.train.dtype),
        dtype=str(start.data.train.dtype).removeprefix("torch."),
        task=start.data.task,
        weights=own if average is None else {n: processes.whole(t) for n, t in average.tensors.items()},
        optimizer=optimizing.state(trainer.optimizer),
        raw={} if average is None else own,
        training=Training(
            options=start.options.model_dump(mode="json"),
            data=start.source,
            examples=len(start.data.train),
            digest=start.digest,
            history=trainer.history,
            sums=trainer.sums,
            updates=0 if average is None else average.updates,
        ),
    )


def _write_figures(folder: Path, history: list[dict[str, float]], log: tuple[str, ...]) -> None:
    """The figures of all epochs: as lines of JSON, and in the forms that were asked for."""
    files.write(folder / METRICS, "".join(json.dumps(figures) + "\n" for figures in history).encode())
    if "csv" in log and history:
        rows = [",".join(history[0]), *(",".join(map(repr, figures.values())) for figures in history)]
        files.write(folder / "metrics.csv", ("\n".join(rows) + "\n").encode())
    if "tensorboard" in log:
        _write_events(folder / "tensorboard", history)


def _write_events(folder: Path, history: list[dict[str, float]]) -> None:
    """All figures anew, so that no epoch is missing and none stands twice, whenever the run was killed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise OptionError("log=tensorboard needs a package: pip install 'striate[tensorboard]'.") from None
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for figures in history:
            for name, value in figures.items():
                if name != "epoch":
                    writer.add_scalar(name, value, int(figures["epoch"]))


def _new_folder(out: str | Path | None, name: str) -> Path:
    if out is not None:
        folder = Path(out)
        if folder.exists() and not folder.is_dir():
            raise OptionError(f"{out}: is a file; a run needs a folder of its own.")
        if (folder / checkpoints.FILE).exists():
            again = f"striate train --resume {shlex.quote(str(out))}"
            raise OptionError(f"{out}: holds a run already; go on with it by {again}, or name another folder.")
        if folder.exists() and any(not _left(path) for path in folder.iterdir()):
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


def _left(path: Path) -> bool:
    """Whether a run that was ended before its first checkpoint leaves this."""
    return path.name in (".lock", CONFIG) or path.match(".*.partial")


def _finish(
    folder: Path, start: Start, trainer: Trainer, last: Measured | None, group: Group, notes: tuple[str, ...]
) -> Run:
    """Measure the last weights on the test examples, write the report and sum up."""
    evaluation = last if last is not None and start.data.validation is None else trainer.evaluate(start.data.test)
    seconds = sum(figures["seconds"] for figures in trainer.history) + trainer.sums.seconds
    steps = len(trainer.history) * feeding.steps_per_epoch(start.options, trainer.count) + trainer.sums.step
    seen = feeding.examples_shown(start.options, trainer.count, steps)
    settings = start.options.changed()
    history = tuple(trainer.history)
    report = None
    if start.options.report:
        classifier = Classifier.load(_content(start, trainer))  # what predicts: all of it, with averaged weights
        material = showing.Material(classifier, start.data, evaluation, history, settings, folder, start.source)
        report = showing.write_report(material) if group.first else folder / "report.html"
    return Run(
        folder=folder,
        checkpoint=folder / checkpoints.FILE,
        best=folder / checkpoints.BEST,
        report=report,
        metrics=training.summary(evaluation),
        images_per_second=seen / max(seconds, 1e-9),
        history=history,
        finished=trainer.finished,
        evaluation=evaluation,
        judged_by=start.judged_by,
        skipped=start.data.skipped,
        notes=notes,
    )
