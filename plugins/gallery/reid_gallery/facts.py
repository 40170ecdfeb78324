"""Which rows of a fragment meet a filter: by their cameras and times in memory, or by Lance."""

from __future__ import annotations

import attrs
import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.fragment import LanceFragment

from reid_gallery.filters import Filter


@attrs.frozen(eq=False)
class Rows:
    """Rows of a fragment in their order, int64 [N] each: their ids, and Lance's addresses, which
    are the fragment's number times 2^32 and the row's place in it."""

    ids: np.ndarray
    addresses: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def places(self) -> np.ndarray:
        """Each row's place in the fragment, removed ones counted."""
        return self.addresses & 0xFFFFFFFF

    def at(self, some: slice | np.ndarray) -> Rows:
        """Return some of them."""
        return Rows(self.ids[some], self.addresses[some])


@attrs.frozen(eq=False)
class Facts:
    """What filters mostly ask of a fragment's rows: 20 bytes a row, 28 where some were removed.

    names: of the fragment's cameras. camera: places among these, int32 [N], -1 for none. time:
    float64 [N], NaN for none. addresses: None where all rows are there, from `start` on.
    """

    names: list[str]
    camera: np.ndarray
    time: np.ndarray
    ids: np.ndarray
    start: int
    addresses: np.ndarray | None

    @classmethod
    def read(cls, dataset: lance.LanceDataset, fragment: LanceFragment) -> Facts:
        """Return those of a fragment."""
        table = _scanned(dataset, fragment, ["id", "camera", "time"])
        camera = pc.dictionary_encode(table.column("camera").combine_chunks())
        addresses = table.column("_rowid").to_numpy().astype(np.int64)
        start = fragment.fragment_id << 32
        whole = np.array_equal(addresses, np.arange(start, start + len(addresses)))
        return cls(
            camera.dictionary.to_pylist(),
            camera.indices.fill_null(-1).to_numpy(),
            table.column("time").fill_null(np.nan).to_numpy(),
            table.column("id").to_numpy(),
            start,
            None if whole else addresses,
        )

    def meeting(self, chosen: Filter) -> Rows:
        """Return the rows that meet a filter of cameras and times alone."""
        met = np.ones(len(self.ids), bool)
        if chosen.cameras:
            known = [place for place, name in enumerate(self.names) if name in chosen.cameras]
            met &= np.isin(self.camera, known)
        if chosen.after is not None:
            met &= self.time >= chosen.after
        if chosen.before is not None:
            met &= self.time < chosen.before
        places = np.flatnonzero(met)
        if self.addresses is None:
            return Rows(self.ids[places], places + self.start)
        return Rows(self.ids[places], self.addresses[places])


def asked(dataset: lance.LanceDataset, fragment: LanceFragment, chosen: Filter) -> Rows:
    """Return the rows that meet a filter, as Lance says."""
    table = _scanned(dataset, fragment, ["id"], chosen.sql)
    return Rows(table.column("id").to_numpy(), table.column("_rowid").to_numpy().astype(np.int64))


def _scanned(
    dataset: lance.LanceDataset, fragment: LanceFragment, columns: list[str], condition: str = ""
) -> pa.Table:
    return dataset.scanner(
        columns=columns,
        filter=condition or None,
        fragments=[fragment],
        with_row_id=True,
        scan_in_order=True,
        use_scalar_index=False,
    ).to_table()
