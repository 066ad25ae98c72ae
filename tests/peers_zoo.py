"""Published ConvNets in plain PyTorch, written from their papers: the independent truth for the package's own zoo.

Weights stand in the order of torchvision's or timm's state_dict where such a model exists, else in the order in which
they are used. A network with auxiliary heads gives a tuple, the main scores first, in training and in evaluation.
"""

from __future__ import annotations

from torch import nn

from . import (
    peers_zoo_classics,
    peers_zoo_dense,
    peers_zoo_inceptions,
    peers_zoo_mobiles,
    peers_zoo_residuals,
    peers_zoo_signals,
)
from .peers_zoo_parts import Network

NETWORKS: dict[str, Network] = {
    **peers_zoo_classics.NETWORKS,
    **peers_zoo_inceptions.NETWORKS,
    **peers_zoo_residuals.NETWORKS,
    **peers_zoo_mobiles.NETWORKS,
    **peers_zoo_dense.NETWORKS,
    **peers_zoo_signals.NETWORKS,
}

INPUTS: dict[str, tuple[int, ...]] = {name: shape for name, (_, shape) in NETWORKS.items()}


def build(name: str) -> nn.Module:
    """The network of that name, with torch's own initial weights."""
    make, _ = NETWORKS[name]
    return make()
