"""A tiny run with a vector and two pairwise matchers, and pictures with what a CSV file says."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from running import TINY

from reidcore.builtin.readers.demo import Demo

MORE = """
[[head]]
name = "local"
use = "qaconv.local"
source = "backbone.layer3"
channels = 512

[[matcher]]
name = "pairs"
use = "qaconv.matcher"
feature = "local.map"

[[head]]
name = "guided"
use = "ipad.mutual_guided"
source = "backbone.layer4"
channels = 48

[[matcher]]
name = "mutual"
use = "ipad.mutual"
feature = "guided.vector"
kernel = "guided.kernel"

[[matcher]]
name = "far"
use = "core.euclidean"
features = ["neck.bn"]

[[loss]]
name = "memory"
use = "qaconv.memory"
feature = "local.map"
matcher = "pairs"

[[loss]]
name = "mutual_triplet"
use = "core.triplet"
matcher = "mutual"

[[post]]
name = "again"
use = "core.rerank"
k1 = 5

[[post]]
name = "lift"
use = "qaconv.tlift"
tau = 100
sigma = 200

[[ranking]]
name = "plain"
matcher = "look"

[[ranking]]
name = "fused"
fuse = { look = 0.5, far = 0.5 }
scale = "logistic"

[[ranking]]
name = "stretched"
fuse = { look = 1.0, far = 1.0 }
scale = "row_minmax"

[[ranking]]
name = "pairs"
matcher = "pairs"

[[ranking]]
name = "short"
matcher = "pairs"
shortlist = { by = "look", top = 7 }

[[ranking]]
name = "mutual"
matcher = "mutual"
shortlist = { by = "far", top = 7 }

[[ranking]]
name = "again"
matcher = "look"
post = ["again"]

[[ranking]]
name = "lifted"
matcher = "look"
post = ["lift"]
"""


def run_text() -> str:
    """The run file: one epoch, larger pictures so that QAConv's maps are wide."""
    text = TINY.replace("epochs = 6", "epochs = 1").replace("image = [32, 16]", "image = [64, 32]")
    return text + MORE


def draw(folder: Path, identities: int = 10) -> list[dict[str, str]]:
    """Draws pictures into a folder; returns what people.csv in it says of each."""
    rows = Demo(train_identities=2, test_identities=identities, pictures=6, cameras=3).rows(
        folder / "drawn"
    )
    cells = [
        {
            "path": str(Path(row.path).relative_to(folder)),
            "pid": row.pid,
            "camera": row.camera,
            "split": row.split,
            "time": str(100 + 10 * place),
            "speed": str(place % 7),
            "note": f"note-{place:04d}",
        }
        for place, row in enumerate(row for row in rows if row.split != "train")
    ]
    write_csv(folder / "people.csv", cells)
    for split in ("query", "gallery"):
        write_csv(folder / f"{split}.csv", [one for one in cells if one["split"] == split])
    return cells


def write_csv(path: Path, cells: list[dict[str, str]]) -> None:
    """Writes cells as a CSV file."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(cells[0]))
        writer.writeheader()
        writer.writerows(cells)


def draw_day(folder: Path, identities: int = 50) -> None:
    """Draws what docs/gallery.md begins with: a folder `seen` of walkers, seen.csv with their
    cameras and times on one day, one of them as new.jpg, and known.csv with the names of some."""
    rows = Demo(train_identities=2, test_identities=identities, pictures=5, cameras=4, seed=7).rows(
        folder / "drawn"
    )
    shown = sorted((row for row in rows if row.split != "train"), key=lambda row: row.path)
    (folder / "seen").mkdir()
    cells, known = [], []
    for place, row in enumerate(shown):
        name = f"{place:04d}.jpg"
        if place == len(shown) // 2:
            shutil.copy(row.path, folder / "new.jpg")
            continue
        shutil.copy(row.path, folder / "seen" / name)
        noon = 1_796_040_000 + 37 * (place * 61 % len(shown))  # 2026-11-30, from 12:00 on
        cells.append({"path": f"seen/{name}", "camera": row.camera, "time": str(noon)})
        known.append({"path": f"seen/{name}", "camera": row.camera, "identity": row.pid})
    write_csv(folder / "seen.csv", cells)
    write_csv(folder / "known.csv", known[:100])
    shutil.rmtree(folder / "drawn")


def other_run(work, folder):
    """The run with other weights."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    shutil.copytree(work / "run", folder)
    weights = load_file(folder / "weights.safetensors")
    name = next(name for name in weights if name.endswith("conv1.weight"))
    weights[name] = weights[name] * 1.5 + 0.01
    with safe_open(folder / "weights.safetensors", "pt") as file:
        metadata = file.metadata()
    save_file(weights, folder / "weights.safetensors", metadata)
    return folder
