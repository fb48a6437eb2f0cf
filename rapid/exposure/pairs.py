"""Intra-/extra-focal pairs: which side of focus an exposure is, and whether its partner is still to come.

The summit writes the side into OBSERVATION REASON (``intra_...``, ``extra_...``). Where it does not, the camera's
focus position tells: negative is intra-focal, as for the donut pairs that the gather compares.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from rapid.exposure.models import ImageType

FOCUSZ_REVERSED = frozenset({"LATISS"})
"""Cameras whose FOCUSZ grows towards the intra-focal side. Of LSSTCam and LSSTComCam positive is beyond focus; the
Auxiliary Telescope focuses with its secondary mirror, whose axis points at the primary. Source: the observatory's
wavefront pipeline, which tells the sides of a pair by the same rule."""


class FocusSide(StrEnum):
    """Side of focus."""

    INTRA = "intra"
    EXTRA = "extra"


def focus_side(info: Mapping[str, Any]) -> FocusSide | None:
    """Return the side of focus that an exposure was taken on; None if it is no defocused image.

    Parameters
    ----------
    info
        Facts of the exposure, named as the fields of `ExposureInfo`.

    Examples
    --------
    >>> focus_side({"image_type": "cwfs", "reason": "intra_FAM", "focus_z_mm": 1.5})
    <FocusSide.INTRA: 'intra'>
    >>> focus_side({"image_type": "science", "reason": "intra"}) is None
    True
    """
    if info.get("image_type") != ImageType.CWFS.value:
        return None
    reason = str(info.get("reason") or "").lower()
    for side in FocusSide:
        if side.value in reason:
            return side
    z = info.get("focus_z_mm")
    if isinstance(z, bool) or not isinstance(z, int | float) or not z:
        return None
    return FocusSide.INTRA if z < 0 else FocusSide.EXTRA


def awaits_partner(info: Mapping[str, Any]) -> bool:
    """Whether an exposure is the intra-focal first half of a pair.

    Pairs are taken intra-focal first. Where the reason does not name the side, an exposure that is the last of its
    group (CURINDEX equals MAXINDEX) waits for nothing.

    Examples
    --------
    >>> awaits_partner({"image_type": "cwfs", "focus_z_mm": -1.5, "group_index": 1, "group_size": 2})
    True
    >>> awaits_partner({"image_type": "cwfs", "focus_z_mm": -1.5, "group_index": 2, "group_size": 2})
    False
    """
    if focus_side(info) is not FocusSide.INTRA:
        return False
    if FocusSide.INTRA.value in str(info.get("reason") or "").lower():
        return True
    index, size = info.get("group_index"), info.get("group_size")
    return not (isinstance(index, int) and isinstance(size, int) and index >= size)
