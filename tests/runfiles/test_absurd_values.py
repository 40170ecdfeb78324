"""Numbers, names and texts of absurd size in run files, `--set` and options: a short message that
names the key, exit code 2, no traceback."""

from __future__ import annotations

import pytest

from reidcore.cli.main import main
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import find_packaged

DIGITS = "9" * 5000
FAR = "1" + "0" * 400
HEX = "0x" + "f" * 5000
LONG = "x" * 6000
SPACES = "x " * 3000
DEMO = find_packaged("demo", Plugins([])).text


def refused(capsys, *command: str) -> str:
    """The message with which a command is refused."""
    capsys.readouterr()
    try:
        code = main(list(command))
    except SystemExit as error:
        code = int(error.code or 0)
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == "" and "Traceback" not in captured.err
    assert all(len(line) < 1000 for line in captured.err.splitlines()), captured.err
    return captured.err


KEYS = ("optim.lr", "loss.id.weight", "train.epochs", "train.seed", "backbone.width", "format")


@pytest.mark.parametrize(
    "number", [DIGITS, FAR, HEX, f"[{FAR}]", f"-{DIGITS}"], ids=lambda n: n[:5]
)
@pytest.mark.parametrize("key", [*KEYS, "name", "train", "data.test.0.test_identities", "plugins"])
def test_huge_integers(capsys, key, number):
    """As `--set` and, where the key can stand alone, in the file: the key is named."""
    message = refused(capsys, "check", "--no-dry", "demo", "--set", f"{key}={number}")
    assert key in message and ("64 bits" in message or "format" in message)


@pytest.mark.parametrize("number", [DIGITS, FAR, HEX, "1_" * 4999 + "1"], ids=lambda n: n[:5])
def test_huge_integers_in_a_file(tmp_path, capsys, number):
    """The message names file, line and key."""
    lines = DEMO.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("epochs"))
    lines[at] = f"epochs = {number}"
    file = tmp_path / "huge.toml"
    file.write_text("\n".join(lines))
    message = refused(capsys, "check", "--no-dry", str(file))
    assert f"huge.toml:{at + 1}: " in message and "epochs" in message and "64 bits" in message


@pytest.mark.parametrize(
    "item",
    [
        LONG,
        f"{LONG}=1",
        f"train.{LONG}=1",
        f"head.{LONG}.x=1",
        f"loss.id.{DIGITS}=1",
        f"data.test.{DIGITS}.name=1",
        f"optim.lr={LONG}",
        f"train={SPACES}",
        f"name={LONG}",
        f"name={SPACES}",
        f'plugins=["{LONG}"]',
        f'backbone.use="{LONG}"',
        f'backbone.use="core.{SPACES}"',
        f'eval.protocol="{LONG}"',
        f'train.device="{SPACES}"',
        f'loss.id.feature="{LONG}"',
        f'data.test.0.name="a\\n{LONG}"',
        f"data.image=[{','.join(['8'] * 4000)}]",
        f"train={{{','.join(f'k{n}=1' for n in range(900))}}}",
    ],
    ids=lambda item: item[:24],
)
def test_long_values_are_not_quoted_whole(capsys, item):
    """They are shortened, wherever in a message they stand."""
    refused(capsys, "check", "--no-dry", "demo", "--set", item)


def test_long_options(capsys):
    """Also those that are no run file's: names of commands, files, numbers."""
    refused(capsys, LONG)
    refused(capsys, "check", LONG)
    refused(capsys, "check", f"--{LONG}", "demo")
    refused(capsys, "plugins", LONG)
    refused(capsys, "runs", "--copy", SPACES)
    refused(capsys, "rank", "run", "--query", "a", "--gallery", "b", "--top", DIGITS)


@pytest.mark.parametrize("version", ["99", "0", "-1", "1.0", "true", "'1'", "[1]"])
def test_a_format_that_is_set(capsys, version):
    """`--set format` cannot ask for what this core does not read."""
    message = refused(capsys, "check", "--no-dry", "demo", "--set", f"format={version}")
    assert f"--set format={version}" in message and "reads format = 1" in message


@pytest.mark.parametrize("number", ["inf", "-inf", "nan", "1e400", "1e38", "1e300", "-1e38"])
@pytest.mark.parametrize(
    "key",
    [
        "optim.lr",
        "optim.weight_decay",
        "optim.clip_norm",
        "optim.scale.backbone",
        "eval.memory",
        "data.cache",
        "loss.id.weight",
        "backbone.width",
    ],
)
def test_numbers_that_float32_does_not_hold(capsys, key, number):
    """Neither rates nor sizes nor weights; torch itself fails at some of them."""
    item = f"{key}={number}"
    message = refused(capsys, "check", "--no-dry", "demo", "--set", item)
    assert f"--set {item}: " in message and "number" in message and key.split(".")[-1] in message


