"""The notation: a network as a text that a person reads aloud, as course notes write it, and back.

    INPUT 1x28x28 -> [CONV 5x5x20 -> RELU -> POOL 2]*2 -> FC 100 -> RELU -> FC 10

Brackets repeat, ``SUM[ ... | ... ]`` joins branches, ``let`` names blocks and numbers, ``as`` and ``from`` name places.
Capital and small letters mean the same in the words of the notation; names that a text makes up are taken as written.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from . import spelling
from .architecture import DEFAULTS, Architecture, Node
from .errors import NotationError, OptionError, unknown_name
from .operations import OPERATIONS, Input, Operation, Pool, Unpool
from .spelling import DIGITS, text

NUMBER = r"[0-9]+(?:\.[0-9]+)?"
NAME = r"[A-Za-z_][A-Za-z0-9_]*"
BRACES = r"\{[^{}#\n]*\}"
ATOM = f"(?:{NUMBER}|{BRACES})"
GRAMMAR = rf"""
    start: definition* main
    main: first (_ARROW item)* -> sequence
    ?first: entrance | entrance _AS LABEL -> named
    entrance: INPUT [SIZES | WORD | PARENTHESES] OPTION* [MAYBE] -> layer
    definition: _LET WORD [PARENTHESES] _EQUALS (VALUE | sequence)
    sequence: item (_ARROW item)*
    ?item: unit | named
    named: unit _AS LABEL
    ?unit: layer | block | join | aside | place
    layer: (WORD | INPUT) [SIZES | WORD | PARENTHESES] OPTION* [MAYBE]
    block: "[" sequence "]" ["*" COUNT]
    join: JOIN "[" sequence ("|" sequence)* "]"
    aside: _AUX "[" sequence "]"
    place: _FROM LABEL

    _ARROW: "->" | "→"
    _EQUALS: "="
    _LET.5: /let(?=\s)/i
    _AS.5: /as(?=\s)/i
    _FROM.5: /from(?=\s)/i
    _AUX.5: /aux(?=\s*\[)/i
    JOIN.5: /(sum|product|concat)(?=\s*\[)/i
    INPUT.5: /input(?![A-Za-z_])/i
    MAYBE: "?"
    OPTION.4: /[A-Za-z_]+=([A-Za-z0-9_.:,\-]|{BRACES})*/
    SIZES.3: /{ATOM}([xX:\/,]{ATOM})*(-(?!>)({ATOM}|{NAME}))?|{NAME}-(?!>)({ATOM}|{NAME})/
    VALUE.2: /{NUMBER}|{BRACES}/
    COUNT: /[0-9]+|{NAME}|{BRACES}/
    PARENTHESES: /\(([^()#]|\([^()#]*\))*\)/
    LABEL: /[A-Za-z0-9_.]+/
    WORD: /[A-Za-z_]+/
    COMMENT: /#[^\n]*/
    %ignore COMMENT
    %ignore /\s+/

    value: sum
    ?sum: product | sum "+" product -> add | sum "-" product -> sub
    ?product: unary | product "*" unary -> mul | product "//" unary -> floordiv | product "%" unary -> mod
    ?unary: atom | "-" unary -> neg
    ?atom: WHOLE | VARIABLE | "(" sum ")"
    WHOLE: /[0-9]+/
    VARIABLE: /{NAME}/
"""
EXPECTED = {
    "INPUT": "INPUT, as in INPUT 3x32x32",
    "WORD": "a layer, such as CONV3-64 or RELU",
    "LSQB": "'['",
    "RSQB": "']'",
    "VBAR": "'|'",
    "_ARROW": "'->'",
    "_EQUALS": "'='",
    "STAR": "'*' and a number",
    "COUNT": "a number of repetitions",
    "SIZES": "a size such as 3x3x64",
    "OPTION": "an option such as stride=2",
    "PARENTHESES": "parameters in parentheses",
    "LABEL": "a name",
    "VALUE": "a number",
    "WHOLE": "a number",
    "VARIABLE": "a name",
    "LPAR": "'('",
    "RPAR": "')'",
    "$END": "the end",
}
LONGEST_TEXT = 200_000
LONGEST_VALUE = 100
WIDEST = 200
DEEPEST = 50
LONGEST = 10_000
STEPS = 10 * LONGEST
ALIASES = {
    "MAXPOOL": "POOL",
    "CONVTRANSPOSE": "DECONV",
    "UPCONV": "DECONV",
    "SWISH": "SILU",
    "DENSE": "FC",
    "LINEAR": "FC",
    "ADD": "SUM",
    "BATCHNORM": "BN",
    "LAYERNORM": "LN",
    "GROUPNORM": "GN",
}
RESERVED = {*OPERATIONS, *ALIASES, "IDENTITY", "AUX", "LET", "AS", "FROM"}
Scope = Mapping[str, int]
IGNORE = re.compile(r"\bstriate:\s*ignore\s*(\[[A-Za-z0-9, -]*\])?", re.IGNORECASE)


def parse(text: str, variables: Mapping[str, Any] | None = None) -> Architecture:
    """Read a network text.

    Args:
        text: As in docs/notation.md.
        variables: Values of the names that the text uses, such as ``{"N": 3, "POOL": True}``; they take the place of
            what a ``let`` says.

    Raises:
        NotationError: The text cannot be read; the message shows the line, the column and what was expected.
        OptionError: The text uses no such name.

    >>> [node.name for node in parse("INPUT 3x32x32 -> [CONV -> RELU -> POOL]*N -> FC 10", {"N": 2})]
    ['input', 'conv1', 'relu1', 'pool1', 'conv2', 'relu2', 'pool2', 'fc1']
    """
    found, used = read(text, variables or {})
    if unknown := sorted(set(variables or {}) - used):
        has = f"it uses {', '.join(sorted(used))}" if used else "it uses no names"
        raise OptionError(f"the text has no variable {unknown[0]!r}; {has}.")
    return found


def read(text: str, variables: Mapping[str, Any]) -> tuple[Architecture, frozenset[str]]:
    """The network of a text, and the names that the text lets one choose.

    Raises:
        NotationError: The text cannot be read.

    >>> read("INPUT 3x8x8 -> FC K", {"K": 5, "classes": 3})[1]
    frozenset({'K'})
    """
    if len(text) > LONGEST_TEXT:
        raise NotationError(
            f"a network text has at most {LONGEST_TEXT:,} characters, this one {len(text):,}; "
            "write repetitions as [ ... ]*N and blocks with let."
        )
    return _Reader(text, variables).network()


def format(architecture: Architecture) -> str:
    """The text of a network, so that ``parse(format(a)) == a``.

    Raises:
        NotationError: A node of a traced model has no word in the notation.

    >>> format(parse("input 3x8x8 -> [conv3-4 -> relu]*2 -> fc 2"))
    'INPUT 3x8x8 -> CONV3-4 -> RELU -> CONV3-4 -> RELU -> FC 2'
    >>> format(parse("INPUT 3x8x8 -> SUM[CONV3-3 | IDENTITY] -> FC 2"))
    'INPUT 3x8x8 -> CONV3-3 -> SUM[IDENTITY | from input] -> FC 2'
    """
    written: list[str] = []
    names = _Names()
    here = None
    for node in architecture:
        if not node.operation.word:
            raise NotationError(f"{node.name}: the notation has no word for {text(node.operation)}.")
        if note := getattr(node.operation, "foreign_note", ""):
            raise NotationError(f"{node.name}: {text(node.operation)} cannot be written as a text: {note}.")
        layer = text(node.operation)
        if any(isinstance(getattr(node.operation, entry.name), float) for entry in fields(node.operation)):
            _require_readable(layer)
        if node.operation.inputs is None:
            layer += f"[{' | '.join('IDENTITY' if name == here else f'from {name}' for name in node.inputs)}]"
        elif node.inputs and node.inputs[0] != here:
            written.append(f"from {node.inputs[0]}")
        if names.automatic(node.operation.word) != node.name:
            layer += f" as {node.name}"
        names.take(node.name, node.operation.word)
        written.append(layer)
        here = node.name
    written += [f"AUX[from {name}]" if name != here else "AUX[IDENTITY]" for name in architecture.results[1:]]
    if architecture.results[0] != here:
        written.append(f"from {architecture.results[0]}")
    return " -> ".join(written)


@lru_cache(maxsize=1024)
def _require_readable(layer: str) -> None:
    """Refuse a layer with a number that a text cannot hold: a negative one, an endless one, a probability of 1."""
    try:
        parse(f"INPUT 1x1 -> {layer}")
    except NotationError as error:
        reason = str(error).splitlines()[0].partition(": ")[2]
        raise NotationError(f"{layer} cannot be written as a text: {reason}") from None


class _Names:
    """Names of nodes: the word and a running number, or what the text says; each only once."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._last: Counter[str] = Counter()  # numbers behind a name that were tried already

    def automatic(self, word: str) -> str:
        return self.free(word.lower() + ("" if word == "INPUT" else str(self._counts[word] + 1)))

    def free(self, name: str) -> str:
        if name not in self.taken:
            return name
        while (candidate := f"{name}_{self._last[name] + 2}") in self.taken:
            self._last[name] += 1
        return candidate

    def take(self, name: str, word: str) -> None:
        self._counts[word] += 1
        self.taken.add(name)


@lru_cache(maxsize=1)
def _parser() -> Any:
    from lark import Lark

    return Lark(GRAMMAR, parser="lalr", start=["start", "value"], propagate_positions=True, maybe_placeholders=True)


@lru_cache(maxsize=1024)
def _parsed(calculation: str) -> Any:
    """The tree of a calculation; blocks ask for the same ones again and again."""
    return _parser().parse(calculation, start="value")


@dataclass(frozen=True)
class _Block:
    """A block that a text names: its parameters with their defaults, and its tree."""

    parameters: dict[str, str | None]
    tree: Any

    def usage(self, name: str) -> str:
        """How it is called."""
        written = (one if default is None else f"{one}={default}" for one, default in self.parameters.items())
        return f"{name}({', '.join(written)})"


class _Reader:
    """Reads one text: writes its tree out, node by node."""

    def __init__(self, text: str, variables: Mapping[str, Any]) -> None:
        self.text = text
        self.given = dict(variables)
        self.used: set[str] = set()
        self.numbers: dict[str, int] = {}
        self.blocks: dict[str, _Block] = {}
        self.nodes: list[Node] = []
        self.places: dict[str, str] = {}
        self.names = _Names()
        self.asides: list[str] = []
        self.here: str | None = None
        self.depth = 0
        self.steps = 0
        self.calls: list[str] = []

    # ------------------------------------------------------------------------------------------------- the whole

    def network(self) -> tuple[Architecture, frozenset[str]]:
        self._require_shallow()
        *definitions, sequence = self._tree(self.text, "start", 0).children
        for definition in definitions:
            self._define(definition)
        self._sequence(sequence, {})
        results = (str(self.here), *self.asides)
        read = {name for node in self.nodes for name in node.inputs} | set(results)
        for node in self.nodes:
            if node.name not in read:
                raise self._error(node, f"nothing reads {node.name}; join it with SUM, PRODUCT or CONCAT, or AUX[...].")
        # A name in a bracket that is repeated 0 times is a name of the text all the same.
        words = set(re.findall(NAME, re.sub("#[^\n]*", "", self.text)))
        self.used |= words & set(self.given) - set(DEFAULTS)
        outputs = () if results == (self.nodes[-1].name,) else results
        return Architecture(self._with_ignored(), outputs), frozenset(self.used)

    def _with_ignored(self) -> tuple[Node, ...]:
        ignored: dict[int, frozenset[str]] = {}
        for number, line in enumerate(self.text.split("\n"), 1):
            _, _, comment = line.partition("#")
            if found := IGNORE.search(comment):
                codes = "all" if found[1] is None else found[1][1:-1].upper()
                ignored[number] = frozenset(codes.replace(",", " ").split())
        return tuple(replace(node, ignored=ignored[node.line]) if node.line in ignored else node for node in self.nodes)

    def _tree(self, text: str, start: str, offset: int) -> Any:
        from lark.exceptions import UnexpectedCharacters, UnexpectedInput

        try:
            return _parsed(text) if start == "value" else _parser().parse(text, start=start)
        except UnexpectedInput as error:
            problem: Any = error
            place = problem.pos_in_stream
            if isinstance(error, UnexpectedCharacters):
                found = repr(error.char)
            elif problem.token.type == "$END":  # it borrows its position from the last token, if there is one
                found = "the end of the calculation" if start == "value" else "the end of the text"
                place = problem.token.end_pos
            else:
                found = repr(str(problem.token))
            names = problem.interactive_parser.accepts()
            if "SIZES" in names:  # a name or parentheses may stand there, too, but who writes them knows
                names -= {"WORD", "PARENTHESES", "MAYBE"}
            names -= {"INPUT"} if "WORD" in names else set()
            operators = {"STAR": "one of + - * // %"} if start == "value" else {}
            wanted = [operators.get(name, EXPECTED[name]) for name in EXPECTED if name in names]
            if names == {"_EQUALS", "PARENTHESES"}:
                wanted[-1] += " (names that a text makes up for blocks have letters and _ only)"
            raise self._error(offset + (place or 0), f"found {found}, expected {' or '.join(wanted)}.") from None

    def _error(self, place: Any, message: str) -> NotationError:
        """The error at a token, a node, a tree's place or a character number."""
        if isinstance(place, int):
            before = self.text[:place]
            line, column = before.count("\n") + 1, place - before.rfind("\n")
        else:
            line, column = getattr(place, "line", 0) or 1, getattr(place, "column", 0) or 1
        shown = self.text.split("\n")[line - 1].rstrip("\r")
        cut = max(0, column - 101) if len(shown) > WIDEST else 0
        indent = "".join("\t" if character == "\t" else " " for character in shown[cut : column - 1])
        return NotationError(f"Line {line}, column {column}: {message}\n  {shown[cut : cut + WIDEST]}\n  {indent}^")

    # ----------------------------------------------------------------------------------------------- definitions

    def _define(self, tree: Any) -> None:
        word, parentheses, body = tree.children
        name = str(word)
        if name.upper() in RESERVED and not isinstance(body, str):
            raise self._error(word, f"{name} is a word of the notation; take another name.")
        if name in self.blocks or name in self.numbers:
            raise self._error(word, f"{name} is defined twice.")
        if isinstance(body, str):
            if parentheses is not None:
                raise self._error(parentheses, "a number takes no parameters.")
            self.numbers[name] = self._value(str(body), getattr(body, "start_pos", 0), {})
            return
        parameters: dict[str, str | None] = {}
        for piece, place in _pieces(parentheses):
            parameter, _, default = (part.strip() for part in piece.partition("="))
            if not re.fullmatch(NAME, parameter) or parameter in parameters:
                raise self._error(place, f"{parameter!r} is no name for a parameter, or is there twice.")
            parameters[parameter] = default or None
        self.blocks[name] = _Block(parameters, body)

    # ---------------------------------------------------------------------------------------------------- walking

    def _sequence(self, tree: Any, scope: Scope) -> None:
        for item in tree.children:
            self._step(item.meta)
            unit, label = item.children if item.data == "named" else (item, None)
            getattr(self, f"_{unit.data}")(unit, scope, label)
            if label is not None:
                self.places[str(label)] = str(self.here)

    def _step(self, place: Any) -> None:
        self.steps += 1
        if len(self.nodes) > LONGEST or self.steps > STEPS:
            raise self._error(place, f"a network has at most {LONGEST:,} layers, this one more.")

    def _deeper(self, place: Any, tree: Any, scope: Scope) -> None:
        if self.depth == DEEPEST:
            raise self._error(place, f"brackets and blocks stand inside each other at most {DEEPEST} deep.")
        self.depth += 1
        self._sequence(tree, scope)
        self.depth -= 1

    def _require_shallow(self) -> None:
        """Brackets are counted before they are read, which takes longer."""
        depth = 0
        for found in re.finditer(r"#[^\n]*|[\[\]]", self.text):
            depth += {"[": 1, "]": -1}.get(found[0], 0)
            if depth > DEEPEST + 1:
                raise self._error(found.start(), f"brackets and blocks stand inside each other at most {DEEPEST} deep.")

    def _block(self, tree: Any, scope: Scope, label: Any) -> None:
        inner, times = tree.children
        if times is None:
            self._deeper(tree.meta, inner, scope)
            return
        count = self._number(str(times), times.start_pos, scope)
        if count < 0:
            raise self._error(times, f"{times} is {count}; a number of repetitions is at least 0.")
        for _ in range(count):
            self._step(times)
            self._deeper(tree.meta, inner, scope)

    def _place(self, tree: Any, scope: Scope, label: Any) -> None:
        name = str(tree.children[0])
        if name not in self.places and name not in self.names.taken:
            known = {*self.places, *self.names.taken}
            raise self._error(tree.children[0], str(unknown_name("place", name, sorted(known)[:20])))
        self.here = self.places.get(name, name)

    def _join(self, tree: Any, scope: Scope, label: Any) -> None:
        word, *branches = tree.children
        start, ends = self.here, []
        for branch in branches:
            self.here = start
            self._deeper(tree.meta, branch, scope)
            ends.append(str(self.here))
        self._add(OPERATIONS[word.upper()](), word, tuple(ends), label)

    def _aside(self, tree: Any, scope: Scope, label: Any) -> None:
        start = self.here
        self._deeper(tree.meta, tree.children[0], scope)
        self.asides.append(str(self.here))
        self.here = start

    # ----------------------------------------------------------------------------------------------------- layers

    def _layer(self, tree: Any, scope: Scope, label: Any) -> None:
        word, sizes, *given, maybe = tree.children
        name = str(word)
        if maybe is not None and not self._wanted(name, maybe):
            return
        if name in self.blocks:
            self._call(word, sizes, given, scope)
        elif name.upper() != "IDENTITY" or sizes is not None or given:
            operation = self._operation(word, sizes, given, scope)
            if isinstance(operation, Input) and self.nodes:
                raise self._error(word, "INPUT stands only once, at the start.")
            inputs: tuple[str, ...] = (self.here,) if self.here else ()
            if isinstance(operation, Unpool):
                operation, inputs = self._unpooled(word, operation)
            self._add(operation, word, inputs, label)

    def _wanted(self, name: str, place: Any) -> bool:
        if name not in self.given and name not in self.numbers:
            raise self._error(place, f"{name}? is there or not, as you say: give {name}=yes or {name}=no.")
        self.used.add(name)
        value = self.given.get(name, self.numbers.get(name))
        wanted = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}.get(str(value).lower())
        if wanted is None:
            raise self._error(place, f"{name}={value}: expected yes or no.")
        return wanted

    def _add(self, operation: Operation, word: Any, inputs: tuple[str, ...], label: Any) -> None:
        name = self.names.automatic(operation.word) if label is None else self.names.free(str(label))
        self.names.take(name, operation.word)
        self.nodes.append(Node(name, operation, inputs, word.line, word.column))
        self.here = name
        self._step(word)

    def _unpooled(self, word: Any, operation: Unpool) -> tuple[Unpool, tuple[str, ...]]:
        name = self.places.get(operation.of, operation.of)
        pool = next((node for node in self.nodes if node.name == name), None)
        if operation.of and pool is None:
            raise self._error(word, f"nothing is called {operation.of}; UNPOOL undoes a max pooling above it.")
        if pool is None or type(pool.operation) is not Pool or pool.operation.dilation != 1 or pool.operation.ceil:
            raise self._error(word, "UNPOOL needs the max pooling that it undoes, as in UNPOOL of=pool1.")
        settings = {name: getattr(pool.operation, name) for name in ("kernel", "stride", "padding")}
        return replace(operation, of=pool.name, **settings), (str(self.here), pool.name, pool.inputs[0])

    def _call(self, word: Any, arguments: Any, given: list[Any], scope: Scope) -> None:
        name = str(word)
        block = self.blocks[name]
        usage = block.usage(name)
        if wrong := [one for one in (arguments, *given) if one is not None and one.type != "PARENTHESES"]:
            raise self._error(wrong[0], f"{name} is a block, written {usage}.")
        values: dict[str, int] = {}
        names = iter([*block.parameters])
        for piece, place in _pieces(arguments):
            keyword, equals, expression = piece.partition("=")
            parameter = keyword.strip() if equals else next(names, None)
            if parameter is None or parameter not in block.parameters:
                raise self._error(place, f"{name} is written {usage}; it has no place for {piece!r}.")
            if parameter in values:
                raise self._error(place, f"{parameter} is given twice.")
            at = place + (len(keyword) + 1 if equals else 0)
            values[parameter] = self._value(expression if equals else piece, at, scope)
        for parameter, default in block.parameters.items():
            if parameter not in values and default is None:
                raise self._error(word, f"{name} is written {usage}; {parameter} is missing.")
            if parameter not in values:
                values[parameter] = self._value(str(default), word.start_pos, values)
        if name in self.calls:
            raise self._error(word, f"{name} uses itself.")
        self.calls.append(name)
        self._deeper(word, block.tree, values)
        self.calls.pop()

    def _operation(self, word: Any, sizes: Any, given: list[Any], scope: Scope) -> Operation:
        name = word.upper()
        if sizes is not None and name + str(sizes) in OPERATIONS:  # RELU6
            name, sizes = name + str(sizes), None
        kind = OPERATIONS.get(ALIASES.get(name, name))
        if kind is None:
            raise self._error(word, str(unknown_name("layer", str(word), [*OPERATIONS, *self.blocks])))
        if kind.inputs is None:
            raise self._error(word, f"{kind.word} joins branches, as in {kind.word}[CONV3-64 | IDENTITY].")
        if sizes is not None and sizes.type == "PARENTHESES":
            raise self._error(sizes, f"parentheses belong to blocks; numbers of {kind.word} stand bare behind it.")
        # Each setting by itself, so that a mistake is shown where it stands.
        written = None if sizes is None else self._filled(str(sizes), sizes.start_pos, scope, strict=True)
        found = self._spelled(sizes, kind, written, {})
        options: dict[str, str] = {}
        for option in given:
            option_name, _, value = str(option).partition("=")
            option_name = option_name.lower()
            if option_name in options:
                raise self._error(option, f"{option_name} is given twice.")
            if option_name != "of":
                value = self._filled(value, option.start_pos + len(option_name) + 1, scope, strict=False)
            self._spelled(option, kind, written, {option_name: value})
            options[option_name] = value
        return self._spelled(word, kind, written, options) if options else found

    def _spelled(self, place: Any, kind: type[Operation], sizes: str | None, options: dict[str, str]) -> Operation:
        try:
            return spelling.operation(kind, sizes, options)
        except ValueError as error:
            raise self._error(place, str(error)) from None

    # ---------------------------------------------------------------------------------------------------- numbers

    def _filled(self, written: str, place: int, scope: Scope, *, strict: bool) -> str:
        """Sizes or the value of an option with numbers for names and braces; only sizes consist of nothing else."""

        def number(found: re.Match[str]) -> str:
            name = found[0]
            if name.startswith("{") or strict or name in scope or name in self.given or name in self.numbers:
                return str(self._number(name, place + found.start(), scope))
            return name

        return re.sub(rf"{BRACES}|(?<![A-Za-z0-9_.}}]){NAME}", number, written)

    def _number(self, written: str, place: int, scope: Scope) -> int:
        """A number, a name of one, or a calculation in braces."""
        if written.isdecimal():
            return self._short(written, place)
        return (
            self._variable(written, place, scope) if re.fullmatch(NAME, written) else self._value(written, place, scope)
        )

    def _short(self, written: str, place: int) -> int:
        if len(digits := written.lstrip("-")) > DIGITS:
            raise self._error(place, f"a number has at most {DIGITS} digits, this one {len(digits):,}.")
        return int(written)

    def _variable(self, name: str, place: int, scope: Scope) -> int:
        if name in scope:
            return scope[name]
        if name not in self.given and name not in self.numbers:
            if name.upper() in RESERVED or name in self.blocks:
                raise self._error(place, f"found {name!r}, expected '->' in front of it.")
            raise self._error(place, f"{name} has no value; give it one, as in {name}=2, or write: let {name} = 2")
        self.used.add(name)
        value = str(self.given.get(name, self.numbers.get(name)))
        if not re.fullmatch(r"-?[0-9]+", value):
            raise self._error(place, f"{name}={value}: expected a whole number.")
        return self._short(value, place)

    def _value(self, written: str, place: int, scope: Scope) -> int:
        """A calculation with whole numbers."""
        if written.startswith("{"):
            written, place = written[1:-1], place + 1
        if re.fullmatch(NUMBER, written) and "." in written:
            raise self._error(place, f"{written} is no whole number; names and calculations stand for whole numbers.")
        if len(written) > LONGEST_VALUE:
            raise self._error(place, f"a calculation has at most {LONGEST_VALUE} characters.")
        return self._calculated(self._tree(written, "value", place).children[0], place, scope)

    def _calculated(self, tree: Any, place: int, scope: Scope) -> int:
        if isinstance(tree, str):
            return self._number(str(tree), place + getattr(tree, "start_pos", 0), scope)
        values = [self._calculated(child, place, scope) for child in tree.children]
        if tree.data in ("floordiv", "mod") and values[1] == 0:
            raise self._error(place, "a division by 0.")
        return self._short(str(getattr(operator, tree.data)(*values)), place)


def _pieces(parentheses: Any) -> list[tuple[str, int]]:
    """What stands between the commas of a pair of parentheses, and where."""
    if parentheses is None or not str(parentheses)[1:-1].strip():
        return []
    found, place = [], parentheses.start_pos + 1
    for piece in re.findall(r"(?:^|,)((?:[^,()]|\([^()]*\))*)", str(parentheses)[1:-1]):
        found.append((piece.strip(), place + len(piece) - len(piece.lstrip())))
        place += len(piece) + 1
    return found
