"""The networks of parallel branches: GoogLeNet, Inception-v3 and v4, Xception."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from .peers_zoo_classics import caffe_norm
from .peers_zoo_parts import Branches, Kernel, Network, Residual, classifier, conv_bn, conv_relu, max_pool, same


def unit(channels: int, outputs: int, kernel: Kernel = 1, stride: int = 1, valid: bool = False) -> nn.Sequential:
    """Convolution, batch normalization with Inception's epsilon, ReLU; padded to keep the size unless ``valid``."""
    conv = nn.Conv2d(channels, outputs, kernel, stride, 0 if valid else same(kernel), bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU())


# ----------------------------------------------------------------------------------------------------------- GoogLeNet


class GoogLeNet(nn.Module):
    """Szegedy et al. 2014, table 1: with ``paper`` its biases, 5x5 and LRN, else torchvision's form of it.

    With ``aux`` it gives three scores: the main one, then the heads of 4a and of 4d.
    """

    def __init__(self, paper: bool, aux: bool) -> None:
        super().__init__()
        self.paper = paper
        norm = caffe_norm if paper else nn.Identity
        self.low = nn.Sequential(
            self.conv(3, 64, 7, 2), self.pool(), norm(),
            self.conv(64, 64), self.conv(64, 192, 3), norm(), self.pool(),
            self.block(192, 64, 96, 128, 16, 32, 32), self.block(256, 128, 128, 192, 32, 96, 64), self.pool(),
            self.block(480, 192, 96, 208, 16, 48, 64),
        )  # fmt: skip
        self.middle = nn.Sequential(
            self.block(512, 160, 112, 224, 24, 64, 64), self.block(512, 128, 128, 256, 24, 64, 64),
            self.block(512, 112, 144, 288, 32, 64, 64),
        )  # fmt: skip
        self.high = nn.Sequential(
            self.block(528, 256, 160, 320, 32, 128, 128), self.pool(3 if paper else 2),
            self.block(832, 256, 160, 320, 32, 128, 128), self.block(832, 384, 192, 384, 48, 128, 128),
        )  # fmt: skip
        self.heads = nn.ModuleList([self.head(512), self.head(528)] if aux else [])
        self.main = classifier(1024, dropout=0.4 if paper else 0.2)

    def conv(self, channels: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Module:
        if self.paper:
            return conv_relu(channels, outputs, kernel, stride, kernel // 2)
        return unit(channels, outputs, kernel, stride)

    @staticmethod
    def pool(kernel: int = 3) -> nn.Module:
        return nn.MaxPool2d(kernel, 2, ceil_mode=True)

    def block(self, channels: int, one: int, few3: int, three: int, few5: int, five: int, pooled: int) -> nn.Module:
        return Branches(
            self.conv(channels, one),
            nn.Sequential(self.conv(channels, few3), self.conv(few3, three, 3)),
            nn.Sequential(self.conv(channels, few5), self.conv(few5, five, 5 if self.paper else 3)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), self.conv(channels, pooled)),
        )

    def head(self, channels: int) -> nn.Module:
        pool = nn.AvgPool2d(5, 3) if self.paper else nn.AdaptiveAvgPool2d(4)
        linear = (nn.Linear(2048, 1024), nn.ReLU(), nn.Dropout(0.7), nn.Linear(1024, 1000))
        return nn.Sequential(pool, self.conv(channels, 128), nn.Flatten(), *linear)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        first = self.low(x)
        second = self.middle(first)
        scores = self.main(self.high(second))
        extra = tuple(head(features) for head, features in zip(self.heads, (first, second), strict=False))
        return (scores, *extra) if extra else scores


# -------------------------------------------------------------------------------------------------------- Inception-v3


def pooled(channels: int, outputs: int, count_padding: bool = True) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=count_padding), unit(channels, outputs))


