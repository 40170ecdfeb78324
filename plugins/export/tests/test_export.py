"""`reid export`: graphs beside the run they were made of, manifests, and what is refused."""

from __future__ import annotations

import json
import runpy
from hashlib import sha256

import numpy as np
import pytest
from distributions import ROOT
from PIL import Image
from running import TINY

pytest.importorskip("reid_export", reason="needs `uv run --all-groups`")
pytest.importorskip("onnx", reason="needs `uv run --all-groups`")
pytest.importorskip("reid_runtime", reason="needs `uv run --all-groups`")

import onnx
from onnx import numpy_helper

import reidcore
from reid_runtime import Embedder, ExportError, Matcher, rank
from reidcore.api import how_to_install
from reidcore.cli.main import main
from reidcore.tools import train

PAIRWISE = """
[[head]]
name = "local"
use = "qaconv.local"
source = "backbone.layer1"
channels = 8

[[matcher]]
name = "pairs"
use = "qaconv.matcher"
feature = "local.map"

[[loss]]
name = "memory"
use = "qaconv.memory"
feature = "local.map"
matcher = "pairs"

[[ranking]]
name = "both"
fuse = { pairs = 1.0, look = 0.5 }
scale = "isotonic"
shortlist = { by = "look", top = 5 }

[[ranking]]
name = "look"
matcher = "look"
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The current folder with a run of one epoch, `run`."""
    folder = tmp_path_factory.mktemp("export")
    # Few layers are soon traced.
    text = TINY.replace("epochs = 6", "epochs = 1").replace("layer4", "layer1")
    text = text.replace("every = 1", 'views = ["plain", "flip"]')
    (folder / "tiny.toml").write_text(text + PAIRWISE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        patch.delenv("REID_DATA", raising=False)
        train(folder / "tiny.toml", folder / "run")
        yield folder


@pytest.fixture(scope="module")
def run(work):
    return reidcore.load(work / "run", device="cpu")


@pytest.fixture(scope="module")
def both(work):
    """An export of two matchers, with their scales and a shortlist."""
    export("run", "-o", "both", "--license", "CC0-1.0")
    return work / "both"


@pytest.fixture(scope="module")
def look(work):
    """An export of vectors."""
    export("run", "-o", "look", "--ranking", "look")
    return work / "look"


def export(*arguments, code=0):
    assert main(["export", *map(str, arguments)]) == code


def drawn(count, seed=0):
    draw = np.random.default_rng(seed)
    sizes = draw.integers(10, 60, (count, 2))
    return [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_templates_are_the_run_s(run, both, tmp_path):
    pictures = drawn(5)
    Image.fromarray(pictures[3]).save(tmp_path / "3.png")
    given = [*pictures[:3], tmp_path / "3.png", Image.fromarray(pictures[4])]
    reference = run.templates(pictures).parts
    for batch in (1, 2, 5):
        found = Embedder(both, threads=1, batch=batch).templates(given)
        assert set(found) == {"pairs.map", "look.vector"}
        for name, value in found.items():
            matcher, key = name.split(".")
            expected = reference[matcher][key].numpy()
            assert value.dtype == np.float32
            np.testing.assert_allclose(value, expected, atol=1e-4 * np.abs(expected).max())


def test_ranked_lists_are_the_run_s(run, both):
    query, gallery = drawn(4, 1), drawn(13, 2)
    embed, matcher = Embedder(both, threads=1), Matcher(both, threads=1)
    a, b = embed.templates(query), embed.templates(gallery)
    near, distances = rank(a, b, matcher, top=5)
    expected = run.rank(query, gallery, top=5, ranking="both")
    np.testing.assert_allclose(distances, expected.distance.numpy(), atol=1e-4)
    # Of nearly equal distances the order is open.
    whole = run.distances(query, gallery, "both").numpy()
    np.testing.assert_allclose(np.take_along_axis(whole, near, 1), distances, atol=1e-4)
    small = Matcher(both, threads=1, memory=1e-9)
    np.testing.assert_allclose(small(a, b), matcher(a, b), atol=1e-6)


def test_vectors_are_of_unit_length_and_rank_as_the_run_does(run, look):
    pictures = drawn(6)
    vectors = Embedder(look, threads=1)(pictures)
    distances = run.distances(pictures, pictures, "look").numpy()
    np.testing.assert_allclose((1 - vectors @ vectors.T) / 2, distances, atol=1e-5)


def test_a_pairwise_export_has_no_vectors(both):
    with pytest.raises(ExportError, match=r"'both' compares .*pairs\.map.* use templates"):
        Embedder(both, threads=1)(drawn(1))


def test_the_manifest_says_what_is_there(run, work, both, look):
    manifest = json.loads((both / "export.json").read_text())
    weights = (work / "run" / "weights.safetensors").read_bytes()
    assert manifest["weights_sha256"] == sha256(weights).hexdigest()
    assert manifest["license"] == "CC0-1.0"
    assert manifest["made_by"] == run.made_by
    assert manifest["inputs"] == {"pictures": {"dtype": "uint8", "shape": ["batch", 32, 16, 3]}}
    assert manifest["templates"]["look.vector"] == {"dtype": "float32", "shape": ["batch", 8]}
    assert sorted(path.name for path in both.iterdir()) == sorted(
        ["export.json", *(said["file"] for said in manifest["graphs"].values())]
    )
    for said in manifest["graphs"].values():
        content = (both / said["file"]).read_bytes()
        assert said["sha256"] == sha256(content).hexdigest()
        assert said["opset"] == onnx.load(both / said["file"]).opset_import[0].version == 20
    assert manifest["graphs"]["shortlist"]["top"] == 5
    found = manifest["verification"]
    assert found["batches"] == [1, 3, 32] and found["source"] == "pictures of the test set"
    assert set(found["largest_differences"]) == {"pairs.map", "look.vector", "distances"}
    lists = found["lists"]
    assert 0.8 * lists["queries"] <= lists["equal"] <= lists["queries"]
    assert manifest["thresholds"] == [] and "adds several matchers" in manifest["thresholds_from"]
    _check_thresholds(run, json.loads((look / "export.json").read_text()))


def _check_thresholds(run, manifest):
    """Every threshold lets the share of strangers pass that it says, and the share of matches."""
    pairs = run.model.pairs["look"]
    assert manifest["thresholds"]
    for row in manifest["thresholds"]:
        passing = (pairs.different <= row["distance"]).double().mean().item()
        further = pairs.different[pairs.different > row["distance"]].min()
        more = (pairs.different <= further).double().mean().item()
        assert passing <= row["false_accepts"] < more
        matches = (pairs.same <= row["distance"]).double().mean().item()
        assert row["true_accepts"] == pytest.approx(matches, abs=1e-4)


def test_only_what_the_ranking_needs_is_exported(look):
    names = [one.name for one in onnx.load(look / "extractor.onnx").graph.initializer]
    assert names and not any("local" in name for name in names)


def example(name):
    """What an example of the runtime defines."""
    return runpy.run_path(str(ROOT / "plugins" / "runtime" / "examples" / f"{name}.py"))


def frame_of(pictures):
    """A frame with pictures side by side, and their boxes."""
    frame, boxes, left = np.zeros((80, 400, 3), np.uint8), [], 5
    for one in pictures:
        height, width = one.shape[:2]
        frame[3 : 3 + height, left : left + width] = one
        boxes.append((left, 3, left + width, 3 + height))
        left += width + 7
    return frame, boxes


def test_names_stay_after_a_gap_and_across_cameras(look):
    a, b, c = drawn(3)
    scenes = [("1", [a, b]), ("1", []), ("1", [b, c]), ("2", [c, a, b]), ("2", [a, a])]

    def stream():
        for number, (camera, pictures) in enumerate(scenes):
            frame, boxes = frame_of(pictures)
            yield camera, frame, [(*box, 10 * number + n) for n, box in enumerate(boxes)]

    found = list(example("keep_names")["named"](stream(), look, limit=1e-6))
    assert found[:4] == [{0: 0, 1: 1}, {}, {20: 1, 21: 2}, {30: 2, 31: 0, 32: 1}]
    assert found[4] == {40: 0, 41: 3}  # nobody is twice in a frame


def test_boxmot_s_trackers_get_the_vectors_of_boxes(look):
    frame, boxes = frame_of(drawn(2))
    given = np.array([(*box, 0.9, 0) for box in boxes], np.float32)
    found = example("boxmot_appearance")["Appearance"](look).get_features(given, frame[..., ::-1])
    np.testing.assert_allclose(found, Embedder(look)(drawn(2)), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ranking", "bot"], "--ranking bot: the run has no such ranking, did you mean 'both'?"),
        (["--opset", "11"], "--opset must be from 18 to 23, which torch's exporter writes, got 11"),
        (["--format", "torch", "--int8"], "--int8 is for --format onnx alone"),
        (["--format", "torch", "--opset", "20"], "--opset is for --format onnx alone"),
    ],
)
def test_bad_options_are_told(work, capsys, arguments, message):
    export("run", "-o", "bad", *arguments, code=2)
    assert message in capsys.readouterr().err
    assert not (work / "bad").exists()


def test_bad_folders_are_told(work, capsys):
    (work / "there").mkdir()
    export("run", "-o", "there", code=2)
    assert "exists already; name a new folder" in capsys.readouterr().err
    export("nowhere", "-o", "bad", code=2)
    assert "no run folder at" in capsys.readouterr().err
    (work / "half").mkdir()
    record = json.loads((work / "run" / "lock.json").read_text())
    (work / "half" / "lock.json").write_text(json.dumps({**record, "finished": False}))
    export("half", "-o", "bad", code=2)
    assert "the run in half is unfinished; go on with it by --resume" in capsys.readouterr().err
    assert not (work / "bad").exists()


def test_bad_pictures_are_told_before_any_work(work, capsys, monkeypatch):
    """Tracing takes half a minute, after which nobody wants to hear of a wrong path."""

    def traced(module):
        raise AssertionError("the network was traced")

    monkeypatch.setattr("reid_export.exporting.trace_templates", traced)
    (work / "single").mkdir()
    Image.fromarray(drawn(1)[0]).save(work / "single" / "0.png")
    for name, code, message in (
        ("nowhere", 4, "nowhere does not exist"),
        ("single", 2, "--pictures single: there is 1 picture; distances take at least 2"),
    ):
        export("run", "-o", "bad", "--pictures", name, code=code)
        assert message in capsys.readouterr().err
    assert not (work / "bad").exists()


def test_few_pictures_fill_every_batch(work, run, look):
    """Five pictures are compared in a batch of 32, too, and each with its own reference."""
    from argparse import Namespace

    from reid_export.compare import compare
    from reid_export.graphs import OnnxGraphs
    from reid_export.pictures import Pictures
    from reidcore.tools import Silent

    sizes = []

    class Seen(OnnxGraphs):
        """Notes how many pictures a call of the graph has."""

        def templates(self, pictures, batch):
            sizes.append((batch, len(pictures)))
            return super().templates(pictures, batch)

    (ranking,) = (one for one in run.plan.rankings if one.name == "look")
    options = Namespace(tolerance=None, no_lists=True)
    pictures = Pictures(tuple(np.resize(one, (32, 16, 3)) for one in drawn(5)), "drawn")
    said = compare(options, run, ranking, Seen(look), pictures, "float32", Silent())
    assert sizes == [(1, 32), (3, 32), (32, 32)] and said["pictures"] == 5


def test_absent_packages_are_told(work, capsys, monkeypatch):
    from reid_export import command

    monkeypatch.setattr(command, "PACKAGES", ("onnx", "reid_nowhere"))
    export("run", "-o", "bad", code=2)
    said = capsys.readouterr().err
    cure = how_to_install("reid-plugin-export")
    assert f"needs reid_nowhere, not installed here. To install: {cure}" in said


def test_options_of_no_sense_are_told(work, capsys):
    for arguments, message in (
        (["--tolerance", "nan"], "expected a number above 0, got 'nan'"),
        (["--half", "--int8"], "not allowed with argument --half"),
    ):
        with pytest.raises(SystemExit) as refused:
            main(["export", "run", "-o", "bad", *arguments])
        assert refused.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_what_differs_too_much_is_not_kept(work, capsys):
    export("run", "-o", "bad", "--half", "--tolerance", "1e-7", code=1)
    said = capsys.readouterr().err
    assert "the export differs from the run" in said and "a larger --tolerance allows it" in said
    assert not list(work.glob("*bad*"))


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--half", "--int8"])
def test_smaller_numbers(work, both, option):
    export("run", "-o", option[2:], option)
    sizes = [
        sum(numpy_helper.to_array(one).nbytes for one in graph.initializer)
        for graph in (
            onnx.load(folder / "extractor.onnx").graph for folder in (both, work / option[2:])
        )
    ]
    assert sizes[1] < {"--half": 0.6, "--int8": 0.8}[option] * sizes[0]
    own = json.loads((work / option[2:] / "export.json").read_text())
    found = own["verification"]["largest_differences"]["look.vector"]
    assert 0 < found["difference"] / found["of"] < 0.5
    (_, a), (_, b) = (
        sorted(Embedder(one, threads=1).templates(drawn(4)).items())
        for one in (both, work / option[2:])
    )
    assert a[0] == b[0]
    cosines = (a[1] * b[1]).sum() / np.linalg.norm(a[1]) / np.linalg.norm(b[1])
    assert cosines > 0.9


@pytest.mark.slow
def test_torch_programs(work, run):
    import torch

    export("run", "-o", "programs", "--format", "torch", "--ranking", "look")
    manifest = json.loads((work / "programs" / "export.json").read_text())
    assert manifest["kind"] == "torch" and set(manifest["inputs"]) == {
        "pictures",
        "modality",
        "camera",
    }
    program = torch.export.load(work / "programs" / "extractor.pt2").module()
    pictures = [np.resize(one, (32, 16, 3)) for one in drawn(4)]
    zeros = torch.zeros(4, dtype=torch.int64)
    found = program(torch.from_numpy(np.stack(pictures)), zeros, zeros - 1)
    expected = run.templates(pictures).parts["look"]["vector"]
    torch.testing.assert_close(found["look.vector"], expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ExportError, match="holds graphs of torch"):
        Embedder(work / "programs")


@pytest.mark.slow
def test_other_pictures(work):
    folder = work / "others"
    folder.mkdir()
    for number, one in enumerate(drawn(40)):
        Image.fromarray(one).save(folder / f"{number}.png")
    export("run", "-o", "given", "--pictures", "others", "--no-lists", "--opset", "18")
    manifest = json.loads((work / "given" / "export.json").read_text())
    assert manifest["verification"]["pictures"] == 32
    assert manifest["verification"]["source"] == "pictures of others"
    assert "lists" not in manifest["verification"]
    assert manifest["graphs"]["matcher"]["opset"] == 18
