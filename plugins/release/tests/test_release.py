"""Releases: a folder that works as the run does, a card that says what the run was, and sharing.

Hugging Face is a local stand-in of its HTTP interface, to which huggingface_hub itself speaks.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
import warm_python
from distributions import ROOT
from running import TINY

from plugins.release.tests.hub_stand_in import TOKEN, stand_in
from reidcore.cli.main import main

if importlib.util.find_spec("reid_release") is None:
    pytest.skip("needs `uv run --all-groups`", allow_module_level=True)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The current folder, with a finished run `runs/tiny` and its release `released`."""
    folder = tmp_path_factory.mktemp("release")
    (folder / "tiny.toml").write_text(TINY.replace("epochs = 6", "epochs = 1"))
    (folder / "about.md").write_text("Made for a test.\n")
    (folder / "model.onnx").write_bytes(b"graph")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        assert main(["run", "tiny.toml", "--no-dry"]) == 0
        more = ["--license", "cc-by-nc-4.0", "--about", "about.md", "--export", "model.onnx"]
        assert main(["release", "runs/tiny", "-o", "released", *more]) == 0
        yield folder


@pytest.fixture
def release(here, capsys):
    """Runs the command and returns (output, errors); its exit code must be `code`."""

    def called(*arguments: object, code: int = 0):
        capsys.readouterr()
        assert main(["release", *map(str, arguments)]) == code
        return capsys.readouterr()

    return called


def card(folder: Path) -> tuple[dict, str]:
    """The data of a model card, and its text."""
    from huggingface_hub import ModelCard

    loaded = ModelCard.load(folder / "README.md")
    return loaded.data.to_dict(), loaded.text


def test_a_release_works_as_the_run_does(here, capsys):
    """The same files and scores; every command that takes a run folder takes it."""
    run, made = here / "runs/tiny", here / "released"
    for name in ("weights.safetensors", "run.toml", "lock.json", "scores.json", "means.csv"):
        assert (made / name).read_bytes() == (run / name).read_bytes()
    assert (made / "exports/model.onnx").read_bytes() == b"graph"
    capsys.readouterr()
    assert main(["eval", "released", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run / "scores.json").read_text())


def test_the_card_says_what_the_run_was(here):
    """Scores, data, protocol, parts, licence and how to use it, for people and for the server."""
    data, text = card(here / "released")
    assert data["library_name"] == "reidcore" and data["license"] == "cc-by-nc-4.0"
    scores = json.loads((here / "released/scores.json").read_text())["demo"]["main"]["plain"]
    (model,) = data["model-index"]
    metrics = {one["type"]: one["value"] for part in model["results"] for one in part["metrics"]}
    assert metrics["mAP"] == pytest.approx(scores["mAP"], abs=1e-6)
    assert f"| demo | main | plain | {100 * scores['mAP']:.1f} |" in text
    for words in (
        "Made for a test.",
        "| `matcher.look` | `core.cosine` | reidcore",
        "| `loss.id` | `core.softmax` | training only |",
        "protocol `cross_camera`",
        "4 identities in 2 cameras",
        'reidcore.load("released")',
        "`exports/model.onnx`",
        "`cc-by-nc-4.0`",
    ):
        assert words in text, words


def test_its_example_runs(here, tmp_path):
    """The Python block of the card, with folders of pictures as it says."""
    _, text = card(here / "released")
    code = text.split("```python\n")[1].split("```")[0]
    code = code.replace('"released"', repr(str(here / "released")))
    main(["data", "demo", "pictures", "--set", "train_identities=2", "--set", "pictures=4"])
    for name, side in (("gallery", "gallery"), ("new", "query")):
        (tmp_path / name).symlink_to(here / "pictures" / side)
    done = warm_python.run(["-c", code], {**os.environ, "PYTHONPATH": str(ROOT)}, tmp_path, 200)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 5


