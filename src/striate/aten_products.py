"""PyTorch's operators on paper: channels and parts, normalisation, reductions and products."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from .aten import Call, handles, pointwise
from .combining import Sketch
from .drafts import Constant, Traced, Value
from .errors import GeometryError
from .factors import BATCH, single, size_of
from .operations import (
    FC,
    BatchNorm,
    Concat,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Maxout,
    PixelShuffle,
    PixelUnshuffle,
    Product,
    Shuffle,
    Sigmoid,
    Softmax,
)
from .relations import Relation
from .windows import (
    Conv,
    GlobalAvgPool,
    GlobalPool,
    Operation,
    all_positions,
    same_positions,
)


@handles("channel_shuffle", "native_channel_shuffle")
def _shuffle(call: Call) -> Traced:
    value = call.sketch.flat(call.value("self"))
    return call.sketch.pointwise("channel_shuffle", Shuffle(call["groups"]), value)


@handles("pixel_shuffle", "pixel_unshuffle")
def _pixels(call: Call) -> Traced:
    up = call.name == "pixel_shuffle"
    scale = call["upscale_factor"] if up else call["downscale_factor"]
    value, places = call.sketch.standard(call.value("self"), len(call.out) - 2)
    if sorted(a for a in places if a is not None) != list(range(len(value.draft.shape) - 1)) or len(places) != 2:
        raise GeometryError("it stands with axes beside rows and columns")
    operation = PixelShuffle(scale) if up else PixelUnshuffle(scale)
    shape = operation.output_shape(value.draft.shape)
    draft = call.sketch.node(call.name, operation, [value], shape, operation.reads(value.draft.shape))
    rest = (single(a + 1, shape[a + 1]) for a in places if a is not None)
    return Value(draft, (value.layout[0], single(0, shape[0]), *rest))


@handles("cat", "concat", "stack")
def _cat(call: Call) -> Traced:
    tensors = [tensor for tensor in call["tensors"] if tensor.numel() or tensor.dim() > 1]
    found = [call.traced(tensor) for tensor in tensors]
    axis = (call["dim"] or 0) % len(call.out)
    if all(isinstance(entry, Value) for entry in found):
        values = [entry for entry in found if isinstance(entry, Value)]
        if call.name == "stack":
            values = [v.relaid((*v.layout[:axis], (), *v.layout[axis:])) for v in values]
        return values[0] if len(values) == 1 else call.sketch.concatenated(call.name, Concat, values, axis)
    if call.name == "stack" or (axis == 0 and call.sketch.batch > 1):
        raise GeometryError("it joins tensors that depend on the input and others along a new axis")
    return _with_constants(call, tensors, found, axis)


def _with_constants(call: Call, tensors: Sequence[Tensor], found: Sequence[Traced], axis: int) -> Traced:
    """Coordinates, class tokens and the like, joined to a tensor: rows that read nothing."""
    values, starts, start = [], [], 0
    for tensor, entry in zip(tensors, found, strict=True):
        if isinstance(entry, Value):
            values.append(call.sketch.flat(entry))
            starts.append(start)
        start += tensor.shape[axis]
    first = values[0]
    row = first.layout[axis]
    number = row[0].axis if row else 0 if axis == 1 else axis - 1
    old = [value.draft.shape for value in values]
    if any(v.layout[:axis] != first.layout[:axis] or v.layout[axis + 1 :] != first.layout[axis + 1 :] for v in values):
        raise GeometryError("the axes of its inputs do not correspond to each other")
    shape = tuple(call.out[axis] if k == number else n for k, n in enumerate(old[0]))
    reading = tuple(
        tuple(
            (a - 1, Relation(n, shape[a], ((-at,),), 1) if a == number else Relation.identity(n))
            for a, n in enumerate(one)
            if a
        )
        for one, at in zip(old, starts, strict=True)
    )
    draft = call.sketch.node(call.name, None, values, shape, reading)
    layout = tuple(single(number, shape[number]) if k == axis else r for k, r in enumerate(first.layout))
    return Value(draft, layout)


@handles("slice")
def _slice(call: Call) -> Traced:
    value, axis = call.value("self"), call.axis(call["dim"])
    n, step = value.sizes[axis], call["step"] or 1
    start = min(max((call["start"] or 0) + (n if (call["start"] or 0) < 0 else 0), 0), n)
    if call.out[axis] == 0:
        raise GeometryError("it takes nothing")
    return call.sketch.sliced("slice", value, axis, start, call.out[axis], step)


@handles("narrow")
def _narrow(call: Call) -> Traced:
    axis = call.axis(call["dim"])
    return call.sketch.sliced("slice", call.value("self"), axis, call["start"], call["length"])


@handles("select")
def _select(call: Call) -> Traced:
    value, axis = call.value("self"), call.axis(call["dim"])
    return _one(call, value, axis, call["index"] % value.sizes[axis])


def _one(call: Call, value: Value, axis: int, place: int) -> Value:
    found = call.sketch.sliced("select", value, axis, place, 1)
    return found.relaid((*found.layout[:axis], *found.layout[axis + 1 :]))


@handles(
    "split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "tensor_split", "unsafe_split_with_sizes"
)
def _split(call: Call) -> Sequence[Traced]:
    value, axis = call.value("self"), call.axis(call["dim"] or 0)
    parts, start = [], 0
    for size in call.outs:
        parts.append(call.sketch.sliced("split", value, axis, start, size[axis]))
        start += size[axis]
    return parts


@handles("unbind")
def _unbind(call: Call) -> Sequence[Traced]:
    value, axis = call.value("self"), call.axis(call["dim"] or 0)
    return [_one(call, value, axis, place) for place in range(len(call.outs))]


@handles("index_select", "index")
def _index(call: Call) -> Traced:
    """Some of the channels; which ones is not known, for an index of the input's device is a tensor without values."""
    value = call.value("self")
    if call.name == "index_select":
        axis = call.axis(call["dim"])
        call.own("index")
    else:
        chosen = [k for k, index in enumerate(call["indices"]) if index is not None]
        constant = all(isinstance(call.traced(call["indices"][k]), Constant) for k in chosen)
        if len(chosen) != 1 or call["indices"][chosen[0]].dim() != 1 or not constant:
            raise GeometryError("which values it picks is computed")
        axis = chosen[0]
    if value.layout[axis] != single(0, value.draft.shape[0]):
        raise GeometryError("which positions it picks is in a tensor, and tracing knows no values")
    shape = (call.out[axis], *value.draft.shape[1:])
    draft = call.sketch.node(call.name, None, [value], shape, (same_positions(value.draft.shape),), picks=True)
    layout = tuple(single(0, shape[0]) if k == axis else row for k, row in enumerate(value.layout))
    return Value(draft, layout)


