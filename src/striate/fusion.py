"""Convolution, batch normalisation and activation in one, for inference: exact, and undone by any other use.

In evaluation a batch normalisation is one multiply-add per channel, which the kernel before it can do:

    (conv(x, w) + b - mean) * scale + shift  =  conv(x, w * scale) + (b - mean) * scale + shift
    scale = gamma / sqrt(variance + eps)

Source: B. Jacob et al., "Quantization and Training of Neural Networks", 2018, section 3.2. The convolution's result is
then a :class:`Pending` tensor, which knows the folded numbers and gives them to that normalisation alone. Whoever else
reads it gets the plain convolution, so that no path through a network has to be foreseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from .computing import autocasts
from .errors import StriateError
from .planned_layers import TRANSPOSED, Changed, PlannedTransposed, by_vendor

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
TYPES = (torch.float32, torch.float64)
ACTIVATIONS: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    nn.ReLU: lambda module, y: y.relu_(),
    nn.ReLU6: lambda module, y: F.hardtanh_(y, 0.0, 6.0),
    nn.Hardtanh: lambda module, y: F.hardtanh_(y, module.min_val, module.max_val),
    nn.LeakyReLU: lambda module, y: F.leaky_relu_(y, module.negative_slope),
    nn.ELU: lambda module, y: F.elu_(y, module.alpha),
    nn.SiLU: lambda module, y: F.silu(y, inplace=True),
    nn.Mish: lambda module, y: F.mish(y, inplace=True),
    nn.Hardswish: lambda module, y: F.hardswish(y, inplace=True),
    nn.Hardsigmoid: lambda module, y: F.hardsigmoid(y, inplace=True),
}


@dataclass
class Fold:
    """A convolution's partners, and its weights with the normalisation in them.

    Args:
        normalisation: The batch normalisation that reads the convolution.
        activation: What alone reads the normalisation, if that is known.
        made_of: The numbers that the folded ones were made of. They are compared at every call, because a tensor that
            is written through ``.data`` does not say that it was.
        eps: The normalisation's, of which they were made too.
        weight: The folded weights.
        bias: The folded bias.
    """

    normalisation: Any
    activation: nn.Module | None
    made_of: tuple[Tensor, ...] = ()
    eps: float | None = None
    weight: Tensor = field(default_factory=lambda: torch.empty(0))
    bias: Tensor = field(default_factory=lambda: torch.empty(0))

    def applies(self, conv: Any, x: Tensor) -> bool:
        """Whether this is plain inference, and the numbers are in hand."""
        norm = self.normalisation
        if torch.is_grad_enabled() or norm.training or norm.running_mean is None or type(x) is not Tensor:
            return False
        if conv._forward_hooks or _observed() or autocasts(x.device.type):
            return False
        if x.is_inference():  # it does not say whether it is written to before the plain convolution is asked for
            return False
        return self._current(conv)

    def _current(self, conv: Any) -> bool:
        norm = self.normalisation
        parts = (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
        now = tuple(part for part in parts if part is not None)
        if norm.eps == self.eps and len(now) == len(self.made_of) and all(map(_same, now, self.made_of)):
            return True
        if any(type(part) not in (Tensor, nn.Parameter) or part.dtype not in TYPES for part in now):
            return False
        self.weight, self.bias = folded(conv, norm)
        finite = bool(self.weight.isfinite().all()) and bool(self.bias.isfinite().all())
        self.made_of, self.eps = tuple(part.detach().clone() for part in now) if finite else (), norm.eps
        return finite


def _observed() -> bool:
    """Whether a compiler, a transform or a tracer looks on."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return True
    return torch._C._are_functorch_transforms_active() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def _same(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)


