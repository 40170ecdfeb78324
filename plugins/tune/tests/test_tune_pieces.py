"""The pieces of `reid tune` that read and write text: ranges, run files, what is held out."""

from __future__ import annotations

import tomllib

import pytest
from running import TINY

pytest.importorskip("reid_tune", reason="needs `uv run --all-groups`")
pytest.importorskip("optuna", reason="needs `uv run --all-groups`")

from reid_tune.edits import edited, trial_text
from reid_tune.hold_out import HoldOut, hold_out
from reid_tune.ranges import parse_ranges
from reid_tune.sampler import SeededTpe
from reidcore.api import Row
from reidcore.data.manifest import read_manifest, write_manifest
from reidcore.errors import UsageError
from reidcore.runfiles.format import name_posts
from reidcore.runfiles.overrides import apply_sets
from reidcore.tools import draw_splits, plan_run


def one(item):
    (found,) = parse_ranges([item])
    return found


def test_ranges_of_numbers():
    """Integers stay integers unless the setting has fractions; drawn numbers have four digits and
    never leave the range."""
    log = one("optim.lr=1e-4..1.00004e-2:log")
    assert (log.low, log.high, log.log, log.whole) == (1e-4, 1.00004e-2, True, False)
    assert log.shown(0.00123456) == "0.001235"
    assert float(log.shown(1.00004e-2)) <= log.high and float(log.shown(1e-4)) >= log.low
    whole = one("data.batch.ids=2..8")
    assert whole.whole and whole.shown(4) == "4"
    assert whole.of_type(4).whole and not whole.of_type(0.5).whole
    assert whole.of_type(0.5).ends == ["2.0", "8.0"]
    assert (whole.own(8), whole.own(9), whole.own(True)) == (8, None, None)


def test_ranges_of_values():
    """Values are TOML, or texts without quotes; lists may have commas of their own."""
    assert one("backbone.norm=batch, ibn_a").choices == ('"batch"', '"ibn_a"')
    assert one("x.y=1,2.5,true").choices == ("1", "2.5", "true")
    views = one('eval.views=["plain"], ["plain", "flip"]')
    assert views.choices == ('["plain"]', '["plain", "flip"]')
    assert views.own(["plain"]) == '["plain"]' and views.own(["zoom"]) is None
    norm = one("a.b=batch,ibn_a")
    assert (norm.shown('"batch"'), norm.words('"batch"')) == ('"batch"', "batch")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("optim.lr", "expected KEY=LOW..HIGH"),
        ("optim.lr=", "expected KEY=LOW..HIGH"),
        ("optim.lr=2..1", "the range is empty: 2 is not below 1"),
        ("optim.lr=1..1", "the range is empty"),
        ("optim.lr=0..1:log", "a low end above 0, got 0"),
        ("optim.lr=-1..1:log", "a low end above 0, got -1"),
        ("optim.lr=1..2:lg", "did you mean 'log'"),
        ("optim.lr=1..2:", "only ':log' is known"),
        ("optim.lr=a..b", "expected numbers as LOW..HIGH, got 'a'"),
        ("optim.lr=1..inf", "expected numbers as LOW..HIGH, got 'inf'"),
        ("optim.lr=1..2..3", "expected numbers as LOW..HIGH"),
        ("optim.lr=1e-4...1e-2", "expected two dots between the numbers"),
        ("optim.kind=adam", "one value is no range"),
        ("optim.kind=adam,sgd,adam", 'the value "adam" is listed twice'),
        ("data.test.0.name=a,b", "is no setting to be searched for"),
        ("data.train=a,b", "is no setting to be searched for"),
        ("name=a,b", "is no setting to be searched for"),
        ("eval.every=1..2", "is no setting to be searched for"),
    ],
)
def test_what_is_no_range(item, message):
    with pytest.raises(UsageError, match=r"--set-range") as refused:
        parse_ranges([item])
    assert message in str(refused.value)


def test_two_ranges_of_one_key():
    with pytest.raises(UsageError, match=r"optim\.lr has two ranges, 1\.\.2 before"):
        parse_ranges(["optim.lr=1..2", "optim.lr=3..4"])


