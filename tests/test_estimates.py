"""Estimates: the nearest races of the same kind, and nothing where none is near."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from striate import estimates, files, machine
from striate.computing import ALGORITHMS, Problem
from striate.estimates import Race, Table, kind, least, place
from striate.geometry import Geometry

LIMITS = machine.Ceilings({"float32": 2e9}, machine.memory(1e9))


def depthwise(channels: int = 64, kernel: int = 7, batch: int = 8, size: int = 28, **more: Any) -> Problem:
    window = Geometry.window(2, kernel, padding=kernel // 2, groups=channels)
    return Problem("convolution", window, batch, channels, channels, (size, size), torch.float32, **more)


def table(*rows: tuple[Problem, dict[str, float]]) -> Table:
    written = [estimates.row(problem, seconds, LIMITS) for problem, seconds in rows]
    return Table([Race(tuple(r["kind"]), tuple(r["place"]), r["shares"], r["relative"]) for r in written])


def test_a_race_predicts_itself() -> None:
    known = table((depthwise(), {"vendor": 0.5, "im2col": 0.25}))
    assert known.seconds(depthwise(), "vendor", LIMITS) == pytest.approx(0.5, rel=1e-2)
    assert known.seconds(depthwise(), "im2col", LIMITS) == pytest.approx(0.25, rel=1e-2)
    assert known.seconds(depthwise(), "fft", LIMITS) is None


def test_twice_the_work_takes_twice_the_time_and_twice_the_machine_half() -> None:
    known = table((depthwise(), {"vendor": 0.5}))
    assert known.seconds(depthwise(batch=16), "vendor", LIMITS) == pytest.approx(1.0, rel=1e-2)
    faster = machine.Ceilings({"float32": 4e9}, machine.memory(2e9))
    assert known.seconds(depthwise(), "vendor", faster) == pytest.approx(0.25, rel=1e-2)


OTHERS = [
    depthwise(direction="weight_gradient"),
    depthwise(layout="channels_last"),
    replace(depthwise(), dtype=torch.float64),
    replace(depthwise(), device="cuda"),
    replace(depthwise(), geometry=Geometry.window(2, 7, padding=3, groups=32)),
    depthwise(channels=1),
    depthwise(channels=4096, kernel=3, size=500, batch=256),
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda p: str(kind(p)))
def test_another_kind_or_a_far_size_says_nothing(other: Problem) -> None:
    known = table((depthwise(), {"vendor": 0.5, "im2col": 0.1}))
    assert known.seconds(other, "vendor", LIMITS) is None
    assert known.promising(other) == []


def test_where_the_vendor_does_not_serve_no_size_is_too_far() -> None:
    """Else the least work would decide, which is the same for all who only sum products."""
    far = depthwise(channels=4096, kernel=3, size=500, batch=256)
    known = table((depthwise(), {"im2col": 0.5, "native_positions": 0.1}))
    found = {name: known.seconds(far, name, LIMITS) for name in ("im2col", "native_positions")}
    assert found["im2col"] == pytest.approx(5 * found["native_positions"], rel=1e-2)  # type: ignore[operator]


def test_promise_is_to_win_every_race_nearby() -> None:
    near, other = depthwise(), depthwise(batch=16)
    assert table((near, {"vendor": 1.0, "im2col": 0.5, "fft": 2.0})).promising(near) == ["im2col"]
    rows = ((near, {"vendor": 1.0, "im2col": 0.5}), (other, {"vendor": 1.0, "im2col": 1.5}))
    assert table(*rows).promising(near) == []


def test_between_two_races_the_nearer_counts_more() -> None:
    rows = ((depthwise(batch=1), {"vendor": 0.01}), (depthwise(batch=64), {"vendor": 6.4}))
    here = table(*rows).seconds(depthwise(batch=2), "vendor", LIMITS)
    assert here is not None
    assert 0.02 < here < 0.06  # at the first one's speed 0.02, at the second one's 0.2


def test_kinds_tell_how_weights_are_shared() -> None:
    def shared(**options: Any) -> str:
        window = Geometry.window(1, 3, **options)
        return estimates.sharing(Problem("convolution", window, 1, 4, 4, (8,), torch.float32))

    found = [shared(), shared(groups=2), shared(groups=4), shared(period=2), shared(period=6)]
    assert found == ["dense", "grouped", "depthwise", "tiled", "local"]
    assert kind(Problem("sum", Geometry.window(1, 3), 1, 4, 4, (8,), torch.float32))[2] == "window"


def test_places_are_doublings() -> None:
    a, b = place(depthwise()), place(depthwise(batch=32, channels=128))
    assert [round(y - x, 6) for x, y in zip(a, b, strict=True)] == [0, 0, 1, 0, 0, 2, 0, 0, 0]


def test_the_least_time_counts_operands_once() -> None:
    problem = Problem("sum", Geometry.window(1, 2, stride=2), 3, 5, 5, (8,), torch.float32)
    assert estimates.operand_bytes(problem) == 4 * 3 * 5 * (8 + 4)
    assert least(problem, problem.work, machine.Ceilings({"float32": 1e30}, machine.memory(1.0))) == 720


def test_sixteen_bit_races_of_another_arithmetic_are_left_out(tmp_path: Path) -> None:
    rows = [
        estimates.row(replace(depthwise(), dtype=d), {"vendor": 1.0}, LIMITS) for d in (torch.float32, torch.float16)
    ]
    for halves, known in ((machine.halves(), 2), ("of another machine", 1)):
        text = str({"machine": {"halves": halves}, "races": rows}).replace("'", '"').replace("(", "[").replace(")", "]")
        files.write(tmp_path / "table.json", text.encode())
        assert len(estimates.read(tmp_path / "table.json").races) == known


def test_the_shipped_table_holds_races_of_known_algorithms() -> None:
    found = estimates.read(estimates.TABLE)
    races = [race for rows in found.races.values() for race in rows]
    assert len(races) > 50
    for race in races:
        assert set(race.shares) <= set(ALGORITHMS[race.kind[0]])
        assert all(share > 0 for share in race.shares.values())
        assert "vendor" not in race.relative or race.relative["vendor"] == 1


def test_the_shipped_table_brings_the_compiled_kernels_where_pytorch_is_slow(tmp_path: Path) -> None:
    """In a process of its own: the tests' plans go by an empty table."""
    program = """
import striate
from striate.computing import native
depthwise = striate.plan((2, 128, 56, 56), (128, 1, 31, 31), padding=15, groups=128, direction="weight_gradient")
local = striate.plan((16, 32, 28, 28), (28, 28, 32, 32, 3, 3), padding=1)
bottleneck = striate.plan((8, 64, 56, 56), (256, 64, 1, 1))
large = striate.plan((4, 16, 63, 63), (55, 55, 16, 16, 9, 9), direction="weight_gradient")
assert large.algorithm == local.algorithm, large
print(depthwise.algorithm, local.algorithm, bottleneck.algorithm, native.compiled is not None)
"""
    environment = os.environ | {"STRIATE_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.split()
    if words[3] == "True":
        assert words[:3] == ["native_channels", "native_positions", "vendor"]
