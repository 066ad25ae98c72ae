"""The ceilings of the machine: measured once, kept, and shipped ones until then."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
import torch

from striate import machine, wisdom


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path))
    return tmp_path


def test_nothing_is_measured_unless_asked(cache: Path) -> None:
    assert machine.ceilings() is machine.SHIPPED
    assert not machine.SHIPPED.measured
    assert list(cache.iterdir()) == []


def test_a_calibration_is_kept(cache: Path) -> None:
    ticks = count()
    found = machine.calibrate(clock=lambda: next(ticks) * 0.5)
    assert found.measured
    assert found.operations["float32"] == 2 * 768**3 / 0.5
    assert found.operations["float16"] == 2 * 192**3 / 0.5
    assert found.levels == machine.memory(2 * machine.COPIED / 0.5)
    assert machine.ceilings() == found
    assert machine.calibrated() == found
    wisdom._opened.cache_clear()
    assert machine.ceilings() == found


def test_a_record_that_lacks_a_ceiling_is_none(cache: Path) -> None:
    wisdom.opened().keep(machine._key(), {"float32": 1e9})
    assert machine.ceilings() is machine.SHIPPED


def test_another_number_of_threads_is_another_machine(cache: Path) -> None:
    ticks = count()
    machine.calibrate(clock=lambda: float(next(ticks)))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert machine.ceilings() is machine.SHIPPED
    finally:
        torch.set_num_threads(threads)


def test_the_least_time_is_that_of_arithmetic_or_of_bytes() -> None:
    limits = machine.Ceilings({"float32": 100.0}, machine.memory(10.0))
    assert limits.limit(torch.float32, 100, 5) == (2.0, "arithmetic")
    assert limits.limit(torch.complex64, 100, 50) == (5.0, "DRAM")


def test_it_has_names() -> None:
    assert machine.name()
    assert machine.instructions() == torch.backends.cpu.get_cpu_capability()
    assert torch.__version__ in machine.versions()
    assert machine.halves()
