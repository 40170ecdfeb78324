"""Scores of all pairs of pictures in Triton kernels, which keep a pair's responses on the chip.

Needs triton, which comes with torch's CUDA builds for Linux; nothing imports this file before it is
used.
"""

from __future__ import annotations

import functools

import attrs
import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _dot(x: tl.tensor, y: tl.tensor, total: tl.tensor, WIDE: tl.constexpr) -> tl.tensor:
    """total + x y in float32. WIDE: the interpreter would take the bits of bfloat16 for numbers."""
    if WIDE:
        x, y = x.to(tl.float32), y.to(tl.float32)
    return tl.dot(x, y, total)


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
    PAIRED: tl.constexpr,
    APART: tl.constexpr,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """total + x y of what `_load` gave, PAIRED without the product of two remainders, which is
    about as small as float32's rounding. APART adds half of x y: Triton makes plain sums one chain
    of products, and of a chain it gives two warpgroups the same rows instead of half to each."""
    if APART:
        none = tl.zeros_like(total)
        mixed = _dot(x[1], y[0], none, WIDE) * 0.5 + _dot(x[0], y[1], none, WIDE) * 0.5
        return total + (_dot(x[0], y[0], none, WIDE) * 0.5 + mixed)
    else:
        if PAIRED:
            total = _dot(x[1], y[0], total, WIDE)
            total = _dot(x[0], y[1], total, WIDE)
        return _dot(x[0], y[0], total, WIDE)


