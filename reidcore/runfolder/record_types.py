"""What each key of a run record must be. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from reidcore.errors import DataError
from reidcore.runfiles.tables import CORE_TABLES, RankingTable
from reidcore.runfiles.value_words import dotted
from reidcore.support.json_files import Found


def check_types(record: Found) -> None:
    """Raise DataError for the first value of a run record that is not of its type."""
    for key, check in _TYPES.items():
        inner: Found | None = record
        for step in key.split("."):
            inner = inner.get(step) if inner is not None else None
        if inner is not None:
            check(inner)


def _count(found: Found) -> int:
    return found.integer(0)


def _texts(found: Found) -> None:
    for one in found.items():
        one.text()


def _texts_by_name(found: Found) -> None:
    for one in found.table().values():
        one.text()


def _camera_numbers(found: Found) -> None:
    for one in found.table().values():
        one.integer(-1)


def _trials(found: Found) -> None:
    for numbers in found.table().values():
        for one in numbers.items():
            one.integer(0)


def _tables(found: Found) -> None:
    for one in found.table().values():
        one.table()


def _protocols(found: Found) -> None:
    for one in found.table().values():
        one["use"].text()


def _used(found: Found) -> None:
    for one in found.table().values():
        if one.value is not None:
            one.number(0)


def _resolved(found: Found) -> None:
    """Settings: the core's tables by their classes, and what the report says of parts."""
    for key, cls in CORE_TABLES.items():
        if (one := found.get(key)) is not None and (key != "optim" or one.value is not None):
            _settings(one, cls)
    if (rankings := found.get("ranking")) is not None:
        for one in rankings.items():
            _settings(one, RankingTable)
    if (parts := found.get("parts")) is not None:
        _tables(parts)


def _settings(found: Found, cls: type) -> None:
    """Refuse a setting that does not fit its class; other versions may have more, or fewer."""
    from reidcore.runfiles.strict import structure  # imports more than a record needs

    table = found.table()
    known = {field.name for field in attrs.fields(cls)}
    _, faults = structure(cls, {key: one.value for key, one in table.items() if key in known})
    for fault in faults:
        if fault.path:
            raise DataError(
                f"{found.file} is damaged: {found.key}{dotted(fault.path)}: {fault.text}"
            )


_TYPES: Mapping[str, Callable[[Found], object]] = {
    "finished": Found.flag,
    "name": Found.text,
    "sets": _texts,
    "run_file": Found.text,
    "resolved": _resolved,
    "versions": _texts_by_name,
    "device": Found.text,
    "threads": _count,
    "processes": _count,
    "data": _texts_by_name,
    "teachers": _texts_by_name,
    "weights": _texts_by_name,
    "training": Found.table,
    "training.identities": _count,
    "training.cameras": _count,
    "training.modalities": _texts,
    "training.train_modalities": _texts,
    "training.columns": _texts,
    "training.camera_numbers": _camera_numbers,
    "training.trials": _trials,
    "protocols": _protocols,
    "used": _used,
}
"""What each key of a run record must be, where it is there."""
