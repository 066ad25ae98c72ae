"""One exception family: every error that Striate raises on purpose is a :class:`StriateError`.

A message says where, what was wrong with which number, what was expected, and what to type instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from types import MappingProxyType


class StriateError(Exception):
    """The parent of every exception that Striate raises on purpose."""


class GeometryError(StriateError, ValueError):
    """The numbers given for a sliding window do not describe one, or do not fit the tensors."""


class NotationError(StriateError, ValueError):
    """A network text cannot be read; the message points at the line and column."""


class UnknownNameError(StriateError, LookupError):
    """Something was asked for by a name that nothing carries; the message lists the known ones."""


class AlgorithmError(StriateError, ValueError):
    """An algorithm was asked for by name and refuses; the message is its own sentence."""


class OptionError(StriateError, ValueError):
    """An option has a value that it does not admit."""


class DataError(StriateError, ValueError):
    """Data cannot be used; the message names the file."""


class CheckpointError(StriateError, ValueError):
    """A checkpoint cannot be read, or not be used with this network; the message names the file."""


class TrainingError(StriateError, ArithmeticError):
    """Training has run away: the loss is no number, or far above that of guessing."""


class WrongResultError(StriateError, ArithmeticError):
    """A computation is further from its float64 truth than it may be; the message says which and how far."""


class OutputError(StriateError, OSError):
    """A file cannot be written; the message names it."""


@contextmanager
def describing(action: str, **known: object) -> Iterator[None]:
    """Re-raise a :class:`GeometryError` with the user's own action and the values bound so far.

    >>> with describing("building Conv2d(3, 8, 0)", stride=2):
    ...     raise GeometryError("kernel must be at least 1, got kernel=0.")
    Traceback (most recent call last):
        ...
    striate.errors.GeometryError: While building Conv2d(3, 8, 0):
      kernel must be at least 1, got kernel=0.
      Known so far: stride=2.
    """
    try:
        yield
    except GeometryError as error:
        bound = f"\n  Known so far: {', '.join(f'{name}={value!r}' for name, value in known.items())}." if known else ""
        raise GeometryError(f"While {action}:\n  {error}{bound}") from None


def unknown_name(
    kind: str, name: object, known: Iterable[str], meant: Mapping[str, str] = MappingProxyType({})
) -> UnknownNameError:
    """The error for a name that nothing carries: it suggests the nearest and lists all.

    >>> str(unknown_name("algorithm", "vendr", ["reference", "vendor"]))
    "No algorithm is called 'vendr'. Did you mean 'vendor'? Known: reference, vendor."

    Args:
        kind: What the name is one of.
        name: As it was given.
        known: The names that there are.
        meant: Known names of others.
    """
    choices = sorted(known)
    near = [meant[str(name)]] if str(name) in meant else get_close_matches(str(name), choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownNameError(f"No {kind} is called {name!r}.{hint} Known: {', '.join(choices)}.")
