"""The one function of convolutions: each solution, and the derivatives between them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from striate.computing import DIRECTIONS, Problem
from striate.geometry import Geometry
from striate.planning import choose_all
from striate.trilinear import DIRECTION, ROLES, convolve

WINDOW = Geometry.window(2, (3, 2), stride=(2, 1), padding=((1, 0), (0, 2)), groups=2)
FORWARD = Problem("convolution", WINDOW, 2, 4, 6, (6, 5), torch.float64)


def tensor(role: str, seed: int, complex_: bool = False) -> Tensor:
    shapes = {"input": (2, 4, 6, 5), "output": (2, 6, *FORWARD.output_size), "weight": (6, 2, 3, 2)}
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randint(-4, 5, shapes[role], generator=generator).double() for _ in range(2)]
    return torch.complex(*draws) if complex_ else draws[0]


@pytest.mark.parametrize("name", ["reference", "vendor"])
def test_the_three_solutions_are_the_derivatives_of_one_form(name: str) -> None:
    """<y, forward(x, w)> = <x, input_gradient(y, w)> = <w, weight_gradient(x, y)>."""
    plans = choose_all(FORWARD, name)
    tensors = {role: tensor(role, seed) for seed, role in enumerate(DIRECTION)}
    sums = set()
    for direction in DIRECTIONS:
        first, second, result = ROLES[direction]
        sums.add((convolve(tensors[first], tensors[second], plans, direction) * tensors[result]).sum().item())
    assert len(sums) == 1


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", ["reference", "vendor"])
def test_complex_derivatives_of_every_direction(name: str, direction: str) -> None:
    plans = choose_all(FORWARD, name)
    first, second, _ = ROLES[direction]
    operands = tuple(tensor(role, seed, complex_=True).requires_grad_() for seed, role in enumerate((first, second)))

    def run(a: Tensor, b: Tensor) -> Tensor:
        return convolve(a, b, plans, direction)

    assert torch.autograd.gradcheck(run, operands, fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, operands, fast_mode=True)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_empty_batch_has_derivatives(direction: str) -> None:
    plans = choose_all(FORWARD)
    shapes = {"input": (0, 4, 6, 5), "output": (0, 6, *FORWARD.output_size), "weight": (6, 2, 3, 2)}
    first, second, _ = ROLES[direction]
    operands = [torch.ones(shapes[role], dtype=torch.float64, requires_grad=True) for role in (first, second)]
    result = convolve(operands[0], operands[1], plans, direction)
    assert result.shape == tensor(ROLES[direction][2], 0).shape or result.shape[0] == 0
    gradients = torch.autograd.grad(result.sum(), operands)
    assert [g.shape for g in gradients] == [t.shape for t in operands]
    assert all((g == 0).all() for g in gradients)


def test_a_name_that_the_folded_problem_does_not_serve_is_refused_under_vmap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else runs in its place."""
    import striate
    from striate import matrices

    monkeypatch.setattr(matrices, "LARGEST", 1000)
    x, weight = torch.ones(3, 1, 1, 6, 6), torch.ones(3, 1, 1, 3, 3)
    assert striate.conv(x[0], weight[0], algorithm="toeplitz").shape == (1, 1, 4, 4)
    with pytest.raises(striate.errors.AlgorithmError) as caught:
        torch.func.vmap(lambda x, w: striate.conv(x, w, algorithm="toeplitz"))(x, weight)
    assert str(caught.value) == (
        "algorithm='toeplitz' cannot serve this convolution: the dense matrix would be 48 x 108, 5,184 entries; "
        "at most 1,000 are made."
    )
