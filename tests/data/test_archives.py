"""Pictures in zips: read as they are, from several threads and processes, or refused."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import random
import shutil
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from own_pictures import picture, reid
from PIL import Image

from reidcore.api import Row
from reidcore.data.archives import ZipMember
from reidcore.data.check import check_rows
from reidcore.data.index import index_folder, list_pictures
from reidcore.data.manifest import read_manifest
from reidcore.data.opening import open_picture
from reidcore.errors import DataError


def made(path: Path, members: dict[str, bytes], packed: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def content(seed: int, size: tuple[int, int] = (16, 32)) -> bytes:
    noise = random.Random(seed).randbytes(size[0] * size[1] * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", size, noise).save(out, "PNG")
    return out.getvalue()


def patched(path: Path, name: str, **fields: tuple[str, int]) -> None:
    """Write numbers into a member's entry of the directory: {meaning: (struct format, value)}."""
    places = {"flags": 8, "kind": 10, "packed": 20, "size": 24}
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    while data[at + 46 : at + 46 + len(name)] != name.encode():
        at = data.index(b"PK\x01\x02", at + 4)
    for meaning, (form, value) in fields.items():
        struct.pack_into(form, data, at + places[meaning], value)
    path.write_bytes(data)


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_the_files(packed: int, tmp_path: Path):
    """A path through a zip, in sub-folders or not, gives the picture, with and without opener."""
    files = {name: content(seed) for seed, name in enumerate(["a.png", "x/b c.png", "x/y/[1].png"])}
    archive = made(tmp_path / "shots.zip", files, packed)
    rows = list_pictures(archive)
    assert [row.path for row in rows] == [f"{archive}/{name}" for name in sorted(files)]
    for row in rows:
        (tmp_path / "plain.png").write_bytes(files[row.listed])
        plain = open_picture(tmp_path / "plain.png").tobytes()
        assert open_picture(row).tobytes() == plain
        assert open_picture(row.path).tobytes() == plain
        assert pickle.loads(pickle.dumps(row)) == row
    assert sorted(os.listdir(tmp_path)) == ["plain.png", "shots.zip"]


def read_all(rows: list[Row]) -> list[bytes]:
    return [open_picture(row).tobytes() for row in rows]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_and_threads_share_no_place_in_the_file(start: str, tmp_path: Path):
    """What parent and children read at one time, in threads, is right, also in forked ones."""
    archive = made(tmp_path / "shots.zip", {f"{n:02}.png": content(n) for n in range(20)})
    rows = list_pictures(archive)
    expected = read_all(rows)  # the parent has the archive open when it forks
    context = multiprocessing.get_context(start)
    with context.Pool(2) as pool, ThreadPoolExecutor(4) as threads:
        apart = [pool.apply_async(read_all, [rows]) for _ in range(4)]
        here = [threads.submit(read_all, rows) for _ in range(8)]
        assert all(one.result() == expected for one in here)
        assert all(one.get(60) == expected for one in apart)


def test_a_replaced_archive_is_opened_again(tmp_path: Path):
    """A zip that is written anew gives its new pictures."""
    archive = made(tmp_path / "shots.zip", {"a.png": content(1)})
    (row,) = list_pictures(archive)
    before = open_picture(row).tobytes()
    made(tmp_path / "other.zip", {"a.png": content(2)})
    os.replace(tmp_path / "other.zip", archive)
    assert open_picture(row).tobytes() != before
    archive.unlink()
    with pytest.raises(DataError, match=r"a\.png cannot be read: .*shots\.zip: No such file"):
        open_picture(row)


def bomb(path: Path) -> None:
    made(path, {"a.png": bytes(80 << 20)})


def lying(path: Path) -> None:
    """80 MB that are said to be 1,000 bytes."""
    bomb(path)
    patched(path, "a.png", size=("<I", 1000))


def large(path: Path) -> None:
    """1 GB that is said to be packed into 1 GB."""
    made(path, {"a.png": bytes(1 << 20)})
    patched(path, "a.png", size=("<I", 1 << 30), packed=("<I", 1 << 30))


def encrypted(path: Path) -> None:
    made(path, {"a.png": content(0)})
    patched(path, "a.png", flags=("<H", 1))


def unusual(path: Path) -> None:
    made(path, {"a.png": content(0)}, zipfile.ZIP_LZMA)


def unknown(path: Path) -> None:
    made(path, {"a.png": content(0)})
    patched(path, "a.png", kind=("<H", 97))


def torn(path: Path) -> None:
    made(path, {"a.png": content(0)})
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)


