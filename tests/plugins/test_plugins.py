"""Plugins as users meet them: really installed, sound and unsound ones side by side."""

from __future__ import annotations

import re
import sys

import pytest
from distributions import FINE, python, write_distribution

from reidcore import hookspecs
from reidcore.api import how_to_install
from reidcore.errors import PluginError, UsageError
from reidcore.plugins.finding import CORE, find_plugins
from reidcore.plugins.loading import Plugins
from reidcore.plugins.registration import Found, build_function
from reidcore.version import __version__


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on sys.path; what is imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


class TestFinding:
    def test_metadata_only(self, site):
        """Finding a plugin reads name, version and requirement and imports nothing."""
        asked = ["attrs>=20", "reidcore (>=1.2)", "reidcore[x]; extra == 'test'"]
        write_distribution(site, "fine", version="0.3.0", requires=asked)
        assert [one for one in find_plugins() if one.name == "fine"] == [
            Found(
                "fine",
                "reid_fine.plugin",
                "reid-plugin-fine",
                "0.3.0",
                "reidcore.plugins.v1",
                ("reidcore>=1.2",),
            )
        ]
        assert "reid_fine" not in sys.modules

    def test_core_is_always_found(self):
        """The built-in plugin needs no installation."""
        assert CORE in find_plugins()
        assert Plugins(found=[]).names() == ["core"]

    def test_order_does_not_depend_on_installation(self, site):
        """Plugins are sorted by name whatever the order in which they were written."""
        for name in ("zeta", "alpha", "mid"):
            write_distribution(site, name)
        names = [one.name for one in find_plugins() if one.value.startswith("reid_")]
        assert names == sorted(names)

    def test_copies_of_one_distribution_are_one_plugin(self, site, tmp_path, monkeypatch):
        """A distribution that is on sys.path twice is no twin of itself."""
        write_distribution(site, "fine")
        second = tmp_path / "second"
        write_distribution(second, "fine")
        monkeypatch.syspath_prepend(str(second))
        assert Plugins().status("fine").state == "ok"

    def test_both_api_versions_in_one_distribution(self, site):
        """A distribution that also serves a later core is used with this core's version."""
        groups = ("reidcore.plugins.v2", "reidcore.plugins.v1")
        write_distribution(site, "both", groups=groups)
        loaded = Plugins().load("both")
        assert loaded.found.group == hookspecs.GROUP


