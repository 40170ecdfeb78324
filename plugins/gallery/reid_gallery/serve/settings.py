"""What `reid serve` is told, as its worker processes are given it. Torch-free."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import attrs

from reidcore.errors import DataError, UsageError

VARIABLE = "REID_SERVE_SETTINGS"
"""The environment variable through which worker processes are given their settings."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHORTEST = 16
"""Letters that a token has at least."""


def _names(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(_name(one) for one in given)


def _name(given: str) -> str:
    """A name or address as that of a request is written. Raises UsageError for what is neither."""
    with suppress(ValueError):
        return str(ip_address(given.removeprefix("[").removesuffix("]")))
    name = given.removesuffix(".").lower()
    if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
        raise UsageError(
            f"a name of the service is {given!r}, expected a host's name in letters of ASCII or an "
            "address, without scheme, port and path, such as camera-pc.example"
        )
    return name


@attrs.frozen
class Settings:
    """What a service is told.

    Attributes:
        gallery: its folder or URI.
        state: the folder of uploaded pictures and of the audit log.
        run, device: as for `Gallery.open`.
        tokens: SHA-256 of each token by the name of who holds it; empty where none is asked for.
        secret: signs sessions; one for all workers.
        hosts: names by which browsers may reach the service, without scheme, port and path.
        picture_bytes, pictures, pixels: bounds of one upload, of their number in one request, and
            of one picture's width times height.
        waiting: pictures that may wait for the network; more are refused with 503.
        together: pictures that are embedded together at most.
        rate, burst: requests a second of one client, and how many at once; 0 for no bound.
        decoders: processes that decode pictures; each has decode_memory bytes and decode_seconds.
        audit_days: days that the audit log is kept.
    """

    gallery: str
    state: str
    run: str | None = None
    device: str = "auto"
    tokens: dict[str, str] = attrs.field(factory=dict)
    secret: str = attrs.field(factory=lambda: secrets.token_hex(32))
    hosts: tuple[str, ...] = attrs.field(default=LOOPBACK, converter=_names)
    picture_bytes: int = 16 << 20
    pictures: int = 16
    pixels: int = 50_000_000
    waiting: int = 64
    together: int = 32
    rate: float = 50.0
    burst: int = 200
    decoders: int = 2
    decode_memory: int = 1 << 30
    decode_seconds: float = 10.0
    audit_days: int = 90

    @property
    def uploads(self) -> Path:
        """The folder of pictures that were uploaded to be added."""
        return Path(self.state) / "pictures"

    @property
    def audit(self) -> Path:
        """The folder of the audit log."""
        return Path(self.state) / "audit"

    def holder(self, token: str) -> str | None:
        """Return the name of who holds a token, None if nobody does."""
        given = digest(token)
        found = None
        for name, known in self.tokens.items():  # all of them, so that time tells nothing
            if hmac.compare_digest(given, known):
                found = name
        return found

    def to_environment(self) -> None:
        """Put the settings where worker processes find them."""
        os.environ[VARIABLE] = json.dumps(attrs.asdict(self))

    @classmethod
    def from_environment(cls) -> Settings:
        """Return the settings that the parent process has put there."""
        return cls(**json.loads(os.environ[VARIABLE]))


def digest(token: str) -> str:
    """Return the SHA-256 of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def read_tokens(path: str) -> dict[str, str]:
    """Return the tokens of a file, each a line, with a name before it or without.

    Raises DataError where the file cannot be read, UsageError where it is no such file.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"the tokens cannot be read from {path}: {error}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            raise UsageError(f"{path} line {number}: expected a token, or a name and a token")
        name = words[0] if len(words) == 2 else "token" if not found else f"token{number}"
        if not re.fullmatch(r"[A-Za-z0-9_.@-]+", name):  # it stands in a cookie
            raise UsageError(
                f"{path} line {number}: the name is {name[:40]!r}, expected letters of ASCII, "
                "digits and any of _ . @ -"
            )
        if len(words[-1]) < SHORTEST:
            raise UsageError(
                f"{path} line {number}: the token has {len(words[-1])} letters, expected at least "
                f"{SHORTEST}; to make one: python -c 'import secrets; "
                "print(secrets.token_urlsafe())'"
            )
        if name in found:
            raise UsageError(f"{path} line {number}: there are two tokens of {name!r}")
        found[name] = digest(words[-1])
    if not found:
        raise UsageError(f"{path} holds no token; write one a line, with a name before it or not")
    return found
