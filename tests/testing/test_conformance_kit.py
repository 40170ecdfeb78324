"""The conformance kit catches what it is there for, by name."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import bad_parts
import pytest
from distributions import FINE, write_distribution
from running import environment, reid

from reidcore.cli.main import main
from reidcore.plugins.loading import Plugins
from reidcore.testing import (
    ConformanceError,
    NotChecked,
    check_plugin,
    checks,
    iter_checks,
    packages,
)
from reidcore.testing import failures as failures_module
from reidcore.testing.checks import CHECKS

DRY = {"sample runs dry"}
ORDER = {"order follows from the generator"}
CHANGE = {"change follows from the generator"}
MOVES = "moves with the model"
CAUGHT = {
    "head bad.too_long": (
        DRY,
        "declared as vector 64 for each picture, but 6 pictures give [6, 65]",
    ),
    "head bad.one_size": ({"outputs are as declared"}, "output 'rows' is [6, 6]"),
    "head bad.picky": (set(), ""),
    "head bad.sideways": ({"outputs are as declared"}, "'turned' is [6, 64, 8, 6]"),
    "head bad.forgetful": ({MOVES}, "neither a parameter nor a buffer"),
    "head bad.mixing": ({"pictures do not mix"}, "alone and in a batch of 5 differ by up to"),
    "head bad.blending": ({"pictures do not mix"}, "alone and in a batch of 5 differ by up to"),
    "head bad.narrow": ({"computes in float64"}, "pictures and features is torch.float32"),
    "head bad.unreached": ({"every parameter gets a gradient"}, "no gradient reaches spare"),
    "head bad.stuck": ({MOVES}, "scales is a tensor [1] that is neither a parameter nor a buffer"),
    "head bad.undocumented": ({"settings are documented"}, "setting 'depth' has no doc"),
    "head bad.without_sample": (DRY, "has no sample"),
    "head bad.broken": (DRY, "forward failed: RuntimeError: "),
    "head bad.bare": (DRY, "forward returned a Tensor, expected a dictionary of tensors"),
    "head bad.listed": (DRY, "output 'vector' is a list, expected a tensor"),
    "head bad.returnless": (DRY, "building it failed: bad_torch:returnless returned nothing"),
    "head bad.misnamed": (DRY, "has no attribute 'sidewise', did you mean 'sideways'?"),
    "head bad.leaving": (DRY, "forward failed: SystemExit: 5, at bad_torch.py:"),
    "head bad.thawed": ({"settings are frozen"}, "the setting 'source' of ThawedHead can be"),
    "head bad.restless": ({"settings are frozen"}, "'source' of RestlessHead can be changed"),
    "head bad.growing": (DRY, "changed the setting 'sizes' from [1] to [1, 2]"),
    "head bad.doubling": (DRY, "changed the setting 'depth' from 3 to 6"),
    "head bad.spoiled": (DRY, "changed the setting 'depth' from 1 to 7"),
    "head bad.silent": (DRY, "it returned None, not {name: Feature}"),
    "head bad.half": (DRY, "not {name: Feature} with whole numbers"),
    "head bad.elsewhere": (DRY, "does not use it"),
    "loss bad.counting": ({"forward changes nothing"}, "forward changes loss_loss_of.seen"),
    "loss bad.overwriting": ({"forward changes nothing"}, "overwrites"),
    "loss bad.moving": ({"forward changes nothing"}, "forward changes loss_loss_of.calls"),
    "matcher bad.batchwise": (
        {"tiles give the whole"},
        "must not depend on which others",
    ),
    "matcher bad.greedy": ({"takes an empty gallery"}, "takes an empty gallery: RuntimeError"),
    "matcher bad.negative": (
        DRY,
        "distance is negative",
    ),
    "matcher bad.beside_broken": (set(), ""),
    "matcher bad.beside_misnamed": (set(), ""),
    "matcher bad.beside_narrow": (set(), ""),
    "matcher bad.detached": ({"distances have a gradient"}, "distances have no gradient"),
    "matcher bad.lopsided": ({"distances keep their promises"}, "declared symmetric"),
    "matcher bad.one_way": ({"distances keep their promises"}, "declared symmetric"),
    "postprocessor bad.late": ({"changes only the distances"}, "it changes query.time"),
    "postprocessor bad.first_wins": ({"follows the gallery's order"}, "in another order"),
    "postprocessor bad.undecided": (DRY, "check() of reid-plugin-bad 0 failed: it returned None"),
    "postprocessor bad.unnamed": (
        {"names a missing column"},
        "'needs something that is not there', which does not name it",
    ),
    "postprocessor bad.beyond": ({"changes only the distances"}, "promises [0, 1], but gives 1"),
    "postprocessor bad.averaging": (
        {"takes scored pairs alone into account"},
        "leave out what ranking.scored(start, stop) does not name",
    ),
    "postprocessor bad.voting": (
        {"takes scored pairs alone into account", "follows the gallery's order"},
        "distances of scored pairs differ by up to",
    ),
    "postprocessor bad.modest": (set(), ""),
    "postprocessor bad.masking": (set(), ""),
    "postprocessor bad.turned": (DRY, "returned torch.float32 [5, 4] for float32 [4, 5] distances"),
    "sampler bad.careless": (ORDER, "it draws from torch's global generator"),
    "sampler bad.shuffled": (ORDER, "it draws from NumPy's global generator"),
    "sampler bad.of_its_own": (ORDER, "another order at another time"),
    "sampler bad.remembering": (ORDER, "another epoch before it"),
    "sampler bad.crossed": (ORDER, "declared are 2 identities in a batch, but one has [3]"),
    "sampler bad.wrong_size": (ORDER, "but one has [3]"),
    "sampler bad.shapeless": (DRY, "batch() of reid-plugin-bad 0 failed: it returned None"),
    "augmentation bad.moody": (CHANGE, "it draws from torch's global generator"),
    "augmentation bad.rare": (CHANGE, "it draws from NumPy's global generator"),
    "augmentation bad.rarer": (CHANGE, "it draws from Python's global generator"),
    "augmentation bad.own_dice": (CHANGE, "gives another picture"),
    "augmentation bad.keeping": (CHANGE, "gives another picture"),
    "augmentation bad.scaled": (CHANGE, "becomes torch.float32"),
    "reader bad.miscounted": (
        {"facts fit the rows"},
        "counts are declared as {'train': 9}, but the rows have {'train': 8}",
    ),
    "reader bad.absent": (set(), ""),
    "reader bad.factless": (DRY, "facts() of bad.factless failed: it returned {'identities': "),
    "reader bad.rowless": (DRY, "rows() of bad.rowless failed: it returned None, not a list"),
    "reader bad.misspelt": (DRY, "split of a Row is 'Train', did you mean 'train'?"),
    "reader bad.relative": (
        {"facts fit the rows"},
        "24 paths are relative, such as '00.jpg'; begin them with root, which is absolute",
    ),
    "reader bad.numbered": (
        DRY,
        "camera of a Row is 1, expected text; write str(camera), at bad_parts.py:",
    ),
}
"""Component -> the checks it fails, and what one of them says."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{component: {check: text}} of everything that fails in the plugin `bad`, and that is
    skipped."""
    base = tmp_path_factory.mktemp("bad")
    (base / "pictures").mkdir()
    for number in range(24):
        (base / "pictures" / f"{number:02}.jpg").touch()
    plugins = Plugins([])
    plugins.add("bad", bad_parts.Plugin())
    found: dict[str, dict[str, str]] = {}
    skipped: dict[str, dict[str, str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REID_DATA", str(base))
        patch.setenv("REID_CACHE", str(base / "cache"))
        for check in iter_checks("bad", plugins):
            component, _, text = str(check).partition(": ")
            found.setdefault(component, {})
            try:
                check()
            except ConformanceError as error:
                found[component][text] = str(error)
            except NotChecked as error:
                assert str(error).startswith(f"{component}: ")
                skipped.setdefault(component, {})[text] = str(error)
    return found, skipped


@pytest.fixture(scope="module")
def failures(results):
    return results[0]


def test_what_follows_from_a_failure_is_not_judged(results):
    """And says from which: of the component itself, or of another one in its sample."""
    failures, skipped = results
    for texts in skipped.values():
        for text in texts.values():
            if "its data are not there" in text:
                continue
            other, _, missed = text.partition("because this fails: ")[2].partition(": ")
            assert missed in failures[other], text
    assert len(skipped["head bad.broken"]) == len(CHECKS["head"]) - 3
    beside = set(skipped["matcher bad.beside_broken"].values())
    assert all(text.endswith("head bad.broken: sample runs dry") for text in beside)


def test_absent_data_are_told(results):
    """What cannot be looked at is skipped, with the folder that is missing."""
    (text,) = results[1]["reader bad.absent"].values()
    assert "facts fit the rows: its data are not there: /" in text and "/nowhere;" in text


def test_errors_have_the_line_of_the_authors_code(failures):
    """In bad_torch, where the exception arose."""
    (text,) = failures["head bad.broken"].values()
    place = re.search(r", at bad_torch\.py:(\d+) \(reid-plugin-bad 0\)", text)
    assert place, text
    source = Path(bad_parts.__file__).with_name("bad_torch.py").read_text().splitlines()
    assert "@ torch.ones(3, 3)" in source[int(place[1]) - 1]


@pytest.mark.parametrize("component", CAUGHT)
def test_each_violation_is_caught_by_name(failures, component):
    """A component with one fault fails the checks of that fault and no others."""
    checks, words = CAUGHT[component]
    assert set(failures[component]) == checks, failures[component]
    assert words in "\n".join(failures[component].values())
    assert all(text.startswith(f"{component}: ") for text in failures[component].values())


def test_every_component_is_checked(failures):
    """The kit goes through all components of the plugin."""
    assert set(failures) == set(CAUGHT)


@pytest.mark.parametrize("module", [checks, failures_module], ids=lambda one: one.__name__)
def test_the_examples_are_true(module):
    assert doctest.testmod(module).failed == 0


def test_check_plugin_lists_every_failure():
    """`check_plugin` raises one error with all failed checks."""

    class Two:
        __name__ = "bad_parts"
        reid_augmentations = bad_parts.Plugin.reid_augmentations

    plugins = Plugins([])
    plugins.add("bad", Two())
    with pytest.raises(ConformanceError) as caught:
        check_plugin("bad", plugins)
    assert len(caught.value.failures) == 6
    assert "augmentation bad.moody" in str(caught.value)
    assert "augmentation bad.scaled" in str(caught.value)


def test_known_failures_must_fail(monkeypatch, tmp_path):
    """One with a reason is silent; one that holds is told; one that there is not is refused."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path))
    plugins = Plugins([])
    plugins.add("bad", bad_parts.Plugin())
    failing = "head bad.undocumented: settings are documented"
    holding = "head bad.picky: settings are documented"
    known = {failing: "the setting goes away", holding: "it was like this"}
    found = {check.name: check for check in iter_checks("bad", plugins, known)}
    found[failing]()
    with pytest.raises(ConformanceError) as caught:
        found[holding]()
    assert str(caught.value) == (
        f"{holding}: it holds, though it is known to fail (it was like this); take it off the list"
    )
    with pytest.raises(ValueError, match=r"bad has no check 'head bad\.gone: sample runs dry'"):
        iter_checks("bad", plugins, {"head bad.gone: sample runs dry": "gone"})


