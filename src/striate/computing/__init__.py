"""The ways to compute a window, one class each; importing this registers them."""

from . import reference, vendor  # isort: skip
from . import pools
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
    "find",
    "pools",
    "reference",
    "register",
    "vendor",
]
