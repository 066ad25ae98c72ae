"""The blocks: their papers' numbers by hand, their laws, and gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from striate import blocks
from striate.errors import GeometryError
from striate.receptive_field import dilated_coverage, largest_gap

B = blocks
BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "depthwise": lambda axes: B.DepthwiseSeparable(4, multiplier=2, axes=axes),
    "separable": lambda axes: B.DepthwiseSeparable(4, 6, dilation=2, axes=axes),
    "mobile": lambda axes: B.DepthwiseSeparable(4, 6, stride=2, between=True, after=True, axes=axes),
    "shuffled": lambda axes: B.ShuffledGroupedConv(4, 8, 2, axes=axes),
    "shuffle unit": lambda axes: B.ShuffledGroupedConv(4, 8, 2, stride=2, depthwise=True, axes=axes),
    "squeeze": lambda axes: B.SqueezeExcite(4, 2),
    "sizes": lambda axes: B.MultiSize(4, 2, axes=axes),
    "inception": lambda axes: B.Inception(4, 2, (2, 3), (1, 2), 1, axes=axes),
    "bottleneck": lambda axes: B.Bottleneck(4, 2, 6, stride=2, axes=axes),
    "stacked": lambda axes: B.Stacked3x3(4, 6, 5, axes=axes),
    "factorized": lambda axes: B.Factorized(4, 6, 3, activation=nn.Tanh, axes=axes),
    "hybrid": lambda axes: B.HybridDilated(4, 2, axes=axes),
    "residual": lambda axes: B.Residual(4, axes=axes),
    "residual down": lambda axes: B.Residual(4, 6, stride=2, axes=axes),
    "residual, before": lambda axes: B.Residual(4, 6, preactivation=True, axes=axes),
    "rotation": lambda axes: B.RotationPool(4, 6, 3, angles=(0, 30, 90), axes=axes),
}  # fmt: skip
CHANNELS = {"depthwise": 8, "separable": 6, "mobile": 6, "squeeze": 4, "inception": 8, "hybrid": 2, "residual": 4,
            "shuffled": 8, "shuffle unit": 8}  # fmt: skip
HALVED = {"mobile", "shuffle unit", "bottleneck", "residual down"}


def built(name: str, axes: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return BLOCKS[name](axes)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def picture(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------------------- all blocks


@pytest.mark.parametrize(
    ("name", "axes"), [(name, axes) for name in BLOCKS for axes in (1, 2, 3) if (name, axes) != ("rotation", 1)]
)
def test_shapes(name: str, axes: int) -> None:
    size = (7, 6, 5)[:axes]
    y = built(name, axes)(picture(2, 4, *size, dtype=torch.float32))
    assert y.shape == (2, CHANNELS.get(name, 6), *(-(-n // 2) if name in HALVED else n for n in size))


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_are_the_derivatives(name: str) -> None:
    block = built(name, 2).double().eval()
    x = picture(1, 4, 4, 3).requires_grad_()
    parameters = [p.detach().requires_grad_() for p in block.parameters()]

    def function(x: Tensor, *parameters: Tensor) -> Any:
        named = dict(zip((n for n, _ in block.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(block, named, (x,))

    assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function")
@pytest.mark.parametrize("name", ["mobile", "shuffled", "squeeze", "inception", "hybrid", "residual down", "rotation"])
def test_compiles_into_one_graph(name: str) -> None:
    block = built(name, 2).eval()
    torch._dynamo.reset()
    x = picture(2, 4, 7, 6, dtype=torch.float32)
    torch.testing.assert_close(torch.compile(block, fullgraph=True, backend="eager")(x), block(x))


@pytest.mark.parametrize("name", BLOCKS)
def test_state_dicts_carry_everything(name: str) -> None:
    first, second = built(name, 2).eval(), built(name, 2, seed=1).eval()
    assert second.load_state_dict(first.state_dict(), strict=True) == ([], [])
    x = picture(1, 4, 6, 5, dtype=torch.float32)
    same(second(x), first(x))


@pytest.mark.parametrize("axes", [0, 4])
def test_axes_that_no_block_has(axes: int) -> None:
    for name in ("separable", "shuffled", "sizes", "inception", "bottleneck", "stacked", "hybrid", "residual"):
        with pytest.raises(GeometryError) as caught:
            BLOCKS[name](axes)
        assert str(caught.value) == f"blocks have 1, 2 or 3 spatial axes, got axes={axes}."


def refusal(function: Callable[[], Any]) -> str:
    with pytest.raises(GeometryError) as caught:
        function()
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ depthwise, shuffled


def test_depthwise_separable_parameters() -> None:
    """W K C + C O of the notes: 1 / O + 1 / (W K) of a convolution's."""
    assert count(B.DepthwiseSeparable(32, bias=False)) == 9 * 32
    assert count(B.DepthwiseSeparable(32, multiplier=2)) == 9 * 64 + 64
    assert count(B.DepthwiseSeparable(32, 64, bias=False)) == 9 * 32 + 32 * 64
    assert count(B.DepthwiseSeparable(32, 64)) == 9 * 32 + 32 + 32 * 64 + 64
    assert count(B.DepthwiseSeparable(32, 64, between=True)) == 9 * 32 + 2 * 32 + 32 * 64 + 64
    assert count(B.DepthwiseSeparable(32, 64, between=True, after=True)) == 9 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert list(dict(B.DepthwiseSeparable(4, 6, between=True, after=True).named_children())) == [
        "depthwise", "norm", "activation", "pointwise", "last_norm", "last_activation",
    ]  # fmt: skip


