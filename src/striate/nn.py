"""The layers under the name that users write: ``striate.nn.Conv2d`` and its kin."""

from .layers import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    FullyConnected,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "FullyConnected",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]
