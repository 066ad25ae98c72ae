"""Tracing: the graph on paper reads what the model reads, by the support of its gradient, and costs what that does."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import striate
from striate import operations as ops
from striate.architecture import Architecture
from striate.errors import GeometryError, NotationError, OptionError
from striate.inspection import describe
from striate.kinship import SELECTED
from striate.operations import Foreign
from striate.tracing import Trace, trace

from . import peers_zoo
from .work import calls

# -------------------------------------------------------------------------------------------- what is read, by two ways


def on_paper(architecture: Architecture, name: str) -> Tensor:
    """``(output positions, input positions)``: what each position of a node reads, from the readings of all nodes."""
    shapes = architecture.shapes()
    found: dict[str, Tensor] = {}
    for node in architecture:
        size = prod(shapes[node.name][1:])
        if not node.inputs:
            found[node.name] = torch.eye(size, dtype=torch.bool)
            continue
        total = torch.zeros(size, found[architecture.nodes[0].name].shape[1], dtype=torch.bool)
        given = [shapes[one] for one in node.inputs]
        for one, reading in zip(node.inputs, node.operation.reads(*given), strict=True):
            assert not isinstance(reading, str), (node.name, reading)
            total |= (positions(reading, shapes[node.name], shapes[one]).double() @ found[one].double()) > 0
        found[node.name] = total
    return found[name]


def positions(reading: Any, output: tuple[int, ...], given: tuple[int, ...]) -> Tensor:
    """``(output positions, positions of one input)``."""
    outs, ins = output[1:], given[1:]
    reads = torch.ones((*outs, *ins), dtype=torch.bool)
    assert len(reading) == len(ins)
    for number, (axis, relation) in enumerate(reading):
        assert relation.inputs == ins[number]
        rows = 1 if axis is None else outs[axis]
        if axis is not None:
            assert relation.outputs == rows
        one = torch.zeros(rows, ins[number], dtype=torch.bool)
        for row in range(rows):
            one[row, list(relation.reads(row))] = True
        shape = [1] * (len(outs) + len(ins))
        shape[len(outs) + number] = ins[number]
        if axis is not None:
            shape[axis] = rows
        reads &= one.reshape(shape)
    return reads.reshape(prod(outs), prod(ins))


def by_gradient(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """``(output positions, input positions)`` of non-zero derivatives, for an output ``(1, C, *spatial)``."""
    x = torch.rand(1, *shape, dtype=torch.float64) + 0.5

    def summed(x: Tensor) -> Tensor:
        y = function(x * 1)
        return y.flatten(2).sum((0, 1)) if y.dim() > 2 else y.sum().reshape(1)

    slopes = torch.autograd.functional.jacobian(summed, x)
    return slopes.abs().sum((1, 2)).flatten(1) > 0


def positive(model: nn.Module) -> nn.Module:
    """The model with positive weights, so that nothing cancels."""
    torch.manual_seed(0)
    model = model.double().eval()
    for p in model.parameters():
        p.data.uniform_(0.5, 1.5).div_(max(p[0].numel(), 1) if p.dim() > 1 else 1)
    return model


def parameters(found: Trace) -> int:
    shapes = found.architecture.shapes()
    return sum(n.operation.parameters(*[shapes[i] for i in n.inputs]) or 0 for n in found.architecture) + found.unused


def macs(found: Trace) -> int:
    shapes = found.architecture.shapes()
    return sum(n.operation.multiply_adds(*[shapes[i] for i in n.inputs]) or 0 for n in found.architecture)


def counted(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Multiply-adds by PyTorch's own counter."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.rand(1, *shape, dtype=next((p.dtype for p in model.parameters()), torch.float32)))
    return counter.get_total_flops() / 2


def check(model: nn.Module, shape: tuple[int, ...], *, reads: bool = True) -> Trace:
    """Trace a model; its parameters, multiply-adds, the shape of its output and what that reads must be right."""
    model = positive(model)
    found = trace(model, shape)
    assert parameters(found) == sum(p.numel() for p in model.parameters())
    assert macs(found) == counted(model, shape)
    result = found.architecture.results[0]
    output = model(torch.rand(1, *shape, dtype=torch.float64))
    output = output if isinstance(output, Tensor) else output[0]
    real = tuple(output.shape[1:])
    assert [n for n in found.architecture.shapes()[result] if n > 1] == [n for n in real if n > 1]
    if reads:
        expected = by_gradient(lambda x: model(x) if isinstance(model(x), Tensor) else model(x)[0], shape)
        paper = on_paper(found.architecture, result)
        assert paper.shape == expected.shape
        assert torch.equal(paper, expected)
    return found


def kinds(found: Trace) -> list[str]:
    """What the nodes are, by their words, foreign ones by their kinds."""
    return [n.operation.word or getattr(n.operation, "kind", "") for n in found.architecture.nodes[1:]]


class Does(nn.Module):
    """A function as a model, with modules that it may use."""

    def __init__(self, function: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


# ------------------------------------------------------------------------------------------------------ the law, random


@dataclass
class Step:
    """A function of earlier tensors, and the layers that it uses."""

    kind: str
    function: Callable[..., Tensor]
    sources: tuple[int, ...]


class Random(nn.Module):
    """A random graph."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes, self.steps, self.layers = axes, list[Step](), nn.ModuleList()

    def extra_repr(self) -> str:
        return " ".join(f"{step.kind}{step.sources}" for step in self.steps)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for step in self.steps:
            values.append(step.function(*(values[k] for k in step.sources)))
        return values[-1]


CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d}
TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}
MEANS: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d}
ADAPTIVE: dict[int, Any] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d}
NORMS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


