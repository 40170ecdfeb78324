"""Run files: TOML text, `--set`, and the tables that belong to the core.

Components' own keys are checked later, when their plugins are loaded (`reidcore.wiring`).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from reidcore.api import INSTANCE, setting
from reidcore.errors import RunFileError, UsageError, nearest
from reidcore.structure import Fault, dotted, shown, structure

FORMAT = 1
KINDS = {
    "backbone": "backbone",
    "head": "head",
    "matcher": "matcher",
    "loss": "loss",
    "post": "postprocessor",
    "procedure": "procedure",
}
"""Run-file table -> kind of component."""
LISTS = ("head", "matcher", "ranking", "loss", "post")
MEANS = ("loss", "epoch", "lr", "seconds", "pictures_per_second")
"""Columns of means.csv beside the losses' own, so that no loss may be called so."""


@attrs.frozen
class Data:
    """Pictures: where they are and how they are read."""

    train: dict[str, Any] | list[dict[str, Any]] = setting(
        "Training pictures: a table with `manifest = FILE` or `read = READER` (and the reader's "
        "own keys), or a list of them, whose identities are kept apart. `splits` names the "
        "manifest splits to use.",
        default=[],
    )
    test: dict[str, Any] | list[dict[str, Any]] = setting(
        "Test sets, each a table like `train`, with an optional `name`; each needs query and "
        "gallery pictures.",
        default=[],
    )
    image: tuple[int, int] = setting(
        "Height and width, in pixels, that pictures are resized to.", at_least=8
    )
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = setting(
        "How Pillow resizes.", default="bilinear"
    )
    normalize: Literal["imagenet", "none"] = setting(
        "Subtract ImageNet's mean and divide by its deviation, or leave pixels in [0, 1].",
        default="imagenet",
    )
    augment: list[dict[str, Any]] = setting(
        "Augmentations of training pictures, in order, each a table with `use` and its keys.",
        default=[],
    )
    batch: dict[str, Any] | None = setting(
        "The sampler of training batches: a table with `use` and its keys.", default=None
    )
    workers: int = setting("Threads that read, resize and augment pictures.", default=2, at_least=1)
    cache: float = setting(
        "Memory for decoded and resized pictures, in GiB; 0 reads every picture every time.",
        default=1.0,
        at_least=0,
    )


def _device(value: str) -> str | None:
    fits = re.fullmatch(r"auto|cpu|cuda(:\d+)?", value)
    return None if fits else "expected auto, cpu, cuda or cuda:N"


@attrs.frozen
class Train:
    """The course of training."""

    epochs: int = setting("Number of epochs; 0 evaluates the model as built.", at_least=0)
    device: str = setting(
        "auto (cuda if there is one, else cpu), cpu, cuda or cuda:N; the run prints which.",
        default="auto",
        check=_device,
    )
    seed: int = setting("Weights, order and augmentation follow from it.", default=0, at_least=0)
    deterministic: bool = setting(
        "Ask torch for deterministic kernels on the GPU too; slower. On CPU a run with one thread "
        "count is always repeatable.",
        default=False,
    )
    frozen_norm: list[str] = setting(
        "Role paths, such as backbone or head.neck, whose batch norms keep their statistics.",
        default=[],
    )
    best: str = setting(
        "A score, such as mAP or rank-1: also keep the weights of the evaluated epoch where the "
        "first test set's first ranking, at its end, had the largest. Chosen on the test set.",
        default="",
    )


@attrs.frozen
class Steps:
    """Learning rate steps."""

    at: list[int] = setting("Epochs, counted from 0, before which the rate changes.", at_least=1)
    by: float = setting("Factor at each step.", default=0.1, above=0)


@attrs.frozen
class Cosine:
    """A half cosine from the full learning rate, at the first epoch, down to `to` after the
    last."""

    to: float = setting("Final fraction of the learning rate.", default=0.0, at_least=0, at_most=1)


@attrs.frozen
class Warmup:
    """A linear rise over the first epochs, reaching the full rate in epoch number `epochs`."""

    epochs: int = setting("Length of the rise.", at_least=1)
    start: float = setting("Fraction of the rate in the first epoch.", default=0.1, above=0)


