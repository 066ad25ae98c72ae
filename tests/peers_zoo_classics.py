"""Networks from LeNet-5 to SqueezeNet: chains of convolutions, poolings and linear layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .peers_zoo_parts import Branches, Network, conv_relu, max_pool

# ------------------------------------------------------------------------------------------------------------- LeNet-5


def lenet5() -> nn.Module:
    """LeCun et al. 1998 as it is taught today: all maps connected, ReLU, max pooling, a linear output."""
    return nn.Sequential(
        *conv_relu(1, 6, 5, padding=2), nn.MaxPool2d(2),
        *conv_relu(6, 16, 5), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


class TrainableMean(nn.Module):
    """LeCun et al. 1998, S2 and S4: the mean of 2x2, times a coefficient and plus a bias of the map."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.coefficient = nn.Parameter(torch.ones(maps, 1, 1))
        self.bias = nn.Parameter(torch.zeros(maps, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) * self.coefficient + self.bias


# LeCun et al. 1998, table I: the maps of S2 that each map of C3 reads.
C3_READS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)


class SparseC3(nn.Module):
    """LeCun et al. 1998, C3: one small convolution for each of its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(len(reads), 1, 5) for reads in C3_READS)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([conv(x[:, list(reads)]) for conv, reads in zip(self.maps, C3_READS, strict=True)], 1)


def lenet5_original() -> nn.Module:
    """LeCun et al. 1998 up to F6, without the fixed RBF outputs; the paper squashes by 1.7159 tanh(2/3 x)."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), TrainableMean(6), nn.Tanh(),
        SparseC3(), nn.Tanh(), TrainableMean(16), nn.Tanh(),
        nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(), nn.Linear(120, 84), nn.Tanh(),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- AlexNet


def three_linear(features: int, dropout_first: bool = False, classes: int = 1000) -> nn.Sequential:
    """The classifier of AlexNet and VGG; ``dropout_first`` is torchvision's order in AlexNet."""
    if dropout_first:
        first, second = (nn.Dropout(), nn.Linear(features, 4096)), (nn.Dropout(), nn.Linear(4096, 4096))
        return nn.Sequential(*first, nn.ReLU(), *second, nn.ReLU(), nn.Linear(4096, classes))
    return nn.Sequential(
        nn.Linear(features, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, classes),
    )  # fmt: skip


def krizhevsky(groups: int, pool_first: bool, norm: Callable[[], nn.Module]) -> nn.Module:
    """Five convolutions on 227x227; pooling follows the normalization, or stands before it."""

    def end() -> tuple[nn.Module, ...]:
        return (max_pool(), norm()) if pool_first else (norm(), max_pool())

    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4), nn.ReLU(), *end(),
        nn.Conv2d(96, 256, 5, padding=2, groups=groups), nn.ReLU(), *end(),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=groups), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=groups), nn.ReLU(), max_pool(),
        nn.Flatten(), *three_linear(256 * 6 * 6),
    )  # fmt: skip


def paper_norm() -> nn.LocalResponseNorm:
    """Krizhevsky et al. 2012, section 3.3: k 2, n 5, alpha 1e-4, beta 0.75; torch divides alpha by n."""
    return nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)


def caffe_norm() -> nn.LocalResponseNorm:
    """Caffe's defaults; like torch, it divides alpha by the size."""
    return nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)


def alexnet() -> nn.Module:
    """Krizhevsky et al. 2012: the two towers are two groups in the second, fourth and fifth convolution."""
    return krizhevsky(2, False, paper_norm)


def caffenet() -> nn.Module:
    """BVLC's reference CaffeNet, 2014: AlexNet's two groups, pooling before the normalization."""
    return krizhevsky(2, True, caffe_norm)


def alexnet_ungrouped() -> nn.Module:
    """CaffeNet with every map connected: one group."""
    return krizhevsky(1, True, caffe_norm)


def alexnet_torchvision() -> nn.Module:
    """Krizhevsky 2014, "One weird trick", as torchvision defines it."""
    return nn.Sequential(
        *conv_relu(3, 64, 11, 4, 2), max_pool(),
        *conv_relu(64, 192, 5, 1, 2), max_pool(),
        *conv_relu(192, 384, 3, 1, 1), *conv_relu(384, 256, 3, 1, 1), *conv_relu(256, 256, 3, 1, 1),
        max_pool(), nn.AdaptiveAvgPool2d(6), nn.Flatten(), *three_linear(256 * 6 * 6, dropout_first=True),
    )  # fmt: skip


