"""Layers against torch.nn's: signatures, first values, state dicts both ways, and every bit of the outputs."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

import striate
from striate.errors import GeometryError, UnknownNameError

CONVOLUTIONS = [f"{kind}{axes}d" for kind in ("Conv", "ConvTranspose") for axes in (1, 2, 3)]
POOLINGS = [f"{kind}{axes}d" for kind in ("MaxPool", "AvgPool") for axes in (1, 2, 3)]
OTHERS = [
    *(f"{kind}{axes}d" for kind in ("LPPool", "AdaptiveMaxPool", "AdaptiveAvgPool", "MaxUnpool") for axes in (1, 2, 3)),
    *(f"Lazy{name}" for name in CONVOLUTIONS),
    *("LocalResponseNorm", "Unfold", "Fold"),
]
LOCAL = [f"{kind}{axes}d" for kind in ("ConvLocal", "ConvTiled") for axes in (1, 2, 3)]


def axes_of(name: str) -> int:
    return int(name[-2])


def picture(axes: int, channels: int = 4) -> Tensor:
    return torch.randn(2, channels, *(9, 8, 7)[:axes], generator=torch.Generator().manual_seed(0))


def pair(name: str, *arguments: Any, **options: Any) -> tuple[Any, Any]:
    """Our layer and torch's, built from the same arguments and seed."""
    torch.manual_seed(0)
    ours = getattr(striate.nn, name)(*arguments, **options)
    torch.manual_seed(0)
    return ours, getattr(torch.nn, name)(*arguments, **options)


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# ----------------------------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *POOLINGS, *OTHERS])
def test_the_signature_begins_with_torch_s(name: str) -> None:
    """Same names, same order, same defaults; what torch lacks comes after."""
    ours = list(inspect.signature(getattr(striate.nn, name)).parameters.values())
    theirs = list(inspect.signature(getattr(torch.nn, name)).parameters.values())
    assert [p.name for p in ours[: len(theirs)]] == [p.name for p in theirs]
    assert [p.default for p in ours[: len(theirs)]] == [p.default for p in theirs]
    assert all(p.default is not inspect.Parameter.empty for p in ours[len(theirs) :])


@pytest.mark.parametrize("name", striate.nn.__all__)
def test_each_layer_is_a_documented_module(name: str) -> None:
    layer = getattr(striate.nn, name)
    assert issubclass(layer, torch.nn.Module)
    assert layer.__doc__
    assert layer.__name__ == name


# --------------------------------------------------------------------------------------------------------- convolutions

ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((4, 6, 3), {}),
    ((4, 6, 3, 2, 1, 1, 2), {}),
    ((4, 8, 2), {"stride": 2, "dilation": 2, "groups": 4, "bias": False}),
    ((4, 6, 3), {"padding": "valid"}),
    ((4, 6, 3), {"padding": "same", "dilation": 2}),
    ((4, 6, 4), {"padding": "same"}),
    ((4, 6, 3), {"padding": 2, "padding_mode": "circular", "stride": 2}),
    ((4, 6, 3), {"padding": 1, "padding_mode": "reflect"}),
    ((4, 6, 3), {"padding": "same", "padding_mode": "replicate"}),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("arguments", "options"), ARGUMENTS, ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolution_has_torch_s_first_values_state_and_output(
    axes: int, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    check_against_torch(f"Conv{axes}d", arguments, options)


ARGUMENTS_TRANSPOSED: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((4, 6, 3), {}),
    ((4, 6, 3, 2, 1, 1, 2, False), {}),
    ((4, 8, 2), {"stride": 3, "output_padding": 2, "groups": 4}),
    ((4, 6, 3), {"padding": 1, "dilation": 2, "padding_mode": "zeros"}),
]


