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

from . import feature_maps, overlays, pictures, rendering
from .metrics import Evaluation, MaskEvaluation
from .overlays import Overlap, dots
from .portraits import is_curve, plural
from .sheets import LISTED, THEME, percent


@dataclass(frozen=True)
class Followed:
    """One example on its way through the layers.

    Args:
        layers: Name and activation of each, in order.
        inputs: ``(C, *spatial)``.
        scores: Class names and probabilities, best first; none for masks.
        truth: Its true class, if it is known.
        overlap: For masks, its own and the predicted one.
    """

    layers: Sequence[tuple[str, Tensor]]
    inputs: Tensor
    scores: Sequence[tuple[str, float]] = ()
    truth: str | None = None
    overlap: Overlap | None = None


@dataclass(frozen=True)
class Wording:
    """The words of a page that depend on the data.

    Args:
        noun: What one input is: "picture", "signal", "series", "volume".
        judged: What the figures of each epoch were measured on: "test" or "validation".

    >>> Wording("series").many, Wording().judges
    ('series', 'test pictures')
    """

    noun: str = "picture"
    judged: str = "test"

    @property
    def many(self) -> str:
        """Several inputs."""
        return plural(self.noun)

    @property
    def judges(self) -> str:
        """What the figures of each epoch were measured on."""
        return f"{self.judged} {self.many}"


_WIDE, _NARROW = 10.4, 3.75  # inches of 96 CSS pixels: the page on a desktop, and a phone without its margins
MISTAKES = 12
"""How many mistakes are shown."""
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
    evaluation: Evaluation | MaskEvaluation,
    images: Tensor | Mapping[int, Tensor] | None = None,
    overlaps: Sequence[Overlap] = (),
    looked_at: int = 0,
    table: Sequence[Mapping[str, str]],
    filters: Sequence[tuple[str, Tensor]],
    followed: Followed,
    notation: str,
    settings: Mapping[str, object],
    commands: Sequence[str],
    reproduce: Sequence[str] = (),
    wording: Wording | None = None,
) -> str:
    """The report as HTML text. It depends on its arguments only.

    Args:
        title: What was trained on what.
        facts: Labels and values for the headline, already formatted, in order.
        history: One mapping per epoch, as for :func:`striate.pictures.curves`; may be empty.
        evaluation: The outcome on the test examples.
        images: Those examples, ``(N, C, *spatial)`` in the same order; or, by their numbers, at least the most
            confident mistakes. Not needed for masks.
        overlaps: For masks, the examples to show, worst first.
        looked_at: How many examples the worst were chosen from.
        table: Rows of the layer table, already formatted, all with the same keys.
        filters: Name and weight of each convolution; the first five are shown.
        followed: One example and what every layer makes of it.
        notation: The network as text.
        settings: Every option of the run; nested mappings are shown with dotted names.
        commands: Shell lines that use the checkpoint; lines that start with ``#`` explain.
        reproduce: Shell lines that train this network again.
        wording: What the inputs are called.
    """
    words = wording or Wording()
    return _template().render(
        title=title,
        facts=facts,
        words=words,
        theme=THEME,
        columns=_columns(followed, words),
        said=_said(followed),
        ending=_ending(followed),
        relief=is_curve(followed.inputs.shape),
        last="last" if history else "first, unfinished",
        curves=_picture(
            _curves_alt(history, words), lambda w: pictures.curves(history, judged=words.judged, width=w)
        ) if history else None,
        overlap_curve=any("iou" in row for row in history),
        confusion=_picture(_confusion_alt(evaluation), lambda w: pictures.confusion(evaluation, width=w)),
        confused=_confused(evaluation, 8),
        filters=[(_filters_caption(weight), _filters(name, weight)) for name, weight in filters[:_CONVOLUTIONS]],
        left_out=len(filters[_CONVOLUTIONS:]),
        table=table,
        numeric=_numeric(table),
        notation=notation.strip(),
        settings=dict(_flat(settings)),
        commands=commands,
        reproduce=reproduce,
        **(
            _of_masks(evaluation, overlaps, looked_at, words)
            if isinstance(evaluation, MaskEvaluation)
            else _of_classes(evaluation, images if images is not None else {}, words)
        ),
    )  # fmt: skip


def _of_classes(evaluation: Evaluation, images: Tensor | Mapping[int, Tensor], words: Wording) -> dict[str, object]:
    """What only the page of a network that gives each example one class has."""
    return {
        "masks": None,
        "headline": percent(evaluation.accuracy),
        "verdict": _verdict(evaluation, words),
        "per_class": _picture(_per_class_alt(evaluation), lambda w: pictures.accuracy_per_class(evaluation, width=w)),
        "mistakes": _picture(
            _mistakes_alt(evaluation, words), lambda w: pictures.mistakes(images, evaluation, MISTAKES, width=w)
        ),
        "calibration": _picture(_calibration_alt(evaluation), lambda w: pictures.calibration(evaluation, width=w)),
    }


