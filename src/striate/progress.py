"""A bar for work that takes longer than one likes to wait without one."""

from __future__ import annotations

import time
from typing import Any

PATIENCE = 2.0  # seconds


class Progress:
    """A progress bar on the terminal, shown after two seconds; nothing where there is no terminal.

    Args:
        title: What is being done.
    """

    def __init__(self, title: str) -> None:
        self.title, self.start = title, time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Progress:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()

    def tell(self, share: float) -> None:
        """How much is done, from 0 to 1."""
        if self.bar is None and time.monotonic() - self.start > PATIENCE:
            from rich.console import Console
            from rich.progress import Progress as Bar

            console = Console(stderr=True)
            self.bar = Bar(console=console, transient=True, disable=not console.is_terminal)
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=1.0)
        if self.bar is not None:
            self.bar.update(self.task, completed=min(max(share, 0.0), 1.0))
