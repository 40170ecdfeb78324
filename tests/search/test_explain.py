"""`explain` of the core and of parts, and the pictures and numbers that `reid explain` writes."""

from __future__ import annotations

import csv
import io
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import oracle
from PIL import Image
from running import TINY

import reidcore
from reidcore.api import Feature, Given, Heat, Lines, Table
from reidcore.builtin import margin_losses, settings
from reidcore.cli.main import main
from reidcore.errors import PluginError, UsageError
from reidcore.modules import Context, Images, grad_cam
from reidcore.search.drawing import Side, enlarged, heat_picture, heated, line_picture, scaled
from reidcore.search.explain import Explainer, channel_norm
from reidcore.search.explained_features import with_features
from reidcore.search.part_explanations import explained_part
from reidcore.testing import ConformanceError, iter_checks
from tests.distributions import install_explaining

PARTS = """
[[head]]
name = "mean"
use = "shown.mean"
source = "backbone.layer3"

[[matcher]]
name = "places"
use = "shown.places"
feature = "backbone.layer3"

[[loss]]
name = "guess"
use = "shown.guess"
feature = "mean.vector"
source = "backbone.layer3"

[[ranking]]
name = "one"
matcher = "look"

[[ranking]]
name = "both"
fuse = { look = 0.5, places = 0.5 }
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a trained run of the plugin `shown`, which reads layer3, and pictures."""
    folder = tmp_path_factory.mktemp("explain")
    install_explaining(folder / "site")
    file = TINY.replace("epochs = 6", "epochs = 1").replace("layer4", "layer3")
    file = file.replace('["neck.bn"]', '["neck.bn", "mean.vector"]', 1)
    (folder / "tiny.toml").write_text(file + PARTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder / "site"))
        patch.setenv("REID_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        assert main(["run", "tiny.toml", "--out", "run", "--set", "train.device=cpu"]) == 0
        drawn = next((folder / "cache").iterdir())
        for side in ("query", "gallery"):
            (folder / side).mkdir()
            for path in sorted((drawn / side).glob("*.jpg"))[:4]:
                shutil.copy(path, folder / side)
        yield folder


@pytest.fixture(scope="module")
def run(work):
    return reidcore.load(work / "run", device="cpu")


@pytest.fixture(scope="module")
def written(work) -> Path:
    """What the command writes of two queries with two matches each, by both matchers."""
    command = ["explain", "run", "--query", "query", "--gallery", "gallery", "-o", "why"]
    command += ["--top", "2", "--limit", "2", "--ranking", "both", "--device", "cpu"]
    command += ["--map", "backbone.layer3", "--map", "backbone.layer2"]
    with redirect_stdout(io.StringIO()) as shown:
        assert main(command) == 0
    assert shown.getvalue() == "wrote why: 77 files on 4 pairs, listed in index.csv\n"
    return work / "why"


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


NAMES = {
    "norm.backbone.layer3": "heat",
    "norm.backbone.layer2": "heat",
    "gradcam.look.backbone.layer3": "heat",
    "gradcam.look.backbone.layer2": "heat",
    "gradcam.places.backbone.layer3": "heat",
    "gradcam.places.backbone.layer2": "heat",
    "head.mean.mean": "heat",
    "head.mean.facts": "table",
    "matcher.places.forth": "lines",
    "matcher.places.back": "lines",
}


def test_the_index_lists_every_file(written):
    """Every pair has every explanation; there is no file that the index does not name."""
    index = rows(written / "index.csv")
    assert {(row["query"], row["rank"]) for row in index} == set(
        (query, rank) for query in "12" for rank in "12"
    )
    assert {row["explanation"]: row["kind"] for row in index} == NAMES
    assert len(index) == 4 * len(NAMES)
    named = {row[key] for row in index for key in ("csv", "png")} - {""}
    assert named | {"index.csv"} == {path.name for path in written.iterdir()}
    assert all((row["png"] == "") == (row["kind"] == "table") for row in index)


def test_pictures_can_be_seen_and_differ(written):
    """Two explanations, two matches, two queries give different PNGs."""
    seen = {}
    for row in rows(written / "index.csv"):
        if row["png"]:
            with Image.open(written / row["png"]) as picture:
                picture.load()
                assert picture.format == "PNG" and min(picture.size) > 300
                seen[row["png"]] = picture.tobytes()
    assert len(set(seen.values())) == len(seen)


def test_files_and_python_say_the_same(work, run, written):
    """The numbers in the CSV files are those of `Search.explain`, whose pairs are those of
    `rank`."""
    maps = ["backbone.layer3", "backbone.layer2"]
    pairs = list(run.explain(work / "query", work / "gallery", 2, "both", maps, limit=2))
    ranked = run.rank(work / "query", work / "gallery", 2, "both")
    matches = [(match.query, match.rank, match.gallery, match.distance) for match in ranked][:4]
    assert matches == [
        (pair.query.path, pair.rank, pair.gallery.path, pair.distance) for pair in pairs
    ]
    for pair in pairs:
        stem = f"query{pair.number:04}-rank{pair.rank:02}"
        assert pair.found.keys() == NAMES.keys()
        for name, one in pair.found.items():
            listed = rows(written / f"{stem}-{name}.csv")
            if isinstance(one, Heat):
                values = np.array([float(row["value"]) for row in listed])
                np.testing.assert_allclose(values, one.values.ravel(), rtol=1e-4, atol=1e-7)
                last = listed[-1]
                assert last["picture"] == "gallery"
                _, height, width = one.values.shape
                centre = (1 - 0.5 / width, 1 - 0.5 / height)
                assert (float(last["x"]), float(last["y"])) == pytest.approx(centre)
            elif isinstance(one, Lines):
                index = [float(row["index"]) for row in listed]
                np.testing.assert_array_equal(index, one.numbers["index"])
                ends = [float(row["gallery_y"]) for row in listed]
                np.testing.assert_allclose(ends, one.gallery[:, 1], rtol=1e-6)
                assert {row["drawn"] for row in listed} == {"1"}
            else:
                assert [row["picture"] for row in listed] == ["0", "1"]


def test_a_matcher_explains_the_pair_that_is_ranked(work, run):
    """Its templates are those of the query and of the gallery picture, in this order."""
    pair = next(run.explain(work / "query", work / "gallery", 1, "both"))
    a, b = (
        run.templates([one.path]).parts["places"]["map"][0] for one in (pair.query, pair.gallery)
    )
    forth, back = pair.found["matcher.places.forth"], pair.found["matcher.places.back"]
    np.testing.assert_allclose(forth.weight, a.flatten(1).norm(dim=0), rtol=1e-4)
    np.testing.assert_allclose(back.weight, b.flatten(1).norm(dim=0), rtol=1e-4)
    assert (forth.towards, back.towards) == ("gallery", "query")


def test_without_names_the_last_map_is_explained(work, run):
    """Only by the matchers of the ranking that is asked for."""
    found = next(run.explain(work / "query", work / "gallery", 1)).found
    core = {name for name in found if name.startswith(("norm.", "gradcam."))}
    assert core == {"norm.backbone.layer3", "gradcam.look.backbone.layer3"}
    assert not any(name.startswith("matcher.places") for name in found)


@pytest.mark.parametrize("stage", ["layer2", "layer3"])
@pytest.mark.parametrize("matcher", ["look", "places"])
def test_grad_cam_equals_finite_differences(work, run, matcher: str, stage: str):
    """A channel's weight is the mean over its places of how fast minus the distance grows: each
    channel of each picture is raised in turn inside the network. The network's own memory format
    is kept, so the maps that heads get may be copies."""
    name, step = f"backbone.{stage}", 1e-5
    model = with_features(
        reidcore.load(work / "run", device="cpu").model, work / "run", [name]
    ).double()
    assert model.channels_last
    pixels = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)).double()
    images = Images(pixels, *torch.zeros(2, 2, dtype=torch.int64))
    cam = (
        Explainer(model, [matcher], [name]).explanations(images)[f"gradcam.{matcher}.{name}"].values
    )
    with torch.no_grad():
        values = model(images)[name]
    change = torch.zeros_like(values)
    layer = getattr(model.backbone.network, stage)
    layer.register_forward_hook(lambda module, given, output: output + change)

    @torch.no_grad()
    def closeness(picture: int, channel: int, by: float) -> float:
        change.zero_()[picture, channel] = by
        part = model.matchers[matcher]
        template = part.template(model(images))
        query, gallery = ({key: one[i : i + 1] for key, one in template.items()} for i in (0, 1))
        return -float(part.distance(query, gallery))

    expected = torch.zeros(2, *values.shape[2:], dtype=torch.float64)
    for picture, channel in np.ndindex(*values.shape[:2]):
        slope = closeness(picture, channel, step) - closeness(picture, channel, -step)
        weight = slope / (2 * step) / values[0, 0].numel()
        expected[picture] += weight * values[picture, channel]
    expected.clamp_(min=0)
    assert expected.max() > 0
    np.testing.assert_allclose(cam, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


def losses_of(work: Path, names: list[str]):
    """The run's model with its losses, in float64, and that computes the named features."""
    whole = reidcore.load(work / "run", device="cpu", losses=True)
    return with_features(whole.model, work / "run", names).double()


@pytest.mark.parametrize("identity", [None, 2])
@pytest.mark.parametrize("stage", ["layer2", "layer3"])
def test_grad_cam_of_a_vector_equals_finite_differences(work, stage: str, identity):
    """Of the cosine of the pair's vectors, and of the classifier's logit of one identity, or of
    each picture's likeliest: each channel of each picture is raised in turn inside the network."""
    name, vector, step = f"backbone.{stage}", "neck.bn", 1e-5
    model = losses_of(work, [name])
    pixels = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)).double()
    images = Images(pixels, *torch.zeros(2, 2, dtype=torch.int64))
    found = Explainer(model, [], [name], [vector], identity).explanations(images)
    cams = {kind: found[f"gradcam.{kind}{vector}.{name}"].values for kind in ("", "id.")}
    assert f"gradcam.triplet.{vector}.{name}" not in found
    with torch.no_grad():
        features = model(images)
    values, weight = features[name], model.losses["id"].classifier.weight.detach()
    wanted = (features[vector] @ weight.T).argmax(1) if identity is None else [identity] * 2
    change = torch.zeros_like(values)
    layer = getattr(model.backbone.network, stage)
    layer.register_forward_hook(lambda module, given, output: output + change)

    @torch.no_grad()
    def scores(picture: int, channel: int, by: float) -> dict[str, float]:
        change.zero_()[picture, channel] = by
        query, gallery = model(images)[vector].tolist()
        norms = [sum(x * x for x in one) ** 0.5 for one in (query, gallery)]
        inner = sum(x * y for x, y in zip(query, gallery, strict=True))
        logits = [
            sum(w * x for w, x in zip(weight[k].tolist(), one, strict=True))
            for k, one in zip(wanted, (query, gallery), strict=True)
        ]
        return {"": inner / norms[0] / norms[1], "id.": sum(logits)}

    expected = {kind: torch.zeros(2, *values.shape[2:], dtype=torch.float64) for kind in cams}
    for picture, channel in np.ndindex(*values.shape[:2]):
        above, below = scores(picture, channel, step), scores(picture, channel, -step)
        for kind, total in expected.items():
            slope = (above[kind] - below[kind]) / (2 * step) / values[0, 0].numel()
            total[picture] += slope * values[picture, channel]
    for kind, total in expected.items():
        total.clamp_(min=0)
        assert total.max() > 0
        np.testing.assert_allclose(cams[kind], total, rtol=1e-4, atol=1e-4 * float(total.max()))


