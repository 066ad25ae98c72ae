"""Networks with weights: the table's own layers, torch's own numbers, and a caller's input that stays as it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import striate
from striate import describe, network
from striate.errors import GeometryError, NotationError, OptionError, UnknownNameError
from striate.layers import FullyConnected
from striate.networks import Network
from striate.notation import parse

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
        assert torch.equal(result, expected)


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


REFUSED: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (
        "INPUT -> FC",
        {"width": 3},
        OptionError,
        "network has no variable 'width'; known: input, filters, hidden, classes.",
    ),
    (
        "INPUT -> FC",
        {"b": 3, "a": 2},
        OptionError,
        "network has no variable 'a'; known: input, filters, hidden, classes.",
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
            "Known: lenet5, vgg11, vgg13, vgg16, vgg19."
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
