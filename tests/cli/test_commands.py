"""Commands of `reid`: the core's own and those of installed plugins."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest
from distributions import ROOT, python, reid, write_distribution

from reidcore.api import Command, hookimpl, how_to_install
from reidcore.cli.commands import COMMANDS, CORE_NAMES, ELSEWHERE, find_command
from reidcore.cli.main import main
from reidcore.errors import DataError, PluginError, UsageError
from reidcore.plugins.loading import Plugins

PLUGIN = """
from reidcore.api import Command, hookimpl

@hookimpl
def reid_commands():
    return [Command("NAME", "PACKAGE.count:add", "count what is given")]
"""
COUNT = """
import sys
print("count is imported", file=sys.stderr)
from reidcore.errors import DataError

def add(parser):
    parser.description = "Count words, and fail on demand."
    parser.add_argument("words", nargs="*")
    parser.add_argument("--fail", choices=["told", "bug", "code"])
    return run

def run(options):
    if options.fail == "told":
        raise DataError("the words are damaged")
    if options.fail == "bug":
        raise ZeroDivisionError("nobody thought of this")
    print(len(options.words), "words")
    return 7 if options.fail == "code" else 0
"""


def install(site, plugin: str, command: str) -> None:
    """A plugin with one command, installed into the folder `site`."""
    text = PLUGIN.replace("NAME", command)
    write_distribution(site, plugin, text, files={"count.py": COUNT})


@pytest.fixture
def site(tmp_path):
    """An environment with the plugin `words` and its command `count`."""
    install(tmp_path, "words", "count")
    return tmp_path


def test_a_plugins_command_runs(site):
    """It gets its options, prints, and its number is the exit code."""
    done = reid(site, "count", "one", "two")
    assert (done.returncode, done.stdout) == (0, "2 words\n")
    assert reid(site, "count", "one", "--fail", "code").returncode == 7


def test_its_help_is_its_own(site):
    """`reid count --help` shows what the plugin says of it, and a wrong option is refused."""
    shown = reid(site, "count", "--help").stdout
    assert shown.startswith("usage: reid count ") and "Count words, and fail on demand." in shown
    done = reid(site, "count", "--nonsense")
    assert done.returncode == 2 and "usage: reid count" in done.stderr


def test_help_groups_commands_by_who_brings_them(site):
    """The core's stand first, a plugin's below its distribution; their modules stay unimported."""
    done = reid(site, "--help")
    assert done.returncode == 0 and done.stderr == ""
    core, _, others = done.stdout.partition("commands of ")
    for command in COMMANDS:
        assert f"\n  {command.name} " in core and command.summary in core
    _, _, words = f"commands of {others}".partition("commands of words (reid-plugin-words):\n")
    assert words.splitlines()[0].split() == ["count", "count", "what", "is", "given"]


def test_reid_plugins_shows_commands(site):
    """As a number in the listing, by name and summary in the plugin's own page."""
    rows = {line.split()[0]: line for line in reid(site, "plugins").stdout.splitlines()}
    assert rows["words"].split()[1:] == ["reid-plugin-words", "0.1.0", "ok", "1", "command"]
    assert reid(site, "plugins", "words").stdout == (
        "words: reid-plugin-words 0.1.0, module reid_words.plugin\n\n"
        "COMMANDS\n\n"
        "  reid count\n"
        "    count what is given\n"
    )


def test_errors_of_a_command(site):
    """What the user can act on is shown as it is; a bug names the plugin, and where on demand."""
    done = reid(site, "count", "--fail", "told")
    assert done.returncode == 4 and done.stderr.endswith("error: the words are damaged\n")
    done = reid(site, "count", "--fail", "bug")
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert (
        "error: command 'count' of plugin words (reid-plugin-words 0.1.0) failed: "
        "ZeroDivisionError: nobody thought of this, at reid_words/count.py:16. `reid --traceback "
        "count ...` shows where."
    ) in done.stderr
    done = reid(site, "--traceback", "count", "--fail", "bug")
    assert "count.py" in done.stderr and "Traceback" in done.stderr


