"""The documents: every Python block runs, every command line works, every shown output is true, every link leads on."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import striate
from striate import cli, policy
from striate.images import to_pillow
from striate.options import Options

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")} - {README})]
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


def blocks(path: Path) -> list[tuple[str, int, str]]:
    """The fenced blocks of a document: language, first line of the code, code."""
    text = path.read_text(encoding="utf-8")
    return [(m[1], text.count("\n", 0, m.start(2)) + 1, m[2]) for m in FENCE.finditer(text)]


def code(path: Path) -> list[str]:
    """The Python blocks without their comments."""
    return [ast.dump(ast.parse(source)) for language, _, source in blocks(path) if language == "python"]


def commands(path: Path) -> list[str]:
    """The lines of the bash blocks, continuation lines joined."""
    text = "".join(source for language, _, source in blocks(path) if language == "bash").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three classes and of several sizes, as a person might have."""
    train = striate.datasets.load("fashion-mnist-mini").train
    root = tmp_path_factory.mktemp("documents") / "photos"
    names = {8: "bag", 1: "trousers", 9: "boot"}
    for label, name in names.items():
        (root / name).mkdir(parents=True)
        for number in (train.targets == label).nonzero()[:20, 0].tolist():
            grey = to_pillow(train.take([number])[0][0]).resize((40 + number % 9, 36))
            grey.convert("RGB").save(root / name / f"{number:04}.jpg")
    return root


@pytest.fixture
def elsewhere(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh folder with the documents' own pictures, and photos; one thread, as tests share cores.

    What a document says about tuning "from now on in this process" ends with it.
    """
    (tmp_path / "docs").symlink_to(ROOT / "docs", target_is_directory=True)
    (tmp_path / "photos").symlink_to(photos, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(policy, "_DEFAULTS", [policy.Policy()])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def test_the_readme_shows_python_and_the_command_line() -> None:
    assert code(README)
    assert commands(README)


@every_document
def test_fences_are_balanced_and_name_their_language(path: Path) -> None:
    fences = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("```")]
    assert len(fences) == 2 * len(blocks(path))
    assert {language for language, _, _ in blocks(path)} <= {"python", "bash", "sh", "text", "toml", "json"}


@every_document
def test_python_blocks_run_and_print_what_is_shown(
    path: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if path != README and code(path) == code(README):
        return  # a translation: the same code, which runs there
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for language, line, source in blocks(path):
        if language == "python":
            exec(compile("\n" * (line - 1) + source, str(path), "exec"), namespace)
            printed = capsys.readouterr().out
        elif language == "text" and printed:
            assert source in printed, f"{path.name}:{line} shows what the block above it does not print"
        if language != "python":
            printed = ""


@every_document
def test_command_lines_work(
    path: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if path != README and commands(path) == commands(README):
        return
    for line in commands(path):
        words = shlex.split(line, comments=True)
        assert words[0] == "striate", f"{path.name}: only striate's own command line is tried here, not {line!r}"
        monkeypatch.setattr(sys, "argv", words)
        code = exit_code()
        out, err = capsys.readouterr()
        assert code == 0, f"{line}\n{err}"
        assert out.strip()


def exit_code() -> int:
    """Run the command line that stands in ``sys.argv``."""
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_every_make_target_that_is_shown_exists() -> None:
    shown = {target for path in DOCUMENTS for target in re.findall(r"\bmake ([a-z-]+)\b", "\n".join(shells(path)))}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= shown <= targets


def shells(path: Path) -> list[str]:
    return [source for language, _, source in blocks(path) if language == "sh"]


@every_document
def test_links_within_the_project_lead_somewhere(path: Path) -> None:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    missing = [target for target in LINK.findall(text) if not (path.parent / target).exists()]
    assert missing == []


def test_every_option_of_training_is_explained() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert [name for name in Options.model_fields if f"`{name}`" not in page] == []
