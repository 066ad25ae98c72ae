"""Networks with weights: the table's own layers, torch's own numbers, and a caller's input that stays as it was."""

from __future__ import annotations

import copy
import pickle
import warnings
import weakref
from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import striate
from striate import describe, network, spelling
from striate import operations as paper
from striate.architecture import Architecture, Node
from striate.errors import GeometryError, NotationError, OptionError, UnknownNameError
from striate.layers import FullyConnected
from striate.networks import MODULES, Network
from striate.notation import parse
from striate.operations import KINDS as OPERATIONS

TEXTS = [
    "INPUT 1x6x6 -> FC 3",
    "INPUT 2x9x8 -> [CONV3-4 -> BN -> RELU -> POOL]*2 -> FC 5 -> BN -> TANH -> DROPOUT 0.1 -> FC 3",
    "INPUT 2x9x8 -> CONV 3x2x6 stride=2x1 padding=1:0x0:2 dilation=1x2 groups=2 bias=no -> SIGMOID -> AVGPOOL 3",
    "INPUT 2x20 -> CONV3-4 padding=causal -> BN -> RELU -> POOL 3 stride=2 -> AVGPOOL -> FC 3",
    "INPUT 1x5x6x7 -> CONV3-2 padding=valid -> BN -> RELU -> POOL 3x2x1 -> AVGPOOL 1x1x2 -> FC 3",
    "INPUT 1x6x6 -> POOL 3 stride=1 padding=same_lower -> CONV2-3 padding=full -> CONV kernel=3",
]  # fmt: skip


def outputs_of(net: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of every layer's output, under the layer's name."""
    found = {}
    for name, layer in net.named_children():
        layer.register_forward_hook(lambda _, __, output, name=name: found.update({name: tuple(output.shape)}))
    net(x)
    return found


@pytest.mark.parametrize("source", [*TEXTS, "lenet5"])
def test_the_table_describes_the_layers_that_are_built(source: str) -> None:
    net = network(source)
    rows = describe(net).rows
    assert outputs_of(net, torch.randn(2, *net.input_shape)) == {r.name: (2, *r.output_shape) for r in rows[1:]}
    learned = {name: sum(p.numel() for p in layer.parameters()) for name, layer in net.named_children()}
    assert learned == {row.name: row.parameters for row in rows[1:]}


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_the_table_describes_the_vgg_networks(name: str) -> None:
    with torch.device("meta"):
        net = network(name)
        shapes = outputs_of(net, torch.empty(1, 3, 224, 224))
    rows = describe(name).rows
    assert shapes == {row.name: (1, *row.output_shape) for row in rows[1:]}
    assert sum(p.numel() for p in net.parameters()) == describe(name).totals.parameters


KINDS = [
    ("1x8", [nn.Conv1d, nn.BatchNorm1d, nn.AvgPool1d, nn.MaxPool1d]),
    ("1x8x8", [nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d, nn.MaxPool2d]),
    ("1x8x8x8", [nn.Conv3d, nn.BatchNorm3d, nn.AvgPool3d, nn.MaxPool3d]),
]


@pytest.mark.parametrize(("size", "kinds"), KINDS)
def test_layers_are_of_the_kind_and_number_of_axes(size: str, kinds: list[type[nn.Module]]) -> None:
    net = network(f"INPUT {size} -> CONV3-2 -> BN -> AVGPOOL -> POOL -> DROPOUT 0.2 -> TANH -> SIGMOID -> FC 4 -> RELU")
    built = [type(layer).__name__ for layer in net.children()]
    assert built == [*(kind.__name__ for kind in kinds), "Dropout", "Tanh", "Sigmoid", "FullyConnected", "ReLU"]
    assert [layer.p for layer in net.children() if isinstance(layer, nn.Dropout)] == [0.2]


def test_the_keys_of_the_state_dict_are_the_nodes_names() -> None:
    net = network("INPUT 1x8x8 -> CONV3-2 -> BN -> RELU -> POOL -> CONV3-2 bias=no -> FC 4 bias=no -> FC 3")
    keys = ["conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"]
    keys += ["bn1.num_batches_tracked", "conv2.weight", "fc1.weight", "fc2.weight", "fc2.bias"]
    assert list(net.state_dict()) == keys
    other = network("INPUT 1x8x8 -> CONV3-2 -> BN -> RELU -> POOL -> CONV3-2 bias=no -> FC 4 bias=no -> FC 3")
    other.load_state_dict(net.state_dict())
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(net.eval()(x), other.eval()(x))


def test_a_network_keeps_its_architecture() -> None:
    net = network("INPUT -> CONV -> FC", input=(1, 6, 6), filters=2, classes=3)
    assert isinstance(net, Network)
    assert net.architecture == parse("INPUT 1x6x6 -> CONV3-2 -> FC 3")
    assert net.input_shape == (1, 6, 6)


# ------------------------------------------------------------------------------------------------- torch's own numbers


def lenet5_in_torch() -> nn.Sequential:
    """LeNet-5 in the form trained today, with torch's own layers."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def test_lenet5_computes_what_torchs_layers_compute_bit_for_bit() -> None:
    theirs, ours = lenet5_in_torch(), network("lenet5")
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(5, 1, 28, 28)
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    result, expected = ours(mine), theirs(other)
    assert torch.equal(result, expected)
    weights = torch.randn(5, 10)
    (result * weights).sum().backward()
    (expected * weights).sum().backward()
    for our, their in zip([mine, *ours.parameters()], [other, *theirs.parameters()], strict=True):
        assert our.grad is not None
        assert their.grad is not None
        assert torch.equal(our.grad, their.grad)


def test_a_network_of_every_layer_computes_what_torchs_layers_compute() -> None:
    text = "INPUT 2x9x9 -> CONV3-4 stride=2 padding=1 groups=2 -> BN -> TANH -> AVGPOOL 3 stride=1 padding=1 -> SIGMOID"
    ours = network(f"{text} -> DROPOUT 0.5 -> FC 6 bias=no -> RELU -> FC 3")
    theirs = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(4), nn.Tanh()),
        *(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), nn.Sigmoid(), nn.Dropout(0.5)),
        *(nn.Flatten(), nn.Linear(100, 6, bias=False), nn.ReLU(), nn.Linear(6, 3)),
    )
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(4, 2, 9, 9)
    for training in (True, False):
        results = []
        for net in (ours, theirs):
            torch.manual_seed(0)
            results.append(net.train(training)(x))
        torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


def test_examples_do_not_mix() -> None:
    net = network("INPUT 1x6x6 -> CONV3-4 -> RELU -> POOL -> FC 3")
    x = torch.randn(4, 1, 6, 6)
    torch.testing.assert_close(net(x), torch.cat([net(x[i : i + 1]) for i in range(4)]))


# ----------------------------------------------------------------------------- in place, yet nobody's memory is spoilt

ELEMENTWISE = ["RELU", "TANH", "SIGMOID", "BN", "DROPOUT", "DROPOUT 0"]
WINDOWS = [
    "CONV3-2",
    "CONV1-2",
    "POOL 3 stride=1 padding=1",
    "POOL 1",
    "AVGPOOL 3 stride=1 padding=1",
    "AVGPOOL 1",
]
PAIRS = [[first, "RELU"] for first in [*ELEMENTWISE, *WINDOWS, "FC 4"]]
TRIPLES = [[kept, passing, "RELU"] for kept in ELEMENTWISE[:3] for passing in ("DROPOUT", "DROPOUT 0", "POOL 1")]


def apart(text: str) -> Network:
    """The network with every ReLU out of place: what the numbers must be."""
    net = network(text)
    for layer in net.children():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return net


def numbers_of(net: Network, x: Tensor) -> list[Tensor]:
    """Output and all gradients, after a check that the input is what it was."""
    torch.manual_seed(0)
    inner = x.clone().requires_grad_()
    handed_in = inner * 1.0  # not a leaf, so that torch itself would allow to overwrite it
    output = net(handed_in)
    assert torch.equal(handed_in, x)
    output.square().sum().backward()
    assert inner.grad is not None
    return [output.detach(), inner.grad, *(p.grad for p in net.parameters() if p.grad is not None)]


