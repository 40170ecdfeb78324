"""Run files as a user meets them: all errors at once, suggestions, `--set`, exit codes."""

from __future__ import annotations

import json

import pytest
from damage import FILES, Document
from distributions import reid

from reidcore.cli.main import main
from reidcore.errors import RunFileError, nearest
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import find_packaged
from reidcore.runfiles.key_lines import KeyLines
from reidcore.runfiles.parse import parse_runfile
from reidcore.wiring.make_plan import make_plan

DEMO = find_packaged("demo", Plugins([])).text
MANY = (FILES / "many.toml").read_text("utf-8")
CELLS = '[[head]]\nname = "cells"\nuse = "toy.cells"\n'
READERS = (FILES / "readers.toml").read_text("utf-8")


def edited(text: str, *pairs: tuple[str, str]) -> str:
    """The text with each (old, new), where old must be there."""
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def check(capsys, text: str, *options: str, name: str = "file.toml") -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `reid check --no-dry` on a file with this text."""
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)
    capsys.readouterr()
    code = main(["check", "--no-dry", name, *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, text: str, *options: str, code: int = 2) -> str:
    """The message with which the file is refused."""
    found, output, errors = check(capsys, text, *options)
    assert (found, output) == (code, ""), errors
    return errors.removeprefix("error: ")


def sets(*items: str) -> list[str]:
    return [word for item in items for word in ("--set", item)]


def test_five_mistakes_five_messages(toy_folder, capsys):
    """Independent mistakes of every kind are reported together, each once."""
    bad = edited(
        MANY,
        ("k1 = 10", "k1 = 5.5"),
        ('pool = "gem"', 'pool = "gen"'),
        ('use = "core.softmax"', 'use = "core.sofmax"'),
        ('features = ["late.pooled"]', 'features = ["late.pooled2"]'),
        ('frozen_norm = ["backbone"', 'frozen_norm = ["bakbone"'),
    )
    problems = refused(capsys, bad).splitlines()
    assert len(problems) == 5
    for part in (
        "head 'neck' (core.bnneck): expected one of 'average', 'max', 'gem', got text 'gen' at "
        ".pool, did you mean 'gem'?",
        "postprocessor 'order' (toy.rerank): expected int, got float 5.5 at .k1",
        "loss 'id' (core.sofmax): plugin 'core' has no loss 'sofmax', did you mean 'softmax'?",
        "[train]: frozen_norm names the role 'bakbone', did you mean 'backbone'?",
    ):
        assert sum(part in problem for problem in problems) == 1, part
    # neck failed, so what is said of its outputs is only what cannot follow from that.
    assert not any("neck.bn" in problem for problem in problems)


def test_core_tables_report_everything_too(toy_folder, capsys):
    """Wrong types, ranges, unknown keys and bad names of the core's tables come at once."""
    bad = edited(
        DEMO,
        ("epochs = ", "seed = -1\ndevice = 'gpu'\nepochz = 1\nepochs = -"),
        ("lr = 1e-3", "lr = 'fast'\nmomentum = 1"),
        ('name = "look"', 'name = "Look"'),
        ("image = [", "workers = 0\nimage = ["),
        ("[train]", "[scheduler]\n[train]"),
    )
    text = refused(capsys, bad)
    for part in (
        ".seed",
        ".device",
        "'epochz'",
        ".epochs",
        ".lr",
        ".momentum",
        "'Look'",
        ".workers",
        "'scheduler'",
    ):
        assert part in text
    assert len(text.splitlines()) == 9


