"""Checkpoints under the authors' key names: as initial weights, and as a whole run's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from plugins.msinet.tests.msinet_weights import RUN, in_a_run
from reid_msinet.published import main, sections
from reidcore.cli.main import main as reid
from reidcore.model.building import build_model
from reidcore.model.state_files import load_sections
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.wiring.make_plan import make_plan
from tests.oracles import oracle

THEIRS = (
    (r"^loss\.id\.classifier\.", "classifier."),
    (r"^loss\.part_id\.classifier\.", "f_classifier."),
    (r"^loss\.align\.attention\.(query|key)\.", r"align_module.pos_pam.\1_conv."),
    (r"^head\.neck\.squeeze\.", "f_conv."),
    (r"^head\.neck\.embed\.linear\.", "fc."),
    (r"^head\.neck\.embed\.norm\.", "head."),
    (r"^head\.neck\.part_embed\.linear\.", "f_fc."),
    (r"^head\.neck\.part_embed\.norm\.", "f_head."),
    (r"^backbone\.network\.stem\.", "conv1."),
    (r"^backbone\.network\.cell([12])\.", lambda m: f"cells.{int(m[1]) - 1}."),
    (r"^backbone\.network\.cell([34])\.", lambda m: f"cells.{m[1]}."),
    (r"^backbone\.network\.cell([56])\.", lambda m: f"cells.{int(m[1]) + 1}."),
    (r"^backbone\.network\.down([12])\.", lambda m: f"cells.{3 * int(m[1]) - 1}.0."),
    (r"\.short\.reduce\.", ".conv1a."),
    (r"\.long\.reduce\.", ".conv1b."),
    (r"\.short\.(pre|post)\.0\.", lambda m: f".conv{2 + (m[1] == 'post')}a."),
    (r"\.long\.(pre|post)\.", lambda m: f".conv{2 + (m[1] == 'post')}b."),
    (r"\.short\.expand\.", ".conv4a."),
    (r"\.long\.expand\.", ".conv4b."),
    (r"\.slot1\.", "._op2."),
    (r"\.slot2\.", "._op3."),
    (r"\.pointwise\.", ".conv1."),
    (r"\.depthwise\.", ".conv2."),
    (r"\.shortcut\.", ".downsample."),
    (r"\.norm\.", ".bn."),
)
"""The authors' names of a run's weights, the other way round than the plugin has them."""


def theirs(name: str) -> str:
    for pattern, replacement in THEIRS:
        name = re.sub(pattern, replacement, name)
    return name


def a_model(seed: int, *sets: str):
    text = RUN.replace("IMAGE", "64, 32")
    plan = make_plan(parse_runfile(text, Path("run.toml"), sets), Plugins(), allow_missing=True)
    return build_model(plan, seed)


def as_published(model) -> dict[str, Tensor]:
    return {
        f"module.{theirs(f'{role}.{key}')}": value
        for role, part in model.parts()
        for key, value in part.state_dict().items()
        if key != "network.genotype"
    }


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint with all layers, and the model whose weights it has."""
    model = a_model(1)
    path = tmp_path / "published.pth.tar"
    torch.save({"state_dict": as_published(model), "epoch": 3, "best_mAP": 0.5}, path)
    return path, model


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for key, value in found.items():
        assert torch.equal(value, expected[key]), key


def test_a_run_starts_from_a_checkpoint(checkpoint):
    """Backbone and neck have its numbers, classifiers and attention their own; what was loaded is
    told."""
    path, published = checkpoint
    model = a_model(2, f"backbone.weights={path}", f"head.neck.weights={path}")
    for role, part in dict(model.parts()).items():
        expected = dict(published.parts())[role].state_dict()
        if role in ("backbone", "head.neck"):
            assert_same(part.state_dict(), expected)
        elif expected:
            assert any(not torch.equal(v, expected[k]) for k, v in part.state_dict().items())
    notes = "\n".join(model.notes)
    assert re.search(r"backbone \(msinet.net\): \d+ of \d+ tensors from published.pth.tar", notes)
    assert "head 'neck' (msinet.neck): 12 of 12 tensors" in notes


