"""Listings: every layout of files becomes the same list, in a folder, a zip and a tar alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from striate import images
from striate.errors import DataError
from striate.listings import Listing, class_folders, held_out, listed_classes, mask_pairs, numbered, part_of, settle
from striate.members import Entry
from striate.storage import Tree, tree

from .test_storage import write_folder, write_tar, write_zip

WAYS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "folder": lambda root, files: write_folder(root / "pets", files),
    "zip": lambda root, files: write_zip(made(root) / "pets.zip", files),
    "tar": lambda root, files: write_tar(made(root) / "pets.tar", files),
}
every_way = pytest.mark.parametrize("way", WAYS)


def message(work: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def placed(root: Path, way: str, *names: str) -> Tree:
    return tree(WAYS[way](root, dict.fromkeys(names, b"")))


def shown(listing: Listing) -> list[tuple[str, int | str, str | None]]:
    return [
        (e.source.name, e.target.name if isinstance(e.target, Entry) else e.target, e.part) for e in listing.examples
    ]


@every_way
def test_class_folders_are_listed_by_part_class_and_name(tmp_path: Path, way: str) -> None:
    names = ["cat/2.png", "cat/1.png", "dog/deep/1.png", "dog/notes.txt"]
    root = placed(tmp_path, way, *(f"{part}/{name}" for part in ("val", "Test", "training") for name in names), "x.png")
    found = class_folders(root)
    expected = [("cat/1.png", 0), ("cat/2.png", 0), ("dog/deep/1.png", 1)]
    folders = {"train": "training", "validation": "val", "test": "Test"}
    assert shown(found) == [(f"{folders[p]}/{n}", label, p) for p in folders for n, label in expected]
    assert (found.name, found.kind, found.classes, found.task) == ("pets", "picture", ("cat", "dog"), "classes")
    assert found.layout == "a folder for each class under training/, val/, Test/"
    assert [file.name for file in found.unread] == sorted([*(f"{f}/dog/notes.txt" for f in folders.values()), "x.png"])
    assert settle(found, seed=0).examples == found.examples


@every_way
def test_the_same_files_are_held_out_in_every_way(tmp_path: Path, way: str) -> None:
    """The hash is of the seed and the name below the class folders, whatever is above."""
    names = [f"{name}/{i:02}.wav" for name in ("no", "yes") for i in range(13)]
    found = settle(class_folders(placed(tmp_path, way, *names)), seed=3)
    assert (found.kind, found.layout) == ("signal", "a folder for each class")
    test = [e.source.name for e in found.part("test")]
    assert test == [n for n in names if n in set(held_out_names(names))]
    inner = settle(class_folders(placed(tmp_path / "x", way, *(f"train/{n}" for n in names))), seed=3)
    assert [e.source.name for e in inner.part("test")] == [f"train/{name}" for name in test]


def held_out_names(names: list[str]) -> list[str]:
    return held_out({n: n for n in names}, {n: int(n.startswith("yes")) for n in names}, 1 / 6, "3/")


def test_messages_name_places_in_archives(tmp_path: Path) -> None:
    root = placed(tmp_path, "zip", "train/cat/1.png", "train/dog/notes.txt", "test/emu/1.png")
    assert message(lambda: class_folders(root)) == (
        f"{tmp_path / 'pets.zip'}/train: no pictures in the class folders 'dog'. Add some or remove the folders; "
        f"a picture's name ends in {', '.join(images.EXTENSIONS)}."
    )
    lenient = class_folders(root, strict=False)
    assert (lenient.classes, len(lenient.examples)) == (("cat", "dog", "emu"), 2)


def test_a_share_of_the_training_part_becomes_the_validation_part(tmp_path: Path) -> None:
    root = placed(tmp_path, "folder", *(f"{c}/{i:03}.png" for c in ("cat", "dog") for i in range(120)))
    whole = class_folders(root)
    found = settle(whole, 0, validation=0.1)
    counts = {part: [e.target for e in found.part(part)] for part in ("train", "validation", "test")}
    assert {part: (t.count(0), t.count(1)) for part, t in counts.items()} == {
        "train": (90, 90),
        "validation": (10, 10),
        "test": (20, 20),
    }
    assert found.part("test") == settle(whole, 0).part("test")
    assert found.part("validation") != settle(whole, 1, validation=0.1).part("validation")
    assert [e.part for e in found.examples] == ["train"] * 180 + ["validation"] * 20 + ["test"] * 40


def split(*folders: str) -> list[str]:
    return [f"{folder}/{c}/{i}.png" for folder in folders for c in ("cat", "dog") for i in range(2)]


def test_folders_that_lie_beside_the_parts_are_named(tmp_path: Path) -> None:
    found = class_folders(placed(tmp_path, "folder", *split("train", "eval"), "extra/cat/1.png", "papers/a.pdf"))
    assert {e.part for e in found.examples} == {"train", "validation"}
    assert found.missing == (
        f"{tmp_path / 'pets/extra/cat/1.png'}: extra/ is no part; the parts are train, validation, test.",
    )


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (split("train", "Train"), "{}: Train/ and train/ are both the train part; expected one folder for each part."),
        (
            split("train", "val", "valid", "test"),
            "{}: val/ and valid/ are both the validation part; expected one folder for each part.",
        ),
        (
            ["cat/train/1.png", "cat/test/1.png", "dog/train/1.png"],
            "{}/cat: test/ is a part below a class; expected the classes below the parts, test/cat/.",
        ),
    ],
)
def test_message_for_parts_that_could_be_others(tmp_path: Path, names: list[str], text: str) -> None:
    root = placed(tmp_path, "folder", *names)
    assert message(lambda: class_folders(root)) == text.replace("{}", str(tmp_path / "pets"))


def test_a_test_part_beside_class_folders_is_no_class(tmp_path: Path) -> None:
    root = placed(tmp_path, "folder", "cat/1.png", "dog/1.png", *split("test"))
    assert message(lambda: class_folders(root)).startswith(
        f"{tmp_path / 'pets'}: there is test/ but no train/ to learn from. Expected a folder for each class "
    )


def test_train_keeps_an_example_of_each_class(tmp_path: Path) -> None:
    names = [f"{c}/{i}.png" for c, count in (("a", 20), ("b", 2)) for i in range(count)]
    found = settle(class_folders(placed(tmp_path, "folder", *names)), 0, validation=0.5)
    counts = {part: [e.target for e in found.part(part)].count(1) for part in ("train", "validation", "test")}
    assert counts == {"train": 1, "validation": 0, "test": 1}
    pair = placed(tmp_path / "x", "folder", *(f"{f}/{i}.png" for f in ("images", "masks") for i in range(2)))
    lone = mask_pairs(pair)
    assert lone is not None
    assert message(lambda: settle(lone, 0, validation=0.1)) == (
        f"{tmp_path / 'x' / 'pets'}: no class has 2 examples to train on, so none can be held out for validation=0.1."
    )


# Pictures with masks

FLAT = ["images/a.jpg", "images/b.jpg", "masks/a.png", "masks/b.png"]
PARTS_ABOVE = ["train/images/a.jpg", "train/masks/a.png", "test/images/b.jpg", "test/masks/b.png"]
PARTS_BELOW = ["images/train/a.jpg", "masks/train/a.png", "images/test/b.jpg", "masks/test/b.png"]


@every_way
@pytest.mark.parametrize("names", [FLAT, PARTS_ABOVE, PARTS_BELOW])
def test_masks_are_found_by_their_names(tmp_path: Path, way: str, names: list[str]) -> None:
    found = mask_pairs(placed(tmp_path, way, *names, "readme.txt"))
    assert found is not None
    parts: list[str | None] = [None, None] if names == FLAT else ["train", "test"]
    pairs = (
        [(names[0], names[1]), (names[2], names[3])] if names != FLAT else [(names[0], names[2]), (names[1], names[3])]
    )
    assert shown(found) == [(image, mask, part) for (image, mask), part in zip(pairs, parts, strict=True)]
    assert (found.task, found.classes, found.missing, found.layout) == ("masks", (), (), "images/ with masks/")


def test_files_without_a_mate_are_named(tmp_path: Path) -> None:
    root = placed(tmp_path, "folder", *FLAT, "images/c.png", "masks/d.png", "masks/b.gif")
    found = mask_pairs(root)
    assert found is not None
    pets = tmp_path / "pets"
    assert found.missing == (
        f"{pets / 'images' / 'b.jpg'}: 2 files of its name in {pets / 'masks'}.",
        f"{pets / 'images' / 'c.png'}: no file of its name in {pets / 'masks'}.",
        f"{pets / 'masks' / 'd.png'}: no file of its name in {pets / 'images'}.",
    )
    assert len(found.examples) == 1


def test_pictures_in_folders_that_lack_masks_or_are_no_part_are_named(tmp_path: Path) -> None:
    others = ["test/images/c.jpg", "val/masks/d.png", "extra/images/e.png", "extra/masks/e.png", "old/images/f.png"]
    found = mask_pairs(placed(tmp_path, "folder", "train/images/a.jpg", "train/masks/a.png", *others))
    assert found is not None
    pets = tmp_path / "pets"
    assert found.missing == (
        f"{pets / 'extra/images/e.png'}: extra/ is no part; the parts are train, validation, test.",
        f"{pets / 'old/images/f.png'}: there is no masks/ in {pets / 'old'}.",
        f"{pets / 'test/images/c.jpg'}: there is no masks/ in {pets / 'test'}.",
        f"{pets / 'val/masks/d.png'}: there is no images/ in {pets / 'val'}.",
    )
    assert len(found.examples) == 1


@pytest.mark.parametrize(
    ("names", "where"),
    [
        (("images/test_track/1.png", "masks/test_track/1.png"), "images/test_track/1.png"),
        (("test_track/images/1.png", "test_track/masks/1.png"), "test_track"),
    ],
)
def test_a_folder_that_could_be_a_part_or_not_is_refused(tmp_path: Path, names: tuple[str, str], where: str) -> None:
    root = placed(tmp_path, "folder", *names)
    assert message(lambda: mask_pairs(root)) == (
        f"{tmp_path / 'pets' / where}: the folder 'test_track' could be the test part or not; call it 'test', or give "
        "it a name that speaks of no part."
    )


@pytest.mark.parametrize("part", ["train2017", "train-000", "Training_1"])
def test_a_part_may_have_a_number(tmp_path: Path, part: str) -> None:
    found = mask_pairs(placed(tmp_path, "folder", f"images/{part}/1.png", f"masks/{part}/1.png"))
    assert found is not None
    assert [example.part for example in found.examples] == ["train"]


def test_folders_without_masks_may_speak_of_parts(tmp_path: Path) -> None:
    names = ["images/1.png", "masks/1.png", "test_results/log.txt"]
    found = mask_pairs(placed(tmp_path / "a", "folder", *names))
    assert found is not None
    assert len(found.examples) == 1
    classes = placed(tmp_path / "b", "folder", "bus/1.png", "train_station/1.png")
    assert mask_pairs(classes) is None
    assert class_folders(classes).classes == ("bus", "train_station")


def test_many_listed_classes_are_read_at_once(tmp_path: Path) -> None:
    """A comparison of each name with each other would take hours."""
    (tmp_path / "classes.txt").write_text("".join(f"{n}\n" for n in range(300_000)))
    assert listed_classes(tree(tmp_path)) == tuple(map(str, range(300_000)))
    (tmp_path / "classes.txt").write_text("cat\ndog\ncat\n")
    assert message(lambda: listed_classes(tree(tmp_path))) == (
        f"{tmp_path / 'classes.txt'}: it names 'cat' more than once."
    )


def test_masks_are_held_out_without_classes(tmp_path: Path) -> None:
    names = [f"{folder}/{i:02}.png" for folder in ("images", "masks") for i in range(12)]
    found = mask_pairs(placed(tmp_path, "folder", *names))
    assert found is not None
    assert len(settle(found, 0).part("test")) == 2
    lone = mask_pairs(placed(tmp_path / "x", "folder", "images/a.png", "masks/a.png"))
    assert lone is not None
    assert message(lambda: settle(lone, 0)) == (
        f"{tmp_path / 'x' / 'pets'}: it needs at least 2 pairs, one to learn from and one to test on."
    )


def test_a_folder_of_another_layout_has_no_masks(tmp_path: Path) -> None:
    assert mask_pairs(placed(tmp_path, "folder", "images/a.png", "cats/a.png")) is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *[("train", "train"), ("Training", "train"), ("shard_train_3", "train"), ("train2014", "train")],
        *[("val", "validation"), ("dev", "validation"), ("valid-00", "validation"), ("testing", "test")],
        *[("retrain", None), ("trains", None), ("contest", None), ("", None)],
    ],
)
def test_names_speak_of_parts(name: str, part: str | None) -> None:
    assert part_of(name) == part


# Classes that are said as numbers


def test_numbers_count_the_lines_of_classes_txt() -> None:
    """Beside names that are the same numbers at the same places, too."""
    assert numbered("a", ["2", "0"], ("0", "1", "2")) == ([2, 0], ("0", "1", "2"))
    assert numbered("a", ["01", "0"], ("cat", "dog")) == ([1, 0], ("cat", "dog"))
    assert numbered("a", ["9" * 5000, "2"], None) == ([1, 0], ("2", "9" * 5000))
    assert numbered("a", ["01", "10", "2"], None) == ([0, 2, 1], ("01", "2", "10"))


@pytest.mark.parametrize("labels", [["1", "2"], ["1", "2", "0"], ["10", "1"]])
def test_message_for_numbers_that_could_be_names(labels: list[str]) -> None:
    names = tuple(str(n) for n in range(1, 11))
    assert message(lambda: numbered("pets", labels, names)) == (
        "pets: the class '1' could be number 1, counted from 0, in classes.txt, or the one that is called so. Remove "
        "classes.txt, and numbers are names; or write names in it that are no numbers."
    )


def test_message_for_two_spellings_of_a_number() -> None:
    assert message(lambda: numbered("pets", ["1", "2", "01"], None)) == (
        "pets: the classes '01', '1' are spellings of one number; write each in one way."
    )
