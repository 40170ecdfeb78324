"""The plugin `trackers`: an observer of runs. Imports neither torch nor a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reid_trackers.settings import Trackers
from reidcore.api import hookimpl


@hookimpl
def reid_observer_settings() -> type:
    return Trackers


@hookimpl
def reid_run_started(run: Any, finished: int, settings: Trackers) -> None:
    from reid_trackers.records import records_of

    if not run.dry:
        records_of(run, settings).started(run, finished)


@hookimpl
def reid_epoch_ended(
    run: Any,
    epoch: int,
    means: Mapping[str, float],
    scores: Mapping[str, Any] | None,
    settings: Trackers,
) -> None:
    from reid_trackers.records import records_of

    if not run.dry:
        records_of(run, settings).epoch_ended(run, epoch + 1, means, scores)


@hookimpl
def reid_run_ended(run: Any, scores: Mapping[str, Any] | None, settings: Trackers) -> None:
    from reid_trackers.records import records_of

    if not run.dry:
        records_of(run, settings).ended(run, scores)
