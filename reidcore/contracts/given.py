"""The run as a component's wiring method sees it, and the error by which the method refuses it.

Torch-free: wiring happens before any network is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import attrs

from reidcore.contracts.component import BatchShape, Feature, Kind, Matching
from reidcore.contracts.settings import CHECKPOINTS, IMAGENET, NAMED_WEIGHTS
from reidcore.contracts.trained_run import Seen, TrainedRun
from reidcore.errors import ReidError


class WiringError(Exception):
    """Settings that cannot be combined, raised by wiring methods and shown with the user's table.

    Args:
        field: The setting that is wrong; "" if it is no single one.
        text: What was found and what would fit, as the end of a sentence that begins with `field`.

    Example:
        >>> from reidcore.api import WiringError
        >>> raise WiringError("parts", "is 7, but the map has only 6 rows; use at most 6")
        Traceback (most recent call last):
        ...
        reidcore.contracts.given.WiringError: parts is 7, but the map has only 6 rows; use at most 6
    """

    def __init__(self, field: str, text: str):
        self.field = field
        self.text = text
        super().__init__(f"{field} {text}" if field else text)


@attrs.define
class Given:
    """The run as a wiring method sees it: sizes and names, no pictures and no networks.

    The core makes it. A plugin's test may make one itself, with the fields that matter there.

    Attributes:
        image: Height and width of the pictures in pixels.
        identities: Number of identities to train on.
        cameras: Number of cameras among the training pictures.
        modalities: Names of all modalities, in the order of their numbers in `Images.modality`.
        train_modalities: Names of the training pictures' modalities.
        train_columns: Optional manifest columns that the training set fills: of camera, time,
            modality.
        test_columns: Optional manifest columns that every test set fills.
        batch: Shape of the sampler's batches.
        views: Names of the test views, such as "plain" and "flip".
        features: All features so far, by full name `instance.output`.
        matchers: Promises of all matchers so far, by name.
        losses: Names of all losses.
        find_file: Function of the core that looks up a file: (found, absolute path).
        find_weights: Function of the core that looks up a checkpoint: its absolute path.
        find_run: Function of the core that looks up a trained run; None where nothing is trained.
        seen: How pictures are prepared; by default of size `image` and not normalised.
        unit: For postprocessors: True if the distances so far are promised to lie in [0, 1].
        first: For postprocessors: True if no other comes before.
        ranking: For postprocessors: name of their ranking, for messages.
        before: For postprocessors: what gives them distances, in words, for messages: the
            postprocessor before or the matchers.
        by_row: For postprocessors: True if the ranking scales distances row by row.
        shortlisted: For postprocessors: True if the ranking has a shortlist, so that distances are
            missing; `Ranking.scored` says which.
        gaps: For messages: which rows lack a column that others fill, in words, by (where, column),
            where is "train" or "test".

    Example:
        >>> from reidcore.api import Feature, Given
        >>> given = Given((256, 128), features={"backbone.layer4": Feature.map(2048, 16, 8)})
        >>> given.map("backbone.layer4")
        (2048, 16, 8)
    """

    image: tuple[int, int]
    identities: int = 0
    cameras: int = 0
    modalities: tuple[str, ...] = ()
    train_modalities: tuple[str, ...] = ()
    train_columns: frozenset[str] = frozenset()
    test_columns: frozenset[str] = frozenset()
    batch: BatchShape = BatchShape(None)
    views: tuple[str, ...] = ("plain",)
    features: Mapping[str, Feature] = attrs.field(factory=dict)
    matchers: Mapping[str, Matching] = attrs.field(factory=dict)
    losses: tuple[str, ...] = ()
    find_file: Callable[[str], tuple[bool, str]] | None = None
    find_weights: Callable[[str], str] | None = None
    find_run: Callable[[str], TrainedRun | None] | None = None
    seen: Seen = attrs.field(
        default=attrs.Factory(lambda own: Seen(own.image, modalities=own.modalities), True)
    )
    unit: bool = False
    first: bool = True
    ranking: str = ""
    before: str = ""
    by_row: bool = False
    shortlisted: bool = False
    gaps: Mapping[tuple[str, str], str] = attrs.field(factory=dict)

    def feature(self, name: str) -> Feature:
        """Return the feature of this full name.

        Args:
            name: Full name `instance.output`. A setting of type `FeatureName` was checked before:
                the feature exists.
        """
        return self.features[name]

    def map(self, name: str) -> tuple[int, int, int]:
        """Return the (channels, height, width) of the map of this full name.

        Raises:
            WiringError: The feature is no map.
        """
        return self._of_kind(name, "map", 3)  # type: ignore[return-value]

    def vector(self, name: str) -> int:
        """Return the length of the vector of this full name.

        Raises:
            WiringError: The feature is no vector.
        """
        return self._of_kind(name, "vector", 1)[0]

    def _of_kind(self, name: str, kind: Kind, axes: int) -> tuple[int, ...]:
        found = self.features[name]
        if found.kind != kind or len(found.shape) != axes:
            raise WiringError("", f"needs a {kind}, but {name!r} is a {found}")
        return found.shape

    def need(self, condition: bool, field: str, text: str) -> None:
        """Refuse the value of a setting unless a condition holds.

        Args:
            condition: True if the value fits.
            field: The setting; "" if it is no single one.
            text: What was found and what would fit, behind the setting's name.

        Raises:
            WiringError: The condition does not hold.

        Example:
            >>> from reidcore.api import Given
            >>> given = Given((256, 128), identities=751)
            >>> given.need(given.identities >= 2, "", "needs at least two training identities")
        """
        if not condition:
            raise WiringError(field, text)

    def need_identities(self) -> None:
        """Refuse training data without two identities; for losses that tell identities apart.

        Raises:
            WiringError: The training data have fewer.
        """
        self.need(
            self.identities >= 2,
            "",
            f"needs at least two training identities; the data have {self.identities}",
        )

    def need_pairs(self, samplers: str = "core.identities") -> None:
        """Refuse batches without two identities of two pictures each; for losses on pairs.

        Args:
            samplers: Names of samplers that give such batches, for the message.

        Raises:
            WiringError: The sampler promises fewer, or no numbers at all.
        """
        ids, per_id = self.batch.ids, self.batch.per_id
        if ids is None or per_id is None:
            found = "promises no numbers of identities and pictures"
        else:
            found = f"has {ids} x {per_id}"
        self.need(
            (ids or 0) >= 2 and (per_id or 0) >= 2,
            "",
            "needs batches with at least two identities and two pictures of each, but data.batch "
            f"{found}. Use {samplers} with ids and per_id of 2 or more.",
        )

    def need_batch_norm(self) -> None:
        """Refuse training batches of one picture, in which a batch norm of vectors has no
        deviation; for parts that have one.

        Raises:
            WiringError: The sampler gives such a batch, perhaps as an epoch's last one.
        """
        needs = "normalises over the batch, so data.batch needs at least two pictures; it has one"
        self.need(self.batch.size != 1, "", needs)
        self.need(
            self.batch.least != 1,
            "",
            "normalises over the batch, so every batch needs at least two pictures, but the last "
            "one of an epoch has one, all that is left of the training pictures. Change the size "
            "in data.batch, or leave that batch out (drop_last = true)",
        )

    def need_column(self, column: str, where: Literal["train", "test"] = "test") -> None:
        """Refuse data sets that do not fill an optional manifest column.

        Args:
            column: "camera", "time" or "modality".
            where: "train" for the training set, "test" for every test set.

        Raises:
            WiringError: The column is not filled.
        """
        columns = self.test_columns if where == "test" else self.train_columns
        if column not in columns:
            if gap := self.gaps.get((where, column)):
                raise WiringError("", f"needs the manifest column {column} in every row; {gap}.")
            raise WiringError(
                "",
                f"needs the manifest column {column}; this data set has "
                f"{', '.join(sorted(columns)) or 'none'}.",
            )

    def need_unit(self) -> None:
        """Refuse distances that are not promised to lie in [0, 1]; for postprocessors.

        Raises:
            WiringError: What comes before makes no such promise.
        """
        if not self.unit:
            raise WiringError(
                "",
                "needs distances in [0, 1], but what comes before it is unbounded. Put a "
                f"re-ranker first, or use a matcher whose distances lie in [0, 1].{self._place}",
            )

    @property
    def _place(self) -> str:
        """A sentence that says where a postprocessor stands, if that is known."""
        behind = f", behind {self.before}" if self.before else ""
        return f" It stands in ranking {self.ranking!r}{behind}." if self.ranking else ""

    def need_every_distance(self) -> None:
        """Refuse a ranking with a shortlist; for postprocessors that cannot go without distances.

        Those that can leave out of account what `Ranking.scored` does not name.

        Raises:
            WiringError: The ranking has a shortlist.
        """
        if self.shortlisted:
            raise WiringError(
                "",
                "needs the distances of all pairs, also those that its ranking's shortlist leaves "
                f"out; use it in a ranking without a shortlist.{self._place}",
            )

    def need_matcher_distances(self) -> None:
        """Refuse a ranking in which the matcher's own distances cannot be asked for.

        For postprocessors that call `Ranking.between`, `within`, `pairs` or `expanded`. They must
        be the first of their ranking, which must not scale distances row by row and must have no
        shortlist.

        Raises:
            WiringError: One of these does not hold.
        """
        if self.by_row:
            raise WiringError(
                "",
                "asks the matcher for further distances, which do not compare with those that "
                "scale = 'row_minmax' stretches row by row; use another scale in its ranking."
                f"{self._place}",
            )
        if self.shortlisted:
            raise WiringError(
                "",
                "asks the matcher for further distances, among them those that its ranking's "
                f"shortlist leaves out; use it in a ranking without a shortlist.{self._place}",
            )
        if not self.first:
            raise WiringError(
                "",
                "asks the matcher for further distances, so it must be the first postprocessor "
                f"of its ranking; move it before the others.{self._place}",
            )

    def need_logits(self, field: str, matcher: str) -> None:
        """Refuse a matcher that has no logits; for losses that train them.

        Args:
            field: The setting that names the matcher.
            matcher: Name of the matcher.

        Raises:
            WiringError: The matcher does not promise `Matching.logits`.
        """
        if not self.matchers[matcher].logits:
            able = [name for name, found in self.matchers.items() if found.logits]
            raise WiringError(
                field,
                f"needs a matcher with logits, but {matcher!r} has none. "
                f"Matchers with logits: {', '.join(able) or 'none'}.",
            )

    def file(self, field: str, value: str) -> str:
        """Return the absolute path of a file that a setting names.

        Args:
            field: The setting.
            value: Its value: a path, looked up under REID_WEIGHTS, or in the current folder if that
                is not set.

        Raises:
            WiringError: There is no such file.
        """
        if self.find_file is None:
            return value
        found, path = self.find_file(value)
        if not found:
            raise WiringError(field, f"names the file {value!r}, which is not at {path}")
        return path

    def weights(self, field: str, value: str, published: str = IMAGENET) -> str:
        """Return the absolute path of the checkpoint that a part starts from.

        A wiring method calls it, so that the core knows the file and stops a run without it; the
        build function calls `Context.weights`.

        Args:
            field: The setting that names the checkpoint.
            value: Its value: "" for random weights, `published`, "PLUGIN:NAME" for weights that
                a plugin names, or a path, looked up under REID_WEIGHTS, or in the current
                folder if that is not set.
            published: The part's word for published weights, which it finds itself.

        Returns:
            The path; `published` if that is the value; "" for random weights, and where the weights
            of a trained run are loaded afterwards.

        Raises:
            WiringError: The value is neither, and does not end as checkpoints do.
        """
        if value not in ("", published):
            self.need(
                value.endswith(CHECKPOINTS) or NAMED_WEIGHTS.fullmatch(value) is not None,
                field,
                f"is {value!r}, which is neither {published!r} nor a file that ends in "
                f"{', '.join(CHECKPOINTS)}, nor weights PLUGIN:NAME of a plugin",
            )
        if not value or self.find_weights is None:
            return ""
        return value if value == published else self.find_weights(value)

    def trained_run(self, field: str, value: str) -> TrainedRun | None:
        """Return the finished run in a folder that a setting names, such as a teacher.

        A wiring method calls it, so that the core stops a run without the folder and notes in the
        run record which weights were there; the build function calls it again.

        Args:
            field: The setting that names the folder.
            value: Its value: a path, looked up under the current folder, else under REID_WEIGHTS.

        Returns:
            None where there is no such folder, which `reid check` goes on without, and where
            nothing is trained.

        Raises:
            WiringError: What is there is no finished run, or cannot be read.
        """
        if self.find_run is None:
            return None
        try:
            return self.find_run(value)
        except ReidError as error:
            raise WiringError(field, f"is {value!r}: {error}") from None
