"""Keyed random numbers: the hash in Python's own integers, the distributions, and what must change nothing."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from striate.draws import BELOW, Chance, mix, shifted
from striate.errors import OptionError

MANY = torch.arange(40_000)
LIKELY = 1e-3  # every test of a distribution has a fixed seed: it passes always or never


def word(value: int) -> int:
    return value % 2**64


def splitmix(z: int) -> int:
    """SplitMix64's finaliser as its authors print it, on 64-bit words."""
    z = word((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9)
    z = word((z ^ (z >> 27)) * 0x94D049BB133111EB)
    return z ^ (z >> 31)


def by_hand(seed: int, epoch: int, stream: str, counter: int) -> int:
    key = int.from_bytes(blake2b(f"{seed} {epoch} {stream}".encode(), digest_size=8).digest(), "little")
    return splitmix(word(key + counter * 0x9E3779B97F4A7C15))


EXAMPLES = [0, 1, 2, 63, 10_007, 2**40 + 3]


def test_the_first_numbers_of_splitmix64_are_those_of_its_authors() -> None:
    """Seed 1234567, as published with the reference code (S. Vigna, prng.di.unimi.it)."""
    state = torch.arange(1, 6) * (0x9E3779B97F4A7C15 - 2**64) + 1234567
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [word(n) for n in mix(state).tolist()] == published


@pytest.mark.parametrize("stream", ["shift", "a/b"])
def test_bits_equal_the_same_hash_in_python_integers(stream: str) -> None:
    chance = Chance(5, 7, torch.tensor(EXAMPLES))
    assert [word(n) for n in chance.bits(stream).tolist()] == [by_hand(5, 7, stream, i) for i in EXAMPLES]
    for number, row in enumerate(chance.bits(stream, 3).tolist()):
        assert [word(n) for n in row] == [by_hand(5, 7, stream, i * 3 + number) for i in EXAMPLES]


def test_uniform_and_whole_numbers_are_exact_functions_of_the_bits() -> None:
    chance = Chance(5, 7, torch.tensor(EXAMPLES))
    bits = [by_hand(5, 7, "x", i) for i in EXAMPLES]
    assert chance.uniform("x").tolist() == [(b >> 40) / 2**24 for b in bits]
    for below in (1, 9, 1000, BELOW):
        assert chance.integers("x", below).tolist() == [(b >> 32) * below >> 32 for b in bits]
    assert chance.between("x", -2, 6).tolist() == pytest.approx([(b >> 40) / 2**24 * 8 - 2 for b in bits])
    assert chance.coin("x", 0.3).tolist() == [(b >> 40) / 2**24 < 0.3 for b in bits]


def test_the_shift_to_the_right_is_logical() -> None:
    assert shifted(torch.tensor([-1, 8]), 3).tolist() == [2**61 - 1, 1]


def test_a_scope_is_a_prefix_of_the_stream() -> None:
    chance = Chance(1, 2, torch.arange(4))
    assert chance.within("a").within("b").bits("c").equal(chance.bits("a/b/c"))
    assert len(chance) == 4


def drawn(chance: Chance) -> Tensor:
    """Everything that can be drawn, ``(numbers, B)``."""
    return torch.cat(
        [
            chance.uniform("u", 2),
            chance.integers("i", 7, 2).float(),
            *(one.float().unsqueeze(0) for one in (chance.beta("b", 0.3), chance.coin("c"), chance.uniform("d"))),
        ]
    )


def test_the_rest_of_the_batch_and_its_order_change_nothing() -> None:
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    whole = drawn(Chance(3, 1, torch.arange(100)))
    assert drawn(Chance(3, 1, order)).equal(whole[:, order])
    pieces = [drawn(Chance(3, 1, piece)) for piece in order.split(7)]
    assert torch.cat(pieces, 1).equal(whole[:, order])


UNRELATED = {
    "next example": (Chance(0, 0, MANY), Chance(0, 0, MANY + 1)),
    "next epoch": (Chance(0, 0, MANY), Chance(0, 1, MANY)),
    "next seed": (Chance(0, 0, MANY), Chance(1, 0, MANY)),
    "other scope": (Chance(0, 0, MANY), Chance(0, 0, MANY).within("x")),
}


@pytest.mark.parametrize("pair", UNRELATED.values(), ids=UNRELATED)
def test_numbers_of_neighbours_are_independent(pair: tuple[Chance, Chance]) -> None:
    """Chi-squared over a 16 x 16 table of both."""
    cells = sum(chance.integers("n", 16) * scale for chance, scale in zip(pair, (1, 16), strict=True))
    counts = torch.bincount(torch.as_tensor(cells), minlength=256)
    assert LIKELY < stats.chisquare(counts.numpy()).pvalue < 1 - LIKELY


def test_streams_and_the_numbers_of_one_stream_are_independent() -> None:
    chance = Chance(0, 0, MANY)
    rows = torch.cat([chance.uniform("a", 3), chance.uniform("b", 2), chance.uniform("c").unsqueeze(0)])
    correlation = np.corrcoef(rows.numpy()) - np.eye(len(rows))
    assert np.abs(correlation).max() < 4 / np.sqrt(len(MANY))


def test_uniform_numbers_are_uniform() -> None:
    for seed in range(3):
        numbers = Chance(seed, 0, MANY).uniform("u").numpy()
        assert numbers.min() >= 0
        assert numbers.max() < 1
        assert stats.kstest(numbers, "uniform").pvalue > LIKELY
        low_bits = (numbers * 2**24).astype(np.int64) % 64
        assert stats.chisquare(np.bincount(low_bits, minlength=64)).pvalue > LIKELY


@pytest.mark.parametrize("below", [2, 9, 29, 256])
def test_whole_numbers_are_equally_likely(below: int) -> None:
    counts = torch.bincount(Chance(0, 4, MANY).integers("i", below), minlength=below)
    assert len(counts) == below
    assert LIKELY < stats.chisquare(counts.numpy()).pvalue < 1 - LIKELY


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 0.8, 1.0, 2.0, 8.0])
def test_beta_has_its_distribution(alpha: float) -> None:
    numbers = Chance(2, 0, MANY).beta("mix", alpha).double().numpy()
    lower = numbers[numbers < 0.5]  # float32 has no numbers close to 1, where much of beta is if alpha is small
    assert stats.kstest(lower, lambda x: 2 * stats.beta(alpha, alpha).cdf(x)).pvalue > LIKELY
    assert stats.binomtest(len(lower), len(numbers)).pvalue > LIKELY


