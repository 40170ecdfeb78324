"""Memory, device and processes for computing distances."""

from __future__ import annotations

import attrs
import torch

from reidcore.distributed.processes import ALONE, Processes
from reidcore.ranking.kept_blocks import SetBlocks


@attrs.frozen(eq=False)
class Resources:
    """The memory, device and processes for computing distances.

    memory: GiB for the pairs of one tile. device: where matchers compute, by default where the
    pictures' cameras are. processes: those that share the work. kept: where the blocks of long jobs
    are kept and looked for, if they are kept.
    """

    memory: float = 0.5
    device: torch.device | None = None
    processes: Processes = ALONE
    kept: SetBlocks | None = None
