"""Ragged batches: whatever the sizes and the method, each image's output is the one it gets alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import striate
from striate import batches, blocks, ragged
from striate.batches import FEW
from striate.errors import GeometryError, OptionError, UnknownNameError

SIZES = [(9, 12), (14, 8), (9, 12), (11, 11), (8, 15), (13, 13), (10, 9)]


def images(
    sizes: Sequence[tuple[int, ...]] = SIZES, channels: int = 3, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(-4, 5, (channels, *size), generator=generator).to(dtype) for size in sizes]


def whole(network: nn.Module) -> nn.Module:
    """Small whole numbers as weights and statistics that divide exactly: every sum is exact in float64."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                module.eps = 0.0
                module.running_var.fill_(4)  # type: ignore[union-attr]
                module.running_mean.fill_(3)  # type: ignore[union-attr]
        for parameter in network.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape, generator=generator))
    return network.double().eval()


def alone(network: nn.Module, pictures: list[Tensor]) -> list[Tensor]:
    return [network(picture.unsqueeze(0))[0] for picture in pictures]


def same(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=0)


def head(channels: int) -> list[nn.Module]:
    return [striate.nn.AdaptiveMaxPool2d((2, 1)), nn.Flatten(), nn.Linear(2 * channels, 5)]


S = striate.nn
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "padded": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sigmoid(), nn.ReLU()),
    "valid, ours": lambda: nn.Sequential(S.Conv2d(3, 4, (3, 2)), nn.ReLU(), S.Conv2d(4, 2, 2, dilation=2)),
    "biased zeros": lambda: nn.Sequential(S.Conv2d(3, 4, 3, padding=2), nn.ELU(), S.Conv2d(4, 2, 3, padding="same")),
    "strides": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 2, groups=2)),
    "same with stride": lambda: nn.Sequential(
        S.Conv2d(3, 4, 4, stride=3, padding="same"), nn.ReLU(), S.Conv2d(4, 2, 3, stride=2, padding="same_lower")
    ),
    "full, causal, pairs": lambda: nn.Sequential(
        S.Conv2d(3, 2, 3, padding="full"),
        S.Conv2d(2, 2, 3, padding="causal"),
        S.Conv2d(2, 2, 2, padding=((0, 3), (1, 0))),
    ),
    "max pools": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.Tanh(), nn.MaxPool2d(2, ceil_mode=True)
    ),
    "our max pools": lambda: nn.Sequential(
        S.Conv2d(3, 4, 3), S.MaxPool2d(3, stride=2, padding="same"), S.MaxPool2d(2, 1, padding=1, dilation=2)
    ),
    "mean pools": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.AvgPool2d(3, 2, 1)
    ),
    "real means": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(2, divisor_override=4)
    ),
    "our means": lambda: nn.Sequential(S.AvgPool2d(3, 2, "same", count_include_pad=False)),
    "ceil means": lambda: nn.Sequential(S.AvgPool2d(3, 2, 1, ceil_mode=True), nn.Identity()),
    "normalized": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 4, 3, padding=1)
    ),
    "classifier": lambda: nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)), nn.Conv2d(4, 6, 3), *head(6)
    ),
    "fully connected": lambda: nn.Sequential(
        S.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(2), S.FullyConnected(16, 6), nn.ReLU(), nn.Linear(6, 3)
    ),
    "kept axis": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d((2, None)), nn.Conv2d(4, 2, 2)),
    "blocks": lambda: nn.Sequential(
        blocks.DepthwiseSeparable(3, 8, stride=2, between=True, after=True), blocks.Stacked3x3(8, 4, 5)
    ),
    "notation": lambda: striate.network("INPUT 3x12x12 -> CONV 3x3x4 stride=2 -> RELU -> POOL -> CONV 3x3x2"),
}  # fmt: skip


@pytest.mark.parametrize("method", ["group", "mask", "auto"])
@pytest.mark.parametrize("name", NETWORKS)
def test_each_image_as_if_alone_bit_for_bit(name: str, method: str) -> None:
    network, pictures = whole(NETWORKS[name]()), images()
    with torch.no_grad():
        same(ragged(network, pictures, method=method), alone(network, pictures))


