"""Pictures into batches: decoding, faults, augmentation, order."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import TINY

from reidcore.api import Row
from reidcore.cli.main import main
from reidcore.data.decoding import decode, normalized
from reidcore.data.pictures import PictureLoader, make_rows
from reidcore.distributed.processes import Processes
from reidcore.distributed.shared_batches import SharedImages
from reidcore.errors import DataError, ReidError, UsageError
from reidcore.modules import Batch, Rows
from reidcore.runfiles.tables import Data, Normalize
from reidcore.support.seeds import derived_seed


def make_pictures(folder: Path, count: int = 6, size: tuple[int, int] = (20, 10)) -> list[Row]:
    rows = []
    for index in range(count):
        values = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
        path = folder / f"{index}.png"
        Image.fromarray(values).save(path)
        rows.append(Row(str(path), f"p{index % 3}", listed=f"own.csv row {index + 2}"))
    return rows


def noisy(picture: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 256, picture.shape, generator=draw).to(torch.uint8)


def loader(
    workers: int = 2,
    cache: float = 1.0,
    augment: bool = True,
    seed: int = 0,
    worker: str = "thread",
):
    data = Data(image=(16, 8), workers=workers, cache=cache, normalize="none", worker_kind=worker)
    made = PictureLoader(data, seed, [noisy] if augment else [])
    made.ahead = True  # as on a GPU
    return made


either_worker = pytest.mark.parametrize("worker", ["thread", "process"])


def as_rows(rows: list[Row]) -> Rows:
    return make_rows(rows, {"": -1}, ("visible",))


def drawn(made: PictureLoader, rows: Rows, epoch: int, stream: int = 0) -> torch.Tensor:
    order = [[0, 1, 2], [3, 4, 5]]
    return torch.cat([b.images.pixels for b in made.training(rows, order, epoch, stream)])


def test_decoded_pictures_are_rgb_rows_by_columns(tmp_path: Path):
    """A picture keeps its channels and its top-left corner."""
    values = np.zeros((4, 2, 3), dtype=np.uint8)
    values[0, 0] = (200, 100, 50)
    Image.fromarray(values).save(tmp_path / "a.png")
    decoded = decode(Row(str(tmp_path / "a.png"), ""), (4, 2), "bilinear")
    assert decoded.shape == (3, 4, 2) and decoded.dtype == torch.uint8
    assert decoded[:, 0, 0].tolist() == [200, 100, 50]
    assert decoded[:, 1:].sum() == 0


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_colour_mode_gives_three_channels(mode: str, tmp_path: Path):
    """Grey, transparent, palette, print and black-and-white pictures are read as RGB."""
    Image.new(mode, (6, 9)).save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    file = next(tmp_path.iterdir())
    assert decode(Row(str(file), ""), (8, 4), "lanczos").shape == (3, 8, 4)


@either_worker
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated"])
def test_unreadable_pictures_name_their_file_and_row(damage: str, worker: str, tmp_path: Path):
    """A damaged picture ends the batch with its path and its manifest row; nothing hangs. Batches
    before it arrive, though it has been read before they are used."""
    rows = make_pictures(tmp_path)
    bad = Path(rows[4].path)
    content = bad.read_bytes()
    bad.unlink()
    if damage != "missing":
        bad.write_bytes({"empty": b"", "text": b"hello", "truncated": content[:80]}[damage])
    arrived = []
    with pytest.raises(DataError) as caught:
        for batch in loader(worker=worker).training(as_rows(rows), [[0, 1], [2, 3], [4, 5]], 0, 0):
            arrived.append(batch.pid.tolist())
            time.sleep(0.1)
    assert arrived == [[0, 1], [2, 0]]
    assert str(bad) in str(caught.value) and "0x" not in str(caught.value)
    assert "own.csv row 6" in str(caught.value)
    assert caught.value.exit_code == 4


def test_normalisation_follows_imagenet(tmp_path: Path):
    """imagenet subtracts the mean and divides by the deviation; none stays in [0, 1]."""
    pixels = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert torch.equal(normalized(pixels, "none"), torch.ones(1, 3, 2, 2))
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(normalized(pixels, "imagenet")[0, :, 0, 0], expected)


def test_normalisation_by_a_table(tmp_path: Path):
    """A table's mean is subtracted from red, green and blue in [0, 1], which are then divided by
    its deviation, in training and evaluation; ImageNet's numbers give what "imagenet" gives."""
    rows, mean, deviation = as_rows(make_pictures(tmp_path)), (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)

    def seen(by: Normalize | str) -> list[torch.Tensor]:
        made = PictureLoader(Data(image=(16, 8), normalize=by), 0)
        batches = (*made.plain(rows, 4), *made.training(rows, [[2, 0]], 0, 0))
        return [batch.images.pixels for batch in batches]

    for one, plain in zip(
        seen(Normalize(mean=mean, deviation=deviation)), seen("none"), strict=True
    ):
        for channel in range(3):
            expected = (plain[:, channel].double() - mean[channel]) / deviation[channel]
            torch.testing.assert_close(one[:, channel], expected.float())
    own = Normalize(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))
    for one, other in zip(seen(own), seen("imagenet"), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('"imagnet"', "or table, got text 'imagnet' at .normalize, did you mean 'imagenet'?"),
        ("{ mean = [0.4, 0.4, 0.4] }", ": missing key 'deviation'"),
        (
            "{ mean = [124, 116, 104], deviation = [0.2, 0.2, 0.2] }",
            "expected a number at most 1, got 124",
        ),
        ("{ mean = [0.4, 0.4, 0.4], deviation = [0.2, 0, 0.2] }", "above 0, got 0"),
        ("{ mean = [0.4], deviation = [0.2, 0.2, 0.2] }", "expected a list of 3, got list [0.4]"),
        ("{ mean = [0, 0, 0], std = [1, 1, 1] }", "unknown key 'std'"),
    ],
)
def test_faults_of_normalize_are_told(tmp_path: Path, capsys, value: str, message: str):
    """Words that are no choice, and tables with missing, unknown or impossible statistics, such as
    those of pixels up to 255, are refused at their key."""
    file = tmp_path / "tiny.toml"
    file.write_text(TINY.replace("image = [32, 16]", f"image = [32, 16]\nnormalize = {value}"))
    assert main(["check", "--no-dry", str(file)]) == 2
    error = capsys.readouterr().err
    assert "[data]" in error and message in error and "normalize" in error


