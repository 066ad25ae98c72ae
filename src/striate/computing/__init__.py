"""The ways to compute a window, one class each; importing this registers them."""

from . import reference, vendor
from .interface import ALGORITHMS, Algorithm, Problem, algorithms, find, register

__all__ = ["ALGORITHMS", "Algorithm", "Problem", "algorithms", "find", "reference", "register", "vendor"]
