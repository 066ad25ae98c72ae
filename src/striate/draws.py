"""Random numbers that are a pure function of (seed, epoch, example, what is drawn)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor

from .errors import OptionError

# G. L. Steele, D. Lea, C. H. Flood, "Fast Splittable Pseudorandom Number Generators", 2014: SplitMix64.
STEP = 0x9E3779B97F4A7C15
ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST = 31
BELOW = 2**31


@dataclass(frozen=True, eq=False)
class Chance:
    """The random numbers of some examples in one epoch; what else is in the batch, and in which order, changes nothing.

        bits = mix(key(seed, epoch, stream) + (example * count + number) * 0x9E3779B97F4A7C15)

    with ``mix`` the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), whose n-th number can be had without those
    before it, and ``key`` a BLAKE2b hash. Bits, and what :meth:`uniform` and :meth:`integers` make of them, are the
    same on every device.

    Args:
        seed: Of the run.
        epoch: Counted from 0.
        indices: int64 ``(B,)``: the number of each example of the batch in its set.
        scope: Goes before the name of every stream.

    Raises:
        OptionError: The indices have another type or shape.

    >>> both, one = (Chance(0, 3, torch.tensor(examples)).uniform("shift") for examples in ([7, 8], [8]))
    >>> bool(both[1] == one[0])
    True
    """

    seed: int
    epoch: int
    indices: Tensor
    scope: str = ""

    def __post_init__(self) -> None:
        if self.indices.dtype != torch.int64 or self.indices.dim() != 1:
            raise OptionError(
                "Random numbers are drawn for the indices of examples, an int64 tensor (B,); "
                f"got {self.indices.dtype} {tuple(self.indices.shape)}."
            )

    def __len__(self) -> int:
        return len(self.indices)

    def within(self, scope: str) -> Chance:
        """The same examples, with streams of their own."""
        return replace(self, scope=f"{self.scope}{scope}/")

    def part(self, which: slice) -> Chance:
        """Some of the examples."""
        return replace(self, indices=self.indices[which])

    def bits(self, stream: str, count: int | None = None) -> Tensor:
        """64 random bits for each example, int64 ``(B,)``, or ``(count, B)``."""
        numbers = self.indices
        if count is not None:
            numbers = numbers * count + torch.arange(count, device=numbers.device).unsqueeze(1)
        return mix(numbers * signed(STEP) + key(self.seed, self.epoch, self.scope + stream))

    def uniform(self, stream: str, count: int | None = None) -> Tensor:
        """Float32 from 0 to below 1, multiples of 2**-24: ``(B,)``, or ``(count, B)``."""
        return shifted(self.bits(stream, count), 40).float() * 2.0**-24

    def between(self, stream: str, low: float, high: float, count: int | None = None) -> Tensor:
        """Float32, uniform between two limits: ``(B,)``, or ``(count, B)``."""
        return self.uniform(stream, count) * (high - low) + low

    def integers(self, stream: str, below: int, count: int | None = None) -> Tensor:
        """Whole numbers from 0 to ``below - 1``, int64: ``(B,)``, or ``(count, B)``.

            floor(bits * below / 2**32)        of 32 bits: no number is likelier than another by more than below / 2**32

        D. Lemire, "Fast Random Integer Generation in an Interval", 2019.

        Raises:
            OptionError: ``below`` is not from 1 to 2**31.
        """
        if not 1 <= below <= BELOW:
            raise OptionError(f"Whole numbers are drawn from 0 to below a limit of 1 to {BELOW:,}, got {below:,}.")
        return shifted(self.bits(stream, count), 32).mul_(below) >> 32

    def coin(self, stream: str, probability: float = 0.5) -> Tensor:
        """True with this probability: bool ``(B,)``."""
        return self.uniform(stream) < probability

    def beta(self, stream: str, alpha: float) -> Tensor:
        """Beta(alpha, alpha), float32 ``(B,)``, from two uniform numbers each.

            1/2 + 1/2 * T / sqrt(2 * alpha + T**2)        T = sqrt(2 * alpha * (U**(-1/alpha) - 1)) * cos(2 * pi * V)

        T has Student's distribution with 2 * alpha degrees of freedom (R. W. Bailey, "Polar Generation of Random
        Variates with the t-Distribution", 1994), which makes the rest symmetric beta (L. Devroye, "Random Variate
        Generation in One Line of Code", 1996). Other devices may differ in the last bit.

        Raises:
            OptionError: ``alpha`` is not above 0.
        """
        if not (alpha > 0 and math.isfinite(alpha)):
            raise OptionError(f"Beta(alpha, alpha) needs a finite alpha above 0, got {alpha:g}.")
        radius, angle = shifted(self.bits(stream, 2), 11).double() * 2.0**-53
        cosine = torch.cos(2 * math.pi * angle)
        spread = torch.expm1(-torch.log1p(-radius) / alpha) * cosine.square()
        ratio = 1 / spread.clamp_min(1e-300)
        smaller = 0.5 * ratio / (1 + ratio + torch.sqrt(1 + ratio))  # 1/2 - 1/2 / sqrt(1 + ratio), exact near 0 too
        return torch.where(cosine < 0, smaller, 1 - smaller).float()


@lru_cache(maxsize=1024)
def key(seed: int, epoch: int, stream: str) -> int:
    """Where a stream begins: 64 bits of BLAKE2b, as a signed number.

    >>> key(0, 0, "shift") == key(0, 0, "flip")
    False
    """
    return int.from_bytes(blake2b(f"{seed} {epoch} {stream}".encode(), digest_size=8).digest(), "little", signed=True)


def mix(bits: Tensor) -> Tensor:
    """The finaliser of SplitMix64: every bit of the result depends on every bit of an int64.

    >>> mix(torch.tensor([0, 1])).tolist()
    [0, 6238072747940578789]
    """
    for shift, factor in ROUNDS:
        bits = (bits ^ shifted(bits, shift)) * signed(factor)
    return bits ^ shifted(bits, LAST)


def shifted(bits: Tensor, by: int) -> Tensor:
    """Logical shift to the right of int64 bits: zeros come in, where PyTorch's own shift repeats the sign.

    >>> shifted(torch.tensor([-1]), 60).item()
    15
    """
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def signed(word: int) -> int:
    """The signed number with these 64 bits.

    >>> signed(2**64 - 1)
    -1
    """
    return word - 2**64 if word >= 2**63 else word