@triton.jit(do_not_specialize=["query_count", "gallery_count", "length"])
def both_sides(
    out: tl.tensor,
    queries: tl.tensor,
    gallery: tl.tensor,
    weights: tl.tensor,
    query_count: tl.tensor,
    gallery_count: tl.tensor,
    length: tl.tensor,
    DEPTH: tl.constexpr,
    CHUNK: tl.constexpr,
    PICTURES: tl.constexpr,
    WIDTH: tl.constexpr,
    MORE: tl.constexpr,
    PAIRED: tl.constexpr,
    APART: tl.constexpr,
    WIDE: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """out [Q, G]: weighted sums of the best matches of the gallery's and of the query's locations.

    queries: [Q, length, DEPTH], or PAIRED [Q, length, 2, DEPTH], and `gallery` alike. weights:
    float32 [2, length], of the gallery's and of the query's locations. WIDTH + MORE >= length.

    A program has one query and PICTURES gallery pictures. One location of all these pictures after
    another meets all of the query's locations, which gives tiles of which every picture has a row.
    A row's largest is the best match of the gallery's location. The best matches of the query's
    locations are the running maxima of the tiles: no thread needs another's before the end.
    Locations beyond the query's last and pictures beyond the last repeat it, which no maximum and
    no other picture notices.
    """
    STEP: tl.constexpr = DEPTH * 2 if PAIRED else DEPTH
    program = tl.program_id(0)
    # Programs that run at a time share gallery pictures, which then come from the second cache.
    query = program % query_count
    first = program // query_count * PICTURES
    # Within a program offsets fit into 32 bits.
    queries += query.to(tl.int64) * length * STEP
    gallery += first.to(tl.int64) * length * STEP

    picture = tl.arange(0, PICTURES)
    channel = tl.arange(0, CHUNK)
    location = tl.arange(0, WIDTH)
    last = tl.minimum(gallery_count - first, PICTURES) - 1
    rows = tl.minimum(picture, last)[:, None] * (length * STEP) + channel[None, :]
    columns = tl.minimum(location, length - 1)[None, :] * STEP + channel[:, None]
    found = tl.full([PICTURES, WIDTH], float("-inf"), tl.float32)
    if CHUNK == DEPTH:
        y = _load(queries + columns, DEPTH, PAIRED)
    if MORE > 0:
        location_more = WIDTH + tl.arange(0, MORE)
        columns_more = tl.minimum(location_more, length - 1)[None, :] * STEP + channel[:, None]
        found_more = tl.full([PICTURES, MORE], float("-inf"), tl.float32)
        if CHUNK == DEPTH:
            y_more = _load(queries + columns_more, DEPTH, PAIRED)

    score = tl.zeros([PICTURES], tl.float32)
    for place in tl.range(0, length, num_stages=STAGES):
        tile = tl.zeros([PICTURES, WIDTH], tl.float32)
        if MORE > 0:
            tile_more = tl.zeros([PICTURES, MORE], tl.float32)
        if CHUNK == DEPTH:
            x = _load(gallery + rows, DEPTH, PAIRED)
            tile = _products(x, y, tile, PAIRED, APART, WIDE)
            if MORE > 0:
                tile_more = _products(x, y_more, tile_more, PAIRED, APART, WIDE)
        else:
            for start in tl.range(0, DEPTH, CHUNK, num_stages=STAGES):
                x = _load(gallery + rows + start, DEPTH, PAIRED)
                part = _load(queries + columns + start, DEPTH, PAIRED)
                tile = _products(x, part, tile, PAIRED, APART, WIDE)
                if MORE > 0:
                    part_more = _load(queries + columns_more + start, DEPTH, PAIRED)
                    tile_more = _products(x, part_more, tile_more, PAIRED, APART, WIDE)
        gallery += STEP
        best = tl.max(tile, 1)
        # These maxima see every response, so they are the ones that must not lose a NaN.
        found = tl.maximum(found, tile, propagate_nan=tl.PropagateNan.ALL)
        if MORE > 0:
            best = tl.maximum(best, tl.max(tile_more, 1))
            found_more = tl.maximum(found_more, tile_more, propagate_nan=tl.PropagateNan.ALL)
        score += best * tl.load(weights + place)

    weights += length
    weight = tl.load(weights + location, mask=location < length, other=0.0)
    score += tl.sum(found * weight[None, :], 1)
    if MORE > 0:
        weight = tl.load(weights + location_more, mask=location_more < length, other=0.0)
        score += tl.sum(found_more * weight[None, :], 1)
    out += query.to(tl.int64) * gallery_count + first
    tl.store(out + picture, score, mask=picture <= last)


@triton.jit(
    do_not_specialize=["other_count", "picture_count", "other_stride", "picture_stride", "length"]
)
def one_side(
    out: tl.tensor,
    others: tl.tensor,
    pictures: tl.tensor,
    weights: tl.tensor,
    other_count: tl.tensor,
    picture_count: tl.tensor,
    other_stride: tl.tensor,
    picture_stride: tl.tensor,
    length: tl.tensor,
    DEPTH: tl.constexpr,
    CHUNK: tl.constexpr,
    PICTURES: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRED: tl.constexpr,
    WIDE: tl.constexpr,
    ADD: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """out[o * other_stride + p * picture_stride], set or with ADD increased by the weighted sum of
    the best matches of picture p's locations in the other picture o; as `both_sides`, but for maps
    of any length, by blocks of WIDTH locations, and with weights float32 [length]."""
    STEP: tl.constexpr = DEPTH * 2 if PAIRED else DEPTH
    program = tl.program_id(0)
    other = program % other_count
    first = program // other_count * PICTURES
    others += other.to(tl.int64) * length * STEP
    pictures += first.to(tl.int64) * length * STEP
    out += other.to(tl.int64) * other_stride + first.to(tl.int64) * picture_stride

    picture = tl.arange(0, PICTURES)
    channel = tl.arange(0, CHUNK)
    last = tl.minimum(picture_count - first, PICTURES) - 1
    rows = tl.minimum(picture, last)[:, None] * (length * STEP) + channel[None, :]
    score = tl.zeros([PICTURES], tl.float32)
    for place in range(0, length):
        found = tl.full([PICTURES, WIDTH], float("-inf"), tl.float32)
        for left in range(0, length, WIDTH):
            location = tl.minimum(left + tl.arange(0, WIDTH), length - 1)
            columns = location[None, :] * STEP + channel[:, None]
            tile = tl.zeros([PICTURES, WIDTH], tl.float32)
            for start in tl.range(0, DEPTH, CHUNK, num_stages=STAGES):
                x = _load(pictures + rows + start, DEPTH, PAIRED)
                y = _load(others + columns + start, DEPTH, PAIRED)
                tile = _products(x, y, tile, PAIRED, False, WIDE)
            found = tl.maximum(found, tile, propagate_nan=tl.PropagateNan.ALL)
        pictures += STEP
        # The second term is 0, and NaN where the reduction would lose one.
        score += (tl.max(found, 1) + tl.sum(found - found, 1)) * tl.load(weights + place)
    spot = out + picture.to(tl.int64) * picture_stride
    if ADD:
        score += tl.load(spot, mask=picture <= last, other=0.0)
    tl.store(spot, score, mask=picture <= last)


@attrs.frozen
class Blocks:
    """Sizes by which a kernel divides its work.

    pictures: rows of a tile. width, more: a query's locations in its one or two tiles; more = 0 in
    blocks of `width`. depth: values of a location's vector with zeros behind it. chunk: how many of
    them are multiplied at a time; where it is all of them, the query stays in shared memory. warps,
    stages: as Triton's num_warps and num_stages.
    """

    pictures: int
    width: int
    more: int
    depth: int
    chunk: int
    warps: int
    stages: int = 3

    def both(self, length: int) -> bool:
        """Return True if `both_sides` holds all maxima of a query of so many locations."""
        return self.width + self.more >= length

    def apart(self, length: int) -> bool:
        """Return True if two warpgroups share the rows of `both_sides`."""
        return self.both(length) and self.warps > 4


def _power(value: int) -> int:
    """The least power of two, at least 16, that is not below `value`."""
    return max(16, triton.next_power_of_2(value))


def choose_blocks(length: int, depth: int, paired: bool, capability: tuple[int, int]) -> Blocks:
    """Blocks for maps of `length` locations with vectors of `depth` values, of which none spills
    registers. paired: float32. capability: the GPU's, (9, 0) for an H100.

    Hopper's tensor cores multiply 64 rows of four warps. Two programs of four warps share a
    processor, one taking maxima while the other multiplies; longer or paired maps, whose tiles
    would take more than a thread's registers, get eight warps.
    """
    depth = _power(depth) if depth <= 128 else -(-depth // 64) * 64
    whole = depth <= 128
    if capability[0] in (9, 10):
        longest = 192 if paired else 384 if whole else 256
        pictures, chunk = 64, depth if whole else 64
        warps = 4 if length <= (128 if paired else 192) and whole else 8
        step = 256 if length > 256 else 128
    else:
        longest, pictures, warps, step = 192, 32, 4, 128
        chunk = min(depth, 32) if paired else depth if whole else 64
    if length > longest:
        return Blocks(64, 2 * pictures, 0, depth, min(chunk, 64), 4)
    width = min(step, _power(length // 2 + 1))
    more = _power(length - width) if length > width else 0
    return Blocks(pictures, width, more, depth, chunk, warps)


def weighted_matches(a: Tensor, b: Tensor, weights: Tensor, operands: torch.dtype) -> Tensor:
    """float32 [A, B]: for every pair the sum over the gallery's locations of weights[0, j] m_G[j]
    and over the query's of weights[1, i] m_Q[i], the maxima of `matching.best_matches`.

    a: [A, L, D], the query side, b: [B, L, D], on one device and of any strides. weights: float32
    [2, L]. Vectors are rounded to `operands`; products are added in float32. Of float32 each value
    becomes two float16 numbers, whose 22 bits leave errors like those of float32's own sums; a
    power of two for each picture keeps them in range. No pair's result depends on another's.
    """
    length, paired, weights = a.shape[1], operands == torch.float32, weights.contiguous()
    interpreted = a.device.type == "cpu"
    capability = (9, 0) if interpreted else torch.cuda.get_device_capability(a.device)
    chosen = choose_blocks(length, a.shape[2], paired, capability)
    apart = paired and chosen.apart(length)
    out = torch.empty(len(a), len(b), dtype=torch.float32, device=a.device)
    if not out.numel():
        return out
    operand = _pairs if paired else functools.partial(_padded, operands=operands)
    (queries, a_unit), (gallery, b_unit) = (operand(side, chosen.depth) for side in (a, b))
    options = {
        "DEPTH": chosen.depth,
        "CHUNK": chosen.chunk,
        "PICTURES": chosen.pictures,
        "WIDTH": chosen.width,
        "PAIRED": paired,
        "STAGES": chosen.stages,
        "WIDE": interpreted and operands == torch.bfloat16,
        "num_warps": chosen.warps,
        "num_stages": chosen.stages,
        "enable_fp_fusion": True,
    }
    with torch.cuda.device_of(out):
        if chosen.both(length):
            grid = (len(a) * triton.cdiv(len(b), chosen.pictures),)
            both_sides[grid](
                out,
                queries,
                gallery,
                weights,
                len(a),
                len(b),
                length,
                MORE=chosen.more,
                APART=apart,
                **options,
            )
        else:
            sides = (queries, gallery, out), (gallery, queries, out.T)
            for (others, pictures, scores), weight in zip(sides, weights, strict=True):
                grid = (len(others) * triton.cdiv(len(pictures), chosen.pictures),)
                one_side[grid](
                    out,
                    others,
                    pictures,
                    weight.clone(),
                    len(others),
                    len(pictures),
                    *scores.stride(),
                    length,
                    ADD=pictures is queries,
                    **options,
                )
    if a_unit is None or b_unit is None:
        return out
    return out.mul_(a_unit[:, None] * (1 + apart)).mul_(b_unit)


def _padded(values: Tensor, depth: int, operands: torch.dtype) -> tuple[Tensor, None]:
    """[N, L, D] to contiguous [N, L, depth] of the type `operands`, zero behind D."""
    make = torch.empty if depth == values.shape[2] else torch.zeros
    padded = make(*values.shape[:2], depth, dtype=operands, device=values.device)
    padded[..., : values.shape[2]] = values
    return padded, None


def _pairs(values: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """float32 [N, L, D] as float16 [N, L, 2, depth], numbers and remainders, zero behind D, in a
    unit [N] of each picture's own: a power of two that brings its largest value to 2^14 or more."""
    exponent = torch.frexp(values.abs().amax((1, 2))).exponent.clamp(-100, 128)
    unit = torch.ldexp(torch.ones_like(values[:, 0, 0]), exponent - 15)
    scaled = values / unit[:, None, None]
    make = torch.empty if depth == values.shape[2] else torch.zeros
    pairs = make(*values.shape[:2], 2, depth, dtype=torch.float16, device=values.device)
    number, remainder = pairs[..., : values.shape[2]].unbind(2)
    number.copy_(scaled)
    remainder.copy_(scaled - number)
    return pairs, unit