def zfnet() -> nn.Module:
    """Zeiler and Fergus 2013: 7x7 with stride 2 first; pooled maps are normalized across channels."""
    return nn.Sequential(
        *conv_relu(3, 96, 7, 2, 1), max_pool(True), paper_norm(),
        *conv_relu(96, 256, 5, 2), max_pool(True), paper_norm(),
        *conv_relu(256, 384, 3, 1, 1), *conv_relu(384, 384, 3, 1, 1), *conv_relu(384, 256, 3, 1, 1),
        max_pool(), nn.Flatten(), *three_linear(256 * 6 * 6),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- networks of convolutions


def nin() -> nn.Module:
    """Lin et al. 2013 for CIFAR-10, the authors' layers; Caffe's poolings round up."""
    return nn.Sequential(
        *conv_relu(3, 192, 5, 1, 2), *conv_relu(192, 160, 1), *conv_relu(160, 96, 1),
        max_pool(True), nn.Dropout(),
        *conv_relu(96, 192, 5, 1, 2), *conv_relu(192, 192, 1), *conv_relu(192, 192, 1),
        nn.AvgPool2d(3, 2, ceil_mode=True), nn.Dropout(),
        *conv_relu(192, 192, 3, 1, 1), *conv_relu(192, 192, 1), *conv_relu(192, 10, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def allcnn(letter: str) -> nn.Module:
    """Springenberg et al. 2014, tables 1 and 2: convolutions of stride 2 in place of the poolings of A, B or C."""
    layers: list[nn.Module] = [nn.Dropout(0.2)]
    channels = 3
    for outputs in (96, 192):
        kernels = {"a": (5,), "b": (5, 1), "c": (3, 3)}[letter]
        for kernel in kernels:
            layers += conv_relu(channels, outputs, kernel, 1, kernel // 2)
            channels = outputs
        layers += [*conv_relu(outputs, outputs, 3, 2, 1), nn.Dropout()]
    layers += [*conv_relu(192, 192, 3, 1, 1), *conv_relu(192, 192, 1), *conv_relu(192, 10, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


VGG_BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(depth: int, norm: bool = False) -> nn.Module:
    """Simonyan and Zisserman 2014, table 1, configurations A, B, D and E; with batch normalization as torchvision."""
    layers: list[nn.Module] = []
    channels = 3
    for count, outputs in zip(VGG_BLOCKS[depth], (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(channels, outputs, 3, padding=1))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()] if norm else [nn.ReLU()]
            channels = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *three_linear(512 * 7 * 7))


def fire(channels: int, squeezed: int, expanded: int) -> list[nn.Module]:
    """Iandola et al. 2016: 1x1 to few channels, then 1x1 and 3x3 side by side."""
    wide = Branches(conv_relu(squeezed, expanded, 1), conv_relu(squeezed, expanded, 3, 1, 1))
    return [*conv_relu(channels, squeezed, 1), wide]


def squeezenet(version: str) -> nn.Module:
    """Iandola et al. 2016, as torchvision defines 1.0 and 1.1; 1.1 is narrower at first and pools earlier."""
    tail = [*fire(256, 48, 192), *fire(384, 48, 192), *fire(384, 64, 256)]
    if version == "1.0":
        features = [*conv_relu(3, 96, 7, 2), max_pool(True), *fire(96, 16, 64), *fire(128, 16, 64), *fire(128, 32, 128)]
        features += [max_pool(True), *fire(256, 32, 128), *tail, max_pool(True), *fire(512, 64, 256)]
    else:
        features = [*conv_relu(3, 64, 3, 2), max_pool(True), *fire(64, 16, 64), *fire(128, 16, 64), max_pool(True)]
        features += [*fire(128, 32, 128), *fire(256, 32, 128), max_pool(True), *tail, *fire(512, 64, 256)]
    return nn.Sequential(*features, nn.Dropout(), *conv_relu(512, 1000, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


NETWORKS: dict[str, Network] = {
    "lenet5": (lenet5, (1, 28, 28)),
    "lenet5_original": (lenet5_original, (1, 32, 32)),
    "alexnet": (alexnet, (3, 227, 227)),
    "alexnet_ungrouped": (alexnet_ungrouped, (3, 227, 227)),
    "alexnet_torchvision": (alexnet_torchvision, (3, 224, 224)),
    "caffenet": (caffenet, (3, 227, 227)),
    "zfnet": (zfnet, (3, 224, 224)),
    "nin": (nin, (3, 32, 32)),
    **{f"allcnn_{letter}": (partial(allcnn, letter), (3, 32, 32)) for letter in "abc"},
    **{f"vgg{depth}": (partial(vgg, depth), (3, 224, 224)) for depth in VGG_BLOCKS},
    "vgg16_bn": (partial(vgg, 16, norm=True), (3, 224, 224)),
    "squeezenet1_0": (partial(squeezenet, "1.0"), (3, 224, 224)),
    "squeezenet1_1": (partial(squeezenet, "1.1"), (3, 224, 224)),
}
