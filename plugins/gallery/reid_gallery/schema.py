"""What a gallery is: the run that made its templates, and the columns of its two tables.

Its origin lies as JSON in the metadata of the table `pictures.lance`, so that it changes in the
same commit as the rows. Wide templates, such as maps of pairwise matchers, have a table of their
own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, Literal

import attrs
import pyarrow as pa

from reidcore.api import TensorSpec
from reidcore.errors import DataError, UsageError

LAYOUT = 1
METADATA = b"reid_gallery"
"""The key in the metadata of the table of pictures."""
WIDE = 8 << 10
"""Bytes of one matcher's template of a picture above which it lies in the table of maps."""
VERSION: Literal["2.0"] = "2.0"
"""The version of Lance's files. Later ones pack numbers, which makes reading all vectors, of which
nothing can be saved by packing, two to ten times as slow."""

BASE = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("key", pa.binary(16), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("box", pa.string()),
        pa.field("camera", pa.string()),
        pa.field("time", pa.float64()),
        pa.field("modality", pa.string()),
        pa.field("identity", pa.string()),
        pa.field("tracklet", pa.string()),
        pa.field("added", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""Columns of every gallery's table of pictures; those of templates and of the user follow."""
OWN = frozenset(BASE.names) - {"camera", "time", "modality", "box", "identity", "tracklet"}
"""Columns that no CSV file fills."""

_ARROW = {
    "float64": pa.float64(), "float32": pa.float32(), "float16": pa.float16(), "int64": pa.int64(),
    "int32": pa.int32(), "int16": pa.int16(), "int8": pa.int8(), "uint8": pa.uint8(),
}  # fmt: skip


def _ints(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


@attrs.frozen
class Column:
    """A column that holds one tensor of each picture's template.

    Attributes:
        name: of the column.
        matcher, key: what it holds, as in `Templates.parts`.
        shape, dtype: of the matcher's tensor of one picture.
        stored: dtype in the table, "float16" where the gallery is of half precision.
        wide: whether it lies in the table of maps.
        unit: whether vectors are stored with length 1, which their matcher's distance ignores.
    """

    name: str
    matcher: str
    key: str
    shape: tuple[int, ...] = attrs.field(converter=_ints)
    dtype: str
    stored: str
    wide: bool
    unit: bool = False

    @property
    def field(self) -> pa.Field:
        """The column as Arrow describes it."""
        # Without nulls Lance gives the numbers as they lie in the file.
        return pa.field(self.name, pa.list_(_ARROW[self.stored], prod(self.shape)), nullable=False)

    @property
    def bytes(self) -> int:
        """Bytes of one picture."""
        return TensorSpec(self.shape, self.stored).bytes


def _columns(values: Iterable[Column]) -> tuple[Column, ...]:
    return tuple(values)


@attrs.frozen
class Origin:
    """What is true of a gallery whatever pictures it holds.

    Attributes:
        run: name of the run.
        folder: the run folder, an absolute path.
        made_by: text that names the run, its weights, picture size and views.
        columns: those of templates.
        maps: name of the table of wide templates, "" if there are none.
    """

    run: str
    folder: str
    made_by: str
    columns: tuple[Column, ...] = attrs.field(converter=_columns)
    maps: str = ""

    @property
    def half(self) -> bool:
        """Whether floats are kept as float16."""
        return any(column.stored == "float16" != column.dtype for column in self.columns)

    def of(self, matchers: Mapping[str, Any] | frozenset[str], wide: bool) -> list[Column]:
        """Return the columns of some matchers in one of the tables."""
        return [one for one in self.columns if one.matcher in matchers and one.wide == wide]

    def schema(self, extra: pa.Schema | None = None) -> pa.Schema:
        """Return the schema of the table of pictures. extra: the user's columns."""
        vectors = [column.field for column in self.columns if not column.wide]
        fields = [*BASE, *vectors, *(extra or ())]
        return pa.schema(fields, metadata={METADATA: self.text().encode()})

    def maps_schema(self) -> pa.Schema:
        """Return the schema of the table of wide templates."""
        wide = [column.field for column in self.columns if column.wide]
        return pa.schema([BASE.field("id"), *wide])

    def text(self) -> str:
        """Return the origin as JSON."""
        return json.dumps({"layout": LAYOUT, **attrs.asdict(self)})

    @classmethod
    def read(cls, schema: pa.Schema, place: str) -> Origin:
        """Return the origin in a table's metadata. place: of the gallery, for messages.

        Raises DataError where another program wrote the table, UsageError for a newer layout.
        """
        content = (schema.metadata or {}).get(METADATA)
        if content is None:
            raise DataError(
                f"{place} holds a Lance table that `reid gallery` did not write: it does not say "
                "which run made its vectors; its columns are " + ", ".join(schema.names[:20])
            )
        try:
            origin = json.loads(content)
            layout = origin.pop("layout")
            if layout > LAYOUT:
                raise UsageError(
                    f"the gallery {place} has layout {layout}, and this program reads layout "
                    f"{LAYOUT}; upgrade reid-plugin-gallery"
                )
            origin["columns"] = [Column(**one) for one in origin["columns"]]
            return cls(**origin)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"the gallery {place} is damaged: its description: {error}") from None

    def extra(self, schema: pa.Schema) -> pa.Schema:
        """Return the user's columns of a table of pictures."""
        known = {*BASE.names, *(column.name for column in self.columns)}
        return pa.schema([field for field in schema if field.name not in known])


def template_columns(
    specs: Mapping[str, Mapping[str, TensorSpec]], unit: frozenset[str], half: bool
) -> tuple[Column, ...]:
    """Return the columns for templates. specs: {matcher: {key: shape and dtype}}. unit: matchers
    whose only vector is stored with length 1. half: whether floats are kept as float16.

    Raises UsageError for a dtype that Arrow does not have.
    """
    columns: list[Column] = []
    for matcher, keys in specs.items():
        wide = sum(spec.bytes for spec in keys.values()) > WIDE
        for key, spec in keys.items():
            stored = "uint8" if spec.dtype == "bool" else spec.dtype
            if stored not in _ARROW:
                raise UsageError(
                    f"matcher {matcher!r} has templates of {spec.dtype}, which a gallery cannot "
                    f"hold; it holds {', '.join(_ARROW)} and bool"
                )
            if half and stored.startswith("float"):
                stored = "float16"
            name = f"{matcher}__{key}"
            columns.append(
                Column(name, matcher, key, spec.shape, spec.dtype, stored, wide, matcher in unit)
            )
    return tuple(columns)
