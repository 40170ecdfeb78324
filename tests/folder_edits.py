"""Edits of run folders and indexes: what hands, disks and other programs do to their files."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors.torch import load, save

from reidcore.model.state_files import SKELETON, load_state, save_state


@attrs.frozen
class Edit:
    """One edit of one file. do: is given the file's path. key: what a message must name beside the
    file, where that is known. named: the file that the message names, if it is another."""

    file: str
    what: str
    do: Callable[[Path], object]
    key: str = ""
    named: str = ""

    def __str__(self) -> str:
        return f"{self.file} {self.what}"


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def whole_files(file: str) -> Iterator[Edit]:
    """A file that is another, or none."""
    contents = {
        "empty": b"",
        "not UTF-8": b'{"a\xff": 1}\xfe',
        "noise": bytes(range(256)) * 8,
        "of git-lfs": b"version https://git-lfs.github.com/spec/v1\nsize 12345\n",
    }
    for what, content in contents.items():
        yield Edit(file, what, lambda path, content=content: path.write_bytes(content))
    yield Edit(file, "a folder", _folder)
    yield Edit(file, "cut", _cut)


def _write_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def json_texts(file: str) -> Iterator[Edit]:
    """JSON that is no table of ours, or not JSON."""
    texts = {
        "null": "null",
        "a list": "[]",
        "a number": "5",
        "an open brace": '{"layout": ',
        "deep": "[" * 5000 + "]" * 5000,
        "deep tables": '{"a":' * 900 + "1" + "}" * 900,
    }
    for what, text in texts.items():
        yield Edit(file, what, lambda path, text=text: path.write_text(text))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(keys, value) of every table, list and value inside a JSON value."""
    if path:
        yield path, value
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, one in inner:
        yield from leaves(one, (*path, key))


def unlike(value: Any, dice: random.Random) -> tuple[str, Any]:
    """(what, a value) of another type than this one, or no value at all."""
    choices: dict[str, Any] = {"deep": json.loads("[" * 300 + "]" * 300), "half": "\ud800"}
    if not isinstance(value, dict):
        choices |= {"a table": {"a": 1}}
    if not isinstance(value, list):
        choices |= {"a list": ["a"]}
    if not isinstance(value, str):
        choices |= {"a text": "abc"}
    if isinstance(value, int | float) and not isinstance(value, bool):
        choices |= {"nan": float("nan"), "far": 10**400, "digits": str(value), "true": True}
    elif not isinstance(value, bool):
        choices |= {"true": True}
    else:
        choices |= {"one": 1}
    choices |= {"null": None}
    what = dice.choice(sorted(choices))
    return what, choices[what]


def json_values(
    file: str, content: Any, free: Callable[[tuple[Any, ...]], bool], dice: random.Random
) -> Iterator[Edit]:
    """Every value but those that are `free` as one of another type."""
    for path, value in leaves(content):
        if free(path) or value is None:
            continue
        what, other = unlike(value, dice)

        def change(found: Any, path: tuple[Any, ...] = path, other: Any = other) -> None:
            for key in path[:-1]:
                found = found[key]
            found[path[-1]] = copy.deepcopy(other)

        names = [one for one in path if isinstance(one, str)]
        where = ".".join(map(str, path))
        key = names[-1] if names and what != "deep" else ""
        yield Edit(
            file, f"{where} {what}", lambda path, change=change: _write_json(path, change), key
        )


def json_sizes(file: str, paths: list[tuple[Any, ...]]) -> Iterator[Edit]:
    """Sizes below zero, and keys that are missing."""
    for path in paths:

        def put(found: Any, path: tuple[Any, ...] = path, away: bool = False) -> None:
            for key in path[:-1]:
                found = found[key]
            if away:
                del found[path[-1]]
            else:
                found[path[-1]] = -3

        def drop(found: Any, put: Callable[..., None] = put) -> None:
            put(found, away=True)

        where = ".".join(map(str, path))
        for what, change in (("negative", put), ("missing", drop)):
            yield Edit(
                file,
                f"{where} {what}",
                lambda path, change=change: _write_json(path, change),
                str(path[-1]),
            )


def csv_cells(file: str) -> Iterator[Edit]:
    """means.csv with cells that are no numbers, or are none."""
    for what, old, new in (
        ("a text", "0.001", "fast"),
        ("nan", "0.001", "nan"),
        ("infinite", "0.001", "1e999"),
        ("far", "0.001", "1" + "0" * 400),
        ("long", "0.001", "9" * 5000),
        ("no epoch", "\n1,", "\n,"),
        ("epoch 0", "\n1,", "\n0,"),
        ("half an epoch", "\n1,", "\n1.5,"),
        ("a cell too many", "\n1,", "\n1,1,"),
        ("a cell too few", "\n1,", "\n"),
        ("no column", "epoch,", "epok,"),
        ("twice a column", "seconds", "epoch"),
        ("a quote", "\n1,", '\n"1,'),
    ):

        def change(path: Path, old: str = old, new: str = new) -> None:
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new))

        yield Edit(file, what, change)


