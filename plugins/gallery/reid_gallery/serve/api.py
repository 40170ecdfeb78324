"""The paths of version 1."""

from __future__ import annotations

import asyncio
import json
import math
from functools import partial
from typing import Annotated, Any

import attrs
from fastapi import APIRouter, Depends, File, Form, Path, Query, Request, Response, UploadFile

from reid_gallery.answers import Answer
from reid_gallery.filters import balanced
from reid_gallery.keeping import listed
from reid_gallery.rows import Entry
from reid_gallery.serve import schemas
from reid_gallery.serve.decoder import FORMATS
from reid_gallery.serve.decoding import Decoded
from reid_gallery.serve.engine import Engine, shown
from reid_gallery.serve.pictures import explainer, explanation, thumbnail
from reid_gallery.serve.problems import Problem
from reid_gallery.serve.queries import Asked
from reid_gallery.serve.schemas import Text
from reid_gallery.serve.security import require_csrf
from reid_gallery.serve.uploads import store
from reidcore.api import Row
from reidcore.tools import Search

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ProblemDetails}
    for status in (400, 401, 403, 404, 413, 415, 422, 429, 503, 507)
}
router = APIRouter(prefix="/v1", responses=PROBLEMS)
change = [Depends(require_csrf)]
Id = Annotated[int, Path(ge=0, lt=2**63)]
RowId = Annotated[int, Query(ge=0, lt=2**63)]
Files = Annotated[list[UploadFile], File(description="a JPEG, PNG, WebP or BMP; may be repeated")]
Texts = Annotated[list[Text] | None, Form()]
MayText = Annotated[Text | None, Form()]


def engine_of(request: Request) -> Engine:
    """Return the app's engine."""
    found: Engine = request.app.state.engine
    return found


def audit(request: Request, action: str, **what: Any) -> None:
    """Write a line of the audit log."""
    request.app.state.audit.write(request.state.who, action, **what)


