"""PyTorch's operators on paper: windows, borders and other sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from math import floor, prod
from typing import Any

from .aten import Call, handles
from .combining import Sketch
from .drafts import Traced, Value
from .errors import GeometryError
from .factors import single, viewed
from .geometry import Geometry
from .operations import (
    Crop,
    Pad,
    Resize,
    Upsample,
)
from .rearranging import pairs, squashed
from .relations import LONGEST_PERIOD, Relation, of_window
from .windows import (
    AdaptiveAvgPool,
    AdaptivePool,
    AvgPool,
    Conv,
    GlobalAvgPool,
    GlobalPool,
    Operation,
    Pool,
    Reading,
    TransposedConv,
    Unpool,
)


def _numbers(values: Any, axes: int) -> list[int]:
    """One for each axis."""
    values = [values] if isinstance(values, int) else list(values)
    return values * axes if len(values) == 1 else values


class Windowed:
    """A call whose window slides over the last axes of a tensor: its settings on all axes of the feature map.

    Args:
        call: Of the operator.
        name: Of the tensor.
        spatial: How many axes the window has.
        settings: For each, one number per axis, and the number of an axis that it does not slide over.
    """

    def __init__(self, call: Call, name: str, spatial: int, **settings: tuple[Any, Any]) -> None:
        whole = call.value(name)
        if len(whole.layout) != spatial + 2:
            raise GeometryError("it gets one example without a batch")
        rows = {key: (_numbers(given, spatial), neutral) for key, (given, neutral) in settings.items()}
        idle = [all(row[k] == neutral for row, neutral in rows.values()) for k in range(spatial)]
        self.call, self.transposed = call, "output_padding" in settings or "size" in settings
        self.value, self.places = call.sketch.standard(whole, spatial, idle)
        axes = len(self.value.draft.shape) - 1
        self.settings: dict[str, list[Any]] = {}
        for key, (row, neutral) in rows.items():
            self.settings[key] = [neutral] * axes
            for k, place in enumerate(self.places):
                if place is not None:
                    self.settings[key][place] = row[k]

    def squashed(self) -> dict[str, Any]:
        """The settings as the notation takes them."""
        return {key: squashed(row) for key, row in self.settings.items()}

    def size(self) -> tuple[int, ...]:
        """Spatial size of the output."""
        size = list(self.value.draft.shape[1:])
        for k, place in enumerate(self.places):
            if place is not None:
                size[place] = self.call.out[2 + k]
        return tuple(size)

    def result(self, kind: str, operation: Operation | None, channels: int, macs: int = 0) -> Value:
        """The output."""
        shape = (channels, *self.size())
        reading = "its numbers describe no window of the notation" if self.transposed else self.reading()
        draft = self.call.sketch.node(kind, operation, [self.value], shape, (reading,), macs=macs)
        first = self.value.layout[0]
        rest = (() if place is None else single(place + 1, shape[place + 1]) for place in self.places)
        return Value(draft, (first, single(0, channels), *rest))

    def reading(self) -> Reading:
        """What a window reads that may hang over the end by more than the notation allows."""
        ones = [1] * len(self.size())
        rows = zip(*(self.settings.get(key, ones) for key in ("kernel", "stride", "dilation")), strict=True)
        pads = self.settings.get("padding", [0] * len(ones))
        sizes = zip(self.value.draft.shape[1:], self.size(), strict=True)
        return tuple(
            (axis, Relation(n, m, (tuple(range(-p, k * d - p, d)),), s))
            for axis, ((n, m), (k, s, d), p) in enumerate(zip(sizes, rows, pads, strict=True))
        )


@handles("convolution", "_convolution", "cudnn_convolution", "mkldnn_convolution", "convolution_overrideable")
def _convolution(call: Call) -> Traced:
    call.own("weight", "bias")
    weight, spatial, transposed = call["weight"], call["weight"].dim() - 2, bool(call["transposed"])
    settings = {"kernel": (weight.shape[2:], 1), "stride": (call["stride"], 1), "padding": (call["padding"], 0),
                "dilation": (call["dilation"], 1)}  # fmt: skip
    if transposed:
        settings["output_padding"] = (call["output_padding"], 0)
    window = Windowed(call, "input", spatial, **settings)
    groups = call["groups"]
    filters = weight.shape[1] * groups if transposed else weight.shape[0]
    make: Any = TransposedConv if transposed else Conv
    bias = call["bias"] is not None
    operation = make(filters=filters, groups=groups, bias=bias, **window.squashed())
    kind = f"conv_transpose{spatial}d" if transposed else f"conv{spatial}d"
    positions = prod(call["input"].shape if transposed else call.out) // (weight.shape[0] * call.sketch.batch)
    return window.result(kind, operation, filters, positions * weight.numel())


@handles("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d", "max_pool3d", "max_pool1d")
def _max_pool(call: Call) -> Sequence[Traced]:
    spatial = int(call.name[8])
    kernel = _numbers(call["kernel_size"], spatial)
    window = Windowed(call, "self", spatial, kernel=(kernel, 1), stride=(call["stride"] or kernel, 1),
                      padding=(call["padding"], 0), dilation=(call["dilation"], 1))  # fmt: skip
    pool = Pool(ceil=bool(call["ceil_mode"]), **_stride(window.squashed()))
    value = window.result(f"max_pool{spatial}d", pool, window.value.draft.shape[0])
    return [value, value]


def _stride(settings: dict[str, Any]) -> dict[str, Any]:
    """Without a stride that is the kernel."""
    return settings | {"stride": None if settings["stride"] == settings["kernel"] else settings["stride"]}


@handles("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(call: Call) -> Traced:
    spatial = int(call.name[8])
    kernel = _numbers(call["kernel_size"], spatial)
    window = Windowed(call, "self", spatial, kernel=(kernel, 1), stride=(call["stride"] or kernel, 1),
                      padding=(call["padding"], 0))  # fmt: skip
    settings = _stride(window.squashed())
    counted = bool(call["count_include_pad"]) and any(window.settings["padding"])
    pool = AvgPool(ceil=bool(call["ceil_mode"]), count_padding=counted, **settings)
    return window.result(call.name, pool, window.value.draft.shape[0])


@handles("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d")
def _adaptive_avg_pool(call: Call) -> Traced:
    return _adaptive(call, AdaptiveAvgPool, GlobalAvgPool)


@handles("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(call: Call) -> Sequence[Traced]:
    value = _adaptive(call, AdaptivePool, GlobalPool)
    return [value, value]


def _adaptive(call: Call, sized: Any, whole: Any) -> Value:
    spatial = len(call.out) - 2
    window = Windowed(call, "self", spatial, size=(_numbers(call["output_size"], spatial), 1))
    size = window.size()
    operation = whole() if prod(size) == 1 else sized(squashed(size))
    return window.result(call.name.lstrip("_"), operation, window.value.draft.shape[0])


# --------------------------------------------------------------------------------------------------- sizes and borders


def _scales(call: Call) -> list[float | None]:
    names = ("scales_d", "scales_h", "scales_w") if "scales_w" in call.given else ("scales",)
    given = [call[name] for name in names if name in call.given] or list(call["scale_factors"] or [])
    return given or [None] * (len(call.out) - 2)


@handles(*(f"{name}{n}d" for name in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)))
def _nearest(call: Call) -> Traced:
    exact = "exact" in call.name
    return _resized(call, "nearest", False, lambda n, m, step: _sampled(n, m, step, exact))


@handles("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")
def _linear_upsample(call: Call) -> Traced:
    corners = bool(call["align_corners"])
    return _resized(call, "linear", corners, lambda n, m, step: _spread(n, m, step, corners, 0))


@handles("upsample_bicubic2d")
def _bicubic(call: Call) -> Traced:
    corners = bool(call["align_corners"])
    return _resized(call, None, corners, lambda n, m, step: _spread(n, m, step, corners, 1))


def _resized(call: Call, mode: str | None, corners: bool, relate: Callable[[int, int, Fraction], Relation]) -> Traced:
    spatial = len(call.out) - 2
    value, places = call.sketch.standard(call.value("self" if "self" in call.given else "input"), spatial)
    shape = value.draft.shape
    new, steps = list(shape), [Fraction(1)] * len(shape)
    for place, scale, m in zip(places, _scales(call), call.out[2:], strict=True):
        axis = (place or 0) + 1
        new[axis] = m
        steps[axis] = 1 / Fraction(scale) if scale and not corners else Fraction(shape[axis], m)
    reading: Reading | str = "its reads repeat too late to be written down"
    if all(min(step.denominator, m) <= LONGEST_PERIOD for step, m in zip(steps, new, strict=True)):
        reading = tuple(enumerate(
            Relation.identity(n) if n == m and step == 1 else relate(n, m, step)
            for n, m, step in zip(shape[1:], new[1:], steps[1:], strict=True)))  # fmt: skip
    usual = all(step == Fraction(n, m) for n, m, step in zip(shape[1:], new[1:], steps[1:], strict=True))
    whole = all(m % n == 0 for n, m in zip(shape[1:], new[1:], strict=True))
    operation: Operation | None = None
    if mode and usual and "exact" not in call.name:
        settings: dict[str, Any] = {"mode": mode, "align_corners": corners}
        scales = [m // n for n, m in zip(shape[1:], new[1:], strict=True)]
        operation = (
            Upsample(scale=squashed(scales), **settings) if whole else Resize(size=squashed(new[1:]), **settings)
        )
    draft = call.sketch.node(call.name.lstrip("_"), operation, [value], tuple(new), (reading,))
    rest = (() if place is None else single(place + 1, new[place + 1]) for place in places)
    return Value(draft, (*value.layout[:2], *rest))


def _sampled(inputs: int, outputs: int, step: Fraction, exact: bool) -> Relation:
    """The nearest neighbour; exact takes that of the output's centre."""
    if not exact and step == Fraction(inputs, outputs):
        return Relation.nearest(inputs, outputs)
    centre = step / 2 if exact else Fraction(0)
    period = min(step.denominator, outputs)
    taps = tuple((min(floor(o * step + centre), inputs - 1),) for o in range(period))
    return Relation(inputs, outputs, taps, step.numerator if period < outputs else 0)


