"""Citizens of PyTorch: compiled, exported, mapped, differentiated forwards, counted, on tensors without numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import striate
from striate.graphs import whole


def ramp(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape)


X = ramp(2, 4, 9, 8)


def like(x: Tensor, *shape: int) -> Tensor:
    """Weights of the input's type."""
    return ramp(*shape).to(x.dtype)


CALLS: dict[str, Callable[[Tensor], Any]] = {
    "conv": lambda x: striate.conv(x, like(x, 6, 2, 3, 3), like(x, 6), stride=2, padding="same", groups=2),
    "conv uneven": lambda x: striate.conv(x, like(x, 6, 4, 3, 3), padding=((2, 0), (1, 3)), dilation=2),
    "conv flipped": lambda x: striate.conv(x, like(x, 6, 4, 3, 3), padding="full", flip=True),
    "conv reflect": lambda x: striate.conv(x, like(x, 6, 4, 3, 3), padding=1, padding_mode="reflect"),
    "conv by the reference": lambda x: striate.conv(
        x[..., 0], like(x, 6, 2, 2), padding=1, groups=2, algorithm="reference"
    ),
    "conv over one axis": lambda x: striate.conv(x[:, :, 0], like(x, 6, 4, 3), padding="causal"),
    "conv transposed": lambda x: striate.conv_transpose(x, like(x, 4, 2, 3, 3), stride=2, padding=((1, 0), (2, 1))),
    "conv transposed circular": lambda x: striate.conv_transpose(
        x, like(x, 4, 2, 3, 3), stride=2, padding=1, padding_mode="circular"
    ),
    "conv tiled": lambda x: striate.conv_tiled(x, like(x, 2, 4, 6, 4, 3, 3), like(x, 6, 2, 4), padding=1),
    "conv local": lambda x: striate.conv_local(x, like(x, 4, 3, 6, 4, 3, 3), like(x, 6, 4, 3), stride=2),
    "conv over four axes": lambda x: striate.conv(
        x.unflatten(2, (3, 3)).unflatten(4, (4, 2)), like(x, 2, 4, 2, 2, 2, 2)
    ),
}
EVERY_CALL = pytest.mark.parametrize("name", CALLS)
# Compiled and exported in tests of their own; here they are brought to ONNX.
POOLINGS: dict[str, Callable[[Tensor], Any]] = {
    "max": lambda x: striate.max_pool(x, 3, stride=2, padding=1),
    "max uneven": lambda x: striate.max_pool(x, 3, stride=2, padding=((2, 0), (0, 2)), dilation=2),
    "mean": lambda x: striate.avg_pool(x, 3, stride=2, padding=1),
    "mean uneven": lambda x: striate.avg_pool(x, 3, stride=2, padding=((2, 0), (0, 1))),
    "mean dilated": lambda x: striate.avg_pool(x, 2, stride=1, dilation=2),
    "norm": lambda x: striate.lp_pool(x, 2, p=3.0),
    "gaussian": lambda x: striate.gaussian_pool(x, 3, stride=1, padding=1),
    "adaptive mean": lambda x: striate.adaptive_avg_pool(x, (4, 3)),
    "adaptive max": lambda x: striate.adaptive_max_pool(x, (4, 3)),
    "maxout": lambda x: striate.maxout(x, 2),
    "response norm": lambda x: striate.local_response_norm(x, 3, alpha=0.5),
    "columns": lambda x: striate.unfold(x, (3, 2), stride=2, padding=1),
}


