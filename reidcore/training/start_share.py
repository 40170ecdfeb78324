"""Weights between those that parts started from and those that training found."""

from __future__ import annotations

from pathlib import Path

import torch

from reidcore.errors import UsageError
from reidcore.model.building import build_model
from reidcore.model.model import Model, value_of_role
from reidcore.runfolder.make_record import start_weights
from reidcore.runfolder.record import read_record
from reidcore.training.needed_weights import have_weights
from reidcore.wiring.plan import Plan


def require_start(plan: Plan, folder: Path) -> None:
    """Raise DataError if weights that `share_start` will ask for are absent, UsageError if they are
    not those that the run in the folder started from."""
    if not any(plan.runfile.train.start_share.values()):
        return
    have_weights(plan)
    started = read_record(folder).get("weights", {})  # not always written
    changed = [
        one for one, digest in start_weights(plan).items() if started.get(one, digest) != digest
    ]
    if changed:
        raise UsageError(
            f"{folder} cannot go on with train.start_share, because weights have changed since it "
            f"started: {'; '.join(changed)}. Put them back, or start another folder with --out."
        )


@torch.no_grad()
def share_start(model: Model) -> None:
    """Move a trained model's weights and norms' statistics towards those it started from, by the
    shares of `train.start_share` (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR
    2022, equation 1)."""
    settings = model.plan.runfile.train
    if not any(settings.start_share.values()):
        return
    # Built once more, so that nobody has to keep it while the model trains.
    start = dict(build_model(model.plan, settings.seed, "need").parts())
    for role, part in model.parts():
        share = value_of_role(settings.start_share, role, 0.0)
        first, state = start[role].state_dict(), part.state_dict()
        for name, value in state.items():
            if share and value.is_floating_point():
                # Not in place, as a part may have one tensor under several names.
                state[name] = value.lerp(first[name].to(value), share)
        part.load_state_dict(state)