def _spread(inputs: int, outputs: int, step: Fraction, corners: bool, more: int) -> Relation:
    """The two neighbours of each place, and ``more`` on both sides; one where it falls on an input."""
    if corners:
        step = Fraction(inputs - 1, outputs - 1) if outputs > 1 else Fraction(0)
    start = Fraction(0) if corners else (step - 1) / 2
    period = min(step.denominator, outputs)
    places = [start + o * step for o in range(period)]
    taps = tuple((floor(p),) if p == floor(p) else tuple(range(floor(p) - more, floor(p) + 2 + more)) for p in places)
    return Relation(inputs, outputs, taps, step.numerator if period < outputs else 0, "replicate")


BORDERS = {"constant_pad_nd": "zeros", "reflection_pad": "reflect", "replication_pad": "replicate"}


@handles("constant_pad_nd", *(f"{mode}_pad{n}d" for mode in ("reflection", "replication") for n in (1, 2, 3)))
def _padded(call: Call) -> Traced:
    flat = list(call["pad"] if "pad" in call.given else call["padding"])
    rows = list(zip(flat[::2], flat[1::2], strict=True))[::-1]
    value = call.value("self")
    rows = [(0, 0)] * (len(value.layout) - len(rows)) + rows
    return padded(call.sketch, call.name, value, rows, BORDERS[call.name if call.name in BORDERS else call.name[:-2]])