class Settled(nn.Module):
    """Batch normalisation; PyTorch gives a wrong one for gradients with strides such as (4, 1, 12, 4) in evaluation."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        if y.requires_grad:
            y.register_hook(lambda gradient: gradient.contiguous())
        return y


def small(draw: Any, least: int, most: int, axes: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(least, most)) for _ in range(axes))


def layer(draw: Any, kind: str, axes: int, channels: int, size: tuple[int, ...]) -> Any:
    groups = draw(st.sampled_from([g for g in (1, 2, 4) if channels % g == 0]))
    kernel = small(draw, 1, 3, axes)
    match kind:
        case "conv":
            mode = draw(st.sampled_from(["zeros", "circular", "replicate"]))
            return CONVS[axes](channels, 4, kernel, small(draw, 1, 3, axes), small(draw, 0, 2, axes),
                               small(draw, 1, 2, axes), groups, padding_mode=mode)  # fmt: skip
        case "transposed":
            return TRANSPOSED[axes](channels, 4, kernel, small(draw, 1, 2, axes), groups=groups)
        case "mean":
            return MEANS[axes](kernel, small(draw, 1, 2, axes), ceil_mode=draw(st.booleans()))
        case "adaptive":
            return ADAPTIVE[axes](small(draw, 1, 4, axes))
        case "norm":
            return Settled(NORMS[axes](channels))
        case "nearest":
            return nn.Upsample(scale_factor=draw(st.integers(2, 3)))
        case "linear":
            return nn.Upsample(size=small(draw, 1, 7, axes), mode="linear" if axes == 1 else "bilinear",
                               align_corners=draw(st.booleans()))  # fmt: skip
        case _:
            return {"relu": nn.ReLU(), "softsign": nn.Softsign(), "silu": nn.SiLU(inplace=False)}[kind]


def function(draw: Any, kind: str, channels: int, size: tuple[int, ...]) -> Callable[[Tensor], Any]:
    axis = draw(st.integers(2, len(size) + 1))
    n = size[axis - 2]
    match kind:
        case "shuffle":
            return lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        case "crop":
            start = draw(st.integers(0, n - 1))
            return lambda x: x.narrow(axis, start, n - start)
        case "every other":
            return lambda x: x[:, :, ::2]
        case "pad":
            rows = small(draw, 0, 2, 2 * len(size))
            return lambda x: F.pad(x, rows, value=1.0)  # a zero times a gate has no slope
        case "reflect":
            rows = tuple(min(r, m - 1) for m in size[::-1] for r in small(draw, 0, 1, 2))
            return lambda x: F.pad(x, rows, mode="reflect")
        case "gate":
            return lambda x: x * F.softsign(x.mean(tuple(range(2, x.dim())), keepdim=True))
        case "rows":
            return lambda x: x + x.mean(axis, keepdim=True)
        case "flip":
            return lambda x: x.flip(axis)
        case "half":
            return lambda x: sum(x.chunk(2, 1)[:2])  # one of them alone may hide where a branch comes from
        case "repeat":
            return lambda x: x.repeat_interleave(2, axis)
        case "last":
            return lambda x: F.linear(x.movedim(1, -1), torch.ones(4, channels, dtype=x.dtype)).movedim(-1, 1)
        case "tokens":
            return lambda x: (x.flatten(2).transpose(1, 2) + 1).transpose(1, 2).unflatten(2, x.shape[2:])
        case "along":
            return lambda x: F.linear(x, torch.ones(5, x.shape[-1], dtype=x.dtype)) if channels > 1 else x + 1
        case _ if len(size) == 1:
            return lambda x: x + 1
        case _:  # frames stand with the batch
            return lambda x: (
                F.avg_pool1d(x.transpose(1, 2).flatten(0, 1), 2, 1).unflatten(0, (x.shape[0], -1)).transpose(1, 2)
            )


LAYERS = ("conv", "conv", "transposed", "mean", "adaptive", "norm", "nearest", "linear", "relu", "softsign", "silu")
FUNCTIONS = ("shuffle", "crop", "every other", "pad", "reflect", "gate", "rows", "flip", "half", "repeat",
             "last", "tokens", "along", "frames")  # fmt: skip
JOINS = ("add", "multiply", "cat", "stack")


def joined(kind: str) -> Any:
    return {"add": torch.add, "multiply": torch.mul, "cat": lambda a, b: torch.cat([a, b], 1),
            "stack": lambda a, b: torch.stack([a, b], 2).mean(2)}[kind]  # fmt: skip


@st.composite
def graphs(draw: Any) -> tuple[Random, tuple[int, ...]]:
    """A random model and the shape of its input; steps that PyTorch refuses are left out."""
    axes = draw(st.sampled_from([1, 2]))
    shape = (2, *small(draw, 3, 9 if axes == 1 else 6, axes))
    model = Random(axes)
    values = [torch.rand(1, *shape, dtype=torch.float64) + 0.5]
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(LAYERS + FUNCTIONS + JOINS))
        last = len(values) - 1
        sources = (last,) if kind not in JOINS else (last, draw(st.integers(0, last)))
        one = values[sources[0]]
        channels, size = one.shape[1], tuple(one.shape[2:])
        step: Any
        if kind in LAYERS:
            made = layer(draw, kind, axes, channels, size)
            if draw(st.booleans()) and model.layers and kind == "conv":
                made = next((m for m in model.layers if isinstance(m, CONVS[axes])), made)  # shared
            step = positive(made)
        else:
            step = joined(kind) if kind in JOINS else function(draw, kind, channels, size)
        try:
            with torch.no_grad():
                value = step(*(values[k] for k in sources))
        except (RuntimeError, ValueError, IndexError):
            continue
        if value.dim() != axes + 2 or value.numel() > 2000 or min(value.shape) < 1:
            continue
        if isinstance(step, nn.Module):
            model.layers.append(step)
        model.steps.append(Step(kind, step, sources))
        values.append(value)
    return model, shape


@settings(max_examples=120, deadline=None)
@given(graphs())
def test_a_random_graph_reads_what_its_gradient_reaches(drawn: tuple[Random, tuple[int, ...]]) -> None:
    model, shape = drawn
    check(model, shape)


# -------------------------------------------------------------------------------------------------- models, by hand


class Basic(nn.Module):
    """A residual block, whose sum and activations work in place."""

    def __init__(self, given: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = nn.Sequential(nn.Conv2d(given, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.downsample(x)
        return self.relu(y)


def test_a_residual_block_is_named_as_the_model_names_it() -> None:
    found = check(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Basic(4, 8, 2)), (3, 6, 5))
    assert [(n.name, n.inputs) for n in found.architecture] == [
        ("input", ()),
        ("0", ("input",)),
        ("1.conv1", ("0",)),
        ("1.bn1", ("1.conv1",)),
        ("1.relu", ("1.bn1",)),
        ("1.conv2", ("1.relu",)),
        ("1.bn2", ("1.conv2",)),
        ("1.downsample.0", ("0",)),
        ("1.downsample.1", ("1.downsample.0",)),
        ("1.add", ("1.bn2", "1.downsample.1")),
        ("1.relu_2", ("1.add",)),
    ]
    nodes = {n.name: n for n in found.architecture}
    assert nodes["1.conv1"].operation == ops.Conv(3, 8, stride=2, padding=1, bias=False)
    assert nodes["1.conv1"].source == "1.conv1 (Conv2d)"
    assert nodes["1.add"].source.startswith("test_tracing.py:")
    assert nodes["1.add"].operation == ops.Sum()
    assert found.notes == ()


def shuffled(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def test_a_shufflenet_unit() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        one, two = x.chunk(2, dim=1)
        return shuffled(torch.cat([one, m.point(m.depth(two))], 1), 2)

    model = Does(forward, depth=nn.Conv2d(4, 4, 3, padding=1, groups=4), point=nn.Conv2d(4, 4, 1))
    found = check(model, (8, 5, 4))
    assert kinds(found) == ["CHANNELS", "CHANNELS", "CONV", "CONV", "CONCAT", "SHUFFLE"]
    assert found.architecture.nodes[-1].operation == ops.Shuffle(2)
    assert [n.operation for n in found.architecture.nodes[1:3]] == [
        ops.Channels(("part", (1, 2))),
        ops.Channels(("part", (2, 2))),
    ]


def test_a_convnext_block_works_on_each_position_of_channels_last() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.norm(m.depth(x).permute(0, 2, 3, 1))
        return x + (m.gamma * m.down(F.gelu(m.up(y)))).permute(0, 3, 1, 2)

    layers = {"depth": nn.Conv2d(4, 4, 7, padding=3, groups=4), "norm": nn.LayerNorm(4), "up": nn.Linear(4, 16),
              "down": nn.Linear(16, 4), "gamma": nn.Parameter(torch.ones(4))}  # fmt: skip
    found = check(Does(forward, **layers), (4, 6, 5), reads=False)  # the slope of a normalisation is rounded to nothing
    assert kinds(found) == ["CONV", "LN", "CONV", "GELU", "CONV", "SCALE", "SUM"]
    assert torch.equal(on_paper(found.architecture, "add"), on_paper(found.architecture, "depth"))


def test_squeeze_and_excitation() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        s = m.up(F.relu(m.down(x.mean((2, 3)))))
        return x * torch.sigmoid(s)[:, :, None, None]

    found = check(Does(forward, down=nn.Linear(4, 2), up=nn.Linear(2, 4)), (4, 5, 3))
    assert kinds(found) == ["GLOBALAVGPOOL", "FC", "RELU", "FC", "SIGMOID", "PRODUCT"]


class Attention(nn.Module):
    """Self-attention over the positions of a map, as in a vision transformer."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 2, 2)
        self.place = nn.Parameter(torch.zeros(1, 6, width))
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.fused = heads, fused

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.place
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) / 2, dim=-1) @ v
        return self.project(y.transpose(1, 2).reshape(n, t, c)).transpose(1, 2).unflatten(2, (2, 3))


