"""Checks of readers."""

from __future__ import annotations

import pickle
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reidcore.contracts.component import Row
from reidcore.contracts.rows import Facts, columns
from reidcore.contracts.wiring_methods import call_wiring
from reidcore.data.manifest import find_data
from reidcore.data.opening import BadPicture, check_picture
from reidcore.errors import PluginError
from reidcore.runfiles.strict import structure
from reidcore.support.wording import few, in_words
from reidcore.testing.failures import ConformanceError, NotChecked
from reidcore.testing.samples import Sample

FEW = 20
"""Pictures that openers are asked for."""


def facts_fit_the_rows(sample: Sample) -> None:
    """Where the data are at hand, or are made, the rows are as the reader's facts say. Data that
    are absent are not asked for: where none are there, nothing is checked."""
    absent: dict[str, None] = {}
    checked = 0
    for source in sample.run().sources:
        if source.reader is None or source.reader.use != sample.component.name:
            continue
        config, faults = structure(sample.component.component.config, source.reader.table)
        if config is None:
            raise ConformanceError("; ".join(fault.text for fault in faults))
        with tempfile.TemporaryDirectory() as base:
            made = not source.root and hasattr(config, "default_root")
            root = Path(base, "made") if made else find_data(source.root)
            if made or root.exists():
                _check_rows(config, root)
                checked += 1
            else:
                absent[str(root.absolute())] = None
    if not checked:
        where = few(list(absent))
        raise NotChecked(f"its data are not there: {where}; REID_DATA says where data are")


def _check_rows(config: Any, root: Path) -> None:
    facts = call_wiring("reader", config, "facts")
    rows = call_wiring("reader", config, "rows", root)
    if rows != call_wiring("reader", config, "rows", root):
        raise ConformanceError("read twice, the rows differ")
    wrong = [] if facts is None else _unlike(facts, rows)
    relative = [row.path for row in rows if not Path(row.path).is_absolute()]
    if relative:
        wrong.append(
            f"{len(relative)} paths are relative, such as {relative[0]!r}; begin them with root, "
            "which is absolute"
        )
    absent = _unread(row for row in rows if row.opener is None and Path(row.path).is_absolute())
    if absent:
        wrong.append(f"{len(absent)} pictures are not there, such as {absent[0]}")
    opened = [row for row in rows if row.opener is not None]
    if unread := _unread(opened[:FEW]):
        wrong.append(f"openers do not read their pictures, such as {unread[0]}")
    wrong += _of_openers(opened)
    if wrong:
        raise ConformanceError("; ".join(wrong))


def _unlike(facts: Facts, rows: Sequence[Row]) -> list[str]:
    """Return what of the facts is not as the rows are."""
    train = [row for row in rows if row.split == "train"]
    test = [row for row in rows if row.split in ("query", "gallery")]
    counts = Counter(row.split for row in rows)
    compared = (
        ("identities", facts.identities, len({row.pid for row in train})),
        ("cameras", set(facts.cameras), {row.camera for row in train if row.camera}),
        ("modalities", set(facts.modalities), {row.modality for row in rows if row.modality}),
        ("columns of train", facts.columns, columns(train)),
        ("columns of query and gallery", facts.columns, columns(test) if test else facts.columns),
        ("counts", dict(facts.counts), {split: counts[split] for split in facts.counts}),
        *_groups(facts, rows),
    )
    return [
        f"{what} are declared as {declared}, but the rows have {found}"
        for what, declared, found in compared
        if declared != found
    ]


def _unread(rows: Iterable[Row]) -> list[str]:
    """Return the pictures that are not there, with the reason where an opener was asked."""
    found = []
    for row in rows:
        if row.opener is None and Path(row.path).exists():
            continue
        try:
            check_picture(row)
        except BadPicture as error:
            found.append(row.path if row.opener is None else f"{row.path}: {error}")
        except PluginError as error:
            raise ConformanceError(str(error)) from None
    return found


def _of_openers(rows: Sequence[Row]) -> list[str]:
    """Return what openers of pictures do wrong: other processes, and rows in a cache, need them."""
    known: dict[str, Any] = {}
    for row in rows:
        if known.setdefault(row.path, row.opener) != row.opener:
            return [f"two pictures are called {row.path}"]
        try:
            same = pickle.loads(pickle.dumps(row.opener)) == row.opener
        except Exception as error:
            return [f"the opener of {row.path} cannot be pickled: {in_words(error)}"]
        if not same:
            return [f"the opener of {row.path} is not equal to itself when it was pickled"]
    return []


def _groups(facts: Facts, rows: Sequence[Row]) -> Iterator[tuple[str, Any, Any]]:
    """Yield (what, declared, found) of groups of splits; those without rows are not at hand."""
    seen: Counter[str] = Counter()
    for group, declared in facts.groups.items():
        people = {row.pid for row in rows if row.split in group}
        seen.update(people)
        if people:
            yield f"identities of {' and '.join(group)}", declared, len(people)
    if facts.groups:
        twice = sum(count > 1 for count in seen.values())
        yield "identities in two groups", 0, twice
        yield "identities", facts.identities, facts.identities_in(["train"])
