"""Complaints that several settings share."""

from __future__ import annotations


def not_empty(value: list[str]) -> str | None:
    return None if value else "expected at least one feature"
