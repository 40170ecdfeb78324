"""Settings told in the words of a run file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs
import pytest

from reidcore.api import LossName, MapName, VectorName, setting
from reidcore.plugins.settings_help import SettingDoc, describe_settings, type_name


@attrs.frozen
class Config:
    size: int = setting("some size", default=3, at_least=1)


def test_described():
    """Each setting is told with type, default, range and documentation."""
    assert describe_settings(Config) == [
        SettingDoc("size", "integer", "3", "at least 1", "some size")
    ]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "integer"),
        (float, "number"),
        (int | float, "number"),
        (str, "text"),
        (bool, "true/false"),
        (list[float], "list of numbers"),
        (tuple[float, ...], "list of numbers"),
        (tuple[int, int], "list of 2 integers"),
        (list[list[int]], "list of lists of integers"),
        (Literal["a", "b"], 'one of "a" | "b"'),
        (list[Literal["a", "b"]], 'list of "a" | "b"'),
        (MapName, "map name"),
        (list[VectorName], "list of vector names"),
        (MapName | VectorName, "map name or vector name"),
        (LossName | None, "loss name"),
        (dict, "table"),
        (dict[str, float], "table of numbers"),
        (Config, "table"),
        (list[Config], "list of tables"),
        (Annotated[int, "note"], "integer"),
        (Any, "any value"),
    ],
)
def test_type_names(annotation, words):
    """Types are told in the words of a run file."""
    assert type_name(annotation) == words


def test_defaults():
    """Defaults are shown as they would be written in a run file."""

    @attrs.frozen
    class Settings:
        needed: int = setting("")
        left_out: int | None = setting("", default=None)
        on: bool = setting("", default=True)
        word: str = setting("", default="a")
        many: list[float] = setting("", default=[0.5, 1e-4])
        table: dict[str, int] = setting("", default={"k": 1})
        nested: Config = attrs.field(factory=Config)
        late: int = attrs.Factory(lambda self: self.needed, takes_self=True)

    assert {one.key: one.default for one in describe_settings(Settings)} == {
        "needed": None,
        "left_out": "none",
        "on": "true",
        "word": '"a"',
        "many": "[0.5, 0.0001]",
        "table": "{ k = 1 }",
        "nested": "{ size = 3 }",
        "late": "computed from the other settings",
    }


def test_unresolvable_annotation():
    """An annotation that exists only for type checkers is shown as it is written."""

    @attrs.frozen
    class Settings:
        size: NotImported  # type: ignore[name-defined]  # noqa: F821

    assert describe_settings(Settings)[0].type == "NotImported"


def test_odd_fields_are_described_all_the_same():
    """Fields that are not made by `setting`: what cannot be said is left out."""

    def failing():
        raise OSError("no default today")

    @attrs.frozen
    class Odd:
        size: int = attrs.field(metadata={"doc": 7, "bounds": 3})
        width: int = attrs.field(factory=failing, metadata={"bounds": {"near": 1, "above": "x"}})

    assert describe_settings(Odd) == [
        SettingDoc("size", "integer", None, "", "7"),
        SettingDoc("width", "integer", "computed", "", ""),
    ]
