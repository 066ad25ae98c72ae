"""Several processes give the numbers of one; who they are is read from the environment."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import striate
from striate import synchronised_norms
from striate.errors import DataError, OptionError
from striate.options import Options
from striate.processes import Group, _Failed, announced, first_host, sharded
from striate.training import lies_channels_last

from . import distributed_run

PROGRAM = Path(__file__).with_name("distributed_run.py")


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def launched(folder: Path, *cases: str, processes: int = 2) -> list[str]:
    """What the processes print; each has what torchrun would tell it in its environment."""
    shared = {
        **os.environ, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port()),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, str(PROGRAM), str(folder), *cases]
    started = [
        subprocess.Popen(
            command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(processes)
    ]
    try:
        printed = [process.communicate(timeout=200)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * processes
    return printed


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    """DDP, and FSDP2, with batch normalisation over both, mixup, accumulation, clipping and a moving average."""
    pairs = {"plain": "plain", "normalised": "normalised", "accumulated": "accumulated", "mixed": "mixed",
             "sharded": "normalised", "sharded-mixed": "mixed", "wide": "wide", "sharded-wide": "wide"}  # fmt: skip
    first, second = launched(tmp_path / "two", *pairs, "classes", "masks", "bad", "skewed")
    assert first == second
    figures = {alone: distributed_run.trained(alone, str(tmp_path / "one")) for alone in set(pairs.values())}
    for case, alone, told in zip(pairs, pairs.values(), first.splitlines(), strict=False):
        assert json.loads(told) == [pytest.approx(epoch, rel=1e-3) for epoch in figures[alone]], case
        one, two = (load_file(tmp_path / place / "checkpoint.safetensors") for place in (f"one/{alone}", f"two/{case}"))
        assert one.keys() == two.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5, msg=f"{case}, {name}")
    evaluate_a_share_each_and_fail_together(first.splitlines()[len(pairs) :])


def evaluate_a_share_each_and_fail_together(lines: list[str]) -> None:
    """What they print of "classes", "masks", "bad" and "skewed"."""
    for line, task in zip(lines, ["classes", "masks"], strict=False):
        expected = json.loads(distributed_run.told(distributed_run.judged(task)))
        assert json.loads(line) == {name: pytest.approx(values, rel=1e-5) for name, values in expected.items()}
    with pytest.raises(DataError) as caught:
        distributed_run.judged("masks", bad=10)
    alone, shared = "for 16 of 176 labelled pixels", "for 16 of 80 labelled pixels"  # of eleven pictures, of five
    assert alone in str(caught.value)
    assert lines[2:] == [
        str(caught.value).replace(alone, shared),
        "bars: the processes see different test parts, of 50, 49 examples; all must read the same files.",
    ]


def test_what_failed_elsewhere_is_told_in_words() -> None:
    assert repr(_Failed("DataError", "a.png: damaged.", 3).error()) == "DataError('a.png: damaged.')"
    assert repr(_Failed("KeyError", "'x'", 3).error()) == """StriateError("process 3 failed with KeyError: 'x'")"""
    assert repr(_Failed("describing", "x", 0).error()) == "StriateError('process 0 failed with describing: x')"


def test_one_process_is_announced_by_nothing() -> None:
    assert announced({}) == {}
    assert announced({"WORLD_SIZE": "1", "RANK": "0"}) == {}
    assert announced({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) == {}
    assert announced({"SLURM_NTASKS": "2"}) == {}  # a shell inside an allocation, not a task of srun


def test_torchrun_and_slurm_are_understood() -> None:
    torchrun = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1", "HOME": "/"}
    assert announced(torchrun) == {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    step = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NODELIST": "gpu[03-06]"}
    slurm = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", **step}
    assert announced({**slurm, "SLURM_JOB_ID": "50123"}) == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "gpu03",
        "MASTER_PORT": "30123",
    }
    assert announced({**slurm, "MASTER_ADDR": "here", "MASTER_PORT": "7"})["MASTER_ADDR"] == "here"


@pytest.mark.parametrize(
    ("listed", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("n[1-3]", "n1"), ("n[01,04-07]x,m2", "n01x"), ("a-b[9]", "a-b9")],
)
def test_the_first_host_of_a_list(listed: str, first: str) -> None:
    assert first_host(listed) == first


def test_a_process_alone_sums_and_gathers_its_own() -> None:
    group = Group.current()
    assert (group.rank, group.size, group.first) == (0, 1, True)
    assert torch.equal(group.sum(torch.ones(2)), torch.ones(2))
    assert group.gather(lambda: 3) == [3]
    assert group.agree("x") == "x"


def test_sharding_needs_several_processes() -> None:
    with pytest.raises(OptionError) as caught:
        sharded(nn.Linear(1, 1))
    assert str(caught.value) == "parallel=fsdp shares a network among processes; start several with torchrun."


def test_sharded_parameters_lie_contiguous() -> None:
    network = striate.network("INPUT 1x4x4 -> CONV 3-16 -> CONV 3-16 -> GLOBALAVGPOOL -> FC 2")
    where = torch.device("cpu")
    assert lies_channels_last(network, Options(), where)
    assert not lies_channels_last(network, Options(parallel="fsdp"), where)
    with pytest.raises(OptionError) as caught:
        lies_channels_last(network, Options(parallel="fsdp", layout="channels-last"), where)
    assert str(caught.value) == "parallel=fsdp shares contiguous parameters only; leave layout=channels-last out."


def test_a_shared_normalisation_alone_is_pytorchs() -> None:
    torch.manual_seed(0)
    layers = [nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)]
    own = nn.Sequential(layers[0], nn.Sequential(layers[1]))
    x = torch.randn(4, 3, 5, 5)
    expected = own(x)
    for layer in layers:
        layer.reset_running_stats()
    names = list(own.state_dict())
    synchronised_norms.share(own)
    torch.testing.assert_close(own(x), expected)
    assert list(own.state_dict()) == names
