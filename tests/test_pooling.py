"""Poolings: every refusal word for word; torch where torch accepts; elsewhere a slow definition and numbers by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, product
from math import exp, inf, prod
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import striate
from striate.errors import GeometryError, UnknownNameError
from striate.geometry import Axis

MAX_POOL: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
POOLS: dict[str, Any] = {"max_pool": striate.max_pool, "avg_pool": striate.avg_pool}


def shuffled(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Whole numbers that all differ, in a fixed disorder: no ties, and exact sums."""
    order = torch.randperm(prod(shape), generator=torch.Generator().manual_seed(0))
    return (order.view(shape) - prod(shape) // 2).to(dtype)


def row(*values: float) -> Tensor:
    return torch.tensor([[values]], dtype=torch.float32)


def same(actual: Tensor, expected: Tensor) -> None:
    """Equal shape, type and every bit."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# ----------------------------------------------------------------------------------------------------------- definition


def windows(
    size: tuple[int, ...], axes: list[Axis]
) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]], list[tuple[int, ...]]]]:
    """Each output position with the real inputs and the padded positions that it reads; ``Axis`` only holds numbers."""
    outputs = [
        (n + a.before + a.after - a.dilation * (a.kernel - 1) - 1) // a.stride + 1
        for n, a in zip(size, axes, strict=True)
    ]
    for position in product(*map(range, outputs)):
        reads = [
            tuple(o * a.stride + t * a.dilation - a.before for o, t, a in zip(position, taps, axes, strict=True))
            for taps in product(*(range(a.kernel) for a in axes))
        ]
        real = [read for read in reads if all(0 <= i < n for i, n in zip(read, size, strict=True))]
        yield position, real, reads


def by_definition(x: Tensor, axes: list[Axis], reduce: Callable[[list[float], int], float]) -> Tensor:
    """The pooling of every picture of every example, one window at a time; the windows are given their width too."""
    spatial = tuple(x.shape[2:])
    table = list(windows(spatial, axes))
    sizes = [max(position[axis] for position, _, _ in table) + 1 for axis in range(len(spatial))]
    out = numpy.zeros((*x.shape[:2], *sizes))
    for n, c in product(range(x.shape[0]), range(x.shape[1])):
        for position, real, reads in table:
            out[(n, c, *position)] = reduce([x[(n, c, *i)].item() for i in real], len(reads))
    return torch.from_numpy(out).to(x.dtype)


# size, what the caller writes, and the same window as numbers: kernel, stride, dilation, before, after for each axis
# "same" on 4x5x4 is worked out as: outputs 4, 3, 2; totals 3 + 2 - 4 = 1, 4 + 2 - 5 = 1, 3 + 2 - 4 = 1, all of it after
BEYOND_TORCH: list[tuple[tuple[int, ...], dict[str, Any], list[Axis]]] = [
    ((7,), {"kernel": 3, "stride": 2, "padding": ((2, 0),)}, [Axis(3, 2, 1, 2, 0)]),
    ((5,), {"kernel": 4, "stride": 1, "padding": 3}, [Axis(4, 1, 1, 3, 3)]),
    ((7,), {"kernel": 3, "stride": 2, "padding": "same"}, [Axis(3, 2, 1, 1, 1)]),
    ((8,), {"kernel": 3, "stride": 2, "padding": "same"}, [Axis(3, 2, 1, 0, 1)]),
    ((8,), {"kernel": 3, "stride": 2, "padding": "same_lower"}, [Axis(3, 2, 1, 1, 0)]),
    ((6,), {"kernel": 3, "stride": 1, "padding": "causal", "dilation": 2}, [Axis(3, 1, 2, 4, 0)]),
    ((5,), {"kernel": 3, "stride": 1, "padding": "full"}, [Axis(3, 1, 1, 2, 2)]),
    ((9,), {"kernel": 2, "stride": 2, "dilation": 3, "padding": 2}, [Axis(2, 2, 3, 2, 2)]),
    (
        (6, 7),
        {"kernel": (3, 2), "stride": (2, 1), "padding": ((0, 2), (1, 0))},
        [Axis(3, 2, 1, 0, 2), Axis(2, 1, 1, 1, 0)],
    ),
    ((5, 6), {"kernel": 2, "dilation": (1, 3), "stride": 1}, [Axis(2), Axis(2, 1, 3)]),
    (
        (4, 5, 4),
        {"kernel": 2, "stride": (1, 2, 3), "padding": "same"},
        [Axis(2, 1, 1, 0, 1), Axis(2, 2, 1, 0, 1), Axis(2, 3, 1, 0, 1)],
    ),
    ((3, 4, 3, 2), {"kernel": 2, "stride": (1, 2, 1, 1)}, [Axis(2), Axis(2, 2), Axis(2), Axis(2)]),
    (
        (3, 2, 3, 2),
        {"kernel": (2, 1, 3, 2), "stride": 1, "padding": ((1, 0), 0, 1, (0, 1))},
        [Axis(2, 1, 1, 1, 0), Axis(1), Axis(3, 1, 1, 1, 1), Axis(2, 1, 1, 0, 1)],
    ),
]
IDS = ["x".join(map(str, size)) + "-" + str(options).replace(" ", "") for size, options, _ in BEYOND_TORCH]


@pytest.mark.parametrize(("size", "options", "axes"), BEYOND_TORCH, ids=IDS)
def test_what_torch_cannot_express_is_the_definition(
    size: tuple[int, ...], options: dict[str, Any], axes: list[Axis]
) -> None:
    x = shuffled(2, 2, *size)
    same(striate.max_pool(x, **options), by_definition(x, axes, lambda values, _: max(values)))
    same(striate.avg_pool(x, **options), by_definition(x, axes, lambda values, _: sum(values) / len(values)))
    counted = by_definition(x, axes, lambda values, taps: sum(values) / taps)
    same(striate.avg_pool(x, **options, count_padding=True), counted)
    same(striate.avg_pool(x, **options, divisor=4), by_definition(x, axes, lambda values, _: sum(values) / 4))


@pytest.mark.parametrize(("size", "options", "axes"), BEYOND_TORCH, ids=IDS)
def test_switches_point_to_the_values(size: tuple[int, ...], options: dict[str, Any], axes: list[Axis]) -> None:
    x = shuffled(2, 2, *size)
    values, switches = striate.max_pool(x, **options, return_switches=True)
    same(values, striate.max_pool(x, **options))
    assert switches.dtype == torch.int64
    assert 0 <= switches.min() <= switches.max() < prod(size)
    same(x.flatten(2).gather(2, switches.flatten(2)).view(values.shape), values)


# ---------------------------------------------------------------------------------------------------------------- torch


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_max_pool_is_torch_s_wherever_torch_accepts(axes: int, ceil: bool) -> None:
    x = shuffled(2, 2, *(7, 6, 8)[:axes])
    for kernel, stride, dilation in product((1, 2, 3), (None, 1, 2), (1, 2)):
        for padding in range(kernel // 2 + 1):
            wanted, indices = MAX_POOL[axes](
                x, kernel, stride, padding, dilation, ceil_mode=ceil, return_indices=True
            )  # fmt: skip
            options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "ceil": ceil}
            same(striate.max_pool(x, kernel, **options), wanted)
            values, switches = striate.max_pool(x, kernel, **options, return_switches=True)
            same(values, wanted)
            same(switches, indices)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_avg_pool_is_torch_s_wherever_torch_accepts(axes: int, ceil: bool, counted: bool) -> None:
    for dtype in (torch.float64, torch.float32):
        x = shuffled(2, 2, *(7, 6, 8)[:axes], dtype=dtype)
        for kernel, stride in product((1, 2, 3, 4), (None, 1, 2, 3)):
            for padding in range(kernel // 2 + 1):
                wanted = AVG_POOL[axes](x, kernel, stride, padding, ceil_mode=ceil, count_include_pad=counted)
                got = striate.avg_pool(x, kernel, stride=stride, padding=padding, ceil=ceil, count_padding=counted)
                same(got, wanted)


@pytest.mark.parametrize("axes", [2, 3])
def test_divisor_is_torch_s_divisor_override(axes: int) -> None:
    x = shuffled(2, 2, *(7, 6, 8)[:axes])
    wanted = AVG_POOL[axes](x, 3, 2, 1, ceil_mode=True, divisor_override=5)
    same(striate.avg_pool(x, 3, stride=2, padding=1, ceil=True, divisor=5), wanted)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_without_a_batch(axes: int, pool: str) -> None:
    x = shuffled(3, *(7, 6, 8)[:axes])
    for options in ({}, {"stride": 1, "padding": 1}, {"padding": ((1, 0),) * axes}):
        got = POOLS[pool](x, (2,) * axes, **options)
        same(got, POOLS[pool](x[None], 2, **options)[0])
    values, switches = striate.max_pool(x, (2,) * axes, return_switches=True)
    wanted, indices = MAX_POOL[axes](x, 2, return_indices=True)
    same(values, wanted)
    same(switches, indices)


@pytest.mark.parametrize("pool", POOLS)
def test_an_empty_batch_is_a_batch(pool: str) -> None:
    for options in ({}, {"dilation": 2}, {"padding": ((1, 0), 0), "stride": 1}, {"ceil": True}):
        x = torch.ones(0, 3, 5, 6, requires_grad=True)
        y = POOLS[pool](x, 2, **options)
        assert y.shape == (0, *POOLS[pool](torch.ones(1, 3, 5, 6), 2, **options).shape[1:])
        assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape
    assert POOLS[pool](torch.ones(0, 2, 3, 3, 3, 3), 2).shape == (0, 2, 1, 1, 1, 1)


@pytest.mark.parametrize("pool", POOLS)
def test_the_layout_in_memory_does_not_matter(pool: str) -> None:
    wide = shuffled(2, 3, 8, 10)
    for x in (wide.mT, wide[:, :, ::2, 1::3], wide[:, :1].expand(2, 3, 8, 10)):
        assert not x.is_contiguous()
        for options in ({}, {"padding": ((1, 0), (0, 1)), "stride": 1}, {"dilation": 2}):
            torch.testing.assert_close(
                POOLS[pool](x, 2, **options), POOLS[pool](x.contiguous(), 2, **options), rtol=0, atol=0
            )  # fmt: skip
    for options in ({}, {"padding": ((1, 0), (0, 1)), "stride": 1}, {"padding": 1, "stride": 2}):
        y = POOLS[pool](wide.to(memory_format=torch.channels_last), 2, **options)
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert y.equal(POOLS[pool](wide, 2, **options))


# ----------------------------------------------------------------------------------------------------- by hand, by note


def test_examples_of_the_notes() -> None:
    picture = torch.arange(9.0).view(1, 1, 3, 3)
    assert striate.max_pool(picture, 2, stride=1).tolist() == [[[[4, 5], [7, 8]]]]
    quarters = torch.tensor([[[[1.0, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]]])
    assert striate.max_pool(quarters, 2, stride=2).tolist() == [[[[6, 8], [3, 4]]]]
    assert striate.avg_pool(quarters, 2).tolist() == [[[[13 / 4, 21 / 4], [8 / 4, 8 / 4]]]]
    assert striate.max_pool(torch.arange(6.0).view(1, 1, 6), 3, stride=2).tolist() == [[[2, 4]]]  # n=6, W=3, S=2
    assert striate.max_pool(torch.zeros(20, 16, 50, 32), 3, stride=2, padding=1).shape == (20, 16, 25, 16)
    assert striate.max_pool(torch.zeros(1, 64, 224, 224), 2).shape == (1, 64, 112, 112)


def test_max_pooling_forgives_a_shift_of_one_pixel() -> None:
    edge = torch.tensor([[0.0, 1, 0, 0]] * 4)[None, None]
    assert striate.max_pool(edge, 2, stride=1)[0, 0].tolist() == [[1, 1, 0]] * 3
    assert striate.max_pool(edge, (1, 3), stride=1, padding=(0, 1))[0, 0].tolist() == [[1, 1, 1, 0]] * 4


def test_pooling_is_by_channel() -> None:
    x = shuffled(2, 5, 6, 6)
    for pool in POOLS.values():
        y = pool(x, 3, stride=2, padding=1)
        for channel in range(5):
            same(y[:, [channel]], pool(x[:, [channel]], 3, stride=2, padding=1))


def test_a_window_over_everything_is_global_pooling() -> None:
    x = shuffled(2, 3, 5, 4)
    same(striate.max_pool(x, (5, 4)).flatten(1), x.amax((2, 3)))
    same(striate.avg_pool(x, (5, 4)).flatten(1), x.sum((2, 3)) / 20)


def test_padding_is_nothing() -> None:
    """It never wins a maximum, not even over the lowest values, and counts in a mean only when asked to."""
    x = row(-5.0, -1e38, -7.0)
    assert striate.max_pool(x, 3, stride=1, padding=2).tolist() == [[[-5, -5, -5, -7, -7]]]
    ones = torch.ones(1, 1, 3, 3)
    assert striate.avg_pool(ones, 3, stride=1, padding=1).tolist() == ones.tolist()
    corner, edge = 4 / 9, 6 / 9
    counted = striate.avg_pool(ones.double(), 3, stride=1, padding=1, count_padding=True)
    assert counted[0, 0].tolist() == [[corner, edge, corner], [edge, 1, edge], [corner, edge, corner]]


def test_rows_that_only_ceil_adds_are_not_counted() -> None:
    """5 values in windows of 2: the last one holds one value and nothing; with a row of padding it holds two."""
    x = torch.tensor([[[2.0, 4, 6, 8, 10]]])
    assert striate.avg_pool(x, 2, ceil=True, count_padding=True).tolist() == [[[3, 7, 10]]]
    assert striate.avg_pool(x, 2, ceil=True, padding=((0, 1),), count_padding=True).tolist() == [[[3, 7, 5]]]
    assert striate.max_pool(x, 2, ceil=True).tolist() == [[[4, 8, 10]]]
    assert striate.max_pool(x, 3, stride=3, padding=1, ceil=True).tolist() == [[[4, 10]]]


def test_a_very_long_signal_is_bound_at_once() -> None:
    """Counting each window's inputs takes a step for each output, not one for each tap: 10 billion taps here."""
    x = torch.zeros(1, 1, 200_001, device="meta")
    assert striate.avg_pool(x, 100_001, stride=1).shape == (1, 1, 100_001)


# ------------------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize(("size", "options"), [row[:2] for row in BEYOND_TORCH], ids=IDS)
def test_gradients_away_from_ties(size: tuple[int, ...], options: dict[str, Any]) -> None:
    x = (shuffled(1, 2, *size) / 8).requires_grad_()

    def check(pool: Callable[..., Any], **more: Any) -> None:
        assert torch.autograd.gradcheck(lambda x: pool(x, **options, **more), (x,), fast_mode=True)

    check(striate.max_pool)
    check(lambda x, **options: striate.max_pool(x, **options, return_switches=True)[0])
    check(striate.avg_pool)
    check(striate.avg_pool, count_padding=True)
    check(striate.avg_pool, divisor=3)


def gradient(pool: Callable[[Tensor], Tensor], x: Tensor) -> list[Any]:
    leaf = x.clone().requires_grad_()
    y = pool(leaf)
    upstream = torch.arange(1.0, y.numel() + 1, dtype=y.dtype).view_as(y)
    return torch.autograd.grad(y, leaf, upstream)[0].flatten().tolist()


def test_on_a_tie_the_gradient_goes_to_the_first() -> None:
    """The windows' gradients are 1, 2, 3, ... in order."""
    flat = torch.zeros(1, 1, 4)
    assert gradient(lambda x: striate.max_pool(x, 2), flat) == [1, 0, 2, 0]
    assert gradient(lambda x: striate.max_pool(x, 2, stride=1), flat) == [1, 2, 3, 0]
    assert gradient(lambda x: striate.max_pool(x, 2, stride=1, padding=((1, 0),)), flat) == [1 + 2, 3, 4, 0]
    assert gradient(lambda x: striate.max_pool(x, 3, stride=1), row(5.0, 1, 5, 5, 0)) == [1, 0, 2 + 3, 0, 0]
    square = torch.zeros(1, 1, 2, 2)
    assert gradient(lambda x: striate.max_pool(x, 2), square) == [1, 0, 0, 0]
    assert gradient(lambda x: striate.max_pool(x, 2), torch.tensor([[[[1.0, 2], [2, 2]]]])) == [0, 1, 0, 0]
    hyper = torch.zeros(1, 1, 2, 1, 2, 1)
    assert gradient(lambda x: striate.max_pool(x, (2, 1, 2, 1)), hyper) == [1, 0, 0, 0]


def test_the_gradient_of_a_mean_is_shared_equally() -> None:
    flat = torch.zeros(1, 1, 4, dtype=torch.float64)
    assert gradient(lambda x: striate.avg_pool(x, 2), flat) == [1 / 2, 1 / 2, 2 / 2, 2 / 2]
    # windows (0), (0 1), (1 2), (2 3), (3) with gradients 1 to 5
    shares = [1 + 2 / 2, 2 / 2 + 3 / 2, 3 / 2 + 4 / 2, 4 / 2 + 5]
    assert gradient(lambda x: striate.avg_pool(x, 2, stride=1, padding=1), flat) == shares
    counted = [(1 + 2) / 2, (2 + 3) / 2, (3 + 4) / 2, (4 + 5) / 2]
    assert gradient(lambda x: striate.avg_pool(x, 2, stride=1, padding=1, count_padding=True), flat) == counted
    # windows (0 2), (1 3)
    assert gradient(lambda x: striate.avg_pool(x, 2, stride=1, dilation=2), flat) == [1 / 2, 2 / 2, 1 / 2, 2 / 2]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("options", [{"stride": 2}, {"stride": 1, "padding": 1}], ids=str)
def test_gradients_are_torch_s(axes: int, options: dict[str, Any]) -> None:
    x = shuffled(2, 2, *(7, 6, 8)[:axes])
    wanted = gradient(lambda x: MAX_POOL[axes](x, 3, **options), x)
    assert gradient(lambda x: striate.max_pool(x, 3, **options), x) == wanted
    means = gradient(lambda x: AVG_POOL[axes](x, 2, **options), x)
    assert gradient(lambda x: striate.avg_pool(x, 2, count_padding=True, **options), x) == means


def test_switches_carry_no_gradient() -> None:
    values, switches = striate.max_pool(torch.ones(1, 1, 4, requires_grad=True), 2, return_switches=True)
    assert (values.requires_grad, switches.requires_grad) == (True, False)


# -------------------------------------------------------------------------------------------------------- odd values


@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"padding": ((1, 0),)}, {"dilation": 2}], ids=str)
@pytest.mark.parametrize("pool", POOLS)
def test_nan_reaches_every_window_that_reads_it_and_no_other(pool: str, options: dict[str, Any]) -> None:
    x = shuffled(1, 1, 9)
    poisoned = x.clone()
    poisoned[0, 0, 4] = torch.nan
    reached = POOLS[pool](poisoned, 2, stride=1, **options).isnan()
    clean = POOLS[pool](x, 2, stride=1, **options)
    assert reached.sum() == 2
    same(POOLS[pool](poisoned, 2, stride=1, **options)[~reached], clean[~reached])
    if pool == "max_pool":
        values, switches = striate.max_pool(poisoned, 2, stride=1, **options, return_switches=True)
        assert values.isnan().equal(reached)
        assert switches[reached].tolist() == [4, 4]


