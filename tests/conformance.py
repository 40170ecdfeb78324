"""The conformance kit on the plugins of this repository."""

from __future__ import annotations

import pytest

from reidcore.testing import iter_checks


def conformance_checks(plugin: str) -> list:
    """Return the checks of a plugin as parameters of a test.

    Dry runs of papers' networks, but not of the demo's, take minutes on a CPU together: they are
    marked slow.
    """
    return [
        pytest.param(check, id=str(check), marks=[pytest.mark.slow] if _is_slow(check) else [])
        for check in iter_checks(plugin)
    ]


def _is_slow(check) -> bool:
    return "run file" in str(check) and "demo" not in str(check)
