"""The page of results with its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .. import files
from ..rendering import to_png
from ..sheets import THEME
from .results import LOSS, TITLES, Row, by_family, cell, chosen, step_default
from .suite import MEASUREMENTS

PICTURE = Path("images") / "performance.png"
MARKS = {"forward": "o", "input_gradient": "<", "weight_gradient": "s"}
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)


def write(result: Mapping[str, Any], path: Path) -> None:
    """Write the page, and its picture into ``images/`` beside it; notes at the end of an older page stay."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    _, mark, notes = before.partition(NOTES)
    files.write(path.parent / PICTURE, to_png(picture(result["runs"][0]), dpi=110))
    files.write(path, (markdown(result) + (f"\n{mark}{notes}" if mark else "")).encode())


def picture(run: Row, *, width: float = 9.0) -> Figure:
    """Every case as a bar from 1 to the ratio of its step, with a mark for each direction, on a logarithmic scale."""
    families = by_family(run["cases"])
    heights: list[tuple[float, Row | str]] = []
    at = 0.0
    for family, rows in families.items():
        heights += [(at, family), *((at + 1 + i, row) for i, row in enumerate(rows))]
        at += len(rows) + 1.6
    figure = Figure(figsize=(width, 1.1 + 0.17 * at), facecolor=THEME["paper"])
    top, bottom = 1 - 0.75 / figure.get_figheight(), 0.4 / figure.get_figheight()
    axes = figure.add_axes((0.27, bottom, 0.7, top - bottom))
    axes.axvline(1.0, color=THEME["ink"], linewidth=1.0, zorder=1)
    for height, row in heights:
        if isinstance(row, str):
            axes.text(-0.01, height, row, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=8,
                      fontweight="bold", color=THEME["ink"])  # fmt: skip
            continue
        axes.text(-0.01, height, row["name"], transform=axes.get_yaxis_transform(), ha="right", va="center",
                  fontsize=7, color=THEME["ink"])  # fmt: skip
        step = row["measurements"].get("step")
        if step:
            color = THEME["blue"] if step["ratio"] >= LOSS else THEME["orange"]
            axes.barh(height, step["ratio"] - 1, left=1, height=0.62, color=color, alpha=0.45, zorder=2)
        for name, mark in MARKS.items():
            if name in row["measurements"]:
                ratio = row["measurements"][name]["ratio"]
                color = THEME["blue"] if ratio >= LOSS else THEME["orange"]
                axes.plot(ratio, height, mark, markersize=3.2, color=color, zorder=3)
    _scale(figure, axes, run, at)
    return figure


def _scale(figure: Figure, axes: Any, run: Row, height: float) -> None:
    axes.set_xscale("log")
    ratios = [found["ratio"] for row in run["cases"] for found in row["measurements"].values()]
    axes.set(xlim=(min(0.5, 0.9 * min(ratios)), max(2.0, 1.1 * max(ratios))), ylim=(height - 0.4, -1.0))
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.set_yticks([])
    axes.tick_params(labelsize=8, colors=THEME["muted"], top=True, labeltop=True)
    axes.grid(axis="x", color=THEME["line"], linewidth=0.6, zorder=0)
    for side in axes.spines.values():
        side.set_visible(False)
    for name, mark in MARKS.items():
        axes.plot([], [], mark, markersize=3.6, color=THEME["muted"], label=_title(name))
    axes.barh([0], [0], color=THEME["muted"], alpha=0.45, label="step")
    figure.legend(
        loc="upper center", ncols=4, fontsize=8, frameon=False, labelcolor=THEME["ink"],
        title=f"Times faster than the best of PyTorch's ways, {_threads(run)}",
        title_fontsize=9, bbox_to_anchor=(0.55, 1.0),
    )  # fmt: skip


NOTES = "<!-- What follows is written by hand and stays when the page is measured again. -->"

INTRODUCTION = """# Performance

`striate bench --write docs/performance.md` measured and wrote this page.
Every layer below is a published one.
Striate's public functions and every way that PyTorch is known for compute it in one process, in turns, after each result has been compared with float64.
Freed memory stays with the process, for both: pages that the system clears anew would cost more than many layers, and at random.

Numbers are {dtype}.
A ratio is the best of PyTorch's times over the best of Striate's, each side in the layout that serves it best (default or channels-last): above 1, Striate is faster.
The share in brackets is that of the machine's limit: the definition's multiply-adds at the speed of a large matrix product, or the operands at the bandwidth of the level of the memory that holds them, whichever takes longer.
Transforms and running sums do fewer multiply-adds than the definition, so they can go beyond it.
A step is the forward pass with both gradients; a first layer's input needs none, so that its gradient is in the tables, but in no mean.

![Ratios of every layer]({picture})"""  # noqa: E501 - prose breaks at the end of a sentence


