"""What a plugin requires of the core, beside the version that is here. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterable

from reidcore.support.wording import one_line
from reidcore.version import __version__

_CLAUSE = re.compile(r"\s*(~=|==|!=|<=|>=|<|>)\s*v?(\d+(?:\.\d+)*)(\.\*)?\s*")


def asked_of_core(requires: Iterable[str], cause: BaseException | None) -> str:
    """Return a sentence on requirements of the core that may explain what went wrong; else "".

    This core does not meet them, or the plugin looked for something that it lacks.
    """
    lines = [line for line in requires if line != "reidcore"]
    if not _looked_for_more(cause):
        lines = [line for line in lines if not _meets(line)]
    asks = " and ".join(map(repr, lines))
    return f" It asks for {asks}; this is reidcore {__version__}." if lines else ""


def _looked_for_more(cause: BaseException | None) -> bool:
    if isinstance(cause, ImportError):
        return str(cause.name).partition(".")[0] == "reidcore"
    return cause is not None and "unknown hook" in one_line(cause)


def _meets(requirement: str) -> bool:
    """Return whether this core meets a requirement, True where it is of another form."""
    for clause in requirement.removeprefix("reidcore").strip(" ()").split(","):
        match = _CLAUSE.fullmatch(clause)
        if match and not _fits(match[1], _numbers(match[2]), bool(match[3])):
            return False
    return True


def _fits(sign: str, wanted: tuple[int, ...], any_after: bool) -> bool:
    have = _numbers(__version__)
    if any_after or sign == "~=":
        length = len(wanted) if any_after else len(wanted) - 1
        alike = have[:length] == wanted[:length]
        return alike != (sign == "!=") and (any_after or have >= wanted)
    size = max(len(have), len(wanted))
    here, there = (one + (0,) * (size - len(one)) for one in (have, wanted))
    return {
        "==": here == there,
        "!=": here != there,
        "<=": here <= there,
        ">=": here >= there,
        "<": here < there,
        ">": here > there,
    }[sign]


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, release[0].split("."))) if release else (0,)