def test_a_checkpoint_without_a_neck(checkpoint, tmp_path):
    """With everything allowed to be absent the neck says so and starts anew; else it is an
    error."""
    _path, published = checkpoint
    state = {
        key: value
        for key, value in as_published(published).items()
        if key.startswith(("module.conv1", "module.cells"))
    }
    torch.save(state, tmp_path / "trunk.pth")
    neck = f"head.neck.weights={tmp_path / 'trunk.pth'}"
    model = a_model(2, neck, 'head.neck.allow=["*"]')
    assert "has no tensors of a neck" in "\n".join(model.notes)
    with pytest.raises(Exception, match="nothing in it fits the network"):
        a_model(2, neck)


def test_a_checkpoint_becomes_a_runs_weights(checkpoint, tmp_path, capsys):
    """Every tensor of every role, under the run's names, with the genotype; a model loads them."""
    path, published = checkpoint
    target = tmp_path / "weights.safetensors"
    assert main([str(path), str(target)]) == 0
    assert "tensors in" in capsys.readouterr().out
    model = a_model(2)
    load_sections(model, target)
    for role, part in model.parts():
        assert_same(part.state_dict(), dict(published.parts())[role].state_dict())


def test_a_checkpoint_of_another_network_is_told(checkpoint, tmp_path, capsys):
    """Another genotype, a key that is none, a missing and a damaged file: one sentence each."""
    path, _ = checkpoint
    target = str(tmp_path / "w.safetensors")
    assert main([str(path), target, "--genotype", "gate"]) == 4
    assert "no tensor of the authors' network with the genotype GGGG" in capsys.readouterr().err
    assert main([str(path), target, "--genotype", "GGEGAGGNGAGA"]) == 4
    assert "it lacks backbone.network.cell6.slot1." in capsys.readouterr().err
    assert main([str(path), target, "--genotype", "GG"]) == 2
    assert "expected 12 letters" in capsys.readouterr().err
    torch.save({"layer1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    assert main([str(tmp_path / "other.pth"), target]) == 4
    assert "'layer1.weight' is no tensor of the authors' network" in capsys.readouterr().err
    assert main([str(tmp_path / "none.pth"), target]) == 4
    assert "not found" in capsys.readouterr().err
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")
    assert main([str(tmp_path / "bad.pth"), target]) == 4
    assert not Path(target).exists()


def test_older_checkpoints_lack_counters(checkpoint):
    """Batch norms' counters, which nothing uses, may be absent."""
    _, published = checkpoint
    state = {
        key.removeprefix("module."): value
        for key, value in as_published(published).items()
        if not key.endswith("num_batches_tracked")
    }
    made = sections(state, "GGEGAGGNGAEA")
    assert made["backbone.network.stem.norm.num_batches_tracked"].item() == 0


@pytest.mark.oracle
def test_the_authors_keys_have_their_roles(tmp_path):
    """Each stored weight of the authors' network, under their key, arrives where its role says."""
    with oracle("msinet/c_network") as vectors:
        state, expected = {}, {}
        for array, words in vectors.sidecar["arrays"].items():
            if array.startswith("w/"):
                value = vectors.input(array)
                state[words["authors_state_dict_key"]] = value
                expected[in_a_run(words["role"])] = value
        torch.save({"state_dict": state}, tmp_path / "c.pth.tar")
        files = [str(tmp_path / name) for name in ("c.pth.tar", "w.safetensors")]
        assert main([*files, "--genotype", "".join(vectors.sidecar["genotype"])]) == 0
        made = load_file(tmp_path / "w.safetensors")
        assert_same(expected, made)
        rest = made.keys() - expected.keys()
        assert all(key.endswith(("num_batches_tracked", "genotype")) for key in rest)
        vectors.inputs_only(*vectors.arrays)


def test_a_converted_run_is_scored(checkpoint, tmp_path, monkeypatch, tmp_path_factory):
    """The README's three commands: a run that trains nothing, its weights, and `reid eval`."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    path, _ = checkpoint
    demo = '{ read = "core.demo", train_identities = 4, test_identities = 2, pictures = 4 }'
    text = RUN.replace("IMAGE", "64, 32").replace(
        '{ read = "core.market1501", root = "none" }', demo
    )
    text = text.replace("batch = ", f"test = [{demo}]\nbatch = ").replace(
        "epochs = 1", "epochs = 0"
    )
    (tmp_path / "run.toml").write_text(text)
    out = tmp_path / "out"
    assert reid(["run", str(tmp_path / "run.toml"), "--out", str(out)]) == 0
    assert main([str(path), str(out / "weights.safetensors")]) == 0
    assert reid(["eval", str(out)]) == 0
