"""From paper to layers: the nodes of an architecture become modules with the same names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import layers, zoo
from . import nn as ours
from . import operations as paper
from .architecture import Architecture, Node
from .channels import ChannelShuffle
from .errors import GeometryError, OptionError
from .node_layers import (
    RBF,
    Channels,
    Concat,
    Crop,
    LayerNorm,
    Pad,
    PixelShuffle,
    PixelUnshuffle,
    Product,
    Resize,
    Scale,
    Sum,
    Unpool,
)
from .operations import Operation, Shape

BATCH_NORM: dict[int, Callable[..., nn.Module]] = {
    0: nn.BatchNorm1d,
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
INSTANCE_NORM: dict[int, Callable[..., nn.Module]] = {
    1: nn.InstanceNorm1d,
    2: nn.InstanceNorm2d,
    3: nn.InstanceNorm3d,
}
# PyTorch's own: for one position it keeps nothing for the backward pass.
GLOBAL_MEAN: dict[int, Callable[..., nn.Module]] = {
    1: nn.AdaptiveAvgPool1d,
    2: nn.AdaptiveAvgPool2d,
    3: nn.AdaptiveAvgPool3d,
}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
Maker = Callable[[Any, Shape], nn.Module]


# ----------------------------------------------------------------------------------------------------- nodes to modules


def sized(family: str, shape: Shape) -> Any:
    """The layer of a family for as many axes as a map has.

    >>> sized("MaxPool", (3, 32, 32)).__name__
    'MaxPool2d'
    """
    return getattr(ours, f"{family}{len(shape) - 1}d")


def options(operation: Operation, *names: str) -> dict[str, Any]:
    """Some settings of an operation, by name."""
    return {name: getattr(operation, name) for name in names}


def convolution(family: str, operation: Any, shape: Shape, *rest: Any, **more: Any) -> nn.Module:
    """A layer of a convolution's family, with its filters and the options that all of them have."""
    window = options(operation, "stride", "padding", "dilation", "bias")
    return sized(family, shape)(shape[0], operation.channels(shape), operation.kernel, *rest, **window, **more)


def started(layer: nn.Module, init: str) -> nn.Module:
    """A convolution whose weights start as its text says."""
    if init == "identity":
        with torch.no_grad():
            nn.init.dirac_(layer.get_parameter("weight"), groups=int(getattr(layer, "groups", 1)))
            if getattr(layer, "bias", None) is not None:
                layer.get_parameter("bias").zero_()
    return layer


def pooling(family: str, operation: Any, shape: Shape, *first: Any, **more: Any) -> nn.Module:
    """A layer of a pooling's family, with the options that all of them have."""
    window = options(operation, "stride", "padding", "dilation")
    return sized(family, shape)(*first, operation.kernel, **window, ceil_mode=operation.ceil, **more)


def interpolation(operation: Any, shape: Shape, **goal: Any) -> nn.Module:
    """Interpolation as torch names it."""
    if operation.mode == "nearest":
        return Resize(**goal)
    return Resize(**goal, mode=LINEAR[len(shape) - 1], align_corners=operation.align_corners)