def padded(sketch: Sketch, kind: str, value: Value, rows: Sequence[tuple[int, int]], border: str) -> Value:
    """A tensor with rows added before and after each of its axes, or taken away."""
    if not any(map(any, rows)):
        return value
    if any(rows[0]):
        raise GeometryError("it adds examples to the batch")
    idle = [row == (0, 0) for row in rows[2:]]
    value, places = sketch.standard(value, len(rows) - 2, idle)
    axes = [(0, 0)] * (len(value.draft.shape) - 1)
    for place, row in zip(places, rows[2:], strict=True):
        if place is not None:
            axes[place] = row
    old = value.draft.shape
    new = (old[0] + sum(rows[1]), *(n + sum(row) for n, row in zip(old[1:], axes, strict=True)))
    reading = tuple(
        (k, Relation(n, m, ((-row[0],),), 1, border))
        for k, (n, m, row) in enumerate(zip(old[1:], new[1:], axes, strict=True))
    )
    operation: Operation | None = None
    if not any(rows[1]):
        less = [(-before, -after) for before, after in axes]
        crops = all(n >= 0 for row in less for n in row)
        grows = all(n <= 0 for row in less for n in row)
        operation = Crop(pairs(less)) if crops else Pad(pairs(axes), border) if grows else None
    draft = sketch.node(kind.removesuffix("_nd"), operation, [value], new, (reading,))
    rest = (() if place is None else single(place + 1, new[place + 1]) for place in places)
    return Value(draft, (value.layout[0], single(0, new[0]), *rest))


