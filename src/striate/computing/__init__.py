"""The ways to compute a window, one class each; importing this registers them."""

from . import reference, vendor  # isort: skip
from . import (
    fft,
    im2col,
    native,
    native_channels,
    native_pools,
    native_positions,
    native_winograd,
    pools,
    relaid,
    separable,
    toeplitz,
    triton_windows,
    winograd,
)
from .interface import ALGORITHMS, DIRECTIONS, Algorithm, Base, Problem, algorithms, as_given, autocasts, find, register

__all__ = [
    "ALGORITHMS",
    "DIRECTIONS",
    "Algorithm",
    "Base",
    "Problem",
    "algorithms",
    "as_given",
    "autocasts",
    "fft",
    "find",
    "im2col",
    "native",
    "native_channels",
    "native_pools",
    "native_positions",
    "native_winograd",
    "pools",
    "reference",
    "register",
    "relaid",
    "separable",
    "toeplitz",
    "triton_windows",
    "vendor",
    "winograd",
]
