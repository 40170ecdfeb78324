"""Errors that are shown to the user as text, never as a traceback, and their exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "DataError",
    "OutputError",
    "PluginError",
    "ReidError",
    "RunFileError",
    "UsageError",
    "nearest",
]


class ReidError(Exception):
    """Base of all errors whose text tells the reader what to do.

    Attributes:
        exit_code: Exit status of the command `reid` after this error.

    Example:
        >>> from reidcore.errors import ReidError
        >>> try:
        ...     raise ReidError("there is no run in this folder")
        ... except ReidError as error:
        ...     print(error, error.exit_code)
        there is no run in this folder 1
    """

    exit_code = 1


class UsageError(ReidError):
    """A mistake in the command or the run file, such as a plugin that is not installed.

    Example:
        >>> from reidcore.errors import UsageError
        >>> UsageError("top must be at least 1, got 0").exit_code
        2
    """

    exit_code = 2


class PluginError(ReidError):
    """A broken plugin, two plugins of one name, or a plugin made for another version.

    Example:
        >>> from reidcore.errors import PluginError
        >>> PluginError("plugin example returns no list of components").exit_code
        3
    """

    exit_code = 3


class DataError(ReidError):
    """Pictures, manifests or weights that are missing or damaged.

    Example:
        >>> from reidcore.errors import DataError
        >>> DataError("weights not found at /weights/resnet50.pth").exit_code
        4
    """

    exit_code = 4


class OutputError(ReidError):
    """A file or folder that cannot be written: a full disk, a missing permission, a folder that has
    gone. Its cause is the `OSError`, where there was one.

    Example:
        >>> from reidcore.errors import OutputError
        >>> OutputError("cannot write scores.json: No space left on device").exit_code
        1
    """


class RunFileError(UsageError):
    """All problems of a run file at once.

    Args:
        problems: One sentence for each problem; the error's text has one a line.

    Example:
        >>> from reidcore.errors import RunFileError
        >>> error = RunFileError(["[train] has no key epoch", "[optim] lr is missing"])
        >>> len(error.problems)
        2
    """

    def __init__(self, problems: Iterable[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def nearest(word: str, words: Iterable[str]) -> str:
    """Return the end of a message that suggests the known word most like an unknown one.

    Args:
        word: The unknown word.
        words: The known ones.

    Returns:
        ", did you mean 'x'?", or "" if no known word is much like it.

    Example:
        >>> from reidcore.errors import nearest
        >>> nearest("epoch", ["epochs", "seed"])
        ", did you mean 'epochs'?"
        >>> nearest("num_epochs", ["epochs", "seed"])
        ", did you mean 'epochs'?"
        >>> nearest("features", ["temperature", "weight"])
        ''
    """
    known = list(words)
    match = get_close_matches(word, known, n=1, cutoff=0.65 if len(word) <= 5 else 0.7)
    match = match or [one for one in known if _is_slip(word, one)]
    return f", did you mean {match[0]!r}?" if match else ""


def _is_slip(word: str, meant: str) -> bool:
    """Return whether two neighbouring letters are swapped, or one has a further part, as in
    `num_epochs` for `epochs`."""
    parts, others = (set(re.findall(r"[^\W_]+", one.lower())) for one in (word, meant))
    if parts and others and (parts < others or others < parts):
        return True
    swapped = (f"{word[:at]}{word[at : at + 2][::-1]}{word[at + 2 :]}" for at in range(len(word)))
    return meant in swapped
