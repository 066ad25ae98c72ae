"""The zoo: published networks and their published counts, and where a text may come from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from striate import zoo
from striate.analysis import describe
from striate.architecture import FC, Conv, Pool
from striate.errors import DataError, NotationError, OptionError, UnknownNameError
from striate.notation import format, parse

NAMES = ("lenet5", "vgg11", "vgg13", "vgg16", "vgg19")
KNOWN = "Known: lenet5, vgg11, vgg13, vgg16, vgg19."

# Parameters and multiply-adds: LeNet-5 from the layers of LeCun et al. 1998 with all maps connected (156 + 2,416 +
# 48,120 + 10,164 + 850); VGG from Simonyan and Zisserman 2014, table 2 (133, 133, 138, 144 million) and torchvision's
# num_params and GFLOPS (7.61, 11.31, 15.47, 19.63).
COUNTS = """
    name    parameters      multiply-adds  input      classes  convolutions  fully-connected
    lenet5      61,706            416,520  1x28x28         10             2                3
    vgg11  132,863,336      7,609,090,048  3x224x224     1000             8                3
    vgg13  133,047,848     11,308,466,176  3x224x224     1000            10                3
    vgg16  138,357,544     15,470,264,320  3x224x224     1000            13                3
    vgg19  143,667,240     19,632,062,464  3x224x224     1000            16                3
