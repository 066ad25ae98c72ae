"""The networks that score every pixel: FCN, U-Net, 3D U-Net, the context module, HDC with DUC."""

from __future__ import annotations

from functools import partial
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from .peers_zoo_classics import VGG_BLOCKS
from .peers_zoo_parts import Network, Sum, conv_relu
from .peers_zoo_residuals import bottleneck, stem

# ----------------------------------------------------------------------------------------------------------------- FCN


def vgg_stages() -> list[nn.Sequential]:
    """The five stages of VGG-16; the first convolution is padded by 100, and poolings round up as Caffe's do."""
    stages, channels = [], 3
    for count, outputs in zip(VGG_BLOCKS[16], (64, 128, 256, 512, 512), strict=True):
        layers: list[nn.Module] = []
        for _ in range(count):
            layers += conv_relu(channels, outputs, 3, 1, 100 if channels == 3 else 1)
            channels = outputs
        stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
    return stages


def up(classes: int, stride: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(classes, classes, 2 * stride, stride, bias=False)


def crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    height, width = like.shape[-2:]
    return x[..., offset : offset + height, offset : offset + width]


class Fuse(nn.Module):
    """Scores at twice their size, plus the scores of a pooling of that size."""

    def __init__(self, channels: int, offset: int, classes: int) -> None:
        super().__init__()
        self.up, self.score, self.offset = up(classes, 2), nn.Conv2d(channels, classes, 1), offset

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        x = self.up(x)
        return x + crop(self.score(pooled), self.offset, x)


class FCN(nn.Module):
    """Long et al. 2015 and Shelhamer et al. 2016: FCN-32s, 16s or 8s on VGG-16, as the authors' Caffe nets are.

    On 224x224 pool3, pool4 and pool5 are 53x53, 27x27 and 14x14, the scores 8x8; what transposed convolutions make
    of them is cropped at the nets' offsets: 5 and 9 at pool4 and pool3, then 19, 27 or 31 at the image.
    """

    def __init__(self, stride: int, classes: int = 21) -> None:
        super().__init__()
        self.offset = {32: 19, 16: 27, 8: 31}[stride]
        one, two, three, four, five = vgg_stages()
        self.to_pool3, self.to_pool4, self.to_pool5 = nn.Sequential(one, two, three), four, five
        self.score = nn.Sequential(
            *conv_relu(512, 4096, 7), nn.Dropout(), *conv_relu(4096, 4096, 1), nn.Dropout(), nn.Conv2d(4096, classes, 1)
        )
        fuses = [Fuse(512, 5, classes), Fuse(256, 9, classes)]
        self.fuses = nn.ModuleList(fuses[: {32: 0, 16: 1, 8: 2}[stride]])
        self.up = up(classes, stride)

    def forward(self, image: Tensor) -> Tensor:
        pool3 = self.to_pool3(image)
        pool4 = self.to_pool4(pool3)
        x = self.score(self.to_pool5(pool4))
        for fuse, pooled in zip(self.fuses, (pool4, pool3), strict=False):
            x = fuse(x, pooled)
        return crop(self.up(x), self.offset, image)


# --------------------------------------------------------------------------------------------------------------- U-Net


def centre(x: Tensor, like: Tensor) -> Tensor:
    """The middle of ``x``, as large as ``like``."""
    for axis in range(2, x.ndim):
        size = like.shape[axis]
        x = x.narrow(axis, (x.shape[axis] - size) // 2, size)
    return x


class Up(nn.Module):
    """A transposed convolution, beside it the middle of the maps of the way down, then the level's convolutions."""

    def __init__(self, up: nn.Module, join: nn.Module) -> None:
        super().__init__()
        self.up, self.join = up, join

    def forward(self, x: Tensor, passed: Tensor) -> Tensor:
        x = self.up(x)
        return self.join(torch.cat([centre(passed, x), x], 1))


class UShape(nn.Module):
    """Down by max pooling, up again; weights stand in the order in which they are used, the passed maps first."""

    def __init__(self, downs: list[nn.Module], pool: nn.Module, ups: list[nn.Module]) -> None:
        super().__init__()
        self.downs, self.pool, self.ups = nn.ModuleList(downs), pool, nn.ModuleList(ups)

    def forward(self, x: Tensor) -> Tensor:
        passed: list[Tensor] = []
        for level, down in enumerate(self.downs):
            x = down(self.pool(x) if level else x)
            passed.append(x)
        for up, skipped in zip(self.ups, passed[-2::-1], strict=True):
            x = up(x, skipped)
        return x


def valid_twice(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*conv_relu(channels, outputs), *conv_relu(outputs, outputs))


def unet(classes: int = 2) -> nn.Module:
    """Ronneberger et al. 2015, figure 1: 572x572 of one channel to 388x388; dropout ends the way down."""
    widths = (64, 128, 256, 512)
    downs: list[nn.Module] = [valid_twice(width // 2 if width > 64 else 1, width) for width in widths]
    downs.append(nn.Sequential(*valid_twice(512, 1024), nn.Dropout()))
    ups: list[nn.Module] = [
        Up(nn.ConvTranspose2d(2 * width, width, 2, 2), valid_twice(2 * width, width)) for width in widths[::-1]
    ]
    return nn.Sequential(UShape(downs, nn.MaxPool2d(2), ups), nn.Conv2d(64, classes, 1))


def volume_unit(channels: int, outputs: int) -> list[nn.Module]:
    """The paper's 19,069,955 counts the convolution's bias and no scale or offset of the normalization."""
    return [nn.Conv3d(channels, outputs, 3), nn.BatchNorm3d(outputs, affine=False), nn.ReLU()]


def volume_twice(channels: int, between: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*volume_unit(channels, between), *volume_unit(between, outputs))


def unet3d(classes: int = 3) -> nn.Module:
    """Cicek et al. 2016, figure 2: 132x132x116 to 44x44x28; transposed convolutions have no bias."""
    downs: list[nn.Module] = [volume_twice(3, 32, 64)]
    downs += [volume_twice(width, width, 2 * width) for width in (64, 128, 256)]
    ups: list[nn.Module] = [
        Up(nn.ConvTranspose3d(2 * width, 2 * width, 2, 2, bias=False), volume_twice(3 * width, width, width))
        for width in (256, 128, 64)
    ]
    return nn.Sequential(UShape(downs, nn.MaxPool3d(2), ups), nn.Conv3d(64, classes, 1))


# ----------------------------------------------------------------------------------------------------- dilated windows


def context_net(classes: int = 21) -> nn.Module:
    """Yu and Koltun 2016, table 1, the basic context module; every convolution keeps the size, as in their code."""
    layers: list[nn.Module] = []
    for dilation in (1, 1, 2, 4, 8, 16, 1):
        layers += [nn.Conv2d(classes, classes, 3, padding=dilation, dilation=dilation), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(classes, classes, 1))


def hdc_duc(classes: int = 19) -> nn.Module:
    """Wang et al. 2018: ResNet-101 of stride 8 with hybrid dilations ("bigger"), four dilated heads, then DUC.

    The stem and the place of the stride are torchvision's ResNet; the authors' MXNet code has a stem of three 3x3.
    """
    dilations = ([1] * 3, [1] * 4, list(islice(cycle((1, 2, 5, 9)), 23)), [5, 9, 17])
    layers: list[nn.Module] = [*stem()]
    channels = 64
    for stage, row in enumerate(dilations):
        for index, dilation in enumerate(row):
            stride = 2 if stage == 1 and index == 0 else 1
            layers.append(bottleneck(channels, 64 << stage, stride, dilation=dilation))
            channels = 256 << stage
    heads = [nn.Conv2d(channels, 64 * classes, 3, padding=rate, dilation=rate) for rate in (6, 12, 18, 24)]
    return nn.Sequential(*layers, Sum(*heads), nn.PixelShuffle(8))


NETWORKS: dict[str, Network] = {
    **{f"fcn{stride}s": (partial(FCN, stride), (3, 224, 224)) for stride in (32, 16, 8)},
    "unet": (unet, (1, 572, 572)),
    "unet3d": (unet3d, (3, 132, 132, 116)),
    "context_net": (context_net, (21, 64, 64)),
    "hdc_duc": (hdc_duc, (3, 544, 544)),
}
