"""What a training is asked for beside its run file. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs


@attrs.frozen
class TrainingOptions:
    """Options of one training beside its run file.

    folder: the run folder. sets: the `--set` items that the run file was read with. resume: go on
    with the run in the folder, if there is one. check: make a dry run on a random batch first.
    traceback: show the whole one of what an observer raises.
    """

    folder: Path
    sets: Sequence[str] = ()
    resume: bool = False
    check: bool = True
    traceback: bool = False
