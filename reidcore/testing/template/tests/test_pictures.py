"""The reader against files."""

import pytest
from reidcore.api import Row
from reidcore.errors import DataError

from reid_PLUGIN.settings_pictures import Pictures


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()


def test_names_are_read(tmp_path):
    """Split, identity and camera come from folder and name."""
    _touch(tmp_path, "train/0007_c2_01.jpg", "query/0009_c1_03.jpg")
    assert Pictures().rows(tmp_path) == [
        Row(str(tmp_path / name), pid, camera, split, listed=name)
        for name, pid, camera, split in (
            ("train/0007_c2_01.jpg", "0007", "2", "train"),
            ("query/0009_c1_03.jpg", "0009", "1", "query"),
        )
    ]


def test_other_names_are_refused(tmp_path):
    """A picture of another form is named, and so is an empty folder."""
    with pytest.raises(DataError, match="no pictures in train, query, gallery"):
        Pictures().rows(tmp_path)
    _touch(tmp_path, "train/7.jpg")
    with pytest.raises(DataError, match=r"7\.jpg: expected a name such as 0001_c1_01\.jpg"):
        Pictures().rows(tmp_path)
