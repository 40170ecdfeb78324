"""Fetches files of published weights into torch's cache."""

from __future__ import annotations

import http.client
from pathlib import Path

import torch

from reidcore.errors import DataError


def fetch_weights(name: str, url: str, sha256: str, path: Path) -> None:
    """Download a file to `path`, complete and with this digest or not at all.

    name: of the weights, for messages. Raises DataError where it cannot be had, or is another file.
    """
    hint = f"Put the file at {path}, or give the path of another as weights."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
    except RuntimeError as error:
        if "invalid hash" not in str(error):
            raise
        raise DataError(
            f"weights {name}: the file at {url} is not the one that the plugin names: its sha256 "
            f"is another. {hint}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"weights {name}: {url} could not be fetched: {error}. {hint}") from None