@pytest.mark.parametrize("fused", [False, True])
def test_attention_reads_every_position_and_keeps_its_own(fused: bool) -> None:
    found = trace(Attention(8, 2, fused), (3, 4, 6))
    shapes = found.architecture.shapes()
    assert parameters(found) == sum(p.numel() for p in Attention(8, 2, fused).parameters())
    assert macs(found) == counted(Attention(8, 2, fused), (3, 4, 6)) or fused  # the counter misses the CPU's own kernel
    assert shapes["project"] == (8, 2, 3)
    assert bool(on_paper(found.architecture, "project").all())
    assert torch.equal(on_paper(found.architecture, "qkv"), on_paper(found.architecture, "embed"))


def test_both_ways_of_attention_cost_the_same() -> None:
    assert macs(trace(Attention(8, 2, True), (3, 4, 6))) == macs(trace(Attention(8, 2, False), (3, 4, 6)))


def test_masked_attention_is_not_guessed() -> None:
    found = trace(Does(lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True)), (2, 5, 4))
    (node,) = found.architecture.nodes[1:]
    assert node.operation.multiply_adds() == 2 * 2 * 5 * 5 * 4
    assert set(node.operation.reads()) == {
        "scaled_dot_product_attention: its mask says which positions are read, and tracing knows no values"
    }


def test_a_class_token_reads_everything_after_attention() -> None:
    class Token(Attention):
        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.place[:, :1].expand(x.shape[0], -1, -1), x], 1)
            weights = torch.softmax(x @ x.transpose(1, 2), -1)
            return self.project((weights @ x)[:, 0])

    found = trace(Token(8, 2, False), (3, 4, 6))
    assert found.architecture.shapes()["project"] == (8,)
    assert bool(on_paper(found.architecture, "project").all())
    assert parameters(found) == sum(p.numel() for p in Token(8, 2, False).parameters())


def test_a_unet() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        a = F.relu(m.one(x))
        b = F.relu(m.two(F.avg_pool2d(a, 2)))
        return m.out(torch.cat([m.up(b), a], 1))

    layers = {"one": nn.Conv2d(1, 2, 3, padding=1), "two": nn.Conv2d(2, 4, 3, padding=1),
              "up": nn.ConvTranspose2d(4, 2, 2, 2), "out": nn.Conv2d(4, 1, 3, padding=1)}  # fmt: skip
    found = check(Does(forward, **layers), (1, 8, 6))
    assert kinds(found) == ["CONV", "RELU", "AVGPOOL", "CONV", "RELU", "DECONV", "CONCAT", "CONV"]


@dataclass
class Both:
    """What a segmentation model gives."""

    out: Tensor
    aux: Tensor
    name: str = "both"


@pytest.mark.parametrize("give", [tuple, list, lambda o: {"out": o[0], "aux": o[1]}, lambda o: Both(*o)])
def test_all_outputs_are_listed_the_first_one_first(give: Any) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = m.body(x)
        aux = m.aux(y.mean((2, 3)))
        return give([m.head(F.relu(y).mean((2, 3))), aux])

    layers = {"body": nn.Conv2d(3, 4, 3), "aux": nn.Linear(4, 2), "head": nn.Linear(4, 2)}
    assert trace(Does(forward, **layers), (3, 8, 8)).architecture.results == ("head", "aux")


def test_functions_alone_are_named_by_what_they_do() -> None:
    weight, more = nn.Parameter(torch.ones(4, 3, 3, 3)), nn.Parameter(torch.ones(2, 4))

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, m.weight, padding=1))
        return F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), m.more) + 1

    found = check(Does(forward, weight=weight, more=more), (3, 5, 5))
    assert [n.name for n in found.architecture] == ["input", "conv2d", "relu", "mean", "linear", "add"]


def test_mobilenets_inverted_residual() -> None:
    layers = [nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True),
              nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True),
              nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4)]  # fmt: skip
    found = check(Does(lambda m, x: x + m.layers(x), layers=nn.Sequential(*layers)), (4, 5, 5))
    assert kinds(found) == ["CONV", "BN", "RELU6", "CONV", "BN", "RELU6", "CONV", "BN", "SUM"]


def test_a_shared_layer_has_its_parameters_once_and_its_work_twice() -> None:
    found = check(Does(lambda m, x: m.conv(F.relu(m.conv(x))), conv=nn.Conv2d(2, 2, 3)), (2, 8, 8))
    first, _, second = found.architecture.nodes[1:]
    assert (first.name, second.name) == ("conv", "conv_2")
    assert isinstance(second.operation, ops.Conv)
    assert (first.operation.parameters((2, 8, 8)), second.operation.parameters((2, 6, 6))) == (38, 0)
    assert found.notes == ("conv_2 uses parameters of conv again; they are counted there only.",)
    assert copy.deepcopy(second.operation) == second.operation


def test_tied_weights_are_counted_once() -> None:
    one, two = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)
    two.weight = one.weight
    found = check(nn.Sequential(one, two), (2, 8, 8))
    assert [n.operation.parameters((2, 8, 8)) for n in found.architecture.nodes[1:]] == [38, 2]


def test_parameters_that_nothing_reads_are_told() -> None:
    found = check(Does(lambda m, x: m.conv(x), conv=nn.Conv2d(2, 2, 3), dead=nn.Linear(3, 4)), (2, 8, 8))
    assert found.unused == 16
    assert found.notes == ("16 parameters are never read: dead.weight, dead.bias.",)


def test_what_leads_to_no_output_is_left_out() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        m.dead(x)
        return m.conv(x)

    found = trace(Does(forward, conv=nn.Conv2d(2, 2, 3), dead=nn.Conv2d(2, 4, 1)), (2, 8, 8))
    assert [n.name for n in found.architecture] == ["input", "conv"]
    assert found.unused == 12


def test_factored_weights_are_counted_where_they_are_used() -> None:
    conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3))
    found = check(Does(lambda m, x: m.conv(x), conv=conv), (2, 6, 6))
    assert [(n.name, n.operation.parameters((2, 6, 6))) for n in found.architecture.nodes[1:]] == [("conv", 3 + 54 + 3)]


def test_a_norm_without_weights_learns_nothing() -> None:
    found = check(nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 2, 1)), (3, 4, 4))
    norm = found.architecture.nodes[1].operation
    assert isinstance(norm, ops.BatchNorm)
    assert norm.parameters((3, 4, 4)) == 0


@pytest.mark.parametrize("affine", [False, True])
def test_instance_norm_reads_every_position(affine: bool) -> None:
    found = trace(nn.InstanceNorm2d(3, affine=affine), (3, 4, 4))
    (norm,) = found.architecture.nodes[1:]
    assert isinstance(norm.operation, ops.InstanceNorm)
    assert norm.operation.parameters((3, 4, 4)) == (6 if affine else 0)
    assert bool(on_paper(found.architecture, norm.name).all())


