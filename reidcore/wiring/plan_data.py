"""The data of a plan: what its readers list, and what wiring methods are told of it. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from reidcore.contracts.rows import OPTIONAL
from reidcore.data.datasets import DataPlan
from reidcore.data.held_out import hold_out
from reidcore.data.load_data import load_sources
from reidcore.errors import ReidError
from reidcore.runfiles.runfile import RunFile
from reidcore.wiring.parts import PartLoader, Purpose
from reidcore.wiring.trials import Entry


@attrs.frozen
class DataFacts:
    """The facts about a run's pictures that wiring methods are told (see `Given`)."""

    identities: int
    cameras: int
    train_modalities: tuple[str, ...]
    train_columns: frozenset[str]
    test_columns: frozenset[str]


BEFORE_DATA = DataFacts(
    identities=10**6,
    cameras=10**6,
    train_modalities=("visible", "infrared"),
    train_columns=frozenset(OPTIONAL),
    test_columns=frozenset(OPTIONAL),
)
"""Told before the data are known, where an entry of [data] is wrong: large and complete, so that no
part is refused for what the data lack."""


def load_readers(loader: PartLoader, purpose: Purpose) -> list[Entry]:
    """Return the data entries that `purpose` needs, each with its reader's config."""
    entries: list[Entry] = []
    for source in loader.run.sources:
        if purpose == "rank" or (source.role == "train" and purpose != "train"):
            continue
        reader = None
        if source.reader is not None:
            wired = loader.load_reader(source.reader)
            if wired is None:
                continue
            reader = wired.config
            if not source.root and not hasattr(reader, "default_root"):
                text = "missing key 'root', the folder of the data set"
                loader.refuse(source.reader, "", text)
                continue
        entries.append((source, reader))
    return entries


def load_data(
    loader: PartLoader, entries: Sequence[Entry], make: bool, allow_missing: bool
) -> DataPlan:
    """Return the rows of all entries, or raise the problems so far if they cannot be read."""
    if loader.problems.texts:
        make, allow_missing = False, True  # a wrong file is reported where data are absent, too
    else:
        loader.raise_problems()
    try:
        data = load_sources(entries, make=make, allow_missing=allow_missing)
        share = loader.run.data.hold_out
        return attrs.evolve(data, train=tuple(hold_out(one, share) for one in data.train))
    except ReidError:
        loader.raise_problems()
        raise


def check_protocols(loader: PartLoader, data: DataPlan) -> None:
    """Note the test sets that do not fit their protocol."""
    for one in data.test:
        if one.unfit and one.protocol is not None:
            stated = one.source.protocol is not None
            path = (*one.source.path, "protocol") if stated else one.source.path
            text = f"protocol {one.protocol.name} {one.unfit}"
            loader.problems.add(path, f"[data] test {one.source.name!r}", text)


def data_facts(
    run: RunFile, data: DataPlan, entries: Sequence[Entry], purpose: Purpose
) -> DataFacts:
    """Return the facts about the data, or `BEFORE_DATA` of a role with an entry not loaded."""
    loaded = [source for source, _ in entries]
    unknown = {source.role for source in run.sources if source not in loaded}
    train: DataPlan | DataFacts = data
    if "train" in unknown and purpose == "train":
        train = BEFORE_DATA
    return DataFacts(
        identities=train.identities,
        cameras=train.cameras,
        train_modalities=train.train_modalities,
        train_columns=train.train_columns,
        test_columns=(BEFORE_DATA if "test" in unknown else data).test_columns,
    )