def _of_masks(
    evaluation: MaskEvaluation, overlaps: Sequence[Overlap], looked_at: int, words: Wording
) -> dict[str, object]:
    """What only the page of a network that gives every pixel a class has."""
    unit = dots(overlaps[0].inputs.shape)
    return {
        "masks": _picture(
            _masks_alt(overlaps, words),
            lambda w: overlays.masks(overlaps, evaluation.classes, noun=words.noun, width=w),
        ),
        "looked_at": looked_at,
        "count": evaluation.pictures,
        "unit": unit,
        "headline": _share(evaluation.mean_iou),
        "verdict": _mask_verdict(evaluation, words, unit),
        "per_class": _picture(
            _overlap_alt(evaluation), lambda w: overlays.overlap_per_class(evaluation, unit=unit, width=w)
        ),
    }


@lru_cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8"))


def _picture(alt: str, draw: Callable[[float], Figure]) -> _Picture:
    """Draw a figure for both screens; its colours follow the page's."""
    colors = {color: f"var(--{role})" for role, color in THEME.items()}
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
    alt = f"Learned filters of {name}, weights {shape}."
    return _picture(alt, lambda w: feature_maps.filters(weight, name, width=w))


def _filters_caption(weight: Tensor) -> str:
    """How to read the filters, in one sentence."""
    if weight.ndim == 4 and weight.shape[1] == 3:
        return "Each filter reads the three colours of a pixel and is shown as a colour picture; grey means no weight."
    if weight.ndim == 3:
        return "Each curve is one filter along the signal, above its line where it adds and below where it takes away."
    stacked = "" if weight.shape[1] == 1 else " Each column is one filter, with a small map for every channel it reads."
    return f"Orange weights add, blue ones take away, white ones ignore what they see.{stacked}"


def _verdict(evaluation: Evaluation, words: Wording) -> tuple[str, str]:
    """The accuracy as counts, and how far it can be trusted."""
    count = len(evaluation.labels)
    right = int((evaluation.predictions == evaluation.labels).sum())
    low, high = (percent(share).replace(" ", "\N{NO-BREAK SPACE}") for share in _wilson(right, count))
    return (
        f"{right:,} of {count:,} test {words.many} were recognised; their mean loss is {evaluation.loss:.4f}.",
        f"On new {words.many} of the same kind, expect between {low} and {high} (95 % confidence).",
    )


