"""The notation: a network as one line of text, as course notes write it, and back.

    INPUT 1x28x28 -> [CONV 5x5x20 -> RELU -> POOL 2]*2 -> FC 100 -> RELU -> FC 10

Sizes are ``CxHxW`` for INPUT, ``KxKxFilters`` for CONV (or ``CONV3-64``: every axis 3 wide, 64 filters), ``K`` or
``KxK`` for POOL and AVGPOOL. Options follow as ``stride=2 padding=same dilation=2 groups=4 bias=no``. A number left
out is filled later. ``#`` starts a comment. Capital and small letters mean the same.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any

from .architecture import FC, OPERATIONS, Architecture, AvgPool, Conv, Dropout, Input, Node, Operation, Pool, options
from .errors import NotationError, unknown_name
from .padding import WORDS

GRAMMAR = r"""
    start: sequence
    sequence: item (_ARROW item)*
    ?item: layer | block
    block: "[" sequence "]" ["*" COUNT]
    layer: WORD SIZES? OPTION*

    _ARROW: "->" | "→"
    OPTION.2: /[A-Za-z_]+=[A-Za-z0-9_.:-]*/
    WORD: /[A-Za-z_]+/
    SIZES: /[0-9]+(\.[0-9]+)?([xX][0-9]+)*(-[0-9]+)?/
    COUNT: /[0-9]+/
    COMMENT: /#[^\n]*/
    %ignore COMMENT
    %ignore /\s+/
