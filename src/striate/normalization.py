"""Normalisation over neighbouring channels, a mean pooling along the channel axis."""

from __future__ import annotations

import torch
from torch import Tensor

from .computing.reference import accumulator
from .errors import GeometryError
from .graphs import whole
from .pooling import WIDER, avg_pool, require_count


@whole
def local_response_norm(x: Tensor, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Each value divided by a power of the mean square of its channel's neighbourhood.

        out[n, c] = x[n, c] / (k + alpha / size * sum of x[n, j] ** 2 over j in [c - size // 2, c + (size - 1) // 2])
                    ** beta

    This is PyTorch's and Caffe's formula. A. Krizhevsky, I. Sutskever and G. Hinton, "ImageNet Classification with Deep
    Convolutional Neural Networks", 2012, section 3.3, do not divide alpha by the size: for theirs (size 5, alpha 1e-4,
    beta 0.75, k 2) give ``alpha=5e-4``. Of an even size the odd channel stands before, as in PyTorch.

    Args:
        x: ``(N, C, ...)``; 16-bit numbers are squared in float32.
        size: Channels of the neighbourhood.
        alpha: Weight of the mean square.
        beta: The power.
        k: What stands in for an empty neighbourhood.

    Raises:
        GeometryError: size is below 1, or x holds integers or complex numbers.

    >>> import torch
    >>> local_response_norm(torch.tensor([[[1.0], [2.0]]]), 1, alpha=1.0, beta=1.0)
    tensor([[[0.5000],
             [0.4000]]])
    """
    if x.dim() < 2:
        raise GeometryError(f"local_response_norm: x must be (N, C, ...), got shape {tuple(x.shape)}.")
    if not x.is_floating_point():
        raise GeometryError(f"local_response_norm: x is {x.dtype}; it needs real floating-point numbers.")
    require_count("local_response_norm", "size", size)
    # Squares need twice the range; ONNX Runtime has no poolings of float64, so an exported graph keeps to float32.
    wide = x.to(accumulator(x.dtype) if torch.compiler.is_exporting() else WIDER.get(x.dtype, x.dtype))
    squares = wide.square()
    rows = (squares.flatten(2) if x.dim() > 2 else squares.unsqueeze(2)).unsqueeze(1)
    neighbours = ((size // 2, (size - 1) // 2), (0, 0))
    mean = avg_pool(rows, (size, 1), stride=1, padding=neighbours, divisor=size).view(squares.shape)
    return (wide / (k + alpha * mean) ** beta).to(x.dtype)