def test_a_vector_is_found_only_in_maps_before_it(work, run):
    """Without losses by the pair's cosine alone; where no map is before it, that is an error."""
    images = Images(torch.rand(2, 3, 32, 16), *torch.zeros(2, 2, dtype=torch.int64))
    maps = ["backbone.layer2", "backbone.layer3"]
    model = with_features(run.model, work / "run", maps)
    found = Explainer(model, [], maps, ["neck.bn"]).explanations(images)
    assert [name for name in found if name.startswith("gradcam.")] == [
        f"gradcam.neck.bn.{name}" for name in maps
    ]
    with pytest.raises(UsageError, match=r"'neck\.bn' depends on none of the maps"):
        Explainer(model, [], [], ["neck.bn"]).explanations(images)


def test_the_command_explains_vectors(work, capsys, monkeypatch):
    """By both scores, in every named map; the identity is named as in the training data, and the
    vector before the norm, which the ranking does not compute, is computed."""
    monkeypatch.chdir(work)
    command = ["explain", "run", "--query", "query", "--gallery", "gallery", "--top", "1"]
    command += ["--limit", "1", "--device", "cpu", "--feature", "neck.pooled", "--losses"]
    command += ["--feature", "neck.bn", "--map", "backbone.layer3", "--map", "backbone.layer2"]
    assert main([*command, "--identity", "0001", "-o", "vectors"]) == 0
    names = {row["explanation"] for row in rows(work / "vectors" / "index.csv")}
    for name in ("backbone.layer3", "backbone.layer2"):
        for scored in ("neck.pooled", "neck.bn", "id.neck.bn"):
            assert f"gradcam.{scored}.{name}" in names
        assert f"gradcam.id.neck.pooled.{name}" not in names
    assert main([*command, "--identity", "0001x", "-o", "new"]) == 2
    said = capsys.readouterr().err
    assert "no training identity '0001x', did you mean '0001'? There are 4." in said


