"""A run file as an object: its parts, its data entries and the core's tables. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from reidcore.protocols.base import Protocol
from reidcore.runfiles.problems import Lines
from reidcore.runfiles.tables import (
    LISTS,
    SOURCE_KEYS,
    Data,
    Eval,
    Optim,
    RankingTable,
    Train,
)


@attrs.frozen
class Part:
    """A component's table: `table` holds only the component's own keys."""

    where: str
    """head, matcher, ... or augment, batch, train, test for parts named inside [data]."""
    kind: str
    name: str
    use: str
    table: Mapping[str, Any]
    path: tuple[str | int, ...]
    weight: float = 1.0

    @property
    def role(self) -> str:
        """backbone, head.NAME, matcher.NAME, loss.NAME, post.NAME."""
        return (
            self.where if self.where in ("backbone", "procedure") else f"{self.where}.{self.name}"
        )

    @property
    def core_keys(self) -> tuple[str, ...]:
        """The keys of its table that are the core's."""
        if self.kind == "reader":
            return ("read", "root", *SOURCE_KEYS[self.where])
        named = ("name",) if self.where in LISTS else ()
        return ("use", *named, *(("weight",) if self.where == "loss" else ()))

    def __str__(self) -> str:
        if self.where in ("backbone", "procedure"):
            return f"{self.where} ({self.use})"
        if self.where in ("batch", "augment", "train", "test"):
            return f"data.{self.where} ({self.use})"
        return f"{self.kind} {self.name!r} ({self.use})"


@attrs.frozen
class Source:
    """One entry of data.train or data.test."""

    role: Literal["train", "test"]
    path: tuple[str | int, ...]
    manifest: str = ""
    reader: Part | None = None
    root: str = ""
    splits: tuple[str, ...] = ()
    name: str = ""
    protocol: Protocol | None = None
    """What the entry or [eval] says; None leaves it to the reader."""


@attrs.frozen
class RunFile:
    """A run file whose core tables are valid. `table` is the parsed TOML after `--set`."""

    path: Path
    text: str
    table: Mapping[str, Any]
    lines: Lines
    name: str
    plugins: tuple[str, ...]
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
        return [part for part in self.parts if part.where == where]
