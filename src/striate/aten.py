"""PyTorch's operators on paper: what each makes of a feature map, by the name that the dispatcher calls it.

An operator that is not here, and that PyTorch does not call pointwise, has unknown reads and unknown costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .combining import Sketch
from .drafts import Constant, KeptReLU, Traced, Value
from .errors import GeometryError
from .factors import REPEAT, single, size_of, viewed
from .operations import (
    ELU,
    GELU,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    PReLU,
    Product,
    ReLU,
    ReLU6,
    Scale,
    Sigmoid,
    SiLU,
    Sum,
    Tanh,
)
from .windows import (
    Operation,
    Shape,
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator that depends on the input.

    Args:
        sketch: The graph so far.
        name: Of the operator, without the underline of those that write in place; ``library::name`` of one that is not
            PyTorch's own.
        given: Its arguments by name, defaults filled in.
        outs: Sizes of its outputs.
        traced: What a tensor is.
        in_place: Whether it overwrites its input.
    """

    sketch: Sketch
    name: str
    given: dict[str, Any]
    outs: tuple[Shape, ...]
    traced: Callable[[Tensor], Traced]
    in_place: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.given.get(name)

    @property
    def out(self) -> Shape:
        """Size of the first output."""
        return self.outs[0]

    def value(self, name: str) -> Value:
        """A tensor that must depend on the input.

        Raises:
            GeometryError: It does not: it is the other operand that does.
        """
        found = self.of(name)
        if isinstance(found, Value):
            return found
        raise GeometryError(f"its {name} does not depend on the input, but something else does")

    def of(self, name: str) -> Traced:
        """What a tensor is; a constant if it is none."""
        tensor = self.given.get(name)
        return self.traced(tensor) if isinstance(tensor, Tensor) else Constant()

    def tensors(self) -> list[Tensor]:
        """All tensors given, in order."""
        entries: list[Any] = []
        for entry in self.given.values():
            entries += entry if isinstance(entry, list | tuple) else [entry]
        return [entry for entry in entries if isinstance(entry, Tensor)]

    def values(self) -> list[Value]:
        """All tensors that depend on the input."""
        return [found for found in map(self.traced, self.tensors()) if isinstance(found, Value)]

    def axis(self, number: int, name: str = "") -> int:
        """A tensor axis counted from the front."""
        return number % max(len(self.value(name or next(iter(self.given))).layout), 1)

    def own(self, *names: str) -> None:
        """Insist that these do not depend on the input.

        Raises:
            GeometryError: One does.
        """
        for name in names:
            if isinstance(self.of(name), Value):
                raise GeometryError(f"its {name} is computed from the input")


