"""Work that no neighbour on the machine changes: how many functions are called."""

from __future__ import annotations

import cProfile
from collections.abc import Callable


def calls(action: Callable[[], object]) -> int:
    """Runs the action and counts the calls in it, those of functions written in C too.

    A loop over positions, layers or pictures calls something in each of its rounds, so that what grows with the square
    of a size, or at all where it must not, is seen here, on a busy machine as on a quiet one.
    """
    with cProfile.Profile() as profile:
        action()
    return sum(entry.callcount for entry in profile.getstats())
