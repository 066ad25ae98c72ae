"""What changes the weights: the optimiser and its state on disk, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .errors import CheckpointError
from .options import Options
from .processes import shared_like, whole


def optimizer(network: nn.Module, options: Options) -> torch.optim.Optimizer:
    """Stochastic gradient descent, the same with momentum 0.9 (Polyak), or AdamW (Loshchilov and Hutter, 2019)."""
    parameters = list(network.parameters())
    fused = options.parallel != "fsdp" or None  # PyTorch has no fused step for shares of parameters
    if options.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=options.rate, weight_decay=options.decay, fused=fused)
    momentum = 0.9 if options.optimizer == "momentum" else 0.0
    return torch.optim.SGD(parameters, lr=options.rate, momentum=momentum, weight_decay=options.decay, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give every parameter this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value


def state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors, whole, named ``parameter number/state name``; each process must ask."""
    return {
        f"{number}/{name}": whole(torch.as_tensor(value))
        for number, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
        if value is not None
    }


def restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the tensors that :func:`state` took from one like it.

    Raises:
        CheckpointError: A tensor fits no parameter.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition("/")
        known = number.isdecimal() and int(number) < len(parameters)
        if not known or tensor.shape not in ((), parameters[int(number)].shape):
            raise CheckpointError(f"its optimiser holds {key} {tuple(tensor.shape)}, which fits no parameter.")
        entries.setdefault(int(number), {})[name] = shared_like(tensor, parameters[int(number)])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


class Average:
    """An exponential moving average of a network's weights and running statistics.

        average <- d * average + (1 - d) * weights,    d = min(decay, (1 + n) / (10 + n)) at update n

    so that the first weights, which know nothing, are soon forgotten (B. Polyak and A. Juditsky, 1992; the warm-up is
    TensorFlow's). Whole numbers are taken as they are.

    Args:
        network: Whose weights.
        decay: Close to 1.
        updates: How many there were.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = Average(layer, 0.9)
    >>> with torch.no_grad():
    ...     _ = layer.weight.add_(1.0)
    >>> before = average.tensors["weight"].item()
    >>> average.update()
    >>> round((average.tensors["weight"].item() - before) / 1.0, 4)  # 1 - (1 + 0) / (10 + 0)
    0.9
    """

    def __init__(self, network: nn.Module, decay: float, updates: int = 0) -> None:
        self.network, self.decay, self.updates = network, decay, updates
        self.tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's present weights in."""
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, tensor in self.network.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, share)
            else:
                self.tensors[name].copy_(tensor)

    def restore(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Go on from an average that was kept."""
        self.tensors = {name: shared_like(tensors[name], own) for name, own in self.tensors.items()}
        self.updates = updates

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network with the averaged weights; afterwards it has its own again."""
        own = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(self.tensors)
        try:
            yield
        finally:
            self.network.load_state_dict(own)
