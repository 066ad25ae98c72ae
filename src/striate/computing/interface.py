"""An algorithm is a few verbs: refuse, estimate, prepare, run. A refusal is a sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import cost, gradients
from ..borders import LAYOUTS, layout_of
from ..errors import AlgorithmError, unknown_name
from ..geometry import Geometry
from ..policy import Policy, current

DIRECTIONS = ("forward", "input_gradient", "weight_gradient")
OPERATIONS = ("convolution", "maximum", "switches", "sum")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be computed: all that an algorithm may look at before it sees a tensor.

    Args:
        operation: "convolution" sums products with the weights; "maximum" takes the largest value of each window,
            "switches" the flat input position of that value (the first one on a tie), "sum" the sum of each window.
        geometry: The window, as it leads from input to output: never transposed, because a transposed convolution is
            the input gradient; never flipped, because the caller has turned the weights.
        batch: Examples; 1 where a traced graph leaves the number open.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        size: Input positions per axis.
        dtype: Type of all tensors.
        device: Where the tensors are: "cpu", "cuda", ...
        divisor: What each window sum is divided by.
        direction: What is solved for: "forward" the output; "input_gradient" the input, given output and weights;
            "weight_gradient" the weights, given input and output. The other numbers stay those of the forward window.
        layout: How the first operand lies in memory, "channels_first" or "channels_last".
        policy: What its plan goes by.
    """

    operation: str
    geometry: Geometry
    batch: int
    in_channels: int
    out_channels: int
    size: tuple[int, ...]
    dtype: torch.dtype = field(default_factory=torch.get_default_dtype)
    device: str = "cpu"
    divisor: int = 1
    direction: str = "forward"
    layout: str = "channels_first"
    policy: Policy = field(default_factory=current, repr=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        geometry = (self.operation, self.geometry, self.batch, self.in_channels, self.out_channels, self.size)
        rest = (self.dtype, self.device, self.divisor, self.direction, self.layout, self.policy)
        object.__setattr__(self, "_hash", hash((*geometry, *rest)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def output_size(self) -> tuple[int, ...]:
        """Output positions per axis."""
        return self.geometry.output_size(self.size)

    @property
    def window(self) -> Geometry:
        """The geometry of what is asked for: the window itself, or transposed for the input gradient."""
        if self.direction == "input_gradient":
            return gradients.input_gradient(self.geometry, self.size)
        return self.geometry

    @property
    def work(self) -> int:
        """Multiply-adds of a convolution, the same in all directions; reads of a pooling."""
        if self.operation == "convolution":
            return self.batch * cost.multiply_adds(self.geometry, self.in_channels, self.out_channels, self.size)
        return self.batch * self.in_channels * prod(self.output_size) * prod(self.geometry.kernel)


def autocasts(device: str) -> bool:
    """Whether PyTorch's autocast is on for this kind of device."""
    return device != "meta" and torch.is_autocast_enabled(device)


def as_given(device: str) -> AbstractContextManager[Any]:
    """A block in which autocast changes no type: what runs inside has chosen its types already."""
    return torch.autocast(device, enabled=False) if autocasts(device) else nullcontext()


def lay(x: Tensor, layout: str) -> Tensor:
    """The tensor ``(N, C, *spatial)`` in this layout."""
    if layout == layout_of(x):
        return x.contiguous() if layout == LAYOUTS[0] else x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == LAYOUTS[0]:
        return x.clone(memory_format=torch.contiguous_format)
    return torch.empty_like(x.movedim(1, -1), memory_format=torch.contiguous_format).movedim(-1, 1).copy_(x)


class Algorithm(Protocol):
    """One way of computing an operation, in one or more of its directions.

    The three tensors of a convolution are the input ``(N, C, *size)``, the weights as
    :meth:`striate.Geometry.weight_shape` says, and the output ``(N, O, *output_size)``; any two give the third:

        forward           run(input, weight)   -> output
        input_gradient    run(output, weight)  -> input
        weight_gradient   run(input, output)   -> weight

    A pooling has no weights: ``run(input, None)`` and, backwards, ``run(output, None)``; backwards, "switches" takes
    the switches as the second operand.
    """

    def refuses(self, problem: Problem) -> str | None:
        """Why this algorithm cannot serve the problem, as a full sentence, or None if it can."""

    @property
    def exact(self) -> bool:
        """Whether it only sums the products of the definition, in some order.

        Then sums of whole numbers are exact, and a NaN or infinity of the input reaches those outputs alone that
        read it.
        """

    @property
    def deterministic(self) -> bool:
        """Whether it gives the same bits on every run."""

    @property
    def by_name(self) -> bool:
        """Whether plans take it only when asked for it by name."""

    def same(self, problem: Problem) -> bool:
        """Whether PyTorch's own call does just this, so that plans need not choose between the two."""

    def bind(self, problem: Problem) -> Callable[[Tensor, Tensor], Tensor]:
        """What computes a problem with weights, for calls that are short: ``run`` after ``prepare``."""

    def error(self, problem: Problem) -> float:
        """The expected largest error in float32 over the output's root mean square; 0 for what is exact.

        A plan takes an algorithm only where the tolerance admits that.
        """

    def workspace(self, problem: Problem) -> int:
        """Bytes that it uses besides its operands and its result."""

    def estimate(self, problem: Problem) -> int | None:
        """Multiply-adds (reads, for a pooling) that this algorithm does, or None if that depends on the values.

        A plan turns them into seconds, and takes an algorithm whose work is unknown only when asked for it by name.
        """

    def prepare(self, second: Tensor, problem: Problem) -> Tensor:
        """Work that depends on the second operand only; what it returns is what ``run`` is given."""

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        """The tensor that is solved for, not as a view into a larger one.

        ``second`` is None for an operation without weights. The batch is the tensors' own, which may be open in a
        traced graph; the problem's is only what was planned with.
        """


class Base:
    """What most algorithms share: exact sums, no refusal, the plain amount of work and nothing to prepare."""

    exact = True
    deterministic = True
    by_name = False

    def refuses(self, problem: Problem) -> str | None:
        return None

    def same(self, problem: Problem) -> bool:
        return False

    def error(self, problem: Problem) -> float:
        return 0.0 if self.exact else 1e-6

    def workspace(self, problem: Problem) -> int:
        return 0

    def estimate(self, problem: Problem) -> int | None:
        return problem.work

    def prepare(self, second: Tensor, problem: Problem) -> Tensor:
        return second

    def bind(self, problem: Problem) -> Callable[[Tensor, Tensor], Tensor]:
        """What computes a problem with weights, for calls that are short."""
        whole: Any = self
        return lambda first, second: whole.run(first, whole.prepare(second, problem), problem)


ALGORITHMS: dict[str, dict[str, Algorithm]] = {operation: {} for operation in OPERATIONS}


def register(operation: str, name: str, algorithm: Algorithm) -> None:
    """Make an algorithm known; it is then judged by the laws and chosen by plans like any other.

    Raises:
        UnknownNameError: There is no such operation.
        AlgorithmError: The name is taken.
    """
    if operation not in ALGORITHMS:
        raise unknown_name("operation", operation, ALGORITHMS)
    if name in ALGORITHMS[operation]:
        raise AlgorithmError(
            f"Algorithm {name!r} is already registered for {operation} as {ALGORITHMS[operation][name]!r}."
        )
    ALGORITHMS[operation][name] = algorithm


@lru_cache(maxsize=4096)
def bound(name: str, problem: Problem) -> Callable[[Tensor, Tensor], Tensor]:
    """The algorithm of this name, bound to a problem with weights."""
    return find(problem.operation, name).bind(problem)


def find(operation: str, name: str) -> Algorithm:
    """The algorithm of this name.

    Raises:
        UnknownNameError: Nothing carries the name, or there is no such operation; the message lists what there is.
    """
    if operation not in ALGORITHMS:
        raise unknown_name("operation", operation, ALGORITHMS)
    if name not in ALGORITHMS[operation]:
        raise unknown_name("algorithm", name, ALGORITHMS[operation])
    return ALGORITHMS[operation][name]


def algorithms() -> tuple[str, ...]:
    """The names that ``algorithm=`` accepts.

    >>> import striate
    >>> "im2col" in striate.algorithms()
    True
    """
    return tuple(sorted(ALGORITHMS["convolution"]))
