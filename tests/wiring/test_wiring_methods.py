"""Wiring methods of settings: what they return, and that they leave the settings alone."""

from __future__ import annotations

import attrs
import bad_parts
import pytest
import torch

from reidcore.api import BatchShape, Facts, Feature, Matching, Row, TensorSpec, setting
from reidcore.cli.main import main
from reidcore.contracts.wiring_methods import Unkept, call_wiring, check_as_written, unchanged
from reidcore.plugins.loading import Plugins

SOUND = {
    "outputs": ("head", {"vector": Feature.vector(8), "any": Feature.tensor()}),
    "describe": ("matcher", Matching({"vector": TensorSpec((8,))})),
    "batch": ("sampler", BatchShape(8, ids=4)),
    "facts": ("reader", Facts(3)),
    "rows": ("reader", [Row("/a.jpg", "1")]),
    "check": ("postprocessor", True),
    "least": ("sampler", 2),
}
"""Method -> kind of component and a result that fits."""
UNSOUND = {
    "outputs": [{}, [], {1: Feature.vector(8)}, {"a": (8,)}, {"a": Feature("map", (8,))},
                *({"a": Feature.vector(size)} for size in (None, 8.0, -1))],
    "describe": [{}, Matching(None), Matching({"a": (8,)}), Matching({"a": TensorSpec((None,))})],
    "batch": [8, (8, None), BatchShape("8"), BatchShape(8, ids=2.0)],
    "facts": [3, Facts(None), Facts("3"), {"identities": 3}],
    "rows": ["a.jpg", ["a.jpg"], [None]],
    "check": ["yes", 1, Feature],
    "least": ["2", 2.0, -1, [2]],
}  # fmt: skip


def settings_with(method, result):
    """Settings whose wiring method returns this."""
    return attrs.make_class("Config", [], frozen=True, class_body={method: lambda *_: result})()


def call(method, result):
    kind = SOUND[method][0]
    return call_wiring(kind, settings_with(method, result), method)


@pytest.mark.parametrize("method", SOUND)
def test_what_fits_is_returned(method):
    """As it is; rows of a generator as a list."""
    result = SOUND[method][1]
    assert call(method, result) == result
    assert call("rows", iter([Row("/a.jpg", "1")])) == [Row("/a.jpg", "1")]
    assert call("facts", None) is None


@pytest.mark.parametrize(
    ("method", "result"),
    [
        (method, one)
        for method, results in UNSOUND.items()
        for one in [None, *results]
        if (method, one) != ("facts", None)  # which stands for: not known without the data
    ],
)
def test_what_does_not_fit_is_refused(method, result):
    """Nothing, but for facts, which may be unknown; a wrong type, and wrong numbers inside."""
    with pytest.raises(Unkept, match=r"^it returned "):
        call(method, result)


def test_checks_of_other_kinds_need_no_result():
    for kind in ("loss", "sampler", "procedure"):
        assert call_wiring(kind, settings_with("check", None), "check", object()) is None


@attrs.define
class Settings:
    size: int = setting("a number", default=3)
    sizes: list[int] = setting("numbers", default=[1])
    inner: dict[str, list[int]] = setting("numbers by name", default={"a": [1]})
    cache: int = attrs.field(default=0, init=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: setattr(one, "size", 4), "'size' from 3 to 4"),
        (lambda one: one.sizes.append(2), r"'sizes' from \[1\] to \[1, 2\]"),
        (lambda one: one.inner["a"].clear(), "'inner' from "),
        (lambda one: setattr(one, "sizes", list(range(10**4))), r"\[0, 1, 2.* \.\.\., so that"),
    ],
)
def test_changes_are_seen(change, said):
    """Of numbers, lists, and lists inside; in a message of fair length."""
    with pytest.raises(Unkept, match=said) as caught, unchanged(settings := Settings()):
        change(settings)
    assert len(str(caught.value)) < 1000


def test_what_is_no_setting_may_change():
    with unchanged(settings := Settings()):
        settings.cache = torch.ones(3)


def test_settings_are_as_written():
    """Numbers may become floats; a converter's result is the author's choice."""
    upper = attrs.make_class("Upper", {"name": attrs.field(converter=str.upper)})
    check_as_written(upper("a"), {"name": "a"})
    check_as_written(Settings(), {"size": 3.0, "sizes": [5], "other": 1})
    check_as_written(attrs.make_class("Config", ["x"])(float(2**63 - 1)), {"x": 2**63 - 1})
    with pytest.raises(Unkept, match="'size' from 2 to 3"):
        check_as_written(Settings(), {"size": 2})


@pytest.mark.parametrize("head", ["growing", "doubling", "silent", "half"])
def test_reid_check_blames_the_plugin(tmp_path, monkeypatch, capsys, head):
    """Exit code 3, component and owner in one sentence."""
    text = bad_parts.sample(head=f"bad.{head}")
    text = text.replace('doubling"', 'doubling"\ndepth = 3')
    (tmp_path / "run.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_CACHE", str(tmp_path))
    whole = Plugins.__init__

    def with_bad(plugins, found=None):
        whole(plugins, found)
        plugins.add("bad", bad_parts.Plugin())

    monkeypatch.setattr(Plugins, "__init__", with_bad)
    assert main(["check", "--no-dry", "run.toml"]) == 3
    error = capsys.readouterr().err
    assert error.startswith(f"error: head 'head' (bad.{head}): ") and error.count("\n") == 1
