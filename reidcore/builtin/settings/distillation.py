"""Settings and wiring of the losses that learn from a trained run."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.contracts.given import Given
from reidcore.contracts.settings import FeatureName, MatcherName, setting
from reidcore.contracts.trained_run import TrainedRun

TEACHER = (
    "run folder of the teacher, a finished run, under the current folder or under REID_WEIGHTS"
)


@attrs.frozen
class DistillFeatures:
    """Settings of `core.distill_features`."""

    teacher: str = setting(TEACHER)
    feature: FeatureName = setting("the vector or map that learns")
    of: str = setting('the teacher\'s feature, by its full name; "" for the same name', default="")
    metric: Literal["cosine", "squared"] = setting(
        "1 - cos of a vector and its teacher's, or the mean square of their differences; of maps, "
        "at each place",
        default="cosine",
    )

    @property
    def theirs(self) -> str:
        """Full name of the teacher's feature."""
        return self.of or self.feature

    def check(self, given: Given) -> None:
        own = given.feature(self.feature)
        given.need(
            own.kind != "tensor", "feature", f"needs a vector or map; {self.feature!r} is a {own}"
        )
        run = _found(given, self.teacher)
        if run is None:
            return
        given.need(self.theirs in run.features, "of", run.has_no("feature", self.theirs))
        found = run.features[self.theirs]
        given.need(
            found.kind == own.kind and found.shape[1:] == own.shape[1:],
            "of",
            f"is {self.theirs!r}, a {found}, from which {self.feature!r}, a {own}, cannot learn: "
            "both must be vectors, or maps of one height and width",
        )
        run.want([self.theirs])


@attrs.frozen
class DistillDistances:
    """Settings of `core.distill_distances`."""

    teacher: str = setting(TEACHER)
    matcher: MatcherName = setting("the matcher whose distances learn")
    ranking: str = setting(
        'the teacher\'s ranking whose distances are learnt, before its postprocessors; "" for its '
        "first",
        default="",
    )

    def named(self, run: TrainedRun) -> str:
        """Name of the teacher's ranking."""
        return self.ranking or next(iter(run.rankings))

    def check(self, given: Given) -> None:
        _need_two(given)
        run = _found(given, self.teacher)
        if run is None:
            return
        given.need(bool(run.rankings), "teacher", "has no ranking, so no distances to learn from")
        name = self.named(run)
        given.need(name in run.rankings, "ranking", run.has_no("ranking", name))
        given.need(
            name not in run.by_row,
            "ranking",
            f"is {name!r}, whose scale = 'row_minmax' depends on the gallery, so that a batch has "
            "no such distances; name another",
        )
        for matcher in run.rankings[name]:
            run.want(run.reads[matcher])


@attrs.frozen
class DistillLogits:
    """Settings of `core.distill_logits`."""

    teacher: str = setting(TEACHER)
    matcher: MatcherName = setting(
        "the matcher that learns: by its logits, or if it has none, by its distance, from which "
        "the loss learns to make logits"
    )
    of: str = setting(
        'the teacher\'s matcher, which needs logits; "" for the first that has them', default=""
    )
    temperature: float = setting(
        "what all logits are divided by; a higher one also teaches how unlike strangers are",
        default=1.0,
        above=0,
    )

    def named(self, run: TrainedRun) -> str:
        """Name of the teacher's matcher, "" if none has logits."""
        return self.of or next((name for name, one in run.matchers.items() if one.logits), "")

    def check(self, given: Given) -> None:
        _need_two(given)
        run = _found(given, self.teacher)
        if run is None:
            return
        name = self.named(run)
        able = ", ".join(key for key, one in run.matchers.items() if one.logits) or "none"
        given.need(
            bool(name),
            "teacher",
            "has no matcher with logits; core.distill_distances learns from any matcher",
        )
        given.need(name in run.matchers, "of", run.has_no("matcher", name))
        given.need(
            run.matchers[name].logits,
            "of",
            f"is {name!r}, a matcher without logits. The teacher's with logits: {able}. "
            "core.distill_distances learns from any matcher",
        )
        run.want(run.reads[name])


def _need_two(given: Given) -> None:
    """Refuse batches of one picture, which has no pair."""
    given.need(
        given.batch.size != 1, "", "compares pictures of a batch, so data.batch needs at least two"
    )


def _found(given: Given, teacher: str) -> TrainedRun | None:
    """Return the teacher, if it is there, once it is known to see what it is shown."""
    run = given.trained_run("teacher", teacher)
    if run is not None and len(run.seen.modalities) > 1:
        unknown = [one for one in given.train_modalities if one not in run.seen.modalities]
        given.need(
            not unknown,
            "teacher",
            f"knows pictures of {', '.join(run.seen.modalities)}, but the training pictures are of "
            f"{', '.join(unknown)} too",
        )
    return run
