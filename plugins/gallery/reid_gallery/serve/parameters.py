"""What the paths of version 1 are given, and what they do with it first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Path, Query, Request, UploadFile, params
from fastapi.exceptions import RequestValidationError

from reid_gallery.serve import schemas
from reid_gallery.serve.decoding import Decoded
from reid_gallery.serve.engine import Engine
from reid_gallery.serve.problems import Problem
from reid_gallery.serve.schemas import Text
from reid_gallery.serve.security import FIELD, require_csrf
from reidcore.errors import nearest

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ProblemDetails}
    for status in (400, 401, 403, 404, 413, 415, 422, 429, 503, 507)
}
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


async def only_known(request: Request) -> None:
    """Refuse parameters of an address and fields of a form that the path does not have: a condition
    that is misspelt would be none. Keys of JSON are looked at by `schemas.Model`."""
    own = request.scope["route"].dependant
    given: list[tuple[str, Collection[str], list[str]]] = [
        ("query", request.query_params.keys(), [one.alias for one in own.query_params])
    ]
    fields = [one.alias for one in own.body_params if isinstance(one.field_info, params.Form)]
    if fields:
        given.append(("body", (await request.form()).keys(), [*fields, FIELD]))
    faults = [
        {"loc": (where, name), "msg": _unknown(name, known)}
        for where, names, known in given
        for name in names
        if name not in known
    ]
    if faults:
        raise RequestValidationError(faults)


def new_router() -> APIRouter:
    """Return a router for paths of version 1, which refuse what they do not know."""
    return APIRouter(prefix="/v1", responses=PROBLEMS, dependencies=[Depends(only_known)])


def _unknown(name: str, known: list[str]) -> str:
    listed = ", ".join(one for one in known if one != FIELD)
    return f"there is no such field{nearest(name, known) or '; there are ' + (listed or 'none')}"


def audit(request: Request, action: str, **what: Any) -> None:
    """Write into the audit log what is asked; how it ends is written when it is answered."""
    request.state.number = request.app.state.audit.begin(request.state.who, action, **what)
    request.state.result = {}


@asynccontextmanager
async def decoded(
    request: Request, files: list[UploadFile], boxes: list[str] | None = None, rows: int = 0
) -> AsyncIterator[list[Decoded]]:
    """Have uploads as pictures in the `async with` block, each cut to its box, and places for them
    and for `rows` of the gallery until it ends. Raises Problem."""
    with engine_of(request).places.take(len(files) + rows):
        yield await _decoded(request, files, boxes)


async def _decoded(
    request: Request, files: list[UploadFile], boxes: list[str] | None
) -> list[Decoded]:
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
    sides = [box_of(one) for one in boxes] if boxes else [None] * len(files)
    jobs = [
        request.app.state.decoders.decode(content, number, box)
        for number, (content, box) in enumerate(zip(contents, sides, strict=True), 1)
    ]
    found = await asyncio.gather(*jobs, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found  # type: ignore[return-value]


def box_of(text: str) -> list[int] | None:
    """Return a box as a manifest writes it, None for "", the whole picture. Raises Problem."""
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
