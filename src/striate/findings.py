"""Findings: what the linter has to say about a network, with its numbers, and the forms in which it is told."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

SEVERITIES = ("error", "warning", "info")
LEVELS = {"error": "error", "warning": "warning", "info": "note"}
PAGES = "docs/lint"
SEQUENCES = ("profile", "rates", "better")  # numbers in a row; other rows of numbers are sizes
TEXT = "<text>"  # what a text without a file is called
SEMANTIC = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that the linter looks for.

    Args:
        code: Stable for ever; its page is ``docs/lint/CODE.md``.
        name: In words, for people.
        severity: error (it cannot work), warning (it works worse than it could) or info (worth knowing); a finding may
            carry a lower one, which its page explains.
        sentence: What a finding means.
    """

    code: str
    name: str
    severity: str
    sentence: str

    @property
    def page(self) -> str:
        """Where it is explained, relative to the project's root."""
        return f"{PAGES}/{self.code}.md"


_RULES = (
    Rule("STR001", "dropped-pixels", "warning", "No window reads the last rows of a map: real positions are lost."),
    Rule("STR002", "holes", "warning", "A stride steps over positions that no other layer reads."),
    Rule("STR003", "dead-taps", "warning", "A kernel is so large for its input that some weights only meet padding."),
    Rule("STR004", "mostly-padding", "warning", "More than half of what a window reads is padding."),
    Rule("STR005", "unfit-size", "error", "Branches cannot meet, because the total stride does not divide the input."),
    Rule("STR011", "gridding", "warning", "Stacked dilated windows leave out positions inside what they span."),
    Rule("STR012", "checkerboard", "warning", "A transposed convolution writes some positions more often than others."),
    Rule("STR013", "unproductive-layers", "warning", "Layers stand behind a receptive field larger than the image."),
    Rule("STR014", "object-not-seen", "warning", "The receptive field is smaller than the objects to be recognised."),
    Rule("STR015", "half-pixel-shift", "warning", "Even kernels with same padding move the map by half positions."),
    Rule("STR016", "misaligned-branches", "warning", "Branches that join look at different places of the input."),
    Rule("STR021", "bias-before-norm", "info", "A normalisation takes away the mean, and the bias with it."),
    Rule("STR022", "bottleneck", "info", "Everything passes through one narrow layer, and widens again behind it."),
    Rule("STR023", "one-layer-owns-most", "info", "One layer has most of the parameters or multiply-adds."),
    Rule("STR024", "groups-never-mix", "warning", "Channel groups stay apart through several layers."),
    Rule("STR025", "missing-activation", "warning", "Two linear layers follow each other: together they are one."),
    Rule("STR026", "softmax-before-loss", "warning", "The network ends in a softmax, which its loss applies again."),
)
RULES = {rule.code: rule for rule in _RULES}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. ``str()`` of it is one line.

    Args:
        code: Of its rule.
        node: Name of the node.
        line: Of the text, from 1; 0 if there is none.
        column: Of the text, from 1.
        severity: error, warning or info.
        message: What is wrong, with its numbers.
        evidence: The numbers by name.
        fix: What to write instead.
        source: Where a traced model computes the node.
        repeats: Further nodes that the same place of the text wrote and that have the same finding.

    >>> print(Finding("STR021", "conv1", 1, 17, "info", "conv1 has 8 biases.", {"biases": 8}, "bias=no"))
    STR021 conv1 has 8 biases.
    """

    code: str
    node: str
    line: int
    column: int
    severity: str
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict, hash=False)
    fix: str = ""
    source: str = ""
    repeats: int = 0

    def __str__(self) -> str:
        return f"{self.code} {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return found | {"name": RULES[self.code].name, "evidence": _plain(self.evidence)}

    def place(self, path: str) -> str:
        """Where it is: ``path:line:column``, or ``path: node`` and its source where there is no line."""
        if self.line:
            return f"{path or TEXT}:{self.line}:{self.column}"
        own = self.source.split(" ")[0] == self.node  # a module of its own, told with its class
        node = self.source if own else self.node + (f" ({self.source})" if self.source else "")
        return node if path in ("", TEXT) else f"{path}: {node}"


def _plain(value: Any) -> Any:
    """Fractions as decimal numbers, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, str | int | float) else float(value)


