"""The mutual-guided distance: either picture's vector under the other's kernel (equation 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_ipad.branches import EPSILON
from reid_ipad.settings_matchers import Mutual as MutualSettings
from reidcore.api import Table
from reidcore.modules import Context, Fused, Matcher, Template, at_least_float32, is_exporting

CACHED = (256, 512)
"""Queries and gallery pictures of a tile on a CPU: 1 MiB, about a core's second cache."""
LAUNCHED = (4096, 4096)
"""The same on a GPU: 128 MiB."""


def mutual_distances(
    kernels: tuple[Tensor, Tensor], vectors: tuple[Tensor, Tensor], post: bool = False
) -> Tensor:
    """|K_i f_j - K_j f_i| of a query side and a gallery side, [A, B], without gradient.

    kernels: [A, O, C] and [B, O, C]; vectors: [A, C] and [B, C], which decide the type of the
    result. post: both products are scaled to unit length first. One filter after another, two
    products of matrices give a tile's differences, whose squares are added: differences first,
    because |x|^2 + |y|^2 - 2xy would lose pictures that are nearly equal. Beside the result this
    takes a tile's differences (with `post` five such, three of them in float64), and of kernels in
    16 bits a tile's in full.
    """
    (ours, theirs), (queries, gallery) = kernels, vectors
    found = queries.new_empty(len(queries), len(gallery))
    height, width = CACHED if found.device.type == "cpu" else LAUNCHED
    tile = _unit_tile if post else _tile
    for left in range(0, len(gallery), width):
        columns = slice(left, left + width)
        # Kernels kept in 16 bits are widened here; others are used where they are.
        wide, below = theirs[columns].to(found.dtype), gallery[columns].T
        for top in range(0, len(queries), height):
            rows = slice(top, top + height)
            tile(ours[rows].to(found.dtype), wide, queries[rows], below, found[rows, columns])
    return found


def _tile(ours: Tensor, theirs: Tensor, queries: Tensor, below: Tensor, out: Tensor) -> None:
    """`out` [a, b] from kernels [a, O, C] and [b, O, C] and vectors [a, C] and [C, b]."""
    difference = torch.empty_like(out, memory_format=torch.contiguous_format)
    out.zero_()
    for ours_c, theirs_c in zip(ours.unbind(1), theirs.unbind(1), strict=True):
        torch.mm(ours_c, below, out=difference)
        difference.addmm_(queries, theirs_c.T, alpha=-1)
        out.addcmul_(difference, difference)
    out.sqrt_()


def _unit_tile(ours: Tensor, theirs: Tensor, queries: Tensor, below: Tensor, out: Tensor) -> None:
    """The same of products scaled to unit length, one pass with sums in float64:
    |x/p - y/q|^2 = (|x|/p - |y|/q)^2 + (|x - y|^2 - (|x| - |y|)^2) / pq, where p and q are the
    lengths, but at least 1e-12. 2 - 2 cos would lose pictures that are nearly equal."""
    x2, y2, apart = (torch.zeros_like(out, dtype=torch.float64) for _ in range(3))
    for ours_c, theirs_c in zip(ours.unbind(1), theirs.unbind(1), strict=True):
        x, y = torch.mm(ours_c, below), torch.mm(queries, theirs_c.T)
        for total, value in ((apart, (x - y)), (x2, x), (y2, y)):
            total += value.double().square_()
    x, y = x2.sqrt(), y2.sqrt()
    p, q = x.clamp(min=EPSILON), y.clamp(min=EPSILON)
    turned = (apart - (x - y).square()) / (p * q)
    # 0 beside a zero vector, where rounding would be divided by 1e-12.
    squares = (x / p - y / q).square() + turned.where((x > 0) & (y > 0), 0)
    out.copy_(squares.clamp(min=0).sqrt())


def differentiable_distances(
    kernels: tuple[Tensor, Tensor], vectors: tuple[Tensor, Tensor], post: bool = False
) -> Tensor:
    """Return `mutual_distances` with gradients, for batches: all products [A, B, O] exist at once.
    Pairs that are exactly equal have distance 0 and no gradient."""
    (ours, theirs), (queries, gallery) = kernels, vectors
    x = torch.einsum("aoc,bc->abo", ours, gallery)
    y = torch.einsum("boc,ac->abo", theirs, queries)
    if post:
        x, y = F.normalize(x, dim=2, eps=EPSILON), F.normalize(y, dim=2, eps=EPSILON)
    return torch.linalg.vector_norm(x - y, dim=2)