def test_depthwise_channels_do_not_mix_and_pointwise_mixes_them() -> None:
    x = torch.zeros(1, 4, 5, 5)
    x[:, 2] = 1
    assert (B.DepthwiseSeparable(4, bias=False)(x).flatten(2).abs().sum(2) > 0).tolist() == [
        [False, False, True, False]
    ]
    assert (B.DepthwiseSeparable(4, 3, bias=False)(x).flatten(2).abs().sum(2) > 0).all()


def test_depthwise_refusal() -> None:
    assert refusal(lambda: B.DepthwiseSeparable(4, after=True)) == (
        "DepthwiseSeparable: after=True belongs to the pointwise convolution, which out_channels=None leaves out; "
        "give out_channels, or between=True."
    )


def test_channel_shuffle_is_torch_s_and_a_permutation() -> None:
    x = picture(2, 12, 3, 2)
    for groups in (1, 2, 3, 4, 6, 12):
        same(B.channel_shuffle(x, groups), nn.ChannelShuffle(groups)(x))
        same(B.ChannelShuffle(12 // groups)(B.ChannelShuffle(groups)(x)), x)
    assert repr(B.ChannelShuffle(3)) == "ChannelShuffle(3)"


@pytest.mark.parametrize("groups", [0, 5, 2.0])
def test_groups_that_do_not_divide(groups: Any) -> None:
    assert refusal(lambda: B.channel_shuffle(torch.zeros(1, 12, 2), groups)) == (
        f"channel_shuffle: groups={groups} does not divide the 12 channels of x."
    )
    assert refusal(lambda: B.channel_shuffle(torch.zeros(12), 2)) == (
        "channel_shuffle: x must be (N, C, ...), got shape (12,)."
    )


@pytest.mark.parametrize("depthwise", [False, True])
def test_the_shuffle_lets_every_output_see_every_channel(depthwise: bool) -> None:
    block = B.ShuffledGroupedConv(8, 16, 4, depthwise=depthwise, bias=False).double()
    for parameter in block.parameters():
        nn.init.ones_(parameter)
    unshuffled = nn.Sequential(*(part for part in block if not isinstance(part, B.ChannelShuffle)))
    seen, blind = [], []
    for channel in range(8):
        x = torch.zeros(1, 8, 5, 5, dtype=torch.float64)
        x[:, channel] = 1
        seen.append(int((block(x).amax((2, 3)) > 0).sum()))
        blind.append(int((unshuffled(x).amax((2, 3)) > 0).sum()))
    assert (seen, blind) == ([16] * 8, [4] * 8)
    parameters = (8 * 16 + 16 * 16) // 4 + 16 * 9 if depthwise else (8 * 16 + 16 * 16) * 9 // 4
    assert count(block) == parameters


# ----------------------------------------------------------------------------------- squeeze-excite, sizes, bottleneck


def test_squeeze_excite_by_hand() -> None:
    block = B.SqueezeExcite(2, reduction=1)
    with torch.no_grad():
        block.reduce.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        block.expand.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 5.0]]))
        block.reduce.bias.zero_()
        block.expand.bias.zero_()
    x = torch.tensor([[[2.0, 4.0], [1.0, 1.0]]])
    weights = torch.sigmoid(torch.tensor([3.0, 0.0]))  # the second mean, 1, is turned to -1 and cut off
    torch.testing.assert_close(block(x), x * weights.view(1, 2, 1))
    # SE-ResNet-50's first stage: 2 * 256 * 16 weights and 16 + 256 biases
    assert count(B.SqueezeExcite(256)) == 2 * 256 * 16 + 16 + 256
    assert count(B.SqueezeExcite(8)) == 8 + 1 + 8 + 8


