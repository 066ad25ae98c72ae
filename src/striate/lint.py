"""The linter: what a careful colleague would say about a network before it runs, each with numbers and a fix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from . import field_rules, size_rules, structure_rules, zoo
from .architecture import Architecture, whole_numbers
from .errors import OptionError
from .facts import Facts
from .findings import SEVERITIES, TEXT, Finding

CHECKS = (*size_rules.CHECKS, *field_rules.CHECKS, *structure_rules.CHECKS)


def check_paper(
    network: Any,
    input_size: Sequence[int] | None = None,
    *,
    object_size: int | Sequence[int] | None = None,
    **variables: Any,
) -> list[Finding]:
    """The findings on a network on paper, in the order of its text.

    Args:
        network: Notation text, a zoo name, a file with a text, an architecture, or something that has one.
        input_size: ``(C, *spatial)``; replaces the size that the text gives.
        object_size: Of the objects that it is to recognise, in input positions: one number, or one per axis.
        **variables: Values of the names that the text uses, and what it leaves open.

    Raises:
        NotationError: The text cannot be read.
        GeometryError: A window does not fit its input; the message names the layer and where it stands.
        OptionError: A variable does not fit.

    >>> for finding in check_paper("INPUT 3x224x224 -> CONV3-8 stride=2 padding=0 -> RELU -> FC 10"):
    ...     print(finding)
    STR001 conv1 never reads 447 of the 50,176 positions of input (0.9 %); 447 input pixels (0.9 %) are lost here.
    """
    bound, _ = zoo.bound(getattr(network, "architecture", network), variables, input_size)
    return list(findings(bound, object_size=object_size))


def findings(architecture: Architecture, *, object_size: int | Sequence[int] | None = None) -> tuple[Finding, ...]:
    """The findings on a network whose every number is known, in the order of its nodes.

    What its text ignores (``# striate: ignore[STR012]`` on the line of the node) is left out, and what one place of
    the text wrote several times is told once.

    Raises:
        GeometryError: A window does not fit its input, for another reason than the input's size.
        OptionError: The object size is no whole number, or not one per axis.
    """
    if unfit := size_rules.unfit_size(architecture):
        return _kept([unfit], architecture)
    axes = len(architecture.input_shape or ()) - 1
    facts = Facts(architecture, _object(object_size, axes))
    return _kept(chain.from_iterable(check(facts) for check in CHECKS), architecture)


def _object(size: int | Sequence[int] | None, axes: int) -> tuple[int, ...] | None:
    if size is None:
        return None
    numbers = whole_numbers(size)
    if numbers is None or len(numbers) not in (1, axes):
        raise OptionError(f"object_size={size!r} must be a whole number of at least 1, or one for each axis.")
    return numbers * (axes if len(numbers) == 1 else 1)


def _kept(found: Iterable[Finding], architecture: Architecture) -> tuple[Finding, ...]:
    """The findings in order, without those that are ignored; those of one place of the text as one."""
    order = {node.name: number for number, node in enumerate(architecture)}
    ignored = {node.name: node.ignored for node in architecture}
    places: dict[tuple[object, ...], list[Finding]] = {}
    for one in sorted(found, key=lambda one: (SEVERITIES.index(one.severity), order[one.node])):
        if not {one.code, "all"} & ignored[one.node]:
            place = (one.line, one.column) if one.line else (one.source or one.node,)
            places.setdefault((one.code, *place), []).append(one)
    kept = [replace(alike[0], repeats=len(alike) - 1) for alike in places.values()]
    return tuple(sorted(kept, key=lambda one: (one.line, one.column, order[one.node], one.code)))


def path_of(network: Any) -> str:
    """What a network is called in the place of a file's path: the file, the zoo name, ``<text>``, or the model's class.

    >>> path_of("lenet5"), path_of("INPUT 1x8x8 -> FC 2")
    ('lenet5', '<text>')
    """
    if isinstance(network, str | Path):
        return TEXT if isinstance(network, str) and zoo.TEXT.search(network) else str(network)
    return type(network).__name__
