"""The operator of the compiled kernels: what PyTorch may ask of it, and what is said where it is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import striate
from striate.computing import ALGORITHMS, DIRECTIONS, Problem, find, native
from striate.errors import AlgorithmError
from striate.geometry import Geometry
from striate.trilinear import ROLES

LANES = sorted(name for name, one in ALGORITHMS["convolution"].items() if isinstance(one, native.Native))
OPERATOR: Any = torch.ops.striate.native_convolution.default

WINDOWS = {
    "depthwise": (Geometry.window(2, 3, padding=1, stride=2, groups=4), 4, 4, (7, 6)),
    "dense": (Geometry.window(2, 3, padding=1), 4, 6, (6, 6)),
    "local": (Geometry.window(1, 3, padding=1, period=5), 2, 3, (5,)),
    "volume": (Geometry.window(3, (1, 3, 2), groups=2), 4, 4, (2, 4, 3)),
}


WHOLE = [Problem("convolution", WINDOWS["depthwise"][0], 2, 4, 4, (7, 6), torch.float64)]


def operands(problem: Problem, *, grad: bool = False) -> list[Tensor]:
    geometry = problem.geometry
    shapes = {
        "input": (problem.batch, problem.in_channels, *problem.size),
        "output": (problem.batch, problem.out_channels, *problem.output_size),
        "weight": geometry.weight_shape(problem.in_channels, problem.out_channels),
    }
    generator = torch.Generator().manual_seed(0)
    first, second = (shapes[role] for role in ROLES[problem.direction][:2])
    made = [torch.randn(shape, generator=generator, dtype=problem.dtype) for shape in (first, second)]
    return [tensor.requires_grad_(grad) for tensor in made]


def run(name: str, problem: Problem) -> Tensor:
    first, second = operands(problem)
    return find("convolution", name).run(first, second, problem)


def problems() -> list[Any]:
    """Every compiled algorithm on every window that it serves, in every direction."""
    found = []
    for name in LANES:
        for word, (geometry, channels, outputs, size) in WINDOWS.items():
            for direction in DIRECTIONS:
                problem = Problem(
                    "convolution", geometry, 2, channels, outputs, size, torch.float64, direction=direction
                )
                if find("convolution", name).refuses(problem) is None:
                    found.append(pytest.param(name, problem, id=f"{name}-{word}-{direction}"))
    return found


def arguments(name: str, problem: Problem) -> tuple[Any, ...]:
    algorithm = find("convolution", name)
    return algorithm.lanes, problem.direction, native.as_numbers(problem)  # type: ignore[attr-defined]


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_the_kernels_are_compiled_where_there_is_a_compiler() -> None:
    assert native.compiled is not None
    assert native.compiled.instruction_set() in ("v3", "v4", "generic")


def test_every_compiled_algorithm_serves_a_window_here() -> None:
    assert {parameter.values[0] for parameter in problems()} == set(LANES)


@pytest.mark.parametrize(("name", "problem"), [found for found in problems() if "volume" not in str(found.id)])
def test_opcheck(name: str, problem: Problem) -> None:
    """Schema, fake implementation, derivatives and tracing, as PyTorch checks them for any operator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.library.opcheck(OPERATOR, (*operands(problem, grad=True), *arguments(name, problem)))


@pytest.mark.parametrize(("name", "problem"), problems())
def test_what_the_operator_is_made_of_gives_the_same(name: str, problem: Problem, close: Any) -> None:
    from torch._decomp import decomposition_table

    first, second = operands(problem)
    by_operator = OPERATOR(first, second, *arguments(name, problem))
    close(decomposition_table[OPERATOR](first, second, *arguments(name, problem)), by_operator)
    torch.testing.assert_close(find("convolution", name).run(first, second, problem), by_operator, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "problem"), problems())
def test_operations_are_counted_as_two_for_each_multiply_add(name: str, problem: Problem) -> None:
    with FlopCounterMode(display=False) as counted:
        run(name, problem)
    assert counted.get_total_flops() == 2 * problem.work


@pytest.mark.parametrize(("name", "problem"), problems())
def test_derivatives_of_the_operator(name: str, problem: Problem) -> None:
    def call(first: Tensor, second: Tensor) -> Tensor:
        return OPERATOR(first, second, *arguments(name, problem))

    assert torch.autograd.gradcheck(call, operands(problem, grad=True), fast_mode=True)