@pytest.mark.parametrize(
    "sets",
    [
        ["optim.lr=1e20", "optim.scale={backbone=1e20}"],
        ["optim.lr=1e20", "optim.warmup={epochs=3, start=1e20}"],
        ["optim.steps={at=[1, 2, 3], by=1e20}"],
    ],
)
def test_rates_that_grow_beyond_float32(capsys, sets):
    """A rate that is in range is too high with its scale, steps and warmup."""
    command = [word for item in sets for word in ("--set", item)]
    message = refused(capsys, "check", "--no-dry", "demo", *command)
    assert "lr reaches about 1e" in message and "expected at most 1e+30" in message


@pytest.mark.parametrize(
    "item",
    [
        "data.image=[100000,100000]",
        "data.workers=9223372036854775807",
        "data.batch.per_id=9223372036854775807",
        "eval.ranks=[18446744073709551615]",
        "data.augment=[{use='core.pad_crop',pad=9223372036854775807}]",
    ],
)
def test_sizes_that_no_machine_has(capsys, item):
    """They are refused before anything of that size is made."""
    message = refused(capsys, "check", "--no-dry", "demo", "--set", item)
    assert "expected a number at most " in message


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("backbone.width=1e25", "backbone (core.resnet): width = 1e+25 asks for more than this"),
        ("loss.id.weight=1e30", "loss.id.weight = 1e+30: nothing can be computed with so large"),
    ],
)
def test_a_part_is_not_blamed_for_a_number(capsys, monkeypatch, tmp_path, item, says):
    """Where building a part or a dry run fails for want of memory or range, the number is named,
    with exit code 2 in place of a plugin's 3."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path))
    assert main(["check", "demo", "--set", item]) == 2
    message = capsys.readouterr().err
    assert says in message and len(message) < 1000


def test_a_list_of_many_mistakes_is_cut(capsys):
    """The first are shown, and how many more there are."""
    item = f"data.test=[{', '.join(['1'] * 3000)}]"
    message = refused(capsys, "check", "--no-dry", "demo", "--set", item)
    assert len(message) < 1000 and "expected table, got int 1" in message
    assert 2980 < int(message.splitlines()[-1].split()[1]) < 3000


@pytest.mark.parametrize("size", ["inf", "nan", "1e400"])
@pytest.mark.parametrize("key", ["train.epochs", "data.test.0.test_identities", "data.trial"])
def test_no_number_where_a_size_is_asked(capsys, key, size):
    """Infinite sizes are no sizes."""
    message = refused(capsys, "check", "--no-dry", "demo", "--set", f"{key}={size}")
    assert "expected int, got float" in message


@pytest.mark.parametrize(
    "key", ["name", "data.test.0.name", "data.test.0.manifest", "loss.id.name"]
)
def test_newlines_in_names(capsys, key):
    """No name has two lines; the message shows the newline as \\n and stays one line."""
    message = refused(capsys, "check", "--no-dry", "demo", "--set", f'{key}="a\\nb"')
    assert "got text 'a\\nb'" in message
    assert len(message.splitlines()) == 1 or key == "loss.id.name"
    message = refused(capsys, "check", "--no-dry", "demo", "--set", f"{key}=a\nb")
    assert f"--set {key}=a\\nb: " in message


def test_control_characters_do_not_reach_the_terminal(capsys):
    """An escape sequence in a value is shown as text."""
    message = refused(capsys, "check", "--no-dry", "demo", "--set", "trian.\x1b[31m=1")
    assert "\x1b" not in message and "\\x1b[31m" in message


@pytest.mark.parametrize("key", ["root", "manifest"])
def test_paths_that_are_too_long(capsys, key):
    """The system refuses to look: data that are not there, and no traceback."""
    more = ', read="core.demo"' if key == "root" else ""
    item = f"data.train={{{key}='{LONG}'{more}}}"
    assert main(["check", "--no-dry", "demo", "--set", item]) == 4
    message = capsys.readouterr().err
    assert key in message and "too long" in message.lower() and len(message) < 1000


@pytest.mark.parametrize("number", ["9007199254740993", "9223372036854775807"])
def test_integers_that_a_number_rounds(capsys, number):
    """A setting that takes any number takes an integer, which may be rounded."""
    assert main(["check", "--no-dry", "demo", "--set", f"loss.triplet.margin={number}"]) == 0
    capsys.readouterr()


def test_no_views_at_all(capsys):
    assert "eval.views=[]" in refused(capsys, "check", "--no-dry", "demo", "--set", "eval.views=[]")
