"""Parts that cannot be exported are named, with torch's reason."""

from __future__ import annotations

import copy

import pytest
import torch
from running import TINY
from torch import nn

pytest.importorskip("reid_export", reason="needs `uv run --all-groups`")
pytest.importorskip("onnx", reason="needs `uv run --all-groups`")

import reidcore
from reid_export.onnx_files import write_onnx
from reid_export.tracing import pair_bytes, trace_distances, trace_templates
from reidcore.errors import UsageError
from reidcore.tools import ranking_modules, train


class Asking(nn.Module):
    """A head that looks at its numbers."""

    def forward(self, features, images):
        vectors = features["backbone.layer1"].mean((2, 3))
        return {"bn": vectors if vectors.sum() > 0 else -vectors}


class Counting(nn.Module):
    """A head that asks how many pictures there are."""

    def forward(self, features, images):
        maps = features["backbone.layer1"]
        return {"bn": maps.reshape(len(maps), -1, 32).mean(2)}


class Rare(nn.Module):
    """A head with an operation that ONNX does not have."""

    def forward(self, features, images):
        return {"bn": torch.special.bessel_j0(features["backbone.layer1"].mean((2, 3)))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untraceable")
    text = TINY.replace("epochs = 6", "epochs = 0").replace("layer4", "layer1")
    (folder / "tiny.toml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        train(folder / "tiny.toml", folder / "run")
        yield reidcore.load(folder / "run", device="cpu")


def templates_with(run, head):
    model = copy.deepcopy(run.model)
    model.head_neck = head
    return ranking_modules(model, run.plan.rankings[0])[0]


def test_a_part_that_looks_at_numbers_is_named(run):
    with pytest.raises(UsageError) as refused:
        trace_templates(templates_with(run, Asking()))
    said = str(refused.value)
    assert said.startswith("head 'neck' (core.bnneck) cannot be exported: ")
    assert "data-dependent" in said and len(said) < 1000 and "\n" not in said


def test_a_part_that_fixes_the_number_of_pictures_is_named(run):
    with pytest.raises(UsageError, match=r"^head 'neck' \(core\.bnneck\) .* fixes the number of"):
        trace_templates(templates_with(run, Counting()))


def test_an_operation_that_onnx_lacks_is_named(run, tmp_path):
    program = trace_templates(templates_with(run, Rare()))
    names = ("pictures", "modality", "camera"), ("look.vector",)
    with pytest.raises(UsageError, match=r"^head 'neck' cannot be .* for torch's \S*bessel_j0"):
        write_onnx(program, tmp_path / "rare.onnx", names, 20)
    assert not list(tmp_path.iterdir())


def test_parts_are_as_before_after_tracing(run):
    module = templates_with(run, Counting())
    with pytest.raises(UsageError):
        trace_templates(module)
    assert "forward" not in vars(module.model.head_neck)
    assert "template" not in vars(module.model.matchers["look"])


def test_memory_of_a_pair_is_that_of_its_largest_numbers(run):
    """Cosines alone: a float32 that is read and one that is written."""
    templates, distances, _ = ranking_modules(run.model, run.plan.rankings[0])
    assert pair_bytes(trace_distances(distances, templates.specs)) == 8
