"""What is published: one version for all, and a check of built files that sees what is wrong."""

from __future__ import annotations

import importlib.util
import re
import sys
import tarfile
import tomllib
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from distributions import ROOT, install_built

from reidcore.version import __version__

PROJECTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


def script(path: str):
    """A script of the repository as a module."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def packages():
    return script(".ci/packages.py")


@pytest.fixture(scope="module")
def licences():
    return script("docs/licences.py")


def project_of(folder: Path) -> dict:
    """The table [project] of a folder's pyproject.toml."""
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def write_wheel(folder: Path, *files: str, sdist: tuple[str, ...] = ()) -> Path:
    """A wheel and, if it has files, an sdist of the distribution `made` 1.2."""
    wheel = folder / "made-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in ("made/__init__.py", "made-1.2.dist-info/WHEEL", *files):
            archive.writestr(file, "")
        lines = "Name: made\nVersion: 1.2\nRequires-Dist: numpy>=1\n"
        more = 'Requires-Dist: scipy>=1; extra == "mat"\n'
        archive.writestr("made-1.2.dist-info/METADATA", lines + more)
    if sdist:
        with tarfile.open(folder / "made-1.2.tar.gz", "w:gz") as archive:
            for file in sdist:
                archive.addfile(tarfile.TarInfo(f"made-1.2/{file}"), BytesIO())
    return wheel


WHOLE = ("LICENSE", "README.md", "pyproject.toml", "PKG-INFO")
LICENCE = "made-1.2.dist-info/licenses/LICENSE"


class TestVersion:
    @pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
    def test_it_stands_in_one_place(self, project):
        """A number in a pyproject.toml would part from the core's at the next release."""
        table = tomllib.loads((project / "pyproject.toml").read_text())
        assert table["project"].get("dynamic") == ["version"]
        named = (project / table["tool"]["hatch"]["version"]["path"]).resolve()
        assert named == ROOT / "reidcore" / "version.py"

    def test_a_plugin_is_built_with_it(self, tmp_path):
        install_built(ROOT / "plugins" / "tune", tmp_path)
        assert (tmp_path / f"reid_plugin_tune-{__version__}.dist-info").is_dir()


class TestMetadata:
    def test_every_project_declares_the_same(self):
        """An index lists a distribution by these; one that lacks them is not found."""
        core, *plugins = (project_of(path) for path in PROJECTS)
        for plugin in plugins:
            name = plugin["name"]
            for key in ("license", "readme", "requires-python"):
                assert plugin[key] == core[key], (name, key)
            assert set(plugin["classifiers"]) == set(core["classifiers"]), name
            assert plugin["description"] and "re-identification" in plugin["keywords"], name

    @pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
    def test_types_are_shipped(self, project):
        """Without the file a user's type checker takes all that a package gives for `Any`."""
        table = tomllib.loads((project / "pyproject.toml").read_text())
        (package,) = table["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
        assert (project / package / "py.typed").is_file()

    def test_python_versions_are_those_that_are_tested(self):
        tested = re.findall(r"python: \[(.*)\]", (ROOT / ".github/workflows/tests.yml").read_text())
        versions = {tuple(re.findall(r"3\.\d+", one)) for one in tested}
        named = project_of(ROOT)["classifiers"]
        assert versions == {tuple(one.split(" :: ")[2] for one in named if ":: 3." in one)}

    def test_a_package_has_one_lower_bound(self):
        """A plugin that admits an older one than the core promises what nobody can install."""
        bounds: dict[str, set[str]] = {}
        for path in PROJECTS:
            project = project_of(path)
            extras = project.get("optional-dependencies", {}).values()
            for line in (*project["dependencies"], *(one for extra in extras for one in extra)):
                name, bound = re.fullmatch(r"([\w-]+)(?:\[\w+\])?(.*)", line).groups()
                bounds.setdefault(name, set()).add(bound.removesuffix(",<2"))
        assert {name for name, found in bounds.items() if len(found) > 1} == set()
        assert all(bound.startswith(">=") for found in bounds.values() for bound in found)


class TestLook:
    def test_a_whole_distribution_passes(self, packages, tmp_path):
        made = packages.read(write_wheel(tmp_path, LICENCE, sdist=WHOLE))
        assert packages.problems(made) == []
        assert made.packages == ["made"]
        assert made.requires == ["numpy>=1"]

    def test_every_lack_is_told(self, packages, tmp_path):
        made = packages.read(write_wheel(tmp_path, "made/tests/test_a.py", sdist=WHOLE[1:]))
        assert packages.problems(made) == [
            "the wheel has no LICENSE",
            "the wheel has made/tests/test_a.py",
            "the sdist has no LICENSE",
        ]

    def test_a_missing_sdist_is_told(self, packages, tmp_path):
        assert packages.problems(packages.read(write_wheel(tmp_path, LICENCE))) == ["no sdist"]

    def test_a_tag_of_another_version_is_told(self, packages, tmp_path):
        made = packages.read(write_wheel(tmp_path, LICENCE, sdist=WHOLE))
        with pytest.raises(packages.Wrong) as caught:
            packages.look([made] * len(PROJECTS), "v1.3")
        assert str(caught.value) == "the tag is v1.3, reidcore/version.py says 1.2"

    def test_a_project_that_was_not_built_is_told(self, packages, tmp_path):
        made = packages.read(write_wheel(tmp_path, LICENCE, sdist=WHOLE))
        with pytest.raises(packages.Wrong, match=f"{len(PROJECTS)} projects, but 1 wheels"):
            packages.look([made], "")


class TestLicences:
    def test_every_dependency_is_on_the_page(self, licences):
        """Run `uv run --all-groups python docs/licences.py` where this fails."""
        text = licences.PAGE.read_text(encoding="utf-8")
        lacking = [name for name in licences.direct() if f"| {name} | " not in text]
        assert not lacking

    def test_licences_are_those_of_the_metadata(self, licences):
        assert licences.licence("pluggy") == "MIT"
        assert licences.licence("numpy").startswith("BSD-3-Clause")

    def test_what_is_not_installed_is_told(self, licences):
        with pytest.raises(LookupError, match="no-such-package is not installed; run this with"):
            licences.licence("no-such-package")

    def test_dependencies_of_dependencies_are_found(self, licences):
        """jinja2 brings markupsafe; what only pluggy's tests need is not listed."""
        assert licences.indirect(["jinja2", "pluggy"]) == ["markupsafe"]