@pytest.mark.parametrize(("arguments", "options"), ARGUMENTS_TRANSPOSED, ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_transposed_convolution_has_torch_s_first_values_state_and_output(
    axes: int, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    check_against_torch(f"ConvTranspose{axes}d", arguments, options)


def check_against_torch(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    ours, theirs = pair(name, *arguments, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        same(ours.state_dict()[key], value)
    x = picture(axes_of(name))
    mine, wanted = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(mine), theirs(wanted)
    same(y, expected)
    same(ours(x[0]), theirs(x[0]))
    y.square().sum().backward()
    expected.square().sum().backward()
    if options.get("padding_mode", "zeros") == "zeros":
        same(mine.grad, wanted.grad)  # type: ignore[arg-type]
    else:  # a value that stands in several places gets several gradients, added in another order
        torch.testing.assert_close(mine.grad, wanted.grad)
    for parameter, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        same(parameter.grad, reference.grad)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.uniform_(-1, 1)
    assert ours.load_state_dict(theirs.state_dict(), strict=True) == ([], [])
    same(ours(x), theirs(x))
    ours.reset_parameters()
    assert theirs.load_state_dict(ours.state_dict(), strict=True) == ([], [])
    same(ours(x), theirs(x))


@pytest.mark.parametrize(("name", "parameters"), [
    ("Conv1d", 6 * 2 * 3 + 6), ("Conv2d", 6 * 2 * 9 + 6), ("Conv3d", 6 * 2 * 27 + 6),
    ("ConvTranspose1d", 4 * 3 * 3 + 6), ("ConvTranspose2d", 4 * 3 * 9 + 6), ("ConvTranspose3d", 4 * 3 * 27 + 6),
])  # fmt: skip
def test_parameters(name: str, parameters: int) -> None:
    layer = getattr(striate.nn, name)(4, 6, 3, groups=2)
    assert sum(p.numel() for p in layer.parameters()) == parameters
    assert [n for n, _ in layer.named_parameters()] == ["weight", "bias"]
    bare = getattr(striate.nn, name)(4, 6, 3, groups=2, bias=False)
    assert (bare.bias, sum(p.numel() for p in bare.parameters())) == (None, parameters - 6)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_words_that_torch_refuses(name: str) -> None:
    """ "same" with a stride: ceil(n / stride) positions, or n * stride when transposed."""
    size = (9, 8, 7)[: axes_of(name)]
    layer = getattr(striate.nn, name)(4, 6, 3, stride=2, padding="same")
    outputs = [n * 2 if "Transpose" in name else -(-n // 2) for n in size]
    assert layer(picture(axes_of(name))).shape == (2, 6, *outputs)
    assert layer(torch.zeros(4, *(n + 1 for n in size))).shape[1:] == tuple(
        (n + 1) * 2 if "Transpose" in name else -(-(n + 1) // 2) for n in size
    )


def test_one_layer_serves_every_size_and_pads_each_by_its_own_rule() -> None:
    layer = striate.nn.Conv1d(1, 1, 3, stride=2, padding="same", bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
    # 5 inputs: total 2 * 2 + 3 - 5 = 2, one row each side; 4 inputs: total 1 * 2 + 3 - 4 = 1, the row after
    assert layer(torch.arange(1.0, 6).view(1, 1, 5)).tolist() == [[[210, 432, 54]]]
    assert layer(torch.arange(1.0, 5).view(1, 1, 4)).tolist() == [[[321, 43]]]


def test_uneven_padding() -> None:
    layer = striate.nn.Conv2d(4, 6, 3, padding=((1, 0), (0, 2)))
    x = picture(2)
    same(layer(x), F.conv2d(F.pad(x, (0, 2, 1, 0)), layer.weight, layer.bias))
    causal = striate.nn.Conv1d(4, 6, 3, padding="causal", dilation=2)
    same(causal(picture(1)), F.conv1d(F.pad(picture(1), (4, 0)), causal.weight, causal.bias, dilation=2))


def test_lists_are_taken_like_tuples() -> None:
    layer, _ = pair("Conv2d", 4, 6, [3, 2], [2, 1], [1, 0], [1, 2])
    other, _ = pair("Conv2d", 4, 6, (3, 2), (2, 1), (1, 0), (1, 2))
    assert repr(layer) == repr(other)
    same(layer(picture(2)), other(picture(2)))


# ------------------------------------------------------------------------------------------------------------- poolings

MAX: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 1, "dilation": 2},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
]
AVG: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
]


@pytest.mark.parametrize("options", MAX, ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_max_pooling_is_torch_s(axes: int, options: dict[str, Any]) -> None:
    ours, theirs = pair(f"MaxPool{axes}d", **options)
    x = picture(axes)
    same(ours(x), theirs(x))
    same(ours(x[0]), theirs(x[0]))
    ours, theirs = pair(f"MaxPool{axes}d", **options, return_indices=True)
    for got, wanted in zip(ours(x), theirs(x), strict=True):
        same(got, wanted)
    assert not ours.state_dict()


@pytest.mark.parametrize("options", AVG, ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_mean_pooling_is_torch_s(axes: int, options: dict[str, Any]) -> None:
    ours, theirs = pair(f"AvgPool{axes}d", **options)
    x = picture(axes)
    same(ours(x), theirs(x))
    same(ours(x[0]), theirs(x[0]))
    assert not ours.state_dict()


@pytest.mark.parametrize("axes", [2, 3])
def test_the_sixth_argument_of_mean_pooling_is_the_divisor(axes: int) -> None:
    ours, theirs = pair(f"AvgPool{axes}d", 3, 2, 1, True, True, 5)
    same(ours(picture(axes)), theirs(picture(axes)))


def test_poolings_that_torch_refuses() -> None:
    x = torch.tensor([[[3.0, 1, 4, 1, 5]]], dtype=torch.float64)
    assert striate.nn.MaxPool1d(2, stride=2, padding="same")(x).tolist() == [[[3, 4, 5]]]
    assert striate.nn.MaxPool1d(2, stride=1, padding=((0, 1),))(x).tolist() == [[[3, 4, 4, 5, 5]]]
    assert striate.nn.AvgPool1d(2, stride=1, dilation=2)(x).tolist() == [[[3.5, 1, 4.5]]]
    assert striate.nn.AvgPool1d(3, padding=((2, 2),), stride=3)(x).tolist() == [[[1, 2, 5 / 3]]]
    assert striate.nn.AvgPool1d(3, padding=((2, 2),), stride=3, count_include_pad=False)(x).tolist() == [[[3, 2, 5]]]


def test_fully_connected_reads_the_whole_feature_map() -> None:
    torch.manual_seed(0)
    ours = striate.nn.FullyConnected(4 * 9 * 8, 10)
    torch.manual_seed(0)
    theirs = torch.nn.Linear(4 * 9 * 8, 10)
    assert ours.load_state_dict(theirs.state_dict(), strict=True) == ([], [])
    same(ours(picture(2)), theirs(picture(2).reshape(2, -1)))


# ------------------------------------------------------------------------------------------- what torch.nn also has


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_attributes_are_torch_s(axes: int) -> None:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    for kind, options in (("Conv", {"dilation": 2}), ("ConvTranspose", {"output_padding": 1})):
        ours, theirs = pair(f"{kind}{axes}d", 4, 6, 3, stride=2, padding=1, groups=2, **options)
        for name in (*names, "output_padding", "transposed"):
            assert getattr(ours, name) == getattr(theirs, name), name
    assert striate.nn.Conv2d(4, 6, 3, padding="same").padding == "same"
    pool = striate.nn.MaxPool2d(3, padding=1, ceil_mode=True)
    assert (pool.stride, pool.padding, pool.dilation, pool.ceil_mode) == ((3, 3), (1, 1), (1, 1), True)


def test_a_changed_attribute_takes_effect_as_in_torch() -> None:
    """Networks are dilated that way: a stride is taken away and a dilation put in."""
    ours, theirs = pair("Conv2d", 4, 6, 3, stride=2, padding=1)
    for layer in (ours, theirs):
        layer.stride, layer.dilation, layer.padding = (1, 1), (2, 2), (2, 2)
    same(ours(picture(2)), theirs(picture(2)))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_size_that_a_transposed_convolution_writes(axes: int) -> None:
    ours, theirs = pair(f"ConvTranspose{axes}d", 4, 6, 3, stride=3, padding=1)
    x = picture(axes)
    for extra in range(3):
        size = [(n - 1) * 3 + 1 + extra for n in x.shape[2:]]
        same(ours(x, output_size=size), theirs(x, output_size=size))
        same(ours(x, torch.Size([2, 6, *size])), ours(x, size))
        same(ours(x[0], size), theirs(x[0], size))


def test_sizes_that_no_transposed_convolution_writes() -> None:
    layer, x = striate.nn.ConvTranspose2d(4, 6, 3, stride=3, padding=1), picture(2)
    for size in ((24, 22), (25, 25)):
        with pytest.raises(GeometryError) as caught:
            layer(x, size)
        assert str(caught.value) == (
            "ConvTranspose2d writes sizes from (25, 22) to (27, 24) for x of shape (2, 4, 9, 8); "
            f"got output_size={size}."
        )
    with pytest.raises(GeometryError) as caught:
        layer(x, (25, 22, 1))
    assert str(caught.value) == (
        "ConvTranspose2d: output_size=(25, 22, 1) has 3 entries; give 2, one per spatial axis, or a whole shape of 4."
    )


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_transposed_convolution_is_the_adjoint_in_every_padding_mode(mode: str) -> None:
    forward = striate.nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False, padding_mode=mode, dtype=torch.float64)
    back = striate.nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, bias=False, padding_mode=mode, dtype=torch.float64)
    back.load_state_dict(forward.state_dict())
    x = picture(2).double()
    y = torch.randn_like(forward(x))
    torch.testing.assert_close((forward(x) * y).sum(), (x * back(y, output_size=x.shape)).sum())


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_p_norm_pooling_is_torch_s_of_numbers_that_are_not_negative(axes: int, close: Any) -> None:
    for norm, options in ((2, {}), (3, {"stride": 1}), (2.5, {"stride": 2})):
        ours, theirs = pair(f"LPPool{axes}d", norm, 2, **options)
        x = picture(axes).abs()
        close(ours(x), theirs(x))
    even = striate.nn.LPPool1d(2, 2)
    torch.testing.assert_close(even(picture(1)), torch.nn.LPPool1d(2, 2)(picture(1)))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_adaptive_poolings_are_torch_s(axes: int) -> None:
    x = picture(axes)
    for size in (1, 3, 11, (5, 2, 3)[:axes], (None, 2, 1)[:axes]):
        if axes == 1 and not isinstance(size, int):
            size = 5
        ours, theirs = pair(f"AdaptiveMaxPool{axes}d", size, return_indices=True)
        for got, wanted in zip(ours(x), theirs(x), strict=True):
            same(got, wanted)
        ours, theirs = pair(f"AdaptiveAvgPool{axes}d", size)
        torch.testing.assert_close(ours(x), theirs(x))
        assert not ours.state_dict()


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("options", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}], ids=str)
def test_unpooling_is_torch_s(axes: int, options: dict[str, Any]) -> None:
    x = torch.arange(16.0**axes).view(1, 1, *(16,) * axes)
    values, switches = getattr(torch.nn, f"MaxPool{axes}d")(**options, return_indices=True)(x)
    ours, theirs = pair(f"MaxUnpool{axes}d", **options)
    for size in (None, (16,) * axes, x.shape):
        if size is not None or options["kernel_size"] == 2:
            same(ours(values, switches, size), theirs(values, switches, size))


def test_sizes_that_no_pooling_comes_from() -> None:
    values, switches = striate.nn.MaxPool2d(2, return_indices=True)(picture(2))
    layer = striate.nn.MaxUnpool2d(2)
    assert layer(values, switches, (9, 8)).shape == (2, 4, 9, 8)
    for size, number, least in (((10, 8), 0, 7), ((9, 6), 1, 7)):
        with pytest.raises(GeometryError) as caught:
            layer(values, switches, size)
        assert str(caught.value) == (
            f"MaxUnpool2d: no map of size {size[number]} on spatial axis {number} is pooled to the 4 positions of x; "
            f"sizes from {least} to {least + 2} can be."
        )
    with pytest.raises(GeometryError) as caught:
        layer(values, switches, (8,))
    assert str(caught.value) == (
        "MaxUnpool2d: output_size=(8,) has 1 entries; give 2, one per spatial axis, or a whole shape of 4."
    )


def test_local_response_normalization_is_torch_s() -> None:
    ours, theirs = pair("LocalResponseNorm", 3, 0.5, 0.6, 2.0)
    torch.testing.assert_close(ours(picture(2)), theirs(picture(2)))


def test_unfold_and_fold_are_torch_s_with_their_axes_kept() -> None:
    options = {"dilation": 2, "padding": 1, "stride": (1, 2)}
    ours, theirs = pair("Unfold", (3, 2), **options)
    x = picture(2)
    columns = ours(x)
    assert columns.shape == (2, 4, 3, 2, 7, 4)
    same(columns.flatten(1, 3).flatten(2), theirs(x))
    ours, theirs = pair("Fold", (9, 8), (3, 2), **options)
    torch.testing.assert_close(ours(columns), theirs(columns.flatten(1, 3).flatten(2)))
    assert striate.nn.Unfold(2)(picture(3)).shape == (2, 4, 2, 2, 2, 8, 7, 6)


def test_maxout_and_gaussian_pooling_are_the_functions() -> None:
    same(striate.nn.Maxout(2)(picture(2)), striate.maxout(picture(2), 2))
    layer = striate.nn.GaussianPool2d(3, 2, "same", ceil_mode=False, sigma=(0.5, 1.0))
    same(layer(picture(2)), striate.gaussian_pool(picture(2), 3, sigma=(0.5, 1.0), stride=2, padding="same"))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_poolings_with_same_and_a_stride_have_the_notes_size(axes: int) -> None:
    """``ceil(n / stride)`` outputs; the padded positions neither win nor count."""
    x = -picture(axes).abs() - 1
    sizes = [-(-n // 2) for n in x.shape[2:]]
    for kind, options in (("MaxPool", {}), ("AvgPool", {"count_include_pad": False}), ("GaussianPool", {})):
        y = getattr(striate.nn, f"{kind}{axes}d")(3, stride=2, padding="same", **options)(x)
        assert y.shape == (2, 4, *sizes)
        assert (y <= -1).all()
    ones = torch.ones_like(x)
    mean = getattr(striate.nn, f"AvgPool{axes}d")(3, 2, "same", count_include_pad=False)
    same(mean(ones), torch.ones(2, 4, *sizes))


# ------------------------------------------------------------------------------------------------------ local and tiled


@pytest.mark.parametrize(("name", "options", "weights", "biases"), [
    ("ConvLocal1d", {"input_size": 9}, 7 * 6 * 4 * 3, 7 * 6),
    ("ConvLocal2d", {"input_size": (9, 8), "stride": 2, "groups": 2}, 4 * 3 * 6 * 2 * 9, 4 * 3 * 6),
    ("ConvLocal3d", {"input_size": (9, 8, 7), "padding": "same", "shared_bias": True}, 504 * 6 * 4 * 27, 6),
    ("ConvTiled1d", {"period": 2}, 2 * 6 * 4 * 3, 2 * 6),
    ("ConvTiled2d", {"period": (2, 3), "groups": 2}, 6 * 6 * 2 * 9, 6 * 6),
    ("ConvTiled3d", {"period": 1, "bias": False}, 6 * 4 * 27, 0),
])  # fmt: skip
def test_parameters_of_local_and_tiled_layers(name: str, options: dict[str, Any], weights: int, biases: int) -> None:
    layer = getattr(striate.nn, name)(4, 6, 3, **options)
    assert sum(p.numel() for p in layer.parameters()) == weights + biases
    fan_in = 4 // options.get("groups", 1) * 3 ** axes_of(name)
    assert fan_in**-0.5 * 0.9 < layer.weight.abs().max() <= fan_in**-0.5
    y = layer(picture(axes_of(name)))
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    other = getattr(striate.nn, name)(4, 6, 3, **options)
    assert other.load_state_dict(layer.state_dict(), strict=True) == ([], [])
    same(other(picture(axes_of(name))), y)
    torch.testing.assert_close(layer(picture(axes_of(name))[0]), y[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_equal_weights_make_local_and_tiled_layers_convolutions(axes: int) -> None:
    size = (9, 8, 7)[:axes]
    plain = getattr(striate.nn, f"Conv{axes}d")(4, 6, 3, stride=2, padding="same")
    local = getattr(striate.nn, f"ConvLocal{axes}d")(4, 6, 3, size, stride=2, padding="same")
    tiled = getattr(striate.nn, f"ConvTiled{axes}d")(4, 6, 3, 2, stride=2, padding="same")
    for layer in (local, tiled):
        with torch.no_grad():
            layer.weight.copy_(plain.weight)
            layer.bias.copy_(plain.bias.view(-1, *(1,) * axes))
        torch.testing.assert_close(layer(picture(axes)), plain(picture(axes)))


# ----------------------------------------------------------------------------------------------------------------- lazy

LAZY: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *((name, (6, 3), {"stride": 2, "groups": 2}) for name in CONVOLUTIONS),
    *((f"ConvLocal{axes}d", (6, 3), {"padding": "same"}) for axes in (1, 2, 3)),
    *((f"ConvTiled{axes}d", (6, 3, 2), {"bias": False}) for axes in (1, 2, 3)),
]


def eager(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    more = {"input_size": (9, 8, 7)[: axes_of(name)]} if "Local" in name else {}
    return getattr(striate.nn, name)(4, *arguments, **more, **options)


@pytest.mark.parametrize(("name", "arguments", "options"), LAZY, ids=[name for name, _, _ in LAZY])
def test_a_lazy_layer_becomes_the_ordinary_one(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    axes = axes_of(name)
    lazy = getattr(striate.nn, f"Lazy{name}")(*arguments, **options)
    assert lazy.has_uninitialized_params()
    twin = copy.deepcopy(lazy)
    torch.manual_seed(0)
    y = lazy(picture(axes))
    torch.manual_seed(0)
    expected = eager(name, arguments, options)
    assert type(lazy) is type(expected)
    assert repr(lazy) == repr(expected)
    same(y, expected(picture(axes)))
    same(lazy(picture(axes)), y)
    assert twin.has_uninitialized_params()
    assert twin.load_state_dict(lazy.state_dict(), strict=True) == ([], [])
    same(twin(picture(axes)), y)
    assert type(twin) is type(expected)
    assert repr(twin) == repr(expected)


@pytest.mark.parametrize("name", [*CONVOLUTIONS, "Linear"])
def test_lazy_state_dicts_go_both_ways_with_torch_s(name: str) -> None:
    ours = getattr(striate.nn, f"Lazy{name}".replace("Linear", "FullyConnected"))
    numbers = (6,) if name == "Linear" else (6, 3)
    x = picture(1).flatten(1) if name == "Linear" else picture(axes_of(name))
    theirs = getattr(torch.nn, f"Lazy{name}")(*numbers)
    first = ours(*numbers)
    assert list(first.state_dict()) == list(theirs.state_dict())
    assert first.load_state_dict(theirs.state_dict()) == ([], [])  # still without a size on both sides
    expected = theirs(x)
    assert first.load_state_dict(theirs.state_dict()) == ([], [])
    torch.testing.assert_close(first(x), expected)
    again = getattr(torch.nn, f"Lazy{name}")(*numbers)
    again.load_state_dict(first.state_dict())
    torch.testing.assert_close(again(x), expected)


def test_a_lazy_network_is_sized_by_a_dry_run() -> None:
    network = torch.nn.Sequential(
        striate.nn.LazyConv2d(6, 3), torch.nn.ReLU(), striate.nn.LazyConvLocal2d(4, 3), striate.nn.LazyFullyConnected(5)
    )
    with torch.no_grad():
        assert network(picture(2)).shape == (2, 5)
    assert [type(part).__name__ for part in network] == ["Conv2d", "ReLU", "ConvLocal2d", "FullyConnected"]
    assert sum(p.numel() for p in network.parameters()) == 6 * 36 + 6 + 20 * (4 * 54 + 4) + 5 * 80 + 5


def test_a_refused_input_leaves_a_lazy_layer_as_it_was() -> None:
    layer = striate.nn.LazyConv1d(8, 3, groups=2)
    with pytest.raises(GeometryError):
        layer(torch.zeros(1, 3, 9))
    assert (type(layer).__name__, layer.in_channels) == ("LazyConv1d", 0)
    assert layer(torch.zeros(1, 4, 9)).shape == (1, 8, 7)


# -------------------------------------------------------------------------------------------------------- what it shows

SHOWN = [
    (
        striate.nn.Conv2d(3, 8, 3, stride=(2, 1), padding="same", bias=False),
        "Conv2d(3, 8, kernel_size=(3, 3), stride=(2, 1), padding='same', dilation=1, groups=1, padding_mode='zeros', \
bias=False)",
    ),
    (
        striate.nn.Conv1d(4, 8, [3], padding=[(1, 2)], groups=2, padding_mode="circular"),
        "Conv1d(4, 8, kernel_size=(3,), stride=1, padding=((1, 2),), dilation=1, groups=2, padding_mode='circular')",
    ),
    (
        striate.nn.ConvTranspose3d(2, 4, 2, 2, output_padding=1),
        "ConvTranspose3d(2, 4, kernel_size=(2, 2, 2), stride=2, padding=0, output_padding=1, dilation=1, groups=1, \
padding_mode='zeros')",
    ),
    (
        striate.nn.MaxPool2d(3, 2, "same", ceil_mode=True),
        "MaxPool2d(kernel_size=(3, 3), stride=2, padding='same', dilation=1, ceil_mode=True, return_indices=False)",
    ),
    (
        striate.nn.AvgPool1d(2, divisor_override=3),
        "AvgPool1d(kernel_size=(2,), stride=2, padding=0, dilation=1, ceil_mode=False, count_include_pad=True, \
divisor_override=3)",
    ),
    (striate.nn.FullyConnected(3, 4, bias=False), "FullyConnected(in_features=3, out_features=4, bias=False)"),
    (
        striate.nn.ConvLocal2d(3, 4, 2, (5, 6), shared_bias=True),
        "ConvLocal2d(3, 4, kernel_size=(2, 2), input_size=(5, 6), stride=1, padding=0, dilation=1, groups=1, \
padding_mode='zeros', shared_bias=True)",
    ),
    (
        striate.nn.ConvTiled1d(3, 4, 2, 3, bias=False),
        "ConvTiled1d(3, 4, kernel_size=(2,), period=3, stride=1, padding=0, dilation=1, groups=1, \
padding_mode='zeros', bias=False)",
    ),
    (
        striate.nn.LazyConv2d(8, 3),
        "LazyConv2d(0, 8, kernel_size=(3, 3), stride=1, padding=0, dilation=1, groups=1, padding_mode='zeros')",
    ),
    (
        striate.nn.LPPool2d(3, 2),
        "LPPool2d(kernel_size=(2, 2), stride=2, padding=0, dilation=1, ceil_mode=False, norm_type=3)",
    ),
    (
        striate.nn.GaussianPool1d(3, 1),
        "GaussianPool1d(kernel_size=(3,), stride=1, padding=0, dilation=1, ceil_mode=False, sigma=None)",
    ),
    (striate.nn.MaxUnpool2d(2), "MaxUnpool2d(kernel_size=(2, 2), stride=2, padding=0)"),
    (striate.nn.AdaptiveAvgPool2d((1, None)), "AdaptiveAvgPool2d(output_size=(1, None))"),
    (striate.nn.AdaptiveMaxPool3d(2), "AdaptiveMaxPool3d(output_size=2)"),
    (striate.nn.Maxout(2), "Maxout(2)"),
    (striate.nn.LocalResponseNorm(5), "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)"),
    (striate.nn.Unfold(3, padding="same"), "Unfold(3, dilation=1, padding='same', stride=1)"),
    (striate.nn.Fold((5, 4), 3), "Fold((5, 4), 3, dilation=1, padding=0, stride=1)"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "text"), SHOWN, ids=[type(layer).__name__ for layer, _ in SHOWN])
def test_repr(layer: torch.nn.Module, text: str) -> None:
    assert repr(layer) == text


# ------------------------------------------------------------------------------------------------ a good citizen's life


def small_network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        striate.nn.Conv2d(4, 6, 3, stride=2, padding="same"),
        torch.nn.ReLU(),
        striate.nn.MaxPool2d(2, padding="same"),
        striate.nn.ConvTranspose2d(6, 4, 2, stride=2),
        striate.nn.AvgPool2d(2, padding=1, count_include_pad=False),
        striate.nn.Conv2d(4, 2, 1, bias=False),
    )


def test_in_a_sequential_sizes_follow_the_input() -> None:
    network = small_network()
    # 9x8 -> 5x4 -> 3x2 -> 6x4 -> 4x3; 12x6 -> 6x3 -> 3x2 -> 6x4 -> 4x3; 3x3 -> 2x2 -> 1x1 -> 2x2 -> 2x2
    assert network(torch.zeros(2, 4, 9, 8)).shape == (2, 2, 4, 3)
    assert network(torch.zeros(0, 4, 12, 6)).shape == (0, 2, 4, 3)
    assert network(torch.zeros(4, 3, 3)).shape == (2, 2, 2)


def test_a_copy_is_independent() -> None:
    network = small_network()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert all(parameter.any() for parameter in network.parameters())
    assert repr(twin) == repr(network)


def test_weights_are_saved_and_read_without_pickle() -> None:
    network, other = small_network(), small_network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    stored = safetensors.torch.save(network.state_dict())
    assert other.load_state_dict(safetensors.torch.load(stored), strict=True) == ([], [])
    same(other(picture(2)), network(picture(2)))
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    assert list(torch.load(buffer, weights_only=True)) == ["0.weight", "0.bias", "3.weight", "3.bias", "5.weight"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_to_another_type(dtype: torch.dtype) -> None:
    network = small_network().to(dtype)
    assert {p.dtype for p in network.parameters()} == {dtype}
    assert network(picture(2).to(dtype)).dtype == dtype
    built = striate.nn.Conv2d(4, 6, 3, dtype=dtype)
    assert (built.weight.dtype, built.bias.dtype) == (dtype, dtype)  # type: ignore[union-attr]


def test_on_the_meta_device() -> None:
    layer = striate.nn.Conv2d(4, 6, 3, stride=2, padding="same", device="meta")
    assert layer(torch.zeros(2, 4, 9, 8, device="meta")).shape == (2, 6, 5, 4)
    assert not any(p.device.type != "meta" for p in layer.parameters())
    layer.to_empty(device="cpu").reset_parameters()
    assert layer(picture(2)).isfinite().all()


def test_autocast_through_two_layers_as_in_torch() -> None:
    ours = torch.nn.Sequential(striate.nn.Conv2d(4, 6, 3), striate.nn.MaxPool2d(2), striate.nn.Conv2d(6, 2, 3))
    theirs = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3), torch.nn.MaxPool2d(2), torch.nn.Conv2d(6, 2, 3))
    theirs.load_state_dict(ours.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = ours(picture(2)), theirs(picture(2))
    assert y.dtype == torch.bfloat16
    same(y, expected)
    y.float().sum().backward()
    expected.float().sum().backward()
    for parameter, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        same(parameter.grad, reference.grad)  # type: ignore[arg-type]


def test_functional_call_and_gradients_of_each_example() -> None:
    network = small_network()
    parameters: dict[str, Tensor] = dict(network.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(network, parameters, (x,)).square().sum()
        return result

    each = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, picture(2))
    network(picture(2)).square().sum().backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(each[name].sum(0), parameter.grad, rtol=1e-4, atol=1e-5)


def test_weight_norm_replaces_the_weight() -> None:
    layer = striate.nn.Conv2d(4, 6, 3)
    before = layer(picture(2))
    torch.nn.utils.parametrizations.weight_norm(layer)
    assert sorted(n for n, _ in layer.named_parameters())[1:] == [
        "parametrizations.weight.original0", "parametrizations.weight.original1",
    ]  # fmt: skip
    torch.testing.assert_close(layer(picture(2)), before)


COMPILED: list[tuple[str, tuple[Any, ...]]] = [
    *(("ConvTranspose2d", (4, 6, 3, 2)), ("ConvLocal2d", (4, 6, 3, (9, 8))), ("ConvTiled2d", (4, 6, 3, 2))),
    *(("LPPool2d", (2, 3)), ("GaussianPool2d", (3,)), ("AdaptiveMaxPool2d", (2,)), ("AdaptiveAvgPool2d", (2,))),
    *(("Maxout", (2,)), ("LocalResponseNorm", (3,)), ("Unfold", (3,)), ("LazyConv2d", (6, 3))),
]


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function")
@pytest.mark.parametrize(("name", "arguments"), COMPILED, ids=[name for name, _ in COMPILED])
def test_the_newer_layers_compile_into_one_graph(name: str, arguments: tuple[Any, ...]) -> None:
    layer = getattr(striate.nn, name)(*arguments)
    expected = layer(picture(2))
    torch._dynamo.reset()
    compiled: Any = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(picture(2)), expected)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function")
def test_compiles_into_one_graph_with_the_same_gradients() -> None:
    network, twin = small_network(), small_network()
    torch._dynamo.reset()
    compiled = torch.compile(twin, fullgraph=True, backend="eager")
    expected, y = network(picture(2)), compiled(picture(2))
    same(y, expected)
    expected.square().sum().backward()
    y.square().sum().backward()
    for parameter, reference in zip(twin.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, reference.grad)


# ------------------------------------------------------------------------------------------------------------- refusals

REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("Conv2d", (3, 8, (3, 3, 3)), {}, """
While building Conv2d(3, 8, (3, 3, 3)):
  kernel=(3, 3, 3) has 3 entries; this window has 2 spatial axes.
  Known so far: stride=1, padding=0, dilation=1, groups=1, padding_mode='zeros'."""),
    ("Conv2d", (3, 8, -3), {"stride": 2}, """
While building Conv2d(3, 8, -3):
  kernel must be at least 1, got kernel=-3.
  Known so far: stride=2, padding=0, dilation=1, groups=1, padding_mode='zeros'."""),
    ("Conv1d", (3, 8, 3.0), {}, """
While building Conv1d(3, 8, 3.0):
  kernel must be a whole number or consist of them, got kernel=3.0.
  Known so far: stride=1, padding=0, dilation=1, groups=1, padding_mode='zeros'."""),
    ("Conv1d", (3, 8, 3), {"stride": 2.5}, """
While building Conv1d(3, 8, 3):
  stride must be a whole number or consist of them, got stride=2.5.
  Known so far: stride=2.5, padding=0, dilation=1, groups=1, padding_mode='zeros'."""),
    ("Conv3d", (3, 8, 3), {"groups": 2}, """
While building Conv3d(3, 8, 3):
  groups=2 does not divide the 3 input channels; both channel counts must be multiples of the groups.
  Known so far: stride=1, padding=0, dilation=1, groups=2, padding_mode='zeros'."""),
    ("Conv2d", (3, 8, 3), {"padding": (1, 1, 1, 1)}, """
While building Conv2d(3, 8, 3):
  padding=(1, 1, 1, 1) has 4 entries; this window has 2 spatial axes.
  Known so far: stride=1, padding=(1, 1, 1, 1), dilation=1, groups=1, padding_mode='zeros'."""),
    ("ConvTranspose2d", (3, 8, 3), {"output_padding": 1}, """
While building ConvTranspose2d(3, 8, 3):
  output_padding must be at least 0 and less than the larger of stride and dilation (1), got output_padding=1.
  Known so far: stride=1, padding=0, output_padding=1, dilation=1, groups=1, padding_mode='zeros'."""),
    ("ConvTranspose1d", (4, 6, 3), {"groups": 4}, """
While building ConvTranspose1d(4, 6, 3):
  groups=4 does not divide the 6 output channels; both channel counts must be multiples of the groups.
  Known so far: stride=1, padding=0, output_padding=0, dilation=1, groups=4, padding_mode='zeros'."""),
    ("ConvLocal1d", (3, 8, 3, 2), {}, """
While building ConvLocal1d(3, 8, 3):
  On spatial axis 0: the window spans 3 inputs (kernel=3, dilation=1), but input and padding have 2 + 0 + 0 = 2; \
give a larger input, more padding or a smaller kernel.
  Known so far: input_size=2, stride=1, padding=0, dilation=1, groups=1, padding_mode='zeros'."""),
    ("ConvLocal2d", (3, 8, 3, (5, 5, 5)), {}, """
While building ConvLocal2d(3, 8, 3):
  input_size=(5, 5, 5) has 3 entries; this window has 2 spatial axes.
  Known so far: input_size=(5, 5, 5), stride=1, padding=0, dilation=1, groups=1, padding_mode='zeros'."""),
    ("ConvTiled2d", (3, 8, 3, 0), {}, """
While building ConvTiled2d(3, 8, 3):
  period must be at least 1, got period=0.
  Known so far: period=0, stride=1, padding=0, dilation=1, groups=1, padding_mode='zeros'."""),
    ("LazyConv2d", (8, 0), {}, """
While building LazyConv2d(8, 0):
  kernel must be at least 1, got kernel=0.
  Known so far: stride=1, padding=0, dilation=1, groups=1, padding_mode='zeros'."""),
    ("LazyConv2d", (8, 3), {"groups": 3}, """
While building LazyConv2d(8, 3):
  groups=3 does not divide the 8 output channels; both channel counts must be multiples of the groups.
  Known so far: stride=1, padding=0, dilation=1, groups=3, padding_mode='zeros'."""),
    ("AdaptiveAvgPool2d", (0,), {}, """
While building AdaptiveAvgPool2d(0):
  an output size must be a whole number of at least 1, got 0."""),
    ("AdaptiveMaxPool2d", ((1, 2, 3),), {}, """
While building AdaptiveMaxPool2d((1, 2, 3)):
  output_size=(1, 2, 3) has 3 entries; this window has 2 spatial axes."""),
    ("MaxPool2d", (0,), {}, """
While building MaxPool2d(0):
  kernel must be at least 1, got kernel=0.
  Known so far: stride=None, padding=0."""),
    ("MaxPool1d", (2,), {"stride": 0}, """
While building MaxPool1d(2):
  stride must be at least 1, got stride=0.
  Known so far: stride=0, padding=0."""),
    ("AvgPool3d", ((2, 2),), {"stride": 1}, """
While building AvgPool3d((2, 2)):
  kernel=(2, 2) has 2 entries; this window has 3 spatial axes.
  Known so far: stride=1, padding=0."""),
    ("AvgPool1d", (2,), {"dilation": 0}, """
While building AvgPool1d(2):
  dilation must be at least 1, got dilation=0.
  Known so far: stride=None, padding=0."""),
    ("MaxPool1d", (2,), {"padding": ((1, 2, 3),)}, """
While building MaxPool1d(2):
  padding=(1, 2, 3) is neither a number nor a (before, after) pair of numbers; \
the words are 'valid', 'same', 'same_lower', 'full', 'causal'.
  Known so far: stride=None, padding=((1, 2, 3),)."""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "options", "message"), REFUSED)
def test_a_layer_that_cannot_be_is_refused_when_built(
    name: str, arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(GeometryError) as caught:
        getattr(striate.nn, name)(*arguments, **options)
    assert str(caught.value) == message.removeprefix("\n")


PADDING_WORDS = "Known: causal, full, same, same_lower, valid."
PADDING_MODES = "Known: circular, reflect, replicate, zeros."
UNKNOWN: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    (
        "Conv2d",
        (3, 8, 3),
        {"padding": "smae"},
        f"No padding is called 'smae'. Did you mean 'same'? {PADDING_WORDS}",
    ),
    ("ConvTranspose1d", (3, 8, 3), {"padding": "none"}, f"No padding is called 'none'. {PADDING_WORDS}"),
    ("MaxPool3d", (2,), {"padding": "ful"}, f"No padding is called 'ful'. Did you mean 'full'? {PADDING_WORDS}"),
    ("AvgPool2d", (2,), {"padding": "SAME"}, f"No padding is called 'SAME'. {PADDING_WORDS}"),
    ("Conv2d", (3, 8, 3), {"padding_mode": "wrap"}, f"No padding mode is called 'wrap'. {PADDING_MODES}"),
    (
        "ConvTranspose2d",
        (3, 8, 3),
        {"padding_mode": "reflekt"},
        f"No padding mode is called 'reflekt'. Did you mean 'reflect'? {PADDING_MODES}",
    ),
]


@pytest.mark.parametrize(("name", "arguments", "options", "message"), UNKNOWN)
def test_unknown_words_are_refused_when_built(
    name: str, arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        getattr(striate.nn, name)(*arguments, **options)
    assert str(caught.value) == message


CALLS: list[tuple[torch.nn.Module, tuple[int, ...], str]] = [
    (
        striate.nn.Conv2d(3, 8, 3),
        (2, 9, 9, 3),
        "conv of x (2, 9, 9, 3) with weight (8, 3, 3, 3): x has 9 channels, but the weight with groups=1 takes 3. \
x looks channels-last: give x.movedim(-1, 1).",
    ),
    (
        striate.nn.Conv2d(3, 8, 3),
        (2, 9),
        "conv: weight (8, 3, 3, 3) has 2 spatial axes, so x needs 4 dimensions, (N, C, *spatial), \
or 3 without a batch; got shape (2, 9).",
    ),
    (
        striate.nn.MaxPool2d(2),
        (3, 4),
        "MaxPool2d needs 4 dimensions, (N, C, *spatial), or 3 without a batch; got shape (3, 4).",
    ),
    (
        striate.nn.AvgPool1d(2),
        (2, 3, 4, 4),
        "AvgPool1d needs 3 dimensions, (N, C, *spatial), or 2 without a batch; got shape (2, 3, 4, 4).",
    ),
    (
        striate.nn.ConvLocal2d(3, 8, 3, 5),
        (2, 3, 5, 6),
        ("ConvLocal2d has weights for inputs of size (5, 5), got x of shape (2, 3, 5, 6); "
        "resize x, or build the layer with input_size=(5, 6)."),
    ),
    (
        striate.nn.ConvTiled1d(3, 8, 3, 2),
        (3,),
        "ConvTiled1d needs 3 dimensions, (N, C, *spatial), or 2 without a batch; got shape (3,).",
    ),
    (
        striate.nn.LazyConv2d(8, 3),
        (3, 4),
        "LazyConv2d needs 4 dimensions, (N, C, *spatial), or 3 without a batch; got shape (3, 4).",
    ),
    (
        striate.nn.LazyConv1d(8, 3, groups=2),
        (1, 3, 9),
        ("While sizing LazyConv1d for x of shape (1, 3, 9):\n"
        "  groups=2 does not divide the 3 input channels; both channel counts must be multiples of the groups."),
    ),
    (
        striate.nn.LazyConvLocal1d(8, 5),
        (1, 3, 4),
        ("While sizing LazyConvLocal1d for x of shape (1, 3, 4):\n"
        "  On spatial axis 0: the window spans 5 inputs (kernel=5, dilation=1), but input and padding have "
        "4 + 0 + 0 = 4; give a larger input, more padding or a smaller kernel."),
    ),
    (
        striate.nn.Fold(4, 3),
        (1, 2, 2, 3),
        "Fold: columns of shape (1, 2, 2, 3) hold the taps of kernel (2,), not of kernel_size=3.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "shape", "message"), CALLS)
def test_inputs_that_do_not_fit_are_refused_when_called(
    layer: torch.nn.Module, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(GeometryError) as caught:
        layer(torch.zeros(shape))
    assert str(caught.value) == message


def test_no_channels_are_as_in_torch() -> None:
    """A layer without weights is allowed, as in torch and with its warning."""
    for channels in ((0, 3), (3, 0)):
        for layers in (striate.nn, torch.nn):
            with pytest.warns(UserWarning, match="Initializing zero-element tensors is a no-op"):
                layer = layers.Conv2d(*channels, 3)
            assert layer.weight.shape == (*reversed(channels), 3, 3)


BUILT_WRONG = [
    (
        lambda: striate.nn.AvgPool2d(2, divisor_override=0),
        "AvgPool2d: divisor_override must be a whole number other than 0, got divisor_override=0.",
    ),
    (
        lambda: striate.nn.LPPool1d(0.5, 2),
        "LPPool1d: norm_type must be a number of at least 1, or math.inf, got norm_type=0.5.",
    ),
    (
        lambda: striate.nn.GaussianPool2d(3, sigma=-1),
        "GaussianPool2d: sigma must be a positive, finite number, got sigma=-1.",
    ),
    (
        lambda: striate.nn.Maxout(0),
        "Maxout: pieces must be a whole number of at least 1, got pieces=0.",
    ),
    (
        lambda: striate.nn.LocalResponseNorm(0),
        "LocalResponseNorm: size must be a whole number of at least 1, got size=0.",
    ),
    (
        lambda: striate.blocks.ChannelShuffle(0),
        "ChannelShuffle: groups must be a whole number of at least 1, got groups=0.",
    ),
]


@pytest.mark.parametrize(("build", "message"), BUILT_WRONG)
def test_a_layer_is_checked_when_it_is_built(build: Any, message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        build()
    assert str(caught.value) == message


def _same(layer: torch.nn.Module, x: Tensor, **options: Any) -> None:
    expected = F.conv2d(x, layer.weight, layer.bias, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_a_layer_that_keeps_its_last_call_sees_every_change() -> None:
    layer = striate.nn.Conv2d(4, 4, 3, dtype=torch.float64)
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    for _ in range(2):
        _same(layer, x)
        _same(layer, x[:1])
        _same(layer, x.contiguous(memory_format=torch.channels_last))
    layer.stride = (2, 2)
    _same(layer, x, stride=2)
    layer.padding = (1, 1)
    _same(layer, x, stride=2, padding=1)
    layer.dilation = (2, 2)
    _same(layer, x, stride=2, padding=1, dilation=2)
    layer.padding, layer.dilation = (0, 0), (1, 1)
    layer.bias = None
    _same(layer, x, stride=2)
    layer.weight = torch.nn.Parameter(torch.randn(6, 4, 2, 2, dtype=torch.float64))
    _same(layer, x, stride=2)
    layer.float()
    with pytest.raises(GeometryError, match="float64"):
        layer(x)
    layer.double()
    torch.nn.utils.parametrizations.weight_norm(layer)
    _same(layer, x, stride=2)
    biased = striate.nn.Conv2d(4, 4, 3, dtype=torch.float64)
    _same(biased, x)
    torch.nn.utils.parametrize.register_parametrization(biased, "bias", torch.nn.Tanh(), unsafe=True)
    _same(biased, x)


def test_what_stands_in_place_of_a_parameter_is_what_computes() -> None:
    class Masked(striate.nn.Conv2d):
        weight: Any = property(lambda self: 2 * self._parameters["weight"])

    layer = striate.nn.Conv2d(4, 4, 3, dtype=torch.float64)
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    plain = layer(x)
    layer.__class__ = Masked
    _same(layer, x)
    assert not torch.equal(layer(x), plain)
    layer.__class__ = striate.nn.Conv2d
    object.__setattr__(layer, "weight", torch.ones(4, 4, 3, 3, dtype=torch.float64))
    _same(layer, x)


def test_a_call_under_a_transform_leaves_later_ones_as_they_are() -> None:
    weight = torch.randn(4, 8, 3, 3)
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    mapped = torch.func.vmap(lambda one: striate.conv(one, weight, algorithm="im2col"))(torch.stack([x, x]))
    found = striate.conv(x, weight, algorithm="im2col")
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(mapped[0], found)


def test_a_layer_that_keeps_its_last_call_sees_another_policy() -> None:
    layer = striate.nn.Conv2d(4, 4, 3)
    x = torch.randn(1, 4, 9, 9)
    calls = []
    for tolerance in (1e-3, 1e-7):
        with striate.tuning("frozen", tolerance=tolerance) as policy:
            layer(x), layer(x)
            calls.append(layer._recent.call)
            assert policy in calls[-1][0][6][0]
    assert calls[0][0] != calls[1][0]


def test_copies_of_a_layer_keep_no_calls() -> None:
    layer = striate.nn.Conv2d(4, 4, 3)
    x = torch.randn(1, 4, 9, 9)
    expected = layer(x)
    assert "_recent" not in layer.__getstate__()
    for twin in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin._recent.call == ((), None)
        assert torch.equal(twin(x), expected)
        assert twin._recent is not layer._recent
