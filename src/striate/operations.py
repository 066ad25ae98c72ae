"""The operations of a network on paper: the windows, and what stands between them. No tensors here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, ClassVar

from .errors import GeometryError
from .geometry import per_axis
from .relations import Relation
from .windows import BYTES as BYTES
from .windows import INPUTS as INPUTS
from .windows import NO_VALUES as NO_VALUES
from .windows import OUTPUT as OUTPUT
from .windows import Adaptive as Adaptive
from .windows import AdaptiveAvgPool as AdaptiveAvgPool
from .windows import AdaptivePool as AdaptivePool
from .windows import AvgPool as AvgPool
from .windows import Conv as Conv
from .windows import DepthwiseConv as DepthwiseConv
from .windows import GaussianPool as GaussianPool
from .windows import GlobalAvgPool as GlobalAvgPool
from .windows import GlobalPool as GlobalPool
from .windows import Input as Input
from .windows import LocalConv as LocalConv
from .windows import LpPool as LpPool
from .windows import Operation as Operation
from .windows import PerAxis as PerAxis
from .windows import Pool as Pool
from .windows import Reading as Reading
from .windows import Shape as Shape
from .windows import TiledConv as TiledConv
from .windows import TransposedConv as TransposedConv
from .windows import Unpool as Unpool
from .windows import Weighted as Weighted
from .windows import Windowed as Windowed
from .windows import all_positions as all_positions
from .windows import divided as divided
from .windows import filled as filled
from .windows import same_positions as same_positions
from .windows import sampled
from .windows import spatial_size as spatial_size
from .windows import written as written

# --------------------------------------------------------------------------------------------- fully connected, joins


@dataclass(frozen=True, slots=True)
class FC(Operation):
    """Fully connected: every output reads the whole input."""

    word: ClassVar[str] = "FC"
    measure: ClassVar[str] = "features"
    saves: ClassVar[frozenset[str]] = INPUTS
    features: int | None = None
    bias: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(features,)``."""
        return (filled(self.features),)

    def parameters(self, *shapes: Shape) -> int:
        """One weight for each pair of input and output, and the biases."""
        return filled(self.features) * (prod(shapes[0]) + self.bias)

    def multiply_adds(self, *shapes: Shape) -> int:
        """One for each weight."""
        return filled(self.features) * prod(shapes[0])

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """Everything."""
        return (all_positions(shapes[0]),)


@dataclass(frozen=True, slots=True)
class RBF(Operation):
    """Squared distances to fixed codes of +1 and -1, as in the output of the first LeNet-5; nothing is learned."""

    word: ClassVar[str] = "RBF"
    measure: ClassVar[str] = "features"
    saves: ClassVar[frozenset[str]] = INPUTS
    features: int | None = None

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(features,)``."""
        return (filled(self.features),)

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """Everything."""
        return (all_positions(shapes[0]),)


@dataclass(frozen=True, slots=True)
class Flatten(Operation):
    """All values in one row."""

    word: ClassVar[str] = "FLATTEN"
    passes_on: ClassVar[bool] = True

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(C * positions,)``."""
        return (prod(shapes[0]),)

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """Everything: what was a position is a feature now."""
        return (all_positions(shapes[0]),)


@dataclass(frozen=True, slots=True)
class Join(Operation):
    """Brings branches together; a map of one position is repeated at all positions."""

    inputs: ClassVar[int | None] = None

    def output_shape(self, *shapes: Shape) -> Shape:
        """That of the branches."""
        return (self._channels(shapes), *self._size(shapes))

    def _channels(self, shapes: Sequence[Shape]) -> int:
        if len({shape[0] for shape in shapes} - {1}) > 1:
            raise GeometryError(f"{self.word} needs branches of as many channels; they give {self._given(shapes)}.")
        return max(shape[0] for shape in shapes)

    def _size(self, shapes: Sequence[Shape]) -> Shape:
        axes = max(len(shape) for shape in shapes) - 1
        sizes = [shape[1:] if len(shape) > 1 else (1,) * axes for shape in shapes]
        fits = all(len(size) == axes for size in sizes)
        largest = tuple(max(n) for n in zip(*sizes, strict=True)) if fits else ()
        if not fits or any(n not in (1, most) for size in sizes for n, most in zip(size, largest, strict=True)):
            raise self._differ(shapes)
        return largest

    def _differ(self, shapes: Sequence[Shape]) -> GeometryError:
        return GeometryError(
            f"{self.word} needs branches of one size; they give {self._given(shapes)}. "
            "CROP, PAD, UPSAMPLE or another padding or stride brings sizes together."
        )

    @staticmethod
    def _given(shapes: Sequence[Shape]) -> str:
        return " and ".join(map(written, shapes))

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """The same position of every branch."""
        size = self._size(shapes)
        return tuple(
            tuple(
                (axis, Relation.identity(n)) if n == m else (None, Relation.everything(n))
                for axis, (n, m) in enumerate(zip(shape[1:], size, strict=len(shape) > 1))
            )
            for shape in shapes
        )


