"""Settings and wiring of `ddag.graph`."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.api import Given, LossName, VectorName, setting


@attrs.frozen
class Graph:
    """Settings of `ddag.graph`."""

    feature: VectorName = setting("the vector of every picture of the batch, a node of the graph")
    heads: int = setting("attention heads, L in the paper", default=4, at_least=1)
    dim: int = setting(
        "length of each head's vectors: 512 in the authors' program, 256 in the paper",
        default=512,
        at_least=1,
    )
    per_id: int | None = setting(
        "how many pictures of each identity in the batch are nodes, the paper's N_g: the first "
        "ones of each modality in turn; all if not set",
        default=None,
        at_least=1,
    )
    dropout: float = setting(
        "share of features and of attention that is dropped", default=0.2, at_least=0, below=1
    )
    activation: Literal["elu", "none"] = setting(
        "of the last layer: elu as in the authors' program, none as in the paper", default="elu"
    )
    reduction: Literal["mean", "sum"] = setting(
        "mean over the nodes, as in the authors' program, or their sum, as the paper's equation 9 "
        "is printed",
        default="mean",
    )
    balance: list[LossName] = setting(
        "losses that say how much this one counts: in the first epoch `first`, then 1 / (1 + their "
        "mean sum in the epoch before); if there are none it counts fully",
        default=[],
    )
    first: float = setting(
        "how much the loss counts in the first epoch, if it is balanced", default=0.0, at_least=0
    )

    def check(self, given: Given) -> None:
        given.need_identities()
        have = given.batch.per_id
        given.need(
            self.per_id is None or have is None or self.per_id <= have,
            "per_id",
            f"is {self.per_id}, but batches have {have} pictures of an identity; use at most "
            f"{have}",
        )
        given.need(
            self.first == 0 or bool(self.balance),
            "first",
            f"is {self.first:g}, but nothing balances the loss; name losses in balance, or remove "
            "it",
        )
