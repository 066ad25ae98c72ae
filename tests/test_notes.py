"""Every number that the five course notes state and that whole numbers can derive; docs/notes.md is the map.

The notes, in the order of this file:

    d2l      the slides of "Dive into Deep Learning": convolution, padding and stride, channels, pooling
    intro    an introduction to convolutional networks, with Andrew Ng's example, up to the training loop
    cloud    the article "What is a convolutional layer", with its PyTorch examples
    cs231n   the Chinese translation of Stanford's CS231n notes on convolutional networks
    book     notes on "Deep Learning" (Goodfellow, Bengio, Courville), chapter 9, and on later variants

Where a note and the definition disagree, the definition is asserted, and the docstring names the slip.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import gcd, isclose, prod

import numpy
import pytest
from numpy.typing import NDArray

from striate.cost import Cost, cost, multiply_adds, parameters
from striate.geometry import Axis, Geometry
from striate.gradients import input_gradient, weight_gradient
from striate.padding import rows
from striate.receptive_field import ReceptiveField, dilated_coverage, receptive_field
from striate.taps import counts, taps, window_at

Array = NDArray[numpy.int64]
MIB = 1024**2


def table(text: str) -> list[list[str]]:
    """The lines of a table without its headings; the words after the last column are a remark."""
    return [line.split() for line in text.strip().splitlines()[1:]]


def numbers(text: str) -> tuple[int, ...]:
    """``50x100`` is (50, 100)."""
    return tuple(int(number) for number in text.replace(",", "").split("x"))


def per_axis(text: str, axes: int) -> tuple[int, ...]:
    return numbers(text) if "x" in text else numbers(text) * axes


def weights(geometry: Geometry, inputs: int, outputs: int) -> int:
    return parameters(geometry, inputs, outputs, bias=False)


def biases(geometry: Geometry, inputs: int, outputs: int) -> int:
    return parameters(geometry, inputs, outputs) - weights(geometry, inputs, outputs)


def computed(geometry: Geometry, x: Array, weight: Array) -> list[list[int]]:
    """One channel through one kernel, as the sums that the window describes."""
    output = numpy.zeros(geometry.output_size(x.shape), dtype=numpy.int64)
    for position in numpy.ndindex(*output.shape):
        output[position] = sum(weight[w] * x[i] for w, i in window_at(geometry, x.shape, position))
    return output.tolist()


def read_by(geometry: Geometry, size: tuple[int, ...], position: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The input positions that one output position reads."""
    return [i for _, i in window_at(geometry, size, position)]


# ============================================================================================== sizes and weights

SIZES = """
    note      input    kernel  stride padding dilation   output    what
    d2l         3x3      2       1       0       1        2x2      the first example
    d2l       32x32      5       1       0       1      28x28      the first of seven layers
    d2l         3x3      2       1       1       1        4x4      the figure of padding
    d2l         3x3      2      3x2      1       1        2x2      the figure of strides
    d2l         4x5     1x2      1       0       1        4x4      the vertical edge
    d2l         3x3      2       1       0       1        2x2      the figure of max pooling
    intro       5x5      3       1       0       1        3x3      "valid"
    intro       5x5      3       1       1       1        5x5      "same"
    intro       7x7      3       1       0       1        5x5      the same picture, padded beforehand
    intro       6x6      3       1       0       1        4x4      three channels, one kernel
    intro       4x4      2       2       0       1        2x2      max pooling, four regions
    cloud     32x32      5       1       0       1      28x28      3x32x32 through 2x3x5x5
    cloud    50x100      3       2       0       1      24x49      Conv2d(16, 33, 3, stride=2)
    cloud    50x100     3x5     2x1     4x2      1     28x100      its second example
    cloud    50x100     3x5     2x1     4x2     3x1    26x100      its third example
    cloud     50x32      3       2       1       1      25x16      MaxPool2d(3, stride=2, padding=1)
    cs231n        5      3       1       1       1          5      S = 1
    cs231n        5      3       2       1       1          3      S = 2
    cs231n        5      3       1       0       1          3      without zero padding
    cs231n  227x227     11       4       0       1      55x55      AlexNet's first layer
    cs231n    11x11      5       2       0       1        4x4      the numpy example
    cs231n      5x5      3       2       1       1        3x3      the demonstration
    cs231n    32x32      3       1       1       1      32x32      F = 3 keeps the size with P = 1
    cs231n    32x32      5       1       2       1      32x32      F = 5 keeps the size with P = 2
    cs231n    32x32      2       2       0       1      16x16      CIFAR-10 after pooling
    cs231n  224x224      2       2       0       1    112x112      the figure of pooling
    cs231n      7x7      7       1       0       1        1x1      the first fully connected layer, F = 7
    cs231n      1x1      1       1       0       1        1x1      the second and third, F = 1
    cs231n    12x12      7       1       0       1        6x6      the same on a picture of 384
    cs231n  384x384    224      32       0       1        6x6      a window of 224 sliding by 32
    book    100x200      5       1       0       1     96x196      a picture and a kernel
    book          6      3       2       0       1          2      the figure of pooling
    book      12x12      7       1       0       1        6x6      VGG on a picture of 384
"""


