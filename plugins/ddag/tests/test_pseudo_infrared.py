"""Reader `ddag.pseudo_infrared`: visible pictures, some cameras of which are shown as infrared."""

from __future__ import annotations

import csv
import io
import pickle

import numpy as np
import pytest
from PIL import Image

from reid_ddag.pseudo_infrared import PseudoInfrared
from reidcore.cli.main import main
from reidcore.errors import DataError

CAMERAS = ("1", "3", "6")


@pytest.fixture
def manifest(tmp_path):
    """Three pictures of each of six people, one by every camera."""
    draw = np.random.default_rng(0)
    with open(tmp_path / "all.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "pid", "camera", "split"])
        for pid in range(6):
            for camera in CAMERAS:
                name = f"{pid}_{camera}.png"
                pixels = draw.integers(0, 256, (8, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name)
                writer.writerow([name, pid, camera, "train"])
    return tmp_path / "all.csv"


def pixels(row) -> np.ndarray:
    """What is seen of a row, uint8 [H, W, 3]."""
    source = row.path if row.opener is None else io.BytesIO(row.opener.read())
    with Image.open(source) as picture:
        return np.asarray(picture.convert("RGB"))


def test_other_cameras_stay_as_they_are(manifest):
    """Rows keep order and labels; those of the named cameras alone are infrared."""
    rows = PseudoInfrared().rows(manifest)
    assert [(row.pid, row.camera) for row in rows] == [
        (str(pid), camera) for pid in range(6) for camera in CAMERAS
    ]
    for row in rows:
        assert row.modality == ("visible" if row.camera == "1" else "infrared")
        assert (row.opener is None) == (row.camera == "1")
    only = PseudoInfrared(cameras=["1"]).rows(manifest)
    assert {row.camera for row in only if row.modality == "infrared"} == {"1"}


def test_a_picture_is_one_channel_under_a_camera_s_tone_curve(manifest):
    """Without noise and blur: grey, a power of one colour channel, the same one for all pictures of
    a person and camera, and one exponent for a camera. People differ in their channels."""
    rows = PseudoInfrared(noise=0, blur=0).rows(manifest)
    chosen = {}
    for camera in ("3", "6"):
        candidates = []
        for row in rows:
            if row.camera != camera:
                continue
            seen = pixels(row)
            assert (seen == seen[..., :1]).all()
            with Image.open(row.path) as file:
                colour = np.asarray(file).astype(float)
            # The exponents that each channel would need, and how far they agree.
            inner = (seen[..., 0] > 20) & (seen[..., 0] < 235)
            fits = []
            for channel in range(3):
                at = inner & (colour[..., channel] > 20) & (colour[..., channel] < 235)
                need = np.log(seen[..., 0][at] / 255) / np.log(colour[..., channel][at] / 255)
                fits.append((float(np.ptp(need)), channel, float(np.median(need))))
            spread, channel, exponent = min(fits)
            assert spread < 0.2
            chosen[row.pid, camera] = channel
            candidates.append(exponent)
        assert np.ptp(candidates) < 0.05
        assert 0.5 <= candidates[0] <= 2
    assert len(set(chosen.values())) > 1


def test_noise_and_blur_are_always_the_same(manifest):
    """A picture is seen alike at every reading, by other processes too, and not without noise."""
    rows, again = PseudoInfrared().rows(manifest), PseudoInfrared().rows(manifest)
    plain = PseudoInfrared(noise=0).rows(manifest)
    other = PseudoInfrared(seed=1).rows(manifest)
    row, number = next((row, n) for n, row in enumerate(rows) if row.modality == "infrared")
    assert row.opener == again[number].opener
    assert (pixels(row) == pixels(again[number])).all()
    sent = pickle.loads(pickle.dumps(row.opener))
    assert sent.read() == row.opener.read()
    assert (pixels(row) != pixels(plain[number])).any()
    assert (pixels(row) != pixels(other[number])).any()


def test_what_cannot_be_shown_is_told(manifest):
    nameless = manifest.with_name("nameless.csv")
    lines = [line.split(",") for line in manifest.read_text().splitlines()]
    nameless.write_text("".join(f"{path},{pid},{split}\n" for path, pid, _, split in lines))
    with pytest.raises(DataError, match="no pictures of camera '3'; its cameras are unknown"):
        PseudoInfrared().rows(nameless)
    with pytest.raises(DataError, match=r"no pictures of camera '33'.*its cameras are 1, 3, 6"):
        PseudoInfrared(cameras=["33"]).rows(manifest)
    text = manifest.read_text().replace("split\n", "split,modality\n")
    manifest.write_text(text.replace("train\n", "train,x\n"))
    with pytest.raises(DataError, match="has a column modality"):
        PseudoInfrared().rows(manifest)


def test_an_absent_manifest_may_be_large(tmp_path, capsys):
    """A batch that Market-1501's training pictures fill is not refused for want of them."""
    absent = f"root={tmp_path / 'absent.csv'}"
    words = [f"data.train.{absent}", f"data.test.0.{absent}", "data.batch.ids=200"]
    sets = [f"--set={word}" for word in words]
    assert main(["check", "--no-dry", "ddag:market-small-osnet", *sets]) == 0, (
        capsys.readouterr().err
    )
