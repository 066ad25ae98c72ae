"""Kernels for graphics processors in Triton; importing this loads Triton, and nothing else does.

A *result* is solved for from a *source* and the weights: forward the source is the input and the result the output, for
the input gradient they change places. Both gather: no two programs write the same number, so there are no atomics and
the order of every sum is fixed. Windows have three axes, missing ones are leading axes of one position and one tap.

Results of one *class* read the same taps of the same weights. Forward, output ``p`` is in class ``p mod period`` and
reads input ``p s + t d - before``. Backward, input ``i`` is read by output ``p`` through tap ``t`` where
``p s = i + before - t d``; with ``g = gcd(s, d)`` the solutions are every ``s/g``-th tap, and neighbouring ones are
``d/g`` outputs apart, so that each of the ``s period`` classes is itself a convolution of stride 1. Source: V. Dumoulin
and F. Visin, "A guide to convolution arithmetic for deep learning", arXiv 1603.07285, section 4; the products follow
S. Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning", arXiv 1410.0759, section 3 (implicit GEMM).

An axis is told to a kernel as constants: taps of a class, step from tap to tap, step of the source from tap to tap and
from result to result, classes, and then kernel, stride, dilation, period, gcd and inverse of the dilation.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

INTERPRETED = triton.knobs.runtime.interpret
KEY = ["bucket", "FORWARD", "ROWS_LAST", "BLOCK_C", "AXIS0", "AXIS1", "AXIS2"]


def tuned(key: list[str], *configurations: tuple[dict[str, int], int, int]) -> Any:
    """Try the configurations when a key is new, and remember the fastest; the interpreter takes the first.

    Args:
        key: Arguments on which the choice depends, besides the types.
        configurations: Tile sizes, warps and stages.
    """
    tried = [triton.Config(tile, num_warps=warps, num_stages=stages) for tile, warps, stages in configurations]
    return triton.autotune(tried[:1] if INTERPRETED else tried, key)


@triton.jit
def _start(residue, quotient, rest, AXIS: tl.constexpr, FORWARD: tl.constexpr):
    """The first tap of a class, and the source position that it reads for the first result of the class."""
    KERNEL: tl.constexpr = AXIS[5]
    STRIDE: tl.constexpr = AXIS[6]
    DILATION: tl.constexpr = AXIS[7]
    COMMON: tl.constexpr = AXIS[9]
    INVERSE: tl.constexpr = AXIS[10]
    if FORWARD:
        first = residue * 0
        read = (residue - quotient) * STRIDE - rest
    else:
        shifted = residue + rest
        first = (shifted // COMMON * INVERSE) % (STRIDE // COMMON)
        first = tl.where(shifted % COMMON == 0, first, KERNEL)  # no tap reaches this class
        read = (shifted - first * DILATION) // STRIDE + quotient  # exact where there is a tap
    return first, read


@triton.jit
def _remainder(position, PERIOD: tl.constexpr):
    """The remainder between 0 and the period, of negative positions too."""
    return (position % PERIOD + PERIOD) % PERIOD


@triton.jit
def _across(vector, LAST: tl.constexpr):
    """A vector as a row or as a column."""
    return vector[None, :] if LAST else vector[:, None]


@triton.jit
def _tap(acc, plane, kernel, reads, reaches, channels, size, tiles, tap, n, c, AXIS: tl.constexpr,
         first, reach, step, whole, ACC: tl.constexpr, OUTER: tl.constexpr, FORWARD: tl.constexpr,
         PERIODIC: tl.constexpr):  # fmt: skip
    """Add the products of one tap of the last axis."""
    last = first + c * AXIS[1]
    read = reads + c * AXIS[2]
    there = reaches & (read >= 0) & (read < n)
    known = channels
    if not FORWARD:
        there = there & (last < AXIS[5])
        known = known & (tap < whole) & (last < AXIS[5])
    held = kernel + tap + last
    if PERIODIC:
        held = held + tiles
        if not FORWARD:
            held = held + _remainder(read, AXIS[8]) * size
        known = known & there
    if not OUTER:
        there = there & channels
    x = tl.load(plane + reach + read * step, mask=there, other=0.0)
    w = tl.load(held, mask=known, other=0.0)
    return acc + x.to(ACC) * w.to(ACC)


@triton.jit
def _row(acc, plane, kernel, reads, reaches, channels, size, tiles, tap, n, AXIS: tl.constexpr, first, reach, step,
         whole, ACC: tl.constexpr, OUTER: tl.constexpr, FORWARD: tl.constexpr, PERIODIC: tl.constexpr,
         UNROLL: tl.constexpr):  # fmt: skip
    """Add the products of all taps of the last axis."""
    TAPS: tl.constexpr = AXIS[0]
    if UNROLL:
        for c in tl.static_range(TAPS):
            acc = _tap(acc, plane, kernel, reads, reaches, channels, size, tiles, tap, n, c, AXIS, first, reach, step,
                       whole, ACC, OUTER, FORWARD, PERIODIC)  # fmt: skip
    else:
        for c in range(TAPS):
            acc = _tap(acc, plane, kernel, reads, reaches, channels, size, tiles, tap, n, c, AXIS, first, reach, step,
                       whole, ACC, OUTER, FORWARD, PERIODIC)  # fmt: skip
    return acc


@triton.jit
def _channels(program, channels, each, OUTER: tl.constexpr, BLOCK_C: tl.constexpr, INDEX: tl.constexpr):
    """The example, the group and the channels of a program."""
    if OUTER:
        parts = tl.cdiv(each, BLOCK_C) * (channels // each)
        group = program % parts // tl.cdiv(each, BLOCK_C)
        within = program % parts % tl.cdiv(each, BLOCK_C) * BLOCK_C + tl.arange(0, BLOCK_C)
        number, present = (group * each + within).to(INDEX), within < each
    else:
        parts = tl.cdiv(channels, BLOCK_C)
        group = 0
        number = (program % parts).to(INDEX) * BLOCK_C + tl.arange(0, BLOCK_C)
        present = number < channels
    return (program // parts).to(INDEX), group, number, present


@tuned(
    KEY,
    ({"TILE": 512}, 4, 1),
    ({"TILE": 256}, 4, 1),
    ({"TILE": 1024}, 4, 1),
    ({"TILE": 2048}, 8, 1),
)
@triton.jit(do_not_specialize=["bucket"])
def channelwise(
    source, weight, result, bucket, batch, channels, each,
    n0, n1, n2, q0, q1, q2, e0, e1, e2,
    xn, xc, x0, x1, x2, yn, yc, y0, y1, y2,
    R0: tl.constexpr, R1: tl.constexpr, R2: tl.constexpr,
    AXIS0: tl.constexpr, AXIS1: tl.constexpr, AXIS2: tl.constexpr, FORWARD: tl.constexpr, PERIODIC: tl.constexpr,
    OUTER: tl.constexpr, ROWS_LAST: tl.constexpr, DEPTH: tl.constexpr, BLOCK_C: tl.constexpr, UNROLL: tl.constexpr,
    ACC: tl.constexpr, INDEX: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Positions by channels, one multiply-add at a time: depthwise windows, and few channels in a group.

    ``each`` result channels of a group read its ``DEPTH`` source channels. With OUTER a block of channels stays within
    one group, whose source is then loaded once for all of them.
    """
    ROWS: tl.constexpr = TILE // BLOCK_C
    TAPS: tl.constexpr = AXIS0[5] * AXIS1[5] * AXIS2[5]
    J0: tl.constexpr = (R0 + AXIS0[4] - 1) // AXIS0[4]
    J1: tl.constexpr = (R1 + AXIS1[4] - 1) // AXIS1[4]
    J2: tl.constexpr = (R2 + AXIS2[4] - 1) // AXIS2[4]
    BLOCKS: tl.constexpr = (J0 * J1 * J2 + ROWS - 1) // ROWS
    program = tl.program_id(0)
    rows = (program % BLOCKS).to(INDEX) * ROWS + tl.arange(0, ROWS)
    program = program // BLOCKS
    c0, c1, c2 = program // (AXIS2[4] * AXIS1[4]) % AXIS0[4], program // AXIS2[4] % AXIS1[4], program % AXIS2[4]
    program = program // (AXIS2[4] * AXIS1[4] * AXIS0[4])
    example, group, number, present = _channels(program, channels, each, OUTER, BLOCK_C, INDEX)
    rows = _across(rows, ROWS_LAST)
    number, present = _across(number, not ROWS_LAST), _across(present, not ROWS_LAST)
    p0, p1, p2 = rows // (J1 * J2), rows // J2 % J1, rows % J2
    t0, b0 = _start(c0, q0, e0, AXIS0, FORWARD)
    t1, b1 = _start(c1, q1, e1, AXIS1, FORWARD)
    t2, b2 = _start(c2, q2, e2, AXIS2, FORWARD)
    k0, k1, k2 = c0 + p0 * AXIS0[4], c1 + p1 * AXIS1[4], c2 + p2 * AXIS2[4]
    inside = (k0 < R0) & (k1 < R1) & (k2 < R2)
    i0, i1, i2 = b0 + p0 * AXIS0[3], b1 + p1 * AXIS1[3], b2 + p2 * AXIS2[3]
    size = (channels * DEPTH * TAPS).to(INDEX)  # numbers of one tile of the weights
    acc = (rows * 0).to(ACC) + (number * 0).to(ACC)
    for k in range(DEPTH):
        channel = (group * DEPTH + k).to(INDEX) if OUTER else number // each * DEPTH + k
        plane = source + example * xn + channel * xc
        kernel = weight + (number * DEPTH + k if FORWARD else channel * each + number % each) * TAPS
        for a in range(AXIS0[0]):
            s0 = i0 + a * AXIS0[2]
            there0 = inside & (s0 >= 0) & (s0 < n0)
            a0 = t0 + a * AXIS0[1]
            for b in range(AXIS1[0]):
                s1 = i1 + b * AXIS1[2]
                a1 = t1 + b * AXIS1[1]
                there = there0 & (s1 >= 0) & (s1 < n1)
                tap = (a0 * AXIS1[5] + a1) * AXIS2[5]
                if not FORWARD:
                    there = there & (a0 < AXIS0[5]) & (a1 < AXIS1[5])
                    tap = tl.where((a0 < AXIS0[5]) & (a1 < AXIS1[5]), tap, TAPS)
                tiles = 0
                if PERIODIC and FORWARD:
                    tiles = ((k0 % AXIS0[8] * AXIS1[8] + k1 % AXIS1[8]) * AXIS2[8] + k2 % AXIS2[8]) * size
                elif PERIODIC:
                    tiles = (_remainder(s0, AXIS0[8]) * AXIS1[8] + _remainder(s1, AXIS1[8])) * AXIS2[8] * size
                reach = s0 * x0 + s1 * x1
                acc = _row(acc, plane, kernel, i2, there, present, size, tiles, tap, n2, AXIS2, t2, reach, x2, TAPS,
                           ACC, OUTER, FORWARD, PERIODIC, UNROLL)  # fmt: skip
    place = result + example * yn + number * yc + k0 * y0 + k1 * y1 + k2 * y2
    tl.store(place, acc.to(result.dtype.element_ty), mask=inside & present)


