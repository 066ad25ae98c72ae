"""Fixtures of every test: uninitialised memory is poisoned, and tolerances stand in one table."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings

# No test reads or writes what the user's machine has learned.
os.environ["STRIATE_CACHE"] = LEARNED = tempfile.mkdtemp(prefix="striate-tests-")

# Tests run side by side, so each takes one thread: more would compete for the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# Of examples drawn at random, ``make test`` takes the same each time; ``make prove`` looks for new ones.
settings.register_profile("test", derandomize=True, deadline=None)
settings.register_profile("prove", max_examples=1000, deadline=None)
settings.load_profile("prove" if os.environ.get("STRIATE_PROVE") else "test")

LONGEST = ("test_the_laws_hold_in_the_interpreter", "test_a_killed_run_can_be_resumed")
# Of the cases of these tests, which take seconds each, ``make test`` takes every third, and ``make prove`` all.
SAMPLED = {
    ("test_graphs.py", "test_exports_to_onnx_and_onnx_runtime_agrees"),
    ("test_graphs.py", "test_compiles_in_one_graph_with_gradients_and_serves_another_batch"),
    ("test_acceleration.py", "test_compiles_whole"),
    ("test_native_pools.py", "test_long_windows_on_every_instruction_set"),
}


def pytest_unconfigure() -> None:
    shutil.rmtree(LEARNED, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest tests begin first, so that no core waits for one of them at the end; of some, a part is taken."""
    if not os.environ.get("STRIATE_PROVE"):
        seen: Counter[tuple[str, str]] = Counter()
        left = []
        for item in items:
            key = (item.path.name, getattr(item, "originalname", item.name))
            # A diagonal, so that no value of a parameter that has three is left out.
            if key in SAMPLED and (seen[key] + seen[key] // 3) % 3:
                left.append(item)
            seen[key] += 1
        if len(left) < len(items) and not any("[" in argument for argument in config.args):
            config.hook.pytest_deselected(items=left)
            items[:] = [item for item in items if item not in set(left)]
    items.sort(key=lambda item: item.name not in LONGEST)


@pytest.fixture(autouse=True)
def poison_uninitialised_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that forgets a border must fail, not pass by luck."""
    if "torch" not in request.module.__dict__:
        return
    import torch

    with torch.device("cpu"):
        torch.empty(0)  # makes torch.device learn which functions it steers, before one of them is replaced
    real, real_like = torch.empty, torch.empty_like

    def poison(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point() and not tensor.requires_grad and not tensor.is_meta:
            tensor.fill_(math.nan)
        return tensor

    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: poison(real(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: poison(real_like(*args, **kwargs)))


@pytest.fixture(autouse=True)
def plan_without_measurements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans of tests depend neither on the shipped measurements nor on the machine, unless a test asks for them."""
    if "torch" not in request.module.__dict__:
        return
    from striate import estimates

    monkeypatch.setattr(estimates, "shipped", estimates.Table)


@pytest.fixture
def close() -> Any:
    """Compare tensors (or lists of them) at the tolerance of their dtype."""
    import torch

    tolerances = {torch.float64: 1e-10, torch.complex128: 1e-10, torch.float32: 1e-5, torch.bfloat16: 3e-2}

    def compare(actual: Any, expected: Any) -> None:
        first = expected[0] if isinstance(expected, list | tuple) else expected
        limit = tolerances[first.dtype]
        torch.testing.assert_close(actual, expected, rtol=limit, atol=limit)

    return compare


@pytest.fixture(scope="session")
def bars() -> Any:
    """A tiny data set that a tiny network learns in a second: lying, standing and crossed bars, 1x8x8."""
    import torch

    from striate.datasets import Dataset, Split

    def draw(count: int, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 3
        images = torch.randint(0, 60, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
        places = torch.randint(0, 8, (count, 2), generator=generator)
        for image, label, (row, column) in zip(images, labels.tolist(), places.tolist(), strict=True):
            if label != 1:
                image[0, row] = 250
            if label != 0:
                image[0, :, column] = 250
        return Split(images, labels)

    return Dataset("bars", ("lying", "standing", "crossed"), draw(180, 1), draw(60, 2))


@pytest.fixture(scope="session")
def circles() -> Any:
    """Discs on noise and their masks, 1x24x32, in which a border pixel is left out: what a small network learns."""
    import torch

    from striate.datasets import Dataset, Split

    def draw(count: int, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        rows, columns = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
        middle = torch.rand(count, 2, 1, 1, generator=generator) * torch.tensor([24.0, 32.0]).view(2, 1, 1)
        far = ((rows - middle[:, 0]) ** 2 + (columns - middle[:, 1]) ** 2).sqrt()
        masks = (far < 7).byte()
        noise = torch.randint(0, 90, (count, 1, 24, 32), generator=generator)
        masks[:, 0, 0] = 255
        return Split((noise + 120 * (far < 7)[:, None]).byte(), masks)

    return Dataset("circles", ("ground", "disc"), draw(40, 1), draw(10, 2), task="masks")


@pytest.fixture(scope="session")
def bars_folder(bars: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same pictures as files: ``train/<class>/*.png`` and ``test/<class>/*.png``."""
    from striate.images import to_pillow

    root = tmp_path_factory.mktemp("pictures") / "bars"
    for part in ("train", "test"):
        split = getattr(bars, part)
        for number, (image, label) in enumerate(zip(split.inputs, split.targets.tolist(), strict=True)):
            folder = root / part / bars.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            to_pillow(image).save(folder / f"{number:03}.png")
    return root


TEXT = "INPUT -> CONV 3x3x8 -> RELU -> POOL -> FC"


@pytest.fixture(scope="session")
def bars_run(bars_folder: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run on the picture files."""
    import striate

    return striate.train(TEXT, bars_folder, out=tmp_path_factory.mktemp("runs") / "bars", epochs=8, batch_size=16)
