"""`core.two_modalities`: DDAG's batches of identities in two modalities."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import write
from running import TINY

from reidcore.api import BatchShape, Given, WiringError
from reidcore.builtin import settings
from reidcore.builtin.readers.demo import Demo
from reidcore.builtin.readers.sysu_mm01 import SYSUMM01
from reidcore.builtin.samplers import TwoModalities, build_two_modalities
from reidcore.cli.main import main
from reidcore.errors import UsageError
from reidcore.modules import Context, Rows, open_run
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.training.dry_run import PER_ID, random_batch
from reidcore.wiring.make_plan import make_plan
from tests.oracles import Vectors, oracle


def rows_of(visible: np.ndarray, infrared: np.ndarray) -> Rows:
    """Pictures with these labels, visible ones first; their modalities are 0 and 1."""
    pid = np.concatenate([visible, infrared]).astype(np.int64)
    none = np.zeros(len(pid), dtype=np.int64)
    modality = np.repeat([0, 1], [len(visible), len(infrared)])
    text = [str(number) for number in range(len(pid))]
    names = [str(number) for number in range(int(pid.max()) + 1)]
    return Rows(text, pid, none, none.astype(float), modality, names, text)


def mixed(seed: int = 0) -> Rows:
    """Rows of 7 identities in mixed order, of which 6 has no infrared picture and 5 one only."""
    rows = rows_of(np.arange(60) % 7, np.array([*(np.arange(40) % 5), 5]))
    return rows.take(np.random.default_rng(seed).permutation(len(rows)))


def sampler(ids: int, per_id: int) -> TwoModalities:
    config = settings.TwoModalities(ids=ids, per_id=per_id)
    return build_two_modalities(config, Context(Given((8, 8), identities=9), "batch"))


def epoch(rows: Rows, ids: int, per_id: int, seed: int = 0) -> list[list[int]]:
    return sampler(ids, per_id).epoch(rows, torch.Generator().manual_seed(seed), None)


def legacy(seed: int):
    """Draws as the authors' program does, by NumPy's legacy generator."""
    random = np.random.RandomState(seed)
    return lambda have, count, again: random.choice(have, count, replace=again).tolist()


def said(vectors: Vectors, pattern: str) -> int:
    """A number that the side-car's semantics state."""
    found = re.search(pattern, vectors.sidecar["semantics"])
    assert found
    return int(found[1])


@pytest.mark.oracle
def test_streams_and_lists_equal_ddags(tmp_path):
    """With the program's random numbers both epochs have its indices, the second going on where the
    first ended. SYSU-MM01's reader lists the queries in the program's order, and the identities
    and cameras of which a single-shot gallery has a picture."""
    with oracle("ddag/lists_and_sampler") as vectors:
        visible, infrared = (vectors.input(f"s_{kind}_labels") for kind in ("visible", "infrared"))
        rows = rows_of(visible.numpy(), infrared.numpy())
        made = sampler(said(vectors, r"ids per batch=(\d+)"), said(vectors, r"num_pos=(\d+)"))
        draw = legacy(int(vectors.input("s_seed")))
        for number in range(len(vectors.names("s_epoch*_visible"))):
            batches = np.array(made.batches(rows, draw))
            first, second = np.split(batches, 2, axis=1)
            vectors.compare(f"s_epoch{number}_visible", first.ravel())
            vectors.compare(f"s_epoch{number}_infrared", second.ravel() - len(visible))

        taken = {path.split("/")[1] for path in vectors.arrays["tree"].tolist()}
        train, val = sorted({f"{pid:04d}" for pid in range(1, 534)} - taken)[:2]
        folders = {f"cam1/{pid}": ["0001.jpg"] for pid in (train, val)}
        for path in vectors.arrays["tree"].tolist():
            folder, _, file = path.rpartition("/")
            folders.setdefault(folder, []).append(file)
        vectors.inputs.add("tree")
        root = write(tmp_path / "SYSU-MM01", folders)
        (root / "exp").mkdir()
        vectors.inputs.add("test_id_line")
        lists = {"train": train, "val": val, "test": str(vectors.arrays["test_id_line"])}
        for split, line in lists.items():
            (root / "exp" / f"{split}_id.txt").write_text(line)
        test = [row for row in SYSUMM01(counts="any").rows(root) if row.split == "test"]
        for mode, cameras in (("all", "1245"), ("indoor", "12")):
            queries = [row for row in test if row.modality == "infrared"]
            vectors.compare(f"query_{mode}_ids", [int(row.pid) for row in queries])
            vectors.compare(f"query_{mode}_cams", [int(row.camera) for row in queries])
            listed = vectors.arrays[f"query_{mode}_paths"].tolist()
            assert [row.listed for row in queries] == listed
            vectors.compared.add(f"query_{mode}_paths")
            seen = dict.fromkeys(
                (int(row.pid), int(row.camera)) for row in test if row.camera in cameras
            )
            ids, cams = np.array(list(seen)).T
            trials = len(vectors.arrays[f"gallery_{mode}_ids"])
            vectors.compare(f"gallery_{mode}_ids", np.tile(ids, (trials, 1)))
            vectors.compare(f"gallery_{mode}_cams", np.tile(cams, (trials, 1)))
        vectors.later("gallery_*_paths", "which picture a trial takes is drawn by the protocol")


