"""From paper to layers: the nodes of an architecture become modules with the same names."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from . import architecture as paper
from . import layers, pooling_layers, zoo
from .analysis import analyse
from .architecture import DEFAULTS, Architecture, Node, Shape
from .errors import GeometryError, OptionError

BATCH_NORM: dict[int, Callable[[int], nn.Module]] = {
    0: nn.BatchNorm1d,
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


class Network(nn.Module):
    """An architecture with weights: a chain of layers, each under its node's name.

    Args:
        architecture: Every number known.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.input_shape: Shape = architecture.input_shape or ()
        shape = self.input_shape
        overwriting = architecture.overwriting()
        for node, row in zip(architecture, analyse(architecture).rows, strict=True):
            if not isinstance(node.operation, paper.Input):
                self.add_module(node.name, layer(node, shape, overwrites=node.name in overwriting))
            shape = row.output_shape
        self.any_size = not any(isinstance(node.operation, paper.FC) for node in architecture)

    def forward(self, x: Tensor) -> Tensor:
        """Examples ``(N, C, *spatial)`` to the last layer's output.

        Raises:
            GeometryError: The examples have another shape than the network was made for.
        """
        if x.shape[1:] != self.input_shape:
            self._check(x)
        for module in self.children():
            x = module(x)
        return x

    def _check(self, x: Tensor) -> None:
        wanted = self.input_shape
        same_channels = x.dim() == len(wanted) + 1 and x.shape[1] == wanted[0]
        if same_channels and self.any_size:
            return
        hint = ""
        if tuple(x.shape) == wanted:
            hint = " It looks like one example without a batch: give x.unsqueeze(0)."
        elif tuple(x.shape[1:]) == (*wanted[1:], wanted[0]):
            hint = " It looks channels-last: give x.movedim(-1, 1)."
        raise GeometryError(
            f"the network takes examples of shape (N, {', '.join(map(str, wanted))}), got {tuple(x.shape)}.{hint}"
        )


def layer(node: Node, shape: Shape, *, overwrites: bool) -> nn.Module:
    """The module of one node, for an input of this shape.

    Raises:
        GeometryError: The window has more axes than there are layers for.
    """
    axes = len(shape) - 1
    operation = node.operation
    slides = isinstance(operation, paper.BatchNorm) or operation.window(shape) is not None
    if slides and axes > 3:
        raise GeometryError(
            f"{node.name}: layers have 1 to 3 spatial axes, this one {axes}; use striate.conv directly."
        )
    match operation:
        case paper.Conv():
            return layers.CONV[axes](
                shape[0],
                operation.filters or 0,
                operation.kernel,
                stride=operation.stride,
                padding=operation.padding,
                dilation=operation.dilation,
                groups=operation.groups,
                bias=operation.bias,
            )
        case paper.AvgPool():
            return pooling_layers.AVG_POOL[axes](
                operation.kernel, operation.stride, padding=operation.padding, count_include_pad=False
            )
        case paper.Pool():
            return pooling_layers.MAX_POOL[axes](operation.kernel, operation.stride, padding=operation.padding)
        case paper.FC():
            return layers.FullyConnected(prod(shape), operation.features or 0, bias=operation.bias)
        case paper.BatchNorm():
            return BATCH_NORM[axes](shape[0])
        case paper.Dropout():
            return nn.Dropout(operation.p)
        case paper.ReLU():
            return nn.ReLU(inplace=overwrites)
    return {"TANH": nn.Tanh, "SIGMOID": nn.Sigmoid}[operation.word]()


def network(source: str | Path | Architecture, **variables: Any) -> Network:
    """Build a network from its text, its zoo name or a file that holds a text.

    Args:
        source: Notation text, zoo name, file or :class:`Architecture`.
        **variables: What a text leaves open: ``input=(C, *spatial)``, ``filters``, ``hidden``, ``classes``; for a zoo
            name, ``input`` and ``classes`` change the published ones. Whatever stays open takes
            input 3x32x32, filters 32, hidden 128, classes 10.

    Raises:
        NotationError: The text cannot be read.
        UnknownNameError: No such network.
        OptionError: A variable is unknown, or the text leaves nothing of that name open.
        GeometryError: A window does not fit its input.

    >>> import torch
    >>> net = network("INPUT 1x28x28 -> [CONV 3x3x8 -> RELU -> POOL]*2 -> FC 10")
    >>> net.conv2, net(torch.zeros(5, 1, 28, 28)).shape
    (Conv2d(8, 8, kernel_size=(3, 3), stride=1, padding='same', dilation=1, groups=1, padding_mode='zeros'), \
torch.Size([5, 10]))
    """
    if unknown := set(variables) - set(DEFAULTS):
        raise OptionError(f"network has no variable {min(unknown)!r}; known: {', '.join(DEFAULTS)}.")
    given = {name: value for name, value in variables.items() if value is not None}
    paperwork = zoo.architecture(source)
    if not isinstance(source, Architecture) and str(source) in zoo.names():
        shape = given.pop("input", paperwork.input_shape)
        paperwork = paperwork.adapted(shape, given.pop("classes", paperwork.classes))
    bound = paperwork.bind(**given)
    return Network(bound.bind(**{name: DEFAULTS[name] for name in bound.open}))
