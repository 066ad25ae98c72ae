"""The package reads like a book: the rules about its code, checked by code."""

from __future__ import annotations

import ast
import inspect
import io
import json
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import pytest

import striate

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "striate"

# The reading order: a module imports only from earlier ones.
BOOK = [
    *("errors", "files", "padding", "geometry", "taps", "relations", "gradients", "receptive_field", "cost"),  # I
    *("windows", "operations", "spelling", "architecture", "notation", "zoo"),  # II   the network on paper
    *("kinship", "support", "memory", "tables", "analysis", "comparison"),
    *("findings", "facts", "size_rules", "field_rules", "structure_rules", "lint"),
    *("graphs", "borders", "unfolding", "matrices", "policy"),  # III  computing
    *("computing", "wisdom", "machine", "estimates", "progress", "races", "planning", "trilinear", "convolution"),
    *("reductions", "pooling", "adaptive", "normalization"),
    *("layers", "pooling_layers", "lazy_layers", "channels", "rotation", "blocks", "nn"),  # IV   networks
    *("node_layers", "networks", "factors", "rearranging", "drafts", "drafting", "combining"),
    *("aten", "aten_windows", "aten_products"),
    *("shortcuts", "units", "dispatching", "tracing", "inspection", "batches"),
    *("measuring", "planned_layers", "fusion", "observing", "layouts", "acceleration_report", "acceleration"),
    *("members", "storage", "images", "signals", "volumes", "readers", "splits", "moments", "streaming", "listings"),
    *("decoding", "arrays", "indexes", "shards", "series", "hub"),
    *("datasets", "surveys", "draws", "moves", "alterations", "augmentation"),  # V    data
    *("metrics", "options", "processes", "losses", "schedules", "optimizing", "synchronised_norms"),
    *("checkpoint", "loading", "views", "prediction", "feeding", "training", "range_test", "engines", "starts"),
    *("backpropagation", "derivatives", "arithmetic", "lessons", "exporting"),
    *("rendering", "sheets", "portraits", "overlays", "pictures", "feature_maps", "diagrams"),  # VI   seeing
    *("report", "showing", "runs", "sweeps", "benchmark"),
    *("pytest_plugin", "commands", "data_verbs", "cli", "__main__"),
]
ON_PAPER = BOOK[: BOOK.index("graphs")]
COMPUTING = [
    "interface",
    "reference",
    "vendor",
    "im2col",
    "native",
    "native_channels",
    "native_positions",
    "triton_kernels",
    "triton_windows",
    "toeplitz",
    "relaid",
    "separable",
    "passes",
    "pools",
    "native_pools",
    "tiles",
    "fft",
    "winograd",
    "native_winograd",
    "__init__",
]

BENCHMARK = ["suite", "machine", "peers", "jax_ways", "truth", "contest", "results", "page"]
SECTIONS = [*COMPUTING[:-1], *BENCHMARK, "__init__"]

SOURCES = sorted(PACKAGE.rglob("*.py"))
COVER = PACKAGE / "__init__.py"
every_file = pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(PACKAGE)) for path in SOURCES])


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


# --------------------------------------------------------------------------------------------------- the order of pages


def dotted(path: Path, package: Path) -> tuple[str, ...]:
    """``striate/computing/vendor.py`` is ("computing", "vendor")."""
    return path.relative_to(package).with_suffix("").parts


def targets(path: Path, package: Path) -> Iterator[tuple[str, ...]]:
    """Every module of the package that a file imports, wherever in the file the import stands."""
    here = dotted(path, package)[:-1]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            named = tuple(node.module.split(".")) if node.module else ()
            base = (*here[: len(here) - node.level + 1], *named)
            for alias in node.names:
                if alias.name == "_native":  # compiled from the folder "native", it stands before the book
                    continue
                inner = package.joinpath(*base, alias.name)
                is_module = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                yield (*base, alias.name) if is_module else base
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package.name:
            yield tuple((node.module or "").split(".")[1:])
        elif isinstance(node, ast.Import):
            yield from (tuple(a.name.split(".")[1:]) for a in node.names if a.name.split(".")[0] == package.name)