async def decoded(
    request: Request, files: list[UploadFile], boxes: list[str] | None = None
) -> list[Decoded]:
    """Return uploads as pictures, each cut to its box. Raises Problem."""
    settings = request.app.state.settings
    if len(files) > settings.pictures:
        raise Problem(413, f"there are {len(files)} pictures, more than {settings.pictures}")
    if boxes and len(boxes) != len(files):
        raise Problem(422, f"there are {len(boxes)} boxes for {len(files)} pictures")
    contents = []
    for number, file in enumerate(files, 1):
        content = await file.read(settings.picture_bytes + 1)
        if len(content) > settings.picture_bytes:
            raise Problem(413, f"picture {number} has more than {settings.picture_bytes} bytes")
        if not content:
            raise Problem(415, f"picture {number} is empty")
        contents.append(content)
    sides = [_box(one) for one in boxes] if boxes else [None] * len(files)
    jobs = [
        request.app.state.decoders.decode(content, number, box)
        for number, (content, box) in enumerate(zip(contents, sides, strict=True), 1)
    ]
    found = await asyncio.gather(*jobs, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found  # type: ignore[return-value]


def _box(text: str) -> list[int] | None:
    """A box as a manifest writes it; "" for the whole picture."""
    words = text.split()
    if not words:
        return None
    try:
        box = [int(word) for word in words]
    except ValueError:
        box = []
    if len(box) != 4 or max(map(abs, box)) > 1 << 20 or box[0] >= box[2] or box[1] >= box[3]:
        raise Problem(422, f"the box is {text[:60]!r}, expected left, top, right and bottom")
    return box


def _answer(name: str, answer: Answer) -> schemas.Answer:
    matches = []
    for one in answer.matches:
        if math.isfinite(one.distance):
            own = shown({**attrs.asdict(one, recurse=False), **one.columns, "columns": None})
            own["columns"].pop("columns", None)
            for key in ("rank", "distance", "probability"):
                own[key] = own["columns"].pop(key)
            matches.append(schemas.Match(**own))
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
    asked = Asked(
        tuple(camera or ()) or None, after or None, before or None, where, top, ranking or None,
        candidates, unknown_above,
    )  # fmt: skip
    with engine.places.take(len(picture) + len(ids)):
        uploads = await decoded(request, picture, box)
        rows = await engine.run(engine.reading, partial(engine.rows, ids)) if ids else []
        audit(request, "search", pictures=len(uploads), ids=ids, **asked.told())
        found = await engine.search([*(one.picture for one in uploads), *rows], asked)
    names = [f"picture {place}" for place in range(1, len(uploads) + 1)]
    names += [f"row {one}" for one in ids]
    answers = [_answer(*pair) for pair in zip(names, found, strict=True)]
    return schemas.Answers(answers=[merged(answers, top)] if together else answers)


@router.post("/pictures", status_code=201, dependencies=change)
async def add(
    request: Request,
    picture: Files,
    box: Texts = None,
    camera: MayText = None,
    time: Annotated[float | None, Form(allow_inf_nan=False)] = None,
    modality: MayText = None,
    identity: MayText = None,
    tracklet: MayText = None,
) -> schemas.Added:
    """Add pictures; they are in the gallery for good when this answers."""
    engine = engine_of(request)
    uploads = await decoded(request, picture, box)
    audit(request, "add", pictures=len(uploads), camera=camera, identity=identity)
    sides = [_box(one) for one in box] if box else [None] * len(uploads)
    cells = {"identity": identity or "", "tracklet": tracklet or ""}
    folder = engine.settings.uploads.absolute()

    def stored() -> list[Entry]:
        entries = []
        for one, side in zip(uploads, sides, strict=True):
            path = str(store(folder, one.content, one.ending))
            row = Row(
                path, "", camera or "", "gallery", time, modality or "",
                box=None if side is None else tuple(side),  # type: ignore[arg-type]
            )  # fmt: skip
            entries.append(Entry(row, cells))
        return entries

    done, ids = await engine.add(await engine.run(engine.reading, stored))
    damaged = [
        schemas.Damaged(picture=place, detail="cannot be read")
        for place, one in enumerate(ids, 1)
        if one is None
    ]
    return schemas.Added(ids=ids, added=done.added, skipped=done.skipped, damaged=damaged)


async def _changed(request: Request, name: str, rows: schemas.Rows, **more: Any) -> schemas.Count:
    if not balanced(rows.where):  # "a) OR (b" would escape from the ids
        raise Problem(422, "where is no condition in SQL: its parentheses or quotes do not match")
    audit(request, name, **rows.model_dump())
    conditions = [listed(rows.ids)] if rows.ids else []
    conditions += [f"({rows.where})"] if rows.where and conditions else []
    asked = {
        "camera": rows.camera, "after": rows.after, "before": rows.before,
        "where": " AND ".join(conditions) or rows.where,
    }  # fmt: skip
    if (
        not rows.where
        and not rows.ids
        and all(one in (None, "", []) for one in asked.values())
        and not more.get("identity")
    ):
        raise Problem(422, "name the rows: by ids, or by conditions")
    return schemas.Count(rows=await engine_of(request).change(name, {**asked, **more}))


@router.post("/label", dependencies=change)
async def label(request: Request, asked: schemas.Label) -> schemas.Count:
    """Say who is on rows."""
    if asked.identity is None and asked.tracklet is None:
        raise Problem(422, "there is neither an identity nor a tracklet")
    names = {"ids", "camera", "after", "before", "where"}
    if all(one in (None, "", []) for one in asked.model_dump(include=names).values()):
        raise Problem(422, "name the rows: by ids, or by conditions")
    more = {"identity": asked.identity, "tracklet": asked.tracklet}
    return await _changed(request, "label", asked, **more)


@router.post("/remove", dependencies=change)
async def remove(request: Request, asked: schemas.Rows) -> schemas.Count:
    """Remove rows: no search finds them any more."""
    return await _changed(request, "remove", asked)


@router.post("/forget", dependencies=change)
async def forget(request: Request, asked: schemas.Forget) -> schemas.Count:
    """Remove rows from disk, with the pictures that were uploaded for them."""
    return await _changed(request, "forget", asked, identity=asked.identity)


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


PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}


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
    from reidcore.tools import rows_of

    (upload,) = await decoded(request, [picture], [box] if box else None)
    audit(request, "explain", pictures=1, ids=[match])
    return await _explained(request, list(rows_of([upload.picture])), match, ranking, view)


@router.get("/health")
async def health(request: Request) -> schemas.Health:
    """Answer that the service runs."""
    return schemas.Health(status="ok", waiting=engine_of(request).places.taken)
