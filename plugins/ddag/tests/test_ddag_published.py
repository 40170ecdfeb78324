"""Checkpoints of the authors' program, read without executing code, as a run's weights."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import warm_python
from safetensors.torch import load_file

from reid_ddag.plugin import SAMPLE
from reid_ddag.published import convert, main, read_published, sections
from reidcore.cli.main import main as reid
from reidcore.errors import DataError
from reidcore.modules import open_run


def own_tensors(run: Path) -> dict[str, torch.Tensor]:
    """The trained network's; distances of training pairs stand beside them."""
    found = load_file(run / "weights.safetensors")
    return {key: value for key, value in found.items() if not key.startswith("pairs.")}


def network(run: Path) -> dict[str, torch.Tensor]:
    """A network of the program's keys in the sizes of a trained run of the sample, with dead layers
    too."""
    ours = own_tensors(run)
    back = {
        ".stem.conv.": ".conv1.",
        ".stem.norm.": ".bn1.",
        ".shortcut.conv.": ".downsample.0.",
        ".shortcut.norm.": ".downsample.1.",
        ".norm1.": ".bn1.",
        ".norm2.": ".bn2.",
        "head.neck.norm.": "bottleneck.",
        "head.parts.norm.": "wpa.bottleneck.",
        "head.parts.weights": "wpa.gate",
        "head.parts.u.": "wpa.fc1.0.",
        "head.parts.v.": "wpa.fc2.",
        "head.parts.z.": "wpa.fc3.",
        "loss.id.": "",
        "backbone.own_visible": "visible_module.visible",
        "backbone.own_infrared": "thermal_module.thermal",
        "backbone.shared": "base_resnet.base",
    }
    theirs = {}
    for key, value in ours.items():
        if key.startswith("loss.graph."):
            continue
        name = key
        for old, new in back.items():
            name = name.replace(old, new)
        if key.startswith("head.parts.") and key[11] in "uvz" and key.endswith("weight"):
            value = value[:, :, None, None]
        theirs[name] = value
    for kind, key in (("W", "weight"), ("a", "score")):
        heads, last = (ours[f"loss.graph.{layer}.{key}"] for layer in ("heads", "last"))
        for number, head in enumerate(heads):
            theirs[f"attention_{number}.{kind}"] = head if kind == "W" else head[:, None]
        theirs[f"out_att.{kind}"] = last[0] if kind == "W" else last[0, :, None]
    dead = (
        "visible_module.visible.layer1.0.conv1.weight",
        "base_resnet.base.conv1.weight",
        "wpa.W.0.weight",
        "classifier1.weight",
        "thermal_module.thermal.layer4.1.bn2.weight",
    )
    return theirs | {key: torch.ones(2) for key in dead}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The sample, trained for an epoch."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "sample.toml").write_text(SAMPLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert reid(["run", str(folder / "sample.toml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def saved(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """As the program saves: with scores that are NumPy's."""
    scores = {"cmc": np.linspace(0, 1, 20, dtype=np.float32), "mAP": np.float64(0.53)}
    torch.save({"net": state, **scores, "epoch": 31}, path)
    return path


def test_a_checkpoint_becomes_a_runs_weights(run, tmp_path, capsys):
    """Every tensor but the graph's share comes back, bit by bit, dead layers do not, and a run
    folder with them opens and gives the same features."""
    state = network(run)
    target = tmp_path / "weights.safetensors"
    assert main([str(saved(tmp_path / "published.t", state)), str(target)]) == 0
    found, own = load_file(target), own_tensors(run)
    assert own.keys() - found.keys() == {"loss.graph.factor"}
    assert all(torch.equal(value, own[key]) for key, value in found.items())
    assert f"{len(found)} tensors in {target}" in capsys.readouterr().out
    copied = tmp_path / "run"
    copied.mkdir()
    for file in ("run.toml", "lock.json", "scores.json"):
        (copied / file).write_bytes((run / file).read_bytes())
    (copied / "weights.safetensors").write_bytes(target.read_bytes())
    first, second = (open_run(folder).state_dict() for folder in (run, copied))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_scores_of_older_numpy_are_read_too(tmp_path):
    """NumPy 1 names the same functions otherwise; the program was published when there was no
    other."""
    path = saved(tmp_path / "new.t", {"classifier.weight": torch.ones(2, 3)})
    data = path.read_bytes()
    assert b"numpy._core.multiarray" in data or b"numpy.core.multiarray" in data
    state = {"classifier.weight": torch.ones(2, 3)}
    for old, new in ((b"numpy._core.", b"numpy.core."), (b"numpy.core.", b"numpy._core.")):
        # The old format is one stream of pickles, in which a name may change its length.
        torch.save(
            {"net": state, "mAP": np.float64(0.5), "cmc": np.zeros(3, np.float32)},
            tmp_path / "stream.t",
            _use_new_zipfile_serialization=False,
        )
        stream = (tmp_path / "stream.t").read_bytes()
        (tmp_path / "other.t").write_bytes(stream.replace(old, new))
        assert torch.equal(
            read_published(tmp_path / "other.t")["classifier.weight"], torch.ones(2, 3)
        )


class Trap:
    """Removes a file where it is unpickled."""

    def __init__(self, victim: Path):
        self.victim = victim

    def __reduce__(self):
        return os.remove, (str(self.victim),)


def test_nothing_of_a_checkpoint_is_executed(tmp_path):
    """Anything but tensors and NumPy's numbers is refused by name, before it can act."""
    victim = tmp_path / "victim"
    victim.write_text("here")
    torch.save(
        {"net": {"classifier.weight": torch.ones(1)}, "mAP": Trap(victim)}, tmp_path / "trap.t"
    )
    with pytest.raises(DataError, match=r"trap\.t holds (posix|nt)\.remove, which could execute"):
        read_published(tmp_path / "trap.t")
    assert victim.exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"no pickle", "is damaged"),
        ({"state_dict": {}}, "has no tensors under 'net'"),
        ({"net": {"a": 3}}, "has no tensors under 'net'"),
        (torch.ones(2), "has no tensors under 'net'"),
        ({"net": {"fc.weight": torch.ones(1)}}, "'fc.weight' is no tensor of the authors' network"),
        (None, "checkpoint not found at"),
    ],
)
def test_other_files_are_told(tmp_path, content, text, capsys):
    """With exit code 4 and the reason, and nothing is written."""
    path = tmp_path / "file.t"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    assert main([str(path), str(tmp_path / "out.safetensors")]) == 4
    error = capsys.readouterr().err
    assert text in error and str(path) in error
    assert not (tmp_path / "out.safetensors").exists()


def test_heads_keep_their_order():
    """Ten and more heads are not sorted as text."""
    state = {f"attention_{n}.W": torch.full((2, 3), float(n)) for n in (11, 2, 10, 1, 0)}
    found = sections(state)["loss.graph.heads.weight"]
    assert found[:, 0, 0].tolist() == [0, 1, 2, 10, 11]


def test_it_is_a_command(tmp_path):
    """`python -m reid_ddag.published` converts, and explains itself."""
    path = saved(tmp_path / "published.t", {"bottleneck.weight": torch.ones(3)})
    command = ["-m", "reid_ddag.published", path, tmp_path / "out.safetensors"]
    assert warm_python.run(command, os.environ, tmp_path, 200).returncode == 0
    assert load_file(tmp_path / "out.safetensors").keys() == {"head.neck.norm.weight"}


def test_a_pickle_of_the_same_content_is_no_checkpoint(tmp_path):
    """Plain pickle files are refused."""
    (tmp_path / "plain.t").write_bytes(pickle.dumps({"net": {}}, protocol=2))
    with pytest.raises(DataError):
        convert(tmp_path / "plain.t", tmp_path / "out.safetensors")
