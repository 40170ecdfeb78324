"""The paths of version 1 that ask: search, rows, thumbnails, health."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated

import attrs
from fastapi import Form, Query, Request, Response

from reid_gallery.answers import Answer
from reid_gallery.serve import schemas
from reid_gallery.serve.decoder import FORMATS
from reid_gallery.serve.engine import shown
from reid_gallery.serve.parameters import (
    Files,
    Id,
    MayText,
    Texts,
    audit,
    change,
    decoded,
    engine_of,
    new_router,
)
from reid_gallery.serve.pictures import thumbnail
from reid_gallery.serve.problems import Problem
from reid_gallery.serve.queries import Wanted
from reid_gallery.serve.schemas import Text

router = new_router()


def _answer(name: str, answer: Answer) -> schemas.Answer:
    matches = []
    for one in answer.matches:
        if math.isfinite(one.distance):
            own = attrs.asdict(one, recurse=False)
            scores = {key: own[key] for key in ("rank", "distance", "probability")}
            matches.append(schemas.Match(**{**shown(own), **scores, "columns": one.columns}))
    return schemas.Answer(query=name, unknown=answer.unknown, matches=matches)


def merged(answers: list[schemas.Answer], top: int) -> schemas.Answer:
    """Return one answer to several pictures of one tracklet: each row by its nearest picture."""
    best: dict[int, schemas.Match] = {}
    for match in (match for answer in answers for match in answer.matches):
        if match.id not in best or match.distance < best[match.id].distance:
            best[match.id] = match
    order = sorted(best.values(), key=lambda match: (match.distance, match.id))[:top]
    matches = [one.model_copy(update={"rank": rank}) for rank, one in enumerate(order, 1)]
    unknown = all(answer.unknown for answer in answers)
    return schemas.Answer(query=f"{len(answers)} pictures", unknown=unknown, matches=matches)


@router.post("/search", dependencies=change)
async def search(
    request: Request,
    picture: Files = [],  # noqa: B006
    id: Annotated[list[schemas.Id] | None, Form()] = None,
    box: Texts = None,
    camera: Texts = None,
    after: MayText = None,
    before: MayText = None,
    where: Annotated[Text, Form()] = "",
    ranking: MayText = None,
    top: Annotated[int, Form(ge=1, le=1000)] = 10,
    candidates: Annotated[int, Form(ge=1, le=5000)] = 200,
    unknown_above: Annotated[float | None, Form(ge=0, le=1)] = None,
    together: Annotated[bool, Form()] = False,
) -> schemas.Answers:
    """Find the nearest pictures for uploaded pictures, or for rows of the gallery.

    box: "left top right bottom" of each upload, "" for all of it. together: the pictures are of one
    tracklet, and have one answer.
    """
    ids = id or []
    if not picture and not ids:
        raise Problem(422, "there is no picture, and no id of one")
    if len(ids) > request.app.state.settings.pictures:
        raise Problem(413, f"there are {len(ids)} ids, more than a request may have pictures")
    engine = engine_of(request)
    wanted = Wanted(
        tuple(camera or ()) or None, after or None, before or None, where, top, ranking or None,
        candidates, unknown_above,
    )  # fmt: skip
    async with decoded(request, picture, box, len(ids)) as uploads:
        rows = await engine.run(engine.reading, partial(engine.rows, ids)) if ids else []
        audit(request, "search", pictures=len(uploads), ids=ids, **wanted.told())
        found = await engine.search([*(one.picture for one in uploads), *rows], wanted)
    names = [f"picture {place}" for place in range(1, len(uploads) + 1)]
    names += [f"row {one}" for one in ids]
    answers = [_answer(*pair) for pair in zip(names, found, strict=True)]
    return schemas.Answers(answers=[merged(answers, top)] if together else answers)


@router.get("/gallery")
async def gallery(request: Request) -> schemas.Gallery:
    """Return what the gallery holds."""
    engine, settings = engine_of(request), request.app.state.settings
    found = await engine.run(engine.reading, engine.info)
    limits = {name: getattr(settings, name) for name in ("picture_bytes", "pictures", "pixels")}
    known = {name: found[name] for name in schemas.Gallery.model_fields if name in found}
    return schemas.Gallery(**known, limits=schemas.Limits(**limits, formats=list(FORMATS)))


@router.get("/pictures/{id}")
async def one_picture(request: Request, id: Id) -> schemas.Picture:
    """Return what is known of a row."""
    engine = engine_of(request)
    (cells,) = await engine.run(engine.reading, partial(engine.cells, [id]))
    return schemas.Picture(**shown(cells))


@router.get(
    "/pictures/{id}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
)
async def small(
    request: Request, id: Id, height: Annotated[int, Query(ge=16, le=1024)] = 256
) -> Response:
    """Return a row's picture as a JPEG."""
    engine = engine_of(request)
    content = await engine.run(engine.reading, lambda: thumbnail(engine.rows([id])[0], height))
    return Response(content, media_type="image/jpeg")


@router.get("/health")
async def health(request: Request) -> schemas.Health:
    """Answer that the service runs."""
    return schemas.Health(status="ok", waiting=engine_of(request).embedding.waiting)