def test_what_is_written_in_place_is_read_by_all_who_come_later() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.conv(x)
        view = y.flatten(2)
        y.relu_()
        view.add_(1)
        return m.conv2(y)

    found = check(Does(forward, conv=nn.Conv2d(2, 2, 3), conv2=nn.Conv2d(2, 2, 3)), (2, 8, 8), reads=False)
    assert [(n.name, n.inputs) for n in found.architecture.nodes[2:]] == [
        ("relu", ("conv",)),
        ("add", ("relu",)),
        ("conv2", ("add",)),
    ]


def test_what_is_written_to_a_part_is_not_guessed() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.conv(x)
        y[:, 0] = x[:, 0, 1:-1, 1:-1]
        return m.conv2(y)

    found = trace(Does(forward, conv=nn.Conv2d(2, 2, 3), conv2=nn.Conv2d(2, 2, 3)), (2, 8, 8))
    last = found.architecture["conv2"]
    (writing,) = last.inputs
    node = found.architecture[writing]
    assert isinstance(node.operation, Foreign)
    assert set(node.operation.reading) == {"a part of it is written to through a view"}
    assert "conv" in node.inputs
    assert found.architecture.shapes()["conv2"] == (2, 4, 4)


def test_halves_of_a_map_are_written_to_one_by_one() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        one, two = m.conv(x).chunk(2, 1)
        return torch.cat([one.relu_(), two.sigmoid_()], 1)

    found = trace(Does(forward, conv=nn.Conv2d(2, 4, 3)), (2, 6, 6))
    assert kinds(found) == ["CONV", "CHANNELS", "CHANNELS", "RELU", "SIGMOID", "CONCAT"]


def test_a_canvas_that_is_filled_is_not_guessed() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        canvas = torch.zeros(x.shape[0], 4, 8, 8)
        canvas[:, :2] = x
        return m.conv(canvas)

    found = trace(Does(forward, conv=nn.Conv2d(4, 2, 3)), (2, 8, 8))
    assert [n.name for n in found.architecture] == ["input", "copy", "conv"]
    assert found.architecture["copy"].operation.reads((2, 8, 8)) == ("a part of it is written to through a view",)


# ------------------------------------------------------------------------------- what the evidence page says goes wrong


def test_strided_transposed_convolutions_cost_what_they_do() -> None:
    for stride in (2, 4):
        check(nn.ConvTranspose2d(4, 6, 4, stride, 1), (4, 5, 4))
    check(nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2), (4, 5, 4))


