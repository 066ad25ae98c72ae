"""How plans are made: how hard to look for the fastest algorithm, and which ones may serve."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isfinite
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from .errors import OptionError, unknown_name

RIGORS = ("estimate", "measure", "frozen")


class Account:
    """What plans under one call of :func:`tuning` have used and seen.

    That is the seconds that races have taken so far and, for "frozen", the records of each file as they first stood.
    """

    def __init__(self) -> None:
        self.spent = 0.0
        self.records: dict[str | None, dict[str, dict[str, float]]] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """What plans go by; see :func:`tuning`. Each call of that makes one of its own, which equals no other.

    Args:
        rigor: "estimate", "measure" or "frozen".
        tolerance: Largest expected error over the output's root mean square, in float32.
        deterministic: Only algorithms that give the same bits on every run.
        workspace: Bytes that an algorithm may use besides its operands and its result.
        budget: Seconds that all races together may take.
        wisdom: The file of records; None is the one in the cache folder.
        account: What the races have taken of the budget, and which records a frozen policy has seen.
    """

    rigor: str = "estimate"
    tolerance: float = 1e-4
    deterministic: bool = False
    workspace: int = 2**28
    budget: float = 60.0
    wisdom: str | None = None
    account: Account = field(default_factory=Account, repr=False)

    @property
    def admits(self) -> tuple[float, bool, int]:
        """What decides who may run; the rest only decides how the fastest is looked for."""
        return self.tolerance, self.deterministic, self.workspace


class Tuning:
    """A policy in force: until another call of :func:`tuning`, or, in a ``with`` statement, inside of its block."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        with _LOCK:
            _DEFAULTS.append(policy)

    def __enter__(self) -> Policy:
        with _LOCK:
            _DEFAULTS[1:] = [one for one in _DEFAULTS[1:] if one is not self.policy]
        _BLOCKS.set((*_BLOCKS.get(), self.policy))
        return self.policy

    def __exit__(self, *error: object) -> None:
        _BLOCKS.set(_BLOCKS.get()[:-1])


_LOCK = Lock()
_DEFAULTS = [Policy()]
_BLOCKS: ContextVar[tuple[Policy, ...]] = ContextVar("striate policies", default=())


def tuning(
    rigor: str,
    *,
    budget: float | None = None,
    tolerance: float | None = None,
    deterministic: bool | None = None,
    workspace: int | None = None,
    wisdom: str | Path | None = None,
) -> Tuning:
    """Say how plans are made, from now on in this process, or in a ``with`` statement for this thread's block.

    ==========  ====================================================================================================
    estimate    Nothing is timed: what was measured before decides, and else a model of this machine. The default.
                What other processes measure meanwhile is seen when a problem is planned that was not planned before,
                and by :func:`striate.plan`; every plan is then looked up anew.
    measure     Candidates race on random tensors of the problem's shapes, PyTorch's own among them; the result is kept.
    frozen      As estimate, but of what is kept only that which was there when the first plan under this call was made,
                whoever measures later: plans never change. Production.
    ==========  ====================================================================================================

    Blocks may be nested and shared by threads. What is not given stays as it was.

    Args:
        rigor: One of the three.
        budget: Seconds that all races under this call may take together, 60 at first; one problem takes at most a
            twentieth of it, or one run of each candidate. Once it is spent, plans are estimates and say so.
        tolerance: An algorithm that rounds differently serves float32 only if its expected error, over the root mean
            square of the output, is at most this. The default, 1e-4, admits all; 1e-5 leaves out F(4,3).
        deterministic: Only algorithms that give the same bits on every run; ``torch.use_deterministic_algorithms``
            asks for the same.
        workspace: Bytes that an algorithm may use besides its operands and its result, 256 MiB at first.
        wisdom: A file of measured records to use in place of that in the cache folder.

    Raises:
        UnknownNameError: There is no such rigor.
        OptionError: A number is out of range.

    >>> with tuning("frozen", tolerance=1e-5) as policy:
    ...     policy.rigor, current().tolerance
    ('frozen', 1e-05)
    >>> current().rigor
    'estimate'
    """
    if rigor not in RIGORS:
        raise unknown_name("rigor", rigor, RIGORS)
    for name, number in (("budget", budget), ("tolerance", tolerance), ("workspace", workspace)):
        if number is not None and (type(number) not in (int, float) or not (isfinite(number) and number >= 0)):
            raise OptionError(f"tuning: {name} must be a number of at least 0, got {name}={number!r}.")
    given: dict[str, Any] = {
        "budget": budget, "tolerance": tolerance, "deterministic": deterministic, "workspace": workspace,
        "wisdom": None if wisdom is None else str(Path(wisdom).expanduser().absolute()),
    }  # fmt: skip
    changed = {name: value for name, value in given.items() if value is not None}
    return Tuning(replace(_given(), rigor=rigor, account=Account(), **changed))


_deterministic = torch._C._get_deterministic_algorithms  # looked up once, for every call asks


def current() -> Policy:
    """The policy in force in this thread; where PyTorch is told to be deterministic, it is."""
    blocks = _BLOCKS.get()
    policy = blocks[-1] if blocks else _DEFAULTS[-1]  # as _given: every call comes by here
    return _settled(policy) if _deterministic() else policy


def _given() -> Policy:
    blocks = _BLOCKS.get()
    return blocks[-1] if blocks else _DEFAULTS[-1]


@lru_cache(maxsize=64)
def _settled(policy: Policy) -> Policy:
    return policy if policy.deterministic else replace(policy, deterministic=True)
