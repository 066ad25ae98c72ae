"""Mean and standard deviation of each channel, exact for whole numbers, and the normalisation by them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from .errors import DataError, OptionError
from .splits import Progress, Split, Stored, check_inputs

SCALES = {torch.uint8: 255, torch.int16: 32768, torch.float32: 1}
SAMPLE = 20_000
"""Of more stored inputs than this, those with the smallest hash of their number are looked at."""
CHUNK = 2**25
"""Values that are looked at together."""
CONSTANT = 1e-12
"""A standard deviation of floating-point numbers below this share of their mean is rounding."""


@dataclass(frozen=True)
class Normalisation:
    """Brings the values of each channel to mean 0 and standard deviation 1: ``(x / scale - mean) / std``.

    The scale is 255 for uint8, 32,768 for int16, and 1 for float32.

    Args:
        mean: One for each channel, on that scale.
        std: Likewise; finite and above 0.

    Raises:
        OptionError: The two have different lengths, or hold a number that cannot be used.

    >>> n = Normalisation.of(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    >>> n, n(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).item()
    (Normalisation(mean=(0.5,), std=(0.5,)), 1.0)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        usable = all(map(math.isfinite, self.mean + self.std)) and all(s > 0 for s in self.std)
        if not self.mean or len(self.mean) != len(self.std) or not usable:
            raise OptionError(
                "A normalisation has one finite mean and one finite std above 0 for each channel, "
                f"got mean={self.mean!r} and std={self.std!r}."
            )

    @classmethod
    def of(cls, inputs: Tensor | Split | Stored, progress: Progress | None = None) -> Normalisation:
        """That of a set of inputs ``(N, C, *spatial)``.

            mean = S1 / n / scale        std = sqrt(n * S2 - S1**2) / n / scale

        with S1 and S2 the sums of the values and of their squares: exact for uint8 and int16. For float32 both are
        sums in float64 of differences from the mean of each part, joined as Chan, Golub and LeVeque do (1979).
        Of stored inputs, all are decoded up to :data:`SAMPLE`; of more, that many, chosen by a hash of their number.
        A channel with one value everywhere has standard deviation 0 and gets 1.0, so that it becomes 0 everywhere
        instead of dividing by zero.

        Args:
            inputs: A split, or the inputs of one.
            progress: Called with ``(done, total, what)`` while stored inputs are decoded.

        Raises:
            DataError: There are no inputs, or the tensor has another type or shape; or a file cannot be read.
        """
        if isinstance(inputs, Stored):
            chunks = _decoded(inputs, progress)
        else:
            values = inputs if isinstance(inputs, Tensor) else inputs.inputs
            check_inputs(values)
            chunks = iter(values.split(at_once(tuple(values.shape[1:]))))
        first = next(chunks)
        sums: WholeSums | FloatSums = (FloatSums if first.dtype == torch.float32 else WholeSums)(first.shape[1])
        sums.add(first)
        for chunk in chunks:
            sums.add(chunk)
        found = sums.moments(SCALES[first.dtype])
        return cls(tuple(mean for mean, _ in found), tuple(std for _, std in found))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Uint8, int16 or float32 ``(N, C, *spatial)`` to float32 of the same shape, on the same device.

        Raises:
            DataError: The inputs have another type, or another number of channels.
        """
        if inputs.dtype not in SCALES or inputs.dim() < 3 or inputs.shape[1] != len(self.mean):
            raise DataError(
                f"This normalisation takes uint8, int16 or float32 inputs of {len(self.mean)} channels, "
                f"(N, C, *spatial); got {inputs.dtype} {tuple(inputs.shape)}."
            )
        shape = (-1, *(1 for _ in inputs.shape[2:]))
        mean, std = (inputs.new_tensor(v, dtype=torch.float32).view(shape) for v in (self.mean, self.std))
        numbers = inputs.clone() if inputs.dtype == torch.float32 else inputs.float().div_(SCALES[inputs.dtype])
        return numbers.sub_(mean).div_(std)


class WholeSums:
    """Counts and sums of whole numbers, in Python's integers, which have any length."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.first, self.second = [0] * channels, [0] * channels

    def add(self, inputs: Tensor) -> None:
        """Count the values of a part in."""
        for channel in range(len(self.first)):
            values = inputs[:, channel]
            if values.dtype == torch.uint8:
                counts = torch.bincount(values.flatten(), minlength=256)
                each = torch.arange(256, device=counts.device)
                sums = [(counts * each).sum(), (counts * each * each).sum()]
            else:
                wide = values.flatten().long()
                sums = [wide.sum(), (wide * wide).sum()]
            self.first[channel] += int(sums[0])
            self.second[channel] += int(sums[1])
        self.count += inputs[:, 0].numel()

    def moments(self, scale: int) -> list[tuple[float, float]]:
        """Mean and standard deviation of each channel, whole up to the last step."""
        return [self._of(*sums, scale) for sums in zip(self.first, self.second, strict=True)]

    def _of(self, first: int, second: int, scale: int) -> tuple[float, float]:
        spread = self.count * second - first * first
        return first / self.count / scale, math.sqrt(spread) / self.count / scale if spread else 1.0


class FloatSums:
    """Count, mean and sum of squared differences, of floating-point numbers."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self.spread = torch.zeros(channels, dtype=torch.float64)

    def add(self, inputs: Tensor) -> None:
        """Join a part: its own mean first, then its differences from that."""
        values = inputs.double().transpose(0, 1).flatten(1)
        mean = values.mean(1)
        self.join(values.shape[1], mean.cpu(), (values - mean[:, None]).square().sum(1).cpu())

    def join(self, count: int, mean: Tensor, spread: Tensor) -> None:
        """Join a part of which these are known."""
        apart = mean - self.mean
        total = self.count + count
        self.spread += spread + apart.square() * (self.count * count / total)
        self.mean += apart * (count / total)
        self.count = total

    def moments(self, scale: int) -> list[tuple[float, float]]:
        """Mean and standard deviation of each channel."""
        stds = (self.spread / self.count).sqrt().tolist()
        pairs = zip(self.mean.tolist(), stds, strict=True)
        return [(mean / scale, std / scale if std > CONSTANT * abs(mean) else 1.0) for mean, std in pairs]


def sample(count: int, most: int = SAMPLE) -> list[int]:
    """Numbers below ``count``, in order: all of them, or the ``most`` with the smallest hash.

    >>> sample(3), len(sample(100, most=10))
    ([0, 1, 2], 10)
    """
    if count <= most:
        return list(range(count))
    return sorted(sorted(range(count), key=lambda index: blake2b(str(index).encode(), digest_size=8).digest())[:most])


def at_once(shape: Sequence[int]) -> int:
    """How many inputs ``(C, *spatial)`` are measured together.

    >>> at_once((3, 32, 32)), at_once((1, 512, 512, 512))
    (256, 1)
    """
    return max(1, min(256, CHUNK // math.prod(shape)))


def _decoded(stored: Stored, progress: Progress | None) -> Iterator[Tensor]:
    chosen, step = sample(len(stored)), at_once(stored.shape)
    for start in range(0, len(chosen), step):
        part = chosen[start : start + step]
        inputs, _ = stored.take(part)
        if progress is not None:
            progress(start + len(part), len(chosen), "measuring the inputs")
        yield inputs
