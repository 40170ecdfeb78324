"""Which pictures train the weights of a search, and which the architecture. Torch-free."""

from __future__ import annotations

import math
from fractions import Fraction

import attrs

COARSEST = 10
"""Shares with a larger common denominator count in single identities."""


@attrs.frozen
class Categories:
    """Numbers of identities: the first ones only train, the next are shared, the last only
    validate."""

    train_only: int
    shared: int
    validate_only: int

    @property
    def train(self) -> int:
        """Identities of the training side: 0 .. train - 1."""
        return self.train_only + self.shared

    @property
    def validate(self) -> int:
        """Identities of the validation side: train_only and all after it."""
        return self.shared + self.validate_only


def split_identities(identities: int, train_only: float, overlap: float) -> Categories:
    """The shares of so many identities, rounded down; what is left only validates.

    Shares in fifths, say, are taken of the largest multiple of five, as in the authors' code.
    """
    shares = [Fraction(str(train_only)), Fraction(str(overlap))]
    common = math.lcm(*(share.denominator for share in shares))
    base = identities - identities % common if common <= COARSEST else identities
    first, second = (int(share * base) for share in shares)
    return Categories(first, second, identities - first - second)
