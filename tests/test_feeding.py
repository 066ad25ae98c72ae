"""The order of examples, how batches are cut, and what comes out of a feed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from striate import feeding
from striate.augmentation import Augmentation, recipe
from striate.datasets import Normalisation, load
from striate.feeding import Feed, Part, order, parts
from striate.options import Options
from striate.processes import Group

CPU = torch.device("cpu")


def test_an_epochs_order_is_a_permutation_that_seed_and_epoch_decide() -> None:
    first = order(Options(seed=1), 0, 50)
    assert sorted(first.tolist()) == list(range(50))
    assert torch.equal(first, order(Options(seed=1), 0, 50))
    assert not torch.equal(first, order(Options(seed=1), 1, 50))
    assert not torch.equal(first, order(Options(seed=2), 0, 50))


def test_balanced_sampling_shows_rare_classes_as_often() -> None:
    targets = torch.tensor([0] * 9000 + [1] * 1000)
    drawn = targets[order(Options(sampling="balanced"), 0, 10_000, targets) % 10_000]
    assert abs(drawn.double().mean().item() - 0.5) < 0.025  # five standard deviations
    assert torch.equal(order(Options(sampling="balanced"), 0, 50), order(Options(), 0, 50))


@pytest.mark.parametrize("size", [1, 2, 3, 8, 31, 32])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_parts_are_even_neighbours_and_make_up_the_batch(size: int, processes: int, count: int) -> None:
    batch = torch.arange(size)
    each = [parts(batch, Group(rank, processes), count) for rank in range(processes)]
    cut = [part for together in zip(*each, strict=True) for part in together]
    real = [part.indices for part in cut if part.real]
    assert torch.equal(torch.cat(real), batch)
    assert all(len(indices) % 2 == 0 for indices in real[:-1])
    if processes > 1:  # all have as much to do, so that nobody waits for ever
        assert len(cut) == processes * count
        assert all(len(part.indices) for part in cut)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_feed_gives_the_normalised_examples(bars: Any, channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    normalisation = Normalisation.of(bars.train)
    wanted = [Part(torch.tensor([5, 0, 7])), Part(torch.tensor([3]))]
    for resident in (feeding.RESIDENT, 0):
        monkeypatch.setattr(feeding, "RESIDENT", resident)
        feed = Feed(bars.train, normalisation, Augmentation(()), Options(), CPU, channels_last)
        found = list(feed(0, wanted))
        for part, batch in zip(wanted, found, strict=True):
            inputs, targets = bars.train.take(part.indices)
            assert torch.equal(batch.inputs, normalisation(inputs))
            assert torch.equal(batch.targets, targets)


def test_augmentation_depends_on_the_example_and_not_on_the_cut(bars: Any) -> None:
    steps = recipe("shift 2, flip, cutout 2", "picture", "classes", (1, 8, 8), 3)
    feed = Feed(bars.train, Normalisation.of(bars.train), steps, Options(), CPU, False)
    whole = next(feed(3, [Part(torch.arange(12))])).inputs
    cut = [batch.inputs for batch in feed(3, [Part(torch.arange(4)), Part(torch.arange(4, 12))])]
    assert torch.equal(whole, torch.cat(cut))
    assert not torch.equal(whole, next(feed(4, [Part(torch.arange(12))])).inputs)


def test_an_example_that_is_shown_again_has_another_number() -> None:
    targets = torch.tensor([0] * 9 + [1])
    numbers = order(Options(sampling="balanced"), 0, 10, targets).tolist()
    assert numbers == [
        number % 10 + 10 * [n % 10 for n in numbers[:i]].count(number % 10) for i, number in enumerate(numbers)
    ]
    assert max(numbers) >= 20


@pytest.mark.parametrize("stream", [False, True])
def test_an_example_that_is_shown_again_is_altered_otherwise(bars_folder: Any, stream: bool) -> None:
    """And alike however batches are cut, from memory and from files, by any number of workers, from any step on."""
    data = load(bars_folder, stream=stream)
    targets = (torch.arange(len(data.train)) == 0).long()
    steps = recipe("crop 0.3..1", "picture", "classes", data.shape, 3)
    options = Options(sampling="balanced", workers=1 if stream else 0)
    numbers = order(options, 2, len(data.train), targets)
    again = numbers % len(data.train) == 0
    assert again.sum() > 50
    feed = Feed(data.train, Normalisation.of(data.train), steps, options, CPU, False)
    (whole,) = feed(2, [Part(numbers)])
    assert len(whole.inputs[again].flatten(1).unique(dim=0)) == again.sum()
    assert torch.equal(whole.targets, data.train.take(numbers % len(data.train))[1])
    plain = Feed(load(bars_folder).train, Normalisation.of(data.train), steps, Options(), CPU, False)
    cut = [batch.inputs for batch in plain(2, [Part(part) for part in numbers[30:].split(17)])]
    assert torch.equal(torch.cat(cut), whole.inputs[30:])
    (first,) = plain(2, [Part(torch.arange(1))])
    assert torch.equal(whole.inputs[numbers == 0], first.inputs)  # shown first, it is as it would be shown once


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(9)
    expected = torch.rand(4)
    torch.manual_seed(9)
    with feeding.randomness(1, 2):
        torch.rand(3)
    assert torch.equal(torch.rand(4), expected)
