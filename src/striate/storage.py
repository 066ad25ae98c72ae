"""Where bytes lie: files of a folder and members of zip and tar archives, listed in one order and read in place."""

from __future__ import annotations

import os
import re
import struct
import tarfile
import zipfile
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import cast

from .errors import DataError
from .members import CHUNK, Entry, File, Member, naming

ARCHIVES = (".zip", ".tar")
INFLATION = 1032  # how many times its size DEFLATE can become, at the very most
CLUTTER = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what systems leave behind in folders and archives
BRACES = re.compile(r"\{([^{}]*)\}")
PARTS = "train|valid|validation|val|test"
WHOLE = re.compile(  # how a file is called that says of its folder: a data set, and no class of one
    r".*(\.csv|\.tsv|\.parquet|\.ts|-ubyte|-ubyte\.gz)"
    rf"|(({PARTS})[_-])?(y|labels?|targets|masks)([_-]({PARTS}))?\.npy",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False)
class Tree:
    """The files of one place, in the order of their names, and its folders, which may be empty.

    Args:
        where: What messages call it, and what :func:`tree` takes, also of a folder in an archive.
        files: All files below it, sorted by name.
        folders: The names of all folders below it.
        prefix: What the names of its files begin with.
        archive: Whether it is the top of an archive.
        damaged: Messages about archives that belong here and cannot be read.
        shards: The paths of archives by the names of the folders that they are read as.
    """

    where: str
    files: tuple[Entry, ...] = field(repr=False)
    folders: tuple[str, ...] = field(repr=False)
    prefix: str = ""
    archive: bool = False
    damaged: tuple[str, ...] = ()
    shards: Mapping[str, Path] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """What a data set that lies here is called."""
        path = Path(self.where).resolve()
        return (path.stem if self.archive else path.name) or str(path)

    @property
    def folder(self) -> str:
        """The name of this folder alone."""
        return self.prefix.rstrip("/").rpartition("/")[2]

    @cached_property
    def children(self) -> dict[str, Tree]:
        """The folders directly in it, by name, in order."""
        files: dict[str, list[Entry]] = {}
        folders: dict[str, list[str]] = {}
        for file in self.files:
            first, slash, _ = file.name[len(self.prefix) :].partition("/")
            if slash:
                files.setdefault(first, []).append(file)
        for folder in self.folders:
            first, slash, _ = folder[len(self.prefix) :].partition("/")
            folders.setdefault(first, []).extend([folder] if slash else [])
        names = sorted({*files, *folders})
        return {name: self._child(name, files.get(name, ()), folders.get(name, ())) for name in names}

    def _child(self, name: str, files: Iterable[Entry], folders: Iterable[str]) -> Tree:
        where = self.shards.get(self.prefix + name, Path(self.where, name))
        return Tree(str(where), tuple(files), tuple(folders), f"{self.prefix}{name}/", shards=self.shards)

    @cached_property
    def loose(self) -> dict[str, Entry]:
        """The files directly in it, by name."""
        cut = len(self.prefix)
        return {file.name[cut:]: file for file in self.files if "/" not in file.name[cut:]}

    def below(self, file: Entry) -> str:
        """The name of a file, from here."""
        return file.name[len(self.prefix) :]

    def ending(self, *endings: str) -> list[Entry]:
        """The files below it with one of these endings, in either case."""
        return [file for file in self.files if file.name.lower().endswith(endings)]


def expanded(source: str) -> list[str]:
    """The paths that a text with braces stands for, as in a shell.

    >>> expanded("train-{008..010}.tar"), expanded("{train,val}.tar"), expanded("plain")
    (['train-008.tar', 'train-009.tar', 'train-010.tar'], ['train.tar', 'val.tar'], ['plain'])
    """
    pieces = BRACES.split(source)
    choices = [[text] if i % 2 == 0 else _choices(text) for i, text in enumerate(pieces)]
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(text: str) -> list[str]:
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if numbers is None:
        return text.split(",")
    first, last = numbers.groups()
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def tree(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, strict: bool = True, shards: bool = True
) -> Tree:
    """The files of a folder, of an archive, of a folder inside one, or of several archives.

    What starts with a dot is left out, and so are what systems leave behind (``__MACOSX``, ``Thumbs.db``) and symbolic
    links and devices in archives. The archives (``.tar``) of a
    folder that holds some, and those of a list or of a pattern with braces, are read as folders called as they are;
    the file ``classes.txt`` beside them counts as one of theirs.

    Args:
        source: A path; a text with braces, ``train-{000..009}.tar``; or several paths.
        strict: Refuse an archive among other files that is damaged, or lies beside a folder of its name; else
            :attr:`Tree.damaged` names it.
        shards: Look into the archives of a folder; else they are files, for :func:`with_shards`.

    Raises:
        DataError: There is no such place, it cannot be listed, or an archive is damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.png", "a/c.png", ".hidden/d.png"):
    ...         Path(folder, name).parent.mkdir(exist_ok=True)
    ...         Path(folder, name).touch()
    ...     [file.name for file in tree(folder).files]
    ['a/c.png', 'b.png']
    """
    if not isinstance(source, str | os.PathLike):
        return _joined(", ".join(map(str, source)), list(map(at_home, source)), strict)
    path = at_home(source)
    with naming(source):
        if path.is_dir():
            return with_shards(_folder(path), strict=strict) if shards else _folder(path)
        archive = next((one for one in (path, *path.parents) if one.is_file()), None)
    if archive is None and "{" in str(path):
        return _joined(os.fspath(source), list(map(at_home, expanded(os.fspath(source)))), strict)
    if archive is None:
        raise DataError(f"{path}: there is no such folder.")
    whole, parts = _archive(archive), path.relative_to(archive).parts
    found = _inside(_unwrapped(whole), parts) or _inside(whole, parts)
    if found is None:
        raise DataError(f"{path}: there is no such folder.")
    return _with_classes(found, archive.parent) if archive.suffix.lower() == ".tar" else found