def test_a_run_keeps_its_own_statistics(tmp_path: Path, monkeypatch, capsys):
    """Statistics of a run file, and of `--set`, stand in the run record and are the same run on
    resume; others are another run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_CACHE", str(tmp_path / "cache"))
    table = "{ mean = [0.25, 0.5, 0.75], deviation = [1, 1, 1] }"
    Path("tiny.toml").write_text(
        TINY.replace("image = [32, 16]", f"image = [32, 16]\nnormalize = {table}")
    )
    short = ["run", "tiny.toml", "--set", "train.epochs=1"]
    assert main([*short, "--set", "data.normalize.deviation=[1, 2, 1]"]) == 0
    lock = json.loads(Path("runs/tiny/lock.json").read_text())["resolved"]["data"]["normalize"]
    assert lock == {"mean": [0.25, 0.5, 0.75], "deviation": [1, 2, 1]}
    again = [*short, "--resume", "--set"]
    assert main([*again, "data.normalize.deviation=[1, 2, 1]"]) == 0
    capsys.readouterr()
    assert main([*again, "data.normalize.deviation=[1, 1, 1]"]) == 2
    assert (
        "data.normalize.deviation was [1.0, 2.0, 1.0], is [1.0, 1.0, 1.0]"
        in capsys.readouterr().err
    )


def test_augmentation_follows_from_seed_epoch_stream_and_place(tmp_path: Path):
    """Threads and cache change nothing; seed, epoch and stream change everything."""
    rows = as_rows(make_pictures(tmp_path))
    first = drawn(loader(), rows, epoch=3)
    assert torch.equal(first, drawn(loader(workers=1, cache=0), rows, epoch=3))
    assert torch.equal(first, drawn(loader(workers=7), rows, epoch=3))
    assert torch.equal(first, drawn(loader(worker="process"), rows, epoch=3))
    for other in (
        drawn(loader(), rows, epoch=4),
        drawn(loader(), rows, epoch=3, stream=1),
        drawn(loader(seed=1), rows, epoch=3),
    ):
        assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[3]), "places draw independently"


def test_the_cache_keeps_pictures_unaugmented(tmp_path: Path):
    """Augmentation works on a copy, so a cached picture is the decoded one ever after."""
    rows = as_rows(make_pictures(tmp_path))

    def blacken(picture: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        return picture.zero_()

    made = PictureLoader(Data(image=(16, 8), normalize="none"), 0, [blacken])
    before = torch.cat([b.images.pixels for b in made.plain(rows, 4)])
    assert drawn(made, rows, 0).sum() == 0
    after = torch.cat([b.images.pixels for b in made.plain(rows, 4)])
    assert before.sum() > 0 and torch.equal(before, after)


@either_worker
def test_plain_batches_keep_order_and_labels(worker: str, tmp_path: Path):
    """Test batches come in row order, the last one smaller, with numbered identities."""
    rows = make_pictures(tmp_path)
    batches = list(loader(augment=False, worker=worker).plain(as_rows(rows), 4))
    assert [len(batch) for batch in batches] == [4, 2]
    assert torch.cat([batch.pid for batch in batches]).tolist() == [0, 1, 2, 0, 1, 2]


@either_worker
def test_leaving_early_stops_the_threads(worker: str, tmp_path: Path):
    """A consumer that stops after one batch leaves no thread and no process behind."""
    batches = loader(worker=worker).plain(as_rows(make_pictures(tmp_path, 40)), 1)
    next(batches)
    assert len(multiprocessing.active_children()) == (2 if worker == "process" else 0)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("reid-pictures")]
    assert not multiprocessing.active_children()


def test_the_next_batch_is_sent_before_one_is_used(tmp_path: Path):
    """Where batches are sent ahead, the next one is on its way when one is handed over, in the
    order of the batches, each once; elsewhere a batch is placed when it is asked for."""
    rows = as_rows(make_pictures(tmp_path))
    for ahead in (True, False):
        made, log = loader(), []
        made.ahead = ahead
        place = made._placed

        def noting(batch: Batch, place=place, log=log) -> Batch:
            log.append(f"sent {batch.pid.tolist()}")
            return place(batch)

        made._placed = noting
        for batch in made.training(rows, [[0], [1], [2], [3]], 0, 0):
            log.append(f"used {batch.pid.tolist()}")
            time.sleep(0.1)  # so that the next ones have been read
        assert [x for x in log if x[0] == "s"] == [f"sent [{n % 3}]" for n in range(4)]
        assert [x for x in log if x[0] == "u"] == [f"used [{n % 3}]" for n in range(4)]
        assert (log.index("sent [2]") < log.index("used [1]")) == ahead


def test_a_reading_process_that_is_killed_is_an_error(tmp_path: Path):
    """The batch that was awaited raises, instead of being waited for, and says what may help."""

    def fatal(picture: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return picture

    made = loader(worker="process")
    made.augment = (fatal,)
    with pytest.raises(ReidError, match=r'/dev/shm.*data.worker_kind = "thread"'):
        drawn(made, as_rows(make_pictures(tmp_path)), 0)
    assert not multiprocessing.active_children()


def test_reading_processes_end_with_a_killed_run(tmp_path: Path):
    """Processes do not outlive one that is killed and could not stop them."""
    code = """
