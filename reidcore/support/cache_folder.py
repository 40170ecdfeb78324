"""The folder of what is made once and used again. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path

from reidcore.errors import UsageError


def cache_folder(name: str = "") -> Path:
    """Return the folder for what a plugin makes or downloads once, in the user's cache.

    The cache is the folder in the environment variable REID_CACHE, or ~/.cache/reidcore if that is
    unset or empty. Nothing is made: whoever writes there makes the folder, best under another name
    that is renamed when it is complete, since several runs may want the same.

    Args:
        name: Name inside the cache, which begins with the plugin's name and changes with whatever
            changes the content, such as "harbour-v2". "" is the cache itself.

    Returns:
        The folder, which may be missing; absolute unless REID_CACHE is relative.

    Raises:
        reidcore.errors.UsageError: REID_CACHE is unset and there is no home folder.

    Example:
        >>> from reidcore.api import cache_folder
        >>> folder = cache_folder("harbour-v2")
        >>> folder.parent == cache_folder(), folder.name
        (True, 'harbour-v2')
    """
    named = os.environ.get("REID_CACHE")
    try:
        cache = Path(named) if named else Path.home() / ".cache" / "reidcore"
    except RuntimeError:
        raise UsageError("there is no home folder; name a cache folder in REID_CACHE") from None
    return cache / name