def test_nan_is_larger_than_all_on_four_axes_too() -> None:
    x = shuffled(1, 1, 3, 1, 3, 1)
    x[0, 0, 1, 0, 1, 0] = torch.nan
    values, switches = striate.max_pool(x, (2, 1, 2, 1), stride=1, return_switches=True)
    assert values.isnan().all()
    assert (switches == 4).all()
    assert striate.avg_pool(x, (1, 1, 3, 1), stride=1).flatten().isnan().tolist() == [False, True, False]


WINDOWS: list[dict[str, Any]] = [
    {"kernel": 2},
    {"kernel": 2, "stride": 1, "padding": 1},
    {"kernel": 3, "stride": 1, "padding": ((2, 0), (0, 1))},
    {"kernel": 2, "stride": 1, "padding": ((3, 0), (0, 2)), "dilation": (4, 3)},
    {"kernel": 3, "stride": 2, "padding": "same_lower"},
    {"kernel": (3, 2), "stride": 2, "ceil": True},
]


@pytest.mark.parametrize("options", WINDOWS, ids=str)
@pytest.mark.parametrize("lowest", [-torch.inf, torch.finfo(torch.float64).min])
def test_the_lowest_values_win_over_padding(lowest: float, options: dict[str, Any]) -> None:
    """A switch into the padding would make the gather fail, or read another row."""
    x = torch.full((1, 2, 6, 5), lowest, dtype=torch.float64)
    values, switches = striate.max_pool(x, **options, return_switches=True)
    assert (values == lowest).all()
    axes = explicit(options, (6, 5))
    for position, real, _ in windows((6, 5), axes):
        assert switches[(0, 0, *position)] == min(i * 5 + j for i, j in real)
    x[..., 2, 2] = 1.0
    assert (striate.max_pool(x, **options) == 1).sum() == 2 * sum(
        (2, 2) in real for _, real, _ in windows((6, 5), axes)
    )


