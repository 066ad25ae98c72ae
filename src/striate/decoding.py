"""Decoding: a listing of files becomes splits, in memory or stored, all of one shape; or a list of what is wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import images
from .errors import DataError, OptionError
from .listings import Example, Listing, shown
from .members import Entry
from .readers import AXES, Probe, Reader, by, counted, probe
from .splits import IGNORED, MaskReader, Progress, Split, Stored, each, label_tensor

RESIDENT = 2 * 10**9
"""Bytes of decoded inputs that are kept in memory at most, unless the caller asks for it."""
SHARE = 4  # or this part of the free memory
ONE_SIZE = {
    "picture": "Give one size for all: --size 64x64 on the command line, size=(64, 64) in Python.",
    "signal": "Give one length for all: --size 8000 on the command line, size=(8000,) in Python.",
    "volume": "Give one size for all: --size 32x64x64 on the command line, size=(32, 64, 64) in Python.",
}
REPAIR = "Repair or remove them, or leave them out (--skip-bad on the command line, skip_bad=True in Python)"


@dataclass(frozen=True)
class Wanted:
    """What the caller asks for; the arguments are those of :func:`striate.datasets.load`."""

    channels: int | None = None
    size: tuple[int, ...] | None = None
    skip_bad: bool = False
    stream: bool | None = None


@dataclass(frozen=True, eq=False)
class Decoded:
    """The splits of a listing.

    Args:
        parts: By their names.
        reader: How a file became an input.
        classes: Their names.
        skipped: Messages about the files that were left out.
    """

    parts: Mapping[str, Split | Stored]
    reader: Reader
    classes: tuple[str, ...]
    skipped: tuple[str, ...]


def decode(listing: Listing, wanted: Wanted, report: Progress) -> Decoded:
    """Decode all files of a listing whose examples have parts, or settle how they will be.

    Headers come first, so that a mistake shows before minutes of decoding.

    Raises:
        DataError: Files cannot be used; the message names them. Or they have several sizes, and none was asked for.
        OptionError: ``channels`` or ``size`` does not fit this kind.
    """
    check_options(listing.kind, wanted)
    probes = _probes(listing, wanted, report)
    probes, masks, classes = _masks(listing, probes, report)
    bad = [*listing.missing, *(str(found) for found in probes.values() if isinstance(found, DataError))]
    good = {e: found for e, found in probes.items() if isinstance(found, Probe)}
    if not good or (listing.missing and not wanted.skip_bad):
        raise unusable(listing, bad)
    reader = _reader(listing, good, wanted)
    if masks is not None:
        masks = replace(masks, size=(reader.shape[1], reader.shape[2]))
    plan = _Plan(listing, wanted, report, reader, masks, classes)
    examples = [e for e in listing.examples if e in good]
    return (plan.stored if _stored(listing, reader, wanted) else plan.in_memory)(examples, bad)


def check_options(kind: str, wanted: Wanted, *, files: bool = True) -> None:
    """Raise an :class:`OptionError` unless ``channels`` and ``size`` are as inputs of this kind can have them."""
    size = wanted.size
    if kind == "picture" and files:
        images.check_options(wanted.channels, size)
        return
    if wanted.channels is not None and not (type(wanted.channels) is int and wanted.channels >= 1):
        raise OptionError(f"channels must be a whole number, at least 1, got channels={wanted.channels!r}.")
    axes = AXES[kind]
    if size is not None and not (len(size) == axes and all(type(n) is int and n >= 1 for n in size)):
        raise OptionError(f"the size of a {kind} is {counted(axes, 'whole number')}, at least 1; got size={size!r}.")


def unusable(listing: Listing, messages: Sequence[str]) -> DataError:
    """The error that lists files."""
    total = len(listing.examples) + len(listing.missing)
    return DataError(
        f"{listing.where}: {len(messages):,} of {total:,} {listing.kind}s cannot be used. "
        f"{REPAIR}:{shown(sorted(messages))}"
    )


def _probes(listing: Listing, wanted: Wanted, report: Progress) -> dict[Example, Probe | DataError]:
    """The shape of each input: from its header, unless the options leave no question."""
    if listing.kind == "picture" and listing.task == "classes" and wanted.channels and wanted.size:
        known = Probe((wanted.channels, *wanted.size))
        return dict.fromkeys(listing.examples, known)
    what = f"checking {listing.kind}s"
    found = each(lambda e: probe(listing.kind, e.source), listing.examples, report=report, what=what)
    return dict(zip(listing.examples, found, strict=True))


def _masks(
    listing: Listing, probes: dict[Example, Probe | DataError], report: Progress
) -> tuple[dict[Example, Probe | DataError], MaskReader | None, tuple[str, ...]]:
    """Look at every mask: its size must be that of its input, and its values decide the classes."""
    if listing.task != "masks":
        return probes, None, listing.classes
    found = each(lambda e: mask_values(e, probes[e]), listing.examples, report=report, what="checking masks")
    values: dict[str, Any] = {}
    for example, outcome in zip(listing.examples, found, strict=True):
        if isinstance(outcome, DataError):
            probes[example] = outcome
        else:
            values[str(example.target)] = outcome
    if doubt := mask_doubt(listing.classes, values):
        raise DataError(f"{listing.where}: {doubt}")
    classes, doubled = mask_classes(listing.classes, sum(values.values(), np.zeros(256, np.int64)))
    return probes, MaskReader((1, 1), len(classes), doubled), classes


def mask_values(example: Example, found: Probe | DataError) -> Any:
    """How often each of the 256 values occurs in an example's mask.

    Raises:
        DataError: The mask cannot be read, or has another size than its input.
    """
    if isinstance(found, DataError):
        raise found
    mask = images.read_mask(_file(example.target))
    if tuple(mask.shape) != found.shape[1:]:
        raise DataError(f"{example.target}: the mask is {by(mask.shape)}, its picture {by(found.shape[1:])}.")
    return np.bincount(mask.numpy().ravel(), minlength=256)


def mask_classes(listed: tuple[str, ...], values: Any) -> tuple[tuple[str, ...], bool]:
    """The class names of masks, and whether 255 means class 1: where the only values are 0 and 255.

    Args:
        listed: Those that ``classes.txt`` has.
        values: How often each of the 256 values occurs.
    """
    present = np.flatnonzero(values).tolist()
    doubled = set(present) <= {0, IGNORED} and IGNORED in present
    highest = 1 if doubled else max((value for value in present if value != IGNORED), default=0)
    return listed or tuple(map(str, range(highest + 1))), doubled


def mask_doubt(listed: tuple[str, ...], masks: Mapping[str, Any]) -> str | None:
    """Why 255 is hardly what is ignored in these masks, but a class; None if nothing speaks against it.

    Args:
        listed: Names of the classes, which settle that other numbers are none.
        masks: How often each of the 256 values occurs in each, by its name.
    """
    present = {name: np.flatnonzero(values).tolist() for name, values in masks.items()}
    values = sorted(set().union(*present.values()))
    if listed or IGNORED not in values or set(values) <= {0, IGNORED}:
        return None
    spaced = [round(IGNORED * step / (len(values) - 1)) for step in range(len(values))]
    if len(values) > 2 and all(abs(value - level) <= 1 for value, level in zip(values, spaced, strict=True)):
        levels = ", ".join(map(str, values[:4])) + (", ..." if len(values) > 4 else "")
        return f"the masks hold evenly spaced greys, {levels}; expected the numbers of classes, 0, 1, 2, ..."
    holding = [found for found in present.values() if IGNORED in found]
    alone = sum(found == [0, IGNORED] for found in holding)
    if 2 * alone <= len(holding):
        return None
    name, other = next((name, n) for name, found in present.items() for n in found if n not in (0, IGNORED))
    return (
        f"255 lies beside nothing but 0 in {alone:,} of {counted(len(holding), 'mask')} with it, as a class does, "
        f"and would be ignored because {name} holds {other}. Write the numbers of classes into all masks; or, if 255 "
        "is to be ignored, name the classes in a file classes.txt."
    )


def _file(target: int | Entry) -> Entry:
    if isinstance(target, Entry):
        return target
    raise DataError(f"class {target} is no mask.")


def _reader(listing: Listing, probes: Mapping[Example, Probe], wanted: Wanted) -> Reader:
    """The one shape, rate and type that all inputs get."""
    kind = listing.kind
    spatial = wanted.size or _one_size(listing, probes)
    depths = sorted({found.shape[0] for found in probes.values()})
    depth = wanted.channels or max(depths)
    if kind != "picture" and len(depths) > 1:
        raise DataError(f"{listing.where}: the {kind}s have {', '.join(map(str, depths))} channels; all need the same.")
    rates = sorted({found.rate for found in probes.values() if found.rate is not None})
    if len(rates) > 1:
        listed = ", ".join(f"{rate:,}" for rate in rates)
        raise DataError(f"{listing.where}: the signals have {listed} samples a second. Resample them to one rate.")
    dtypes = {found.dtype for found in probes.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else "float32"
    return Reader(kind, (depth, *spatial), rates[0] if rates else None, dtype)


def _one_size(listing: Listing, probes: Mapping[Example, Probe]) -> tuple[int, ...]:
    """The ``(H, W)`` or other size that all inputs have."""
    shapes = {example.source: found.shape for example, found in probes.items()}
    by_area = sorted(shapes, key=lambda file: (math.prod(shapes[file][1:]), shapes[file]))
    count = len({shape[1:] for shape in shapes.values()})
    if count > 1:
        small, large = by_area[0], by_area[-1]
        raise DataError(
            f"{listing.where}: the {listing.kind}s have {count} sizes, from {by(shapes[small][1:])} ({small}) "
            f"to {by(shapes[large][1:])} ({large}). {ONE_SIZE[listing.kind]}"
        )
    return shapes[by_area[0]][1:]


def _stored(listing: Listing, reader: Reader, wanted: Wanted) -> bool:
    """Whether the inputs stay in their files: as asked, or if memory would be short."""
    if wanted.stream is not None:
        return wanted.stream
    return needed(listing, reader) > min(RESIDENT, (free_memory() or RESIDENT * SHARE) // SHARE)


def needed(listing: Listing, reader: Reader) -> int:
    """Bytes that all inputs and masks take, decoded."""
    one = math.prod(reader.shape) * reader.torch_dtype.itemsize
    mask = math.prod(reader.shape[1:]) if listing.task == "masks" else 0
    return len(listing.examples) * (one + mask)


def free_memory() -> int | None:
    """Bytes of memory that programs can still have, or None where the system does not say (it is no Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


@dataclass(frozen=True, eq=False)
class _Plan:
    """How the files of a listing are decoded."""

    listing: Listing
    wanted: Wanted
    report: Progress
    reader: Reader
    masks: MaskReader | None
    classes: tuple[str, ...]

    def stored(self, examples: list[Example], bad: list[str]) -> Decoded:
        """Stored splits; to leave out what cannot be decoded, all is decoded once."""
        if bad and not self.wanted.skip_bad:
            raise unusable(self.listing, bad)
        if self.wanted.skip_bad:
            outcomes = each(self.tried, examples, report=self.report, what=f"reading {self.listing.kind}s once")
            bad = bad + [str(found) for found in outcomes if found is not None]
            examples = [e for e, found in zip(examples, outcomes, strict=True) if found is None]
            if not examples:
                raise unusable(self.listing, bad)
        parts: dict[str, Split | Stored] = {}
        for part in Counter(e.part for e in examples):
            chosen = [e for e in examples if e.part == part]
            targets = _labels(chosen) if self.masks is None else tuple(_file(e.target) for e in chosen)
            parts[str(part)] = Stored(tuple(e.source for e in chosen), targets, self.reader, self.masks)
        return Decoded(parts, self.reader, self.classes, tuple(sorted(bad)))

    def in_memory(self, examples: list[Example], bad: list[str]) -> Decoded:
        """All inputs in one tensor, of which the parts are views."""
        inputs = _room(self.listing, (len(examples), *self.reader.shape), str(self.reader.dtype))
        targets = np.zeros((len(examples), *self.reader.shape[1:]), np.uint8) if self.masks else None

        def fill(place: int) -> None:
            found, mask = self.pair(examples[place])
            inputs[place] = found.numpy()
            if targets is not None and mask is not None:
                targets[place] = mask.numpy()

        outcomes = each(fill, range(len(examples)), report=self.report, what=f"reading {self.listing.kind}s")
        bad = bad + [str(found) for found in outcomes if found is not None]
        kept = [place for place, found in enumerate(outcomes) if found is None]
        if (bad and not self.wanted.skip_bad) or not kept:
            raise unusable(self.listing, bad)
        if len(kept) < len(examples):
            examples, inputs = [examples[place] for place in kept], inputs[kept]
            targets = None if targets is None else targets[kept]
        labels = _labels(examples) if targets is None else torch.from_numpy(targets)
        return Decoded(_cut(examples, torch.from_numpy(inputs), labels), self.reader, self.classes, tuple(sorted(bad)))

    def pair(self, example: Example) -> tuple[Tensor, Tensor | None]:
        """An input and its mask; a picture that only its pixels show to lie on its side is refused."""
        if self.wanted.size is None and self.reader.kind == "picture":
            found = images.read(example.source, channels=self.reader.shape[0])
            if found.shape[1:] != self.reader.shape[1:]:
                raise DataError(f"{example.source}: it is {by(found.shape[1:])} once upright. {ONE_SIZE['picture']}")
        else:
            found = self.reader.read(example.source)
        return found, None if self.masks is None else self.masks.read(_file(example.target))

    def tried(self, example: Example) -> None:
        """Decode an example for nothing but its errors."""
        self.pair(example)


def _labels(examples: Sequence[Example]) -> Tensor:
    return label_tensor(e.target for e in examples if isinstance(e.target, int))


def _cut(examples: Sequence[Example], inputs: Tensor, targets: Tensor) -> dict[str, Split | Stored]:
    """The parts, which follow one another."""
    parts: dict[str, Split | Stored] = {}
    start = 0
    for part, count in Counter(e.part for e in examples).items():
        parts[str(part)] = Split(inputs[start : start + count], targets[start : start + count])
        start += count
    return parts


def _room(listing: Listing, shape: tuple[int, ...], dtype: str) -> Any:
    try:
        return np.empty(shape, dtype=dtype)
    except MemoryError:
        needs = math.prod(shape) * np.dtype(dtype).itemsize / 1e9
        raise DataError(
            f"{listing.where}: {shape[0]:,} {listing.kind}s of {by(shape[1:])} need {needs:.1f} GB of memory, "
            "more than there is. Give a smaller size."
        ) from None