@pytest.mark.parametrize("use", ["arcface", "cosface", "circle"])
def test_losses_score_identities_by_what_they_train(use: str):
    """The cosines to each identity's weight, which come without the margin."""
    context = Context(Given((1, 1), identities=3, features={"x.v": Feature.vector(4)}), "loss")
    config = getattr(
        settings, {"arcface": "ArcFace", "cosface": "CosFace", "circle": "Circle"}[use]
    )
    loss = getattr(margin_losses, f"build_{use}")(config(feature="x.v"), context)
    x = torch.randn(2, 4)
    scores = loss.identity_scores({"x.v": x})
    expected = F.cosine_similarity(x[:, None], loss.weight[None], dim=2)
    torch.testing.assert_close(scores, {"x.v": expected})


def test_losses_explain_where_they_are_loaded(work, run):
    """A class's Grad-CAM of a loss with a classifier, whose gradient reaches the map through a
    head."""
    whole = reidcore.load(work / "run", device="cpu", losses=True)
    images = Images(torch.rand(2, 3, 32, 16), *torch.zeros(2, 2, dtype=torch.int64))
    found = Explainer(whole.model, ["look"], []).explanations(images)
    weight = whole.model.losses["guess"].classifier.weight.detach()
    with torch.no_grad():
        values = whole.model(images)["backbone.layer3"]
        best = weight[(values.mean((2, 3)) @ weight.T).argmax(1)]
    gradient = (best / values[0, 0].numel())[..., None, None].expand_as(values)
    expected = grad_cam(values, gradient)
    assert expected.max() > 0
    np.testing.assert_allclose(found["loss.guess.best"].values, expected, rtol=1e-4, atol=1e-7)
    assert "loss.guess.best" not in Explainer(run.model, ["look"], []).explanations(images)