"""
EXPECTED = {
    "WORD": "a layer (" + ", ".join(OPERATIONS) + ")",
    "LSQB": "'['",
    "RSQB": "']'",
    "_ARROW": "'->'",
    "STAR": "'*' and a number",
    "COUNT": "a number of repetitions",
    "SIZES": "a size such as 3x3x64",
    "OPTION": "an option such as stride=2",
    "$END": "the end",
}
DEEPEST = 50
LONGEST = 10_000
DIGITS = 9


def parse(text: str) -> Architecture:
    """Read a network text.

    Raises:
        NotationError: The text cannot be read; the message shows the line, the column and what was expected.

    >>> [node.name for node in parse("INPUT 3x32x32 -> [CONV -> RELU -> POOL]*2 -> FC 10")]
    ['input', 'conv1', 'relu1', 'pool1', 'conv2', 'relu2', 'pool2', 'fc1']
    """
    layers = _layers(text, _tree(text))
    if not layers or layers[0][0].upper() != "INPUT":
        line, column = (layers[0][0].line, layers[0][0].column) if layers else (1, 1)
        raise _error(text, line, column, "a network starts with INPUT, as in INPUT 3x32x32 -> FC 10.")
    nodes: list[Node] = []
    counts: dict[str, int] = {}
    for word, sizes, given in layers:
        operation = _operation(text, word, sizes, given)
        if isinstance(operation, Input) and nodes:
            raise _error(text, word.line, word.column, "INPUT stands only once, at the start.")
        counts[operation.word] = counts.get(operation.word, 0) + 1
        name = operation.word.lower() + ("" if isinstance(operation, Input) else str(counts[operation.word]))
        nodes.append(Node(name, operation, (nodes[-1].name,) if nodes else (), word.line, word.column))
    return Architecture(tuple(nodes))


def format(architecture: Architecture) -> str:
    """The text of a network, so that ``parse(format(a)) == a``.

    >>> format(parse("input 3x8x8 -> [conv3-4 -> relu]*2 -> fc 2"))
    'INPUT 3x8x8 -> CONV3-4 -> RELU -> CONV3-4 -> RELU -> FC 2'
    """
    return " -> ".join(layer_text(node.operation) for node in architecture)


def layer_text(operation: Operation) -> str:
    """One layer as the notation writes it.

    >>> layer_text(Conv(kernel=(5, 5), filters=6, padding=2))
    'CONV 5x5x6 padding=2'
    """
    settings = options(operation)
    word, sizes = operation.word, ""
    match operation:
        case Input(shape=tuple(shape)):
            sizes = " " + _join(shape)
        case Conv(kernel=int(kernel), filters=int(filters)):
            sizes = f"{kernel}-{filters}"
        case Conv(kernel=tuple(kernels), filters=int(filters)):
            sizes = " " + _join((*kernels, filters))
        case Conv(kernel=kernel) if "kernel" in settings:
            sizes = f" kernel={_join(kernel)}"
        case FC(features=int(number)):
            sizes = f" {number}"
        case Dropout(p=p):
            sizes = f" {Decimal(str(p)):f}"
        case Pool() if "kernel" in settings:
            sizes = " " + _join(operation.kernel)
    rest = {
        name: value for name, value in settings.items() if name not in ("shape", "kernel", "filters", "features", "p")
    }
    return word + sizes + "".join(f" {name}={_value_text(value)}" for name, value in rest.items())


def _join(numbers: int | tuple[int, ...]) -> str:
    return "x".join(map(str, numbers)) if isinstance(numbers, tuple) else str(numbers)


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "x".join(":".join(map(str, entry)) if isinstance(entry, tuple) else str(entry) for entry in value)
    return str(value)


@lru_cache(maxsize=1)
def _parser() -> Any:
    from lark import Lark

    return Lark(GRAMMAR, parser="lalr", propagate_positions=True, maybe_placeholders=True)


def _tree(text: str) -> Any:
    from lark.exceptions import UnexpectedCharacters, UnexpectedInput

    try:
        return _parser().parse(text)
    except UnexpectedInput as error:
        problem: Any = error
        line, column = problem.line, problem.column
        if isinstance(error, UnexpectedCharacters):
            found = repr(error.char)
        elif problem.token.type == "$END":  # it borrows its position from the last token, if there is one
            found = "the end of the text"
            line, column = problem.token.end_line or 1, problem.token.end_column or 1
        else:
            found = repr(str(problem.token))
        names = problem.interactive_parser.accepts()
        wanted = [EXPECTED[name] for name in EXPECTED if name in names]
        raise _error(text, line, column, f"found {found}, expected {' or '.join(wanted)}.") from None


def _error(text: str, line: int, column: int, message: str) -> NotationError:
    shown = text.split("\n")[line - 1].rstrip("\r")
    indent = "".join("\t" if character == "\t" else " " for character in shown[: column - 1])
    return NotationError(f"Line {line}, column {column}: {message}\n  {shown}\n  {indent}^")


def _layers(text: str, tree: Any, depth: int = 0) -> list[Any]:
    """The layers in order, ``(word, sizes, options)``, with every repetition written out."""
    if tree.data == "layer":
        word, *rest = tree.children
        sizes = next((token for token in rest if token is not None and token.type == "SIZES"), None)
        return [(word, sizes, [token for token in rest if token is not None and token.type == "OPTION"])]
    if tree.data == "block" and depth == DEEPEST:
        raise _error(
            text, tree.meta.line, tree.meta.column, f"brackets stand inside each other at most {DEEPEST} deep."
        )
    parts, count = (tree.children[:1], tree.children[1]) if tree.data == "block" else (tree.children, None)
    times = 1 if count is None else _repetitions(text, count)
    found: list[Any] = []
    for part in parts:
        found += _layers(text, part, depth + (tree.data == "block"))
        if len(found) * times > LONGEST:
            where = part.meta if count is None else count
            raise _error(text, where.line, where.column, f"a network has at most {LONGEST:,} layers, this one more.")
    return found * times


def _repetitions(text: str, count: Any) -> int:
    try:
        return _number(str(count), least=0)
    except ValueError as error:
        raise _error(text, count.line, count.column, str(error)) from None


def _operation(text: str, word: Any, sizes: Any, given: list[Any]) -> Operation:
    kind = OPERATIONS.get(word.upper())
    if kind is None:
        raise _error(text, word.line, word.column, str(unknown_name("layer", word.upper(), OPERATIONS)))
    settings: dict[str, Any] = {}
    for token, read in [(sizes, _sizes), *((option, _option) for option in given)]:
        if token is None:
            continue
        try:
            found = read(kind, str(token).lower())
        except ValueError as error:
            raise _error(text, token.line, token.column, str(error)) from None
        if repeated := settings.keys() & found:
            raise _error(text, token.line, token.column, f"{repeated.pop()} is given twice.")
        settings |= found
    return kind(**settings)


def _sizes(kind: type[Operation], written: str) -> dict[str, Any]:
    """What the number after a layer's word means."""
    kernel, dash, filters = written.partition("-")
    if dash and kind is Conv and kernel.isdecimal():
        return {"kernel": _number(kernel), "filters": _number(filters)}
    if kind is Dropout:
        return {"p": _probability(written)}
    examples = {
        Input: "INPUT 3x32x32",
        Conv: "CONV 3x3x64 or CONV3-64",
        FC: "FC 10",
        Pool: "POOL 2",
        AvgPool: "AVGPOOL 2",
    }
    plain = kind in examples and written.replace("x", "").isdecimal()
    numbers = tuple(_number(number) for number in written.split("x")) if plain else ()
    if kind is Input and len(numbers) >= 2:
        return {"shape": numbers}
    if kind is Conv and len(numbers) >= 2:
        return {"kernel": numbers[:-1], "filters": numbers[-1]}
    if kind is FC and len(numbers) == 1:
        return {"features": numbers[0]}
    if issubclass(kind, Pool) and numbers:
        return {"kernel": numbers if len(numbers) > 1 else numbers[0]}
    meant = f"write {examples[kind]}" if kind in examples else f"{kind.word} takes no number"
    raise ValueError(f"{kind.word} cannot be given {written!r}; {meant}.")


