"""`reid serve`: a gallery behind an HTTP interface. Torch-free at import."""

from __future__ import annotations

import os
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from reid_gallery.options import add_run
from reidcore.api import how_to_install
from reidcore.errors import UsageError

HANGS = 60
"""Seconds after which a worker that says nothing is replaced: on a busy machine it takes that long
to import torch, in uvicorn's own five it would never begin."""


def add_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add what `reid serve` takes; return what runs it."""
    parser.description = (
        "Put a gallery behind an HTTP interface. It listens on this machine alone, "
        "unless --host and --token-file say otherwise. docs/service.md leads through it."
    )
    parser.add_argument("gallery", metavar="DIR", help="the gallery: a folder, or a URI")
    add_run(parser)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1)")
    add("--port", type=int, default=8000, help="the port (default 8000)")
    add("--workers", type=int, default=1, metavar="N", help="processes that serve (default 1)")
    add(
        "--token-file",
        metavar="FILE",
        help="tokens, one of which every request needs: one a line, with a name before it or not",
    )
    add(
        "--name",
        dest="names",
        action="append",
        default=[],
        metavar="HOST",
        help="a name by which browsers reach it, without scheme and port; may be repeated",
    )
    add("--state", metavar="FOLDER", help="of uploads and the audit log (default DIR-service)")
    add("--audit-days", type=int, default=90, metavar="N", help="days the log is kept (default 90)")
    add(
        "--rate",
        type=float,
        default=50.0,
        metavar="N",
        help="requests a second of one client; 0: any number",
    )
    add(
        "--together",
        type=int,
        default=32,
        metavar="N",
        help="pictures that are embedded together at most (default 32); 1 makes every request's "
        "numbers independent, to the last bit, of others that come at the same time",
    )
    return run


def run(options: Namespace) -> int:
    """Serve until it is told to stop; returns 0 or raises `ReidError`."""
    try:
        import fastapi  # noqa: F401
        import jinja2  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UsageError(
            f"`reid serve` needs {error.name}, which is not installed. To install all it needs: "
            + how_to_install("reid-plugin-gallery[serve]")
        ) from None
    from reid_gallery.serve.settings import LOOPBACK, Settings, read_tokens
    from reid_gallery.tables import Tables, located

    place = located(options.gallery)
    tokens = read_tokens(options.token_file) if options.token_file else {}
    if options.host not in LOOPBACK and not tokens:
        raise UsageError(
            f"--host {options.host} can be reached from other machines, so --token-file must name "
            "a file with tokens"
        )
    if options.state is None and "://" in place:
        raise UsageError("name a folder for uploads and the audit log with --state")
    for name in ("workers", "audit_days", "together"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
    if not 0 <= options.port < 1 << 16:
        raise UsageError(f"--port is {options.port}, expected 0 to 65535")
    if not 0 <= options.rate < float("inf"):
        raise UsageError(f"--rate is {options.rate}, expected a number of at least 0")
    print(f"loading {options.gallery} and its run ...", file=sys.stderr, flush=True)
    Tables(place).open()  # told here, not by every worker
    settings = Settings(
        gallery=place,
        state=os.path.abspath(options.state or f"{place}-service"),
        run=options.run_folder,
        device=options.device,
        tokens=tokens,
        hosts=(*LOOPBACK, options.host, *options.names),
        rate=options.rate,
        together=options.together,
        audit_days=options.audit_days,
    )
    settings.to_environment()
    with tempfile.TemporaryDirectory(prefix="reid-serve-") as numbers:
        if options.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = numbers
        uvicorn.run(
            "reid_gallery.serve.app:from_environment",
            factory=True,
            host=options.host,
            port=options.port,
            ws="none",  # there are none; uvicorn would refuse them past the guard
            workers=options.workers,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=30,
            timeout_worker_healthcheck=HANGS,
        )
    return 0
