"""Padding: words become numbers of rows before and after, and modes say what those rows hold."""

from __future__ import annotations

from .errors import GeometryError, unknown_name

WORDS = ("valid", "same", "same_lower", "full", "causal")
MODES = ("zeros", "reflect", "replicate", "circular")


def rows(word: str, extent: int, stride: int, size: int | None) -> tuple[int, int]:
    """Rows of padding ``(before, after)`` that a word stands for, on one axis.

        valid        0, 0
        same         total = max((ceil(size / stride) - 1) * stride + extent - size, 0), the odd row after
        same_lower   the same total, the odd row before
        full         extent - 1 on both sides
        causal       extent - 1 before

    The rule of "same" is that of TensorFlow, JAX and ONNX (``SAME_UPPER``, ``SAME_LOWER``): the output has
    ``ceil(size / stride)`` positions. With stride 1 it needs no ``size`` and is PyTorch's "same".

    Args:
        word: One of :data:`WORDS`.
        extent: Input positions from the first to the last tap, inclusive.
        stride: Step between windows.
        size: Input positions; only "same" with a stride above 1 needs it.

    Raises:
        UnknownNameError: The word is not one of :data:`WORDS`.
        GeometryError: "same" with a stride above 1 and no size.

    >>> rows("same", extent=4, stride=1, size=None), rows("same", extent=3, stride=2, size=224)
    ((1, 2), (0, 1))
    """
    if word not in WORDS:
        raise unknown_name("padding", word, WORDS)
    if word in ("same", "same_lower"):
        total = same_total(word, extent, stride, size)
        small, large = total // 2, total - total // 2
        return (small, large) if word == "same" else (large, small)
    return {"valid": (0, 0), "full": (extent - 1, extent - 1), "causal": (extent - 1, 0)}[word]


def same_total(word: str, extent: int, stride: int, size: int | None) -> int:
    """Rows that "same" adds in all."""
    if stride == 1:
        return extent - 1
    if size is None:
        raise GeometryError(
            f"padding={word!r} with stride={stride} depends on the input size; "
            "give size=(...) too, or write the padding as numbers."
        )
    return max((-(-size // stride) - 1) * stride + extent - size, 0)


def sources(mode: str, size: int, before: int, after: int) -> list[int]:
    """Where each position of the padded axis takes its value from, for a mode other than zeros.

        reflect      3 2 1 | 0 1 2 3 | 2 1 0     (the border itself is not repeated)
        replicate    0 0 0 | 0 1 2 3 | 3 3 3
        circular     1 2 3 | 0 1 2 3 | 0 1 2

    Padding wider than the axis goes on reflecting or circling; negative padding crops.

    >>> sources("reflect", 4, 2, 1), sources("circular", 3, 4, 0)
    ([2, 1, 0, 1, 2, 3, 2], [2, 0, 1, 2, 0, 1, 2])
    """
    if size < 1:
        raise GeometryError(f"there is nothing to pad from: the input needs at least 1 position, got size={size}.")
    positions = range(-before, size + after)
    if mode == "replicate":
        return [min(max(i, 0), size - 1) for i in positions]
    if mode == "circular":
        return [i % size for i in positions]
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        return [min(i % period, -i % period) for i in positions]
    if mode == "zeros":
        raise GeometryError("padding_mode='zeros' copies no positions; only reflect, replicate and circular do.")
    raise unknown_name("padding mode", mode, MODES)