def explicit(options: dict[str, Any], size: tuple[int, int]) -> list[Axis]:
    """The windows of the list above as numbers, worked out by hand for 6x5."""
    return {
        0: [Axis(2, 2), Axis(2, 2)],
        1: [Axis(2, 1, 1, 1, 1), Axis(2, 1, 1, 1, 1)],
        2: [Axis(3, 1, 1, 2, 0), Axis(3, 1, 1, 0, 1)],
        3: [Axis(2, 1, 4, 3, 0), Axis(2, 1, 3, 0, 2)],
        4: [Axis(3, 2, 1, 1, 0), Axis(3, 2, 1, 1, 1)],
        5: [Axis(3, 2, 1, 0, 1), Axis(2, 2, 1, 0, 1)],
    }[WINDOWS.index(options)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64], ids=str)
def test_integers_have_a_largest_but_no_mean(dtype: torch.dtype) -> None:
    """torch has no 1-D kernel for them, and rounds their means towards zero."""
    lowest = torch.iinfo(dtype).min
    x = torch.tensor([[[3, 7, lowest, lowest, 5]]], dtype=dtype)
    assert striate.max_pool(x, 2, stride=1).tolist() == [[[7, 7, lowest, 5]]]
    values, switches = striate.max_pool(x, 2, stride=2, padding=((1, 0),), return_switches=True)
    assert (values.tolist(), switches.tolist(), values.dtype) == ([[[3, 7, 5]]], [[[0, 1, 4]]], dtype)
    assert striate.max_pool(x[..., None], (2, 1), stride=1).flatten().tolist() == [7, 7, lowest, 5]
    with pytest.raises(GeometryError) as caught:
        striate.avg_pool(x, 2)
    assert str(caught.value) == f"avg_pool: x is {dtype}; a mean needs floating-point numbers, as in x.float()."


