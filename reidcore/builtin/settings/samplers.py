"""Settings and wiring of the core's samplers."""

from __future__ import annotations

import attrs

from reidcore.api import BatchShape, Given, setting


@attrs.frozen
class Shuffled:
    """Settings of `core.shuffled`."""

    size: int = setting("pictures in a batch", at_least=1)
    drop_last: bool = setting(
        "whether an incomplete last batch is left out; the only batch never is", default=True
    )

    def check(self, given: Given) -> None:
        pass

    def batch(self) -> BatchShape:
        return BatchShape(self.size if self.drop_last else None)


@attrs.frozen
class Identities:
    """Settings of `core.identities`."""

    ids: int = setting("different identities in a batch", at_least=1)
    per_id: int = setting("pictures of each", at_least=1)

    def check(self, given: Given) -> None:
        given.need(
            given.identities >= self.ids,
            "ids",
            f"asks for {self.ids} different identities in a batch, but the training data have "
            f"{given.identities}",
        )

    def batch(self) -> BatchShape:
        return BatchShape(self.ids * self.per_id, self.ids, self.per_id)
