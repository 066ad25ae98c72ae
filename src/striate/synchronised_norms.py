"""Batch normalisation over several processes: the statistics of the whole batch, on any device.

torch.nn.SyncBatchNorm does the same, on GPUs alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from .processes import Group


class _Sum(torch.autograd.Function):
    """The sum over all processes; its derivative is the sum of the derivatives."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def summed(values: Tensor) -> Tensor:
    """The sum over all processes."""
    return _Sum.apply(values)  # type: ignore[no-untyped-call]


class SharedBatchNorm(BatchNorm):
    """A batch normalisation whose mean and variance, in training, are those of all processes' examples together.

        mean = S(x) / n,   variance = S((x - mean)^2) / n,   S the sum over examples, positions and processes

    S. Ioffe and C. Szegedy, "Batch Normalization", 2015; H. Zhang et al., "Context Encoding for Semantic
    Segmentation", 2018, appendix, for the statistics of several devices. Made by :func:`share` from a layer of
    torch.nn, whose parameters and statistics it keeps.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # the layer that it was made from has its own number of axes, which the network has checked

    def forward(self, input: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to the same shape."""
        if not self.training or Group.current().size == 1:
            return super().forward(input)
        x = input.float()
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = summed(torch.cat([x.sum(axes), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = x - mean.view(shape)
        variance = summed(centred.square().sum(axes)) / total
        self._remember(mean.detach(), variance.detach(), float(total))
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = torch.addcmul(self.bias.view(shape), out, self.weight.view(shape))
        return out.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running statistics, as torch.nn's layer does: with the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / max(count - 1, 1), share)


def share(network: nn.Module) -> None:
    """Make every batch normalisation of a network that of all processes, in place.

    >>> network = nn.Sequential(nn.BatchNorm2d(3))
    >>> share(network)
    >>> type(network[0]).__name__
    'SharedBatchNorm'
    """
    for name, child in network.named_children():
        if isinstance(child, BatchNorm):
            shared = SharedBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            shared.weight, shared.bias = child.weight, child.bias
            shared.running_mean, shared.running_var = child.running_mean, child.running_var
            shared.num_batches_tracked = child.num_batches_tracked
            setattr(network, name, shared.train(child.training))
        else:
            share(child)
