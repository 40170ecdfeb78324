"""Explanations of why pictures match: channel norms of any named map, Grad-CAM in it of distances
and of named vectors, and what a run's parts say themselves.

`Search.explain` explains pairs of a query and a gallery picture, `reid explain` draws them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from reidcore.contracts.component import Row
from reidcore.contracts.explanations import Explanation, Heat
from reidcore.contracts.pictures import Images, Rows
from reidcore.data.pictures import PictureLoader
from reidcore.errors import ReidError, UsageError
from reidcore.model.model import Model
from reidcore.search.heatmaps import cams, closeness, identity_score, similarity
from reidcore.search.part_explanations import explained_match, explained_part, identity_scores
from reidcore.search.results import Ranked


@attrs.frozen(eq=False)
class Explained:
    """A query picture, one of its matches, and what explains it.

    Attributes:
        number: the query's place among the queries, from 1.
        query, gallery: the two pictures.
        rank: the match's place in the query's list, from 1.
        distance: that of the two pictures, as they were ranked.
        found: {name: `Heat`, `Lines` or `Table` of reidcore.api}, with names such as
            `norm.backbone.layer4` or `head.parts.attention`. Heat has two grids, the query's first.
    """

    number: int
    query: Row
    rank: int
    gallery: Row
    distance: float
    found: dict[str, Explanation]


@attrs.frozen(eq=False)
class Explainer:
    """Explains pairs of pictures by a run's model and its parts.

    matchers: names of those whose distances are explained. maps: those that are looked at. vectors:
    those whose origin in the maps is looked for. identity: the number of the training identity that
    is spoken for, by default each picture's likeliest.
    """

    model: Model
    matchers: Sequence[str] = ()
    maps: Sequence[str] = ()
    vectors: Sequence[str] = ()
    identity: int | None = None

    def explanations(self, images: Images) -> dict[str, Explanation]:
        """Return what explains two pictures, the query first, by name.

        Of every map the channel norm and, for every matcher that depends on it, Grad-CAM of minus
        the pair's distance. In every map that a named vector depends on, Grad-CAM of the cosine of
        the two pictures' vectors and, for every loss that scores identities by it, of the score of
        `identity`, or of each picture's highest. Views other than the plain one are left out.
        Raises UsageError for a vector that depends on none of the maps.
        """
        with torch.enable_grad():
            values, features = _forward(self.model, self.maps, images)
            found: dict[str, Explanation] = {}
            for name in self.maps:
                found[f"norm.{name}"] = _heat(name, channel_norm(values[name]), "channel norm")
            for matcher in self.matchers:
                near = closeness(self.model.matchers[matcher], features)
                found |= _grad_cams(matcher, near, values, "what brings the two closer")
            for vector in self.vectors:
                found |= self._of_vector(vector, values, features)
            return found | self._of_parts(features, images)

    def _of_vector(
        self, vector: str, values: Mapping[str, Tensor], features: Mapping[str, Tensor]
    ) -> dict[str, Explanation]:
        """`gradcam.VECTOR.MAP` and, of losses that score identities, `gradcam.LOSS.VECTOR.MAP`."""
        near = similarity(features[vector])
        found = _grad_cams(vector, near, values, "what brings the two vectors closer")
        of = "each one's likeliest identity" if self.identity is None else "the identity"
        for wired in self.model.plan.losses:
            name = wired.part.name
            by_vector = identity_scores(wired, self.model.losses[name], features)
            if vector in by_vector:
                score = identity_score(by_vector[vector], self.identity)
                found |= _grad_cams(f"{name}.{vector}", score, values, f"what speaks for {of}")
        if not found:
            raise UsageError(
                f"{vector!r} depends on none of the maps {', '.join(values) or '(there are none)'}"
            )
        return found

    def _of_parts(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Explanation]:
        """Return the explanations by the parts themselves."""
        wired = {one.part.role: one for one in self.model.plan.parts}
        found: dict[str, Explanation] = {}
        for role, part in self.model.parts():
            if not role.startswith("matcher."):
                found |= explained_part(wired[role], part, features, images)
            elif wired[role].part.name in self.matchers:
                found |= explained_match(wired[role], part, features)
        return found


def channel_norm(values: Tensor) -> Tensor:
    """Return the Euclidean norm over the channels of every place, [B, C, h, w] to [B, h, w]."""
    return values.norm(dim=1)


def listed_pairs(ranked: Ranked, limit: int | None = None) -> list[Explained]:
    """Return every match of the first `limit` queries, nothing explained yet."""
    pairs = []
    for number, query in enumerate(ranked.query[:limit], 1):
        places, distances = (part[number - 1].tolist() for part in (ranked.index, ranked.distance))
        for rank, (place, distance) in enumerate(zip(places, distances, strict=True), 1):
            if place >= 0:
                pairs.append(Explained(number, query, rank, ranked.gallery[place], distance, {}))
    return pairs


def explained_pairs(
    explainer: Explainer, pairs: Sequence[Explained], loader: PictureLoader, rows: Rows
) -> Iterator[Explained]:
    """Yield the pairs with their explanations. rows: every pair's query and gallery picture in
    turn."""
    for pair, batch in zip(pairs, loader.plain(rows, 2), strict=True):
        images = batch.images.to(explainer.model.device)
        yield attrs.evolve(pair, found=explainer.explanations(images))


def _forward(
    model: Model, maps: Sequence[str], images: Images
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return ({map: values}, all features). The values are those that later layers read; the
    features are copies where the memory's order differs, which the layers behind do not depend
    on."""
    raw: dict[str, Tensor] = {}

    def keep(instance: str) -> Any:
        def hook(module: nn.Module, given: Any, outputs: Mapping[str, Tensor]) -> None:
            raw.update({f"{instance}.{name}": value for name, value in outputs.items()})

        return hook

    handles = [model.backbone.register_forward_hook(keep("backbone"))]
    handles += [head.register_forward_hook(keep(name)) for name, head in model.heads.items()]
    # With pixels that need a gradient, all maps have one, even if every weight is frozen.
    pixels = images.pixels.detach().clone().requires_grad_()
    try:
        features = model(Images(pixels, images.modality, images.camera))
    finally:
        for handle in handles:
            handle.remove()
    return {name: raw[name] for name in maps}, features


def _grad_cams(
    of: str, score: Tensor, values: Mapping[str, Tensor], meaning: str
) -> dict[str, Explanation]:
    """`gradcam.OF.MAP` of a score, for every map that it depends on."""
    return {
        f"gradcam.{of}.{name}": _heat(f"Grad-CAM of {of!r} in {name}", cam, meaning)
        for name, cam in cams(score, values).items()
    }


def _heat(of: str, values: Tensor, meaning: str) -> Heat:
    if not values.isfinite().all():
        raise ReidError(f"{of} is not finite, so there is nothing to draw")
    return Heat(values.detach().cpu().numpy(), meaning=meaning)
