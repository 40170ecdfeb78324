"""Errors that are shown to the user as text, never as a traceback, and their exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ReidError(Exception):
    """A mistake that the reader of the message can act on. `exit_code` is the command's."""

    exit_code = 1


class UsageError(ReidError):
    """The run file or the command can cure it (unknown and uninstalled plugins included)."""

    exit_code = 2


class PluginError(ReidError):
    """An installed plugin is broken, claimed twice, or made for another API."""

    exit_code = 3


class DataError(ReidError):
    """Pictures, manifests or weights are missing or damaged."""

    exit_code = 4


class RunFileError(UsageError):
    """All problems of a run file at once, one per line."""

    def __init__(self, problems: Iterable[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def nearest(word: str, words: Iterable[str]) -> str:
    """`", did you mean 'x'?"` for the word's nearest neighbour, or an empty string."""
    match = get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f", did you mean {match[0]!r}?" if match else ""