@pytest.mark.parametrize("axes", [1, 3])
def test_other_numbers_of_axes(axes: int) -> None:
    conv, pool, adaptive = (getattr(nn, f"{kind}{axes}d") for kind in ("Conv", "MaxPool", "AdaptiveMaxPool"))
    network = whole(nn.Sequential(conv(2, 3, 3, 2, 1), nn.ReLU(), pool(2), adaptive(1), nn.Flatten(), nn.Linear(3, 2)))
    pictures = images([(9,) * axes, (6,) * axes, (12, 7, 8)[:axes]], 2)
    same(ragged(network, pictures, method="mask"), alone(network, pictures))
    same(ragged(network, pictures, method="group"), alone(network, pictures))


@pytest.mark.parametrize("method", ["group", "mask"])
def test_gradients(method: str) -> None:
    network, pictures = whole(NETWORKS["classifier"]()), images()
    leaves = [[p.clone().requires_grad_() for p in pictures] for _ in range(2)]
    results: list[list[Any]] = []
    for inputs in leaves:
        outputs = alone(network, inputs) if results else ragged(network, inputs, method=method)
        network.zero_grad()
        torch.stack([y.square().sum() for y in outputs]).sum().backward()
        results.append([*(p.grad for p in network.parameters()), *(x.grad for x in inputs)])
    same(*results)


@pytest.mark.parametrize("method", ["group", "mask"])
@pytest.mark.parametrize("name", ["classifier", "real means", "our means", "normalized", "same with stride"])
def test_close_in_float32(name: str, method: str, close: Any) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    pictures = [torch.randn(3, *size, generator=torch.Generator().manual_seed(3)) for size in SIZES]
    for actual, expected in zip(ragged(network, pictures, method=method), alone(network, pictures), strict=True):
        close(actual, expected)


def test_what_lies_outside_cannot_leak_in() -> None:
    """exp(large) beside a small image is infinite; infinity times 0 is not a number."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Softplus(), nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2))
    with torch.no_grad():
        network[0].bias.fill_(float("inf"))  # type: ignore[operator]
        network[0].weight.fill_(1)  # type: ignore[operator]
    pictures = [torch.full((1, 4, 6), -float("inf")), torch.zeros(1, 6, 4)]
    same([y.isnan() for y in ragged(network, pictures, method="mask")], [y.isnan() for y in alone(network, pictures)])


def test_a_proportional_pooling_takes_any_size() -> None:
    network = whole(nn.Sequential(nn.Conv2d(3, 4, 3), S.AdaptiveAvgPool2d(1), S.FullyConnected(4, 2)))
    outputs = ragged(network, images([(3, 3), (30, 4), (5, 50)]))
    assert [y.shape for y in outputs] == [(2,)] * 3


class Counting(nn.Module):
    """A network that is no chain, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.conv(x).relu() + 1


def calls(sizes: Sequence[tuple[int, ...]], **options: Any) -> int:
    """How often the network was run."""
    counting = Counting()
    ragged(counting, images(sizes, dtype=torch.float32), **options)
    return counting.calls


def test_group_runs_once_per_size() -> None:
    assert calls(SIZES) == 6
    assert calls([(5, 5)] * 4) == 1


def noting(chosen: list[str], name: str) -> Callable[..., Any]:
    real = getattr(batches, name)

    def noted(*arguments: Any) -> Any:
        chosen.append(name)
        return real(*arguments)

    return noted


def test_auto_masks_many_sizes_of_a_chain_and_groups_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    for name in ("_masked", "_grouped"):
        monkeypatch.setattr(batches, name, noting(chosen, name))
    chain = nn.Sequential(nn.Conv2d(3, 2, 3)).double()
    many = [(9 + n, 9) for n in range(FEW + 1)]
    ragged(chain, images(many))
    ragged(chain, images(many[:FEW]))
    ragged(chain, images([*many, (40, 40)]))
    ragged(Counting().double(), images(many))
    flat = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()).double()
    outputs = ragged(flat, images(many))
    assert chosen == ["_masked", "_grouped", "_grouped", "_grouped", "_masked", "_grouped"]
    assert [len(y) for y in outputs] == [2 * (7 + n) * 7 for n in range(FEW + 1)]


