"""Torch-free half of the contracts, for a plugin's `plugin.py`: components, settings and wiring.

Importing this module imports neither torch nor numpy. The other half is in `reidcore.modules`; the
hooks that return components are in `reidcore.hookspecs`.
"""

from __future__ import annotations

from reidcore.contracts.commands import Command
from reidcore.contracts.component import (
    BatchShape,
    Component,
    Feature,
    Matching,
    Row,
    TensorSpec,
)
from reidcore.contracts.explanations import Heat, Lines, Table
from reidcore.contracts.given import Given, WiringError
from reidcore.contracts.openers import Opener
from reidcore.contracts.published_weights import PublishedWeights
from reidcore.contracts.rows import Facts
from reidcore.contracts.settings import (
    IMAGENET,
    FeatureName,
    FusedChoice,
    LossName,
    MapName,
    MatcherName,
    TensorName,
    VectorName,
    fused_setting,
    setting,
)
from reidcore.data.manifest import read_manifest
from reidcore.hookspecs import hookimpl
from reidcore.plugins.samples import sample_run
from reidcore.support.cache_folder import cache_folder
from reidcore.support.installing import how_to_install

__all__ = [
    "IMAGENET",
    "BatchShape",
    "Command",
    "Component",
    "Facts",
    "Feature",
    "FeatureName",
    "FusedChoice",
    "Given",
    "Heat",
    "Lines",
    "LossName",
    "MapName",
    "MatcherName",
    "Matching",
    "Opener",
    "PublishedWeights",
    "Row",
    "Table",
    "TensorName",
    "TensorSpec",
    "VectorName",
    "WiringError",
    "cache_folder",
    "fused_setting",
    "hookimpl",
    "how_to_install",
    "read_manifest",
    "sample_run",
    "setting",
]