def test_booleans_pool_to_whether_any_is_true() -> None:
    x = torch.tensor([[[False, False, True, False, False]]])
    assert striate.max_pool(x, 2, stride=1, padding=((1, 0),)).tolist() == [[[False, False, True, True, False]]]


def test_complex_numbers_have_a_mean_but_no_largest() -> None:
    x = torch.tensor([[[1 + 2j, 3 - 2j, 5j, 1]]])
    assert striate.avg_pool(x, 2).tolist() == [[[2, 0.5 + 2.5j]]]
    assert striate.avg_pool(x, 2, stride=3, padding=1).tolist() == [[[1 + 2j, 0.5 + 2.5j]]]
    with pytest.raises(GeometryError) as caught:
        striate.max_pool(x, 2)
    message = "max_pool: x is torch.complex64; complex numbers have no largest, pool x.abs() instead."
    assert str(caught.value) == message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_sums_of_16_bit_numbers_neither_overflow_nor_round(axes: int, dtype: torch.dtype) -> None:
    """The mean of equal numbers is that number; as a 16-bit sum it would be infinite, or rounded twice."""
    x = torch.full((1, 1, *[12] * axes), 30000.0).to(dtype)
    for options in ({}, {"padding": 2}, {"dilation": 2}, {"padding": 2, "dilation": 2}, {"ceil": True}):
        y = striate.avg_pool(x, 5, stride=2, **options)
        assert y.dtype == dtype
        assert (y == x[0, 0].flatten()[0]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_types(axes: int, dtype: torch.dtype) -> None:
    x = (shuffled(1, 1, *[6] * axes) % 7).to(dtype)
    for options in ({"kernel": 2}, {"kernel": 4, "stride": 1, "padding": ((1, 2),) * axes}):
        same(striate.max_pool(x, **options), striate.max_pool(x.double(), **options).to(dtype))
        mean = striate.avg_pool(x.double(), **options, count_padding=True)  # whole numbers over a power of two: exact
        same(striate.avg_pool(x, **options, count_padding=True), mean.to(dtype))


# ---------------------------------------------------------------------------------------------------------- transforms


def test_meta_tensors_have_the_right_shapes() -> None:
    x = torch.ones(2, 3, 9, 8, device="meta")
    for pool in POOLS.values():
        assert (pool(x, 2).shape, pool(x, 2).device.type) == ((2, 3, 4, 4), "meta")
        assert pool(x, 3, stride=2, padding="same").shape == (2, 3, 5, 4)
        assert pool(x, (2, 3), stride=1, padding=((1, 0), 2), dilation=2).shape == (2, 3, 8, 8)
    values, switches = striate.max_pool(x, 2, padding=((1, 0), 0), return_switches=True)
    assert (values.shape, switches.shape, switches.dtype) == ((2, 3, 5, 4), (2, 3, 5, 4), torch.int64)


@pytest.mark.parametrize("options", [{}, {"stride": 1, "padding": ((1, 0), (0, 1))}], ids=str)
def test_vmap_over_examples(options: dict[str, Any]) -> None:
    x = shuffled(3, 2, 6, 5)
    for pool in (*POOLS.values(), lambda *args, **words: striate.max_pool(*args, **words, return_switches=True)[1]):
        same(torch.vmap(lambda x, pool=pool: pool(x, (2, 2), **options))(x), pool(x, 2, **options))


# ------------------------------------------------------------------------------------------------------------ refusals

FIT = "do not fit: x must be (N, C, *spatial), or (C, *spatial) with one kernel number for each of its spatial axes."
EMPTY = "give less padding or a larger input."


def refused(size: tuple[int, ...], kernel: Any, message: str, **options: Any) -> Any:
    words = [f"{name}={value}" for name, value in options.items()]
    return pytest.param(size, kernel, options, message, id="-".join([str(size), str(kernel), *words]).replace(" ", ""))


REFUSED = [
    refused((5,), 2, f"POOL: kernel=2 and x of shape (5,) {FIT}"),
    refused((3, 5), 2, f"POOL: kernel=2 and x of shape (3, 5) {FIT}"),
    refused((3, 5), (), f"POOL: kernel=() and x of shape (3, 5) {FIT}"),
    refused((3, 4, 5), (2, 2, 2), f"POOL: kernel=(2, 2, 2) and x of shape (3, 4, 5) {FIT}"),
    refused((1, 3, 4, 5), [2], f"POOL: kernel=(2,) and x of shape (1, 3, 4, 5) {FIT}"),
    refused((1, 1, 5), 0, "POOL over spatial size (5,): kernel must be at least 1, got kernel=0."),
    refused((1, 1, 5), 2, "POOL over spatial size (5,): stride must be at least 1, got stride=0.", stride=0),
    refused((1, 1, 5), 2, "POOL over spatial size (5,): dilation must be at least 1, got dilation=0.", dilation=0),
    refused((1, 1, 5), 2.0, "kernel must be a whole number or consist of them, got kernel=2.0."),
    refused((1, 1, 5), 2, "stride must be a whole number or consist of them, got stride=1.5.", stride=1.5),
    refused(
        (1, 1, 5),
        2,
        "POOL over spatial size (5,): stride=(1, 2) has 2 entries; this window has 1 spatial axis.",
        stride=(1, 2),
    ),
    refused(
        (1, 1, 5),
        2,
        "POOL over spatial size (5,): padding must be at least 0, got padding=-1; slice the input to crop it.",
        padding=-1,
    ),
    refused(
        (1, 1, 2),
        9,
        "POOL over spatial size (2,): On spatial axis 0: the window spans 9 inputs (kernel=9, dilation=1), but input "
        "and padding have 2 + 0 + 0 = 2; give a larger input, more padding or a smaller kernel.",
    ),
    refused(  # the rows that ceil would have added are not held against the caller
        (1, 1, 5, 2),
        (1, 9),
        "POOL over spatial size (5, 2): On spatial axis 1: the window spans 9 inputs (kernel=9, dilation=1), but input "
        "and padding have 2 + 0 + 0 = 2; give a larger input, more padding or a smaller kernel.",
        ceil=True,
        stride=2,
    ),
    refused(
        (1, 1, 4, 5),
        2,
        "POOL over spatial size (4, 5): On spatial axis 1: the window at output 0 would read only padding (size=5, "
        f"Axis(kernel=2, stride=2, dilation=1, before=3, after=0, period=1)); {EMPTY}",
        padding=(0, (3, 0)),
    ),
    refused(
        (1, 1, 5),
        2,
        "POOL over spatial size (5,): On spatial axis 0: the window at output 3 would read only padding (size=5, "
        f"Axis(kernel=2, stride=2, dilation=1, before=0, after=3, period=1)); {EMPTY}",
        padding=((0, 3),),
    ),
    refused(  # both taps are real padding: one before, one after
        (1, 1, 1),
        2,
        "POOL over spatial size (1,): On spatial axis 0: the window at output 0 would read only padding (size=1, "
        f"Axis(kernel=2, stride=2, dilation=2, before=1, after=1, period=1)); {EMPTY}",
        padding=1,
        dilation=2,
    ),
]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("size", "kernel", "options", "message"), REFUSED)
def test_refusals(size: tuple[int, ...], kernel: Any, options: dict[str, Any], message: str, pool: str) -> None:
    with pytest.raises(GeometryError) as caught:
        POOLS[pool](torch.ones(size), kernel, **options)
    assert str(caught.value) == message.replace("POOL", pool)