def test_what_others_should_know_is_noted(release, here):
    """No licence, and paths of this machine in the run file."""
    out, _ = release("runs/tiny", "-o", "plain")
    assert "note: the card says that no licence is stated" in out
    data, text = card(here / "plain")
    assert "license" not in data and "No licence is stated" in text
    file = here / "runs/tiny/run.toml"
    text = file.read_text()
    try:
        file.write_text(text + '\n# root = "/home/me/pictures"\n')
        out, _ = release("runs/tiny", "-o", "paths", "--license", "mit")
    finally:
        file.write_text(text)
    assert "note: run file or record name paths of this machine: /home/me/pictures" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/tiny"], "name the folder to make with -o DIR"),
        (["runs/tiny", "-o", "runs/tiny"], "exists already; name a new folder"),
        (["nowhere", "-o", "x"], "no run folder at"),
        (["runs/tiny", "-o", "x", "--export", "none.onnx"], "--export none.onnx: there is no such"),
        (["runs/tiny", "-o", "x", "--about", "none.md"], "--about none.md: cannot be read"),
        (["runs/tiny", "-o", "x", "--private"], "--private is for a model that --push makes"),
        (["runs/tiny", "-o", "x", "--push", "name"], "--push 'name': expected USER/NAME"),
        (["runs/tiny", "-o", "x", "--push", "a/b c"], "expected USER/NAME"),
    ],
)
def test_mistakes_are_told_before_any_work(release, here, arguments, message):
    _, errors = release(*arguments, code=2)
    assert message in errors and not (here / "x").exists()


def test_unfinished_and_damaged_runs_are_refused(release, here):
    """They are named; nothing is left."""
    record = here / "runs/tiny/lock.json"
    text = record.read_text()
    try:
        record.write_text(text.replace('"finished": true', '"finished": false'))
        _, errors = release("runs/tiny", "-o", "x", code=2)
        assert "is unfinished" in errors
    finally:
        record.write_text(text)
    weights = here / "runs/tiny/weights.safetensors"
    moved = weights.rename(weights.with_suffix(".away"))
    try:
        _, errors = release("runs/tiny", "-o", "x", code=4)
        assert "weights.safetensors is missing" in errors
    finally:
        moved.rename(weights)
    assert not list(here.glob("*x*/"))


def elsewhere(here, address, home, *arguments, token=TOKEN, code=0):
    """Runs `reid` in a process that knows the stand-in, with a cache of its own."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    env.pop("HF_TOKEN", None)
    if token:
        env["HF_TOKEN"] = token
    done = warm_python.run(["-m", "reidcore", *arguments], env, here, 200)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


def test_pushed_and_loaded_by_its_name(here, tmp_path):
    """A release is pushed, fetched by another machine's cache, and works there, also without the
    server; nothing but a run folder's files is fetched."""
    home = tmp_path / "home"
    with stand_in() as (hub, address):
        made = elsewhere(
            here, address, tmp_path / "mine", "release", "released", "--push", "me/tiny"
        )
        assert f"pushed {address}/me/tiny" in made.stdout
        assert hub.models["me/tiny"].keys() == {
            str(path.relative_to(here / "released"))
            for path in (here / "released").rglob("*")
            if path.is_file()
        }
        hub.models["me/tiny"]["evil.py"] = b"raise SystemExit"
        done = elsewhere(here, address, home, "eval", "hf://me/tiny", "--json", token="")
        assert json.loads(done.stdout) == json.loads((here / "released/scores.json").read_text())
        assert "evil.py" not in hub.fetched and "exports/model.onnx" not in hub.fetched
        missing = elsewhere(here, address, home, "eval", "hf://me/none", token="", code=2)
        assert "hf://me/none: there is no such model on Hugging Face" in missing.stderr
        missing = elsewhere(here, address, home, "eval", "hf://me/tiny@v9", token="", code=2)
        assert "there is no such revision" in missing.stderr
    again = elsewhere(here, address, home, "eval", "hf://me/tiny", "--json", token="")
    assert again.stdout == done.stdout, "it is in the cache"
    absent = elsewhere(here, address, tmp_path / "new", "eval", "hf://me/tiny", token="", code=4)
    assert "is not in the cache of huggingface_hub and cannot be fetched" in absent.stderr
    assert "Traceback" not in absent.stderr


def test_pushing_without_a_login_or_a_network(here, tmp_path):
    """Both are told with what to do; the folder stays, to be pushed later."""
    with stand_in() as (hub, address):
        done = elsewhere(
            here,
            address,
            tmp_path,
            *("release", "runs/tiny", "-o", "late", "--push", "me/late"),
            token="hf_wrong",
            code=2,
        )
        assert "`hf auth login` makes one. late is complete" in done.stderr
        done = elsewhere(here, address, tmp_path, "release", "late", "--push", "me/late")
        assert hub.models["me/late"]
    done = elsewhere(here, address, tmp_path, "release", "late", "--push", "me/late", code=1)
    assert "it could not be sent" in done.stderr and "sends it again" in done.stderr


@pytest.mark.parametrize("name", ["hf://", "hf://me", "hf://a/b/c", "hf://a/b@", "hf://a b/c"])
def test_names_that_are_none(here, capsys, name):
    assert main(["eval", name]) == 2
    assert "expected hf://USER/NAME, or hf://USER/NAME@REVISION" in capsys.readouterr().err