def cut(path: Path) -> None:
    made(path, {"a.png": content(0)})
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (bomb, "grows from .* to 83,886,080 bytes when it is unpacked, which no picture does"),
        (lying, "cannot be unpacked: "),
        (large, "is said to take more bytes than"),
        (encrypted, "is encrypted; make a zip without a password"),
        (unusual, "is packed in an unusual way"),
        (unknown, "is packed in an unusual way"),
        (torn, "cannot be unpacked: "),
        (cut, "is no sound zip: "),
        (lambda path: made(path, {"a.png": b""}), "is empty"),
        (lambda path: made(path, {"a.png": b"text"}), "is not a picture"),
        (lambda path: made(path, {"b.png": content(0)}), "is missing"),
        (lambda path: path.write_text("no zip"), "is no sound zip: "),
        (lambda path: path.mkdir(), "is missing|is in no regular file"),
        (os.mkfifo, "is in no regular file|Not a directory"),
    ],
)
@pytest.mark.timeout(60)
def test_what_is_refused(make, said: str, tmp_path: Path, capsys):
    """Bombs, passwords and damage are sentences that name the member, of rows and of paths."""
    archive = tmp_path / "shots.zip"
    make(archive)
    member = f"{archive}/a.png"
    for row in (Row(member, "1"), Row(member, "1", opener=ZipMember(str(archive), "a.png"))):
        with pytest.raises(DataError, match=rf"^picture {member}\b.*({said})") as error:
            open_picture(row)
        assert len(str(error.value)) < 1000
    (tmp_path / "own.csv").write_text("path,pid,split\nshots.zip/a.png,1,train\n")
    assert reid("check", tmp_path / "own.csv") == 4
    assert f"own.csv row 2: {member} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("../up.png", False),
        ("/etc/up.png", False),
        ("a//b.png", False),
        ("./a.png", False),
        ("x/../a.png", False),
        (".hidden/a.png", True),
        ("__MACOSX/._a.png", True),
    ],
)
def test_names_in_a_zip_are_only_names(name: str, listed: bool, tmp_path: Path):
    """Names that lead out of a zip are refused, hidden ones left out; nothing is written."""
    archive = made(tmp_path / "shots.zip", {name: b"x"})
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("good.png", content(0))
    before = sorted(tmp_path.rglob("*"))
    if listed:
        assert [row.listed for row in list_pictures(archive)] == ["good.png"]
    else:
        with pytest.raises(DataError, match="expected a plain path"):
            list_pictures(archive)
    assert sorted(tmp_path.rglob("*")) == before


def test_equal_names_are_refused(tmp_path: Path):
    """Of two members of one name nobody knows which is meant."""
    archive = made(tmp_path / "shots.zip", {"a.png": content(0)})
    with pytest.warns(UserWarning), zipfile.ZipFile(archive, "a") as more:
        more.writestr("a.png", content(1))
    with pytest.raises(DataError, match=r"two members of the name 'a\.png'"):
        list_pictures(archive)


def test_a_file_is_no_folder(tmp_path: Path):
    """A path below a picture's file is told as before."""
    path = picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png/b\.png cannot be read: Not a directory"):
        open_picture(path / "b.png")


def test_index_and_check_of_a_zip(tmp_path: Path, capsys):
    """`reid data index` lists a zip as it lists the folder that was packed."""
    for pid in range(4):
        for camera in (1, 2):
            picture(tmp_path / "shots" / f"p{pid}_c{camera}.png", 2 * pid + camera)
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "shots")
    pattern = ("--pattern", "{pid}_c{camera}.png", "--split", "0.5")
    manifests = []
    for name, output in (("shots", "shots/manifest.csv"), ("packed.zip", "packed.csv")):
        assert reid("index", tmp_path / name, *pattern) == 0
        manifests.append(read_manifest(tmp_path / output))
        assert reid("check", tmp_path / output) == 0
    fields = [[(r.path.split("/")[-1], r.pid, r.camera, r.split) for r in m] for m in manifests]
    assert fields[0] == fields[1]
    assert "packed.zip/p0_c1.png" in (tmp_path / "packed.csv").read_text()
    with pytest.raises(DataError, match="is a zip, expected a manifest"):
        reid("check", tmp_path / "packed.zip")
    with pytest.raises(DataError, match=r"no pictures under .*none\.zip"):
        index_folder(made(tmp_path / "none.zip", {"a.txt": b"x"}))


def test_equal_pictures_in_a_zip_are_found(tmp_path: Path):
    """Members of equal content, under two identities, are duplicates like files."""
    archive = made(tmp_path / "shots.zip", {"a.png": content(0), "b.png": content(0)})
    rows = [Row(f"{archive}/{name}.png", pid) for name, pid in (("a", "1"), ("b", "2"))]
    ((first, second),) = check_rows(rows).duplicates
    assert (first.pid, second.pid) == ("1", "2")


def test_damaged_archives_are_our_errors(tmp_path: Path):
    """Whatever bytes of a zip are changed, pictures or sentences come of it, and nothing else."""
    path = made(
        tmp_path / "shots.zip", {"a.png": content(0, (5, 6)), "x/b.png": content(1, (5, 6))}
    )
    sound, draw, refused = path.read_bytes(), random.Random(0), 0
    for number in range(400):
        data = bytearray(sound)
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(len(data))] = draw.choice([0, 1, 255, draw.randrange(256)])
        if not number % 5:
            del data[draw.randrange(len(data)) :]
        path.unlink()
        path.write_bytes(data)
        for way in (
            lambda: [open_picture(row) for row in list_pictures(path)],
            lambda: open_picture(path / "a.png"),
        ):
            try:
                way()
            except DataError as error:
                refused += 1
                assert str(path) in str(error)
                assert len(str(error)) < 1000
    assert refused > 100
