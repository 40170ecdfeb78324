"""Makes the folder of a release."""

from __future__ import annotations

import re
import shutil
import tempfile
from argparse import Namespace
from pathlib import Path

from reid_release.card import Released, model_card
from reid_release.card_content import read_card_content
from reidcore.errors import DataError, OutputError, UsageError
from reidcore.tools import read_record

NEEDED = ("lock.json", "run.toml", "weights.safetensors")
MORE = ("scores.json", "scores-by-epoch.json", "means.csv", "draws.json")
CARD = "README.md"
PATHS = re.compile(r"""["'=\s]((?:/|[A-Za-z]:\\|~/)[\w.\-]+[/\\][^"'\s,]*)""")
"""Paths from the root, as a run file may have them."""


def is_release(folder: Path) -> bool:
    """Return whether a folder is one that this command made."""
    return all((folder / name).is_file() for name in (*NEEDED, CARD))


def make_release(options: Namespace, repo: str) -> list[str]:
    """Make the folder of a release, complete or not at all; return notes for the user.

    Raises `ReidError` where the run is unfinished, does not open or lacks files.
    """
    source, target = options.folder, options.output
    record = read_record(source)
    if not record.get("finished"):
        raise UsageError(f"the run in {source} is unfinished; go on with it by --resume first")
    about = _about(options.about)
    exports = {path.name: path for path in map(_existing, options.exports)}
    if len(exports) < len(options.exports):
        raise UsageError("two --export have one name; rename one of them")
    for name in NEEDED:
        if not (source / name).is_file():
            raise DataError(f"{source / name} is missing")
    content = read_card_content(source, record)
    card = model_card(content, Released(target.name, repo, options.license, about, sorted(exports)))
    try:
        _write(source, target, card, exports)
    except OSError as error:
        raise OutputError(f"{target} could not be written: {error.strerror or error}") from error
    return _notes(source, options.license)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UsageError(f"--export {path}: there is no such file or folder")
    return path.resolve()


def _about(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--about {path}: cannot be read: {why}") from None


def _write(source: Path, target: Path, card: str, exports: dict[str, Path]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as made:
        folder = Path(made, "release")
        folder.mkdir()
        for name in (*NEEDED, *MORE):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        (folder / CARD).write_text(card, encoding="utf-8")
        for name, path in exports.items():
            copied = folder / "exports" / name
            copied.parent.mkdir(exist_ok=True)
            copy = shutil.copytree if path.is_dir() else shutil.copyfile
            copy(path, copied)
        folder.rename(target)


def _notes(source: Path, licence: str) -> list[str]:
    notes = []
    if not licence:
        notes.append("the card says that no licence is stated; --license ID states one")
    text = "\n".join((source / name).read_text(encoding="utf-8") for name in NEEDED[:2])
    if paths := list(dict.fromkeys(PATHS.findall(text))):
        shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        notes.append(f"run file or record name paths of this machine: {shown}")
    return notes