def test_custom_operators_are_unknown_and_say_so() -> None:
    @torch.library.custom_op("striate_test::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    @twice.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    found = trace(Does(lambda m, x: m.conv(twice(x)), conv=nn.Conv2d(2, 2, 3)), (2, 8, 8))
    node = found.architecture.nodes[1]
    assert node.name == "twice"
    assert node.operation.multiply_adds((2, 8, 8)) is None
    assert node.operation.unknown == "nobody has told what striate_test::twice costs"
    assert node.operation.reads((2, 8, 8)) == ("what striate_test::twice reads is not known here",)


@pytest.mark.parametrize("name", ["pad", "dist", "linear", "normal", "sum", "relu", "view"])
def test_a_custom_operator_is_not_the_operator_of_pytorch_that_has_its_name(name: str) -> None:
    @torch.library.custom_op(f"striate_test::{name}", mutates_args=())
    def scores(x: Tensor, weight: Tensor) -> Tensor:
        return x.flatten(1) @ weight.t()

    @scores.register_fake
    def _(x: Tensor, weight: Tensor) -> Tensor:
        return x.new_empty(x.shape[0], weight.shape[0])

    row = describe(Does(lambda m, x: scores(x, m.weight), weight=nn.Parameter(torch.randn(3, 8))), (2, 2, 2)).rows[-1]
    assert (row.kind, row.parameters) == (f"striate_test::{name}", 24)
    assert (row.macs, row.saved_bytes, row.receptive_field) == (None, None, None)


# Channels that are positions of the input, and positions that are channels again.
APART: list[Any] = [
    lambda m, x: F.unfold(x, 3, padding=1).view(x.shape[0], 2, 9, 6, 6)[:, :, 4],
    lambda m, x: F.unfold(x, 3, padding=1).view(x.shape[0], 18, 6, 6)[:, :1],
    lambda m, x: x.unfold(2, 3, 1)[..., 1],
    lambda m, x: x.view(-1, 2, 3, 2, 3, 2).permute(0, 3, 5, 1, 2, 4).reshape(-1, 8, 3, 3)[:, :2],
    lambda m, x: m.grouped(x.view(-1, 2, 3, 2, 3, 2).permute(0, 3, 5, 1, 2, 4).reshape(-1, 8, 3, 3))[:, :2],
    lambda m, x: F.fold(F.unfold(x, 2, stride=2), (6, 6), 2, stride=2),
    lambda m, x: m.rows(x.permute(0, 2, 1, 3))[:, :1],
    lambda m, x: torch.cat([x, m.conv(x)], 1)[:, [0, 1]],
    lambda m, x: torch.cat([x, m.conv(x)], 1).index_select(1, torch.tensor([0, 1])),
    lambda m, x: x.flatten(1)[:, 30:42],
]


@pytest.mark.parametrize("function", APART)
def test_channels_that_are_positions_are_not_told_apart(function: Any) -> None:
    parts = {"grouped": nn.Conv2d(8, 8, 1, groups=4), "rows": nn.Conv2d(6, 6, 3, padding=1, groups=6)}
    row = describe(Does(function, conv=nn.Conv2d(2, 2, 3, padding=1), **parts), (2, 6, 6)).rows[-1]
    assert (row.receptive_field, row.coverage, row.unread) == (None, None, None)
    assert row.unknown["receptive_field"].endswith(SELECTED)


def test_a_dense_layer_reads_all_channels_that_are_positions() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.conv(F.unfold(x, 2, stride=2).view(x.shape[0], 8, 3, 3))[:, :1]

    row = describe(Does(forward, conv=nn.Conv2d(8, 4, 1)), (2, 6, 6)).rows[-1]
    assert (row.receptive_field, row.coverage, row.unread) == ((2, 2), 1.0, 0)


def test_a_custom_operator_without_sizes_says_what_to_add() -> None:
    @torch.library.custom_op("striate_test::blind", mutates_args=())
    def blind(x: Tensor) -> Tensor:
        return x * 2

    with pytest.raises(OptionError) as caught:
        trace(nn.Sequential(nn.Conv2d(2, 2, 3), Does(lambda m, x: blind(x))), (2, 8, 8))
    words = str(caught.value)
    assert words.startswith("In 1 (Does), test_tracing.py:")
    assert words.endswith(
        ": the size of what striate_test::blind gives cannot be told from the sizes that it is given; for an operator "
        "of your own, tell it with torch.library.register_fake."
    )


FIELDS = [
    (nn.Sequential(*(nn.Conv2d(1, 1, 3) for _ in range(3))), 7, 1.0),
    (nn.Sequential(*(nn.Conv2d(1, 1, 3, dilation=2) for _ in range(3))), 13, 49 / 169),
    (nn.Sequential(*(nn.Conv2d(1, 1, 3, dilation=d) for d in (1, 2, 5))), 17, 1.0),
]


@pytest.mark.parametrize(("model", "size", "share"), FIELDS)
def test_receptive_fields_and_the_share_of_them_that_is_read(model: nn.Module, size: int, share: float) -> None:
    found = check(model, (1, size, size))
    reads = on_paper(found.architecture, found.architecture.results[0])
    assert reads.shape == (1, size**2)
    assert reads.double().mean() == pytest.approx(share)


def test_receptive_field_of_parallel_branches_and_of_1x7() -> None:
    branches = Does(
        lambda m, x: m.a(x)[:, :, 4:-4, 4:-4] + m.b(x), a=nn.Conv2d(1, 1, 1), b=nn.Conv2d(1, 1, 3, dilation=4)
    )
    found = check(branches, (1, 9, 9))
    assert on_paper(found.architecture, "add").sum() == 9
    found = check(nn.Conv2d(1, 1, (1, 7), padding=(0, 3)), (1, 4, 9))
    assert on_paper(found.architecture, found.architecture.results[0]).sum(1).max() == 7


def test_after_a_transposed_convolution_the_field_is_not_empty() -> None:
    found = check(nn.Sequential(nn.Conv2d(1, 1, 3), nn.ConvTranspose2d(1, 1, 3, 2)), (1, 6, 6))
    assert on_paper(found.architecture, "1").any(1).all()


# ------------------------------------------------------------------------------------------------- one operation each

SINGLE: list[tuple[Any, tuple[int, ...], list[str]]] = [
    (nn.Conv1d(2, 4, 3, 2, 1, 2, 2), (2, 9), ["CONV"]),
    (nn.Conv3d(2, 3, 2), (2, 3, 4, 3), ["CONV"]),
    (nn.Conv2d(2, 3, 2, padding="same"), (2, 4, 4), ["PAD", "CONV"]),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 4, 4), ["PAD", "CONV"]),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 4, 4), ["PAD", "CONV"]),
    (nn.ConvTranspose1d(2, 3, 3, 2, dilation=2), (2, 4), ["DECONV"]),
    (nn.AvgPool1d(2), (2, 8), ["AVGPOOL"]),
    (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (2, 6, 6), ["AVGPOOL"]),
    (nn.AvgPool3d(2), (2, 4, 4, 4), ["AVGPOOL"]),
    (nn.AdaptiveAvgPool1d(3), (2, 7), ["ADAPTIVEAVGPOOL"]),
    (nn.AdaptiveAvgPool2d((3, 1)), (2, 7, 5), ["ADAPTIVEAVGPOOL"]),
    (nn.AdaptiveAvgPool2d(1), (2, 7, 5), ["GLOBALAVGPOOL"]),
    (nn.AdaptiveAvgPool3d((2, None, 1)), (2, 4, 3, 3), ["ADAPTIVEAVGPOOL"]),
    (nn.Upsample(scale_factor=2), (2, 3, 3), ["UPSAMPLE"]),
    (nn.Upsample(size=(5, 7)), (2, 3, 3), ["RESIZE"]),
    (nn.Upsample(scale_factor=2, mode="bilinear"), (2, 3, 3), ["UPSAMPLE"]),
    (nn.Upsample(scale_factor=1.5, mode="bilinear", align_corners=True), (2, 4, 4), ["RESIZE"]),
    (nn.Upsample(scale_factor=1.7), (2, 6, 6), ["upsample_nearest2d"]),
    (nn.Upsample(scale_factor=1.7, mode="bilinear"), (2, 6, 6), ["upsample_bilinear2d"]),
    (nn.Upsample(scale_factor=2, mode="bicubic"), (2, 5, 5), ["upsample_bicubic2d"]),
    (nn.Upsample(size=7, mode="nearest-exact"), (2, 5), ["upsample_nearest_exact1d"]),
    (nn.Upsample(scale_factor=2, mode="trilinear"), (2, 3, 2, 2), ["UPSAMPLE"]),
    (nn.PixelShuffle(2), (8, 3, 3), ["PIXELSHUFFLE"]),
    (nn.PixelUnshuffle(2), (2, 4, 4), ["PIXELUNSHUFFLE"]),
    (nn.ChannelShuffle(2), (4, 3, 3), ["SHUFFLE"]),
    (nn.ReflectionPad2d((1, 2, 0, 1)), (2, 4, 4), ["PAD"]),
    (nn.ReplicationPad1d(2), (2, 4), ["PAD"]),
    (nn.ZeroPad2d(-1), (2, 4, 4), ["CROP"]),
    (nn.ZeroPad2d((-1, 1, 0, 0)), (2, 4, 4), ["constant_pad"]),
    (nn.Unfold(2, stride=2), (2, 4, 4), ["unfold", "rearrange"]),
    (nn.PReLU(), (2, 3, 3), ["PRELU"]),
    (nn.PReLU(2), (2, 3, 3), ["PRELU"]),
    (nn.LeakyReLU(0.2), (2, 3, 3), ["LEAKYRELU"]),
    (nn.ReLU6(), (2, 3, 3), ["RELU6"]),
    (nn.Hardswish(), (2, 3, 3), ["HARDSWISH"]),
    (nn.Hardsigmoid(), (2, 3, 3), ["HARDSIGMOID"]),
    (nn.ELU(), (2, 3, 3), ["ELU"]),
    (nn.Mish(), (2, 3, 3), ["mish"]),
    (nn.GELU(), (2, 3, 3), ["GELU"]),
    (nn.SiLU(inplace=True), (2, 3, 3), ["SILU"]),
    (nn.Tanh(), (2, 3, 3), ["TANH"]),
    (nn.Dropout(0.5), (2, 3, 3), ["DROPOUT"]),
    (nn.Dropout(0.0), (2, 3, 3), []),
    (nn.Identity(), (2, 3, 3), []),
    (nn.LocalResponseNorm(3), (4, 3, 3), ["LRN"]),
    (nn.LPPool2d(2, 2), (2, 4, 4), ["LPPOOL"]),
    (nn.Flatten(), (2, 3, 3), ["FLATTEN"]),
    (nn.Linear(4, 3), (2, 3, 4), ["linear"]),
]


@pytest.mark.parametrize(("layer", "shape", "words"), SINGLE, ids=[str(k) for k in range(len(SINGLE))])
def test_a_layer_is_the_operation_that_it_is(layer: nn.Module, shape: tuple[int, ...], words: list[str]) -> None:
    inner = Does(lambda m, x: m.layer(x), layer=layer)
    flat = words == ["FLATTEN"] or layer.__class__.__name__ == "Unfold"
    found = check(inner, shape, reads=not flat)
    assert kinds(found) == words