@pytest.mark.parametrize(("ids", "per_id"), [(3, 2), (6, 4), (1, 1)])
def test_batches_equal_a_loop_over_the_specification(ids, per_id):
    """Identities without repetition, then for each visible and infrared pictures with repetition,
    as many batches as the larger modality fills and one more."""
    rows, random = mixed(), np.random.RandomState(3)
    both = [
        pid
        for pid in range(7)
        if {0, 1} <= {int(m) for p, m in zip(rows.pid, rows.modality, strict=True) if p == pid}
    ]
    expected = []
    for _ in range(60 // (ids * per_id) + 1):
        visible, infrared = [], []
        for pid in random.choice(both, ids, replace=False):
            for side, modality in ((visible, 0), (infrared, 1)):
                have = [
                    index
                    for index in range(len(rows))
                    if rows.pid[index] == pid and rows.modality[index] == modality
                ]
                side += random.choice(have, per_id).tolist()
        expected.append(visible + infrared)
    assert sampler(ids, per_id).batches(rows, legacy(3)) == expected


@pytest.mark.parametrize(("ids", "per_id"), [(2, 2), (6, 1), (3, 5)])
def test_a_batch_shows_its_identities_in_both_modalities(ids, per_id):
    """The first half is visible, the second infrared; entry i of both is the same identity, whose
    `per_id` pictures stand side by side; the shape is the one that is promised."""
    rows = mixed()
    promised = settings.TwoModalities(ids=ids, per_id=per_id).batch()
    for batch in epoch(rows, ids, per_id):
        half = ids * per_id
        assert rows.modality[batch].tolist() == [0] * half + [1] * half
        labels = rows.pid[batch]
        assert (labels[:half] == labels[half:]).all()
        groups = labels[:half].reshape(ids, per_id)
        assert (groups == groups[:, :1]).all() and len(set(groups[:, 0])) == ids
        found = BatchShape(len(batch), len(set(labels)), max(Counter(labels.tolist()).values()))
        assert found == promised


def test_everybody_is_drawn_alike_and_nobody_without_a_partner():
    """Over many batches the identities that both modalities show come equally often, the pictures
    of one too, and the identity without an infrared picture never."""
    rows = mixed()
    batches = [batch for seed in range(120) for batch in epoch(rows, 2, 2, seed)]
    turns = Counter(int(pid) for batch in batches for pid in rows.pid[batch[:4:2]])
    assert set(turns) == set(range(6))
    expected = len(batches) * 2 / 6
    assert all(abs(count - expected) < 0.1 * expected for count in turns.values())
    drawn = Counter(index for batch in batches for index in batch)
    mine = [index for index in range(len(rows)) if rows.pid[index] == 0]
    for modality in (0, 1):
        counts = [drawn[index] for index in mine if rows.modality[index] == modality]
        mean = sum(counts) / len(counts)
        assert all(abs(count - mean) < 0.25 * mean for count in counts)


@pytest.mark.parametrize(
    ("visible", "infrared", "people", "batches"),
    [(22258, 11909, 395, 696), (2060, 2060, 206, 65), (32, 31, 8, 2)],
    ids=["SYSU-MM01", "RegDB", "just full"],
)
def test_published_lengths_of_an_epoch(visible, infrared, people, batches):
    """With 8 identities of 4 and 4 pictures an epoch of SYSU-MM01 has 696 batches and one of RegDB
    65; where the pictures just fill the batches there is one more."""
    rows = rows_of(np.arange(visible) % people, np.arange(infrared) % people)
    assert len(epoch(rows, 8, 4)) == batches


def test_order_follows_from_the_generator_alone():
    """Equal seeds give equal epochs, whatever was drawn before; other seeds, and the next epoch of
    one generator, give others."""
    rows = mixed()
    first = epoch(rows, 3, 2, seed=1)
    torch.rand(3)
    np.random.rand(3)
    assert epoch(rows, 3, 2, seed=1) == first
    assert epoch(rows, 3, 2, seed=2) != first
    generator = torch.Generator().manual_seed(1)
    made = sampler(3, 2)
    assert made.epoch(rows, generator, None) == first
    assert made.epoch(rows, generator, None) != first


def test_rows_that_make_no_batch_are_refused():
    """A part of the training pictures may lack a modality or identities that both show."""
    rows = mixed()
    with pytest.raises(UsageError, match=r"two modalities, but the pictures to draw from have 1"):
        epoch(rows.where(rows.modality == 1), 2, 2)
    with pytest.raises(
        UsageError, match=r"needs 7 identities, .* are 6; set data\.batch\.ids to 6"
    ):
        epoch(rows, 7, 1)
    apart = rows_of(np.array([0, 1]), np.array([2, 3]))
    with pytest.raises(UsageError, match=r"pictures in both modalities are 0$"):
        epoch(apart, 1, 1)


def given(**changes) -> Given:
    defaults = {
        "identities": 9,
        "train_modalities": ("visible", "infrared"),
        "train_columns": frozenset({"modality"}),
    }
    return Given((8, 8), **(defaults | changes))


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"train_modalities": ("visible",)}, "", "two modalities, but the data have visible. Use"),
        (
            {"train_modalities": ("visible", "infrared", "thermal")},
            "",
            "but the data have visible, infrared, thermal",
        ),
        ({"train_columns": frozenset({"camera"})}, "", "needs the manifest column modality"),
        ({"identities": 3}, "ids", "asks for 4 different identities"),
    ],
)
def test_data_that_do_not_fit_are_refused(changes, field, message):
    """Another number of modalities than two, pictures whose modality is not stated, and too few
    identities are told before anything is read."""
    config = settings.TwoModalities(ids=4, per_id=2)
    config.check(given())
    with pytest.raises(WiringError) as caught:
        config.check(given(**changes))
    assert caught.value.field == field and message in str(caught.value)


