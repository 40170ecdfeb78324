"""What export.json says of an export."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import attrs
import torch

from reid_export.tracing import stored
from reidcore.tools import DistanceModule, Search, TemplateModule

FORMAT = 1
FALSE_ACCEPTS = 0.1, 0.01, 0.001
"""Shares of strangers at which thresholds are given."""


@attrs.frozen(eq=False)
class Written:
    """Graphs that were written. graphs: what is said of each."""

    kind: str
    precision: str
    graphs: Mapping[str, Mapping[str, Any]]
    templates: TemplateModule
    distances: DistanceModule


def make_manifest(
    search: Search,
    ranking: Any,
    written: Written,
    numbers: Mapping[str, Mapping[str, int]],
    terms: str,
) -> dict[str, Any]:
    """Return the manifest, without what the comparison finds.

    numbers: of modalities and cameras, where the network reads them. terms: the weights' licence.
    """
    run = search.plan.runfile
    thresholds, why = _thresholds(search, written.distances)
    height, width = run.data.image
    return {
        "format": FORMAT,
        "kind": written.kind,
        "run": run.name,
        "made_by": search.made_by,
        "ranking": ranking.name,
        "precision": written.precision,
        "license": terms or None,
        "weights_sha256": sha256((search.folder / "weights.safetensors").read_bytes()).hexdigest(),
        "graphs": dict(written.graphs),
        "inputs": {
            "pictures": {"dtype": "uint8", "shape": ["batch", height, width, 3]},
            **{
                kind: {"dtype": "int64", "shape": ["batch"], "numbers": dict(known)}
                for kind, known in numbers.items()
            },
        },
        "templates": {
            name: {"dtype": stored(spec.dtype), "shape": ["batch", *spec.shape]}
            for name, spec in written.templates.specs.items()
        },
        "preprocessing": {
            "size": [height, width],
            "interpolation": run.data.interpolation,
            "words": (
                "Upright by Exif, transparent parts white, RGB; resized to "
                f"{width} pixels wide and {height} high by Pillow's {run.data.interpolation} "
                "filter, which smooths where it shrinks, without keeping the aspect ratio; uint8 "
                "rows of red, green and blue. Normalisation and the views "
                f"{', '.join(run.eval.views)} are in the graph."
            ),
        },
        "left_out": list(ranking.post),
        "thresholds": thresholds,
        "thresholds_from": why,
        "versions": _versions(search),
    }


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with the digest by which reid-runtime tells that nobody edited it."""
    said = json.dumps(manifest, sort_keys=True)
    return {**manifest, "sha256": sha256(said.encode()).hexdigest()}


def _thresholds(search: Search, distances: DistanceModule) -> tuple[list[dict[str, float]], str]:
    """(distance below which two pictures pass, and the shares of strangers and of matches that do),
    and the pairs that were counted, or why there are none, in words."""
    shares = distances.fusion.shares
    if len(shares) > 1:
        return [], "none: the ranking adds several matchers, whose pairs the run keeps separately"
    (share,) = shares
    if distances.whole_gallery:
        return [], "none: row_minmax gives the same pair another distance in another gallery"
    pairs = search.model.pairs.get(share.name)
    if pairs is None or share.name in search.model.stale_pairs or not len(pairs.same):
        return [], "none: the run has kept no pairs of training pictures for these distances"

    def scaled(values: torch.Tensor) -> torch.Tensor:
        values = share.scale(values) if share.scale is not None else values
        return (values * share.weight).sort().values

    same, different = scaled(pairs.same), scaled(pairs.different)
    found = []
    for share_of_strangers in FALSE_ACCEPTS:
        first = different[min(int(share_of_strangers * len(different)), len(different) - 1)]
        # Strangers at equal distances pass or fail together.
        place = int(torch.searchsorted(different, first)) - 1
        if place < 0:
            continue
        limit = different[place].item()
        passing = (same <= limit).double().mean().item()
        found.append(
            {
                "distance": limit,
                "false_accepts": share_of_strangers,
                "true_accepts": round(passing, 4),
            }
        )
    return found, (
        f"{len(different)} pairs of strangers and {len(same)} of one identity, of training "
        "pictures: people who were not trained on are harder, so measure before you rely on them"
    )


def _versions(search: Search) -> dict[str, str]:
    found = {"python": platform.python_version(), **search.plan.distributions}
    for name in ("reidcore", "torch", "onnx", "onnxscript", "onnxruntime", "reid-plugin-export"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
