"""A process that runs one trial: `python -m reid_tune.worker STUDY LABEL NUMBER PARENT`.

What takes long to import is imported once the parent, the process that started this one, is
watched: this one holds the study until it ends.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

BETWEEN = 30.0
"""Seconds between two lines."""
ERROR = "error.json"
"""File of a trial's folder: why its process has stopped, where that is no fault of the trial."""


def main(arguments: Sequence[str]) -> int:
    """Run the trial; return 0 once the study knows how it ended."""
    folder, label, number, parent = Path(arguments[0]), arguments[1], *map(int, arguments[2:])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    from reid_tune.study import open_study
    from reid_tune.trial import run_trial
    from reidcore.errors import ReidError
    from reidcore.tools import write_json

    study = open_study(folder)
    try:
        run_trial(study, label, number, _Words(f"{label} {number}  "))
    except (ReidError, OSError) as error:
        code = error.exit_code if isinstance(error, ReidError) else ReidError.exit_code
        write_json(study.place(label, number) / ERROR, {"text": str(error), "code": code})
        return code
    return 0


class _Words:
    """Prints how far the trial is, behind `before`, twice a minute."""

    def __init__(self, before: str) -> None:
        self._before, self._told = before, time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._told >= BETWEEN:
            self._told = time.monotonic()
            print(f"{self._before}{text}", flush=True)


def _end_with(parent: int) -> None:
    """End this process when the command that started it is no more."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
