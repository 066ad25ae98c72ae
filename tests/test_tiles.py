"""Tiles: the laws that every algorithm by tiles is held to (the files of the algorithms call them), and the cutting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import striate
from striate.computing import DIRECTIONS, Problem, find, tiles
from striate.computing.tiles import Part, Tiled, Tiling, joined, laid, place, share
from striate.geometry import Axis, Geometry
from striate.planning import pose
from striate.trilinear import ROLES

from .cases import CONVOLUTIONS, TRANSPOSED, Case

NAMES = ("fft", "winograd2", "winograd4")

# ------------------------------------------------------------------------------------------------------------- the laws


def posed(case: Case, *, transposed: bool = False) -> Problem:
    """The problem of a case, its padding of zeros and its kernel as it stands."""
    options = {k: v for k, v in case.options if k not in ("flip", "padding_mode")}
    size = None if transposed else case.size
    window = Geometry.window(len(case.size), case.kernel, transposed=transposed, size=size, **options)
    return pose(window, 2, *case.channels, case.size, torch.float64, "cpu")


def posed_cases() -> list[Any]:
    """All cases as problems, each in its three directions."""
    whole = [(parameter, False) for parameter in CONVOLUTIONS] + [(parameter, True) for parameter in TRANSPOSED]
    return [
        pytest.param(replace(posed(p.values[0], transposed=t), direction=d), id=f"{p.id}-{'transposed-' * t}{d}")
        for (p, t), d in product(whole, DIRECTIONS)
    ]


def asked(
    size: tuple[int, ...],
    kernel: Any,
    channels: tuple[int, int] = (2, 3),
    dtype: torch.dtype = torch.float64,
    batch: int = 2,
    **options: Any,
) -> Problem:
    geometry = Geometry.window(len(size), kernel, size=size, **options)
    return Problem("convolution", geometry, batch, *channels, size, dtype)


def in_three(problems: dict[str, Problem]) -> list[Any]:
    return [
        pytest.param(replace(problem, direction=d), id=f"{name}-{d}")
        for (name, problem), d in product(problems.items(), DIRECTIONS)
    ]


def operands(problem: Problem) -> tuple[Tensor, Tensor]:
    """Random tensors of the roles that the problem's direction takes, in its type."""
    generator = torch.Generator().manual_seed(7)
    shapes = {
        "input": (problem.batch, problem.in_channels, *problem.size),
        "weight": problem.geometry.weight_shape(problem.in_channels, problem.out_channels),
        "output": (problem.batch, problem.out_channels, *problem.output_size),
    }
    exact = torch.complex128 if problem.dtype.is_complex else torch.float64
    one, two, _ = ROLES[problem.direction]
    draw = [torch.randn(shapes[role], generator=generator, dtype=exact).to(problem.dtype) for role in (one, two)]
    return draw[0], draw[1]


def error(name: str, problem: Problem) -> float:
    """The largest error against the definition in double precision, over the result's root mean square (at least 1)."""
    first, second = operands(problem)
    algorithm, exact = find("convolution", name), torch.complex128 if problem.dtype.is_complex else torch.float64
    got = algorithm.run(first, algorithm.prepare(second, problem), problem)
    wanted = find("convolution", "reference").run(first.to(exact), second.to(exact), replace(problem, dtype=exact))
    assert (got.shape, got.dtype) == (wanted.shape, problem.dtype)
    if not wanted.numel():
        return 0.0
    scale = max(1.0, wanted.abs().square().mean().sqrt().item())
    return (got.to(exact) - wanted).abs().max().item() / scale


def axes_of(kernels: st.SearchStrategy[int], strides: int, dilations: int) -> st.SearchStrategy[tuple[Axis, int]]:
    """An axis of any padding, crops too, and an input size that its window fits."""
    axis = st.builds(
        Axis, kernels, st.integers(1, strides), st.integers(1, dilations), st.integers(-2, 6), st.integers(-2, 6)
    )
    return st.tuples(axis, st.integers(1, 11)).filter(
        lambda pair: sum((pair[1], pair[0].before, pair[0].after)) >= pair[0].extent
    )


@st.composite
def problems(draw: Callable[..., Any], axes: st.SearchStrategy[tuple[Axis, int]]) -> Problem:
    """A convolution of one to three such axes, with groups, and maybe without examples."""
    chosen = draw(st.lists(axes, min_size=1, max_size=3))
    groups, inputs, outputs, batch = (draw(st.integers(low, 3)) for low in (1, 1, 1, 0))
    geometry = Geometry(tuple(axis for axis, _ in chosen), groups)
    size, dtype = tuple(n for _, n in chosen), draw(st.sampled_from([torch.float64, torch.complex128]))
    direction = draw(st.sampled_from(DIRECTIONS))
    channels = groups * inputs, groups * outputs
    return Problem("convolution", geometry, batch, *channels, size, dtype, direction=direction)