@pytest.mark.parametrize(
    ("old", "new", "only"),
    [
        ('use = "core.resnet"', 'use = "core.resnt"', "core.resnt"),
        ("depth = 50", "depth = 51", ".depth"),
        ('source = "backbone.layer4"', 'source = "backbone.layer9"', "backbone.layer9"),
        ('grid = "cells.grid"', "grid = 3", ".grid"),
        ('use = "toy.graph"', 'use = "toy.grap"', "toy.grap"),
        ('use = "toy.rerank"', 'use = "toy.rerang"', "rerang"),
        ('train = { manifest = "people.csv" }', 'train = { read = "core.dem" }', "core.dem"),
        ('train = { manifest = "people.csv" }', 'train = { read = "toy.folder" }', "'root'"),
    ],
)
def test_what_follows_is_not_repeated(toy_folder, capsys, old, new, only):
    """A part that fails takes others with it silently: the file has one problem."""
    problems = refused(capsys, edited(MANY, (old, new))).splitlines()
    assert len(problems) == 1 and only in problems[0]


@pytest.mark.parametrize(
    ("text", "pairs", "said"),
    [
        (
            DEMO,
            [("smoothing", "smothing")],
            "loss 'id' (core.softmax): unknown key 'smothing', did you mean 'smoothing'?",
        ),
        (
            MANY,
            [("k1 = 10", "k1 = 5.5")],
            "postprocessor 'order' (toy.rerank): expected int, got float 5.5 at .k1",
        ),
        (
            READERS,
            [('use = "toy.rerank"\nvariant = "fast"', 'use = "toy.times"')],
            "postprocessor 'post0' (toy.times): needs the manifest column time; this data set has "
            "camera.",
        ),
        (
            DEMO,
            [("[train]", '[[post]]\nuse = "toy.clip"\n[[post]]\nuse = "toy.times"\n[train]')],
            "postprocessor 'post1' (toy.times): needs distances in [0, 1], but what comes before "
            "it is unbounded. Put a re-ranker first, or use",
        ),
        (
            DEMO,
            [("[[matcher]]", f'{CELLS}source = "neck.bn"\n[[matcher]]')],
            "head 'cells' (toy.cells): source needs a map, but 'neck.bn' is a vector 256. "
            "Available maps: backbone.stem (map 32x",
        ),
    ],
)
def test_messages_of_the_architecture(toy_folder, capsys, text, pairs, said):
    """The messages that the design promises, with this run's own names."""
    assert said in refused(capsys, edited(text, *pairs))


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (
            "broken.x",
            "plugin broken (reid-plugin-broken 0.3.0) could not be loaded from "
            "reid_broken.plugin: ModuleNotFoundError: No module named 'reid_nowhere', at "
            "reid_broken/plugin.py:1. It asks for 'reidcore>=1.2'; this is reidcore 1.0.0.",
        ),
        (
            "future.x",
            "plugin future (reid-plugin-future 2.0.0) speaks 'reidcore.plugins.v2'; this "
            "core speaks 'reidcore.plugins.v1'. Upgrade one of them.",
        ),
        (
            "twin.x",
            "plugin name 'twin' is claimed by reid-plugin-twinA and by reid-plugin-twinB; "
            "uninstall one.",
        ),
        (
            "wrong.raises",
            "head 'neck' (wrong.raises): outputs() of reid-plugin-wrong 0.2.0 failed: "
            "ZeroDivisionError: division by zero, at reid_wrong/plugin.py:13",
        ),
        (
            "wrong.empty",
            "outputs() of reid-plugin-wrong 0.2.0 failed: it returned {}, not {name: Feature}",
        ),
        (
            "wrong.untyped",
            "its settings class of reid-plugin-wrong 0.2.0 failed: NameError: name "
            "'Nowhere' is not defined",
        ),
    ],
)
def test_broken_plugins(toy_folder, capsys, use, said):
    """A plugin that cannot be used, or breaks while wiring, is named with its distribution: 3."""
    bad = edited(DEMO, ('use = "core.bnneck"\nsource = "backbone.layer4"', f'use = "{use}"'))
    message = refused(capsys, bad, code=3)
    assert said in message and message.count("\n") == 1
    assert "head 'neck'" in message
    # With a mistake of the user's in the same file, that comes first and sets the code.
    message = refused(capsys, edited(bad, ("smoothing", "smothing")))
    assert said in message and message.index("smothing") < message.index(said)


