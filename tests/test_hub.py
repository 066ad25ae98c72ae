"""The hub's library: small data sets made here, saved and loaded again; nothing is fetched."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from striate import hub
from striate.datasets import load
from striate.errors import DataError
from striate.surveys import survey

from .test_signals import wav

library = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")


def message(work: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


def png(value: int) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("L", (6, 4), value).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def table(count: int, feature: Any, label: Any = None, **columns: Any) -> Any:
    """Pictures of value 0, 1, ...; labels are odd and even."""
    values: dict[str, Any] = {"image": [png(n) for n in range(count)], "label": [n % 2 for n in range(count)]}
    kinds = {"image": feature, "label": label or library.ClassLabel(names=["even", "odd"])}
    for name, (cells, kind) in columns.items():
        values[name], kinds[name] = cells, kind
    return library.Dataset.from_dict(values, features=library.Features(kinds))


def test_parts_and_classes_come_back(tmp_path: Path) -> None:
    whole = library.DatasetDict({name: table(n, library.Image()) for name, n in (("train", 4), ("test", 2))})
    whole.save_to_disk(tmp_path / "digits")
    data = load(f"hf:{tmp_path / 'digits'}")
    assert (data.name, data.classes, data.shape) == ("digits", ("even", "odd"), (1, 4, 6))
    assert (data.train.inputs[:, 0, 0, 0].tolist(), data.train.targets.tolist()) == ([0, 1, 2, 3], [0, 1, 0, 1])
    stored = load(f"hf:{tmp_path / 'digits'}", stream=True)
    inputs, targets = pickle.loads(pickle.dumps(stored.test)).take([1, 0])
    assert (inputs[:, 0, 0, 0].tolist(), targets.tolist()) == ([1, 0], [1, 0])
    assert stored.train.digest() == stored.train.digest()


def test_a_single_part_is_split_and_whole_numbers_are_classes(tmp_path: Path) -> None:
    table(12, library.Image(), library.Value("int64")).save_to_disk(tmp_path / "digits")
    data = load(f"hf:{tmp_path / 'digits'}")
    assert (data.classes, len(data.train), data.test.targets.bincount().tolist()) == (("0", "1"), 10, [1, 1])


def test_masks_and_sound(tmp_path: Path) -> None:
    masks = [png(n % 3) for n in range(6)]
    table(6, library.Image(), mask=(masks, library.Image())).save_to_disk(tmp_path / "cells")
    data = load(f"hf:{tmp_path / 'cells'}")
    assert (data.task, data.classes) == ("masks", ("0", "1", "2"))
    sounds = [{"bytes": wav(bytes(8)), "path": None} for _ in range(4)]
    columns = {"audio": sounds, "label": ["no", "yes"] * 2}
    cell = {"bytes": library.Value("binary"), "path": library.Value("string")}
    kinds = library.Features({"audio": cell, "label": library.Value("string")})
    spoken = library.Dataset.from_dict(columns, features=kinds).cast_column("audio", library.Audio())
    spoken.save_to_disk(tmp_path / "words")
    words = load(f"hf:{tmp_path / 'words'}")
    assert (words.classes, words.shape, words.reader and words.reader.rate) == (("no", "yes"), (1, 4), 8000)


def test_a_part_without_published_classes_is_left_out(tmp_path: Path) -> None:
    train, test = table(12, library.Image()), table(2, library.Image())
    hidden = test.map(lambda row: {"label": -1}, load_from_cache_file=False)
    library.DatasetDict({"train": train, "test": hidden}).save_to_disk(tmp_path / "digits")
    assert len(load(f"hf:{tmp_path / 'digits'}").test) == 2


REPAIR = "Repair or remove them, or leave them out (--skip-bad on the command line, skip_bad=True in Python):"
NAMED = library.ClassLabel(names=["even", "odd"])
TEXT = "expected one line of text or a whole number"
NO_CLASSES = [
    ([0, 1, None, 1, 0, 1], NAMED, "expected a number from 0 to 1, got None"),
    ([0, 1, -1, 1, 0, 1], NAMED, "expected a number from 0 to 1, got -1"),
    (["a", "b", None, "b", "a", "b"], library.Value("string"), f"{TEXT}, got None"),
    (["a", "b", " ", "b", "a ", "b"], library.Value("string"), f"{TEXT}, got ' '"),
]


@pytest.mark.parametrize(("labels", "kind", "text"), NO_CLASSES)
def test_a_row_that_says_no_class_is_named_and_may_be_left_out(
    tmp_path: Path, labels: list[Any], kind: Any, text: str
) -> None:
    whole = table(6, library.Image()).remove_columns("label").add_column("label", labels)
    whole.cast_column("label", kind).save_to_disk(tmp_path / "a")
    source = f"hf:{tmp_path / 'a'}"
    bad = f"{source}, row 2, label: it says no class: {text}."
    assert message(lambda: load(source)) == f"{source}: 1 of 6 pictures cannot be used. {REPAIR}\n  {bad}"
    data = load(source, skip_bad=True)
    assert (data.skipped, len(data.classes), len(data.train) + len(data.test)) == ((bad,), 2, 5)


@pytest.mark.parametrize(
    ("labels", "kind", "first"),
    [
        ([[0, 1], [1]], library.Sequence(library.Value("int64")), "[0, 1]"),
        ([0.5, 0.25], library.Value("float32"), "0.5"),
    ],
)
def test_what_is_no_class_at_all_is_refused(tmp_path: Path, labels: list[Any], kind: Any, first: str) -> None:
    table(2, library.Image(), target=(labels, kind)).remove_columns("label").save_to_disk(tmp_path / "a")
    source = f"hf:{tmp_path / 'a'}"
    start = f"{source}: 2 of 2 pictures cannot be used. {REPAIR}\n  {source}, row 0, target: it says no class: {TEXT}, "
    assert message(lambda: load(source)).startswith(f"{start}got {first}.\n")


def test_parts_of_other_names_are_left_out(tmp_path: Path) -> None:
    counts = {"train": 4, "train_extra": 6, "test": 2, "unsupervised": 2}
    library.DatasetDict({name: table(n, library.Image()) for name, n in counts.items()}).save_to_disk(tmp_path / "a")
    source = f"hf:{tmp_path / 'a'}"
    data = load(source)
    assert (len(data.train), len(data.test)) == (4, 2)
    layout = "Hugging Face table, columns image and label, without the parts train_extra, unsupervised"
    assert survey(source).layout == layout
    library.DatasetDict({name: table(4, library.Image()) for name in ("train", "val", "dev")}).save_to_disk(
        tmp_path / "b"
    )
    source = f"hf:{tmp_path / 'b'}"
    assert message(lambda: load(source)) == (
        f"{source}: several of its parts train, val, dev are the validation part; expected one."
    )


def test_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    gone = f"hf:{tmp_path / 'gone'}"
    assert message(lambda: load(gone)).startswith(f"{gone}: it cannot be had: ")

    source = f"hf:{tmp_path / 'a'}"
    table(2, library.Image()).remove_columns("image").save_to_disk(tmp_path / "a")
    assert message(lambda: load(source)) == f"{source}: expected one column of pictures or sound files, found none."
    table(2, library.Image()).remove_columns("label").save_to_disk(tmp_path / "b")
    source = f"hf:{tmp_path / 'b'}"
    assert message(lambda: load(source)) == f"{source}: none of its columns image is a ClassLabel or called label."
    library.DatasetDict({"extra": table(2, library.Image())}).save_to_disk(tmp_path / "c")
    source = f"hf:{tmp_path / 'c'}"
    assert message(lambda: load(source)) == (f"{source}: none of its parts extra is called train, validation or test.")
    cell = hub.Cell("x", "here", [{"image": {"bytes": None, "path": "/etc/passwd"}}], 0, "image")
    assert message(cell.read) == (
        "here, row 0, image: the table holds only the name of a file, '/etc/passwd'; "
        "save the data set with save_to_disk, and give hf:./ and that folder."
    )
    cell = hub.Cell("x", "here", [{"image": {"bytes": b"ab", "path": None}}], 0, "image")
    assert message(lambda: cell.read(1)) == "here, row 0, image: it holds no encoded file of at most 1 bytes."
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert message(lambda: load("hf:mnist")) == (
        "hf:mnist: to read data sets of the Hugging Face hub: pip install 'striate[hub]'"
    )


def test_names_and_configurations_go_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one thing that cannot be tried without the network: what the library is asked for."""
    asked: list[tuple[Any, ...]] = []

    def answer(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        return table(12, library.Image())

    monkeypatch.setattr(library, "load_dataset", answer)
    assert load("hf:ylecun/mnist").name == "mnist"
    assert load("hf:ylecun/mnist:small").name == "mnist-small"
    assert load("hf:./mnist").name == "mnist"
    assert asked == [(("ylecun/mnist", None), {}), (("ylecun/mnist", "small"), {}), ((str(Path.cwd() / "mnist"),), {})]


def test_names_of_classes_may_be_numbers(tmp_path: Path) -> None:
    """The table holds places, whatever is called so."""
    table(12, library.Image(), library.ClassLabel(names=["1", "0"])).save_to_disk(tmp_path / "digits")
    data = load(f"hf:{tmp_path / 'digits'}")
    assert data.classes == ("1", "0")
    assert data.train.targets.tolist() == [value % 2 for value in data.train.inputs[:, 0, 0, 0].tolist()]
