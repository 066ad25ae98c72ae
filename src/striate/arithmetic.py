"""The arithmetic of one δ, written out: which δ behind it, times which weight, add up to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from . import operations as paper
from .backpropagation import Layer, border_of
from .derivatives import rule_of
from .errors import OptionError, unknown_name
from .operations import written

TINY = 8
LINES = 24
MOST = 1024

Place = tuple[int, ...]


def written_out(layers: Mapping[str, Layer], deltas: Mapping[str, Tensor], name: str) -> str:
    """The largest δ of a layer as a sum over the layers that read it; of a convolution also what it hands back.

    Args:
        layers: All of a step, by name.
        deltas: Of all of them.
        name: Of a layer whose map has at most 8 positions on each axis.

    Raises:
        UnknownNameError: No such layer.
        OptionError: Its map is larger.
    """
    if name not in layers:
        raise unknown_name("layer", name, layers)
    own = layers[name]
    if not _small(own.output):
        able = ", ".join(layer.name for layer in layers.values() if _small(layer.output)) or "none"
        raise OptionError(
            f"detail={name!r}: its map is {written(own.output.shape[1:])}; the arithmetic is written out for at most "
            f"{TINY} positions on each axis. Layers of this network that have no more: {able}."
        )
    parts = [_sum(deltas, name, [layer for layer in layers.values() if name in layer.reads])]
    if isinstance(own.operation, paper.Conv | paper.DepthwiseConv) and _small(own.inputs[0]):
        parts.append(_sum(deltas, own.reads[0], [own]))
    return "\n\n".join(parts)


def _small(values: Tensor) -> bool:
    return all(n <= TINY for n in values.shape[2:])


def _sum(deltas: Mapping[str, Tensor], name: str, readers: Sequence[Layer]) -> str:
    """δ of the first example where it is largest, through each of some layers that read it."""
    delta = deltas[name][0]
    at = tuple(int(n) for n in torch.unravel_index(delta.abs().argmax(), delta.shape))
    first = " of the first example" if len(deltas[name]) > 1 else ""
    lines = [f"δ({name})[{_index(at)}]{first} = {delta[at].item():.4g}"]
    if not readers:
        return f"{lines[0]}, from the loss"
    for reader in readers:
        lines += _through(reader, deltas[reader.name], name, at)
    return "\n".join(lines)


def _index(place: Sequence[int]) -> str:
    return ", ".join(map(str, place))


def _through(reader: Layer, delta: Tensor, source: str, at: Place) -> list[str]:
    """The products that one layer adds."""
    rule = rule_of(reader)
    if rule is None or delta[0].numel() > MOST:
        why = "no formula in this lesson" if rule is None else f"{delta[0].numel():,} products"
        return [f"  through {reader.name}: {why}"]
    found = [
        (place, value, coefficient)
        for place, value, coefficient in _coefficients(reader, delta, source, at)
        if value and coefficient
    ]
    lines = [f"  through {reader.name}, {rule.back.format(me=reader.name)}:"]
    for place, value, coefficient in found[:LINES]:
        label = _weight(reader, place, at)
        lines.append(f"    {value:+10.4g} * {coefficient:+10.4g}    δ({reader.name})[{_index(place)}]{label}")
    if len(found) > LINES:
        lines.append(f"    and {len(found) - LINES} products more")
    return [*lines, f"    = {sum(value * coefficient for _, value, coefficient in found):.4g}"]


def _coefficients(reader: Layer, delta: Tensor, source: str, at: Place) -> Iterator[tuple[Place, float, float]]:
    """Each δ of the reader's first example, and its factor in δ of what it read: the rule, asked with a single 1."""
    rule = rule_of(reader)
    for place in map(tuple, torch.ones_like(delta[0]).nonzero().tolist()):
        if rule is not None:
            one = torch.zeros_like(delta)
            one[(0, *place)] = 1.0
            backs = zip(reader.reads, rule.pull(reader, one), strict=True)
            factor = sum(back[(0, *at)].item() for name, back in backs if name == source)
            yield place, delta[(0, *place)].item(), factor


def _weight(reader: Layer, place: Place, at: Place) -> str:
    """Which weight a factor is, where it is one."""
    if isinstance(reader.operation, paper.FC):
        flat, shape = 0, reader.inputs[0].shape[1:]
        for number, n in enumerate(at):
            flat += n * prod(shape[number + 1 :])
        return f" * W[{place[0]}, {flat}]"
    if not isinstance(reader.operation, paper.Conv | paper.DepthwiseConv) or border_of(reader) != "zeros":
        return ""
    taps = [(i + a.before - a.stride * p) // a.dilation for i, p, a in zip(at[1:], place[1:], reader.axes, strict=True)]
    channel = at[0] % reader.learned("weight").shape[1]
    turned = [a.kernel - 1 - t for t, a in zip(taps, reader.axes, strict=True)]
    return f" * W[{_index((place[0], channel, *taps))}] = rot180(W)[{_index(turned)}]"