@attrs.frozen
class Optim:
    """The optimizer and its learning rate."""

    kind: Literal["sgd", "adam", "adamw"] = setting("The optimizer.", default="adam")
    lr: float = setting("Learning rate.", above=0)
    momentum: float = setting("SGD's momentum.", default=0.9, at_least=0, below=1)
    nesterov: bool = setting("SGD's Nesterov form.", default=False)
    betas: tuple[float, float] = setting(
        "Adam's decay rates.", default=(0.9, 0.999), at_least=0, below=1
    )
    weight_decay: float = setting("Weight decay.", default=5e-4, at_least=0)
    scale: dict[str, float] = setting(
        "Learning rate factor by role path (backbone, head.NAME, matcher.NAME, loss.NAME, or "
        "head, matcher, loss for all of them); the longest path counts.",
        default={},
        at_least=0,
    )
    steps: Steps | None = setting("Step schedule.", default=None)
    cosine: Cosine | None = setting("Cosine schedule.", default=None)
    warmup: Warmup | None = setting("Warm-up, together with either schedule.", default=None)
    clip_norm: float = setting(
        "Clip the gradient's norm to this; 0 does not.", default=0, at_least=0
    )


@attrs.frozen
class Eval:
    """Evaluation."""

    protocol: Literal["cross_camera"] = setting(
        "Which gallery pictures count for a query.", default="cross_camera"
    )
    same_camera: Literal["drop", "drop_all", "keep"] = setting(
        "cross_camera: of the query's own camera, drop its identity's pictures (Market-1501's "
        "rule), drop all pictures, or keep all.",
        default="drop",
    )
    every: int = setting(
        "Evaluate every so many epochs; 0 only after the last.", default=0, at_least=0
    )
    views: list[Literal["plain", "flip"]] = setting(
        "Views of each picture whose templates are merged.", default=["plain"]
    )
    ranks: list[int] = setting("CMC ranks to print.", default=[1, 5, 10], at_least=1)
    batch: int = setting("Pictures per forward pass.", default=64, at_least=1)
    memory: float = setting(
        "GiB for one tile of pairs while scoring; halved when memory runs out.",
        default=0.5,
        above=0,
    )


@attrs.frozen
class RankingTable:
    """One way to rank the gallery: a matcher and its chain of postprocessors."""

    name: str = setting("Name in the scores.")
    matcher: str = setting("Name of a [[matcher]].")
    post: list[str] = setting(
        "Names of [[post]] tables, in order; scores are given before each and at the end.",
        default=[],
    )


CORE_TABLES: dict[str, type] = {"data": Data, "train": Train, "optim": Optim, "eval": Eval}
TOP_KEYS = (
    "format", "name", "plugins", "data", *KINDS, "ranking", "train", "optim", "eval", "repeat",
)  # fmt: skip


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
            return ("read", "root", "splits", "name")
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


_KEY = r"""(?:[\w\-]+|"[^"\\]*"|'[^']*')"""
_KEYS = rf"{_KEY}(?:\s*\.\s*{_KEY})*"


def _split_keys(text: str) -> list[str]:
    return [key.strip("\"'") for key in re.findall(_KEY, text)]