@pytest.mark.parametrize(("name", "problem"), problems())
def test_no_examples_give_no_outputs_and_weights_of_zero(name: str, problem: Problem) -> None:
    first, second = operands(problem)
    second = second[:0] if problem.direction == "weight_gradient" else second
    got = find("convolution", name).run(first[:0], second, problem)
    assert not got.any()


@pytest.mark.parametrize(("name", "problem"), problems())
def test_every_instruction_set_of_this_machine_agrees(name: str, problem: Problem, close: Any) -> None:
    compiled = native.compiled
    best = compiled.instruction_set()
    sets = ["v3", "v4"]
    wanted = run(name, problem)
    try:
        for other in sets[: sets.index(best)] if best in sets else []:
            compiled.use_instruction_set(other)
            close(run(name, problem), wanted)
    finally:
        compiled.use_instruction_set(best)


def test_a_compiled_graph_calls_the_operator() -> None:
    problem = Problem("convolution", WINDOWS["depthwise"][0], 2, 4, 4, (7, 6))
    name = next(name for name in LANES if find("convolution", name).refuses(problem) is None)
    x, weight = operands(problem)

    def layer(x: Tensor) -> Tensor:
        return striate.conv(x, weight, stride=2, padding=1, groups=4, algorithm=name).relu()

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x), rtol=0, atol=0)
    graph = torch.export.export(Wrapped(layer), (x,)).graph
    assert any("native_convolution" in str(node.target) for node in graph.nodes)


