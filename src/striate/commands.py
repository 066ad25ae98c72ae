"""What the verbs of the command line share: how words become values, how results are shown, how mistakes end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Annotated, Any

import typer

from . import files
from .errors import NotationError, OptionError, StriateError, UnknownNameError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Convolutional networks: describe them before they run, train, evaluate, predict, look inside.",
    epilog="First steps: striate describe lenet5, then striate train lenet5 --data fashion-mnist-mini",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Network = Annotated[str, typer.Argument(help="A network text, the name of a zoo network, or a file with a text.")]
Run = Annotated[str, typer.Argument(help="A run's folder, or its checkpoint file.")]


MOST_NAMED = 20
"""Files that are named when they were left out."""

SILENCE = 30.0
"""Seconds between two lines of progress where there is no terminal."""

WRONG_USAGE = (OptionError, UnknownNameError, NotationError)


def verb(example: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a verb of the command line.

    Its help ends in the example. A user's mistake becomes one paragraph and an exit code, 1 if the work failed and 2 if
    the command was wrong; so does Ctrl-C.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(*arguments: Any, **options: Any) -> None:
            try:
                function(*arguments, **options)
            except StriateError as error:
                typer.echo(f"Error: {error}", err=True)
                raise typer.Exit(2 if isinstance(error, WRONG_USAGE) else 1) from None
            except KeyboardInterrupt as stop:
                typer.echo(str(stop) or "Stopped.", err=True)
                raise typer.Exit(1) from None

        return app.command(epilog=f"Example: {example}")(run)

    return decorate


def with_values(words: list[str]) -> tuple[list[str], dict[str, list[Any]]]:
    """Networks, and the values of names: ``N=2``, ``N=1..3``, ``N=1,2,4``, ``POOL=yes,no``."""
    from .comparison import MOST_NETWORKS

    sources: list[str] = []
    values: dict[str, list[Any]] = {}
    for word in words:
        name, equals, written = word.partition("=")
        if not equals or not name.isidentifier():
            sources.append(word)
            continue
        first, dots, last = written.partition("..")
        if dots and first.isdecimal() and last.isdecimal() and len(first + last) < 20:
            span = range(int(first), int(last) + 1)
            if len(span) > MOST_NETWORKS:
                raise OptionError(f"{word}: these are {len(span):,} values; at most {MOST_NETWORKS:,} are compared.")
            choices: list[Any] = list(map(str, span))
        else:
            choices = [choice for choice in written.split(",") if choice]
        if not choices or name in values:
            raise OptionError(f"{word}: expected {name}=2, {name}=1..3 or {name}=1,2,4, and each name once.")
        if name == "input":
            values[name] = [numbers("input", choice, "3x224x224") for choice in choices]
            continue
        values[name] = [int(choice) if choice.isdecimal() and len(choice) < 10 else choice for choice in choices]
    return sources, values


def one_network(verb: str, network: str, words: list[str] | None) -> dict[str, list[Any]]:
    """The values of names for a verb that takes one network and one value for each name."""
    sources, values = with_values([network, *(words or [])])
    if sources != [network]:
        data = next((word for word in sources[1:] if files.is_file(word) or files.is_folder(word)), None)
        hint = "" if data is None else f" If {data} is the data, type --data {data}."
        said = " ".join(map(repr, sources)) or network
        raise OptionError(f"{verb} takes one network, then NAME=VALUE; got {said}.{hint}")
    if many := next((name for name, choices in values.items() if len(choices) > 1), None):
        raise OptionError(f"{many} has several values; {verb} takes one.")
    return values


def numbers(option: str, written: str | None, example: str, fewest: int = 2) -> tuple[int, ...] | None:
    """Whole numbers joined by x; None if nothing was written."""
    if written is None:
        return None
    parts = written.lower().split("x")
    if len(parts) < fewest or not all(part.isdecimal() and int(part) for part in parts):
        raise OptionError(f"{option} {written}: expected whole numbers joined by x, as in {example}.")
    return tuple(map(int, parts))


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"


def show_values(values: Any, text: str, as_json: bool) -> None:
    """Print a result: text for people, or JSON for programs."""
    typer.echo(json.dumps(values, ensure_ascii=False, indent=2) if as_json else text)


@contextmanager
def left_out() -> Iterator[Callable[[str], None]]:
    """A function that is told which files were left out; they are named on standard error in the end."""
    found: list[str] = []
    try:
        yield found.append
    finally:
        for message in found[:MOST_NAMED]:
            typer.echo(f"Left out: {message}", err=True)
        if len(found) > MOST_NAMED:
            typer.echo(f"Left out: {len(found) - MOST_NAMED:,} more files.", err=True)


class _Log:
    """Progress as a line now and then, for output that goes to a file."""

    def __init__(self, console: Any) -> None:
        self.console, self.told = console, time.monotonic()

    def tick(self, done: int, total: int, what: str) -> None:
        """Say how far it is, if nothing was said for a while."""
        if time.monotonic() - self.told > SILENCE:
            self.told = time.monotonic()
            self.console.print(f"{what}: {done:,} of {total:,}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(shown: bool = True) -> Iterator[tuple[Any, Any]]:
    """A progress bar on a terminal (on standard error), and a function that prints a line above it.

    Args:
        shown: Whether this process writes at all.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, quiet=not shown)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task("", total=None)
        log = _Log(console)
        yield (
            (lambda done, total, what: bar.update(task, completed=done, total=total, description=what))
            if console.is_terminal
            else log.tick,
            lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
        )