class Lines:
    """Finds the line of a table or key in TOML text, for messages; best effort, 0 if unknown."""

    def __init__(self, text: str):
        self.found: dict[tuple[str | int, ...], int] = {}
        self.sets: dict[tuple[str | int, ...], str] = {}
        """What `--set` has changed: path -> key=value as typed."""
        table: tuple[str | int, ...] = ()
        counts: dict[tuple[str | int, ...], int] = {}
        for number, line in enumerate(text.split("\n"), 1):
            header = re.match(rf"\s*(\[\[?)\s*({_KEYS})\s*\]", line)
            key = re.match(rf"\s*({_KEYS})\s*=", line)
            if header:
                table = self._inside(_split_keys(header[2]), counts)
                for length in range(1, len(table)):
                    self.found.setdefault(table[:length], number)
                if header[1] == "[[":
                    self.found.setdefault(table, number)
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                self.found.setdefault(table, number)
            elif key:
                steps = _split_keys(key[1])
                self.found.setdefault((*table, ".".join(steps)), number)
                for length in range(len(steps)):
                    self.found.setdefault((*table, *steps[: length + 1]), number)

    @staticmethod
    def _inside(
        keys: Sequence[str], counts: Mapping[tuple[str | int, ...], int]
    ) -> tuple[str | int, ...]:
        """The path of `[keys]`: below `[[head]]`, `[head.x]` belongs to the last head."""
        path: tuple[str | int, ...] = ()
        for key in keys[:-1]:
            path = (*path, key)
            path = (*path, counts[path]) if path in counts else path
        return (*path, keys[-1])

    def set_by(self, path: Sequence[str | int]) -> str:
        """`--set key=value` if that put there what stands at the path, else ""."""
        for length in range(len(path), 0, -1):
            if tuple(path[:length]) in self.sets:
                return f"--set {self.sets[tuple(path[:length])]}"
        return ""

    def of(self, path: Sequence[str | int]) -> int:
        for length in range(len(path), 0, -1):
            if tuple(path[:length]) in self.found:
                return self.found[tuple(path[:length])]
        return 0


class Problems:
    """Collects problems with their place in the file, to be raised together."""

    def __init__(self, path: Path, lines: Lines):
        self.path = path
        self.lines = lines
        self.texts: list[str] = []

    def add(self, path: Sequence[str | int], place: str, text: str) -> None:
        line = self.lines.of(path)
        file = f"{self.path.name}:{line}" if line else self.path.name
        file = self.lines.set_by(path) or file
        message = f"{file}: {place}: {text}" if place else f"{file}: {text}"
        if message not in self.texts:
            self.texts.append(message)

    def faults(self, path: Sequence[str | int], place: str, faults: Iterable[Fault]) -> None:
        for fault in faults:
            at = (
                f" at {dotted(fault.path)}"
                if fault.path and "unknown key" not in fault.text
                else ""
            )
            inside = fault.path[:-1] if "unknown key" in fault.text else ()
            at = f" in {dotted(inside)}" if inside else at
            text, comma, hint = fault.text.partition(", did you mean")
            self.add((*path, *fault.path), place, text + at + comma + hint)

    def done(self) -> None:
        if self.texts:
            raise RunFileError(self.texts)


