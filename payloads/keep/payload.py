"""The payload ``keep_calibrated``: the calibrated image, with mask and variance, as a product of its own."""

import json
from typing import Any, ClassVar

from pydantic import Field

from payloads.keep.calibrated import write_calibrated
from payloads.plugin import Frame, PayloadConfig, ProductFile
from rapid.errors import PayloadError

EXTENSION = "fits.fz"


class KeepCalibrated:
    """Keep the calibrated image: adds the file ``calibrated``.

    Tens of megabytes and seconds for a large detector: in a pipeline's afterburner it is out of the night's way.
    """

    name: ClassVar[str] = "keep_calibrated"
    version: ClassVar[str] = "1"

    class Config(PayloadConfig):
        """How exactly it is kept."""

        noise_fraction: float = Field(
            default=0.0625,
            ge=0,
            le=1,
            description="Rounded to this part of each row's noise, as tile compression of the field is; 0 keeps every bit.",
        )

    def __init__(self, config: "KeepCalibrated.Config") -> None:
        self.config = config

    def run(self, frame: Frame) -> None:
        """Write the planes as they are now.

        Raises
        ------
        PayloadError
            Raised if no payload before this one has made an image with mask and variance.
        """
        if frame.image is None or frame.mask is None or frame.variance is None:
            raise PayloadError("keep_calibrated needs a calibrated image with mask and variance: put it behind isr")
        data = write_calibrated(
            frame.image,
            frame.mask,
            frame.variance,
            facts=facts_of(frame),
            noise_fraction=self.config.noise_fraction,
        )
        frame.files["calibrated"] = ProductFile(data, EXTENSION, "application/fits")


def facts_of(frame: Frame) -> dict[str, Any]:
    """Return the cards that say what a calibrated image is of, and what was done to it."""
    info = frame.info
    facts: dict[str, Any] = {
        "INSTRUME": info.camera,
        "EXPID": (info.exposure_id, "exposure id"),
        "OBSID": info.obs_id,
        "DETECTOR": info.detector,
        "DETNAME": info.detector_name,
        "IMGTYPE": info.image_type.value,
        "FILTER": info.physical_filter,
        "EXPTIME": (info.exposure_time_s, "[s]"),
        "DATE-BEG": (info.begin.isoformat() if info.begin is not None else None, "TAI"),
        "RA": (info.ra_deg, "[deg] of the boresight, by the raw's header"),
        "DEC": (info.dec_deg, "[deg]"),
        "ROTPA": (info.rotator_angle_deg, "[deg]"),
        "BUNIT": frame.unit,
        "APPLIED": (",".join(frame.applied), "corrections, in order"),
        "CALIBS": json.dumps(dict(sorted(frame.calib_ids.items()))),
    }
    return {key: value for key, value in facts.items() if (value[0] if isinstance(value, tuple) else value) is not None}
