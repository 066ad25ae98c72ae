"""Runs in one or several processes, as torchrun starts them: ``python distributed_run.py FOLDER CASE...``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import Any

import torch

import striate
from striate import prediction
from striate.datasets import Dataset, Normalisation, Split
from striate.errors import DataError
from striate.prediction import Classifier
from striate.processes import joined

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


def data() -> Dataset:
    """205 pictures, so that the last batch is small and odd, in three classes of unequal size."""
    labels = torch.arange(205) % 7 % 3
    pictures = torch.randint(0, 60, (205, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    pictures[labels == 0, :, 3] = 250
    pictures[labels == 1, :, :, 3] = 250
    return Dataset("bars", ("a", "b", "c"), Split(pictures, labels), Split(pictures[:50], labels[:50]))


def trained(case: str, folder: str) -> list[dict[str, float]]:
    """Train a case into a folder of its name; the figures of its epochs."""
    text, options = CASES[case]
    given = {"epochs": 2, "batch_size": 32, "seed": 3, "optimizer": "momentum", "report": False, **options}
    run = striate.train(text, data(), out=f"{folder}/{case}", **given)
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in run.history]


def judged(task: str, bad: int | None = None) -> Any:
    """What the processes find together about eleven random examples of classes or masks, of which one may be bad."""
    torch.manual_seed(0)
    end = "CONV1-2" if task == "masks" else "GLOBALAVGPOOL -> FC 2"
    net = striate.network(f"INPUT 1x4x4 -> CONV3-4 -> RELU -> {end}")
    targets = torch.randint(2, (11, 4, 4), dtype=torch.uint8) if task == "masks" else torch.arange(11) % 2
    inputs = torch.rand(11, 1, 4, 4)
    if bad is not None:
        inputs[bad] = torch.nan
    classifier = Classifier(net, ("a", "b"), Normalisation((0.0,), (1.0,)), task=task, dtype=torch.float32)
    with joined() as group:
        return classifier.evaluate(Split(inputs, targets), group=group)


def skewed(folder: str) -> None:
    """Train on pictures of which one process misses one."""
    whole = data()
    missing = 50 - int(os.environ["RANK"])
    fewer = replace(whole, test=Split(whole.test.inputs[:missing], whole.test.targets[:missing]))
    striate.train(PLAIN, fewer, out=f"{folder}/skewed", epochs=1)


def told(found: Any) -> str:
    """All that an evaluation knows, the order of its examples too."""
    known = {name: getattr(found, name, torch.zeros(0)) for name in ("confusion", "labels", "probabilities")}
    return json.dumps({"loss": [found.loss], **{name: value.flatten().tolist() for name, value in known.items()}})


if __name__ == "__main__":
    torch.set_num_threads(1)
    prediction.CHUNK = 25  # of 50 test pictures one process has two batches, the other one
    for name in sys.argv[2:]:
        if name in CASES:
            print(json.dumps(trained(name, sys.argv[1])))
        elif name in ("bad", "skewed"):
            try:
                judged("masks", bad=10) if name == "bad" else skewed(sys.argv[1])
            except DataError as error:
                print(error)
        else:
            print(told(judged(name)))
