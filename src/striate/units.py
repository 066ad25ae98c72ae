"""Layers and functions that are one operation on paper, though PyTorch sees many operators in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

from torch import nn
from torch.nn import functional as F

from . import layers, pooling_layers
from .aten import Call
from .aten_products import attention, linear_layer
from .aten_windows import padded
from .drafting import Traced, Value
from .errors import GeometryError
from .factors import single
from .operations import (
    LocalResponseNorm,
    Maxout,
)
from .rearranging import squashed
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
)

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


OTHERS: dict[type[nn.Module], Callable[[Call, Any], Sequence[Traced]]] = {
    pooling_layers.AdaptiveMaxPool: _adaptive,
    pooling_layers.AdaptiveAvgPool: _adaptive,
    pooling_layers.Maxout: _maxout,
    pooling_layers.LocalResponseNorm: _response,
    pooling_layers.MaxUnpool: _unpool,
}
UNITS: tuple[type[nn.Module], ...] = (*LAYERS, *OTHERS)


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


LP_POOL: Unit = (("input", "norm_type", "kernel_size", "stride", "ceil_mode"), _norm_pool)
FUNCTIONS: dict[Any, Unit] = {
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
    return "pad" not in given or given.get("mode") == "circular"