def test_two_plugins_with_one_command(site):
    """Neither is run: the error names both; everything else works, and listings tell."""
    install(site, "sums", "count")
    install(site, "third", "other")
    clash = (
        "command 'count' is brought by sums (reid-plugin-sums 0.1.0) and by words "
        "(reid-plugin-words 0.1.0); uninstall one."
    )
    done = reid(site, "count")
    assert (done.returncode, done.stderr) == (3, f"error: {clash}\n")
    for command in (["--help"], ["plugins"]):
        done = reid(site, *command)
        assert done.returncode == 0 and f"note: {clash}" in done.stdout
    assert reid(site, "other").stdout == "0 words\n"


def test_no_plugin_takes_a_command_of_the_core(site):
    """`reid runs` stays the core's, and listings tell whose was refused."""
    install(site, "greedy", "runs")
    assert "core:demo" in reid(site, "runs", "core").stdout
    refused = (
        "note: command 'runs' is reidcore's own; plugin greedy (reid-plugin-greedy 0.1.0) cannot "
        "replace it."
    )
    for command in (["--help"], ["plugins"]):
        assert refused in reid(site, *command).stdout
    assert "commands of greedy" not in reid(site, "--help").stdout


def test_a_broken_plugin_breaks_no_other_command(site):
    """Help lists what there is and names it; core commands and others' go on."""
    write_distribution(site, "broken", "1 / 0")
    done = reid(site, "--help")
    assert done.returncode == 0 and "count what is given" in done.stdout
    assert "note: plugins that cannot be used, see `reid plugins`: broken" in done.stdout
    assert reid(site, "count").stdout == "0 words\n"
    assert reid(site, "runs", "core").returncode == 0
    done = reid(site, "cuont")
    assert done.returncode == 2
    assert done.stderr == (
        "error: there is no command 'cuont', did you mean 'count'? Plugins that cannot be used, "
        "with whatever commands they have: broken. `reid --help` lists all commands.\n"
    )


@pytest.mark.parametrize(
    "command", [["check", "--no-dry", "demo"], ["compare", "--help"], ["data", "index", "--help"]]
)
def test_core_commands_import_no_plugin(site, command):
    """What a plugin does when it is imported is not done."""
    write_distribution(site, "loud", "import sys; print('loud is imported', file=sys.stderr)")
    done = reid(site, *command)
    assert done.returncode == 0 and done.stderr == ""
    assert "loud is imported" in reid(site, "count").stderr


@pytest.mark.parametrize("name", sorted(CORE_NAMES | ELSEWHERE.keys()))
def test_every_command_tells_its_options(name, capsys):
    """`reid NAME --help`: no two of its options share a name, and each is explained."""
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert not end.value.code
    assert f"usage: reid {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["eval", "nowhere", "--json", "file.toml"], "no run folder at"),
        (["gallery", "label", "nowhere", "--identity", "Ann", "file.jpg"], "no gallery at"),
        (["gallery", "forget", "nowhere", "--camera", "1", "file.jpg"], "no gallery at"),
        (["plugins", "--json", "nothing"], "plugin 'nothing' is not installed"),
        (["runs", "--json", "nothing"], "plugin 'nothing' is not installed"),
        (["compare", "nowhere", "--paired", "elsewhere"], "no run folder at"),
        (["report", "nowhere", "-o", "page.html", "elsewhere"], "no run folder at"),
        (["tune", "no.toml", "--trials", "2", "nor.toml", "--set-range", "a=1,2"], "no run file"),
    ],
)
def test_options_may_stand_among_words_that_are_several_or_left_out(words, answer, capsys):
    assert main(words) in (UsageError.exit_code, DataError.exit_code)
    assert answer in capsys.readouterr().err


@pytest.mark.parametrize("before", [[], ["--fail", "code"]])
def test_words_behind_two_dashes_are_no_options(site, before):
    """Whatever stands before them, and however they begin."""
    done = reid(site, "count", *before, "--", "--fail", "told")
    assert (done.returncode, done.stdout) == (7 if before else 0, "2 words\n")