class Module(nn.Module):
    """A call as a module, for what takes modules only."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.call = (CALLS | POOLINGS)[name]

    def forward(self, x: Tensor) -> Any:
        return self.call(x)


def same(actual: Tensor, expected: Tensor, limit: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=limit, atol=limit)


def with_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = function(x)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), x)]


# ---------------------------------------------------------------------------------------------------------- compilation


@EVERY_CALL
def test_compiles_in_one_graph_with_gradients_and_serves_another_batch(name: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(CALLS[name], fullgraph=True, backend="aot_eager")
    for x in (X, torch.cat([X, 2 * X])):
        for actual, expected in zip(with_gradient(compiled, x), with_gradient(CALLS[name], x), strict=True):
            same(actual, expected)


@EVERY_CALL
def test_compiles_with_open_sizes(name: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(CALLS[name], fullgraph=True, dynamic=True, backend="aot_eager")
    same(compiled(X), CALLS[name](X))


def test_the_default_compiler_generates_code_for_it() -> None:
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the code generator's own
        compiled = torch.compile(CALLS["conv"], fullgraph=True)
        for actual, expected in zip(with_gradient(compiled, X), with_gradient(CALLS["conv"], X), strict=True):
            same(actual, expected)


def test_a_function_taken_whole_is_one_node() -> None:
    nodes: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        nodes.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph

    def add(x: Tensor, times: tuple[int, ...]) -> Tensor:
        return x * sum(times)

    function = whole(add)
    torch.compiler.reset()
    assert torch.compile(lambda x: function(x, (1, 2)), backend=backend)(torch.ones(2)).tolist() == [3.0, 3.0]
    assert nodes == [add]


# -------------------------------------------------------------------------------------------------------------- export


@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
@EVERY_CALL
def test_exports_to_pytorch_s_own_operations_with_an_open_batch(name: str, strict: bool) -> None:
    dynamic = ({0: torch.export.Dim("n", min=1)},)
    program = torch.export.export(Module(name), (X.clone(),), dynamic_shapes=dynamic, strict=strict)
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert all(target.startswith(("aten.", "<built-in")) for target in targets), targets
    x = torch.cat([X, -X, X])
    same(program.module()(x), CALLS[name](x))


def test_exports_with_open_sizes_where_pytorch_s_own_kernels_serve() -> None:
    open_sizes = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    for name in ("conv uneven", "conv transposed"):
        program = torch.export.export(Module(name), (X.clone(),), dynamic_shapes=open_sizes)
        x = ramp(3, 4, 12, 7)
        same(program.module()(x), CALLS[name](x))


@pytest.mark.parametrize("name", ["max", "mean", "adaptive mean", "adaptive max"])
def test_poolings_with_open_sizes(name: str) -> None:
    """Exported once, and compiled in one graph for all sizes."""
    open_sizes = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(Module(name), (X.clone(),), dynamic_shapes=open_sizes)
    x = ramp(3, 4, 13, 11)
    same(program.module()(x), POOLINGS[name](x))
    torch.compiler.reset()
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    compiled = torch.compile(POOLINGS[name], fullgraph=True, backend=backend, dynamic=True)
    for size in range(11, 23):
        x = ramp(1, 4, size, size + 2)
        same(compiled(x), POOLINGS[name](x))
    assert len(graphs) <= 2


OPEN_REFUSED = {
    "gaussian": "gaussian_pool: these windows depend on the sizes, which this graph leaves open; fix them.",
    "conv": "conv of x (1, 4, ?, ?) with weight (6, 2, 3, 3): padding='same' with stride=2 depends on the sizes, which "
    "this graph leaves open; write the padding as numbers, or trace with fixed sizes.",
    "conv reflect": "conv of x (1, 4, ?, ?) with weight (6, 4, 3, 3): padding_mode='reflect' needs the sizes, which "
    "this graph leaves open; trace with fixed ones.",
    "conv by the reference": "algorithm='reference' needs the sizes, which this graph leaves open; trace with fixed "
    "ones.",
    "conv tiled": "the graph leaves the sizes open, so that only PyTorch's own kernels serve: those share the weights "
    "over 1 to 3 axes, and this window has period (2, 4). Trace with fixed sizes.",
}


@pytest.mark.parametrize("name", OPEN_REFUSED)
def test_open_sizes_are_refused_in_words_where_they_are_needed(name: str) -> None:
    open_sizes = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    with pytest.raises(striate.errors.StriateError) as caught:
        torch.export.export(Module(name), (X.clone(),), dynamic_shapes=open_sizes)
    assert str(caught.value) == OPEN_REFUSED[name]


# ONNX has no node for these in fewer operations; what they become is asserted all the same.
NODES = {
    "conv": {"Conv"},
    "conv uneven": {"Conv"},
    "conv flipped": {"Conv"},
    "conv transposed": {"ConvTranspose"},
    "max": {"MaxPool"},
    "mean": {"AveragePool"},
}


@pytest.mark.parametrize("name", [*CALLS, *POOLINGS])
def test_exports_to_onnx_and_onnx_runtime_agrees(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            Module(name).eval(), (X.clone(),), dynamo=True, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
        )  # fmt: skip
    model = program.model_proto  # type: ignore[union-attr]
    assert {node.domain for node in model.graph.node} <= {"", "pkg.onnxscript.torch_lib.common"}
    assert not [a for node in model.graph.node for a in node.attribute if a.name == "auto_pad" and a.s != b"NOTSET"]
    if name in NODES:
        assert {node.op_type for node in model.graph.node} == NODES[name]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = torch.cat([X, -X, X])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    same(torch.from_numpy(got), Module(name)(x))


@pytest.mark.parametrize("name", ["conv", "conv reflect", "conv transposed", "conv tiled"])
def test_the_older_tracer_fixes_the_sizes(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated, and that sizes become constants
        traced = torch.jit.trace(Module(name), X)
    same(traced(-X), CALLS[name](-X))


# ------------------------------------------------------------------------------------ transformations and other tensors


@EVERY_CALL
def test_maps_over_examples(name: str) -> None:
    several = torch.stack([X, -X, 3 * X])
    wanted = torch.stack([CALLS[name](x) for x in several])
    same(torch.func.vmap(CALLS[name])(several), wanted)
    same(torch.func.vmap(CALLS[name], in_dims=2)(several.movedim(0, 2)), wanted)


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_map_over_any_dimension(name: str) -> None:
    several = torch.stack([X, -X, 3 * X], 1)
    wanted = torch.stack([POOLINGS[name](x) for x in several.unbind(1)])
    same(torch.func.vmap(POOLINGS[name], in_dims=1)(several), wanted)


@EVERY_CALL
def test_forward_mode_and_reverse_mode_agree(name: str) -> None:
    x, direction = X.double(), ramp(*X.shape).flip(0).double()
    forwards: Any = torch.func.jvp(CALLS[name], (x,), (direction,))[1]
    y, back = torch.func.vjp(CALLS[name], x)[:2]
    cotangent = torch.linspace(0, 1, y.numel(), dtype=y.dtype).view(y.shape)
    same((forwards * cotangent).sum(), (direction * back(cotangent)[0]).sum(), 1e-9)


@EVERY_CALL
def test_shapes_and_types_without_numbers(name: str) -> None:
    wanted = CALLS[name](X)
    with FakeTensorMode() as mode:
        fake = CALLS[name](mode.from_tensor(X))
    with torch.device("meta"):
        meta = CALLS[name](X.to("meta"))
    for got in (fake, meta):
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
    assert meta.is_meta


@EVERY_CALL
def test_autocast_lowers_the_type_and_the_gradient_keeps_the_input_s(name: str) -> None:
    x = X.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = CALLS[name](x)
    assert y.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(y.float().square().sum(), x)
    assert gradient.dtype == torch.float32
    wanted = with_gradient(CALLS[name], X)
    for actual, expected in zip((y.detach().float(), gradient), wanted, strict=True):
        assert (actual - expected).norm() < 3e-2 * expected.norm()


@EVERY_CALL
def test_runs_under_deterministic_algorithms(name: str) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        first, second = with_gradient(CALLS[name], X), with_gradient(CALLS[name], X)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))


# -------------------------------------------------------------------------------------------------- layout and counting


def unpooled(x: Tensor) -> Tensor:
    values, switches = striate.max_pool(x, 2, return_switches=True)
    return striate.max_unpool(values, switches, x.shape[2:])


LAID: dict[str, Callable[[Tensor], Any]] = {
    **{name: CALLS[name] for name in ("conv uneven", "conv reflect", "conv tiled", "conv transposed circular")},
    **{name: POOLINGS[name] for name in POOLINGS if name != "columns"},
    "adaptive mean by bins": lambda x: striate.adaptive_avg_pool(x, (3, 4)),
    "conv by columns": lambda x: striate.conv(x, like(x, 6, 4, 3, 3), algorithm="im2col"),
    "conv by spectra": lambda x: striate.conv(x, like(x, 6, 4, 3, 3), algorithm="fft"),
    "unpooling": lambda x: unpooled(x),
}


@pytest.mark.parametrize("name", LAID)
def test_channels_last_stays(name: str) -> None:
    x = X.to(memory_format=torch.channels_last).requires_grad_()
    y = LAID[name](x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    same(y, LAID[name](X))
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    same(gradient, with_gradient(LAID[name], X)[1])


ALIASES: dict[str, Callable[[Tensor], Any]] = {
    "max": lambda x: striate.max_pool(x, 1),
    "max strided": lambda x: striate.max_pool(x, 1, stride=2),
    "max over four axes": lambda x: striate.max_pool(x.unflatten(2, (3, 3)).unflatten(4, (4, 2)), (1, 1, 1, 1)),
    "mean": lambda x: striate.avg_pool(x, 1),
    "adaptive": lambda x: striate.adaptive_max_pool(x, (9, 8)),
    "norm": lambda x: striate.lp_pool(x, 1, p=math.inf),
    "gaussian": lambda x: striate.gaussian_pool(x, 1),
    "conv": lambda x: striate.conv(x, torch.eye(4, dtype=x.dtype).view(4, 4, 1, 1), algorithm="im2col"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
@pytest.mark.parametrize("name", ALIASES)
def test_a_result_is_a_tensor_of_its_own(name: str, dtype: torch.dtype) -> None:
    """Writing into what an operator gave does not write into what it was given."""
    if dtype == torch.int64 and name in ("mean", "norm", "gaussian"):
        pytest.skip("means and norms take fractions")
    x = (100 * X).to(dtype)
    before = x.clone()
    ALIASES[name](x).zero_()
    assert x.equal(before)


FLOPS = {
    "conv": 2 * (2 * 6 * 5 * 4) * (2 * 9),
    "conv uneven": 2 * (2 * 6 * 7 * 8) * (4 * 9),
    "conv flipped": 2 * (2 * 6 * 11 * 10) * (4 * 9),
    "conv transposed": 2 * (2 * 4 * 9 * 8) * (2 * 9),
    "conv tiled": 2 * (2 * 6 * 9 * 8) * (4 * 9),
    "conv local": 2 * (2 * 6 * 4 * 3) * (4 * 9),
    "conv over four axes": 2 * (2 * 2 * 2 * 2 * 3 * 1) * (4 * 16),
}


@pytest.mark.parametrize("name", FLOPS)
def test_pytorch_s_counter_counts_what_the_geometry_says(name: str) -> None:
    """Two operations for each multiply-add, padding counted; each gradient costs as much as the output."""
    with FlopCounterMode(display=False) as counter:
        y = CALLS[name](X.clone().requires_grad_())
    assert counter.get_total_flops() == FLOPS[name]
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == FLOPS[name]


NO_TENSORS: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: striate.conv(X.numpy(), like(X, 6, 4, 3, 3)),  # type: ignore[arg-type]
        "conv: x must be a tensor, got ndarray; give torch.as_tensor(x).",
    ),
    (
        lambda: striate.conv(X, like(X, 6, 4, 3, 3).numpy()),  # type: ignore[arg-type]
        "conv: weight must be a tensor, got ndarray; give torch.as_tensor(weight).",
    ),
    (
        lambda: striate.conv(X, like(X, 6, 4, 3, 3), 1),  # type: ignore[arg-type]
        "conv: bias must be a tensor, got int; give torch.as_tensor(bias).",
    ),
    (
        lambda: striate.max_pool([[1.0]], 2),  # type: ignore[arg-type]
        "max_pool: x must be a tensor, got list; give torch.as_tensor(x).",
    ),
    (
        lambda: striate.matrix("weight", 4),  # type: ignore[arg-type]
        "matrix: weight must be a tensor, got str; give torch.as_tensor(weight).",
    ),
]


@pytest.mark.parametrize(("call", "message"), NO_TENSORS)
def test_what_is_no_tensor_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(striate.errors.GeometryError) as caught:
        call()
    assert str(caught.value) == message
