"""What this machine can do at best: its matrix products and its copies, measured once. Estimates are scaled by it."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from . import wisdom
from .errors import OptionError
from .policy import current

ROWS = {torch.float32: 768, torch.float64: 768, torch.bfloat16: 192, torch.float16: 192}  # of the matrices
COPIED = 2**25  # bytes: more than caches hold
SHARE = 0.12  # seconds for each of the figures
MEMORY, EVERYTHING = "DRAM", 2**62


@dataclass(frozen=True, slots=True)
class Level:
    """A level of the memory: how much it holds, and how fast a copy inside it is (bytes read and written a second)."""

    name: str
    size: int
    bandwidth: float


def memory(bandwidth: float) -> tuple[Level]:
    """The level that holds everything, alone."""
    return (Level(MEMORY, EVERYTHING, bandwidth),)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What binds every kernel on a machine with a number of threads.

    Args:
        operations: Floating-point operations a second of matrix products, by the name of the type.
        levels: From the nearest level of the memory to the farthest, which holds everything.
        measured: Whether they are this machine's own.
    """

    operations: dict[str, float]
    levels: tuple[Level, ...]
    measured: bool = True

    def limit(self, dtype: torch.dtype, multiply_adds: float, size: float) -> tuple[float, str]:
        """Seconds that no kernel can go below, and what binds: "arithmetic", or the level that holds the data.

            max(2 * multiply_adds / operations, size / bandwidth)

        Fewer multiply-adds than the definition's (Winograd, FFT, running sums) can go below it.

        Args:
            dtype: Of the numbers; a type that was not measured counts as float32.
            multiply_adds: Of the definition, those with real inputs.
            size: Bytes of all operands and the result, each of which moves once.

        >>> levels = (Level("L1", 100, 1e9), Level("DRAM", 10**12, 1e8))
        >>> Ceilings({"float32": 1e9}, levels).limit(torch.float32, 10, 1000)
        (1e-05, 'DRAM')
        """
        name = kind(dtype)
        level = next((level for level in self.levels if size <= level.size), self.levels[-1])
        arithmetic = 2 * multiply_adds / self.operations[name if name in self.operations else "float32"]
        traffic = size / level.bandwidth
        return (arithmetic, "arithmetic") if arithmetic >= traffic else (traffic, level.name)


def kind(dtype: torch.dtype) -> str:
    """The name of a type."""
    return str(dtype).removeprefix("torch.")


# A core of a server of 2023. Estimates compare algorithms with each other, so that ratios matter and seconds less.
SHIPPED = Ceilings(
    {"float32": 1.4e11, "float64": 7e10, "bfloat16": 1.4e11, "float16": 7e10}, memory(1.4e10), measured=False
)


@lru_cache(maxsize=1)
def name() -> str:
    """The processor in the words of its maker."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:  # another system than Linux
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def instructions() -> str:
    """The instructions that PyTorch's kernels, and those of Striate, choose by."""
    return torch.backends.cpu.get_cpu_capability()


@lru_cache(maxsize=1)
def halves() -> str:
    """Which arithmetic of 16-bit numbers the processor has: what is fast in those types depends on little else."""
    cpu = torch.cpu
    found = {
        "AVX-512 BF16": cpu._is_avx512_bf16_supported(),
        "AMX BF16": cpu._is_amx_tile_supported(),
        "AMX FP16": cpu._is_amx_fp16_supported(),
    }
    return ", ".join(name for name, has in found.items() if has) or "none"


def settings() -> str:
    """PyTorch's own: they change which of its kernels serve, how fast those are, and their bits."""
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    found = {
        "conv tf32": cudnn.conv.fp32_precision == "tf32",
        "matmul tf32": torch.backends.cuda.matmul.fp32_precision == "tf32",
        f"mkldnn {mkldnn.conv.fp32_precision}": mkldnn.conv.fp32_precision != "none",
        "no cudnn": not cudnn.enabled,
        "no mkldnn": not torch._C._get_mkldnn_enabled(),
        "benchmark": cudnn.benchmark,
        "deterministic cudnn": cudnn.deterministic,
        "deterministic mkldnn": torch._C._get_mkldnn_deterministic(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    return ", ".join(name for name, holds in found.items() if holds)


@lru_cache(maxsize=1)
def versions() -> str:
    """Those of Striate and PyTorch, whose kernels a measurement is of."""
    return f"striate {metadata.version('striate')}, torch {torch.__version__}"


def ceilings() -> Ceilings:
    """Of this machine, if they were measured with as many threads; else the shipped ones, which cost no time."""
    found = wisdom.recall(_key(), current())
    return _ceilings(found) if found is not None and {"bandwidth", *map(kind, ROWS)} <= set(found) else SHIPPED


def calibrate(clock: Callable[[], float] = perf_counter) -> Ceilings:
    """Measure them, in about a second, and keep them with what is known of this machine."""
    found = {kind(dtype): _rate(_product(dtype, n), 2.0 * n**3, clock) for dtype, n in ROWS.items()}
    source = torch.zeros(COPIED // 4, device="cpu")
    target = torch.empty_like(source)
    found["bandwidth"] = _rate(lambda: target.copy_(source), 2.0 * COPIED, clock)
    wisdom.opened().keep(_key(), found)
    return _ceilings(found)


def calibrated() -> Ceilings:
    """Of this machine: as they were measured, or else measured now."""
    known = ceilings()
    return known if known.measured else calibrate()


def _key() -> str:
    return f"ceilings: {name()}, {instructions()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _ceilings(found: dict[str, float]) -> Ceilings:
    operations = {name: rate for name, rate in found.items() if name != "bandwidth"}
    return Ceilings({"float32": SHIPPED.operations["float32"]} | operations, memory(found["bandwidth"]))


def _product(dtype: torch.dtype, rows: int) -> Callable[[], object]:
    matrix = torch.ones(rows, rows, dtype=dtype, device="cpu")
    return lambda: matrix @ matrix


def _rate(run: Callable[[], object], amount: float, clock: Callable[[], float]) -> float:
    """The amount over the shortest of several runs, the first of which warms up."""
    run()
    best, end = float("inf"), clock() + SHARE
    while True:
        start = clock()
        run()
        stop = clock()
        best = min(best, stop - start)
        if stop >= end:
            return amount / max(best, 1e-9)


def device(name: str) -> torch.device:
    """The device of this name; "auto" is a GPU if there is one.

    Raises:
        OptionError: It cannot be used here.
    """
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device={name!r} cannot be used here: {str(error).splitlines()[0]}") from None