def scale_of(operation: Any, shape: Shape) -> Shape:
    """By how much each axis grows."""
    grown = operation.output_shape(shape)[1:]
    return tuple(m // n for m, n in zip(grown, shape[1:], strict=True))


MODULES: dict[type[Operation], Maker] = {
    paper.Conv: lambda o, s: started(convolution("Conv", o, s, groups=o.groups, padding_mode=o.border), o.init),
    paper.DepthwiseConv: lambda o, s: convolution("Conv", o, s, groups=s[0], padding_mode=o.border),
    paper.TransposedConv: lambda o, s: convolution(
        "ConvTranspose", o, s, groups=o.groups, output_padding=o.output_padding
    ),
    paper.LocalConv: lambda o, s: convolution("ConvLocal", o, s, s[1:], groups=o.groups),
    paper.TiledConv: lambda o, s: convolution("ConvTiled", o, s, o.tile, groups=o.groups),
    paper.Pool: lambda o, s: pooling("MaxPool", o, s),
    paper.AvgPool: lambda o, s: pooling("AvgPool", o, s, count_include_pad=o.count_padding),
    paper.LpPool: lambda o, s: pooling("LPPool", o, s, o.p),
    paper.GaussianPool: lambda o, s: pooling("GaussianPool", o, s, sigma=o.sigma),
    paper.GlobalPool: lambda o, s: sized("AdaptiveMaxPool", s)(1),
    paper.GlobalAvgPool: lambda o, s: GLOBAL_MEAN[len(s) - 1](1),
    paper.AdaptivePool: lambda o, s: sized("AdaptiveMaxPool", s)(o.size),
    paper.AdaptiveAvgPool: lambda o, s: sized("AdaptiveAvgPool", s)(o.size),
    paper.Unpool: lambda o, s: Unpool(),
    paper.FC: lambda o, s: layers.FullyConnected(prod(s), o.features, bias=o.bias),
    paper.RBF: lambda o, s: RBF(prod(s), o.features),
    paper.Flatten: lambda o, s: nn.Flatten(),
    paper.Sum: lambda o, s: Sum(),
    paper.Product: lambda o, s: Product(),
    paper.Concat: lambda o, s: Concat(),
    paper.ReLU: lambda o, s: nn.ReLU(),
    paper.ReLU6: lambda o, s: nn.ReLU6(),
    paper.LeakyReLU: lambda o, s: nn.LeakyReLU(o.slope),
    paper.PReLU: lambda o, s: nn.PReLU(s[0]),
    paper.ELU: lambda o, s: nn.ELU(),
    paper.GELU: lambda o, s: nn.GELU(),
    paper.SiLU: lambda o, s: nn.SiLU(),
    paper.HardSwish: lambda o, s: nn.Hardswish(),
    paper.HardSigmoid: lambda o, s: nn.Hardsigmoid(),
    paper.Tanh: lambda o, s: nn.Tanh(),
    paper.Sigmoid: lambda o, s: nn.Sigmoid(),
    paper.Softmax: lambda o, s: nn.Softmax(1),
    paper.Dropout: lambda o, s: nn.Dropout(o.p),
    paper.Scale: lambda o, s: Scale(s[0], o.bias, o.start),
    paper.BatchNorm: lambda o, s: BATCH_NORM[len(s) - 1](s[0], eps=o.eps, affine=o.affine),
    paper.LayerNorm: lambda o, s: LayerNorm(s[0], o.eps),
    paper.GroupNorm: lambda o, s: nn.GroupNorm(o.groups, s[0]),
    paper.InstanceNorm: lambda o, s: INSTANCE_NORM[len(s) - 1](s[0]),
    paper.LocalResponseNorm: lambda o, s: ours.LocalResponseNorm(o.size, o.alpha, o.beta, o.k),
    paper.Maxout: lambda o, s: ours.Maxout(o.pieces),
    paper.Shuffle: lambda o, s: ChannelShuffle(o.groups),
    paper.Channels: lambda o, s: Channels(o.numbers(s[0])),
    paper.PixelShuffle: lambda o, s: PixelShuffle(o.scale),
    paper.PixelUnshuffle: lambda o, s: PixelUnshuffle(o.scale),
    paper.Upsample: lambda o, s: interpolation(o, s, scale=scale_of(o, s)),
    paper.Resize: lambda o, s: interpolation(o, s, size=o.output_shape(s)[1:]),
    paper.Pad: lambda o, s: Pad(o.pairs(s), o.border),
    paper.Crop: lambda o, s: Crop(o.pairs(s)),
}
WHOLE_MAP = (paper.FC, paper.RBF, paper.Flatten)
UP_TO_THREE_AXES = (
    paper.Windowed,
    paper.Adaptive,
    paper.Interpolation,
    paper.Unpool,
    paper.BatchNorm,
    paper.InstanceNorm,
)


def layer(node: Node, shape: Shape) -> nn.Module:
    """The module of one node, for a first input of this shape.

    Raises:
        GeometryError: There are layers for fewer axes only.
        OptionError: The operation was traced from a model.

    >>> from striate.notation import parse
    >>> layer(parse("INPUT 1x8x8 -> POOL 3 stride=2").nodes[1], (1, 8, 8))
    MaxPool2d(kernel_size=(3, 3), stride=2, padding=0, dilation=1, ceil_mode=False, return_indices=False)
    """
    operation, axes = node.operation, len(shape) - 1
    made = next((one for one in type(operation).__mro__ if one in MODULES), None)
    if made is None or hasattr(operation, "foreign_note"):
        kind = getattr(operation, "kind", type(operation).__name__)
        raise OptionError(
            f"{node.name} cannot be built: it was traced from a model, and the notation has no word for {kind}."
        )
    if isinstance(operation, UP_TO_THREE_AXES) and axes > 3:
        raise GeometryError(
            f"{node.name}: layers have 1 to 3 spatial axes, this one {axes}; use striate.conv directly."
        )
    if isinstance(operation, paper.InstanceNorm) and not axes:
        raise GeometryError(f"{node.name}: IN normalises over positions, but its input {shape} has none.")
    return MODULES[made](operation, shape)


# --------------------------------------------------------------------------------------------------------- the network


class Step(NamedTuple):
    """A module's turn: the values that it reads, where its switches go, and the values that nobody reads after it."""

    name: str
    path: tuple[str, ...]
    inputs: tuple[str, ...]
    switches: str
    done: tuple[str, ...]


def program(architecture: Architecture, results: Sequence[str]) -> tuple[Step, ...]:
    """The steps that lead to some of a network's outputs, and when each value can go.

    >>> from striate.notation import parse
    >>> [step.done for step in program(parse("INPUT 3x8x8 -> SUM[RELU | TANH] -> FC 3"), ["fc1"])]
    [(), ('input',), ('relu1', 'tanh1'), ('sum1',)]
    """
    undone = {node.name: f"switches of {node.name}" for node in undone_poolings(architecture)}
    needed = set(results)
    for node in reversed(architecture.nodes):
        needed.update(node.inputs if node.name in needed else ())
    last: dict[str, str] = {}
    steps = []
    for node in architecture.nodes[1:]:
        if node.name in needed:
            unpools = isinstance(node.operation, paper.Unpool)
            reads = (node.inputs[0], undone[node.inputs[1]]) if unpools else node.inputs
            switches = undone.get(node.name, "")
            steps.append(Step(node.name, tuple(node.name.split(".")), reads, switches, ()))
            last |= dict.fromkeys((*reads, node.name, *filter(None, [switches])), node.name)
    done = defaultdict(list)
    for value, step in last.items():
        if value not in results:
            done[step].append(value)
    return tuple(step._replace(done=tuple(done[step.name])) for step in steps)


def undone_poolings(architecture: Architecture) -> list[Node]:
    """The max poolings whose switches an UNPOOL reads."""
    names = {node.inputs[1] for node in architecture if isinstance(node.operation, paper.Unpool)}
    return [node for node in architecture if node.name in names]


def turns(architecture: Architecture) -> dict[str, str]:
    """Each ReLU that only a max pooling reads, and that pooling, each to the other.

    >>> from striate.notation import parse
    >>> turns(parse("INPUT 3x8x8 -> CONV3-8 -> RELU -> POOL -> RELU -> FC 3"))
    {'relu1': 'pool1', 'pool1': 'relu1'}
    """
    nodes = {node.name: node for node in architecture}
    readers = Counter(name for node in architecture for name in node.inputs) + Counter(architecture.results)
    undone = {node.name for node in undone_poolings(architecture)}
    found: dict[str, str] = {}
    for node in architecture:
        if type(node.operation) is paper.Pool and node.name not in undone:
            before = nodes[node.inputs[0]]
            if isinstance(before.operation, paper.ReLU) and readers[before.name] == 1:
                found |= {before.name: node.name, node.name: before.name}
    return found


def takes_any_size(architecture: Architecture) -> bool:
    """Whether no layer is made for one size: none that reads the whole map sees a map that grows with the input.

    >>> from striate.notation import parse
    >>> takes_any_size(parse("INPUT 3x8x8 -> GLOBALAVGPOOL -> FC 3"))
    True
    """
    grows: dict[str, bool] = {}
    for node in architecture:
        operation = node.operation
        growing = isinstance(operation, paper.Input) or any(grows[name] for name in node.inputs)
        reads_all = isinstance(operation, WHOLE_MAP) or type(operation) is paper.LocalConv
        if growing and reads_all:
            return False
        grows[node.name] = growing and not isinstance(operation, paper.Adaptive | paper.Resize)
    return True


def forms_chain(architecture: Architecture) -> bool:
    """Whether each node reads the one before it, and the last one is the output.

    >>> from striate.notation import parse
    >>> forms_chain(parse("INPUT 3x8x8 -> CONV3-8 -> RELU -> FC 3"))
    True
    """
    follows = all(node.inputs == (before.name,) for before, node in pairwise(architecture.nodes))
    return follows and architecture.results == (architecture.nodes[-1].name,)


class Network(nn.Module):
    """An architecture with weights: a graph of layers, each under its node's name.

    A name with dots, such as ``layer1.0.conv1``, lies in modules that hold nothing else. Each value is let go after its
    last reader.

    Args:
        architecture: Every number known.

    Raises:
        GeometryError: A layer does not fit its inputs, or there are layers for fewer axes only.
        OptionError: A number is still open, a node was traced from a model, or its name cannot be a module's.

    >>> from striate.notation import parse
    >>> net = Network(parse("INPUT 3x8x8 -> CONV3-4 as stem.conv -> SUM[CONV3-4 | IDENTITY] -> FC 2"))
    >>> [*net.state_dict()]
    ['stem.conv.weight', 'stem.conv.bias', 'conv2.weight', 'conv2.bias', 'fc1.weight', 'fc1.bias']
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        if open_ones := ", ".join(architecture.open):
            raise OptionError(f"the network leaves open: {open_ones}; fill that first, as in bind(classes=10).")
        self.architecture = architecture
        self.input_shape: Shape = architecture.input_shape or ()
        self.any_size = takes_any_size(architecture)
        self.is_chain = forms_chain(architecture) and not any("." in node.name for node in architecture.nodes[1:])
        self._input, *_ = (node.name for node in architecture)
        self._programs = {False: program(architecture, architecture.results[:1])}
        self._programs[True] = program(architecture, architecture.results)
        self._chain = [node.name for node in architecture.nodes[1:]]
        self._build()

    def _build(self) -> None:
        """One module for each node but the input."""
        shapes, overwriting = self.architecture.shapes(), self.architecture.overwriting()
        undone = undone_poolings(self.architecture)
        for node in self.architecture.nodes[1:]:
            module: Any = layer(node, shapes[node.inputs[0]])
            if node.name in overwriting:
                module.inplace = True
            if node in undone:
                module.return_indices = True
            self._place(node.name, module)

    def _place(self, name: str, module: nn.Module) -> None:
        """Put a module under its name, which may have dots."""
        *parents, last = name.split(".")
        place: nn.Module = self
        for number, part in enumerate([*parents, last]):
            inside = place._modules.get(part)
            holder = type(inside) is nn.Module and number < len(parents)
            if not part or (not holder and hasattr(place, part)):
                taken = f"{part!r} means something else there" if part else "a dot stands between two names"
                raise OptionError(f"a layer cannot be called {name!r}: {taken}; write another name behind as.")
            if inside is None:
                place.add_module(part, module if number == len(parents) else nn.Module())
            place = place.get_submodule(part)

    def pools_first(self) -> None:
        """From now on compute a max pooling before the ReLU that only it reads.

            relu(max(x)) = max(relu(x))

        bit for bit, and so is the gradient: where the largest value is not above 0, both have none. Fewer numbers are
        rectified and kept. Modules stay where they are; hooks on these two see each other's inputs.
        """
        turned = turns(self.architecture)
        self._chain = [turned.get(node.name, node.name) for node in self.architecture.nodes[1:]]
        for training, steps in self._programs.items():
            paths = {name: tuple(other.split(".")) for name, other in turned.items()}
            self._programs[training] = tuple(s._replace(path=paths.get(s.name, s.path)) for s in steps)

    def forward(self, x: Tensor) -> Any:
        """Examples ``(N, C, *spatial)`` to the output; in training a network with auxiliary ones gives a tuple of all.

        Raises:
            GeometryError: The examples have another shape than the network was made for.
        """
        if x.shape[1:] != self.input_shape:
            self._check(x)
        if not self.is_chain:
            return self._run(x)
        for name in self._chain:
            x = self._modules[name](x)  # type: ignore[misc]
        return x

    def _run(self, x: Tensor) -> Any:
        """All nodes that the outputs need, in order."""
        values: dict[str, Any] = {self._input: x}
        for step in self._programs[self.training]:
            module: Any = self
            for part in step.path:
                module = module._modules[part]
            if step.switches:
                size = values[step.inputs[0]].shape[2:]
                values[step.name], switches = module(values[step.inputs[0]])
                values[step.switches] = switches, size
                del switches
            else:
                values[step.name] = module(*[values[name] for name in step.inputs])
            for name in step.done:
                del values[name]
        results = self.architecture.results
        return tuple(values[name] for name in results) if self.training and results[1:] else values[results[0]]

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


def network(source: str | Path | Architecture, **variables: Any) -> Network:
    """Build a network from its text, its zoo name or a file that holds a text.

    Args:
        source: Notation text, zoo name, file or :class:`Architecture`.
        **variables: Values of the names that a text uses, such as ``N=2`` or ``POOL=False``, and of what it leaves
            open: ``input=(C, *spatial)``, ``filters``, ``hidden``, ``classes``; for a zoo name, ``input`` and
            ``classes`` change the published ones. Whatever stays open takes input 3x32x32, filters 32, hidden 128,
            classes 10.

    Raises:
        NotationError: The text cannot be read.
        UnknownNameError: No such network.
        OptionError: A variable is unknown, or the text leaves nothing of that name open.
        GeometryError: A layer does not fit its input.

    >>> import torch
    >>> net = network("INPUT 1x28x28 -> [CONV 3x3x8 -> RELU -> POOL]*N -> FC 10", N=2)
    >>> net.conv2, net(torch.zeros(5, 1, 28, 28)).shape
    (Conv2d(8, 8, kernel_size=(3, 3), stride=1, padding='same', dilation=1, groups=1, padding_mode='zeros'), \
torch.Size([5, 10]))
    """
    return Network(zoo.bound(source, variables)[0])
