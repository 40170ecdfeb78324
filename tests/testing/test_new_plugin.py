"""`reid new-plugin`: what it writes is installed, passes its own tests, and runs."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import warm_python
from distributions import ROOT, install_built
from running import environment, reid

from reidcore.testing.new_plugin import EXAMPLES, HOOKS, package_files

ALL = ",".join(EXAMPLES)
ONLY = {f"only_{kind}": kind for kind in EXAMPLES}
TEMPLATE = ROOT / "reidcore" / "testing" / "template"
SMALL = "{ read = 'core.demo', train_identities = 8, test_identities = 4, pictures = 8 }"
SHORT = ("--set", "train.epochs=1", "--set", "data.image=[64, 32]", "--set", "eval.every=0")


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """A folder in which the command has written a plugin of all kinds, one of each kind alone, and
    the usual one."""
    base = tmp_path_factory.mktemp("projects")
    env = environment(base / "cache")
    reid(env, base, "new-plugin", "every", "--kinds", ALL)
    reid(env, base, "new-plugin", "usual")
    for name, kind in ONLY.items():
        reid(env, base, "new-plugin", name, "--kinds", kind)
    return base


@pytest.fixture(scope="module")
def env(projects):
    """The environment of a user who has installed all of them."""
    for project in projects.glob("reid-plugin-*"):
        install_built(project, projects / "site")
    return environment(projects / "cache", projects / "site", REID_DATA=str(projects))


def test_all_are_listed_with_what_was_asked_for(env, projects):
    """Thirteen plugins side by side are sound, and each has an example of its kinds."""
    rows = reid(env, projects, "plugins").stdout.splitlines()
    found = {row.split()[0]: row.split("ok", 1)[1].strip() for row in rows if " ok " in row}
    assert {name: found[name] for name in ONLY} == {
        name: f"1 {kind}" for name, kind in ONLY.items()
    }
    assert found["usual"] == "1 head, 1 matcher"
    assert found["every"] == ", ".join(f"1 {kind}" for kind in EXAMPLES)
    details = reid(env, projects, "plugins", "every").stdout
    listed = re.findall(r"^  (?:every\.|reid every-)(\w+)$", details, re.MULTILINE)
    assert listed == list(EXAMPLES.values())
    assert "torch" not in details


def test_a_plugin_of_all_kinds_passes_its_own_tests(env, projects):
    """The conformance kit and the reader's test pass in the package as it was written."""
    _pass_tests(env, projects / "reid-plugin-every", at_least=45)


def test_a_plugin_of_a_command_passes_its_own_tests_and_its_command_runs(env, projects, tmp_path):
    """`reid only-command-best` tells which of two folders with scores has the best."""
    _pass_tests(env, projects / "reid-plugin-only-command", at_least=7)
    for name, value in (("a", 0.5), ("b", 0.25)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scores.json").write_text(
            f'{{"t": {{"r": {{"s": {{"mAP": {value}}}}}}}}}'
        )
    assert reid(env, tmp_path, "only-command-best", "a", "b").stdout == "a t r s: mAP 50.0 %\n"
    done = reid(env, tmp_path, "only-command-best", "a", "--metric", "mAPs", code=2)
    assert done.stderr == "error: no run has 'mAPs', did you mean 'mAP'? There are mAP.\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ONLY, "usual"])
def test_a_plugin_of_one_kind_passes_its_own_tests(env, projects, name):
    """So do they with one component, or with those that are written without `--kinds`."""
    _pass_tests(env, projects / f"reid-plugin-{name.replace('_', '-')}", at_least=6)


def _pass_tests(env, project: Path, at_least: int) -> None:
    done = warm_python.run(["-m", "pytest", "-q", "-p", "no:cacheprovider"], env, project, 200)
    # A reader whose data are not there is not checked against them.
    passed = re.search(r"(\d+) passed(, 1 skipped)? in", done.stdout)
    assert done.returncode == 0 and passed, done.stdout + done.stderr
    assert int(passed[1]) >= at_least, done.stdout


