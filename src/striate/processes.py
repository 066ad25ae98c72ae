"""One run over several processes: who they are, their sums, and the network that they share.

``torchrun`` and SLURM say in the environment how many processes there are; nothing else has to be told.
"""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed, nn

from . import errors
from .errors import OptionError, StriateError

T = TypeVar("T")

PORTS = (20_000, 40_000)


@dataclass(frozen=True)
class Group:
    """The processes of a run, seen from one of them.

    Args:
        rank: The number of this one.
        size: How many there are.

    >>> Group().first, Group().share(10), Group(1, 2).share(10)
    (True, slice(0, 10, None), slice(6, 10, None))
    """

    rank: int = 0
    size: int = 1

    @staticmethod
    def current() -> Group:
        """The processes of ``torch.distributed``, or this one alone."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return Group()
        return Group(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this one writes files and prints."""
        return self.rank == 0

    def share(self, count: int, parts: int = 1, part: int = 0) -> slice:
        """This process's share of a part of ``count`` examples: neighbours, an even number of them, but for the last.

        All processes together have a part at a time, the same one that a process alone would have.

        Args:
            count: Examples of all processes together.
            parts: Into how many parts they are cut.
            part: Which of these.
        """
        first, end = _cut(0, count, parts, part)
        return slice(*_cut(first, end, self.size, self.rank))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in each of them."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def agree(self, value: Any) -> Any:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]

    def gather(self, work: Callable[[], T]) -> list[T]:
        """What the work of each process gives, the first one's first, in all of them; tensors must be on the CPU.

        Where it fails in one, the others raise the same in words: none waits for what never comes.
        """
        if self.size == 1:
            return [work()]
        found: list[Any] = [None] * self.size
        try:
            mine = work()
        except BaseException as error:  # whatever it is, the others must hear of it
            distributed.all_gather_object(found, _Failed(type(error).__name__, str(error), self.rank))
            raise
        distributed.all_gather_object(found, mine)
        if failed := [value for value in found if isinstance(value, _Failed)]:
            raise failed[0].error()
        return found


@dataclass(frozen=True)
class _Failed:
    """What a process tells the others of an exception, which itself may not be one that can be sent."""

    name: str
    message: str
    rank: int

    def error(self) -> StriateError:
        """The same exception if it is Striate's."""
        kind = getattr(errors, self.name, None)
        if isinstance(kind, type) and issubclass(kind, StriateError):
            return kind(self.message)
        return StriateError(f"process {self.rank} failed with {self.name}: {self.message}")


ALONE = Group()