@pytest.mark.parametrize("alpha", [1e-3, 1e6])
def test_beta_at_its_extremes_is_a_number(alpha: float) -> None:
    numbers = Chance(2, 0, MANY).beta("mix", alpha)
    assert 0 <= numbers.min() <= numbers.max() <= 1
    assert abs(numbers.mean() - 0.5) < 0.01


MISTAKES: list[tuple[Any, str]] = [
    (
        lambda: Chance(0, 0, torch.zeros(3)),
        "Random numbers are drawn for the indices of examples, an int64 tensor (B,); got torch.float32 (3,).",
    ),
    (
        lambda: Chance(0, 0, torch.zeros(2, 2, dtype=torch.int64)),
        "Random numbers are drawn for the indices of examples, an int64 tensor (B,); got torch.int64 (2, 2).",
    ),
    (
        lambda: Chance(0, 0, MANY).integers("i", 0),
        "Whole numbers are drawn from 0 to below a limit of 1 to 2,147,483,648, got 0.",
    ),
    (
        lambda: Chance(0, 0, MANY).integers("i", BELOW + 1),
        "Whole numbers are drawn from 0 to below a limit of 1 to 2,147,483,648, got 2,147,483,649.",
    ),
    (lambda: Chance(0, 0, MANY).beta("b", 0), "Beta(alpha, alpha) needs a finite alpha above 0, got 0."),
    (lambda: Chance(0, 0, MANY).beta("b", float("inf")), "Beta(alpha, alpha) needs a finite alpha above 0, got inf."),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES)
def test_message(mistake: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        mistake()
    assert str(caught.value) == message