@dataclass(frozen=True, slots=True)
class Sum(Join):
    """The sum of the branches."""

    word: ClassVar[str] = "SUM"


@dataclass(frozen=True, slots=True)
class Product(Join):
    """The product of the branches, as in gates and squeeze-and-excitation."""

    word: ClassVar[str] = "PRODUCT"
    saves: ClassVar[frozenset[str]] = INPUTS

    def saved_extra(self, *shapes: Shape) -> int:
        """The products of the first branches, where there are more than two."""
        return BYTES * prod(self.output_shape(*shapes)) * max(0, len(shapes) - 2)


@dataclass(frozen=True, slots=True)
class Concat(Join):
    """The branches' channels, one branch after the other."""

    word: ClassVar[str] = "CONCAT"

    def _channels(self, shapes: Sequence[Shape]) -> int:
        return sum(shape[0] for shape in shapes)

    def _size(self, shapes: Sequence[Shape]) -> Shape:
        if len({shape[1:] for shape in shapes}) > 1:
            raise self._differ(shapes)
        return shapes[0][1:]


# ---------------------------------------------------------------------------------------------------------- elementwise


@dataclass(frozen=True, slots=True)
class Activation(Operation):
    """A nonlinearity of single values; its gradient is found from its input, where it does not say otherwise."""

    saves: ClassVar[frozenset[str]] = INPUTS


@dataclass(frozen=True, slots=True)
class ReLU(Activation):
    """``max(x, 0)``."""

    word: ClassVar[str] = "RELU"
    in_place: ClassVar[bool] = True
    saves: ClassVar[frozenset[str]] = OUTPUT


@dataclass(frozen=True, slots=True)
class ReLU6(Activation):
    """``min(max(x, 0), 6)``."""

    word: ClassVar[str] = "RELU6"


@dataclass(frozen=True, slots=True)
class LeakyReLU(Activation):
    """``x`` above 0, ``slope * x`` below."""

    word: ClassVar[str] = "LEAKYRELU"
    measure: ClassVar[str] = "slope"
    slope: float = 0.01


@dataclass(frozen=True, slots=True)
class PReLU(Activation):
    """``x`` above 0, a learned multiple of it below: one for each channel."""

    word: ClassVar[str] = "PRELU"

    def parameters(self, *shapes: Shape) -> int:
        """One per channel."""
        return shapes[0][0]


@dataclass(frozen=True, slots=True)
class ELU(Activation):
    """``x`` above 0, ``exp(x) - 1`` below."""

    word: ClassVar[str] = "ELU"


@dataclass(frozen=True, slots=True)
class GELU(Activation):
    """``x`` times the normal distribution's function of ``x``."""

    word: ClassVar[str] = "GELU"


@dataclass(frozen=True, slots=True)
class SiLU(Activation):
    """``x * sigmoid(x)``, also called swish."""

    word: ClassVar[str] = "SILU"


@dataclass(frozen=True, slots=True)
class HardSwish(Activation):
    """``x * min(max(x + 3, 0), 6) / 6``."""

    word: ClassVar[str] = "HARDSWISH"


@dataclass(frozen=True, slots=True)
class HardSigmoid(Activation):
    """``min(max(x + 3, 0), 6) / 6``."""

    word: ClassVar[str] = "HARDSIGMOID"


@dataclass(frozen=True, slots=True)
class Tanh(Activation):
    """Hyperbolic tangent."""

    word: ClassVar[str] = "TANH"
    saves: ClassVar[frozenset[str]] = OUTPUT


@dataclass(frozen=True, slots=True)
class Sigmoid(Activation):
    """``1 / (1 + exp(-x))``."""

    word: ClassVar[str] = "SIGMOID"
    saves: ClassVar[frozenset[str]] = OUTPUT


@dataclass(frozen=True, slots=True)
class Softmax(Activation):
    """``exp(x)`` over its sum over the channels, at every position."""

    word: ClassVar[str] = "SOFTMAX"
    saves: ClassVar[frozenset[str]] = OUTPUT


