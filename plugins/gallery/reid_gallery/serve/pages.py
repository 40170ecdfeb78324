"""The page: HTML that Jinja2 renders, with files of `static` and no inline script or style."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import attrs
from fastapi import APIRouter, Depends, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from starlette.datastructures import FormData

from reid_gallery.serve import api
from reid_gallery.serve.asking import TOPS, Asked, Span, uploads
from reid_gallery.serve.problems import Problem, problem_of
from reid_gallery.serve.schemas import Gallery
from reid_gallery.serve.security import (
    LASTS,
    SESSION,
    csrf_token,
    new_session,
    require_csrf,
    session_of,
)
from reid_gallery.serve.sightings import Found, clock, found, place, sentence
from reidcore.errors import ReidError

HERE = Path(__file__).parent
templates = Jinja2Templates(HERE / "templates")  # escapes what it is given
templates.env.filters.update(clock=clock, place=place, sentence=sentence)
templates.env.trim_blocks = templates.env.lstrip_blocks = True
router = APIRouter(include_in_schema=False)


def page(
    request: Request, name: str, who: str = "", status: int = 200, **more: object
) -> HTMLResponse:
    """Return a template of `templates` as a page, with a session whose CSRF token the template has
    as `csrf_token`: forms send it as the field csrf_token, scripts as the header X-CSRF-Token."""
    settings = request.app.state.settings
    cookie = request.cookies.get(SESSION, "")
    if session_of(settings, cookie) is None:
        cookie = new_session(settings, who)
    context = {"csrf_token": csrf_token(settings, cookie), "tokens": bool(settings.tokens), **more}
    answer = templates.TemplateResponse(request, name, context, status)
    _keep(request, answer, cookie)
    return answer


def _keep(request: Request, response: Response, cookie: str) -> None:
    secure = request.url.scheme == "https"
    response.set_cookie(
        SESSION, cookie, max_age=LASTS, httponly=True, samesite="strict", secure=secure
    )


@attrs.define
class Shown:
    """What the page shows: what was asked, the rows that were searched for, and what was found, or
    the problem in its place."""

    asked: Asked = attrs.field(factory=Asked)
    rows: list[dict[str, Any]] = attrs.field(factory=list)
    found: Found | None = None
    problem: Problem | None = None


async def _searched(
    request: Request, shown: Shown, span: Span | None, pictures: list[UploadFile]
) -> None:
    """Put what is found into what is shown. Raises Problem or ReidError."""
    asked = shown.asked.within(span)
    engine = api.engine_of(request)
    if asked.id:
        shown.rows = await engine.run(engine.reading, partial(engine.cells, asked.id))
    told = await api.search(
        request,
        pictures,
        asked.id,
        asked.box,
        asked.camera,
        after=None if asked.after is None else str(asked.after),
        before=None if asked.before is None else str(asked.before),
        ranking=asked.ranking,
        top=asked.top,
    )
    answers = told.answers
    one = answers[0] if len(answers) == 1 else api.merged(answers, asked.top)
    shown.found = found(answers, one.matches)


async def _shown(request: Request) -> HTMLResponse:
    """Answer the page's form, or an address that names rows."""
    gallery: Gallery = await api.gallery(request)
    span, shown = Span.of(gallery), Shown()
    try:
        fields = await request.form() if request.method == "POST" else request.query_params
        shown.asked = Asked.of(fields)
        pictures = uploads(fields) if isinstance(fields, FormData) else []
        if pictures or shown.asked.id:
            await _searched(request, shown, span, pictures)
        elif request.method == "POST":
            raise Problem(422, "choose a picture of the person first")
    except Problem as problem:
        shown.problem = problem
    except ReidError as error:
        shown.problem = problem_of(error)
    names = [row["identity"] for row in shown.rows if row["identity"]]
    answer = page(
        request, "index.html",
        status=shown.problem.status if shown.problem else 200,
        gallery=gallery, span=span, shown=shown, tops=TOPS,
        person=names[0] if names else f"Person {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
    )  # fmt: skip
    if shown.problem:
        answer.headers.update(shown.problem.headers)
    return answer


@router.get("/")
async def index(request: Request) -> HTMLResponse:
    """Show the page; with ?id=ROW, what is like a row."""
    return await _shown(request)


@router.post("/", dependencies=[Depends(require_csrf)])
async def search(request: Request) -> HTMLResponse:
    """Show the page with what is like the form's pictures."""
    return await _shown(request)


@router.get("/login")
async def login_page(request: Request) -> HTMLResponse:
    """Ask for a token."""
    return page(request, "login.html")


@router.post("/login", dependencies=[Depends(require_csrf)])
async def login(request: Request, token: Annotated[str, Form(max_length=500)]) -> Response:
    """Begin a session of who holds a token."""
    settings = request.app.state.settings
    who = settings.holder(token.strip())
    if who is None:
        return page(request, "login.html", status=401, wrong=True)
    answer = RedirectResponse("/", 303)
    _keep(request, answer, new_session(settings, who))
    return answer


@router.post("/logout", dependencies=[Depends(require_csrf)])
async def logout(request: Request) -> Response:
    """End the session in this browser."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(SESSION, samesite="strict")
    return answer