def test_broken_matchers_and_readers(toy_folder, capsys):
    """What a matcher or reader of a plugin returns or raises is never a traceback: 3."""
    bad = edited(DEMO, ('use = "core.cosine"\nfeatures = ["neck.bn"]', 'use = "wrong.vague"'))
    assert "describe() of reid-plugin-wrong 0.2.0 failed: it returned 'soon'" in refused(
        capsys, bad, code=3
    )
    for root, method in (("nowhere", "facts() of wrong.unreadable"), (".", "rows() of wrong.")):
        reader = f'train = {{ read = "wrong.unreadable", root = "{root}" }}'
        bad = edited(DEMO, ('train = { read = "core.demo" }', reader))
        assert f"[data] train 'unreadable': {method}" in refused(capsys, bad, code=3)


@pytest.mark.parametrize("command", ["check", "index"])
def test_broken_readers_of_commands(toy_folder, capsys, command):
    """The commands that take --read name the reader, too."""
    words = ["data", command, ".", "--read", "wrong.unreadable", "-o", "rows.csv"]
    assert main(words[: 5 if command == "check" else None]) == 3
    said = capsys.readouterr().err
    assert "--read wrong.unreadable: rows() of wrong.unreadable failed: ZeroDivision" in said
    assert "at reid_wrong/plugin.py:42" in said


def test_set_changes_what_it_names(toy_folder):
    """Every form of `--set`: keys, nested tables, instance names, indices, text and lists."""
    items = (
        "train.seed=7",
        "data.batch.size=6",
        "loss.id.smoothing=0.25",
        "name=other",
        "train.device=cpu",
        "train.device = cuda:1",
        "optim.kind='adam'",
        'data.normalize="none"',
        "data.image=[96, 32]",
        "matcher.look.features=['neck.bn']",
        "eval.views=['plain']",
        "optim.scale.backbone=0.5",
        "optim.scale.head.neck=0.25",
        "train.start_share.backbone=0.5",
        "train.start_share.head.neck=0.25",
        "optim.cosine.to=0.5",
        "data.test.1.name=third",
        "ranking.fast.post=['order']",
        "post.walk.lag=5",
        "head.1.count=6",
        "data.augment.1.p=1",
        "ranking.slow.post=['walk']",
        "loss.id.weight=2",
    )
    text = edited(MANY, ("[optim.steps]\nat = [20, 40]\nby = 0.2\n", ""))
    table = parse_runfile(text, FILES / "many.toml", items).table
    assert table["train"]["seed"] == 7 and table["train"]["device"] == " cuda:1"[1:]
    assert table["data"]["batch"] == {"use": "toy.graph", "matcher": "pairs", "size": 6}
    assert table["loss"][0]["smoothing"] == 0.25 and table["loss"][0]["weight"] == 2
    assert table["name"] == "other" and table["optim"]["kind"] == "adam"
    assert table["data"]["image"] == [96, 32] and table["data"]["normalize"] == "none"
    assert table["matcher"][0]["features"] == ["neck.bn"] and table["eval"]["views"] == ["plain"]
    assert table["optim"]["scale"] == {"backbone": 0.5, "head.neck": 0.25, "loss": 0.5}
    assert table["train"]["start_share"] == {"backbone": 0.5, "head.neck": 0.25}
    assert table["optim"]["cosine"] == {"to": 0.5} and table["data"]["test"][1]["name"] == "third"
    assert table["ranking"][0]["post"] == ["order"] and table["ranking"][1]["post"] == ["walk"]
    assert table["post"][1]["lag"] == 5 and table["head"][1]["count"] == 6
    assert table["data"]["augment"][1]["p"] == 1


def test_set_names_unnamed_posts(toy_folder):
    """A postprocessor without a name is called post0, post1, ... and can be set by that."""
    run = parse_runfile(READERS, FILES / "readers.toml", ["post.post0.k1=3"])
    assert run.of("post")[0].table == {"variant": "fast", "k1": 3}


