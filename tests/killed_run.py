"""A run that saves after every step, to be killed at any moment: ``python killed_run.py DATA FOLDER``.

Each line on standard input begins a process that begins the run or goes on with it; its number is printed, then, when
it has ended, how. Everything is loaded once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

import striate
from striate import checkpoint as checkpoints
from striate import runs

TEXT = "INPUT -> CONV 3x3x4 -> BN -> RELU -> DROPOUT 0.2 -> POOL -> FC"
OPTIONS: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 12,
    "seed": 1,
    "augment": "shift 1, mixup 0.2",
    "ema": 0.9,
    "checkpoint_minutes": 1e-9,
    "precision": "float32",
    "report": False,
}


def go(data: str, folder: Path) -> runs.Run:
    """Begin the run, or go on with it."""
    torch.set_num_threads(1)
    if (folder / checkpoints.FILE).exists():
        return striate.train(resume=folder)
    return striate.train(TEXT, data, out=folder, **OPTIONS)


def serve(data: str, folder: Path) -> None:
    """A process for each line."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)  # loads what every process would load again
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            go(data, folder)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
