"""Columns and images: the adjoint law, torch's unfold and fold over two axes, and every refusal word for word."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import striate
from striate.errors import GeometryError
from striate.geometry import Axis, Geometry
from striate.unfolding import columns, images

from .cases import CONVOLUTIONS, Case

PLAIN = [c for c in CONVOLUTIONS if not {"flip", "padding_mode", "groups"} & set(dict(c.values[0].options))]


def whole(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def at(position: tuple[int, ...]) -> Any:
    return (slice(None), slice(None), *position)


@pytest.mark.parametrize("case", PLAIN)
def test_columns_hold_what_the_windows_read_and_fold_is_the_adjoint(case: Case) -> None:
    options = dict(case.options)
    x = whole(2, 3, *case.size)
    y = striate.unfold(x, case.kernel, **options)
    window = Geometry.window(len(case.size), case.kernel, size=case.size, **options)
    assert y.shape == (2, 3, *case.kernel, *window.output_size(case.size))
    for tap in product(*map(range, case.kernel)):
        for o in product(*map(range, window.output_size(case.size))):
            read = tuple(p * a.stride + t * a.dilation - a.before for p, t, a in zip(o, tap, window.axes, strict=True))
            inside = all(0 <= i < n for i, n in zip(read, case.size, strict=True))
            wanted = x[at(read)] if inside else torch.zeros(2, 3, dtype=x.dtype)
            assert y[at((*tap, *o))].equal(wanted)
    g = whole(*y.shape, seed=1)
    back = striate.fold(g, case.size, **options)
    assert back.shape == x.shape
    assert (y * g).sum() == (x * back).sum()


@pytest.mark.parametrize("case", PLAIN[::3])
def test_each_is_the_gradient_of_the_other(case: Case) -> None:
    options = dict(case.options)
    x = whole(1, 2, *case.size).requires_grad_()
    y = striate.unfold(x, case.kernel, **options)
    g = whole(*y.shape, seed=1).requires_grad_()
    (to_x,) = torch.autograd.grad(y, x, g, create_graph=True)
    assert to_x.equal(striate.fold(g, case.size, **options))
    image = whole(1, 2, *case.size, seed=2)
    assert torch.autograd.grad(to_x, g, image)[0].equal(striate.unfold(image, case.kernel, **options))


@pytest.mark.parametrize("options", [{}, {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}], ids=str)
def test_two_axes_are_torch_s(options: dict[str, Any]) -> None:
    x = whole(2, 3, 7, 8)
    wanted = F.unfold(x, (3, 2), **options)
    y = striate.unfold(x, (3, 2), **options)
    assert y.reshape(wanted.shape).equal(wanted)
    assert striate.fold(y, (7, 8), **options).equal(F.fold(wanted, (7, 8), (3, 2), **options))
    assert striate.unfold(x[0], (3, 2), **options).equal(y[0])
    assert striate.fold(y[0], (7, 8), **options).equal(striate.fold(y, (7, 8), **options)[0])


def test_weights_times_columns_is_a_convolution() -> None:
    x, weight = whole(2, 3, 5, 6, 4), whole(4, 3, 2, 3, 2, seed=1)
    y = torch.einsum("ncabdxyz,ocabd->noxyz", striate.unfold(x, (2, 3, 2), padding=1, stride=2), weight)
    assert y.equal(F.conv3d(x, weight, padding=1, stride=2))


def test_negative_padding_crops() -> None:
    x = whole(1, 1, 7)
    cropped = Geometry((Axis(2, before=-2, after=-1),))
    y = columns(x, cropped)
    assert y.equal(columns(x[..., 2:6], Geometry((Axis(2),))))
    g = whole(*y.shape, seed=1)
    back = images(g, cropped, (7,))
    assert (y * g).sum() == (x * back).sum()
    assert back[0, 0, [0, 1, 6]].tolist() == [0, 0, 0]


def test_the_result_is_a_copy_and_the_columns_are_a_view() -> None:
    x = whole(1, 1, 4)
    assert striate.unfold(x, 1).data_ptr() != x.data_ptr()
    assert columns(x, Geometry((Axis(2),))).data_ptr() == x.data_ptr()


def test_16_bit_sums_do_not_round_on_the_way() -> None:
    ones = torch.ones(1, 1, 3000, 1, dtype=torch.float16)
    assert striate.fold(ones, 3000).sum() == 3000
    many = torch.ones(1, 1, 5, 4, dtype=torch.bfloat16) * 257
    assert striate.fold(many, 8).dtype == torch.bfloat16
    total = striate.fold(torch.ones(1, 1, 4096, 4096, dtype=torch.float16), 8191)
    assert total[0, 0, 4095] == 4096


def test_nan_stays_where_it_is() -> None:
    x = torch.zeros(1, 1, 6)
    x[..., 2] = torch.nan
    y = striate.unfold(x, 2, padding=1)
    assert y.isnan().sum() == 2
    assert striate.fold(y, 6, padding=1).isnan()[0, 0].tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_gradcheck(dtype: torch.dtype) -> None:
    x = torch.randn(1, 1, 3, 4, dtype=dtype, requires_grad=True)
    c = torch.randn(1, 1, 2, 2, 3, 2, dtype=dtype, requires_grad=True)

    def unfold(x: Tensor) -> Tensor:
        return striate.unfold(x, (2, 1), padding=((1, 0), 1))

    def fold(c: Tensor) -> Tensor:
        return striate.fold(c, (4, 5), dilation=(1, 2), stride=(1, 2))

    for function, argument in ((unfold, x), (fold, c)):
        assert torch.autograd.gradcheck(function, argument, check_forward_ad=True, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, argument, fast_mode=True)
        doubled = torch.stack([argument.detach(), 2 * argument.detach()])
        assert torch.vmap(function)(doubled)[1].equal(2 * function(argument.detach()))


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("dynamic", [None, True])
def test_compiled_and_exported(dynamic: bool | None) -> None:
    def both(x: Tensor) -> Tensor:
        return striate.fold(striate.unfold(x, 2, padding=((1, 0), 0), stride=2), (5, 6), padding=((1, 0), 0), stride=2)

    x = whole(2, 3, 5, 6)
    torch._dynamo.reset()
    assert torch.compile(both, fullgraph=True, backend="aot_eager", dynamic=dynamic)(x).equal(both(x))
    program = torch.export.export(
        type("Both", (torch.nn.Module,), {"forward": lambda self, x: both(x)})(),
        (x,), dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    longer = whole(5, 3, 5, 6)
    assert program.module()(longer).equal(both(longer))
    assert both(x.to("meta")).shape == x.shape


FIT = "do not fit: x must be (N, C, *spatial), or (C, *spatial) with one kernel number for each of its spatial axes."
SHORT = (
    "unfold over spatial size (2,): On spatial axis 0: the window spans 3 inputs (kernel=3, dilation=1), but input "
    "and padding have 2 + 0 + 0 = 2; give a larger input, more padding or a smaller kernel."
)
ENTRIES = (
    "fold: output_size=(4, 4) has 2 entries, but columns of shape (1, 1, 2, 3) have 1 kernel axes; give one number, or "
    "one for each."
)
OTHER = (
    "fold: the window of kernel (2,) has (4,) positions over output_size=(5,), but columns of shape (1, 1, 2, 3) hold "
    "(3,); give the options and the size that unfold was given."
)
FLAT = "fold: columns must be (N, C, *kernel, *out) or (C, *kernel, *out), got shape (2, 3)."
REFUSED: list[tuple[Any, str]] = [
    (lambda: striate.unfold(torch.ones(3, 4), 2), f"unfold: kernel=2 and x of shape (3, 4) {FIT}"),
    (
        lambda: striate.unfold(torch.ones(1, 3, 4), (2, 2, 2)),
        f"unfold: kernel=(2, 2, 2) and x of shape (1, 3, 4) {FIT}",
    ),
    (lambda: striate.unfold(torch.ones(1, 1, 2), 3), SHORT),
    (lambda: striate.fold(torch.ones(2, 3), 2), FLAT),
    (lambda: striate.fold(torch.ones(1, 1, 2, 3), (4, 4)), ENTRIES),
    (lambda: striate.fold(torch.ones(1, 1, 2, 3), 5), OTHER),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        call()
    assert str(caught.value) == message


def test_every_position_is_counted_once_per_reading_tap() -> None:
    counted = striate.fold(striate.unfold(torch.ones(1, 1, 4, 5), (2, 3)), (4, 5))
    assert counted.sum() == prod((2, 3)) * prod((3, 3))