def test_channel_norm_is_the_euclidean_norm():
    values = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    naive = [
        [[sum(x * x for x in one[:, i, j]) ** 0.5 for j in range(4)] for i in range(3)]
        for one in values.numpy()
    ]
    np.testing.assert_allclose(channel_norm(values), naive)


@pytest.mark.oracle
def test_the_published_definition():
    """Grad-CAM of a class, scaled and enlarged, through torch's own maximum pooling; for the other
    head the gradient is given."""
    with oracle("airnet/gradcam") as vectors:
        x = vectors.input("X")[None]
        for head in ("gmp", "abp"):
            for stored in vectors.names(f"{head}_*_target"):
                name = stored.removesuffix("_target")
                gradient = vectors.input(f"{name}_grad")[None]
                if head == "gmp":
                    gradient = class_gradient(vectors, x, int(vectors.input(f"{name}_target")))
                    vectors.compare(f"{name}_grad", gradient[0], rtol=1e-9, atol=1e-12)
                cam = grad_cam(x, gradient)[0].numpy()
                vectors.compare(f"{name}_alpha", gradient[0].mean((1, 2)), rtol=1e-9, atol=1e-12)
                vectors.compare(f"{name}_cam", cam, rtol=1e-9, atol=1e-12)
                vectors.compare(f"{name}_cam_norm", scaled(cam), rtol=1e-9, atol=1e-12)
                size = vectors.arrays[f"{name}_cam_up"].shape
                vectors.compare(
                    f"{name}_cam_up", enlarged(scaled(cam), *size), rtol=1e-9, atol=1e-12
                )
        for pattern in ("abp_[gbrWvl]*", "abp_*_target", "W_?"):
            vectors.later(pattern, "in plugins/airnet: attention-based pooling is its own")


