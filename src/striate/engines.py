"""The same training step inside Lightning Fabric, Accelerate or Ray Train, for people who have them.

Each is given to :func:`striate.train` as ``engine``. The library wraps the network and the optimiser, runs the backward
pass and adds gradients up over its processes; everything else is as without it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from .processes import Plain


class Fabric:
    """Steps run by a ``lightning.fabric.Fabric``, launched by its owner.

    Args:
        fabric: The object; precision is Striate's ``precision``, so leave Fabric's at its default.

    >>> import pytest; lightning = pytest.importorskip("lightning_fabric")
    >>> engine = Fabric(lightning.Fabric(accelerator="cpu", devices=1))
    """

    def __init__(self, fabric: Any) -> None:
        self.fabric = fabric

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """``fabric.setup``."""
        model, stepper = self.fabric.setup(network, optimizer, move_to_device=False)
        return model, stepper

    def backward(self, loss: Tensor) -> None:
        """``fabric.backward``."""
        self.fabric.backward(loss)

    def unsynchronised(self, network: nn.Module) -> AbstractContextManager[Any]:
        """``fabric.no_backward_sync``."""
        return self.fabric.no_backward_sync(network)


class Accelerate:
    """Steps run by an ``accelerate.Accelerator``.

    Args:
        accelerator: The object, with one accumulation step: accumulation is Striate's ``accumulate``.

    >>> import pytest; accelerate = pytest.importorskip("accelerate")
    >>> engine = Accelerate(accelerate.Accelerator(cpu=True))
    """

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """``accelerator.prepare``."""
        model, stepper = self.accelerator.prepare(network, optimizer)
        return model, stepper

    def backward(self, loss: Tensor) -> None:
        """``accelerator.backward``."""
        self.accelerator.backward(loss)

    def unsynchronised(self, network: nn.Module) -> AbstractContextManager[Any]:
        """``accelerator.no_sync``."""
        return self.accelerator.no_sync(network)


class Ray(Plain):
    """Steps run inside a worker of Ray Train's ``TorchTrainer``: call :func:`striate.train` in its loop function."""

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """``ray.train.torch.prepare_model``."""
        from ray.train.torch import prepare_model

        return prepare_model(network, move_to_device=False), optimizer
