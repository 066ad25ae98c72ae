"""A step by hand, by automatic differentiation and by finite differences: three ways to the same numbers."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import striate
from striate import backpropagation, lessons
from striate.datasets import Dataset, Split
from striate.errors import GeometryError, OptionError, UnknownNameError
from striate.lessons import Trace, trace
from striate.losses import Loss
from striate.networks import Network, network

ALEXNET = (
    "INPUT 3x35x35 -> CONV11-8 stride=4 padding=0 -> RELU -> LRN 5 alpha=5e-4 k=2 -> POOL 3 stride=2 -> "
    "CONV5-6 groups=2 -> RELU -> LRN 5 -> POOL 3 stride=2 padding=1 -> FC 12 -> RELU -> DROPOUT 0.5 -> FC 3"
)
# Every operator that has a formula; the networks of several axes and with branches among them.
TEXTS = [
    "INPUT 1x6x6 -> CONV3-2 -> RELU -> POOL -> FC 3",
    "INPUT 2x7x8 -> CONV 3x2x4 stride=2x3 padding=1x0 dilation=2x1 groups=2 -> TANH -> FC 3",
    "INPUT 2x9x8 -> CONV3-4 stride=2 padding=0 -> CONV2-4 padding=0 stride=3 bias=no -> FC 3",
    "INPUT 2x7x8 -> CONV3-4 border=reflect -> CONV3-3 border=circular -> CONV5-2 border=replicate dilation=2 -> FC 3",
    "INPUT 2x6x6 -> DWCONV3 multiplier=2 stride=2 -> FC 3 bias=no",
    "INPUT 2x5x4 -> DECONV3-4 stride=2 padding=1 output_padding=1 groups=2 -> FC 3",
    "INPUT 2x5x4 -> DECONV2-4 dilation=2 bias=no -> FC 3",
    "INPUT 2x6x5 -> LOCAL3-4 stride=2 groups=2 -> FC 3",
    "INPUT 2x6x5 -> TILED3-4 tile=2x3 -> FC 3",
    "INPUT 2x6x5 -> TILED3-4 tile=9 -> FC 3",
    "INPUT 2x8x7 -> POOL 3 stride=2 padding=1 -> AVGPOOL 2 stride=1 ceil=yes padding=1 -> FC 3",
    "INPUT 2x8x7 -> AVGPOOL 3 stride=2 padding=1 count_padding=yes ceil=yes -> POOL 2 ceil=yes -> FC 3",
    "INPUT 2x8x7 -> ADAPTIVEPOOL 3x2 -> FC 3",
    "INPUT 2x8x7 -> ADAPTIVEAVGPOOL 3x2 -> FC 3",
    "INPUT 4x8x7 -> GLOBALPOOL -> FC 3",
    "INPUT 4x8x7 -> GLOBALAVGPOOL -> FC 3",
    "INPUT 2x8x8 -> CONV3-4 -> POOL as p -> CONV3-4 -> UNPOOL of=p -> FC 3",
    "INPUT 1x8x8 -> CONV3-4 -> TANH -> FC 6 -> RBF 3",
    "INPUT 2x4x4 -> FLATTEN -> FC 3",
    "INPUT 3x6x6 -> CONV3-4 -> SUM[CONV3-4 -> RELU | IDENTITY] -> FC 3",
    "INPUT 3x6x6 -> CONV3-4 -> PRODUCT[GLOBALAVGPOOL -> CONV1-4 -> SIGMOID | IDENTITY] -> FC 3",
    "INPUT 3x6x6 -> PRODUCT[FC 3 -> TANH | IDENTITY | CONV1-3] -> FC 3",
    "INPUT 3x6x6 -> CONCAT[CONV1-2 | CONV3-3 | IDENTITY] -> FC 3",
    "INPUT 3x6x6 -> CONV3-4 -> DROPOUT 0.4 -> FC 3",
    "INPUT 3x6x6 -> CONV3-4 -> SCALE -> BN -> FC 3",
    "INPUT 3x6x6 -> CONV3-4 -> SCALE bias=no -> BN affine=no -> FC 3",
    "INPUT 3x6x6 -> CONV3-4 -> LN -> GN 2 -> IN -> FC 3",
    "INPUT 3x6x6 -> CONV3-7 -> LRN 4 alpha=0.5 -> LRN 5 alpha=0.1 beta=0.7 k=2 -> FC 3",
    "INPUT 3x6x6 -> CONV3-4 -> MAXOUT 2 -> FC 3",
    "INPUT 3x6x6 -> CONV3-4 -> SHUFFLE 2 -> CHANNELS 0,2,3 -> FC 3",
    "INPUT 4x6x6 -> PIXELSHUFFLE 2 -> PIXELUNSHUFFLE 3 -> FC 3",
    "INPUT 2x4x4 -> UPSAMPLE 2 -> RESIZE 5x3 -> FC 3",
    "INPUT 2x4x4 -> PAD 1 border=reflect -> CROP 1x0:1 -> FC 3",
    "INPUT 2x4x4 -> SOFTMAX -> FC 3 -> SOFTMAX",
    "INPUT 2x4x4 -> CONV3-3 -> RELU6 -> LEAKYRELU 0.2 -> PRELU -> ELU -> FC 3",
    "INPUT 2x4x4 -> CONV3-3 -> GELU -> SILU -> HARDSWISH -> HARDSIGMOID -> SIGMOID -> FC 3",
    "INPUT 2x17 -> CONV5-4 stride=2 -> RELU -> LRN 3 -> POOL -> FC 3",
    "INPUT 1x5x6x7 -> CONV3-2 stride=2 -> BN -> RELU -> POOL 2 -> FC 3",
    "lenet5_original",
    ALEXNET,
]


def example(text: str, count: int = 3) -> tuple[Network, Tensor, Tensor]:
    torch.manual_seed(0)
    built = network(text)
    for name, parameter in built.named_parameters():
        if "bn" in name or "prelu" in name:
            torch.nn.init.uniform_(parameter, -1, 1)
    return built, 4 * torch.randn(count, *built.input_shape), torch.arange(count) % 3


def learned(built: Network) -> list[str]:
    return [name for name, _ in built.named_parameters()]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("text", TEXTS)
def test_the_recursion_gives_what_autograd_gives(text: str, training: bool) -> None:
    built, x, y = example(text)
    found = trace(built.train(training), x, y)
    scale = max(1.0, *(row.delta.abs().max().item() for row in found.rows))
    assert all(row.difference is not None for row in found.rows)
    assert found.largest_difference <= 1e-12 * scale
    assert found.agrees
    assert sorted(one.parameter for one in found.gradients) == sorted(learned(built))
    assert built.training is training


@pytest.mark.parametrize("loss", ["softmax", "svm", "mse"])
@pytest.mark.parametrize("text", [TEXTS[0], "INPUT 1x4x4 -> CONV3-4 -> RELU -> CONV1-3"], ids=["classes", "maps"])
def test_the_loss_its_delta_and_the_step_are_those_of_pytorch(text: str, loss: str) -> None:
    built, x, y = example(text)
    if "FC" not in text:
        y = torch.randint(0, 3, (3, 4, 4))
    found = trace(built, x, y, loss, 0.01)
    assert found.agrees
    wide = network(text).double()
    wide.load_state_dict(built.state_dict())
    optimizer = torch.optim.SGD(wide.parameters(), 0.01)

    def value() -> Tensor:
        scores = wide(x.double()).movedim(1, -1).flatten(0, -2)
        hot = torch.nn.functional.one_hot(y.flatten(), 3).double()
        if loss == "mse":
            return (scores - hot).square().mean()
        if loss == "softmax":
            return -(scores.log_softmax(1) * hot).sum(1).mean()
        margins = (scores - (scores * hot).sum(1, keepdim=True) + 1).clamp(min=0) * (1 - hot)
        return margins.sum(1).mean()

    before = value()
    before.backward()
    optimizer.step()
    assert found.value == pytest.approx(before.item(), rel=1e-12)
    assert found.after == pytest.approx(value().item(), rel=1e-9)
    assert found.after < found.value
    for one in found.gradients:
        torch.testing.assert_close(one.after, wide.get_parameter(one.parameter).detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ignored", [5, 48], ids=["some", "all"])
def test_pixels_of_255_count_in_masks_as_little_as_in_training(ignored: int) -> None:
    text = "INPUT 1x4x4 -> CONV3-4 -> RELU -> CONV1-3"
    built, x, _ = example(text)
    y = torch.randint(0, 3, (3, 4, 4), dtype=torch.uint8)
    y.view(-1)[:ignored] = 255
    found = trace(built, x, y)
    wide = network(text).double()
    wide.load_state_dict(built.state_dict())
    loss = Loss("softmax")(wide(x.double()), y)
    loss.backward()
    assert found.agrees
    assert found.value == pytest.approx(loss.item(), rel=1e-12)
    for one in found.gradients:
        torch.testing.assert_close(one.gradient, wide.get_parameter(one.parameter).grad, rtol=1e-9, atol=1e-12)
    divided = "(softmax(z) - y) / 43" if ignored == 5 else "softmax(z) - y"
    assert found["conv2"].origin == f"{divided}, 0 where y is 255"
    for other in ("svm", "mse"):
        assert trace(built, x, y, other).agrees


def test_numbers_to_come_near_to_may_be_given_for_mse() -> None:
    built, x, _ = example("INPUT 1x4x4 -> CONV3-2")
    goal = torch.randn(3, 2, 4, 4)
    found = trace(built, x, goal, "mse")
    assert found.agrees
    z = found.rows[-1].output
    torch.testing.assert_close(found.rows[-1].delta, 2 * (z - goal) / goal.numel())
    assert found.rows[-1].origin == "(2 (z - t) / classes) / 48"


def test_delta_of_the_input_is_the_slope_that_small_steps_measure() -> None:
    built, x, y = example("INPUT 2x6x6 -> CONV3-3 stride=2 -> TANH -> AVGPOOL 2 stride=1 -> BN -> FC 3", 2)
    delta = trace(built, x, y)["input"].delta
    for at in [(0, 0, 0, 0), (0, 1, 3, 2), (1, 0, 5, 5)]:
        step = torch.zeros_like(x, dtype=torch.float64)
        step[at] = 1e-5
        slope = (trace(built, x.double() + step, y).value - trace(built, x.double() - step, y).value) / 2e-5
        assert delta[at].item() == pytest.approx(slope, rel=1e-6, abs=1e-9)


# -------------------------------------------------------------------------------------------------------------- by hand


def tiny() -> tuple[Network, Tensor]:
    built = network("INPUT 1x3x3 -> CONV2-1 padding=0 -> RELU -> AVGPOOL 2 -> FC 2")
    values = {
        "conv1.weight": [[[[1.0, -1.0], [0.0, 2.0]]]],
        "conv1.bias": [0.5],
        "fc1.weight": [[1.0], [-1.0]],
        "fc1.bias": [0.0, 0.0],
    }
    built.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    return built, torch.tensor([[[[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [2.0, 0.0, 1.0]]]])


def test_a_step_by_hand() -> None:
    built, x = tiny()
    step = trace(built, x, torch.tensor([1]), "svm", 0.5, detail="input")
    # z = W ⋆ x + b: 1 - 2 + 0 + 2 + 0.5, 2 - 0 + 0 + 6 + 0.5, 0 - 1 + 0 + 0 + 0.5, 1 - 3 + 0 + 2 + 0.5
    assert step["conv1"].output.flatten().tolist() == [1.5, 8.5, -0.5, 0.5]
    assert step["avgpool1"].output.item() == (1.5 + 8.5 + 0 + 0.5) / 4
    assert step["fc1"].output.tolist() == [[2.625, -2.625]]
    assert step.value == 2.625 + 2.625 + 1  # max(0, z_0 - z_1 + 1)
    assert step["fc1"].delta.tolist() == [[1.0, -1.0]]
    assert step["avgpool1"].delta.item() == 1 * 1 + (-1) * (-1)
    assert step["relu1"].delta.flatten().tolist() == [2 / 4] * 4
    assert step["conv1"].delta.flatten().tolist() == [0.5, 0.5, 0.0, 0.5]
    # δ * rot180(W): the kernel 2 0 / -1 1 slides over δ with a border of zeros.
    expected = [
        [0.5 * 1, 0.5 * -1 + 0.5 * 1, 0.5 * -1],
        [0.5 * 0 + 0 * 1, 0.5 * 2 + 0.5 * 0 + 0 * -1 + 0.5 * 1, 0.5 * 2 + 0.5 * -1],
        [0 * 0, 0 * 2 + 0.5 * 0, 0.5 * 2],
    ]
    assert step["input"].delta[0, 0].tolist() == expected
    gradients = {one.parameter: one for one in step.gradients}
    # ∂L/∂W = x ⋆ δ: 0.5 (1 + 2 + 1), 0.5 (2 + 0 + 3), 0.5 (0 + 1 + 0), 0.5 (1 + 3 + 1)
    assert gradients["conv1.weight"].gradient.flatten().tolist() == [2.0, 2.5, 0.5, 2.5]
    assert gradients["conv1.bias"].gradient.item() == 0.5 + 0.5 + 0.5
    assert gradients["fc1.weight"].gradient.flatten().tolist() == [2.625, -2.625]
    assert gradients["conv1.weight"].after.flatten().tolist() == [1 - 1.0, -1 - 1.25, 0 - 0.25, 2 - 1.25]
    assert step.largest_difference == 0
    assert step.detail == "\n".join(
        [
            "δ(input)[0, 1, 1] = 1.5",
            "  through conv1, δ(conv1) * rot180(W):",
            "          +0.5 *         +2    δ(conv1)[0, 0, 0] * W[0, 0, 1, 1] = rot180(W)[0, 0]",
            "          +0.5 *         +1    δ(conv1)[0, 1, 1] * W[0, 0, 0, 0] = rot180(W)[1, 1]",
            "    = 1.5",
        ]
    )


PRINTED = """\
Backwards: δ = ∂L/∂z

