"""Dimension records: the Butler's facts of instruments, detectors and exposures, from ours.

Pure. Where ours is unknown, the record's field is left to be NULL, never 0.
"""

from typing import Any

from rapid.camera.models import Camera
from rapid.exposure.models import ExposureInfo

LARGEST_EXPOSURE = 10**15
"""Ours are below 10 000 00 00 00000: a day of four-digit years, five digits of sequence number."""

UNKNOWN_FILTER = "unknown"
MAX_NAME = 64
MAX_REASON = 68
MAX_TYPE = 16
MAX_FILTER = 32
ONE_TO_ONE = 0
"""Visit system in which each exposure is a visit."""


def instrument_records(camera: Camera, class_name: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the records of a camera, by dimension, in the order in which they refer to each other.

    Parameters
    ----------
    class_name
        Python class that the rest of the observatory's software knows the camera by; empty if there is none.
    """
    here = {"instrument": camera.name}
    return [
        (
            "instrument",
            [
                {
                    "name": camera.name,
                    "visit_max": LARGEST_EXPOSURE,
                    "exposure_max": LARGEST_EXPOSURE,
                    "visit_system": ONE_TO_ONE,
                    "detector_max": max(detector.id for detector in camera.detectors) + 1,
                    "class_name": class_name,
                }
            ],
        ),
        (
            "detector",
            [
                {
                    **here,
                    "id": detector.id,
                    "full_name": detector.name,
                    "raft": detector.raft,
                    "name_in_raft": detector.slot,
                    "purpose": detector.purpose.value,
                }
                for detector in camera.detectors
            ],
        ),
    ]


def filter_record(info: ExposureInfo) -> dict[str, Any]:
    """Return the record of an exposure's filter."""
    return {
        "instrument": info.camera,
        "name": filter_name(info),
        "band": info.band or UNKNOWN_FILTER,
    }


def filter_name(info: ExposureInfo) -> str:
    """Return the name of an exposure's filter as the Butler has room for it."""
    return (info.physical_filter or UNKNOWN_FILTER)[:MAX_FILTER]


def group_name(info: ExposureInfo) -> str:
    """Return the group of an exposure: the observatory's, else it is a group of its own."""
    return (info.group_id or info.obs_id)[:MAX_NAME]


def day_record(info: ExposureInfo) -> dict[str, Any]:
    """Return the record of an exposure's observing day."""
    return {"instrument": info.camera, "id": info.day_obs}


def group_record(info: ExposureInfo) -> dict[str, Any]:
    """Return the record of an exposure's group."""
    return {"instrument": info.camera, "name": group_name(info)}


def exposure_record(info: ExposureInfo) -> dict[str, Any]:
    """Return the record of an exposure."""
    return {
        "instrument": info.camera,
        "id": info.exposure_id,
        "obs_id": info.obs_id[:MAX_NAME],
        "day_obs": info.day_obs,
        "group": group_name(info),
        "physical_filter": filter_name(info),
        "seq_num": info.seq_num,
        "seq_start": info.seq_num,
        "seq_end": info.seq_num,
        "exposure_time": info.exposure_time_s,
        "dark_time": info.dark_time_s,
        "observation_type": info.image_type.value[:MAX_TYPE],
        "observation_reason": _cut(info.reason, MAX_REASON),
        "science_program": _cut(info.program, MAX_NAME),
        "target_name": _cut(info.object_name, MAX_NAME),
        "tracking_ra": info.ra_deg,
        "tracking_dec": info.dec_deg,
        "sky_angle": info.rotator_angle_deg,
        "azimuth": info.azimuth_deg,
        "zenith_angle": None if info.elevation_deg is None else 90.0 - info.elevation_deg,
        "has_simulated": info.simulated,
        "can_see_sky": info.can_see_sky,
    }


def _cut(text: str | None, length: int) -> str | None:
    return None if text is None else text[:length]