@pytest.mark.parametrize("pool", POOLS)
def test_an_unknown_word_is_refused_with_what_is_known(pool: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        POOLS[pool](torch.ones(1, 1, 5), 2, padding="smae")
    message = "No padding is called 'smae'. Did you mean 'same'? Known: causal, full, same, same_lower, valid."
    assert str(caught.value) == message


@pytest.mark.parametrize("divisor", [0, 2.0, True])
def test_a_divisor_is_a_whole_number(divisor: Any) -> None:
    with pytest.raises(GeometryError) as caught:
        striate.avg_pool(torch.ones(1, 1, 5), 2, divisor=divisor)
    message = f"avg_pool: divisor must be a whole number other than 0, got divisor={divisor!r}."
    assert str(caught.value) == message


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dilation", [1, 2])
def test_autocast_changes_no_mean(dtype: torch.dtype, dilation: int) -> None:
    """A mean is computed in the type of its input, dilated or not; 70,000 is beyond float16."""
    x = torch.full((1, 1, 5, 5), 70_000.0)
    with torch.autocast("cpu", dtype):
        y = striate.avg_pool(x, 3, dilation=dilation, stride=1)
    torch.testing.assert_close(y, torch.full_like(y, 70_000.0), rtol=1e-6, atol=0)
    assert y.dtype == torch.float32


# ------------------------------------------------------------------------------------------------------- other means


@pytest.mark.parametrize(("size", "options", "axes"), BEYOND_TORCH, ids=IDS)
@pytest.mark.parametrize("p", [1, 2, 2.5, 3, inf])
def test_the_norm_is_its_definition(p: float, size: tuple[int, ...], options: dict[str, Any], axes: list[Axis]) -> None:
    x = shuffled(1, 2, *size) / 8

    def norm(values: list[float], taps: int) -> float:
        return max(map(abs, values)) if p == inf else sum(abs(v) ** p for v in values) ** (1 / p)

    torch.testing.assert_close(striate.lp_pool(x, p=p, **options), by_definition(x, axes, norm))


@pytest.mark.parametrize(("size", "options", "axes"), BEYOND_TORCH, ids=IDS)
@pytest.mark.parametrize("sigma", [None, 0.7])
def test_the_gaussian_mean_is_its_definition(
    sigma: float | None, size: tuple[int, ...], options: dict[str, Any], axes: list[Axis]
) -> None:
    x = shuffled(1, 1, *size) / 8
    got = striate.gaussian_pool(x, sigma=sigma, **options)
    for position, real, _ in windows(size, axes):
        total = weights = 0.0
        for read in real:
            weight = 1.0
            for i, o, a in zip(read, position, axes, strict=True):
                middle = o * a.stride - a.before + a.dilation * (a.kernel - 1) / 2
                deviation = sigma or (a.dilation * (a.kernel - 1) + 1) / 4
                weight *= exp(-((i - middle) ** 2) / (2 * deviation**2))
            total, weights = total + weight * x[(0, 0, *read)].item(), weights + weight
        assert got[(0, 0, *position)].item() == pytest.approx(total / weights, abs=1e-12)


def test_norms_by_hand() -> None:
    assert striate.lp_pool(row(3, -4, 0, 0), 2).tolist() == [[[5, 0]]]
    assert striate.lp_pool(row(-1, -2, 3, 0), 2, p=1).tolist() == [[[3, 3]]]
    assert striate.lp_pool(row(-1, -2, 3, 0), 2, p=inf).tolist() == [[[2, 3]]]
    assert striate.lp_pool(torch.tensor([[[3j, 4, 3 + 4j, 0]]]), 2).tolist() == [[[5, 5]]]
    assert striate.lp_pool(torch.tensor([[[3j, 4, 3 + 4j, 0]]]), 2, p=1).tolist() == [[[7, 5]]]
    assert striate.lp_pool(row(torch.nan, 1, 2, 2), 2).isnan().tolist() == [[[True, False]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("p", [1, 2, 3])
def test_powers_do_not_overflow(p: float, dtype: torch.dtype) -> None:
    huge = torch.finfo(dtype).max / 8
    x = torch.full((1, 1, 4), huge).to(dtype)
    y = striate.lp_pool(x, 4, p=p)
    assert y.dtype == dtype
    torch.testing.assert_close(y, (x[..., :1].double() * 4 ** (1 / p)).to(dtype))


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, inf])
def test_the_gradient_of_a_norm_is_never_nan(p: float) -> None:
    x = row(0, 0, 0, -2.0).requires_grad_()
    (back,) = torch.autograd.grad(striate.lp_pool(x, 2, p=p).sum(), x, create_graph=True)
    assert back.tolist() == [[[0, 0, 0, -1]]]
    assert torch.autograd.grad(back.sum(), x, allow_unused=True)[0] is None or not back.isnan().any()


def test_weights_of_a_narrow_gaussian_do_not_all_vanish() -> None:
    """Even kernels have no tap in the middle, and at the border the near taps may be padding."""
    x = row(1, 2, 4)
    assert striate.gaussian_pool(x, 2, stride=1, sigma=1e-3).tolist() == [[[1.5, 3]]]
    assert striate.gaussian_pool(x, 5, stride=1, padding=4, sigma=1e-3).tolist() == [[[1, 1, 1, 2, 4, 4, 4]]]
    wide = striate.gaussian_pool(x, 3, sigma=1e9)
    torch.testing.assert_close(wide, torch.full_like(wide, 7 / 3))
    two = striate.gaussian_pool(shuffled(1, 1, 5, 5), 3, sigma=(1e9, 1e-3))
    assert two.item() == pytest.approx(shuffled(1, 1, 5, 5)[0, 0, :3, 1].mean().item())


SIGMA = "gaussian_pool: sigma must be a positive, finite number, got sigma="
MEANS: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: striate.lp_pool(row(1, 2), 2, p=0.5),
        "lp_pool: p must be a number of at least 1, or math.inf, got p=0.5.",
    ),
    (
        lambda: striate.lp_pool(row(1, 2), 2, p=torch.nan),
        "lp_pool: p must be a number of at least 1, or math.inf, got p=nan.",
    ),
    (
        lambda: striate.lp_pool(row(1, 2).int(), 2),
        "lp_pool: x is torch.int32; a norm needs floating-point numbers, as in x.float().",
    ),
    (lambda: striate.gaussian_pool(row(1, 2), 2, sigma=0), f"{SIGMA}0."),
    (lambda: striate.gaussian_pool(row(1, 2), 2, sigma=inf), f"{SIGMA}inf."),
    (lambda: striate.gaussian_pool(row(1, 2), 2, sigma=True), f"{SIGMA}True."),
    (
        lambda: striate.gaussian_pool(row(1, 2), 2, sigma=(1, 2)),
        "gaussian_pool: sigma=(1, 2) has 2 entries; this window has 1 spatial axis.",
    ),
    (
        lambda: striate.gaussian_pool(row(1, 2).int(), 2),
        "gaussian_pool: x is torch.int32; a mean needs floating-point numbers, as in x.float().",
    ),
]