@pytest.mark.parametrize("row", table(SIZES), ids=" ".join)
def test_output_sizes(row: list[str]) -> None:
    size, output = numbers(row[1]), numbers(row[6])
    kernel, stride, padding, dilation = (per_axis(text, len(size)) for text in row[2:6])
    geometry = Geometry.window(len(size), kernel, stride=stride, padding=padding, dilation=dilation)
    assert geometry.output_size(size) == output


WEIGHTS = """
    note     inputs outputs    kernel          weights    what
    d2l           3     100 3000x4000    3,600,000,000    12 million pixels, 100 hidden units: "3.6B"
    intro         3       1         3               27    the products of one output
    cloud         3       2         5              150    2x3x5x5
    cs231n        3       1        32            3,072    one neuron that sees all of 32x32x3
    cs231n        3       1       200          120,000    one neuron that sees all of 200x200x3
    cs231n        3       1         5               75    example 1
    cs231n       20       1         3              180    example 2
    cs231n        3       1         1                3    a 1x1 window on 32x32x3 is a product of three
    cs231n        4       1         5              100    W0 of shape 5x5x4
    cs231n        3       2         3               54    the demonstration, two filters of 3x3x3
    cs231n        3       1        11              363    one column of im2col
    cs231n        3      96        11           34,848    AlexNet's first layer
    cs231n      512    4096         7      102,760,448    the first fully connected layer as a convolution
    book        512    1000         7       25,088,000    512x7x7 to 1000 classes, as either of the two
"""


@pytest.mark.parametrize("row", table(WEIGHTS), ids=" ".join)
def test_weights(row: list[str]) -> None:
    inputs, outputs, (expected,) = int(row[1]), int(row[2]), numbers(row[4])
    geometry = Geometry.window(2, per_axis(row[3], 2))
    assert weights(geometry, inputs, outputs) == expected
    assert biases(geometry, inputs, outputs) == outputs


# ============================================================================================================ d2l


def test_d2l_a_photograph_through_a_hidden_layer() -> None:
    """12 million pixels are 36 million values; 100 units have more weights than the world has cats and dogs."""
    million, layer = 10**6, cost(Geometry.window(2, (3000, 4000)), 3, 100, (3000, 4000), bias=False)
    assert layer.input_bytes // 4 == 36 * million
    assert layer.parameters == 3600 * million > (900 + 600) * million


def test_d2l_reindexed_weights() -> None:
    """Slip: the note writes ``v[i,j,a,b] = w[i,j,i+a,i+b]``; the last index is ``j+b``."""
    geometry = Geometry.window(2, 3)
    assert list(window_at(geometry, (6, 9), (1, 4))) == [((a, b), (1 + a, 4 + b)) for a in range(3) for b in range(3)]


def test_d2l_locality_is_a_kernel_of_twice_delta_plus_one() -> None:
    delta, size = 2, 9
    axis = Axis(2 * delta + 1, before=delta, after=delta)
    for position in range(delta, size - delta):
        assert [i - position for o, _, i in taps(axis, size) if o == position] == [-2, -1, 0, 1, 2]


PICTURE, KERNEL = numpy.arange(9).reshape(3, 3), numpy.arange(4).reshape(2, 2)


def test_d2l_first_example() -> None:
    """Slip: its sums of ``w[a] x[i+a]`` start at a = 1, with which no output reads the first row; they start at 0."""
    assert computed(Geometry.window(2, 2), PICTURE, KERNEL) == [[19, 25], [37, 43]]
    assert read_by(Geometry.window(2, 2), (3, 3), (0, 0)) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_d2l_convolution_turns_the_kernel() -> None:
    turned = computed(Geometry.window(2, 2, flip=True), PICTURE, KERNEL)
    assert turned == computed(Geometry.window(2, 2), PICTURE, KERNEL[::-1, ::-1]) == [[5, 11], [23, 29]]


@pytest.mark.parametrize(("size", "layers"), [(32, 7), (224, 55)])
def test_d2l_layers_of_5x5_until_4x4(size: int, layers: int) -> None:
    sizes = [size]
    while sizes[-1] > 4:
        sizes.append(Axis(5).output_size(sizes[-1]))
    assert (sizes[1], sizes[-1], len(sizes) - 1) == (size - 4, 4, layers)


