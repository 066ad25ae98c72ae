"""Runs in one or several processes, as torchrun starts them: ``python distributed_run.py FOLDER CASE...``."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

import striate
from striate import prediction
from striate.datasets import Dataset, Split

PLAIN = "INPUT 1x8x8 -> CONV 3x3x4 -> RELU -> POOL -> FC 3"
NORMALISED = "INPUT 1x8x8 -> CONV 3x3x4 -> BN -> RELU -> POOL -> FC 8 -> BN -> FC 3"
WIDE = "INPUT 1x8x8 -> CONV 3-16 as stem.one -> BN -> RELU -> CONV 3-16 as stem.two -> RELU -> POOL -> FC 3"
ACCUMULATED = {"accumulate": 3, "batch_size": 31, "optimizer": "sgd"}
MIXED = {
    "augment": "shift 1, flip, mixup 0.2", "ema": 0.9, "clip": 1.0, "accumulate": 2, "class_weights": "balanced",
    "optimizer": "adamw", "learning_rate": 0.01,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": (PLAIN, {}),
    "normalised": (NORMALISED, {}),
    "accumulated": (NORMALISED, ACCUMULATED),
    "mixed": (PLAIN, MIXED),
    "wide": (WIDE, {"clip": 1.0}),
    "sharded-wide": (WIDE, {"clip": 1.0, "parallel": "fsdp"}),
    "sharded": (NORMALISED, {"parallel": "fsdp"}),
    "sharded-mixed": (PLAIN, {"parallel": "fsdp", **MIXED}),
}


prediction.CHUNK = 25  # the 60 test pictures are three batches: two for one process, and one for the other


def data() -> Dataset:
    """205 pictures, so that the last batch is small and odd, in three classes of unequal size."""
    labels = torch.arange(205) % 7 % 3
    pictures = torch.randint(0, 60, (205, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    pictures[labels == 0, :, 3] = 250
    pictures[labels == 1, :, :, 3] = 250
    return Dataset("bars", ("a", "b", "c"), Split(pictures, labels), Split(pictures[:60], labels[:60]))


def trained(case: str, folder: str) -> list[dict[str, float]]:
    """Train a case into a folder of its name; the figures of its epochs."""
    text, options = CASES[case]
    given = {"epochs": 2, "batch_size": 32, "seed": 3, "optimizer": "momentum", "report": False, **options}
    run = striate.train(text, data(), out=f"{folder}/{case}", **given)
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in run.history]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        print(json.dumps(trained(name, sys.argv[1])))