@triton.jit
def _taps(
    columns, DEPTH: tl.constexpr, AXIS0: tl.constexpr, AXIS1: tl.constexpr, AXIS2: tl.constexpr, TAPS_LAST: tl.constexpr
):
    """The channel and the taps of a column: one of either runs fastest, as memory does."""
    TAPS: tl.constexpr = AXIS0[0] * AXIS1[0] * AXIS2[0]
    if TAPS_LAST:
        channel, tap = columns // TAPS, columns % TAPS
    else:
        channel, tap = columns % DEPTH, columns // DEPTH
    return channel, tap // (AXIS1[0] * AXIS2[0]), tap // AXIS2[0] % AXIS1[0], tap % AXIS2[0]


@triton.jit
def _read(plane, rows, columns, present, known, s0, s1, s2, u0, u1, u2, n0, n1, n2,
          AXES: tl.constexpr, ROWS_LAST: tl.constexpr):  # fmt: skip
    """A tile of sources, rows by columns, zero where a read falls on padding; loaded along what memory runs along."""
    there = _across(present, ROWS_LAST) & _across(known, not ROWS_LAST)
    if AXES > 2:
        i0 = _across(s0, ROWS_LAST) + _across(u0, not ROWS_LAST)
        there = there & (i0 >= 0) & (i0 < n0)
    if AXES > 1:
        i1 = _across(s1, ROWS_LAST) + _across(u1, not ROWS_LAST)
        there = there & (i1 >= 0) & (i1 < n1)
    i2 = _across(s2, ROWS_LAST) + _across(u2, not ROWS_LAST)
    there = there & (i2 >= 0) & (i2 < n2)
    x = tl.load(plane + _across(rows, ROWS_LAST) + _across(columns, not ROWS_LAST), mask=there, other=0.0)
    if ROWS_LAST:
        x = tl.trans(x)
    return x


