"""Striate: convolutional networks on PyTorch, every sliding window in one family.

The names below load what they need when first used, so that ``import striate`` itself is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import augmentation as augmentation
    from . import blocks as blocks
    from . import datasets as datasets
    from . import engines as engines
    from . import errors as errors
    from . import nn as nn
    from . import zoo as zoo
    from .acceleration import accelerate as accelerate
    from .acceleration import restore as restore
    from .adaptive import adaptive_avg_pool as adaptive_avg_pool
    from .adaptive import adaptive_max_pool as adaptive_max_pool
    from .adaptive import max_unpool as max_unpool
    from .adaptive import maxout as maxout
    from .analysis import Description as Description
    from .architecture import Architecture as Architecture
    from .batches import ragged as ragged
    from .comparison import Comparison as Comparison
    from .comparison import compare as compare
    from .comparison import sweep as sweep
    from .computing import algorithms as algorithms
    from .convolution import conv as conv
    from .convolution import conv_local as conv_local
    from .convolution import conv_tiled as conv_tiled
    from .convolution import conv_transpose as conv_transpose
    from .datasets import Dataset as Dataset
    from .exporting import export as export
    from .findings import Finding as Finding
    from .geometry import Axis as Axis
    from .geometry import Geometry as Geometry
    from .inspection import check as check
    from .inspection import describe as describe
    from .lessons import trace as trace
    from .matrices import matrix as matrix
    from .metrics import Evaluation as Evaluation
    from .networks import network as network
    from .normalization import local_response_norm as local_response_norm
    from .planning import Plan as Plan
    from .planning import plan as plan
    from .policy import tuning as tuning
    from .pooling import avg_pool as avg_pool
    from .pooling import gaussian_pool as gaussian_pool
    from .pooling import lp_pool as lp_pool
    from .pooling import max_pool as max_pool
    from .prediction import evaluate as evaluate
    from .prediction import predict as predict
    from .prediction import predictions as predictions
    from .runs import Run as Run
    from .runs import train as train
    from .sweeps import search as search
    from .unfolding import fold as fold
    from .unfolding import unfold as unfold

__version__ = "0.1.0"

_HOMES = {
    "Dataset": "datasets",
    "Evaluation": "metrics",
    "Run": "runs",
    "evaluate": "prediction",
    "predict": "prediction",
    "train": "runs",
    "predictions": "prediction",
    "export": "exporting",
    "trace": "lessons",
    "search": "sweeps",
    "Architecture": "architecture",
    "Description": "analysis",
    "Comparison": "comparison",
    "compare": "comparison",
    "sweep": "comparison",
    "Finding": "findings",
    "check": "inspection",
    "describe": "inspection",
    "network": "networks",
    "Axis": "geometry",
    "Geometry": "geometry",
    "Plan": "planning",
    "algorithms": "computing",
    "avg_pool": "pooling",
    "conv": "convolution",
    "conv_transpose": "convolution",
    "conv_tiled": "convolution",
    "conv_local": "convolution",
    "matrix": "matrices",
    "max_pool": "pooling",
    "fold": "unfolding",
    "unfold": "unfolding",
    "local_response_norm": "normalization",
    "maxout": "adaptive",
    "max_unpool": "adaptive",
    "accelerate": "acceleration",
    "restore": "acceleration",
    "adaptive_avg_pool": "adaptive",
    "adaptive_max_pool": "adaptive",
    "gaussian_pool": "pooling",
    "lp_pool": "pooling",
    "plan": "planning",
    "tuning": "policy",
    "ragged": "batches",
}
_MODULES = ("augmentation", "blocks", "datasets", "engines", "errors", "nn", "zoo")

__all__ = ["__version__", *sorted(_HOMES), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module 'striate' has no attribute {name!r}; it offers {', '.join(__all__[1:])}.")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
