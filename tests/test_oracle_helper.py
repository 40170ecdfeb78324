"""The account that oracle tests keep of their arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.oracles import oracle


def files(folder, **arrays):
    """An oracle file "method/name" in the folder."""
    (folder / "method").mkdir()
    np.savez(folder / "method" / "name.npz", **arrays)
    (folder / "method" / "name.json").write_text("{}")


def test_an_array_that_is_left_over_fails_the_test(tmp_path, monkeypatch):
    """Leaving the block fails as long as an array is neither compared, an input nor put off."""
    monkeypatch.setenv("REID_ORACLES", str(tmp_path))
    files(tmp_path, x=np.ones(2), y=np.ones(2), z=np.ones(2))
    with (
        pytest.raises(AssertionError, match=r"nor put off: \['z'\]"),
        oracle("method/name") as vectors,
    ):
        vectors.compare("y", vectors.input("x"))
    with oracle("method/name") as vectors:
        vectors.compare("y", vectors.input("x"))
        vectors.later("z", "a reason")
    with pytest.raises(AssertionError, match="put off, but used"), oracle("method/name") as vectors:
        vectors.compare("y", vectors.input("x"))
        vectors.later("[xz]", "a reason")


def test_a_wrong_value_or_shape_fails_the_test(tmp_path, monkeypatch):
    """A comparison fails for other values and for shapes that would only broadcast."""
    monkeypatch.setenv("REID_ORACLES", str(tmp_path))
    files(tmp_path, y=np.ones(2))
    for wrong in (np.array([1, 1 + 1e-9]), np.ones(()), np.ones((1, 2)), np.array([1, np.nan])):
        with pytest.raises(AssertionError), oracle("method/name") as vectors:
            vectors.compare("y", wrong, rtol=1e-10)


def test_an_absent_folder_skips_with_its_path(tmp_path, monkeypatch):
    """Without the folder the test is skipped, and the reason names where it was looked for; a
    missing file in it is no reason to skip."""
    monkeypatch.setenv("REID_ORACLES", str(tmp_path / "none"))
    with pytest.raises(pytest.skip.Exception, match="none; set REID_ORACLES"):
        oracle("method/name").__enter__()
    monkeypatch.setenv("REID_ORACLES", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        oracle("method/name").__enter__()


def test_settings_are_read_from_words(tmp_path, monkeypatch):
    """From what the side-car says of an array, under either key, or of the whole file; another
    file's words give other numbers, and words without them fail."""
    monkeypatch.setenv("REID_ORACLES", str(tmp_path))
    files(tmp_path, x=np.ones(2), y=np.ones(2))
    words = {"x": {"meaning": "margin 0.3, mean"}, "y": {"description": "lr 6.5e-4 and 9"}}
    about = {"arrays": words, "semantics": {"code": "momentum 0.9, weight decay 5e-4."}}
    (tmp_path / "method" / "name.json").write_text(json.dumps(about))
    with oracle("method/name") as vectors:
        assert vectors.number("x", r"margin ([\d.]+)") == 0.3
        assert vectors.number("y", r"\blr ([\de.-]+)") == 6.5e-4
        pattern = r"momentum ([\d.]+), weight decay ([\de.-]+)\."
        assert vectors.stated(pattern) == [0.9, 5e-4]
        for fails in (
            lambda: vectors.number("x", r"lr ([\d.]+)"),
            lambda: vectors.stated(r"margin ([\d.]+)"),
        ):
            with pytest.raises(AssertionError, match="side-car says"):
                fails()
        vectors.inputs_only("x", "y")
