"""The fusion of several matchers' distances into those of a ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from torch import Tensor

from reidcore.contracts.component import Matching
from reidcore.contracts.parts import Matcher
from reidcore.errors import PluginError
from reidcore.ranking.scales import Scale, row_minmax


@attrs.frozen(eq=False)
class Share:
    """One matcher's share in a ranking: its weight, and the scale of its distances."""

    name: str
    matcher: Matcher
    matching: Matching
    weight: float = 1.0
    scale: Scale | None = None


@attrs.frozen(eq=False)
class Shortlisting:
    """The choice of each query's `top` nearest gallery pictures by the own distances of `share`'s
    matcher; of equally near ones the first in the gallery's order.

    unit: whether the distances of the chosen pictures lie in [0, 1].
    """

    share: Share
    top: int
    unit: bool


ADDED_UP = "distances as the ranking's scales and weights add them up"
"""What a fusion gives, for messages."""


def by_matcher(share: Share) -> str:
    """Return words for the own distances of a share's matcher."""
    return f"distances by matcher {share.name!r}"


def _as_tuple(shares: Sequence[Share]) -> tuple[Share, ...]:
    return tuple(shares)


@attrs.frozen(eq=False)
class Fusion:
    """The weighted sum of the scaled distances of one or several matchers.

    by_row: whether every row of query x gallery distances is stretched to [0, 1] before it is
    weighted, so that distances within a side are on another scale and are refused. shortlist: the
    only gallery pictures whose distances are computed, if not all.
    """

    shares: tuple[Share, ...] = attrs.field(converter=_as_tuple)
    by_row: bool = False
    shortlist: Shortlisting | None = None

    @property
    def symmetric(self) -> bool:
        """True if two pictures' distance does not depend on which of them is the query."""
        return all(share.matching.symmetric for share in self.shares)

    @property
    def plain(self) -> bool:
        """True if the sum is one matcher's own distances as they are."""
        (first, *others) = self.shares
        return not others and not self.by_row and first.scale is None and first.weight == 1

    def sum(self, own: Callable[[Share], Tensor]) -> Tensor:
        """Return the sum over all shares. own: gives the own distances of one share's matcher."""
        total: Tensor | None = None
        for share in self.shares:
            distances = own(share)
            if self.by_row:
                distances = row_minmax(distances)
            elif share.scale is not None:
                distances = share.scale(distances)
            if share.weight != 1:
                distances = distances * share.weight
            total = distances if total is None else total.add_(distances)
        assert total is not None
        return total

    def refuse_if_incomparable(self, asked: str) -> None:
        """Raise PluginError if distances other than those of each query to the whole gallery would
        not be on the scale of these. asked: what a postprocessor asked for."""
        if self.by_row or self.shortlist is not None:
            why = "scale = 'row_minmax'" if self.by_row else "a shortlist"
            raise PluginError(
                f"a postprocessor asked for {asked}, which {why} does not allow; "
                "its check() lacks given.need_matcher_distances()"
            )
