"""A survey of a data set before anything is trained on it: counts, sizes, what is unreadable, double or lopsided."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from torch import Tensor

from . import images, signals, volumes
from .arrays import Arrays
from .datasets import BUNDLED, bundled, check_learnable, look
from .decoding import Wanted, mask_classes, mask_doubt
from .errors import DataError
from .listings import LISTED, PARTS, TEST, TRAIN, VALIDATION, Example, Listing, assigned, planned, settle, shown
from .members import Entry
from .moments import SCALES, FloatSums, at_once
from .readers import by, counted
from .splits import IGNORED, Progress, each
from .tables import aligned

LOPSIDED = 10
"""How many times larger than the smallest class the largest is before it is worth a warning."""
FEW = 5
"""Of a class that has fewer than so many examples held out, measured accuracy says little."""
WHOLE = "all"


@dataclass(frozen=True)
class Seen:
    """What one example turned out to be.

    Args:
        name: What messages call it.
        part: Its own, or "all" if nothing is split.
        label: The number of its class; None with a mask.
        shape: ``(C, *spatial)``.
        size: Bytes in its file.
        digest: Of its decoded values.
        target: The same of its class or mask.
        sums: Count, mean and squared differences of each channel, on the scale of the normalisation; of an array's
            part, the first example has those of all.
        rate: Samples a second, of a signal.
        values: How often each value occurs in its mask.
        misfit: What is wrong with the mask's size.
        side: The part that training with seed 0 puts it into.
    """

    name: str
    part: str
    label: int | None
    shape: tuple[int, ...]
    size: int
    digest: bytes
    target: bytes
    sums: FloatSums | None = field(repr=False)
    rate: int | None = None
    values: Any = None
    misfit: str | None = None
    side: str = ""


@dataclass(frozen=True)
class Survey:
    """What was found; ``str()`` is the text for a person, :meth:`to_dict` the values for a program.

    Args:
        name: What the data set is called.
        where: Its place.
        kind: "picture", "signal", "volume" or "series".
        task: "classes" or "masks".
        layout: How it lies there, in words.
        classes: Their names.
        counts: Of each class in each part; for masks, of all pairs in each part.
        bytes: Of all files.
        sizes: The smallest, median and largest spatial size, and how many different ones there are.
        channels: How many inputs have how many.
        rates: How many signals have how many samples a second.
        seconds: The shortest, median and longest signal, in seconds.
        pixel_shares: Of masks: the share of each class, and of what is ignored.
        imbalance: The largest class of the training part as a multiple of the smallest that has examples.
        mean: Of each channel of the training part, as stored: before any resizing.
        std: Likewise.
        unreadable: Messages about files that cannot be read, are missing, or do not fit.
        duplicates: Names of the examples of equal content, within one part.
        leaks: Names of the examples of equal content in several parts, those of the layout or of the split by seed 0.
        conflicts: Names of the examples of equal content and different targets.
        notes: What else is worth a word.
        refused: Why training refuses it, whatever becomes of files that cannot be used.
    """

    name: str
    where: str
    kind: str
    task: str
    layout: str
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    bytes: int
    sizes: Mapping[str, Any]
    channels: Mapping[int, int]
    rates: Mapping[int, int]
    seconds: tuple[float, ...]
    pixel_shares: Mapping[str, float]
    imbalance: float | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    unreadable: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    leaks: tuple[tuple[str, ...], ...]
    conflicts: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    refused: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should be looked at before training, worst first."""
        split = len(self.counts) > 1
        parts = "in several parts" if split else "on both sides of the split that training makes with seed 0"
        found = [
            (self.leaks, f"LEAK: {{}} with the same content {parts}; the test says nothing about these"),
            (self.conflicts, "{} with the same content and different targets"),
            (self.unreadable, "{} that cannot be used; --skip-bad leaves them out"),
            (self.duplicates, "{} with the same content within a part"),
        ]
        texts = [
            f"{text.format(counted(len(rows), 'file' if rows is self.unreadable else 'group'))}:{shown(_lines(rows))}"
            for rows, text in found
            if rows
        ]
        if self.imbalance is not None and self.imbalance >= LOPSIDED:
            texts.append(f"the largest class has {self.imbalance:.1f} times as many examples as the smallest.")
        refused = (f"training refuses it: {self.refused}",) if self.refused else ()
        return (*refused, *texts, *self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {
            "channels": {str(key): value for key, value in self.channels.items()},
            "rates": {str(key): value for key, value in self.rates.items()},
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        total = sum(sum(part.values()) for part in self.counts.values())
        head = f"{self.name}: {counted(total, self.kind if self.kind != 'series' else 'signal')}, {self.layout}"
        lines = [head, "", *aligned(self._table(), ["class"], total=True), "", *self._facts()]
        if warnings := self.warnings:
            lines += ["", *(f"! {warning}" for warning in warnings)]
        return "\n".join(lines)

    def _table(self) -> list[dict[str, str]]:
        names = list(dict.fromkeys(name for part in self.counts.values() for name in part)) or ["nothing"]
        rows = [
            {"class": name, **{part: f"{self.counts[part].get(name, 0):,}" for part in self.counts}} for name in names
        ]
        return [*rows, {"class": "sum", **{part: f"{sum(c.values()):,}" for part, c in self.counts.items()}}]

    def _facts(self) -> list[str]:
        facts = {"bytes": f"{self.bytes:,}"}
        if self.sizes:
            different = self.sizes["different"]
            spread = ", ".join(f"{key} {by(self.sizes[key])}" for key in ("smallest", "median", "largest"))
            facts["sizes"] = by(self.sizes["smallest"]) if different == 1 else f"{spread}; {different:,} different"
        facts["channels"] = ", ".join(f"{depth} ({count:,})" for depth, count in self.channels.items())
        if self.rates:
            facts["samples/s"] = ", ".join(f"{rate:,} ({count:,})" for rate, count in self.rates.items())
            facts["seconds"] = "{:.3g} to {:.3g}, median {:.3g}".format(*(self.seconds[i] for i in (0, 2, 1)))
        if self.pixel_shares:
            facts["pixels"] = ", ".join(f"{name} {100 * share:.2f} %" for name, share in self.pixel_shares.items())
        if self.imbalance is not None:
            least = "smallest" if all(self.counts[next(iter(self.counts))].values()) else "smallest that has any"
            facts["imbalance"] = f"{self.imbalance:.2f} (largest class / {least}, to train on)"
        facts["mean"] = ", ".join(f"{value:.4f}" for value in self.mean)
        facts["std"] = ", ".join(f"{value:.4f}" for value in self.std)
        width = max(map(len, facts))
        return [f"{name.ljust(width)}  {text}" for name, text in facts.items() if text]


def _lines(rows: Sequence[Any]) -> list[str]:
    return [row if isinstance(row, str) else " = ".join(_few(row)) for row in rows]


def _few(names: Sequence[str]) -> list[str]:
    return [*names[:LISTED], f"{len(names) - LISTED:,} more"] if len(names) > LISTED else list(names)


def survey(source: str | os.PathLike[str], *, channels: int | None = None, progress: Progress | None = None) -> Survey:
    """Look at every example of a data set, also of one that :func:`striate.datasets.load` refuses.

    Every file is decoded once. Two examples have the same content if their decoded values are equal, bit for bit.

    Args:
        source: As :func:`striate.datasets.load` takes it.
        channels: Settles arrays whose axes could mean two things.
        progress: Called with ``(done, total, what)``.

    Raises:
        UnknownNameError: There is neither a data set nor a folder of this name.
        DataError: There is no data at all, or its layout is not known.

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, value in (("train/cat", 1), ("train/dog", 2), ("test/cat", 1)):
    ...         Path(folder, name).mkdir(parents=True)
    ...         images.to_pillow(torch.full((1, 4, 6), value, dtype=torch.uint8)).save(f"{folder}/{name}/1.png")
    ...     found = survey(folder)
    >>> found.counts["train"], found.sizes["median"], len(found.leaks)
    ({'cat': 1, 'dog': 1}, [4, 6], 1)
    """
    report = progress or (lambda done, total, what: None)
    if isinstance(source, str) and source in BUNDLED:
        found: Listing | Arrays = bundled(source)
    else:
        found = look(source, Wanted(channels), report, strict=False)
    if isinstance(found, Arrays):
        return _summed(found, _in_arrays(found), found.missing, report)
    rows = list(zip(found.examples, planned(found, seed=0), strict=True))
    outcomes = each(lambda row: _look_at(found.kind, *row), rows, report=report, what=f"reading {found.kind}s")
    bad = [*found.missing, *(str(one) for one in outcomes if isinstance(one, DataError))]
    return _summed(found, [one for one in outcomes if isinstance(one, Seen)], bad, report)


def _look_at(kind: str, example: Example, side: str) -> Seen:
    """Decode one example as it is stored."""
    rate = None
    if kind == "picture":
        found = images.read(example.source)
    elif kind == "signal":
        found, rate = signals.read(example.source)
    else:
        found = volumes.read(example.source)
    values, misfit, target, label = None, None, b"", None
    if isinstance(example.target, Entry):
        mask = images.read_mask(example.target)
        values, target = np.bincount(mask.numpy().ravel(), minlength=256), _digest(mask)
        if mask.shape != found.shape[1:]:
            misfit = f"{example.target}: the mask is {by(mask.shape)}, its picture {by(found.shape[1:])}."
    else:
        label, target = example.target, str(example.target).encode()
    name, part, size = str(example.source), example.part or WHOLE, example.source.size
    return Seen(
        *(name, part, label, tuple(found.shape), size, _digest(found), target, _sums(found[None])),
        rate=rate,
        values=values,
        misfit=misfit,
        side=side,
    )


def _in_arrays(found: Arrays) -> list[Seen]:
    seen = []
    rows = [(part, row, target) for part, (_, targets) in found.parts.items() for row, target in enumerate(targets)]
    labels = [0 if target.dim() else int(target) for _, _, target in rows]
    sides = iter(assigned(found.where, [part for part, _, _ in rows], labels, [str(row) for _, row, _ in rows], seed=0))
    for part, (inputs, targets) in found.parts.items():
        for number, (value, target) in enumerate(zip(inputs, targets, strict=True)):
            masked = target.dim() > 0
            values = np.bincount(target.numpy().ravel(), minlength=256) if masked else None
            name, size = f"{part or WHOLE}[{number}]", value.numel() * value.element_size()
            label, ending = (None, _digest(target)) if masked else (int(target), str(int(target)).encode())
            shape, alike = tuple(value.shape), isinstance(inputs, Tensor)
            sums = (None if number else _sums(inputs)) if alike else _sums(value[None])
            seen.append(
                Seen(
                    name,
                    part or WHOLE,
                    label,
                    shape,
                    size,
                    _digest(value),
                    ending,
                    sums,
                    values=values,
                    side=next(sides),
                )
            )
    return seen


def _digest(values: Tensor) -> bytes:
    found = blake2b(f"{values.dtype} {tuple(values.shape)}".encode(), digest_size=16)
    found.update(values.contiguous().numpy().data)
    return found.digest()


def _sums(values: Tensor) -> FloatSums:
    """Those of inputs ``(N, C, *spatial)``."""
    sums = FloatSums(values.shape[1])
    for chunk in values.split(at_once(tuple(values.shape[1:]))):
        sums.add(chunk.double() / SCALES[values.dtype])
    return sums


def _summed(found: Listing | Arrays, seen: Sequence[Seen], bad: Sequence[str], report: Progress) -> Survey:
    """Put together what was seen."""
    order = [part for part in (*PARTS, WHOLE) if any(one.part == part for one in seen)] or [WHOLE]
    values = sum((one.values for one in seen if one.values is not None), np.zeros(256, np.int64))
    classes = found.classes
    if found.task == "masks" and isinstance(found, Listing):
        classes, doubled = mask_classes(found.classes, values)
        values = np.array([values[0], values[IGNORED], *[0] * 254]) if doubled else values
    counts = {part: _counts(classes, found.task, [one for one in seen if one.part == part]) for part in order}
    learned = TRAIN if TRAIN in order else order[0]
    sizes = sorted((one.shape[1:] for one in seen), key=lambda size: (np.prod(size), size))
    durations = sorted(one.shape[1] / one.rate for one in seen if one.rate)
    mean, std = _moments([one for one in seen if one.part == learned])
    groups = _groups(seen)
    return Survey(
        *(found.name, found.where, found.kind, found.task, found.layout, classes, counts),
        bytes=sum(one.size for one in seen),
        sizes=_spread([list(size) for size in sizes]),
        channels=dict(sorted(Counter(one.shape[0] for one in seen).items())),
        rates=dict(sorted(Counter(one.rate for one in seen if one.rate).items())),
        seconds=(durations[0], durations[len(durations) // 2], durations[-1]) if durations else (),
        pixel_shares=_shares(classes, values) if found.task == "masks" else {},
        imbalance=_imbalance(counts[learned]) if found.task == "classes" else None,
        mean=mean,
        std=std,
        unreadable=tuple(sorted([*bad, *(one.misfit for one in seen if one.misfit)])),
        duplicates=tuple(_names(rows) for rows in groups if len({one.side for one in rows}) == 1),
        leaks=tuple(_names(rows) for rows in groups if len({one.side for one in rows}) > 1),
        conflicts=tuple(_names(rows) for rows in groups if len({one.target for one in rows}) > 1),
        notes=(
            *_notes(classes, found.task, counts, learned),
            *_untested(classes, found.task, bool({TEST, VALIDATION} & {*order}), seen),
            *_strange(found, classes, seen, values),
        ),
        refused=_refusal(found),
    )


def _refusal(found: Listing | Arrays) -> str:
    """What training says when it splits the examples, whether they can be read or not."""
    try:
        if isinstance(found, Arrays):
            check_learnable(found)
        elif not found.refused:
            settle(found, seed=0)
    except DataError as error:
        return str(error)
    return found.refused if isinstance(found, Listing) else ""


def _counts(classes: Sequence[str], task: str, seen: Sequence[Seen]) -> dict[str, int]:
    if task == "masks":
        return {"pairs": len(seen)}
    numbers = Counter(one.label for one in seen)
    return {name: numbers[label] for label, name in enumerate(classes)}


def _spread(sizes: Sequence[list[int]]) -> dict[str, Any]:
    if not sizes:
        return {}
    different = len({tuple(size) for size in sizes})
    return {"smallest": sizes[0], "median": sizes[len(sizes) // 2], "largest": sizes[-1], "different": different}


def _shares(classes: Sequence[str], values: Any) -> dict[str, float]:
    total = max(1, int(values.sum()))
    found = {name: float(values[label]) / total for label, name in enumerate(classes)}
    return found | ({"ignored": float(values[IGNORED]) / total} if values[IGNORED] else {})


def _imbalance(counts: Mapping[str, int]) -> float | None:
    """The largest class over the smallest that has examples; None where none has."""
    some = [count for count in counts.values() if count]
    return max(some) / min(some) if some else None


def _moments(seen: Sequence[Seen]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel; where depths differ, a single channel counts for all of them."""
    depth = max((one.shape[0] for one in seen), default=0)
    joined = FloatSums(depth)
    for one in seen:
        if one.sums is not None and one.shape[0] in (1, depth):
            joined.join(one.sums.count, one.sums.mean.expand(depth), one.sums.spread.expand(depth))
    pairs = joined.moments(1) if joined.count else []
    return tuple(mean for mean, _ in pairs), tuple(std for _, std in pairs)


def _groups(seen: Sequence[Seen]) -> list[list[Seen]]:
    """The examples of equal content, where there are several."""
    found: dict[bytes, list[Seen]] = {}
    for one in seen:
        found.setdefault(one.digest, []).append(one)
    return [rows for rows in found.values() if len(rows) > 1]


def _names(rows: Sequence[Seen]) -> tuple[str, ...]:
    return tuple(one.name for one in rows)


def _strange(found: Listing | Arrays, classes: Sequence[str], seen: Sequence[Seen], values: Any) -> list[str]:
    """Doubts about masks, and files that nothing is made of."""
    notes = []
    if found.task == "masks" and isinstance(found, Listing):
        doubt = mask_doubt(found.classes, {one.name: one.values for one in seen})
        notes += [doubt] if doubt else []
    if found.task == "masks" and (empty := [name for label, name in enumerate(classes) if not values[label]]):
        notes.append(f"no mask holds the classes {', '.join(_few(empty))}.")
    if isinstance(found, Listing) and found.unread:
        endings = Counter(PurePosixPath(file.name).suffix.lower() or "no ending" for file in found.unread)
        kinds = ", ".join(f"{ending} ({count:,})" for ending, count in sorted(endings.items()))
        names = shown([str(file) for file in found.unread])
        notes.append(f"{counted(len(found.unread), 'file')} of other endings or outside all classes, {kinds}:{names}")
    return notes


def _untested(classes: Sequence[str], task: str, given: bool, seen: Sequence[Seen]) -> list[str]:
    """Classes that can be learned, but of which a test would say nothing or little.

    Args:
        classes: Their names.
        task: "classes" or "masks".
        given: Whether the layout has a part to test on: its makers chose how large it is.
        seen: The examples.
    """
    if task == "masks":
        return []
    tested, counts = (Counter(one.label for one in seen if one.side in sides) for sides in ((TEST,), (TEST, TRAIN)))
    names = {label: name for label, name in enumerate(classes) if counts[label]}
    notes = []
    if none := [repr(name) for label, name in names.items() if not tested[label]]:
        notes.append(f"nothing to test the classes {', '.join(_few(none))} by.")
    few = [f"{name!r} ({tested[label]})" for label, name in names.items() if 0 < tested[label] < FEW]
    if few and not given:
        notes.append(f"fewer than {FEW} examples to test these classes by, which says little: {', '.join(_few(few))}.")
    return notes


def _notes(classes: Sequence[str], task: str, counts: Mapping[str, Mapping[str, int]], learned: str) -> list[str]:
    notes = []
    if len(classes) < 2:
        notes.append(f"a classifier needs at least 2 classes, and there is {len(classes)}.")
    if task == "classes":
        empty = [name for name, count in counts[learned].items() if not count]
        if empty:
            notes.append(f"nothing to learn the classes {', '.join(map(repr, empty))} from.")
    if TEST not in counts:
        which = "the validation part becomes it" if VALIDATION in counts else "one in six is held out"
        notes.append(f"there is no test part; {which}.")
    return notes