def text(findings: Sequence[Finding], path: str = TEXT) -> str:
    """The findings as ruff writes them, each with its numbers and its fix, and a last line that counts them.

    Args:
        findings: In the order in which they are told.
        path: Of the text, or the name of the model.

    >>> print(text([Finding("STR021", "conv1", 1, 17, "info", "conv1 has 8 biases.", {"biases": 8}, "bias=no")]))
    <text>:1:17: STR021 conv1 has 8 biases.
        info: biases 8
        fix: bias=no
    Found 1 finding: 1 info.
    """
    return "\n".join([line for finding in findings for line in _lines(finding, path)] + [summary(findings)])


def _lines(finding: Finding, path: str) -> list[str]:
    numbers = ", ".join(f"{name.replace('_', ' ')} {_number(name, value)}" for name, value in finding.evidence.items())
    repeats = f" (and {finding.repeats} more from the same place)" if finding.repeats else ""
    lines = [f"{finding.place(path)}: {finding}{repeats}", f"    {finding.severity}: {numbers}"]
    return [*lines, f"    fix: {finding.fix}"] if finding.fix else lines


def _number(name: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        words = [_number("", entry) for entry in value]
        return ("-" if name in SEQUENCES else " or " if any("x" in word for word in words) else "x").join(words)
    if name.endswith("share") or name == "coverage":
        return percent(value)
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, str) else f"{float(value):.4g}"


def percent(share: float) -> str:
    """A share as people read it.

    >>> percent(0.1164), percent(0.00891)
    ('11.6 %', '0.9 %')
    """
    return f"{100 * share:.1f} %"


def summary(findings: Iterable[Finding]) -> str:
    """How many findings there are, in words."""
    counts = Counter(finding.severity for finding in findings)
    total = sum(counts.values())
    if not total:
        return "No findings."
    parts = ", ".join(_counted(counts[severity], severity) for severity in SEVERITIES if counts[severity])
    return f"Found {_counted(total, 'finding')}: {parts}."


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" + ("s" if number != 1 and word != "info" else "")


def exit_code(findings: Iterable[Finding]) -> int:
    """1 if there is an error, else 0."""
    return int(any(finding.severity == "error" for finding in findings))


def to_json(findings: Iterable[Finding]) -> str:
    """The findings as a JSON list."""
    return json.dumps([finding.to_dict() for finding in findings], indent=2)


def sarif(findings: Sequence[Finding], path: str = TEXT, version: str = "") -> dict[str, Any]:
    """The findings as SARIF 2.1.0, which code hosts show next to the text.

    Args:
        findings: In any order.
        path: Of the text; what has no suffix, as a zoo name, is no file and is left out.
        version: Of the package.
    """
    codes = list(RULES)
    driver: dict[str, Any] = {"name": "striate", "rules": [_sarif_rule(rule) for rule in RULES.values()]}
    if version:
        driver["version"] = version
        if SEMANTIC.fullmatch(version):
            driver["semanticVersion"] = version
    results = [_sarif_result(finding, codes.index(finding.code), path) for finding in findings]
    return {"$schema": SARIF, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.sentence},
        "fullDescription": {"text": f"{rule.name}: {rule.sentence}"},
        "help": {"text": f"{rule.sentence} Why, an example and when to ignore it: {rule.page} in Striate's sources."},
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
    }


def _sarif_result(finding: Finding, index: int, path: str) -> dict[str, Any]:
    place: dict[str, Any] = {"logicalLocations": [{"name": finding.node, "kind": "member"}]}
    if finding.line and PurePath(path).suffix:
        region = {"startLine": finding.line, "startColumn": finding.column}
        place["physicalLocation"] = {"artifactLocation": {"uri": _uri(path)}, "region": region}
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": LEVELS[finding.severity],
        "message": {"text": f"{finding.message} Fix: {finding.fix}" if finding.fix else finding.message},
        "locations": [place],
        "properties": {"evidence": _plain(finding.evidence)},
    }


def _uri(path: str) -> str:
    """A file's path as SARIF wants it: relative as it is, else with its scheme."""
    file = PurePath(path)
    return file.as_uri() if file.is_absolute() else quote(file.as_posix())