def at_home(path: str | os.PathLike[str]) -> Path:
    """A path whose ``~`` is the user's home; after the name of a user who is not there it stays as it is.

    >>> at_home("~nobody-of-this-name/pets")
    PosixPath('~nobody-of-this-name/pets')
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _inside(found: Tree, parts: tuple[str, ...]) -> Tree | None:
    """The folder that some names lead to, one below the other; None if there is none."""
    for part in parts:
        if part not in found.children:
            return None
        found = found.children[part]
    return found


def entries(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Entry]:
    """The files of :func:`tree`, in the order of their names."""
    return list(tree(source).files)


def _folder(root: Path) -> Tree:
    """Everything below a folder; links are followed, but not in circles."""
    files: list[Entry] = []
    folders: list[str] = []
    waiting = [(root, "", frozenset({_identity(root)}))]
    while waiting:
        folder, prefix, above = waiting.pop()
        for path in folder.iterdir():
            if not _kept(path.name):
                continue
            mode, identity = _mode(path)
            if S_ISREG(mode):
                files.append(File(prefix + path.name, path))
            elif S_ISDIR(mode) and identity not in above:
                folders.append(prefix + path.name)
                waiting.append((path, f"{prefix}{path.name}/", above | {identity}))
    return Tree(str(root), _sorted(files), tuple(sorted(folders)))


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _mode(path: Path) -> tuple[int, tuple[int, int]]:
    """What kind of file it is, and which; a link that leads nowhere is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, (0, 0)
    return found.st_mode, (found.st_dev, found.st_ino)


def _sorted(files: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(files, key=lambda file: file.name))


def with_shards(folder: Tree, *, strict: bool = True) -> Tree:
    """The same folder with its ``.tar`` files replaced by what is in them, as :func:`tree` reads them.

    Raises:
        DataError: One is damaged or lies beside a folder of its name, unless there are others to go on with.
    """
    packed = {file: file.path for file in folder.ending(".tar") if isinstance(file, File)}
    others = [file for file in folder.files if file not in packed]
    found = _shards(folder.where, {file.name[:-4]: path for file, path in packed.items()}, {*folder.folders}, strict)
    if found.damaged and not found.files and not others:
        raise DataError(found.damaged[0])
    damaged, shards = (*folder.damaged, *found.damaged), {**folder.shards, **found.shards}
    return replace(folder, files=_sorted([*others, *found.files]), damaged=damaged, shards=shards)


def _joined(where: str, paths: Sequence[Path], strict: bool) -> Tree:
    whole = [path.absolute() for path in paths]
    above = os.path.commonpath([path.parent for path in whole])
    named = {
        path.relative_to(above).with_suffix("").as_posix(): given for path, given in zip(whole, paths, strict=True)
    }
    found = _shards(where, named, (), strict)
    if found.damaged and not found.files:
        raise DataError(found.damaged[0])
    return _with_classes(found, paths[0].parent)


def _shards(where: str, archives: Mapping[str, Path], folders: Container[str], strict: bool) -> Tree:
    """What is in several archives, each in a folder of a name.

    Args:
        where: What messages call all of them.
        archives: By the names.
        folders: The names that other folders have already.
        strict: Raise a :class:`DataError` at the first that cannot be read.
    """
    found: dict[str, list[Member]] = {}
    damaged: list[str] = []
    for name, path in archives.items():
        try:
            if name in folders:
                raise DataError(
                    f"{path}: the folder {path.stem}/ lies beside it; if it was unpacked there, every example would "
                    "count twice. Move one of the two away, or give one alone."
                )
            found[name] = [_renamed(member, name) for member in _archive(path).files]
        except DataError as error:
            if strict:
                raise
            damaged.append(str(error))
    files = _sorted(member for members in found.values() for member in members)
    return Tree(where, files, (), damaged=tuple(damaged), shards={name: archives[name] for name in found})


def _with_classes(shards: Tree, folder: Path) -> Tree:
    """With the file ``classes.txt`` that lies beside the archives, if there is one."""
    path = folder / "classes.txt"
    if "classes.txt" in shards.loose or not path.is_file():
        return shards
    return replace(shards, files=_sorted([*shards.files, File(f"{shards.prefix}classes.txt", path)]))