def test_a_parametrized_layer_is_masked_and_another_forward_is_not() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3))
    torch.nn.utils.parametrizations.weight_norm(network[0])
    pictures = images(dtype=torch.float32)
    for actual, expected in zip(ragged(network, pictures, method="mask"), alone(network, pictures), strict=True):
        torch.testing.assert_close(actual, expected)

    class Doubled(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    with pytest.raises(OptionError, match="layer '0' \\(Doubled\\) is no layer that can be masked"):
        ragged(nn.Sequential(Doubled(3, 2, 3)), pictures, method="mask")


# ------------------------------------------------------------------------------------------------------------- refusals


def refusal(network: nn.Module, pictures: Any, **options: Any) -> str:
    with pytest.raises((GeometryError, OptionError)) as caught:
        ragged(network, pictures, **options)
    return str(caught.value)


CONV = nn.Conv2d(3, 2, 3)


def test_images_that_do_not_go_together() -> None:
    good = torch.zeros(3, 5, 5)
    assert refusal(CONV, []) == "ragged: there are no images; give a list of one or more tensors (C, *spatial)."
    assert refusal(CONV, [good, [1, 2]]) == "ragged: image 1 is a list, not a tensor; give torch.as_tensor(image)."
    assert refusal(CONV, [torch.zeros(3)]) == "ragged: image 0 has shape (3,); it must be (C, *spatial)."
    assert refusal(CONV, [good, good, torch.zeros(1, 5, 5)]) == (
        "ragged: image 2 has shape (1, 5, 5), but image 0 has (3, 5, 5); "
        "only spatial sizes may differ, not the number of channels or axes."
    )
    assert refusal(CONV, [good, good.double()]) == (
        "ragged: image 1 is torch.float64 on cpu, but image 0 is torch.float32 on cpu; "
        "convert one, as in image.to(images[0])."
    )
    with pytest.raises(UnknownNameError) as caught:
        ragged(CONV, [good], method="masked")
    assert str(caught.value) == "No method is called 'masked'. Did you mean 'mask'? Known: auto, group, mask."


def test_an_image_that_is_too_small_is_named_with_the_layer() -> None:
    network = nn.Sequential(S.Conv2d(3, 2, 3), S.MaxPool2d(2), S.Conv2d(2, 2, 3))
    pictures = images([(9, 9), (5, 9), (9, 9)], dtype=torch.float32)
    assert refusal(network, pictures, method="mask") == (
        "ragged: image 1 reaches layer '2' (Conv2d) as (2, 1, 3): On spatial axis 0: the window spans 3 inputs "
        "(kernel=3, dilation=1), but input and padding have 1 + 0 + 0 = 1; "
        "give a larger input, more padding or a smaller kernel."
    )
    assert refusal(network, pictures, method="group").startswith(
        "ragged: image 1 of shape (3, 5, 9), at layer '2' (Conv2d): conv of x (1, 2, 1, 3) with weight (2, 2, 3, 3): "
    )
    pooled = nn.Sequential(S.Conv2d(3, 2, 3), S.MaxPool2d(4))
    assert refusal(pooled, pictures, method="mask").startswith(
        "ragged: image 1 reaches layer '1' (MaxPool2d) as (1, 3, 7): max_pool over spatial size (3, 7): "
    )
    with pytest.raises(RuntimeError, match="Kernel size can't be greater") as caught:
        ragged(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 4)), pictures, method="group")
    assert caught.value.__notes__ == ["ragged: image 1 of shape (3, 5, 9), at layer '1' (Conv2d)"]


def test_wrong_channels_and_features() -> None:
    pictures = images([(9, 9), (5, 9)], channels=1, dtype=torch.float32)
    assert refusal(nn.Sequential(CONV), pictures, method="mask") == (
        "ragged: image 0 reaches layer '0' (Conv2d) as (1, 9, 9); the layer takes 3 channels and 2 spatial axes."
    )
    network = nn.Sequential(nn.Conv2d(1, 2, 3), S.FullyConnected(98, 3))
    assert refusal(network, pictures, method="mask") == (
        "ragged: image 1 reaches layer '1' (FullyConnected) as 2x3x7, 42 numbers, but the layer takes 98; "
        "put an adaptive pooling before it."
    )
    assert refusal(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), pictures, method="mask") == (
        "ragged: images of sizes (3, 7), (7, 7) reach layer '1' (Flatten), which needs one size; "
        "put an adaptive pooling before it, or use method='group'."
    )
    assert refusal(nn.Sequential(nn.Linear(9, 2)), pictures, method="mask") == (
        "ragged: images reach layer '0' (Linear) with spatial axes; put Flatten before it, or use FullyConnected."
    )


