"""Convolution, batch normalisation and activation in one: exact, and never seen by anybody else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.errors import StriateError
from striate.fusion import ACTIVATIONS, Fold, FoldedActivation, FoldedConvolution, FoldedNormalisation, Pending, folded
from striate.planned_layers import change

CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "without bias": lambda: nn.Conv2d(4, 6, 3, stride=2, bias=False),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "reflecting": lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1),
    "transposed in groups": lambda: nn.ConvTranspose2d(4, 6, 3, 2, groups=2),
}


class Block(nn.Module):
    """A convolution, its normalisation and activation, and what a test does with them."""

    def __init__(self, conv: nn.Module, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.norm, self.activation = conv, nn.BatchNorm2d(6), activation or nn.ReLU()
        self.way: Callable[[Any, Tensor], Tensor] = lambda self, x: self.activation(self.norm(self.conv(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def block(conv: str = "plain", activation: nn.Module | None = None) -> tuple[Any, Any]:
    """A block with uncommon numbers, and the same with its parts folded."""
    torch.manual_seed(0)
    plain: Any = Block(CONVOLUTIONS[conv](), activation).double().eval()
    with torch.no_grad():
        for tensor in (plain.norm.weight, plain.norm.bias, plain.norm.running_mean):
            tensor.uniform_(-1, 1)
        plain.norm.running_var.uniform_(0.5, 2)
    return plain, fold(copy.deepcopy(plain))


def fold(plain: Any) -> Any:
    change(plain.conv, FoldedConvolution, fold=Fold(plain.norm, plain.activation))
    change(plain.norm, FoldedNormalisation, activation=plain.activation)
    change(plain.activation, FoldedActivation, kind=type(plain.activation))
    return plain


X = torch.linspace(-2, 2, 2 * 4 * 9 * 9, dtype=torch.float64).sin().view(2, 4, 9, 9)


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_folded_convolution_is_convolution_and_normalisation(name: str) -> None:
    plain, fused = block(name)
    with torch.no_grad():
        same(fused(X), plain(X))
        assert type(fused(X)) is Tensor
        assert type(fused.conv(X)) is Pending
        weight, bias = folded(plain.conv, plain.norm)
        assert (weight.shape, bias.shape) == (plain.conv.weight.shape, (6,))


@pytest.mark.parametrize("kind", ACTIVATIONS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("inplace", [False, True])
def test_activations_write_over_what_they_read(kind: Any, inplace: bool) -> None:
    plain, fused = block("plain", kind(inplace=inplace))
    with torch.no_grad():
        same(fused(X), plain(X))


WAYS: dict[str, Callable[[Any, Tensor], Any]] = {
    "the convolution is read too": lambda m, x: (y := m.conv(x), m.activation(m.norm(y)) + y.mean())[1],
    "the convolution is read first": lambda m, x: (y := m.conv(x), z := y.mean(), m.activation(m.norm(y)) + z)[2],
    "the normalisation is read too": lambda m, x: (y := m.norm(m.conv(x)), m.activation(y) + y)[1],
    "the normalisation is read first": lambda m, x: (y := m.norm(m.conv(x)), z := 2 * y, m.activation(y) + z)[2],
    "no activation": lambda m, x: m.norm(m.conv(x)) - 1,
    "another activation": lambda m, x: torch.tanh(m.norm(m.conv(x))),
    "no normalisation": lambda m, x: F.relu(m.conv(x)),
    "the output itself": lambda m, x: m.conv(x),
    "normalised twice": lambda m, x: (y := m.conv(x), m.norm(y) + 2 * m.norm(y))[1],
    "a residual in place": lambda m, x: (y := m.conv(x), y.__iadd__(1.0), m.norm(y))[2],
    "in pieces": lambda m, x: torch.cat([m.norm(y) for y in m.conv(x).split(1)]),
    "other inputs of the parts": lambda m, x: m.activation(m.norm(torch.cat([x, x], 1)[:, :6])),
    "its shape and type": lambda m, x: (y := m.conv(x), y.new_zeros(y.shape) + y.stride(0) + len(y))[1],
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_whoever_reads_gets_what_the_layers_say(way: str, inplace: bool) -> None:
    plain, fused = block("plain", nn.ReLU(inplace))
    plain.way = fused.way = WAYS[way]
    with torch.no_grad():
        same(fused(X) + 0, plain(X))


def test_training_and_gradients_are_those_of_the_layers() -> None:
    plain, fused = block()
    with torch.no_grad():
        fused(X)
    for mode in (False, True):
        plain.train(mode)
        fused.train(mode)
        same(fused(X), plain(X))
        plain(X).sum().backward()
        fused(X).sum().backward()
    for (name, p), q in zip(plain.named_parameters(), fused.parameters(), strict=True):
        assert p.grad is not None, name
        assert q.grad is not None, name
        same(q.grad, p.grad)
    with torch.no_grad():
        plain.train()
        fused.train()
        same(fused(X), plain(X))
        plain.eval()
        fused.eval()
        same(fused(X), plain(X))  # with the running statistics of now


CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda m: m.conv.weight.mul_(2),
    "through .data": lambda m: m.conv.weight.data.mul_(2),
    "one element through .data": lambda m: m.conv.weight.data[0, 0, 0].fill_(3),
    "another tensor as .data": lambda m: m.conv.weight.__setattr__("data", m.conv.weight.data + 1),
    "another parameter": lambda m: m.conv.__setattr__("bias", nn.Parameter(torch.ones(6).double())),
    "the bias": lambda m: m.conv.bias.data.add_(1),
    "the statistics": lambda m: m.norm.running_mean.data.add_(1),
    "the scale": lambda m: m.norm.weight.data.neg_(),
    "no scale": lambda m: (m.norm.__setattr__("weight", None), m.norm.__setattr__("bias", None)),
    "a state dict": lambda m: m.load_state_dict({k: 2 * v for k, v in m.state_dict().items()}),
    "no numbers": lambda m: (m.norm.running_var.zero_(), m.conv.weight.data.fill_(torch.inf)),
    "a step of the stride": lambda m: m.conv.__setattr__("stride", (2, 2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_numbers_are_seen(change: str) -> None:
    plain, fused = block()
    with torch.no_grad():
        fused(X)
        for one in (plain, fused):
            CHANGES[change](one)
        torch.testing.assert_close(fused(X), plain(X), rtol=1e-12, atol=1e-12, equal_nan=True)


def test_another_type_is_served() -> None:
    plain, fused = block()
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        with torch.no_grad():
            actual, expected = fused.to(dtype)(X.to(dtype)), plain.to(dtype)(X.to(dtype))
        limit = {torch.float32: 1e-5, torch.bfloat16: 0.0, torch.float64: 1e-12}[dtype]
        torch.testing.assert_close(actual, expected, rtol=limit, atol=limit)


def test_hooks_see_the_convolution() -> None:
    plain, fused = block()
    seen: list[Tensor] = []
    for one in (plain, fused):
        one.conv.register_forward_hook(lambda module, args, output: seen.append(output))
        with torch.inference_mode():
            one(X)
    same(seen[1], seen[0])


def test_an_input_that_was_changed_meanwhile_is_an_error_in_words() -> None:
    _, fused = block()
    x = X.clone()
    with torch.no_grad():
        y = fused.conv(x)
        x.add_(1)
        with pytest.raises(StriateError, match=r"its input may have been changed in place; call striate\.restore"):
            y.sum()


def test_transforms_see_the_layers() -> None:
    plain, fused = block()
    with torch.no_grad():
        same(torch.func.vmap(fused)(X[:, None]), torch.func.vmap(plain)(X[:, None]))
    for actual, expected in zip(torch.func.jvp(fused, (X,), (X,)), torch.func.jvp(plain, (X,), (X,)), strict=True):
        same(actual, expected)


def test_another_eps_is_seen() -> None:
    plain, fused = block()
    with torch.no_grad():
        fused(X)
        plain.norm.eps = fused.norm.eps = 0.5
        torch.testing.assert_close(fused(X), plain(X))


def test_inference_mode_has_no_pending_tensors_to_fail() -> None:
    plain, fused = block()
    for model in (plain, fused):
        model.way = lambda self, x: (y := self.conv(x * 1.0)) + self.activation(self.norm(y))
    with torch.inference_mode():
        torch.testing.assert_close(fused(X), plain(X))
