"""The pages on plugins: the commands and code of the tutorial, and an example of every hook."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest
import warm_python
from distributions import FINE, ROOT, install_built, write_distribution
from running import NEED_TORCH, TINY, environment, reid

from reidcore import hookspecs
from reidcore.plugins.loading import Plugins
from reidcore.plugins.registration import HOOKS
from reidcore.testing.new_plugin import EXAMPLES, package_files

PAGE = (ROOT / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
STEP = re.compile(
    r"^`(?P<file>[\w./]+)`:\n\n```\w+\n(?P<text>.*?)^```$"
    r"|^```console\n(?P<commands>.*?)^```\n(?:```\n(?P<output>.*?)^```$)?"
    r"|^```python\n(?P<hook>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DATA = "{ read = 'core.demo', train_identities = 8, test_identities = 4, pictures = 8 }"
SHORT = ["train.epochs=1", "data.image=[64, 32]", f"data.train={DATA}", f"data.test={DATA}"]


class Reader:
    """Somebody who does what the page says, step by step, from an empty folder."""

    def __init__(self, folder: Path):
        self.here, self.site = folder / "work", folder / "site"
        self.here.mkdir()
        (self.site / "pip").mkdir(parents=True)  # messages name the installer that is there
        self.cache = folder / "cache"

    def follow(self, step: re.Match[str]) -> None:
        if step["file"]:
            (self.here / step["file"]).write_text(step["text"], encoding="utf-8")
        elif step["hook"]:
            self.replace_hook(step["hook"])
        else:
            commands = [line.removeprefix("$ ") for line in step["commands"].splitlines()]
            for command in commands:
                printed = self.do(command, failing=(step["output"] or "").startswith("error:"))
            if step["output"]:
                self.compare(commands[-1], printed, step["output"])

    def replace_hook(self, code: str) -> None:
        """The hook function in the plugin's module becomes the one that is shown."""
        plugin = self.here / "reid_spots" / "plugin.py"
        (name,) = re.findall(r"def (reid_\w+)", code)
        blocks = plugin.read_text().split("\n\n\n")
        (old,) = (block for block in blocks if f"def {name}(" in block)
        plugin.write_text("\n\n\n".join(code if block is old else block for block in blocks))

    def do(self, command: str, failing: bool) -> str:
        """Output and errors of a command; training is shortened."""
        name, *arguments = shlex.split(command)
        if name == "cd":
            self.here /= arguments[0]
            return ""
        if name == "pip":
            self.install(arguments[1:])
            return ""
        if arguments[:1] == ["run"]:
            arguments += [word for item in SHORT for word in ("--set", item)]
        module = {"reid": "reidcore", "pytest": "pytest"}.get(name)
        env = environment(self.cache, Path(f"{self.here}:{self.site}"))
        if module and arguments[0] in (*NEED_TORCH, "test-plugin", "-q"):
            done = warm_python.run(["-m", module, *arguments], env, self.here, 200)
        else:
            done = subprocess.run(
                [sys.executable, "-m", module, *arguments] if module else command,
                env=env,
                cwd=self.here,
                capture_output=True,
                text=True,
                shell=module is None,
            )
        assert (done.returncode != 0) == failing, f"{command}\n{done.stdout}\n{done.stderr}"
        return (done.stdout + done.stderr if failing else done.stderr + done.stdout).replace(
            str(ROOT), "..."
        )

    def install(self, arguments: list[str]) -> None:
        if arguments[0] == "-e":
            # As an editable installation: the metadata only, the package from where it is.
            install_built(self.here, self.site)
            shutil.rmtree(self.site / "reid_spots")
        else:
            install_built(ROOT / "plugins" / arguments[0].removeprefix("reid-plugin-"), self.site)

    @staticmethod
    def compare(command: str, printed: str, shown: str) -> None:
        """What is shown was printed, `...` and seconds standing for anything; of scores what is
        scored."""
        if re.match("reid (run|eval)", command):
            labels = re.compile(r"^(demo +\w+ +\w+) +\d", re.MULTILINE)
            assert labels.findall(printed) == labels.findall(shown) != []
            return
        shown = re.sub(r"\d+\.\d s\b", "...", shown)
        pattern = ".*".join(re.escape(piece) for piece in shown.strip().split("..."))
        assert re.fullmatch(pattern, printed.strip(), re.DOTALL), f"{command}\n{printed}"