def wrong_imports(package: Path, book: list[str], computing: list[str]) -> list[str]:
    """Imports of the same or a later chapter, as ``module -> target``. Must be empty."""
    page = {name: number for number, name in enumerate(book)}
    section = {name: number for number, name in enumerate(computing)}
    wrong = []
    for path in sorted(package.rglob("*.py")):
        module = dotted(path, package)
        if module == ("__init__",):
            continue  # the cover: it names what is inside
        for target in targets(path, package):
            if target and target[0] == module[0] and len(module) > 1:
                inner = target[1] if len(target) > 1 else "__init__"
                legal = section.get(inner, len(section)) < section.get(module[1], -1)
            else:
                legal = bool(target) and page.get(target[0], len(page)) < page.get(module[0], -1)
            if not legal:
                wrong.append(f"{'.'.join(module)} -> {'.'.join(target) or package.name}")
    return wrong


def test_a_module_imports_only_from_earlier_ones() -> None:
    assert wrong_imports(PACKAGE, BOOK, SECTIONS) == []


PAGES = {
    "__init__.py": "from .late import x",
    "early.py": "",
    "middle.py": "from . import early\nfrom .early import x\nimport math",
    "computing/__init__.py": "from . import inner, outer\nfrom .inner import x",
    "computing/inner.py": "from .. import early\nfrom ..middle import x",
    "computing/outer.py": "from .inner import x",
    "late.py": "from .computing import outer\nfrom .computing.inner import x\nfrom . import early as e, middle",
}
SLIPS = [
    ("early.py", "from .middle import x", "early -> middle"),
    ("early.py", "from . import late", "early -> late"),
    ("early.py", "def f():\n    from .late import x", "early -> late"),
    ("early.py", "if True:\n    from . import middle as m", "early -> middle"),
    ("middle.py", "from .middle import x", "middle -> middle"),
    ("middle.py", "import book.late", "middle -> late"),
    ("middle.py", "from book.late import x", "middle -> late"),
    ("middle.py", "from book import x", "middle -> book"),
    ("middle.py", "from . import x", "middle -> book"),
    ("middle.py", "from .computing.inner import x", "middle -> computing.inner"),
    ("computing/inner.py", "from .outer import x", "computing.inner -> computing.outer"),
    ("computing/inner.py", "from . import x", "computing.inner -> computing"),
    ("computing/inner.py", "from ..late import x", "computing.inner -> late"),
    ("computing/inner.py", "from .. import x", "computing.inner -> book"),
    ("late.py", "from .unknown import x", "late -> unknown"),
    ("unlisted.py", "from .early import x", "unlisted -> early"),
]


@pytest.mark.parametrize(("page", "line", "slip"), [("late.py", "", None), *SLIPS])
def test_an_import_from_a_later_page_is_found(tmp_path: Path, page: str, line: str, slip: str | None) -> None:
    package = tmp_path / "book"
    for name, text in {**PAGES, page: PAGES.get(page, "") + "\n" + line}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    found = wrong_imports(package, ["early", "middle", "computing", "late"], ["inner", "outer", "__init__"])
    assert found == ([] if slip is None else [slip])


def test_every_module_stands_in_the_book_and_every_page_exists() -> None:
    chapters = {dotted(path, PACKAGE)[0] for path in SOURCES} - {"__init__"}
    assert sorted(BOOK) == sorted(chapters)
    assert sorted(COMPUTING) == sorted(path.stem for path in (PACKAGE / "computing").glob("*.py"))
    assert sorted([*BENCHMARK, "__init__"]) == sorted(path.stem for path in (PACKAGE / "benchmark").glob("*.py"))


def test_only_the_cover_imports_by_name() -> None:
    words = ("import_module", "__import__")
    doors = (COVER, PACKAGE / "zoo" / "__init__.py")  # a name that people type there stands in a later chapter
    assert [p.name for p in SOURCES if p not in doors and any(w in p.read_text(encoding="utf-8") for w in words)] == []