def test_set_is_blamed_for_its_own_mistakes(toy_folder, capsys):
    """A wrong value given by `--set` is reported as that, the file's own mistakes by line."""
    text = refused(
        capsys, edited(MANY, ("k1 = 10", "k1 = 1.5")), *sets("loss.id.smoothing=2", "optim.lr=x")
    )
    assert "--set optim.lr=x: [optim]: expected number, got text 'x' at .lr" in text
    text = refused(capsys, edited(MANY, ("k1 = 10", "k1 = 1.5")), *sets("loss.id.smoothing=2"))
    assert "--set loss.id.smoothing=2: loss 'id' (core.softmax): expected a number below 1" in text
    assert "file.toml:106: postprocessor 'order'" in text


def test_lines_of_all_forms_of_keys():
    """The line of a key is found for quoted, dotted and nested keys and tables."""
    lines = KeyLines(
        'a = 1\n"b.c" = 2\nd.e = 3\n[t]\nx = 1\n"y" = 2\n[t.u]\nz = 3\n'
        "[[h]]\nn = 1\n[h.o]\np = 2\n[[h]]\nn = 2\n[h.o]\np = 3\nq.r = 4\n"
    )
    found = {
        ("a",): 1,
        ("b.c",): 2,
        ("d",): 3,
        ("d", "e"): 3,
        ("d.e",): 3,
        ("t", "x"): 5,
        ("t", "y"): 6,
        ("t", "u", "z"): 8,
        ("h", 0, "n"): 10,
        ("h", 0, "o", "p"): 12,
        ("h", 1): 13,
        ("h", 1, "n"): 14,
        ("h", 1, "o", "p"): 16,
        ("h", 1, "o", "q", "r"): 17,
        ("h", 1, "m"): 13,
        ("none",): 0,
        ("h",): 9,
    }
    assert {path: lines.of(path) for path in found} == found


def test_open_brackets_are_found_where_they_open(capsys, toy_folder):
    """TOML that is left open is reported at its own line, not where the parser gave up."""
    for old, new in (("image = [", "image = [["), ('use = "core.bnneck"', 'use = """core.bnneck"')):
        text = edited(DEMO, (old, new))
        line = text.split("\n").index(next(one for one in text.split("\n") if new in one)) + 1
        assert f"file.toml:{line}: not valid TOML in '{new[:8]}" in refused(capsys, text)


def test_check_without_data_wires_with_the_facts(toy_folder, capsys):
    """Absent data: the plan stands on what the readers declare, and says so; exit code 0."""
    code, output, errors = check(capsys, READERS)
    assert (code, errors) == (0, "")
    summer = toy_folder / "summer"
    assert (
        f"[data] test 'folder': data not found at {summer}; assumed 20 identities, columns camera"
        in output
    )
    assert "[data] train 'demo': will be made at " in output
    assert "30 training identities" in output and "columns in test data: camera" in output
    assert "folder: 20 x 80 pairs" in output
    assert not (toy_folder / "cache").exists()


def test_demo_is_wired_without_its_data(toy_folder, capsys):
    """`reid check --no-dry demo` prints every feature with its readers and the ranking's cost."""
    assert main(["check", "--no-dry", "demo"]) == 0
    output = capsys.readouterr().out
    rows = {line.split()[0]: line for line in output.splitlines() if " read by " in line}
    assert rows["neck.bn"].endswith("read by matcher.look, loss.id")
    assert rows["backbone.layer4"].endswith("read by head.neck")
    assert rows["backbone.stem"].endswith("read by nobody (not computed)")
    assert "main: look; template 1.0 KiB per picture" in output


def test_run_without_data_stops_before_anything_else(toy_folder, capsys):
    """`reid run` on absent data: exit code 4, the absolute path, and no run folder."""
    text = edited(READERS, ("format = 1", 'format = 1\nname = "absent"'))
    (toy_folder / "absent.toml").write_text(text, encoding="utf-8")
    assert main(["run", "absent.toml"]) == 4
    assert f"data not found at {toy_folder / 'summer'}" in capsys.readouterr().err
    (toy_folder / "absent.toml").write_text(
        edited(MANY, ("people.csv", "nobody.csv"), ('name = "many"', 'name = "absent"')), "utf-8"
    )
    assert main(["run", "absent.toml"]) == 4
    assert f"manifest not found at {toy_folder / 'nobody.csv'}" in capsys.readouterr().err
    assert not (toy_folder / "runs").exists() and not (toy_folder / "cache").exists()