def test_what_cannot_be_masked_is_named() -> None:
    pictures = images(dtype=torch.float32)

    def reason(*modules: nn.Module) -> str:
        message = refusal(nn.Sequential(*modules), pictures, method="mask")
        assert message.startswith("ragged: ")
        assert message.endswith(" Use method='group'.")
        return message.removeprefix("ragged: ").removesuffix(" Use method='group'.")

    hooked = nn.ReLU()
    hooked.register_forward_hook(lambda *_: None)
    assert reason(nn.ReLU(), nn.InstanceNorm2d(3)) == "layer '1' (InstanceNorm2d) is no layer that can be masked."
    assert reason(nn.Sequential(nn.GroupNorm(1, 3))) == "layer '0.0' (GroupNorm) is no layer that can be masked."
    assert reason(hooked) == "layer '0' (ReLU) has hooks, which masking would not call."
    assert reason(nn.MaxPool2d(2, return_indices=True)) == "layer '0' (MaxPool2d) also returns indices."
    assert reason(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")) == (
        "layer '0' (Conv2d) pads with 'reflect', which each image has of its own."
    )
    assert reason(nn.Flatten(0)) == "layer '0' (Flatten) begins at dimension 0, where it may take in the batch."
    assert reason(nn.Softmax(0)) == "layer '0' (Softmax) has dim=0; only 1 and -1 stay within one image."
    assert refusal(Counting(), pictures, method="mask") == (
        "ragged: the Counting is no layer that can be masked. Use method='group'."
    )


@pytest.mark.parametrize("method", ["auto", "group", "mask"])
def test_batch_statistics_are_refused(method: str) -> None:
    message = (
        "ragged: layer '1' (BatchNorm2d) normalizes by the statistics of its batch, which here would be those of "
        "some of the images; call network.eval(), or give batch normalization running statistics."
    )
    assert refusal(nn.Sequential(CONV, nn.BatchNorm2d(2)), images(dtype=torch.float32), method=method) == message
    endless = nn.Sequential(CONV, nn.BatchNorm2d(2, track_running_stats=False)).eval()
    assert refusal(endless, images(dtype=torch.float32), method=method) == message


def test_a_network_must_return_one_output_per_image() -> None:
    class Odd(nn.Module):
        def __init__(self, result: Any) -> None:
            super().__init__()
            self.result = result

        def forward(self, x: Tensor) -> Any:
            return self.result

    pictures = images([(5, 5), (5, 5)])
    message = (
        "ragged: images 0, 1 of shape (3, 5, 5): the network returned {}; "
        "it must return one tensor with an output for each image."
    )
    assert refusal(Odd((1, 2)), pictures) == message.format("a tuple")
    assert refusal(Odd(torch.zeros(3, 4)), pictures) == message.format("a tensor of shape (3, 4)")


def test_what_computes_otherwise_is_not_masked() -> None:
    """A method of one's own, a forward set on the layer, a hook: each image goes as it would alone."""

    class Doubled(nn.Conv2d):
        def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return 2 * super()._conv_forward(input, weight, bias)

    def network(layer: nn.Module) -> nn.Module:
        return whole(nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten()))

    replaced = nn.Conv2d(3, 1, 3)
    before = replaced.forward
    replaced.forward = lambda x: 3 * before(x)  # type: ignore[method-assign, assignment]
    hooked = nn.Conv2d(3, 1, 3)
    hooked.register_full_backward_hook(lambda *_: None)
    for layer in (Doubled(3, 1, 3), replaced, hooked):
        net = network(layer)
        with pytest.raises(OptionError, match="Use method='group'"):
            ragged(net, images(), method="mask")
        for image, output in zip(images(), ragged(net, images()), strict=True):
            torch.testing.assert_close(output, net(image[None])[0], rtol=0, atol=0)
