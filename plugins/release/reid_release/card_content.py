"""What a run folder says of its run, for the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reidcore.tools import Results, load, read_results


@attrs.frozen
class CardContent:
    """What a card tells of a run.

    record: the run record. results: its scores, None without a test set. parameters: of what its
    rankings need. parts: (role, component, distribution, paper) of each of them, and of the parts
    that only train those of the record: (role, component, "", "").
    """

    record: Mapping[str, Any]
    results: Results | None
    parameters: int
    parts: Sequence[tuple[str, str, str, str]]

    @property
    def resolved(self) -> Mapping[str, Any]:
        """Every setting, as the run record has it."""
        return self.record["resolved"]

    @property
    def distributions(self) -> list[str]:
        """The packages that a user needs beside reidcore."""
        found = {one for _, _, one, _ in self.parts if one and not one.startswith("reidcore ")}
        return sorted(found)


def read_card_content(folder: Path, record: Mapping[str, Any]) -> CardContent:
    """Open the run in a folder, so that one that does not open is not released; return what
    its card tells.

    Raises `ReidError` where it does not open, or its scores are damaged.
    """
    search = load(folder, device="cpu")
    plan = search.plan
    loaded = {
        wired.part.role: (wired.part.use, wired.owner, wired.descriptor.paper or "")
        for wired in plan.parts
    }
    parts = [(role, *found) for role, found in loaded.items()]
    for role, table in record["resolved"].get("parts", {}).items():
        if role not in loaded:
            parts.append((role, str(table.get("use", "")), "", ""))
    parameters = sum(one.numel() for one in search.model.parameters())
    results = read_results(folder) if (folder / "scores.json").is_file() else None
    return CardContent(record, results, parameters, parts)
