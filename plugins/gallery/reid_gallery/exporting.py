"""Writes a gallery's rows as CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from reid_gallery.filters import Filter
from reid_gallery.schema import Origin
from reid_gallery.told import told
from reidcore.errors import UsageError
from reidcore.tools import check_output, open_atomically

KINDS = (".csv", ".parquet")


def export(
    dataset: lance.LanceDataset, origin: Origin, file: Path, rows: Filter, vectors: bool = False
) -> int:
    """Write rows into a file, which appears when it is complete, and return how many.

    A CSV file has the columns of a manifest, so that it can be added elsewhere; a Parquet file may
    have the `vectors`, too. Raises UsageError for another kind of file.
    """
    if file.suffix not in KINDS:
        raise UsageError(f"{file}: a gallery is exported as {' or '.join(KINDS)}")
    if vectors and file.suffix == ".csv":
        raise UsageError("a CSV file holds no vectors; export them as .parquet")
    check_output(file)
    condition = rows.check(dataset)
    narrow = [column.name for column in origin.columns if not column.wide]
    names = [
        name
        for name in dataset.schema.names
        if name not in ("key", *narrow) and (file.suffix != ".csv" or name != "id")
    ]
    schema = pa.schema([dataset.schema.field(name) for name in names])
    if vectors:
        schema = pa.schema([*schema, *(dataset.schema.field(name) for name in narrow)])
    if file.suffix == ".csv":
        schema = schema.set(0, schema.field(0).with_name("path"))
    kind = pa.csv.CSVWriter if file.suffix == ".csv" else pa.parquet.ParquetWriter
    count = 0
    with open_atomically(file) as opened, kind(opened, schema) as writer:
        for table in _read(dataset, schema, condition, rows.where):
            writer.write_table(table)
            count += len(table)
    return count


def _read(
    dataset: lance.LanceDataset, schema: pa.Schema, condition: str | None, where: str
) -> Iterator[pa.Table]:
    columns = [name if name != "path" else "source" for name in schema.names]
    with told(dataset.uri, where):
        for batch in dataset.to_batches(columns=columns, filter=condition):
            table = pa.Table.from_batches([batch]).rename_columns(schema.names)
            yield table.cast(schema)
