"""Galleries that protocols have drawn, as draws.json keeps them. Torch-free."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from reidcore.data.datasets import Loaded
from reidcore.protocols.base import scored_name


def drawn_galleries(loaded: Loaded) -> dict[str, Any]:
    """Return what a test set's protocol has drawn, {} where it draws nothing.

    draw: name and version of the function. galleries: {task: file names of each trial}, paths
    below the pictures' common folder. The other pictures that the protocol names are queries.
    """
    if loaded.protocol is None or not loaded.protocol.draw:
        return {}
    assert loaded.rows is not None
    folder = os.path.commonpath([os.path.dirname(row.path) for row in loaded.rows])
    names = [os.path.relpath(row.path, folder).replace(os.sep, "/") for row in loaded.rows]
    return {
        "draw": loaded.protocol.draw,
        "galleries": {
            scored_name(loaded.source.name, task): [
                [names[number] for number in trial.gallery] for trial in task.trials
            ]
            for task in loaded.protocol.tasks(loaded.rows)
        },
    }


def drawn_as_text(loaded: Sequence[Loaded]) -> str:
    """Return the text of draws.json, what was drawn for every test set; "" where nothing was."""
    found = {one.source.name: drawn for one in loaded if (drawn := drawn_galleries(one))}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n" if found else ""
