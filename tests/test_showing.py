"""The pictures and the report of a run show what the network really does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from striate import showing
from striate.errors import OptionError
from striate.networks import network


def test_activations_are_those_of_every_layer_although_relu_works_in_place(bars_run: Any) -> None:
    m = showing.material(bars_run.folder)
    x = m.classifier.normalisation(m.data.test.inputs[:1])
    found = dict(showing.activations(m.classifier.network, x))
    w = load_file(bars_run.checkpoint)
    conv = torch.nn.functional.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=1)[0]
    torch.testing.assert_close(found["conv1"], conv)
    torch.testing.assert_close(found["relu1"], conv.relu())
    assert (found["conv1"] < 0).any()
    assert list(found) == ["conv1", "relu1", "pool1", "fc1"]
    torch.testing.assert_close(found["fc1"], m.classifier.scores(m.data.test.inputs[:1])[0])


def test_a_pooling_that_is_undone_later_shows_its_values_for_one_example() -> None:
    net = network("INPUT 1x8x8 -> CONV3-4 -> POOL as p -> UNPOOL of=p -> FC 3")
    shapes = {name: tuple(values.shape) for name, values in showing.activations(net, torch.randn(1, 1, 8, 8))}
    assert shapes == {"conv1": (4, 8, 8), "p": (4, 4, 4), "unpool1": (4, 8, 8), "fc1": (3,)}


def test_filters_are_the_learned_weights(bars_run: Any) -> None:
    m = showing.material(bars_run.folder)
    ((name, weight),) = showing.filters(m.classifier.network)
    assert name == "conv1"
    torch.testing.assert_close(weight, load_file(bars_run.checkpoint)["conv1.weight"], rtol=0, atol=0)


def test_every_picture_is_written(bars_run: Any, tmp_path: Path) -> None:
    paths = showing.write_pictures(showing.material(bars_run.folder, example=3), tmp_path / "pictures")
    assert [path.name for path in paths] == [
        "curves.png",
        "accuracy.png",
        "confusion.png",
        "mistakes.png",
        "calibration.png",
        "filters-conv1.png",
        "columns.png",
    ]
    for path in paths:
        with Image.open(path) as picture:
            assert min(picture.size) > 80


def test_only_the_pictures_asked_for(bars_run: Any, tmp_path: Path) -> None:
    paths = showing.write_pictures(showing.material(bars_run.folder), tmp_path, ["filters"])
    assert [path.name for path in paths] == ["filters-conv1.png"] == [entry.name for entry in tmp_path.iterdir()]


def test_an_example_that_is_not_there(bars_run: Any) -> None:
    with pytest.raises(OptionError) as caught:
        showing.material(bars_run.folder, example=60)
    assert str(caught.value) == "example=60: bars has test pictures 0 to 59."


def test_the_report_can_be_written_again_to_the_same_bytes(bars_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bars_run.report.read_bytes()
    assert showing.write_report(showing.material(bars_run.folder)) == bars_run.report
    assert bars_run.report.read_bytes() == before


def test_the_report_tells_how_to_train_the_same_bits_again(bars_run: Any, tmp_path: Path) -> None:
    import html
    import re
    import shlex

    from typer.testing import CliRunner

    from striate import commands

    page = html.unescape(bars_run.report.read_text())
    (line,) = re.findall(r"striate train '.*", page)
    words = shlex.split(line.split("<")[0])
    done = CliRunner().invoke(commands.app, [*words[1:], "--out", str(tmp_path / "again")])
    assert done.exit_code == 0, done.output
    first, second = load_file(bars_run.checkpoint), load_file(tmp_path / "again" / "checkpoint.safetensors")
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
