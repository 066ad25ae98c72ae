"""Layers against torch.nn's: signatures, first values, state dicts both ways, and every bit of the outputs."""

from __future__ import annotations

import copy
import inspect
import io
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


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *POOLINGS])
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
        "ConvTranspose3d(2, 4, kernel_size=(2, 2, 2), stride=2, padding=0, output_padding=1, dilation=1, groups=1)",
    ),
    (
        striate.nn.MaxPool2d(3, 2, "same", ceil_mode=True),
        "MaxPool2d(kernel_size=(3, 3), stride=2, padding='same', dilation=1, ceil=True, return_switches=False)",
    ),
    (
        striate.nn.AvgPool1d(2, divisor_override=3),
        "AvgPool1d(kernel_size=(2,), stride=None, padding=0, dilation=1, ceil=False, count_padding=True, divisor=3)",
    ),
    (striate.nn.FullyConnected(3, 4, bias=False), "FullyConnected(in_features=3, out_features=4, bias=False)"),
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
  Known so far: stride=1, padding=0, output_padding=1, dilation=1, groups=1."""),
    ("ConvTranspose1d", (4, 6, 3), {"groups": 4}, """
While building ConvTranspose1d(4, 6, 3):
  groups=4 does not divide the 6 output channels; both channel counts must be multiples of the groups.
  Known so far: stride=1, padding=0, output_padding=0, dilation=1, groups=4."""),
    ("ConvTranspose2d", (3, 8, 3), {"padding_mode": "circular"}, """
ConvTranspose2d: padding_mode='circular' has no transpose here; its padding crops the output, so leave it at "zeros".\
"""),
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
        striate.nn.AvgPool2d(2, divisor_override=0),
        (2, 3, 4, 4),
        "avg_pool: divisor must be a whole number other than 0, got divisor=0.",
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
