"""Boxes in larger pictures, as a COCO file of annotations lists them. Torch-free."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from reidcore.builtin.readers.drawn_splits import split_setting, with_splits
from reidcore.contracts.component import Row
from reidcore.contracts.openers import whole_box
from reidcore.contracts.row_labels import SPLITS
from reidcore.contracts.settings import setting
from reidcore.data.labels import is_junk
from reidcore.data.manifest import LATEST, of_problems
from reidcore.errors import DataError, nearest
from reidcore.support.wording import shortened

Table = Mapping[str, Any]


@attrs.frozen
class CocoBoxes:
    """Settings of `core.coco`: boxes with an identity in larger pictures.

    A key that a setting names is looked for in an annotation, its `attributes`, its picture (an
    entry of `images`) and the picture's `attributes`, in this order.
    """

    annotations: str = setting(
        "the JSON file, below root; images, annotations and categories are read",
        default="annotations.json",
    )
    images: str = setting(
        "the folder, or a zip, that file_name of pictures starts from, below root", default=""
    )
    identity: str = setting(
        "the key that names the identity, one name for one identity in the whole file",
        default="track_id",
    )
    camera: str = setting(
        "the key that names the camera, such as camera_id; by default cameras are unknown",
        default="",
    )
    time: str = setting(
        "the key that tells the time in seconds, on one clock for all cameras", default=""
    )
    split: str = setting(
        "the key that says train, val, query, gallery or test, or one of these for all boxes",
        default="train",
    )
    categories: list[str] = setting(
        "names of the categories that are kept, such as person; by default all", default=[]
    )
    unnamed: Literal["refuse", "skip"] = setting(
        "boxes without an identity, or of -1: an error, or left out", default="refuse"
    )
    train_fraction: float | None = split_setting()
    seed: int = setting("seed of the draw of train_fraction", default=0, at_least=0)

    def facts(self) -> None:
        """Nothing is known without the annotations."""

    def rows(self, root: Path) -> list[Row]:
        """Return a row for every annotation with an identity, in the order of the file.

        Annotations of crowds (iscrowd) are left out. Pictures are not looked at.

        Raises:
            DataError: The file is missing or damaged; the text names its annotations at fault.
        """
        root = Path(root).absolute()
        file = root / self.annotations
        content = _read(file)
        images = _by_id(file, content, "images")
        kept = self._kept(file, content)
        rows, problems = [], []
        for number, annotation in enumerate(_list(file, content, "annotations")):
            listed = f"{file.name} annotation {str(annotation.get('id', f'at {number}'))[:100]}"
            if annotation.get("iscrowd") or (
                kept is not None and annotation.get("category_id") not in kept
            ):
                continue
            try:
                row = self._row(annotation, images, root / self.images, listed)
            except (DataError, ValueError) as error:
                problems.append(str(error))
            except OverflowError:
                problems.append(f"{listed}: has a number that is too large")
            else:
                rows += [] if row is None else [row]
        if problems:
            raise of_problems(str(file), problems)
        if not rows:
            raise DataError(f"{file} has no annotation that is kept, so there are no pictures")
        return with_splits(rows, self.train_fraction, self.seed)

    def _kept(self, file: Path, content: Table) -> list[Any] | None:
        """Return the ids of the categories that are kept, None for all."""
        if not self.categories:
            return None
        listed = _list(file, content, "categories")
        names = {str(one.get("name")): one.get("id") for one in listed}
        for name in self.categories:
            if name not in names:
                raise DataError(
                    f"{file} has no category {name!r}{nearest(name, names)}; it has "
                    f"{shortened(', '.join(names), 300) or 'none'}"
                )
        return [names[name] for name in self.categories]

    def _row(
        self, annotation: Table, images: Mapping[Any, Table], folder: Path, listed: str
    ) -> Row | None:
        """Return an annotation's row, None if it is left out. Raises DataError, ValueError."""
        image = _image(annotation, images, listed)
        tables = list(_tables(annotation, image))
        pid = _text(tables, self.identity, listed)
        if not pid or is_junk(pid):
            if self.unnamed == "skip":
                return None
            keys = list(dict.fromkeys(key for table in tables for key in table))
            other = nearest(self.identity, [key for key in keys if key != self.identity])
            raise DataError(
                f"{listed}: has no identity at {self.identity!r}{f', but {pid}' if pid else ''}"
                f"{other}; keys are {shortened(', '.join(keys), 150)}. Set identity "
                'to the key, or unnamed = "skip" to leave such boxes out'
            )
        return Row(
            path=os.path.join(folder, image["file_name"]),
            pid=pid,
            camera=_text(tables, self.camera, listed, needed=True) if self.camera else "",
            split=self._split(tables, listed),
            time=_seconds(tables, self.time, listed) if self.time else None,
            listed=listed,
            box=_box(annotation, listed),
        )

    def _split(self, tables: Sequence[Table], listed: str) -> str:
        if self.split in SPLITS:
            return self.split
        found = _text(tables, self.split, listed, needed=True)
        if found not in SPLITS:
            close = nearest(found.lower(), SPLITS) or f", expected one of {', '.join(SPLITS)}"
            raise DataError(f"{listed}: {self.split} is {found[:100]!r}{close}")
        return found


