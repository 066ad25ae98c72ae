"""Rules about sizes: positions that nobody reads, kernels that meet only padding, inputs that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from .architecture import Architecture, Node
from .errors import GeometryError
from .facts import Facts, Masks, names, reported
from .findings import Finding, percent
from .geometry import Axis
from .operations import Conv, DepthwiseConv, Input, Join, Pool, Shape, written
from .support import Support, area
from .taps import tap_slices

# Below one input pixel in a hundred it is one row at the border of an image of usual size, as in SqueezeNet.
LOST_PIXELS = 0.01
# Where most reads find zeros, most of what a window computes is not about the picture.
MOSTLY_PADDING = 0.5
# Of wider kernels the taps are not looked at one by one.
MOST_TAPS = 10_000
# Input sizes are tried one by one up to the total stride, but no further than this on either side.
FARTHEST_SIZE = 64


# ------------------------------------------------------------------------------------- STR001, STR002: unread positions


def unread_positions(facts: Facts) -> Iterator[Finding]:
    """STR001 and STR002: positions of a map that no layer reads, outside all windows and between windows.

    A layer is judged together with all others that read the same map, also through layers that copy positions.
    """
    for node in facts.architecture:
        if facts.copies(node) or not facts.is_dense(node.name):
            continue  # its positions are those of an earlier map
        readers = facts.final_readers(node.name)
        windows = [(reader, masks) for reader, masks in readers or [] if _is_window(facts, reader)]
        if windows:
            yield from _unread(facts, node, readers or [], windows)


def _is_window(facts: Facts, node: Node) -> bool:
    window = node.operation.window(facts.given(node))
    return window is not None and not window.transposed


def _unread(
    facts: Facts, node: Node, readers: list[tuple[Node, Masks]], windows: list[tuple[Node, Masks]]
) -> Iterator[Finding]:
    total = prod(facts.shapes[node.name][1:])
    read = {masks for _, masks in readers}
    seen = area(frozenset(read))
    sizes = facts.shapes[node.name][1:]
    inside = area(frozenset(read | {tuple(map(_blocks, masks, sizes)) for _, masks in windows}))
    if seen < inside:
        yield _hole(facts, node, windows, inside - seen, total)
    if inside < total:
        pixels = _lost_pixels(facts, node.name, windows)
        if seen < inside:  # some of those pixels are lost between windows
            pixels = total - inside if node is facts.architecture.nodes[0] else None
        yield _dropped(facts, node, windows, total - inside, total, pixels)


def _hull(mask: int) -> int:
    """All positions from the first to the last of a set."""
    if not mask:
        return 0
    return (1 << mask.bit_length()) - (mask & -mask)


def _blocks(mask: int, size: int) -> int:
    """All positions from the first to the last of a set, and the gap behind the last one if it is there in full."""
    hull = _hull(mask)
    first_gap = hull & ~mask
    if not first_gap:
        return hull
    behind = mask >> (first_gap & -first_gap).bit_length() - 1
    gap = (behind & -behind).bit_length() - 1
    return hull | ((1 << gap) - 1) << hull.bit_length() if hull.bit_length() + gap <= size else hull


def _dropped(
    facts: Facts, node: Node, windows: list[tuple[Node, Masks]], count: int, total: int, lost: int | None
) -> Finding:
    readers = list(dict.fromkeys(reader for reader, _ in windows))
    evidence: dict[str, float | int] = {"positions": count, "share": count / total}
    everywhere = facts.support.unread(facts.results[0])
    pixels = prod(facts.size)
    message = (
        f"{names(readers)} never read{'s' * (len(readers) == 1)} {count:,} of the {total:,} positions of {node.name} "
        f"({percent(count / total)})"
    )
    if lost is None:
        message += "."
    else:
        evidence |= {"pixels": lost, "pixel_share": lost / pixels}
        message += f"; {lost:,} input pixels ({percent(lost / pixels)}) are lost here"
        if isinstance(everywhere, int) and everywhere > lost:
            evidence |= {"network_pixels": everywhere, "network_pixel_share": everywhere / pixels}
            message += f", {everywhere:,} ({percent(everywhere / pixels)}) in the whole network"
        message += "."
    severe = lost is not None and lost / pixels >= LOST_PIXELS
    return reported("STR001", readers[0], message, evidence, _more_padding(facts, readers[0]), "" if severe else "info")


def _lost_pixels(facts: Facts, name: str, windows: list[tuple[Node, Masks]]) -> int | None:
    """Input pixels that a map sees and its readers do not; None if that is unknown."""
    widest = max(windows, key=lambda one: sum(mask.bit_count() for mask in one[1]))
    if any(mask | most != most for _, masks in windows for mask, most in zip(masks, widest[1], strict=True)):
        return None  # the readers complement each other
    before, after = facts.support.unread(name), facts.support.unread(widest[0].name)
    return None if isinstance(before, str) or isinstance(after, str) else after - before


def _more_padding(facts: Facts, node: Node) -> tuple[str, str]:
    """The same window with as many more rows of padding as make room for one more position that reads some real row."""
    window = node.operation.window(facts.given(node))
    axes = window.axes if window else ()
    sizes = facts.given(node)[1:]
    missing = [_missing_rows(axis, n) for axis, n in zip(axes, sizes, strict=True)]
    if any(rows and not _begins_inside(axis, n) for rows, axis, n in zip(missing, axes, sizes, strict=True)):
        return _longer_kernel(node, max(axis.stride for axis in axes))
    if isinstance(node.operation, Pool):
        more = "one more window reads the rest."
        return f"ceil=yes on {node.name}: {more}", f"ceil_mode=True: {more}"
    rows = [(axis.before, axis.after + extra) for axis, extra in zip(axes, missing, strict=True)]
    entries = [str(before) if before == after else f"{before}:{after}" for before, after in rows]
    alike = len(set(entries)) == 1 and ":" not in entries[0]
    paper = entries[0] if alike else "x".join(entries)
    torch = ", ".join(f"0, {extra}" for extra in reversed(missing))
    return (
        f"padding={paper} on {node.name}: one more window reads the rest.",
        f"functional.pad(x, ({torch})) in front of it: one more window reads the rest.",
    )


def _missing_rows(axis: Axis, size: int) -> int:
    """Rows of padding that make room for one more window, if real rows are left over."""
    tail = axis.unread_tail(size)
    return axis.stride - tail if tail > axis.after else 0


def _begins_inside(axis: Axis, size: int) -> bool:
    """Whether the window behind the last one would begin at a real row."""
    return axis.output_size(size) * axis.stride - axis.before < size


def _longer_kernel(node: Node, stride: int) -> tuple[str, str]:
    return (
        f"a kernel of at least {stride} for {node.name}, or its stride in a layer that has one.",
        f"a kernel_size of at least {stride}, or the stride in a layer that has one.",
    )


def _hole(facts: Facts, node: Node, windows: list[tuple[Node, Masks]], count: int, total: int) -> Finding:
    readers = list(dict.fromkeys(r for r, masks in windows if any(map(_has_hole, masks)))) or [windows[0][0]]
    first = readers[0]
    window = first.operation.window(facts.given(first))
    strides = tuple(axis.stride for axis in window.axes) if window else ()
    extents = window.extent if window else ()
    message = (
        f"{names(readers)} step{'s' * (len(readers) == 1)} over {count:,} of the {total:,} positions of {node.name} "
        f"({percent(count / total)}), and no other layer reads them."
    )
    evidence = {"positions": count, "share": count / total, "stride": max(strides), "extent": max(extents)}
    if any(stride > extent for stride, extent in zip(strides, extents, strict=True)):
        fix = _longer_kernel(first, max(strides))
    else:  # the window is wide enough, but its taps stand apart
        fix = (f"less dilation for {first.name}.", "a smaller dilation.")
    return reported("STR002", first, message, evidence, fix)


def _has_hole(mask: int) -> bool:
    return mask != _hull(mask)


# -------------------------------------------------------------------------------------------- STR003, STR004: padding


def padding(facts: Facts) -> Iterator[Finding]:
    """STR003: taps that meet nothing but padding; STR004: reads that mostly meet padding."""
    for node in facts.architecture:
        operation = node.operation
        if not isinstance(operation, Conv | DepthwiseConv) or operation.border != "zeros":
            continue  # another border holds real values
        shape = facts.given(node)
        window = operation.window(shape)
        live = [_live_taps(axis, n) for axis, n in zip(window.axes, shape[1:], strict=True)]
        dead = prod(window.kernel) - prod(live)
        share = facts.rows[node.name].padding_share
        if dead:
            yield _dead_taps(facts, node, dead, prod(window.kernel), tuple(live))
        elif share is not None and share > MOSTLY_PADDING and not _has_dense_sibling(facts, node):
            message = (
                f"{percent(share)} of what {node.name} reads is padding: its kernel is {written(window.kernel)}, "
                f"its input {written(shape[1:])}."
            )
            evidence = {"padding_share": share, "kernel": window.kernel, "size": shape[1:]}
            fix = (
                f"less padding or a smaller kernel for {node.name}, or fewer strides in front of it.",
                "less padding, a smaller kernel_size, or fewer strides in front of it.",
            )
            yield reported("STR004", node, message, evidence, fix)


def _has_dense_sibling(facts: Facts, node: Node) -> bool:
    """Whether a dilated layer is a branch next to one that reads the same map without dilation or steps."""
    own = node.operation.window(facts.given(node))
    if own is None or all(axis.dilation == 1 for axis in own.axes):
        return False
    siblings = [one for one in facts.readers[node.inputs[0]] if one is not node and _is_window(facts, one)]
    windows = [one.operation.window(facts.given(one)) for one in siblings]
    return any(
        all(axis.stride == 1 and 1 in (axis.kernel, axis.dilation) for axis in one.axes) for one in windows if one
    )


def _live_taps(axis: Axis, size: int) -> int:
    """Taps that meet a real input at some output."""
    if axis.kernel > MOST_TAPS:
        return axis.kernel
    spans = (tap_slices(axis, size, tap)[0] for tap in range(axis.kernel))
    return sum(span.stop > span.start for span in spans)


def _dead_taps(facts: Facts, node: Node, dead: int, taps: int, live: tuple[int, ...]) -> Finding:
    shape, weights = facts.given(node), facts.weights(node)
    lost = weights // taps * dead
    message = (
        f"{dead:,} of the {taps:,} taps of {node.name} meet nothing but padding on an input of {written(shape[1:])}: "
        f"{lost:,} of its {weights:,} weights never learn."
    )
    evidence = {"dead_taps": dead, "taps": taps, "dead_weights": lost, "dead_share": dead / taps, "size": shape[1:]}
    fix = (f"kernel={written(live)} on {node.name}.", f"kernel_size={live}")
    if 0 in live:  # no kernel would do
        fix = (f"less padding, stride or dilation for {node.name}.", "less padding, stride or dilation.")
    return reported("STR003", node, message, evidence, fix)


# ----------------------------------------------------------------------------------------------- STR005: unfit sizes


def unfit_size(architecture: Architecture) -> Finding | None:
    """STR005: branches that cannot meet at this input size, but can at one next to it; None if all shapes fit.

    Raises:
        GeometryError: Shapes do not fit for another reason; the message names the layer.
    """
    try:
        architecture.shapes()
    except GeometryError:
        found = _meeting(architecture)
        sizes = [] if found is None else _fitting_sizes(architecture, found[2])
        if found is None or not sizes:
            raise
        return _unfit(architecture, *found, sizes)
    return None


def _meeting(architecture: Architecture) -> tuple[Node, list[Shape], int] | None:
    """The join that fails, what it is given, and the largest total stride in front of it."""
    shapes: dict[str, Shape] = {}
    for number, node in enumerate(architecture):
        given = [shapes[name] for name in node.inputs]
        try:
            shapes[node.name] = node.operation.output_shape(*given or [architecture.input_shape or ()])
        except GeometryError:
            if not isinstance(node.operation, Join):
                return None
            before = Architecture(architecture.nodes[:number])
            return node, given, _total_stride(before, shapes)
    return None


def _total_stride(architecture: Architecture, shapes: dict[str, Shape]) -> int:
    sights = Support(architecture, shapes).sights.values()
    fields = [sight.field for seen in sights if not isinstance(seen, str) for sight in seen]
    return max([int(field.jump) for field in fields if field is not None] or [1])


def _fitting_sizes(architecture: Architecture, stride: int) -> list[Shape]:
    """The next smaller and the next larger input that fit: all axes changed alike, or each to a multiple."""
    channels, *size = architecture.input_shape or ()
    found = []
    for sign in (-1, 1):
        tries = [tuple(n + sign * step for n in size) for step in range(1, min(stride, FARTHEST_SIZE) + 1)]
        tries.append(tuple(n // stride * stride if sign < 0 else -(-n // stride) * stride for n in size))
        fits = (one for one in tries if min(one) > 0 and _fits(architecture, (channels, *one)))
        found += [(channels, *one) for one in [next(fits, None)] if one is not None]
    return found


def _fits(architecture: Architecture, shape: Shape) -> bool:
    first = replace(architecture.nodes[0], operation=Input(shape))
    try:
        replace(architecture, nodes=(first, *architecture.nodes[1:])).shapes()
    except GeometryError:
        return False
    return True


def _unfit(architecture: Architecture, node: Node, given: list[Shape], stride: int, sizes: list[Shape]) -> Finding:
    shape = architecture.input_shape or ()
    maps = " and ".join(dict.fromkeys(written(one) for one in given))
    message = (
        f"{node.name} cannot join {maps}: the total stride {stride} in front of it does not fit the input "
        f"{written(shape)}."
    )
    evidence = {"total_stride": stride, "input": shape, "fitting": [written(one) for one in sizes]}
    fix = f"an input of {' or '.join(written(one) for one in sizes)}, or CROP or RESIZE in front of {node.name}."
    return reported("STR005", node, message, evidence, fix)


CHECKS = (unread_positions, padding)
