"""The table `[trackers]` of a run file. Torch-free."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

import attrs

from reidcore.api import how_to_install, setting

Name = Literal["tensorboard", "mlflow", "wandb", "trackio"]


def _installed(names: list[Name]) -> str | None:
    if not names:
        return "expected at least one of tensorboard, mlflow, wandb, trackio"
    for name in names:
        if names.count(name) > 1:
            return f"expected each tracker once, {name} stands twice"
        if find_spec(name) is None:
            return "expected trackers that are installed; for this one: " + how_to_install(
                f"reid-plugin-trackers[{name}]"
            )
    return None


@attrs.frozen
class Trackers:
    """Where the record of a run is kept while it is trained."""

    use: list[Name] = setting(
        "The trackers, each with its own library: tensorboard, mlflow, wandb (Weights & Biases) "
        "and trackio.",
        check=_installed,
    )
    project: str = setting(
        "Name under which mlflow (as experiment), wandb and trackio collect runs.", default="reid"
    )
    pictures: int = setting(
        "Queries whose nearest gallery pictures are drawn after every evaluation; 0 draws none. A "
        "tracker that keeps its record on another machine sends these pictures there.",
        default=4,
        at_least=0,
        at_most=16,
    )
    mlflow_uri: str = setting(
        "MLflow's store, such as sqlite:///mlflow.db or http://host:5000; if not set, "
        "MLFLOW_TRACKING_URI or MLflow's own default, mlflow.db in the current folder.",
        default="",
    )
    wandb_mode: Literal["online", "offline"] = setting(
        "online needs a login of wandb; offline writes into the run folder, from where `wandb "
        "sync` sends it.",
        default="online",
    )
    wandb_entity: str = setting(
        "The user or team of Weights & Biases; your own if not set.", default=""
    )
    trackio_space: str = setting(
        "A Hugging Face Space to send trackio's record to, USER/NAME; if not set it stays on this "
        "machine, under TRACKIO_DIR.",
        default="",
    )