def citizen(name: str) -> None:
    """Compiles as a whole, maps, and is differentiated forwards and twice."""
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return striate.conv(x, weight, padding=((2, 1), (0, 1)), groups=2, algorithm=name)

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return striate.conv(x, weight, padding=((2, 1), (0, 1)), groups=2, algorithm="reference")

    def compare(got: Any, wanted: Any) -> None:
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for examples in (x, torch.randn(5, 4, 6, 5, dtype=torch.float64, requires_grad=True)):
        y = compiled(examples, weight)
        compare(y, plain(examples, weight))
        compare(
            torch.autograd.grad(y.sum(), (examples, weight)),
            torch.autograd.grad(plain(examples, weight).sum(), (examples, weight)),
        )
    many, kernels = torch.randn(3, *x.shape, dtype=x.dtype), torch.randn(3, *weight.shape, dtype=x.dtype)
    compare(torch.vmap(run, (0, None))(many, weight), torch.stack([plain(each, weight) for each in many]))
    compare(torch.vmap(run, (None, 0))(x, kernels), torch.stack([plain(x, each) for each in kernels]))
    tangents = (many[0], kernels[0])
    compare(torch.func.jvp(run, (x, weight), tangents), torch.func.jvp(plain, (x, weight), tangents))
    few, one = (
        torch.randn_like(x[:1, :2, :3, :2], requires_grad=True),
        torch.randn_like(weight[:2, :1], requires_grad=True),
    )
    assert torch.autograd.gradgradcheck(run, (few, one), fast_mode=True)
    assert run(x.to("meta"), weight.to("meta")).shape == run(x, weight).shape
    assert run(x[:0], weight).shape == (0, *run(x, weight).shape[1:])