BATCH = 'batch = { use = "core.identities", ids = 4, per_id = 2 }'
BOTH = TINY.replace(BATCH, BATCH.replace("core.identities", "core.two_modalities"))
INFRARED = BOTH.replace("cameras = 2", "cameras = 2, infrared_cameras = 1")


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_check_counts_the_training_modalities(work, capsys):
    """The test pictures' modalities do not count, neither while the data are assumed nor when they
    are there; a reader that does not exist is reported alone."""
    tables = tomllib.loads(INFRARED)["data"]["test"] + tomllib.loads(TINY)["data"]["test"]
    readers = [Demo(**{key: table[key] for key in table if key != "read"}) for table in tables]
    Path("tiny.toml").write_text(
        BOTH[: BOTH.index("test =")] + INFRARED[INFRARED.index("test =") :]
    )
    for _ in range(2):
        assert main(["check", "--no-dry", "tiny.toml"]) == 2
        error = capsys.readouterr().err
        assert "data.batch (core.two_modalities): needs training pictures of two" in error
        assert "the data have visible." in error
        for reader in readers:
            reader.rows(reader.default_root())
    Path("tiny.toml").write_text(INFRARED.replace("core.demo", "core.demos", 1))
    assert main(["check", "--no-dry", "tiny.toml"]) == 2
    error = capsys.readouterr().err
    assert "core.demos" in error and "two modalities" not in error


def test_a_dry_run_trains_on_the_training_pictures_modalities(work):
    """Where only test pictures are infrared, the training batch is visible; what is ranked, and
    training on both, shows both in equal numbers."""
    cpu = torch.device("cpu")
    mixed = parse_runfile(
        TINY[: TINY.index("test =")] + INFRARED[INFRARED.index("test =") :],
        Path("tiny.toml"),
        ['data.batch.use="core.identities"'],
    )
    plan = make_plan(mixed, Plugins(), allow_missing=True)
    assert plan.given.modalities == ("visible", "infrared")
    visible = [0] * 2 * PER_ID
    for training, expected in ((True, visible), (False, visible + [1] * len(visible))):
        batch = random_batch(plan, cpu, training=training)
        assert batch.images.modality.tolist() == expected
        assert batch.pid.tolist() == ([0] * PER_ID + [1] * PER_ID) * (len(expected) // len(visible))
    plan = make_plan(parse_runfile(INFRARED, Path("tiny.toml")), Plugins(), allow_missing=True)
    assert random_batch(plan, cpu, training=True).images.modality.tolist() == [
        *visible,
        *[1] * len(visible),
    ]


def test_a_run_trains_on_them(work, capsys):
    """`reid run` trains with a triplet loss on such batches; the trained model is wired with the
    training modalities without the training data, and `reid eval` scores it."""
    Path("tiny.toml").write_text(INFRARED)
    assert main(["run", "tiny.toml", "--set", "train.epochs=1"]) == 0
    assert open_run("runs/tiny").plan.given.train_modalities == ("visible", "infrared")
    assert main(["eval", "runs/tiny"]) == 0
    capsys.readouterr()