def test_its_run_file_runs(env, projects):
    """`reid run every:demo`, shortened, ends with scores of all three rankings."""
    data = ("--set", f"data.train={SMALL}", "--set", f"data.test={SMALL}")
    done = reid(env, projects, "run", "every:demo", *data, *SHORT)
    assert re.findall(r"^demo +(\w+ +\w+) ", done.stdout, re.MULTILINE) == [
        "plain    plain",
        "pairs    plain",
        "timed    plain",
        "timed    elapsed",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in ONLY if name not in ("only_reader", "only_command")]
)
def test_the_run_file_of_one_kind_runs(env, projects, name):
    """Whatever kind was asked for, the core's components stand for the others."""
    data = ("--set", f"data.train={SMALL}", "--set", f"data.test={SMALL}")
    shown = reid(env, projects, "run", f"{name}:demo", *data, *SHORT).stdout
    assert re.search(r"^demo +plain +plain +\d", shown, re.MULTILINE)


@pytest.mark.slow
def test_the_reader_fits_the_pictures_it_is_made_for(env, projects):
    """The facts are those of a usual drawing, and a reader's run file trains on it."""
    reid(env, projects, "data", "demo", "pictures")
    check = "from reidcore.testing import check_plugin; check_plugin('only_reader')"
    done = subprocess.run([sys.executable, "-c", check], env=env, cwd=projects)
    assert done.returncode == 0
    shown = reid(env, projects, "run", "only_reader:pictures", *SHORT).stdout
    assert "60 identities" in shown and re.search(r"^pictures +main +plain +\d", shown, re.M)


def test_two_plugins_stand_in_one_run(env, projects):
    """One's head and another's matcher pass the dry run together."""
    text = (projects / "reid-plugin-usual/reid_usual/sample.toml").read_text()
    assert "usual.gem" in text and "usual.positions" in text
    (projects / "two.toml").write_text(text.replace("usual.positions", "only_matcher.positions"))
    shown = reid(env, projects, "check", "two.toml").stdout
    assert "ok: keys, wiring and dry run" in shown


def test_nothing_of_the_template_is_left_out_or_left_over():
    """All kinds together give every file of the template; one alone gives none of the others'
    components, and no placeholder stays."""
    every = dict(package_files("spots", EXAMPLES))
    listed = [path.relative_to(TEMPLATE) for path in TEMPLATE.rglob("*") if path.is_file()]
    templates = [path for path in listed if not str(path).startswith(".") and path.suffix != ".pyc"]
    assert len(every) == len(templates)
    for kind in EXAMPLES:
        files = dict(package_files("spots", [kind]))
        for path, text in files.items():
            assert not re.search("PLUGIN|DISTRIBUTION|COMMAND", path + text), path
            named = set(re.findall(r"[\"`]spots\.(\w+)[\"`]", text))
            assert named <= {EXAMPLES[kind]}, f"{kind}: {path}"
        assert f"def {HOOKS[kind]}(" in files["reid_spots/plugin.py"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Reid-Plugin-Big"], "'Reid-Plugin-Big' is no name for a plugin, did you mean 'big'?"),
        (["reid_spots"], "did you mean 'spots'?"),
        (["7"], "'7' is no name for a plugin. Names are lower-case letters"),
        (["core"], "'core' belongs to reidcore itself"),
        (["spots", "--kinds", "haed"], "'haed' is no kind, did you mean 'head'? Kinds: backbone"),
        (["spots", "--kinds", "observers"], "observers are functions in plugin.py"),
        (["spots", "--kinds", ""], "'' is no kind. Kinds: backbone"),
        (["there"], "reid-plugin-there exists already"),
        (["every"], "plugin every (reid-plugin-every 0.1.0) is installed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refusals(env, tmp_path, arguments, words):
    """A name or kind that cannot be used, and a folder that is there, are told; nothing is
    written."""
    (tmp_path / "reid-plugin-there").mkdir()
    done = reid(env, tmp_path, "new-plugin", *arguments, code=2)
    assert words in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["reid-plugin-there"]


@pytest.mark.parametrize("kinds", [ALL, *EXAMPLES])
def test_what_is_written_pleases_its_linter(tmp_path, kinds):
    """No import or name is left that only another kind needed, and lines are as formatted."""
    for path, text in package_files("spots", kinds.split(",")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_it_is_written_whole_or_not_at_all(tmp_path):
    """Where the disk takes no more, the command says so and leaves nothing behind."""
    limited = subprocess.run(
        [sys.executable, "-m", "reidcore", "new-plugin", "spots"],
        env=environment(tmp_path / "cache", PYTHONDONTWRITEBYTECODE="1"),
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)),
        capture_output=True,
        text=True,
    )
    assert limited.returncode == 1
    assert "cannot write" in limited.stderr and "File too large" in limited.stderr
    assert not list(tmp_path.iterdir())