def _mask_verdict(evaluation: MaskEvaluation, words: Wording, unit: str) -> tuple[str, str]:
    """What the mean IoU is a mean of, and the other figures."""
    known = [name for name, iou in evaluation.iou.items() if iou is not None]
    right, dice, loss = evaluation.pixel_accuracy, evaluation.mean_dice, evaluation.loss
    if right is None or dice is None:
        return f"None of the {evaluation.pictures:,} test {words.many} has a labelled {unit.removesuffix('s')}.", ""
    told = "" if loss is None else f", mean loss {loss:.4f}"
    where = f"{len(known):,} classes on {evaluation.pictures:,} test {words.many}"
    return (
        f"Mean overlap (IoU) of true and predicted regions, over {where}.",
        f"{percent(right)} of their {unit} are called what they are, mean Dice coefficient {percent(dice)}{told}.",
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


def _curves_alt(history: Sequence[Mapping[str, float | None]], words: Wording) -> str:
    first, last = history[0], history[-1]
    key, name = ("iou", "mean IoU") if any("iou" in row for row in history) else ("accuracy", "accuracy")
    best = max(history, key=lambda row: _known(row.get(key)) or 0.0)
    losses = [f"{value:.3f}" if (value := _known(row["loss"])) is not None else "unknown" for row in (first, last)]
    shares = [_share(row.get(key)) for row in (first, last)]
    epochs = f"{len(history)} epoch{'' if len(history) == 1 else 's'}"
    return (
        f"Line charts of {'loss, accuracy and mean IoU' if key == 'iou' else 'loss and accuracy'} over {epochs}. "
        f"{words.judged.capitalize()} loss went from {losses[0]} to {losses[1]}, {words.judged} {name} from "
        f"{shares[0]} to {shares[1]}; the best was {_share(best.get(key))} after epoch {best['epoch']:g}."
    )


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _share(value: float | None) -> str:
    return "unknown" if _known(value) is None else percent(value or 0.0)


def _per_class_alt(evaluation: Evaluation) -> str:
    rows = evaluation.accuracy_per_class.items()
    listed = [f"{name} {'no examples' if share is None else percent(share)}" for name, share in rows]
    return f"Bar chart of the accuracy of each class: {_some(listed)}."


def _overlap_alt(evaluation: MaskEvaluation) -> str:
    listed = [f"{name} {_share(iou)} and {_share(evaluation.dice[name])}" for name, iou in evaluation.iou.items()]
    return f"Bar chart of the IoU and Dice coefficient of each class: {_some(listed)}."


def _some(words: Sequence[str]) -> str:
    """A list that is no longer than the chart's.

    >>> _some(["a", "b"]), _some(["a"] * 1000)[-20:]
    ('a, b', 'a, a, a and 960 more')
    """
    return ", ".join(words) if len(words) <= LISTED else f"{', '.join(words[:LISTED])} and {len(words) - LISTED:,} more"


def _masks_alt(overlaps: Sequence[Overlap], words: Wording) -> str:
    listed = [f"number {one.number} {_share(one.found.mean_iou)}" for one in overlaps]
    noun = words.noun if len(overlaps) == 1 else words.many
    return f"{len(overlaps)} test {noun} with true and predicted masks, by mean IoU: {', '.join(listed)}."


def _confusion_alt(evaluation: Evaluation | MaskEvaluation) -> str:
    pairs = [f"{truth} called {said} {count:,} times" for truth, said, count in _confused(evaluation, 3)]
    count = len(evaluation.classes)
    return f"Confusion matrix of {count} classes. Most frequent mistakes: {'; '.join(pairs) or 'none'}."


def _confused(evaluation: Evaluation | MaskEvaluation, count: int) -> list[tuple[str, str, int]]:
    """The most frequent mistakes: true class, predicted class, how many examples or pixels."""
    wrong = evaluation.confusion.clone().fill_diagonal_(0)
    order = wrong.flatten().argsort(descending=True, stable=True)[:count].tolist()
    pairs = [(*divmod(place, len(wrong)), int(wrong.flatten()[place])) for place in order]
    names = evaluation.classes
    return [(names[truth], names[said], examples) for truth, said, examples in pairs if examples]


def _mistakes_alt(evaluation: Evaluation, words: Wording) -> str:
    names, said, truth = evaluation.classes, evaluation.predictions, evaluation.labels
    worst = evaluation.confident_mistakes(MISTAKES)
    pairs = [f"{names[int(truth[index])]} called {names[int(said[index])]}" for index in worst]
    shown = words.many.capitalize()
    return f"{shown} of the {len(pairs)} most confident mistakes: {', '.join(pairs)}." if pairs else "No mistakes."


def _calibration_alt(evaluation: Evaluation) -> str:
    filled = [b for b in evaluation.reliability() if b.confidence is not None and b.accuracy is not None]
    pairs = [f"{percent(b.confidence or 0.0)} sure, {percent(b.accuracy or 0.0)} right" for b in filled]
    error = percent(evaluation.calibration_error()) if filled else "unknown"
    return f"Reliability diagram. Expected calibration error {error}. {'; '.join(pairs) or 'No examples'}."


def _columns(one: Followed, words: Wording) -> _Picture:
    return _picture(
        f"Activations of one {words.noun} after {', '.join(name for name, _ in one.layers)}. {_said(one)}",
        lambda w: feature_maps.columns(
            one.layers, one.inputs, one.scores, truth=one.truth, overlap=one.overlap, noun=words.noun, width=w
        ),
    )


def _said(one: Followed) -> str:
    """The prediction for the example, in words."""
    if one.overlap is not None:
        return _overlapping(one.overlap)
    name, share = one.scores[0]
    text = f"The network says {name} ({percent(share)})"
    if one.truth is None:
        return f"{text}."
    return f"{text}, which is right." if name == one.truth else f"{text}; it is {one.truth}."


def _overlapping(one: Overlap) -> str:
    """How good the mask of one example is, in words."""
    unit, mean, right = dots(one.inputs.shape), one.found.mean_iou, one.found.pixel_accuracy
    if mean is None or right is None:
        return f"None of its {unit} is labelled."
    return f"The network calls {percent(right)} of its {unit} what they are; their mean IoU is {percent(mean)}."


def _ending(one: Followed) -> str:
    """Where the last column leads."""
    if one.overlap is None:
        return "The last column leads to the scores."
    true = "" if is_curve(one.inputs.shape) else ", with the true one below it"
    return f"The last column leads to the mask{true}."


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