def test_squeeze_excite_refusals() -> None:
    assert refusal(lambda: B.SqueezeExcite(8, 0)) == (
        "SqueezeExcite: reduction must be a whole number of at least 1, got reduction=0."
    )
    for shape in ((2, 8), (2, 7, 3)):
        assert refusal(lambda shape=shape: B.SqueezeExcite(8)(torch.zeros(shape))) == (  # type: ignore[misc]
            f"SqueezeExcite takes (N, 8, *spatial), got shape {shape}."
        )


def test_multi_size_concatenates_plain_convolutions() -> None:
    block = B.MultiSize(4, (2, 3, 1), (1, 3, 5), stride=2)
    x = picture(2, 4, 9, 8, dtype=torch.float32)
    same(block(x), torch.cat([branch(x) for branch in (block.branch1, block.branch2, block.branch3)], 1))  # type: ignore[operator]
    assert refusal(lambda: B.MultiSize(4, (2, 3), (1, 3, 5))) == (
        "MultiSize: out_channels=(2, 3) and kernel_sizes=(1, 3, 5) do not fit; "
        "give one number of channels for each of one or more kernel sizes."
    )


@pytest.mark.parametrize(("numbers", "outputs", "parameters"), [
    ((192, 64, (96, 128), (16, 32), 32), 256, 163_696),
    ((256, 128, (128, 192), (32, 96), 64), 480, 388_736),
])  # fmt: skip
def test_inception_3a_and_3b_of_googlenet(numbers: Any, outputs: int, parameters: int) -> None:
    block = B.Inception(*numbers)
    c, n1, (r3, n3), (r5, n5), pool = numbers
    by_hand = c * n1 + c * r3 + 9 * r3 * n3 + c * r5 + 25 * r5 * n5 + c * pool + n1 + r3 + n3 + r5 + n5 + pool
    assert (count(block), by_hand, n1 + n3 + n5 + pool) == (parameters, parameters, outputs)
    assert block(torch.zeros(1, c, 4, 4)).shape == (1, outputs, 4, 4)


def test_inception_branches_are_non_negative() -> None:
    y = B.Inception(4, 2, (2, 3), (1, 2), 1)(picture(1, 4, 6, 6, dtype=torch.float32))
    assert (y >= 0).all()


def test_bottleneck_parameters() -> None:
    """ResNet-50's: 256 -> 64 -> 64 -> 256, 69,632 weights; the notes' sqrt(C) formula at C = 256."""
    assert count(B.Bottleneck(256, 64, 256, bias=False)) == 256 * 64 + 9 * 64**2 + 64 * 256 == 69_632
    assert count(B.Bottleneck(256, 16, 256, bias=False)) == 256 * 16 + 9 * 256 + 256 * 16
    assert count(B.Bottleneck(8, 2, 4)) == 8 * 2 + 2 + 4 * 9 + 2 + 2 * 4 + 4
    assert [type(part).__name__ for part in B.Bottleneck(4, 2, 4)] == ["Conv2d", "ReLU", "Conv2d", "ReLU", "Conv2d"]
    assert len(B.Bottleneck(4, 2, 4, activation=None)) == 3


# --------------------------------------------------------------------------------------------------- smaller kernels


