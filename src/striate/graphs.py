"""Functions that ``torch.compile`` takes whole: their tensor operations enter the graph, their choices stay Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, wraps
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers

from .errors import GeometryError

Function = TypeVar("Function", bound=Callable[..., Any])


def whole(function: Function) -> Function:
    """A function of tensors and plain values (numbers, texts, tuples, None) that the compiler does not look into.

    Its bytecode is not interpreted. It is called with fake tensors instead, as ``torch.export`` does, and the
    operations that it performs are recorded; so plans, caches and automatic differentiation work as they do eagerly.

    >>> twice = whole(lambda x: x + x)
    >>> torch.compile(twice, fullgraph=True, backend="eager")(torch.ones(2))
    tensor([2., 2.])
    """

    def admit() -> int:
        torch.compiler.allow_in_graph(function)
        return 0

    # What torch.compiler.assume_constant_result sets; that would import the compiler now. The compiler calls admit
    # before it meets the function, and by then it is loaded.
    admit._dynamo_marked_constant = True  # type: ignore[attr-defined]

    parameters = signature(function)
    tensors = [name for name, one in parameters.parameters.items() if str(one.annotation).startswith("Tensor")]

    compiling = torch.compiler.is_dynamo_compiling  # looked up once: each dot costs every call

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if compiling():
            admit()
        try:
            return function(*args, **options)
        except (AttributeError, TypeError):
            given = parameters.bind(*args, **options).arguments
            _require_tensors(function.__name__, {name: given[name] for name in tensors if given.get(name) is not None})
            raise

    return call  # type: ignore[return-value]


@cache
def applied(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply`` for positional arguments.

    That reads the signature of ``forward`` at every call, to fill in defaults, which takes longer than a small
    convolution; only transforms of functions need what it does besides.

    >>> class Twice(torch.autograd.Function):
    ...     forward = staticmethod(lambda x: x * 2)
    ...     setup_context = staticmethod(lambda ctx, inputs, output: None)
    ...     backward = staticmethod(lambda ctx, gradient: gradient * 2)
    >>> x = torch.ones(1, requires_grad=True)
    >>> torch.autograd.grad(applied(Twice)(x), x)
    (tensor([2.]),)
    """
    given: Any = super(torch.autograd.Function, function)
    straight, transformed = given.apply, torch._C._are_functorch_transforms_active

    def apply(*operands: Any) -> Any:
        return function.apply(*operands) if transformed() else straight(*unwrap_dead_wrappers(operands))

    return apply


def _require_tensors(name: str, given: dict[str, Any]) -> None:
    for word, value in given.items():
        if not isinstance(value, Tensor):
            raise GeometryError(
                f"{name}: {word} must be a tensor, got {type(value).__name__}; give torch.as_tensor({word})."
            ) from None


def fixed(name: str, shape: Sequence[Any]) -> tuple[int, ...]:
    """Sizes as plain integers: ``torch.compile`` is made to fix what it left open.

    Raises:
        GeometryError: ``torch.export`` was told to leave them open.
    """
    if torch.compiler.is_exporting() and any(isinstance(n, torch.SymInt) for n in shape):
        raise GeometryError(f"{name}: these windows depend on the sizes, which this graph leaves open; fix them.")
    return tuple(map(int, shape))
