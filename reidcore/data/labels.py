"""Labels that are probably not what they seem: numbers written in two ways, nobody's identity.

Torch-free.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from unicodedata import category, normalize

from reidcore.contracts.component import Row
from reidcore.contracts.rows import natural_key

JUNK = "-1"
"""Identity of detections in Market-1501 and data sets after it that show no whole person."""
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")
SHOWN = 3


def same_numbers(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ only in how a number is written: 1, 01 and 1.0, or
    c1 and c01; or only in characters that look alike: full-width digits, accents that stand alone,
    several or other blanks, and what is not seen at all. In natural order."""
    groups: dict[object, set[str]] = defaultdict(set)
    for name in names:
        groups[_meaning(name)].add(name)
    alike = (sorted(group, key=natural_key) for group in groups.values() if len(group) > 1)
    return sorted(alike, key=lambda group: natural_key(group[0]))


def _plain(name: str) -> str:
    """Return a name in the characters that it looks like."""
    seen = (one for one in normalize("NFKC", name) if category(one) != "Cf")
    return " ".join("".join(seen).split())


def _meaning(name: str) -> object:
    name = _plain(name)
    if _NUMBER.fullmatch(name):
        try:
            return Decimal(name)
        except InvalidOperation:
            return name
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", name)


def same_number_warnings(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for cameras, and one for identities, that `same_numbers` finds in rows."""
    warnings = []
    for what, names in (
        ("cameras", {row.camera for row in rows if row.camera}),
        ("identities", {row.pid for row in rows}),
    ):
        if alike := same_numbers(names):
            shown = ", ".join(" = ".join(map(_told, group)) for group in alike[:SHOWN])
            rest = f" and {len(alike) - SHOWN:,} more" * (len(alike) > SHOWN)
            warnings.append(
                f"{what} written in several ways count as different: {shown}{rest}; "
                "write each in one way, else scores are wrong"
            )
    return warnings


def _told(name: str) -> str:
    """Return a name in quotes, by codes where it looks like another."""
    return repr(name) if name == _plain(name) else ascii(name)


def is_junk(pid: str) -> bool:
    """Return whether an identity is Market's of junk, -1, however it is written."""
    return bool(_NUMBER.fullmatch(pid)) and _meaning(pid) == Decimal(JUNK)


def nobody_warnings(rows: Iterable[Row]) -> list[str]:
    """Return a sentence for each identity of rows that stands for many people in Market-1501.

    0000 may as well be the first identity of another data set.
    """
    pids = {row.pid for row in rows}
    warnings = []
    if junk := sorted(filter(is_junk, pids)):
        warnings.append(
            f"identity {junk[0]!r} is junk in Market-1501, not one person; remove its rows"
        )
    zeros = sorted(pid for pid in pids if re.fullmatch("00+", pid))
    if zeros:
        warnings.append(
            f"identity {zeros[0]!r} stands for distractors, who are many people, in Market-1501; "
            "if it does here, too, leave it out of training and queries"
        )
    return warnings