class Wrapped(torch.nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_without_the_compiled_part_it_works_and_says_so_once() -> None:
    program = """
import sys, warnings
sys.modules["striate._native"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch, striate
    y = striate.conv(torch.ones(1, 4, 5, 5), torch.ones(4, 1, 3, 3), groups=4)
    z = striate.conv(torch.ones(1, 4, 5, 5), torch.ones(4, 1, 3, 3), groups=4)
    plan = striate.plan((1, 4, 5, 5), (4, 1, 3, 3), groups=4)
print([str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)])
print(float(y.sum()), sorted(r for n, r in plan.refusals if n.startswith("native"))[:1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == (
        "['Striate was installed without its compiled kernels, so that some convolutions and poolings take many times "
        "longer; install a C++ compiler (such as g++), then Striate again.']"
    )
    assert second == (
        "324.0 ['the compiled kernels are not installed; install Striate where there is a C++ compiler.']"
    )


# ---------------------------------------------------------------------------------- tensors that are not what they seem


def serving(problem: Problem) -> list[str]:
    return [name for name in LANES if find("convolution", name).refuses(problem) is None]


GRAY = Problem("convolution", Geometry.window(2, 3, padding=1), 4, 1, 8, (12, 12), torch.float64)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_single_channel_that_lies_channels_last(direction: str) -> None:
    """Its rows follow each other in memory and its channel stride is 1, both at once."""
    problem = replace(GRAY, direction=direction)
    first, second = operands(problem)
    shape, steps = first.shape, (first.shape[1] * 144, 1, 12 * first.shape[1], first.shape[1])
    laid = torch.empty_strided(shape, steps, dtype=first.dtype).copy_(first)
    wanted = find("convolution", "reference").run(first, second, problem)
    for name in serving(problem):
        torch.testing.assert_close(find("convolution", name).run(laid, second, problem), wanted)


def test_a_sign_that_is_not_in_memory_yet() -> None:
    problem = WHOLE[0]
    x = torch.randn(2, 4, 7, 6, dtype=torch.complex128).conj().imag
    assert x.is_neg()
    weight = operands(problem)[1]
    for name in serving(problem):
        got = find("convolution", name).run(x, weight, problem)
        torch.testing.assert_close(got, find("convolution", "reference").run(x.clone(), weight, problem))


def test_zeros_that_have_no_memory() -> None:
    zeros = torch._efficientzerotensor((2, 4, 7, 6), dtype=torch.float64)
    for name in serving(WHOLE[0]):
        assert not find("convolution", name).run(zeros, operands(WHOLE[0])[1], WHOLE[0]).any()


def test_kernels_refuse_tensors_that_are_not_those_of_their_problem() -> None:
    """They go by the numbers of the problem: a tensor of another size or type would be read past its end."""
    problem = WHOLE[0]
    x, weight = operands(problem)
    algorithm = find("convolution", "native_channels")
    with pytest.raises(AlgorithmError) as narrow:
        algorithm.run(x.float(), weight.float(), problem)
    assert str(narrow.value) == "The kernels for torch.float64 were given torch.float32 and torch.float32."
    with pytest.raises(AlgorithmError) as short:
        OPERATOR(x[..., 1:], weight, *arguments("native_channels", problem))
    assert str(short.value) == (
        "The kernels take (N, 4, 7, 6) and (4, 1, 3, 3); they were given (2, 4, 7, 5) and (4, 1, 3, 3)."
    )
    with pytest.raises(AlgorithmError) as fewer:
        OPERATOR(x, torch.zeros(1, 4, 4, 3, dtype=x.dtype), "channels", "weight_gradient", native.as_numbers(problem))
    assert str(fewer.value) == (
        "The kernels take (N, 4, 7, 6) and (N, 4, 4, 3); they were given (2, 4, 7, 6) and (1, 4, 4, 3)."
    )


def test_pooling_kernels_refuse_tensors_that_are_not_those_of_their_problem() -> None:
    window = Problem("maximum", Geometry.window(2, 2, stride=2), 1, 1, 1, (6, 6), torch.float64)
    numbers = native.as_numbers(window)
    operator: Any = torch.ops.striate.native_pool
    with pytest.raises(AlgorithmError) as short:
        operator(torch.zeros(1, 2, 5, 6), None, "maximum", "forward", 1, numbers)
    assert str(short.value) == "The kernels lead from maps of (6, 6) to (3, 3), not from (5, 6)."
    switches = torch.zeros(1, 2, 2, 3, dtype=torch.int64)
    with pytest.raises(AlgorithmError) as other:
        operator(torch.zeros(1, 2, 3, 3), switches, "switches", "input_gradient", 1, numbers)
    assert str(other.value) == "Switches (1, 2, 2, 3) are not those of maps (1, 2, 3, 3)."


def test_pooling_kernels_compare_norms_and_switches_with_the_maps() -> None:
    window = Problem("sum", Geometry.window(2, 2, stride=2), 1, 1, 1, (8, 8), torch.float32)
    numbers = native.as_numbers(window)
    x, y = torch.ones(1, 2, 8, 8), torch.ones(1, 2, 4, 4)
    with pytest.raises(AlgorithmError) as short:
        torch.ops.striate.native_norm_gradient(y, torch.ones(1, 2, 2, 2), x, numbers)
    assert str(short.value) == (
        "For x (1, 2, 8, 8) of torch.float32, gradient and norm are (1, 2, 4, 4) of the same type; they are "
        "(1, 2, 4, 4) of torch.float32 and (1, 2, 2, 2) of torch.float32."
    )
    with pytest.raises(AlgorithmError) as narrow:
        torch.ops.striate.native_pool(y, y.to(torch.int32), "switches", "input_gradient", 1, numbers)
    assert str(narrow.value) == "Switches are int64, or uint8 where they are marks; these are torch.int32."
    for more in (-1, 1):
        other = torch.ones(1, 2, 8 + more, 8).contiguous(memory_format=torch.channels_last)
        with pytest.raises(AlgorithmError) as sized:
            torch.ops.striate.native_norm_gradient(y, y, other, numbers)
        assert str(sized.value) == f"The windows read maps of (8, 8); x has ({8 + more}, 8)."


@pytest.mark.parametrize("operation", ["maximum", "norm", "switches"])
def test_poolings_that_need_more_than_one_tensor_say_so(operation: str) -> None:
    window = Problem("sum", Geometry.window(2, 2, stride=2), 1, 1, 1, (8, 8), torch.float32)
    with pytest.raises(AlgorithmError) as caught:
        torch.ops.striate.native_pool(
            torch.ones(1, 2, 4, 4), None, operation, "input_gradient", 1, native.as_numbers(window)
        )
    assert str(caught.value) == f"There is no input_gradient of {operation!r} without switches."


def test_the_kernels_know_their_words() -> None:
    numbers = native.shape_and_window("forward", tuple(native.as_numbers(WHOLE[0])))[1]
    with pytest.raises(ValueError, match=r"^there is no such direction: backwards$"):
        native.compiled.convolution("channels", "float64", "backwards", numbers)
    with pytest.raises(ValueError, match=r"^there is no such pooling: median$"):
        native.compiled.pooling("median", "float64", "forward", numbers, False, 1)(1, 1, 0, (0,) * 5, 0)
    for operation in ("maximum", "switches", "norm", "sum"):
        with pytest.raises(ValueError, match=f"^a tensor that the pooling needs is missing: {operation}$"):
            native.compiled.pooling(operation, "float64", "input_gradient", numbers, False, 1)(1, 1, 0, (0,) * 5, 0)
    with pytest.raises(ValueError, match=r"^this processor has no such instructions: v9$"):
        native.compiled.use_instruction_set("v9")