@pytest.mark.parametrize(
    ("added", "words", "shown"),
    [
        (
            """
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--all", action="store_true")
    one.add_argument("words", nargs="?")""",
            ["seven"],
            "seven\n",
        ),
        (
            """
    parser.add_argument("folder", nargs="?")
    parser.add_argument("words", nargs="...")""",
            ["here", "a", "--b"],
            "['a', '--b']\n",
        ),
        (
            """
    parser.add_argument("words", nargs="?")
    parser.add_subparsers().add_parser("go")""",
            ["here", "go"],
            "here\n",
        ),
    ],
)
def test_plugins_add_whatever_argparse_takes(tmp_path, added, words, shown):
    """Also what it refuses to parse with options among words."""
    count = f"def add(parser):{added}\n    return lambda options: print(options.words) or 0\n"
    text = PLUGIN.replace("NAME", "count")
    write_distribution(tmp_path, "words", text, files={"count.py": count})
    done = reid(tmp_path, "count", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")


def test_a_command_whose_module_is_missing(tmp_path):
    """It is an error of that command alone, with the plugin and the reference."""
    write_distribution(tmp_path, "words", PLUGIN.replace("NAME", "count"))
    done = reid(tmp_path, "count")
    assert done.returncode == 3
    assert (
        "command 'count' of plugin words (reid-plugin-words 0.1.0) names the function "
        "'reid_words.count:add', which could not be imported: ModuleNotFoundError"
    ) in done.stderr
    assert reid(tmp_path, "--help").returncode == 0


def test_commands_of_plugins_work_in_one_process(site):
    """Where torchrun has started several, each says so, as for most of the core's."""
    done = subprocess.run(
        [sys.executable, "-m", "reidcore", "count"],
        env={
            **os.environ,
            "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
            "WORLD_SIZE": "2",
            "RANK": "1",
        },
        cwd=site,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "process 1 of 2: error: `reid count` works in one process" in done.stderr


def plugins_with(commands: object, name: str = "words") -> Plugins:
    """Plugins of which one returns this from its hook."""
    plugins = Plugins(found=[])
    plugins.add(name, types.SimpleNamespace(reid_commands=hookimpl(lambda: commands)))
    return plugins


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        (None, "hook reid_commands returned a NoneType, not a list of commands"),
        ("count", "hook reid_commands returned a str, not a list of commands"),
        (["count"], "hook reid_commands returned a list with a str, not with commands only"),
        ([Command("Count", "a.b:c")], r"'Count' has a name that does not match \[a-z\]"),
        ([Command("count_all", "a.b:c")], "'count_all' has a name that does not match"),
        ([Command("count", "a.b")], "has add='a.b', not 'package.module:function'"),
        ([Command("count", print)], "not 'package.module:function'"),
        ([Command("count", "a.b:c", None)], "has a summary that is no text: None"),
        ([Command("count", "a:b"), Command("count", "a:c")], "'count' is registered twice"),
    ],
)
def test_malformed_commands_break_their_plugin(commands, message):
    """The plugin's row says what is wrong; naming it raises the same."""
    plugins = plugins_with(commands)
    (row,) = (row for row in plugins.rows() if row.name == "words")
    assert row.state == "broken"
    with pytest.raises(PluginError, match=message):
        plugins.load("words")
    assert plugins.commands() == []


def test_known_commands_of_plugins_that_are_not_installed():
    """`reid report` says what to install, and where the plugin is broken, why."""
    with pytest.raises(UsageError) as error:
        find_command("report", Plugins(found=[]))
    assert str(error.value) == (
        "`reid report` is a command of the plugin 'report', which is not installed. To install "
        f"it: {how_to_install('reidcore[report]')}"
    )
    with pytest.raises(PluginError, match="returned a NoneType"):
        find_command("report", plugins_with(None, "report"))
    with pytest.raises(UsageError, match="no command 'reprot', did you mean 'report'"):
        find_command("reprot", Plugins(found=[]))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.name)
def test_every_command_of_the_core_has_help(tmp_path, command):
    """Each reference resolves, and what it adds to the parser can be shown."""
    code = (
        "import argparse\nfrom reidcore.cli.commands import find_command\n"
        f"parser = argparse.ArgumentParser(prog='reid {command.name}')\n"
        f"assert callable(find_command({command.name!r}).arguments()(parser))\n"
        "parser.print_help()"
    )
    done = python(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: reid {command.name} ")


def test_reid_alone_asks_for_a_command(tmp_path):
    done = reid(tmp_path)
    assert done.returncode == 2 and "name a COMMAND" in done.stderr
    assert reid(tmp_path, "--version").stdout.startswith("reidcore ")
