"""Work that other programs on the machine do not change: how many functions are called."""

from __future__ import annotations

import cProfile
from collections.abc import Callable


def calls(action: Callable[[], object]) -> int:
    """Runs the action and counts the calls in it, those of functions written in C too.

    The count varies by some parts in a hundred, with what caches hold and when garbage is collected.
    Loops over layers, positions or pictures that call something in each round are seen. What happens inside a single
    call is not: a regular expression that looks again and again, large integers, tensors.
    """
    with cProfile.Profile() as profile:
        action()
    return sum(entry.callcount for entry in profile.getstats())
