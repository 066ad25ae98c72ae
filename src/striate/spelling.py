"""How one layer is spelled: its word, the numbers right behind it and its options, read and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from functools import lru_cache
from typing import Any

from .errors import NotationError
from .operations import Dropout, Operation
from .padding import WORDS

DIGITS = 9
MOST_AXES = 16
CHOICES = {
    "border": ("zeros", "replicate", "reflect", "circular"),
    "mode": ("nearest", "linear"),
    "init": ("random", "identity"),
}
EXAMPLES: dict[str, str] = {"shape": "3x32x32", "kernel": "2", "features": "10", "chosen": "1/2 or 0,2,5", "rows": "1"}


def operation(kind: type[Operation], sizes: str | None, given: Mapping[str, str]) -> Operation:
    """The operation that a text means.

    Args:
        kind: Of operation.
        sizes: What stands right behind the word.
        given: The options.

    Raises:
        NotationError: Something is no setting of this kind; the message says what is.

    >>> from striate.operations import Conv
    >>> operation(Conv, "3-64", {"stride": "2", "bias": "no"})
    Conv(kernel=3, filters=64, stride=2, padding='same', dilation=1, groups=1, bias=False, \
border='zeros', init='random')
    """
    settings = {} if sizes is None else _sized(kind, sizes)
    types = {entry.name: str(entry.type) for entry in fields(kind) if entry.name not in ("shape", "chosen")}
    for name, value in given.items():
        if name not in types:
            takes = f"it takes {', '.join(types)}" if types else "it takes none"
            raise NotationError(f"{kind.word} has no option {name!r}; {takes}.")
        if name in settings:
            raise NotationError(f"{name} is given twice.")
        try:
            settings[name] = _value(name, types[name], value)
        except NotationError as error:
            raise NotationError(f"{name}={value[:60]}: {error}") from None
    if kind is Dropout and settings.get("p", 0) >= 1:
        raise NotationError(
            f"DROPOUT takes a probability from 0 up to but not including 1, got {sizes or given['p']!r}."
        )
    return kind(**settings)


def _sized(kind: type[Operation], written: str) -> dict[str, Any]:
    """What the numbers behind the word say."""
    numbers = written.lower().split("x")
    try:
        match kind.measure:
            case "":
                raise LookupError
            case "kernel-filters":
                kernel, dash, filters = written.lower().partition("-")
                if dash and "x" not in written.lower():
                    return {"kernel": number(kernel), "filters": number(filters)}
                if dash or len(numbers) < 2:
                    raise LookupError
                return {"kernel": tuple(map(number, numbers[:-1])), "filters": number(numbers[-1])}
            case "shape":
                if len(numbers) < 2 or not all(re.fullmatch("[0-9]+", n) for n in numbers):
                    raise LookupError
                if len(numbers) > MOST_AXES + 1:
                    raise NotationError(f"an input has at most {MOST_AXES} axes, this one {len(numbers) - 1:,}.")
                return {"shape": tuple(map(number, numbers))}
            case name:
                types = {entry.name: str(entry.type) for entry in fields(kind)}
                if types[name].startswith(("int", "PerAxis")) and not re.fullmatch("[0-9]+(x[0-9]+)*", written.lower()):
                    raise LookupError
                if types[name].startswith("int") and len(numbers) > 1:
                    raise LookupError
                return {name: _value(name, types[name], written)}
    except LookupError:
        raise NotationError(f"{kind.word} cannot be given {written!r}; {_meant(kind)}.") from None


def _meant(kind: type[Operation]) -> str:
    if not kind.measure:
        return f"{kind.word} takes no number"
    if kind.measure == "kernel-filters":
        return f"write {kind.word} 3x3x64 or {kind.word}3-64"
    return f"write {kind.word} {EXAMPLES.get(kind.measure, '2')}"


def _value(name: str, kind: str, written: str) -> Any:
    """The value of a field, by its name and type."""
    if name in ("padding", "rows"):
        return _rows(written, words=name == "padding")
    if name == "chosen":
        return _chosen(written)
    if name in CHOICES:
        if written.lower() not in CHOICES[name]:
            raise NotationError(f"expected {', '.join(CHOICES[name])}.")
        return written.lower()
    if kind.startswith("PerAxis"):
        numbers = tuple(number(entry) for entry in written.lower().split("x"))
        return numbers if len(numbers) > 1 else numbers[0]
    if kind.startswith("bool"):
        if written.lower() not in ("yes", "no"):
            raise NotationError("expected yes or no.")
        return written.lower() == "yes"
    if kind.startswith("float"):
        return _decimal(written)
    return number(written) if kind.startswith("int") else written


def number(written: str, least: int = 1) -> int:
    """A whole number.

    Raises:
        NotationError: It is none, below ``least``, or has too many digits.
    """
    if written.isdecimal() and len(written) > DIGITS:
        raise NotationError(f"a number has at most {DIGITS} digits, this one {len(written):,}.")
    if not written.isdecimal() or int(written) < least:
        raise NotationError(f"{written!r} is not a whole number of at least {least}.")
    return int(written)


def _decimal(written: str) -> float:
    if not re.fullmatch(r"[0-9]{1,400}(\.[0-9]{1,400})?(e-?[0-9]{1,3})?", written.lower()):
        raise NotationError(f"{written!r} is not a number such as 0.5.")
    value = float(written)
    if value == float("inf"):
        raise NotationError(f"{written!r} is too large a number.")
    return value


def _rows(written: str, *, words: bool) -> Any:
    if words and written.lower() in WORDS:
        return written.lower()
    entries = [entry.split(":") for entry in written.lower().split("x")]
    if not all(len(entry) <= 2 and all(n.isdecimal() for n in entry) for entry in entries):
        end = f", or {', '.join(WORDS)}" if words else ""
        raise NotationError(f"expected a number, before:after, one of these for each axis (1x2){end}.")
    rows = [tuple(number(n, least=0) for n in entry) for entry in entries]
    values = tuple(entry[0] if len(entry) == 1 else entry for entry in rows)
    return values[0] if len(values) == 1 and isinstance(values[0], int) else values


def _chosen(written: str) -> tuple[str, tuple[int, ...]]:
    part, slash, parts = written.partition("/")
    if slash and part.isdecimal() and parts.isdecimal() and 1 <= number(part) <= number(parts):
        return "part", (number(part), number(parts))
    if re.fullmatch(r"[0-9]+(,[0-9]+)*", written):
        return "list", tuple(number(entry, least=0) for entry in written.split(","))
    raise LookupError


def options(operation: Operation) -> dict[str, Any]:
    """The settings of an operation that differ from the default of its kind."""
    plain = type(operation)()
    settings = {f.name: getattr(operation, f.name) for f in fields(operation)}
    return {name: value for name, value in settings.items() if value != getattr(plain, name)}


@lru_cache(maxsize=4096)
def text(operation: Operation) -> str:
    """One operation as the notation writes it; a foreign one by its own name.

    >>> from striate.operations import Conv, Dropout
    >>> text(Conv(kernel=(5, 5), filters=6, padding=2)), text(Conv(3, 64)), text(Dropout(0.25))
    ('CONV 5x5x6 padding=2', 'CONV3-64', 'DROPOUT 0.25')
    """
    if not operation.word:
        return str(getattr(operation, "kind", type(operation).__name__))
    settings = options(operation)
    sizes = _measure_text(operation, settings)
    rest = {name: value for name, value in settings.items() if name not in _measured(operation, settings)}
    return operation.word + sizes + "".join(f" {name}={value_text(name, value)}" for name, value in rest.items())


def _measured(operation: Operation, settings: dict[str, Any]) -> tuple[str, ...]:
    """The fields that stand right behind the word."""
    if operation.measure != "kernel-filters":
        return (operation.measure,)
    return ("kernel", "filters") if "filters" in settings else ()


def _measure_text(operation: Operation, settings: dict[str, Any]) -> str:
    names = _measured(operation, settings)
    values = [getattr(operation, name) for name in names if name]
    if not values or not set(names) & set(settings):
        return ""
    if len(values) == 2:
        kernel, filters = values
        return f" {_joined((*kernel, filters))}" if isinstance(kernel, tuple) else f"{kernel}-{filters}"
    return f" {value_text(names[0], values[0])}"


def value_text(name: str, value: Any) -> str:
    """The value of an option as the notation writes it.

    >>> value_text("padding", ((0, 1), 2)), value_text("bias", False), value_text("p", 1e-7)
    ('0:1x2', 'no', '0.0000001')
    """
    if name == "chosen":
        kind, numbers = value
        return ("/" if kind == "part" else ",").join(map(str, numbers))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{Decimal(str(value)):f}"
    return _joined(value) if isinstance(value, tuple) else str(value)


def _joined(entries: tuple[Any, ...]) -> str:
    return "x".join(":".join(map(str, entry)) if isinstance(entry, tuple) else str(entry) for entry in entries)
