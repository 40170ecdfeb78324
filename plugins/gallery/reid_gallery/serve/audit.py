"""The audit log: who asked what of the service and when, a JSON object a line, a file a day."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reid_gallery.serve.problems import Problem, log


class Audit:
    """Writes the log, and removes files that are older than it is kept.

    Names of persons are written as the first letters of their SHA-256, so that what `forget`
    removes does not live on here, and yet can be looked for by who knows the name.
    """

    def __init__(self, folder: Path, days: int):
        self._folder, self._days = folder, days
        self._day = ""

    def write(self, who: str, action: str, **what: Any) -> None:
        """Write a line. Several processes may do so at once. Raises Problem where it cannot be
        written, so that nothing is done of which nobody would know."""
        now = datetime.now(UTC)
        known = {key: value for key, value in what.items() if value not in (None, "", [])}
        for name in ("identity", "tracklet"):
            if name in known:
                known[name] = hashlib.sha256(str(known[name]).encode()).hexdigest()[:16]
        line = {"time": now.isoformat(), "who": who, "action": action, **known}
        try:
            self._start(now)
            text = json.dumps(line, ensure_ascii=True).encode() + b"\n"
            file = self._folder / f"{self._day}.jsonl"
            handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                if os.write(handle, text) < len(text):
                    raise OSError("only half of a line could be written")
            finally:
                os.close(handle)
        except OSError as error:
            log.error("the audit log cannot be written: %s", error)
            detail = "the audit log cannot be written, so nothing was done"
            raise Problem(507, detail) from None

    def _start(self, now: datetime) -> None:
        day = now.date().isoformat()
        if day == self._day:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        oldest = (now - timedelta(days=self._days)).date().isoformat()
        for file in self._folder.glob("????-??-??.jsonl"):
            if file.stem < oldest:
                file.unlink(missing_ok=True)
        self._day = day
