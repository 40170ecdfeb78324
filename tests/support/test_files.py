"""Files and folders that are written whole or not at all, and what is said where they cannot be."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from disks import files_of, permissions_hold

from reidcore.errors import OutputError, UsageError
from reidcore.runfolder.folder import RESUME, prepared
from reidcore.search.index_files import TemplateWriter, write_index
from reidcore.support.files import (
    check_new,
    check_output,
    new_folder,
    open_atomically,
    reserve,
    write_atomically,
    write_json,
)
from reidcore.support.temporaries import remove_leftovers, temporary_file, temporary_folder


def listing(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path):
    """The sentence has its path and what is there now; nothing else is left."""
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    write_json(old, {"a": 1})
    before = listing(tmp_path)
    with files_of(100):
        for path, kept in (
            (old, "the file that was there is unchanged"),
            (new, "no file was made"),
        ):
            with pytest.raises(OutputError, match=f"cannot write {path}: File too large; {kept}"):
                write_atomically(path, "x" * 101)
    assert listing(tmp_path) == before
    write_atomically(old, "x" * 101)
    assert listing(tmp_path) == {"old.json": b"x" * 101}


def test_a_file_that_is_written_piece_by_piece_appears_when_it_is_complete(tmp_path):
    """What fails amid it leaves the old one; another may write the same file meanwhile."""
    path = tmp_path / "a.csv"
    write_atomically(path, "old")
    with pytest.raises(ValueError, match="amid"), open_atomically(path) as file:
        file.write(b"half")
        raise ValueError("amid")
    assert listing(tmp_path) == {"a.csv": b"old"}
    with open_atomically(path) as file:
        file.write(b"first ")
        check_output(path)
        write_atomically(path, "other")
        file.write(b"second")
        file.flush()
        assert path.read_text() == "other"
    assert listing(tmp_path) == {"a.csv": b"first second"}


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, "a\nb", ".hidden"])
def test_every_name_that_a_file_may_have(tmp_path, name):
    """A temporary name is no longer than a file system takes."""
    write_atomically(tmp_path / name, b"1")
    with new_folder(tmp_path / "folder" / name) as partial:
        write_atomically(partial / name, b"2")
    assert listing(tmp_path) == {name: b"1", "folder": None, f"folder/{name}": None} | {
        f"folder/{name}/{name}": b"2"
    }


def test_what_is_no_plain_file_is_not_replaced(tmp_path):
    """Links stay links; what is written to a pipe or a device goes there."""
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(target)
    for text in ("1", "2"):
        check_output(link)
        write_atomically(link, text)
        assert link.is_symlink() and target.read_text() == text
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    check_output(pipe)
    write_atomically(pipe, "through")
    reader.join(20)
    assert read == ["through"] and stat.S_ISFIFO(pipe.stat().st_mode)
    write_atomically(Path("/dev/null"), "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OutputError, match="cannot write /dev/full: No space left on device"):
        write_atomically(Path("/dev/full"), "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "target"]


def test_an_open_file_by_another_name_is_written_as_it_is(tmp_path):
    """`-o /dev/stdout` adds to what was printed there."""
    code = (
        "from pathlib import Path\nfrom reidcore.support.files import write_atomically\n"
        "print('first', flush=True)\nwrite_atomically(Path('/dev/stdout'), 'second')"
    )
    with open(tmp_path / "out", "ab") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text().endswith("second")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "first\nsecond"


def test_outputs_are_refused_before_any_work(tmp_path):
    """Where there is a file in the way, no permission or no such folder."""
    (tmp_path / "file").touch()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    sealed = tmp_path / "sealed"
    sealed.mkdir(mode=0)
    before = listing(tmp_path)
    with permissions_hold():
        for place, why in (
            (tmp_path / "file" / "x", "Not a directory"),
            (closed / "x", "Permission denied"),
            (sealed / "x", "Permission denied"),
            (sealed / "deep" / "x", "Permission denied"),
        ):
            for check in (check_output, check_new):
                with pytest.raises(OutputError, match=f"cannot write {place}: {why}"):
                    check(place)
        with pytest.raises(OutputError, match="Permission denied"), new_folder(closed / "a" / "b"):
            raise AssertionError("it was entered")
        with pytest.raises(OutputError, match="Permission denied"), prepared(closed / "a", False):
            raise AssertionError("it was entered")
        with pytest.raises(UsageError, match="there is no folder"):
            check_output(tmp_path / "none" / "x")
        check_new(tmp_path / "none" / "x")
    assert listing(tmp_path) == before


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    """Whatever ends its writing; an error of another file is not taken for its own."""
    for error, seen_as, words in (
        (KeyboardInterrupt("stopped"), KeyboardInterrupt, "stopped"),
        (OSError(28, "No space left on device"), OutputError, "nothing was left there"),
        (PermissionError(13, "Permission denied", "/other"), PermissionError, "/other"),
    ):
        with pytest.raises(seen_as, match=words), new_folder(tmp_path / "new") as partial:
            (partial / "file").touch()
            raise error
    with (
        files_of(100),
        pytest.raises(OutputError) as caught,
        new_folder(tmp_path / "new") as partial,
    ):
        write_atomically(partial / "inner", "x" * 101)
    assert f"cannot write {tmp_path / 'new'}: File too large; nothing" in str(caught.value)
    assert listing(tmp_path) == {}


def test_only_what_nobody_holds_is_a_leftover(tmp_path):
    """A killed process lets go of its files; those of a living one, and other names, stay."""
    with ExitStack() as stack:
        file, _ = stack.enter_context(temporary_file(tmp_path / "a.json"))
        folder = stack.enter_context(temporary_folder(tmp_path / "a.json"))
        others = [".a.json.words.tmp", ".b.json.0123abcd.tmp", "a.json.0123abcd.tmp", "a.json"]
        for name in [*others, ".a.json.0123abcd.tmp"]:
            (tmp_path / name).touch()
        left = tmp_path / ".a.json.89abcdef.tmp"
        (left / "inner").mkdir(parents=True)
        (left / "inner" / "file").touch()
        check_output(tmp_path / "a.json")
        held = {file.name, folder.name}
        assert {path.name for path in tmp_path.iterdir()} == {*others, *held}
        remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {*others[:1], *others[2:], *held}
    assert {path.name for path in tmp_path.iterdir()} == {*others[:1], *others[2:]}


@pytest.mark.parametrize("temporary", [temporary_file, temporary_folder])
def test_what_is_being_made_while_another_cleans_up(tmp_path, temporary):
    """What a cleaner removes before it is held is made again, and what is held stays."""
    made = threading.Event()

    def clean():
        while not made.is_set():
            remove_leftovers(tmp_path)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for _ in range(200):
            with temporary(tmp_path / "a") as partial:
                path = partial if isinstance(partial, Path) else partial[0]
                assert path.exists()
    finally:
        made.set()
        cleaner.join()
    assert listing(tmp_path) == {}


def test_a_killed_process_is_cleaned_up_after(tmp_path):
    """By the next one that makes the same folder, or that resumes a run in it."""
    code = (
        "import os\nfrom pathlib import Path\nfrom reidcore.support.files import new_folder\n"
        "with new_folder(Path('idx')) as partial:\n    (partial / 'x').touch()\n    os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path)
    assert len(listing(tmp_path)) == 2
    check_new(tmp_path / "idx")
    assert listing(tmp_path) == {}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path)
    with prepared(tmp_path, resume=True):
        assert listing(tmp_path) == {}


def test_what_is_kept_of_a_run(tmp_path):
    """A run that cannot go on says what there is of it, also where its folder has gone."""
    run = tmp_path / "run"
    with pytest.raises(OutputError, match=r"What the run had saved is kept in .*--resume"):  # noqa: SIM117
        with prepared(run, False), files_of(100):
            write_atomically(run / RESUME, "x" * 100)
            write_atomically(run / "means.csv", "x" * 101)
    (run / RESUME).unlink()
    with pytest.raises(OutputError, match=r"there is no folder .* has gone"):  # noqa: SIM117
        with prepared(run, False):
            run.rmdir()
            write_atomically(run / RESUME, "1")
    assert not run.exists()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
    try:
        done = subprocess.run(mount, capture_output=True)
    except OSError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("this process may not mount")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_an_index_on_a_full_disk(small_disk):
    """Its space is taken before anything is computed, and given back."""
    from reidcore.contracts.component import Row, TensorSpec

    rows = tuple(Row(f"/{number}.jpg", "") for number in range(100))
    with pytest.raises(OutputError, match="No space left on device; nothing was left there"):  # noqa: SIM117
        with write_index(small_disk / "index", rows, "me", "run") as partial:
            TemplateWriter(partial, {"m": {"v": TensorSpec((1000,))}}, 100)
    assert listing(small_disk) == {}


@pytest.mark.parametrize("works", [True, False])
def test_room_is_reserved(tmp_path, monkeypatch, works):
    """Also where a file system cannot, by writing; never more than there is."""
    if not works:

        def refused(*_):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "posix_fallocate", refused, raising=False)
    size = (3 << 20) + 5
    with open(tmp_path / "file", "wb") as file:
        reserve(file.fileno(), size)
        reserve(file.fileno(), 0)
    state = (tmp_path / "file").stat()
    assert state.st_size == size and state.st_blocks * 512 >= size
    with files_of(1000), open(tmp_path / "other", "wb") as file:  # noqa: SIM117
        with pytest.raises(OSError, match="File too large"):
            reserve(file.fileno(), 1001)