class _Net(torch.nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.weight = torch.nn.Parameter(torch.randn(4, 2, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return striate.conv(x, self.weight, padding=1, algorithm=self.name)


@pytest.mark.parametrize("name", ["fft", "winograd2"])
def test_export_leaves_the_number_of_examples_open(name: str) -> None:
    net = _Net(name)
    exported = torch.export.export(
        net, (torch.randn(3, 2, 6, 5),), dynamic_shapes=({0: torch.export.Dim("n", min=2, max=64)},)
    )
    x = torch.randn(7, 2, 6, 5)
    torch.testing.assert_close(exported.module()(x), net(x))


# ----------------------------------------------------------------------------------------------------- in small parts


@pytest.mark.parametrize("limit", [2_000, 30_000])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_work_in_small_parts_is_the_same_work(
    name: str, direction: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Examples, tiles, groups and both kinds of channels are divided; the kernels are then transformed part by part."""
    monkeypatch.setattr(tiles, "BYTES", limit)
    problem = replace(asked((37, 12), 3, (6, 8), batch=3, groups=2, padding=((2, 1), (1, 0))), direction=direction)
    algorithm = find("convolution", name)
    assert isinstance(algorithm, Tiled)
    assert len(list(algorithm.parts(3, problem))) > (40 if limit == 2_000 else 4)
    assert error(name, problem) < 1e-12


def test_kernels_that_would_take_too_much_memory_are_not_transformed_in_advance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = asked((30, 30), 3, (6, 8))
    weight = operands(problem)[1]
    for name in NAMES:
        monkeypatch.setattr(tiles, "BYTES", 2**28)
        assert find("convolution", name).prepare(weight, problem).shape[1:] == (1, 8, 6)
        monkeypatch.setattr(tiles, "BYTES", 4 * 48 * 16 * 8 - 1)
        assert find("convolution", name).prepare(weight, problem) is weight


SHARES: list[tuple[dict[str, int], int, int, dict[str, int]]] = [
    ({"n": 4, "j": 2, "g": 1, "o": 2, "c": 2}, 1, 1, {"n": 4, "j": 2, "g": 1, "o": 2, "c": 2}),  # 32 + 4 = 36
    ({"n": 8, "j": 2, "g": 1, "o": 2, "c": 2}, 1, 1, {"n": 4, "j": 2, "g": 1, "o": 2, "c": 2}),
    ({"n": 5, "j": 9, "g": 1, "o": 2, "c": 2}, 1, 1, {"n": 1, "j": 9, "g": 1, "o": 2, "c": 2}),
    ({"n": 1, "j": 30, "g": 4, "o": 1, "c": 1}, 1, 1, {"n": 1, "j": 4, "g": 4, "o": 1, "c": 1}),
    ({"n": 1, "j": 1, "g": 4, "o": 8, "c": 4}, 1, 1, {"n": 1, "j": 1, "g": 1, "o": 4, "c": 4}),
    ({"n": 0, "j": 1, "g": 1, "o": 0, "c": 4}, 1, 1, {"n": 1, "j": 1, "g": 1, "o": 1, "c": 4}),
    ({"n": 1, "j": 1, "g": 1, "o": 1, "c": 1}, 99, 99, {"n": 1, "j": 1, "g": 1, "o": 1, "c": 1}),
]


@pytest.mark.parametrize(("whole", "column", "kernel", "sizes"), SHARES)
def test_a_part_is_halved_until_it_fits(
    whole: dict[str, int], column: int, kernel: int, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "BYTES", 40)
    assert share(whole, column, kernel) == sizes


# ------------------------------------------------------------------------------------------------ cutting and joining

PLACED = [
    ((0,), (3,), [1.0, 2.0, 3.0]),
    ((1,), (5,), [0.0, 1.0, 2.0, 3.0, 0.0]),
    ((-1,), (1,), [2.0]),
    ((-1,), (4,), [2.0, 3.0, 0.0, 0.0]),
    ((2,), (3,), [0.0, 0.0, 1.0]),
    ((5,), (2,), [0.0, 0.0]),
    ((-5,), (2,), [0.0, 0.0]),
]


@pytest.mark.parametrize(("before", "lengths", "rows"), PLACED)
def test_place_pads_and_crops_even_beyond_the_input(
    before: tuple[int, ...], lengths: tuple[int, ...], rows: list[float]
) -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    assert place(x, before, lengths).tolist() == rows
    wide = place(torch.stack([x, x], -1), (*before, 1), (*lengths, 4))
    assert wide.tolist() == [[0.0, row, row, 0.0] for row in rows]


def test_place_takes_what_is_there_as_it_is() -> None:
    x = torch.ones(2, 3)
    assert place(x, (0, 0), (2, 3)) is x


@pytest.mark.parametrize(
    "axes", [(Axis(3),), (Axis(2, 2, 3, 1, 2), Axis(1, 3)), (Axis(3), Axis(2, 1, 2), Axis(1))], ids=len
)
def test_joining_is_the_adjoint_of_laying_out(axes: tuple[Axis, ...]) -> None:
    """<tiles of x, t> = <x, t joined>, where t are tiles of the image, which overlap, or of the outputs."""
    size = (9, 8, 7)[: len(axes)]
    problem = Problem("convolution", Geometry(axes), 2, 3, 4, size, torch.float64)
    steps = (1, 3, 2)[: len(axes)]
    spans = tuple((n - 1) * axis.stride + 1 for axis, n in zip(axes, problem.output_size, strict=True))
    tiling = Tiling(problem.geometry.extent, steps, tuple(-(-n // s) for n, s in zip(spans, steps, strict=True)))
    for role, channels, shape in (("image", 3, problem.size), ("maps", 4, problem.output_size)):
        x = torch.randint(-4, 5, (2, channels, *shape)).double()
        cut = laid(role, x, problem, tiling)
        t = torch.randint(-4, 5, cut.shape).double()
        whole = joined(role, t, tiling)
        back = tiles._finished(role, whole, problem)
        assert back.shape == x.shape
        assert (cut * t).sum() == (x * back).sum()


def test_a_part_says_where_it_stands() -> None:
    part = Part(slice(0, 2), slice(3, 5), slice(1, 2), slice(4, 6), slice(7, 9))
    tiling = Tiling((3,), (4,), (9,))
    assert tiling.lengths == (6,)
    assert part.tiles("image") == (part.g, part.c, part.n, part.j)
    assert part.tiles("maps") == (part.g, part.o, part.n, part.j)
    assert part.tiles("kernel") == part.places("kernel", tiling) == (part.g, part.o, part.c)
    assert part.places("image", tiling) == (part.g, part.c, part.n, slice(12, 22))
    assert part.places("maps", tiling) == (part.g, part.o, part.n, slice(12, 20))


def test_parts_cover_the_work_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "BYTES", 3_000)
    problem = asked((61,), 3, (4, 6), batch=3, groups=2)
    for name in NAMES:
        algorithm = find("convolution", name)
        assert isinstance(algorithm, Tiled)
        seen = torch.zeros(3, algorithm.tiling(problem).counts[0], 2, 3, 2)
        parts = list(algorithm.parts(3, problem))
        for part in parts:
            seen[part.n, part.j, part.g, part.o, part.c] += 1
        assert (seen == 1).all()
        assert all(a != b for a, b in pairwise(parts))
