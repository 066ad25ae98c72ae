"""Tables of text cells: aligned for a terminal, as CSV for programs, as a page for a browser."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { position: sticky; top: 0; background: #fff; border-bottom: 2px solid #222; }
th, td { padding: .2rem .7rem; text-align: right; white-space: nowrap; }
th.left, td.left { text-align: left; }
tr:nth-child(even) td { background: #f5f5f5; }
tr.total td { border-top: 2px solid #222; font-weight: 600; }
td[title] { text-decoration: underline dotted; }
p { max-width: 60rem; }
"""


def aligned(cells: Sequence[Mapping[str, str]], left: Collection[str], *, total: bool = False) -> list[str]:
    r"""The lines of a table: a headline, a rule, the rows; with ``total``, a rule before the last one.

    >>> print("\n".join(aligned([{"layer": "conv1", "size": "5"}, {"layer": "fc1", "size": "120"}], ["layer"])))
    layer  size
    -----------
    conv1     5
    fc1     120
    """
    widths = {key: max(len(key), *(len(row[key]) for row in cells)) for key in cells[0]}
    lines = [
        "  ".join(row[k].ljust(w) if k in left else row[k].rjust(w) for k, w in widths.items()).rstrip()
        for row in [{key: key for key in widths}, *cells]
    ]
    rule = "-" * max(map(len, lines))
    body = [*lines[1:-1], rule, lines[-1]] if total else lines[1:]
    return [lines[0], rule, *body]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""Rows of values as CSV with a headline; lists are joined by x, as shapes are written, None is empty.

    >>> as_csv([{"name": "conv1", "shape": [6, 28, 28], "jump": None}])
    'name,shape,jump\r\nconv1,6x28x28,\r\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows({name: _flat(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _flat(value: Any) -> Any:
    if isinstance(value, list | tuple):  # a size, or the names of nodes
        return (" " if any(isinstance(entry, str) for entry in value) else "x").join(map(str, value))
    if isinstance(value, dict):
        return "; ".join(f"{name}: {why}" for name, why in value.items())
    return value


def as_page(
    title: str,
    cells: Sequence[Mapping[str, str]],
    left: Collection[str],
    notes: Sequence[str],
    hints: Sequence[Mapping[str, str]] = (),
    *,
    total: bool = False,
) -> str:
    """A table as a page of its own.

    Args:
        title: Of the page.
        cells: The rows.
        left: Columns that stand at the left of their cells.
        notes: Sentences below the table.
        hints: For each row what is shown when the pointer rests on a column's cell.
        total: Whether the last row is a sum.
    """

    def cell(tag: str, key: str, text: str, hint: str = "") -> str:
        side = ' class="left"' if key in left else ""
        title = f' title="{escape(hint)}"' if hint else ""
        return f"<{tag}{side}{title}>{escape(text)}</{tag}>"

    rows = []
    for number, row in enumerate(cells):
        kind = ' class="total"' if total and number == len(cells) - 1 else ""
        shown = hints[number] if number < len(hints) else {}
        rows.append(f"<tr{kind}>{''.join(cell('td', key, text, shown.get(key, '')) for key, text in row.items())}</tr>")
    head = "".join(cell("th", key, key) for key in cells[0])
    paragraphs = "\n".join(f"<p>{escape(note)}</p>" for note in notes)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n<h1>{escape(title)}</h1>\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(rows)
        + f"\n</tbody>\n</table>\n{paragraphs}\n</html>\n"
    )
