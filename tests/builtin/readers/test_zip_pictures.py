"""`core.zip`: the labels of pictures in a zip, by a manifest in it or by names."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from reidcore.builtin.readers.zip_pictures import ZipPictures
from reidcore.cli.main import main
from reidcore.data.archives import ZipMember
from reidcore.errors import DataError, ReidError

HEADER = "path,pid,camera,split\n"
NAMES = [f"shots/p{pid}_c{camera}.png" for pid in range(4) for camera in (1, 2)]


def packed(path: Path, **texts: str) -> Path:
    """A zip of empty pictures and these files; pictures are not looked at."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in NAMES:
            archive.writestr(name, b"")
        for name, text in texts.items():
            archive.writestr(name.replace("__", "/") + ".csv", text)
    return path


@pytest.mark.parametrize(
    ("place", "path"), [("manifest", "shots/p1_c2.png"), ("shots__manifest", "p1_c2.png")]
)
def test_the_manifest_in_the_zip(place: str, path: str, tmp_path: Path):
    """Paths start at the manifest, which may lie in a folder; labels and boxes are its."""
    root = packed(
        tmp_path / "a.zip", **{place: f"{HEADER[:-1]},box\n{path},anna,2,query,1 2 3 4\n"}
    )
    (row,) = ZipPictures().rows(root)
    assert (row.path, row.pid, row.camera, row.split) == (
        f"{root}/shots/p1_c2.png", "anna", "2", "query",
    )  # fmt: skip
    assert row.opener == ZipMember(str(root), "shots/p1_c2.png")
    assert row.box == (1, 2, 3, 4)


def test_labels_from_names(tmp_path: Path):
    """With a pattern no manifest is read, and splits may be drawn."""
    root = packed(tmp_path / "a.zip", manifest="path,pid\n")
    rows = ZipPictures(pattern="shots/{pid}_c{camera}.png").rows(root)
    assert [row.listed for row in rows] == NAMES
    assert {row.split for row in rows} == {"train"}
    rows = ZipPictures(pattern="shots/{pid}_c{camera}.png", train_fraction=0.5).rows(root)
    train = {row.pid for row in rows if row.split == "train"}
    assert len(train) == 2
    assert {(row.pid in train) for row in rows if row.split in ("query", "gallery")} == {False}


def test_junk_in_names_is_left_out(tmp_path: Path):
    """-1 is no identity, as for `reid data index`."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("-1_c1.png", "7_c1.png"):
            archive.writestr(name, b"")
    rows = ZipPictures(pattern="{pid}_c{camera}.png").rows(tmp_path / "a.zip")
    assert [row.pid for row in rows] == ["7"]
    with pytest.raises(DataError, match="of the identity -1, junk"):
        ZipPictures(pattern="{pid}_c{camera}?png").rows(packed_junk(tmp_path))


def packed_junk(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "junk.zip", "w") as archive:
        archive.writestr("-1_c1.png", b"")
    return folder / "junk.zip"


@pytest.mark.parametrize(
    ("texts", "config", "said"),
    [
        ({}, {}, "has no manifest.csv that says who is on which picture"),
        ({"a__manifest": HEADER, "b__manifest": HEADER}, {}, "has several manifests, a/manifest"),
        ({"own": HEADER}, {"manifest": "ows.csv"}, "no manifest 'ows.csv', did you mean 'own.csv'"),
        ({"manifest": HEADER + "p9.png,1,1,train\n"}, {}, "1 listed picture is not in .*p9.png"),
        ({"manifest": HEADER + "../a.png,1,1,train\n"}, {}, "1 listed picture is not in "),
        ({"manifest": HEADER + "/etc/a.png,1,1,train\n"}, {}, "1 listed picture is not in "),
        ({"manifest": HEADER + "a.png,1,1,tran\n"}, {}, "a.zip/manifest.csv has 1 problem"),
        ({}, {"pattern": "{pid}/{camera}/*"}, "none of the 8 pictures under .*a.zip fits"),
    ],
)
def test_faults_are_told(texts: dict[str, str], config: dict[str, str], said: str, tmp_path: Path):
    """What is wrong with the zip or its manifest is a sentence that names the zip."""
    with pytest.raises(ReidError, match=said) as error:
        ZipPictures(**config).rows(packed(tmp_path / "a.zip", **texts))
    assert "a.zip" in str(error.value)


def test_an_absent_zip_is_told(tmp_path: Path, monkeypatch, capsys):
    """A check of all else says what is assumed of it, a run stops; a folder is no zip."""
    monkeypatch.delenv("REID_DATA", raising=False)
    run = tmp_path / "own.toml"
    run.write_text((Path(__file__).parents[3] / "reidcore" / "runs" / "demo.toml").read_text())
    words = [f'--set=data.{role}={{read="core.zip", root="{tmp_path}/none.zip"}}'
             for role in ("train", "test")]  # fmt: skip
    assert main(["check", "--no-dry", str(run), *words]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert f"data not found at {tmp_path}/none.zip; assumed 1000 identities" in said
    assert main(["run", str(run), *words, "--out", str(tmp_path / "run")]) == 4
    assert f"data not found at {tmp_path}/none.zip" in capsys.readouterr().err
    with pytest.raises(DataError, match="is no zip; set root to a file"):
        ZipPictures().rows(tmp_path)
    assert (
        main(
            ["check", str(run), *[word.replace("root=", 'pattern="{x}", root=') for word in words]]
        )
        == 2
    )
    assert "unknown field {x}" in capsys.readouterr().err
