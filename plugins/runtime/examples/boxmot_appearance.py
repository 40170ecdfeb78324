"""An export as the appearance model of BoxMOT's trackers, such as `BotSort(reid_model=...)`."""

import numpy as np

from reid_runtime import Embedder


class Appearance:
    """What BoxMOT's trackers ask of `reid_model`. folder: of an export of vectors."""

    def __init__(self, folder):
        self.embed = Embedder(folder)

    def get_features(self, boxes, frame):
        """Vectors [N, D] of the boxes [N, 4] (left, top, right, bottom) of a frame, which is blue,
        green and red."""
        corners = np.asarray(boxes)[:, :4].round().astype(int).clip(0)
        crops = [frame[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] for x0, y0, x1, y1 in corners]
        return self.embed([crop[..., ::-1] for crop in crops])
