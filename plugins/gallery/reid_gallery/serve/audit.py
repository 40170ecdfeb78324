"""The audit log: who asked what of the service, when, and how it ended; a JSON object a line, a
file a day."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reid_gallery.serve.problems import Problem, log

_QUOTED = re.compile(r"""(['"`])((?:\1\1|(?!\1).)*)(\1|$)""", re.DOTALL)
NAMES = ("identity", "tracklet")


def masked(text: str) -> str:
    """Return the first letters of a name's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_names(condition: str) -> str:
    """Return a condition in SQL with each text in quotes masked, since it may be a name."""

    def hidden(found: re.Match[str]) -> str:
        quote, text, end = found.groups()
        return f"{quote}{masked(text.replace(quote * 2, quote))}{end}"

    return _QUOTED.sub(hidden, condition)


class Audit:
    """Writes the log, and removes files that are older than it is kept.

    Each request has a line before anything is done, and one of how it ended, with the same number.
    Names of persons are masked, so that what `forget` removes does not live on here, and yet can be
    looked for by who knows the name.
    """

    def __init__(self, folder: Path, days: int):
        self._folder, self._days = folder, days
        self._day = ""
        self._torn = b""

    def begin(self, who: str, action: str, **what: Any) -> str:
        """Write what is asked, and return the request's number. Several processes may do so at
        once. Raises Problem where it cannot be written, so that nothing is done of which nobody
        would know."""
        known = {key: value for key, value in what.items() if value not in (None, "", [])}
        known |= {name: masked(str(known[name])) for name in NAMES if name in known}
        if "where" in known:
            known["where"] = without_names(known["where"])
        number = secrets.token_hex(6)
        try:
            self._write({"request": number, "who": who, "action": action, **known})
        except OSError as error:
            log.error("the audit log cannot be written: %s", error)
            detail = "the audit log cannot be written, so nothing was done"
            raise Problem(507, detail) from None
        return number

    def end(self, number: str, status: int, **result: Any) -> None:
        """Write how a request ended: by its status of HTTP, and numbers of what was done."""
        try:
            self._write({"request": number, "status": status, **result})
        except OSError as error:
            log.error(
                "the end of request %s, %s, is not in the audit log: %s", number, status, error
            )

    def _write(self, line: dict[str, Any]) -> None:
        now = datetime.now(UTC)
        self.sweep(now)
        whole = json.dumps({"time": now.isoformat(), **line}, ensure_ascii=True).encode() + b"\n"
        text = self._torn + whole
        file = self._folder / f"{self._day}.jsonl"
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.write(handle, text) < len(text):
                self._torn = b"\n"  # so that the next line begins where a line does
                raise OSError("only half of a line could be written")
            self._torn = b""
        finally:
            os.close(handle)

    def sweep(self, now: datetime) -> None:
        """Remove files that are older than the log is kept, once a day."""
        day = now.date().isoformat()
        if day == self._day:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        oldest = (now - timedelta(days=self._days)).date().isoformat()
        for file in self._folder.glob("????-??-??.jsonl"):
            if file.stem < oldest:
                file.unlink(missing_ok=True)
        self._day = day
