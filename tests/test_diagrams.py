"""Diagrams of networks: what they show is what the table says."""

from __future__ import annotations

import pytest

from striate import zoo
from striate.analysis import describe
from striate.diagrams import network
from striate.rendering import to_png


def test_bars_and_fields_are_those_of_the_table() -> None:
    found = describe("INPUT 3x32x32 -> [CONV3-8 -> BN -> RELU -> POOL]*2 -> FC 10")
    above, below = network(found).axes
    names = ["input", "conv1", "pool1", "conv2", "pool2", "fc1"]
    assert [label.get_text() for label in below.get_xticklabels()] == names
    assert [round(bar.get_height()) for bar in above.patches[: len(names)]] == [32, 32, 16, 16, 8, 1]  # type: ignore[attr-defined]
    fields = [round(float(y)) for y in below.lines[1].get_ydata()]  # type: ignore[union-attr, arg-type]
    assert fields == [found[name].receptive_field[0] for name in names]  # type: ignore[index]
    assert above.get_title(loc="left") == "input 3x32x32: 5,970 parameters, 373,760 multiply-adds"
    assert {text.get_text() for text in above.texts} == {"3", "8", "10"}


def test_a_connection_that_skips_layers_is_an_arc() -> None:
    above = network(describe("INPUT 3x8x8 -> SUM[CONV3-3 -> RELU -> CONV3-3 | IDENTITY] -> FC 2")).axes[0]
    assert sum(text.get_text() == "" for text in above.texts) == 1  # an arrow is a note without words


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "unet", "m5", "c3d"])
def test_a_network_of_the_zoo_is_drawn(name: str) -> None:
    assert name in zoo.names()
    assert to_png(network(describe(name), name), dpi=30).startswith(b"\x89PNG")