def test_all_that_is_absent_is_told_with_where_it_is_looked_up(
    toy_folder, tmp_path, capsys, monkeypatch
):
    """One message names every absent manifest, or folder, or file of weights, and says under which
    folder relative paths begin; of absolute paths alone it does not."""
    monkeypatch.chdir(tmp_path)
    rule = "Relative paths are looked up under"
    for run, variable, absent in (
        ("qaconv:best-small", "REID_DATA", ["market.csv", "market.csv", "ward.csv"]),
        ("qaconv:market", "REID_DATA", ["Market-1501-v15.09.15"] * 2),
        ("ward-osnet --set=data.train={read='core.demo'} --set=data.test={read='core.demo'}",
         "REID_WEIGHTS", ["osnet_x0_25_msmt17.pth"]),
    ):  # fmt: skip
        monkeypatch.delenv(variable, raising=False)
        assert main(["run", *run.split()]) == 4
        *lines, last = capsys.readouterr().err.splitlines()
        assert [line.split(" not found at ")[1] for line in lines] == [
            str(tmp_path / name) for name in absent
        ]
        assert last == f"{rule} {variable}, or, while it is not set, in the current folder."
        monkeypatch.setenv(variable, str(tmp_path / "own"))
        assert main(["run", *run.split()]) == 4
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == f"{rule} {variable}, which is {tmp_path}/own."
    here = tmp_path / "here.csv"
    words = [f"--set=data.train.manifest={here}", "--set=data.test=[]", "--set=repeat={}"]
    assert main(["run", "qaconv:market-small", *words]) == 4
    said = capsys.readouterr().err
    assert said == f"error: [data] train 'here': manifest not found at {here}\n"


def test_data_and_weights_are_looked_up_in_their_folders(toy_folder, capsys, tmp_path, monkeypatch):
    """REID_DATA and REID_WEIGHTS are where relative paths begin."""
    monkeypatch.setenv("REID_DATA", str(tmp_path))
    monkeypatch.setenv("REID_WEIGHTS", str(tmp_path))
    assert f"manifest not found at {tmp_path / 'people.csv'}" in refused(capsys, MANY, code=4)
    (tmp_path / "people.csv").write_bytes((toy_folder / "people.csv").read_bytes())
    assert check(capsys, MANY)[0] == 0
    weighted = edited(MANY, ("count = 4", 'count = 4\nweights = "cells.pth"'))
    assert f"which is not at {tmp_path / 'cells.pth'}" in refused(capsys, weighted)
    (tmp_path / "cells.pth").touch()
    assert check(capsys, weighted)[0] == 0


