"""Compiled minimal filtering: the definition in every direction, whatever the layout, instruction set and threads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import striate
from striate.computing import DIRECTIONS, Problem, find
from striate.errors import AlgorithmError
from striate.geometry import Axis, Geometry

from .test_tiles import asked, error, in_three, operands

compiled = pytest.importorskip("striate._native")

NAMES = ("native_winograd2", "native_winograd")
LIMITS = {"native_winograd2": 1e-5, "native_winograd": 1e-4}  # of the output's root mean square, in float32
by_name = pytest.mark.parametrize("name", NAMES)


def sets() -> list[str]:
    """The instruction sets that this machine has, narrowest first."""
    known = ["v3", "v4"]
    best = compiled.instruction_set()
    return known[: known.index(best) + 1] if best in known else [best]


@pytest.fixture(params=sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    best = compiled.instruction_set()
    compiled.use_instruction_set(request.param)
    yield request.param
    compiled.use_instruction_set(best)


def window(*pairs: tuple[int, int]) -> Geometry:
    return Geometry(tuple(Axis(3, 1, 1, before, after) for before, after in pairs))


OWN = {
    "odd sizes": asked((13, 10), 3, (3, 4), padding=1),
    "lanes that are full": asked((14, 14), 3, (32, 64), padding=1),
    "lanes that are not": asked((5, 30), 3, (17, 33), batch=3, padding=1),
    "one row": asked((1, 40), 3, (20, 5), padding=1),
    "one column": asked((40, 1), 3, (5, 70), padding=2),
    "one output": asked((3, 3), 3),
    "one number": asked((1, 1), 3, (1, 1), batch=1, padding=1),
    "no example": asked((9, 9), 3, batch=0),
    "uneven padding": asked((9, 20), 3, (3, 4), padding=((0, 3), (2, 0))),
    "full": asked((7, 18), 3, (3, 4), padding="full"),
    "a crop": Problem("convolution", window((-1, -2), (4, -3)), 2, 3, 4, (9, 8), torch.float64),
    "padding of many tiles": Problem("convolution", window((9, 7), (11, 5)), 1, 3, 4, (4, 3), torch.float64),
    "many tiles": asked((70, 45), 3, (18, 20), padding=1),
    "rows of many tiles": asked((4, 300), 3, (2, 3), padding=1),
    "many channels": asked((6, 6), 3, (150, 20), padding=1),
}


@pytest.mark.usefixtures("instruction_set")
@by_name
@pytest.mark.parametrize("problem", in_three(OWN))
def test_every_size_and_padding_is_the_definition(name: str, problem: Problem) -> None:
    assert error(name, problem) < 1e-12
    assert error(name, replace(problem, dtype=torch.float32)) < LIMITS[name]
    assert error(name, replace(problem, dtype=torch.bfloat16)) < 3e-2


axes = st.tuples(st.integers(-2, 6), st.integers(-2, 6), st.integers(1, 24)).filter(lambda row: sum(row) >= 3)


@by_name
@given(rows=st.tuples(axes, axes), channels=st.tuples(*[st.integers(1, 40)] * 2), direction=st.sampled_from(DIRECTIONS))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_window_is_its_definition(name: str, rows: tuple[tuple[int, ...], ...], channels: tuple[int, int],
                                      direction: str) -> None:  # fmt: skip
    geometry, size = window(*((row[0], row[1]) for row in rows)), tuple(row[2] for row in rows)
    problem = Problem("convolution", geometry, 2, *channels, size, torch.float64, direction=direction)
    assert error(name, problem) < 1e-12


LAYOUTS = {
    "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "columns first": lambda t: t.mT.contiguous().mT,
    "every other position": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "every other row": lambda t: t.repeat_interleave(2, -2)[..., ::2, :],
    "examples last": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
    "expanded": lambda t: t[:, :, :1].expand_as(t),
}


@by_name
@pytest.mark.parametrize(("layout", "direction"), list(product(LAYOUTS, DIRECTIONS)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_layout_does_not_matter(name: str, layout: str, direction: str, dtype: torch.dtype) -> None:
    problem = replace(asked((21, 18), 3, (16, 35), dtype, padding=1), direction=direction)
    first, second = (LAYOUTS[layout](t) for t in operands(problem))
    run = find("convolution", name).run
    torch.testing.assert_close(
        run(first, second, problem), run(first.contiguous(), second.contiguous(), problem), rtol=0, atol=0
    )


@by_name
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("size", [(9, 9), (60, 70)], ids=str)
def test_the_number_of_threads_does_not_change_a_bit(name: str, direction: str, size: tuple[int, int]) -> None:
    problem = replace(asked(size, 3, (33, 70), torch.float32, padding=1), direction=direction)
    pair, before, got = operands(problem), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            got.append(find("convolution", name).run(*pair, problem))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(got[0], got[1])
    assert torch.equal(got[0], got[2])


@by_name
def test_derivatives_of_the_operator_itself(name: str) -> None:
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    problem = asked((5, 6), 3, (3, 4), padding=1)
    run = find("convolution", name).run
    assert torch.autograd.gradcheck(lambda a, b: run(a, b, problem), (x, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda a, b: run(a, b, problem), (x, weight), fast_mode=True)


@pytest.mark.parametrize(("name", "outputs"), [("native_winograd2", 2), ("native_winograd", 4)])
def test_a_nan_spreads_over_the_tiles_that_read_it_and_no_further(name: str, outputs: int) -> None:
    x = torch.zeros(2, 3, 16, 16)
    x[0, 0, 9, 9] = torch.nan
    y = striate.conv(x, torch.ones(5, 3, 3, 3), padding=1, algorithm=name)
    poisoned = y.isnan()
    plain = striate.conv(x, torch.ones(5, 3, 3, 3), padding=1, algorithm="reference").isnan()
    assert not poisoned[1].any()
    assert poisoned[plain].all()
    assert poisoned[0].sum() <= 5 * (2 * outputs) ** 2


@pytest.mark.parametrize(("name", "limit"), [("native_winograd2", 5e-6), ("native_winograd", 1e-4)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_error_of_float32_at_128_channels(name: str, limit: float, direction: str) -> None:
    problem = asked((24, 24), 3, (128, 32), torch.float32, batch=1, padding=1)
    assert 1e-7 < error(name, replace(problem, direction=direction)) < limit


REFUSALS = [
    (asked((9,), 3), "the kernel is (3,); compiled F(4,3) takes (3, 3)."),
    (asked((9, 9), (3, 1)), "the kernel is (3, 1); compiled F(4,3) takes (3, 3)."),
    (asked((9, 9, 9), 3), "the kernel is (3, 3, 3); compiled F(4,3) takes (3, 3)."),
    (
        asked((9, 9), 3, (4, 4), groups=2),
        "there are 2 groups; compiled F(4,3) multiplies all channels together.",
    ),
    (asked((9, 9), 3, period=7), "the weights repeat with period (7, 7); F(4,3) shares them with period 1."),
    (
        asked((9, 9), 3, stride=2),
        "the stride is (2, 2); F(4,3) computes neighbouring outputs together, so it needs stride 1.",
    ),
    (asked((9, 9), 3, dilation=2), "the dilation is (2, 2); F(4,3) reads neighbouring inputs, so it needs dilation 1."),
    (asked((9, 9), 3, padding=9), None),
]


@pytest.mark.parametrize(("problem", "sentence"), REFUSALS)
def test_refusals_are_sentences(problem: Problem, sentence: str | None) -> None:
    for direction in DIRECTIONS:
        asking = replace(problem, direction=direction)
        assert find("convolution", "native_winograd").refuses(asking) == sentence
        assert find("convolution", "native_winograd2").refuses(asking) == (
            sentence and sentence.replace("(4,3)", "(2,3)")
        )


def test_a_user_reads_the_refusal() -> None:
    with pytest.raises(AlgorithmError) as caught:
        striate.conv(torch.ones(1, 1, 5, 5), torch.ones(1, 1, 5, 5), algorithm="native_winograd")
    assert str(caught.value) == (
        "algorithm='native_winograd' cannot serve this convolution: the kernel is (5, 5); compiled F(4,3) takes (3, 3)."
    )


def test_they_say_what_they_are() -> None:
    assert [repr(find("convolution", name)) for name in NAMES] == ["compiled F(2,3)", "compiled F(4,3)"]
    assert [find("convolution", name).exact for name in NAMES] == [False, False]


def test_the_work_is_that_of_the_same_transforms() -> None:
    problem = asked((56, 56), 3, (64, 64), padding=1)
    for name in ("winograd2", "winograd4"):
        compiled_name = {"winograd2": "native_winograd2", "winograd4": "native_winograd"}[name]
        assert find("convolution", compiled_name).estimate(problem) == find("convolution", name).estimate(problem)


HUNGRY = """
import resource, torch
from striate.computing import Problem, find
from striate.geometry import Geometry

problem = Problem("convolution", Geometry.window(2, 3, padding=1), 1, 512, 512, (64, 64), torch.float32)
x, weight = torch.ones(1, 512, 64, 64), torch.ones(512, 512, 3, 3)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, -1))
try:
    find("convolution", "native_winograd").run(x, weight, problem)
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells the memory so")
def test_a_lack_of_memory_is_an_error_and_not_the_end_of_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", HUNGRY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "MemoryError\n"), done.stderr
