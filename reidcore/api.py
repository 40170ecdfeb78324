"""What a plugin's torch-free `plugin.py` needs: components, settings, features and wiring.

Importing this module imports neither torch nor numpy. The torch half of the contracts is in
`reidcore.modules`; the hooks that return components are in `reidcore.hookspecs`.
"""

from __future__ import annotations

from reidcore.contracts.commands import Command
from reidcore.contracts.component import (
    BatchShape,
    Component,
    Facts,
    Feature,
    Matching,
    Row,
    TensorSpec,
)
from reidcore.contracts.explanations import Heat, Lines, Table
from reidcore.contracts.given import Given, WiringError
from reidcore.contracts.settings import (
    IMAGENET,
    FeatureName,
    LossName,
    MapName,
    MatcherName,
    TensorName,
    VectorName,
    setting,
)
from reidcore.hookspecs import hookimpl

__all__ = [
    "IMAGENET",
    "BatchShape",
    "Command",
    "Component",
    "Facts",
    "Feature",
    "FeatureName",
    "Given",
    "Heat",
    "Lines",
    "LossName",
    "MapName",
    "MatcherName",
    "Matching",
    "Row",
    "Table",
    "TensorName",
    "TensorSpec",
    "VectorName",
    "WiringError",
    "hookimpl",
    "setting",
]