DRAWERS = {"utils", "util", "helpers", "helper", "common", "base", "misc", "tools", "shared", "core"}


def test_no_module_is_a_drawer() -> None:
    parts = {part for path in SOURCES for name in dotted(path, PACKAGE) for part in name.strip("_").split("_")}
    assert parts & DRAWERS == set()


# ----------------------------------------------------------------------------------------------- tests of every module

TESTED_ELSEWHERE = {
    "node_layers": "test_networks",
    "channels": "test_blocks",
    "rotation": "test_blocks",
    "nn": "test_layers",  # only gives the layers their public names
    "lazy_layers": "test_layers",
    "pooling_layers": "test_layers",
    "planned_layers": "test_acceleration",
    "observing": "test_acceleration",
    "layouts": "test_acceleration",
    "acceleration_report": "test_acceleration",
    **dict.fromkeys(
        ("findings", "facts", "size_rules", "field_rules", "structure_rules", "pytest_plugin"), "test_lint"
    ),
    **dict.fromkeys(
        ("factors", "rearranging", "drafts", "drafting", "combining", "aten", "aten_windows"), "test_tracing"
    ),
    **dict.fromkeys(("aten_products", "units", "shortcuts", "dispatching"), "test_tracing"),
    "kinship": "test_support",
    "windows": "test_operations",
    "derivatives": "test_backpropagation",
    "arithmetic": "test_lessons",
    "spelling": "test_notation",
    "synchronised_norms": "test_processes",
    "views": "test_prediction",
    "members": "test_storage",
    "feature_maps": "test_pictures",
    "range_test": "test_training",
    "starts": "test_runs",
    "commands": "test_cli",
    "data_verbs": "test_cli",
    "__main__": "test_cli",
}


def test_every_module_has_its_test_file() -> None:
    wanted = {name: TESTED_ELSEWHERE.get(name, f"test_{name}") for name in BOOK}
    assert [name for name, test in wanted.items() if not (ROOT / "tests" / f"{test}.py").is_file()] == []


# ------------------------------------------------------------------------------------------------------ limits of taste


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code: no blank line, no comment, no docstring."""
    lines: set[int] = set()
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in quiet:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if first is not None and ast.get_docstring(node, clean=False) is not None:
                lines -= set(range(first.lineno, (first.end_lineno or 0) + 1))
    return lines


def function_lengths(source: str) -> dict[str, int]:
    """Lines of code of every function and method, those of the signature included."""
    lines = code_lines(source)
    functions = (
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return {f"{f.name}:{f.lineno}": len(lines & set(range(f.lineno, (f.end_lineno or 0) + 1))) for f in functions}


def test_lines_are_counted_as_a_reader_counts_them() -> None:
    source = '''"""A module."""

import os  # used


def f(
    x: int,
) -> str:
    """What f does.

    >>> f(1)
    """
    # a comment
    text = """two