# ------------------------------------------------------------------------------------------------------- normalisation


@handles("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
         "_batch_norm_with_update", "_native_batch_norm_legit_functional", "miopen_batch_norm")  # fmt: skip
def _batch_norm(call: Call) -> Sequence[Traced]:
    value = call.value("input")
    call.own("weight", "bias")
    eps = float(call["epsilon"] if "epsilon" in call.given else call["eps"])
    if call["training"] or ("running_mean" in call.given and call["running_mean"] is None):
        channels, others = value.layout[1], [k for k in range(len(value.layout)) if k != 1]
        alone = any(factor.axis == BATCH for factor in channels)
        if not alone and call.sketch.batch > 1:
            raise GeometryError("its statistics are those of the whole batch")
        whole = all(factor.axis != 0 for k in others for factor in value.layout[k])
        make: Any = InstanceNorm if whole else lambda: None
        return [call.sketch.mixed("instance_norm", make, value, others)]
    if value.layout[1] != single(0, value.draft.shape[0]):
        value = call.sketch.flat(value)
    return [call.sketch.pointwise("batch_norm", BatchNorm(eps, affine=call["weight"] is not None), value)]


@handles("native_group_norm")
def _group_norm(call: Call) -> Sequence[Traced]:
    value = call.sketch.flat(call.value("input"))
    call.own("weight", "bias")
    shape = value.draft.shape
    draft = call.sketch.node("group_norm", GroupNorm(call["group"]), [value], shape, (all_positions(shape),))
    return [Value(draft, value.layout)]


