"""What the machine can do at most, measured in the same run, and a quiet place on it to measure in."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

Clock = Callable[[], float]
CACHES = {"L1": 32 * 1024, "L2": 1024 * 1024, "L3": 32 * 1024 * 1024}
"""Bytes, where the system does not say."""
MEMORY = "DRAM"
_SIDE = 1024  # of the square matrices whose product is the peak
_LINE = 64  # bytes
_COPIED = 128 * 1024 * 1024  # bytes in one call


@dataclass(frozen=True)
class Level:
    """A level of the memory: how much it holds, and how fast a copy inside it is (bytes read and written a second)."""

    name: str
    size: int
    bandwidth: float


@dataclass(frozen=True)
class Ceilings:
    """What binds every kernel on this machine.

    Args:
        flops: Operations a second of a large matrix product.
        levels: From the nearest level of the memory to the farthest, which holds everything.
    """

    flops: float
    levels: tuple[Level, ...]

    def limit(self, multiply_adds: int, size: int) -> tuple[float, str]:
        """Seconds that no kernel can go below, and what binds: "arithmetic", or the level that holds the data.

            max(2 * multiply_adds / flops, size / bandwidth)

        Fewer multiply-adds than the definition's (Winograd, FFT, running sums) can go below it.

        Args:
            multiply_adds: Of the definition, those with real inputs.
            size: Bytes of all operands and the result, each of which moves once.

        >>> Ceilings(1e9, (Level("L1", 100, 1e9), Level("DRAM", 10**12, 1e8))).limit(10, 1000)
        (1e-05, 'DRAM')
        """
        level = next((level for level in self.levels if size <= level.size), self.levels[-1])
        arithmetic, traffic = 2 * multiply_adds / self.flops, size / level.bandwidth
        return (arithmetic, "arithmetic") if arithmetic >= traffic else (traffic, level.name)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {"flops": self.flops, "levels": [asdict(level) for level in self.levels]}


def ceilings(threads: int, dtype: torch.dtype, clock: Clock = time.perf_counter) -> Ceilings:
    """Measure the machine, in about two seconds."""
    sizes = cache_sizes()
    # Data that fill a cache to the brim are partly elsewhere: a copy of half its size stays inside.
    working = {"L1": sizes["L1"] // 2, "L2": sizes["L2"] // 2, "L3": sizes["L3"] // 2, MEMORY: 8 * sizes["L3"]}
    private = ("L1", "L2")
    levels = [
        Level(
            name,
            2**62 if name == MEMORY else sizes[name] * (threads if name in private else 1),
            copy_bandwidth(size if name in private else size // threads, threads, clock),
        )
        for name, size in working.items()
    ]
    return Ceilings(product_speed(dtype, clock), tuple(levels))


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
        "processor": processor(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": threads,
        "caches": cache_sizes(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "striate": version("striate"),
    }


def processor() -> str:
    """The name of the processor."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@contextmanager
def quiet(threads: int) -> Iterator[None]:
    """A block that computes with so many threads, on as many cores where the system allows, without collecting garbage.

    The last cores are taken: systems tend to serve devices on the first.
    """
    before = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    collects = gc.isenabled()
    torch.set_num_threads(threads)
    if cores:
        os.sched_setaffinity(0, sorted(cores)[-threads:])
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        if cores:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(before)