def _option(kind: type[Operation], written: str) -> dict[str, Any]:
    name, _, value = written.partition("=")
    readers: dict[str, Callable[[str], Any]] = {
        "kernel": _numbers,
        "stride": _numbers,
        "padding": _padding,
        "dilation": _numbers,
        "groups": _number,
        "bias": _yes_no,
    }
    allowed = [option for option in readers if option in kind.__dataclass_fields__]
    if name not in allowed:
        takes = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
        raise ValueError(f"{kind.word} has no option {name!r}; {takes}.")
    try:
        return {name: readers[name](value)}
    except ValueError as error:
        raise ValueError(f"{name}={value}: {error}") from None


def _number(written: str, least: int = 1) -> int:
    if written.isdecimal() and len(written) > DIGITS:
        raise ValueError(f"a number has at most {DIGITS} digits, this one {len(written):,}.")
    if not written.isdecimal() or int(written) < least:
        raise ValueError(f"{written!r} is not a whole number of at least {least}.")
    return int(written)


def _numbers(written: str) -> int | tuple[int, ...]:
    numbers = tuple(_number(number) for number in written.split("x"))
    return numbers if len(numbers) > 1 else numbers[0]


def _padding(written: str) -> Any:
    if written in WORDS:
        return written
    entries = [entry.split(":") for entry in written.split("x")]
    if not all(len(entry) <= 2 and all(number.isdecimal() for number in entry) for entry in entries):
        raise ValueError(f"expected a number, before:after, one of these for each axis (1x2), or {', '.join(WORDS)}.")
    rows = [tuple(_number(number, least=0) for number in entry) for entry in entries]
    values = tuple(entry[0] if len(entry) == 1 else entry for entry in rows)
    return values[0] if len(values) == 1 and isinstance(values[0], int) else values


def _yes_no(written: str) -> bool:
    if written not in ("yes", "no"):
        raise ValueError("expected yes or no.")
    return written == "yes"


def _probability(written: str) -> float:
    if "x" in written or "-" in written or not 0 <= float(written) < 1:
        raise ValueError(f"DROPOUT takes a probability from 0 up to but not including 1, got {written!r}.")
    return float(written)