def folded(conv: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weights and bias of the convolution that normalises what it gives, worked out in float64."""
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        weight, groups = conv.weight.double(), conv.groups
        if isinstance(conv, TRANSPOSED):  # (C, O/groups, *K): the outputs of a group stand on the second axis
            spread = scale.view(groups, 1, -1, *(1 for _ in weight.shape[2:]))
            weight = (weight.unflatten(0, (groups, -1)) * spread).flatten(0, 1)
        else:
            weight = weight * scale.view(-1, *(1 for _ in weight.shape[1:]))
        bias = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
        bias = bias * scale
        if norm.bias is not None:
            bias = bias + norm.bias.double()
        like = torch.empty_like(conv.weight)  # in the memory layout of the weights
        return like.copy_(weight), bias.to(conv.weight.dtype)


class Pending(Tensor):
    """A convolution's output, not read yet: normalised in advance for its partner, plain for everybody else.

    Args:
        early: The values for the partner.
        partner: The module that may take them.
        plain: Computes the values for everybody else.
        again: Computes them when the partner has written over them.
    """

    early: Tensor
    partner: nn.Module | None
    plain: Callable[[], Tensor]
    again: Callable[[], Tensor]
    value: Tensor | None
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, early: Tensor, partner: nn.Module, plain: Callable[[], Tensor]) -> Pending:
        """A tensor without memory, of the shape and strides of the values."""
        make: Any = Tensor._make_wrapper_subclass
        made: Pending = make(cls, early.shape, strides=early.stride(), dtype=early.dtype, device=early.device)
        made.early, made.partner, made.value = early, partner, None
        made.plain = made.again = plain
        return made

    def read(self) -> Tensor:
        """The plain values; from then on there are no others."""
        if self.value is None:
            self.value = self.plain()
        return self.value

    def give_to(self, module: nn.Module) -> Tensor | None:
        """The values for the partner, once, if this is the partner and nobody has read the plain ones."""
        if self.partner is not module or self.value is not None:
            return None
        self.partner = None
        return self.early

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Every operation reads the plain values."""
        args, kwargs = tree_map(_read, (args, kwargs or {}))
        return func(*args, **kwargs)


def _read(value: Any) -> Any:
    return value.read() if isinstance(value, Pending) else value


class FoldedConvolution(Changed):
    """A convolution that normalises what it gives, where its partner says so."""

    def forward(self: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
        """As the layer's own."""
        fold: Fold = self._striate_fold
        if rest or options or not fold.applies(self, x):
            return super().forward(x, *rest, **options)  # type: ignore[misc]
        return Pending(_convolved(self, x, fold.weight, fold.bias), fold.normalisation, _again(super().forward, x))  # type: ignore[misc]


def _convolved(conv: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if isinstance(conv, TRANSPOSED) and not isinstance(conv, PlannedTransposed):  # PyTorch's have no such method
        return by_vendor(x, weight, bias, (conv.stride, conv.padding, conv.dilation, conv.groups, conv.output_padding))
    return conv._conv_forward(x, weight, bias)


def _again(forward: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    """The plain convolution, later, unless its input is no longer what it was."""
    version = x._version

    def compute() -> Tensor:
        if x._version != version:
            raise StriateError(
                "The output of a convolution that was fused with its batch normalisation is read elsewhere, after its "
                "input may have been changed in place; call striate.restore(model) to run without fusion."
            )
        return forward(x)

    return compute


class Partner(Changed):
    """Who may take the values that a :class:`Pending` tensor has in advance; each says what it does with them."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """As the layer's own."""
        early = x.give_to(self) if type(x) is Pending else None
        return super().forward(_read(x)) if early is None else self._take(x, early)  # type: ignore[misc]


class FoldedNormalisation(Partner):
    """A batch normalisation that its convolution may have done already."""

    def _take(self: Any, x: Pending, early: Tensor) -> Tensor:
        activation = self._striate_activation
        if activation is None:
            return early
        pending = Pending(early, activation, lambda: early)
        pending.again = lambda: self.forward(x.read())
        return pending


class FoldedActivation(Partner):
    """An activation that may write over what it reads, where nobody else has read that."""

    def _take(self: Any, x: Pending, early: Tensor) -> Tensor:
        y = ACTIVATIONS[self._striate_kind](self, early)
        if getattr(self, "inplace", False):
            x.value = y
        else:
            x.plain = x.again
        return y
