"""What stands before every request: hosts, tokens, rates, sizes; what other sites may not ask."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reid_gallery.serve.metrics import Metrics
from reid_gallery.serve.problems import Problem, answer
from reid_gallery.serve.settings import Settings

SESSION = "reid_session"
FIELD, HEADER = "csrf_token", "x-csrf-token"
LASTS = 12 * 3600
OPEN = ("/v1/health", "/login", "/static/")
"""Paths for which no token is needed."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With "no-referrer" browsers send the forms of this very page with the origin "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def _sign(settings: Settings, text: str) -> str:
    return hmac.new(settings.secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def new_session(settings: Settings, who: str) -> str:
    """Return the cookie of a session of who holds a token, "" for anybody."""
    text = f"{who}|{secrets.token_hex(16)}|{int(time.time()) + LASTS}"
    return f"{text}|{_sign(settings, 'session' + text)}"


def session_of(settings: Settings, cookie: str) -> str | None:
    """Return whose session a cookie is, None where it is none, or has ended."""
    text, _, signature = cookie.rpartition("|")
    if not hmac.compare_digest(_sign(settings, "session" + text).encode(), signature.encode()):
        return None
    who, _, ends = text.split("|")
    return who if int(ends) > time.time() else None


def csrf_token(settings: Settings, cookie: str) -> str:
    """Return what a page sends with each change, in the field or the header, beside its cookie."""
    return _sign(settings, "csrf" + cookie)


async def require_csrf(request: Request) -> None:
    """Refuse a change that a browser was made to ask for by another site. Raises Problem.

    Programs that send neither cookies nor an origin are no browsers, and need no token here.
    """
    headers = request.headers
    if headers.get("authorization") or not any(
        name in headers for name in ("origin", "sec-fetch-site", "cookie")
    ):
        return
    given = headers.get(HEADER)
    if given is None and "form" in headers.get("content-type", ""):
        given = str((await request.form()).get(FIELD, ""))
    expected = csrf_token(request.app.state.settings, request.cookies.get(SESSION, ""))
    if not hmac.compare_digest((given or "").encode(), expected.encode()):
        raise Problem(403, "the request has no valid CSRF token; load the page again")


def refusal(request: Request, error: Problem) -> Response:
    """Return the problem as an answer; who opens the page without a token is sent to enter it."""
    wants_page = "text/html" in request.headers.get("accept", "") and request.url.path == "/"
    if error.status == 401 and wants_page:
        return RedirectResponse("/login", 303)
    return answer(error.status, error.detail)


class Rates:
    """Counts requests by client: each has `burst`, and `rate` more a second."""

    MOST = 10_000

    def __init__(self, rate: float, burst: int):
        self._rate, self._burst = rate, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Count a request; return the seconds to wait if it is one too many, else 0."""
        if not self._rate:
            return 0.0
        now = time.monotonic()
        left, then = self._left.pop(client, (float(self._burst), now))
        left = min(self._burst, left + (now - then) * self._rate)
        self._left[client] = (left - (left >= 1), now)
        if len(self._left) > self.MOST:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._rate


def _host(url: str) -> tuple[str, str]:
    """The host of a URL with its port, and as in `Settings.hosts`; "" where there is none."""
    try:
        parts = urlsplit(url)
        return parts.netloc, (parts.hostname or "").removesuffix(".")
    except ValueError:
        return "", ""


class Guard:
    """Lets a request through to the app, or answers it with a problem."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics):
        self._app, self._settings, self._metrics = app, settings, metrics
        self._rates = Rates(settings.rate, settings.burst)
        self._most = settings.picture_bytes * settings.pictures + (1 << 20)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request = Request(scope)
        started, status, begun, read = time.monotonic(), 500, False, 0

        async def told(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                known = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.lower().encode(), value.encode())
                        for name, value in HEADERS.items()
                        if name.lower().encode() not in known
                    ),
                ]
            await send(message)

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise Problem(413, f"the request has more than {self._most} bytes")
            return message

        try:
            scope.setdefault("state", {})["who"] = self._checked(request)
            await self._app(scope, bounded, told)
        except Problem as error:
            found = refusal(request, error)
            found.headers.update(error.headers)
            await found(scope, receive, told)
        except Exception:
            # A handler for these would answer outside of the guard, without the headers.
            if not begun:
                found = answer(500, "something went wrong; the server's log says what")
                await found(scope, receive, told)
            raise
        finally:
            asked = scope.get("state", {})
            if "number" in asked:
                scope["app"].state.audit.end(asked["number"], status, **asked["result"])
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.monotonic() - started)

    def _checked(self, request: Request) -> str:
        """Return who asks. Raises Problem for a request that is not let through."""
        settings, headers = self._settings, request.headers
        own = headers.get("host", "")
        if _host(f"//{own}")[1] not in settings.hosts:
            raise Problem(403, "the service does not go by this name")
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if request.method not in ("GET", "HEAD", "OPTIONS") and (
            site not in (None, "same-origin", "none")
            or (origin is not None and _host(origin)[0] != own)
        ):
            raise Problem(403, "the request comes from another site")
        client = request.client.host if request.client else "unknown"
        if wait := self._rates.wait(client):
            raise Problem(429, "too many requests", {"Retry-After": str(int(wait) + 1)})
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._most:
            raise Problem(413, f"the request has more than {self._most} bytes")
        who = self._who(request)
        if who is None and not request.url.path.startswith(OPEN):
            raise Problem(401, "a token is needed", {"WWW-Authenticate": "Bearer"})
        return f"{who or 'anybody'}@{client}"

    def _who(self, request: Request) -> str | None:
        if not self._settings.tokens:
            return "anybody"
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme:
            return self._settings.holder(token.strip()) if scheme.lower() == "bearer" else None
        who = session_of(self._settings, request.cookies.get(SESSION, ""))
        return who if who in self._settings.tokens else None
