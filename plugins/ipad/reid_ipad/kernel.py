"""Mutual-guided distances of all pairs of pictures in one Triton kernel, which keeps a pair's
differences on the chip.

Needs triton, which comes with torch's CUDA builds for Linux; nothing imports this file before it is
used.
"""

from __future__ import annotations

import attrs
import torch
import triton
import triton.language as tl
from torch import Tensor

from reidcore.modules import Unfit

SPREAD = 17
"""Powers of two by which the largest entries of a picture's kernel and vector may differ: the
smaller one keeps 22 bits beside the other in two float16 numbers of one unit."""
OFFSETS = 2**31
"""Bound of offsets within a program's pictures."""
SIDE = 4096
"""Pictures of each side of a launch, whose kernels are held in two types at a time."""

GROUP = 8
"""Tiles of queries that programs of a time share among them."""

Side = tuple[Tensor, Tensor, Tensor]


@triton.jit
def _load(pointers: tl.tensor, DEPTH: tl.constexpr, PAIRED: tl.constexpr) -> tl.tuple:
    """The values, or PAIRED (values, remainders), which stand DEPTH further on."""
    if PAIRED:
        return tl.load(pointers), tl.load(pointers + DEPTH)
    else:
        return (tl.load(pointers),)


@triton.jit
def _products(
    x: tl.tuple,
    y: tl.tuple,
    total: tl.tensor,
    X_PAIRED: tl.constexpr,
    Y_PAIRED: tl.constexpr,
) -> tl.tensor:
    """total + x y of what `_load` gave, without the product of two remainders, which is about as
    small as float32's rounding."""
    if X_PAIRED:
        total = tl.dot(x[1], y[0], total)
    if Y_PAIRED:
        total = tl.dot(x[0], y[1], total)
    return tl.dot(x[0], y[0], total)


