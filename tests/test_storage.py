"""Storage: a folder, a zip and a tar of the same files give the same entries; hostile archives are refused in words."""

from __future__ import annotations

import io
import os
import pickle
import stat
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from striate import images, members
from striate.errors import DataError
from striate.members import Member, entry
from striate.storage import entries, tree

FILES = {"b.png": b"b", "cat/1.png": b"one", "cat/more/2.png": b"two" * 1000, "dog/empty.png": b""}


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in reversed(files.items()):
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in reversed(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def message(work: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


@pytest.mark.parametrize("way", ["folder", "zip", "stored", "tar", "gnu", "pax"])
def test_the_same_files_are_the_same_entries(tmp_path: Path, way: str) -> None:
    files = {**FILES, ".hidden": b"x", "cat/.x.png": b"x", ".git/a.png": b"x", "__MACOSX/._b.png": b"x"}
    if way == "folder":
        place = write_folder(tmp_path / "pets", files)
    elif way in ("zip", "stored"):
        method = zipfile.ZIP_STORED if way == "stored" else zipfile.ZIP_DEFLATED
        place = write_zip(tmp_path / "pets.zip", files, method)
    else:
        forms = {"tar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
        place = write_tar(tmp_path / "pets.tar", files, forms[way])
    found = tree(place)
    assert {file.name: file.read() for file in found.files} == FILES
    assert [file.name for file in found.files] == sorted(FILES)
    assert [file.size for file in found.files] == [len(content) for content in FILES.values()]
    assert pickle.loads(pickle.dumps(found.files)) == found.files
    assert found.name == "pets"
    assert list(found.children)[-2:] == ["cat", "dog"]
    assert list(found.loose) == ["b.png"]
    cat = found.children["cat"]
    assert (cat.folder, cat.where, list(cat.loose), [cat.below(f) for f in cat.files]) == (
        *("cat", str(place / "cat"), ["1.png"]),
        ["1.png", "more/2.png"],
    )
    assert cat.children["more"].where == str(place / "cat" / "more")
    assert [file.name for file in tree(cat.children["more"].where).files] == [
        "2.png" if way == "folder" else "cat/more/2.png"
    ]
    where = str(place / "cat" / "1.png") if way == "folder" else f"{place}: cat/1.png"
    assert str(cat.loose["1.png"]) == where


def test_empty_folders_are_kept_and_links_do_not_go_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a" / "empty").mkdir(parents=True)
    (tmp_path / "a" / "x.png").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe.png")
    found = tree(tmp_path)
    assert [file.name for file in found.files] == ["a/x.png", "b/x.png"]
    assert (list(found.children), list(found.children["a"].children)) == (["a", "b"], ["empty"])


def test_what_systems_leave_behind_is_left_out(tmp_path: Path) -> None:
    wanted = {"pets/cat/1.png": b"1", "pets/dog/1.png": b"2"}
    clutter = ("__MACOSX/pets/cat/._1.png", "__MACOSX/x.png", "pets/.DS_Store", "pets/cat/Thumbs.db", "desktop.ini")
    files = wanted | dict.fromkeys(clutter, b"0")
    zipped, tarred = write_zip(tmp_path / "a.zip", files), write_tar(tmp_path / "a.tar", files)
    for place in (write_folder(tmp_path / "a", files) / "pets", zipped, tarred):
        found = tree(place)
        assert [found.below(file) for file in found.files] == ["cat/1.png", "dog/1.png"]
        assert sorted(found.children) == ["cat", "dog"]
    assert sorted(tree(tmp_path / "a").children) == ["pets"]


def test_members_are_names_and_never_paths(tmp_path: Path) -> None:
    """Whatever a member is called, it is found under a name below the archive, and nothing is written."""
    names = {"../../evil.png": b"1", "/etc/passwd": b"2", "a/./b//c.png": b"3"}
    for place in (write_zip(tmp_path / "a.zip", names), write_tar(tmp_path / "a.tar", names)):
        assert [file.name for file in entries(place)] == ["a/b/c.png", "etc/passwd", "evil.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "a.zip"]


def test_symbolic_links_and_devices_in_a_tar_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert entries(tmp_path / "a.tar") == []


def test_symbolic_links_in_a_zip_are_left_out(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": b"1"})
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("b.png")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "a.png")
    assert [file.name for file in entries(path)] == ["a.png"]


needs_gnu_tar = pytest.mark.skipif(
    b"GNU tar" not in subprocess.run(["tar", "--version"], capture_output=True, check=False).stdout,
    reason="only GNU tar finds the holes of a file",
)
SPARSE = "it is stored sparsely; pack it without --sparse."


@needs_gnu_tar
@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_a_sparse_file_in_a_tar_is_named(tmp_path: Path, form: str) -> None:
    """What such a file becomes may be larger than the archive, so its size bounds nothing."""
    folder = write_folder(tmp_path / "a", {"a.npy": b"one", "c.npy": b"three"})
    with (folder / "b.npy").open("wb") as file:
        for place in range(8):
            file.seek(place << 20)
            file.write(b"x")
    path = tmp_path / "a.tar"
    subprocess.run(
        ["tar", "-cS", f"--format={form}", "--sort=name", "-f", path, "-C", folder, "a.npy", "b.npy", "c.npy"],
        check=True,
    )
    first, sparse, last = entries(path)
    assert isinstance(last, Member)
    assert (first.read(), last.read(), sparse.name, sparse.size) == (b"one", b"three", "b.npy", 0)
    for work in (sparse.read, sparse.open):
        assert message(work) == f"{path}: b.npy: {SPARSE}"
    for size in range(0, last.start + 1, 512):
        (tmp_path / "b.tar").write_bytes(path.read_bytes()[:size])
        assert message(lambda: tree(tmp_path / "b.tar")).startswith(f"{tmp_path / 'b.tar'}: ")


def test_a_hard_link_in_a_tar_is_the_file_that_it_names(tmp_path: Path) -> None:
    """Plain ``tar`` writes a file's second name so; a name outside the archive is never followed."""
    (tmp_path / ".a").write_bytes(b"one")
    for name in ("b.png", "c.png"):
        (tmp_path / name).hardlink_to(tmp_path / ".a")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in (".a", "b.png", "c.png"):
            archive.add(tmp_path / name, name)
        info = tarfile.TarInfo("d.png")
        info.type, info.linkname = tarfile.LNKTYPE, "/etc/passwd"
        archive.addfile(info)
    *found, lost = entries(tmp_path / "a.tar")
    assert [(file.name, file.read()) for file in found] == [("b.png", b"one"), ("c.png", b"one")]
    assert message(lost.read) == (
        f"{tmp_path / 'a.tar'}: d.png: it is a link to /etc/passwd, which does not stand before it in the archive."
    )


def test_an_archive_may_hold_one_folder_or_be_entered(tmp_path: Path) -> None:
    place = write_zip(tmp_path / "a.zip", {"pets/cat/1.png": b"1", "pets/dog/2.png": b"2"})
    assert (entries(place)[0].name, list(tree(place).children)) == ("pets/cat/1.png", ["cat", "dog"])
    assert tree(place).children["cat"].where == f"{place}/cat"
    for inside in ("cat", "pets/cat"):
        assert list(tree(f"{place}/{inside}").loose) == ["1.png"]
    assert list(tree(place / "pets").children) == ["cat", "dog"]
    for inside in ("emu", "pets/emu", "cat/pets"):
        assert message(lambda: tree(place / inside)) == f"{place}/{inside}: there is no such folder."  # noqa: B023
    lone = write_zip(tmp_path / "b.zip", {"cat/1.png": b"1"})
    assert list(tree(lone).children) == ["cat"]


@pytest.mark.parametrize("names", [("x.npy", "y.npy"), ("train-images.npy", "labels_train.npy"), ("A_TRAIN.ts",)])
def test_the_one_folder_of_an_archive_may_be_a_data_set(tmp_path: Path, names: tuple[str, ...]) -> None:
    files = {f"a/{name}": b"1" for name in names}
    assert sorted(tree(write_zip(tmp_path / "a.zip", files)).loose) == sorted(names)
    assert list(tree(write_zip(tmp_path / "b.zip", {"cat/1.npy": b"1", "cat/my_labels.npy": b"1"})).children) == ["cat"]


def test_the_home_of_nobody_is_no_folder() -> None:
    path = "~no-such-user/x"
    assert message(lambda: tree(path)) == f"{path}: there is no such folder."
    for source in ([path], f"{path}{{0..1}}"):
        first = path if isinstance(source, list) else f"{path}0"
        assert message(lambda: tree(source)) == f"{first}: it cannot be opened: No such file or directory."  # noqa: B023


def test_shards_are_folders(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        write_tar(tmp_path / f"train-{number:03}.tar", {"a.jpg": b"%d" % number})
    (tmp_path / "classes.txt").write_text("cat")
    names = ["train-008/a.jpg", "train-009/a.jpg", "train-010/a.jpg"]
    assert [file.name for file in entries(tmp_path)] == ["classes.txt", *names]
    listed, *found = entries(f"{tmp_path}/train-{{008..010}}.tar")
    assert (listed.name, listed.read()) == ("classes.txt", b"cat")
    assert [file.name for file in found] == names
    assert [file.read() for file in found] == [b"8", b"9", b"10"]
    assert entries([tmp_path / "train-010.tar", tmp_path / "train-009.tar"])[1:] == found[1:]
    pattern = tmp_path / "train-{008..010}.tar"
    assert (tree(pattern).where, tree(pattern).files) == (str(pattern), (listed, *found))
    for source in (tmp_path, pattern):
        child = tree(source).children["train-009"]
        assert (child.where, sorted(tree(child.where).loose)) == (
            str(tmp_path / "train-009.tar"),
            ["a.jpg", "classes.txt"],
        )


def test_a_folder_whose_name_has_braces_is_one(tmp_path: Path) -> None:
    write_zip(write_folder(tmp_path / "a{1,2}", {"b/1.png": b"1"}) / "c.zip", {"d/2.png": b"2", "e/3.png": b"3"})
    found = [[file.name for file in entries(tmp_path / "a{1,2}" / name)] for name in ("b", "c.zip/d")]
    assert found == [["1.png"], ["d/2.png"]]


def test_an_archive_beside_its_folder_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "v", {"train/a/1.png": b"1"})
    path = write_tar(folder / "train.tar", {"a/1.png": b"1"})
    text = (
        f"{path}: the folder train/ lies beside it; if it was unpacked there, every example would count twice. "
        "Move one of the two away, or give one alone."
    )
    assert message(lambda: tree(folder)) == text
    lenient = tree(folder, strict=False)
    assert ([file.name for file in lenient.files], lenient.damaged) == (["train/a/1.png"], (text,))
    assert [file.name for file in tree(folder, shards=False).files] == ["train.tar", "train/a/1.png"]


def test_a_source_may_be_a_path_bytes_or_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    with path.open("rb") as file:
        found = [entry(path), entry(str(path)), entry(b"abc"), entry(io.BytesIO(b"abc")), entry(file)]
    assert [one.read() for one in found] == [b"abc"] * 5
    assert [str(one) for one in found] == [str(path), str(path), "the bytes given", "the bytes given", str(path)]
    assert entry(found[0]) is found[0]


def test_limits_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_folder(tmp_path, {"a": b"12345"}) / "a"
    assert entry(path).read(5) == b"12345"
    limit = "the most that is read of one file."
    assert message(lambda: entry(path).read(4)) == f"{path}: it has more than 4 bytes, {limit}"
    (member,) = entries(write_zip(tmp_path / "a.zip", {"a": b"12345"}))
    assert message(lambda: member.read(4)) == f"{member}: it declares 5 bytes; at most 4 are read of one file."
    monkeypatch.setattr(members, "LIMIT", 2)
    assert message(lambda: entry(io.BytesIO(b"123"))) == f"the input has more than 2 bytes, {limit}"


def test_messages_for_what_is_not_there(tmp_path: Path) -> None:
    assert message(lambda: tree(tmp_path / "a")) == f"{tmp_path / 'a'}: there is no such folder."
    path = tmp_path / "gone"
    assert message(lambda: entry(path).read()) == f"{path}: it cannot be opened: No such file or directory."
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    assert message(lambda: tree(tmp_path / "a.rar")) == (
        f"{tmp_path / 'a.rar'}: it is neither a folder nor a .zip or .tar archive; unpack other archives first."
    )


# Hostile archives


def patched_zip(path: Path, place: int, value: bytes, content: bytes = b"x" * 100) -> Path:
    """A zip of one member, with bytes of its central directory (from ``PK\\1\\2`` on) replaced."""
    data = bytearray(write_zip(path, {"a.png": content}, zipfile.ZIP_STORED).read_bytes())
    start = data.index(b"PK\1\2") + place
    data[start : start + len(value)] = value
    path.write_bytes(data)
    return path


BAD_ZIPS = [
    ("encrypted", 8, struct.pack("<H", 1), "it is encrypted; unpack the archive first."),
    ("bzip2", 10, struct.pack("<H", 12), "it is packed by method 12; only DEFLATE is read from zip archives."),
    (
        "bomb",
        24,
        struct.pack("<I", 4_000_000_000),
        "it declares 4,000,000,000 bytes, which 100 packed bytes cannot become.",
    ),
]


@pytest.mark.parametrize(("place", "value", "text"), [row[1:] for row in BAD_ZIPS], ids=[row[0] for row in BAD_ZIPS])
def test_message_for_a_zip_that_cannot_be_used(tmp_path: Path, place: int, value: bytes, text: str) -> None:
    (member,) = entries(patched_zip(tmp_path / "a.zip", place, value))
    for work in (member.read, member.open):
        assert message(work) == f"{member}: {text}"


def test_a_member_that_nobody_reads_is_not_judged(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a/1.png": b"1"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "x" * 1000, zipfile.ZIP_BZIP2)
    readme, picture = entries(path)
    assert picture.read() == b"1"
    assert message(readme.read).endswith(
        "README.txt: it is packed by method 12; only DEFLATE is read from zip archives."
    )


BAD_MEMBERS = [
    ("checksum", 16, bytes(4), "the archive is damaged: its checksum is wrong."),
    ("shorter than declared", 24, struct.pack("<I", 200), "the archive is damaged or cut short."),
    ("longer than declared", 24, struct.pack("<I", 50), "the archive is damaged or cut short."),
    ("elsewhere", 42, struct.pack("<I", 1), "the archive is damaged or cut short."),
]


@pytest.mark.parametrize(
    ("place", "value", "text"), [row[1:] for row in BAD_MEMBERS], ids=[row[0] for row in BAD_MEMBERS]
)
def test_message_for_a_damaged_member_of_a_zip(tmp_path: Path, place: int, value: bytes, text: str) -> None:
    (member,) = entries(patched_zip(tmp_path / "a.zip", place, value))
    assert message(member.read) == f"{member}: {text}"


def test_message_for_packed_nonsense(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": b"x" * 100})
    data = bytearray(path.read_bytes())
    data[35:38] = b"\xff\xff\xff"
    path.write_bytes(data)
    (member,) = entries(path)
    text = "Error -3 while decompressing data: invalid block type"
    assert message(member.read) == f"{member}: the archive is damaged: {text}."


def test_a_bomb_is_never_unpacked_beyond_what_it_declares(tmp_path: Path) -> None:
    """A gigabyte of zeros that declares to be a kilobyte costs a kilobyte."""
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(30_000_000)})
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\1\2") + 24
    data[start : start + 4] = struct.pack("<I", 1024)
    path.write_bytes(data)
    (member,) = entries(path)
    assert message(member.read) == f"{member}: the archive is damaged or cut short."


@pytest.mark.parametrize("content", [b"PK\5\6", b"PK\3\4" + bytes(50)])
def test_message_for_a_damaged_zip(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    assert message(lambda: tree(path)) == (f"{path}: it is no zip archive, or a damaged one: File is not a zip file.")


def test_messages_for_a_damaged_tar(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", {"a.png": b"x" * 2000}).read_bytes()
    path = tmp_path / "b.tar"
    path.write_bytes(whole[:1000])
    assert message(lambda: tree(path)) == f"{path}: a.png: the archive is damaged or cut short."
    path.write_bytes(whole[:100] + bytes(20) + whole[120:])
    assert message(lambda: tree(path)) == f"{path}: it is no tar archive, or a damaged one: bad checksum."
    member = Member("a.png", tmp_path / "a.tar", "a.png", 9_000_000, 512)
    assert message(member.read) == f"{member}: the archive is damaged or cut short."


def test_a_tar_must_end_in_zeros(tmp_path: Path) -> None:
    """Cut at the end of a member, or with a header damaged, it would seem to be whole."""
    whole = write_tar(tmp_path / "a.tar", {"b.png": b"x" * 600, "a.png": b"y" * 600}).read_bytes()
    path = tmp_path / "b.tar"
    header = whole[:1536] + b"?" * 100 + whole[1636:]
    joined = whole[:3072] + bytes(512) + whole[1536:]
    for content, last in ((whole[:1536], "a"), (whole[:1536] + bytes(100), "a"), (header, "a"), (joined, "b")):
        path.write_bytes(content)
        assert message(lambda: tree(path)) == (
            f"{path}: after {last}.png the archive is cut short or damaged: it does not end in zeros."
        )
    path.write_bytes(whole[:3072] + bytes(512))
    assert [file.name for file in entries(path)] == ["a.png", "b.png"]


def test_a_tar_that_holds_a_name_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("a", "a.png", "a", "a.png"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.REGTYPE if "." in name else tarfile.DIRTYPE
            archive.addfile(info)
    assert message(lambda: tree(tmp_path / "a.tar")) == (
        f"{tmp_path / 'a.tar'}: a.png: the archive holds it twice; each file needs its own name."
    )


def test_a_damaged_shard_may_be_named_instead(tmp_path: Path) -> None:
    good = write_tar(tmp_path / "a.tar", {"1.png": b"1"}).read_bytes()
    (tmp_path / "b.tar").write_bytes(good[:1024])
    text = f"{tmp_path / 'b.tar'}: after 1.png the archive is cut short or damaged: it does not end in zeros."
    gone = f"{tmp_path / 'c.tar'}: it cannot be opened: No such file or directory."
    for source, damaged in ((tmp_path, (text,)), (f"{tmp_path}/{{a,b,c}}.tar", (text, gone))):
        assert message(lambda: tree(source)) == text  # noqa: B023
        found = tree(source, strict=False)
        assert ([file.name for file in found.files], found.damaged) == (["a/1.png"], damaged)
    assert message(lambda: tree([tmp_path / "b.tar"], strict=False)) == text
    (tmp_path / "a.tar").unlink()
    assert message(lambda: tree(tmp_path, strict=False)) == text
    (tmp_path / "c.png").touch()
    found = tree(tmp_path, strict=False)
    assert ([file.name for file in found.files], found.damaged) == (["c.png"], (text,))


def test_shards_of_one_name_in_several_folders_stay_apart(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        write_tar(tmp_path / part / "0.tar", {"1.png": part.encode()})
    found = entries(f"{tmp_path}/{{train,test}}/0.tar")
    assert [(file.name, file.read()) for file in found] == [("test/0/1.png", b"test"), ("train/0/1.png", b"train")]


def test_a_large_packed_member_is_unpacked_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "EAGER", 1000)
    monkeypatch.setattr(members, "CHUNK", 700)
    content = bytes(range(256)) * 40
    (member,) = entries(write_zip(tmp_path / "a.zip", {"a.png": content}))
    with member.open() as file:
        assert file.read() == content
        for place in (5000, 9000, 100, len(content) - 3):
            assert (file.seek(place), file.read(9), file.tell()) == (
                *(place, content[place : place + 9]),
                min(place + 9, len(content)),
            )
        assert (file.seek(-5, io.SEEK_END), file.read()) == (len(content) - 5, content[-5:])
        text = f"{member}: it is read to and fro too often for a packed file; unpack the archive."
        assert message(lambda: [(file.seek(0), file.read(), file.seek(0)) for _ in range(20)]) == text
    assert message(lambda: member.read(9)) == f"{member}: it declares 10,240 bytes; at most 9 are read of one file."


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (16, bytes(4), ": its checksum is wrong."),
        (24, struct.pack("<I", 20_000), " or cut short."),
        (24, struct.pack("<I", 5000), " or cut short."),
        (42, struct.pack("<I", 1), " or cut short."),
    ],
)
def test_a_large_packed_member_is_checked_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, value: bytes, text: str
) -> None:
    monkeypatch.setattr(members, "EAGER", 1000)
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(10_000)})
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\1\2") + place
    data[start : start + len(value)] = value
    path.write_bytes(data)
    (member,) = entries(path)
    for work in (member.open, member.read):
        assert message(work) == f"{member}: the archive is damaged{text}"


def test_a_bomb_that_is_called_a_picture_takes_no_memory(tmp_path: Path) -> None:
    """It is what it declares, 200 MB of zeros in 200 kB: its first bytes are enough to refuse it."""
    (member,) = entries(write_zip(tmp_path / "a.zip", {"a.png": bytes(200_000_000)}))
    tracemalloc.start()
    try:
        assert "no reader of" in message(lambda: images.read(member))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_tar_that_leads_back_is_refused(tmp_path: Path) -> None:
    """A member of negative size leads back to itself (CVE-2025-8194)."""
    for size, kind in (("-1024", tarfile.REGTYPE), ("-512", tarfile.CONTTYPE), ("-1536", tarfile.REGTYPE)):
        info = tarfile.TarInfo("a.png")
        info.type, info.pax_headers = kind, {"size": size}
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(info)
        assert message(lambda: tree(path)) == f"{path}: a.png: the archive is damaged or cut short."  # noqa: B023


def test_folders_of_a_zip_may_be_written_with_backslashes(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"cat\\1.png": b"x", "cat\\": b"", "..\\dog\\2.png": b"yz"})
    assert [(file.name, file.read()) for file in entries(path)] == [("cat/1.png", b"x"), ("dog/2.png", b"yz")]