def v3_a(channels: int, last: int) -> nn.Module:
    return Branches(
        unit(channels, 64),
        nn.Sequential(unit(channels, 48), unit(48, 64, 5)),
        nn.Sequential(unit(channels, 64), unit(64, 96, 3), unit(96, 96, 3)),
        pooled(channels, last),
    )


def v3_b() -> nn.Module:
    return Branches(
        unit(288, 384, 3, 2, valid=True),
        nn.Sequential(unit(288, 64), unit(64, 96, 3), unit(96, 96, 3, 2, valid=True)),
        max_pool(),
    )


def v3_c(few: int) -> nn.Module:
    long = (unit(few, few, (7, 1)), unit(few, few, (1, 7)), unit(few, few, (7, 1)), unit(few, 192, (1, 7)))
    return Branches(
        unit(768, 192),
        nn.Sequential(unit(768, few), unit(few, few, (1, 7)), unit(few, 192, (7, 1))),
        nn.Sequential(unit(768, few), *long),
        pooled(768, 192),
    )


def v3_d() -> nn.Module:
    seven = (unit(768, 192), unit(192, 192, (1, 7)), unit(192, 192, (7, 1)), unit(192, 192, 3, 2, valid=True))
    return Branches(
        nn.Sequential(unit(768, 192), unit(192, 320, 3, 2, valid=True)),
        nn.Sequential(*seven),
        max_pool(),
    )


def v3_e(channels: int) -> nn.Module:
    def cross() -> nn.Module:
        return Branches(unit(384, 384, (1, 3)), unit(384, 384, (3, 1)))

    return Branches(
        unit(channels, 320),
        nn.Sequential(unit(channels, 384), cross()),
        nn.Sequential(unit(channels, 448), unit(448, 384, 3), cross()),
        pooled(channels, 192),
    )