RERANK = '\n[[post]] # no name\nuse = "core.rerank"\nk1 = 20 # of Zhong et al.\n'
LAYOUTS = {
    "tables": (TINY, {"optim.lr": "0.5", "loss.triplet.weight": "2.0", "backbone.depth": "34"}),
    "inline": (TINY, {"data.batch.ids": "3", "data.augment.1.pad": "4"}),
    "new keys": (TINY, {"optim.kind": '"sgd"', "loss.id.smoothing": "0.1", "optim.cosine.to": "0"}),
    "new tables": (TINY.replace("[eval]\nevery = 1\n", ""), {"eval.views": '["plain", "flip"]'}),
    "scale": (
        TINY.replace("lr = 1e-3", 'lr = 1e-3\nscale = { "head.neck" = 2.0 }'),
        {"optim.scale.backbone": "0.1"},
    ),
    "post": (TINY + RERANK, {"post.post0.k1": "7"}),
    "test tables": (
        TINY.replace("test = [\n", "other = [\n").replace("image", "# image\nimage")
        + '\n[[data.test]]\nmanifest = "a.csv" # first\n[data.normalize]\nmean = [0, 0, 0]\n',
        {"data.image": "[16, 16]", "data.test": "[]"},
    ),
    "words": (TINY, {"optim.kind": "sgd"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_file_is_changed_as_by_set(layout):
    """The text means what `--set` makes of the file, whatever its layout, and keeps comments."""
    text, settings = LAYOUTS[layout]
    text = text.replace("[optim]", "# how it learns\n[optim] # here").replace("1e-3", "1e-3 # old")
    expected = tomllib.loads(text)
    name_posts(expected)
    apply_sets(expected, [f"{key}={value}" for key, value in settings.items()])
    written = edited(text, settings)
    found = tomllib.loads(written)
    name_posts(found)
    assert found == expected
    assert "# how it learns\n[optim] # here\n" in written and "# old" in written
    assert edited(text, {}) == text


def test_a_layout_that_cannot_be_kept(monkeypatch):
    """Where the text would mean something else, the settings win over the layout."""
    import reid_tune.edits as edits

    dumps = edits.tomlkit.dumps
    broken = iter(["format = 2\n"])
    monkeypatch.setattr(edits.tomlkit, "dumps", lambda one: next(broken, None) or dumps(one))
    found = tomllib.loads(edited(TINY, {"optim.lr": "0.5"}))
    assert found["optim"]["lr"] == 0.5 and found["format"] == 1


def test_the_name_of_what_is_found():
    assert tomllib.loads(edited(TINY, {}, "found"))["name"] == "found"
    nameless = TINY.replace('name = "tiny"\n', "")
    assert "name" not in tomllib.loads(edited(nameless, {}, "found"))


def test_a_key_without_a_place():
    with pytest.raises(UsageError, match="no loss named 'tripet', did you mean 'triplet'"):
        edited(TINY, {"loss.tripet.weight": "2"})


def rows(identities, cameras=2, pictures=2, name="", **more):
    """Rows of identities that every camera sees."""
    return [
        Row(f"/p/{name}{pid}_{camera}_{number}.jpg", str(pid), str(camera), "train", **more)
        for pid in range(identities)
        for camera in range(cameras)
        for number in range(pictures)
    ]


def plan(folder, *data, changes=()):
    """The plan of a run on these lists of rows."""
    entries = []
    for number, one in enumerate(data):
        write_manifest(folder / f"data{number}.csv", one)
        entries.append(f'{{manifest = "{folder}/data{number}.csv"}}')
    (folder / "run.toml").write_text(TINY)
    sets = [f"data.train=[{', '.join(entries)}]", "data.test=[]", *changes]
    return plan_run(folder / "run.toml", sets)


def test_what_is_held_out_is_drawn_as_the_index_draws(tmp_path):
    """Identities are apart, every picture is on one side, and queries are those of `data index`."""
    every = rows(8)
    found = hold_out(plan(tmp_path, every), 0.25, 3, tmp_path)
    (part,) = found.parts
    expected = draw_splits(every, 0.75, 3).rows
    assert [row.split for row in part.rows] == [row.split for row in expected]
    train, held = ({row.pid for row in part.of(*some)} for some in (("train",), ("query",)))
    assert len(train) == 6 and len(held) == 2 and not train & held
    assert str(found) == (
        "2 of 8 training identities are held out, with 4 queries and 4 gallery pictures; 6 train"
    )
    found.write()
    assert {row.pid for row in read_manifest(part.train)} == train
    assert {row.pid for row in read_manifest(part.test)} == held
    again = hold_out(plan(tmp_path, every), 0.25, 4, tmp_path).parts[0]
    assert [row.split for row in again.rows] != [row.split for row in part.rows]


def test_several_data_sets_and_modalities(tmp_path):
    """Each data set is divided by itself; two modalities are searched across."""
    visible = rows(6, cameras=1, name="v", modality="visible")
    infrared = [
        Row(row.path.replace("v", "i"), row.pid, "9", "train", modality="infrared")
        for row in visible
    ]
    both = plan(tmp_path, rows(4), [*visible, *infrared])
    found = hold_out(both, 0.5, 0, tmp_path)
    assert [part.protocol for part in found.parts] == ["cross_camera", "cross_modality"]
    assert len({part.train for part in found.parts}) == len({part.name for part in found.parts})
    table = tomllib.loads(trial_text(both.runfile.table, {"optim.lr": "0.5"}, found.parts, 2))
    found.write()
    (tmp_path / "trial.toml").write_text(trial_text(both.runfile.table, {}, found.parts, 2))
    assert len(plan_run(tmp_path / "trial.toml").data.test) == 2
    assert table["optim"]["lr"] == 0.5 and table["eval"]["every"] == 2


def test_a_trial_computes_the_deciding_ranking_alone(tmp_path):
    """Other rankings, and postprocessors that they alone name, are not in a trial's run file, which
    is sound without them and scores the first as before."""
    file = tmp_path / "run.toml"
    posts = '[[post]]\nname = "{0}"\nuse = "core.rerank"\nk1 = {1}\n'
    ranking = '[[ranking]]\nname = "{0}"\nmatcher = "look"\npost = ["{1}"]\n'
    tables = [posts.format("wide", 6), posts.format("narrow", 3)]
    tables += [ranking.format("first", "narrow"), ranking.format("second", "wide")]
    file.write_text(TINY + "".join(tables))
    both = plan_run(file, ["data.test=[]"])
    found = hold_out(plan(tmp_path, rows(8)), 0.5, 0, tmp_path)
    found.write()
    (tmp_path / "trial.toml").write_text(
        trial_text(both.runfile.table, {"post.narrow.k1": "2"}, found.parts, 1)
    )
    made = plan_run(tmp_path / "trial.toml").runfile
    assert [(one.name, one.post) for one in made.rankings] == [("first", ["narrow"])]
    assert [post["k1"] for post in made.table["post"]] == [2]


@pytest.mark.parametrize(
    ("data", "fraction", "message"),
    [
        (rows(3), 0.5, "has 3 identities, too few"),
        (rows(8), 0.1, "holds out 1 and leaves 7; 2 at least are needed on either side"),
        (rows(8), 0.9, "holds out 7 and leaves 1"),
        (rows(8, cameras=1), 0.5, 'with one camera, set eval.same_camera = "keep"'),
        (
            [*rows(1), *[Row(f"/p/{n}.jpg", f"x{n}", str(n % 2), "train") for n in range(9)]],
            0.5,
            "5 identities that are held out were seen by two cameras",
        ),
    ],
)
def test_too_few_are_held_out(tmp_path, data, fraction, message):
    with pytest.raises(UsageError) as refused:
        hold_out(plan(tmp_path, data, changes=["data.batch.ids=2"]), fraction, 0, tmp_path)
    assert message in str(refused.value)


def test_one_camera_whose_pictures_count(tmp_path):
    """With eval.same_camera = "keep" an identity of one camera has a query."""
    one_camera = plan(tmp_path, rows(8, cameras=1), changes=['eval.same_camera="keep"'])
    found = hold_out(one_camera, 0.5, 0, tmp_path)
    assert isinstance(found, HoldOut)
    (part,) = found.parts
    assert part.queries == 4 and {row.camera for row in part.rows} == {"0"}


def test_draws_follow_from_seed_number_and_key():
    """A draw is the same however many were drawn before it, and another for another number."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lr = one("optim.lr=1e-4..1e-2:log")

    def drawn(seed, before):
        study = optuna.create_study(sampler=SeededTpe(seed, {"optim.lr": 5e-3}, False))
        values = []
        for _ in range(8):
            trial = study.ask()
            if before:
                trial.suggest_float("other", 0, 1)
            values.append(lr.suggest(trial))
            study.tell(trial, (values[-1] - 2e-3) ** 2)
        return values

    assert drawn(0, False) == drawn(0, True)
    assert drawn(0, False)[0] == drawn(1, False)[0] == 5e-3  # the file's own
    assert not set(drawn(0, False)[1:]) & set(drawn(1, False)[1:])
    assert len(set(drawn(0, False))) == 8