@tuned(
    KEY,
    ({"TILE_M": 64, "TILE_K": 32}, 4, 3),
    ({"TILE_M": 32, "TILE_K": 64}, 4, 3),
    ({"TILE_M": 128, "TILE_K": 32}, 4, 3),
    ({"TILE_M": 128, "TILE_K": 64}, 8, 3),
)
@triton.jit(do_not_specialize=["bucket"])
def products(
    source, weight, result, bucket, batch, channels, each,
    n0, n1, n2, q0, q1, q2, e0, e1, e2, m0, m1, m2,
    xn, xc, x0, x1, x2, yn, yc, y0, y1, y2,
    R0: tl.constexpr, R1: tl.constexpr, R2: tl.constexpr,
    AXIS0: tl.constexpr, AXIS1: tl.constexpr, AXIS2: tl.constexpr, FORWARD: tl.constexpr, AXES: tl.constexpr,
    ROWS_LAST: tl.constexpr, TAPS_LAST: tl.constexpr, DEPTH: tl.constexpr, BLOCK_C: tl.constexpr, MOST: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr, INDEX: tl.constexpr,
    TILE_M: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """A matrix product for each class and group: examples and positions, by taps and channels, by result channels.

    The weights of a local layer are read once; its rows are the examples. ``m0`` to ``m2`` are the classes that occur.
    """
    BLOCK_M: tl.constexpr = min(TILE_M, MOST)
    WEIGHTS: tl.constexpr = AXIS0[5] * AXIS1[5] * AXIS2[5]
    J0: tl.constexpr = (R0 + AXIS0[4] - 1) // AXIS0[4]
    J1: tl.constexpr = (R1 + AXIS1[4] - 1) // AXIS1[4]
    J2: tl.constexpr = (R2 + AXIS2[4] - 1) // AXIS2[4]
    every = batch.to(INDEX) * J0 * J1 * J2
    blocks, parts = tl.cdiv(every, BLOCK_M).to(tl.int32), tl.cdiv(each, BLOCK_C)
    program = tl.program_id(0)
    m = (program % blocks).to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M)
    within = program // blocks % parts * BLOCK_C + tl.arange(0, BLOCK_C)
    program = program // (blocks * parts)
    group = (program % (channels // each)).to(INDEX)
    program = program // (channels // each)
    c0, c1, c2 = program // (m1 * m2), program // m2 % m1, program % m2
    t0, b0 = _start(c0, q0, e0, AXIS0, FORWARD)
    t1, b1 = _start(c1, q1, e1, AXIS1, FORWARD)
    t2, b2 = _start(c2, q2, e2, AXIS2, FORWARD)
    example, p0, p1, p2 = m // (J0 * J1 * J2), m // (J1 * J2) % J0, m // J2 % J1, m % J2
    k0, k1, k2 = c0 + p0 * AXIS0[4], c1 + p1 * AXIS1[4], c2 + p2 * AXIS2[4]
    inside = (m < every) & (k0 < R0) & (k1 < R1) & (k2 < R2)
    s0, s1, s2 = p0 * AXIS0[3], p1 * AXIS1[3], p2 * AXIS2[3]
    rows = example * xn + s0 * x0 + s1 * x1 + s2 * x2
    number, present = group * each + within, within < each
    acc = tl.zeros((BLOCK_M, BLOCK_C), ACC)
    COLUMNS: tl.constexpr = DEPTH * AXIS0[0] * AXIS1[0] * AXIS2[0]
    for start in range(0, COLUMNS, TILE_K):
        k = start + tl.arange(0, TILE_K)
        inner, a0, a1, a2 = _taps(k, DEPTH, AXIS0, AXIS1, AXIS2, TAPS_LAST)
        u0, u1, u2 = b0 + a0 * AXIS0[2], b1 + a1 * AXIS1[2], b2 + a2 * AXIS2[2]
        a0, a1, a2 = t0 + a0 * AXIS0[1], t1 + a1 * AXIS1[1], t2 + a2 * AXIS2[1]
        known = k < COLUMNS
        tap = (a0 * AXIS1[5] + a1) * AXIS2[5] + a2
        channel = group * DEPTH + inner
        if FORWARD:
            tile = (c0 * AXIS1[8] + c1) * AXIS2[8] + c2
            held = (number[None, :] * DEPTH + inner[:, None]) * WEIGHTS
        else:
            known = known & (a0 < AXIS0[5]) & (a1 < AXIS1[5]) & (a2 < AXIS2[5])
            tile = (_remainder(u0, AXIS0[8]) * AXIS1[8] + _remainder(u1, AXIS1[8])) * AXIS2[8]
            tile = (tile + _remainder(u2, AXIS2[8]))[:, None]
            held = (channel[:, None] * each + within[None, :]) * WEIGHTS
        held += tile.to(INDEX) * (channels * DEPTH * WEIGHTS) + tap[:, None]
        reach = channel * xc + u0 * x0 + u1 * x1 + u2 * x2
        x = _read(source, rows, reach, inside, known, s0, s1, s2, u0, u1, u2, n0, n1, n2, AXES, ROWS_LAST)
        w = tl.load(weight + held, mask=known[:, None] & present[None, :], other=0.0)
        acc = tl.dot(x.to(OPERAND), w.to(OPERAND), acc, input_precision=PRECISION, out_dtype=ACC)
    place = example * yn + k0 * y0 + k1 * y1 + k2 * y2
    place = place[:, None] + (number * yc)[None, :]
    tl.store(result + place, acc.to(result.dtype.element_ty), mask=inside[:, None] & present[None, :])


@tuned(
    ["bucket", "BLOCK_C", "AXIS0", "AXIS1", "AXIS2"],
    ({"TILE": 2048}, 4, 1),
    ({"TILE": 1024}, 4, 1),
    ({"TILE": 4096}, 4, 1),
    ({"TILE": 4096}, 8, 1),
)
@triton.jit(do_not_specialize=["bucket"])
def channelwise_weights(
    image, output, result, bucket, batch, channels, each,
    n0, n1, n2, q0, q1, q2, e0, e1, e2,
    xn, xc, x0, x1, x2, yn, yc, y0, y1, y2,
    R0: tl.constexpr, R1: tl.constexpr, R2: tl.constexpr,
    AXIS0: tl.constexpr, AXIS1: tl.constexpr, AXIS2: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr, INDEX: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The weight gradient of few channels in a group: taps by positions by channels, summed over positions at the end.

    Every chunk of the positions of all examples has sums of its own, which the caller adds in their order.
    """
    ROWS: tl.constexpr = min(CHUNK, TILE // (BLOCK_T * BLOCK_C))
    TAPS: tl.constexpr = AXIS0[5] * AXIS1[5] * AXIS2[5]
    POSITIONS: tl.constexpr = R0 * R1 * R2
    every = batch.to(INDEX) * POSITIONS
    slices, parts = tl.cdiv(TAPS, BLOCK_T), tl.cdiv(channels, BLOCK_C)
    program = tl.program_id(0)
    tap = program % slices * BLOCK_T + tl.arange(0, BLOCK_T)[:, None, None]
    inner = program // slices % DEPTH
    number = program // (slices * DEPTH) % parts * BLOCK_C + tl.arange(0, BLOCK_C)[None, None, :]
    part = (program // (slices * DEPTH * parts)).to(INDEX)
    present, known = number < channels, tap < TAPS
    number = number.to(INDEX)
    channel = number // each * DEPTH + inner
    u0 = tap // (AXIS1[5] * AXIS2[5]) * AXIS0[7] - q0 * AXIS0[6] - e0
    u1 = tap // AXIS2[5] % AXIS1[5] * AXIS1[7] - q1 * AXIS1[6] - e1
    u2 = tap % AXIS2[5] * AXIS2[7] - q2 * AXIS2[6] - e2
    reach = channel * xc + u0.to(INDEX) * x0 + u1.to(INDEX) * x1 + u2.to(INDEX) * x2
    acc = tl.zeros((BLOCK_T, ROWS, BLOCK_C), ACC)
    for start in range(0, CHUNK, ROWS):
        m = part * CHUNK + start + tl.arange(0, ROWS)[None, :, None]
        inside = m < every
        example, p0, p1, p2 = m // POSITIONS, m // (R1 * R2) % R0, m // R2 % R1, m % R2
        y = tl.load(output + example * yn + number * yc + p0 * y0 + p1 * y1 + p2 * y2, mask=inside & present, other=0.0)
        s0, s1, s2 = p0 * AXIS0[6], p1 * AXIS1[6], p2 * AXIS2[6]
        i0, i1, i2 = s0 + u0, s1 + u1, s2 + u2
        there = inside & known & (i0 >= 0) & (i0 < n0) & (i1 >= 0) & (i1 < n1) & (i2 >= 0) & (i2 < n2) & present
        x = tl.load(image + example * xn + s0 * x0 + s1 * x1 + s2 * x2 + reach, mask=there, other=0.0)
        acc += x.to(ACC) * y.to(ACC)
    sums = tl.sum(acc, axis=1, keep_dims=True)
    place = (part * channels + number) * (DEPTH * TAPS) + inner * TAPS + tap
    tl.store(result + place, sums.to(result.dtype.element_ty), mask=known & present)


@tuned(
    ["bucket", "ROWS_LAST", "BLOCK_C", "AXIS0", "AXIS1", "AXIS2"],
    ({"TILE_M": 64, "TILE_K": 64}, 4, 3),
    ({"TILE_M": 32, "TILE_K": 64}, 4, 3),
    ({"TILE_M": 32, "TILE_K": 128}, 4, 3),
    ({"TILE_M": 64, "TILE_K": 32}, 4, 3),
)
@triton.jit(do_not_specialize=["bucket"])
def products_weights(
    image, output, result, bucket, batch, channels, each,
    n0, n1, n2, q0, q1, q2, e0, e1, e2, m0, m1, m2,
    xn, xc, x0, x1, x2, yn, yc, y0, y1, y2,
    R0: tl.constexpr, R1: tl.constexpr, R2: tl.constexpr,
    AXIS0: tl.constexpr, AXIS1: tl.constexpr, AXIS2: tl.constexpr, AXES: tl.constexpr, ROWS_LAST: tl.constexpr,
    TAPS_LAST: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr, BLOCK_C: tl.constexpr, MOST: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr, INDEX: tl.constexpr,
    TILE_M: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """The weight gradient as a product for each class and group: output channels, by rows, by channels and taps."""
    BLOCK_M: tl.constexpr = min(TILE_M, MOST)
    WEIGHTS: tl.constexpr = AXIS0[5] * AXIS1[5] * AXIS2[5]
    J0: tl.constexpr = (R0 + AXIS0[4] - 1) // AXIS0[4]
    J1: tl.constexpr = (R1 + AXIS1[4] - 1) // AXIS1[4]
    J2: tl.constexpr = (R2 + AXIS2[4] - 1) // AXIS2[4]
    every = batch.to(INDEX) * J0 * J1 * J2
    COLUMNS: tl.constexpr = DEPTH * WEIGHTS
    slices, parts = tl.cdiv(COLUMNS, TILE_K), tl.cdiv(each, BLOCK_C)
    program = tl.program_id(0)
    k = program % slices * TILE_K + tl.arange(0, TILE_K)
    within = program // slices % parts * BLOCK_C + tl.arange(0, BLOCK_C)
    program = program // (slices * parts)
    group = (program % (channels // each)).to(INDEX)
    program = program // (channels // each)
    c0, c1, c2 = program // (m1 * m2) % m0, program // m2 % m1, program % m2
    part = (program // (m0 * m1 * m2)).to(INDEX)
    inner, a0, a1, a2 = _taps(k, DEPTH, AXIS0, AXIS1, AXIS2, TAPS_LAST)
    u0 = (c0 - q0) * AXIS0[6] - e0 + a0 * AXIS0[2]
    u1 = (c1 - q1) * AXIS1[6] - e1 + a1 * AXIS1[2]
    u2 = (c2 - q2) * AXIS2[6] - e2 + a2 * AXIS2[2]
    number, present, known = group * each + within, within < each, k < COLUMNS
    reach = (group * DEPTH + inner) * xc + u0.to(INDEX) * x0 + u1.to(INDEX) * x1 + u2.to(INDEX) * x2
    acc = tl.zeros((BLOCK_C, TILE_K), ACC)
    for start in range(0, CHUNK, BLOCK_M):
        m = part * CHUNK + start + tl.arange(0, BLOCK_M)
        example, p0, p1, p2 = m // (J0 * J1 * J2), m // (J1 * J2) % J0, m // J2 % J1, m % J2
        k0, k1, k2 = c0 + p0 * AXIS0[4], c1 + p1 * AXIS1[4], c2 + p2 * AXIS2[4]
        inside = (m < every) & (k0 < R0) & (k1 < R1) & (k2 < R2)
        s0, s1, s2 = p0 * AXIS0[3], p1 * AXIS1[3], p2 * AXIS2[3]
        rows = example * xn + s0 * x0 + s1 * x1 + s2 * x2
        x = _read(image, rows, reach, inside, known, s0, s1, s2, u0, u1, u2, n0, n1, n2, AXES, ROWS_LAST)
        maps = (example * yn + k0 * y0 + k1 * y1 + k2 * y2)[None, :] + (number * yc)[:, None]
        y = tl.load(output + maps, mask=present[:, None] & inside[None, :], other=0.0)
        acc = tl.dot(y.to(OPERAND), x.to(OPERAND), acc, input_precision=PRECISION, out_dtype=ACC)
    tile = (c0 * AXIS1[8] + c1) * AXIS2[8] + c2
    tap = (a0 * AXIS1[5] + a1) * AXIS2[5] + a2
    tiles: tl.constexpr = AXIS0[8] * AXIS1[8] * AXIS2[8]
    place = ((part * tiles + tile) * channels + number[:, None]) * COLUMNS + (inner * WEIGHTS + tap)[None, :]
    tl.store(result + place, acc.to(result.dtype.element_ty), mask=present[:, None] & known[None, :])