def class_gradient(vectors, x: torch.Tensor, target: int) -> torch.Tensor:
    """d logit / d x of maximum pooling, batch norm and a classifier without bias."""
    x = x.clone().requires_grad_()
    gamma, beta, mean, var, weight = (
        vectors.input(f"gmp_{key}") for key in ("gamma", "beta", "run_mean", "run_var", "W")
    )
    pooled = F.adaptive_max_pool2d(x, 1).flatten(1)
    vectors.compare("gmp_v", pooled[0], rtol=1e-12)
    logits = F.batch_norm(pooled, mean, var, gamma, beta) @ weight.T
    vectors.compare("gmp_logits", logits[0], rtol=1e-9)
    return torch.autograd.grad(logits[0, target], x)[0]


def test_enlarging_is_bilinear_between_centres():
    values = np.random.default_rng(0).random((5, 3))
    expected = F.interpolate(torch.from_numpy(values)[None, None], (17, 20), mode="bilinear")
    np.testing.assert_allclose(enlarged(values, 17, 20), expected[0, 0], atol=1e-12)


def test_scaling_and_constant_maps():
    """The ends are the smallest and the largest value or what is given; a constant map is flat."""
    values = np.array([[2.0, 3.0], [4.0, 6.0]])
    np.testing.assert_allclose(scaled(values), [[0, 0.25], [0.5, 1]])
    np.testing.assert_allclose(scaled(values, 3, 5), [[0, 0], [0.5, 1]])
    grey = Image.new("RGB", (40, 60), (90, 90, 90))
    units = F.normalize(torch.randn(1, 64, 9, 5), dim=1)
    for constant in (np.full((3, 2), 7.0), channel_norm(units)[0].numpy()):
        flat = np.asarray(heated(grey, scaled(constant)))
        assert (flat == flat[0, 0]).all()
    rising = np.asarray(heated(grey, scaled(np.arange(6.0).reshape(3, 2)))).astype(int).sum(2)
    assert rising[0, 0] < rising[-1, 0] < rising[-1, -1]


def side(colour: tuple[int, int, int] = (0, 0, 0), width: int = 100) -> Side:
    return Side(Image.new("RGB", (width, 200), colour), "title", "name.jpg")


