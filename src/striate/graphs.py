"""Functions that ``torch.compile`` takes whole: their tensor operations enter the graph, their choices stay Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

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

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            admit()
        return function(*args, **options)

    return call  # type: ignore[return-value]