VIEWS: list[tuple[Callable[[Any, Tensor], Tensor], tuple[int, ...], list[str]]] = [
    (lambda m, x: x.contiguous().clone().view_as(x), (2, 3, 3), []),
    (lambda m, x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2), (2, 3, 4), []),
    (lambda m, x: m.conv(x.transpose(2, 3)), (2, 3, 4), ["CONV"]),
    (lambda m, x: x.view(-1, 2, 2, 2, 3, 2).permute(0, 1, 3, 5, 2, 4).flatten(1, 3), (2, 4, 6), ["PIXELUNSHUFFLE"]),
    (lambda m, x: x.view(-1, 2, 2, 3, 3).permute(0, 3, 1, 4, 2).reshape(-1, 1, 6, 6), (4, 3, 3), ["PIXELSHUFFLE"]),
    (lambda m, x: x[..., None].expand(-1, -1, -1, -1, 2).flatten(3), (2, 3, 4), ["UPSAMPLE"]),
    (lambda m, x: x.view(x.shape[0], 2, 2, 4, 4).max(2).values, (4, 4, 4), ["MAXOUT"]),
    (lambda m, x: x.view(x.shape[0], 2, 2, 2, 3, 2).mean((3, 5)), (2, 4, 6), ["mean"]),
    (lambda m, x: x[:, :, 1:-1, 2:], (2, 4, 4), ["CROP", "CROP"]),
    (lambda m, x: x[:, 1], (3, 4, 4), ["CHANNELS"]),
    (lambda m, x: x[:, [2, 0]], (3, 4, 4), ["index"]),
    (lambda m, x: x.unfold(2, 3, 2).mean(-1), (2, 7), ["unfold", "mean"]),
    (lambda m, x: F.fold(F.unfold(x, 3, stride=2), (7, 5), 3, stride=2), (2, 7, 5), ["unfold", "fold"]),
    (lambda m, x: torch.einsum("bchw,dc->bdhw", x, torch.ones(3, 2).to(x)), (2, 3, 4), ["CONV"]),
    (lambda m, x: torch.stack([x, x + 1]).sum(0), (2, 3, 4), ["add", "CONCAT", "sum"]),
    (lambda m, x: F.conv1d(x.flatten(0, 1).flatten(0, 1)[:, None], torch.ones(1, 1, 3).to(x)).view(x.shape[0], 2, 3, 4),
     (2, 3, 6), ["rearrange", "CONV"]),
]  # fmt: skip


@pytest.mark.parametrize(("function", "shape", "words"), VIEWS, ids=[str(k) for k in range(len(VIEWS))])
def test_views_are_followed(function: Any, shape: tuple[int, ...], words: list[str]) -> None:
    assert kinds(check(Does(function, conv=nn.Conv2d(2, 2, (1, 3))), shape, reads=False)) == words
    model = positive(Does(function, conv=nn.Conv2d(2, 2, (1, 3))))
    found = trace(model, shape)
    if words not in (["MAXOUT"], ["unfold", "fold"]):  # which positions alone says less than which channels
        result = found.architecture.results[0]
        # A lone channel taken out leaves a map without a channel axis.
        expected = by_gradient(lambda x: model(x) if model(x).dim() == x.dim() else model(x)[:, None], shape)
        if tuple(found.architecture.shapes()[result][1:]) == tuple(model(torch.rand(1, *shape).double()).shape[2:]):
            assert torch.equal(on_paper(found.architecture, result), expected)


def test_max_poolings_read_what_mean_poolings_read() -> None:
    for most, mean, shape in (
        (nn.MaxPool1d(3, 2, 1), nn.AvgPool1d(3, 2, 1), (2, 9)),
        (nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 2, ceil_mode=True), (2, 6, 6)),
        (nn.MaxPool3d(2), nn.AvgPool3d(2), (2, 4, 4, 4)),
        (nn.AdaptiveMaxPool2d(3), nn.AdaptiveAvgPool2d(3), (2, 7, 5)),
    ):
        one, other = trace(most, shape).architecture, trace(mean, shape).architecture
        assert isinstance(one.nodes[-1].operation, ops.Pool | ops.AdaptivePool)
        assert torch.equal(on_paper(one, one.results[0]), on_paper(other, other.results[0]))


def test_what_depends_on_other_examples_is_not_guessed() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True)

    node = trace(Does(forward), (2, 4, 4)).architecture.nodes[-1]
    assert node.operation.reads((2, 4, 4)) == ("native_batch_norm: its statistics are those of the whole batch",)


def test_an_operator_that_is_known_to_nobody_has_unknown_costs() -> None:
    node = trace(Does(lambda m, x: torch.fft.rfft2(x).real), (2, 4, 4)).architecture.nodes[1]
    assert node.operation.multiply_adds((2, 4, 4)) is None
    assert node.operation.unknown == "nobody has told what aten::_fft_r2c costs"


# ------------------------------------------------------------------------------------------------- layers of our own

OWN: list[tuple[nn.Module, tuple[int, ...], str]] = [
    (striate.nn.Conv2d(2, 4, 3, stride=2, padding="same"), (2, 6, 5), "CONV"),
    (striate.nn.Conv1d(2, 4, 3, padding=1, padding_mode="reflect"), (2, 6), "CONV"),
    (striate.nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1), (2, 4, 4), "DECONV"),
    (striate.nn.ConvLocal2d(2, 3, 3, (5, 5)), (2, 5, 5), "LOCAL"),
    (striate.nn.ConvTiled2d(2, 3, 3, 2), (2, 6, 6), "TILED"),
    (striate.nn.MaxPool2d(3, 2, padding=1), (2, 6, 6), "POOL"),
    (striate.nn.AvgPool2d(2), (2, 6, 6), "AVGPOOL"),
    (striate.nn.LPPool2d(2, 2), (2, 6, 6), "LPPOOL"),
    (striate.nn.GaussianPool2d(3, 2), (2, 6, 6), "GAUSSPOOL"),
    (striate.nn.AdaptiveAvgPool2d(3), (2, 7, 5), "ADAPTIVEAVGPOOL"),
    (striate.nn.AdaptiveMaxPool2d(1), (2, 7, 5), "GLOBALPOOL"),
    (striate.nn.Maxout(2), (4, 3, 3), "MAXOUT"),
    (striate.nn.LocalResponseNorm(3), (4, 3, 3), "LRN"),
    (striate.nn.ChannelShuffle(2), (4, 3, 3), "SHUFFLE"),
]


@pytest.mark.parametrize(("layer", "shape", "word"), OWN, ids=[type(one[0]).__name__ for one in OWN])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_our_own_layers_are_their_own_operations(
    layer: nn.Module, shape: tuple[int, ...], word: str, device: str
) -> None:
    model = nn.Sequential(copy.deepcopy(layer).to(device))
    found = trace(model, shape)
    assert kinds(found) == [word]
    assert parameters(found) == sum(p.numel() for p in model.parameters())
    if device == "cpu":
        (result,) = found.architecture.results
        assert found.architecture.shapes()[result] == tuple(model(torch.rand(1, *shape)).shape[1:])


def test_our_own_unpooling_knows_its_pooling() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        values, switches = m.pool(x)
        return m.back(values, switches)

    layers = {"pool": striate.nn.MaxPool2d(2, return_indices=True), "back": striate.nn.MaxUnpool2d(2)}
    found = trace(Does(forward, **layers), (2, 4, 6))
    assert found.architecture["back"].operation == ops.Unpool("pool", 2)
    assert found.architecture.shapes()["back"] == (2, 4, 6)


def test_pytorchs_unpooling_knows_its_pooling() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        values, switches = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(values, switches, [2, 2])

    found = trace(Does(forward), (2, 4, 6))
    assert found.architecture.nodes[-1].operation == ops.Unpool("max_pool2d", 2)


# ------------------------------------------------------------------------------------------------------------ messages


def told(model: nn.Module, shape: Any, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        trace(model, shape)
    return str(caught.value)


def test_the_model_that_fails_says_where() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(5, 4, 3))
    assert told(model, (3, 8, 8), GeometryError) == (
        "In 2 (Conv2d), given 3x8x8: weights of shape (4, 5, 3, 3) take 5 channels, but there are 4."
    )
    assert told(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), (3, 2, 2), GeometryError) == (
        "In 1 (Linear), given 3x2x2: a and b must have same reduction dim, but got [1, 12] X [5, 2]."
    )


def test_the_root_that_fails_says_in_which_line() -> None:
    words = told(Does(lambda m, x: torch.cat([x, m.conv(x)], 1), conv=nn.Conv2d(3, 3, 3)), (3, 33, 47), GeometryError)
    assert words.startswith("In Does, test_tracing.py:")
    assert ", given 3x33x47: Sizes of tensors must match" in words