def test_repeats_are_checked_before_the_first_begins(toy_folder, capsys):
    """A value that only the third repeat uses is refused at once, with its place."""
    bad = edited(MANY, ("= [0, 0.1, 0.2]", "= [0, 0.1, 2]"))
    text = refused(capsys, bad)
    assert (
        "[repeat] loss.id.smoothing=2: loss 'id' (core.softmax): expected a number below 1" in text
    )
    assert "(in repeat 3 of 3: train.seed=2, loss.id.smoothing=2)" in text
    (toy_folder / "repeat.toml").write_text(bad, encoding="utf-8")
    assert main(["run", "repeat.toml"]) == 2 and not (toy_folder / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "ends"),
    [
        ([("k1 = 10", "k1 = 5.5")], ["at .k1 (in every repeat)"]),
        (
            [("k1 = 10", "k1 = 5.5"), ("= [0, 0.1, 0.2]", "= [3, 0, 3]")],
            ["at .k1 (in every repeat)", "(in repeats 1, 3 of 3)"],
        ),
        ([('"train.seed"', '"train.sede"')], ["did you mean 'seed'? (in every repeat)"]),
        ([('"train.seed"', '"head.cells.cuont"')], ["did you mean 'count'? (in every repeat)"]),
    ],
)
def test_what_several_repeats_have_is_told_once(toy_folder, capsys, changes, ends):
    """With the repeats that have it, whether the file or [repeat] is wrong."""
    (toy_folder / "repeat.toml").write_text(edited(MANY, *changes), encoding="utf-8")
    assert main(["run", "repeat.toml", "--no-dry"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(ends), lines
    assert all(any(line.endswith(end) for line in lines) for end in ends), lines


@pytest.mark.parametrize(
    ("word", "known", "near"),
    [
        ("features", ["temperature", "weight"], ""),
        ("width", ["weight"], ""),
        ("margin", ["mining"], ""),
        ("feature", ["features"], "features"),
        ("sdg", ["adam", "sgd"], "sgd"),
        ("pp", ["p"], "p"),
        ("toi", ["toy"], "toy"),
        ("num_epochs", ["seed", "epochs"], "epochs"),
        ("decay", ["weight_decay"], "weight_decay"),
        ("", ["a"], ""),
    ],
)
def test_only_near_names_are_suggested(word, known, near):
    """A slip, a swap, or a part of the name; nothing that merely shares letters."""
    assert nearest(word, known) == (f", did you mean {near!r}?" if near else "")


def test_a_far_key_is_told_what_its_part_takes(toy_folder, capsys):
    text = refused(capsys, edited(MANY, ("k1 = 10", "features = 10")))
    assert "unknown key 'features'; the keys here are k1, " in text


def test_a_sampler_reads_features_and_matchers(toy_folder):
    """What a sampler names is checked and computed like what a loss names."""
    run = parse_runfile(MANY, FILES / "many.toml")
    assert make_plan(run, Plugins()).wanted["head.neck"] == {"bn"}
    asking = parse_runfile(MANY, FILES / "many.toml", ["data.batch.feature=neck.pooled"])
    assert make_plan(asking, Plugins()).wanted["head.neck"] == {"bn", "pooled"}
    run = parse_runfile(MANY, FILES / "many.toml", ["data.batch.matcher=pear"])
    with pytest.raises(RunFileError, match="names the matcher 'pear', did you mean 'pairs'"):
        make_plan(run, Plugins())


def test_the_file_itself(toy_folder, capsys):
    """Files that are absent, folders or no text are refused with their absolute path."""
    (toy_folder / "sub.toml").mkdir(exist_ok=True)
    (toy_folder / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (toy_folder / "empty.toml").write_text("", encoding="utf-8")
    for name, said in (
        ("nothing.toml", f"no run file at {toy_folder / 'nothing.toml'}"),
        ("emty.toml", "did you mean 'empty.toml'?"),
        ("sub.toml", "is a folder, not a run file"),
        ("binary.toml", "binary.toml is not UTF-8 text"),
        ("empty.toml", "table [train] is missing"),
        ("no/such/x.toml", f"there is no folder {toy_folder / 'no' / 'such'}"),
        ("demmo", "plugin 'core' has no run file 'demmo', did you mean 'demo'?"),
        ("toi:x", "plugin 'toi' is not installed, did you mean 'toy'?"),
        ("toy:x", "plugin 'toy' has no run file 'x'. It has none"),
    ):
        assert main(["check", "--no-dry", name]) == 2
        assert said in capsys.readouterr().err, name


def test_exit_codes_of_the_command(toy_site, tmp_path):
    """0, 2, 3 and 4 through the real command, with the message on stderr."""
    texts = {
        "good": DEMO,
        "keys": edited(DEMO, ("epochs", "epocsh")),
        "uninstalled": edited(DEMO, ("core.softmax", "qaconv.memory")),
        "broken": edited(DEMO, ('"core.softmax"', '"broken.memory"')),
        "manifest": edited(MANY, ("people.csv", "nobody.csv")),
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    codes = {}
    for name in texts:
        done = reid(toy_site, "check", "--no-dry", str(tmp_path / f"{name}.toml"))
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("error: ") == (done.returncode != 0)
        codes[name] = done.returncode
    assert codes == {"good": 0, "keys": 2, "uninstalled": 2, "broken": 3, "manifest": 4}
    assert reid(toy_site, "check").returncode == 2


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with six small pictures of each of three people, and a run file that trains."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    lines = ["path,pid,camera,split"]
    for pid in range(4):
        for number in range(4):
            name = f"{pid}_{number}.png"
            Image.new("RGB", (16, 32), (60 * pid, 40 * number, 90)).save(folder / name)
            split = "train" if pid < 2 else "query" if number == 0 else "gallery"
            lines.append(f"{name},{pid},{number},{split}")
    (folder / "own.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    document = Document.parse(DEMO)
    data = document.tables[document.find("[data]")].keys
    data.update(
        train='{ manifest = "own.csv" }',
        test='{ manifest = "own.csv" }',
        image="[32, 16]",
        augment="[]",
        batch='{ use = "core.identities", ids = 2, per_id = 2 }',
        workers="1",
    )
    document.tables[document.find("[backbone]")].keys["width"] = "0.05"
    document.tables[document.find("[train]")].keys.update(epochs="1", device='"cpu"')
    optim = document.tables[document.find("[optim]")].keys
    optim.clear()
    optim.update(kind='"sgd"', lr="0.01")
    (folder / "own.toml").write_text(document.text(), encoding="utf-8")
    return folder


def test_a_damaged_picture_is_named(pictures, toy_folder, monkeypatch, capsys):
    """Exit code 4 in the middle of a run, with the picture's file and row."""
    monkeypatch.chdir(pictures)
    (pictures / "1_2.png").write_bytes(b"no picture")
    assert main(["run", "own.toml", "--no-dry", "--out", "damaged"]) == 4
    error = capsys.readouterr().err
    assert str(pictures / "1_2.png") in error and "own.csv row 8" in error
    (pictures / "1_2.png").unlink()
    assert main(["run", "own.toml", "--no-dry", "--out", "missing"]) == 4
    error = capsys.readouterr().err
    assert str(pictures / "1_2.png") in error and "own.csv row 8" in error


def test_a_diverging_loss_is_the_rest(pictures, toy_folder, monkeypatch, capsys):
    """What is neither the file's, a plugin's nor the data's fault ends with exit code 1."""
    from PIL import Image

    monkeypatch.chdir(pictures)
    Image.new("RGB", (16, 32), (60, 80, 90)).save(pictures / "1_2.png")
    options = ["--no-dry", "--out", "diverged", *sets("optim.lr=1e30", "train.epochs=4")]
    assert main(["run", "own.toml", *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "lower optim.lr" in error


def test_repeats_in_a_run_file_become_runs(pictures, toy_folder, monkeypatch, capsys):
    """Each repeat is a run folder of its own; the parent holds mean and deviation."""
    from PIL import Image

    monkeypatch.chdir(pictures)
    Image.new("RGB", (16, 32), (60, 80, 90)).save(pictures / "1_2.png")
    text = (pictures / "own.toml").read_text("utf-8") + '\n[repeat]\n"train.seed" = [0, 1]\n'
    (pictures / "twice.toml").write_text(text, encoding="utf-8")
    assert main(["run", "twice.toml", "--no-dry", "--out", "twice"]) == 0
    scores = json.loads((pictures / "twice" / "scores.json").read_text("utf-8"))
    single = [
        json.loads((pictures / "twice" / str(n) / "scores.json").read_text("utf-8"))
        for n in range(2)
    ]
    assert "mean" in json.dumps(scores) and all(single)
    assert json.loads((pictures / "twice" / "1" / "lock.json").read_text("utf-8"))["sets"] == [
        "train.seed=1"
    ]
    assert main(["run", "twice.toml", "--no-dry", "--out", "twice"]) == 2
    assert "already holds files" in capsys.readouterr().err