@pytest.fixture
def reader(tmp_path):
    """Beside the page's own plugin, two are installed that this core cannot use."""
    write_distribution(
        tmp_path / "site",
        "relic",
        groups=["reidcore.plugins.v0"],
        version="0.9.0",
        requires=["reidcore<1"],
    )
    early = FINE.replace("import Component", "import Canvas, Component")
    asks = ["reidcore>=1.4,<2"]
    write_distribution(tmp_path / "site", "early", early, version="0.2.0", requires=asks)
    return Reader(tmp_path)


@pytest.mark.timeout(600)
def test_the_walk_from_an_empty_folder_to_a_plugin(reader):
    """Every file and command of docs/writing-a-plugin.md, in order, with what they print."""
    steps = list(STEP.finditer(PAGE))
    assert len([step for step in steps if step["file"]]) >= 7
    for step in steps:
        reader.follow(step)
    assert (reader.here / "runs" / "spots-demo" / "scores.json").is_file()
    # The page's last state, with a deprecated component, passes the tests as well.
    reader.do("pytest -q -k patches", failing=False)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_an_entry(hook):
    """Each function of hookspecs.py has a section of its own, with an example that defines it or,
    for a kind, that is built by it."""
    entry = re.search(rf"^##+ `{hook}`\n(.*?)(?=^##|\Z)", REFERENCE, re.DOTALL | re.MULTILINE)
    assert entry, f"docs/hooks.md has no entry of {hook}"
    assert "```python" in entry[1] or f"def {hook}(" in REFERENCE


def test_no_hook_is_forgotten():
    """The list of hooks is that of hookspecs.py."""
    declared = [name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction)]
    assert sorted(HOOKS) == [name for name in declared if name.startswith("reid_")]


def test_the_reference_shows_what_the_command_writes():
    """The examples are those of a new plugin, and so are tested with it, but for the observers' and
    that of published weights."""
    files = dict(package_files("spots", EXAMPLES))
    texts = "\n".join(textwrap.dedent(text) for text in files.values())
    *examples, weights, observers = EXAMPLE.findall(REFERENCE)
    assert len(examples) >= len(EXAMPLES)
    assert "def reid_weights" in weights
    for example in examples:
        assert example in texts, example
    assert "def reid_run_started" in observers


def test_the_published_weights_of_the_reference_are_sound():
    """A plugin with the example's hook is taken, and its run files may name the weights."""
    *_, example, _ = EXAMPLE.findall(REFERENCE)
    module = types.ModuleType("spots")
    imports = "from collections.abc import Sequence\n"
    imports += "from reidcore.api import PublishedWeights, hookimpl\n"
    exec(imports + example, module.__dict__)
    plugins = Plugins([])
    plugins.add("spots", module)
    assert plugins.published_weights("spots:market").weights.licence == "CC BY-NC 4.0"
    assert 'weights = "spots:market"' in REFERENCE


def test_the_observers_of_the_reference_observe(tmp_path):
    """The plugin `diary` writes what it shows into the run folder."""
    code = EXAMPLE.findall(REFERENCE)[-1]
    write_distribution(tmp_path / "site", "diary", code)
    env = environment(tmp_path / "cache", tmp_path / "site")
    (tmp_path / "run.toml").write_text(f'plugins = ["diary"]\n{TINY}')
    reid(env, tmp_path, "run", "run.toml", "--set", "train.epochs=2")
    folder = tmp_path / "runs" / "tiny"
    assert json.loads((folder / "diary-start.json").read_text()) == {"identities": 4}
    assert json.loads((folder / "diary-2.json").read_text())["loss"] > 0
    scores = json.loads((folder / "scores.json").read_text())
    assert json.loads((folder / "diary-end.json").read_text()).keys() == scores.keys()
