"""The ways to compute a window, one class each; importing this registers them."""

from . import reference, vendor
from .interface import ALGORITHMS, Algorithm, Problem, algorithms, as_given, autocasts, find, register

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Problem",
    "algorithms",
    "as_given",
    "autocasts",
    "find",
    "reference",
    "register",
    "vendor",
]
