"""One list of windows; every law draws from it, so that a new algorithm or case needs no new test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Case:
    """A convolution call: shapes and the options that a user writes."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    channels: tuple[int, int] = (3, 4)
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def groups(self) -> int:
        return dict(self.options).get("groups", 1)


def case(size: tuple[int, ...], kernel: tuple[int, ...], channels: tuple[int, int] = (3, 4), **options: Any) -> Any:
    words = [f"{name}={value}".replace(" ", "") for name, value in options.items()]
    shapes = "x".join(map(str, size)) + "-k" + "x".join(map(str, kernel)) + f"-c{channels[0]}to{channels[1]}"
    return pytest.param(Case(size, kernel, channels, tuple(options.items())), id="-".join([shapes, *words]))


CONVOLUTIONS = [
    case((7,), (3,)),
    case((8,), (3,), stride=2),
    case((9,), (3,), stride=3, padding=1),
    case((9,), (4,), padding="same"),
    case((9,), (4,), padding="same_lower"),
    case((10,), (3,), padding="same", stride=3, dilation=2),
    case((5,), (3,), padding="full"),
    case((8,), (3,), padding="causal", dilation=2),
    case((6,), (1,)),
    case((6,), (1,), stride=2),
    case((5,), (5,)),
    case((4,), (2,), padding=5),
    case((7,), (3,), padding=((0, 4),), stride=2),
    case((7,), (3,), (4, 6), groups=2, dilation=2, padding=3),
    case((7,), (3,), (4, 4), groups=4, stride=2),
    case((7,), (3,), (4, 8), groups=4, padding=1),
    case((6, 5), (3, 2)),
    case((7, 8), (3, 3), padding=1, stride=2),
    case((7, 9), (3, 4), padding=((2, 0), (1, 3)), stride=(3, 2), dilation=(2, 1)),
    case((6, 6), (2, 3), padding="same", flip=True),
    case((6, 6), (3, 3), (4, 2), groups=2, flip=True, stride=2, padding=1),
    case((5, 6), (3, 3), padding=2, padding_mode="reflect"),
    case((5, 6), (3, 3), padding=((1, 3), (4, 0)), padding_mode="replicate", stride=2),
    case((5, 6), (3, 3), padding="same", padding_mode="circular", dilation=2),
    case((3, 4), (2, 2), padding=7, padding_mode="circular"),
    case((4, 5, 6), (2, 3, 1), stride=(1, 2, 2), padding=1),
    case((3, 4, 3), (2, 2, 2), (4, 4), groups=2, dilation=(1, 2, 1), padding="full"),
    case((3, 3, 4, 3), (2, 1, 2, 2), stride=(1, 1, 2, 1), padding=1),
    case((3, 2, 3, 2, 3), (2, 2, 1, 1, 2)),
]

TRANSPOSED = [
    case((4,), (3,)),
    case((4,), (3,), stride=2, padding=1, output_padding=1),
    case((4,), (2,), stride=3),
    case((4,), (2,), stride=3, output_padding=2),
    case((5,), (3,), padding=((0, 2),)),
    case((5,), (3,), padding=((2, 1),), stride=2),
    case((4,), (3,), padding="same", stride=2),
    case((4,), (2,), padding="same", stride=3),
    case((5,), (3,), padding="full", stride=2),
    case((4,), (3,), dilation=3, output_padding=2, padding=1),
    case((3, 4), (3, 2), (4, 6), groups=2, stride=(2, 1), padding=((1, 0), (0, 1))),
    case((3, 4), (3, 3), (4, 4), groups=4, stride=2, padding=1, dilation=2),
    case((2, 3, 2), (2, 3, 2), stride=(2, 1, 3), padding=(0, 1, 0)),
    case((2, 2, 3, 2), (2, 1, 2, 2), stride=2),
]

POOLINGS = [
    case((7,), (2,)),
    case((7,), (3,), stride=2, padding=1),
    case((7,), (3,), stride=2, ceil=True),
    case((8,), (3,), stride=3, padding=1, ceil=True),
    case((6,), (3,), stride=1, dilation=2, padding=2),
    case((6,), (4,), stride=1, padding="same"),
    case((7,), (3,), stride=2, padding="same_lower"),
    case((6, 7), (2, 3), stride=(1, 2)),
    case((6, 7), (3, 3), stride=2, padding=((0, 2), (2, 1))),
    case((6, 7), (3, 2), stride=2, padding=1, ceil=True),
    case((5, 5), (2, 2), stride=1, padding="full", dilation=2),
    case((2, 2), (3, 3), stride=2, ceil=True),
    case((4, 5, 4), (2, 2, 3), stride=(2, 1, 2), padding=(0, 1, 1)),
    case((3, 3, 4, 3), (2, 1, 2, 2), stride=1, padding=((0, 1), 0, 1, 0)),
]
