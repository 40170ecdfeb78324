"""A run file as an object: its parts, its data entries and the core's tables. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from reidcore.protocols.base import Protocol
from reidcore.runfiles.key_lines import KeyLines
from reidcore.runfiles.keys import LISTS, SOURCE_KEYS, KeyPath
from reidcore.runfiles.tables import Data, Eval, Optim, RankingTable, Train
from reidcore.support.wording import one_line_of

LONGEST_USE = 100
"""Characters of a component's name that a message shows."""
Role = Literal["train", "test"]


@attrs.frozen
class Part:
    """A component's table.

    where: head, matcher, ... or augment, batch, train, test for parts named inside [data]. kind: of
    the component. use: its full name. table: the component's own keys only. weight: of a loss.
    """

    where: str
    kind: str
    name: str
    use: str
    table: Mapping[str, Any]
    path: KeyPath
    weight: float = 1.0

    @property
    def role(self) -> str:
        """The path by which settings name the part: backbone, head.NAME, matcher.NAME, ..."""
        return (
            self.where if self.where in ("backbone", "procedure") else f"{self.where}.{self.name}"
        )

    @property
    def core_keys(self) -> tuple[str, ...]:
        """The keys of the part's table that are the core's."""
        if self.kind == "reader":
            return ("read", "root", *SOURCE_KEYS[self.where])
        named = ("name",) if self.where in LISTS else ()
        return ("use", *named, *(("weight",) if self.where == "loss" else ()))

    def __str__(self) -> str:
        use = one_line_of(self.use, LONGEST_USE)
        if self.where in ("backbone", "procedure"):
            return f"{self.where} ({use})"
        if self.where in ("batch", "augment", "train", "test"):
            return f"data.{self.where} ({use})"
        return f"{self.kind} {self.name!r} ({use})"


@attrs.frozen
class Source:
    """One entry of data.train or data.test: a manifest, or a reader and the folder it reads.

    protocol: stated by the entry or [eval]; None leaves it to the reader.
    """

    role: Role
    path: KeyPath
    manifest: str = ""
    reader: Part | None = None
    root: str = ""
    splits: tuple[str, ...] = ()
    name: str = ""
    protocol: Protocol | None = None


@attrs.frozen
class RunFile:
    """A run file whose core tables are valid.

    text: of the file. table: its TOML after `--set`. watching: the tables of observers, by plugin.
    parts: backbone, heads, matchers, losses and postprocessors. repeat: values by key, one for each
    repeat.
    """

    path: Path
    text: str
    table: Mapping[str, Any]
    lines: KeyLines
    name: str
    plugins: tuple[str, ...]
    watching: Mapping[str, Mapping[str, Any]]
    data: Data
    sources: tuple[Source, ...]
    augment: tuple[Part, ...]
    batch: Part | None
    parts: tuple[Part, ...]
    procedure: Part
    rankings: tuple[RankingTable, ...]
    train: Train
    optim: Optim | None
    eval: Eval
    repeat: Mapping[str, tuple[Any, ...]]

    def of(self, where: str) -> list[Part]:
        """Return the parts of one kind of table, such as "head", in the file's order."""
        return [part for part in self.parts if part.where == where]
