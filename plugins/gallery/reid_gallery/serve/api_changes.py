"""The paths of version 1 that change rows: add, label, remove, forget."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Form, Request

from reid_gallery.filters import check_condition
from reid_gallery.keeping import listed
from reid_gallery.rows import Entry
from reid_gallery.serve import schemas
from reid_gallery.serve.parameters import (
    Files,
    MayText,
    Texts,
    audit,
    box_of,
    change,
    decoded,
    engine_of,
    new_router,
)
from reid_gallery.serve.problems import Problem
from reid_gallery.serve.uploads import store
from reidcore.api import Row

router = new_router()


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
    sides = [box_of(one) for one in box] if box else [None] * len(picture)
    cells = {"identity": identity or "", "tracklet": tracklet or ""}
    folder = engine.settings.uploads.absolute()

    def stored() -> list[Entry]:
        entries = []
        for (content, ending), side in zip(contents, sides, strict=True):
            path = str(store(folder, content, ending))
            row = Row(
                path, "", camera or "", "gallery", time, modality or "",
                box=None if side is None else tuple(side),  # type: ignore[arg-type]
            )  # fmt: skip
            entries.append(Entry(row, cells))
        return entries

    async with decoded(request, picture, box) as uploads:
        audit(request, "add", pictures=len(uploads), camera=camera, identity=identity)
        contents = [(one.content, one.ending) for one in uploads]
        uploads.clear()  # decoded they are large, and the one thread of changes may take long
        done, ids = await engine.add(await engine.run(engine.reading, stored))
    damaged = [
        schemas.Damaged(picture=place, detail="cannot be read")
        for place, one in enumerate(ids, 1)
        if one is None
    ]
    request.state.result = {"ids": ids, "added": done.added}
    return schemas.Added(ids=ids, added=done.added, skipped=done.skipped, damaged=damaged)


async def _changed(request: Request, name: str, rows: schemas.Rows, **more: Any) -> schemas.Count:
    check_condition(rows.where)  # which stands beside the ids below
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
    rows_changed = await engine_of(request).change(name, {**asked, **more})
    request.state.result = {"rows": rows_changed}
    return schemas.Count(rows=rows_changed)


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
    """Remove rows, with the pictures that were uploaded for them: no search finds them any more."""
    return await _changed(request, "remove", asked)


@router.post("/forget", dependencies=change)
async def forget(request: Request, asked: schemas.Forget) -> schemas.Count:
    """Remove rows from disk, with the pictures that were uploaded for them."""
    return await _changed(request, "forget", asked, identity=asked.identity)
