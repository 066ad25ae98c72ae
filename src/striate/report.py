"""One page about one training run: how good, where wrong, what was learned, how to use it, how to do it again.

The page is a single HTML file that loads nothing: its style, charts and pictures are inside.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure
from torch import Tensor

from . import pictures, rendering
from .metrics import Evaluation

Columns = tuple[Sequence[tuple[str, Tensor]], Tensor, Sequence[tuple[str, float]], str | None]
"""What :func:`striate.pictures.columns` shows: layers, image, scores and the true class."""

_WIDE, _NARROW = 10.4, 3.75  # inches of 96 CSS pixels: the page on a desktop, and a phone without its margins
_MISTAKES = 12
_CONVOLUTIONS = 5  # deeper filters tell a person little, and each takes about 80 kB
_NUMBER = re.compile(r"[-−+±~≈<>]?\s?\d[\d,.\s]*\s?(%|×|[kMGTPµm]?[A-Za-z]{0,5})")
_BLANK = {"", "-", "–", "—", "unknown"}


@dataclass(frozen=True)
class _Picture:
    """A figure as two SVG elements, of which the page shows the one that fits the screen.

    Args:
        alt: What the picture says, for people who do not see it.
        wide: For a desktop and for paper.
        narrow: For a phone.
        scrolls: Whether each of the two is too wide for its screen even when it shrinks a little.
    """

    alt: str
    wide: Markup
    narrow: Markup
    scrolls: Sequence[bool]


def render(
    *,
    title: str,
    facts: Mapping[str, str],
    history: Sequence[Mapping[str, float | None]],
    evaluation: Evaluation,
    images: Tensor,
    table: Sequence[Mapping[str, str]],
    filters: Sequence[tuple[str, Tensor]],
    columns: Columns,
    notation: str,
    settings: Mapping[str, object],
    commands: Sequence[str],
    reproduce: Sequence[str] = (),
) -> str:
    """The report as HTML text. It depends on its arguments only.

    Args:
        title: What was trained on what.
        facts: Labels and values for the headline, already formatted, in order.
        history: One mapping per epoch, as for :func:`striate.pictures.curves`; may be empty.
        evaluation: The outcome on the test examples.
        images: Those examples, ``(N, C, H, W)`` uint8, in the same order.
        table: Rows of the layer table, already formatted, all with the same keys.
        filters: Name and weight of each convolution; the first five are shown.
        columns: Layers, image, scores and true class of one example.
        notation: The network as text.
        settings: Every option of the run; nested mappings are shown with dotted names.
        commands: Shell lines that use the checkpoint; lines that start with ``#`` explain.
        reproduce: Shell lines that train this network again.
    """
    layers, image, scores, truth = columns
    return _template().render(
        title=title,
        facts=facts,
        accuracy=pictures.percent(evaluation.accuracy),
        verdict=_verdict(evaluation),
        theme=pictures.THEME,
        curves=_picture(_curves_alt(history), lambda w: pictures.curves(history, width=w)) if history else None,
        per_class=_picture(_per_class_alt(evaluation), lambda w: pictures.accuracy_per_class(evaluation, width=w)),
        confusion=_picture(_confusion_alt(evaluation), lambda w: pictures.confusion(evaluation, width=w)),
        confused=_confused(evaluation, 8),
        mistakes=_picture(
            _mistakes_alt(evaluation), lambda w: pictures.mistakes(images, evaluation, _MISTAKES, width=w)
        ),
        calibration=_picture(_calibration_alt(evaluation), lambda w: pictures.calibration(evaluation, width=w)),
        filters=[(_filters_caption(weight), _filters(name, weight)) for name, weight in filters[:_CONVOLUTIONS]],
        left_out=len(filters[_CONVOLUTIONS:]),
        columns=_picture(
            _columns_alt(layers, scores, truth),
            lambda w: pictures.columns(layers, image, scores, truth=truth, width=w),
        ),
        said=_said(scores, truth),
        table=table,
        numeric=_numeric(table),
        notation=notation.strip(),
        settings=dict(_flat(settings)),
        commands=commands,
        reproduce=reproduce,
    )


@lru_cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8"))


def _picture(alt: str, draw: Callable[[float], Figure]) -> _Picture:
    """Draw a figure for both screens; its colours follow the page's."""
    colors = {color: f"var(--{role})" for role, color in pictures.THEME.items()}
    figures = {inches: draw(inches) for inches in (_WIDE, _NARROW)}
    scrolls = [figure.get_figwidth() > 1.2 * inches for inches, figure in figures.items()]
    # Inside a page the namespace is known, and without it no address stands in the file at all.
    wide, narrow = (
        Markup(rendering.to_svg(figure, colors=colors).replace(' xmlns="http://www.w3.org/2000/svg"', "", 1))
        for figure in figures.values()
    )
    return _Picture(alt, wide, narrow, scrolls)


def _filters(name: str, weight: Tensor) -> _Picture:
    shape = " × ".join(map(str, weight.shape))
    return _picture(f"Learned filters of {name}, weights {shape}.", lambda w: pictures.filters(weight, name, width=w))


def _filters_caption(weight: Tensor) -> str:
    """How to read the filters, in one sentence."""
    if weight.ndim == 4 and weight.shape[1] == 3:
        return "Each filter reads the three colours of a pixel and is shown as a colour picture; grey means no weight."
    if weight.ndim == 3:
        return "Each curve is one filter along the signal, above its line where it adds and below where it takes away."
    stacked = "" if weight.shape[1] == 1 else " Each column is one filter, with a small map for every channel it reads."
    return f"Orange weights add, blue ones take away, white ones ignore what they see.{stacked}"