def test_d2l_padding_and_strides_by_hand() -> None:
    padded = computed(Geometry.window(2, 2, padding=1), PICTURE, KERNEL)
    assert padded[0][0] == 0 * 0 + 0 * 1 + 0 * 2 + 0 * 3
    strided = computed(Geometry.window(2, 2, padding=1, stride=(3, 2)), PICTURE, KERNEL)
    assert strided == [[0, 0 * 0 + 0 * 1 + 1 * 2 + 2 * 3], [0 * 0 + 6 * 1 + 0 * 2 + 0 * 3, 8]] == [[0, 8], [6, 8]]


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
def test_d2l_even_kernels_pad_one_row_more_above(kernel: int) -> None:
    """The convention of the note is ``"same_lower"``; ``"same"`` puts the odd row below, as PyTorch does."""
    p = kernel - 1
    assert rows("same_lower", kernel, 1, None) == (-(-p // 2), p // 2)
    assert rows("same", kernel, 1, None) == (p // 2, -(-p // 2))


@pytest.mark.parametrize("n", [12, 13])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("s", [1, 2, 3])
def test_d2l_formulas_of_the_output_size(n: int, k: int, s: int) -> None:
    for p in range(k):  # rows of padding in all
        assert Axis(k, s, before=p // 2, after=p - p // 2).output_size(n) == (n - k + p + s) // s
    kept = Axis(k, s, before=(k - 1) // 2, after=k // 2).output_size(n)
    assert kept == (n + s - 1) // s
    if n % s == 0:
        assert kept == n // s


def test_d2l_channels_are_summed() -> None:
    """Slip: the sum is written over i = 0 … c_i, one channel too many; there are c_i."""
    x, weight = numpy.stack([PICTURE, PICTURE + 1]), numpy.stack([KERNEL, KERNEL + 1])
    geometry = Geometry.window(2, 2)
    assert geometry.weight_shape(len(x), 1) == (1, *weight.shape)
    per_channel = [computed(geometry, picture, kernel)[0][0] for picture, kernel in zip(x, weight, strict=True)]
    assert per_channel == [0 * 0 + 1 * 1 + 3 * 2 + 4 * 3, 1 * 1 + 2 * 2 + 4 * 3 + 5 * 4]
    assert sum(per_channel) == 56


def test_d2l_one_bias_for_each_output_channel() -> None:
    """Slip: the bias is said to be of shape c_o x c_i; it is of shape c_o."""
    assert Geometry.window(2, 3).weight_shape(5, 7) == (7, 5, 3, 3)
    assert biases(Geometry.window(2, 3), 5, 7) == 7


def test_d2l_1x1_is_a_fully_connected_layer_of_each_pixel() -> None:
    assert weights(Geometry.window(2, 1), 5, 7) == 7 * 5
    assert read_by(Geometry.window(2, 1), (4, 4), (2, 3)) == [(2, 3)]


def test_d2l_one_gigaflop() -> None:
    """The note counts a multiply-add as one operation, and so do its hours; as FLOPs they are twice as many."""
    layer = cost(Geometry.window(2, 5, padding=2), 100, 100, (64, 64))
    assert layer.multiply_adds == 100 * 100 * 5 * 5 * 64 * 64 == 1_024_000_000
    assert layer.flops == 2_048_000_000
    ten_layers_million_samples = 10 * 10**6 * layer.multiply_adds
    assert round(ten_layers_million_samples / 1e15) == 10
    assert int(10e15 / 0.15e12 / 3600) == 18  # hours at 0.15 TF
    assert round(10e15 / 12e12 / 60) == 14  # minutes at 12 TF


def pooled(axes: tuple[Axis, Axis], x: Array) -> list[list[int]]:
    geometry = Geometry(axes)
    outputs = geometry.output_size(x.shape)
    return [
        [max(x[i] for i in read_by(geometry, x.shape, (j, k))) for k in range(outputs[1])] for j in range(outputs[0])
    ]


def test_d2l_max_pooling() -> None:
    assert pooled((Axis(2), Axis(2)), PICTURE)[0][0] == max(0, 1, 3, 4) == 4


def test_d2l_vertical_edge() -> None:
    """Slip: the 2x2 pooling is printed as 4x4 with three columns of ones; it is 3x3 with two.

    Three columns of ones, four wide, are what a pooling of width 3 with one row of padding gives.
    """
    edge = numpy.array([[1, 1, 0, 0, 0]] * 4)
    found = computed(Geometry.window(2, (1, 2)), edge, numpy.array([[1, -1]]))
    assert found == [[0, 1, 0, 0]] * 4
    assert pooled((Axis(2), Axis(2)), numpy.array(found)) == [[1, 1, 0]] * 3
    assert pooled((Axis(1), Axis(3, before=1, after=1)), numpy.array(found)) == [[1, 1, 1, 0]] * 4


# ========================================================================================================== intro


def test_intro_ngs_example() -> None:
    """39x39x3 becomes 37x37x10, 17x17x20 and 7x7x40."""
    size: tuple[int, ...] = (39, 39)
    channels, volumes = 3, [39 * 39 * 3]
    for kernel, stride, filters in ((3, 1, 10), (5, 2, 20), (5, 2, 40)):
        layer = Geometry.window(2, kernel, stride=stride)
        size, channels = layer.output_size(size), filters
        volumes.append(prod(size) * channels)
    assert volumes == [4563, 37 * 37 * 10, 17 * 17 * 20, 1960]


def test_intro_the_gradient_of_the_input_is_a_full_convolution_with_the_turned_kernel() -> None:
    size = (6, 6)
    forward = Geometry.window(2, 3)
    backward, turned = input_gradient(forward, size), Geometry.window(2, 3, padding="full", flip=True)
    there = forward.output_size(size)
    for position in numpy.ndindex(*size):
        assert sorted(window_at(backward, there, position)) == sorted(window_at(turned, there, position))


def test_intro_the_gradient_of_the_weights_is_the_convolution_of_input_and_error() -> None:
    assert weight_gradient(Geometry.window(2, 3), (6, 6)) == Geometry.window(2, 4)  # the error is 4x4
    assert Geometry.window(2, 4).output_size((6, 6)) == (3, 3)


# ========================================================================================================== cloud


def test_cloud_and_book_each_input_serves_three_outputs() -> None:
    """Slip in both: "every" input and every output have three connections; at the ends of the row they have two."""
    axis = Axis(3, before=1, after=1)
    served = [sum(i == x for _, _, i in taps(axis, 5)) for x in range(5)]
    assert served == list(counts(axis, 5)) == [2, 3, 3, 3, 2]


def test_cloud_the_middle_weight_serves_all_five_units() -> None:
    """Slip: "i = 12, 4, 5" is i = 1, 2, 4, 5, besides 3 itself (the other note prints it right)."""
    served = [(i + 1, o + 1) for o, t, i in taps(Axis(3, before=1, after=1), 5) if t == 1]
    assert served == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]


def test_cloud_output_formula() -> None:
    """Slip: the formula has lost its fraction bar, ``N = SW - F + 2P + 1``; it is floor((W - F + 2P) / S) + 1."""
    w, f, p, s = 50, 3, 0, 2
    assert Axis(f, s, before=p, after=p).output_size(w) == (w - f + 2 * p) // s + 1 == int(24.5)
    assert s * w - f + 2 * p + 1 == 98


def test_cloud_output_channels() -> None:
    """Slip: the shape is printed as 20x16x24x49; ``Conv2d(16, 33, ...)`` puts out 33 channels."""
    layer = Geometry.window(2, 3, stride=2)
    assert layer.weight_shape(16, 33) == (33, 16, 3, 3)
    assert cost(layer, 16, 33, (50, 100), batch=20).output_bytes == 4 * 20 * 33 * 24 * 49


# ========================================================================================================= cs231n


@pytest.mark.parametrize(("size", "padding", "stride"), [(5, 1, 3), (10, 0, 2)])
def test_cs231n_strides_that_do_not_fit(size: int, padding: int, stride: int) -> None:
    """The note calls them invalid, 7/3 and 4.5 positions; every library rounds down and leaves one row unread."""
    axis = Axis(3, stride, before=padding, after=padding)
    positions = Fraction(size - 3 + 2 * padding, stride) + 1
    assert positions.denominator > 1
    assert (axis.output_size(size), axis.unread_tail(size)) == (int(positions), 1)


def test_cs231n_weights_that_are_not_shared() -> None:
    """Slip: 11x11x3 is printed as 364 weights "and 1 bias"; it is 363, and 364 with the bias. The total is right."""
    local = Geometry.window(2, 11, stride=4, period=55)
    assert local.output_size((227, 227)) == (55, 55)
    assert weights(local, 3, 96) == 290_400 * 363
    assert parameters(local, 3, 96) == 290_400 * 364 == 105_705_600


# V[x, y] = sum(X[columns, rows] * W): the position, and the range that starts on each axis
NUMPY_EXAMPLE = [
    ((0, 0), (0, 0)),
    ((1, 0), (2, 0)),
    ((2, 0), (4, 0)),
    ((3, 0), (6, 0)),
    ((0, 1), (0, 2)),
    ((2, 3), (4, 6)),
]


@pytest.mark.parametrize(("position", "starts"), NUMPY_EXAMPLE)
def test_cs231n_what_v_reads(position: tuple[int, int], starts: tuple[int, int]) -> None:
    """``V[1,0]`` reads ``X[2:7, :5]``, ``V[2,3]`` reads ``X[4:9, 6:11]``, and so on."""
    columns, lines = (range(start, start + 5) for start in starts)
    read = read_by(Geometry.window(2, 5, stride=2), (11, 11), position)
    assert read == [(i, j) for i in columns for j in lines]


def test_cs231n_im2col() -> None:
    """X_col is 363 x 3025 and W_row 96 x 363, so that the product is 96 x 3025, which is 55 x 55 x 96."""
    layer = Geometry.window(2, 11, stride=4)
    columns, length = prod(layer.output_size((227, 227))), weights(layer, 3, 1)
    assert (length, columns, weights(layer, 3, 96)) == (363, 3025, 96 * 363)
    assert parameters(layer, 3, 96) == 34_848 + 96 == 34_944
    assert multiply_adds(layer, 3, 96, (227, 227)) == 96 * 363 * 3025


@pytest.mark.parametrize(("gaps", "inputs"), [(0, [0, 1, 2]), (1, [0, 2, 4])])
def test_cs231n_dilation(gaps: int, inputs: list[int]) -> None:
    """The note counts the gaps between taps and calls the dense window dilation 0; in PyTorch and here it is 1."""
    assert [i for o, _, i in taps(Axis(3, dilation=gaps + 1), 5) if o == 0] == inputs


@pytest.mark.parametrize(("stride", "layers", "field"), [(1, 2, 5), (1, 3, 7), (2, 3, 15)])
def test_cs231n_stacked_3x3(stride: int, layers: int, field: int) -> None:
    """Slip, in a reader's comment: three 3x3 layers are said to need stride 2 to see 7x7; they do so with stride 1."""
    assert receptive_field([Axis(3, stride)] * layers).size == field


@pytest.mark.parametrize(("before", "after"), [("224x224x64", "112x112x64"), ("32x32x12", "16x16x12")])
def test_cs231n_pooling_drops_three_quarters(before: str, after: str) -> None:
    *size, channels = numbers(before)
    window = Geometry.window(2, 2, stride=2, groups=channels)
    assert (*window.output_size(size), channels) == numbers(after)
    layer = cost(window, channels, channels, size)
    assert 1 - layer.output_bytes / layer.input_bytes == 0.75
    assert len(read_by(window, tuple(size), (0, 0))) == 4


@pytest.mark.parametrize(("size", "after"), [(32, 1), (64, 2), (96, 3), (224, 7), (384, 12), (512, 16)])
def test_cs231n_sizes_that_can_be_halved_five_times(size: int, after: int) -> None:
    """Slip: ``224/2/2/2/2 = 7`` has one division too few: four give 14, and five poolings give 7."""
    pool, sizes = Axis(2, stride=2), [size]
    for _ in range(5):
        assert pool.unread_tail(sizes[-1]) == 0
        sizes.append(pool.output_size(sizes[-1]))
    assert sizes[-1] == after
    assert sizes[-2] == 2 * after


def test_cs231n_alexnet_has_three_poolings() -> None:
    """Slip: the 7x7x512 after five poolings is said to be AlexNet's; it is VGG's. AlexNet ends at 6x6x256."""
    pool, sizes = Axis(3, stride=2), [227]
    for axis in (Axis(11, stride=4), pool, Axis(5, before=2, after=2), pool, *[Axis(3, before=1, after=1)] * 3, pool):
        sizes.append(axis.output_size(sizes[-1]))
    assert sizes == [227, 55, 27, 27, 13, 13, 13, 13, 6]


def test_cs231n_thirty_six_positions_are_not_thirty_six_crops() -> None:
    """Slip, here and in the book notes: one pass over 384x384 is said to equal 36 crops of 224x224.

    It has as many outputs, 32 pixels apart, but each sees 404 pixels, more than a crop has: next to a crop are
    zeros, where the whole picture has neighbours.
    """
    axes = [axis for _, axis in vgg16_axes()]
    field = receptive_field(axes)
    assert (field.size, field.jump) == (404, 32)
    size = 384
    for axis in axes:
        size = axis.output_size(size)
    assert (size, size * size) == (Axis(224, stride=32).output_size(384), 36)


def test_cs231n_half_the_stride_by_shifting_the_picture() -> None:
    """Passes over the picture and over the picture shifted by 16 take turns: 6 and 5 positions are the 11 wanted."""
    by_32, by_16 = Axis(224, stride=32), Axis(224, stride=16)
    assert (by_32.output_size(384), by_32.output_size(384 - 16), by_16.output_size(384)) == (6, 5, 11)


def test_cs231n_memory_of_a_first_layer() -> None:
    """Slip: "10 million values, 72 MB" are said of one layer of 64 filters; they are about those of three."""
    layer = cost(Geometry.window(2, 3, padding=1), 3, 64, (224, 224))
    assert layer.output_bytes // 4 == 3_211_264
    assert layer.output_bytes / MIB == 12.25
    assert 3 * layer.output_bytes // 4 == 9_633_792
    assert 2 * 3 * layer.output_bytes / MIB == 73.5  # activations and gradients


VGG16 = """
    layer       output         values printed      weights
    INPUT       224x224x3     150,528  150000            0
    CONV3-64    224x224x64  3,211,264 3200000        1,728
    CONV3-64    224x224x64  3,211,264 3200000       36,864
    POOL2       112x112x64    802,816  800000            0
    CONV3-128   112x112x128 1,605,632 1600000       73,728
    CONV3-128   112x112x128 1,605,632 1600000      147,456
    POOL2       56x56x128     401,408  400000            0
    CONV3-256   56x56x256     802,816  800000      294,912
    CONV3-256   56x56x256     802,816  800000      589,824
    CONV3-256   56x56x256     802,816  800000      589,824
    POOL2       28x28x256     200,704  200000            0
    CONV3-512   28x28x512     401,408  400000    1,179,648
    CONV3-512   28x28x512     401,408  400000    2,359,296
    CONV3-512   28x28x512     401,408  400000    2,359,296
    POOL2       14x14x512     100,352  100000            0
    CONV3-512   14x14x512     100,352  100000    2,359,296
    CONV3-512   14x14x512     100,352  100000    2,359,296
    CONV3-512   14x14x512     100,352  100000    2,359,296
    POOL2       7x7x512        25,088   25000            0
    FC-4096     1x1x4096        4,096    4096  102,760,448
    FC-4096     1x1x4096        4,096    4096   16,777,216
    FC-1000     1x1x1000        1,000    1000    4,096,000
"""


def vgg16_axes() -> list[tuple[str, Axis]]:
    """Each layer's name and its window on one axis; the first fully connected layer is 7 wide, the others 1."""
    windows = {"CONV3": Axis(3, before=1, after=1), "POOL2": Axis(2, stride=2)}
    names = [row[0] for row in table(VGG16)][1:]
    fully_connected = iter((Axis(7), Axis(1), Axis(1)))
    return [(name, windows.get(name.split("-")[0]) or next(fully_connected)) for name in names]


def vgg16_layers() -> Iterator[tuple[tuple[int, ...], Cost, bool]]:
    """Each layer's output volume, its cost, and whether it learns."""
    size, channels = (224, 224), 3
    for name, axis in vgg16_axes():
        learns = name != "POOL2"
        geometry = Geometry((axis, axis), groups=1 if learns else channels)
        filters = int(name.split("-")[1]) if learns else channels
        layer = cost(geometry, channels, filters, size)
        size, channels = (axis.output_size(size[0]), axis.output_size(size[1])), filters
        yield (*size, channels), layer, learns


def test_cs231n_vgg16_row_by_row() -> None:
    """The page breaks of the translation hide two rows and half of a third; they stand here as in the original."""
    first, *printed = table(VGG16)
    assert prod(numbers(first[1])) == numbers(first[2])[0]
    for row, (volume, layer, learns) in zip(printed, vgg16_layers(), strict=True):
        learned = layer.parameters - volume[-1] if learns else 0
        assert (volume, prod(volume), learned) == (numbers(row[1]), *numbers(row[2]), *numbers(row[4]))
        assert isclose(prod(volume), int(row[3]), rel_tol=0.004)


def test_cs231n_vgg16_in_all() -> None:
    """Slips: "24M values, 93 MB" are printed as the total; the rows add up to 15.2 million, 58 MiB. And most work is
    said to be in the first layers: most values are, but of the multiply-adds the first two blocks have 30 %.

    The parameters are printed as 138M and as 140M; 138,344,128 are weights, with the biases there are 138,357,544.
    """
    values = [224 * 224 * 3, *(prod(volume) for volume, _, _ in vgg16_layers())]
    layers = [layer for _, layer, learns in vgg16_layers() if learns]
    learned, work = [layer.parameters for layer in layers], [layer.multiply_adds for layer in layers]
    assert (sum(values), round(4 * sum(values) / MIB, 1)) == (15_237_608, 58.1)
    assert (len(learned), sum(learned)) == (16, 138_357_544)
    assert sum(sum(numbers(row[4])) for row in table(VGG16)) == 138_344_128
    shares = [learned[13] / sum(learned), sum(values[1:6]) / sum(values), sum(work[:4]) / sum(work)]
    assert [round(share, 2) for share in shares] == [0.74, 0.68, 0.30]


# =========================================================================================================== book


def test_book_discrete_convolution() -> None:
    """The length is M + N - 1, and output i sums x[j] w[i - j]; in two axes each has its own such length."""
    m, n = 5, 3
    geometry = Geometry.window(1, n, padding="full", flip=True)
    assert geometry.output_size((m,)) == (m + n - 1,)
    for i in range(m + n - 1):
        pairs = [(w, j) for (w,), (j,) in window_at(geometry, (m,), (i,))]
        assert pairs == [(i - j, j) for j in range(m) if 0 <= i - j < n]
    assert Geometry.window(2, 5, padding="full").output_size((100, 200)) == (104, 204)


def test_book_sobel_finds_one_direction_each() -> None:
    k_x = numpy.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    k_y = numpy.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]])
    vertical_edge = numpy.array([[0, 0, 1, 1]] * 4)
    horizontal_edge = vertical_edge.T
    window = Geometry.window(2, 3)
    assert computed(window, vertical_edge, k_x) == [[4, 4], [4, 4]]
    assert computed(window, horizontal_edge, k_x) == [[0, 0], [0, 0]]
    assert computed(window, vertical_edge, k_y) == [[0, 0], [0, 0]]
    assert computed(window, horizontal_edge, k_y) == [[-4, -4], [-4, -4]]


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("d", [1, 4])
def test_book_width_after_d_layers(k: int, d: int) -> None:
    m = 32
    for word, width in (("valid", m - (k - 1) * d), ("same", m), ("full", m + (k - 1) * d)):
        size = m
        for _ in range(d):
            before, after = rows(word, k, 1, size)
            size = Axis(k, before=before, after=after).output_size(size)
        assert size == width


def test_book_how_often_each_input_is_read() -> None:
    """Slip: with "same", an inner input is said to influence all outputs; it influences k, and the outer ones fewer."""
    k, size = 3, 7
    read = {
        word: [sum(i == x for _, _, i in taps(Axis(k, before=before, after=after), size)) for x in range(size)]
        for word in ("valid", "same", "full")
        for before, after in [rows(word, k, 1, size)]
    }
    assert read == {"valid": [1, 2, 3, 3, 3, 2, 1], "same": [2, 3, 3, 3, 3, 3, 2], "full": [3, 3, 3, 3, 3, 3, 3]}
    assert counts(Axis(k, before=2, after=2), size) == (1, 2, 3, 3, 3, 3, 3, 2, 1)  # its outer outputs see less


def test_book_a_stride_skips_outputs_of_the_full_convolution() -> None:
    s = 3
    every = {(o, t, i) for o, t, i in taps(Axis(4), 20) if o % s == 0}
    assert {(o * s, t, i) for o, t, i in taps(Axis(4, stride=s), 20)} == every
    assert len(taps(Axis(4), 20)) == 17 * 4
    assert len(every) == 6 * 4


@pytest.mark.parametrize("s", [1, 2, 3])
def test_book_both_gradients_are_convolutions_for_every_stride(s: int) -> None:
    """Slip: for strides above 1 the kernel's gradient is said to be no convolution; it is one, of dilation s.

    Its own formulas: dJ/dK[m] sums G[j] V[j s + m] over j, and dJ/dV[j] sums G[j'] K[m'] over j' s + m' = j.
    """
    size, k = 11, 4
    forward = Geometry.window(1, k, stride=s)
    (outputs,) = forward.output_size((size,))
    of_kernel, of_input = weight_gradient(forward, (size,)), input_gradient(forward, (size,))
    assert (of_kernel.axes[0].stride, of_kernel.axes[0].dilation) == (1, s)
    for m in range(k):
        assert list(window_at(of_kernel, (size,), (m,))) == [((j,), (j * s + m,)) for j in range(outputs)]
    for j in range(size):
        terms = [((m,), (o,)) for o in range(outputs) for m in range(k) if o * s + m == j]
        assert sorted(window_at(of_input, (outputs,), (j,))) == sorted(terms)


def test_book_costs_of_a_convolution_and_of_a_pooling() -> None:
    c_i, c_o, w, h, w_k, h_k, s_w, s_h = 3, 8, 20, 31, 4, 3, 2, 3
    w_o, h_o = (w - w_k) // s_w + 1, (h - h_k) // s_h + 1
    layer = Geometry.window(2, (w_k, h_k), stride=(s_w, s_h))
    assert layer.output_size((w, h)) == (w_o, h_o)
    assert weights(layer, c_i, c_o) == c_i * w_k * h_k * c_o
    assert multiply_adds(layer, c_i, c_o, (w, h)) == c_i * w_k * h_k * c_o * w_o * h_o
    pooling = cost(layer, c_i, c_i, (w, h))
    assert pooling.output_bytes // 4 == c_i * w_o * h_o  # one maximum or mean for each output value


def test_book_fully_connected_against_convolution() -> None:
    """32x32 with a 2x2 kernel: 246 thousand times the parameters and 256 times the work."""
    c_i, c_o = 3, 5
    convolution, everything = Geometry.window(2, 2), Geometry.window(2, 32)
    (w_o, h_o) = convolution.output_size((32, 32))
    units = c_o * w_o * h_o  # as many outputs, each of which sees the whole picture
    assert weights(everything, c_i, units) / weights(convolution, c_i, c_o) == 32 * 32 * 31 * 31 / 4 == 246_016
    work = [multiply_adds(everything, c_i, units, (32, 32)), multiply_adds(convolution, c_i, c_o, (32, 32))]
    assert work[0] / work[1] == 32 * 32 / 4 == 256


def test_book_two_by_two_crops() -> None:
    """The figure is OverFeat's (Sermanet et al. 2014, figure 5): 14x14 gives one output, 16x16 gives four."""
    stack = (Axis(5), Axis(2, stride=2), Axis(5))
    assert receptive_field(stack) == ReceptiveField(size=14, jump=2, offset=0)
    assert Axis(14, stride=2).output_size(16) ** 2 == 4


def test_book_local_weights_have_six_indices() -> None:
    local = Geometry.window(2, 3, period=(6, 7))
    assert local.output_size((8, 9)) == (6, 7)
    assert local.weight_shape(4, 5) == (6, 7, 5, 4, 3, 3)


def test_book_tiled_weights() -> None:
    """Slips: t is called the number of kernels; along two axes there are t x t. And t equal to the *input* size is
    said to give a locally connected layer; the output size does."""
    shared, tiled = Geometry.window(2, 3), Geometry.window(2, 3, period=4)
    assert weights(tiled, 2, 5) == 4 * 4 * weights(shared, 2, 5)
    local = Geometry.window(2, 3, period=shared.output_size((8, 8)))
    assert local.period == (6, 6)
    assert weights(local, 2, 5) == prod(shared.output_size((8, 8))) * weights(shared, 2, 5)


@pytest.mark.parametrize(("period", "expected"), [(1, 5), (4, 4 * 4 * 5), (6, 6 * 6 * 5)])
def test_book_biases(period: int, expected: int) -> None:
    """Slip: biases are said to belong to input channels and input units; they belong to those of the output.

    Convolution has one for each output channel, tiled weights t x t of them, local weights one for each output value.
    """
    assert biases(Geometry.window(2, 3, period=period), 2, 5) == expected


@pytest.mark.parametrize("g", [2, 4])
def test_book_groups_divide_the_cost(g: int) -> None:
    whole, grouped = Geometry.window(2, 3), Geometry.window(2, 3, groups=g)
    assert weights(grouped, 8, 12) == g * 3 * 3 * (8 // g) * (12 // g) == weights(whole, 8, 12) // g
    assert multiply_adds(grouped, 8, 12, (9, 9)) == multiply_adds(whole, 8, 12, (9, 9)) // g


@pytest.mark.parametrize(("n", "k", "percent"), [(2, 5, 72), (5, 11, 37)])
def test_book_small_kernels_in_place_of_a_large_one(n: int, k: int, percent: int) -> None:
    assert k - 1 == n * (3 - 1)
    assert receptive_field([Axis(3)] * n).size == receptive_field([Axis(k)]).size
    assert round(100 * n * weights(Geometry.window(2, 3), 8, 8) / weights(Geometry.window(2, k), 8, 8)) == percent


def test_book_small_kernels_save_only_between_equal_channels() -> None:
    """Slip: both small layers are counted with C_I C_O weights; the second has C_O inputs. From 3 to 64 channels two
    layers of 3x3 have eight times the weights of one of 5x5, not 72 %."""
    small = Geometry.window(2, 3)
    two = weights(small, 3, 64) + weights(small, 64, 64)
    assert (two, weights(Geometry.window(2, 5), 3, 64)) == (38_592, 4_800)


def test_book_2x2_keeps_the_size_with_four_paddings() -> None:
    sides = [rows(word, 2, 1, None) for word in ("same", "same_lower")]
    assert sides == [(0, 1), (1, 0)]
    assert len(paddings := [(high, wide) for high in sides for wide in sides]) == 4
    assert {Geometry.window(2, 2, padding=padding).output_size((6, 7)) for padding in paddings} == {(6, 7)}
    assert receptive_field([Axis(1)] * 10).size == 1  # the reason given against 1x1


@pytest.mark.parametrize("n", [3, 7])
def test_book_asymmetric_kernels(n: int) -> None:
    flat, tall, square = Geometry.window(2, (1, n)), Geometry.window(2, (n, 1)), Geometry.window(2, n)
    assert Fraction(weights(flat, 6, 6) + weights(tall, 6, 6), weights(square, 6, 6)) == Fraction(2, n)
    for one, other, whole in zip(flat.axes, tall.axes, square.axes, strict=True):
        assert receptive_field([one, other]).size == receptive_field([whole]).size


def test_book_bottleneck() -> None:
    """Slip: the share of the weights is given as about 1 / C_O; at any usual width the other term is larger:
    1 / C_O + 2 / (W_K H_K sqrt(C_O)), for 256 channels and 3x3 4.6 times as much."""
    c, middle, area = 256, 16, 9
    point, window = Geometry.window(2, 1), Geometry.window(2, 3)
    three = weights(point, c, middle) + weights(window, middle, middle) + weights(point, middle, c)
    assert three == c * middle + area * c + c * middle == 10_496
    share = Fraction(three, weights(window, c, c))
    assert share == Fraction(1, c) + Fraction(2, area * middle)
    assert round(float(share * c), 1) == 4.6


def test_book_depthwise_then_pointwise() -> None:
    c_i, c_o = 32, 64
    depthwise, pointwise = Geometry.window(2, (3, 5), groups=c_i), Geometry.window(2, 1)
    separated = weights(depthwise, c_i, c_i) + weights(pointwise, c_i, c_o)
    assert separated == 3 * 5 * c_i + c_i * c_o
    assert Fraction(separated, weights(Geometry.window(2, (3, 5)), c_i, c_o)) == Fraction(1, c_o) + Fraction(1, 15)


def test_book_four_poolings_merge_sixteen_pixels() -> None:
    field = receptive_field([Axis(2, stride=2)] * 4)
    assert (field.size, field.jump) == (16, 16)


@pytest.mark.parametrize(
    ("holes", "kernel", "extent", "printed"), [(0, 3, 3, 4), (1, 3, 5, 7), (2, 3, 7, 10), (1, 5, 9, 11)]
)
def test_book_extent_of_a_dilated_kernel(holes: int, kernel: int, extent: int, printed: int) -> None:
    """Slip: with d holes the extent is said to be (d + 1) K + 1, with empty rows around; it is (d + 1)(K - 1) + 1,
    and the taps are at m (d + 1), without the "+ 1"."""
    axis = Axis(kernel, dilation=holes + 1)
    assert axis.extent == (holes + 1) * (kernel - 1) + 1 == extent
    assert (holes + 1) * kernel + 1 == printed
    assert [i for o, _, i in taps(axis, extent) if o == 0] == [m * (holes + 1) for m in range(kernel)]


# Three taps each: the rates, what the stack spans, and what it reads of that.
COVERAGES = [((2, 2, 2), 13, 7), ((2, 4, 6), 25, 13), ((1, 2, 5), 17, 17), ((1, 2, 5) * 2, 33, 33), ((1, 2, 9), 25, 21)]


@pytest.mark.parametrize(("rates", "span", "read"), COVERAGES)
def test_book_gridding(rates: tuple[int, ...], span: int, read: int) -> None:
    """A common divisor leaves gaps: 2, 2, 2 reads 7 of 13 and 2, 4, 6 reads 13 of 25; 1, 2, 5 reads all."""
    assert receptive_field(Axis(3, dilation=rate) for rate in rates).size == span
    assert dilated_coverage(rates) == (read, span)
    assert gcd(*rates) == 1 or read < span


@pytest.mark.parametrize(("rates", "span", "read"), [row for row in COVERAGES if len(row[0]) == 3])
def test_book_hybrid_dilation(rates: tuple[int, int, int], span: int, read: int) -> None:
    """Slip: the last rate is asked to be at most the kernel size, which 1, 2, 5 with 3x3, its good example, is not.

    The paper (Wang et al., "Understanding Convolution for Semantic Segmentation", 2018, section 3.2) bounds
    M_2 = max(r_3 - 2 r_2, 2 r_2 - r_3, r_2) by the kernel. That there is no common divisor is not enough: see 1, 2, 9.
    """
    _, r_2, r_3 = rates
    widest_gap = max(r_3 - 2 * r_2, 2 * r_2 - r_3, r_2)
    assert (widest_gap <= 3 and gcd(*rates) == 1) == (read == span)


@pytest.mark.parametrize(("w", "d", "whole", "separated"), [(5, 2, 25, 10), (5, 3, 125, 15), (3, 4, 81, 12)])
def test_book_separable_kernels(w: int, d: int, whole: int, separated: int) -> None:
    lines = [Geometry.window(d, tuple(w if axis == line else 1 for axis in range(d))) for line in range(d)]
    assert weights(Geometry.window(d, w), 1, 1) == w**d == whole
    assert sum(weights(line, 1, 1) for line in lines) == w * d == separated
