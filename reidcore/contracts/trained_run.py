"""Trained runs that a part learns from, as wiring methods and build functions get them.
Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import attrs

from reidcore.contracts.component import Feature, Matching
from reidcore.errors import nearest

if TYPE_CHECKING:
    from torch import Tensor

    from reidcore.contracts.pictures import Images


class Teacher(Protocol):
    """A trained run that looks at training pictures; `TrainedRun.open` returns it.

    It is in eval mode, computes in float32 without gradients, and is no part of the model that
    learns from it: neither the model's weights nor its optimizer have anything of it.
    """

    def features(self, images: Images) -> Mapping[str, Tensor]:
        """Return the wanted features [B, ...] of a training batch by full name.

        The pictures are those that the model sees, augmented as they are, brought to the teacher's
        size and normalisation. Cameras are unknown to it. Of a batch that several processes share,
        each computes its own part, and all get the whole.

        Args:
            images: The B pictures of the batch.
        """

    def distances(self, ranking: str, features: Mapping[str, Tensor]) -> Tensor:
        """Return the distances [B, B] of all pairs of pictures, as a ranking of the teacher scales
        and adds them up, before its postprocessors.

        Args:
            ranking: Name of the ranking.
            features: What `features` returned.
        """

    def logits(self, matcher: str, features: Mapping[str, Tensor]) -> Tensor:
        """Return the logits [B, B] of all pairs by a matcher of the teacher.

        Args:
            matcher: Name of the matcher.
            features: What `features` returned.
        """


@attrs.frozen
class Seen:
    """How a model sees pictures: what a picture is brought to before it is computed with.

    Attributes:
        image: Height and width in pixels.
        interpolation: How pictures are resized, as in [data].
        mean, deviation: By which pixels in [0, 1] are normalised, of red, green and blue.
        modalities: Names of the modalities, in the order of their numbers.
    """

    image: tuple[int, int]
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    modalities: tuple[str, ...] = ()


@attrs.define(eq=False)
class TrainedRun:
    """A finished run that a setting names, of which a part may want features.

    Attributes:
        folder: Absolute path of the run folder.
        seen: How the run sees pictures.
        features: All features of the run by full name, computed or not.
        matchers: Promises of the run's matchers by name.
        reads: Full names of the features that each matcher reads, by the matcher's name.
        rankings: Names of the matchers of each ranking, by the ranking's name.
        by_row: Names of the rankings that stretch each query's distances to [0, 1].
        make: Function of the core that opens the run.
        wanted: Full names of the features that the teacher is to give.

    Example:
        A wiring method and a build function, of a loss with the settings `teacher` and `of`:

        >>> def check(self, given):
        ...     run = given.trained_run("teacher", self.teacher)
        ...     if run is not None:
        ...         given.need(self.of in run.features, "of", run.has_no("feature", self.of))
        ...         run.want([self.of])
        >>> def build(config, context):
        ...     run = context.trained_run("teacher", config.teacher)
        ...     teacher = run.open(context.seen) if run is not None else None
        ...     return Mimic(config.of, teacher)
    """

    folder: str
    seen: Seen
    features: Mapping[str, Feature]
    matchers: Mapping[str, Matching]
    reads: Mapping[str, tuple[str, ...]]
    rankings: Mapping[str, tuple[str, ...]]
    by_row: frozenset[str]
    make: Callable[[TrainedRun, Seen], Teacher]
    wanted: set[str] = attrs.field(factory=set, init=False)
    _opened: dict[Seen, Teacher] = attrs.field(factory=dict, init=False)

    def want(self, names: Iterable[str]) -> None:
        """Ask for features, by full name, in a wiring method: several parts share a teacher, which
        is built after all of them have asked."""
        self.wanted.update(names)

    def open(self, student: Seen) -> Teacher:
        """Return the run as a teacher, in a build function; parts of one model get the same.

        Args:
            student: How the pictures that it will be given have been prepared.

        Raises:
            ReidError: Its weights are missing or damaged, or it has none for a wanted feature.
        """
        if student not in self._opened:
            self._opened[student] = self.make(self, student)
        return self._opened[student]

    def has_no(self, kind: Literal["feature", "matcher", "ranking"], name: str) -> str:
        """Return the end of a sentence, behind a setting's name, on a name that the run lacks."""
        known: Iterable[str]
        if kind == "feature":
            known, listed = self.features, [f"{key} ({one})" for key, one in self.features.items()]
        else:
            known = listed = list(self.matchers if kind == "matcher" else self.rankings)
        return (
            f"is {name!r}, which is no {kind} of the teacher{nearest(name, known) or '.'} "
            f"Its {kind}s: {', '.join(listed) or 'none'}"
        )
