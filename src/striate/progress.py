"""A bar for work that takes longer than one likes to wait without one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 2.0  # seconds


class Progress:
    """A progress bar on the terminal, shown after two seconds; nothing where there is no terminal.

    Args:
        title: What is being done.
        total: How much there is to do, in any unit.
        clock: What tells the time.
    """

    def __init__(self, title: str, total: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.title, self.total, self.clock = title, total, clock
        self.start, self.done = clock(), 0.0
        self.bar: Any = None

    def __enter__(self) -> Progress:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()

    def advance(self) -> None:
        """One more is done."""
        self.tell(self.done + 1)

    def tell(self, done: float) -> None:
        """How much is done, from 0 to the total."""
        self.done = min(max(done, 0.0), self.total)
        if self.bar is None and self.clock() - self.start > PATIENCE:
            from rich.console import Console
            from rich.progress import Progress as Bar

            console = Console(stderr=True)
            self.bar = Bar(console=console, transient=True, disable=not console.is_terminal)
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.total)
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)
