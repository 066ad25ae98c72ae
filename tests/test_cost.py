"""Costs against torch's own layers and torch's own counter of floating-point operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from striate.cost import Cost, cost, multiply_adds, parameters, real_multiply_adds
from striate.errors import GeometryError
from striate.geometry import Geometry

LAYERS: list[tuple[int, int, tuple[int, int], dict[str, Any]]] = [
    (3, 8, (9, 10), dict(kernel=3)),
    (3, 8, (9, 10), dict(kernel=(3, 5), stride=(2, 1), padding=(4, 2))),
    (4, 8, (9, 10), dict(kernel=3, padding=2, dilation=2)),
    (4, 8, (9, 10), dict(kernel=3, stride=2, padding=1, groups=2)),
    (6, 6, (9, 10), dict(kernel=3, padding=1, groups=6)),
    (5, 7, (9, 10), dict(kernel=1)),
]
layers = pytest.mark.parametrize(("inputs", "outputs", "size", "options"), LAYERS, ids=[str(row[3]) for row in LAYERS])
both_ways = pytest.mark.parametrize("transposed", [False, True], ids=["window", "transposed"])


def torchs(inputs: int, outputs: int, options: dict[str, Any], transposed: bool, **more: Any) -> torch.nn.Module:
    given = {"kernel_size" if name == "kernel" else name: value for name, value in options.items()}
    layer = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    return layer(inputs, outputs, **given, **more)


@layers
@both_ways
@pytest.mark.parametrize("bias", [True, False])
def test_parameters_are_torchs(
    inputs: int, outputs: int, size: tuple[int, int], options: dict[str, Any], transposed: bool, bias: bool
) -> None:
    layer = torchs(inputs, outputs, options, transposed, bias=bias, device="meta")
    geometry = Geometry.window(2, transposed=transposed, **options)
    assert parameters(geometry, inputs, outputs, bias=bias) == sum(p.numel() for p in layer.parameters())


@layers
@both_ways
def test_multiply_adds_are_half_of_torchs_operations(
    inputs: int, outputs: int, size: tuple[int, int], options: dict[str, Any], transposed: bool
) -> None:
    layer = torchs(inputs, outputs, options, transposed, bias=False, device="meta")
    with FlopCounterMode(display=False) as counter:
        layer(torch.empty(1, inputs, *size, device="meta"))
    geometry = Geometry.window(2, transposed=transposed, **options)
    assert 2 * multiply_adds(geometry, inputs, outputs, size) == counter.get_total_flops()


@layers
@both_ways
def test_real_multiply_adds_are_the_layer_of_ones(
    inputs: int, outputs: int, size: tuple[int, int], options: dict[str, Any], transposed: bool
) -> None:
    """With every input and weight 1, each real multiply-add puts exactly 1 into the sum of the output."""
    geometry = Geometry.window(2, transposed=transposed, **options)
    ones = torch.ones(1, inputs, *size, dtype=torch.float64)
    weight = torch.ones(geometry.weight_shape(inputs, outputs), dtype=torch.float64)
    layer = functional.conv_transpose2d if transposed else functional.conv2d
    given = {name: value for name, value in options.items() if name != "kernel"}
    assert real_multiply_adds(geometry, inputs, outputs, size) == layer(ones, weight, **given).sum()


# parameters = prod(period) * (O * C / groups * prod(K) + O): 6 to 10 channels, 3x3
@pytest.mark.parametrize(
    ("period", "groups", "weights", "biases"),
    [
        (1, 1, 10 * 6 * 9, 10),
        (1, 2, 10 * 3 * 9, 10),
        ((2, 2), 1, 4 * 10 * 6 * 9, 4 * 10),
        ((5, 7), 1, 35 * 10 * 6 * 9, 35 * 10),
        ((5, 7), 2, 35 * 10 * 3 * 9, 35 * 10),
    ],
)
def test_every_position_of_the_period_has_its_own_weights_and_biases(
    period: Any, groups: int, weights: int, biases: int
) -> None:
    geometry = Geometry.window(2, 3, period=period, groups=groups)
    assert parameters(geometry, 6, 10, bias=False) == weights
    assert parameters(geometry, 6, 10) == weights + biases


def test_sharing_weights_saves_no_multiply_add() -> None:
    shared, local = Geometry.window(2, 3), Geometry.window(2, 3, period=(5, 7))
    assert multiply_adds(shared, 6, 10, (7, 9)) == multiply_adds(local, 6, 10, (7, 9)) == 35 * 10 * 6 * 9


def test_all_costs_of_one_layer_by_hand() -> None:
    """AlexNet's first layer: 227x227x3, 96 filters of 11x11 with stride 4, 55x55 outputs, no padding."""
    macs = 96 * 3 * 121 * 3025
    layer = cost(Geometry.window(2, 11, stride=4), 3, 96, (227, 227))
    assert layer == Cost(34_944, macs, macs, 4 * 3 * 227 * 227, 4 * 34_944, 4 * 96 * 3025)
    assert layer.flops == 210_830_400
    assert layer.intensity == 210_830_400 / (618_348 + 139_776 + 1_161_600)


