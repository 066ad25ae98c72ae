"""The door: texts and torch models alike, and what this machine says of a table."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import striate
from striate import machine
from striate.errors import OptionError
from striate.inspection import describe

from .work import calls

TEXT = "INPUT 3x32x32 -> CONV 3x3x8 padding=1 -> RELU -> POOL 2 -> CONV 3x3x16 stride=2 padding=1 -> RELU -> FC 10"


def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 8 * 8, 10),
    )  # fmt: skip


def test_a_torch_model_has_the_table_of_its_text() -> None:
    paper, traced = describe(TEXT), describe(model(), (3, 32, 32))
    fields = ("output_shape", "parameters", "macs", "flops", "receptive_field", "jump", "offset", "coverage", "unread")
    for name in fields:
        assert [getattr(row, name) for row in traced.rows] == [getattr(row, name) for row in paper.rows], name
    assert traced.totals.parameters == sum(p.numel() for p in model().parameters())
    assert [row.kind for row in traced.rows[1:3]] == ["CONV3-8 padding=1", "RELU"]


def test_a_model_is_left_as_it_was() -> None:
    net = model().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    describe(net, (3, 32, 32))
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_what_a_torch_model_needs() -> None:
    with pytest.raises(OptionError) as caught:
        describe(model())
    assert str(caught.value) == (
        "a torch model needs input_size=(channels, *spatial) of one example, as in (3, 224, 224)."
    )
    with pytest.raises(OptionError) as caught:
        describe(model(), (3, 32, 32), filters=3)
    assert str(caught.value) == "a torch model has no variables; 'filters' was given. Texts have."


def test_the_least_time_is_that_of_the_two_ceilings() -> None:
    table = describe("INPUT 64x56x56 -> CONV3-64 -> RELU -> FLATTEN -> FC 10", time=True)
    ceilings = machine.calibrated()
    for row in table.rows:
        if row.moved_bytes:
            assert row.seconds == ceilings.limit(torch.float32, row.macs or 0, row.moved_bytes)[0]
    assert table["flatten1"].seconds == 0
    assert table.totals.seconds == sum(row.seconds or 0 for row in table.rows)
    assert table["conv1"].algorithm in striate.algorithms()
    assert table["relu1"].algorithm is None
    assert "time  by" in str(table)


def test_the_work_of_a_description_grows_with_the_layers_alone() -> None:
    assert describe("resnet50").totals.parameters == 25_557_032
    assert describe("resnet152").totals.parameters == 60_192_808
    assert calls(lambda: describe("resnet152")) < 4 * calls(lambda: describe("resnet50"))


def test_a_text_is_described_without_torch() -> None:
    code = "import sys, striate; striate.describe('resnet18'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_network_whose_layers_were_replaced_is_traced() -> None:
    net = striate.network("INPUT 3x16x16 -> CONV3-8 -> RELU -> POOL -> FC 10")
    assert describe(net) == describe("INPUT 3x16x16 -> CONV3-8 -> RELU -> POOL -> FC 10")
    net.pool1 = nn.AvgPool2d(2, 1)
    net.fc1 = nn.Linear(8 * 15 * 15, 4)
    net.forward = lambda x: net.fc1(net.pool1(net.relu1(net.conv1(x))).flatten(1))  # type: ignore[method-assign, operator]
    table = describe(net)
    assert table.result.output_shape == (4,)
    assert table.totals.parameters == sum(p.numel() for p in net.parameters())


def test_an_attribute_of_that_name_is_no_architecture() -> None:
    net = model()
    net.architecture = "mine"  # type: ignore[assignment]
    assert describe(net, (3, 32, 32)).totals.parameters == sum(p.numel() for p in net.parameters())
