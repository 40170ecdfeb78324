"""The paths of version 1 that explain why two pictures match."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated, Any

from fastapi import File, Form, Query, Request, Response, UploadFile

from reid_gallery.serve import schemas
from reid_gallery.serve.parameters import (
    MayText,
    RowId,
    audit,
    change,
    decoded,
    engine_of,
    new_router,
)
from reid_gallery.serve.pictures import explainer, explanation
from reid_gallery.serve.schemas import Text
from reidcore.api import Row
from reidcore.tools import Search, rows_of

router = new_router()
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}


async def _explained(
    request: Request, rows: list[Row], match: int, ranking: str | None, view: str | None
) -> Response:
    engine = engine_of(request)

    def work() -> tuple[bytes, list[str], str]:
        (other,) = engine.rows([match])
        own = engine.gallery
        search: Search = explainer(str(own.search_run.folder), engine.settings.device)
        return explanation(search, rows[0], other, ranking, view)

    # In the thread of searches: it needs as much of the machine as one.
    content, views, chosen = await engine.run(engine.searching.thread, work)
    headers = {"X-Views": json.dumps(views), "X-View": json.dumps(chosen)}
    return Response(content, media_type="image/png", headers=headers)


@router.get("/explain", response_class=Response, responses=PNG)
async def explain_rows(
    request: Request,
    query: RowId,
    match: RowId,
    ranking: Annotated[Text | None, Query()] = None,
    view: Annotated[Text | None, Query()] = None,
) -> Response:
    """Return a PNG of why two rows match. The header X-Views lists the names for `view`."""
    engine = engine_of(request)
    rows = await engine.run(engine.reading, partial(engine.rows, [query]))
    audit(request, "explain", ids=[query, match])
    return await _explained(request, rows, match, ranking, view)


@router.post("/explain", response_class=Response, responses=PNG, dependencies=change)
async def explain_upload(
    request: Request,
    picture: Annotated[UploadFile, File()],
    match: Annotated[schemas.Id, Form()],
    box: MayText = None,
    ranking: MayText = None,
    view: MayText = None,
) -> Response:
    """Return a PNG of why an upload and a row match."""
    async with decoded(request, [picture], [box] if box else None) as (upload,):
        audit(request, "explain", pictures=1, ids=[match])
        return await _explained(request, list(rows_of([upload.picture])), match, ranking, view)
