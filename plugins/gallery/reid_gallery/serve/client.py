"""A client of the service, with the answers as typed objects.

with Client("http://127.0.0.1:8000") as client:
    for match in client.search(["new.jpg"], top=5).answers[0].matches:
        print(match.id, match.camera, match.probability)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from reid_gallery.serve import schemas
from reidcore.errors import ReidError

T = TypeVar("T", bound=schemas.Model)
Upload = str | os.PathLike[str] | bytes
"""A picture: its path, or its file's content."""


class ServiceError(ReidError):
    """The service's problem in place of an answer. problem: as it describes it."""

    def __init__(self, problem: dict[str, Any]):
        super().__init__(
            f"{problem.get('title')} ({problem.get('status')}): {problem.get('detail')}"
        )
        self.problem = problem
        self.status = int(problem.get("status", 500))


class Client:
    """Asks a service. url: where it listens. token: if it asks for one. http: in place of a
    connection of its own. Methods raise ServiceError for problems, httpx's errors for the rest."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        token: str | None = None,
        http: httpx.Client | None = None,
        timeout: float = 60.0,
    ):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = http or httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        found = self._http.request(method, path, **more)
        if found.status_code < 400:
            return found
        try:
            problem = found.json()
        except ValueError:
            problem = {"title": "Error", "status": found.status_code, "detail": found.text[:200]}
        raise ServiceError(problem)

    def search(
        self, pictures: Sequence[Upload] = (), ids: Sequence[int] = (), **asked: Any
    ) -> schemas.Answers:
        """Return the answers to pictures, and to rows of the gallery. asked: box, camera, after,
        before, where, ranking, top, candidates, unknown_above, together."""
        data = {"id": list(ids), **asked}
        found = self._ask("POST", "/v1/search", files=_files(pictures), data=_given(data))
        return schemas.Answers.model_validate_json(found.content)

    def add(self, pictures: Sequence[Upload], **known: Any) -> schemas.Added:
        """Add pictures. known: box, camera, time, modality, identity, tracklet."""
        found = self._ask("POST", "/v1/pictures", files=_files(pictures), data=_given(known))
        return schemas.Added.model_validate_json(found.content)

    def label(self, **asked: Any) -> int:
        """Say who is on rows; return how many. asked: as `schemas.Label`."""
        return self._changed("/v1/label", schemas.Label(**asked))

    def remove(self, **asked: Any) -> int:
        """Remove rows; return how many. asked: as `schemas.Rows`."""
        return self._changed("/v1/remove", schemas.Rows(**asked))

    def forget(self, **asked: Any) -> int:
        """Forget rows; return how many. asked: as `schemas.Forget`."""
        return self._changed("/v1/forget", schemas.Forget(**asked))

    def _changed(self, path: str, asked: schemas.Rows) -> int:
        found = self._ask("POST", path, json=asked.model_dump(exclude_none=True))
        return schemas.Count.model_validate_json(found.content).rows

    def gallery(self) -> schemas.Gallery:
        """Return what the gallery holds."""
        found = self._ask("GET", "/v1/gallery")
        return schemas.Gallery.model_validate_json(found.content)

    def picture(self, id: int) -> schemas.Picture:
        """Return what is known of a row."""
        found = self._ask("GET", f"/v1/pictures/{id}")
        return schemas.Picture.model_validate_json(found.content)

    def thumbnail(self, id: int, height: int = 256) -> bytes:
        """Return a row's picture as a JPEG."""
        return self._ask("GET", f"/v1/pictures/{id}/thumbnail", params={"height": height}).content

    def explain(self, query: int, match: int, **asked: Any) -> bytes:
        """Return a PNG of why two rows match. asked: ranking, view."""
        params = {"query": query, "match": match, **_given(asked)}
        return self._ask("GET", "/v1/explain", params=params).content

    def explain_upload(self, picture: Upload, match: int, **asked: Any) -> bytes:
        """Return a PNG of why a picture and a row match. asked: box, ranking, view."""
        data = _given({"match": match, **asked})
        return self._ask("POST", "/v1/explain", files=_files([picture]), data=data).content

    def health(self) -> schemas.Health:
        """Return how the service is."""
        return schemas.Health.model_validate_json(self._ask("GET", "/v1/health").content)


def _given(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None and value != []}


def _files(pictures: Sequence[Upload]) -> list[tuple[str, tuple[str, bytes]]]:
    contents = [one if isinstance(one, bytes) else Path(one).read_bytes() for one in pictures]
    return [("picture", ("upload", content)) for content in contents]
