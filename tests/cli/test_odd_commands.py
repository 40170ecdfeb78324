"""Commands that behave oddly, command lines that are odd, and streams that are closed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from distributions import ROOT, reid, write_distribution

PLUGIN = """
from reidcore.api import Command, hookimpl

@hookimpl
def reid_commands():
    summaries = {"fine": "two\\nlines, 100% sure of %(prog)s", "long": "word " * 900}
    return [
        Command(name, f"PACKAGE.odd:{name}", summaries.get(name, ""))
        for name in NAMES
    ]
"""
ODD = """
import sys
print("printed at import")

class Odd(BaseException):
    pass

def raising(error):
    raise error

def running(function):
    return lambda parser: function

def leaves_in_add(parser):
    sys.exit(5)

def interrupted_in_add(parser):
    raise KeyboardInterrupt

def odd_in_add(parser):
    raise Odd("nobody expects it")

def nothing_to_run(parser):
    pass

def nothing_taken():
    pass

fine = long = running(lambda options: print("ran") or 0)
leaves = running(lambda options: sys.exit(5))
leaves_with_text = running(lambda options: sys.exit("goodbye"))
leaves_far = running(lambda options: sys.exit(1000))
interrupted = running(lambda options: raising(KeyboardInterrupt()))
odd = running(lambda options: raising(Odd("nobody expects it")))
full = running(lambda options: raising(OSError(28, "No space left on device", "page.html")))
nothing = running(lambda options: None)
text = running(lambda options: "7")
far = running(lambda options: 10**30)
negative = running(lambda options: -1)
truth = running(lambda options: True)
half = running(lambda options: 2.5)

def complaining(parser):
    return lambda options: parser.error("that does not fit")
"""
ENDS = {
    "leavesinadd": (3, "has an `add` that ends the program: SystemExit: 5."),
    "interruptedinadd": (130, "interrupted\n"),
    "oddinadd": (3, "`reid --traceback oddinadd ...` shows where."),
    "nothingtorun": (3, "has an `add` that returns a NoneType, not the function that runs"),
    "nothingtaken": (3, "failed: TypeError: "),
    "leaves": (5, ""),
    "leaveswithtext": (1, "goodbye\n"),
    "leavesfar": (3, "returned 1000, not an exit code"),
    "interrupted": (130, "interrupted\n"),
    "odd": (3, "failed: Odd: nobody expects it, at reid_odd/odd.py:"),
    "full": (1, "error: page.html: No space left on device."),
    "nothing": (3, "returned a NoneType, not an exit code"),
    "text": (3, "returned a str, not an exit code"),
    "far": (3, "returned 1000000000000000000000000000000, not an exit code"),
    "negative": (3, "returned -1, not an exit code"),
    "truth": (3, "returned a bool, not an exit code"),
    "half": (3, "returned a float, not an exit code"),
    "complaining": (2, "usage: reid complaining [-h]\nreid complaining: error: that does not fit"),
}
"""Exit code and message of each odd command."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """An environment with the plugin `odd`; commands are called as its functions, without _."""
    folder = tmp_path_factory.mktemp("odd")
    names = [*ENDS, "fine", "long"]
    code = (
        ODD
        + "\nfor name in list(globals()):\n    globals()[name.replace('_', '')] = globals()[name]\n"
    )
    text = PLUGIN.replace("NAMES", repr(names))
    write_distribution(folder, "odd", text, files={"odd.py": code})
    return folder


@pytest.mark.parametrize("name", ENDS)
def test_ends_of_odd_commands(site, name):
    """Exit codes stay what they mean, and the plugin is named; no traceback, nothing on stdout."""
    code, message = ENDS[name]
    done = reid(site, name)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert ("of plugin odd (reid-plugin-odd 0.1.0)" in done.stderr) == (code == 3)


def test_what_a_command_prints_at_import_is_not_its_output(site):
    """It goes where messages go."""
    done = reid(site, "fine")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "printed at import\n")


def test_summaries_are_one_short_line(site):
    """Newlines, percent signs and thousands of characters spoil neither listing nor help."""
    lines = reid(site, "--help").stdout.splitlines()
    (fine,) = (line for line in lines if line.startswith("  fine "))
    assert fine.endswith("  two lines, 100% sure of %(prog)s")
    assert max(map(len, lines)) < 300
    for command in (["fine", "-h"], ["fine", "--help"]):
        done = reid(site, *command)
        assert done.returncode == 0 and "two lines, 100% sure of %(prog)s" in done.stdout
    assert max(map(len, reid(site, "plugins", "odd").stdout.splitlines())) < 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a COMMAND"),
        ([""], "there is no command ''"),
        (["", ""], "there is no command ''"),
        (["--"], "unrecognized arguments: --"),
        (["-", "runs"], "unrecognized arguments: -"),
        (["-x", "runs"], "unrecognized arguments: -x"),
        (["--traceback=1", "runs"], "argument --traceback"),
        (["RUNS"], "there is no command 'RUNS'"),
        (["a\nb"], "there is no command 'a\\nb'"),
        (["runs", ""], "plugin '' is not installed"),
        (["runs", "core", "core"], "unrecognized arguments: core"),
        (["runs", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["check", "--set"], "argument --set: expected one argument"),
        (["check", ""], "has no run file ''"),
        (["data", ""], "invalid choice: ''"),
    ],
)
def test_odd_command_lines(tmp_path, arguments, message):
    """Each is the user's mistake: exit code 2 and what is wrong."""
    done = reid(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and "Traceback" not in done.stderr


def test_many_plugins(tmp_path):
    """With 200 installed, of which half are broken, messages stay short and help shows all."""
    for number in range(100):
        text = (
            "from reidcore.api import Command, hookimpl\n@hookimpl\ndef reid_commands():\n"
            f"    return [Command('count{number}', 'a.b:c', 'count')]\n"
        )
        write_distribution(tmp_path, f"good{number}", text)
        write_distribution(tmp_path, f"bad{number}", "1 / 0")
    done = reid(tmp_path, "--help")
    assert done.returncode == 0 and done.stdout.count("  count") == 100 + 100
    done = reid(tmp_path, "cuont7")
    assert done.returncode == 2 and "did you mean 'count7" in done.stderr
    assert " and 88 more" in done.stderr and len(done.stderr) < 1000


def shell(folder, command: str) -> subprocess.CompletedProcess[str]:
    """What a shell makes of the command, in which REID stands for `reid`."""
    return subprocess.run(
        ["bash", "-c", command.replace("REID", f"{sys.executable} -m reidcore")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", ["plugins", "--help", "runs core", "--version", "run --help"])
def test_streams_that_take_nothing(tmp_path, command):
    """Closed, full, or with a reader that has gone: no traceback; a full disk is said."""
    assert shell(tmp_path, f"REID {command} >&-").stderr == ""
    done = shell(tmp_path, f"REID {command} > /dev/full")
    assert done.returncode == 1 and "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert shell(tmp_path, f"REID {command} | true").stderr == ""
    done = shell(tmp_path, "REID nonsense 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    done = shell(tmp_path, f"PYTHONIOENCODING=ascii REID {command}")
    assert done.returncode == 0 and done.stderr == ""
