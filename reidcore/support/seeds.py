"""Random numbers that follow from the run's seed and a purpose, never from what ran before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2^63) that depends on every part and is the same on every machine."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by `derived_seed`."""
    return torch.Generator().manual_seed(derived_seed(*parts))


def seed_all(*parts: int | str) -> None:
    """Seed the global generators of torch, NumPy and Python by `derived_seed`."""
    seed = derived_seed(*parts)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Seed the global generators inside a `with` block, and leave them as they were found."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=list(devices)):
        seed_all(*parts)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