@handles("native_layer_norm", "_fused_rms_norm")
def _layer_norm(call: Call) -> Sequence[Traced]:
    value = call.value("input")
    call.own("weight", "bias")
    axes = range(len(value.layout) - len(call["normalized_shape"]), len(value.layout))
    found = [factor for axis in axes for factor in value.layout[axis]]
    whole = tuple(found) == single(0, value.draft.shape[0]) and call.name == "native_layer_norm"
    kind = "layer_norm" if call.name == "native_layer_norm" else "rms_norm"
    return [call.sketch.mixed(kind, lambda: LayerNorm(float(call["eps"])) if whole else None, value, axes)]


@handles("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax", "cumsum", "cumprod",
         "logcumsumexp", "sort", "topk", "glu", "cummax", "cummin")  # fmt: skip
def _mixing(call: Call) -> Sequence[Traced]:
    value, axis = call.value("self"), call.axis(call["dim"])
    row = value.layout[axis]
    if call.name == "glu":
        return [_glu(call, value, axis)]
    if call.name not in ("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax") and any(
        factor.axis != 0 for factor in row
    ):
        raise GeometryError("which positions it reads depends on the position or on the values")
    if call.name == "topk" or call.out != value.sizes:
        raise GeometryError("which values it keeps depends on them")
    whole = row == single(0, value.draft.shape[0]) and call.name in ("_softmax", "softmax")
    found = call.sketch.mixed(call.name.lstrip("_"), lambda: Softmax() if whole else None, value, [axis])
    return [found] * len(call.outs)


def _glu(call: Call, value: Value, axis: int) -> Value:
    half = value.sizes[axis] // 2
    one = call.sketch.sliced("glu", value, axis, 0, half)
    gate = call.sketch.sliced("glu", value, axis, half, half)
    gate = call.sketch.pointwise("glu", Sigmoid(), gate)
    return call.sketch.joined("glu", Product, [one, gate])


# ---------------------------------------------------------------------------------------------------------- reductions


@handles("mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "logsumexp", "prod", "any",
         "all", "argmax", "argmin", "linalg_vector_norm", "norm", "aminmax", "median", "nansum",
         "count_nonzero")  # fmt: skip
def _reduced(call: Call) -> Sequence[Traced]:
    if call["other"] is not None:
        return [pointwise(call)]
    value = call.value("self")
    given = call["dim"]
    axes = [given] if isinstance(given, int) else list(given or [])
    axes = [a % len(value.layout) for a in axes] or list(range(len(value.layout)))
    chosen = [factor for axis in axes for factor in value.layout[axis]]
    kind = call.name.removeprefix("linalg_")
    found = call.sketch.reduced(kind, lambda: _reduction(call.name, value, chosen), value, axes, bool(call["keepdim"]))
    return [found] * len(call.outs)


def _reduction(name: str, value: Value, chosen: Sequence[Any]) -> Operation | None:
    shape = value.draft.shape
    spatial = (
        len(shape) > 1 and {f.axis for f in chosen} <= set(range(1, len(shape))) and size_of(chosen) == prod(shape[1:])
    )
    if spatial and name in ("mean", "amax"):
        return GlobalAvgPool() if name == "mean" else GlobalPool()
    inner = len(chosen) == 1 and chosen[0].axis == 0 and chosen[0].stride == 1
    return Maxout(chosen[0].size) if inner and name in ("amax", "max") else None


