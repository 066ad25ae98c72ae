"""Layers and functions that are one operation on paper, though PyTorch sees many operators in each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from . import layers, pooling_layers
from .aten import Call
from .aten_products import attention, linear_layer
from .aten_windows import padded
from .drafts import Traced, Value
from .errors import GeometryError
from .factors import BATCH, REPEAT, Axis, single
from .operations import (
    Dropout,
    Foreign,
    LocalResponseNorm,
    Maxout,
)
from .rearranging import squashed
from .relations import Relation
from .shortcuts import INSIDE, caller, flattened, mapped
from .windows import (
    AdaptiveAvgPool,
    AdaptivePool,
    AvgPool,
    Conv,
    GaussianPool,
    GlobalAvgPool,
    GlobalPool,
    LocalConv,
    LpPool,
    Operation,
    Pool,
    TiledConv,
    TransposedConv,
    Unpool,
    all_positions,
)

SIZES = (Tensor.shape.__get__, Tensor.size, Tensor.__len__)  # type: ignore[attr-defined]
COSTS = "its layer does not tell what it costs"
Unit = tuple[tuple[str, ...], Callable[[Call], Any]]


def _conv(layer: Any) -> dict[str, Any]:
    """What the weighted windows share, as the notation takes it."""
    settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
    settings = {name: value if isinstance(value, str) else squashed(value) for name, value in settings.items()}
    return settings | {
        "kernel": squashed(layer.kernel_size),
        "filters": layer.out_channels,
        "groups": layer.groups,
        "bias": layer.bias is not None,
    }


def _convolution(layer: Any) -> Operation:
    return Conv(border=layer.padding_mode, **_conv(layer))


def _transposed(layer: Any) -> Operation | None:
    if layer.padding_mode != "zeros":
        return None
    return TransposedConv(output_padding=squashed(layer.output_padding), **_conv(layer))


def _local(layer: Any) -> Operation | None:
    return LocalConv(**_conv(layer)) if layer.padding_mode == "zeros" else None


def _tiled(layer: Any) -> Operation | None:
    return TiledConv(tile=squashed(layer.repeats()), **_conv(layer)) if layer.padding_mode == "zeros" else None


def _pool(layer: Any) -> dict[str, Any]:
    settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
    settings = {name: value if isinstance(value, str) else squashed(value) for name, value in settings.items()}
    settings["stride"] = None if layer.stride == layer.kernel_size else settings["stride"]
    return settings | {"kernel": squashed(layer.kernel_size), "ceil": layer.ceil_mode}


def _gaussian(layer: Any) -> Operation:
    sigma = layer.sigma
    return GaussianPool(sigma=None if sigma is None or isinstance(sigma, Sequence) else float(sigma), **_pool(layer))


def _mean(layer: Any) -> Operation:
    return AvgPool(count_padding=layer.count_include_pad, **_pool(layer))


LAYERS: dict[type[nn.Module], Callable[[Any], Operation | None]] = {
    layers.Conv: _convolution,
    layers.ConvTranspose: _transposed,
    layers.ConvLocal: _local,
    layers.ConvTiled: _tiled,
    pooling_layers.MaxPool: lambda layer: Pool(**_pool(layer)),
    pooling_layers.AvgPool: _mean,
    pooling_layers.LPPool: lambda layer: LpPool(p=float(layer.norm_type), **_pool(layer)),
    pooling_layers.GaussianPool: _gaussian,
}
"""Layers with a window, and their operations."""


def is_unit(module: nn.Module) -> bool:
    """Whether a layer is one operation on paper."""
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return type(module) in RECURRENT
    return isinstance(module, UNITS)


def handler(module: nn.Module) -> Callable[[Call], Any]:
    """What makes a layer's node."""
    for kind, make in LAYERS.items():
        if isinstance(module, kind):
            return partial(_windowed, operation=make(module))
    run: Any = next(run for kind, run in OTHERS.items() if isinstance(module, kind))
    return partial(run, layer=module)


def _windowed(call: Call, operation: Operation | None) -> Sequence[Traced]:
    """A window over all spatial axes."""
    if operation is None:
        raise GeometryError("its borders are not those of the notation")
    value = _plain(call, "given0")
    shape = operation.output_shape(value.draft.shape)
    draft = call.sketch.node(call.name, operation, [value], shape, operation.reads(value.draft.shape),
                             macs=operation.multiply_adds(value.draft.shape))  # fmt: skip
    found = Value(draft, (value.layout[0], *(single(axis, n) for axis, n in enumerate(shape))))
    return [found] * len(call.outs)


def _plain(call: Call, name: str) -> Value:
    """A tensor as a feature map whose axes stand in order."""
    value, places = call.sketch.standard(call.value(name), len(call.value(name).layout) - 2)
    if places != list(range(len(value.draft.shape) - 1)):
        raise GeometryError("its axes do not stand in the order of the feature map")
    return value