def markdown(result: Mapping[str, Any]) -> str:
    """The page: machine, means, what loses, and every case."""
    parts = [INTRODUCTION.format(dtype=result["options"]["dtype"], picture=PICTURE.as_posix())]
    for run in result["runs"]:
        parts += _section(run)
    return "\n\n".join(parts) + "\n"


def _section(run: Row) -> list[str]:
    heading = _threads(run)
    titles = [_title(measurement) for measurement in MEASUREMENTS]
    head = ("layer", "input", *titles, "step NCHW", "algorithms", "error: striate, torch")
    parts = [
        f"## {heading[0].upper()}{heading[1:]}",
        _machine(run),
        _means(run),
        f"### What loses, {heading}",
        *_losses(run),
    ]
    for family, rows in by_family(run["cases"]).items():
        lines = [
            (
                row["source"] + (" (first)" if row["first"] else ""), "×".join(map(str, row["shape"])),
                *(cell(row, m) for m in MEASUREMENTS), step_default(row), chosen(row), _errors(row),
            )
            for row in rows
        ]  # fmt: skip
        parts += [f"### {family[0].upper()}{family[1:]}, {heading}", table(head, lines)]
    return parts


def _threads(run: Row) -> str:
    threads = run["machine"]["threads"]
    return "one thread" if threads == 1 else f"{threads} threads"


def _title(measurement: str) -> str:
    return TITLES[measurement].replace("grad.", "gradient")


def _machine(run: Row) -> str:
    machine, bounds = run["machine"], run["ceilings"]
    levels = ", ".join(f"{level['name']} {level['bandwidth'] / 1e9:.0f} GB/s" for level in bounds["levels"])
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['instruction_set']}; PyTorch {machine['torch']}, "
        f"Striate {machine['striate']}, Python {machine['python']}, {machine['system']}.\n"
        f"Measured in the same run: {bounds['flops'] / 1e9:.0f} GFLOP/s in a matrix product; "
        f"copies (bytes read and written): {levels}."
    )


def _means(run: Row) -> str:
    head = ("geometric mean of", "cases", "best / best", "NCHW / NCHW", "share of the limit")
    rows = [
        (title, m["count"], f"{m['ratio']:.2f}", f"{m['ratio_default']:.2f}", f"{100 * m['reached']:.0f} %")
        for title, m in run["summary"]["means"].items()
    ]
    return table(head, rows)


def _losses(run: Row) -> list[str]:
    summary, rows = run["summary"], {row["name"]: row for row in run["cases"]}
    parts = [f"{len(summary['lost'])} of {summary['measurements']} measurements are under {LOSS}."]
    if summary["lost"]:
        head = ("layer", "measured", "ratio", "best of PyTorch", "best of Striate", "algorithms", "binds", "share")
        parts.append(table(head, [_loss(rows[entry["name"]], entry["measurement"]) for entry in summary["lost"]]))
    over = [
        f"{rows[m['name']]['source']} ({m['striate'] / 1e6:.1f} against {m['torch'] / 1e6:.1f} MB)"
        for m in summary["memory"]
    ]
    above = f": {'; '.join(over)}" if over else " in no case"
    told = f"Steps whose peak of memory is over 1.1 times that of PyTorch's own{above}."
    return [*parts, f"{told}\nScratch that a kernel takes from elsewhere than PyTorch's allocator does not count."]


def _loss(row: Row, measurement: str) -> tuple[str, ...]:
    found = row["measurements"][measurement]
    best, limit = found["best"], found["limit"]
    return (
        row["source"], _title(measurement), f"{found['ratio']:.2f}", best["torch"], best["striate"], chosen(row),
        limit["binds"], f"{100 * limit['reached']:.0f} %",
    )  # fmt: skip


def _errors(row: Row) -> str:
    """The largest errors over the directions, of the values' root mean square."""
    found = [m["error"] for m in row["measurements"].values() if "error" in m]
    if not found:
        return "-"
    return f"{max(max(e['striate'].values()) for e in found):.0e}, {max(e['torch'] for e in found):.0e}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    r"""A table in Markdown.

    >>> print(table(("a", "b"), [(1, "x|y")]))
    | a | b |
    |---|---|
    | 1 | x\|y |
    """
    lines = [[str(value).replace("|", "\\|") for value in row] for row in (head, *rows)]
    written = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([written[0], "|" + "---|" * len(head), *written[1:]])
