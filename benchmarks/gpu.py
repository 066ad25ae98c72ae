"""Everything that only a graphics processor can show, in one call: the laws on the device, then times beside cuDNN's.

    PYTHONPATH=src python benchmarks/gpu.py --json gpu.json --minutes 8
    TRITON_INTERPRET=1 PYTHONPATH=src python benchmarks/gpu.py --dry    # tiny shapes on the CPU: only that it runs

First every window of ``tests/cases.py`` is solved in all directions and compared with the reference in float64. Then
each case is timed in each direction and type: by Triton's kernels in both layouts, by the Fourier transform where the
kernel is large, and by cuDNN's best, ``torch.backends.cudnn.benchmark`` in both layouts, with TF32 off and on apart. No
cuDNN kernel serves local and tiled layers: they stand beside windows gathered and multiplied by PyTorch. When the
minutes are over, what is not done is left out; what was found is written after every line.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from striate.computing import DIRECTIONS, Problem, find
from striate.geometry import Geometry
from striate.policy import Policy
from striate.trilinear import ROLES
from tests.cases import CONVOLUTIONS

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LIMITS = {torch.float64: 0.0, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass(frozen=True)
class Layer:
    """A published layer, or one of its kind."""

    name: str
    batch: int
    channels: tuple[int, int]
    size: tuple[int, ...]
    kernel: int
    groups: int = 1
    stride: int = 1
    period: int = 1  # 0: a kernel of its own at each position


LAYERS = [
    Layer("depthwise 3x3, MobileNet", 64, (144, 144), (56, 56), 3, 144),
    Layer("depthwise 3x3 stride 2", 64, (144, 144), (56, 56), 3, 144, stride=2),
    Layer("depthwise 7x7, ConvNeXt", 64, (96, 96), (56, 56), 7, 96),
    Layer("depthwise 31x31, RepLKNet", 16, (128, 128), (56, 56), 31, 128),
    Layer("depthwise 31, 1-D speech", 32, (256, 256), (1000,), 31, 256),
    Layer("depthwise 3x3x3, video", 8, (64, 64), (16, 28, 28), 3, 64),
    Layer("grouped 3x3, ResNeXt 32x4d", 64, (128, 128), (56, 56), 3, 32),
    Layer("grouped 3x3, RegNet 16 wide", 64, (256, 256), (28, 28), 3, 16),
    Layer("local 3x3", 64, (32, 32), (28, 28), 3, period=0),
    Layer("tiled 3x3, period 2", 64, (64, 64), (28, 28), 3, period=2),
    Layer("large 15x15, dense", 16, (32, 32), (112, 112), 15),
]


def pose(layer: Layer, dtype: torch.dtype, direction: str, device: str, *, dry: bool) -> Problem:
    size, channels, kernel, groups, batch = layer.size, layer.channels, layer.kernel, layer.groups, layer.batch
    if dry:
        size, kernel, batch = tuple(min(n, 4) for n in size), min(kernel, 3), 1
        groups = min(groups, 2)
        channels = (2, 2)
    window = Geometry.window(len(size), kernel, stride=layer.stride, padding=kernel // 2, groups=groups)
    if layer.period != 1:
        places = zip(window.axes, window.output_size(size), strict=True)
        window = replace(window, axes=tuple(replace(axis, period=layer.period or n) for axis, n in places))
    return Problem("convolution", window, batch, *channels, size, dtype, device, direction=direction)


def roles(problem: Problem, make: Callable[..., Tensor]) -> dict[str, Tensor]:
    shapes = {
        "input": (problem.batch, problem.in_channels, *problem.size),
        "weight": problem.geometry.weight_shape(problem.in_channels, problem.out_channels),
        "output": (problem.batch, problem.out_channels, *problem.output_size),
    }
    return {role: make(shape).to(problem.device, problem.dtype) for role, shape in shapes.items()}


def operands(problem: Problem, tensors: dict[str, Tensor], *, last: bool) -> tuple[Tensor, Tensor]:
    """The two tensors that are known, maps channels-last if asked."""
    layout = LAST.get(len(problem.size)) if last else None

    def laid(role: str) -> Tensor:
        return tensors[role].to(memory_format=layout) if layout and role != "weight" else tensors[role]

    first, second, _ = ROLES[problem.direction]
    return laid(first), laid(second)


def whole_numbers(shape: Any) -> Tensor:
    return torch.randint(-4, 5, tuple(shape)).double()


# ------------------------------------------------------------------------------------------------------------ the laws


def laws(device: str, deadline: float, *, dry: bool) -> Iterator[str]:
    """A sentence for each law that is broken, and at the end how many were looked at."""
    checked = 0
    for number, parameter in enumerate(CONVOLUTIONS):
        case = parameter.values[0]
        c, o = case.channels
        options = {k: v for k, v in case.options if k not in ("flip", "padding_mode")}
        if len(case.size) > 3 or (dry and number % 8):
            continue
        window = Geometry.window(len(case.size), case.kernel, size=case.size, **options)
        tiled = replace(window, axes=tuple(replace(axis, period=2) for axis in window.axes))
        rare = number % 4 == 0
        for geometry in (window, tiled) if rare else (window,):
            for dtype in LIMITS if rare and not dry else (torch.float64,):
                for direction in DIRECTIONS:
                    if time.monotonic() > deadline:
                        yield f"time was up after {checked} laws"
                        return
                    problem = Problem("convolution", geometry, 2, c, o, case.size, dtype, device)
                    problem = replace(problem, direction=direction)
                    checked += 1
                    if (off := distance(problem, "triton")) > LIMITS[dtype]:
                        yield f"BROKEN: {parameter.id} {direction} {dtype}: off by {off:g}"
    yield f"{checked} laws looked at"


def distance(problem: Problem, name: str, make: Callable[..., Tensor] = whole_numbers) -> float:
    """Largest error against the reference in float64, relative to the largest number; infinite if two runs differ."""
    tensors = roles(problem, make)
    first, second = operands(problem, tensors, last=False)
    algorithm = find("convolution", name)
    got = algorithm.run(first, second, problem)
    if not got.equal(algorithm.run(first, second, problem)):
        return math.inf
    exact = replace(problem, dtype=torch.float64)
    wanted = find("convolution", "reference").run(first.double(), second.double(), exact)
    return float((got.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1))


# ----------------------------------------------------------------------------------------------------------- the times


def milliseconds(function: Callable[[], object], *, dry: bool) -> float:
    if dry:
        start = time.perf_counter()
        function()
        return 1e3 * (time.perf_counter() - start)
    from triton.testing import do_bench

    return float(do_bench(function, warmup=10, rep=40, return_mode="median"))


def vendors(problem: Problem, first: Tensor, second: Tensor) -> Callable[[], Tensor]:
    """PyTorch's own way: cuDNN, or windows gathered and multiplied where the weights repeat."""
    name = "vendor" if find("convolution", "vendor").refuses(problem) is None else "im2col"
    return lambda: find("convolution", name).run(first, second, problem)