@dataclass(frozen=True, slots=True)
class Dropout(Operation):
    """Sets each value to zero with probability ``p`` while training, and passes its input on otherwise."""

    word: ClassVar[str] = "DROPOUT"
    measure: ClassVar[str] = "p"
    passes_on: ClassVar[bool] = True
    p: float = 0.5

    def saved_extra(self, *shapes: Shape) -> int:
        """The mask, in the type of the values."""
        return BYTES * prod(shapes[0]) if self.p else 0


@dataclass(frozen=True, slots=True)
class Scale(Operation):
    """Each channel times a learned number, which is ``start`` at first, plus another one."""

    word: ClassVar[str] = "SCALE"
    saves: ClassVar[frozenset[str]] = INPUTS
    bias: bool = True
    start: float = 1.0

    def parameters(self, *shapes: Shape) -> int:
        """A scale per channel, and a shift."""
        return shapes[0][0] * (1 + self.bias)


# ------------------------------------------------------------------------------------------------------- normalisation


@dataclass(frozen=True, slots=True)
class BatchNorm(Operation):
    """Batch normalisation of each channel, with a learned scale and shift if it is ``affine``."""

    word: ClassVar[str] = "BN"
    saves: ClassVar[frozenset[str]] = INPUTS
    eps: float = 1e-5
    affine: bool = True

    def parameters(self, *shapes: Shape) -> int:
        """A scale and a shift per channel, unless it is not affine."""
        return 2 * shapes[0][0] if self.affine else 0

    def saved_extra(self, *shapes: Shape) -> int:
        """Mean and deviation of each channel."""
        return 2 * BYTES * shapes[0][0]


@dataclass(frozen=True, slots=True)
class LayerNorm(Operation):
    """Normalisation of each position over its channels, with a learned scale and shift per channel."""

    word: ClassVar[str] = "LN"
    saves: ClassVar[frozenset[str]] = INPUTS
    eps: float = 1e-6

    def parameters(self, *shapes: Shape) -> int:
        """A scale and a shift per channel."""
        return 2 * shapes[0][0]

    def saved_extra(self, *shapes: Shape) -> int:
        """Mean and deviation of each position."""
        return 2 * BYTES * prod(shapes[0][1:])


@dataclass(frozen=True, slots=True)
class GroupNorm(Operation):
    """Normalisation of groups of channels over all positions, with a learned scale and shift per channel."""

    word: ClassVar[str] = "GN"
    measure: ClassVar[str] = "groups"
    saves: ClassVar[frozenset[str]] = INPUTS
    groups: int = 32

    def output_shape(self, *shapes: Shape) -> Shape:
        """As the input."""
        divided("GN", shapes[0][0], self.groups)
        return shapes[0]

    def parameters(self, *shapes: Shape) -> int:
        """A scale and a shift per channel."""
        return 2 * shapes[0][0]

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """Everything, for mean and deviation."""
        return (all_positions(shapes[0]),)

    def saved_extra(self, *shapes: Shape) -> int:
        """Mean and deviation of each group."""
        return 2 * BYTES * self.groups


@dataclass(frozen=True, slots=True)
class InstanceNorm(Operation):
    """Normalisation of each channel over its positions; nothing is learned."""

    word: ClassVar[str] = "IN"
    saves: ClassVar[frozenset[str]] = INPUTS

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """Everything, for mean and deviation."""
        return (all_positions(shapes[0]),)

    def saved_extra(self, *shapes: Shape) -> int:
        """Mean and deviation of each channel."""
        return 2 * BYTES * shapes[0][0]


@dataclass(frozen=True, slots=True)
class LocalResponseNorm(Operation):
    """``x / (k + alpha / size * sum x^2)^beta`` over ``size`` neighbouring channels."""

    word: ClassVar[str] = "LRN"
    measure: ClassVar[str] = "size"
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def saved_extra(self, *shapes: Shape) -> int:
        """Copies in float64: four of the input; if the size is even, three, and one with channels padded."""
        positions = prod(shapes[0][1:])
        fourth = shapes[0][0] + (self.size - 1 if self.size % 2 == 0 else 0)
        return 8 * (3 * shapes[0][0] + fourth) * positions


# ----------------------------------------------------------------------------------------------- channels and positions