@handles("flip")
def _flip(call: Call) -> Traced:
    def relate(n: int) -> Relation:
        return Relation(n, n, tuple((n - 1 - o,) for o in range(n)), 0)

    return _along(call, dict.fromkeys((call.axis(a) for a in call["dims"]), relate))


@handles("roll")
def _roll(call: Call) -> Traced:
    if not call["dims"]:
        raise GeometryError("it rolls over all axes at once")
    shifts = {call.axis(a): shift for a, shift in zip(call["dims"], call["shifts"], strict=True)}
    return _along(call, {a: partial(_rolled, shift) for a, shift in shifts.items()})


def _rolled(shift: int, n: int) -> Relation:
    return Relation(n, n, ((-shift,),), 1, "circular")


def _along(call: Call, relate: dict[int, Callable[[int], Relation]]) -> Traced:
    """The same values in other places along some axes."""
    value = call.value("self")
    if 0 in relate:
        raise GeometryError("it moves examples")
    if any(len(value.layout[axis]) > 1 for axis in relate):
        value = call.sketch.flat(value)
    relate = {axis: f for axis, f in relate.items() if any(factor.axis != 0 for factor in value.layout[axis])}
    numbers = {value.layout[axis][0].axis: f for axis, f in relate.items()}
    shape = value.draft.shape
    for axis in relate:
        row = value.layout[axis]
        if row and row != single(row[0].axis, (0, *shape)[row[0].axis + 1] if row[0].axis >= 0 else 0):
            raise GeometryError("it moves parts of an axis")
    reading: Reading | str
    if call.name == "roll" and any(numbers):
        reading = "positions that are rolled over the border stand apart from those beside them"
    elif max(shape) > LONGEST_PERIOD:
        reading = "its axes are too long to write its reads down"
    else:
        reading = tuple((k, numbers.get(k + 1, Relation.identity)(n)) for k, n in enumerate(shape[1:]))
    return Value(call.sketch.node(call.name, None, [value], shape, (reading,)), value.layout)


# ------------------------------------------------------------------------------------------------- windows as channels


@handles("im2col")
def _im2col(call: Call) -> Traced:
    window = Windowed(call, "self", 2, kernel=(call["kernel_size"], 1), stride=(call["stride"], 1),
                      padding=(call["padding"], 0), dilation=(call["dilation"], 1))  # fmt: skip
    shape = window.value.draft.shape
    settings = window.settings
    geometry = Geometry.window(len(shape) - 1, settings["kernel"], stride=settings["stride"],
                               padding=settings["padding"], dilation=settings["dilation"])  # fmt: skip
    size = geometry.output_size(shape[1:])
    if [place for place in window.places if place is not None] != list(range(len(size))):
        raise GeometryError("its axes are no rows and columns")
    new = (shape[0] * prod(settings["kernel"]), *size)
    reading = tuple(enumerate(of_window(geometry, shape[1:])))
    draft = call.sketch.node("unfold", None, [window.value], new, (reading,), apart=True)
    tokens = tuple(f for k, n in enumerate(size, 1) for f in single(k, n))
    return Value(draft, (window.value.layout[0], single(0, new[0]), tokens))