def _cut(first: int, end: int, parts: int, part: int) -> tuple[int, int]:
    """Where one of several even parts of a range begins and ends."""
    chunk = 2 * -(-(end - first) // (2 * parts))
    return min(end, first + chunk * part), min(end, first + chunk * (part + 1))


def announced(environment: Mapping[str, str]) -> dict[str, str]:
    """What ``torchrun`` says about the processes, or SLURM in its own words; empty for one process.

    >>> slurm = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "77",
    ...          "SLURM_STEP_NODELIST": "gpu[07-08],cpu1"}
    >>> announced(slurm)
    {'RANK': '3', 'WORLD_SIZE': '4', 'LOCAL_RANK': '1', 'MASTER_ADDR': 'gpu07', 'MASTER_PORT': '20077'}
    """
    if int(environment.get("WORLD_SIZE", "1")) > 1:
        return {name: environment[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if name in environment}
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")  # of srun: a batch script is one process of a job of many
    if int(tasks) == 1 or "SLURM_PROCID" not in environment:
        return {}
    hosts = environment.get("SLURM_STEP_NODELIST", "localhost")
    port = PORTS[0] + int(environment.get("SLURM_JOB_ID", "0")) % (PORTS[1] - PORTS[0])
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": tasks,
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_host(hosts),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(port),
    }


def first_host(listed: str) -> str:
    """The first of the hosts that SLURM lists.

    >>> first_host("node[004,007-9]"), first_host("a1,a2")
    ('node004', 'a1')
    """
    return re.sub(r"\[([0-9]+)[^\]]*\]", r"\1", re.split(r",(?![^\[]*\])", listed)[0])


@contextmanager
def joined() -> Iterator[Group]:
    """The group of processes that the environment announces; made here, it lasts until the process ends.

    A second group could not be made after the first one: the addresses of the first are still in the store.
    """
    found = announced(os.environ)
    if not found or distributed.is_initialized():
        yield Group.current()
        return
    os.environ.update(found)
    local = int(found.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
    distributed.init_process_group("cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo")
    atexit.register(_leave)
    yield Group.current()


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


class Engine(Protocol):
    """What runs a step: PyTorch itself, or a library that a person has. Three verbs.

    :class:`Plain` is ours. Lightning Fabric, Accelerate and Ray Train have adapters in :mod:`striate.engines`.
    """

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """The network and the optimiser as the library wants them."""

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss."""

    def unsynchronised(self, network: nn.Module) -> Any:
        """Context in which gradients are added up here, and not yet over the processes."""


class Plain:
    """PyTorch alone: the network as it is, or shared by the processes of ``torch.distributed``."""

    def __init__(self, parallel: str = "ddp") -> None:
        self.parallel = parallel

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Wrapped in DistributedDataParallel if there are several processes."""
        learning = any(parameter.requires_grad for parameter in network.parameters())
        if Group.current().size == 1 or self.parallel == "fsdp" or not learning:
            return network, optimizer
        where = next(network.parameters()).device
        devices = [where.index] if where.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=devices), optimizer

    def backward(self, loss: Tensor) -> None:
        """``loss.backward()``."""
        loss.backward()

    def unsynchronised(self, network: nn.Module) -> Any:
        """``no_sync`` where there is something to synchronise."""
        return network.no_sync() if isinstance(network, nn.parallel.DistributedDataParallel) else nullcontext()


def sharded(network: nn.Module) -> None:
    """Leave each process its share of every parameter (FSDP2), layer by layer; the network is changed in place.

    The layers are those that hold no others: FSDP gathers parameters when a layer is called, and of ``stem.conv`` only
    the convolution is, never ``stem``.

    Y. Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", 2023.

    Raises:
        OptionError: There is only one process.
    """
    from torch.distributed.fsdp import fully_shard

    if Group.current().size == 1:
        raise OptionError("parallel=fsdp shares a network among processes; start several with torchrun.")
    for layer in [layer for layer in network.modules() if not any(layer.children())]:
        if layer is not network and any(parameter.requires_grad for parameter in layer.parameters()):
            fully_shard(layer)
    fully_shard(network)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which every process holds a share; each process must ask.

    >>> whole(torch.ones(2))
    tensor([1., 1.])
    """
    gathered = getattr(tensor, "full_tensor", None)  # PyTorch's DTensor, whose module is slow to import
    return tensor if gathered is None else gathered()


def shared_like(values: Tensor, pattern: Tensor) -> Tensor:
    """A copy of a whole tensor that lies in memory, or is shared among the processes, as another of its shape does.

    PyTorch's fused optimisers pair a parameter and its state by their places in memory.

    >>> shared_like(torch.ones(1, 2, 3, 3), torch.zeros(1, 2, 3, 3).to(memory_format=torch.channels_last)).stride()
    (18, 1, 6, 2)
    """
    if values.shape != pattern.shape:
        return values.clone()
    if hasattr(pattern, "full_tensor"):
        from torch.distributed.tensor import DTensor, distribute_tensor

        if isinstance(pattern, DTensor):
            return distribute_tensor(values.to(pattern.device), pattern.device_mesh, pattern.placements)
    return torch.empty_like(pattern, dtype=values.dtype, requires_grad=False).copy_(values)
