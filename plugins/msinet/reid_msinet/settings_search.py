"""Settings and wiring of `msinet.search`."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from reid_msinet.categories import Categories, split_identities
from reid_msinet.settings_losses import memory_init, momentum, normalize, temperature
from reidcore.api import Given, VectorName, setting


def _share(doc: str, default: float) -> Any:
    return setting(doc, default=default, at_least=0, at_most=1)


@attrs.frozen
class Search:
    """Settings of `msinet.search`."""

    feature: VectorName = setting("the vector that is compared with the memories")
    loss: Literal["memory", "softmax"] = setting(
        "memory: twins contrastive, a class memory for training and one for validation; softmax: "
        "one linear classifier for both, which needs the same identities on both sides",
        default="memory",
    )
    overlap: float = _share("share of the identities that train and validate", 0.4)
    train_only: float = _share("share of the identities that only train; the rest validates", 0.2)
    halves: Literal["first", "interleaved", "random"] = setting(
        "which half of a shared identity's pictures trains: the first in the order of the data, as "
        "in the authors' code, every second one, or one that is drawn by the run's seed. Where "
        "pictures are listed by camera, the first half has other cameras than the second",
        default="first",
    )
    order: Literal["paper", "code"] = setting(
        "paper: in each iteration the weights step on a training batch, then alpha on a validation "
        "batch. code: alpha steps first, except in an epoch's first iteration, and what the "
        "validation loss gives the weights stays in their next gradient",
        default="paper",
    )
    temperature: float = temperature()
    momentum: float = momentum()
    normalize: Literal["both", "features", "none"] = normalize()
    memory_init: Literal["centroid", "zeros"] = memory_init()
    alpha_lr: float = setting("learning rate of alpha's Adam", default=0.002, above=0)
    alpha_betas: tuple[float, float] = setting(
        "shares of Adam's running means that stay", default=(0.5, 0.999), at_least=0, below=1
    )
    alpha_weight_decay: float = setting(
        "weight decay of alpha, added to its gradient", default=1e-3, at_least=0
    )
    alpha_steps: list[int] = setting(
        "epochs at which alpha's learning rate falls to a tenth; the authors' code has 350 in "
        "place of 300",
        default=[150, 225, 300],
        at_least=1,
    )

    def categories(self, identities: int) -> Categories:
        return split_identities(identities, self.train_only, self.overlap)

    def check(self, given: Given) -> None:
        given.need(
            not given.losses,
            "",
            f"has losses of its own and does not look at [[loss]] ({', '.join(given.losses)}); "
            "remove them from the run file",
        )
        given.need(
            self.overlap + self.train_only <= 1,
            "overlap",
            f"is {self.overlap:g}, which with train_only = {self.train_only:g} is more than all",
        )
        given.need(
            self.loss == "memory" or (self.overlap, self.train_only) == (1, 0),
            "loss",
            "is 'softmax', whose classifier knows no identities that only train or only validate; "
            "use it with overlap = 1 and train_only = 0",
        )
        split = self.categories(given.identities)
        least = max(2, given.batch.ids or 0)
        for side, number in (("train", split.train), ("validate", split.validate)):
            given.need(
                number >= least,
                "overlap",
                f"is {self.overlap:g} with train_only = {self.train_only:g}, which leaves {number} "
                f"of {given.identities} identities to {side}; a batch needs {least}",
            )
