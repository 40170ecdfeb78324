"""Folders that have no run record: what they are is said."""

from __future__ import annotations

import pytest

from reidcore.errors import DataError, UsageError
from reidcore.runfolder.record import read_record


def test_folders_without_a_record(tmp_path):
    """A folder of repeats names them, one with weights has lost its record, another is none."""
    (tmp_path / "run.toml").touch()
    with pytest.raises(UsageError, match=r"is not a run folder: it has no lock\.json$"):
        read_record(tmp_path)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "lock.json").touch()
    (tmp_path / "scores.json").touch()
    with pytest.raises(UsageError, match=r"it holds repeats, name one of them: .*0"):
        read_record(tmp_path)
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(DataError, match=r"lock\.json is missing, the record of the run"):
        read_record(tmp_path)