def by_fourier(problem: Problem, first: Tensor, second: Tensor) -> Tensor:
    algorithm = find("convolution", "fft")
    return algorithm.run(first, algorithm.prepare(second, problem), problem)


def allow_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def measure(problem: Problem, *, tf32: bool, dry: bool) -> dict[str, float]:
    """Milliseconds of every contender; who fails is left out, with the reason on the error stream."""
    allow_tf32(tf32)
    problem = replace(problem, policy=Policy(tolerance=1e-3 if tf32 else 1e-4))
    tensors = roles(problem, torch.randn)
    times = {}
    for last in (False, True) if len(problem.size) in LAST else (False,):
        first, second = operands(problem, tensors, last=last)
        layout = "channels-last" if last else "plain"
        contenders: dict[str, Any] = {f"torch {layout}": vendors(problem, first, second)}
        contenders[f"triton {layout}"] = lambda a=first, b=second: find("convolution", "triton").run(a, b, problem)
        if not last and problem.geometry.kernel[-1] >= 15 and find("convolution", "fft").refuses(problem) is None:
            contenders["fft plain"] = lambda a=first, b=second: by_fourier(problem, a, b)
        for name, function in contenders.items():
            try:
                times[name] = milliseconds(function, dry=dry)
            except RuntimeError as error:
                print(f"{name} failed: {str(error).splitlines()[0]}", file=sys.stderr)
    allow_tf32(False)
    return times


def table(layers: list[Layer], types: list[str], device: str, deadline: float, *, dry: bool) -> Iterator[Any]:
    """One row for each layer, type and direction, the types of most use first."""
    for dtype, tf32 in [(name, False) for name in types] + [("float32", True)] * ("float32" in types):
        for layer in layers:
            for direction in DIRECTIONS:
                if time.monotonic() > deadline:
                    return
                problem = pose(layer, TYPES[dtype], direction, device, dry=dry)
                times = measure(problem, tf32=tf32, dry=dry)
                ours = [t for name, t in times.items() if not name.startswith("torch")]
                theirs = [t for name, t in times.items() if name.startswith("torch")]
                ratio = min(theirs) / min(ours) if ours and theirs else math.nan
                words = dtype + (" (tf32)" if tf32 else "")
                yield {"layer": layer.name, "type": words, "direction": direction, "ms": times, "ratio": ratio}


def summary(rows: list[Any]) -> Iterator[str]:
    """The geometric mean and the worst ratio of each type."""
    for words in dict.fromkeys(row["type"] for row in rows):
        ratios = [row["ratio"] for row in rows if row["type"] == words and row["ratio"] > 0]
        if ratios:
            yield f"{words}: {statistics.geometric_mean(ratios):.2f} times torch's best, at worst {min(ratios):.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="where the figures are written")
    parser.add_argument("--minutes", type=float, default=8.0, help="when to stop")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES))
    parser.add_argument("--dry", action="store_true", help="tiny shapes on the CPU, in Triton's interpreter")
    options = parser.parse_args()
    start, device = time.monotonic(), "cpu" if options.dry else "cuda"
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    allow_tf32(False)
    end = start + 60 * options.minutes
    signal.alarm(math.ceil(60 * options.minutes) + 60)  # a row that hangs ends the process; the others are on disk
    found: dict[str, Any] = {"torch": torch.__version__, "laws": [], "rows": [], "dry": options.dry}
    found["device"] = "cpu" if options.dry else torch.cuda.get_device_name()
    torch.use_deterministic_algorithms(True)  # one configuration of each kernel, so that there is less to compile
    for sentence in laws(device, start + 24 * options.minutes, dry=options.dry):
        print(sentence, flush=True)
        found["laws"].append(sentence)
    torch.use_deterministic_algorithms(False)
    types, layers = (["float32"], LAYERS[6:10:3]) if options.dry else (options.types, LAYERS)
    for row in table(layers, types, device, end, dry=options.dry):
        found["rows"].append(row)
        times = "  ".join(f"{name} {t:.3f}" for name, t in row["ms"].items())
        print(f"{row['ratio']:7.2f}x  {row['type']:<16}{row['direction']:<16}{row['layer']:<30}{times}", flush=True)
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(*summary(found["rows"]), f"{time.monotonic() - start:.0f} s", sep="\n")
    return 1 if any(sentence.startswith("BROKEN") for sentence in found["laws"]) else 0


if __name__ == "__main__":
    sys.exit(main())