def test_what_one_example_does_and_two_do_not() -> None:
    model = Does(lambda m, x: m.one(x) if len(x.shape) == x.shape[0] + 3 else m.two(x),
                 one=nn.Conv2d(3, 3, 1), two=nn.Conv2d(3, 3, 3))  # fmt: skip
    words = told(model, (3, 8, 8), OptionError)
    assert words.startswith("In two, test_tracing.py:")
    same = Does(lambda m, x: m.conv(x).reshape(x.shape[0], -1), conv=nn.Conv2d(3, 2, 3))
    assert kinds(trace(same, (3, 8, 8))) == ["CONV", "FLATTEN"]


def test_sizes_that_are_none() -> None:
    assert told(nn.ReLU(), (3, 0), OptionError) == (
        "input_size=(3, 0) must be (channels, *spatial) of one example, as in (3, 224, 224)."
    )
    assert told("resnet", (3, 8), OptionError) == "model must be a torch.nn.Module, got str."  # type: ignore[arg-type]


def test_models_that_take_more_than_one_tensor() -> None:
    assert told(nn.Bilinear(2, 2, 2), (2,), OptionError) == (
        "Bilinear.forward needs 2 arguments (input1, input2), but one tensor is given; wrap the model in a module that "
        "takes one and fills in the others."
    )


def test_lazy_layers_must_have_been_called() -> None:
    assert told(nn.Sequential(nn.LazyConv2d(3, 3)), (3, 8, 8), OptionError) == (
        "Sequential has lazy layers without weights; call the model once before."
    )


def test_models_that_look_at_values() -> None:
    words = told(nn.Sequential(Does(lambda m, x: x if x.sum() > 0 else -x)), (3, 8, 8), OptionError)
    assert words.startswith("In 0 (Does), test_tracing.py:")
    assert words.endswith(
        ": what the model does next depends on the value of a tensor, and tracing knows sizes only; let the model "
        "decide by sizes, or trace the parts before and behind it."
    )


def test_models_that_give_nothing() -> None:
    assert told(Does(lambda m, x: None), (3, 8, 8), OptionError) == (
        "Does gives no tensor that depends on its input; return what it computes."
    )


def test_models_that_insist_on_one_example() -> None:
    found = trace(
        Does(lambda m, x: m.fc(m.conv(x).view(1, -1)), conv=nn.Conv2d(1, 2, 3), fc=nn.Linear(32, 3)), (1, 6, 6)
    )
    assert found.architecture.shapes()["fc"] == (3,)
    assert macs(found) == 32 * 9 + 96


# --------------------------------------------------------------------------------------------------- nothing is touched


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(5 if fails else 4, 2, 1))
    model[1].eval()
    model(torch.rand(2, 3, 8, 8)).sum().backward() if not fails else None
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    flags = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    everywhere = vars(torch.nn.modules.module)
    hooks = [copy.copy(everywhere[name]) for name in ("_global_forward_hooks", "_global_forward_pre_hooks")]
    if fails:
        told(model, (3, 8, 8), GeometryError)
    else:
        trace(model, (3, 8, 8))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for p, grad in zip(model.parameters(), grads, strict=True):
        assert (p.grad is None) == (grad is None)
        assert p.grad is None or grad is None or torch.equal(p.grad, grad)
    assert [module.training for module in model.modules()] == flags
    assert hooks == [everywhere[name] for name in ("_global_forward_hooks", "_global_forward_pre_hooks")]
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_model_that_counts_its_calls_is_not_called() -> None:
    class Counts(nn.Module):
        calls: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * 2

    model = Counts()
    trace(model, (3, 4, 4))
    assert model.calls == 0