@dataclass(frozen=True, slots=True)
class Maxout(Operation):
    """The largest of each ``pieces`` neighbouring channels."""

    word: ClassVar[str] = "MAXOUT"
    measure: ClassVar[str] = "pieces"
    pieces: int = 2

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(C / pieces, *spatial)``."""
        return (divided("MAXOUT", shapes[0][0], self.pieces), *shapes[0][1:])

    def saved_extra(self, *shapes: Shape) -> int:
        """Which piece was the largest: a 64-bit number for each output."""
        return 8 * prod(self.output_shape(*shapes))


@dataclass(frozen=True, slots=True)
class Shuffle(Operation):
    """Deals the channels of each group out to all groups: channel ``g * n + i`` becomes ``i * groups + g``."""

    word: ClassVar[str] = "SHUFFLE"
    measure: ClassVar[str] = "groups"
    passes_on: ClassVar[bool] = True
    groups: int = 2

    def output_shape(self, *shapes: Shape) -> Shape:
        """As the input."""
        divided("SHUFFLE", shapes[0][0], self.groups)
        return shapes[0]


@dataclass(frozen=True, slots=True)
class Channels(Operation):
    """Some of the channels: ``chosen`` is ``(part, parts)`` with part from 1, or a list of channel numbers from 0."""

    word: ClassVar[str] = "CHANNELS"
    measure: ClassVar[str] = "chosen"
    passes_on: ClassVar[bool] = True
    chosen: tuple[str, tuple[int, ...]] = ("part", (1, 1))

    def numbers(self, channels: int) -> Sequence[int]:
        """The channels chosen, as numbers from 0."""
        kind, values = self.chosen
        if kind == "part":
            part, parts = values
            width = divided("CHANNELS", channels, parts)
            return range((part - 1) * width, part * width)
        if max(values) >= channels:
            raise GeometryError(f"CHANNELS asks for channel {max(values)}, but there are {channels}, counted from 0.")
        return values

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(chosen, *spatial)``."""
        return (len(self.numbers(shapes[0][0])), *shapes[0][1:])