# ------------------------------------------------------------------------------------------------------------ products


@handles("linear")
def linear_layer(call: Call) -> Traced:
    """Learned weights along the last axis of a tensor."""
    call.own("weight", "bias")
    value = call.value("input")
    return linear(call.sketch, "linear", value, len(value.layout) - 1, call.out[-1], call["bias"] is not None)


def linear(sketch: Sketch, kind: str, value: Value, axis: int, features: int, bias: bool) -> Value:
    """Learned weights along one axis of a tensor: fully connected, or a convolution that is 1 wide."""
    whole, each = FC(features, bias), Conv(1, features, padding=0, bias=bias)
    return sketch.connected(kind, value, axis, features, whole, each)


@handles("mm", "addmm", "bmm", "baddbmm", "mv", "dot", "addbmm", "addmv")
def _matrices(call: Call) -> Traced:
    names = ("mat2", "batch2", "vec", "tensor")
    right = next(name for name in names if name in call.given)
    left = next(name for name in ("mat1", "batch1", "mat", "self") if name in call.given)
    bias = call["self"] if left != "self" else None
    one, other = call.of(left), call.of(right)
    if call.name in ("mv", "dot", "addmv", "addbmm") or (bias is not None and isinstance(call.traced(bias), Value)):
        raise GeometryError("what it adds, or a lone vector, is computed from the input")
    if isinstance(one, Value) and isinstance(other, Value):
        return matrices(call, one, other)
    kind = "linear" if call.name in ("mm", "addmm") else "matmul"
    if isinstance(one, Value):
        features = call[right].shape[-1]
        return linear(call.sketch, kind, one, len(one.layout) - 1, features, bias is not None)
    value = call.value(right)
    return linear(call.sketch, kind, value, len(value.layout) - 2, call[left].shape[-2], bias is not None)


def matrices(call: Call, one: Value, other: Value) -> Value:
    """A product of two matrices, or as many products as the first axis has entries."""
    lead: list[Any] = [((0, 0), (1, 0))] if len(one.layout) == 3 else []
    n = len(lead)
    operands = [(one, [n + 1]), (other, [n])]
    macs = prod(call.out) * one.sizes[-1] // call.sketch.batch
    return call.sketch.product("matmul", operands, [*lead, ((0, n),), ((1, n + 1),)], macs)


@handles("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
         "scaled_dot_product_attention", "_scaled_dot_product_efficient_attention",
         "_scaled_dot_product_cudnn_attention",
         "_scaled_dot_product_fused_attention_overrideable", "_scaled_dot_product_attention_math")  # fmt: skip
def attention(call: Call) -> Sequence[Traced]:
    """Attention that PyTorch computes in one operator."""
    query, key, value = call.value("query"), call.value("key"), call.value("value")
    if call["is_causal"] or call["attn_mask"] is not None or call["attn_bias"] is not None:
        raise GeometryError("its mask says which positions are read, and tracing knows no values")
    lead = [((0, k), (1, k), (2, k)) for k in range(len(query.layout) - 2)]
    n = len(lead)
    macs = multiply_adds(call)
    operands = [(query, [n + 1]), (key, [n, n + 1]), (value, [n])]
    found = call.sketch.product("attention", operands, [*lead, ((0, n),), ((2, n + 1),)], macs)
    return [found]


def multiply_adds(call: Call) -> int | None:
    """Multiply-adds of a function that PyTorch takes apart; None if they are not known here."""
    if call.name == "linear":
        return prod(call.out) * call["input"].shape[-1] // call.sketch.batch
    if "attention" in call.name and call["query"] is not None:
        query, key, value = (call[name].shape for name in ("query", "key", "value"))
        return prod(query[:-1]) * key[-2] * (query[-1] + value[-1]) // call.sketch.batch
    return None