def test_a_batch_multiplies_work_and_pictures_but_not_the_parameters() -> None:
    geometry = Geometry.window(1, 3, padding=1)
    batch = cost(geometry, 2, 5, (10,), batch=8, bias=False, element_bytes=2)
    assert batch == Cost(
        parameters=30,
        multiply_adds=8 * 10 * 30,
        real_multiply_adds=8 * 10 * (8 * 3 + 2 * 2),
        input_bytes=2 * 8 * 2 * 10,
        parameter_bytes=2 * 30,
        output_bytes=2 * 8 * 5 * 10,
    )


# ----------------------------------------------------------------------------------------- published networks

# Krizhevsky, Sutskever and Hinton 2012, section 3.5: input channels that one kernel sees, kernels, kernel size.
ALEXNET = [
    *((3, 96, 11), (48, 256, 5), (256, 384, 3), (192, 384, 3), (192, 256, 3)),
    *((256, 4096, 6), (4096, 4096, 1), (4096, 1000, 1)),
]

# Szegedy et al. 2014, table 1: the inception modules.
INCEPTIONS = """
    input   1x1  3x3r  3x3  5x5r  5x5  pool
      192    64    96  128    16   32    32
      256   128   128  192    32   96    64
      480   192    96  208    16   48    64
      512   160   112  224    24   64    64
      512   128   128  256    24   64    64
      512   112   144  288    32   64    64
      528   256   160  320    32  128   128
      832   256   160  320    32  128   128
      832   384   192  384    48  128   128
"""


def inception(row: str) -> list[tuple[int, int, int]]:
    inputs, one, reduce3, three, reduce5, five, pool = map(int, row.split())
    narrow = [(inputs, one, 1), (inputs, reduce3, 1), (inputs, reduce5, 1), (inputs, pool, 1)]
    return [*narrow, (reduce3, three, 3), (reduce5, five, 5)]


GOOGLENET = [
    *((3, 64, 7), (64, 64, 1), (64, 192, 3)),
    *(layer for row in INCEPTIONS.strip().splitlines()[1:] for layer in inception(row)),
    (1024, 1000, 1),
]


@pytest.mark.parametrize(
    ("layers", "learned"),
    [pytest.param(ALEXNET, 60_965_224, id="AlexNet"), pytest.param(GOOGLENET, 6_998_552, id="GoogLeNet")],
)
def test_parameters_of_published_networks(layers: list[tuple[int, int, int]], learned: int) -> None:
    """The totals are those of the models that Caffe distributed under these names.

    Slip of the CS231n notes: they give GoogLeNet 4 million.
    """
    counts = [parameters(Geometry.window(2, kernel), inputs, filters) for inputs, filters, kernel in layers]
    assert sum(counts) == learned


# --------------------------------------------------------------------------------------------------- messages


def refusal(count: Any, *arguments: Any) -> str:
    with pytest.raises(GeometryError) as caught:
        count(*arguments)
    return str(caught.value)


def test_groups_that_do_not_divide_the_channels_have_no_cost() -> None:
    geometry = Geometry.window(1, 3, groups=2)
    message = "groups=2 does not divide the 3 input channels; both channel counts must be multiples of the groups."
    assert refusal(parameters, geometry, 3, 4) == message
    assert refusal(multiply_adds, geometry, 3, 4, (5,)) == message
    assert refusal(cost, geometry, 3, 4, (5,)) == message


@pytest.mark.parametrize("count", [multiply_adds, cost])
def test_a_window_that_does_not_fit_has_no_cost(count: Any) -> None:
    assert refusal(count, Geometry.window(2, 3), 3, 4, (8, 2)) == (
        "On spatial axis 1: the window spans 3 inputs (kernel=3, dilation=1), but input and padding have "
        "2 + 0 + 0 = 2; give a larger input, more padding or a smaller kernel."
    )


def test_real_multiply_adds_checks_groups_and_sizes() -> None:
    with pytest.raises(GeometryError, match="groups=2 does not divide the 3 input channels"):
        real_multiply_adds(Geometry.window(1, 3, groups=2), 3, 4, (5,))
    with pytest.raises(GeometryError, match=r"^On spatial axis 0: the window spans 3 inputs"):
        real_multiply_adds(Geometry.window(1, 3), 1, 1, (2,))