@pytest.mark.parametrize(("kernel", "share"), [(5, 0.72), (7, 27 / 49), (11, 45 / 121)])
def test_stacked_3x3_has_the_notes_share_of_the_weights(kernel: int, share: float) -> None:
    block = B.Stacked3x3(8, 8, kernel, bias=False)
    assert count(block) == pytest.approx(share * 64 * kernel**2)
    assert count(B.Stacked3x3(4, 6, kernel, hidden=2, bias=False)) == 9 * (8 + 4 * ((kernel - 1) // 2 - 2) + 12)


def dense_kernel(block: nn.Module, kernel: tuple[int, int]) -> Tensor:
    """The one kernel of a linear stack, ``(O, C, *kernel)``: its answers to impulses, turned around."""
    impulse = torch.zeros(4, 4, *(2 * k - 1 for k in kernel), dtype=torch.float64)
    for channel in range(4):
        impulse[channel, channel, kernel[0] - 1, kernel[1] - 1] = 1
    answer: Tensor = block(impulse)
    return answer.transpose(0, 1).flip(2, 3)


@pytest.mark.parametrize("make", [
    lambda: B.Stacked3x3(4, 6, 5, activation=None, padding="valid", bias=False),
    lambda: B.Factorized(4, 6, 5, padding="valid", bias=False),
])  # fmt: skip
def test_without_activation_a_stack_is_one_large_convolution(make: Callable[[], nn.Module]) -> None:
    block = make().double()
    x = picture(2, 4, 9, 8)
    torch.testing.assert_close(block(x), nn.functional.conv2d(x, dense_kernel(block, (5, 5))))


def test_factorized_kernels_are_separable_and_have_two_nths_of_the_weights() -> None:
    assert count(B.Factorized(8, 8, 7, bias=False)) == 2 * 7 * 64
    assert count(B.Factorized(8, 8, 5, bias=False, axes=3)) == 3 * 5 * 64
    assert [tuple(p.shape[2:]) for p in B.Factorized(2, 2, 5, bias=False, axes=3).parameters()] == [
        (1, 1, 5), (1, 5, 1), (5, 1, 1),
    ]  # fmt: skip
    kernel = dense_kernel(B.Factorized(4, 6, 5, hidden=1, padding="valid", bias=False).double(), (5, 5))
    assert torch.linalg.matrix_rank(kernel).tolist() == [[1] * 4] * 6


@pytest.mark.parametrize("kernel", [1, 2, 4, -3, 3.0, (5, 5)])
def test_kernels_that_do_not_stack(kernel: Any) -> None:
    assert refusal(lambda: B.Stacked3x3(4, 4, kernel)) == (
        "Stacked3x3: d windows of 3 span 2 * d + 1 inputs, so that kernel_size must be odd and at least 3; "
        f"got kernel_size={kernel}."
    )


# ----------------------------------------------------------------------------------------------------- hybrid dilated


@pytest.mark.parametrize("rates", [(1, 2, 5), (2, 2, 2), (2, 4, 6), (1, 2, 9), (1,), (1, 2, 5, 1, 2, 5), (3, 4)])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_coverage_is_what_gradients_reach(rates: tuple[int, ...], kernel: int) -> None:
    spanned = 1 + (kernel - 1) * sum(rates)
    block = B.HybridDilated(1, 1, rates, kernel, activation=None, bias=False, allow_common_divisor=True, axes=1)
    for parameter in block.parameters():
        nn.init.ones_(parameter)
    x = torch.zeros(1, 1, 2 * spanned + 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x)[0, 0, spanned], x)
    reached = gradient[0, 0].nonzero()
    assert block.coverage == (len(reached), spanned)
    assert int(reached.max() - reached.min()) + 1 == spanned


@pytest.mark.parametrize(("rates", "gap"), [((1, 2, 5), 2), ((1, 2, 9), 5), ((1, 2, 3), 2), ((2, 2, 2), 2), ((4,), 4)])
def test_the_paper_s_criterion(rates: tuple[int, ...], gap: int) -> None:
    assert largest_gap(rates) == gap


@pytest.mark.parametrize("rates", list(itertools.product((1,), (1, 2, 3, 5, 9), (2, 3, 5, 9))))
def test_the_criterion_with_a_dense_first_layer_promises_full_coverage(rates: tuple[int, ...]) -> None:
    """``M_2 <= 3`` from a first rate of 1 leaves no holes."""
    read, spanned = dilated_coverage(rates)
    assert largest_gap(rates) > 3 or read == spanned


def test_rates_with_a_common_divisor_are_refused() -> None:
    assert refusal(lambda: B.HybridDilated(4, 4, (2, 4, 6))) == (
        "HybridDilated: rates (2, 4, 6) have the common divisor 2: one output would read 13 of the 25 positions "
        "that it spans on each axis, 27% of the pixels, and never the others. "
        "Use rates like (1, 2, 5), or say allow_common_divisor=True."
    )
    assert B.HybridDilated(4, 4, (2, 4, 6), allow_common_divisor=True).coverage == (13, 25)
    assert refusal(lambda: B.HybridDilated(4, 4, [3], axes=1)).startswith(
        "HybridDilated: rates (3,) have the common divisor 3: one output would read 3 of the 7 positions that it spans "
        "on each axis, 43% of the pixels"
    )
    for rates in ((), (0, 1)):
        assert refusal(lambda rates=rates: B.HybridDilated(4, 4, rates)) == (  # type: ignore[misc]
            f"HybridDilated: rates must be one or more numbers of at least 1, got {rates}."
        )


# ----------------------------------------------------------------------------------------------------------- residual


def test_residual_parameters_are_resnet_18_s() -> None:
    assert count(B.Residual(64)) == 2 * 9 * 64**2 + 2 * 2 * 64 == 73_984
    assert count(B.Residual(64, 128, stride=2)) == 9 * 64 * 128 + 9 * 128**2 + 64 * 128 + 3 * 2 * 128 == 230_144
    assert count(B.Residual(64, 128, preactivation=True)) == 9 * 64 * 128 + 9 * 128**2 + 64 * 128 + 2 * 64 + 2 * 128


def test_residual_is_its_formula() -> None:
    block = B.Residual(3, 5, stride=2).train()
    x = picture(4, 3, 7, 6, dtype=torch.float32)
    conv1 = nn.functional.conv2d(x, block.conv1.weight, stride=2, padding=1)
    inner = nn.functional.conv2d(
        nn.functional.batch_norm(conv1, None, None, training=True).relu(), block.conv2.weight, padding=1
    )
    short = nn.functional.conv2d(x, block.shortcut.get_parameter("0.weight"), stride=2)
    normed = [nn.functional.batch_norm(y, None, None, training=True) for y in (inner, short)]
    expected = (normed[0] + normed[1]).relu()
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("preactivation", [False, True])
def test_zero_init_begins_as_the_identity_and_learns(preactivation: bool) -> None:
    block = B.Residual(4, preactivation=preactivation, zero_init=True)
    x = picture(2, 4, 5, 5, dtype=torch.float32)
    same(block(x), x if preactivation else x.relu())
    block(x).square().sum().backward()
    last = block.conv2.weight if preactivation else block.norm2.weight
    assert isinstance(last, Tensor)
    assert last.grad is not None
    assert last.grad.any()


def test_the_strided_branch_lines_up_with_the_shortcut() -> None:
    """An impulse at an even position is the centre of a window of both."""
    block = B.Residual(1, 1, stride=2, axes=1).eval()
    x = torch.zeros(1, 1, 8)
    x[..., 4] = 1
    nn.init.constant_(block.conv1.weight, 0)
    block.conv1.weight.data[..., 1] = 1
    same((block.conv1(x) != 0).nonzero(), (block.shortcut(x) != 0).nonzero())


def test_even_kernels_are_refused() -> None:
    for kernel in (2, (3, 3)):
        assert refusal(lambda kernel=kernel: B.Residual(4, kernel_size=kernel)) == (  # type: ignore[misc]
            f"Residual: kernel_size must be odd, so that branch and shortcut line up; got {kernel}."
        )


# ----------------------------------------------------------------------------------------------------------- rotation


def rotation(**options: Any) -> B.RotationPool:
    torch.manual_seed(0)
    block = B.RotationPool(2, 3, **{"kernel_size": 3, **options}).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randint(-4, 5, parameter.shape))
    return block


