"""The kernels in Triton: their laws in its interpreter, what they refuse, and that they compile for a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from striate.computing import Problem, find, triton_windows
from striate.computing.native import as_numbers
from striate.geometry import Geometry
from striate.policy import Policy

ROOT = Path(__file__).parent.parent
PLAIN = Problem("convolution", Geometry.window(1, 3), 1, 2, 2, (5,), torch.float32, "cuda")


def test_the_laws_hold_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/interpreted.py"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


REFUSED: dict[str, dict[str, Any]] = {
    "the tensors are cpu_only; Triton's": {"device": "cpu_only"},
    "the tensors are torch.complex64; Triton's kernels take torch.float32, torch.float64, torch.bfloat16, torch.float1"
    "6.": {"dtype": torch.complex64},
    "there are 0 input and 2 output channels; it needs both.": {"in_channels": 0},
    "the window has 4 spatial axes; Triton's kernels have 3.": {"geometry": Geometry.window(4, 1), "size": (2,) * 4},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_it_refuses(sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_windows, "find_spec", lambda name: name)
    reason = find("convolution", "triton").refuses(replace(PLAIN, **REFUSED[sentence]))
    assert reason is not None
    assert reason.startswith(
        sentence.replace("are cpu_only; Triton's", "are on cpu_only; Triton's kernels run on cuda")
    )


def test_it_serves_graphics_processors_that_are_new_enough_where_triton_is(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = find("convolution", "triton")
    monkeypatch.setattr(triton_windows, "find_spec", lambda name: None)
    assert (operator.refuses(PLAIN) or "").startswith("Triton is not installed;")
    monkeypatch.setattr(triton_windows, "find_spec", lambda name: name)
    monkeypatch.setattr(triton_windows, "_capability", lambda: (7, 5))
    assert operator.refuses(PLAIN) == "the device has compute capability 7.5; Triton's kernels need 8.0."
    monkeypatch.setattr(triton_windows, "_capability", lambda: (9, 0))
    assert operator.refuses(PLAIN) is None
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert operator.refuses(replace(PLAIN, device="cpu")) is None


def test_products_round_to_tf32_where_pytorch_and_the_policy_allow_it() -> None:
    operator = find("convolution", "triton")
    precise, rough = (replace(PLAIN, policy=Policy(tolerance=limit)) for limit in (1e-4, 1e-3))
    assert [triton_windows.rounds(problem) for problem in (precise, rough)] == [False, True]
    assert not triton_windows.rounds(replace(rough, dtype=torch.float64))
    assert (operator.error(precise), operator.error(rough)) == (0.0, triton_windows.TF32)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        assert not triton_windows.rounds(rough)


POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


def build(kernel: Any, tensors: tuple[Tensor, ...], told: dict[str, Any], config: Any) -> Any:
    """Compile a launch for compute capability 9.0, which takes no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    values = told | config.kwargs
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    for tensor, parameter in zip(tensors, kernel.fn.params, strict=False):
        signature[parameter.name] = POINTERS[tensor.dtype]
    for parameter in kernel.fn.params[len(tensors) :]:
        signature[parameter.name] = "constexpr" if parameter.is_constexpr else "i32"
        if parameter.is_constexpr:
            constants[parameter.name] = values[parameter.name]
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    return triton.compile(ASTSource(kernel.fn, signature, constants), target=GPUTarget("cuda", 90, 32), options=options)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")
@pytest.mark.parametrize(("groups", "dtype"), [(32, torch.float32), (4, torch.bfloat16)], ids=str)
def test_the_kernels_compile_for_a_gpu(
    groups: int, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    built = []

    def launch(_: bool, kernel: Any, programs: Any, tensors: tuple[Tensor, ...], told: dict[str, Any]) -> None:
        assert programs(kernel.configs[0].kwargs) > 0
        built.append(build(kernel, tensors, told, kernel.configs[0]))

    monkeypatch.setattr(triton_windows, "_launch", launch)
    window = Geometry.window(2, 3, stride=2, padding=1, groups=groups)
    problem = Problem("convolution", window, 4, 32, 32, (14, 14), dtype)
    x, weight = torch.zeros(4, 32, 14, 14, dtype=dtype), torch.zeros(32, 32 // groups, 3, 3, dtype=dtype)
    y, numbers = torch.zeros(4, 32, 7, 7, dtype=dtype), as_numbers(problem)
    for direction, pair in {"forward": (x, weight), "input_gradient": (y, weight), "weight_gradient": (x, y)}.items():
        triton_windows._compute(*pair, direction, numbers, dtype == torch.float32, False)
    assert all(len(each.asm["cubin"]) > 0 for each in built)
