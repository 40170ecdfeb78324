"""Tells parts that a graph is being made of them."""

from __future__ import annotations

import torch


def is_exporting() -> bool:
    """Return True while `torch.export` traces a graph, as `reid export` lets it.

    A graph holds for any number of pictures, so a part that loops over tiles of a batch, or asks
    which rows there are, computes everything at once then, in plain torch operations; how many
    pairs a call gets is the caller's matter. The numbers may differ in the last bits.

    Returns:
        False everywhere else, and with a torch older than 2.7, which cannot tell.

    Example:
        >>> from reidcore.modules import is_exporting
        >>> is_exporting()
        False
    """
    return hasattr(torch.compiler, "is_exporting") and torch.compiler.is_exporting()
