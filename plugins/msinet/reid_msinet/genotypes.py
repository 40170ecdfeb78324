"""Which interaction each slot of an MSINet has, as a text of twelve letters. Torch-free."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

from reidcore.api import Given, WiringError

OPERATIONS = {"N": "none", "G": "channel gate", "A": "cross attention", "E": "exchange"}
"""The operations' letters and names, in the order of the columns of alpha."""
CELLS = 6
SLOTS = 2 * CELLS
REGISTERED = {
    "msmt17": "GGEGAGGNGAEA",
    "none": "N" * SLOTS,
    "gate": "G" * SLOTS,
    "attention": "A" * SLOTS,
    "exchange": "E" * SLOTS,
}
"""Genotypes by name: the paper's table 1, and one operation everywhere."""
SUFFIX = ".json"
KEY = "genotype"


def random_genotype(seed: int) -> str:
    """Twelve operations, each drawn from all four alike."""
    return "".join(random.Random(seed).choices(list(OPERATIONS), k=SLOTS))


def complaint(genotype: str) -> str:
    """Return what is wrong with a text of operations, "" if nothing is."""
    if len(genotype) == SLOTS and set(genotype) <= OPERATIONS.keys():
        return ""
    return f"expected {SLOTS} letters out of {', '.join(OPERATIONS)}"


def genotype_text(genotype: str) -> str:
    """Return the text of a genotype file."""
    return json.dumps({KEY: genotype}) + "\n"


def read_genotype(path: str | Path) -> str:
    """The operations in a file that a search wrote. Raises ValueError that says what is wrong."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    genotype = found.get(KEY) if isinstance(found, dict) else None
    if not isinstance(genotype, str) or complaint(genotype):
        raise ValueError(f"{path} has no {KEY!r} of {SLOTS} letters out of {', '.join(OPERATIONS)}")
    return genotype


def chosen_genotype(value: str, given: Given) -> str:
    """The operations that a setting `genotype` names: the letters themselves, a registered name,
    random:SEED, or a genotype file, looked up as files of weights are.

    Raises WiringError with what would fit.
    """
    if value in REGISTERED:
        return REGISTERED[value]
    if drawn := re.fullmatch(r"random:(\d+)", value):
        return random_genotype(int(drawn[1]))
    if value.endswith(SUFFIX):
        try:
            return read_genotype(given.file("genotype", value))
        except ValueError as error:
            raise WiringError("genotype", f"names a file, but {error}") from None
    if complaint(value):
        names = ", ".join(REGISTERED)
        raise WiringError(
            "genotype",
            f"is {value!r}: {complaint(value)}, a name ({names}), random:SEED, or a file that a "
            f"search wrote, {SUFFIX}",
        )
    return value