def _adaptive(call: Call, layer: Any) -> Sequence[Traced]:
    value = _plain(call, "given0")
    size = tuple(m or n for m, n in zip(layer.output_size, value.draft.shape[1:], strict=True))
    mean = isinstance(layer, pooling_layers.AdaptiveAvgPool)
    if prod(size) == 1:
        return _windowed(call, GlobalAvgPool() if mean else GlobalPool())
    return _windowed(call, (AdaptiveAvgPool if mean else AdaptivePool)(squashed(size)))


def _maxout(call: Call, layer: Any) -> Sequence[Traced]:
    return _windowed(call, Maxout(layer.pieces))


def _response(call: Call, layer: Any) -> Sequence[Traced]:
    return _windowed(call, LocalResponseNorm(layer.size, float(layer.alpha), float(layer.beta), float(layer.k)))


def _unpool(call: Call, layer: Any) -> Sequence[Traced]:
    """Values put back where a max pooling of this model found them."""
    value, switches = _plain(call, "given0"), call.value("given1")
    pool = switches.draft.operation
    if not isinstance(pool, Pool) or pool.ceil or pool.dilation != 1 or isinstance(pool.padding, str):
        raise GeometryError("the pooling that its switches come from is not known")
    given = switches.draft.inputs[0]
    operation = Unpool(switches.draft.name, pool.kernel, pool.stride, pool.padding)
    shape = operation.output_shape(value.draft.shape, switches.draft.shape, given.shape)
    whole = Value(given, (value.layout[0], *(single(k, n) for k, n in enumerate(given.shape))))
    reading = operation.reads(value.draft.shape, switches.draft.shape, given.shape)
    draft = call.sketch.node(call.name, operation, [value, switches, whole], shape, reading)
    return [Value(draft, whole.layout)]


# -------------------------------------------------------------------------------------------------- recurrent layers

STEPS = "a recurrent layer reads all steps before its own"
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _recurrent(call: Call, layer: Any) -> Sequence[Traced]:
    """Steps one after the other; the states that it ends with read them all."""
    value = call.value("given0")
    if len(value.layout) != 3:
        raise GeometryError("it gets one example without a batch")
    examples, steps = (0, 1) if layer.batch_first else (1, 0)
    if (value.layout[examples] or single(BATCH, 1)) != (single(BATCH, call.sketch.batch) or single(BATCH, 1)):
        raise GeometryError("what it takes for examples are parts of one")
    ways, features = 1 + layer.bidirectional, layer.proj_size or layer.hidden_size
    macs, given = 0, layer.input_size
    for _ in range(layer.num_layers):
        own = GATES[layer.mode.partition("_")[0]] * layer.hidden_size * (given + features)
        macs += ways * (own + layer.proj_size * layer.hidden_size)
        given = ways * features
    operands = [(value, [2]), *((state, [2]) for state in call.values()[1:])]
    rows: list[Any] = [((0, 0),), ((0, 1),), given]
    found = call.sketch.product(call.name, operands, rows, macs * value.sizes[steps])
    _mix_steps(found, value, value.layout[steps], both=bool(layer.bidirectional))
    ends = [_ending(call, found, sizes) for sizes in call.outs[1:]]
    return [found, *ends]


def _mix_steps(found: Value, value: Value, steps: Axis, both: bool) -> None:
    """Let each step read those that it does."""
    operation = found.draft.operation
    if not isinstance(operation, Foreign):
        return
    reading = operation.reading[0]
    among = {factor.axis for factor in steps if factor.axis >= 1}
    if isinstance(reading, str) or not among:
        return
    kept = {f.axis for f in value.factors if f not in steps} & among
    rows = tuple(
        (None, Relation.everything(n)) if axis in among else row
        for axis, (row, n) in enumerate(zip(reading, value.draft.shape[1:], strict=True), 1)
    )
    mixed = STEPS if not both or kept else rows
    found.draft.operation = replace(operation, reading=(mixed, *operation.reading[1:]))


def _ending(call: Call, found: Value, sizes: Sequence[int]) -> Value:
    """States at the end ``(layers, batch, features)``, as channels."""
    shape = found.draft.shape
    count, _, features = sizes
    draft = call.sketch.node(f"{call.name}_state", None, [found], (count * features,), (all_positions(shape),))
    return Value(draft, (single(0, count, features), single(BATCH, call.sketch.batch), single(0, features)))


def _recurrent_cell(call: Call, layer: Any) -> Sequence[Traced]:
    """One step."""
    value = call.value("given0")
    if len(value.layout) != 2 or any(f.axis in (BATCH, REPEAT) for f in value.layout[1]):
        raise GeometryError("it gets one example without a batch")
    macs = GATES[call.name.removesuffix("Cell")] * layer.hidden_size * (layer.input_size + layer.hidden_size)
    macs *= value.sizes[0] // call.sketch.batch
    operands: list[Any] = [(value, [1]), *((state, [1]) for state in call.values()[1:])]
    rows: list[Any] = [tuple((k, 0) for k in range(len(operands))), layer.hidden_size]
    found = call.sketch.product(call.name, operands, rows, macs)
    more = [call.sketch.pointwise(f"{call.name}_state", None, found) for _ in call.outs[1:]]
    return [found, *more]


