"""Moments: exact for whole numbers, stable for others, the same from memory and from files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from striate import moments
from striate.errors import DataError, OptionError
from striate.members import entry
from striate.moments import Normalisation, sample
from striate.readers import Reader
from striate.splits import Split, Stored, label_tensor

from .test_volumes import npy


def message(work: Callable[[], object], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        work()
    return str(caught.value)


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_normalisation_of_two_channels_by_hand() -> None:
    """Channel 0 is half black, half white: mean 1/2, deviation 1/2. Channel 1 is 0, 0, 0, 51 = 0.2: mean 1/20."""
    first, second = torch.tensor([0, 255, 0, 255]), torch.tensor([0, 0, 0, 51])
    pixels = torch.stack([first, second]).to(torch.uint8).view(1, 2, 2, 2)
    found = Normalisation.of(pixels)
    assert found.mean == pytest.approx((0.5, 0.05), rel=1e-15)
    assert found.std == pytest.approx((0.5, math.sqrt(3) / 20), rel=1e-15)
    same(found(pixels)[0, 0].flatten(), torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    torch.testing.assert_close(found(pixels)[0, 1, 1, 1], torch.tensor((0.2 - 0.05) / (math.sqrt(3) / 20)))
    assert found(pixels).dtype == torch.float32


def test_normalisation_agrees_with_its_definition_in_float64() -> None:
    pixels = torch.randint(0, 256, (1500, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    numbers = pixels.double() / 255
    found = Normalisation.of(pixels)
    assert found.mean == pytest.approx(numbers.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert found.std == pytest.approx(numbers.std((0, 2, 3), correction=0).tolist(), rel=1e-12)


def test_a_constant_channel_becomes_zero() -> None:
    found = Normalisation.of(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8))
    assert found == Normalisation(mean=(0.2,), std=(1.0,))
    same(found(torch.full((1, 1, 3, 3), 51, dtype=torch.uint8)), torch.zeros(1, 1, 3, 3))


@pytest.mark.parametrize(
    ("mean", "std"), [((), ()), ((0.5,), (0.5, 0.5)), ((0.5,), (0.0,)), ((math.nan,), (1.0,)), ((0.5,), (math.inf,))]
)
def test_message_for_a_normalisation_that_divides_by_nothing(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    assert message(lambda: Normalisation(mean, std), OptionError) == (
        "A normalisation has one finite mean and one finite std above 0 for each channel, "
        f"got mean={mean!r} and std={std!r}."
    )


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "torch.uint8 (2, 1, 4, 4)"),
        (torch.zeros(3, 4, 4), "torch.float32 (3, 4, 4)"),
        (torch.zeros(2, 3, dtype=torch.uint8), "torch.uint8 (2, 3)"),
        (torch.zeros(2, 3, 4, dtype=torch.int32), "torch.int32 (2, 3, 4)"),
    ],
)
def test_message_for_inputs_that_cannot_be_normalised(inputs: Tensor, found: str) -> None:
    assert message(lambda: Normalisation((0.5,) * 3, (0.5,) * 3)(inputs)) == (
        f"This normalisation takes uint8, int16 or float32 inputs of 3 channels, (N, C, *spatial); got {found}."
    )


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
@pytest.mark.parametrize("spatial", [(700,), (5, 7, 3)])
def test_other_types_and_axes_agree_with_float64(dtype: torch.dtype, spatial: tuple[int, ...]) -> None:
    values = torch.randint(-(2**15), 2**15, (600, 2, *spatial), generator=torch.Generator().manual_seed(1))
    inputs = values.to(dtype) if dtype == torch.int16 else (values / 7 + 1e6).float()
    numbers = inputs.double() / (32768 if dtype == torch.int16 else 1)
    axes = (0, *range(2, inputs.dim()))
    found = Normalisation.of(Split(inputs, torch.zeros(600, dtype=torch.int64)))
    assert found.mean == pytest.approx(numbers.mean(axes).tolist(), rel=1e-9, abs=1e-9)
    assert found.std == pytest.approx(numbers.std(axes, correction=0).tolist(), rel=1e-9)
    standard = found(inputs)
    expected = (numbers - numbers.mean(axes, keepdim=True)) / numbers.std(axes, correction=0, keepdim=True)
    torch.testing.assert_close(standard.double(), expected, rtol=0, atol=1e-4)
    assert standard.dtype == torch.float32


def test_a_constant_of_floating_point_numbers_becomes_zero() -> None:
    inputs = torch.full((1000, 1, 33), 0.1)
    found = Normalisation.of(inputs)
    assert found.std == (1.0,)
    assert float(found(inputs).abs().max()) < 1e-7
    assert float(inputs[0, 0, 0]) == pytest.approx(0.1)


def stored(folder: Path, count: int) -> tuple[Stored, Tensor]:
    values = np.random.default_rng(0).integers(0, 256, (count, 1, 2, 2, 3), dtype=np.uint8)
    for number, value in enumerate(values):
        (folder / f"{number:03}.npy").write_bytes(npy(value))
    files = tuple(entry(folder / f"{number:03}.npy") for number in range(count))
    reader = Reader("volume", (1, 2, 2, 3), dtype="uint8")
    return Stored(files, label_tensor([0] * count), reader), torch.from_numpy(values)


def test_files_give_what_memory_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split, values = stored(tmp_path, 50)
    monkeypatch.setattr(moments, "CHUNK", 12 * 8)
    seen: list[tuple[int, int, str]] = []
    assert Normalisation.of(split, lambda *state: seen.append(state)) == Normalisation.of(values)
    assert seen == [(min(8 * i, 50), 50, "measuring the inputs") for i in range(1, 8)]


def test_a_sample_stands_for_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split, values = stored(tmp_path, 50)
    monkeypatch.setattr(moments, "sample", lambda count: sample(count, most=20))
    chosen = sample(50, most=20)
    assert len(set(chosen)) == 20
    assert chosen == sorted(chosen)
    assert chosen != list(range(20))
    assert Normalisation.of(split) == Normalisation.of(values[chosen])


def test_message_for_nothing_to_measure() -> None:
    assert message(lambda: Normalisation.of(torch.zeros(0, 1, 4))) == (
        "Inputs are a uint8, int16 or float32 tensor (N, C, *spatial) with nothing zero-sized, "
        "got torch.float32 (0, 1, 4)."
    )
