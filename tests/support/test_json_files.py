"""Reading JSON files: what does not fit is named by file and key."""

from __future__ import annotations

import pytest

from reidcore.errors import DataError
from reidcore.support.json_files import read_found, read_json


@pytest.fixture
def file(tmp_path):
    return tmp_path / "some.json"


def test_values_are_given_as_their_types(file):
    file.write_text('{"a": {"b": [1, 2.5, true, "x", null]}}')
    items = read_found(file)["a"]["b"].items()
    assert items[0].integer(1) == 1 and items[0].number() == 1.0 and items[1].number() == 2.5
    assert items[2].flag() and items[3].text() == "x" and items[4].value is None
    assert [one.key for one in items[:2]] == ["a.b[0]", "a.b[1]"]
    assert read_found(file).get("z") is None
    assert read_json(file) == {"a": {"b": [1, 2.5, True, "x", None]}}


@pytest.mark.parametrize("value", ["null", "true", '"5"', "NaN", "Infinity", "1e999", "[5]", "{}"])
def test_what_is_no_number_is_named(file, value):
    file.write_text(f'{{"a": {{"b": {value}}}}}')
    found = read_found(file)["a"]["b"]
    for take in (found.number, lambda: found.integer(0)):
        with pytest.raises(DataError, match=r"some\.json is damaged: a\.b is .*, expected an? "):
            take()


@pytest.mark.parametrize("value", ["1.0", "-1", str(1 << 63), "9" * 300])
def test_what_is_no_size_is_named(file, value):
    file.write_text(f'{{"a": {value}}}')
    with pytest.raises(DataError, match=r"a is the number .*, expected an integer of at least 0"):
        read_found(file)["a"].integer(0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"{", "it is not JSON"),
        (b'{"a": 01}', "it is not JSON"),
        (b'{"\xff": 1}', "it is not UTF-8"),
        (b"\xef\xbb\xbf{}", "it is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 900 + b"]" * 900, "nested too deeply"),
        (b'{"a": ' * 300 + b"1" + b"}" * 300, "nested too deeply"),
        (b'{"a": {"b": ' + b"9" * 5000 + b"}}", "a.b is an integer of 5000 digits"),
        (b'{"a": [1' + b"0" * 400 + b"]}", r"a\[0\] is an integer of 401 digits"),
        (b'{"a": "\\ud800"}', "expected text that is Unicode"),
        (b'{"\\udfff": 1}', "expected text that is Unicode"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_damage_is_said(file, content, says):
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"some\.json is damaged: .*{says}") as caught:
        read_found(file)
    assert len(str(caught.value)) < 1000


def test_what_is_no_file_is_said(file):
    with pytest.raises(DataError, match=r"some\.json is missing"):
        read_found(file)
    file.mkdir()
    with pytest.raises(DataError, match="it is a folder, expected a file"):
        read_found(file)


def test_missing_keys_are_named(file):
    file.write_text(f'{{"a": {{"{"x" * 5000}": "{"y" * 5000}"}}}}')
    with pytest.raises(DataError, match=r"the key a\.b is missing"):
        read_found(file)["a"]["b"]
    found = read_found(file)["a"]["x" * 5000]
    with pytest.raises(DataError) as caught:
        found.number()
    assert len(str(caught.value)) < 1000
    with pytest.raises(DataError, match=r"some\.json is damaged: a\.xx.* expected a table"):
        found.get("b")
