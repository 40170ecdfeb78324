"""Protocols against vectors made by the published programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from archives import write

from reidcore.api import Row
from reidcore.builtin.readers.sysu_mm01 import SYSUMM01
from reidcore.data.datasets import Loaded
from reidcore.data.load_data import load_sources
from reidcore.data.numbering import Numbering
from reidcore.evaluation.labelled_set import make_labelled_set
from reidcore.evaluation.metrics import Scores, rank_queries, summarize
from reidcore.protocols.all_protocols import PROTOCOLS
from reidcore.runfiles.data_entries import read_protocol
from reidcore.runfiles.runfile import Source
from reidcore.runfiles.tables import Eval
from tests.oracles import Vectors, oracle

pytestmark = pytest.mark.oracle

VISIBLE = ("1", "2", "4", "5")


def scored(rows: list[Row], distances: torch.Tensor, use: str, ranks: int) -> Scores:
    """Scores of the first rows as queries and the others as gallery, as a protocol counts them."""
    protocol = PROTOCOLS[use]()
    source = Source("test", ("data", "test"), name="t")
    loaded = Loaded(source, tuple(rows), None, protocol=protocol)
    numbering = Numbering(modalities=("visible", "infrared")).extended(rows)
    test = make_labelled_set(loaded, numbering, Eval().same_camera)
    numbers = torch.arange(len(rows))
    query, gallery = numbers[: len(distances)], numbers[len(distances) :]
    identity = test.identity[gallery] if protocol.cmc == "identity" else None
    masks = test.relevance(query, gallery).rows(0, len(query)).masks()
    each = rank_queries(distances, *masks, identity=identity)
    return summarize([each], ranks)


def sysu_rows(vectors: Vectors, case: str) -> list[Row]:
    rows = []
    for side in ("q", "g"):
        ids = vectors.input(f"{case}_{side}_ids").tolist()
        cameras = vectors.input(f"{case}_{side}_cams").tolist()
        for number, (pid, camera) in enumerate(zip(ids, cameras, strict=True)):
            modality = "visible" if str(camera) in VISIBLE else "infrared"
            path = f"/cam{camera}/{pid:04d}/{side}{number:04d}.jpg"
            rows.append(Row(path, f"{pid:04d}", str(camera), "test", modality=modality))
    return rows


def test_sysu_scores_equal_the_authors_and_the_official_ones():
    """CMC by identity, mAP, mINP and the number of valid queries equal those of DDAG's evaluator
    and of SYSU-MM01's own, with queries that have no match and with few identities."""
    with oracle("ddag/evaluators") as vectors:
        for case in (prefix.removesuffix("_") for prefix in vectors.sidecar["cases"]):
            rows, distances = sysu_rows(vectors, case), vectors.input(f"{case}_dist")
            found = scored(rows, distances, "sysu", vectors.arrays[f"{case}_cmc"].size)
            vectors.compare(f"{case}_cmc", found.cmc, atol=1e-6)  # stored in float32
            vectors.compare(f"{case}_mAP", found.map, rtol=1e-12)
            vectors.compare(f"{case}_mINP", found.minp, rtol=1e-12)
            vectors.compare(f"{case}_n_valid", found.valid)
            if vectors.names(f"{case}_official_*"):
                size = vectors.arrays[f"{case}_official_cmc"].size
                found = scored(rows, distances, "sysu", size)
                vectors.compare(f"{case}_official_cmc", found.cmc, rtol=1e-12)
                vectors.compare(f"{case}_official_mAP", found.map, rtol=1e-12)

        for case in (name.removesuffix("_dist") for name in vectors.names("regdb_*_dist")):
            distances = vectors.input(f"{case}_dist")
            sides = [
                [
                    Row(f"/{modality}{number}", str(pid), "", "test", modality=modality)
                    for number, pid in enumerate(vectors.input(f"{case}_{side}_ids").tolist())
                ]
                for side, modality in (("q", "visible"), ("g", "infrared"))
            ]
            for name, rows, given in (
                (case, sides[0] + sides[1], distances),
                (f"{case}_swapped", sides[1] + sides[0], distances.T.contiguous()),
            ):
                found = scored(rows, given, "regdb", vectors.arrays[f"{name}_cmc"].size)
                vectors.compare(f"{name}_cmc", found.cmc, atol=1e-6)  # stored in float32
                vectors.compare(f"{name}_mAP", found.map, rtol=1e-12)
                vectors.compare(f"{name}_mINP", found.minp, rtol=1e-12)


def test_sysu_lists_equal_the_authors(tmp_path: Path):
    """From an archive, the reader and the seeded draw give the authors' queries and galleries of
    all trials, in both modes."""
    with oracle("ddag/lists_and_sampler") as vectors:
        taken = {path.split("/")[1] for path in vectors.arrays["tree"].tolist()}
        train, val = sorted({f"{pid:04d}" for pid in range(1, 534)} - taken)[:2]
        folders = {f"cam1/{pid}": ["0001.jpg"] for pid in (train, val)}
        for path in vectors.arrays["tree"].tolist():
            folders.setdefault(os.path.dirname(path), []).append(os.path.basename(path))
        write(tmp_path / "SYSU-MM01", folders)
        lists = {"train": train, "val": val, "test": str(vectors.arrays["test_id_line"])}
        (tmp_path / "SYSU-MM01" / "exp").mkdir()
        for split, line in lists.items():
            (tmp_path / "SYSU-MM01" / "exp" / f"{split}_id.txt").write_text(line)
        vectors.inputs |= {"tree", "test_id_line"}  # texts, which no tensor holds

        source = Source("test", ("data", "test"), root=str(tmp_path / "SYSU-MM01"), name="sysu")
        entries = [(source, SYSUMM01(counts="any"))]
        (loaded,) = load_sources(entries, make=False, allow_missing=False).test
        assert loaded.protocol == read_protocol("sysu")[0] and not loaded.unfit
        for task, mode in zip(loaded.protocol.tasks(loaded.rows), ("all", "indoor"), strict=True):
            assert task.name == f"{mode}-single"
            queries = [trial.query for trial in task.trials]
            assert queries == queries[:1] * len(queries)
            for side, found in (
                ("query", queries[0]),
                ("gallery", [trial.gallery for trial in task.trials]),
            ):
                compare(vectors, f"{side}_{mode}", loaded.rows, found)
        vectors.later("s_*", "batches of two modalities are a sampler's")


def compare(vectors: Vectors, name: str, rows: tuple[Row, ...], numbers) -> None:
    """Compares paths, identities and cameras of rows, of one list or of several."""

    def of(read):
        def each(found):
            return read(rows[found]) if isinstance(found, int) else [each(one) for one in found]

        return each(numbers)

    paths = of(lambda row: "/".join(row.path.split("/")[-3:]))
    assert paths == vectors.arrays[f"{name}_paths"].tolist()
    vectors.compared.add(f"{name}_paths")
    vectors.compare(f"{name}_ids", of(lambda row: int(row.pid)))
    vectors.compare(f"{name}_cams", of(lambda row: int(row.camera)))
