"""Fusion of appearance with the times between cameras (Lv et al., CVPR 2018, without its learning
to rank)."""

from __future__ import annotations

import torch
from torch import Tensor

from reid_qaconv.settings_tfusion import TFusion as Settings
from reid_qaconv.tlift import leading, require_places, require_unit, turned
from reidcore.modules import Context, Meta, Ranking


class TFusion:
    """Distances 1 - f, f the similarity s = 1 - distance times how much likelier a time difference
    is between pictures of one person than between any two.

    The differences of each camera's queries to their `top` most similar pictures of other cameras
    stand for those of one person. With P(d) their share within `window` of d and in the gallery
    picture's camera, R(d) that of all pairs of those queries and other cameras' pictures, and the
    error rates E_p and E_n,

        f = (s + E_p / (1 - E_p - E_n)) * max(0, (1 - E_p) P - E_n R) / R

    is divided by its largest value in the query's row; a row without any keeps its similarities. In
    [0, 1], 0 for pictures of the query's own camera.

    Memory besides `distances`: those of one camera's queries some times over, in float64. Raises
    DataError for pictures without camera or time and PluginError for distances outside [0, 1].
    """

    def __init__(self, config: Settings):
        self.config = config

    @torch.no_grad()
    def __call__(self, distances: Tensor, ranking: Ranking) -> Tensor:
        if not distances.numel():
            return distances
        require_places(ranking)
        require_unit(distances)
        return turned(self.fuse(turned(distances), ranking.query, ranking.gallery))

    def fuse(self, scores: Tensor, query: Meta, gallery: Meta) -> Tensor:
        """f, written into the similarities `scores` [Q, G]."""
        for camera in query.camera.unique():
            rows = (query.camera == camera).nonzero()[:, 0]
            own = scores[rows]
            apart = gallery.time - query.time[rows, None]
            fused = self._fused(own, apart, gallery.camera, camera)
            far = torch.zeros_like(apart, dtype=torch.bool)
            if self.config.farthest is not None:
                far = apart.abs() > self.config.farthest
            fused.masked_fill_(far, 0)
            best = fused.amax(1, keepdim=True)
            fused = (fused / best).where(~far & (best > 0), own.double())
            scores[rows] = fused.to(scores.dtype)
        return scores

    def _fused(self, scores: Tensor, apart: Tensor, cameras: Tensor, camera: Tensor) -> Tensor:
        """f of one camera's queries before it is divided, float64 [R, G].

        scores: [R, G]. apart: float64 [R, G], seconds from query to gallery picture. cameras: [G].
        """
        config = self.config
        accepts, rejects = config.wrong_accepts, config.wrong_rejects
        others = cameras != camera
        values, columns = leading(scores.masked_fill(~others, -torch.inf), config.top)
        taken = values > -torch.inf
        found, where = apart.gather(1, columns)[taken], cameras[columns][taken]
        fused = torch.zeros_like(apart)
        for other in cameras[others].unique():
            there = (cameras == other).nonzero()[:, 0]
            here = apart[:, there]
            person = self._near(here, found[where == other]) / len(found)
            anyone = self._near(here, here.flatten()) / (len(apart) * others.sum())
            likelier = ((1 - accepts) * person - rejects * anyone).clamp_(min=0) / anyone
            similar = scores[:, there].double() + accepts / (1 - accepts - rejects)
            fused[:, there] = similar * likelier
        return fused

    def _near(self, apart: Tensor, all_of: Tensor) -> Tensor:
        """How many of the differences `all_of` [N] are within the window of each of `apart`, in
        float64."""
        ordered, window = all_of.sort().values, self.config.window
        low = torch.searchsorted(ordered, (apart - window).contiguous())
        high = torch.searchsorted(ordered, (apart + window).contiguous(), right=True)
        return (high - low).double()


def build_tfusion(config: Settings, context: Context) -> TFusion:
    return TFusion(config)
