"""JAX on the same layers, where it is installed: compiled, in both of its layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .peers import Action, Entry, Operands
from .suite import Case

SPACE = "DHW"


@dataclass(frozen=True)
class JaxWay(Entry):
    """A contender that JAX computes, compiled.

    Args:
        jax: The module.
        last: Whether channels come last.
    """

    jax: Any
    last: bool

    @cached_property
    def operands(self) -> tuple[Any, ...]:
        """Input, weights and the gradient of the output, as JAX's own arrays."""
        transposed = self.case.layer == "conv_transpose"
        weight = self.given.weight
        if weight is not None and transposed:
            weight = _turned(weight, self.case.geometry.groups)
        laid = (self._lay(self.given.x), self._kernel(weight), self._lay(self.given.gradient))
        return tuple(self._array(tensor) for tensor in laid)

    def action(self, measurement: str) -> Action:
        """A gradient is the transpose of the function in that operand; the compiler drops what it needs not."""
        jax, (x, weight, gradient) = self.jax, self.operands
        functions: dict[str, Callable[..., Any]] = {
            "forward": self._layer,
            "input_gradient": lambda x, w, g: jax.vjp(lambda v: self._layer(v, w), x)[1](g),
            "weight_gradient": lambda x, w, g: jax.vjp(lambda v: self._layer(x, v), w)[1](g),
            "step": self._step,
        }
        taken = (x, weight) if measurement == "forward" else (x, weight, gradient)
        compiled = jax.jit(functions[measurement])
        return lambda: jax.block_until_ready(compiled(*taken))

    def canonical(self, measurement: str, result: Any) -> Tensor:
        """The result as PyTorch's, its channels first."""
        array = result[0] if measurement != "forward" else result
        tensor = torch.utils.dlpack.from_dlpack(array).clone()
        if measurement != "weight_gradient":
            return tensor.movedim(-1, 1) if self.last else tensor
        tensor = tensor.movedim((-1, -2), (0, 1)) if self.last else tensor
        return _turned(tensor, self.case.geometry.groups) if self.case.layer == "conv_transpose" else tensor

    def _step(self, x: Any, weight: Any, gradient: Any) -> Any:
        if self.case.first:
            y, back = self.jax.vjp(lambda w: self._layer(x, w), weight)
        else:
            y, back = self.jax.vjp(self._layer, x, weight)
        return y, back(gradient)

    def _layer(self, x: Any, weight: Any) -> Any:
        window = self.case.geometry
        space = SPACE[-len(window.axes) :]
        layout = (f"N{space}C", f"{space}IO", f"N{space}C") if self.last else (f"NC{space}", f"OI{space}", f"NC{space}")
        axes = window.axes
        stretched = {"window_strides": [a.stride for a in axes], "padding": [(a.before, a.after) for a in axes]}
        if self.case.layer == "conv_transpose":
            rows = [(a.extent - 1 - a.before, a.extent - 1 - a.after) for a in axes]
            stretched = {
                "window_strides": [1] * len(axes), "padding": rows, "lhs_dilation": [a.stride for a in axes],
            }  # fmt: skip
        return self.jax.lax.conv_general_dilated(
            x, weight, **stretched, rhs_dilation=[a.dilation for a in axes],
            feature_group_count=window.groups, dimension_numbers=layout,
        )  # fmt: skip

    def _lay(self, tensor: Tensor) -> Tensor:
        return tensor.movedim(1, -1) if self.last else tensor

    def _kernel(self, weight: Tensor | None) -> Tensor:
        if weight is None:
            return torch.empty(0)
        return weight.movedim((0, 1), (-1, -2)) if self.last else weight

    def _array(self, tensor: Tensor) -> Any:
        return self.jax.dlpack.from_dlpack(tensor.contiguous())


def _turned(weight: Tensor, groups: int) -> Tensor:
    """Transposed weights ``(C, O/groups, *K)`` as those of the convolution that they are; and back.

    That is ``(O, C/groups, *K)``: channels change places within their group and the kernel is turned around.
    """
    split = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return split.flip(tuple(range(2, weight.dim())))


def jax_ways(case: Case, given: Operands) -> list[JaxWay]:
    """JAX in both layouts for shared weights; nothing where it is not installed, nor for other layers."""
    if case.layer not in ("conv", "conv_transpose"):
        return []
    try:
        import jax
        import jax.dlpack
    except ImportError:
        return []
    return [JaxWay("jax NCHW", case, given, jax, last=False), JaxWay("jax channels-last", case, given, jax, last=True)]
