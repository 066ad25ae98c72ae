"""The verbs of the command line that need data: look at it, train on it, measure, predict, show, export."""

from __future__ import annotations

import inspect
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from csv import writer
from itertools import islice
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from . import tables
from .commands import AsJson, Run, left_out, numbers, one_network, percent, progress_bar, show_values, verb
from .errors import OptionError, StriateError, unknown_name

BLOCK = 100
"""Rows of a table that are aligned together."""

SHORT = {"learning_rate": ("--lr",)}
"""Second names of options, where nearly all other tools have one."""

Average = Annotated[str, typer.Option(help="none, flip or ten-crop: the mean over several views.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto takes a GPU if there is one.")]
Data = Annotated[str | None, typer.Option(help="A data set; not given, the one it was trained on.")]


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """A verb with a flag for every field of :class:`striate.options.Options`, given to it as ``options``."""
    from .options import Options

    own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "options"]
    fields = [_flag(name, field) for name, field in Options.model_fields.items()]
    run: Any = lambda **given: function(  # noqa: E731  (typer reads the signature that it is given below)
        **{p.name: given[p.name] for p in own}, options=_options({f.name: given[f.name] for f in fields})
    )
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__signature__ = inspect.Signature([*own, *fields])
    run.__annotations__ = {p.name: p.annotation for p in [*own, *fields]}
    return run


def _flag(name: str, field: Any) -> inspect.Parameter:
    """One field as an option of the command line: a switch if it is true or false, else a word."""
    kinds = (field.annotation, *get_args(field.annotation))
    switch = bool in [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds]
    default = "" if field.default in (None, ()) else f"  [{field.default}]"
    help_ = f"{field.description.removesuffix('.')}.{'' if switch else default}"
    annotation: Any = Annotated[bool | None, typer.Option(help=help_)]
    if not switch:
        names = (f"--{name.replace('_', '-')}", *SHORT.get(name, ()))
        annotation = Annotated[str | None, typer.Option(*names, help=help_, metavar=_values(name, field.annotation))]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _values(name: str, kind: Any) -> str:
    """What may be typed: words, N for a whole number, X for any, HxW for sizes, with commas where there are several."""
    if name in ("size", "patch"):
        return "N|HxW"
    found: list[str] = []
    for one in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        inner = get_args(one)[0] if get_origin(one) is Annotated else one
        if get_origin(inner) is tuple:
            found.append(f"{_values(name, get_args(inner)[0])},…")
        elif get_origin(inner) is Literal:
            found += map(str, get_args(inner))
        elif inner is not type(None):
            found.append({int: "N", float: "X"}.get(inner, "TEXT"))
    return "|".join(dict.fromkeys(found))


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flags as options: numbers where they are numbers, lists where a field takes several."""
    from .options import Options, number

    found = {}
    for name, value in given.items():
        if value is None:
            continue
        kinds = (Options.model_fields[name].annotation, *get_args(Options.model_fields[name].annotation))
        several = any(get_origin(kind) is tuple for kind in kinds)
        if name in ("size", "patch"):
            sizes = numbers(f"--{name}", value, "64x64", fewest=1) or ()
            found[name] = sizes[0] if name == "size" and len(sizes) == 1 else sizes
        elif several and (name not in ("class_weights",) or "," in value):
            found[name] = tuple(number(part.strip()) for part in value.split(",") if part.strip())
        else:
            found[name] = value if isinstance(value, bool) or name in ("augment", "weights") else number(value)
    return found


@verb("striate train lenet5 --data fashion-mnist-mini --epochs 15")
@with_options
def train(
    network: Annotated[str | None, typer.Argument(help="A network text, zoo name or file.")] = None,
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE...]", help="Numbers for the names that the text uses.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A folder, archive, index or array file, or a name.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run.  [a new one under runs/]")] = None,
    resume: Annotated[str | None, typer.Option(help="Folder of an interrupted run to go on with.")] = None,
    config: Annotated[str | None, typer.Option(help="TOML file with any of these options; flags go before it.")] = None,
    as_json: AsJson = False,
    options: Any = None,
) -> None:
    """Train a network on labelled examples; write checkpoints, figures and a report."""
    from . import notation, runs, zoo
    from .processes import announced

    if network is not None and values:
        bound = one_network("train", network, values)
        network = notation.format(zoo.architecture(network, {name: choices[0] for name, choices in bound.items()}))
    first = announced(os.environ).get("RANK", "0") == "0"
    told: list[str] = []
    with left_out() as skipped, progress_bar(first) as (bar, line), stopping_on_sigterm():

        def figures(f: Mapping[str, Any]) -> None:
            overlap = f"   IoU {f['iou']:.4f}" if "iou" in f else ""
            line(
                f"epoch {f['epoch']:3}   train loss {f['train_loss']:.4f}   {f['part']} loss {f['loss']:.4f}   "
                f"{f['part']} accuracy {100 * f['accuracy']:6.2f} %{overlap}   {f['seconds']:.1f} s"
            )

        def note(sentence: str) -> None:
            told.append(sentence)
            line(sentence)

        run = runs.train(
            network,
            data,
            out=out,
            resume=resume,
            config=config,
            progress=bar,
            on_epoch=None if as_json else figures,
            on_note=note,
            **options,
        )
        for message in run.skipped if first else ():
            skipped(message)
    if first:
        show_values(_run_values(run), _run_text(run, told), as_json)


@contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """SIGTERM, which clusters send before they stop a job, ends a run as Ctrl-C does."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@verb("striate sweep lenet5 learning_rate=1e-4..1e-1:log hidden=32..128 --data fashion-mnist-mini")
@with_options
def sweep(
    network: Annotated[str, typer.Argument(help="A network text, zoo name or file.")],
    space: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUES...", help="1..3, 1e-4..1e-1:log or 16,32 for options and names.")
    ],
    data: Annotated[str, typer.Option(help="A folder, archive, index or array file, or a name.")],
    trials: Annotated[int, typer.Option(min=1, help="Runs in all; a sweep that is there goes on.")] = 20,
    jobs: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    ray: Annotated[bool, typer.Option("--ray", help="Let Ray run the jobs, wherever it has machines.")] = False,
    out: Annotated[str | None, typer.Option(help="Folder of the sweep.  [under sweeps/]")] = None,
    as_json: AsJson = False,
    options: Any = None,
) -> None:
    """Search the best options, and numbers of a network, by many runs; judged by a validation part."""
    from . import sweeps

    pairs = dict(_pair(word) for word in space)
    with progress_bar() as (bar, _):
        found = sweeps.search(network, data, pairs, trials=trials, jobs=jobs, ray=ray, out=out, progress=bar, **options)
    best = found.best.folder
    text = f"{found}\n\nBest by the validation part: {best}\nMeasure it: striate evaluate {shlex.quote(str(best))}"
    show_values(found.to_dict(), text, as_json)


