"""Builds every distribution, looks into the files, and installs each wheel alone, as a stranger.

    python .ci/packages.py                                     # build and look
    python .ci/packages.py --python 3.11 3.13 --bounds both    # and install

Needs uv and Python 3.11, nothing else. With `--python`, every wheel gets an environment of its own
for every Python and bound: the newest of all that it depends on, or the lowest that its own
pyproject.toml declares ("lowest-direct" of uv; what those bring is then the newest). There all its
modules are imported, `reid plugins` must find it, and the core trains the demo for an epoch;
`--conformance` runs `reid test-plugin` too. For a Python that is not on this machine versions are
resolved and nothing is installed, and the line says so. Only wheels are taken, so that a dependency
without one for some Python is told.
"""

from __future__ import annotations

import argparse
import email.message
import email.parser
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BOUNDS = {"newest": "highest", "lowest": "lowest-direct"}
PLATFORM = "x86_64-manylinux_2_28"
"""Where versions are resolved for a Python that is not here."""

IMPORTS = """
import importlib, pkgutil, sys
for package in sys.argv[1:]:
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
"""Imports every module of some packages."""

FEW = [
    f"data.{role}.{one}"
    for role in ("train", "test.0")
    for one in ("train_identities=8", "test_identities=6", "pictures=8")
]
DEMO = ["run", "demo", *(word for one in (*FEW, "train.epochs=1") for word in ("--set", one))]


class Wrong(Exception):
    """Something that must not be published."""


@dataclass(frozen=True)
class Distribution:
    """A distribution that was built: the metadata of its wheel, and the files."""

    wheel: Path
    sdist: Path
    metadata: email.message.Message
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.metadata["Name"])

    @property
    def packages(self) -> list[str]:
        """The packages to import, without those of the metadata."""
        tops = {file.partition("/")[0] for file in self.files}
        return sorted(top for top in tops if not top.endswith(".dist-info"))

    @property
    def requires(self) -> list[str]:
        """What it depends on without extras, as its pyproject.toml declares it."""
        return [one for one in self.metadata.get_all("Requires-Dist", []) if "extra ==" not in one]

    @property
    def plugin(self) -> str:
        """The plugin's name, "" where the distribution is none."""
        (path,) = [one for one in self.files if one.endswith(".dist-info/WHEEL")]
        points = path.replace("WHEEL", "entry_points.txt")
        if points not in self.files:
            return ""
        text = zipfile.ZipFile(self.wheel).read(points).decode()
        found = re.search(r"^\[reidcore\.plugins\.v1\]\n(\w+)", text, re.M)
        return found[1] if found else ""


def run(*command: object, cwd: Path = ROOT) -> str:
    """Return what a command prints. Raises Wrong with its last lines where it fails."""
    # Nothing but what is installed may be found.
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=kept, capture_output=True, text=True)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise Wrong(f"{' '.join(map(str, command))[:200]}\n{last}")
    return done.stdout


def build(folder: Path) -> list[Distribution]:
    """Build sdists, and wheels from them, into a folder that has none."""
    if any(folder.glob("*.whl")):
        raise Wrong(f"{folder} has wheels already; name an empty folder")
    run("uv", "build", "--quiet", "--all-packages", "--out-dir", folder)
    return [read(wheel) for wheel in sorted(folder.glob("*.whl"))]


def read(wheel: Path) -> Distribution:
    """Return what a wheel says of itself, and its sdist beside it."""
    with zipfile.ZipFile(wheel) as archive:
        files = tuple(archive.namelist())
        (path,) = [file for file in files if file.endswith(".dist-info/METADATA")]
        metadata = email.parser.Parser().parsestr(archive.read(path).decode())
    sdist = wheel.with_name(f"{'-'.join(wheel.name.split('-')[:2])}.tar.gz")
    return Distribution(wheel, sdist, metadata, files)