def check_in_place(layers: Sequence[str], training: bool) -> None:
    text = " -> ".join(["INPUT 2x4x4", *layers, "FC 3"])
    ours, plain = network(text).train(training), apart(text).train(training)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(3, 2, 4, 4)
    for result, expected in zip(numbers_of(ours, x), numbers_of(plain, x), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
@pytest.mark.parametrize("layers", [["RELU"], *PAIRS, *TRIPLES], ids=" ".join)
def test_gradients_flow_and_nothing_is_overwritten_that_is_needed(layers: list[str], training: bool) -> None:
    check_in_place(layers, training)


def chains_of(*layers: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from([*layers, "RELU", "RELU"]), max_size=4)


@settings(deadline=None, max_examples=80)
@given(maps=chains_of(*WINDOWS, *ELEMENTWISE), vectors=chains_of("FC 4", *ELEMENTWISE), training=st.booleans())
@example(maps=["DROPOUT", "DROPOUT", "RELU"], vectors=[], training=False)
@example(maps=["TANH", "DROPOUT", "DROPOUT 0", "RELU", "RELU"], vectors=[], training=False)
def test_in_place_changes_no_number(maps: list[str], vectors: list[str], training: bool) -> None:
    check_in_place([*maps, *vectors], training)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
@pytest.mark.parametrize("text", ["INPUT 1x4x4 -> RELU -> FC 2", "INPUT 1x4x4 -> DROPOUT -> RELU -> FC 2"])
def test_the_callers_input_is_never_overwritten(text: str, training: bool) -> None:
    x = torch.full((2, 1, 4, 4), -1.0)
    with torch.no_grad():
        network(text).train(training)(x)
    assert torch.equal(x, torch.full((2, 1, 4, 4), -1.0))


def test_relu_works_in_place_after_a_convolution() -> None:
    net = network("INPUT 1x4x4 -> CONV3-2 -> RELU -> RELU -> FC 2")
    assert [layer.inplace for layer in net.children() if isinstance(layer, nn.ReLU)] == [True, False]


# --------------------------------------------------------------------------------------------------- variables, zoo


def test_what_a_text_leaves_open_takes_the_defaults() -> None:
    net = network("INPUT -> CONV -> FC -> FC")
    assert net.architecture == parse("INPUT 3x32x32 -> CONV3-32 -> FC 128 -> FC 10")


def test_variables_fill_what_a_text_leaves_open() -> None:
    net = network("INPUT -> CONV -> FC -> FC", input=[1, 5, 6], filters=2, hidden=None, classes=3)
    assert net.architecture == parse("INPUT 1x5x6 -> CONV3-2 -> FC 128 -> FC 3")


def test_a_zoo_network_adapts_to_other_pictures_and_classes() -> None:
    text = striate.zoo.text("lenet5")
    assert network("lenet5").architecture == parse(text)
    assert network("lenet5", classes=3).architecture == parse(text.replace("FC 10", "FC 3"))
    both = network("lenet5", input=(3, 40, 36), classes=7)
    assert both.architecture == parse(text.replace("1x28x28", "3x40x36").replace("FC 10", "FC 7"))
    assert both(torch.zeros(2, 3, 40, 36)).shape == (2, 7)
    assert sum(p.numel() for p in both.parameters()) == 456 + 2416 + 120 * (16 * 8 * 7 + 1) + 84 * 121 + 7 * 85


def test_sources_are_text_name_file_and_architecture(tmp_path: Path) -> None:
    text = "INPUT 1x4x4 -> FC 3"
    (path := tmp_path / "small.txt").write_text(text, encoding="utf-8")
    for source in (text, path, str(path), parse(text)):
        assert network(source).architecture == parse(text)
    assert network(parse("INPUT -> FC"), input=(1, 4, 4), classes=3).architecture == parse(text)


NAMED = "a layer cannot be called '{}': {} there; write another name behind as."
REFUSED: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (
        "INPUT -> FC",
        {"width": 3},
        OptionError,
        "the network has no variable 'width'; it uses no names and leaves input, classes open.",
    ),
    (
        "INPUT -> FC",
        {"b": 3, "a": 2},
        OptionError,
        "the network has no variable 'a'; it uses no names and leaves input, classes open.",
    ),
    (
        "INPUT 1x9x9 -> [CONV3-W -> POOL?]*N -> FC 3",
        {"N": 1, "W": 2, "POOL": True, "M": 3},
        OptionError,
        "the network has no variable 'M'; it uses N, POOL, W and leaves nothing open.",
    ),
    ("INPUT 1x4x4 -> RELU as train -> FC 3", {}, OptionError, NAMED.format("train", "'train' means something else")),
    (
        "INPUT 1x4x4 -> RELU as input_shape",
        {},
        OptionError,
        NAMED.format("input_shape", "'input_shape' means something else"),
    ),
    ("INPUT 1x4x4 -> RELU as a.half", {}, OptionError, NAMED.format("a.half", "'half' means something else")),
    ("INPUT 1x4x4 -> RELU as a -> FC 2 as a.b", {}, OptionError, NAMED.format("a.b", "'a' means something else")),
    ("INPUT 1x4x4 -> RELU as a.b -> FC 2 as a", {}, OptionError, NAMED.format("a", "'a' means something else")),
    (
        "INPUT 1x4x4 -> RELU as a..b",
        {},
        OptionError,
        "a layer cannot be called 'a..b': a dot stands between two names; write another name behind as.",
    ),
    (
        "INPUT 4x4 -> FLATTEN -> IN",
        {},
        GeometryError,
        "in1: IN normalises over positions, but its input (16,) has none.",
    ),
    (
        "INPUT 1x2x2x2x2 -> GLOBALAVGPOOL",
        {},
        GeometryError,
        "globalavgpool1: layers have 1 to 3 spatial axes, this one 4; use striate.conv directly.",
    ),
    (
        "INPUT 1x2x2x2x2 -> UPSAMPLE",
        {},
        GeometryError,
        "upsample1: layers have 1 to 3 spatial axes, this one 4; use striate.conv directly.",
    ),
    (
        "INPUT 1x4x4 -> SUM[CONV3-2 | CROP 1]",
        {},
        GeometryError,
        (
            "In sum1 (line 1, column 16: SUM) with input 2x4x4 and 1x2x2: SUM needs branches of one size; they give "
            "2x4x4 and 1x2x2. CROP, PAD, UPSAMPLE or another padding or stride brings sizes together."
        ),
    ),
    (
        "INPUT 1x4 -> FC 3",
        {"classes": 4},
        OptionError,
        "classes=4 was given, but this network leaves no classes open: it says 3.",
    ),
    ("lenet5", {"hidden": 4}, OptionError, "hidden=4 was given, but this network leaves no hidden open."),
    ("lenet5", {"classes": 0}, OptionError, "classes=0: every number must be a whole number of at least 1."),
    ("lenet5", {"classes": -2}, OptionError, "classes=-2: every number must be a whole number of at least 1."),
    ("lenet5", {"classes": "a"}, OptionError, "classes='a': every number must be a whole number of at least 1."),
    ("lenet5", {"input": 28}, OptionError, "input=28 must be (channels, *spatial), as in (3, 32, 32)."),
    ("lenet5", {"input": (28,)}, OptionError, "input=(28,) must be (channels, *spatial), as in (3, 32, 32)."),
    (
        "lenet5",
        {"input": (1, 0, 8)},
        OptionError,
        "input=(1, 0, 8): every number must be a whole number of at least 1.",
    ),
    (
        "lenet5",
        {"input": (1, 8, 8)},
        GeometryError,
        (
            "In conv2 (line 5, column 4: CONV 5x5x16 padding=valid) with input 6x4x4: On spatial axis 0: the window "
            "spans 5 inputs (kernel=5, dilation=1), but input and padding have 4 + 0 + 0 = 4; "
            "give a larger input, more padding or a smaller kernel."
        ),
    ),
    (
        "lenet-5",
        {},
        UnknownNameError,
        (
            "No network (nor a file) is called 'lenet-5'. Did you mean 'lenet5'? "
            f"Known: {', '.join(striate.zoo.names())}."
        ),
    ),
    (
        "INPUT 1x2x2x2x2 -> CONV3-2",
        {},
        GeometryError,
        "conv1: layers have 1 to 3 spatial axes, this one 4; use striate.conv directly.",
    ),
    (
        "INPUT 1x2x2x2x2 -> POOL",
        {},
        GeometryError,
        "pool1: layers have 1 to 3 spatial axes, this one 4; use striate.conv directly.",
    ),
    (
        "INPUT 1x2x2x2x2 -> BN",
        {},
        GeometryError,
        "bn1: layers have 1 to 3 spatial axes, this one 4; use striate.conv directly.",
    ),
]


