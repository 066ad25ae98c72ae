"""What the machine can do at most, measured in the same run, and a quiet place on it to measure in."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..machine import EVERYTHING, MEMORY, Ceilings, Level, kind, name

Clock = Callable[[], float]
CACHES = {"L1": 32 * 1024, "L2": 1024 * 1024, "L3": 32 * 1024 * 1024}
"""Bytes, where the system does not say."""
ALLOCATOR = {"M_TRIM_THRESHOLD": (-1, 1024**3), "M_MMAP_THRESHOLD": (-3, 32 * 1024**2)}
"""The sizes from which freed memory goes back to the system: glibc's names, numbers, and the bytes set here.

Blocks of more than 32 MiB are fetched anew each time whatever is set.
"""
_SIDE = 1024  # of the square matrices whose product is the peak
_LINE = 64  # bytes
_COPIED = 128 * 1024 * 1024  # bytes in one call


def told(bounds: Ceilings, dtype: torch.dtype) -> dict[str, Any]:
    """Ceilings as plain values, for JSON."""
    return {"flops": bounds.operations[kind(dtype)], "levels": [asdict(level) for level in bounds.levels]}


def best(first: Ceilings, second: Ceilings) -> Ceilings:
    """The higher of each two, measured at different times."""
    levels = zip(first.levels, second.levels, strict=True)
    return Ceilings(
        {name: max(rate, second.operations[name]) for name, rate in first.operations.items()},
        tuple(replace(a, bandwidth=max(a.bandwidth, b.bandwidth)) for a, b in levels),
    )


def ceilings(threads: int, dtype: torch.dtype, clock: Clock = time.perf_counter) -> Ceilings:
    """Measure the machine, in about two seconds."""
    sizes = cache_sizes()
    # Data that fill a cache to the brim are partly elsewhere: a copy of half its size stays inside.
    working = {"L1": sizes["L1"] // 2, "L2": sizes["L2"] // 2, "L3": sizes["L3"] // 2, MEMORY: 8 * sizes["L3"]}
    private = ("L1", "L2")
    levels = [
        Level(
            level,
            EVERYTHING if level == MEMORY else sizes[level] * (threads if level in private else 1),
            copy_bandwidth(size if level in private else size // threads, threads, clock),
        )
        for level, size in working.items()
    ]
    return Ceilings({kind(dtype): product_speed(dtype, clock)}, tuple(levels))


def product_speed(dtype: torch.dtype, clock: Clock = time.perf_counter) -> float:
    """Operations a second of a product of two square matrices."""
    a, b = (torch.randn(_SIDE, _SIDE).to(dtype) for _ in range(2))
    return 2 * _SIDE**3 / quickest(lambda: torch.mm(a, b), 12, clock)


def copy_bandwidth(size: int, threads: int, clock: Clock = time.perf_counter) -> float:
    """Bytes read and written a second while every thread copies within ``size`` bytes of its own, again and again.

    One call of NumPy's repeats the copy, so that calls cost nothing beside it: rows that overlap but for one line of
    the cache.
    """
    length = size // 2
    repeats = max(1, _COPIED // length)

    def buffers() -> tuple[Any, Any]:
        source, target = (np.ones((length + repeats * _LINE) // 8) for _ in range(2))
        rows, view = (repeats, length // 8), np.lib.stride_tricks.as_strided
        return view(target, rows, (_LINE, 8)), view(source, rows, (_LINE, 8))

    pairs = [buffers() for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        seconds = quickest(lambda: list(pool.map(lambda pair: np.copyto(*pair), pairs)), 8, clock)
    return 2 * length * repeats * threads / seconds


def quickest(action: Callable[[], object], times: int, clock: Clock = time.perf_counter) -> float:
    """The least seconds of several calls."""
    found = []
    for _ in range(times):
        began = clock()
        action()
        found.append(clock() - began)
    return min(found)


def cache_sizes() -> dict[str, int]:
    """Bytes of the data caches, as Linux tells them, or usual ones."""
    found = dict(CACHES)
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction" and f"L{level}" in found and size.endswith("K"):
            found[f"L{level}"] = 1024 * int(size[:-1])
    return found


def describe(threads: int) -> dict[str, Any]:
    """Processor, cores, threads, versions: what a number means nothing without."""
    return {
        "processor": name(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": threads,
        "caches": cache_sizes(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "striate": version("striate"),
    }


def keep_freed() -> None:
    """Let blocks of up to 32 MiB stay with the process when they are freed, where the allocator is glibc's.

    This cannot be undone: setting a size ends glibc's own adaptation of it.
    """
    if platform.libc_ver()[0] == "glibc":
        allocator = ctypes.CDLL(None)
        for option, size in ALLOCATOR.values():
            allocator.mallopt(option, size)


@contextmanager
def quiet(threads: int) -> Iterator[None]:
    """A block that computes with so many threads, on as many cores where the system allows, without collecting garbage.

    The last cores are taken: systems tend to serve devices on the first. Freed blocks of up to 32 MiB stay with the
    process from now on: fetching their pages anew can take longer than a small layer, and would hit one contender or
    another depending on what stands behind its result in memory.
    """
    before = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    collects = gc.isenabled()
    torch.set_num_threads(threads)
    if cores:
        os.sched_setaffinity(0, sorted(cores)[-threads:])
    gc.disable()
    keep_freed()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        if cores:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(before)