def test_a_report_without_pytest(capsys):
    """Every check has its line; what is not there is told."""
    assert main(["test-plugin", "core", "--only", "augmentation core.flip"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "augmentation core.flip" and lines[-1] == "4 checks, 0 failed"
    assert all(line.startswith("  ok     ") for line in lines[1:-1])
    assert main(["test-plugin", "core", "--only", "flop"]) == 2
    assert "no check of core has 'flop' in its name" in capsys.readouterr().err
    assert main(["test-plugin", "cour"]) == 2
    assert "did you mean 'core'" in capsys.readouterr().err


def test_a_report_of_failures(tmp_path):
    """What fails is told below its line, and the exit code says so; with where, if asked for."""
    write_distribution(tmp_path, "loud", FINE.replace("reid_loud", "loud"), requires=["reidcore"])
    env = environment(tmp_path / "cache", tmp_path)
    printed = reid(env, tmp_path, "test-plugin", "loud", code=3).stdout
    assert "  FAILED packaging" in printed
    assert "         it requires reidcore, expected reidcore>=1.x,<2" in printed
    assert "  skip   outputs are as declared" in printed and "8 failed" not in printed
    assert "Traceback" not in printed
    one = ["test-plugin", "loud", "--only", "stripes: sample runs"]
    shown = reid(env, tmp_path, "--traceback", *one, code=3).stdout
    assert "Traceback" in shown and "in sample_runs_dry" in shown


@pytest.fixture
def package_failures(tmp_path, monkeypatch):
    """Installs a distribution and gives {check: text} of its failed package checks."""

    def install(name, plugin=FINE, **how):
        write_distribution(tmp_path, name, plugin, **how)
        monkeypatch.syspath_prepend(str(tmp_path))
        found = {}
        for check in iter_checks(name):
            component, _, text = str(check).partition(": ")
            if component == name:
                try:
                    check()
                except ConformanceError as error:
                    found[text] = str(error)
                except NotChecked:
                    pass
        return found

    return install


def test_a_fine_distribution_passes(package_failures):
    """A distribution with the right names, version range and imports fails no package check."""
    assert package_failures("kitfine", requires=["reidcore>=1.2,<2"]) == {}


def test_a_plugin_module_that_imports_torch_is_caught(package_failures):
    """The check names the module and what it imports, torch being loaded here already."""
    found = package_failures("kittorch", FINE + "\nimport torch\n", requires=["reidcore<2,>=1.0"])
    assert list(found) == ["plugin module imports no torch"]
    assert "importing reid_kittorch.plugin imports torch" in found["plugin module imports no torch"]


def test_private_imports_are_caught(package_failures):
    """An import of another module of the core is shown with file and line."""
    found = package_failures(
        "kitprivate",
        requires=["reidcore>=1.0,<2"],
        files={
            "parts.py": "from reidcore import api\n\n"
            "def late():\n    import reidcore.wiring.make_plan\n"
        },
    )
    (text,) = found.values()
    assert "parts.py:4 imports reidcore.wiring.make_plan" in text
    assert "reidcore.api" not in text.partition("Public are")[0]


@pytest.mark.parametrize("requires", [["reidcore"], ["reidcore>=1.0"], ["reidcore<2"], []])
def test_open_version_ranges_are_caught(package_failures, requires):
    """A distribution must name the API it was made for."""
    name = f"kitrange{len(requires)}{''.join(filter(str.isdigit, ''.join(requires)))}"
    (text,) = package_failures(name, requires=requires).values()
    assert "expected reidcore>=1.x,<2" in text


def test_slow_imports_are_caught(package_failures, monkeypatch):
    """Where the time goes is told; a fast one passes, whatever it prints."""
    monkeypatch.setattr(packages, "SLOWEST", 0.4)
    asks = {"requires": ["reidcore>=1.0,<2"]}
    files = {"slow.py": "import time\ntime.sleep(0.5)\n"}
    found = package_failures("kitslow", f"{FINE}\nimport reid_kitslow.slow\n", files=files, **asks)
    assert list(found) == ["plugin module imports quickly"]
    assert "0.5 s of it the code of reid_kitslow.slow" in found["plugin module imports quickly"]
    assert package_failures("kitloud", f"{FINE}\nprint('here', 3.5)\n", **asks) == {}


def test_foreign_names_are_caught(package_failures):
    """Distribution and package are named after the plugin."""
    found = package_failures(
        "kitnames", distribution="nice-plugin", package="nice_kit", requires=["reidcore>=1.0,<2"]
    )
    assert "expected reid-plugin-kitnames" in found["packaging"]
    assert "expected reid_kitnames" in found["packaging"]