def places_of(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """(x, y) of all pixels of this colour."""
    ys, xs = np.nonzero((np.asarray(picture) == colour).all(2))
    return np.stack([xs, ys], 1)


def test_heat_lies_over_the_place_it_is_of():
    """The brightest spot of each picture's heat, at both ends of the same scale."""
    values = np.zeros((2, 4, 2))
    values[0, 0, 1] = values[1, 3, 0] = 1.0
    drawn = heat_picture(Heat(values, low=0.0, high=1.0), side(), side((9, 9, 9)), "t")
    query, gallery = places_of(drawn, (0, 0, 0)), places_of(drawn, (9, 9, 9))
    light = np.asarray(drawn).astype(int).sum(2)
    for plain, spot in ((query, (0.75, 0.125)), (gallery, (0.25, 0.875))):
        left, top = plain.min(0)
        start = left + 100 + 4
        under = light[top : top + 200, start : start + 100]
        cells = under.reshape(4, 50, 2, 50).mean((1, 3))
        row, column = np.unravel_index(cells.argmax(), cells.shape)
        assert ((column + 0.5) / 2, (row + 0.5) / 4) == spot


@pytest.mark.parametrize("towards", ["gallery", "query"])
def test_lines_end_where_they_belong(towards: str):
    """A ring at the place that was asked, a disc in the line's colour at its partner, and the line
    between them; a line that is too light is left out."""
    blue, green = (0, 0, 90), (0, 60, 0)
    lines = Lines(
        np.array([[0.2, 0.1], [0.5, 0.9]]),
        np.array([[0.7, 0.6], [0.5, 0.9]]),
        np.array([1.0, 0.5]),
        towards=towards,
        above=0.5,
    )
    query, gallery = side(blue), side(green, 140)
    drawn = line_picture(lines, query, gallery, "t")
    first, second = places_of(drawn, blue).min(0), places_of(drawn, green).min(0)
    pixels = np.asarray(drawn).astype(int)
    start = first + np.array([20, 20])
    end = second + np.array([98, 120])
    ring, disc = (start, end) if towards == "gallery" else (end, start)
    assert (pixels[ring[1], ring[0]] == 255).all()
    colour = pixels[disc[1], disc[0]]
    assert colour.max() > 250 and colour.min() < 100
    for share in (0.3, 0.5, 0.8):
        x, y = (start + share * (end - start)).round().astype(int)
        assert abs(pixels[y - 1 : y + 2, x] - colour).sum(1).min() < 90
    left_out = np.asarray(drawn)[first[1] + 160 : first[1] + 200, first[0] : first[0] + 100]
    assert (left_out == blue).all()


FAULTS = {
    "raises": "explain failed: KeyError: 'nowhere'",
    "no mapping": "explain returned list, not {name: Heat, Lines or Table}",
    "name": "explain used the name 'A b'",
    "tensor": "explain returned Tensor as 'mean', not Heat, Lines or Table",
    "grids": "explain returned 'mean' with 1 grids for 2 pictures",
    "lines": "explain returned Lines as 'mean'; only matchers see two pictures",
    "shape": "explain failed: ValueError: Heat: values must be [B, h, w], got [",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_part_that_fails_is_named(run, fault: str):
    wired = next(one for one in run.plan.heads if one.part.name == "mean")
    part = wired.build()(attrs.evolve(wired.config, fault=fault), None)
    images = Images(torch.rand(2, 3, 32, 16), *torch.zeros(2, 2, dtype=torch.int64))
    with torch.no_grad():
        features = run.model(images)
    with pytest.raises(PluginError) as caught:
        explained_part(wired, part, features, images)
    assert str(caught.value).startswith(f"head 'mean' (shown.mean): {FAULTS[fault]}")
    assert str(caught.value).endswith("(reid-plugin-shown 0.1.0)")


def test_the_document_runs(work, tmp_path, monkeypatch, capsys):
    """The command and the code of docs/explain.md, on this run."""
    text = (Path(__file__).parents[2] / "docs" / "explain.md").read_text()
    (command,) = re.findall(r"^\$ reid (.*)$", text, re.M)
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name, there in (("runs/own-pictures", "run"), ("new", "query"), ("pictures", "gallery")):
        (tmp_path / name).symlink_to(work / there)
    assert main([*command.split(), "--map", "backbone.layer4", "--device", "cpu"]) == 2
    assert main([*command.split(), "--limit", "1", "--device", "cpu"]) == 0
    assert (tmp_path / "why" / "index.csv").is_file()
    capsys.readouterr()
    exec(code, {})
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 and all(line.endswith("(2, 2, 1)") for line in shown)


def test_the_kit_checks_explanations(work, monkeypatch):
    """A sound plugin passes; one whose `explain` fails does not."""
    checks = {str(check): check for check in iter_checks("shown")}
    for name in ("head shown.mean", "matcher shown.places"):
        checks[f"{name}: sample runs dry"]()
    from reid_shown.parts import Mean

    monkeypatch.setattr(Mean, "explain", lambda part, features, images: {"mean": 1})
    with pytest.raises(ConformanceError, match=r"shown\.mean.*explain returned int as 'mean'"):
        checks["head shown.mean: sample runs dry"]()


def test_mistakes_are_told(work, tmp_path, monkeypatch, capsys):
    """A map that does not exist, is none, or lies behind what was trained; nothing is written."""
    monkeypatch.chdir(work)
    (work / "there").mkdir()
    for words, says in (
        (
            ["--map", "backbone.layr3"],
            "no map 'backbone.layr3', did you mean 'backbone.layer3'? "
            "Maps of the run: backbone.stem (map 8x8x4), ",
        ),
        (["--map", "neck.bn"], "'neck.bn' is a vector 32, not a map"),
        (
            ["--feature", "neck.bnn"],
            "no vector 'neck.bnn', did you mean 'neck.bn'? Vectors of the "
            "run: neck.pooled (vector 32), neck.bn (vector 32)",
        ),
        (["--feature", "backbone.layer3"], "'backbone.layer3' is a map 32x2x1, not a vector"),
        (
            ["--feature", "neck.bn", "--identity", "0001"],
            "identity '0001' is scored by losses, which are not loaded",
        ),
        (
            ["--map", "backbone.layer4"],
            "the run computes no 'backbone.layer4', and it has no weights for it",
        ),
        (["--limit", "0"], "limit must be at least 1, got 0"),
        (["-o", "there"], "there exists already; name a new folder"),
    ):
        command = ["explain", "run", "--query", "query", "--gallery", "gallery", "-o", "new"]
        assert main([*command, "--device", "cpu", *words]) == 2
        assert says in capsys.readouterr().err
    assert not list(work.glob("*new*")) and not list(work.glob(".*new*"))


def test_a_part_that_fails_leaves_no_folder(work, monkeypatch, capsys):
    """In the middle of the work, by the command."""
    from reid_shown.parts import Places

    calls = []

    def explain(matcher, a, b):
        calls.append(a)
        if len(calls) == 2:
            raise ArithmeticError("second pair")
        return {}

    monkeypatch.setattr(Places, "explain", explain)
    monkeypatch.chdir(work)
    command = ["explain", "run", "--query", "query", "--gallery", "gallery", "-o", "broken"]
    assert main([*command, "--ranking", "both", "--device", "cpu"]) == 3
    assert "matcher 'places' (shown.places): explain failed: Arith" in capsys.readouterr().err
    assert len(calls) == 2 and not list(work.glob("*broken*")) + list(work.glob(".*broken*"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Heat(np.zeros((2, 3))), "Heat: values must be [B, h, w], got [2, 3]"),
        (lambda: Heat(np.full((1, 1, 1), np.nan)), "Heat: values is not finite"),
        (lambda: Heat(torch.zeros(1, 1, 1)), "values must be a NumPy array of numbers, got Tensor"),
        (lambda: Heat(np.array([[["a"]]])), "values must be a NumPy array of numbers, got <U1"),
        (lambda: Heat(np.zeros((1, 0, 2))), "Heat: values is empty: [1, 0, 2]"),
        (lambda: Heat(np.zeros((1, 1, 1)), low=1.0, high=1.0), "low must be below high, got 1"),
        (lambda: Lines(XY, 1.5 * XY, ONE), "Lines: gallery must lie in [0, 1], but reaches"),
        (lambda: Lines(XY.T, XY, ONE), "Lines: query must be [N, 2], got [2, 1]"),
        (lambda: Lines(XY, XY, np.ones(2)), "Lines: weight has 2 entries for 1 lines"),
        (lambda: Lines(XY, XY, ONE, numbers={"i": np.ones(2)}), "Lines: i has 2 entries for 1"),
        (lambda: Lines(XY, XY, ONE, numbers={"i": [1]}), "Lines: numbers 'i' must be a NumPy"),
        (lambda: Lines(XY, XY, ONE, towards="me"), "towards must be gallery or query, got 'me'"),
        (lambda: Table(["a", "a"], []), "Table: columns must be distinct names, got ['a', 'a']"),
        (lambda: Table(["a"], [[1, 2]]), "Table: a row has 2 cells for 1 columns: (1, 2)"),
        (lambda: Table(["a"], [[XY]]), "Table: a cell is array("),
    ],
)
def test_explanations_are_checked_when_made(make, says: str):
    with pytest.raises(ValueError) as caught:
        make()
    assert says in str(caught.value)


XY, ONE = np.array([[0.5, 1.0]]), np.ones(1)
