"""The worked example of a `VectorStore`: a collection of Qdrant, on a server or embedded."""

from __future__ import annotations

from typing import Any

import numpy as np

PIECE = 1000
"""Points that are sent at once."""


class QdrantStore:
    """Vectors in a collection, which is made if it is not there.

    client: a `qdrant_client.QdrantClient`. column: of the gallery, such as "look__vector". size: of
    its vectors.
    """

    def __init__(self, client: Any, collection: str, column: str, size: int):
        from qdrant_client import models

        self.column = column
        self._client, self._name, self._models = client, collection, models
        if not client.collection_exists(collection):
            given = models.VectorParams(size=size, distance=models.Distance.COSINE)
            client.create_collection(collection, vectors_config=given)

    def ids(self) -> np.ndarray:
        """Return the ids of all points, int64 [N]."""
        found: list[int] = []
        place = None
        while True:
            points, place = self._client.scroll(
                self._name, limit=PIECE, offset=place, with_payload=False
            )
            found += [point.id for point in points]
            if place is None:
                return np.array(found, np.int64)

    def put(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add points, or replace those with these ids."""
        for start in range(0, len(ids), PIECE):
            some = slice(start, start + PIECE)
            batch = self._models.Batch(ids=ids[some].tolist(), vectors=vectors[some].tolist())
            self._client.upsert(self._name, points=batch, wait=True)

    def remove(self, ids: np.ndarray) -> None:
        """Remove points."""
        self._client.delete(self._name, points_selector=ids.tolist(), wait=True)

    def nearest(self, vectors: np.ndarray, count: int) -> np.ndarray:
        """Return the ids of the nearest points of each vector, int64 [Q, count], -1 for none."""
        found = np.full((len(vectors), count), -1)
        for row, vector in zip(found, vectors.tolist(), strict=True):
            points = self._client.query_points(self._name, query=vector, limit=count).points
            row[: len(points)] = [point.id for point in points]
        return found