class TestLoading:
    def test_only_what_is_asked_for_is_imported(self, site):
        """Loading one plugin leaves the others, and the core's own, unimported."""
        write_distribution(site, "asked")
        write_distribution(site, "other")
        code = (
            "import sys; from reidcore.plugins.loading import Plugins\n"
            "Plugins().component('head', 'asked.stripes')\n"
            "print([n for n in ('reid_asked.plugin', 'reid_other', 'reidcore.builtin.plugin',"
            " 'torch', 'numpy') if n in sys.modules])"
        )
        done = python(site, "-c", code)
        assert done.stdout == "['reid_asked.plugin']\n", done.stderr

    def test_broken_import(self, site):
        """The message names distribution, module, error and the core that the plugin asks for."""
        write_distribution(
            site,
            "unsound",
            "from reidcore.api import no_such_thing",
            version="0.3.0",
            requires=["reidcore>=1.2"],
        )
        with pytest.raises(PluginError) as caught:
            Plugins().load("unsound")
        text = str(caught.value)
        assert text.startswith(
            "plugin unsound (reid-plugin-unsound 0.3.0) could not be loaded from "
            "reid_unsound.plugin: ImportError: cannot import name 'no_such_thing'"
        )
        assert text.endswith(
            ", at reid_unsound/plugin.py:1. It asks for 'reidcore>=1.2'; this is reidcore "
            f"{__version__}."
        )
        assert isinstance(caught.value.__cause__, ImportError)

    def test_too_new(self, site):
        """A plugin for a later API is refused from its metadata, without an import."""
        write_distribution(site, "future", version="2.0.0", groups=["reidcore.plugins.v2"])
        with pytest.raises(PluginError) as caught:
            Plugins().load("future")
        assert str(caught.value) == (
            "plugin future (reid-plugin-future 2.0.0) speaks 'reidcore.plugins.v2'; "
            "this core speaks 'reidcore.plugins.v1'. Upgrade one of them."
        )
        assert "reid_future" not in sys.modules

    def test_twin(self, site):
        """A name that two distributions claim belongs to neither of them."""
        for letter in "BA":
            distribution, package = f"reid-plugin-twin{letter}", f"reid_twin{letter}"
            write_distribution(site, "twin", distribution=distribution, package=package)
        with pytest.raises(PluginError) as caught:
            Plugins().load("twin")
        assert str(caught.value) == (
            "plugin name 'twin' is claimed by reid-plugin-twinA and by reid-plugin-twinB; "
            "uninstall one."
        )
        assert not {"reid_twinA", "reid_twinB"} & set(sys.modules)

    def test_core_cannot_be_claimed(self, site):
        """Another distribution's `core` is an error row and the built-in plugin stays usable."""
        write_distribution(site, "core", distribution="reid-plugin-evil", package="reid_evil")
        plugins = Plugins()
        assert [one.state for one in plugins.rows() if one.name == "core"] == ["ok", "twin"]
        assert plugins.load("core").found == CORE
        assert "reid_evil" not in sys.modules

    def test_exit_at_import(self, site):
        """A plugin that exits at import is broken like any other and ends nothing."""
        write_distribution(site, "leaver", "import sys; sys.exit(7)")
        status = Plugins().status("leaver")
        assert status.state == "broken"
        assert "could not be loaded from reid_leaver.plugin: SystemExit: 7, at " in status.message

    @pytest.mark.parametrize(
        ("asked", "plugin", "said"),
        [
            ("reidcore>=1.0,<2", "1 / 0", False),
            ("reidcore<2,>=1.0", "import reid_nowhere", False),
            ("reidcore==1.*,!=1.0.9", "1 / 0", False),
            ("reidcore~=1.0", "1 / 0", False),
            ("reidcore @ file:///somewhere", "1 / 0", False),
            ("reidcore~=1.4", "1 / 0", True),
            ("reidcore==0.9", "1 / 0", True),
            ("reidcore>=0.1,<1", "import reid_nowhere", True),
            ("reidcore>1", "from reidcore.api import no_such_thing", True),
            ("reidcore>=1.0,<2", "from reidcore.api import no_such_thing", True),
            ("reidcore>=1.0,<2", "import reidcore.no_such_thing", True),
            ("reidcore>=1.0,<2", FINE.replace("reid_heads", "reid_heds"), True),
        ],
    )
    def test_the_core_that_is_asked_for_is_said_where_it_may_be_the_cause(
        self, site, asked, plugin, said
    ):
        """It is not met, or the plugin looked for what this core lacks; not otherwise."""
        name = f"asker{sum(map(ord, asked + plugin))}"
        write_distribution(site, name, plugin, requires=[asked])
        status = Plugins().status(name)
        assert status.state == "broken"
        assert ("It asks for 'reidcore" in status.message) == said, status.message

    @pytest.mark.parametrize(
        ("plugin", "said"),
        [
            (
                "class Mute(BaseException):\n    def __str__(self):\n        raise KeyError\n"
                "raise Mute",
                "reid_NAME.plugin: Mute, at reid_NAME/plugin.py:4.",
            ),
            ("raise GeneratorExit", "GeneratorExit, at reid_NAME/plugin.py:1."),
            ("raise SystemExit({'a': 1})", "SystemExit: {'a': 1}, at reid_NAME/plugin.py:1."),
            ("raise ValueError('y' * 10**5)", "yyyy, at reid_NAME/plugin.py:1."),
            ("def f():\n    f()\nf()", "RecursionError: "),
            ("def __dir__():\n    raise SystemExit(2)", "SystemExit: 2, at reid_NAME/plugin.py:2."),
            (
                "from reidcore.api import hookimpl\nclass L(list):\n    def __iter__(self):\n"
                "        raise SystemExit(4)\n@hookimpl\ndef reid_heads():\n    return L([1])",
                "SystemExit: 4, at reid_NAME/plugin.py:4.",
            ),
        ],
        ids=["mute", "generator", "exit", "long", "recursion", "dir", "list"],
    )
    def test_whatever_is_raised_is_a_row(self, site, request, plugin, said):
        """Of fair length, with where it came from."""
        name = request.node.callspec.id
        write_distribution(site, name, plugin)
        status = Plugins().status(name)
        assert status.state == "broken" and len(status.message) < 1000
        assert said.replace("NAME", name) in status.message

    @pytest.mark.parametrize(
        ("entry", "name", "said"),
        [
            ("odd =", "odd", "its entry point 'odd' names no module"),
            ("o d = reid_odd.plugin", "o d", "has a name that does not match"),
            ("odd.x = reid_odd.plugin", "odd.x", "has a name that does not match"),
            ("odd = reid odd.plugin", "odd", "No module named 'reid odd'"),
            ("odd = .plugin", "odd", "could not be loaded from .plugin"),
            ("odd = reid_odd.plugin\nodd = reid_odd.other", "odd", "is declared twice"),
            ("odd = reid_odd.plugin [extra]", "odd", ""),
        ],
    )
    def test_odd_entry_points_are_rows(self, site, entry, name, said):
        write_distribution(site, "odd")
        path = site / "reid_plugin_odd-0.1.0.dist-info" / "entry_points.txt"
        path.write_text(f"[reidcore.plugins.v1]\n{entry}\n")
        (row,) = [row for row in Plugins().rows() if row.name == name]
        assert said in row.message and row.state == ("broken" if said else "ok")

    def test_keyboard_interrupt(self, site):
        """The user can interrupt a plugin's import."""
        write_distribution(site, "interrupted", "raise KeyboardInterrupt")
        with pytest.raises(KeyboardInterrupt):
            Plugins().status("interrupted")

    def test_what_it_prints_at_import_is_not_output(self, site):
        """Output that is read by programs stays what it is; the text goes where errors go."""
        write_distribution(site, "loud", f"{FINE}\nprint('good morning')\n")
        done = python(site, "-m", "reidcore", "plugins", "loud")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("loud: reid-plugin-loud 0.1.0")
        assert "good morning" in done.stderr and "good morning" not in done.stdout

    def test_a_slow_import_is_told(self, site):
        """The listing of a plugin says how long it has waited for it."""
        write_distribution(site, "sleepy", f"{FINE}\nimport time\ntime.sleep(0.6)\n")
        write_distribution(site, "awake", FINE)
        shown = python(site, "-m", "reidcore", "plugins", "sleepy").stdout
        assert re.search(r"note: importing this plugin takes \d+\.\d s", shown)
        assert (
            "importing this plugin" not in python(site, "-m", "reidcore", "plugins", "awake").stdout
        )

    def test_torch_at_import_is_recorded(self, site):
        """A plugin module that imports torch works, and the fact is kept for the kit."""
        (site / "torch.py").write_text("")
        write_distribution(site, "fine")
        write_distribution(site, "heavy", f"{FINE}\nimport torch\n")
        code = (
            "from reidcore.plugins.loading import Plugins; plugins = Plugins()\n"
            "print(*(plugins.load(name).imports_torch for name in ('fine', 'heavy')))"
        )
        done = python(site, "-c", code)
        assert done.stdout == "False True\n", done.stderr

    def test_missing(self, site):
        """An unknown plugin is the user's mistake: nearest name, installed names, installation."""
        write_distribution(site, "qaconv")
        with pytest.raises(UsageError) as caught:
            Plugins([one for one in find_plugins() if one.name == "qaconv"]).load("qaconf")
        assert caught.value.exit_code == 2
        assert str(caught.value) == (
            "plugin 'qaconf' is not installed, did you mean 'qaconv'? Installed plugins: core, "
            f"qaconv. To install it: {how_to_install('reid-plugin-qaconf')}"
        )

    def test_name_that_no_run_file_could_use(self, site):
        """An entry-point name with a dot would make full names ambiguous."""
        write_distribution(site, "my.plugin", package="reid_mine")
        assert "does not match [a-z][a-z0-9_]*." in Plugins().status("my.plugin").message


class TestBuildFunction:
    def test_imported_late(self, site):
        """The named function is imported when it is asked for, not before."""
        code = "def build(config, context): return (config, context)"
        write_distribution(site, "fine", files={"parts.py": code})
        stripes = Plugins().component("head", "fine.stripes")
        assert "reid_fine.parts" not in sys.modules
        assert build_function(stripes)("config", "context") == ("config", "context")

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            ("import no_such_module", "could not be imported: ModuleNotFoundError: No module"),
            ("", "could not be imported: AttributeError: "),
            ("build = 3", "cannot be called: it is an int."),
        ],
    )
    def test_broken(self, site, code, words):
        """A function that cannot be had is an error that names its component and distribution."""
        write_distribution(site, "fine", files={"parts.py": code})
        stripes = Plugins().component("head", "fine.stripes")
        with pytest.raises(PluginError) as caught:
            build_function(stripes)
        start = (
            "head 'stripes' (fine.stripes) of plugin fine (reid-plugin-fine 0.1.0) names the "
            "function 'reid_fine.parts:build', which "
        )
        assert str(caught.value).startswith(start + words)
