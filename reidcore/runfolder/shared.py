"""Trained runs that others have shared: `hf://USER/NAME` is a run folder on Hugging Face.
Torch-free.

Only the files of a run folder are fetched, none of which can execute code when it is read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from reidcore.errors import DataError, UsageError
from reidcore.runfolder.folder import DRAWS, MEANS, RUN_FILE, SCORED_EPOCHS, SCORES, WEIGHTS
from reidcore.runfolder.record import RECORD
from reidcore.support.installing import how_to_install
from reidcore.support.wording import in_words, one_line_of, shortened

SHARED = "hf://"
FILES = (RECORD, RUN_FILE, WEIGHTS, SCORES, SCORED_EPOCHS, MEANS, DRAWS, "README.md")
FORM = re.compile(r"(?P<repo>[\w.\-]+/[\w.\-]+)(@(?P<revision>[\w.\-/]+))?")


def run_folder(text: str | os.PathLike[str]) -> Path:
    """Return the path of a run folder; one that is shared is fetched into the cache of
    huggingface_hub, or found there without a network.

    text: a path, or `hf://USER/NAME`, with `@REVISION` for a branch, tag or commit. Raises
    UsageError for a name that is none or leads to nothing, DataError where it cannot be fetched.
    """
    if not isinstance(text, str) or not text.startswith(SHARED):
        return Path(text)
    found = FORM.fullmatch(text.removeprefix(SHARED))
    if found is None:
        shown = one_line_of(repr(text))
        raise UsageError(f"{shown}: expected hf://USER/NAME, or hf://USER/NAME@REVISION")
    return _fetched(text, found["repo"], found["revision"])


def _fetched(text: str, repo: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError:
        raise UsageError(
            f"{text} needs huggingface_hub, which is not installed. To install it: "
            + how_to_install("reidcore[hub]")
        ) from None
    try:
        folder = snapshot_download(repo, revision=revision, allow_patterns=list(FILES))
    except errors.LocalEntryNotFoundError as error:
        raise DataError(
            f"{text} is not in the cache of huggingface_hub and cannot be fetched: "
            f"{_why(error)}. Once it was fetched it opens without a network."
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        missing = "revision" if isinstance(error, errors.RevisionNotFoundError) else "model"
        raise UsageError(
            f"{text}: there is no such {missing} on Hugging Face, or you may not read it; "
            "`hf auth login` is for models that are private"
        ) from None
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        raise DataError(f"{text} cannot be fetched: {_why(error)}") from None
    path = Path(folder)
    if not (path / RECORD).is_file():
        raise UsageError(f"{text} is no run of reidcore: it has no {RECORD}")
    return path


def _why(error: BaseException) -> str:
    cause = error.__cause__ or error
    return shortened(in_words(cause), 200).rstrip(".")
