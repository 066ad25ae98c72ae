"""What a planned call costs over PyTorch's own where the plan says vendor, in microseconds.

A layer of one tap on a tiny map takes a few microseconds to compute, so that what is left is the way there. Both sides
take turns; each number is the least of many rounds.

    python benchmarks/calls.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

import striate

ROUNDS, CALLS = 200, 50


def least(actions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Microseconds of one call of each."""
    best = dict.fromkeys(actions, float("inf"))
    for _ in range(ROUNDS):
        for name, action in actions.items():
            began = time.perf_counter()
            for _ in range(CALLS):
                action()
            best[name] = min(best[name], (time.perf_counter() - began) / CALLS * 1e6)
    return best


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    x, weight, bias = torch.randn(1, 8, 4, 4), torch.randn(8, 8, 1, 1), torch.randn(8)
    for words, with_bias in (("without bias", False), ("with bias", True)):
        theirs = torch.nn.Conv2d(8, 8, 1, bias=with_bias)
        ours = striate.nn.Conv2d(8, 8, 1, bias=with_bias)
        ours.load_state_dict(theirs.state_dict())
        added = bias if with_bias else None
        found = least(
            {
                "torch.nn.Conv2d": partial(theirs, x),
                "striate.nn.Conv2d": partial(ours, x),
                "F.conv2d": partial(F.conv2d, x, weight, added),
                "striate.conv": partial(striate.conv, x, weight, added),
            }
        )
        print(f"{words}: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in found.items()))
        for name, other in (("striate.nn.Conv2d", "torch.nn.Conv2d"), ("striate.conv", "F.conv2d")):
            print(f"  {name} over {other}: {found[name] - found[other]:+.1f} µs")


if __name__ == "__main__":
    main()