@pytest.mark.parametrize(("source", "variables", "kind", "message"), REFUSED)
def test_what_network_refuses(source: Any, variables: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        network(source, **variables)
    assert str(caught.value) == message


def test_an_unreadable_text_is_a_notation_error() -> None:
    with pytest.raises(NotationError):
        network("INPUT -> FC ->")


def test_elementwise_layers_and_fully_connected_ones_take_any_number_of_axes() -> None:
    net = network("INPUT 1x2x2x2x2 -> RELU -> TANH -> DROPOUT -> FC 3")
    assert net(torch.zeros(2, 1, 2, 2, 2, 2)).shape == (2, 3)


# ------------------------------------------------------------------------------------------------------- wrong shapes

WRONG = "the network takes examples of shape (N, 3, 8, 6), got "
SHAPES = [
    ((3, 8, 6), "(3, 8, 6). It looks like one example without a batch: give x.unsqueeze(0)."),
    ((2, 8, 6, 3), "(2, 8, 6, 3). It looks channels-last: give x.movedim(-1, 1)."),
    ((2, 1, 8, 6), "(2, 1, 8, 6)."),
    ((2, 3, 6, 8), "(2, 3, 6, 8)."),
    ((2, 3, 8, 6, 1), "(2, 3, 8, 6, 1)."),
    ((2, 3, 8), "(2, 3, 8)."),
    ((2, 3), "(2, 3)."),
    ((2,), "(2,)."),
    ((), "()."),
]


@pytest.mark.parametrize(("shape", "rest"), SHAPES)
def test_examples_of_another_shape_are_refused(shape: tuple[int, ...], rest: str) -> None:
    with pytest.raises(GeometryError) as caught:
        network("INPUT 3x8x6 -> CONV3-2 -> FC 2")(torch.zeros(shape))
    assert str(caught.value) == WRONG + rest


def test_a_network_without_fully_connected_layers_takes_pictures_of_any_size() -> None:
    net = network("INPUT 3x8x6 -> CONV3-2 -> RELU -> POOL")
    assert net(torch.zeros(2, 3, 20, 30)).shape == (2, 2, 10, 15)
    for shape in ((2, 4, 8, 6), (3, 8, 6), (2, 3, 8), (2, 8, 6, 3)):
        with pytest.raises(GeometryError) as caught:
            net(torch.zeros(shape))
        assert str(caught.value).startswith(WRONG + str(shape))


def test_an_input_of_the_right_shape_may_have_any_batch() -> None:
    net = network("INPUT 3x8x6 -> CONV3-2 -> RELU -> POOL -> FC 2")
    assert [net(torch.zeros(n, 3, 8, 6)).shape for n in (1, 5)] == [(1, 2), (5, 2)]


def test_full_layer_is_torchs_linear_layer_over_the_flattened_map() -> None:
    layer = FullyConnected(12, 5)
    x = torch.randn(2, 3, 2, 2)
    assert torch.equal(layer(x), nn.functional.linear(x.reshape(2, 12), layer.weight, layer.bias))


# ------------------------------------------------------------------------------- every operation, beside torch's own

SIZES: dict[int, tuple[int, ...]] = {0: (), 1: (9,), 2: (9, 8), 3: (5, 6, 4)}
Weights = dict[str, Tensor]
Numbers = Callable[[Tensor, Weights], Tensor]


def by_axes(name: str, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """torch's function for as many axes as x has."""
    result: Tensor = getattr(F, f"{name}{x.dim() - 2}d")(x, *arguments, **options)
    return result


def rows(x: Tensor, before: int, after: int, mode: str = "constant") -> Tensor:
    return F.pad(x, [before, after] * (x.dim() - 2), mode=mode)


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Padded as TensorFlow does."""
    totals = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:]]
    return F.pad(x, [n for total in reversed(totals) for n in (total // 2, total - total // 2)])


def at(*slices: Any) -> Any:
    """The spatial axes so, whatever stands before them."""
    return (..., *slices)


def windows(x: Tensor, kernel: int, stride: int) -> Tensor:
    """``(N, C, *out, K)``: the values under each window."""
    axes = x.dim() - 2
    for axis in range(axes):
        x = x.unfold(2 + axis, kernel, stride)
    return x.flatten(-axes)


def local(x: Tensor, w: Weights, kernel: int, tile: int | None = None) -> Tensor:
    """A kernel for each position, or for each position of a tile."""
    patches = windows(x, kernel, 1)  # N, C, *out, K
    size = patches.shape[2:-1]
    weight, bias = w["weight"].flatten(-len(size)), w["bias"].movedim(0, -1)
    if tile is not None:
        index = [torch.arange(n) % tile for n in size]
        weight, bias = weight[torch.meshgrid(*index, indexing="ij")], bias[torch.meshgrid(*index, indexing="ij")]
    patches = patches.movedim(1, -2)  # N, *out, C, K
    return ((patches.unsqueeze(-3) * weight).sum((-1, -2)) + bias).movedim(-1, 1)


def bell(x: Tensor, kernel: int, stride: int) -> Tensor:
    """The mean under a Gaussian window of sigma kernel / 4."""
    places = torch.arange(kernel) - (kernel - 1) / 2
    line = torch.exp(-places.square() / (2 * (kernel / 4) ** 2))
    weights = torch.cartesian_prod(*[line] * (x.dim() - 2)).reshape(-1, x.dim() - 2).prod(1)
    return (windows(x, kernel, stride) * weights).sum(-1) / weights.sum()


def per_channel(w: Tensor, x: Tensor) -> Tensor:
    return w.view(-1, *[1] * (x.dim() - 2))


def over_channels(x: Tensor, w: Weights) -> Tensor:
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + 1e-6).sqrt() * per_channel(w["weight"], x) + per_channel(w["bias"], x)


def over_groups(x: Tensor, groups: int) -> Tensor:
    grouped = x.reshape(len(x), groups, -1)
    centred = grouped - grouped.mean(2, keepdim=True)
    return (centred / (grouped.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()).reshape(x.shape)


def neighbours(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    squares = [x[:, max(c - size // 2, 0) : c + (size - 1) // 2 + 1].square().sum(1) for c in range(x.shape[1])]
    return x / (k + alpha / size * torch.stack(squares, 1)) ** beta


def shuffled(x: Tensor, scale: int) -> Tensor:
    """Each output position by itself, in torch's order of channels."""
    size, axes = x.shape[2:], x.dim() - 2
    y = x.new_empty(len(x), x.shape[1] // scale**axes, *(n * scale for n in size))
    for place, shifts in enumerate(product(range(scale), repeat=axes)):
        y[at(*(slice(s, None, scale) for s in shifts))] = x[:, place :: scale**axes]
    return y


def unshuffled(x: Tensor, scale: int) -> Tensor:
    parts = [x[at(*(slice(s, None, scale) for s in shifts))] for shifts in product(range(scale), repeat=x.dim() - 2)]
    return torch.stack(parts, 2).flatten(1, 2)


def resized(x: Tensor, size: Sequence[int], mode: str = "nearest", align_corners: bool | None = None) -> Tensor:
    modes = {1: "linear", 2: "bilinear", 3: "trilinear"}
    return F.interpolate(x, size, mode=modes[x.dim() - 2] if mode == "linear" else mode, align_corners=align_corners)


def doubled(x: Tensor) -> list[int]:
    return [2 * n for n in x.shape[2:]]


def rbf(x: Tensor, w: Weights) -> Tensor:
    return -(x.flatten(1).unsqueeze(1) - w["codes"]).square().sum(2)


MAPS, ANY = (1, 2, 3), (0, 1, 2, 3)
EVERY: list[tuple[str, tuple[int, ...], Numbers]] = [
    ("CONV3-6", MAPS, lambda x, w: by_axes("conv", x, w["weight"], w["bias"], padding=1)),
    ("CONV3-6 stride=2", MAPS, lambda x, w: by_axes("conv", same(x, 3, 2), w["weight"], w["bias"], stride=2)),
    (
        "CONV3-6 stride=2 padding=2 dilation=2 groups=2 bias=no",
        MAPS,
        lambda x, w: by_axes("conv", x, w["weight"], None, stride=2, padding=2, dilation=2, groups=2),
    ),
    (
        "CONV3-6 border=reflect",
        MAPS,
        lambda x, w: by_axes("conv", rows(x, 1, 1, "reflect"), w["weight"], w["bias"]),
    ),
    ("DWCONV", MAPS, lambda x, w: by_axes("conv", x, w["weight"], w["bias"], padding=1, groups=4)),
    (
        "DWCONV 3 multiplier=2 padding=causal bias=no",
        MAPS,
        lambda x, w: by_axes("conv", rows(x, 2, 0), w["weight"], groups=4),
    ),
    ("DECONV2-6", MAPS, lambda x, w: by_axes("conv_transpose", x, w["weight"], w["bias"], stride=2)),
    (
        "DECONV3-6 stride=2 padding=1 output_padding=1 groups=2",
        MAPS,
        lambda x, w: by_axes(
            "conv_transpose", x, w["weight"], w["bias"], stride=2, padding=1, output_padding=1, groups=2
        ),
    ),
    ("LOCAL3-6 padding=valid", MAPS, lambda x, w: local(x, w, 3)),
    ("LOCAL3-6", MAPS, lambda x, w: local(rows(x, 1, 1), w, 3)),
    ("TILED3-6", MAPS, lambda x, w: local(rows(x, 1, 1), w, 3, tile=2)),
    ("POOL", MAPS, lambda x, w: by_axes("max_pool", x, 2)),
    ("POOL 3 stride=2 ceil=yes", MAPS, lambda x, w: by_axes("max_pool", x, 3, 2, ceil_mode=True)),
    ("POOL 2 dilation=2 stride=1", MAPS, lambda x, w: by_axes("max_pool", x, 2, 1, dilation=2)),
    ("AVGPOOL", MAPS, lambda x, w: by_axes("avg_pool", x, 2)),
    (
        "AVGPOOL 3 stride=2 padding=1 ceil=yes",
        MAPS,
        lambda x, w: by_axes("avg_pool", x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    ),
    ("AVGPOOL 3 padding=1 count_padding=yes", MAPS, lambda x, w: by_axes("avg_pool", x, 3, 3, 1)),
    ("LPPOOL 3 stride=1", MAPS, lambda x, w: windows(x, 3, 1).square().sum(-1).sqrt()),
    ("LPPOOL 2 p=3", MAPS, lambda x, w: windows(x, 2, 2).abs().pow(3).sum(-1).pow(1 / 3)),
    ("GAUSSPOOL 3 stride=1", MAPS, lambda x, w: bell(x, 3, 1)),
    ("GLOBALPOOL", MAPS, lambda x, w: x.amax(tuple(range(2, x.dim())), keepdim=True)),
    ("GLOBALAVGPOOL", MAPS, lambda x, w: x.mean(tuple(range(2, x.dim())), keepdim=True)),
    ("ADAPTIVEPOOL 3", MAPS, lambda x, w: by_axes("adaptive_max_pool", x, 3)),
    ("ADAPTIVEAVGPOOL 3", MAPS, lambda x, w: by_axes("adaptive_avg_pool", x, 3)),
    ("FC 5", ANY, lambda x, w: F.linear(x.flatten(1), w["weight"], w["bias"])),
    ("FC 5 bias=no", ANY, lambda x, w: F.linear(x.flatten(1), w["weight"])),
    ("RBF 5", ANY, rbf),
    ("FLATTEN", ANY, lambda x, w: x.reshape(len(x), -1)),
    ("SUM[IDENTITY | TANH | SIGMOID]", ANY, lambda x, w: x + x.tanh() + x.sigmoid()),
    ("SUM[IDENTITY | GLOBALAVGPOOL]", MAPS, lambda x, w: x + x.mean(tuple(range(2, x.dim())), keepdim=True)),
    ("SUM[IDENTITY]", ANY, lambda x, w: x),
    ("PRODUCT[IDENTITY | TANH | SIGMOID]", ANY, lambda x, w: x * x.tanh() * x.sigmoid()),
    (
        "PRODUCT[GLOBALPOOL -> FLATTEN | IDENTITY]",
        MAPS,
        lambda x, w: x * x.amax(tuple(range(2, x.dim())), keepdim=True),
    ),
    ("CONCAT[IDENTITY | TANH | CHANNELS 1/2]", ANY, lambda x, w: torch.cat([x, x.tanh(), x[:, :2]], 1)),
    ("RELU", ANY, lambda x, w: x.clamp(min=0)),
    ("RELU6", ANY, lambda x, w: x.clamp(0, 6)),
    ("LEAKYRELU 0.2", ANY, lambda x, w: torch.where(x > 0, x, 0.2 * x)),
    ("PRELU", ANY, lambda x, w: torch.where(x > 0, x, per_channel(w["weight"], x) * x)),
    ("ELU", ANY, lambda x, w: torch.where(x > 0, x, x.exp() - 1)),
    ("GELU", ANY, lambda x, w: x * (1 + torch.erf(x / 2**0.5)) / 2),
    ("SILU", ANY, lambda x, w: x * x.sigmoid()),
    ("HARDSWISH", ANY, lambda x, w: x * (x + 3).clamp(0, 6) / 6),
    ("HARDSIGMOID", ANY, lambda x, w: (x + 3).clamp(0, 6) / 6),
    ("TANH", ANY, lambda x, w: x.tanh()),
    ("SIGMOID", ANY, lambda x, w: 1 / (1 + (-x).exp())),
    ("SOFTMAX", ANY, lambda x, w: x.exp() / x.exp().sum(1, keepdim=True)),
    ("DROPOUT 0", ANY, lambda x, w: x),
    ("SCALE", ANY, lambda x, w: x * per_channel(w["weight"], x) + per_channel(w["bias"], x)),
    ("SCALE bias=no", ANY, lambda x, w: x * per_channel(w["weight"], x)),
    ("BN", ANY, lambda x, w: F.batch_norm(x, None, None, w["weight"], w["bias"], training=True)),
    ("BN eps=0.5", ANY, lambda x, w: F.batch_norm(x, None, None, w["weight"], w["bias"], training=True, eps=0.5)),
    ("LN", ANY, over_channels),
    ("GN 2", ANY, lambda x, w: over_groups(x, 2) * per_channel(w["weight"], x) + per_channel(w["bias"], x)),
    ("IN", MAPS, lambda x, w: over_groups(x, x.shape[1])),
    ("LRN 3", MAPS, lambda x, w: neighbours(x, 3, 1e-4, 0.75, 1)),
    ("LRN 2 alpha=0.5 beta=0.5 k=2", ANY, lambda x, w: neighbours(x, 2, 0.5, 0.5, 2)),
    ("MAXOUT", ANY, lambda x, w: torch.maximum(x[:, ::2], x[:, 1::2])),
    ("SHUFFLE", ANY, lambda x, w: x[:, [0, 2, 1, 3]]),
    ("CHANNELS 2/2", ANY, lambda x, w: x[:, 2:]),
    ("CHANNELS 3,0,1,1", ANY, lambda x, w: x[:, [3, 0, 1, 1]]),
    ("CONV1-8 -> PIXELSHUFFLE", MAPS, lambda x, w: shuffled(by_axes("conv", x, w["weight"], w["bias"]), 2)),
    ("UPSAMPLE -> PIXELUNSHUFFLE", MAPS, lambda x, w: unshuffled(resized(x, doubled(x)), 2)),
    ("UPSAMPLE", MAPS, lambda x, w: resized(x, doubled(x))),
    ("UPSAMPLE mode=linear", MAPS, lambda x, w: resized(x, doubled(x), "linear", False)),
    ("UPSAMPLE 2 mode=linear align_corners=yes", MAPS, lambda x, w: resized(x, doubled(x), "linear", True)),
    ("RESIZE 5", MAPS, lambda x, w: resized(x, [5] * (x.dim() - 2))),
    ("RESIZE 7 mode=linear", MAPS, lambda x, w: resized(x, [7] * (x.dim() - 2), "linear", False)),
    ("PAD 2", MAPS, lambda x, w: rows(x, 2, 2)),
    ("PAD", MAPS, lambda x, w: rows(x, 1, 1)),
    ("PAD 2 border=reflect", MAPS, lambda x, w: rows(x, 2, 2, "reflect")),
    ("PAD 2 border=replicate", MAPS, lambda x, w: rows(x, 2, 2, "replicate")),
    ("PAD 3 border=circular", MAPS, lambda x, w: rows(x, 3, 3, "circular")),
    ("CROP", MAPS, lambda x, w: x[at(*[slice(1, -1)] * (x.dim() - 2))]),
    ("POOL -> UNPOOL of=pool1", (1, 2, 3), lambda x, w: unpooled(x)),
]


def unpooled(x: Tensor) -> Tensor:
    """The largest of each block of two, where it was; the rest, and what is in no block, zero."""
    y = torch.zeros_like(x)
    for corner in product(*(range(0, n - 1, 2) for n in x.shape[2:])):
        here = at(*(slice(c, c + 2) for c in corner))
        block = x[here]
        y[here] = torch.where(block == block.amax(tuple(range(2, x.dim())), keepdim=True), block, 0)
    return y


def case(word: str, axes: int) -> Network:
    size = "x".join(map(str, SIZES[axes])) or "1"
    return network(f"INPUT 4x{size} -> {'FLATTEN -> ' if axes == 0 else ''}{word}").double()


def shaken(net: Network) -> Weights:
    """Numbers that no default hides; those of the one node with weights, by their names within it."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return {name.rpartition(".")[2]: tensor for name, tensor in net.state_dict().items()}


CASES = [pytest.param(word, n, numbers, id=f"{n}D {word}") for word, axes, numbers in EVERY for n in axes]


@pytest.mark.parametrize(("word", "axes", "numbers"), CASES)
def test_every_operation_computes_what_torchs_functions_compute(word: str, axes: int, numbers: Numbers) -> None:
    net = case(word, axes).train()
    weights, shapes = shaken(net), net.architecture.shapes()
    for node in net.architecture.nodes[1:]:
        learned = sum(p.numel() for p in net.get_submodule(node.name).parameters())
        assert learned == node.operation.parameters(*(shapes[name] for name in node.inputs))
    x = torch.randn(3, *net.input_shape, dtype=torch.float64, requires_grad=True)
    result, expected = net(x), numbers(x if axes else x.flatten(1), weights)
    assert result.shape == (3, *shapes[net.architecture.results[0]])
    torch.testing.assert_close(result, expected)
    slope = torch.randn_like(result)
    ours, theirs = (torch.autograd.grad((y * slope).sum(), x)[0] for y in (result, expected))
    torch.testing.assert_close(ours, theirs)
    result = net(x)
    result.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_every_kind_of_operation_is_built_and_tested() -> None:
    kinds = {type(node.operation) for word, axes, _ in EVERY for node in case(word, axes[-1]).architecture}
    assert kinds == set(OPERATIONS)
    assert set(MODULES) == kinds - {paper.Input}


def test_dropout_drops_only_in_training() -> None:
    net, x = network("INPUT 4x50x50 -> DROPOUT 0.3"), torch.ones(1, 4, 50, 50)
    assert torch.equal(net.eval()(x), x)
    y = net.train()(x)
    assert set(y.unique().tolist()) == {0.0, (x[0, 0, 0, 0] / 0.7).item()}
    assert abs((y == 0).float().mean().item() - 0.3) < 0.03


def test_batch_normalisation_uses_what_it_has_seen_when_evaluating() -> None:
    net = network("INPUT 4x8 -> BN")
    x = torch.randn(5, 4, 8) * 3 + 2
    net.train()(x)
    mean, variance = 0.1 * x.mean((0, 2)), 0.9 + 0.1 * x.var((0, 2))
    torch.testing.assert_close(net.eval()(x), (x - mean[:, None]) / (variance[:, None] + 1e-5).sqrt())


def test_first_values_are_sensible() -> None:
    net = network("INPUT 4x8x8 -> SCALE -> LN -> BN -> GN 2 -> PRELU -> FC 3")
    state = net.state_dict()
    for name in ("scale1", "ln1", "bn1", "gn1"):
        assert torch.equal(state[f"{name}.weight"], torch.ones(4))
        assert torch.equal(state[f"{name}.bias"], torch.zeros(4))
    assert torch.equal(state["prelu1.weight"], torch.full((4,), 0.25))


def test_the_codes_of_rbf_are_always_the_same() -> None:
    torch.manual_seed(1)
    first = network("INPUT 84x1 -> RBF 10").state_dict()["rbf1.codes"]
    torch.manual_seed(2)
    net = network("INPUT 84x1 -> RBF 10")
    assert torch.equal(net.state_dict()["rbf1.codes"], first)
    assert first.unique().tolist() == [-1, 1]
    assert len(first.unique(dim=0)) == 10
    scores = net(first.unsqueeze(2))
    assert torch.equal(scores.argmax(1), torch.arange(10))
    torch.testing.assert_close(scores.diagonal(), torch.zeros(10))
    with torch.device("meta"):
        assert network("INPUT 84x1 -> RBF 10").state_dict()["rbf1.codes"].is_meta


def test_windows_that_hang_over_pads_on_any_number_of_axes() -> None:
    net = network(
        "INPUT 1x2x3x2x2 -> PAD 1 border=reflect -> CROP 1 -> PIXELUNSHUFFLE 1 -> PIXELSHUFFLE 1 -> LN -> GN 1"
    )
    assert net(torch.randn(2, 1, 2, 3, 2, 2)).shape == (2, 1, 2, 3, 2, 2)
    wide = network("INPUT 1x2 -> PAD 0:5 border=circular")
    assert wide(torch.tensor([[[1.0, 2.0]]])).tolist() == [[[1, 2, 1, 2, 1, 2, 1]]]


# ------------------------------------------------------------------------------------------------------------- graphs


def weights_of(net: Network, name: str) -> tuple[Tensor, Tensor]:
    return net.get_submodule(name).get_parameter("weight"), net.get_submodule(name).get_parameter("bias")


def test_a_residual_block() -> None:
    net = network("INPUT 2x5x5 -> SUM[CONV3-2 -> RELU -> CONV3-2 | IDENTITY] -> RELU")
    x = torch.randn(3, 2, 5, 5)
    inner = F.conv2d(F.conv2d(x, *weights_of(net, "conv1"), padding=1).relu(), *weights_of(net, "conv2"), padding=1)
    torch.testing.assert_close(net(x), (inner + x).relu())


def test_an_inception_block_and_a_squeeze() -> None:
    gate = "PRODUCT[IDENTITY | GLOBALAVGPOOL -> FC 2 -> RELU -> FC 6 -> SIGMOID]"
    net = network(f"INPUT 2x5x5 -> CONCAT[CONV1-3 | CONV3-1 | POOL 3 stride=1 padding=1] -> {gate}")
    x = torch.randn(3, 2, 5, 5)
    branches = [F.conv2d(x, *weights_of(net, "conv1")), F.conv2d(x, *weights_of(net, "conv2"), padding=1)]
    maps = torch.cat([*branches, F.max_pool2d(x, 3, 1, 1)], 1)
    hidden = F.linear(maps.mean((2, 3)), *weights_of(net, "fc1")).relu()
    gates = F.linear(hidden, *weights_of(net, "fc2")).sigmoid()
    torch.testing.assert_close(net(x), maps * gates[:, :, None, None])


UNET = """
INPUT 1x20x20
-> CONV3-3 padding=valid -> RELU as fine          # 18
-> POOL
-> CONV3-4 padding=valid -> RELU as middle        # 7
-> POOL 3
-> CONV1-4 -> RELU
-> DECONV3-4 stride=2                             # 5
-> CONCAT[IDENTITY | from middle -> CROP 1]
-> DECONV2-3                                      # 10
-> CONCAT[from fine -> CROP 4 | IDENTITY]
-> CONV1-2 as scores
"""


def unet(net: Network, x: Tensor) -> Tensor:
    fine = F.conv2d(x, *weights_of(net, "conv1")).relu()
    middle = F.conv2d(F.max_pool2d(fine, 2), *weights_of(net, "conv2")).relu()
    deep = F.conv2d(F.max_pool2d(middle, 3), *weights_of(net, "conv3")).relu()
    up = torch.cat([F.conv_transpose2d(deep, *weights_of(net, "deconv1"), stride=2), middle[:, :, 1:-1, 1:-1]], 1)
    up = torch.cat([fine[:, :, 4:-4, 4:-4], F.conv_transpose2d(up, *weights_of(net, "deconv2"), stride=2)], 1)
    return F.conv2d(up, *weights_of(net, "scores"))


def test_connections_across_levels() -> None:
    net, x = network(UNET), torch.randn(2, 1, 20, 20)
    torch.testing.assert_close(net(x), unet(net, x))
    assert net.any_size
    with pytest.raises(RuntimeError):
        net(torch.randn(2, 1, 22, 22))


def test_a_place_may_be_read_many_times() -> None:
    net = network("INPUT 2x4 -> CONV1-2 as a -> TANH -> SUM[IDENTITY | from a | from a -> RELU | from input]")
    x = torch.randn(3, 2, 4)
    a = F.conv1d(x, *weights_of(net, "a"))
    torch.testing.assert_close(net(x), a.tanh() + a + a.relu() + x)


def test_a_block_repeated() -> None:
    text = "let block(width) = SUM[CONV3-{width} -> BN -> RELU | CONV1-{width}]\nINPUT 1x6x6 -> [block(W)]*N -> FC 2"
    net = network(text, N=3, W=4)
    assert [name for name, _ in net.named_children()].count("sum3") == 1
    y = x = torch.randn(2, 1, 6, 6)
    for i in range(3):
        branch = F.conv2d(y, *weights_of(net, f"conv{2 * i + 1}"), padding=1)
        branch = F.batch_norm(branch, None, None, *weights_of(net, f"bn{i + 1}"), training=True).relu()
        y = branch + F.conv2d(y, *weights_of(net, f"conv{2 * i + 2}"))
    torch.testing.assert_close(net(x), F.linear(y.flatten(1), *weights_of(net, "fc1")), rtol=1e-4, atol=1e-5)


def test_a_segnet_puts_values_back_where_they_were() -> None:
    net = network("INPUT 2x7x6 -> POOL 2 -> POOL 2 as low -> TANH -> UNPOOL of=low -> UNPOOL of=pool1 -> CONV1-2")
    x = torch.randn(3, 2, 7, 6)
    one, first = F.max_pool2d(x, 2, return_indices=True)
    two, second = F.max_pool2d(one, 2, return_indices=True)
    up = F.max_unpool2d(two.tanh(), second, (2, 2), output_size=one.shape[2:])
    up = F.max_unpool2d(up, first, (2, 2), output_size=x.shape[2:])
    torch.testing.assert_close(net(x), F.conv2d(up, *weights_of(net, "conv1")))
    bigger = torch.randn(3, 2, 11, 13)
    assert net(bigger).shape == (3, 2, 11, 13)


AUXILIARY = "INPUT 1x6x6 -> CONV3-4 -> RELU -> AUX[GLOBALAVGPOOL -> FC 3] -> CONV3-4 -> AUX[FC 2] -> TANH -> FC 3"


def test_auxiliary_outputs_are_given_in_training_only() -> None:
    net, x = network(AUXILIARY), torch.randn(2, 1, 6, 6)
    called: list[str] = []
    for name, module in net.named_children():
        module.register_forward_hook(lambda _, __, ___, name=name: called.append(name))
    main, first, second = net.train()(x)
    assert [tuple(y.shape) for y in (main, first, second)] == [(2, 3), (2, 3), (2, 2)]
    assert called == [node.name for node in net.architecture.nodes[1:]]
    called.clear()
    torch.testing.assert_close(net.eval()(x), main)
    assert called == ["conv1", "relu1", "conv2", "tanh1", "fc3"]
    hidden = F.conv2d(x, *weights_of(net, "conv1"), padding=1).relu()
    torch.testing.assert_close(first, F.linear(hidden.mean((2, 3)), *weights_of(net, "fc1")))


def test_an_output_may_be_read_again_and_the_main_one_need_not_be_last() -> None:
    net, x = (
        network("INPUT 2x4 -> CONV1-2 as a -> TANH as b -> AUX[from a] -> AUX[SIGMOID -> AUX[IDENTITY]]"),
        torch.randn(1, 2, 4),
    )
    a = F.conv1d(x, *weights_of(net, "a"))
    main, *others = net.train()(x)
    torch.testing.assert_close(main, a.tanh())
    for found, wanted in zip(others, [a, a.tanh().sigmoid(), a.tanh().sigmoid()], strict=True):
        torch.testing.assert_close(found, wanted)


DOTTED = (
    "INPUT 1x6x6 -> CONV3-2 as stem.conv -> SUM[CONV3-2 as layer1.0.conv1 -> BN as layer1.0.bn1 | IDENTITY] -> FC 2"
)


def test_names_with_dots_are_keys_of_the_state_dict() -> None:
    net = network(DOTTED)
    keys = [f"stem.conv.{n}" for n in ("weight", "bias")] + [f"layer1.0.conv1.{n}" for n in ("weight", "bias")]
    keys += [f"layer1.0.bn1.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    assert list(net.state_dict()) == [*keys, "fc1.weight", "fc1.bias"]
    assert {name for name, module in net.named_modules() if type(module) is not nn.Module} - {""} == {
        node.name for node in net.architecture.nodes[1:]
    }
    chain = network("INPUT 1x6x6 -> CONV3-2 as b.0 -> TANH as a.0 -> FC 2 as b.1")
    x = torch.randn(2, 1, 6, 6)
    inner = F.conv2d(x, *weights_of(chain, "b.0"), padding=1).tanh()
    torch.testing.assert_close(chain(x), F.linear(inner.flatten(1), *weights_of(chain, "b.1")))


@pytest.mark.parametrize("text", [DOTTED, AUXILIARY, UNET])
def test_copies_and_files_compute_the_same(text: str) -> None:
    net = network(text).eval()
    x = torch.randn(2, *net.input_shape)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x), net(x))


def test_a_layer_that_is_replaced_is_used() -> None:
    for text in ("INPUT 1x4x4 -> RELU -> TANH", "INPUT 1x4x4 -> SUM[RELU | IDENTITY]"):
        net = network(text)
        net.relu1 = nn.Sigmoid()
        x = torch.randn(1, 1, 4, 4)
        expected = x.sigmoid().tanh() if net.is_chain else x.sigmoid() + x
        torch.testing.assert_close(net(x), expected)


def test_traced_operations_are_refused() -> None:
    architecture = Architecture(
        (Node("x", paper.Input((1, 4))), Node("roll", paper.Foreign("aten.roll", (1, 4)), ("x",)))
    )
    with pytest.raises(OptionError) as caught:
        Network(architecture)
    assert str(caught.value) == (
        "roll cannot be built: it was traced from a model, and the notation has no word for aten.roll."
    )


def test_open_numbers_are_refused() -> None:
    with pytest.raises(OptionError) as caught:
        Network(parse("INPUT -> CONV -> FC 3"))
    assert str(caught.value) == "the network leaves open: input, filters; fill that first, as in bind(classes=10)."


ANY_SIZE = [
    ("INPUT 1x8x8 -> CONV3-2 -> GLOBALAVGPOOL -> FC 3", True),
    ("INPUT 1x8x8 -> ADAPTIVEPOOL 3 -> FC 3 -> RELU -> FC 2", True),
    ("INPUT 1x8x8 -> RESIZE 6 -> LOCAL3-2 -> FLATTEN", True),
    ("INPUT 1x8x8 -> TILED3-2", True),
    ("INPUT 1x8x8 -> PRODUCT[IDENTITY | GLOBALAVGPOOL -> FC 1]", True),
    ("INPUT 1x8x8 -> SUM[IDENTITY | GLOBALAVGPOOL] -> FC 3", False),
    ("INPUT 1x8x8 -> LOCAL3-2", False),
    ("INPUT 1x8x8 -> FLATTEN", False),
    ("INPUT 1x8x8 -> RBF 3", False),
]


@pytest.mark.parametrize(("text", "fits"), ANY_SIZE)
def test_which_networks_take_other_sizes(text: str, fits: bool) -> None:
    net = network(text)
    assert net.any_size == fits
    if fits:
        assert net(torch.randn(2, 1, 13, 10)).shape[0] == 2
    else:
        with pytest.raises(GeometryError, match=r"^the network takes examples of shape \(N, 1, 8, 8\), got"):
            net(torch.randn(2, 1, 13, 10))


def test_names_of_a_text_and_what_is_open_are_given_side_by_side() -> None:
    text = "let width = 4\nINPUT -> [CONV3-width -> POOL?]*N -> FC"
    net = network(text, N=2, POOL=True, classes=5, input=(1, 8, 8))
    assert net.architecture == parse("INPUT 1x8x8 -> [CONV3-4 -> POOL]*2 -> FC 5")
    assert network(text, N=1, POOL="no", width=6, input=(1, 8, 8)).architecture == parse(
        "INPUT 1x8x8 -> CONV3-6 -> FC 10"
    )
    assert network("INPUT 1x4 -> FC {classes}", classes=7).architecture == parse("INPUT 1x4 -> FC 7")


# ------------------------------------------------------------------------------------------------------ memory is freed


def test_each_value_is_let_go_after_its_last_reader() -> None:
    text = "INPUT 1x8x8 -> CONV3-2 as a -> TANH -> SIGMOID -> AUX[FC 2] -> SUM[POOL as p | from a -> POOL]"
    net = network(f"{text} -> TANH -> UNPOOL of=p -> FC 2").eval()
    alive: dict[str, Any] = {}
    most: list[set[str]] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            alive[name] = weakref.ref(output[0] if isinstance(output, tuple) else output)
            most.append({other for other, value in alive.items() if value() is not None})

        return hook

    for name, module in net.named_children():
        module.register_forward_hook(watch(name))
    with torch.no_grad():
        net(torch.randn(1, 1, 8, 8))
    assert most == [
        {"a"},
        {"a", "tanh1"},
        {"a", "tanh1", "sigmoid1"},
        {"a", "sigmoid1", "p"},
        {"a", "p", "pool2"},
        {"p", "pool2", "sum1"},
        {"sum1", "tanh2"},
        {"tanh2", "unpool1"},
        {"unpool1", "fc2"},
    ]


# -------------------------------------------------------------------------------------- in place in graphs, at random

UNITS = [
    *("RELU", "RELU", "RELU", "TANH", "SIGMOID", "ELU", "PRELU", "SOFTMAX", "DROPOUT"),
    *("DROPOUT 0", "SCALE", "LN", "GN 2"),
    *("CONV3-2", "DWCONV", "LOCAL3-2", "TILED3-2", "DECONV1-2 stride=1", "POOL 3 stride=1 padding=1", "POOL 1"),
    *("AVGPOOL 3 stride=1 padding=1", "LPPOOL 3 stride=1 padding=1", "GAUSSPOOL 3 stride=1 padding=1", "AVGPOOL 1"),
    *("CROP 1 -> PAD 1", "CROP 0", "PAD 0", "CHANNELS 1/1", "CHANNELS 0,1", "CHANNELS 1,0", "MAXOUT 1", "LRN 3", "IN"),
    *("PIXELSHUFFLE 1", "PIXELUNSHUFFLE 1", "UPSAMPLE 1", "UPSAMPLE 1 mode=linear", "RESIZE 4", "ADAPTIVEPOOL 4"),
    *("ADAPTIVEAVGPOOL 4", "AUX[GLOBALAVGPOOL]", "AUX[RELU]", "AUX[IDENTITY]", "POOL 2 as p -> UNPOOL of=p"),
]  # fmt: skip


def joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    branch = st.lists(inner, min_size=1, max_size=3).map(" -> ".join) | st.just("IDENTITY")
    branches = st.lists(branch, min_size=1, max_size=3).map(" | ".join)
    joins = st.sampled_from(["SUM[{}]", "SUM[{}]", "PRODUCT[{}]", "CONCAT[{}] -> CONV1-2"])
    return st.builds(lambda join, text: join.format(text), joins, branches) | inner


units = st.recursive(st.sampled_from(UNITS), joined, max_leaves=6)


@settings(deadline=None, max_examples=150)
@given(layers=st.lists(units, min_size=1, max_size=5), training=st.booleans())
@example(layers=["CONV3-2", "SUM[RELU | IDENTITY]", "RELU"], training=True)
@example(layers=["TANH", "SUM[IDENTITY]", "RELU"], training=True)
@example(layers=["TANH", "CONCAT[IDENTITY]", "RELU"], training=True)
@example(layers=["CONV3-2", "SUM[RELU | RELU]", "AUX[IDENTITY]", "RELU"], training=True)
@example(layers=["CONV3-2", "CROP 1", "RELU", "PAD 1"], training=True)
@example(layers=["CONV3-2", "AUX[RELU]", "RELU"], training=False)
def test_in_place_changes_no_number_of_a_graph(layers: list[str], training: bool) -> None:
    text = " -> ".join(["INPUT 2x4x4", *layers])
    ours, plain = network(text).train(training), apart(text).train(training)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(3, 2, 4, 4)
    for result, expected in zip(results_of(ours, x), results_of(plain, x), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)


def results_of(net: Network, x: Tensor) -> list[Tensor]:
    """All outputs and gradients, after a check that the input is what it was."""
    torch.manual_seed(0)
    inner = x.clone().requires_grad_()
    handed_in = inner * 1.0
    outputs = net(handed_in)
    assert torch.equal(handed_in, x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum((i + 1) * y.square().sum() for i, y in enumerate(outputs)).backward()
    assert inner.grad is not None
    return [*(y.detach() for y in outputs), inner.grad, *(p.grad for p in net.parameters() if p.grad is not None)]


SHARING = [
    *[(word, 2, "") for word, axes, _ in EVERY if 2 in axes and "[" not in word and "->" not in word],
    *[(word, 2, "") for word in ("PAD 0", "CROP 0", "UPSAMPLE 1", "RESIZE 9x8", "ADAPTIVEPOOL 9x8", "POOL 1", "LRN 1")],
    *[
        (word, 2, "")
        for word in ("PIXELSHUFFLE 1", "PIXELUNSHUFFLE 1", "MAXOUT 1", "SUM[IDENTITY]", "CONCAT[IDENTITY]")
    ],
    *[(word, 2, "") for word in ("PRODUCT[IDENTITY]", "ADAPTIVEAVGPOOL 9x8", "CHANNELS 1/1", "CHANNELS 0,1,2,3")],
    *[(word, 2, "") for word in ("SHUFFLE 1", "SHUFFLE 4")],
]


@pytest.mark.parametrize(
    ("word", "axes"),
    [pytest.param(w, n, marks=pytest.mark.xfail(strict=False, reason=why) if why else ()) for w, n, why in SHARING],
)
def test_only_what_says_so_gives_its_input_in_the_same_memory(word: str, axes: int) -> None:
    for training in (True, False):
        net = case(word, axes).train(training)
        x = torch.randn(2, *net.input_shape, dtype=torch.float64)
        given = x.flatten(1) if axes == 0 else x
        shared = net(x).untyped_storage().data_ptr() == given.untyped_storage().data_ptr()
        assert not shared or net.architecture.nodes[-1].operation.passes_on


# ------------------------------------------------------------------------------------ what the backward pass needs

# What is left out on purpose: tables that all examples of a batch share, and what an unpooling takes over.
CORRECTIONS: dict[str, str] = {
    "TILED3-4": "a few positions as 64-bit numbers, once for all examples",
    "GAUSSPOOL 3": "its weights, once for all examples",
    "POOL -> UNPOOL of=pool1": "the pooling needs no input where an unpooling reads its switches",
}
SAVING = [
    *("CONV3-4", "CONV3-4 padding=1 stride=2", "CONV3-4 stride=2", "CONV3-4 border=reflect", "DWCONV", "DECONV2-4"),
    *("LOCAL3-4", "TILED3-4", "POOL", "POOL 3 stride=2 ceil=yes", "AVGPOOL", "AVGPOOL 3 stride=1 padding=same"),
    *("LPPOOL", "LPPOOL p=3", "GAUSSPOOL 3", "GLOBALPOOL", "GLOBALAVGPOOL", "ADAPTIVEPOOL 4", "ADAPTIVEPOOL 2"),
    *("ADAPTIVEAVGPOOL 4", "FC 5", "RBF 5", "FLATTEN", "RELU", "RELU6", "LEAKYRELU", "PRELU", "ELU", "GELU", "SILU"),
    *("HARDSWISH", "HARDSIGMOID", "TANH", "SIGMOID", "SOFTMAX", "DROPOUT", "DROPOUT 0", "SCALE", "SCALE bias=no", "BN"),
    *("LN", "GN 2", "IN", "LRN", "MAXOUT", "SHUFFLE", "CHANNELS 2/2", "CHANNELS 0,2", "PIXELSHUFFLE", "PIXELUNSHUFFLE"),
    *("UPSAMPLE", "UPSAMPLE mode=linear", "RESIZE 5", "RESIZE 5 mode=linear", "PAD", "PAD border=reflect", "CROP"),
    *("SUM[IDENTITY | CONV1-8]", "PRODUCT[IDENTITY | CONV1-8]", "PRODUCT[IDENTITY | GLOBALAVGPOOL]"),
    *("PRODUCT[IDENTITY | CONV1-8 | CONV1-8]", "CONCAT[IDENTITY | CONV1-8]", "POOL -> UNPOOL of=pool1"),
]  # fmt: skip
VIEWS = ("CROP", "CHANNELS 2/2", "FLATTEN", "DROPOUT 0")


def claimed(architecture: Architecture) -> int:
    """Bytes that the operations say, every map once, for one example; a view keeps the whole map that it looks at."""
    shapes, overwriting = architecture.shapes(), architecture.overwriting()
    whole: dict[str, str] = {}
    kept: set[str] = set()
    extra = 0
    for node in architecture:
        operation = node.operation
        shares = node.name in overwriting or spelling.text(operation) in VIEWS
        whole[node.name] = whole[node.inputs[0]] if shares else node.name
        given = [shapes[name] for name in node.inputs]
        needs = operation.kept(*given) if given else frozenset()
        kept |= {whole[name] for name in node.inputs} if "inputs" in needs else set()
        kept |= {whole[node.name]} if "output" in needs else set()
        extra += (operation.saved_extra(*given) or 0) if given else 0
    return extra + sum(4 * prod(shapes[name]) for name in kept)


def saved(net: Network, x: Tensor) -> int:
    """Bytes of the storages that autograd keeps, without the network's own."""
    own = {t.untyped_storage().data_ptr() for t in net.state_dict(keep_vars=True).values()}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = net(x)
    assert output.requires_grad
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    return sum(size for place, size in storages.items() if place not in own)


@pytest.mark.parametrize("axes", MAPS)
@pytest.mark.parametrize("last", ["SUM[IDENTITY]", "CONV1-3"])
@pytest.mark.parametrize(
    "word",
    [
        pytest.param(w, marks=pytest.mark.xfail(strict=False, reason=CORRECTIONS[w]) if w in CORRECTIONS else ())
        for w in SAVING
    ],
)
def test_the_operations_say_what_autograd_keeps(word: str, last: str, axes: int) -> None:
    size = "x".join(map(str, {1: (6,), 2: (6, 8), 3: (6, 4, 8)}[axes]))
    last = "FC 3" if last == "CONV1-3" and word.split()[0] in ("FC", "RBF", "FLATTEN") else last
    net = network(f"INPUT 2x{size} -> CONV1-8 -> {word} -> {last}").train()
    assert saved(net, torch.randn(1, *net.input_shape)) == claimed(net.architecture)


# ----------------------------------------------------------------------------------------------- compiled and exported

GATED = """
let block(width) = SUM[CONV3-{width} bias=no -> BN -> RELU -> CONV3-{width} | CONV1-{width}] -> RELU
INPUT 2x9x8 -> block(4) -> POOL 2 -> CONCAT[block(4) | AVGPOOL 3 stride=1 padding=1] as wide
-> PRODUCT[IDENTITY | GLOBALAVGPOOL -> FC 4 -> RELU -> FC 8 -> SIGMOID]
-> UPSAMPLE -> LN -> GELU -> CROP 1 -> DWCONV as tail.0 -> SHUFFLE -> PIXELUNSHUFFLE -> GLOBALAVGPOOL -> FC 3
"""
COMPILED = {
    "gated": GATED,
    "unet": UNET,
    "auxiliary": AUXILIARY,
    "dotted": DOTTED,
    "chain": "INPUT 1x6x6 -> CONV3-2 -> RELU -> FC 2",
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_in_one_graph(name: str) -> None:
    net = network(COMPILED[name])
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    for training in (True, False):
        net.train(training)
        x = torch.randn(3, *net.input_shape)
        torch.testing.assert_close(compiled(x), net(x))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", COMPILED)
def test_exports_with_an_open_batch(name: str, strict: bool) -> None:
    net = network(COMPILED[name]).eval()
    x = torch.randn(4, *net.input_shape)
    program = torch.export.export(net, (x[:2],), dynamic_shapes=({0: torch.export.Dim("n", min=1)},), strict=strict)
    torch.testing.assert_close(program.module()(x), net(x))
    assert set(program.state_dict) == set(net.state_dict())


@pytest.mark.parametrize("name", ["gated", "unet"])
def test_exports_to_onnx_and_onnx_runtime_agrees(name: str) -> None:
    net = network(COMPILED[name]).eval()
    x = torch.randn(4, *net.input_shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            net, (x[:2],), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
        )
    model = program.model_proto  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), net(x), rtol=1e-4, atol=1e-5)


def test_a_context_network_starts_as_the_identity() -> None:
    """Yu and Koltun 2016, section 3: what comes in goes out, where it is not negative."""
    net = network("context_net", classes=3, input=(3, 20, 20)).eval()
    x = torch.rand(2, 3, 20, 20)
    torch.testing.assert_close(net(x), x)


def test_a_scale_starts_where_its_text_says() -> None:
    net = network("INPUT 2x3x3 -> SCALE start=0.25")
    torch.testing.assert_close(net(torch.ones(1, 2, 3, 3)), torch.full((1, 2, 3, 3), 0.25))


TURNED = (
    "INPUT 2x9x9 -> CONV3-4 -> RELU -> POOL 3x3 stride=2 padding=same -> CONV3-4 -> RELU -> POOL -> FC 3",
    "INPUT 2x9x9 -> CONV3-4 -> BN -> RELU -> POOL -> SUM[CONV3-4 -> RELU -> POOL | POOL] -> RELU -> FC 3",
    "INPUT 2x9x9 -> CONV3-4 -> RELU as kept -> POOL -> CONCAT[IDENTITY | from kept -> POOL] -> RELU -> POOL -> FC 3",
)


@pytest.mark.parametrize("text", TURNED)
def test_poolings_before_rectifiers_change_no_bit(text: str) -> None:
    """Also where a whole window is negative or zero, and where several values are the largest."""
    torch.manual_seed(0)
    own = striate.network(text)
    other = copy.deepcopy(own)
    other.pools_first()
    other.pools_first()
    x = torch.randn(5, 2, 9, 9).round()
    for net in (own, other):
        net(x).square().sum().backward()
    assert torch.equal(own(x), other(x))
    for one, two in zip(own.parameters(), other.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert torch.equal(one.grad, two.grad)
    assert torch.equal(own.eval()(x), other.eval()(x))
