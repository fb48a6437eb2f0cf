"""Headers that are known to have been wrong, and what they should have said.

Facts of the observatory's own list (lsst/obs_lsst, ``fix_header`` of each translator, April 2026). They
matter when an old night is played again. New ones are a line in a table.
"""

from collections.abc import Mapping
from typing import Any

from rapid.exposure.values import Values

_DOME_CLOSED = (
    (20250518, 0, 99_999), (20250703, 743, 745), (20250704, 832, 834), (20250705, 1, 736), (20250707, 744, 823),
    (20250707, 864, 943), (20250714, 258, 781), (20250715, 205, 1218), (20250819, 4, 1052),
)  # fmt: skip
"""Day, first and last sequence number of LSSTCam exposures under a closed dome that the header calls open."""

_FILTER_WAS = ((20250609, 76, 578, "z_20", "z"), (20260315, 49, 109, "i_39", "i"))
"""Day, first and last sequence number, and the LSSTCam filter that really was in the beam."""


_BLOCK_T417 = frozenset({
    20250415, 20250416, 20250417, 20250418, 20250421, 20250423, 20250424, 20250425, 20250503, 20250504, 20250512,
    20250522, 20250524, 20250826, 20250827, 20250828,
})  # fmt: skip
"""Days when LSSTCam's program BLOCK-T417 was written as BLOCK-417."""


def corrected_lsstcam(header: Mapping[str, Any], day_obs: int, seq_num: int) -> Mapping[str, Any]:
    """Return the header of an LSSTCam exposure with what is known to be wrong put right."""
    changes: dict[str, Any] = {}
    if "FILTER" not in header and "FILTER2" in header:
        changes["FILTER2"] = None
    if header.get("FILTER") == "ph_05":
        changes["FILTER"] = "ph_5"
    if header.get("PROGRAM") == "BLOCK-417" and day_obs in _BLOCK_T417:
        changes["PROGRAM"] = "BLOCK-T417"
    rotation = Values(header).number("ROTPA")
    if rotation is not None and 20250301 < day_obs < 20250422:
        changes["ROTPA"] = rotation - 90.0  # the angle was still that of the camera mounted before
    elif rotation is not None and day_obs == 20250422 and seq_num < 251:
        changes["ROTPA"] = (rotation - 180.0 + 180.0) % 360.0 - 180.0
    if any(day == day_obs and first <= seq_num <= last for day, first, last in _DOME_CLOSED):
        changes["VIGN_MIN"] = "FULLY"
    for day, first, last, name, band in _FILTER_WAS:
        if day == day_obs and first <= seq_num <= last:
            changes.update(FILTER=name, FILTBAND=band)
    return {**header, **changes} if changes else header


def corrected_latiss(header: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the header of a LATISS exposure with what is known to be wrong put right.

    Until 2021 its headers changed meaning several times: image type in GROUPID, angles in radians or hours.
    """
    values = Values(header)
    changes: dict[str, Any] = {}
    begin = values.moment("BEG", "OBS")
    if begin is None:  # the clock said 1970: the time of writing is the best there is
        begin = values.moment("")
        changes.update({"DATE-BEG": header.get("DATE"), "MJD-BEG": header.get("MJD"), "DATE-END": None})
    when = begin.isoformat() if begin else "9999"
    if when >= "2021-10-29":
        return {**header, **changes} if changes else header
    if when < "2020-02-01":
        changes.update({"DATE-END": None, "MJD-END": None})
    if when < "2019-11-07":
        _move_image_type(values, changes)
    if when < "2020-01-27T20" and (values.text("IMGTYPE") or "").upper() == "OBJECT":
        changes["IMGTYPE"] = "ENGTEST"
    if when > "2019-06-24":
        changes["LSST_NUM"] = "ITL-3800C-068"
    if when < "2020-01-28T22":
        for key in ("RA", "DEC"):
            if (radians := values.number(key)) is not None:
                changes[key] = radians * 57.29577951308232
    if when < "2020-05-01":
        changes.update(RASTART=None, DECSTART=None)  # computed for another site
    elif when < "2021-02-12" and (right_ascension := values.number("RASTART")) is not None:
        in_degrees = right_ascension * (15.0 if when < "2021-02-11T18:45" else 1.0)
        changes["RASTART"] = in_degrees + 37.0 / 240.0  # UTC was taken for TAI: 37 s of rotation
    if when > "2020-11-19" and (rotation := values.number("ROTPA")) is not None:
        changes["ROTPA"] = rotation - 180.0
    return {**header, **changes}


def _move_image_type(values: Values, changes: dict[str, Any]) -> None:
    group = values.text("GROUPID")
    if group is None or group.startswith("test"):
        return
    image_type = values.text("IMGTYPE")
    if image_type is not None:
        if image_type == group:
            changes["GROUPID"] = None
        return
    if "_" in group:
        changes["IMGTYPE"] = group.split("_", 1)[0]
    elif group.upper().startswith("FOCUS") and group.upper() != "FOCUS":
        changes["IMGTYPE"] = "FOCUS"
    else:
        changes.update(IMGTYPE=group, GROUPID=None)
