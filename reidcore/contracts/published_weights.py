"""Weights of third parties that a plugin names, for run files to start from. Torch-free."""

from __future__ import annotations

import attrs


@attrs.frozen
class PublishedWeights:
    """A file of weights at a public address, as a plugin's hook `reid_weights` names it.

    A run file starts from it by `weights = "PLUGIN:NAME"`. `reid run` fetches it once into torch's
    cache and checks its digest; what is in it is read as every checkpoint is, without executing
    code.

    Attributes:
        name: Its name in the plugin, of letters, digits, ".", "_" and "-".
        url: Where it is: https:// or file://, ending as checkpoints do.
        sha256: Digest of the file, 64 hexadecimal digits.
        licence: Under which it may be used, such as "CC BY-NC 4.0"; users are told.
        summary: One line on what it was trained on.
        paper: Whose it is.

    Example:
        >>> from reidcore.api import PublishedWeights
        >>> PublishedWeights(
        ...     "market",
        ...     "https://example.org/qaconv/market.safetensors",
        ...     sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ...     licence="CC BY-NC 4.0",
        ... ).name
        'market'
    """

    name: str
    url: str
    sha256: str
    licence: str
    summary: str = ""
    paper: str = ""
