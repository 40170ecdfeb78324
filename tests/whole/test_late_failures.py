"""Code of plugins that fails where the dry run did not see it: with many pictures, not with few."""

from __future__ import annotations

import pytest
from distributions import write_distribution
from running import TINY

from reidcore.cli.main import main

PLUGIN = """
import attrs
from reidcore.api import Component, Feature, Matching, TensorSpec, VectorName, hookimpl, setting

@attrs.frozen
class Head:
    source: VectorName = setting("a vector")

    def outputs(self, given):
        return {"vector": given.features[self.source]}

@attrs.frozen
class Look:
    feature: VectorName = setting("a vector")

    def describe(self, given):
        return Matching({"v": TensorSpec((given.vector(self.feature),))}, symmetric=True)

@attrs.frozen
class Post:
    def check(self, given):
        return False

@hookimpl
def reid_heads():
    return [Component("head", Head, "PACKAGE.parts:Late")]

@hookimpl
def reid_matchers():
    return [Component("look", Look, "PACKAGE.parts:Look")]

@hookimpl
def reid_postprocessors():
    return [Component("post", Post, "PACKAGE.parts:post")]
"""
PARTS = """
import torch
from reidcore.modules import Matcher

FEW = 6

class Late(torch.nn.Module):
    def __init__(self, config, context):
        super().__init__()
        self.source = config.source

    def forward(self, features, images):
        if len(images) > FEW:
            raise ValueError("too many pictures")  # head
        return {"vector": features[self.source]}

class Look(Matcher):
    def __init__(self, config, context):
        super().__init__()
        self.feature = config.feature

    def template(self, features):
        return {"v": features[self.feature]}

    def distance(self, a, b):
        if len(b["v"]) > FEW:
            raise KeyError("too many rows")  # look
        return torch.cdist(a["v"], b["v"])

def post(config, context):
    def changed(distances, ranking):
        if len(ranking.gallery) > FEW:
            raise IndexError("too far")  # post
        return distances
    return changed
"""
HEAD = '[[head]]\nname = "last"\nuse = "late.head"\nsource = "neck.bn"\n'
SAID = {
    "head": (
        [('features = ["neck.bn"]\n\n[[loss]]', f'features = ["last.vector"]\n\n{HEAD}\n[[loss]]')],
        "plugin late (reid-plugin-late 0.1.0) failed: ValueError: too many pictures",
    ),
    "look": (
        [('use = "core.cosine"\nfeatures = ["neck.bn"]', 'use = "late.look"\nfeature = "neck.bn"')],
        "plugin late (reid-plugin-late 0.1.0) failed: KeyError: 'too many rows'",
    ),
    "post": (
        [("[train]", '[[post]]\nname = "order"\nuse = "late.post"\n\n[train]')],
        "postprocessor 'order' (late.post): postprocessing failed: IndexError: too far",
    ),
}
"""Part -> edits of the run file, and the beginning of the message."""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The current folder, with the plugin `late` installed."""
    folder = tmp_path_factory.mktemp("late")
    write_distribution(folder / "site", "late", PLUGIN, files={"parts.py": PARTS})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder / "site")
        patch.setenv("REID_CACHE", str(folder / "cache"))
        patch.delenv("REID_DATA", raising=False)
        yield folder


@pytest.mark.parametrize("part", SAID)
def test_plugin_file_and_line_are_named(part, work, capsys):
    """A run and its evaluation end with exit code 3 and a sentence, not with a traceback."""
    edits, said = SAID[part]
    text = TINY.replace("epochs = 6", "epochs = 0")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    (work / f"{part}.toml").write_text(text)
    line = next(n for n, line in enumerate(PARTS.splitlines(), 1) if line.endswith(f"# {part}"))
    run = ["run", f"{part}.toml", "--out", part]
    for command in (run, ["eval", part]):
        assert main(command) == 3
        message = capsys.readouterr().err
        assert f"error: {said}, at reid_late/parts.py:{line}" in message
        assert "Traceback" not in message