"""
ROWS = [line.replace(",", "").split() for line in COUNTS.strip().splitlines()[1:]]


def test_the_names() -> None:
    assert zoo.names() == NAMES == tuple(row[0] for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_the_published_counts(row: list[str]) -> None:
    name, parameters, macs, shape, classes, convolutions, connected = row
    totals, network = describe(name).totals, zoo.architecture(name)
    assert (totals.parameters, totals.macs) == (int(parameters), int(macs))
    assert (network.input_shape, network.classes) == (tuple(map(int, shape.split("x"))), int(classes))
    kinds = [type(node.operation) for node in network]
    assert (kinds.count(Conv), kinds.count(FC)) == (int(convolutions), int(connected))


# Simonyan and Zisserman 2014, table 1: the number of the configuration's layers in each of its five blocks.
VGG_BLOCKS = [
    ("vgg11", "A", (1, 1, 2, 2, 2)),
    ("vgg13", "B", (2, 2, 2, 2, 2)),
    ("vgg16", "D", (2, 2, 3, 3, 3)),
    ("vgg19", "E", (2, 2, 4, 4, 4)),
]


@pytest.mark.parametrize(("name", "letter", "blocks"), VGG_BLOCKS)
def test_a_vgg_network_is_the_configuration_of_the_paper(name: str, letter: str, blocks: tuple[int, ...]) -> None:
    layers = [node.operation for node in zoo.architecture(name) if isinstance(node.operation, Conv | Pool)]
    wanted: list[Any] = []
    for count, filters in zip(blocks, (64, 128, 256, 512, 512), strict=True):
        wanted += [Conv(3, filters)] * count + [Pool(2)]
    assert layers == wanted
    assert sum(blocks) + 3 == int(name.removeprefix("vgg"))
    assert f"configuration {letter})" in zoo.text(name).splitlines()[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_complete_and_names_its_source(name: str) -> None:
    text = zoo.text(name)
    first = text.splitlines()[0]
    assert first.startswith("# ")
    assert re.search(r"(19|20)\d\d", first)
    assert parse(text).open == ()
    assert parse(format(parse(text))) == parse(text) == zoo.architecture(name)


# ---------------------------------------------------------------------------------------------- where a text comes from

TEXTS = [
    "INPUT 1x4x4 -> FC 3",
    "input->fc",
    "INPUT → FC",
    "CONV -> FC",  # a text, though not a network
    "INPUT 1x4x4",
    "INPUT1x4x4",
    "  input  ",
    "INPUT 1x4x4 # alone",
    "INPUT# alone",
    "# a comment first\nINPUT 1x4x4",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_as_itself(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert zoo.read(text) == text


FILES = ["small.txt", "input.txt", "inputs/small.txt", "Input_1.net", "input-small", "lenet5.txt", "vgg 16", "größe"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_by_its_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("# größer\r\nINPUT 1x4x4 → FC 3\r\n", encoding="utf-8")
    for source in (name, path, str(path.absolute())):
        assert zoo.read(source) == "# größer\nINPUT 1x4x4 → FC 3\n"
        assert zoo.architecture(source) == parse("INPUT 1x4x4 -> FC 3")


def test_a_name_of_the_zoo_comes_before_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lenet5").write_text("INPUT 1x4x4 -> FC 3", encoding="utf-8")
    assert zoo.read("lenet5") == zoo.text("lenet5")
    assert zoo.read("./lenet5") == "INPUT 1x4x4 -> FC 3"


def test_an_architecture_is_itself() -> None:
    network = parse("INPUT 1x4x4 -> FC 3")
    assert zoo.architecture(network) is network


UNKNOWN: list[tuple[Any, str]] = [
    ("vgg17", f"No network (nor a file) is called 'vgg17'. Did you mean 'vgg19'? {KNOWN}"),
    ("LeNet5", f"No network (nor a file) is called 'LeNet5'. Did you mean 'lenet5'? {KNOWN}"),
    ("mobile", f"No network (nor a file) is called 'mobile'. {KNOWN}"),
    ("missing.txt", f"No network (nor a file) is called 'missing.txt'. {KNOWN}"),
    ("input.txt", f"No network (nor a file) is called 'input.txt'. {KNOWN}"),
    (Path("some") / "missing.txt", f"No network (nor a file) is called 'some/missing.txt'. {KNOWN}"),
    ("", f"No network (nor a file) is called ''. {KNOWN}"),
    (".", f"No network (nor a file) is called '.'. {KNOWN}"),
    ("FC 10", f"No network (nor a file) is called 'FC 10'. {KNOWN}"),
    ("a\0b", f"No network (nor a file) is called 'a\\x00b'. {KNOWN}"),
    ("n" * 5000, f"No network (nor a file) is called '{'n' * 5000}'. {KNOWN}"),
]


@pytest.mark.parametrize(("source", "message"), UNKNOWN, ids=[str(source)[:20] or "empty" for source, _ in UNKNOWN])
def test_what_is_neither_text_nor_name_nor_file(
    source: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError) as caught:
        zoo.architecture(source)
    assert str(caught.value) == message


NO_SOURCES = [(5, "int"), (None, "NoneType"), (b"lenet5", "bytes"), (["lenet5"], "list"), (Conv(3, 8), "Conv")]


@pytest.mark.parametrize(("source", "kind"), NO_SOURCES)
def test_what_is_no_source_of_a_network_at_all(source: Any, kind: str) -> None:
    for make in (zoo.architecture, describe):
        with pytest.raises(OptionError) as caught:
            make(source)
        assert str(caught.value) == (
            f"a network is a notation text, a zoo name, a file with a text, or what striate.network made; got {kind}."
        )


def test_text_knows_the_zoo_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.txt").write_text("INPUT -> FC", encoding="utf-8")
    for name, hint in (
        ("vgg12", "Did you mean 'vgg19'? "),
        ("small.txt", ""),
        ("../zoo/lenet5", "Did you mean 'lenet5'? "),
    ):
        with pytest.raises(UnknownNameError) as caught:
            zoo.text(name)
        assert str(caught.value) == f"No network is called {name!r}. {hint}{KNOWN}"


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (path := tmp_path / "picture.txt").write_bytes(b"INPUT \xff\xd8 -> FC")
    with pytest.raises(DataError) as caught:
        zoo.read(path)
    reason = "'utf-8' codec can't decode byte 0xff in position 6: invalid start byte"
    assert str(caught.value) == f"{path}: cannot be read as a network text: {reason}."


def test_a_file_that_the_system_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "locked.txt").write_text("INPUT -> FC", encoding="utf-8")

    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(DataError) as caught:
        zoo.read(str(path))
    assert str(caught.value) == (
        f"{path}: cannot be read as a network text: [Errno 13] Permission denied: {str(path)!r}."
    )


def test_a_file_with_a_mistake_is_a_notation_error_with_the_line(tmp_path: Path) -> None:
    (path := tmp_path / "small.txt").write_text("# mine\nINPUT 1x4x4\n-> RELO\n", encoding="utf-8")
    with pytest.raises(NotationError) as caught:
        zoo.architecture(path)
    assert str(caught.value).startswith(f"In {path}: Line 3, column 4: No layer is called 'RELO'. Did you mean 'RELU'?")


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(OptionError) as caught:
        zoo.architecture(3)
    assert str(caught.value) == (
        "a network is a notation text, a zoo name, a file with a text, or what striate.network made; got int."
    )
