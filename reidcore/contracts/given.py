"""What a component's wiring method is given. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import attrs

from reidcore.contracts.component import BatchShape, Feature, Kind, Matching
from reidcore.contracts.settings import CHECKPOINTS, IMAGENET


class WiringError(Exception):
    """Settings that cannot be combined; `field` is the user's key, "" if it is no single one."""

    def __init__(self, field: str, text: str):
        self.field = field
        self.text = text
        super().__init__(f"{field} {text}" if field else text)


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"


@attrs.define
class Given:
    """What a wiring method sees: the run without its pictures.

    image: (height, width) in pixels. identities: training identities. cameras: training cameras.
    modalities: names, in the order of their numbers in `Images.modality`; train_modalities: those
    of training pictures. train_columns and test_columns: the optional manifest columns that the
    training set, or every test set, fills.
    batch: the sampler's shape. views: test views. features: every feature so far by full name.
    matchers: every matcher so far by name. losses: names of all losses.
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
    # The state of a post chain, set by the core for each postprocessor in turn.
    unit: bool = False
    first: bool = True
    by_row: bool = False
    shortlisted: bool = False

    def feature(self, name: str) -> Feature:
        """The feature of this full name; its existence and kind were checked from the type."""
        return self.features[name]

    def map(self, name: str) -> tuple[int, int, int]:
        """(channels, height, width) of a map."""
        return self._of_kind(name, "map", 3)  # type: ignore[return-value]

    def vector(self, name: str) -> int:
        """Length of a vector."""
        return self._of_kind(name, "vector", 1)[0]

    def _of_kind(self, name: str, kind: Kind, axes: int) -> tuple[int, ...]:
        found = self.features[name]
        if found.kind != kind or len(found.shape) != axes:
            raise WiringError("", f"needs a {kind}, but {name!r} is a {found}")
        return found.shape

    def need(self, condition: bool, field: str, text: str) -> None:
        """Refuse the value of `field` unless `condition`; `text` says what was found and what
        would fit."""
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

    def need_column(self, column: str, where: Literal["train", "test"] = "test") -> None:
        """Refuse data sets whose manifest has no such optional column."""
        columns = self.test_columns if where == "test" else self.train_columns
        if column not in columns:
            raise WiringError(
                "",
                f"needs the manifest column {column}; this data set has "
                f"{_listing(sorted(columns))}.",
            )

    def need_unit(self) -> None:
        """For postprocessors: refuse distances that are not promised to lie in [0, 1]."""
        if not self.unit:
            raise WiringError(
                "",
                "needs distances in [0, 1], but what comes before it is unbounded. Put a "
                "re-ranker first, or use a matcher whose distances lie in [0, 1].",
            )

    def need_matcher_distances(self) -> None:
        """For postprocessors that use `Ranking.between`, `pairs` or `expanded`: must be first in
        the chain, of distances that compare between all pictures and are all there."""
        if self.by_row:
            raise WiringError(
                "",
                "asks the matcher for further distances, which do not compare with those that "
                "scale = 'row_minmax' stretches row by row; use another scale in its ranking.",
            )
        if self.shortlisted:
            raise WiringError(
                "",
                "asks the matcher for further distances, among them those that its ranking's "
                "shortlist leaves out; use it in a ranking without a shortlist.",
            )
        if not self.first:
            raise WiringError(
                "",
                "asks the matcher for further distances, so it must be the first postprocessor "
                "of its ranking; move it before the others.",
            )

    def need_logits(self, field: str, matcher: str) -> None:
        """For losses on logits: refuse a matcher that has none."""
        if not self.matchers[matcher].logits:
            able = [name for name, found in self.matchers.items() if found.logits]
            raise WiringError(
                field,
                f"needs a matcher with logits, but {matcher!r} has none. "
                f"Matchers with logits: {_listing(able)}.",
            )

    def file(self, field: str, value: str) -> str:
        """The absolute path of a file that setting `field` names, looked up under REID_WEIGHTS,
        else under the current folder."""
        if self.find_file is None:
            return value
        found, path = self.find_file(value)
        if not found:
            raise WiringError(field, f"names the file {value!r}, which is not at {path}")
        return path

    def weights(self, field: str, value: str, published: str = IMAGENET) -> str:
        """What a part starts from, as its setting `field` says: the absolute path of a checkpoint,
        looked up under REID_WEIGHTS, else under the current folder, or `published` as it is, the
        part's word for weights that somebody publishes and it finds itself.

        "" if `value` is empty, or where the weights of a trained run are loaded afterwards. The
        wiring method calls this, so that the core knows the file and stops a run without it; the
        build function asks `Context.weights` again.
        """
        if value not in ("", published):
            self.need(
                value.endswith(CHECKPOINTS),
                field,
                f"is {value!r}, which is neither {published!r} nor a file that ends in "
                f"{', '.join(CHECKPOINTS)}",
            )
        if not value or self.find_weights is None:
            return ""
        return value if value == published else self.find_weights(value)