@pytest.mark.parametrize("options", [{}, {"kernel_size": 5}, {"padding": 0}, {"padding": 2, "bias": False}], ids=str)
@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_turning_the_input_turns_the_output_bit_for_bit(turns: int, options: dict[str, Any]) -> None:
    block = rotation(**options)
    x = torch.randint(-5, 6, (2, 2, 7, 7), generator=torch.Generator().manual_seed(1)).double()
    same(block(x.rot90(turns, (-2, -1))), block(x).rot90(turns, (-2, -1)))


def test_rotation_over_three_axes_turns_the_last_two() -> None:
    block = rotation(axes=3)
    x = torch.randint(-5, 6, (1, 2, 3, 5, 5), generator=torch.Generator().manual_seed(1)).double()
    same(block(x.rot90(1, (-2, -1))), block(x).rot90(1, (-2, -1)))


def test_rotation_is_the_maximum_over_plain_convolutions() -> None:
    block, x = rotation(angles=(0, 90)), picture(1, 2, 6, 5)
    weight, bias = block.bank.weight, block.bank.bias
    each = [nn.functional.conv2d(x, w, bias, padding=1) for w in (weight, weight.rot90(1, (-2, -1)))]
    torch.testing.assert_close(block(x), torch.maximum(*each))
    torch.testing.assert_close(block(x[0]), torch.maximum(*each)[0])
    assert count(block) == 3 * 2 * 9 + 3
    assert list(block.state_dict()) == ["bank.weight", "bank.bias"]
    grouped, x = B.RotationPool(4, 6, 3, groups=2).double(), picture(1, 4, 5, 5)
    each = [
        nn.functional.conv2d(x, grouped.bank.weight.rot90(k, (-2, -1)), grouped.bank.bias, padding=1, groups=2)
        for k in range(4)
    ]
    torch.testing.assert_close(grouped(x), torch.stack(each).amax(0))


