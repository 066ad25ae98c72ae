"""A step inside other libraries gives the same bits as without them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import striate
from striate import engines

TEXT = "INPUT -> CONV 3x3x4 -> BN -> RELU -> POOL -> FC"
OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 32, "optimizer": "momentum", "accumulate": 2, "clip": 1.0}


@pytest.fixture(scope="module")
def alone(bars: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    run = striate.train(TEXT, bars, out=tmp_path_factory.mktemp("alone") / "run", **OPTIONS)
    return load_file(run.checkpoint)


def same(bars: Any, engine: Any, folder: Path, expected: dict[str, torch.Tensor]) -> None:
    found = load_file(striate.train(TEXT, bars, out=folder, engine=engine, **OPTIONS).checkpoint)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_lightning_fabric(bars: Any, alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    library = pytest.importorskip("lightning_fabric")
    same(bars, engines.Fabric(library.Fabric(accelerator="cpu", devices=1)), tmp_path / "run", alone)


def test_accelerate(bars: Any, alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    library = pytest.importorskip("accelerate")
    same(bars, engines.Accelerate(library.Accelerator(cpu=True)), tmp_path / "run", alone)


@pytest.mark.skipif(not os.environ.get("STRIATE_PROVE"), reason="starting Ray takes half a minute: make prove")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_train_with_two_workers(bars: Any, alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    text, options, place = TEXT, OPTIONS, str(tmp_path / "run")

    def loop() -> None:
        import striate

        striate.train(text, bars, out=place, engine=striate.engines.Ray(), **options)

    TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=2)).fit()
    found = load_file(f"{place}/checkpoint.safetensors")
    assert found.keys() == alone.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-4, atol=1e-5, msg=name)