def _pair(word: str) -> tuple[str, str]:
    name, equals, values = word.partition("=")
    if not equals or not name.isidentifier() or not values:
        raise OptionError(f"{word}: expected NAME=VALUES, as in learning_rate=1e-4..1e-1:log or N=1..3.")
    return name, values


@verb("striate data photos")
def data(
    source: Annotated[str, typer.Argument(metavar="PATH", help="What train would be given as --data.")],
    channels: Annotated[int | None, typer.Option(help="Settles arrays whose axes could mean two things.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at a data set before training: counts, sizes, unreadable files, duplicates, leaks, imbalance, statistics."""
    from .surveys import survey

    with progress_bar() as (bar, _):
        found = survey(source, channels=channels, progress=bar)
    show_values(found.to_dict(), str(found), as_json)


@verb("striate evaluate runs/lenet5-fashion-mnist-mini")
def evaluate(
    run: Run,
    data: Data = None,
    split: Annotated[
        str, typer.Option(help="test, validation, train or all; of other data without such parts, all is measured.")
    ] = "test",
    average: Average = "none",
    top_k: Annotated[
        int | None, typer.Option(help="Also how often the class is among the K most probable.  [5 from 10 classes on]")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a trained network on labelled examples: accuracy, precision, recall, F1, calibration; IoU for masks."""
    from . import metrics, prediction

    given: dict[str, Any] = {"split": split, "average": average, "device": device}
    with left_out() as skipped, progress_bar() as (bar, _):
        found = prediction.evaluate(run, data, progress=bar, on_skip=skipped, **given)
    if top_k is not None and not hasattr(found, "top_k"):
        raise OptionError(f"--top-k {top_k}: this network gives every pixel a class; leave it out.")
    more = {} if top_k is None else {f"top_{top_k}": found.top_k(top_k)}  # type: ignore[union-attr]
    show_values(found.to_dict() | more, metrics.text(found, top_k), as_json)


@verb("striate predict runs/lenet5-fashion-mnist-mini shoe.png")
def predict(
    run: Run,
    examples: Annotated[
        list[str], typer.Argument(help="Files, folders, archives, patterns or .npy arrays; - reads standard input.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Classes to print for each example.")] = 3,
    average: Average = "none",
    device: Device = "auto",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable files out.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print a table for spreadsheets, one example a line.")] = False,
    masks: Annotated[str | None, typer.Option(help="Folder for the masks of networks that give some, as PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is on pictures, or what any other file of examples is, with probabilities."""
    from . import prediction

    sources: list[Any] = [
        one for word in examples for one in (prediction.standard_input(stdin()) if word == "-" else [word])
    ]
    classifier = prediction.Classifier.load(run, device)
    given: dict[str, Any] = {"average": average, "skip_bad": skip_bad}
    with left_out() as skipped, progress_bar() as (bar, _):
        found = prediction.predictions(classifier, sources, progress=bar, on_skip=skipped, **given)
        if masks is not None:
            found = _with_masks(found, Path(masks), classifier.task)
        for line in _lines(found, classifier.classes, top, "json" if as_json else "csv" if csv else "text"):
            typer.echo(line)


def stdin() -> bytes:
    """All bytes of standard input."""
    return sys.stdin.buffer.read()


def _lines(found: Iterator[Any], classes: tuple[str, ...], top: int, form: str) -> Iterator[str]:
    """Predictions as lines: a table for people, or JSON or CSV one by one, so that memory stays as it is."""
    if form == "json":
        yield "["
        before = ""
        for one in found:
            if before:
                yield before + ","
            before = json.dumps(one.to_dict(), ensure_ascii=False)
        yield f"{before}\n]"
        return
    if form == "text":
        yield from _table(found, top)
        return
    yield _row(["picture", "label", "probability", *classes])
    for one in found:
        yield _row([one.picture, one.label, one.probability, *(one.probabilities[name] for name in classes)])


def _table(found: Iterator[Any], top: int) -> Iterator[str]:
    """Aligned a block at a time, so that memory stays as it is, with what was seen before an error."""
    rows: list[dict[str, str]] = []
    headed = False
    failure: StriateError | None = None
    while failure is None:
        rows.clear()
        try:
            rows.extend(_cells(one, top) for one in islice(found, BLOCK))
        except StriateError as error:
            failure = error
        if not rows:
            break
        lines = tables.aligned(rows, ("file", "class", "most pixels", "then"))
        yield from lines[2:] if headed else lines
        headed = True
    if failure is not None:
        raise failure


def _cells(one: Any, top: int) -> dict[str, str]:
    """What is said about an example: its classes by their probabilities, or by their shares of the pixels."""
    (label, share), *others = list(one.probabilities.items())[:top]
    names = ("class", "probability") if one.mask is None else ("most pixels", "share")
    row = {"file": one.picture, names[0]: label, names[1]: percent(share)}
    return row | ({"then": ", ".join(f"{n} {percent(p)}" for n, p in others)} if top > 1 else {})


def _row(values: Iterable[Any]) -> str:
    """One line of a table, quoted where it must be."""
    line = io.StringIO()
    writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def _with_masks(found: Iterator[Any], folder: Path, task: str) -> Iterator[Any]:
    """Predictions whose masks are written on the way, each under the name of its file: PNG, or NPY unless flat."""
    import numpy as np

    from . import files, images

    if task != "masks":
        raise OptionError(f"--masks {folder}: this network gives each example one class, and no mask.")
    for number, one in enumerate(found):
        name = f"{number:05}-{PurePosixPath(one.picture.replace(': ', '/')).stem}"
        if one.mask.dim() == 2:
            images.write_mask(folder / f"{name}.png", one.mask)
        else:
            content = io.BytesIO()
            np.save(content, one.mask.numpy())
            files.write(folder / f"{name}.npy", content.getvalue())
        yield one
    typer.echo(f"The masks are in {folder}.", err=True)


@verb("striate show runs/lenet5-fashion-mnist-mini --only columns --example 7")
def show(
    run: Run,
    only: Annotated[
        list[str] | None,
        typer.Option(help="curves, accuracy, confusion, mistakes, calibration, masks, filters, columns.  [all]"),
    ] = None,
    example: Annotated[int, typer.Option(min=0, help="Test picture to follow through the layers.")] = 0,
    data: Annotated[str | None, typer.Option(help="A data set; not given, the one it was trained on.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the pictures.  [pictures/ in the run]")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the pictures of a trained network as PNG files."""
    from . import showing

    for name in only or ():
        if name not in showing.SHOWN:
            raise unknown_name("picture", name, showing.SHOWN)
    with progress_bar() as (bar, _):
        material = showing.material(run, data, example, bar)
    paths = showing.write_pictures(material, Path(out) if out else material.folder / "pictures", only or showing.SHOWN)
    show_values([str(path) for path in paths], "\n".join(map(str, paths)), as_json)


@verb("striate export runs/lenet5-fashion-mnist-mini shoes.onnx")
def export(
    run: Run,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to: NAME.onnx, or NAME.pt2 for torch.export.")],
    batch: Annotated[str, typer.Option(help="Examples at a time: any, or a number.")] = "any",
    size: Annotated[str | None, typer.Option(help="Size of inputs, as in 520x696.  [that of the examples]")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained network as one file, pixels in and probabilities out, checked against PyTorch."""
    from . import exporting
    from .options import number

    sizes = numbers("--size", size, "520x696", fewest=1)
    found = exporting.export(run, file, batch=number(batch), size=sizes)
    show_values(found.to_dict(), str(found), as_json)


@verb("striate trace lenet5 --data fashion-mnist-mini --example 3 --detail conv2")
def trace(
    network: Annotated[str, typer.Argument(help="A network text, zoo name or file, or a run's folder.")],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE...]", help="Numbers for the names that the text uses.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A data set; not given, random numbers of class 0.")] = None,
    example: Annotated[int, typer.Option(min=0, help="Training example to learn from.")] = 0,
    loss: Annotated[str, typer.Option(help="softmax, svm or mse.")] = "softmax",
    learning_rate: Annotated[float, typer.Option("--learning-rate", "--lr", help="Of the update.")] = 0.1,
    detail: Annotated[str | None, typer.Option(help="A layer whose arithmetic is written out.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show one training step with numbers: activations, loss, δ of every layer, gradients, update; each checked."""
    from . import lessons, starts

    bound = one_network("trace", network, values)
    with progress_bar() as (bar, _):
        built, inputs, target = starts.step_of(
            network, {name: choices[0] for name, choices in bound.items()}, data, example, seed, bar
        )
    found = lessons.trace(built, inputs, target, loss, learning_rate, detail=detail)
    show_values(found.to_dict(), str(found), as_json)


def _run_values(run: Any) -> dict[str, Any]:
    found = {name: getattr(run, name) for name in ("folder", "checkpoint", "best", "report")}
    paths = {name: None if path is None else str(path) for name, path in found.items()}
    return {
        **paths,
        **run.metrics,
        "finished": run.finished,
        "images_per_second": run.images_per_second,
        "notes": list(run.notes),
        "judged_by": run.judged_by,
        "history": list(run.history),
    }


def _run_text(run: Any, told: Sequence[str] = ()) -> str:
    """What people read in the end, without the notes that they were told."""
    from .training import best_epoch

    overlap = f", mean IoU {run.metrics['iou']:.4f}," if "iou" in run.metrics else ""
    folder = shlex.quote(str(run.folder))
    page = "" if run.report is None else f"Report:     {run.report}\n"
    more = "" if run.finished else f"\nGo on:      striate train --resume {folder}"
    notes = "".join(f"{note}\n" for note in run.notes if note not in told)
    epoch = best_epoch(run.history)
    is_last = run.best is None or epoch in (None, len(run.history))
    best = "" if is_last else f"Best:       {run.best}, of epoch {epoch}, in place of the folder\n"
    return (
        f"{notes}Accuracy {100 * run.metrics['accuracy']:.2f} %{overlap} on the test examples, "
        f"{run.images_per_second:,.0f} examples per second while training.\n"
        f"{page}Checkpoint: {run.checkpoint}\n{best}"
        f"Predict:    striate predict {folder} FILE...{more}"
    )