def test_two_threads_trace_at_once() -> None:
    model = nn.Sequential(*(Basic(4, 4) for _ in range(4)))
    expected = trace(model, (4, 8, 8))
    found: list[Trace] = []
    threads = [threading.Thread(target=lambda: found.append(trace(Basic(4, 4), (4, 8, 8)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert trace(model, (4, 8, 8)) == expected
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(one == found[0] for one in found)


def test_models_on_the_meta_device_and_large_images_are_no_harder() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    found = trace(model, (3, 8192, 8192))
    assert found.architecture.shapes() == {
        "input": (3, 8192, 8192), "0": (8, 8192, 8192), "1": (8, 8192, 8192), "2": (8, 8192, 8192), "3": (8, 1, 1)
    }  # fmt: skip


def test_the_same_shapes_as_torchs_for_every_kind_of_floats() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).to(
            dtype
        )
        assert kinds(trace(model, (3, 8, 8))) == ["CONV", "BN", "RELU", "FC"]


# ------------------------------------------------------------------------------------------------------ whole networks


@pytest.mark.parametrize("name", sorted(peers_zoo.NETWORKS))
def test_published_networks_cost_what_pytorch_counts(name: str) -> None:
    shape = peers_zoo.INPUTS[name]
    with torch.device("meta"):
        model = peers_zoo.build(name).eval()
    found = trace(model, shape)
    assert parameters(found) == sum(p.numel() for p in model.parameters())
    assert found.unused == 0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *shape, device="meta"))
    assert macs(found) == counter.get_total_flops() / 2
    shapes = found.architecture.shapes()
    for node in found.architecture:
        reading = node.operation.reads(*[shapes[one] for one in node.inputs])
        assert not [entry for entry in reading if isinstance(entry, str)]


def test_the_work_of_tracing_grows_with_the_layers_alone() -> None:
    with torch.device("meta"):
        shallow, deep = peers_zoo.build("resnet50"), peers_zoo.build("resnet152")
    assert len(trace(shallow, (3, 224, 224)).architecture.nodes) == 175
    for size in (224, 8192):
        assert len(trace(deep, (3, size, size)).architecture.nodes) == 515
    work = calls(lambda: trace(deep, (3, 224, 224)))
    assert work < 4 * calls(lambda: trace(shallow, (3, 224, 224)))
    assert work == pytest.approx(calls(lambda: trace(deep, (3, 8192, 8192))), rel=0.2)


def test_a_transformer_encoder() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = Does(lambda m, x: m.layer(m.embed(x).flatten(2).mT), layer=layer, embed=nn.Conv2d(3, 8, 2, 2)).eval()
    found = trace(model, (3, 4, 6))
    assert parameters(found) == sum(p.numel() for p in model.parameters())
    assert bool(on_paper(found.architecture, found.architecture.results[0]).all())
    tokens, width = 6, 8
    attention = 4 * tokens * width**2 + 2 * tokens**2 * width
    assert macs(found) == tokens * width * 12 + attention + 2 * tokens * width * 16


def test_windows_of_positions_attend_to_themselves() -> None:
    """As in a Swin transformer: nothing outside a window of 2x3 is read."""

    def forward(m: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.view(n, c, h // 2, 2, w // 3, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 6, c)
        y = y @ y.transpose(1, 2) @ y
        return y.view(n, h // 2, w // 3, 2, 3, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)

    found = check(Does(forward), (2, 4, 6))
    assert on_paper(found.architecture, found.architecture.results[0]).sum(1).tolist() == [6] * 24


def test_frames_stand_with_the_batch() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        n, c, t, h, w = x.shape
        y = m.conv(x.transpose(1, 2).reshape(n * t, c, h, w))
        return y.view(n, t, 3, h, w).transpose(1, 2)

    found = check(Does(forward, conv=nn.Conv2d(2, 3, 3, padding=1)), (2, 3, 4, 5))
    assert found.architecture["conv"].operation == ops.Conv((1, 3, 3), 3, padding=(0, 1, 1))


# --------------------------------------------------------------------------------------------- examples and recurrence


def readings(found: Trace, kind: str) -> list[Any]:
    """Of the only node of a kind."""
    (node,) = [n for n in found.architecture if isinstance(n.operation, Foreign) and n.operation.kind == kind]
    return list(node.operation.reading) if isinstance(node.operation, Foreign) else []


@pytest.mark.parametrize(
    ("function", "shape", "out"),
    [
        (lambda m, x: torch.fft.rfft(x.permute(2, 0, 1)), (8, 7), (7, 5)),
        (lambda m, x: torch.fft.rfft(x), (6, 8), (6, 5)),
        (lambda m, x: torch.fft.rfft(x.permute(1, 0)), (8,), (8, 1)),
        (lambda m, x: torch.stft(x[:, 0], 16, window=m.window, return_complex=True).abs(), (1, 256), (9, 65)),
        (lambda m, x: torch.stft(x[:, 0], 16, window=m.plain, return_complex=True).abs(), (1, 256), (9, 65)),
        (lambda m, x: m.encoder(x.permute(2, 0, 1)), (8, 7), (7, 8)),
        (lambda m, x: m.lstm(x.permute(2, 0, 1))[0], (8, 7), (7, 4)),
    ],
)
def test_the_examples_are_no_axis_of_one(function: Any, shape: tuple[int, ...], out: tuple[int, ...]) -> None:
    model = Does(function, lstm=nn.LSTM(8, 4), encoder=nn.TransformerEncoderLayer(8, 2))
    model.register_buffer("window", torch.hann_window(16))
    model.plain = torch.hann_window(16)
    if len(shape) == 1:
        assert trace(model, shape).architecture.shapes()
        return
    assert list(trace(model, shape).architecture.shapes().values())[-1] == out


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_is_one_node(kind: Any, both: bool) -> None:
    layer = kind(8, 16, 2, batch_first=True, bidirectional=both)
    found = trace(Does(lambda m, x: m.layer(x.transpose(1, 2))[0], layer=layer), (8, 6))
    assert parameters(found) == sum(p.numel() for p in layer.parameters())
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(layer).to("meta")(torch.empty(1, 6, 8, device="meta"))
    assert macs(found) == counter.get_total_flops() / 2
    (reading,) = readings(found, kind.__name__)
    if both:
        assert reading == ((None, striate.relations.Relation.everything(6)),)
    else:
        assert reading == "a recurrent layer reads all steps before its own"


def test_a_recurrent_layer_of_six_steps_and_its_states() -> None:
    model = nn.LSTM(3, 4, batch_first=True)
    assert macs(trace(Does(lambda m, x: m.layer(x.transpose(1, 2))[0], layer=model), (3, 6))) == 672
    shapes = trace(nn.LSTM(8, 16, batch_first=True), (6, 8)).architecture
    assert [shapes.shapes()[name] for name in shapes.outputs] == [(6, 16), (1, 16), (1, 16)]
    last = trace(Does(lambda m, x: m.layer(x.transpose(1, 2))[1][0][-1], layer=model), (3, 6))
    assert parameters(last) == sum(p.numel() for p in model.parameters())
    assert last.architecture.shapes()[last.architecture.nodes[-1].name] == (4,)


def test_cells_are_nodes() -> None:
    for layer, gates in ((nn.LSTMCell(8, 8), 4), (nn.GRUCell(8, 8), 3), (nn.RNNCell(8, 8), 1)):
        found = trace(Does(lambda m, x: m.layer(x, m.layer(x)), layer=layer), (8,))
        assert macs(found) == 2 * gates * 8 * 16
        assert parameters(found) == sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: torch.einsum("bchw,bcwv->bchv", m.conv(x), m.conv(x)),
        lambda m, x: m.conv(x).transpose(2, 3) @ m.conv(x),
    ],
)
def test_positions_of_the_second_factor_of_a_product_are_not_claimed(function: Any) -> None:
    row = describe(Does(function, conv=nn.Conv2d(3, 3, 3, padding=1)), (3, 8, 8)).rows[-1]
    assert (row.receptive_field, row.unread) == (None, None)
    assert row.unknown["receptive_field"].endswith(SELECTED)


def test_dropout_has_a_node_and_its_input_keeps_its_own() -> None:
    found = trace(Does(lambda m, x: x + F.dropout(x, 0.2, m.training)), (3, 4, 4))
    assert [node.inputs for node in found.architecture] == [(), ("input",), ("input", "dropout")]
    assert found.architecture.nodes[1].operation == ops.Dropout(0.2)
    for layer in (nn.Dropout2d(0.3), nn.AlphaDropout(0.3), nn.Dropout(0.3, inplace=True)):
        assert kinds(trace(nn.Sequential(nn.Conv2d(3, 3, 1), layer), (3, 4, 4))) == ["CONV", "DROPOUT"]
    assert kinds(trace(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0)), (3, 4, 4))) == ["CONV"]


def test_only_a_relu_in_place_is_in_place() -> None:
    for inplace in (True, False):
        found = trace(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=inplace)), (3, 4, 4))
        assert kinds(found) == ["CONV", "RELU"]
        assert found.architecture.nodes[-1].operation.in_place == inplace


def test_parameters_unlike_their_word_are_marked() -> None:
    shared = nn.Conv2d(3, 3, 1)
    found = trace(nn.Sequential(shared, shared), (3, 4, 4)).architecture
    assert [hasattr(node.operation, "foreign_note") for node in found] == [False, False, True]
    fixed = trace(nn.BatchNorm2d(3, affine=False), (3, 4, 4)).architecture.nodes[-1].operation
    assert fixed == ops.BatchNorm(affine=False)


def test_rolled_positions_are_not_beside_each_other() -> None:
    assert isinstance(readings(trace(Does(lambda m, x: x.roll(1, 2)), (3, 4, 4)), "roll")[0], str)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.AdaptiveAvgPool1d(999983), (1, 1000003)),
        (nn.Upsample(size=10**6 + 3, mode="linear"), (1, 10**6)),
        (nn.ConvTranspose1d(1, 1, 1, stride=10**7), (1, 100)),
    ],
)
def test_long_axes_take_little_work(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """Two calls a position at most, and no more for a thousand million positions."""
    assert calls(lambda: trace(layer, shape)) < 2e6


NUMBERS = [
    (
        nn.LeakyReLU(-0.1),
        "LEAKYRELU -0.1 cannot be written as a text: found '-', expected '->'",
    ),
    (
        nn.LPPool2d(float("inf"), 2),
        "LPPOOL p=Infinity cannot be written as a text: p=Infinity: 'Infinity' is",
    ),
    (
        nn.Dropout(1.0),
        "DROPOUT 1.0 cannot be written as a text: DROPOUT takes a probability from 0 up to but",
    ),
    (nn.LocalResponseNorm(3, alpha=-1.0), "LRN 3 alpha=-1.0 cannot be written as a text: alpha=-1.0: '-1.0' is not a"),
]


@pytest.mark.parametrize(("layer", "words"), NUMBERS, ids=lambda value: type(value).__name__)
def test_numbers_that_a_text_cannot_hold_are_refused(layer: nn.Module, words: str) -> None:
    with pytest.raises(NotationError) as caught:
        striate.notation.format(trace(layer, (3, 4, 4)).architecture)
    assert str(caught.value).startswith(words)