class Mutual(Matcher):
    """`kernel` [N, O, V * C] and `vector` [N, V * C] of each picture, with V = 1, or with
    flip_mode = "matched" as many as there are test views.

    As the distance is linear in either, views beside each other act like longer vectors, whose
    products are the mean over equal views; the mean kernel and the mean vector of V views give the
    mean over all pairs of views. Means of kernels are not normalised again.
    """

    def __init__(self, config: MutualSettings, context: Context):
        super().__init__()
        self.feature, self.kernel = config.feature, config.kernel
        self.length = context.vector(config.feature)
        self.feature_norm = config.feature_norm
        self.matched = config.flip_mode == "matched" and len(context.views) > 1
        self.store: torch.dtype = getattr(torch, config.store)
        self.fused = Fused(config.fused, context.name, "ipad.mutual", "vectors")

    def template(self, features: Mapping[str, Tensor]) -> Template:
        return {
            "kernel": at_least_float32(features[self.kernel]),
            "vector": at_least_float32(features[self.feature]),
        }

    def merge(self, views: Sequence[Template]) -> Template:
        # Pictures whose views stand beside each other already, as in query expansion, are averaged.
        if self.matched and views[0]["vector"].shape[1] == self.length:
            merged = {key: torch.cat([view[key] for view in views], -1) for key in views[0]}
        else:
            merged = super().merge(views)
        # What is float64 belongs to somebody who asks for exact numbers.
        return {
            key: value if value.dtype == torch.float64 else value.to(self.store)
            for key, value in merged.items()
        }

    def _vectors(self, template: Template) -> Tensor:
        """[N, V * C], of unit length in each view if so set, divided by V."""
        views = at_least_float32(template["vector"]).unflatten(1, (-1, self.length))
        if self.feature_norm == "pre":
            views = F.normalize(views, dim=2, eps=EPSILON)
        return (views / views.shape[1]).flatten(1)

    def distance(self, a: Template, b: Template) -> Tensor:
        kernels, post = (a["kernel"], b["kernel"]), self.feature_norm == "post"
        with torch.autocast(kernels[0].device.type, enabled=False):
            vectors = self._vectors(a), self._vectors(b)
            learnt = any(x.requires_grad for x in (*kernels, *vectors))
            if is_exporting() or (torch.is_grad_enabled() and learnt):
                return differentiable_distances(kernels, vectors, post)
            own = 'feature_norm = "post" adds in float64' if post else ""
            if not self.training and self.fused.applies(vectors[0], own):

                def computed() -> Tensor:
                    # Not before it is used: triton is not everywhere, and takes a second to import.
                    from reid_ipad.kernel import fused_distances

                    return fused_distances(kernels, vectors, self._exact(a, b))

                found = self.fused(computed)
                if found is not None:
                    return found
            return mutual_distances(kernels, vectors, post)

    def _exact(self, *sides: Template) -> bool:
        """Return True if `_vectors` gives the bits that are stored, and these are 16."""
        stored = [side["vector"] for side in sides]
        # Halves of 16-bit numbers are such numbers, thirds are not.
        views = stored[0].shape[1] // self.length
        return (
            self.feature_norm == "none"
            and views & (views - 1) == 0
            and all(vector.dtype.itemsize == 2 for vector in stored)
        )

    def explain(self, a: Template, b: Template) -> dict[str, Table]:
        """Figure 6: the Euclidean distance of the pictures' vectors, before their kernels are
        used, and the mutual-guided distance."""
        with torch.no_grad():
            before = torch.linalg.vector_norm(self._vectors(a) - self._vectors(b), dim=1)
            after = self.distance(a, b)
        return {"distances": Table(("before", "after"), [(before.item(), after.item())])}


def build_mutual(config: MutualSettings, context: Context) -> Mutual:
    return Mutual(config, context)