def look(distributions: list[Distribution], tag: str) -> None:
    """Check the files of all. Raises Wrong with what is wrong, of all of them."""
    members = [ROOT, *(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
    wrong = []
    if len(distributions) != len(members):
        wrong.append(f"{len(members)} projects, but {len(distributions)} wheels")
    versions = {one.metadata["Version"] for one in distributions}
    if len(versions) != 1:
        wrong.append(f"the versions differ: {', '.join(sorted(versions))}")
    if tag and versions != {tag.removeprefix("v")}:
        wrong.append(f"the tag is {tag}, reidcore/version.py says {', '.join(sorted(versions))}")
    for one in distributions:
        wrong += [f"{one.name}: {problem}" for problem in problems(one)]
    if wrong:
        raise Wrong("\n".join(wrong))
    files = [file for one in distributions for file in (one.wheel, one.sdist)]
    run("uvx", "twine", "check", "--strict", *files)


def problems(one: Distribution) -> list[str]:
    """Return what is wrong with the files of a distribution."""
    found = []
    if not any(re.search(r"\.dist-info/licenses/LICENSE$", file) for file in one.files):
        found.append("the wheel has no LICENSE")
    strays = [file for file in one.files if re.search(r"(^|/)(tests|__pycache__)/", file)]
    # The template of new plugins has tests, which `reid new-plugin` writes.
    strays = [file for file in strays if "/testing/template/" not in file]
    if strays:
        found.append(f"the wheel has {strays[0]}")
    if not one.sdist.exists():
        return [*found, "no sdist"]
    with tarfile.open(one.sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    lacking = {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO"} - inside
    return [*found, *(f"the sdist has no {name}" for name in sorted(lacking))]


def install(one: Distribution, core: Distribution, python: str, bound: str, deep: bool) -> str:
    """Install a wheel alone, and use it; return what was done. Raises Wrong where it fails."""
    own = [line for line in one.requires if not re.match(r"reidcore\b", line)]
    # The core is the one that was built here, never one of the same name from an index.
    wheels = [one.wheel] if one is core or own == one.requires else [one.wheel, core.wheel]
    choice = ["--resolution", BOUNDS[bound], "--only-binary", ":all:"]
    with tempfile.TemporaryDirectory(prefix="packages-") as name:
        folder = Path(name)
        asked = folder / "requirements.txt"
        asked.write_text("\n".join([*own, *map(str, wheels)]) + "\n")
        if not has(python):
            line = ["uv", "pip", "compile", "--quiet", asked, *choice]
            run(*line, "--python-version", python, "--python-platform", PLATFORM)
            return "resolved, not installed"
        run("uv", "venv", "--quiet", "--python", python, folder / "env")
        inside = folder / "env" / "bin" / "python"
        run("uv", "pip", "install", "--quiet", "--python", inside, *choice, "-r", asked)
        run("uv", "pip", "check", "--quiet", "--python", inside)
        run(inside, "-c", IMPORTS, *one.packages, cwd=folder)
        return f"imported{''.join(f', {done}' for done in used(one, inside, folder, deep))}"


def used(one: Distribution, python: Path, folder: Path, deep: bool) -> list[str]:
    """Use a distribution that is installed; return what was done."""
    reid = (python, "-m", "reidcore")
    if one.name == "reidcore":
        run(*reid, *DEMO, cwd=folder)
        return ["demo trained"]
    if not one.plugin:
        return []
    run(*reid, "plugins", one.plugin, cwd=folder)
    if not deep:
        return ["found"]
    run(python, "-m", "reidcore", "test-plugin", one.plugin, cwd=folder)
    return ["conformance"]


def has(python: str) -> bool:
    """Return whether this machine has a Python of this version, without fetching one."""
    line = ["uv", "python", "find", "--no-python-downloads", "--system", python]
    return subprocess.run(line, capture_output=True).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, help="an empty folder for wheels and sdists")
    parser.add_argument("--tag", default="", help="the git tag, which must name the version")
    parser.add_argument("--python", nargs="+", default=[], help="Pythons, or paths of them")
    parser.add_argument("--bounds", choices=[*BOUNDS, "both"], default="newest")
    parser.add_argument("--only", nargs="+", default=[], help="distributions to install")
    parser.add_argument("--conformance", action="store_true", help="run `reid test-plugin` too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.output or Path(scratch)).resolve()
        try:
            found = build(folder)
            look(found, options.tag)
        except Wrong as error:
            print(error, file=sys.stderr)
            return 1
        size = sum(one.wheel.stat().st_size for one in found) / 1024
        version = found[0].metadata["Version"]
        print(f"{len(found)} wheels and sdists of {version}, {size:.0f} KiB of wheels", flush=True)
        return try_all(found, options)


def try_all(found: list[Distribution], options: argparse.Namespace) -> int:
    """Install what the options ask for, with a line for each; return the exit code."""
    (core,) = [one for one in found if one.name == "reidcore"]
    chosen = [one for one in found if not options.only or one.name in options.only]
    bounds = list(BOUNDS) if options.bounds == "both" else [options.bounds]
    failed = 0
    for python in options.python:
        for bound in bounds:
            for one in chosen:
                start = time.monotonic()
                try:
                    said = install(one, core, python, bound, options.conformance)
                except Wrong as error:
                    said, failed = f"FAILED\n{error}", failed + 1
                took = time.monotonic() - start
                print(f"{python:5} {bound:7} {one.name:28} {took:5.0f} s  {said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