Handler = Callable[[Call], Traced | Sequence[Traced]]
HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Name the operators that a function knows."""

    def enter(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return enter


# --------------------------------------------------------------------------------------------------------------- views


@handles("alias", "detach", "clone", "contiguous", "_to_copy", "lift_fresh", "lift", "to", "positive")
def _same(call: Call) -> Traced:
    return call.of(next(iter(call.given)))


@handles("view", "_unsafe_view", "reshape", "_reshape_alias", "_unsafe_masked_view")
def _view(call: Call) -> Traced:
    value = call.value("self")
    layout = viewed(value.layout, call.out)
    if layout is None:
        value = _materialised(call, value)
        layout = viewed(value.layout, call.out)
    if layout is None:
        raise GeometryError("the view cuts through axes whose sizes do not divide")
    return value.relaid(layout)


def _materialised(call: Call, value: Value) -> Value:
    return call.sketch.flat(value) if len(value.layout) > 1 else value


@handles("as_strided")
def _as_strided(call: Call) -> Traced:
    """Other steps along axes of one entry change nothing."""
    tensor, offset = call["self"], call["storage_offset"]
    rows = zip(tensor.shape, tensor.stride(), call["stride"], strict=False)
    same = tuple(call["size"]) == tuple(tensor.shape) and offset in (None, tensor.storage_offset())
    if not same or any(n > 1 and old != new for n, old, new in rows):
        raise GeometryError("it reads memory by steps of its own")
    return call.value("self")


@handles("permute")
def _permute(call: Call) -> Traced:
    value = call.value("self")
    return value.relaid(tuple(value.layout[axis] for axis in call["dims"]))


@handles("transpose", "t", "swapaxes")
def _transpose(call: Call) -> Traced:
    value = call.value("self")
    one, other = (0, 1) if call.name == "t" else (call["dim0"], call["dim1"])
    layout = list(value.layout)
    if len(layout) > 1:
        layout[one], layout[other] = layout[other], layout[one]
    return value.relaid(tuple(layout))


@handles("unsqueeze")
def _unsqueeze(call: Call) -> Traced:
    layout = list(call.value("self").layout)
    layout.insert(call["dim"] % (len(layout) + 1), ())
    return call.value("self").relaid(tuple(layout))


@handles("squeeze")
def _squeeze(call: Call) -> Traced:
    value, given = call.value("self"), call["dim"]
    count = len(value.layout)
    chosen = range(count) if given is None else [a % count for a in (given if isinstance(given, Sequence) else [given])]
    return value.relaid(tuple(axis for k, axis in enumerate(value.layout) if axis or k not in chosen))


@handles("expand")
def _expand(call: Call) -> Traced:
    return _expanded(call.value("self"), call.out)


def _expanded(value: Value, sizes: Shape) -> Value:
    layout = ((),) * (len(sizes) - len(value.layout)) + value.layout
    return value.relaid(
        tuple(axis if size_of(axis) == n else single(REPEAT, n) for axis, n in zip(layout, sizes, strict=True))
    )


@handles("repeat")
def _repeat(call: Call) -> Traced:
    value, counts = call.value("self"), call["repeats"]
    layout = ((),) * (len(counts) - len(value.layout)) + value.layout
    return value.relaid(tuple((*single(REPEAT, n), *axis) for n, axis in zip(counts, layout, strict=True)))


# --------------------------------------------------------------------------------------------------------- elementwise


def _clamped(call: Call) -> Operation | None:
    low, high = (call["min_val"], call["max_val"]) if call.name == "hardtanh" else (call["min"], call["max"])
    if isinstance(low, Tensor) or isinstance(high, Tensor) or low != 0:
        return None
    return ReLU6() if high == 6 else ReLU() if high is None else None


ACTIVATIONS: dict[str, Callable[[Call], Operation | None]] = {
    "relu": lambda call: ReLU(),
    "relu6": lambda call: ReLU6(),
    "hardtanh": _clamped,
    "clamp": _clamped,
    "clamp_min": lambda call: ReLU() if call["min"] == 0 else None,
    "leaky_relu": lambda call: LeakyReLU(float(call["negative_slope"])),
    "elu": lambda call: ELU() if call["alpha"] == call["scale"] == call["input_scale"] == 1 else None,
    "gelu": lambda call: GELU(),
    "silu": lambda call: SiLU(),
    "hardswish": lambda call: HardSwish(),
    "hardsigmoid": lambda call: HardSigmoid(),
    "tanh": lambda call: Tanh(),
    "sigmoid": lambda call: Sigmoid(),
}


@handles("_prelu_kernel", "prelu")
def _prelu(call: Call) -> Traced:
    call.own("weight")
    return call.sketch.pointwise("prelu", PReLU(), call.value("self"))


def pointwise(call: Call) -> Traced:
    """Single values of one tensor, or of several of one size."""
    found = call.values()
    tensors = call.tensors()
    if len(found) > 1:
        joins = {"add": Sum, "mul": Product}
        plain = len(found) == len(tensors) == 2 and call["alpha"] in (None, 1)
        make = joins.get(call.name) if plain else None
        result = call.sketch.joined(call.name, lambda: make() if make else None, found)
    else:
        result = found[0]
    if result.sizes != call.out:
        result = call.sketch.flat(_expanded(result, call.out))
    elif len(found) > 1:
        return result
    maker = ACTIVATIONS.get(call.name)
    operation = maker(call) if maker and len(tensors) == 1 else _scale(call, result, tensors)
    if isinstance(operation, ReLU) and not call.in_place:
        operation = KeptReLU()
    return call.sketch.pointwise(call.name, operation, result)


def _scale(call: Call, value: Value, tensors: Sequence[Tensor]) -> Operation | None:
    """A learned factor for each channel."""
    if call.name != "mul" or len(tensors) != 2:
        return None
    (factor,) = [tensor for tensor in tensors if isinstance(call.traced(tensor), Constant)] or [tensors[0]]
    found = call.traced(factor)
    if not isinstance(found, Constant) or not found.learned:
        return None
    rows = ((1,) * (len(value.layout) - factor.dim()) + tuple(factor.shape))[-len(value.layout) :]
    whole = single(0, value.draft.shape[0])
    return (
        Scale(bias=False) if all((n > 1) == (row == whole) for n, row in zip(rows, value.layout, strict=True)) else None
    )


# What multiplies and adds even where its reads are not followed.
PRODUCTS = frozenset(["mv", "dot", "addmv", "addbmm", "addr", "linear"])
# Operators that multiply and add nothing, or not as convolutions and matrices do, though their reads are not followed.
CHEAP = frozenset([
    "gather", "scatter", "scatter_add", "scatter_reduce", "index_put", "_unsafe_index", "_unsafe_index_put",
    "index_add", "index_copy", "index_fill", "take", "take_along_dim", "masked_fill", "masked_scatter", "where",
    "tril", "triu", "diagonal", "diag_embed", "diagonal_copy", "as_strided", "rot90", "grid_sampler_2d",
    "grid_sampler_3d", "cudnn_grid_sampler", "affine_grid_generator", "embedding", "sort", "topk", "cumsum",
    "cumprod", "cummax", "cummin", "logcumsumexp", "kthvalue", "mode", "unique", "searchsorted", "bucketize",
    "one_hot", "histc", "copy", "fill", "zero", "max_unpool2d", "max_unpool3d", "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d", "fractional_max_pool2d", "fractional_max_pool3d", "view_as_complex", "view_as_real",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_lanczos2d_aa", "renorm", "slice_scatter",
    "select_scatter", "diagonal_scatter", "nonzero_static", "resize", "set", "unbind", "dist", "pad",
    "native_dropout", "bernoulli", "rand_like", "randn_like", "normal", "im2col", "col2im", "unfold", "trace",
    "pdist", "repeat_interleave", "constant_pad_nd",
])  # fmt: skip
