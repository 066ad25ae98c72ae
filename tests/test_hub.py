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
    assert message(cell.read) == f"here, row 0, image: it holds no encoded file of at most {2**30:,} bytes."
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
    assert asked == [(("ylecun/mnist", None), {}), (("ylecun/mnist", "small"), {})]
