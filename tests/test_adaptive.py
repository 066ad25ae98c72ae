"""Poolings to a number of outputs, unpooling and maxout: torch where torch accepts, the formula elsewhere."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import striate
from striate.adaptive import Bins, reads, spans
from striate.errors import GeometryError

MAX: dict[int, Any] = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
AVG: dict[int, Any] = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
SHAPES: list[tuple[tuple[int, ...], tuple[Any, ...]]] = [
    ((7,), (3,)), ((3,), (7,)), ((6,), (3,)), ((9,), (1,)), ((5,), (4,)), ((7, 5), (3, 5)), ((5, 6), (7, 4)),
    ((6, 8), (3, 4)), ((6, 7), (1, 1)), ((6, 7), (None, 2)), ((4, 5, 6), (3, 2, 6)), ((2, 3, 4), (3, 3, 3)),
]  # fmt: skip
every_shape = pytest.mark.parametrize(("size", "outputs"), SHAPES, ids=str)


def whole(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def gradient(y: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(y, x, whole(*y.shape, dtype=y.dtype, seed=1))[0]


@every_shape
def test_the_maximum_is_torch_s_with_gradient_and_switches(size: tuple[int, ...], outputs: tuple[Any, ...]) -> None:
    x = whole(2, 3, *size).requires_grad_()
    wanted, indices = MAX[len(size)](x, outputs, return_indices=True)
    y, switches = striate.adaptive_max_pool(x, outputs, return_switches=True)
    assert y.equal(wanted)
    assert switches.equal(indices)
    assert gradient(y, x).equal(gradient(wanted, x))
    assert striate.adaptive_max_pool(x, outputs).equal(wanted)
    assert striate.adaptive_max_pool(x[0], outputs).equal(wanted[0])
    without, places = striate.adaptive_max_pool(x[0], outputs, return_switches=True)
    assert without.equal(wanted[0])
    assert places.equal(indices[0])


@every_shape
def test_the_mean_is_torch_s_with_gradient(size: tuple[int, ...], outputs: tuple[Any, ...]) -> None:
    x = whole(2, 3, *size).requires_grad_()
    y, wanted = striate.adaptive_avg_pool(x, outputs), AVG[len(size)](x, outputs)
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(gradient(y, x), gradient(wanted, x))
    torch.testing.assert_close(striate.adaptive_avg_pool(x[0], outputs), wanted[0])


def test_four_axes_by_the_formula() -> None:
    size, outputs = (3, 4, 2, 5), (2, 3, 3, 2)
    x = whole(1, 1, *size)
    largest, mean = striate.adaptive_max_pool(x, outputs), striate.adaptive_avg_pool(x, outputs)
    for o in product(*map(range, outputs)):
        index: Any = tuple(slice(i * n // m, -(-(i + 1) * n // m)) for i, n, m in zip(o, size, outputs, strict=True))
        assert largest[0, 0][o] == x[0, 0][index].max()
        torch.testing.assert_close(mean[0, 0][o], x[0, 0][index].mean())
    assert striate.adaptive_avg_pool(x, 2).shape == (1, 1, 2, 2, 2, 2)


@pytest.mark.parametrize(("size", "outputs"), [(7, 3), (3, 7), (4, 4), (5, 1), (1, 5), (10, 9)])
def test_who_holds_an_input_follows_the_same_formula(size: int, outputs: int) -> None:
    bins = spans(size, outputs)
    holders = [[o for o, (start, end) in enumerate(bins) if start <= i < end] for i in range(size)]
    assert [list(range(*span)) for span in spans(outputs, size)] == holders
    assert {len(row) for row in reads(size, outputs)} == {max(end - start for start, end in bins)}


@pytest.mark.parametrize("bins", [Bins((5, 7), (7, 3)), Bins((4, 3, 5), (3, 5, 2)), Bins((6,), (4,))], ids=str)
def test_spreading_without_atomics_gives_the_same(bins: Bins) -> None:
    x = whole(2, 3, *bins.sizes)
    switches = bins.switches(x)
    g = whole(*switches.shape, seed=2)
    assert bins.spread_by_reads(g, switches).equal(bins.spread(g, switches))


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_what_is_no_number_stays_in_its_bins(poison: float) -> None:
    x = whole(1, 1, 7)
    x[..., 3] = poison
    held = [start <= 3 < end for start, end in spans(7, 5)]
    for pool in (striate.adaptive_avg_pool, striate.adaptive_max_pool):
        assert (~pool(x, 5).isfinite())[0, 0].tolist() == held
    if poison != poison:
        _, switches = striate.adaptive_max_pool(x, 5, return_switches=True)
        assert switches[0, 0][torch.tensor(held)].eq(3).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_types(dtype: torch.dtype) -> None:
    x = whole(1, 2, 8, 6, dtype=dtype)
    assert striate.adaptive_max_pool(x, 5).equal(striate.adaptive_max_pool(x.double(), 5).to(dtype))
    mean = striate.adaptive_avg_pool(x.double(), (3, 4)).to(dtype)
    torch.testing.assert_close(striate.adaptive_avg_pool(x, (3, 4)), mean)
    big = torch.full((1, 1, 11), 30000.0).to(dtype)
    assert striate.adaptive_avg_pool(big, 2).equal(big[..., :2])
    assert striate.adaptive_max_pool(x.to(torch.int32), 5).equal(striate.adaptive_max_pool(x, 5).to(torch.int32))
    assert striate.adaptive_avg_pool(torch.tensor([[[1j, 2, 3]]]), 2).tolist() == [[[1 + 0.5j, 2.5]]]


def distinct(*shape: int) -> Tensor:
    order = torch.randperm(int(torch.tensor(shape).prod()), generator=torch.Generator().manual_seed(0))
    return (order.view(shape) / 7 - 2.53).double()


def unpooled(pooled: Tensor, switches: Tensor) -> Tensor:
    return striate.max_unpool(pooled, switches, (4, 5))


FUNCTIONS: dict[str, Any] = {
    "max": lambda x: striate.adaptive_max_pool(x, (3, 3)),
    "mean": lambda x: striate.adaptive_avg_pool(x, (3, 7)),
    "even": lambda x: striate.adaptive_avg_pool(x, (2, 5)),
    "global": lambda x: striate.adaptive_max_pool(x, (1, 1)),
    "unpool": lambda x: unpooled(*striate.max_pool(x, (2, 2), stride=1, return_switches=True)),
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


@every_function
def test_derivatives(function: Any) -> None:
    x = distinct(1, 2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(function, x, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, x, fast_mode=True)


@every_function
def test_transforms(function: Any) -> None:
    x = distinct(3, 2, 4, 5)
    wanted = function(x)
    torch.testing.assert_close(torch.vmap(function)(x), wanted, rtol=0, atol=0)
    slope = torch.func.grad(lambda x: function(x).square().sum())
    torch.testing.assert_close(torch.vmap(slope)(x), slope(x), rtol=0, atol=0)
    assert function(x.to("meta")).shape == wanted.shape
    empty = x[:0].clone().requires_grad_()
    assert torch.autograd.grad(function(empty).sum(), empty)[0].shape == empty.shape
    torch.use_deterministic_algorithms(True)
    try:
        leaf = x.clone().requires_grad_()
        function(leaf).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


@every_function
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_compiled_and_exported(function: Any) -> None:
    x = distinct(3, 2, 4, 5).requires_grad_()
    torch._dynamo.reset()
    compiled: Any = torch.compile(function, fullgraph=True, backend="aot_eager")
    y = compiled(x)
    torch.testing.assert_close(y, function(x))
    torch.testing.assert_close(gradient(y, x), gradient(function(x), x))
    module = type("Module", (torch.nn.Module,), {"forward": lambda self, x: function(x)})()
    program = torch.export.export(module, (x.detach(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    longer = distinct(5, 2, 4, 5)
    torch.testing.assert_close(program.module()(longer), function(longer))


# -------------------------------------------------------------------------------------------------------------- unpool


@pytest.mark.parametrize("size", [(6,), (6, 5), (4, 4, 6)], ids=str)
def test_side_by_side_unpooling_is_torch_s(size: tuple[int, ...]) -> None:
    unpool: Any = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}[len(size)]
    pooled, switches = striate.max_pool(distinct(2, 3, *size), 2, return_switches=True)
    pooled.requires_grad_()
    y, wanted = striate.max_unpool(pooled, switches, size), unpool(pooled, switches, 2, output_size=size)
    assert y.equal(wanted)
    assert gradient(y, pooled).equal(gradient(wanted, pooled))
    assert striate.max_unpool(pooled[0], switches[0], size).equal(y[0])
    assert striate.max_pool(y, 2).equal(pooled.clamp(min=0))


def test_of_windows_that_share_a_switch_the_first_stands() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True)
    y = striate.max_unpool(x, torch.tensor([[[2, 0, 2]]]), 4)
    assert y.tolist() == [[[2, 0, 1, 0]]]
    assert torch.autograd.grad(y, x, torch.tensor([[[5.0, 6, 7, 8]]]))[0].tolist() == [[[7, 5, 0]]]


# -------------------------------------------------------------------------------------------------------------- maxout


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 3), (2, 6, 3, 4)], ids=str)
def test_maxout_is_the_largest_of_neighbouring_channels(shape: tuple[int, ...]) -> None:
    x = distinct(*shape).requires_grad_()
    y = striate.maxout(x, 3)
    assert y.equal(torch.stack([x[:, :3].amax(1), x[:, 3:].amax(1)], 1))
    assert torch.autograd.gradcheck(lambda x: striate.maxout(x, 2), x, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: striate.maxout(x, 2), x)
    assert striate.maxout(x, 1).equal(x)


def test_maxout_gives_a_tie_to_the_first() -> None:
    x = torch.zeros(1, 4, requires_grad=True)
    assert torch.autograd.grad(striate.maxout(x, 2).sum(), x)[0].tolist() == [[1, 0, 1, 0]]
    assert striate.maxout(torch.tensor([[1, 5, torch.nan, 2]]), 2)[0, 1].isnan()
    assert striate.maxout(torch.tensor([[1, 5, 3, 2]]), 2).tolist() == [[5, 3]]


# ------------------------------------------------------------------------------------------------------------ refusals

FIT = "do not fit: x must be (N, C, *spatial), or (C, *spatial) with one output size for each of its spatial axes."
ones = torch.ones(1, 1, 4)
NO_LARGEST = "x is torch.complex64; complex numbers have no largest,"
SWITCHES = "max_unpool: switches must be torch.int64 of the shape of x, (1, 1, 4); got {} of shape {}; "
GIVES = "max_pool(..., return_switches=True) gives them."
OUTSIDE = (
    "max_unpool: the switches reach from 4 to 4, but the output has the places 0 to 3; give the output_size of the map "
    "that was pooled."
)
PIECES = "does not divide the 4 channels of x; it must be a whole number that does."
REFUSED: list[tuple[Any, str]] = [
    (lambda: striate.adaptive_avg_pool(ones[0], 2), f"adaptive_avg_pool: output_size=2 and x of shape (1, 4) {FIT}"),
    (lambda: striate.adaptive_max_pool(ones, ()), f"adaptive_max_pool: output_size=() and x of shape (1, 1, 4) {FIT}"),
    (
        lambda: striate.adaptive_max_pool(ones, (0,)),
        "adaptive_max_pool: an output size must be a whole number of at least 1, got 0.",
    ),
    (
        lambda: striate.adaptive_avg_pool(ones, 1.5),  # type: ignore[arg-type]
        "output_size must be a whole number or consist of them, got output_size=1.5.",
    ),
    (lambda: striate.adaptive_max_pool(ones * 1j, 2), f"adaptive_max_pool: {NO_LARGEST} pool x.abs() instead."),
    (
        lambda: striate.adaptive_avg_pool(ones.int(), 2),
        "adaptive_avg_pool: x is torch.int32; a mean needs floating-point numbers, as in x.float().",
    ),
    (
        lambda: striate.adaptive_avg_pool(torch.ones(1, 1, 0), 2),
        "adaptive_avg_pool: x of shape (1, 1, 0) has no inputs to share out; at least 1 is needed.",
    ),
    (
        lambda: striate.max_unpool(ones, ones.long(), (None,)),  # type: ignore[arg-type]
        "max_unpool: output_size=(None,) must name every axis.",
    ),
    (lambda: striate.max_unpool(ones, ones.int(), 4), SWITCHES.format("torch.int32", (1, 1, 4)) + GIVES),
    (lambda: striate.max_unpool(ones, ones[..., :3].long(), 4), SWITCHES.format("torch.int64", (1, 1, 3)) + GIVES),
    (lambda: striate.max_unpool(ones, 4 * ones.long(), 4), OUTSIDE),
    (lambda: striate.maxout(torch.ones(3), 3), "maxout: x must be (N, C, ...), got shape (3,)."),
    (lambda: striate.maxout(torch.ones(1, 4), 3), f"maxout: pieces=3 {PIECES}"),
    (lambda: striate.maxout(torch.ones(1, 4), 2.0), f"maxout: pieces=2.0 {PIECES}"),  # type: ignore[arg-type]
    (lambda: striate.maxout(torch.ones(1, 4) * 1j, 2), f"maxout: {NO_LARGEST} give x.abs() instead."),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        call()
    assert str(caught.value) == message
