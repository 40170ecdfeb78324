"""Settings and wiring of `PLUGIN.cameras`."""

from __future__ import annotations

import attrs
from reidcore.api import BatchShape, Given, setting


@attrs.frozen
class Cameras:
    """Settings of `PLUGIN.cameras`."""

    ids: int = setting("different identities in a batch", at_least=1)
    per_id: int = setting("pictures of each, of different cameras if there are", at_least=1)

    def check(self, given: Given) -> None:
        given.need_column("camera", "train")
        given.need(
            self.ids <= given.identities,
            "ids",
            f"is {self.ids}, but the training data have {given.identities} identities",
        )

    def batch(self) -> BatchShape:
        return BatchShape(self.ids * self.per_id, self.ids, self.per_id)