@pytest.mark.parametrize(("call", "message"), MEANS, ids=range(len(MEANS)))
def test_refusals_of_the_other_means(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        call()
    assert str(caught.value) == message


# ---------------------------------------------------------------------------------------------- citizens of PyTorch

CITIZENS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda x: striate.max_pool(x, (2, 3), stride=1, padding=1),
    "max-uneven": lambda x: striate.max_pool(x, (2, 3), stride=1, padding=((1, 0), (2, 1)), dilation=2),
    "max-switches": lambda x: striate.max_pool(x, (2, 2), padding=((1, 0), 0), return_switches=True)[0],
    "max-4": lambda x: striate.max_pool(x[..., None, None], (2, 2, 1, 1), stride=1),
    "avg": lambda x: striate.avg_pool(x, (2, 3), stride=2, padding=1),
    "avg-uneven": lambda x: striate.avg_pool(x, (2, 3), stride=1, padding=((1, 0), (2, 1))),
    "avg-dilated": lambda x: striate.avg_pool(x, (2, 2), stride=1, dilation=2),
    "avg-divisor": lambda x: striate.avg_pool(x, (2, 3), stride=2, ceil=True, divisor=5),
    "avg-4": lambda x: striate.avg_pool(x[..., None, None], (2, 2, 1, 1), stride=1),
    "lp": lambda x: striate.lp_pool(x, (2, 2), stride=1, padding=1),
    "lp3": lambda x: striate.lp_pool(x, (2, 2), p=3, stride=1, dilation=2),
    "lp-infinity": lambda x: striate.lp_pool(x, (2, 2), p=inf, stride=1),
    "gaussian": lambda x: striate.gaussian_pool(x, (3, 3), stride=1, padding=1),
}
TRACED = ["max", "max-uneven", "max-4", "avg-uneven", "lp", "gaussian"]
citizens = pytest.mark.parametrize("function", CITIZENS.values(), ids=CITIZENS)