def _renamed(member: Entry, folder: str) -> Member:
    found = cast(Member, member)
    values = {name: getattr(found, name) for name in found.__slots__}
    return Member(**{**values, "name": f"{folder}/{found.name}"})


def _archive(path: Path) -> Tree:
    """The members of a zip or tar, told by its first bytes."""
    with naming(path), path.open("rb") as file:
        start = file.read(512)
    if start[:4] in (b"PK\3\4", b"PK\5\6"):
        return Tree(str(path), _sorted(_zip(path)), (), archive=True)
    if start[257:262] == b"ustar":
        return Tree(str(path), _sorted(_tar(path)), (), archive=True)
    raise DataError(f"{path}: it is neither a folder nor a .zip or .tar archive; unpack other archives first.")


def _unwrapped(archive: Tree) -> Tree:
    """Without the one folder that everything lies in, if there are folders, an index, series or arrays in it."""
    while len(archive.children) == 1 and not archive.loose:
        (child,) = archive.children.values()
        if not child.children and not any(WHOLE.fullmatch(name) for name in child.loose):
            break
        archive = Tree(archive.where, child.files, child.folders, child.prefix, archive=True)
    return archive


def _kept(name: str) -> bool:
    parts = name.split("/")
    hidden = (part.startswith(".") and part not in (".", "..") for part in parts)
    return bool(parts[-1]) and not any(hidden) and not any(part in CLUTTER for part in parts)


def _clean(name: str) -> str:
    """A member's name without what would lead elsewhere if it were a path."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def _zip(path: Path) -> list[Member]:
    try:
        with naming(path), zipfile.ZipFile(path) as archive:
            members = (info for info in archive.infolist() if not S_ISLNK(info.external_attr >> 16))
            found = {info.filename: info for info in members if _kept(_slashed(info))}
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: it is no zip archive, or a damaged one: {error}.") from None
    return [_zip_member(path, info) for info in found.values()]


def _slashed(info: zipfile.ZipInfo) -> str:
    """A member's name with the slashes that the format asks for, and some programs of Windows do not write."""
    return info.filename.replace("\\", "/")


def _zip_member(path: Path, info: zipfile.ZipInfo) -> Member:
    return Member(
        name=_clean(_slashed(info)),
        archive=path,
        member=info.filename,
        declared=info.file_size,
        start=info.header_offset,
        packed=info.compress_size,
        checksum=info.CRC,
        method=info.compress_type,
        refused=_refusal(info),
    )


def _refusal(info: zipfile.ZipInfo) -> str:
    """Why a member of a zip cannot be read, if so."""
    if info.flag_bits & 1:
        return "it is encrypted; unpack the archive first."
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"it is packed by method {info.compress_type}; only DEFLATE is read from zip archives."
    if info.file_size > info.compress_size * INFLATION + INFLATION:
        return f"it declares {info.file_size:,} bytes, which {info.compress_size:,} packed bytes cannot become."
    return ""


def _tar(path: Path) -> list[Member]:
    """The files in a tar, found by going from header to header; what they hold is not read."""
    found: dict[str, Member] = {}
    try:
        with naming(path), path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            last, end = -1, path.stat().st_size
            for info in archive:
                fits = info.sparse is not None or 0 <= info.size <= end - info.offset_data
                if not last < info.offset < end or not fits:
                    raise DataError(f"{path}: {info.name}: the archive is damaged or cut short.")
                last = info.offset
                if info.name in found and not info.isdir():
                    raise DataError(f"{path}: {info.name}: the archive holds it twice; each file needs its own name.")
                if member := _tar_member(path, info, found):
                    found[info.name] = member
            file.seek(archive.offset)
            rest = file.read(CHUNK)
    except (tarfile.TarError, ValueError, EOFError, IndexError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: it is no tar archive, or a damaged one: {str(error).rstrip('.')}.") from None
    if len(rest) < tarfile.BLOCKSIZE or rest.strip(b"\0"):
        after = found[next(reversed(found))].member if found else "its beginning"
        raise DataError(f"{path}: after {after} the archive is cut short or damaged: it does not end in zeros.")
    return [member for name, member in found.items() if _kept(name)]


def _tar_member(path: Path, info: tarfile.TarInfo, before: Mapping[str, Member]) -> Member | None:
    """A file of a tar; a hard link is the file that it is a second name of."""
    if info.islnk():
        first = before.get(info.linkname)
        lost = f"it is a link to {info.linkname}, which does not stand before it in the archive."
        return (
            replace(first, name=_clean(info.name), member=info.name)
            if first
            else Member(_clean(info.name), path, info.name, 0, 0, refused=lost)
        )
    if not info.isreg():
        return None
    if info.sparse is not None:
        sparse = "it is stored sparsely; pack it without --sparse."
        return Member(_clean(info.name), path, info.name, 0, 0, refused=sparse)
    return Member(_clean(info.name), path, info.name, info.size, info.offset_data)