class InceptionV3(nn.Module):
    """Szegedy et al. 2015, as torchvision defines it; with ``aux`` it gives the main scores and the auxiliary ones."""

    def __init__(self, aux: bool) -> None:
        super().__init__()
        self.low = nn.Sequential(
            unit(3, 32, 3, 2, valid=True), unit(32, 32, 3, valid=True), unit(32, 64, 3), max_pool(),
            unit(64, 80), unit(80, 192, 3, valid=True), max_pool(),
            v3_a(192, 32), v3_a(256, 64), v3_a(288, 64), v3_b(), v3_c(128), v3_c(160), v3_c(160), v3_c(192),
        )  # fmt: skip
        head = (nn.AvgPool2d(5, 3), unit(768, 128), unit(128, 768, 5, valid=True), classifier(768))
        self.aux = nn.Sequential(*head) if aux else None
        self.high = nn.Sequential(v3_d(), v3_e(1280), v3_e(2048))
        self.main = classifier(2048, dropout=0.5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        features = self.low(x)
        scores = self.main(self.high(features))
        return scores if self.aux is None else (scores, self.aux(features))


# -------------------------------------------------------------------------------------------------------- Inception-v4


def v4_stem() -> list[nn.Module]:
    seven = (unit(160, 64), unit(64, 64, (1, 7)), unit(64, 64, (7, 1)), unit(64, 96, 3, valid=True))
    return [
        *(unit(3, 32, 3, 2, valid=True), unit(32, 32, 3, valid=True), unit(32, 64, 3)),
        Branches(max_pool(), unit(64, 96, 3, 2, valid=True)),
        Branches(nn.Sequential(unit(160, 64), unit(64, 96, 3, valid=True)), nn.Sequential(*seven)),
        Branches(unit(192, 192, 3, 2, valid=True), max_pool()),
    ]


def v4_a() -> nn.Module:
    return Branches(
        unit(384, 96),
        nn.Sequential(unit(384, 64), unit(64, 96, 3)),
        nn.Sequential(unit(384, 64), unit(64, 96, 3), unit(96, 96, 3)),
        pooled(384, 96, count_padding=False),
    )


def v4_reduction_a() -> nn.Module:
    return Branches(
        unit(384, 384, 3, 2, valid=True),
        nn.Sequential(unit(384, 192), unit(192, 224, 3), unit(224, 256, 3, 2, valid=True)),
        max_pool(),
    )


def v4_b() -> nn.Module:
    long = (unit(192, 192, (7, 1)), unit(192, 224, (1, 7)), unit(224, 224, (7, 1)), unit(224, 256, (1, 7)))
    return Branches(
        unit(1024, 384),
        nn.Sequential(unit(1024, 192), unit(192, 224, (1, 7)), unit(224, 256, (7, 1))),
        nn.Sequential(unit(1024, 192), *long),
        pooled(1024, 128, count_padding=False),
    )


def v4_reduction_b() -> nn.Module:
    seven = (unit(1024, 256), unit(256, 256, (1, 7)), unit(256, 320, (7, 1)), unit(320, 320, 3, 2, valid=True))
    return Branches(
        nn.Sequential(unit(1024, 192), unit(192, 192, 3, 2, valid=True)),
        nn.Sequential(*seven),
        max_pool(),
    )


def v4_c() -> nn.Module:
    def cross(channels: int) -> nn.Module:
        return Branches(unit(channels, 256, (1, 3)), unit(channels, 256, (3, 1)))

    return Branches(
        unit(1536, 256),
        nn.Sequential(unit(1536, 384), cross(384)),
        nn.Sequential(unit(1536, 384), unit(384, 448, (3, 1)), unit(448, 512, (1, 3)), cross(512)),
        pooled(1536, 256, count_padding=False),
    )


def inception_v4() -> nn.Module:
    """Szegedy et al. 2016, figures 3 to 9, in the order of weights of Cadene's and timm's definition."""
    return nn.Sequential(
        *v4_stem(), *(v4_a() for _ in range(4)), v4_reduction_a(), *(v4_b() for _ in range(7)), v4_reduction_b(),
        *(v4_c() for _ in range(3)), classifier(1536, dropout=0.2),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ Xception


def separable(channels: int, outputs: int) -> list[nn.Module]:
    """A depthwise 3x3 and a 1x1 with nothing between them, then batch normalization."""
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return [depthwise, nn.Conv2d(channels, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]


class Reduction(nn.Module):
    """Xception's unit of stride 2; its projection holds the first weights, as in timm's definition."""

    def __init__(self, channels: int, between: int, outputs: int, relu: bool = True) -> None:
        super().__init__()
        self.shortcut = conv_bn(channels, outputs, stride=2)
        self.body = nn.Sequential(
            nn.ReLU() if relu else nn.Identity(), *separable(channels, between),
            nn.ReLU(), *separable(between, outputs), nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def xception() -> nn.Module:
    """Chollet 2016, figure 5; the order of weights is timm's (legacy_xception)."""

    def middle() -> nn.Module:
        return Residual(nn.Sequential(*(part for _ in range(3) for part in (nn.ReLU(), *separable(728, 728)))))

    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        Reduction(64, 128, 128, relu=False), Reduction(128, 256, 256), Reduction(256, 728, 728),
        *(middle() for _ in range(8)), Reduction(728, 728, 1024),
        *separable(1024, 1536), nn.ReLU(), *separable(1536, 2048), nn.ReLU(), classifier(2048),
    )  # fmt: skip


NETWORKS: dict[str, Network] = {
    "googlenet": (partial(GoogLeNet, paper=False, aux=False), (3, 224, 224)),
    "googlenet_aux": (partial(GoogLeNet, paper=False, aux=True), (3, 224, 224)),
    "googlenet_paper": (partial(GoogLeNet, paper=True, aux=False), (3, 224, 224)),
    "googlenet_paper_aux": (partial(GoogLeNet, paper=True, aux=True), (3, 224, 224)),
    "inception_v3": (partial(InceptionV3, aux=False), (3, 299, 299)),
    "inception_v3_aux": (partial(InceptionV3, aux=True), (3, 299, 299)),
    "inception_v4": (inception_v4, (3, 299, 299)),
    "xception": (xception, (3, 299, 299)),
}