lines"""

    def g() -> str:
        return text

    return g() * x


class C:
    """A class."""

    def m(self) -> None: ...
'''
    assert len(code_lines(source)) == 11
    assert function_lengths(source) == {"f:6": 8, "g:17": 2, "m:26": 1}


@every_file
def test_no_file_is_over_500_lines_of_code(path: Path) -> None:
    assert len(code_lines(path.read_text(encoding="utf-8"))) <= 500


@every_file
def test_no_function_is_over_60_lines(path: Path) -> None:
    lengths = function_lengths(path.read_text(encoding="utf-8"))
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def test_the_median_function_is_under_10_lines() -> None:
    lengths = [n for path in SOURCES for n in function_lengths(path.read_text(encoding="utf-8")).values()]
    assert len(lengths) > 100
    assert median(lengths) < 10


def silencers(tree: ast.AST) -> list[int]:
    """Lines where an error is swallowed: a bare ``except``, a handler that only passes, ``suppress(Exception)``."""
    blind = ("Exception", "BaseException")
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            passes = all(isinstance(line, ast.Pass | ast.Continue) or _is_ellipsis(line) for line in node.body)
            if node.type is None or passes:
                found.append(node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("suppress", "contextlib.suppress"):
            found += [node.lineno for argument in node.args if ast.unparse(argument) in blind]
    return found


def _is_ellipsis(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and line.value.value is ...


SILENT = [
    "try:\n    f()\nexcept:\n    g()",
    "try:\n    f()\nexcept ValueError:\n    pass",
    "try:\n    f()\nexcept Exception:\n    ...",
    "for x in y:\n    try:\n        f()\n    except (OSError, KeyError) as e:\n        continue",
    "with suppress(Exception):\n    f()",
]


@pytest.mark.parametrize("source", SILENT)
def test_a_swallowed_error_is_found(source: str) -> None:
    assert len(silencers(ast.parse(source))) == 1
    assert silencers(ast.parse("try:\n    f()\nexcept ValueError:\n    g()\nwith suppress(OSError):\n    f()")) == []


@every_file
def test_no_error_is_swallowed(path: Path) -> None:
    assert silencers(tree_of(path)) == []


@every_file
def test_a_handler_of_every_exception_raises_or_says_why(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree_of(path)):
        if (
            isinstance(node, ast.ExceptHandler)
            and node.type
            and ast.unparse(node.type) in ("Exception", "BaseException")
        ):
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert raises or "  # " in lines[node.lineno - 1], f"{path.name}:{node.lineno}"


@every_file
def test_no_assert_and_no_stub(path: Path) -> None:
    """Users get exceptions, invariants get tests; what is not built yet does not exist."""
    tree = tree_of(path)
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)] == []
    raised = [n.exc for n in ast.walk(tree) if isinstance(n, ast.Raise) and n.exc is not None]
    names = [n for exc in raised for n in ast.walk(exc) if isinstance(n, ast.Name)]
    assert [n.lineno for n in names if n.id.startswith("NotImplemented")] == []


# What else is raised on purpose, and why it is no error of the family.
OTHERS = {
    ("options.py", "PydanticCustomError"),  # what a validator of pydantic raises; it becomes an OptionError
    ("interface.py", "ValueError"),  # an algorithm registered twice: a mistake of who writes algorithms, not of a user
    ("runs.py", "KeyboardInterrupt"),  # the user's own stop, passed on with the words how to resume
    ("pytest_plugin.py", "AssertionError"),  # what makes a test fail
    ("__init__.py", "AttributeError"),  # what Python asks of a module
}


@every_file
def test_errors_are_of_the_family(path: Path) -> None:
    family = {name for name, value in vars(striate.errors).items() if inspect.isclass(value)}
    raised = [n.exc for n in ast.walk(tree_of(path)) if isinstance(n, ast.Raise)]
    classes = [ast.unparse(e.func) for e in raised if isinstance(e, ast.Call) and ast.unparse(e.func)[0].isupper()]
    assert {name for name in classes if name not in family and (path.name, name) not in OTHERS} == set()


# ----------------------------------------------------------------------------------------------------- the public names

PUBLIC = [
    "__version__",
    *(
        "Architecture",
        "Axis",
        "Comparison",
        "Dataset",
        "Description",
        "Evaluation",
        "Finding",
        "Geometry",
        "Plan",
        "Run",
    ),
    *(
        "accelerate",
        "adaptive_avg_pool",
        "adaptive_max_pool",
        "algorithms",
        "avg_pool",
        "check",
        "compare",
        "conv",
        "conv_local",
        "conv_tiled",
        "conv_transpose",
        "describe",
        "evaluate",
        "export",
        "fold",
        "gaussian_pool",
        "local_response_norm",
        "lp_pool",
        "matrix",
        "max_pool",
        "max_unpool",
        "maxout",
        "network",
        "plan",
        "predict",
        "predictions",
        "ragged",
        "restore",
        "search",
        "sweep",
        "trace",
        "train",
        "tuning",
        "unfold",
    ),
    *("augmentation", "blocks", "datasets", "engines", "errors", "nn", "zoo"),
]
public = pytest.mark.parametrize("name", PUBLIC[1:])


def test_the_public_names_are_the_recorded_ones() -> None:
    assert striate.__all__ == PUBLIC
    assert dir(striate) == sorted(PUBLIC)


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert striate.__version__ == project["version"]
    assert (PACKAGE / "py.typed").is_file()


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """What a user can call or read on a public name: the thing itself, and a class's or a module's public members."""
    yield getattr(value, "__name__", "?"), value
    for name in getattr(value, "__all__", vars(value)) if isinstance(value, ModuleType) else vars(value):
        member = inspect.getattr_static(value, name)
        member = member.__func__ if isinstance(member, staticmethod | classmethod) else member
        home = getattr(member, "__module__", "") or ""
        if name.startswith("_") or (isinstance(value, ModuleType) and not home.startswith("striate")):
            continue
        if inspect.isclass(member):
            yield from members(member)
        elif inspect.isfunction(member):
            yield name, member
        elif isinstance(member, property):
            yield name, member.fget


@public
def test_a_public_name_is_reachable_documented_and_annotated(name: str) -> None:
    value = getattr(striate, name)
    assert len(list(members(value))) >= 1
    for member, thing in members(value):
        documentation = inspect.getdoc(thing) or ""
        assert documentation.split("\n")[0].endswith("."), f"{name}.{member} has no headline"
        assert not inspect.isclass(thing) or not documentation.startswith(f"{thing.__name__}("), f"{name}.{member}"
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            named = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
            assert all(p.annotation is not p.empty for p in named), f"{name}.{member} has a bare argument"
            assert signature.return_annotation is not signature.empty, f"{name}.{member} says not what it returns"


def test_type_checkers_see_the_same_names_from_the_same_homes() -> None:
    block = next(node for node in tree_of(COVER).body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {a.asname or "": n.module or a.name for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    homes = {name: getattr(striate, name) for name in PUBLIC[1:]}
    assert sorted(seen) == sorted(homes)
    for name, module in seen.items():
        home = sys.modules[f"striate.{module}"]
        assert homes[name] is (home if isinstance(homes[name], ModuleType) else getattr(home, name))


def test_a_name_that_is_not_there_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(AttributeError) as caught:
        striate.conv2d  # noqa: B018
    listed = ", ".join(PUBLIC[1:])
    assert str(caught.value) == f"module 'striate' has no attribute 'conv2d'; it offers {listed}."


# --------------------------------------------------------------------------------------------------- what loads when

HEAVY = ["torch", "numpy", "matplotlib", "lark", "pydantic", "typer", "rich", "PIL", "safetensors", "jinja2", "scipy"]


def in_a_fresh_python(program: str) -> Any:
    """What a program prints as JSON, in a new interpreter."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_striate_loads_nothing_heavy() -> None:
    program = f"""
import json, sys
import striate
dir(striate), striate.__version__, striate.errors, striate.Axis, striate.Geometry
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""
    assert in_a_fresh_python(program) == []


def test_the_window_and_the_network_on_paper_work_without_torch() -> None:
    program = f"""
import json, sys
for name in ("torch", "numpy"):
    sys.modules[name] = None  # any import of it fails
import striate
from importlib import import_module
for name in {ON_PAPER}:
    import_module("striate." + name)
table = striate.describe("lenet5")
geometry = striate.Geometry.window(2, 11, stride=4)
print(json.dumps([table.totals.parameters, len(str(table)) > 0, geometry.output_size((227, 227))]))
"""
    assert in_a_fresh_python(program) == [61_706, True, [55, 55]]


def test_torch_is_loaded_when_it_is_first_needed() -> None:
    program = """
import json, sys
import striate
before = "torch" in sys.modules
striate.conv
print(json.dumps([before, "torch" in sys.modules]))
"""
    assert in_a_fresh_python(program) == [False, True]
