"""What a run knows of its data sets."""

from __future__ import annotations

from pathlib import Path

import archives
import pytest

from reidcore.api import Facts, Row
from reidcore.builtin.readers.cuhk03_np import CUHK03NP
from reidcore.builtin.readers.demo import Demo
from reidcore.builtin.readers.dukemtmc import DukeMTMC
from reidcore.builtin.readers.market1501 import Market1501
from reidcore.builtin.readers.msmt17 import MSMT17
from reidcore.builtin.readers.regdb import RegDB
from reidcore.builtin.readers.sysu_mm01 import SYSUMM01
from reidcore.builtin.readers.vehicleid import VehicleID
from reidcore.builtin.readers.veri776 import VeRi776
from reidcore.cli.main import main
from reidcore.data.datasets import DataPlan, Loaded
from reidcore.data.load_data import load_sources
from reidcore.data.manifest import write_manifest
from reidcore.errors import DataError
from reidcore.runfiles.runfile import Source


def loaded(role: str, rows: list[Row]) -> Loaded:
    return Loaded(Source(role, ("data", role), manifest="x.csv", name="x"), tuple(rows), None)


def plan(train: list[Row], test: list[Row], **trained: object) -> DataPlan:
    trains = (loaded("train", train),) if train else ()
    return DataPlan(trains, (loaded("test", test),), trained)


def test_evaluation_keeps_the_numbers_of_training():
    """A camera or modality has in evaluation the number it had in training; new ones come after."""
    train = [Row("a", "1", "door", modality="visible"), Row("b", "1", "yard", modality="visible")]
    test = [Row("c", "2", "attic", modality="infrared"), Row("d", "2", "yard", modality="visible")]
    trained = plan(train, test[1:])
    assert trained.camera_numbers == {"door": 0, "yard": 1}
    numbers, names = trained.camera_numbers, list(trained.modalities)
    later = plan([], test, camera_numbers=numbers, modalities=names)
    assert later.camera_numbers == {"door": 0, "yard": 1, "attic": 2}
    assert later.modalities == ("visible", "infrared")
    integers = plan([], [Row("e", "3", "7")], camera_numbers={"1": 1}, modalities=["visible"])
    assert integers.camera_numbers == {"1": 1, "7": 7}


def test_identities_of_several_training_sets_are_kept_apart():
    """Two training sets may use the same pids for different people."""
    rows = [Row("a", "1", "1"), Row("b", "2", "1")]
    both = DataPlan((loaded("train", rows), loaded("train", rows)), ())
    assert both.identities == 4
    assert [row.pid for row in both.training_rows()] == ["0:1", "0:2", "1:1", "1:2"]


@pytest.mark.parametrize(
    ("reader", "splits", "identities"),
    [
        (MSMT17(), ("train",), 1041),
        (MSMT17(), ("train", "val"), 1041),
        (MSMT17(), ("train", "val", "query", "gallery"), 4101),
        (Market1501(), ("train", "query", "gallery"), 1502),
        (Market1501(distractors=False), ("train", "query", "gallery"), 1501),
        (DukeMTMC(), ("train", "query", "gallery"), 1812),
        (CUHK03NP(boxes="labeled"), ("train", "query", "gallery"), 1467),
        (VeRi776(), ("gallery",), 200),
        (SYSUMM01(), ("train", "val"), 395),
        (RegDB(), ("train",), 206),
        (VehicleID(test_list=2400), ("train", "test"), 15564),
        (Demo(train_identities=7, test_identities=3), ("train", "gallery"), 10),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, tuple | int) else None,
)
def test_absent_identities_are_those_of_the_splits(reader, splits, identities, tmp_path):
    """Without the folder, a run has as many identities as its reader states of its splits."""
    found = archives.plan(reader, tmp_path / "absent", *splits, allow_missing=True)
    assert found.identities == identities
    assert f"assumed {identities} identities" in found.notes[0]


@pytest.mark.parametrize("reader", ["core.zip", "core.coco"])
@pytest.mark.parametrize(
    "protocol",
    [
        'use = "cross_camera"',
        'use = "cross_modality"',
        'use = "cross_modality", query = "thermal"',
        'use = "vehicleid"',
        'use = "regdb"',
        'use = "sysu"',
        'use = "open_set"',
    ],
)
def test_absent_data_of_which_nothing_is_known_are_not_complained_of(
    reader: str, protocol: str, tmp_path: Path, capsys
):
    """They may have what a protocol or a batch needs, so a check does not say that they lack it."""
    run = tmp_path / "own.toml"
    run.write_text((Path(__file__).parents[2] / "reidcore" / "runs" / "demo.toml").read_text())
    absent = f'read="{reader}", root="{tmp_path}/absent"'
    words = [
        f"data.train={{{absent}}}",
        f'data.test=[{{name="own", {absent}, protocol={{{protocol}}}}}]',
        'data.batch={use="core.two_modalities", ids=200, per_id=2}',
    ]
    assert main(["check", "--no-dry", str(run), *(f"--set={word}" for word in words)]) == 0, (
        capsys.readouterr().err
    )


def test_a_reader_without_groups_states_one_number():
    """Then it stands for whatever splits are used."""
    facts = Facts(9)
    assert facts.identities_in(["train", "query"]) == facts.identities_in(["val"]) == 9


def test_columns_are_those_that_every_test_set_fills():
    """A column counts only if all rows of all test sets have it."""
    timed = [Row("a", "1", "1", "query", 1.0), Row("b", "1", "2", "gallery", 2.0)]
    partly = [Row("a", "1", "1", "query", 1.0), Row("b", "1", "2", "gallery")]
    both = DataPlan((), (loaded("test", timed), loaded("test", partly)))
    assert both.test_columns == {"camera"}
    assert DataPlan((), (loaded("test", timed),)).test_columns == {"camera", "time"}


@pytest.mark.parametrize(
    ("role", "split", "message"),
    [("train", "query", "is in split train"), ("test", "train", "has no query pictures")],
)
def test_missing_splits_are_named(role: str, split: str, message: str, tmp_path: Path):
    """A manifest without the needed split is refused with what it has."""
    write_manifest(tmp_path / "own.csv", [Row(str(tmp_path / "a.jpg"), "1", "1", split)])
    source = Source(role, ("data",), manifest=str(tmp_path / "own.csv"), name="own")
    with pytest.raises(DataError) as caught:
        load_sources([(source, None)], make=False, allow_missing=False)
    assert message in str(caught.value) and f"{split} 1" in str(caught.value)


def test_every_data_set_has_its_hash():
    """Two training sets of one name are both in the lock, so that a change of either is noticed."""
    rows = [Row("/a", "1", "1")], [Row("/b", "2", "1")]
    both = DataPlan(tuple(loaded("train", part) for part in rows), (loaded("test", rows[0]),))
    assert list(both.hashes) == ["train x", "train x (2)", "test x"]
    assert both.hashes["train x"] == both.hashes["test x"] != both.hashes["train x (2)"]
