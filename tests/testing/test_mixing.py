"""The mixing matrix: components of the core and of all plugins here, put together."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import pytest

from reidcore.plugins.loading import Plugins
from tests.mixing import COVERED, Chain, Mix, Mixer, names_a_reason

DOCS = Path(__file__).resolve().parents[2] / "docs"


def script():
    spec = importlib.util.spec_from_file_location("docs_compositions", DOCS / "compositions.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def mixer() -> Mixer:
    """Of the plugins of this repository, whatever else is installed."""
    return Mixer(Plugins(), script().PLUGINS)


def run_or_refused(mix: Mix) -> None:
    """It is trained and ranked once, or refused with a sentence that says what does not fit."""
    refusal = mixer().refusal(mix)
    assert not refusal or names_a_reason(refusal), f"{mix}: {refusal}"


@pytest.mark.parametrize("mix", mixer().covering(), ids=str)
def test_every_pair_of_kinds(mix):
    """Few compositions with all pairs in them."""
    run_or_refused(mix)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backbone", mixer().components("backbone"))
def test_every_trio(backbone):
    """With every head and matcher."""
    for mix in mixer().all():
        if mix.backbone == backbone:
            run_or_refused(mix)


def test_covering_has_every_pair():
    mixes, choices = mixer().covering(), mixer().choices
    for first, second in COVERED:
        found = {(getattr(mix, first), getattr(mix, second)) for mix in mixes}
        assert len(found) == len(choices[first]) * len(choices[second])


def test_the_page_is_what_the_script_makes():
    """Run `uv run python docs/compositions.py` where this fails: something fits, or is refused,
    that was not before."""
    assert script().page(mixer()) == (DOCS / "compositions.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("matcher", mixer().components("matcher"))
def test_matchers_stand_on_every_backbone_and_before_every_post(matcher):
    """Pairwise ones too; a postprocessor behind it as it is, calibrated, or re-ranked."""
    for backbone in mixer().components("backbone"):
        assert not mixer().refusal(mixer().plain(matcher=matcher, backbone=backbone), dry=False)
    for post in mixer().components("postprocessor"):
        chains = [Chain((post,)), Chain((post,), "logistic"), Chain(("core.rerank", post))]
        refusals = [
            mixer().refusal(mixer().plain(matcher=matcher, post=chain), dry=False)
            for chain in chains
        ]
        assert "" in refusals, refusals


def test_refusals_without_a_reason_are_told_from_those_with_one():
    assert names_a_reason("head 'h' (a.b): source needs a map, but 'x' is a vector 64")
    assert names_a_reason("post 'p' (a.b): needs the manifest column time")
    assert not names_a_reason("head 'h' (a.b): unknown key 'sauce', did you mean 'source'?")
