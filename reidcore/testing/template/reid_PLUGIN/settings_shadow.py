"""Settings of `PLUGIN.shadow`."""

from __future__ import annotations

import attrs
from reidcore.api import setting


@attrs.frozen
class Shadow:
    """Settings of `PLUGIN.shadow`."""

    probability: float = setting("how often", default=0.5, at_least=0, at_most=1)
    least: float = setting("the darkest factor", default=0.4, at_least=0, at_most=1)
