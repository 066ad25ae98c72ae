"""Exported files are read back by their own runtimes, which must give what the classifier gives."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import striate
from striate import exporting, notation
from striate.datasets import Normalisation
from striate.errors import OptionError, OutputError, UnknownNameError, WrongResultError
from striate.exporting import Recogniser, export
from striate.networks import network
from striate.prediction import Classifier

RESIDUAL = "INPUT 3x8x8 -> CONV3-4 -> BN -> RELU -> SUM[CONV3-4 -> BN -> RELU -> CONV3-4 -> BN | IDENTITY] -> RELU -> "
RESIDUAL += "GLOBALAVGPOOL -> FC 3"


def classifier(text: str, classes: int, channels: int = 1, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    built = network(text)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that do something
            module.running_mean = torch.linspace(-0.5, 0.5, module.num_features)
            module.running_var = torch.linspace(0.5, 2, module.num_features)
    names = tuple(f"class {i}" for i in range(classes))
    return Classifier(built, names, Normalisation((0.4,) * channels, (0.2,) * channels))


def pixels(count: int, *shape: int) -> Tensor:
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)


def probabilities(given: Classifier, stored: Tensor) -> Tensor:
    given.network.eval()
    with torch.no_grad():
        return given.network(given.normalisation(stored)).softmax(1)


CASES: dict[str, tuple[str, int, int]] = {
    "LeNet-5": ("INPUT 1x28x28 -> [CONV 5x5x4 padding=0 -> RELU -> POOL]*2 -> FC 16 -> RELU -> FC 10", 10, 1),
    "residual": (RESIDUAL, 3, 3),
    "1-D": ("INPUT 1x32 -> CONV 5x4 stride=2 -> RELU -> POOL -> FC 4", 4, 1),
    "maps": ("INPUT 1x8x8 -> CONV3-4 -> TANH -> POOL -> DECONV2-4 -> CONV1-5", 5, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_gives_what_the_classifier_gives(name: str, tmp_path: Path, caplog: Any) -> None:
    given = classifier(*CASES[name])
    shape = given.network.input_shape
    with caplog.at_level(logging.INFO):
        found = export(given, tmp_path / "a.onnx")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    session = onnxruntime.InferenceSession((tmp_path / "a.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        stored = pixels(count, *shape)
        (got,) = session.run(None, {"input": stored.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), probabilities(given, stored), rtol=1e-4, atol=1e-6)
    (one,), (other,) = session.get_inputs(), session.get_outputs()
    assert (one.name, one.type, one.shape) == ("input", "tensor(uint8)", ["batch", *shape])
    maps = list(shape[1:]) if name == "maps" else []
    assert (other.name, other.shape) == ("probabilities", ["batch", CASES[name][1], *maps])
    assert (found.form, found.checked, found.bytes) == ("onnx", (1, 3), (tmp_path / "a.onnx").stat().st_size)
    assert found.difference < 1e-5


def test_an_onnx_file_tells_all_that_a_program_needs_and_nothing_of_the_machine(tmp_path: Path) -> None:
    given = Classifier(network("INPUT 2x3x3 -> FC 2"), ("猫", 'a "dog"'), Normalisation((0.5, 0.25), (0.2, 0.1)))
    export(given, tmp_path / "a.onnx", batch=4)
    model = onnx.load(tmp_path / "a.onnx")
    props = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(props.pop("classes")) == ["猫", 'a "dog"']
    assert props == {
        "notation": notation.format(given.network.architecture),
        "mean": "[0.5, 0.25]",
        "std": "[0.2, 0.1]",
        "version": f"striate {striate.__version__}",
    }
    assert network(props["notation"]).architecture == given.network.architecture
    assert str(Path(striate.__file__).parent).encode() not in (tmp_path / "a.onnx").read_bytes()
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [4, 2, 3, 3]


@pytest.mark.parametrize("name", ["residual", "1-D", "maps"])
def test_a_program_gives_what_the_classifier_gives(name: str, tmp_path: Path) -> None:
    given = classifier(*CASES[name])
    found = export(given, tmp_path / "a.pt2")
    extra = {"striate.json": ""}
    program = torch.export.load(tmp_path / "a.pt2", extra_files=extra)
    for count in (1, 5):
        stored = pixels(count, *given.network.input_shape)
        torch.testing.assert_close(program.module()(stored), probabilities(given, stored))
    metadata = json.loads(extra["striate.json"])
    assert json.loads(metadata["classes"]) == list(given.classes)
    assert sorted(metadata) == ["classes", "mean", "notation", "std", "version"]
    assert found.form == "torch"
    assert str(Path(striate.__file__).parent).encode() not in (tmp_path / "a.pt2").read_bytes()


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32], ids=["int16", "float32"])
def test_sound_and_measurements_go_in_as_they_are_stored(dtype: torch.dtype, tmp_path: Path) -> None:
    given = classifier("INPUT 2x16 -> CONV5-3 -> RELU -> FC 2", 2, channels=2)
    found = export(given, tmp_path / "a.onnx", dtype=dtype)
    assert found.input == f"input {str(dtype).removeprefix('torch.')} (batch, 2, 16)"
    session = onnxruntime.InferenceSession((tmp_path / "a.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    stored = (1000 * torch.randn(3, 2, 16)).to(dtype)
    (got,) = session.run(None, {"input": stored.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), probabilities(given, stored), rtol=1e-4, atol=1e-6)


def test_a_run_is_exported_from_its_folder_and_its_network_stays_as_it_is(bars_run: Any, tmp_path: Path) -> None:
    found = export(bars_run.folder, tmp_path / "new" / "bars.onnx")
    assert found.classes == ("crossed", "lying", "standing")
    assert str(found) == (
        f"{tmp_path}/new/bars.onnx: input uint8 (batch, 1, 8, 8) to probabilities float32 (batch, 3), "
        f"{found.bytes / 1000:,.0f} kB.\n"
        f"ONNX Runtime agrees with PyTorch on random batches of 1 and 3: "
        f"probabilities differ by at most {found.difference:.1e}."
    )
    assert json.loads(json.dumps(found.to_dict()))["path"] == str(tmp_path / "new" / "bars.onnx")
    given = classifier("INPUT 1x4x4 -> DROPOUT -> FC 2", 2)
    given.network.train()
    export(given, tmp_path / "b.pt2", dtype=torch.uint8, batch=2)
    assert given.network.training


def test_nothing_warns(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        export(classifier("INPUT 1x4x4 -> FC 2", 2), tmp_path / "a.onnx")
        export(classifier("INPUT 1x4x4 -> FC 2", 2), tmp_path / "a.pt2")
    assert [str(one.message) for one in seen] == []


def test_a_runtime_that_computes_something_else_is_found_even_where_probabilities_are_nearly_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = classifier("INPUT 1x4x4 -> FC 2", 2)
    with torch.no_grad():
        given.network.get_parameter("fc1.weight").mul_(1e-3)
    real = exporting.WRITERS["torch"]

    def without_normalisation(module: Recogniser, *rest: Any) -> Any:
        return real(Recogniser(module.network, lambda stored: stored.float()), *rest)

    monkeypatch.setitem(exporting.WRITERS, "torch", without_normalisation)
    (tmp_path / "a.pt2").write_bytes(b"as it was")
    with pytest.raises(WrongResultError) as caught:
        export(given, tmp_path / "a.pt2")
    start = (
        "The program that torch.export wrote does not compute what PyTorch does: for a random batch of 1 the "
        "logarithms of probabilities differ by up to "
    )
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith("Nothing was written.")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.pt2", b"as it was")]


def test_the_difference_that_is_told_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = torch.tensor([[0.2, 0.8]])
    assert exporting._compare("X", lambda x: wanted + 1e-5, [wanted], [wanted]) == pytest.approx(1e-5, rel=1e-2)
    with pytest.raises(WrongResultError) as caught:
        exporting._compare("X", lambda x: wanted[:, :1], [wanted], [wanted])
    assert str(caught.value) == "X gives (1, 1), PyTorch (1, 2)."
    with pytest.raises(WrongResultError):
        exporting._compare("X", lambda x: wanted * torch.nan, [wanted], [wanted])


def test_probabilities_too_small_for_float32_do_not_disagree() -> None:
    wanted = torch.tensor([[1.0, 0.0]])
    assert exporting._compare("X", lambda x: torch.tensor([[1.0, 1e-38]]), [wanted], [wanted]) < 1e-30


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OptionError) as caught:
        export(classifier("INPUT 1x4x4 -> FC 2", 2), tmp_path / "a.onnx")
    assert str(caught.value) == f"export to ONNX needs {package}: pip install 'striate[export]'."


def test_what_cannot_be_exported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = classifier("INPUT 1x4x4 -> FC 2", 2)
    no_form = "the ending says no form; end it in .onnx (ONNX) or .pt2 (torch.export)."
    refusals: list[tuple[dict[str, Any], str]] = [
        (dict(path="a.h5"), f"a.h5: {no_form}"),
        (
            dict(path="a.onnx", form="torch"),
            "a.onnx: form='torch' contradicts the ending, which says 'onnx'; change one.",
        ),
        (dict(path="a.onnx", batch=0), "batch=0: give 'any', or a whole number of at least 1."),
        (dict(path="a.onnx", batch="all"), "batch='all': give 'any', or a whole number of at least 1."),
    ]
    for options, message in refusals:
        with pytest.raises(OptionError) as caught:
            export(given, **options)
        assert str(caught.value) == message
    with pytest.raises(UnknownNameError) as unknown:
        export(given, "a.onnx", form="onxn")
    assert str(unknown.value) == "No form is called 'onxn'. Did you mean 'onnx'? Known: onnx, torch."
    with pytest.raises(OptionError) as caught:
        export(Classifier(given.network, ("a", "b", "c"), given.normalisation), "a.onnx")
    assert str(caught.value) == "the network gives 2 scores, but there are 3 classes."
    monkeypatch.setattr(exporting, "LARGEST", 100)
    with pytest.raises(OptionError) as caught:
        export(given, tmp_path / "a.onnx")
    assert str(caught.value) == "the weights take 0.0 GiB, and an ONNX file holds 2; write a .pt2 file."


def test_a_network_that_the_exporter_cannot_follow_is_refused_in_one_line(tmp_path: Path) -> None:
    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2] if x.sum() > 0 else x.flatten(1)[:, 1:3]

    given = classifier("INPUT 1x4x4 -> FC 2", 2)
    given.network.fc1 = Deciding()
    with pytest.raises(OptionError) as caught:
        export(given, tmp_path / "a.pt2")
    assert str(caught.value).startswith("the network cannot be written as torch.export: ")
    assert "\n" not in str(caught.value)
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as caught:
        export(classifier("INPUT 1x4x4 -> FC 2", 2), tmp_path / "file" / "a.pt2")
    assert str(caught.value).startswith(f"{tmp_path}/file/a.pt2: cannot be written (")
