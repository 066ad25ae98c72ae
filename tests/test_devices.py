"""The same numbers on a graphics processor, in the same order every time, where there is one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import striate
from striate.computing import ALGORITHMS

from .cases import CONVOLUTIONS, POOLINGS, Case
from .test_laws import definition, integers, outcome, tensors

if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device", allow_module_level=True)


def on_device(function: Any, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [t.cpu() for t in outcome(function, tuple(t.cuda() for t in inputs))]


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_every_algorithm_is_the_definition_there_too(case: Case) -> None:
    inputs = tensors(case)
    wanted = outcome(lambda x, w, b: definition(x, w, b, case), inputs)
    for name in [None, *ALGORITHMS["convolution"]]:
        try:
            got = on_device(
                lambda x, w, b, name=name: striate.conv(x, w, b, **dict(case.options), algorithm=name), inputs
            )
        except striate.errors.AlgorithmError:
            continue
        for actual, expected in zip(got, wanted, strict=True):
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9, msg=str(name))


@pytest.mark.parametrize("case", POOLINGS)
def test_poolings_and_their_gradients_there_too_and_in_a_fixed_order(case: Case) -> None:
    options, x = dict(case.options), integers(2, 3, *case.size)
    for pool in (striate.max_pool, striate.avg_pool, striate.lp_pool, striate.gaussian_pool):

        def call(x: Tensor, pool: Any = pool) -> Tensor:
            return pool(x, case.kernel, **options)

        torch.use_deterministic_algorithms(True)
        try:
            first, second = on_device(call, (x,)), on_device(call, (x,))
        finally:
            torch.use_deterministic_algorithms(False)
        assert all(a.equal(b) for a, b in zip(first, second, strict=True))
        for actual, expected in zip(first, outcome(call, (x,)), strict=True):
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)
