"""Settings and wiring of the core's samplers."""

from __future__ import annotations

import attrs

from reidcore.contracts.component import BatchShape
from reidcore.contracts.given import Given
from reidcore.contracts.settings import setting


def _need_identities(given: Given, ids: int) -> None:
    given.need(
        given.identities >= ids,
        "ids",
        f"asks for {ids} different identities in a batch, but the training data have "
        f"{given.identities}",
    )


@attrs.frozen
class Shuffled:
    """Settings of `core.shuffled`."""

    size: int = setting("pictures in a batch", at_least=1, at_most=10**6)
    drop_last: bool = setting(
        "whether an incomplete last batch is left out; the only batch never is", default=True
    )

    def check(self, given: Given) -> None:
        pass

    def batch(self) -> BatchShape:
        return BatchShape(self.size if self.drop_last else None)

    def least(self, pictures: int) -> int:
        rest = pictures % self.size
        if pictures < self.size or (rest and not self.drop_last):
            return rest
        return self.size


@attrs.frozen
class Identities:
    """Settings of `core.identities`."""

    ids: int = setting("different identities in a batch", at_least=1, at_most=10**6)
    per_id: int = setting("pictures of each", at_least=1, at_most=10**6)

    def check(self, given: Given) -> None:
        _need_identities(given, self.ids)

    def batch(self) -> BatchShape:
        return BatchShape(self.ids * self.per_id, self.ids, self.per_id)


@attrs.frozen
class TwoModalities:
    """Settings of `core.two_modalities`."""

    ids: int = setting("different identities in a batch", at_least=1, at_most=10**6)
    per_id: int = setting(
        "pictures of each, from each of both modalities", at_least=1, at_most=10**6
    )

    def check(self, given: Given) -> None:
        given.need_column("modality", "train")
        given.need(
            len(given.train_modalities) == 2,
            "",
            "needs training pictures of two modalities, but the data have "
            f"{', '.join(given.train_modalities) or 'none'}. Use core.identities, or data with two",
        )
        _need_identities(given, self.ids)

    def batch(self) -> BatchShape:
        return BatchShape(2 * self.ids * self.per_id, self.ids, 2 * self.per_id)
