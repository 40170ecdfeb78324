"""Files of weights that training starts from, or goes back to. Torch-free at import."""

from __future__ import annotations

import os
from pathlib import Path

from reidcore.wiring.plan import Plan, require_weights


def have_weights(plan: Plan) -> None:
    """Fetch the weights that plugins name and that are not there yet. Raise DataError if files are
    absent."""
    for path, one in plan.published.items():
        if not os.path.isfile(path):
            from reidcore.networks.fetching import fetch_weights

            fetch_weights(one.name, one.weights.url, one.weights.sha256, Path(path))
    require_weights(plan)