import sys, time
from reidcore.data.reading_processes import ReadingProcesses
import multiprocessing
made = ReadingProcesses(2, None)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(60)
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    children = [int(pid) for pid in run.stdout.readline().split()]
    assert len(children) == 2
    run.kill()
    run.wait()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in children)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_reading_threads_do_not_compute_with_several(tmp_path: Path):
    """Each reading thread has one torch thread; the others' number is what it was, also for
    threads that start later."""
    seen: list[int] = []

    def noting(picture: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return picture

    def fresh() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        made = PictureLoader(Data(image=(16, 8), normalize="none"), 0, [noting])
        drawn(made, as_rows(make_pictures(tmp_path)), 0)
        assert seen == [1] * 6
        assert torch.get_num_threads() == fresh() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_come_on_the_device(tmp_path: Path):
    """A GPU's batches are there, normalised as on the CPU up to rounding."""
    rows = as_rows(make_pictures(tmp_path))
    data = Data(image=(16, 8))
    for here, there in zip(
        PictureLoader(data, 0).plain(rows, 4),
        PictureLoader(data, 0, (), "cuda").plain(rows, 4),
        strict=True,
    ):
        assert there.images.pixels.is_cuda and there.images.camera.is_cuda and there.pid.is_cuda
        torch.testing.assert_close(there.images.pixels.cpu(), here.images.pixels)
        assert torch.equal(there.pid.cpu(), here.pid)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@either_worker
def test_batches_sent_ahead_hold_their_pixels_on_the_device(worker: str, tmp_path: Path):
    """While a GPU still computes on earlier batches, and their memory is given back, later ones
    arrive whole: what each step saw is what the CPU sees."""
    rows = as_rows(make_pictures(tmp_path, 32))
    order = [[(3 * n + k) % 32 for k in range(8)] for n in range(40)]
    data = Data(image=(128, 64), worker_kind=worker)
    seen, load = [], torch.rand(2048, 2048, device="cuda")
    for batch in PictureLoader(data, 0, [noisy], "cuda").training(rows, order, 0, 0):
        for _ in range(20):
            load = (load @ load).clamp_(0, 1)
        seen.append((batch.images.pixels.double().sum((1, 2, 3)), batch.pid))
    here = PictureLoader(Data(image=(128, 64)), 0, [noisy]).training(rows, order, 0, 0)
    for (sums, pid), batch in zip(seen, here, strict=True):
        expected = batch.images.pixels.double().sum((1, 2, 3))
        torch.testing.assert_close(sums.cpu(), expected, rtol=1e-5, atol=1e-2)
        assert torch.equal(pid.cpu(), batch.pid)


def test_labels_follow_natural_order(tmp_path: Path):
    """Identities are numbered as people count: 2 before 10; unknown cameras are -1."""
    rows = [Row("a", "10", "3"), Row("b", "2", "", time=1.5), Row("c", "10", "1")]
    made = make_rows(rows, {"3": 3, "1": 1, "": -1}, ("visible",))
    assert made.names == ["2", "10"] and made.pid.tolist() == [1, 0, 1]
    assert made.camera.tolist() == [3, -1, 1]
    assert np.isnan(made.time[0]) and made.time[1] == 1.5


def test_derived_seeds_differ_by_every_part():
    """Seeds are stable, and (1, 23) is not (12, 3)."""
    assert derived_seed(1, "a") == derived_seed(1, "a") != derived_seed(1, "b")
    assert derived_seed(1, 23) != derived_seed(12, 3)
    assert 0 <= derived_seed("x") < 2**63


@either_worker
def test_a_process_reads_its_part_of_a_shared_batch(worker: str, tmp_path: Path):
    """Each of three processes has its own pictures of the batch that one alone has, augmented as
    there, with everybody's labels, and reads the others' only when it is asked for all pixels."""
    rows = as_rows(make_pictures(tmp_path, 8))
    order = [[5, 1, 7, 0, 3, 3, 2], [6, 4]]
    (whole, few) = loader(worker=worker).training(rows, order, 2, 1)
    found = []
    for number in range(3):
        made = loader(worker=worker)
        made.processes = Processes(number, 3)
        mine, undivided = made.training(rows, order, 2, 1)
        assert isinstance(mine.images, SharedImages) and len(mine) == len(mine.images) == 7
        assert torch.equal(mine.pid, whole.pid)
        assert torch.equal(mine.images.pixels, whole.images.pixels)
        own = torch.from_numpy(mine.images.division.own)
        assert torch.equal(mine.images.own.pixels, whole.images.pixels[own])
        found += own.tolist()
        # Two pictures are too few for three processes.
        assert not isinstance(undivided.images, SharedImages)
        assert torch.equal(undivided.images.pixels, few.images.pixels)
    assert found == list(range(7))


def test_processes_that_cannot_be_forked_are_refused(tmp_path: Path, monkeypatch):
    """Where a system cannot fork, the message names the key and what it may be."""
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(UsageError, match=r'\[data\]: worker_kind is "process".*use "thread"'):
        drawn(loader(worker="process"), as_rows(make_pictures(tmp_path)), 0)
