"""What the numbers of all cases say together: means, worst cases, what loses; and the terminal's table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import exp, log
from typing import Any

from .suite import DIRECTIONS, MEASUREMENTS, WEIGHTS_MATTER

LOSS = 0.95
"""Below this ratio a case counts as lost: what is above it is noise."""
WORST = 8
TITLES = {"forward": "forward", "input_gradient": "input grad.", "weight_gradient": "weight grad.", "step": "step"}

Row = Mapping[str, Any]


def geometric_mean(ratios: Iterable[float]) -> float | None:
    """The mean under which twice as fast and half as fast cancel; None of nothing.

    >>> geometric_mean([4.0, 0.25])
    1.0
    """
    logarithms = [log(ratio) for ratio in ratios]
    return exp(sum(logarithms) / len(logarithms)) if logarithms else None


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Geometric means, the count of lost measurements, the worst ones and the share of the limit.

    Args:
        rows: The cases as :func:`striate.benchmark.contest.measure` returns them.
    """
    every = [(row, name, found) for row in rows for name, found in row["measurements"].items()]
    means: dict[str, Any] = {}
    groups: dict[str, Callable[[Row, str], bool]] = {
        "forward": lambda row, name: name == "forward",
        "backward": lambda row, name: name.endswith("gradient") and not (row["first"] and name == "input_gradient"),
        "forward and backward": lambda row, name: name == "step",
        "weight gradients of depthwise, grouped, local, tiled, 1-D and 3-D": lambda row, name: (
            bool(row["kinds"]) and name == "weight_gradient"
        ),
    }
    groups |= {f"weight gradients, {kind}": _weights_of(kind) for kind in WEIGHTS_MATTER}
    groups |= {f"step, {family}": _steps_of(family) for family in dict.fromkeys(row["family"] for row in rows)}
    for title, belongs in groups.items():
        chosen = [found for row, name, found in every if belongs(row, name)]
        if chosen:
            means[title] = {
                "ratio": geometric_mean(found["ratio"] for found in chosen),
                "ratio_default": geometric_mean(found["ratio_default"] for found in chosen),
                "reached": geometric_mean(found["limit"]["reached"] for found in chosen),
                "count": len(chosen),
            }
    ranked = sorted(every, key=lambda entry: entry[2]["ratio"])
    named = [{"name": row["name"], "measurement": name, "ratio": found["ratio"]} for row, name, found in ranked]
    return {
        "means": means,
        "lost": [entry for entry in named if entry["ratio"] < LOSS],
        "worst": named[:WORST],
        "measurements": len(every),
        "lost_steps": sum(entry["ratio"] < LOSS and entry["measurement"] == "step" for entry in named),
        "memory": _memory(rows),
    }


def _weights_of(kind: str) -> Callable[[Row, str], bool]:
    return lambda row, name: name == "weight_gradient" and kind in row["kinds"]


def _steps_of(family: str) -> Callable[[Row, str], bool]:
    return lambda row, name: name == "step" and row["family"] == family


def _memory(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The cases whose step holds over a tenth more than PyTorch's own, at its peak."""
    told = [(row["name"], row["memory"]["striate"], row["memory"]["torch"]) for row in rows]
    return [
        {"name": name, "striate": ours, "torch": theirs}
        for name, ours, theirs in told
        if ours is not None and theirs and ours > 1.1 * theirs
    ]


def by_family(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The cases under their headings, in the order of the suite."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["family"], []).append(row)
    return found


def cell(row: Row, measurement: str) -> str:
    """``1.93 (41 %)``: how many times faster, and the share of the limit that is reached."""
    found = row["measurements"].get(measurement)
    return f"{found['ratio']:.2f} ({100 * found['limit']['reached']:.0f} %)" if found else "-"


def chosen(row: Row) -> str:
    """The planned algorithms of the directions: one word where they agree."""
    names = [row["algorithms"][d] for d in DIRECTIONS if d in row["algorithms"]]
    return names[0] if len(set(names)) == 1 else " / ".join(names)


def step_default(row: Row) -> str:
    """The ratio of the steps in PyTorch's default layout, both sides."""
    found = row["measurements"].get("step")
    return f"{found['ratio_default']:.2f}" if found else "-"


def text(result: Mapping[str, Any]) -> str:
    """The terminal's table: a block for each number of threads, a heading for each family."""
    lines = []
    for run in result["runs"]:
        lines += _head(run, result)
        for family, rows in by_family(run["cases"]).items():
            lines += ["", f"{family:28}" + "".join(f"{TITLES[m]:>15}" for m in MEASUREMENTS) + f"{'step NCHW':>11}"]
            lines += [
                f"  {row['name']:26}" + "".join(f"{cell(row, m):>15}" for m in MEASUREMENTS)
                + f"{step_default(row):>11}  {chosen(row)}"
                for row in rows
            ]  # fmt: skip
        lines += ["", *summary_lines(run["summary"])]
    return "\n".join(lines)


def _head(run: Row, result: Mapping[str, Any]) -> list[str]:
    machine, bounds = run["machine"], run["ceilings"]
    speeds = ", ".join(f"{level['name']} {level['bandwidth'] / 1e9:.0f}" for level in bounds["levels"])
    return [
        f"{machine['processor']}, {machine['instruction_set']}, threads: {machine['threads']} of {machine['cores']}",
        f"torch {machine['torch']}, striate {machine['striate']}, {result['options']['dtype']}",
        f"peak {bounds['flops'] / 1e9:.0f} GFLOP/s; copies in GB/s: {speeds}",
        "best torch / best striate (and the share of the machine's limit that striate reaches)",
    ]


def summary_lines(found: Mapping[str, Any]) -> list[str]:
    """The summary in words."""
    lines = ["geometric means: best torch / best striate; torch NCHW / striate NCHW; share of the limit"]
    lines += [
        f"  {mean['ratio']:5.2f} {mean['ratio_default']:6.2f} {100 * mean['reached']:5.0f} %  {title} ({mean['count']})"
        for title, mean in found["means"].items()
    ]
    lost, every = len(found["lost"]), found["measurements"]
    lines.append(f"under {LOSS}: {lost} of {every} measurements, {found['lost_steps']} of them steps")
    lines.append(
        "worst: " + ", ".join(f"{w['name']} {TITLES[w['measurement']]} {w['ratio']:.2f}" for w in found["worst"])
    )
    if found["memory"]:
        over = ", ".join(f"{m['name']} {m['striate'] / m['torch']:.1f}x" for m in found["memory"])
        lines.append(f"peak memory over 1.1x of torch's: {over}")
    return lines
