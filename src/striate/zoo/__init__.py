"""Published networks, each a notation text that a student can read."""

from __future__ import annotations

import errno
import re
from importlib import resources
from pathlib import Path

from .. import notation
from ..architecture import Architecture
from ..errors import DataError, NotationError, OptionError, unknown_name

TEXT = re.compile(r"->|→|\n|^\s*INPUT(\s|#|$|[0-9]+(x[0-9]+)*\b(?!\.))", re.IGNORECASE)


def names() -> tuple[str, ...]:
    """Names of all networks, sorted.

    >>> names()
    ('lenet5', 'vgg11', 'vgg13', 'vgg16', 'vgg19')
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


def architecture(source: object) -> Architecture:
    """The network that a text, a zoo name or a file describes.

    Raises:
        NotationError: The text cannot be read.
        UnknownNameError: No such network.
        OptionError: The source is none of these.

    >>> architecture("vgg16").classes
    1000
    """
    if isinstance(source, Architecture):
        return source
    if not isinstance(source, str | Path):
        kind = type(source).__name__
        raise OptionError(
            f"a network is a notation text, a zoo name, a file with a text, or what striate.network made; got {kind}."
        )
    try:
        return notation.parse(written := read(source))
    except NotationError as error:
        if written == str(source):
            raise
        raise NotationError(f"In {source}: {error}") from None
