"""Turns what the code of a part raises into an error that names the part and its plugin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reidcore.contracts.wiring_methods import Unkept
from reidcore.errors import PluginError, ReidError
from reidcore.support.author_code import with_place
from reidcore.support.too_much import is_too_much
from reidcore.wiring.plan import Wired


def failure(wired: Wired, doing: str, error: BaseException) -> PluginError:
    """Return the error that says what a part failed to do, why, and where in its code."""
    return PluginError(f"{wired.part}: {doing} failed: {cause(error)} ({wired.owner})")


def cause(error: BaseException) -> str:
    """Return why the code of a plugin has failed, in words, and where."""
    return str(error) if isinstance(error, Unkept) else with_place(error)


@contextmanager
def blamed(wired: Wired, doing: str, moment: str = "") -> Iterator[None]:
    """Name the part in whatever its code raises in a `with` block, unless memory is short.

    moment: when that is, such as "dry run: ", which the message begins with.
    """
    try:
        yield
    except ReidError:
        raise
    except (Exception, SystemExit) as error:
        if is_too_much(error, {}):
            raise
        raise PluginError(f"{moment}{failure(wired, doing, error)}") from error