def apart(*shape: int) -> Tensor:
    """Numbers whose absolute values all differ, so that a small step changes no maximum."""
    return shuffled(*shape) / 7 - 0.03


@citizens
def test_derivatives_in_both_modes(function: Callable[[Tensor], Tensor]) -> None:
    x = apart(1, 2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(function, x, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, x, fast_mode=True)


@citizens
def test_transforms(function: Callable[[Tensor], Tensor]) -> None:
    x = apart(3, 2, 4, 5)
    wanted = function(x)
    singles = torch.vmap(lambda image: function(image[None])[0])(x)
    same(singles, wanted)
    slope = torch.func.grad(lambda x: function(x).square().sum())
    torch.testing.assert_close(torch.vmap(lambda image: slope(image[None])[0])(x), slope(x))
    assert function(x.to("meta")).shape == wanted.shape
    empty = x[:0].clone().requires_grad_()
    assert torch.autograd.grad(function(empty).sum(), empty)[0].shape == empty.shape
    torch.use_deterministic_algorithms(True)
    try:
        leaf = x.clone().requires_grad_()
        function(leaf).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert function(x.to(dtype)).dtype == dtype


@pytest.mark.parametrize("function", [CITIZENS[name] for name in TRACED], ids=TRACED)
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_compiled_and_exported(function: Callable[[Tensor], Tensor]) -> None:
    x = apart(3, 2, 4, 5).requires_grad_()
    wanted = function(x)
    upstream = torch.ones_like(wanted)
    torch._dynamo.reset()
    y = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)(x)
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(z, x, upstream)[0] for z in (y, wanted)))
    module = type("Module", (torch.nn.Module,), {"forward": lambda self, x: function(x)})()
    program = torch.export.export(module, (x.detach(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    longer = apart(5, 2, 4, 5)
    torch.testing.assert_close(program.module()(longer), function(longer))


# --------------------------------------------------------------------------------------------- PyTorch's own samples

SAMPLED = [f"{name}_pool{axes}d" for name in ("max", "avg", "adaptive_max", "adaptive_avg") for axes in (1, 2, 3)]


def translated(name: str, x: Tensor, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Our call with PyTorch's arguments."""
    axes = int(name[-2])
    if name.startswith("adaptive"):
        size = args[0] if isinstance(args[0], tuple | list) else (args[0],) * axes
        switches = options.get("return_indices") or True in args[1:]
        return getattr(striate, name[:-2])(x, size, **({"return_switches": True} if switches else {}))
    order: tuple[str, ...] = ("kernel_size", "stride", "padding")
    order += (
        ("dilation", "ceil_mode") if name.startswith("max") else ("ceil_mode", "count_include_pad", "divisor_override")
    )
    given = dict(zip(order, args, strict=False)) | options
    kernel = given.pop("kernel_size")
    kernel = tuple(kernel) if isinstance(kernel, tuple | list) else (kernel,) * axes
    kernel = kernel * axes if len(kernel) == 1 else kernel
    names = {
        "stride": "stride",
        "padding": "padding",
        "dilation": "dilation",
        "ceil_mode": "ceil",
        "count_include_pad": "count_padding",
        "divisor_override": "divisor",
        "return_indices": "return_switches",
    }
    ours = {names[k]: v for k, v in given.items()}
    for k in ("stride", "padding", "dilation"):
        if isinstance(ours.get(k), tuple | list):
            ours[k] = tuple(ours[k]) * axes if len(ours[k]) == 1 else tuple(ours[k])
    if name.startswith("avg"):
        ours.setdefault("count_padding", True)
    return getattr(striate, name[:-2])(x, kernel, **{k: v for k, v in ours.items() if v is not None and v != ()})


@pytest.mark.parametrize("name", SAMPLED)
def test_pytorch_s_own_samples_with_gradients(name: str) -> None:
    from torch.testing._internal.common_methods_invocations import op_db

    (info,) = [info for info in op_db if info.name == f"nn.functional.{name}"]
    compared = 0
    for sample in islice(
        info.sample_inputs("cpu", torch.float64, requires_grad=True), 0, None, 19 if name[0] == "m" else 1
    ):
        x, args, options = sample.input, sample.args, sample.kwargs
        wanted = info.op(x, *args, **options)
        got = translated(name, x, args, options)
        pairs = list(zip(got, wanted, strict=True)) if isinstance(wanted, tuple) else [(got, wanted)]
        for mine, torch_s in pairs:
            torch.testing.assert_close(mine, torch_s)
        upstream = torch.ones_like(pairs[0][1])
        torch.testing.assert_close(*(torch.autograd.grad(y, x, upstream)[0] for y in pairs[0]))
        compared += 1
    assert compared >= 3


# ---------------------------------------------------------------------------------------------- what PyTorch gets wrong


def test_a_window_of_minus_infinity_in_channels_last_memory() -> None:
    """PyTorch's own switch over 3 axes points outside of such a window."""
    x = torch.full((1, 2, 4, 2, 2), -torch.inf)
    x[:, :, :2] = 5.0
    x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    values, switches = striate.max_pool(x, 2, return_switches=True)
    assert values[0, 0].flatten().tolist() == [5.0, -torch.inf]
    assert switches[0, 0].flatten().tolist() == [0, 8]
    y = striate.max_pool(x, 2)
    assert y.equal(values)
    (gradient,) = torch.autograd.grad(y, x, torch.tensor([1.0, 10.0]).view(1, 1, 2, 1, 1).expand_as(y))
    assert gradient[0, 0].flatten().nonzero().flatten().tolist() == [0, 8]
    assert gradient[0, 0].flatten()[[0, 8]].tolist() == [1.0, 10.0]


@pytest.mark.parametrize("options", [{"stride": 1, "padding": 1}, {"stride": 1, "padding": 1, "count_padding": True}])
def test_a_mean_over_3_axes_may_be_longer_than_the_input(options: dict[str, Any]) -> None:
    x = torch.ones(1, 1, 2, 2, 2, requires_grad=True)
    y = striate.avg_pool(x, 3, **options)
    expected = 8 / 27 if "count_padding" in options else 1.0
    torch.testing.assert_close(y, torch.full((1, 1, 2, 2, 2), expected))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, torch.full((1, 1, 2, 2, 2), expected))
    assert striate.lp_pool(x, 3, p=1.0, stride=1, padding=1).tolist() == [[[[[8.0] * 2] * 2] * 2]]
    assert striate.avg_pool(torch.ones(1, 1, 4, 2, 3), (2, 3, 2), ceil=True).shape == (1, 1, 2, 1, 2)