def _tables(annotation: Table, image: Table) -> Iterator[Table]:
    for table in (annotation, image):
        yield table
        inner = table.get("attributes")
        if isinstance(inner, dict):
            yield inner


def _found(tables: Sequence[Table], key: str) -> Any:
    return next((table[key] for table in tables if table.get(key) is not None), None)


def _text(tables: Sequence[Table], key: str, listed: str, needed: bool = False) -> str:
    """Return what a key names, as text; "" if nothing. Raises DataError for other values."""
    value = _found(tables, key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        if needed:
            keys = dict.fromkeys(key for table in tables for key in table)
            raise DataError(f"{listed}: has no {key!r}{nearest(key, keys)}")
        return ""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{listed}: {key} is {str(value)[:100]}, expected text or a whole number")
    return str(value).strip()


def _seconds(tables: Sequence[Table], key: str, listed: str) -> float:
    value = _found(tables, key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LATEST:
        raise DataError(f"{listed}: {key} is {str(value)[:100]}, expected seconds, such as 12.5")
    return float(value)


def _box(annotation: Table, listed: str) -> tuple[int, int, int, int]:
    """Return the box, which COCO states as left, top, width and height."""
    value = annotation.get("bbox")
    sides = value if isinstance(value, list) else []
    if len(sides) != 4 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in sides):
        raise DataError(
            f"{listed}: bbox is {str(value)[:100]}, expected four numbers: left, top, width and "
            "height"
        )
    left, top, width, height = sides
    if not (width > 0 and height > 0):
        raise DataError(f"{listed}: bbox {value} is empty: its width or height is not above 0")
    return whole_box((left, top, left + width, top + height), listed)


def _image(annotation: Table, images: Mapping[Any, Table], listed: str) -> Table:
    number = annotation.get("image_id")
    image = images.get(number) if isinstance(number, int | str) else None
    if image is None:
        raise DataError(f"{listed}: image_id is {str(number)[:100]}, which no entry of images has")
    if not isinstance(image.get("file_name"), str) or not image["file_name"]:
        raise DataError(f"{listed}: its picture, image {str(number)[:100]}, has no file_name")
    return image


def _read(file: Path) -> Table:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"annotations not found at {file}; set annotations to the JSON file below root"
        ) from None
    except OSError as error:
        raise DataError(f"annotations {file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise DataError(f"annotations {file} are no JSON: {shortened(str(error), 200)}") from None
    if not isinstance(content, dict):
        raise DataError(f"annotations {file}: expected a table with images and annotations")
    return content


def _list(file: Path, content: Table, key: str) -> list[Table]:
    """Return a list of tables of the file. Raises DataError."""
    if key not in content:
        keys = ", ".join(map(str, content))[:200] or "nothing"
        raise DataError(f"annotations {file} lack {key!r}{nearest(key, content)}; they have {keys}")
    found = content[key]
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DataError(f"annotations {file}: {key} is no list of tables")
    return found


def _by_id(file: Path, content: Table, key: str) -> dict[Any, Table]:
    found: dict[Any, Table] = {}
    for one in _list(file, content, key):
        number = one.get("id")
        if not isinstance(number, int | str) or number in found:
            what = "several times" if isinstance(number, int | str) else "which is no number"
            raise DataError(f"annotations {file}: {key} has the id {str(number)[:100]} {what}")
        found[number] = one
    return found