layer     δ is                                                  δ                               autograd
--------------------------------------------------------------------------------------------------------
fc1       1 where z_j - z_y + 1 > 0, minus their number at y    1 -1                            same
avgpool1  Wᵀ δ(fc1)                                             2                               same
relu1     upsample(δ(avgpool1) / area)                          0.5 0.5 0.5 0.5                 same
conv1     δ(relu1) ∘ [x > 0]                                    0.5 0.5 0 0.5                   same
input     δ(conv1) * rot180(W)                                  0.5 0 -0.5 0 1.5 0.5 0 0 1    same
"""


def test_what_is_printed() -> None:
    built, x = tiny()
    text = str(trace(built, x, torch.tensor([1]), "svm", 0.5))
    squeezed = [" ".join(line.split()) for line in text.splitlines()]
    for line in PRINTED.splitlines():
        assert line.startswith("---") or " ".join(line.split()) in squeezed
    assert "Loss svm: L = sum over j ≠ y of max(0, z_j - z_y + 1) = 6.25" in squeezed
    assert "conv1 CONV2-1 padding=0 z = W ⋆ x + b 1x2x2 1.5 8.5 -0.5 0.5" in squeezed
    assert "conv1.weight ∂L/∂W = x ⋆ δ 1x1x2x2 2 2.5 0.5 2.5 1 - 0.5 * 2 = 0 same" in squeezed
    assert "Every δ and gradient is exactly that of automatic differentiation." in squeezed


# ----------------------------------------------------------------------------------------------------- what it tells


def test_a_layer_that_several_read_gets_the_sum_of_what_they_give_back() -> None:
    built, x, y = example("INPUT 1x4x4 -> CONV3-2 -> SUM[CONV3-2 stride=1 | CONV3-2 -> RELU | IDENTITY] -> FC 3")
    assert trace(built, x, y)["conv1"].origin == "δ(sum1) + δ(conv3) * rot180(W) + δ(conv2) * rot180(W)"
    built, x, y = example("INPUT 1x5x5 -> CONV3-2 stride=2 -> FC 3")
    assert trace(built, x, y)["input"].origin == "dilate(δ(conv1)) * rot180(W)"


def test_what_has_no_formula_here_says_so_and_is_not_called_checked() -> None:
    built, x, y = example("INPUT 2x8x8 -> CONV3-3 -> LPPOOL -> TANH -> UPSAMPLE 2 mode=linear -> FC 3")
    found = trace(built, x, y)
    assert found.agrees
    assert found["lppool1"].formula == "by autograd: no formula in this lesson"
    assert found["conv1"].origin == "through lppool1 by autograd: no formula in this lesson"
    assert [row.name for row in found.rows if row.difference is None] == ["conv1", "tanh1"]
    assert "Every gradient, and every δ but of conv1, tanh1, is within " in str(found)
    assert found["input"].difference is not None
    detail = trace(built, x, y, detail="conv1").detail
    assert "  through lppool1: no formula in this lesson" in detail


def test_a_rule_that_is_wrong_is_called_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpropagation, "rotated", lambda w, groups: w.unflatten(0, (groups, -1)).transpose(1, 2))
    built, x, y = example(TEXTS[0])
    found = trace(built, x, y)
    assert not found.agrees
    assert "automatic differentiation: TOO FAR, one of the two is wrong." in str(found)


def test_auxiliary_outputs_are_left_out_and_said_so() -> None:
    built, x, y = example("INPUT 1x4x4 -> CONV3-2 -> AUX[FC 3] -> RELU -> FC 3")
    found = trace(built, x, y)
    assert found.agrees
    assert found.left_out == ("fc1",)
    assert [row.name for row in found.rows] == ["input", "conv1", "relu1", "fc2"]
    assert str(found).endswith("The loss is that of the main output; left out: fc1.")
    assert trace(built.eval(), x, y).left_out == ()


def test_the_network_and_the_examples_stay_as_they_are() -> None:
    built, x, y = example("INPUT 3x6x6 -> CONV3-4 -> BN -> RELU -> DROPOUT -> FC 3")
    before, given = {name: value.clone() for name, value in built.state_dict().items()}, x.clone()
    first = trace(built, x, y, learning_rate=10.0)
    assert all(value.equal(before[name]) for name, value in built.state_dict().items())
    assert x.equal(given)
    assert trace(built, x, y, learning_rate=10.0).value == first.value  # the same mask


def test_a_trace_as_json_has_every_number_of_small_tensors() -> None:
    built, x = tiny()
    found = json.loads(json.dumps(trace(built, x, torch.tensor([1]), "svm").to_dict(), allow_nan=False))
    assert found["rows"][1]["delta"]["values"] == [[[[0.5, 0.5], [0.0, 0.5]]]]
    assert found["rows"][1]["gradients"][1]["gradient"] == {
        "shape": [1], "mean": 1.5, "min": 1.5, "max": 1.5, "values": [1.5],
    }  # fmt: skip
    assert (found["value"], found["agrees"], found["largest_difference"]) == (6.25, True, 0.0)
    assert network(found["network"]).architecture == built.architecture


@pytest.mark.parametrize("name", ["conv1", "relu1", "pool1", "conv2", "tanh1", "sum1", "avgpool1"])
def test_the_arithmetic_of_one_delta_adds_up(name: str) -> None:
    text = "INPUT 1x8x8 -> CONV3-2 -> RELU -> POOL -> CONV3-3 stride=2 dilation=2 padding=2 -> TANH -> "
    built, x, y = example(text + "SUM[CONV3-3 | IDENTITY] -> AVGPOOL -> FC 3")
    found = trace(built, x, y, detail=name)
    blocks = found.detail.split("\n\n")
    assert len(blocks) == (2 if name in ("conv1", "conv2") else 1)
    for block in blocks:
        head, *lines = block.splitlines()
        total = float(head.split(" = ")[1])
        parts = [float(line.split("= ")[1]) for line in lines if line.startswith("    = ")]
        assert sum(parts) == pytest.approx(total, rel=2e-3)
        for part, terms in zip(parts, products(lines), strict=True):
            assert sum(a * b for a, b in terms) == pytest.approx(part, rel=5e-3, abs=1e-4)


def test_the_arithmetic_names_the_weight_and_its_place_in_the_rotated_kernel() -> None:
    built, x, y = example("INPUT 4x8x8 -> CONV 3x2x6 stride=2x1 dilation=1x2 padding=1 groups=2 -> FC 3", 1)
    detail = trace(built, x, y, detail="input").detail
    weight = built.get_parameter("conv1.weight").detach()
    found = re.findall(r"\* +(\S+) .*W\[(.*)\] = rot180\(W\)\[(.*)\]", detail)
    assert len(found) >= 3
    for factor, straight, turned in found:
        o, c, i, j = map(int, straight.split(", "))
        assert float(factor) == pytest.approx(weight[o, c, i, j].item(), rel=1e-3)
        rotated = tuple(map(int, turned.split(", ")))
        assert float(factor) == pytest.approx(weight.flip(2, 3)[o, c][rotated].item(), rel=1e-3)
    detail = trace(built, x, y, detail="conv1").detail
    found = re.findall(r"\* +(\S+) .*W\[(\d+), (\d+)\]$", detail, re.MULTILINE)
    assert len(found) >= 3
    for factor, row, column in found:
        value = built.get_parameter("fc1.weight")[int(row), int(column)].item()
        assert float(factor) == pytest.approx(value, rel=1e-3)
    assert trace(built, x, y, detail="fc1").detail.endswith(", from the loss")


def products(lines: list[str]) -> list[list[tuple[float, float]]]:
    """The factors that are written down, for each layer that they go through."""
    found: list[list[tuple[float, float]]] = []
    for line in lines:
        if line.startswith("  through"):
            found.append([])
        elif "δ(" in line:
            first, second = line.split("δ(")[0].split("*")
            found[-1].append((float(first), float(second)))
    return found


def test_of_very_many_products_the_first_are_shown() -> None:
    built, x, y = example("INPUT 1x6x6 -> CONV3-9 -> CONV3-9 -> FC 3", 1)
    assert "    and 57 products more" in trace(built, x, y, detail="conv1").detail
    built, x, y = example("INPUT 1x6x6 -> CONV3-9 -> FC 1025 -> FC 3", 1)
    assert trace(built, x, y, detail="conv1").detail.splitlines()[1] == "  through fc1: 1,025 products"


# ------------------------------------------------------------------------------------------------------------- refusals

BUILT, X, Y = example("INPUT 1x12x12 -> CONV3-2 -> RELU -> FLATTEN -> BN -> FC 3", 2)
TOO_FEW = "Expected more than 1 value per channel when training, got input size torch.Size([1, 288])"
REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: trace(BUILT, X, Y, "hinge"), UnknownNameError, "No loss is called 'hinge'. Known: mse, softmax, svm."),
    (
        lambda: trace(BUILT, X[0], Y),
        GeometryError,
        "trace takes examples of shape (N, 1, 12, 12), got (1, 12, 12); one example is x.unsqueeze(0).",
    ),
    (
        lambda: trace(BUILT, X, Y[:1]),
        OptionError,
        "target: softmax takes class numbers (2,), got torch.int64 (1,).",
    ),
    (
        lambda: trace(BUILT, X, Y.float()),
        OptionError,
        "target: softmax takes class numbers (2,), got torch.float32 (2,).",
    ),
    (
        lambda: trace(BUILT, X, torch.zeros(2, 4), "mse"),
        OptionError,
        "target: mse compares (2, 3) outputs, got (2, 4).",
    ),
    (lambda: trace(BUILT, X, Y + 2), OptionError, "target: there is no class 3; the network gives 3, from 0."),
    (lambda: trace(BUILT, X, Y - 1), OptionError, "target: there is no class -1; the network gives 3, from 0."),
    (
        lambda: trace(BUILT, X[:1], Y[:1]),
        OptionError,
        f"bn1 cannot compute a step: {TOO_FEW}; give more examples, or network.eval().",
    ),
    (
        lambda: trace(BUILT, X, Y, detail="conv1"),
        OptionError,
        (
            "detail='conv1': its map is 2x12x12; the arithmetic is written out for at most 8 positions on each axis. "
            "Layers of this network that have no more: flatten1, bn1, fc1."
        ),
    ),
    (
        lambda: trace(BUILT, X, Y, detail="conv2"),
        UnknownNameError,
        "No layer is called 'conv2'. Did you mean 'conv1'? Known: bn1, conv1, fc1, flatten1, input, relu1.",
    ),
    (
        lambda: trace(BUILT, X, Y)["fc2"],
        UnknownNameError,
        "No layer is called 'fc2'. Did you mean 'fc1'? Known: bn1, conv1, fc1, flatten1, input, relu1.",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refusals(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_a_network_whose_kernels_have_other_axes_than_the_data_is_refused() -> None:
    part = Split(torch.zeros(2, 1, 40), torch.tensor([0, 1]))
    tones = Dataset("tones", ("a", "b"), train=part, test=part)
    for text, layer, kernel in (("lenet5", "conv1", "5x5"), ("INPUT -> CONV3-2 -> CONV 3x2x4 -> FC", "conv2", "3x2")):
        with pytest.raises(OptionError) as caught:
            striate.train(text, tones)
        assert str(caught.value) == (
            f"the network is for pictures: the kernel of {layer}, {kernel}, is for 2 spatial axes, and the signals of "
            "tones are 1x40, which has 1. A kernel of a single number fits any."
        )


def test_the_recursion_asks_neither_autograd_nor_striate_s_own_convolutions() -> None:
    """Otherwise it would check nothing."""
    folder = Path(striate.__file__).parent
    for name in ("backpropagation", "derivatives"):
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        imported = {n.module or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
        assert imported <= {
            "__future__", "collections.abc", "dataclasses", "itertools", "typing", "torch",
            "geometry", "operations", "backpropagation",
        }  # fmt: skip
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not called & {"autograd", "functional", "backward", "grad", "vjp"}


def test_the_trace_is_a_value() -> None:
    built, x = tiny()
    found = trace(built, x, torch.tensor([0]))
    assert isinstance(found, Trace)
    assert lessons.TOLERANCE == 1e-9
    with pytest.raises(AttributeError):
        found.value = 0.0  # type: ignore[misc]
