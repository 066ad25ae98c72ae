"""Maximum, sum and what moves values between windows: their derivatives in both modes, vmap, and planned gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import striate
from striate.computing import Problem, find
from striate.errors import GeometryError
from striate.geometry import Geometry
from striate.reductions import Planned, inverse, largest, move, places, select, spread, total

WINDOWS = {
    "vendor": Geometry.window(2, (2, 3), stride=(1, 2), padding=1),
    "dilated": Geometry.window(2, 2, stride=1, dilation=2, padding=((1, 0), (0, 2))),
    "uneven": Geometry.window(2, (3, 2), stride=2, padding=((0, 2), (1, 0))),
}
SIZE = (4, 5)
every_window = pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)


def mixed(*shape: int) -> Tensor:
    """Numbers that all differ, so that a small step changes no maximum."""
    order = torch.randperm(int(torch.tensor(shape).prod()), generator=torch.Generator().manual_seed(0))
    return (order.view(shape) / 7 - 2.53).double()


def problem(window: Geometry, operation: str) -> Problem:
    return Problem(operation, window, 1, 1, 1, SIZE, torch.float64)


def functions(window: Geometry) -> dict[str, Callable[[Tensor], Tensor]]:
    switches = find("switches", "reference").run(mixed(1, 2, *SIZE), None, problem(window, "switches"))
    windows = Planned(problem(window, "maximum"))
    origin, goal = inverse(switches.flatten(2), SIZE[0] * SIZE[1])
    return {
        "largest": lambda x: largest(x, problem(window, "maximum")),
        "select": lambda x: select(x, switches.expand(len(x), -1, -1, -1), windows),
        "spread of select": lambda x: spread(select(x, switches, windows), switches, windows),
        "total": lambda x: total(x, problem(window, "sum")),
        "move": lambda x: move(select(x, switches, windows).flatten(2), origin, goal),
    }


@every_window
def test_derivatives_to_the_second_order_in_both_modes(window: Geometry) -> None:
    for function in functions(window).values():
        x = mixed(1, 2, *SIZE).requires_grad_()
        assert torch.autograd.gradcheck(function, x, check_forward_ad=True, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, x, check_fwd_over_rev=True, fast_mode=True)


@every_window
def test_vmap_of_the_function_and_of_its_gradient(window: Geometry) -> None:
    x = mixed(3, 1, 2, *SIZE)
    for function in functions(window).values():
        assert torch.vmap(function)(x).equal(torch.stack([function(image) for image in x]))

        def slope(image: Tensor, function: Callable[[Tensor], Tensor] = function) -> Tensor:
            return torch.func.grad(lambda x: function(x).square().sum())(image)

        assert torch.vmap(slope)(x).equal(torch.stack([slope(image) for image in x]))
        assert torch.vmap(function, in_dims=3)(x.movedim(0, 3)).equal(torch.vmap(function)(x))


@every_window
def test_the_spread_is_the_adjoint_of_the_selection(window: Geometry) -> None:
    x = mixed(2, 3, *SIZE)
    switches = places(x, problem(window, "switches"))
    y = select(x, switches, Planned(problem(window, "maximum")))
    assert y.equal(largest(x, problem(window, "maximum")))
    g = mixed(*y.shape)
    back = spread(g, switches, Planned(problem(window, "maximum")))
    torch.testing.assert_close((y * g).sum(), (x * back).sum())


def test_switches_have_no_derivative() -> None:
    asked = problem(WINDOWS["vendor"], "switches")
    switches = places(mixed(1, 1, *SIZE).requires_grad_(), asked)
    assert not switches.requires_grad
    both: Any = torch.func.jvp(lambda x: places(x, asked), (mixed(1, 1, *SIZE),), (mixed(1, 1, *SIZE),))
    value, tangent = both
    assert value.equal(switches)
    assert tangent is None or not tangent.any()


def test_a_place_holds_the_first_value_that_was_sent_there() -> None:
    switches = torch.tensor([[[3, 1, 3, 0, 1]]])
    origin, goal = inverse(switches, 5)
    assert origin.tolist() == [[[3, 1, -1, 0, -1]]]
    assert goal.tolist() == [[[3, 1, -1, 0, -1]]]
    assert move(torch.tensor([[[1.0, 2, 3, 4, 5]]]), origin, goal).tolist() == [[[4, 2, 0, 1, 0]]]
    origin, goal = inverse(torch.empty(1, 1, 0, dtype=torch.int64), 2)
    assert move(torch.ones(1, 1, 0), origin, goal).tolist() == [[[0, 0]]]
    both = torch.stack([switches, switches.flip(-1)])
    assert torch.vmap(lambda s: inverse(s, 5)[0])(both)[0].equal(inverse(switches, 5)[0])


@pytest.mark.parametrize(("switches", "low", "high"), [([0, 4], 0, 4), ([-1, 2], -1, 2)])
def test_a_switch_that_is_no_place_is_refused(switches: list[int], low: int, high: int) -> None:
    with pytest.raises(GeometryError) as caught:
        inverse(torch.tensor([[switches]]), 4)
    assert str(caught.value) == (
        f"max_unpool: the switches reach from {low} to {high}, but the output has the places 0 to 3; "
        "give the output_size of the map that was pooled."
    )


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_a_window_of_the_lowest_values_alone_sends_its_gradient_to_the_first_real_one(order: slice) -> None:
    """Padding is -infinity to PyTorch; a tie with it must not take the gradient away."""
    for padding in (1, ((1, 0),), ((2, 0),), ((0, 2),)[order]):
        x = torch.full((1, 1, 3), -torch.inf, requires_grad=True)
        y = striate.max_pool(x, 3, stride=1, padding=padding)
        (back,) = torch.autograd.grad(y, x, torch.ones_like(y))
        assert back.sum() == y.numel()
        assert back[0, 0, 0] >= 1


def test_with_an_algorithm_of_one_s_own_the_gradients_are_planned_by_themselves() -> None:
    """On four axes the vendor refuses: forward is separable, backward PyTorch's scatter."""
    x = mixed(1, 1, 2, 2, 4, 5).requires_grad_()
    y = striate.max_pool(x, (1, 2, 2, 2), stride=1)
    names = [type(y.grad_fn).__name__, type(striate.avg_pool(x, (1, 2, 2, 2)).grad_fn).__name__]
    assert names == ["MaximumBackward", "SumBackward"]
    values, switches = torch.nn.functional.max_pool3d(
        x[0].movedim(1, 0).flatten(0, 1), (2, 2, 2), 1, return_indices=True
    )
    assert y.flatten().equal(values.flatten())
    (mine,) = torch.autograd.grad(y.sum(), x)
    (wanted,) = torch.autograd.grad(values.sum(), x)
    assert mine.equal(wanted)
    assert switches.shape == values.shape


CALLS: list[dict[str, Any]] = [{}, {"padding": 1}, {"stride": 1, "ceil": True}]


def test_the_plain_call_is_pytorch_s_own() -> None:
    x = torch.ones(1, 1, 4, 4, requires_grad=True)
    for pool, name in ((striate.max_pool, "MaxPool2DWithIndicesBackward0"), (striate.avg_pool, "AvgPool2DBackward0")):
        for options in CALLS:
            got: Any = pool(x, 2, **options)
            assert type(got.grad_fn).__name__ == name
