"""Published networks, each a notation text that a student can read, and ``load`` for their published weights."""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from .. import notation
from ..architecture import DEFAULTS, Architecture, whole_numbers
from ..errors import DataError, NotationError, OptionError, unknown_name

TEXT = re.compile(r"->|→|\n|^\s*let\s|^\s*INPUT(\s|#|$|[0-9]+(x[0-9]+)*\b(?!\.))", re.IGNORECASE)


def names() -> tuple[str, ...]:
    """Names of all networks, sorted.

    >>> names()[:3]
    ('alexnet', 'alexnet_torchvision', 'allcnn_a')
    """
    entries = resources.files(__name__).iterdir()
    return tuple(sorted(entry.name.removesuffix(".txt") for entry in entries if entry.name.endswith(".txt")))


def text(name: str) -> str:
    """The notation text of a network, with a comment on where it was published.

    Raises:
        UnknownNameError: No network carries the name.

    >>> print(text("lenet5").splitlines()[2])
    INPUT 1x28x28
    """
    if name not in names():
        raise unknown_name("network", name, names())
    return resources.files(__name__).joinpath(f"{name}.txt").read_text(encoding="utf-8")


def read(source: str | Path) -> str:
    """The notation text that a person means: the text itself, the name of a zoo network, or a file that holds one.

    Raises:
        UnknownNameError: It is neither.
        DataError: The file cannot be read as text.
    """
    written = str(source)
    if isinstance(source, str) and TEXT.search(written):
        return written
    if written in names():
        return text(written)
    path = Path(written)
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as a network text: {error}.") from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # else it is neither a name nor a file
            raise DataError(f"{path}: cannot be read as a network text: {error}.") from None
    raise unknown_name("network (nor a file)", written, names())


def architecture(source: object, variables: Mapping[str, Any] | None = None) -> Architecture:
    """The network that a text, a zoo name or a file describes.

    Args:
        source: One of these, or an architecture, which is returned as it is.
        variables: Values of the names that the text uses.

    Raises:
        NotationError: The text cannot be read.
        UnknownNameError: No such network.
        OptionError: The source is none of these, or the text uses no such name.

    >>> architecture("vgg16").classes
    1000
    """
    found, used = _read(source, variables or {})
    if unknown := sorted(set(variables or {}) - used):
        raise _no_variable(unknown[0], used, found)
    return found


def bound(
    source: object, variables: Mapping[str, Any], input_size: Sequence[int] | None = None
) -> tuple[Architecture, dict[str, Any]]:
    """A network whose every number is known, and which numbers were filled in because nobody gave them.

    Args:
        source: Notation text, a zoo name, a file with a text, or an architecture.
        variables: Values of the names that the text uses and of what it leaves open; None is not given. For a zoo name,
            ``input`` and ``classes`` change the published ones.
        input_size: ``(C, *spatial)``; replaces the size that the text gives.

    Raises:
        NotationError: The text cannot be read.
        UnknownNameError: No such network.
        OptionError: A variable is unknown, or does not fit.

    >>> bound("INPUT -> [CONV -> RELU]*N -> FC", {"N": 1, "filters": 8, "classes": 5})[1]
    {'input': (3, 32, 32)}
    """
    given = {name: value for name, value in variables.items() if value is not None}
    found, used = _read(source, given)
    rest = {name: value for name, value in given.items() if name not in used}
    if unknown := sorted(set(rest) - set(DEFAULTS)):
        raise _no_variable(unknown[0], used, found)
    if input_size is not None:
        shape = whole_numbers(input_size)
        if shape is None or len(shape) < 2:
            raise OptionError(f"input_size={input_size!r} must be (channels, *spatial), whole numbers of at least 1.")
        found = found.adapted(shape)
    if not isinstance(source, Architecture) and str(source) in names():
        shape = None if input_size is not None else rest.pop("input", None)
        classes = rest.pop("classes", None)
        if classes is not None and found.classes is None:
            raise OptionError(
                f"classes={classes!r} was given, but {source} ends in no layer of scores; change its text."
            )
        found = found.adapted(shape, classes)
    found = found.bind(**rest)
    filled = {name: DEFAULTS[name] for name in found.open}
    return found.bind(**filled), filled


def _no_variable(name: str, used: Collection[str], network: Architecture) -> OptionError:
    uses = f"it uses {', '.join(sorted(used))}" if used else "it uses no names"
    leaves = f"leaves {', '.join(network.open)} open" if network.open else "leaves nothing open"
    return OptionError(f"the network has no variable {name!r}; {uses} and {leaves}.")


def _read(source: object, variables: Mapping[str, Any]) -> tuple[Architecture, frozenset[str]]:
    if isinstance(source, Architecture):
        return source, frozenset()
    if not isinstance(source, str | Path):
        kind = type(source).__name__
        raise OptionError(
            f"a network is a notation text, a zoo name, a file with a text, or what striate.network made; got {kind}."
        )
    try:
        return notation.read(written := read(source), variables)
    except NotationError as error:
        if written == str(source):
            raise
        raise NotationError(f"In {source}: {error}") from None


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module 'striate.zoo' has no attribute {name!r}.")
    # Weights need PyTorch, which texts do not.
    value = globals()[name] = import_module("..loading", __name__).load
    return value
