"""Which exposure is the first half of an intra-/extra-focal pair."""

import pytest

from rapid.exposure.pairs import FocusSide, awaits_partner, focus_side


@pytest.mark.parametrize(
    ("facts", "side", "awaits"),
    [
        ({"reason": "INTRA_FAM"}, FocusSide.INTRA, True),
        ({"reason": "intra", "group_index": 1, "group_size": 1}, FocusSide.INTRA, True),
        ({"reason": "intra", "focus_z_mm": 1.5}, FocusSide.INTRA, True),
        ({"reason": "extra_FAM", "focus_z_mm": -1.5}, FocusSide.EXTRA, False),
        ({"focus_z_mm": -1.5}, FocusSide.INTRA, True),
        ({"focus_z_mm": -1.5, "group_index": 1, "group_size": 2}, FocusSide.INTRA, True),
        ({"focus_z_mm": -1.5, "group_index": 2, "group_size": 2}, FocusSide.INTRA, False),
        ({"focus_z_mm": 1.5}, FocusSide.EXTRA, False),
        ({"focus_z_mm": 0.0}, None, False),
        ({"focus_z_mm": None, "reason": None}, None, False),
        ({"focus_z_mm": True, "reason": 5}, None, False),
        ({}, None, False),
    ],
)
def test_the_side_of_focus_and_whether_a_partner_is_due(facts, side, awaits):
    assert focus_side({"image_type": "cwfs", **facts}) == side
    assert awaits_partner({"image_type": "cwfs", **facts}) == awaits
    assert not awaits_partner({"image_type": "science", **facts})