def _changed(value: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a tensor may have been cast, cut or filled to."""
    first = torch.arange(value.numel()).view(value.shape) == 0
    return {
        "bool": value.bool(),
        "complex": value.to(torch.complex64),
        "int": value.to(torch.int32) if value.is_floating_point() else value.float(),
        "longer": torch.cat([value.reshape(-1), value.reshape(-1)[:1]]),
        "deeper": value[None],
        "flat": value.reshape(1, -1),
        **(
            {
                "nan": torch.where(first, torch.nan, value),
                "infinite": torch.where(first, torch.inf, value),
            }
            if value.is_floating_point()
            else {}
        ),
    }


def _put_tensor(path: Path, key: str, value: torch.Tensor | None, name: str) -> None:
    tensors, metadata = load(path.read_bytes()), _metadata(path)
    tensors.pop(key)
    if value is not None:
        tensors[name] = value.contiguous()
    path.write_bytes(save(tensors, metadata))


def _header(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return dict(json.loads(data[8 : 8 + length]))


def _metadata(path: Path) -> dict[str, str]:
    return dict(_header(path).get("__metadata__", {}))


def tensors(file: str, good: Path, keys: list[str], dice: random.Random) -> Iterator[Edit]:
    """Tensors cast, cut, filled, renamed and removed."""
    found = load(good.read_bytes())
    for key in keys:
        whats = _changed(found[key])
        for what in dice.sample(sorted(whats), 4):
            value = whats[what]
            yield Edit(
                file,
                f"{key} {what}",
                lambda path, key=key, value=value: _put_tensor(path, key, value, key),
                ""
                if what in ("longer", "flat") and file.startswith("templates")
                else key.rpartition(".")[2],
            )
        yield Edit(file, f"{key} missing", lambda path, key=key: _put_tensor(path, key, None, ""))
        value = found[key]
        yield Edit(
            file,
            f"{key} renamed",
            lambda path, key=key, value=value: _put_tensor(path, key, value, f"{key}x"),
        )


def headers(file: str) -> Iterator[Edit]:
    """Files of tensors whose header was written over."""

    def header(text: bytes) -> Callable[[Path], object]:
        def put(path: Path) -> None:
            data = path.read_bytes()
            (length,) = struct.unpack("<Q", data[:8])
            path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

        return put

    def dtype(name: str) -> Callable[[Path], object]:
        def put(path: Path) -> None:
            content = _header(path)
            key = next(key for key in content if key != "__metadata__")
            content[key]["dtype"] = name
            header(json.dumps(content).encode())(path)

        return put

    yield Edit(file, "with a header of null", header(b"null"))
    yield Edit(file, "with a deep header", header(b"[" * 5000 + b"]" * 5000))
    yield Edit(file, "with no tensor", header(b"{}"))
    yield Edit(file, "with a header not UTF-8", header(b'{"\xff": 1}'))
    yield Edit(file, "with a far header", lambda path: path.write_bytes(b"\xff" * 64))
    for name in ("F4", "F8_E8M0", "X9", "C64"):
        yield Edit(file, f"with a tensor of {name}", dtype(name))
    foreign = save({"a": torch.zeros(1)})
    yield Edit(file, "foreign", lambda path: path.write_bytes(foreign))


def _put_state(path: Path, change: Callable[[Any], object]) -> None:
    state = load_state(path)
    change(state)
    save_state(path, state)


def states(file: str, good: Path, dice: random.Random) -> Iterator[Edit]:
    """A resume file whose values are of other types."""
    state = load_state(good)

    def free(path: tuple[Any, ...]) -> bool:
        # Settings of an optimizer that are no numbers, and its lists of parameters.
        return path[0] in ("model", "state") and len(path) > 2

    for path, value in leaves(state):
        if free(path) or value is None:
            continue
        what, other = unlike(value, dice)
        if what in ("deep", "half", "far"):
            what, other = "null", None

        def change(found: Any, path: tuple[Any, ...] = path, other: Any = other) -> None:
            for key in path[:-1]:
                found = found[key]
            found[path[-1]] = other

        if path[0] == "epoch":  # which says nothing that the rest does not
            continue
        if path == ("scores",) and other is None:
            continue
        where = ".".join(map(str, path))
        yield Edit(file, f"{where} {what}", lambda path, change=change: _put_state(path, change))

    def of_optimizer(change: Callable[[Any], object]) -> Callable[[Path], object]:
        return lambda path: _put_state(path, lambda state: change(state["state"]["optimizer"]))

    for what, change in (
        ("without groups", lambda found: found.pop("param_groups")),
        ("with a group too many", lambda found: found["param_groups"].append({"params": []})),
        ("with a rate of text", lambda found: found["param_groups"][0].update(base_lr="x")),
        ("with a rate of nan", lambda found: found["param_groups"][0].update(base_lr=torch.nan)),
        ("with one beta", lambda found: found["param_groups"][0].update(betas=(0.9,))),
        ("without a rate", lambda found: found["param_groups"][0].pop("base_lr")),
        ("with a flat mean", lambda found: found["state"][0].update(exp_avg=torch.zeros(3))),
        ("without a mean", lambda found: found["state"][1].pop("exp_avg")),
        ("of no state", lambda found: found["state"].update({0: 5})),
        ("with a bool mean", lambda found: _cast(found["state"][0], torch.bool)),
        ("that is a list", lambda found: found.clear()),
    ):
        yield Edit(file, f"optimizer {what}", of_optimizer(change))

    def skeleton(text: str) -> Callable[[Path], object]:
        def put(path: Path) -> None:
            path.write_bytes(save(load(path.read_bytes()), {SKELETON: text}))

        return put

    for what, text in (
        ("null", "null"),
        ("deep", "[" * 5000 + "]" * 5000),
        ("of another kind", '{"thing": 1}'),
        ("of items that are none", '{"items": [1, 2]}'),
        ("of a tensor that is not there", '{"items": [["model", {"tensor": "x"}]]}'),
        ("of a list for a key", '{"items": [[["a"], {"value": 1}]]}'),
    ):
        yield Edit(file, f"skeleton {what}", skeleton(text))


def _cast(state: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    state["exp_avg"] = state["exp_avg"].to(dtype)