def read_text(path: Path) -> str:
    """The file's text. Raises `UsageError` naming the absolute path tried and the nearest name."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no run file at {path.absolute()}{_similar(path)}") from None
    except IsADirectoryError:
        raise UsageError(f"{path.absolute()} is a folder, not a run file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise UsageError(f"{path.absolute()} cannot be read: {error.strerror or error}") from None


def _similar(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" (there is no folder {folder.absolute()})"
    return nearest(path.name, [p.name for p in folder.glob("*.toml")])


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    import tomli

    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        line = _statement(text, getattr(error, "lineno", 0))
        source = text.split("\n")[line - 1].strip()
        quoted = f" in {source!r}" if source else ""
        raise RunFileError([f"{path.name}:{line}: not valid TOML{quoted}: {error}"]) from None
    except RecursionError:
        raise RunFileError([f"{path.name}: not valid TOML: nested too deeply"]) from None


def _statement(text: str, noticed: int) -> int:
    """The line, from 1, at which the first statement begins that is not valid TOML. Where a bracket
    or quote is left open, that is above the line in which the parser noticed (0 if unknown)."""
    import tomli

    lines = text.split("\n")
    for good in range((noticed or len(lines)) - 1, 0, -1):
        try:
            tomli.loads("\n".join(lines[:good]))
        except tomli.TOMLDecodeError:
            continue
        return next((n for n in range(good, len(lines)) if lines[n].strip()), good) + 1
    return 1


def parse_runfile(text: str, path: Path, sets: Sequence[str] = ()) -> RunFile:
    """Checks the core's part of a run file's text, after applying `--set`; `path` is for messages.

    Raises `RunFileError` (exit code 2) with every problem found.
    """
    table = parse_toml(text, path)
    problems = Problems(path, Lines(text))
    version = table.get("format")
    if type(version) is not int or version < 1:
        found = "is missing" if version is None else f"is {shown(version)}"
        problems.add(("format",), "", f"key 'format' {found}; this core reads format = {FORMAT}")
    elif version > FORMAT:
        problems.add(
            ("format",),
            "",
            f"key 'format' is {version}, but this core reads format = {FORMAT}; upgrade reidcore",
        )
        problems.done()
    for index, post in enumerate(table.get("post", []) if _tables(table.get("post")) else []):
        post.setdefault("name", f"post{index}")
    apply_sets(table, sets, problems.lines)
    return _Reader(table, text, path, problems).read()


def _tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


class _Reader:
    def __init__(self, table: dict[str, Any], text: str, path: Path, problems: Problems):
        self.table = table
        self.text = text
        self.path = path
        self.problems = problems
        self.unusable: set[str] = set()
        """Tables whose instances cannot be told apart; what refers into them is not checked."""

    def read(self) -> RunFile:
        table, problems = self.table, self.problems
        for key in table:
            if key not in TOP_KEYS:
                problems.add(
                    (key,), "", f"unknown table or key {key!r}{nearest(key, TOP_KEYS)}"
                    + ("" if nearest(key, TOP_KEYS) else f"; known are {', '.join(TOP_KEYS)}")
                )  # fmt: skip
        name = table.get("name", self.path.stem)
        if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.\-]*", name):
            problems.add(
                ("name",), "", f"key 'name' must be letters, digits, '.', '_' or '-', got "
                f"{shown(name)}"
            )  # fmt: skip
        plugins = table.get("plugins", [])
        if not isinstance(plugins, list) or not all(isinstance(p, str) for p in plugins):
            problems.add(
                ("plugins",), "", f"key 'plugins' must be a list of names, got {shown(plugins)}"
            )
            plugins = []
        core: dict[str, Any] = {}
        if isinstance(table.get("optim"), dict) and isinstance(table["optim"].get("scale"), dict):
            # `head.neck = 0.1` without quotes is a table in a table to TOML.
            table["optim"]["scale"] = _flatten(table["optim"]["scale"])
        for key, cls in CORE_TABLES.items():
            if _tables(table.get(key)):
                problems.add(
                    (key,), "", f"[[{key}]] must be written [{key}]: one table, got a list of "
                    f"{len(table[key])}"
                )  # fmt: skip
                core[key] = None
                self.unusable.add(key)
                continue
            if key not in table and key in ("optim", "eval"):
                core[key] = Eval() if key == "eval" else None
                continue
            if key not in table:
                problems.add((), "", f"table [{key}] is missing")
                core[key] = None
                continue
            core[key], faults = structure(cls, table[key])
            if not isinstance(table[key], dict):
                self.unusable.add(key)
            problems.faults((key,), f"[{key}]", faults)
        sources, augment, batch = self._data(core["data"])
        parts: list[Part] = []
        for where, kind in KINDS.items():
            if where in LISTS:
                parts += self._list(where, kind)
        if "backbone" in table:
            backbone = self._part("backbone", "backbone", table["backbone"], ("backbone",))
            parts[:0] = [backbone] if backbone else []
        else:
            problems.add((), "", "table [backbone] is missing")
        procedure: Part | None = Part("procedure", "procedure", "", "core.train", {}, ())
        if "procedure" in table:
            procedure = self._part("procedure", "procedure", table["procedure"], ("procedure",))
        rankings = self._rankings()
        optim, train = core["optim"], core["train"]
        if train is not None and train.epochs > 0:
            if optim is None and "optim" not in table:
                problems.add((), "", "table [optim] is missing, and [train] epochs is above 0")
            if core["data"] is not None:
                if core["data"].train == []:
                    problems.add(
                        ("data",), "[data]", "missing key 'train', and [train] epochs is above 0"
                    )
                if core["data"].batch is None:
                    problems.add(
                        ("data",), "[data]", "missing key 'batch', and [train] epochs is above 0"
                    )
        if optim is not None and optim.steps is not None and optim.cosine is not None:
            problems.add(("optim",), "[optim]", "'steps' and 'cosine' exclude each other; keep one")
        repeat = self._repeat()
        problems.done()
        assert procedure is not None
        return RunFile(
            path=self.path, text=self.text, table=table, lines=problems.lines, name=name,
            plugins=tuple(plugins), data=core["data"], sources=tuple(sources),
            augment=tuple(augment), batch=batch, parts=tuple(parts), procedure=procedure,
            rankings=tuple(rankings), train=core["train"], optim=optim, eval=core["eval"],
            repeat=repeat,
        )  # fmt: skip

    def _part(
        self, where: str, kind: str, table: Any, path: tuple[str | int, ...], index: int = -1
    ) -> Part | None:
        problems = self.problems
        place = f"[[{where}]] number {index + 1}" if index >= 0 else f"[{'.'.join(map(str, path))}]"
        if not isinstance(table, dict):
            problems.add(path, place, f"expected table, got {shown(table)}")
            return None
        use = table.get("use")
        name = table.get("name", "")
        named = f"{kind} {name!r}" if isinstance(name, str) and name else place
        if not isinstance(use, str):
            found = f"got {shown(use)}" if use is not None else "the component to use"
            text = (
                f"expected text, {found} at .use"
                if use is not None
                else f"missing key 'use', {found}"
            )
            problems.add((*path, "use"), named, text)
        if where in LISTS:
            if "name" not in table:
                self.unusable.add(where)
                problems.add(path, place, "missing key 'name'")
            elif not isinstance(name, str) or not INSTANCE.fullmatch(name):
                self.unusable.add(where)
                problems.add(
                    (*path, "name"), place,
                    f"expected a name of a-z, 0-9 and _ that starts with a letter, got "
                    f"{shown(name)} at .name",
                )  # fmt: skip
            elif where == "loss" and name in MEANS:
                problems.add(
                    (*path, "name"), place, f"the name {name!r} is a column of means.csv; choose "
                    "another at .name"
                )  # fmt: skip
            elif where == "head" and name == "backbone":
                problems.add(
                    (*path, "name"), place, "the name 'backbone' is the backbone's own; choose "
                    "another at .name"
                )  # fmt: skip
        weight = table.get("weight", 1.0) if where == "loss" else 1.0
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0:
            problems.add(
                (*path, "weight"), named,
                f"expected a number of at least 0, got {shown(weight)} at .weight",
            )  # fmt: skip
            weight = 1.0
        if not isinstance(use, str):
            return None
        part = Part(where, kind, str(name), use, {}, path, float(weight))
        own = {key: value for key, value in table.items() if key not in part.core_keys}
        return attrs.evolve(part, table=own)

    def _list(self, where: str, kind: str) -> list[Part]:
        tables = self.table.get(where, [])
        if not isinstance(tables, list):
            self.unusable.add(where)
            self.problems.add(
                (where,), "", f"[{where}] must be written [[{where}]]: a list of tables, got "
                f"{shown(tables)}"
            )  # fmt: skip
            return []
        parts = []
        for index, table in enumerate(tables):
            part = self._part(where, kind, table, (where, index), index)
            if part is not None:
                parts.append(part)
        seen: set[str] = set()
        for index, part in enumerate(parts):
            if part.name and part.name in seen:
                self.problems.add(
                    (*part.path, "name"), f"[[{where}]] number {index + 1}",
                    f"the name {part.name!r} is taken by another [[{where}]]",
                )  # fmt: skip
            seen.add(part.name)
        return parts

    def _rankings(self) -> list[RankingTable]:
        tables = self.table.get("ranking", [])
        if not isinstance(tables, list):
            self.problems.add(
                ("ranking",), "", f"[ranking] must be written [[ranking]]: a list of tables, got "
                f"{shown(tables)}"
            )  # fmt: skip
            return []
        rankings: list[RankingTable] = []
        for index, table in enumerate(tables):
            ranking, faults = structure(RankingTable, table)
            name = table.get("name") if isinstance(table, dict) else None
            place = (
                f"ranking {name!r}" if isinstance(name, str) else f"[[ranking]] number {index + 1}"
            )
            self.problems.faults(("ranking", index), place, faults)
            if ranking is None:
                continue
            if not INSTANCE.fullmatch(ranking.name):
                self.problems.add(
                    ("ranking", index, "name"), place,
                    f"expected a name of a-z, 0-9 and _ that starts with a letter, got "
                    f"{shown(ranking.name)} at .name",
                )  # fmt: skip
            if ranking.name in [other.name for other in rankings]:
                self.problems.add(
                    ("ranking", index, "name"), f"[[ranking]] number {index + 1}",
                    f"the name {ranking.name!r} is taken by another [[ranking]]",
                )  # fmt: skip
            rankings.append(ranking)
        return rankings

    def _data(self, data: Data | None) -> tuple[list[Source], list[Part], Part | None]:
        if data is None:
            return [], [], None
        sources: list[Source] = []
        role: Literal["train", "test"]
        for role, value in (("train", data.train), ("test", data.test)):
            entries = value if isinstance(value, list) else [value]
            for index, entry in enumerate(entries):
                path = ("data", role, index) if isinstance(value, list) else ("data", role)
                source = self._source(role, entry, path)
                if source is not None:
                    sources.append(source)
        names = [source.name for source in sources if source.role == "test"]
        for source in sources:
            if source.role == "test" and names.count(source.name) > 1:
                self.problems.add(
                    (*source.path, "name"), f"[data] test {source.name!r}",
                    "two test sets have this name; give each its own 'name'",
                )  # fmt: skip
        augment = [
            part
            for index, table in enumerate(data.augment)
            if (part := self._part("augment", "augmentation", table, ("data", "augment", index)))
        ]
        batch = None
        if data.batch is not None:
            batch = self._part("batch", "sampler", data.batch, ("data", "batch"))
        return sources, augment, batch

    def _source(
        self, role: Literal["train", "test"], entry: dict[str, Any], path: tuple[str | int, ...]
    ) -> Source | None:
        problems, place = self.problems, f"[data] {role}"
        table = dict(entry)
        texts: dict[str, str] = {}
        for key in ("manifest", "read", "root", "name"):
            value = table.pop(key, "")
            if not isinstance(value, str):
                problems.add(
                    (*path, key), place, f"expected text, got {shown(value)} at .{key}"
                )  # fmt: skip
                return None
            texts[key] = value
        splits = table.pop("splits", [])
        allowed = ("train", "val", "query", "gallery", "test")
        if not isinstance(splits, list) or not all(s in allowed for s in splits):
            problems.add(
                (*path, "splits"),
                place,
                f"expected a list of {', '.join(allowed)}, got {shown(splits)} at .splits",
            )
            return None
        if not texts["manifest"] and not texts["read"]:
            for key in entry:
                if near := nearest(key, ("manifest", "read")):
                    problems.add((*path, key), place, f"unknown key {key!r}{near}")
                    return None
        if bool(texts["manifest"]) == bool(texts["read"]):
            problems.add(
                path, place, "needs either 'manifest', a CSV file, or 'read', a reader such as "
                "core.demo" + ("; it has both" if texts["manifest"] else f", got {shown(entry)}")
            )  # fmt: skip
            return None
        if texts["manifest"]:
            if texts["root"]:
                table["root"] = texts["root"]
            known = ("manifest", "splits", "name")
            for key in table:
                near = nearest(key, [one for one in known if one not in entry])
                keys = f"; the keys here are {', '.join(known)}"
                text = f"unknown key {key!r} beside 'manifest'{near or keys}"
                problems.add((*path, key), place, text)
            manifest = Path(texts["manifest"])
            # pictures/manifest.csv is called by its folder.
            own = manifest.parent.name if manifest.stem == "manifest" else manifest.stem
            name = texts["name"] or own or manifest.stem
            return Source(role, path, manifest=texts["manifest"], splits=tuple(splits), name=name)
        reader = Part(role, "reader", texts["name"], texts["read"], table, path)
        name = texts["name"] or texts["read"].rpartition(".")[2]
        return Source(
            role, path, reader=reader, root=texts["root"], splits=tuple(splits), name=name
        )

    def _repeat(self) -> dict[str, tuple[Any, ...]]:
        table = self.table.get("repeat", {})
        if not isinstance(table, dict):
            self.problems.add(("repeat",), "", f"[repeat]: expected table, got {shown(table)}")
            return {}
        repeat: dict[str, tuple[Any, ...]] = {}
        for key, values in _flatten(table).items():
            if not isinstance(values, list) or not values:
                self.problems.add(
                    ("repeat", key), "[repeat]",
                    f"{key!r} must be a list with a value for each repeat, got {shown(values)}",
                )  # fmt: skip
                continue
            repeat[key] = tuple(values)
        lengths = {key: len(values) for key, values in repeat.items()}
        if len(set(lengths.values())) > 1:
            text = ", ".join(f"{key!r} has {length}" for key, length in lengths.items())
            self.problems.add(("repeat",), "[repeat]", f"lists must be equally long: {text}")
        for key in repeat:
            if key.partition(".")[0] in self.unusable:
                continue
            try:
                set_value(copy.deepcopy(self.table), key, repeat[key][0])
            except UsageError as error:
                self.problems.add(("repeat", key), "[repeat]", str(error))
        return repeat


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def apply_sets(table: dict[str, Any], sets: Sequence[str], lines: Lines | None = None) -> None:
    """Applies `--set key=value`; values are TOML, or text where they are not. `lines` keeps what
    was changed."""
    import tomli

    for item in sets:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {item!r}: expected key=value, such as train.seed=1")
        try:
            value = tomli.loads(f"value = {text}")["value"]
        except (tomli.TOMLDecodeError, RecursionError):
            value = text.strip()
        try:
            path = set_value(table, key.strip(), value)
            if lines is not None:
                lines.sets[path] = item
        except UsageError as error:
            raise UsageError(f"--set {item}: {error}") from None


def set_value(table: dict[str, Any], key: str, value: Any) -> tuple[str | int, ...]:
    """Sets `train.seed`, `data.batch.size` or, by instance name, `loss.graph.dim` in place.
    Returns its path, with list indices in place of instance names."""
    steps = key.split(".")
    path: tuple[str | int, ...] = ()
    here: Any = table
    for index, step in enumerate(steps[:-1]):
        if isinstance(here, dict):
            if index == 0 and step not in here:
                if step not in TOP_KEYS:
                    raise UsageError(f"no table {step!r}{nearest(step, TOP_KEYS)}")
                if step in LISTS:
                    raise UsageError(f"this run has no [[{step}]]")
            here = here.setdefault(step, {})
            path = (*path, step)
        elif isinstance(here, list):
            member = _member(here, step, steps[index - 1])
            path = (*path, next(i for i, item in enumerate(here) if item is member))
            here = member
        else:
            raise UsageError(f"{'.'.join(steps[:index])!r} is no table, but {shown(here)}")
    last = steps[-1]
    if isinstance(here, dict):
        if len(steps) == 1 and last not in TOP_KEYS:
            raise UsageError(f"no table or key {last!r}{nearest(last, TOP_KEYS)}")
        here[last] = value
        return (*path, last)
    if isinstance(here, list) and last.isdecimal() and int(last) < len(here):
        here[int(last)] = value
        return (*path, int(last))
    raise UsageError(f"{'.'.join(steps[:-1])!r} is no table, but {shown(here)}")


def _member(items: list[Any], step: str, kind: str) -> Any:
    names = [item.get("name") for item in items if isinstance(item, dict)]
    if step in names:
        return items[names.index(step)]
    if step.isdecimal() and int(step) < len(items):
        return items[int(step)]
    known = [name for name in names if isinstance(name, str)]
    raise UsageError(
        f"no {kind} named {step!r}{nearest(step, known)}"
        + ("" if nearest(step, known) else f"; there are {', '.join(known) or 'none'}")
    )
