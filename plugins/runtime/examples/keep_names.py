"""Names of people beside any tracker's numbers: they stay after a gap, and across cameras."""

import numpy as np

from reid_runtime import Embedder


def named(stream, folder, limit):
    """Yield {track: name} of each frame.

    stream: (camera, frame uint8 [H, W, 3], tracks [(left, top, right, bottom, number)]). folder: of
    an export of vectors by cosine. limit: the largest distance of one person's pictures, (1 - cos)
    / 2, such as one of `thresholds` in export.json.
    """
    embed, names, known = Embedder(folder), {}, []
    for camera, frame, tracks in stream:
        new = [track for track in tracks if (camera, track[4]) not in names]
        vectors = embed([frame[y0:y1, x0:x1] for x0, y0, x1, y1, _ in new])
        taken = {names[camera, track[4]] for track in tracks if (camera, track[4]) in names}
        for vector, track in zip(vectors, new, strict=True):
            near = [(1 - own @ vector) / 2 + (name in taken) for name, own in enumerate(known)]
            found = int(np.argmin(near)) if near and min(near) <= limit else len(known)
            known[found : found + 1] = [vector]
            names[camera, track[4]] = found
            taken.add(found)  # nobody is twice in a frame
        yield {track[4]: names[camera, track[4]] for track in tracks}
