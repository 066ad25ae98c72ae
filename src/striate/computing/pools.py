"""The ways to compute a pooling: the definition first, then what PyTorch offers, then one axis at a time."""

from __future__ import annotations

from collections.abc import Callable
from math import lcm, prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..borders import LAST, LAYOUTS, layout_of, pad
from ..geometry import Axis, Geometry
from . import passes
from .interface import Base, Problem, as_given, register
from .passes import Values
from .reference import accumulator, tap_windows
from .vendor import CONV

MAX_POOL: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
BOTH = ("forward", "input_gradient")

# Where two threads that add to one number take turns in no fixed order.
ORDERED = ("cpu", "meta")


def overlap(geometry: Geometry) -> bool:
    """Whether an input may be read by two windows.

    >>> overlap(Geometry.window(1, 2, stride=2)), overlap(Geometry.window(1, 2, stride=3, dilation=3))
    (False, True)
    """
    return any(lcm(axis.stride, axis.dilation) // axis.dilation < axis.kernel for axis in geometry.axes)


def _planes(problem: Problem) -> int:
    """Maps that are pooled one by one."""
    return problem.batch * problem.in_channels


class _Pooling(Base):
    directions: tuple[str, ...] = ("forward",)
    copies = 0  # of the input, made on the way

    def workspace(self, problem: Problem) -> int:
        return self.copies * _planes(problem) * prod(problem.size) * problem.dtype.itemsize

    def refuses(self, problem: Problem) -> str | None:
        if problem.direction in self.directions:
            return None
        return f"the direction is {problem.direction}; it computes {' and '.join(self.directions)} only."


# ----------------------------------------------------------------------------------------------------------- definition


class ReferenceSwitches(_Pooling):
    """The flat input position of each window's largest value, the first one on a tie; a NaN is larger than all.

    Backwards, each input collects what stands at the outputs whose switch points to it, tap by tap: no two numbers are
    added to one place at the same time, so that the order of addition is the same on every device.
    """

    directions = BOTH

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        positions = torch.arange(prod(problem.size), device=x.device).view(problem.size)
        if second is not None:
            return self.spread(x, second, positions, problem)
        largest = x.new_zeros(*x.shape[:2], *problem.output_size)
        switches = torch.full(largest.shape, -1, device=x.device)
        for _, outputs, inputs in tap_windows(problem):
            value, seen, best = x[inputs], switches[outputs], largest[outputs]
            wins = (seen < 0) | (value > best) | (value.isnan() & ~best.isnan())
            largest[outputs] = torch.where(wins, value, best)
            switches[outputs] = torch.where(wins, positions[inputs], seen)
        return switches

    def spread(self, y: Tensor, switches: Tensor, positions: Tensor, problem: Problem) -> Tensor:
        """``x[i] += y[o]`` for every read ``(o, tap, i)`` whose switch says ``i``."""
        x = y.new_zeros(*y.shape[:2], *problem.size, dtype=accumulator(y.dtype))
        for _, outputs, inputs in tap_windows(problem):
            x[inputs] += torch.where(switches[outputs] == positions[inputs], y[outputs], 0)
        return x.to(y.dtype)


class ReferenceMaximum(_Pooling):
    """The largest value of each window: what its switch points to."""

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        switches = ReferenceSwitches().run(x, None, problem)
        return x.flatten(2).gather(2, switches.flatten(2)).view(switches.shape)


class ReferenceSum(_Pooling):
    """The sum of each window, divided by the problem's divisor; backwards, each output added to all its inputs."""

    directions = BOTH

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        backward = problem.direction == "input_gradient"
        shape = problem.size if backward else problem.output_size
        total = x.new_zeros(*x.shape[:2], *shape, dtype=accumulator(x.dtype))
        for _, outputs, inputs in tap_windows(problem):
            if backward:
                total[inputs] += x[outputs]
            else:
                total[outputs] += x[inputs]
        return (total / problem.divisor).to(x.dtype)


# -------------------------------------------------------------------------------------------------------------- PyTorch


class _Vendor(_Pooling):
    def refuses(self, problem: Problem) -> str | None:
        axes = len(problem.geometry.axes)
        if axes > 3:
            return f"the window has {axes} spatial axes; PyTorch has kernels for 1 to 3."
        return super().refuses(problem)


def plain_padding(axes: tuple[Axis, ...]) -> bool:
    """Whether PyTorch's poolings take this padding themselves: even on both sides, at most half the kernel."""
    return all(axis.before == axis.after and 0 <= 2 * axis.before <= axis.kernel for axis in axes)


def fits_inside(axes: tuple[Axis, ...], size: tuple[int, ...]) -> bool:
    """Whether PyTorch's mean pooling takes the window: over 3 axes it wants a kernel no longer than the bare input."""
    return len(axes) < 3 or all(axis.kernel <= n for axis, n in zip(axes, size, strict=True))


class Maximum(_Vendor):
    """``torch.nn.functional.max_pool1d`` to ``max_pool3d``; padding that those refuse is added first, as -infinity."""

    def refuses(self, problem: Problem) -> str | None:
        if not problem.dtype.is_floating_point:
            return f"the input is {problem.dtype}; PyTorch's max poolings take floating-point numbers on all devices."
        return super().refuses(problem)

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        return self.pool(x, problem, return_indices=False)

    def pool(self, x: Tensor, problem: Problem, *, return_indices: bool) -> Any:
        """Values, or values and positions in the input as padded by :func:`pad`."""
        axes = problem.geometry.axes
        padding, rows = self.split(problem)
        # Over 3 axes in channels-last memory, PyTorch points outside a window that holds nothing but -inf.
        image = x.contiguous() if len(axes) == 3 else x
        return MAX_POOL[len(axes)](
            pad(image, rows, -torch.inf),
            [axis.kernel for axis in axes],
            [axis.stride for axis in axes],
            padding,
            [axis.dilation for axis in axes],
            return_indices=return_indices,
        )

    def split(self, problem: Problem) -> tuple[list[int], tuple[tuple[int, int], ...]]:
        """Padding left to PyTorch, and the rows added before the call."""
        axes = problem.geometry.axes
        if plain_padding(axes):
            return [axis.before for axis in axes], tuple((0, 0) for _ in axes)
        return [0] * len(axes), tuple((axis.before, axis.after) for axis in axes)


class Switches(Maximum):
    """The positions that PyTorch returns, counted in the unpadded input; backwards, PyTorch's scatter.

    A window whose values are all the lowest there is makes PyTorch point at its first tap, which may be padding: then
    the switch is the window's first real tap.
    """

    directions = BOTH

    def refuses(self, problem: Problem) -> str | None:
        if problem.direction != "input_gradient":
            return super().refuses(problem)
        if problem.device not in ORDERED and overlap(problem.geometry):
            return f"the windows overlap, and on {problem.device} PyTorch's scatter adds in an order that changes."
        return None

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        if second is not None:
            return self.spread(x, second, problem)
        rows = self.split(problem)[1]
        positions: Tensor = self.pool(x, problem, return_indices=True)[1]
        if not any(map(any, rows)):
            return positions
        flat = torch.zeros_like(positions)
        unit = 1
        for axis, (before, after), size in reversed(list(zip(problem.geometry.axes, rows, problem.size, strict=True))):
            padded = size + before + after
            position = positions % padded - before
            flat += torch.where(position < 0, position % axis.dilation, position) * unit
            positions = positions // padded
            unit *= size
        return flat

    def spread(self, y: Tensor, switches: Tensor, problem: Problem) -> Tensor:
        """Each output put, or where windows overlap added, to the place that its switch names."""
        zeros = y.new_zeros(*y.shape[:2], prod(problem.size), dtype=accumulator(y.dtype))
        put = torch.Tensor.scatter_add_ if overlap(problem.geometry) else torch.Tensor.scatter_
        flat = put(zeros, 2, switches.flatten(2), y.flatten(2).to(zeros.dtype))
        return flat.view(*y.shape[:2], *problem.size).to(y.dtype)


class Sum(_Vendor):
    """``torch.nn.functional.avg_pool1d`` to ``avg_pool3d``, and PyTorch's own gradients of them."""

    directions = BOTH

    def refuses(self, problem: Problem) -> str | None:
        axes = problem.geometry.axes
        if any(axis.dilation > 1 for axis in axes):
            return "the window is dilated; PyTorch's mean poolings are not."
        if not problem.dtype.is_floating_point:
            return f"the input is {problem.dtype}; PyTorch's mean poolings take floating-point numbers."
        if len(axes) == 3 and problem.device == "cpu" and problem.dtype.itemsize == 2:
            return f"the input is {problem.dtype}; PyTorch's mean pooling over 3 axes has no such kernel on the CPU."
        if len(axes) == 3 and problem.device not in ORDERED and problem.direction == "input_gradient":
            return f"on {problem.device} PyTorch's gradient of a mean over 3 axes adds in an order that changes."
        return super().refuses(problem)

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        axes = problem.geometry.axes
        padding, rows = [0] * len(axes), tuple((axis.before, axis.after) for axis in axes)
        if plain_padding(axes) and fits_inside(axes, problem.size):
            padding, rows = [axis.before for axis in axes], ((0, 0),) * len(axes)
        if problem.direction == "input_gradient":
            return self._backward(x, padding, rows, problem)
        padded, kernel, stride = pad(x, rows), [axis.kernel for axis in axes], [axis.stride for axis in axes]
        if problem.divisor == prod(kernel):
            return AVG_POOL[len(axes)](padded, kernel, stride, padding)
        if torch.compiler.is_exporting():  # ONNX has no divisor of its own, and PyTorch's exporter drops it in silence
            return AVG_POOL[len(axes)](padded, kernel, stride, padding) * (prod(kernel) / problem.divisor)
        steps = ([1, *n] for n in (kernel, stride)) if len(axes) == 1 else (kernel, stride)
        if len(axes) == 1:
            padded, padding = padded.unsqueeze(2), [0, *padding]
        pooled = AVG_POOL[max(2, len(axes))](padded, *steps, padding, divisor_override=problem.divisor)
        return pooled.squeeze(2) if len(axes) == 1 else pooled

    def _backward(self, y: Tensor, padding: list[int], rows: tuple[tuple[int, int], ...], problem: Problem) -> Tensor:
        axes = problem.geometry.axes
        lone = len(axes) == 1
        kernel, stride = ([1] * lone + [getattr(axis, n) for axis in axes] for n in ("kernel", "stride"))
        padded = [n + before + after for n, (before, after) in zip(problem.size, rows, strict=True)]
        image = _shaped(y.unsqueeze(2) if lone else y, (*y.shape[:2], *[1] * lone, *padded))
        aten = torch.ops.aten
        function = aten.avg_pool3d_backward if len(axes) == 3 else aten.avg_pool2d_backward
        options = ([0] * lone + padding, False, True, problem.divisor)
        x: Tensor = function(y.unsqueeze(2) if lone else y, image, kernel, stride, *options)
        return pad(x.squeeze(2) if lone else x, tuple((-before, -after) for before, after in rows))


def _shaped(y: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor of which PyTorch looks at the shape, and at the layout: y's."""
    if layout_of(y) == LAYOUTS[0]:
        return y.new_empty((1,) * y.dim()).expand(shape)
    return torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=LAST[y.dim()])


class WindowConvolution(_Vendor):
    """Each window's sum as a depthwise convolution with ones, which may be dilated."""

    def refuses(self, problem: Problem) -> str | None:
        if not (problem.dtype.is_floating_point or problem.dtype.is_complex):
            return f"the input is {problem.dtype}; it needs floating-point or complex numbers."
        if problem.device not in ORDERED:
            return f"the input is on {problem.device}, whose convolutions may round to fewer digits (TF32)."
        return super().refuses(problem)

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        axes = problem.geometry.axes
        dtype = x.dtype
        x = x.to(accumulator(dtype))
        ones = x.new_full((1, 1, *problem.geometry.kernel), 1.0)
        padded = pad(x, tuple((axis.before, axis.after) for axis in axes)).flatten(0, 1).unsqueeze(1)
        with as_given(problem.device):
            total = CONV[len(axes)](padded, ones, None, [a.stride for a in axes], 0, [a.dilation for a in axes])
        return (total / problem.divisor).view(*x.shape[:2], *total.shape[2:]).to(dtype)


# ------------------------------------------------------------------------------------------------- one axis at a time


class SeparableSwitches(_Pooling):
    """Row by row, then over the rows: the first row that holds the largest value, and there the first place."""

    copies = 8

    def estimate(self, problem: Problem) -> int:
        return 4 * _planes(problem) * passes.work(problem.geometry, problem.size, passes.slide_work)

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        return self.pairs(x, problem)[1]

    def pairs(self, x: Tensor, problem: Problem) -> Values:
        """Each window's largest value and its place."""
        values: Values = (x, torch.zeros((), dtype=torch.int64, device=x.device).expand(x.shape))
        unit = 1
        for number in reversed(range(len(problem.size))):
            dim, axis, size = number + 2, problem.geometry.axes[number], problem.size[number]
            outputs = axis.output_size(size)
            largest, places = _real(values, dim, axis, size, outputs)
            rows = torch.tensor(passes.nearest(axis, size, outputs), device=x.device)
            places = places + unit * rows.view(-1, *[1] * (x.dim() - dim - 1))
            values = passes.slide((largest, places), dim, axis, outputs, passes.first_largest)
            unit *= size
        return values


class SeparableMaximum(_Pooling):
    """The maximum of maxima, one axis after another."""

    copies = 3

    def estimate(self, problem: Problem) -> int:
        return _planes(problem) * passes.work(problem.geometry, problem.size, passes.slide_work)

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        for number in reversed(range(len(problem.size))):
            dim, axis, size = number + 2, problem.geometry.axes[number], problem.size[number]
            outputs = axis.output_size(size)
            (x,) = passes.slide(_real((x,), dim, axis, size, outputs), dim, axis, outputs, passes.maximum)
        return x


def _real(values: Values, dim: int, axis: Axis, size: int, outputs: int) -> Values:
    """The rows that the windows read; where that is padding, another row that the same window reads."""
    rows = passes.nearest(axis, size, outputs)
    if rows == tuple(range(len(rows))):
        return passes.every(values, dim, 0, len(rows))
    index = torch.tensor(rows, device=values[0].device)
    return tuple(value.index_select(dim, index) for value in values)


class VanHerk(_Pooling):
    """Running maxima over blocks, from both ends: the same work for every kernel size."""

    copies = 3

    def estimate(self, problem: Problem) -> int:
        return 5 * _planes(problem) * passes.work(problem.geometry, problem.size, passes.scan_work) // 2

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        lowest = -torch.inf if x.is_floating_point() else 0 if x.dtype == torch.bool else torch.iinfo(x.dtype).min
        for number in reversed(range(len(problem.size))):
            axis, size = problem.geometry.axes[number], problem.size[number]
            running, merge = passes.largest_so_far, passes.maximum
            x = passes.scan(x, number + 2, axis, axis.output_size(size), running, merge, lowest)
        return x


class SeparableSum(_Pooling):
    """The sum of sums, one axis after another; backwards the same over the outputs, ``stride`` apart."""

    directions = BOTH
    copies = 3
    along = staticmethod(passes.slide_work)

    def estimate(self, problem: Problem) -> int:
        backward = problem.direction == "input_gradient"
        return _planes(problem) * passes.work(problem.geometry, problem.size, self.along, backward=backward)

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        total = x.to(accumulator(x.dtype))
        for number in reversed(range(len(problem.size))):
            dim, axis, size = number + 2, problem.geometry.axes[number], problem.size[number]
            if problem.direction == "forward":
                total = self.line(total, dim, axis, axis.output_size(size))
            else:
                apart = passes.set_apart(total, dim, axis.stride)
                total = self.line(apart, dim, passes.backward_axis(axis), size)
        return (total / problem.divisor).to(x.dtype)

    def line(self, x: Tensor, dim: int, axis: Axis, outputs: int) -> Tensor:
        """The sums over the windows of one axis."""
        return passes.slide((passes.extended(x, dim, axis, outputs),), dim, axis, outputs, passes.addition)[0]


class Running(SeparableSum):
    """Running sums over blocks, from both ends: the same work for every kernel size, and nothing is subtracted."""

    along = staticmethod(passes.scan_work)

    def refuses(self, problem: Problem) -> str | None:
        if problem.device not in ORDERED:
            return f"on {problem.device} PyTorch's running sums are added in an order that changes."
        return super().refuses(problem)

    def line(self, x: Tensor, dim: int, axis: Axis, outputs: int) -> Tensor:
        return passes.scan(x, dim, axis, outputs, torch.cumsum, passes.addition, 0.0)


register("maximum", "vendor", Maximum())
register("switches", "vendor", Switches())
register("sum", "vendor", Sum())
register("sum", "convolution", WindowConvolution())
register("maximum", "separable", SeparableMaximum())
register("switches", "separable", SeparableSwitches())
register("sum", "separable", SeparableSum())
register("maximum", "van_herk", VanHerk())
register("sum", "running", Running())
register("switches", "reference", ReferenceSwitches())
register("maximum", "reference", ReferenceMaximum())
register("sum", "reference", ReferenceSum())
