"""Errors as JSON problems (RFC 9457), which tell nothing of the host."""

from __future__ import annotations

import logging
import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from reidcore.errors import DataError, OutputError, ReidError, UsageError

log = logging.getLogger("reid.serve")
TYPE = "application/problem+json"
_PATH = re.compile(r"(?:\w+:/)?/[^\s'\",;:()]*/([^\s'\",;:()/]*)")
TITLES = {
    400: "Bad request", 401: "Not authorized", 403: "Forbidden", 404: "Not found",
    405: "Method not allowed", 413: "Too large", 415: "Not a picture that is read",
    422: "Not understood", 429: "Too many requests", 500: "Internal error",
    503: "Not available", 507: "No room",
}  # fmt: skip


class Problem(HTTPException):
    """What a request is answered with in place of what it asks for.

    status: of HTTP. detail: a sentence for who made the request. headers: more of the answer. It is
    an HTTPException since FastAPI makes 400 of all others that are raised while a body is read.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None):
        super().__init__(status, detail)
        self.status = status
        self.headers: dict[str, str] = headers or {}


def without_paths(text: str) -> str:
    """Return a message in which only the last part of each path is left."""
    return _PATH.sub(r"\1", text).replace("--where", "where")[:1000]


def answer(status: int, detail: str, **more: Any) -> JSONResponse:
    """Return a problem as an answer. more: members beyond those of the RFC."""
    content = {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status}
    return JSONResponse({**content, "detail": detail, **more}, status, media_type=TYPE)


def problem_of(error: ReidError) -> Problem:
    """Return the problem that an error of the gallery is for a client."""
    if isinstance(error, UsageError):
        return Problem(422, without_paths(str(error)))
    if isinstance(error, OutputError):
        log.error("%s", error)
        if "disk is full" in str(error) or "grow" in str(error):
            return Problem(507, "there is no room left to store this; nothing was changed")
        return Problem(503, "the gallery cannot be changed at the moment", {"Retry-After": "5"})
    log.error("%s", error)
    if isinstance(error, DataError):
        return Problem(503, "the gallery cannot be read at the moment", {"Retry-After": "5"})
    return Problem(500, "the pictures could not be compared; the server's log says why")


def add_handlers(app: FastAPI) -> None:
    """Have an app answer errors that are expected as problems; all others the guard answers."""

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> JSONResponse:
        found = answer(error.status, error.detail)
        found.headers.update(error.headers)
        return found

    @app.exception_handler(ReidError)
    async def of_gallery(request: Request, error: ReidError) -> JSONResponse:
        return await problem(request, problem_of(error))

    @app.exception_handler(RequestValidationError)
    async def not_understood(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [
            {"field": ".".join(map(str, one["loc"])), "detail": str(one["msg"])}
            for one in error.errors()
        ]
        shown = "; ".join(f"{one['field']}: {one['detail']}" for one in faults[:5])
        return answer(422, shown[:1000], errors=faults[:20])

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        found = answer(error.status_code, str(error.detail))
        found.headers.update(error.headers or {})
        return found
