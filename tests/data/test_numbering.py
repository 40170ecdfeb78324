"""Numbers of cameras and modalities."""

from __future__ import annotations

from reidcore.contracts.component import Row
from reidcore.data.numbering import Numbering

ROWS = [Row("a", "1", "yard", modality="infrared"), Row("b", "2", "door")]


def test_names_are_numbered_in_natural_order():
    found = Numbering().extended(ROWS)
    assert found == Numbering({"door": 0, "yard": 1}, ("infrared",))


def test_what_is_known_keeps_its_number():
    """New cameras and modalities get further numbers; an unknown camera stays -1."""
    known = Numbering({"door": 0, "yard": 1}, ("visible",))
    found = known.extended([*ROWS, Row("c", "3", "attic"), Row("d", "4")])
    assert found.cameras == {"door": 0, "yard": 1, "attic": 2, "": -1}
    assert found.modalities == ("visible", "infrared")
    assert known == Numbering({"door": 0, "yard": 1}, ("visible",))


def test_further_modalities_may_be_known():
    found = Numbering().extended(ROWS, ("visible", "infrared"))
    assert found.modalities == ("visible", "infrared")


def test_a_run_records_the_numbers_of_its_training():
    record = {"camera_numbers": {"7": 7}, "modalities": ["visible"], "train_modalities": []}
    assert Numbering.of_training(record) == Numbering({"7": 7}, ("visible",))
    assert Numbering.of_training({}) == Numbering()