def _verdict(evaluation: Evaluation) -> tuple[str, str]:
    """The accuracy as counts, and how far it can be trusted."""
    count = len(evaluation.labels)
    right = int((evaluation.predictions == evaluation.labels).sum())
    low, high = (pictures.percent(share).replace(" ", "\N{NO-BREAK SPACE}") for share in _wilson(right, count))
    return (
        f"{right:,} of {count:,} test pictures were recognised; their mean loss is {evaluation.loss:.4f}.",
        f"On new pictures of the same kind, expect between {low} and {high} (95 % confidence).",
    )


def _wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of shares that ``right`` of ``count`` is compatible with (Wilson, 1927).

    >>> [round(share, 3) for share in _wilson(9, 10)]
    [0.596, 0.982]
    """
    if not count:
        return 0.0, 1.0
    share, spread = right / count, z * z / count
    middle, half = share + spread / 2, math.sqrt(spread * (share * (1 - share) + spread / 4))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def _curves_alt(history: Sequence[Mapping[str, float | None]]) -> str:
    first, last = history[0], history[-1]
    best = max(history, key=lambda row: row["accuracy"] or 0.0)
    return (
        f"Line charts of loss and accuracy over {len(history)} epochs. Test loss went from {first['loss']:.3f} to "
        f"{last['loss']:.3f}, test accuracy from {pictures.percent(first['accuracy'] or 0.0)} to "
        f"{pictures.percent(last['accuracy'] or 0.0)}; the best was {pictures.percent(best['accuracy'] or 0.0)} "
        f"after epoch {best['epoch']:g}."
    )


def _per_class_alt(evaluation: Evaluation) -> str:
    rows = evaluation.accuracy_per_class.items()
    listed = [f"{name} {'no examples' if share is None else pictures.percent(share)}" for name, share in rows]
    return f"Bar chart of the accuracy of each class: {', '.join(listed)}."


def _confusion_alt(evaluation: Evaluation) -> str:
    pairs = [f"{truth} called {said} {count:,} times" for truth, said, count in _confused(evaluation, 3)]
    count = len(evaluation.classes)
    return f"Confusion matrix of {count} classes. Most frequent mistakes: {'; '.join(pairs) or 'none'}."


def _confused(evaluation: Evaluation, count: int) -> list[tuple[str, str, int]]:
    """The most frequent mistakes: true class, predicted class, how many examples."""
    wrong = evaluation.confusion.clone().fill_diagonal_(0)
    order = wrong.flatten().argsort(descending=True, stable=True)[:count].tolist()
    pairs = [(*divmod(place, len(wrong)), int(wrong.flatten()[place])) for place in order]
    names = evaluation.classes
    return [(names[truth], names[said], examples) for truth, said, examples in pairs if examples]


def _mistakes_alt(evaluation: Evaluation) -> str:
    names, said, truth = evaluation.classes, evaluation.predictions, evaluation.labels
    shown = evaluation.confident_mistakes(_MISTAKES)
    pairs = [f"{names[int(truth[index])]} called {names[int(said[index])]}" for index in shown]
    return f"Pictures of the {len(pairs)} most confident mistakes: {', '.join(pairs)}." if pairs else "No mistakes."


def _calibration_alt(evaluation: Evaluation) -> str:
    filled = [b for b in evaluation.reliability() if b.confidence is not None and b.accuracy is not None]
    pairs = [
        f"{pictures.percent(b.confidence or 0.0)} sure, {pictures.percent(b.accuracy or 0.0)} right" for b in filled
    ]
    error = pictures.percent(evaluation.calibration_error()) if filled else "unknown"
    return f"Reliability diagram. Expected calibration error {error}. {'; '.join(pairs) or 'No examples'}."


def _columns_alt(layers: Sequence[tuple[str, Tensor]], scores: Sequence[tuple[str, float]], truth: str | None) -> str:
    return f"Activations of one picture after {', '.join(name for name, _ in layers)}. {_said(scores, truth)}"


def _said(scores: Sequence[tuple[str, float]], truth: str | None) -> str:
    """The prediction for the example, in words."""
    name, share = scores[0]
    text = f"The network says {name} ({pictures.percent(share)})"
    if truth is None:
        return f"{text}."
    return f"{text}, which is right." if name == truth else f"{text}; it is {truth}."


def _numeric(table: Sequence[Mapping[str, str]]) -> set[str]:
    """The columns that hold numbers, which stand best on the right.

    >>> _numeric([{"layer": "conv1", "parameters": "156"}, {"layer": "relu1", "parameters": "–"}])
    {'parameters'}
    """
    columns = {key: [row[key].strip() for row in table] for key in (table[0] if table else ())}
    filled = {key: [cell for cell in cells if cell not in _BLANK] for key, cells in columns.items()}
    return {key for key, cells in filled.items() if cells and all(map(_NUMBER.fullmatch, cells))}


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values as text; what is nested gets a dotted name.

    >>> dict(_flat({"epochs": 8, "optimizer": {"name": "adamw", "betas": (0.9, 0.99)}}))
    {'epochs': '8', 'optimizer.name': 'adamw', 'optimizer.betas': '0.9, 0.99'}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", str(value)
