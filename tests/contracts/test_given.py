"""What wiring methods ask of the run, and how it is refused."""

from __future__ import annotations

import pytest

from reidcore.api import BatchShape, Given, WiringError


def test_two_identities_are_enough_for_a_loss():
    Given((64, 32), identities=2).need_identities()
    with pytest.raises(WiringError, match="needs at least two training identities; the data have"):
        Given((64, 32), identities=1).need_identities()


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (BatchShape(4), "promises no numbers of identities and pictures"),
        (BatchShape(4, 1, 4), "has 1 x 4"),
        (BatchShape(4, 4, 1), "has 4 x 1"),
    ],
)
def test_batches_without_pairs_are_refused(batch, found):
    """The sentence says what the sampler gives, and which samplers to use."""
    with pytest.raises(WiringError) as caught:
        Given((64, 32), batch=batch).need_pairs("mine.pairs or core.identities")
    assert str(caught.value) == (
        "needs batches with at least two identities and two pictures of each, but data.batch "
        f"{found}. Use mine.pairs or core.identities with ids and per_id of 2 or more."
    )
    Given((64, 32), batch=BatchShape(4, 2, 2)).need_pairs()
