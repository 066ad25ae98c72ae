"""For pytest: a fixture that makes the linter's findings on a network fail a test. Loading it costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest

SEVERE = ("error", "warning")


def assert_clean(
    network: Any,
    input_size: Sequence[int] | None = None,
    ignore: str | Collection[str] = (),
    *,
    object_size: int | Sequence[int] | None = None,
    **variables: Any,
) -> None:
    """Fail if the linter has errors or warnings on a network; what is only worth knowing passes.

    Args:
        network: Notation text, a zoo name, a file with a text, an architecture, or any PyTorch module.
        input_size: ``(C, *spatial)`` of an example.
        ignore: Codes of findings that are admitted; a single one may stand alone.
        object_size: Of the objects that it is to recognise, in input positions.
        **variables: Values of the names that a text uses.

    Raises:
        AssertionError: There are findings; the message lists them as ``striate check`` does.
        UnknownNameError: No rule has a code that is to be ignored.

    >>> assert_clean("lenet5")
    >>> assert_clean("INPUT 3x8x8 -> FC 10 -> SOFTMAX", ignore="STR026")
    """
    __tracebackhide__ = True  # pytest shows the test's own line
    from .errors import unknown_name
    from .findings import RULES, text
    from .inspection import check
    from .lint import path_of

    admitted = {ignore} if isinstance(ignore, str) else set(ignore)
    for code in sorted(admitted):
        if code not in RULES:
            raise unknown_name("rule", code, RULES)
    found = check(network, input_size, object_size=object_size, **variables)
    severe = [one for one in found if one.severity in SEVERE and one.code not in admitted]
    if severe:
        raise AssertionError(text(severe, path_of(network)))


@pytest.fixture(name="assert_clean")
def assert_clean_fixture() -> Callable[..., None]:
    """:func:`assert_clean`, for tests: ``assert_clean(model, (3, 224, 224), ignore=["STR023"])``."""
    return assert_clean