@handles("col2im")
def _col2im(call: Call) -> Traced:
    value = call.value("self")
    settings: dict[str, Any] = {name: tuple(call[name]) for name in ("stride", "padding", "dilation")}
    geometry = Geometry.window(2, tuple(call["kernel_size"]), transposed=True, **settings)
    spots = geometry.adjoint().output_size(call.out[2:])
    apart = viewed(value.layout, (*value.sizes[:2], *spots))
    if apart is None:
        raise GeometryError("its positions are no rows and columns")
    value, places = call.sketch.standard(value.relaid(apart), 2)
    if places != [0, 1] or len(value.draft.shape) != 3:
        raise GeometryError("its positions are no rows and columns")
    back = of_window(geometry, spots)
    reading = tuple((k, Relation(n, m, r.taps, r.shift))
                    for k, (r, n, m) in enumerate(zip(back, spots, call.out[2:], strict=True)))  # fmt: skip
    shape = call.out[1:]
    draft = call.sketch.node("fold", None, [value], shape, (reading,), picks=True)
    return Value(draft, (value.layout[0], *(single(k, n) for k, n in enumerate(shape))))


@handles("unfold")
def _unfold(call: Call) -> Traced:
    """Windows along one axis, as a further axis of the tensor."""
    value, axis = call.value("self"), call.axis(call["dimension"])
    row, shape = value.layout[axis], value.draft.shape
    if len(row) != 1 or row[0].axis < 1 or row != single(row[0].axis, shape[row[0].axis]):
        raise GeometryError("its windows are along no axis of positions")
    number, size, step = row[0].axis, call["size"], call["step"]
    geometry = Geometry.window(1, size, stride=step)
    (relation,) = of_window(geometry, (shape[number],))
    new = tuple(relation.outputs if k == number else n * (size if k == 0 else 1) for k, n in enumerate(shape))
    reading = tuple((k, relation if k + 1 == number else Relation.identity(n)) for k, n in enumerate(shape[1:]))
    draft = call.sketch.node("unfold", None, [value], new, (reading,), apart=True)
    channels = {f: type(f)(0, f.size, f.stride * size) for f in value.factors if f.axis == 0}
    layout = [tuple(channels.get(f, f) for f in r) for r in value.layout]
    layout[axis] = single(number, relation.outputs)
    return Value(draft, (*layout, single(0, size)))


@handles("max_unpool2d", "max_unpool3d")
def _unpool(call: Call) -> Traced:
    """Values put back where a max pooling found them, if it is one of this model's."""
    switches = call.value("indices")
    pool = switches.draft.operation
    value = call.sketch.flat(call.value("self"))
    if not isinstance(pool, Pool) or pool.ceil or pool.dilation != 1 or value.draft.shape != switches.draft.shape:
        raise GeometryError("the pooling that its switches come from is not known")
    given = switches.draft.inputs[0]
    operation = Unpool(switches.draft.name, pool.kernel, pool.stride, pool.padding)
    layout = (value.layout[0], *(single(k, n) for k, n in enumerate(given.shape)))
    whole = Value(given, layout)
    sizes = (value.sizes[0], *given.shape)
    if prod(sizes) != prod(call.out) or value.layout[1:] != tuple(
        single(k, n) for k, n in enumerate(value.draft.shape)
    ):
        raise GeometryError("it puts values back to another size than they come from")
    reading = operation.reads(value.draft.shape, switches.draft.shape, given.shape)
    draft = call.sketch.node("max_unpool", operation, [value, switches, whole], given.shape, reading)
    found = viewed(layout, call.out)
    if found is None:
        raise GeometryError("it puts values back to another size than they come from")
    return Value(draft, found)
