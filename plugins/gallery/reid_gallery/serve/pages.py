"""The page: HTML that Jinja2 renders, with files of `static` and no inline script or style."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.templating import Jinja2Templates

from reid_gallery.serve.problems import Problem
from reid_gallery.serve.security import (
    LASTS,
    SESSION,
    csrf_token,
    new_session,
    require_csrf,
    session_of,
)

HERE = Path(__file__).parent
templates = Jinja2Templates(HERE / "templates")  # escapes what it is given
router = APIRouter(include_in_schema=False)


def page(request: Request, name: str, who: str = "", **more: object) -> HTMLResponse:
    """Return a template of `templates` as a page, with a session whose CSRF token the template has
    as `csrf_token`: forms send it as the field csrf_token, scripts as the header X-CSRF-Token."""
    settings = request.app.state.settings
    cookie = request.cookies.get(SESSION, "")
    if session_of(settings, cookie) is None:
        cookie = new_session(settings, who)
    context = {"csrf_token": csrf_token(settings, cookie), **more}
    found = templates.TemplateResponse(request, name, context)
    _keep(request, found, cookie)
    return found


def _keep(request: Request, response: Response, cookie: str) -> None:
    secure = request.url.scheme == "https"
    response.set_cookie(
        SESSION, cookie, max_age=LASTS, httponly=True, samesite="strict", secure=secure
    )


@router.get("/")
async def index(request: Request) -> HTMLResponse:
    """Show the page."""
    return page(request, "index.html")


@router.get("/login")
async def login_page(request: Request) -> HTMLResponse:
    """Ask for a token."""
    return page(request, "login.html")


@router.post("/login", dependencies=[Depends(require_csrf)])
async def login(request: Request, token: Annotated[str, Form(max_length=500)]) -> Response:
    """Begin a session of who holds a token."""
    settings = request.app.state.settings
    who = settings.holder(token)
    if who is None:
        raise Problem(401, "this is no token of the service")
    found = RedirectResponse("/", 303)
    _keep(request, found, new_session(settings, who))
    return found
