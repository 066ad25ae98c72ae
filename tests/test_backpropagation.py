"""The pieces of the recursion, each against its definition; whole steps are judged in test_lessons."""

from __future__ import annotations

import pytest
import torch

from striate import operations as paper
from striate.backpropagation import extended, folded, rotated, sources, spread, taps
from striate.derivatives import RULES, Standard, neighbours, shrunk
from striate.geometry import Axis


def test_a_rotated_kernel_convolved_is_the_kernel_correlated() -> None:
    weight = torch.arange(2 * 3 * 2 * 3.0).view(2, 3, 2, 3)
    turned = rotated(weight, 1)
    assert turned.shape == (1, 3, 2, 2, 3)
    for o, c, i, j in torch.ones_like(weight).nonzero().tolist():
        assert turned[0, c, o, 1 - i, 2 - j] == weight[o, c, i, j]


def test_zeros_stand_between_for_a_stride() -> None:
    assert spread(torch.tensor([[[1.0, 2.0, 3.0]]]), [Axis(1, stride=3)]).tolist() == [[[1, 0, 0, 2, 0, 0, 3]]]


@pytest.mark.parametrize(
    ("border", "expected"),
    [
        ("zeros", [-1, -1, 0, 1, 2, 3, -1, -1, -1]),
        ("replicate", [0, 0, 0, 1, 2, 3, 3, 3, 3]),
        ("circular", [2, 3, 0, 1, 2, 3, 0, 1, 2]),
        ("reflect", [2, 1, 0, 1, 2, 3, 2, 1, 0]),
    ],
)
def test_what_stands_in_the_padding(border: str, expected: list[int]) -> None:
    axis = Axis(1, before=2, after=3)
    assert sources(4, axis, border).tolist() == expected
    values = torch.tensor([[[5.0, 6.0, 7.0, 8.0]]])
    padded = extended(values, [axis], border)[0, 0].tolist()
    assert padded == [0.0 if place < 0 else [5.0, 6.0, 7.0, 8.0][place] for place in expected]


@pytest.mark.parametrize("border", ["zeros", "replicate", "circular", "reflect"])
def test_folding_is_the_adjoint_of_padding(border: str) -> None:
    """``<pad(x), y> = <x, fold(y)>`` for all x and y."""
    axes = [Axis(1, before=2, after=1), Axis(1, before=0, after=3)]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=generator)
    y = torch.randn(2, 3, 7, 8, dtype=torch.float64, generator=generator)
    one, other = (extended(x, axes, border) * y).sum(), (x * folded(y, axes, (4, 5), border)).sum()
    torch.testing.assert_close(one, other)


def test_negative_padding_crops_and_folds_back_to_zeros() -> None:
    axis = Axis(1, before=-1, after=-2)
    assert extended(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), [axis]).tolist() == [[[2.0]]]
    assert folded(torch.tensor([[[7.0]]]), [axis], (4,)).tolist() == [[[0.0, 7.0, 0.0, 0.0]]]


def test_taps_read_what_the_geometry_says() -> None:
    axis = Axis(kernel=3, stride=2, dilation=3)
    row = torch.arange(12.0).view(1, 1, 12)
    for (tap,), seen in taps(row, [axis], (axis.output_size(12),)):
        assert seen.flatten().tolist() == [o * 2 + tap * 3 for o in range(axis.output_size(12))]


def test_what_was_repeated_is_summed() -> None:
    delta = torch.arange(12.0).view(1, 2, 2, 3)
    assert shrunk(delta, torch.zeros(1, 2)).tolist() == [[15.0, 51.0]]
    assert shrunk(delta, torch.zeros(1, 1, 2, 1)).tolist() == [[[[24.0], [42.0]]]]
    assert shrunk(delta, delta) is not None


def test_neighbouring_channels_end_at_the_borders() -> None:
    assert neighbours(torch.tensor([[1.0, 10.0, 100.0]]), 1, 1).tolist() == [[11.0, 111.0, 110.0]]


def test_standardised_values_have_mean_0_and_variance_1_and_do_not_feel_a_shift() -> None:
    x = torch.tensor([[1.0, 2.0, 6.0]], dtype=torch.float64)
    one = Standard(x, (1,), 0.0)
    assert one.values.mean().item() == pytest.approx(0)
    assert one.values.square().mean().item() == pytest.approx(1)
    assert one.back(torch.ones_like(x)).abs().max().item() == pytest.approx(0)  # a shift of x changes nothing
    assert one.back(one.values).abs().max().item() == pytest.approx(0)  # nor does a scale
    fixed = Standard(x, (1,), 0.0, (torch.tensor(1.0), torch.tensor(4.0)))
    assert fixed.values.tolist() == [[0.0, 0.5, 2.5]]
    assert fixed.back(torch.ones_like(x)).tolist() == [[0.5, 0.5, 0.5]]


def test_every_operator_of_the_notation_has_a_rule_but_three() -> None:
    left = set(paper.KINDS) - set(RULES)
    assert left == {paper.LpPool, paper.GaussianPool, paper.Upsample, paper.Resize}  # the last two have one for nearest
