"""Shards: samples in tar archives are read in place, as many archives as there are, with parts by their names."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from striate.datasets import load
from striate.errors import DataError
from striate.shards import sample_listing
from striate.storage import tree
from striate.surveys import survey

from .test_signals import wav
from .test_storage import write_folder, write_tar


def message(work: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (6, 4), value).save(file, "PNG")
    return file.getvalue()


def samples(first: int, count: int, say: Callable[[int], tuple[str, bytes]]) -> dict[str, bytes]:
    """Pictures of value 10, 11, ... with the file that ``say`` puts beside each."""
    found: dict[str, bytes] = {}
    for number in range(first, first + count):
        ending, content = say(number)
        found |= {f"{number:04}.png": png(10 + number), f"{number:04}.{ending}": content}
    return found


SAYING: list[tuple[Callable[[int], tuple[str, bytes]], tuple[str, ...]]] = [
    (lambda n: ("cls", b"%d\n" % (n % 2)), ("0", "1")),
    (lambda n: ("cls", b"cat" if n % 2 == 0 else b"dog"), ("cat", "dog")),
    (lambda n: ("txt", b"cat" if n % 2 == 0 else b"dog"), ("cat", "dog")),
    (lambda n: ("json", json.dumps({"label": n % 2, "by": "me"}).encode()), ("0", "1")),
]


@pytest.mark.parametrize(("say", "classes"), SAYING)
@pytest.mark.parametrize("stream", [False, True])
def test_samples_come_back_from_shards(
    tmp_path: Path, say: Callable[[int], tuple[str, bytes]], classes: tuple[str, ...], stream: bool
) -> None:
    root = tmp_path / "pets"
    root.mkdir()
    for shard, first in enumerate((0, 4)):
        write_tar(root / f"pets-train-{shard:03}.tar", samples(first, 4, say))
    write_tar(root / "pets-val-000.tar", samples(8, 2, say))
    write_tar(root / "pets-test-000.tar", samples(10, 2, say))
    data = load(root, stream=stream)
    assert (data.name, data.classes) == ("pets", classes)
    found = {part: split.take(range(len(split))) for part, split in data.parts.items()}
    assert {part: (x[:, 0, 0, 0] - 10).tolist() for part, (x, _) in found.items()} == {
        "train": list(range(8)),
        "validation": [8, 9],
        "test": [10, 11],
    }
    assert all(torch.equal(y, (x[:, 0, 0, 0] % 2).long()) for x, y in found.values())
    assert sorted(path.name for path in root.iterdir()) == [f"pets-{n}.tar" for n in (
        "test-000", "train-000", "train-001", "val-000")]  # fmt: skip
    few = load(f"{root}/pets-train-{{000..001}}.tar")
    assert (len(few.train), len(few.test)) == (6, 2)


def test_classes_may_be_named_beside_the_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", samples(0, 12, SAYING[0][0]))
    (tmp_path / "classes.txt").write_text("cat\ndog\nemu\n")
    for source in (tmp_path, tmp_path / "train-0.tar", f"{tmp_path}/train-{{0..0}}.tar"):
        assert load(source).classes == ("cat", "dog", "emu")


@pytest.mark.parametrize("ending", ["seg.png", "mask.png"])
def test_masks_lie_beside_their_pictures(tmp_path: Path, ending: str) -> None:
    path = write_tar(tmp_path / "a.tar", samples(0, 6, lambda n: (ending, png(n % 3))))
    data = load(path)
    assert (data.task, data.classes, len(data.train)) == ("masks", ("0", "1", "2"), 5)
    inputs, masks = data.train.take(range(5))
    assert torch.equal(masks[:, 0, 0], (inputs[:, 0, 0, 0] - 10) % 3)


def test_sound_and_unpacked_samples(tmp_path: Path) -> None:
    files = {f"{n}.{end}": c for n in range(4) for end, c in (("wav", wav(bytes(8))), ("cls", b"%d" % (n % 2)))}
    data = load(write_folder(tmp_path / "a", files))
    assert (data.shape, data.classes, len(data.train)) == ((1, 4), ("0", "1"), 2)


def test_a_label_in_json_comes_before_a_caption(tmp_path: Path) -> None:
    files = samples(0, 4, lambda n: ("json", json.dumps({"label": n % 2}).encode()))
    captions = {f"{n:04}.txt": f"a photo of {n}".encode() for n in range(4)}
    assert load(write_tar(tmp_path / "a.tar", files | captions)).classes == ("0", "1")


def test_incomplete_samples_are_named(tmp_path: Path) -> None:
    files = {"1.png": png(1), "1.cls": b"0", "2.png": png(2), "3.png": png(3), "3.left.png": png(3), "3.cls": b"1"}
    double = {"5.png": png(5), "5.cls": b"0", "5.CLS": b"1", "6.PNG": png(6), "6.png": png(6), "6.cls": b"0"}
    path = write_tar(tmp_path / "a.tar", {**files, "readme.md": b"", "notes.txt": b"", "4.cls": b"1", **double})
    found = sample_listing(tree(path))
    assert found is not None
    assert found.missing == (
        f"{path}: 2.png: there is no .cls or .json or .txt beside it.",
        f"{path}: 3.left.png: the sample has 2 inputs, .left.png, .png.",
        f"{path}: 4.cls: there is no picture beside it.",
        f"{path}: 5.png: there are 2 .CLS beside it.",
        f"{path}: 6.PNG: the sample has 2 inputs, .PNG, .png.",
    )
    assert len(found.examples) == 1


def said(content: str) -> str:
    return f"expected one line of text or a whole number, got {content}."


BAD: list[tuple[str, bytes, str]] = [
    ("json", b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."),
    ("json", b'{"name": 1}', "it has none of label, class, cls, target."),
    ("json", b"7", "argument of type 'int' is not iterable."),
    ("json", b'{"label": null}', said("None")),
    ("json", b'{"label": NaN}', said("nan")),
    ("json", b'{"label": [0]}', said("[0]")),
    ("json", b'{"label": 1.0}', said("1.0")),
    ("json", b'{"label": true}', said("True")),
    ("json", b'{"label": " "}', said("' '")),
    ("cls", b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte."),
    ("cls", b" \n", said("' \\n'")),
    ("cls", b"", said("''")),
    ("txt", b"a\nb", said("'a\\nb'")),
]


@pytest.mark.parametrize(("ending", "content", "text"), BAD)
def test_a_sample_that_says_no_class_is_named_and_may_be_left_out(
    tmp_path: Path, ending: str, content: bytes, text: str
) -> None:
    files = samples(0, 4, lambda n: ("cls", b"%d" % (n % 2))) | {"9.png": png(9), f"9.{ending}": content}
    path = write_tar(tmp_path / "a.tar", files)
    bad = f"{path}: 9.{ending}: it says no class: {text}"
    assert message(lambda: load(path)) == (
        f"{path}: 1 of 5 pictures cannot be used. Repair or remove them, or leave them out "
        f"(--skip-bad on the command line, skip_bad=True in Python):\n  {bad}"
    )
    data = load(path, skip_bad=True)
    assert (data.skipped, data.classes, len(data.train)) == ((bad,), ("0", "1"), 2)
    assert survey(path).unreadable == (bad,)


def test_a_broken_shard_may_be_left_out(tmp_path: Path) -> None:
    good = write_tar(tmp_path / "train-0.tar", samples(0, 6, SAYING[0][0])).read_bytes()
    (tmp_path / "train-1.tar").write_bytes(good[:2048])
    for source in (tmp_path, f"{tmp_path}/train-{{0,1}}.tar"):
        bad = message(lambda: load(source))  # noqa: B023
        assert bad.startswith(f"{tmp_path}/train-1.tar: after 0005.png the archive is cut short or damaged")
        data = load(source, skip_bad=True)
        assert (data.skipped, len(data.train), len(data.test)) == ((bad,), 4, 2)
        assert survey(source).unreadable == (bad,)


@pytest.mark.parametrize("files", [{"cat/1.png": b"", "dog/1.png": b""}, {"cat/1.txt": b""}, {"1.md": b""}])
def test_other_archives_hold_no_samples(tmp_path: Path, files: dict[str, Any]) -> None:
    assert sample_listing(tree(write_tar(tmp_path / "a.tar", files))) is None


@pytest.mark.parametrize("name", ["ss/000.tar", "ss.tar"])
def test_folders_in_an_archive_are_parts_if_they_are_called_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "ss").mkdir()
    path = tmp_path / name
    say = SAYING[1][0]
    folders = [("train", 0, 6), ("test", 6, 4)]
    write_tar(path, {f"{f}/{n}": c for f, first, count in folders for n, c in samples(first, count, say).items()})
    source = tmp_path / name.partition("/")[0]
    assert (len(load(source).train), len(load(source).test)) == (6, 4)
    write_tar(path, {f"test_track/{n}": c for n, c in samples(0, 8, say).items()})
    assert "the folder 'test_track' could be the test part or not; call it 'test'" in message(lambda: load(source))


@pytest.mark.parametrize("names", ["wds/train-000.tar wds/test-000.tar", "shards-train/000.tar shards-test/000.tar"])
def test_the_way_to_an_archive_says_its_part(tmp_path: Path, names: str) -> None:
    for name, first in zip(names.split(), (0, 6), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_tar(tmp_path / name, samples(first, 6, SAYING[1][0]))
    data = load(tmp_path)
    assert (len(data.train), len(data.test)) == (6, 6)


def test_what_could_be_a_part_is_no_damage(tmp_path: Path) -> None:
    folders = [("freight_train", 0), ("bus", 6)]
    files = {f"{f}/{n}": c for f, first in folders for n, c in samples(first, 6, SAYING[1][0]).items()}
    path = write_tar(tmp_path / "x.tar", files)
    assert "the folder 'freight_train' could be the train part or not" in message(lambda: load(path, skip_bad=True))


def test_an_archive_without_examples_beside_class_folders_is_no_copy(tmp_path: Path) -> None:
    names = [f"{part}/{c}/{n}.png" for part in ("train", "test") for c in "ab" for n in range(6)]
    write_folder(tmp_path / "pets", dict.fromkeys(names, png(1)))
    write_tar(tmp_path / "pets" / "code.tar", {"code/x.py": b"print()"})
    write_tar(tmp_path / "pets" / "train" / "a" / "meta.tar", {"x.json": b"{}"})
    assert load(tmp_path / "pets").classes == ("a", "b")


def test_a_broken_shard_beside_other_files_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train-000.tar": b"no tar at all" * 99, "README.md": b"mine"})
    assert message(lambda: load(tmp_path, skip_bad=True)) == message(lambda: load(tmp_path))
    assert message(lambda: load(tmp_path)).startswith(f"{tmp_path / 'train-000.tar'}: ")