@dataclass(frozen=True, slots=True)
class PixelShuffle(Operation):
    """Channels become positions: each block of ``scale`` per axis is filled from as many channels."""

    word: ClassVar[str] = "PIXELSHUFFLE"
    measure: ClassVar[str] = "scale"
    scale: int = 2

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(C / scale^axes, *(scale * n))``."""
        spatial = spatial_size(shapes[0], self.word)
        channels = divided("PIXELSHUFFLE", shapes[0][0], self.scale ** len(spatial))
        return (channels, *(n * self.scale for n in spatial))

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """The position that the block came from."""
        return sampled(shapes[0], self.output_shape(*shapes), Relation.nearest)


@dataclass(frozen=True, slots=True)
class PixelUnshuffle(Operation):
    """Positions become channels: each block of ``scale`` per axis is one position."""

    word: ClassVar[str] = "PIXELUNSHUFFLE"
    measure: ClassVar[str] = "scale"
    scale: int = 2

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(C * scale^axes, *(n / scale))``."""
        spatial = spatial_size(shapes[0], self.word)
        if any(n % self.scale for n in spatial):
            raise GeometryError(f"PIXELUNSHUFFLE {self.scale} does not divide the size {written(spatial)}.")
        return (shapes[0][0] * self.scale ** len(spatial), *(n // self.scale for n in spatial))

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """The block's positions."""
        return sampled(shapes[0], self.output_shape(*shapes), Relation.cells)


@dataclass(frozen=True, slots=True)
class Interpolation(Operation):
    """Interpolation: ``mode`` is nearest or linear (bilinear on two axes, trilinear on three)."""

    mode: str = "nearest"
    align_corners: bool = False

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """The nearest position, or the two next to it."""
        corners = self.align_corners and self.mode != "nearest"
        relate = Relation.nearest if self.mode == "nearest" else partial(Relation.linear, align_corners=corners)
        return sampled(shapes[0], self.output_shape(*shapes), relate, corners=corners)


@dataclass(frozen=True, slots=True)
class Upsample(Interpolation):
    """Interpolation to ``scale`` times the size."""

    word: ClassVar[str] = "UPSAMPLE"
    measure: ClassVar[str] = "scale"
    scale: PerAxis = 2

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(C, *(scale * n))``."""
        spatial = spatial_size(shapes[0], self.word)
        scales = per_axis("scale", self.scale, len(spatial))
        return (shapes[0][0], *(n * scale for n, scale in zip(spatial, scales, strict=True)))


@dataclass(frozen=True, slots=True)
class Resize(Interpolation):
    """Interpolation to a given size."""

    word: ClassVar[str] = "RESIZE"
    measure: ClassVar[str] = "size"
    size: PerAxis = 1

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(C, *size)``."""
        spatial = spatial_size(shapes[0], self.word)
        return (shapes[0][0], *per_axis("size", self.size, len(spatial)))


@dataclass(frozen=True, slots=True)
class Rows(Operation):
    """Rows added on the sides, or taken away (``sign`` -1): a number, or ``(before, after)``, for each axis."""

    measure: ClassVar[str] = "rows"
    sign: ClassVar[int] = 1
    rows: Any = 1

    def pairs(self, shape: Shape) -> tuple[tuple[int, int], ...]:
        """``(before, after)`` for each axis."""
        spatial = spatial_size(shape, self.word)
        entries = per_axis("rows", self.rows, len(spatial))
        return tuple(entry if isinstance(entry, tuple) else (entry, entry) for entry in entries)

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(C, *(n + before + after))``."""
        return (shapes[0][0], *(relation.outputs for _, relation in self._relations(shapes[0])))

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """Its own place in the input."""
        return (self._relations(shapes[0]),)

    def _relations(self, shape: Shape) -> tuple[tuple[int, Relation], ...]:
        relations = []
        for (before, after), n in zip(self.pairs(shape), shape[1:], strict=True):
            size = n + self.sign * (before + after)
            if size < 1:
                raise GeometryError(f"CROP takes {before} + {after} rows away, but there are only {n}.")
            border = getattr(self, "border", "zeros")
            relations.append(Relation(n, size, ((-self.sign * before,),), 1, border))
        return tuple(enumerate(relations))


@dataclass(frozen=True, slots=True)
class Pad(Rows):
    """Rows added on the sides: zeros, or what the border finds."""

    word: ClassVar[str] = "PAD"
    border: str = "zeros"


@dataclass(frozen=True, slots=True)
class Crop(Rows):
    """Rows taken away from the sides."""

    word: ClassVar[str] = "CROP"
    passes_on: ClassVar[bool] = True
    sign: ClassVar[int] = -1


# ------------------------------------------------------------------------------------------------- from foreign models


# What a traced model does with values without keeping any for the backward pass.
KEEPS_NOTHING = frozenset(
    ("add", "sub", "rsub", "neg", "cat", "stack", "view", "reshape", "permute", "transpose", "expand", "slice",
     "select", "narrow", "squeeze", "unsqueeze", "flatten", "clone", "sum", "mean", "split", "chunk", "unbind",
     "constant_pad_nd")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Foreign(Operation):
    """An operation that a traced model performs and the notation has no word for.

    Args:
        kind: What the model calls it.
        shape: Of its output.
        learned: Parameters.
        macs: Multiply-adds, or None if they are unknown.
        reading: For each input, which positions are read, or why that is unknown.
        why: Why the multiply-adds are unknown.
        apart: Whether its channels are positions of its inputs, so that they see different places.
        picks: Whether a position reads only some of the channels of its inputs.
    """

    inputs: ClassVar[int | None] = None
    kind: str = ""
    shape: Shape = ()
    learned: int = 0
    macs: int | None = 0
    reading: tuple[Reading | str, ...] = ()
    why: str = ""
    apart: bool = False
    picks: bool = False

    def output_shape(self, *shapes: Shape) -> Shape:
        """As traced."""
        return self.shape

    def parameters(self, *shapes: Shape) -> int:
        """As traced."""
        return self.learned

    def multiply_adds(self, *shapes: Shape) -> int | None:
        """As traced."""
        return self.macs

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """As traced."""
        return self.reading

    def saved_extra(self, *shapes: Shape) -> int | None:
        """Unknown, but for what is linear with fixed numbers."""
        return 0 if self.kind in KEEPS_NOTHING else None

    @property
    def unknown(self) -> str:
        """Why the multiply-adds are unknown."""
        return self.why


KINDS: tuple[type[Operation], ...] = (
    *(Input, Conv, DepthwiseConv, TransposedConv, LocalConv, TiledConv),
    *(Pool, AvgPool, LpPool, GaussianPool, GlobalPool, GlobalAvgPool, AdaptivePool, AdaptiveAvgPool, Unpool),
    *(FC, RBF, Flatten, Sum, Product, Concat),
    *(ReLU, ReLU6, LeakyReLU, PReLU, ELU, GELU, SiLU, HardSwish, HardSigmoid, Tanh, Sigmoid, Softmax),
    *(Dropout, Scale, BatchNorm, LayerNorm, GroupNorm, InstanceNorm, LocalResponseNorm),
    *(Maxout, Shuffle, Channels, PixelShuffle, PixelUnshuffle, Upsample, Resize, Pad, Crop),
)
OPERATIONS: dict[str, type[Operation]] = {kind.word: kind for kind in KINDS}
