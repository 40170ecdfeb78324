"""The service as an ASGI app."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles

from reid_gallery.serve import api, api_changes, api_explain, pages
from reid_gallery.serve.audit import Audit
from reid_gallery.serve.decoding import Decoders
from reid_gallery.serve.engine import Engine
from reid_gallery.serve.metrics import Metrics
from reid_gallery.serve.problems import add_handlers
from reid_gallery.serve.security import Guard
from reid_gallery.serve.settings import Settings
from reidcore.tools import __version__


def create_app(settings: Settings) -> FastAPI:
    """Return the app; the gallery and its run are loaded when it starts."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = Engine.start(settings, metrics)
        app.state.decoders = Decoders(settings)
        yield
        await app.state.decoders.close()
        await app.state.engine.close()

    # FastAPI's own page of documentation loads scripts from elsewhere.
    app = FastAPI(
        title="reid serve", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.settings = settings
    app.state.audit = Audit(settings.audit, settings.audit_days)
    add_handlers(app)
    for part in (api, api_changes, api_explain, pages):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=pages.HERE / "static"), name="static")

    @app.get("/metrics", include_in_schema=False)
    async def numbers(request: Request) -> Response:
        metrics.waiting.set(app.state.engine.embedding.waiting)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    app.add_middleware(Guard, settings=settings, metrics=metrics)
    return app


def from_environment() -> FastAPI:
    """Return the app that a worker process serves."""
    # uvloop forks for a decoder, which at once becomes another program, without Lance.
    warnings.filterwarnings("ignore", "lance is not fork-safe")
    return create_app(Settings.from_environment())
