"""A key for distances that are kept on disk."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import attrs
import torch

from reidcore.model.model import Model
from reidcore.model.state_files import copied


def distances_key(model: Model) -> str:
    """Return a digest of what a matcher's distances depend on: weights, settings, and which
    pictures."""
    digest, plan = sha256(), model.plan
    for role, section in model.sections().items():
        for key, value in section.items():
            if not role.startswith(("loss.", "pairs.")):
                digest.update(f"{role}.{key}".encode())
                whole = copied(value).flatten()
                digest.update(whole.view(torch.uint8).numpy().data)
    run = plan.runfile
    parts = [plan.backbone, *plan.heads, *plan.matchers]
    settings: dict[str, Any] = {
        "data": [run.data.image, run.data.interpolation, run.data.normalize],
        "views": run.eval.views,
        "parts": {wired.part.role: attrs.asdict(wired.config) for wired in parts},
        "pictures": plan.data.hashes,
        # They choose the pictures whose distances a block holds.
        "protocols": [(one.source.name, repr(one.protocol)) for one in plan.data.test],
        "versions": plan.distributions,
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]
