"""Memory: intervals against a simulation, and what is saved against what autograd keeps."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from striate.memory import memory
from striate.networks import network
from striate.notation import parse

PARTS = [
    *("CONV3-4", "CONV1-4 bias=no", "RELU", "BN", "TANH", "POOL", "AVGPOOL", "GELU", "SIGMOID"),
    *("SUM[CONV3-4 -> RELU | IDENTITY]", "CONCAT[CONV1-2 | CONV3-2 -> RELU]", "PRODUCT[IDENTITY | CONV3-4 -> SIGMOID]"),
    *("SUM[IDENTITY | CONV1-4]", "SUM[RELU | BN]", "DWCONV 3 padding=1", "UPSAMPLE 2", "SCALE"),
]
graphs = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map(lambda parts: " -> ".join(parts))


@settings(deadline=None, max_examples=60)
@given(parts=graphs)
def test_what_is_saved_is_what_autograd_keeps(parts: str) -> None:
    """The sum over the nodes is the memory of all tensors that autograd saves, each storage once, weights aside."""
    paper = parse(f"INPUT 4x32x32 -> CONV3-4 -> {parts} -> FC 3")
    net = network(paper).train()
    mine = {p.untyped_storage().data_ptr() for p in [*net.parameters(), *net.buffers()]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    x = torch.randn(1, 4, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(x)
    found = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in mine)
    claimed = sum(count or 0 for count in memory(paper, paper.shapes()).saved.values())
    assert claimed == found


def simulated(text: str) -> tuple[int, int]:
    """The peaks by keeping a set of what lives, step by step, for networks without sharing of memory."""
    paper = parse(text)
    shapes = paper.shapes()
    size = {name: 4 * prod(shape) for name, shape in shapes.items()}
    nodes = list(paper)
    readers = {n.name: [m.name for m in nodes if n.name in m.inputs] for n in nodes}
    peak, done = 0, set()
    for node in nodes:
        done.add(node.name)
        alive = [
            n for n in done
            if n == node.name or n in paper.results or any(r not in done or r == node.name for r in readers[n])
        ]  # fmt: skip
        peak = max(peak, sum(size[n] for n in alive))
    return peak, len(nodes)


PEAKS = [
    "INPUT 1x4x4 -> CONV3-2 -> TANH -> FC 3",
    "INPUT 1x4x4 -> CONV3-2 -> SUM[CONV3-2 -> TANH | CONV1-2] -> FC 3",
    "INPUT 1x8x8 -> CONV3-2 as a -> POOL -> CONV3-9 -> DECONV2-2 -> CONCAT[IDENTITY | from a] -> CONV1-2",
    "INPUT 1x4x4 -> CONV3-2 -> AUX[FC 5] -> CONV3-2 -> FC 3",
]


@pytest.mark.parametrize("text", PEAKS)
def test_the_peak_of_a_prediction(text: str) -> None:
    paper = parse(text)
    assert memory(paper, paper.shapes()).inference == simulated(text)[0]


def test_the_peak_of_a_training_step_by_hand() -> None:
    """INPUT 64 B, CONV 128 B, TANH 128 B, FC 12 B. Saved: the convolution's input, tanh's output (read by FC, too).

    The convolution's output lives until tanh has run: 64 + 128 + 128 = 320 B, the most of the forward pass. Backward at
    FC: 64 + 128 (saved) + 12 (its output) + 12 + 128 (gradients of its output and input) = 344 B, the most of all; at
    tanh: 64 + 128 + 128 + 128 = 448 B.
    """
    paper = parse("INPUT 1x4x4 -> CONV1-2 -> TANH -> FC 3")
    assert memory(paper, paper.shapes()).training == 448


def test_what_overwrites_or_shows_a_part_takes_no_memory() -> None:
    paper = parse("INPUT 4x8x8 -> CONV3-4 -> RELU -> CROP 1 -> CHANNELS 1/2 -> DROPOUT 0 -> FLATTEN -> FC 2")
    made = memory(paper, paper.shapes()).made
    assert [made[n] for n in ("relu1", "crop1", "channels1", "dropout1", "flatten1")] == [0] * 5