def test_angles_between_are_bilinear() -> None:
    """By 45 degrees the top middle tap is read from (1, -1) / sqrt(2) off the centre, towards the top right."""
    block = rotation(angles=(45, 135, -45, 405), bias=False)
    turned = block.rotated()
    weight, side = block.bank.weight, 0.5**0.5
    inner, outer = 1 - side, side
    expected = (
        inner * inner * weight[..., 1, 1] + inner * outer * (weight[..., 0, 1] + weight[..., 1, 2])
        + outer * outer * weight[..., 0, 2]
    )  # fmt: skip
    torch.testing.assert_close(turned[:, 0, ..., 0, 1], expected)
    torch.testing.assert_close(turned[..., 1, 1], weight[:, None, :, 1, 1].expand(-1, 4, -1))
    torch.testing.assert_close(turned[:, 1], turned[:, 0].rot90(1, (-2, -1)))
    torch.testing.assert_close(turned[:, 2], turned[:, 0].rot90(-1, (-2, -1)))
    torch.testing.assert_close(turned[:, 3], turned[:, 0])


def test_rotation_refusals() -> None:
    assert refusal(lambda: B.RotationPool(2, 3, 3, axes=1)) == (
        "RotationPool: a rotation needs a plane, that of the last 2 of 2 or 3 axes; got 1."
    )
    for angles in ((), (0, float("nan")), ("90",)):
        assert refusal(lambda angles=angles: B.RotationPool(2, 3, 3, angles)) == (  # type: ignore[misc]
            f"RotationPool: angles must be one or more finite numbers of degrees, got {angles}."
        )
    assert refusal(lambda: B.RotationPool(2, 3, (3, 3))) == (  # type: ignore[arg-type]
        "RotationPool: kernel_size must be one whole number, got (3, 3)."
    )


@pytest.mark.parametrize(
    "block",
    [
        blocks.ShuffledGroupedConv(8, 8, 4),
        blocks.MultiSize(8, 2),
        blocks.Inception(8, 2, (2, 2), (2, 2), 2),
        blocks.Residual(8),
    ],
    ids=lambda block: type(block).__name__,
)
def test_an_example_without_a_batch_is_refused(block: nn.Module) -> None:
    with pytest.raises(GeometryError) as caught:
        block(torch.ones(8, 12, 12))
    assert str(caught.value) == (
        f"{type(block).__name__} needs 4 dimensions, (N, C, *spatial); got shape (8, 12, 12). "
        "One example without a batch is x.unsqueeze(0)."
    )


def test_a_rotation_pool_keeps_its_angles_through_fewer_digits_and_back() -> None:
    """Whole weights survive float16, and so must the turning."""
    block = blocks.RotationPool(2, 3, 3, angles=(30, 45)).double()
    with torch.no_grad():
        block.bank.weight.copy_(torch.arange(54.0).view(3, 2, 3, 3))
    before = block.rotated()
    assert block.half().rotated().dtype == torch.float16
    assert block.double().rotated().equal(before)