@triton.jit(do_not_specialize=["query_count", "gallery_count", "filters", "out_stride"])
def differences(
    out: tl.tensor,
    queries: tl.tensor,
    query_vectors: tl.tensor,
    query_units: tl.tensor,
    gallery: tl.tensor,
    gallery_vectors: tl.tensor,
    gallery_units: tl.tensor,
    query_count: tl.tensor,
    gallery_count: tl.tensor,
    filters: tl.tensor,
    out_stride: tl.tensor,
    DEPTH: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUP: tl.constexpr,
    KERNELS_PAIRED: tl.constexpr,
    VECTORS_PAIRED: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """out[i * out_stride + j]: |K_i f_j - K_j f_i| times both pictures' units.

    queries: float16 [Q, filters, DEPTH], or with KERNELS_PAIRED [Q, filters, 2, DEPTH], and
    `gallery` alike. query_vectors: [Q, DEPTH] or with VECTORS_PAIRED [Q, 2, DEPTH], negative, and
    `gallery_vectors`, which are not. Units: float32 [Q] and [G].

    A program has ROWS queries and COLUMNS gallery pictures, and takes one filter after another:
    (K_i[o], -f_i) times (f_j, K_j[o]), of twice the length, is the filter's difference in one
    chain of products. Both halves alternate, so that the sum of nearly equal pictures stays small
    on the way. Pictures beyond the last repeat it.
    """
    KERNEL_STEP: tl.constexpr = DEPTH * 2 if KERNELS_PAIRED else DEPTH
    VECTOR_STEP: tl.constexpr = DEPTH * 2 if VECTORS_PAIRED else DEPTH
    CHUNKS: tl.constexpr = DEPTH // CHUNK
    # Programs that run at a time are those of a block of tiles, so that most of what they read
    # comes from the second cache.
    program = tl.program_id(0)
    across = tl.cdiv(gallery_count, COLUMNS)
    block = program // (GROUP * across)
    height = tl.minimum(tl.cdiv(query_count, ROWS) - block * GROUP, GROUP)
    within = program % (GROUP * across)
    top = (block * GROUP + within % height) * ROWS
    left = within // height * COLUMNS

    # Within a program offsets fit into 32 bits.
    queries += top.to(tl.int64) * filters * KERNEL_STEP
    gallery += left.to(tl.int64) * filters * KERNEL_STEP
    query_vectors += top.to(tl.int64) * VECTOR_STEP
    gallery_vectors += left.to(tl.int64) * VECTOR_STEP
    row = tl.minimum(tl.arange(0, ROWS), query_count - top - 1)
    column = tl.minimum(tl.arange(0, COLUMNS), gallery_count - left - 1)
    channel = tl.arange(0, CHUNK)
    query_places = row[:, None] * (filters * KERNEL_STEP) + channel[None, :]
    query_vectors += row[:, None] * VECTOR_STEP + channel[None, :]
    gallery_places = column[None, :] * (filters * KERNEL_STEP) + channel[:, None]
    gallery_vectors += column[None, :] * VECTOR_STEP + channel[:, None]

    if CHUNKS == 1:
        f_i = _load(query_vectors, DEPTH, VECTORS_PAIRED)
        f_j = _load(gallery_vectors, DEPTH, VECTORS_PAIRED)
    squares = tl.zeros([ROWS, COLUMNS], tl.float32)
    difference = tl.zeros([ROWS, COLUMNS], tl.float32)
    # Filters and their chunks are one loop, so that what a filter begins with is read ahead too.
    for step in tl.range(0, filters * CHUNKS, num_stages=STAGES):
        start = step % CHUNKS * CHUNK
        place = step // CHUNKS * KERNEL_STEP + start
        k_i = _load(queries + place + query_places, DEPTH, KERNELS_PAIRED)
        k_j = _load(gallery + place + gallery_places, DEPTH, KERNELS_PAIRED)
        if CHUNKS > 1:
            f_i = _load(query_vectors + start, DEPTH, VECTORS_PAIRED)
            f_j = _load(gallery_vectors + start, DEPTH, VECTORS_PAIRED)
        # Not set back below: Hopper's products would wait for each other.
        difference = tl.where(start == 0, 0.0, difference)
        difference = _products(k_i, f_j, difference, KERNELS_PAIRED, VECTORS_PAIRED)
        difference = _products(f_i, k_j, difference, VECTORS_PAIRED, KERNELS_PAIRED)
        if start == DEPTH - CHUNK:
            squares += difference * difference

    units = tl.load(query_units + top + row)[:, None]
    others = tl.load(gallery_units + left + column)[None, :]
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    out += top.to(tl.int64) * out_stride + left
    there = (row < query_count - top)[:, None] & (column < gallery_count - left)[None, :]
    spots = row[:, None] * out_stride + column[None, :]
    tl.store(out + spots, tl.sqrt(squares) * units * others, mask=there)


@attrs.frozen
class Blocks:
    """Sizes by which the kernel divides its work.

    rows, columns: queries and gallery pictures of a tile. depth: values of a filter with zeros
    behind it. chunk: how many of them are multiplied at a time; where it is all of them, vectors
    stay in shared memory. warps, stages: as Triton's num_warps and num_stages.
    """

    rows: int
    columns: int
    depth: int
    chunk: int
    warps: int
    stages: int


def choose_blocks(depth: int, paired: tuple[bool, bool], capability: tuple[int, int]) -> Blocks:
    """Blocks for filters of `depth` values, of which none spills registers. paired: whether kernels
    and whether vectors come with remainders. capability: the GPU's, (9, 0) for an H100."""
    if capability[0] in (9, 10):
        # Hopper waits for every product, so they are as long as shared memory permits.
        rows, columns, chunk, stages = {
            0: (128, 128, 128 if 64 < depth <= 128 else 64, 2 if 64 < depth <= 128 else 3),
            1: (128, 128, 64, 2),
            2: (128, 128, 32, 3),
        }[sum(paired)]
    else:
        rows, columns, chunk, stages = 64, 128, 32, 3
    chunk = min(chunk, max(16, triton.next_power_of_2(depth)))
    return Blocks(rows, columns, -(-depth // chunk) * chunk, chunk, 8, stages)


def fused_distances(
    kernels: tuple[Tensor, Tensor], vectors: tuple[Tensor, Tensor], exact: bool = False
) -> Tensor:
    """`mutual.mutual_distances` without `post`: float32 [A, B].

    kernels: [A, O, C] and [B, O, C], float32 or of 16 bits. vectors: float32 [A, C] and [B, C]; all
    on one device. exact: vectors' values have at most 11 bits, as those stored in 16 bits. Values
    of 16 bits are one float16 number, others two, whose 22 bits leave errors like those of
    float32's own sums. A power of two for each picture keeps its kernel and its vector in float16's
    range. Sums are float32; no pair's result depends on another's. Raises `Unfit` for sizes beyond
    32-bit offsets, and where a kernel and its vector are more than `SPREAD` powers of two
    apart.
    """
    device, (filters, depth) = vectors[0].device, kernels[0].shape[1:]
    paired = any(side.dtype.itemsize > 2 for side in kernels), not exact
    capability = (9, 0) if device.type == "cpu" else torch.cuda.get_device_capability(device)
    blocks = choose_blocks(depth, paired, capability)
    length = filters * blocks.depth * (1 + paired[0])
    if max(blocks.rows, blocks.columns) * max(length, len(vectors[1])) >= OFFSETS:
        raise Unfit(f"kernels of {filters} x {depth} or a side are too large for 32-bit offsets")
    out = torch.empty(len(vectors[0]), len(vectors[1]), dtype=torch.float32, device=device)
    if not out.numel():
        return out
    (ours, theirs), (queries, gallery) = kernels, vectors
    units, others = (_units(*side) for side in zip(kernels, vectors, strict=True))
    for left in range(0, len(gallery), SIDE):
        columns = slice(left, left + SIDE)
        below = _operands(theirs[columns], gallery[columns], others[columns], blocks, paired)
        for top in range(0, len(queries), SIDE):
            rows = slice(top, top + SIDE)
            beside = _operands(ours[rows], -queries[rows], units[rows], blocks, paired)
            _launch(out[rows, columns], beside, below, blocks, paired)
    return out


def _launch(
    out: Tensor, queries: Side, gallery: Side, blocks: Blocks, paired: tuple[bool, bool]
) -> None:
    """Writes the distances of two sides' `_operands`."""
    grid = (triton.cdiv(out.shape[0], blocks.rows) * triton.cdiv(out.shape[1], blocks.columns),)
    with torch.cuda.device_of(out):
        differences[grid](
            out,
            *queries,
            *gallery,
            *out.shape,
            queries[0].shape[1],
            out.stride(0),
            DEPTH=blocks.depth,
            CHUNK=blocks.chunk,
            ROWS=blocks.rows,
            COLUMNS=blocks.columns,
            GROUP=GROUP,
            KERNELS_PAIRED=paired[0],
            VECTORS_PAIRED=paired[1],
            STAGES=blocks.stages,
            num_warps=blocks.warps,
            num_stages=blocks.stages,
            enable_fp_fusion=True,
        )


def _units(kernels: Tensor, vectors: Tensor) -> Tensor:
    """float32 [N]: the powers of two that bring the largest value of each picture, of its kernel
    or its vector, to 2^14 or more."""
    largest = torch.stack(
        [torch.maximum(kernels.amax((1, 2)), -kernels.amin((1, 2))).float(), vectors.abs().amax(1)]
    )
    exponents = torch.frexp(largest).exponent
    apart = (exponents[0] - exponents[1]).abs().where((largest > 0).all(0), 0)
    if (apart > SPREAD).any():
        raise Unfit(
            f"a picture's kernel and vector are 2^{int(apart.max())} apart in size and the kernel "
            f"has bits for 2^{SPREAD}"
        )
    exponent = exponents.where(largest > 0, -100).amax(0).clamp(-100, 128)
    return torch.ldexp(torch.ones_like(largest[0]), exponent - 15)


def _operands(
    kernels: Tensor, vectors: Tensor, units: Tensor, blocks: Blocks, paired: tuple[bool, bool]
) -> Side:
    """A side's kernels [N, O, depth] or paired [N, O, 2, depth] and vectors likewise, float16 in
    the pictures' units, and these."""
    split, split_vectors = paired
    return (
        _float16(kernels, units[:, None, None], blocks.depth, split),
        _float16(vectors, units[:, None], blocks.depth, split_vectors),
        units,
    )


def _float16(values: Tensor, units: Tensor, depth: int, paired: bool) -> Tensor:
    """[..., C] in `units` as contiguous float16 [..., depth], zero behind C; paired: as numbers and
    remainders [..., 2, depth]."""
    scaled = values / units
    shape = (*values.shape[:-1], 1 + paired, depth)
    make = torch.empty if depth == values.shape[-1] else torch.zeros
    parts = make(shape, dtype=torch.float16, device=values.device)
    number, *remainder = parts[..., : values.shape[-1]].unbind(-2)
    number.copy_(scaled)
    if paired:
        remainder[0].copy_(scaled - number)
    return parts