OTHERS: dict[type[nn.Module], Callable[[Call, Any], Sequence[Traced]]] = {
    pooling_layers.AdaptiveMaxPool: _adaptive,
    pooling_layers.AdaptiveAvgPool: _adaptive,
    pooling_layers.Maxout: _maxout,
    pooling_layers.LocalResponseNorm: _response,
    pooling_layers.MaxUnpool: _unpool,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _recurrent_cell,
}
UNITS: tuple[type[nn.Module], ...] = (*LAYERS, *OTHERS)
RECURRENT = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)


# ------------------------------------------------------------------------------------------------------------ functions


def _circular(call: Call) -> Traced:
    """Rows from the other end."""
    flat = list(call["pad"])
    rows = list(zip(flat[::2], flat[1::2], strict=True))[::-1]
    value = call.value("input")
    return padded(call.sketch, "pad", value, [(0, 0)] * (len(value.layout) - len(rows)) + rows, "circular")


def _response_function(call: Call) -> Traced:
    value = call.sketch.flat(call.value("input"))
    given = {"alpha": 1e-4, "beta": 0.75, "k": 1.0} | {
        n: call[n] for n in ("alpha", "beta", "k") if call[n] is not None
    }
    return call.sketch.pointwise(
        "local_response_norm", LocalResponseNorm(call["size"], *map(float, given.values())), value
    )


def _norm_pool(call: Call) -> Traced:
    value = call.value("input")
    axes = len(value.layout) - 2
    value, places = call.sketch.standard(value, axes)
    if places != list(range(len(value.draft.shape) - 1)):
        raise GeometryError("its axes do not stand in the order of the feature map")
    sizes: list[Any] = [call["kernel_size"], call["stride"] or call["kernel_size"]]
    kernel, stride = (s if isinstance(s, int) else squashed(tuple(s)) for s in sizes)
    pool = LpPool(
        kernel, None if stride == kernel else stride, ceil=bool(call["ceil_mode"]), p=float(call["norm_type"])
    )
    shape = pool.output_shape(value.draft.shape)
    draft = call.sketch.node(call.name, pool, [value], shape, pool.reads(value.draft.shape))
    return Value(draft, (value.layout[0], *(single(axis, n) for axis, n in enumerate(shape))))


def _dropout(call: Call) -> Traced:
    """What training leaves out."""
    p = call["p"]
    return call.sketch.pointwise(call.name, Dropout(0.5 if p is None else float(p)), call.value("input"))


LP_POOL: Unit = (("input", "norm_type", "kernel_size", "stride", "ceil_mode"), _norm_pool)
DROPOUT: Unit = (("input", "p", "training", "inplace"), _dropout)
FUNCTIONS: dict[Any, Unit] = {
    F.dropout: DROPOUT,
    F.dropout1d: DROPOUT,
    F.dropout2d: DROPOUT,
    F.dropout3d: DROPOUT,
    F.alpha_dropout: DROPOUT,
    F.feature_alpha_dropout: DROPOUT,
    F.linear: (("input", "weight", "bias"), linear_layer),
    F.scaled_dot_product_attention: (("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), attention),
    F.pad: (("input", "pad", "mode", "value"), _circular),
    F.local_response_norm: (("input", "size", "alpha", "beta", "k"), _response_function),
    F.lp_pool1d: LP_POOL,
    F.lp_pool2d: LP_POOL,
    F.lp_pool3d: LP_POOL,
}


def wanted(given: dict[str, Any]) -> bool:
    """Whether a function must be taken as one: of the paddings only the circular one is taken apart by PyTorch."""
    if "training" in given and given.get("p") == 0:
        return False
    return "pad" not in given or given.get("mode") == "circular"


class Functions(TorchFunctionMode):
    """Sees functions that PyTorch takes apart before the dispatcher, but that are one operation on paper."""

    def __init__(self, tracer: Any) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See a function."""
        unit = FUNCTIONS.get(func)
        kwargs = kwargs or {}
        if func in SIZES and not self.tracer.sized_by and not sys._getframe(1).f_code.co_filename.startswith(INSIDE):
            self.tracer.sized_by = caller()
        if unit is None or self.tracer.quiet:
            return self.moved(func, args, kwargs)
        names, handler = unit
        given = dict(zip(names, args, strict=False)) | kwargs
        if not wanted(given) or not isinstance(self.tracer.of(given.get(names[0])), Value):
            return func(*args, **kwargs)
        self.tracer.quiet += 1
        try:
            output = func(*args, **kwargs)
            if output is given.get(names[0]):  # it does nothing in evaluation, but it has a node
                output = torch.ops.aten.alias.default(output)
        finally:
            self.tracer.quiet -= 1
        self.tracer.note(func.__name__, handler, given, output, why=COSTS, again=(func, args, kwargs))
        return output

    def moved(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Call a function, constants brought to the device of the input where it insists on that."""
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            found = [
                t for t in flattened((*args, *kwargs.values())) if isinstance(t, Tensor) and t.device.type != "meta"
            ]
            if not found or "same device" not in str(error):
                raise
        others = {id(t): self.tracer.double(t) for t in found if not isinstance(self.tracer.of(t), Value)}
        return func(*mapped(args, others), **{name: mapped(entry, others) for name, entry in kwargs.items()})
