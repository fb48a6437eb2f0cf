"""Translate the headers of a raw into an `ExposureInfo`.

A translator belongs to a family of cameras; a camera definition names its own (``translator``). All of
them share the reading of identity (`rapid.exposure.identity`) and the tolerance of `rapid.exposure.values`:
what is truly needed (exposure, detector) and missing is a `HeaderError`, any other nonsense is None.

Units: FOCUSZ is millimetres, the defocus of the camera as the observatory writes it; PRESSURE below 10000
is hectopascal, above it pascal; dates are TAI.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from math import radians, sin
from typing import Any

from pydantic import ValidationError

from rapid.camera.models import Camera
from rapid.errors import ConfigurationError, HeaderError
from rapid.exposure.corrections import corrected_latiss, corrected_lsstcam
from rapid.exposure.identity import Identity, choose_camera, identify_detector, identify_exposure
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.exposure.naming import RawName
from rapid.exposure.values import Values

_IMAGE_TYPES = {
    "BIAS": ImageType.BIAS,
    "ZERO": ImageType.BIAS,
    "DARK": ImageType.DARK,
    "FLAT": ImageType.FLAT,
    "FLAT_R": ImageType.FLAT,
    "DOMEFLAT": ImageType.FLAT,
    "SKYFLAT": ImageType.FLAT,
    "SFLAT": ImageType.FLAT,
    "SUPERFLAT": ImageType.FLAT,
    "LAMBDA": ImageType.FLAT,
    "SKYEXP": ImageType.SCIENCE,
    "OBJECT": ImageType.SCIENCE,
    "SCIENCE": ImageType.SCIENCE,
    "SKY": ImageType.SCIENCE,
    "ACQ": ImageType.ACQ,
    "ACQUISITION": ImageType.ACQ,
    "FOCUS": ImageType.FOCUS,
    "CWFS": ImageType.CWFS,
    "ENGTEST": ImageType.ENGTEST,
    "ENGINEERING": ImageType.ENGTEST,
    # Pumped pockets and X-ray hits: a flat or dark by light, but nobody's flat or dark.
    "PPUMP": ImageType.ENGTEST,
    "FE55": ImageType.ENGTEST,
    "STUTTERED": ImageType.STUTTERED,
    "SPOT": ImageType.SPOT,
    "SPOT_FLAT": ImageType.SPOT,
}

_BAND = re.compile(r"(?:SDSS|sdss|LSST_)?([ugrizy])(?:[_~].*|'?)")
_WHITE = re.compile(r"(?:empty|ef|ph|white|clear).*", re.IGNORECASE)
_EMPTY_SLOT = re.compile(r"empty_?\d*", re.IGNORECASE)

_FIRST_LIGHT = {"LSSTCam": 20250301, "LSSTComCam": 20240824, "LATISS": 20200101}
"""Observing day from which a camera was on its telescope; in the laboratory it saw no sky."""


def image_type_of(*spellings: str | None) -> ImageType:
    """Return the image type of the first spelling that is one.

    Examples
    --------
    >>> image_type_of("UNKNOWN", None, "skyexp").value
    'science'
    """
    for spelling in spellings:
        if spelling is None:
            continue
        word = re.sub(r"[\s-]+", "_", spelling.strip().upper())
        for candidate in (word, word.split("_")[0]):
            if candidate in _IMAGE_TYPES:
                return _IMAGE_TYPES[candidate]
    return ImageType.UNKNOWN


def band_of(physical_filter: str | None) -> str | None:
    """Return the band of a filter: u, g, r, i, z, y, white for none in the beam, or None if it is not known.

    Examples
    --------
    >>> band_of("r_57"), band_of("SDSSi_65mm~empty"), band_of("ph_5"), band_of(None)
    ('r', 'i', 'white', None)
    """
    first = (physical_filter or "").split("~")[0]
    if match := _BAND.fullmatch(first):
        return match[1]
    return "white" if _WHITE.fullmatch(first) else None


class Translator:
    """How the headers of most of the observatory's cameras read.

    A subclass changes what its cameras do otherwise; `TRANSLATORS` lists them by name.
    """

    image_type_keys: tuple[str, ...] = ("IMGTYPE", "OBSTYPE", "TESTTYPE")
    exposure_time_keys: tuple[str, ...] = ("EXPTIME", "EXPOSURE")

    def correct(self, header: Mapping[str, Any], camera: Camera, name: RawName | None) -> Mapping[str, Any]:
        """Return the header with what is known to be wrong put right."""
        if camera.name != "LSSTCam":
            return header
        identity = identify_exposure(header, camera=camera, name=name, begin=self.begin(Values(header)))
        return corrected_lsstcam(header, identity.day_obs, identity.seq_num)

    def begin(self, values: Values) -> datetime | None:
        """Return the start of the exposure, TAI."""
        return values.moment("BEG", "OBS")

    def exposure_time_s(self, values: Values) -> float | None:
        """Return how long the shutter was open, as measured if it was, or as asked for."""
        measured = values.number("SHUTTIME", low=0.0, high=1e5)
        return measured or values.number(*self.exposure_time_keys, low=0.0, high=1e5)

    def image_type(self, values: Values) -> ImageType:
        """Return what the exposure was taken for."""
        found = image_type_of(*(values.text(key) for key in self.image_type_keys))
        if found is ImageType.UNKNOWN and values.number("EXPTIME") == 0.0 and not values.has("N_STAMPS"):
            return ImageType.BIAS
        return found

    def physical_filter(self, values: Values) -> str | None:
        """Return the filters in the beam, joined by ``~``, empty slots at the end left out."""
        names = [name for key in ("FILTER", "FILTER1", "FILTER2") if (name := values.text(key))]
        names = ["empty" if _EMPTY_SLOT.fullmatch(name) else name for name in names]
        while len(names) > 1 and names[-1] == "empty":
            names.pop()
        if not names and (position := values.whole("FILTPOS", "FILPOS")) is not None:
            return {2: "g", 3: "r", 4: "i", 5: "z", 6: "y"}.get(position)
        return "~".join(names) or None

    def can_see_sky(self, values: Values, image_type: ImageType, identity: Identity, camera: Camera) -> bool | None:
        """Whether light of the sky could reach the detector; None if nothing tells."""
        is_simulated = identity.controller in "HPQS"
        if identity.day_obs < _FIRST_LIGHT.get(camera.name, 0) and not is_simulated:
            return False
        if values.number("SHUTTIME") == 0.0:
            return False
        vignetted = (values.text("VIGN_MIN") or "").upper()
        if vignetted:
            return {"FULLY": False, "UNKNOWN": None}.get(vignetted, True)
        if camera.code == "TS" or image_type.is_calibration:
            return False
        return True if image_type is ImageType.SCIENCE and (is_simulated or camera.name != "LSSTCam") else None

    def translate(self, header: Mapping[str, Any], *, camera: Camera, name: RawName | None) -> ExposureInfo:
        """Return the facts of a raw whose camera is known."""
        header = self.correct(header, camera, name)
        values = Values(header)
        begin = self.begin(values)
        identity = identify_exposure(header, camera=camera, name=name, begin=begin)
        detector = identify_detector(header, camera=camera, name=name)
        image_type = self.image_type(values)
        exposure_time_s = self.exposure_time_s(values)
        physical_filter = self.physical_filter(values)
        end = values.moment("END")
        if begin and (end is None or end < begin):
            end = begin + timedelta(seconds=exposure_time_s) if exposure_time_s is not None else None
        ra_deg, dec_deg = _pointing(values, image_type)
        elevation_deg = values.number("ELSTART", "EL", low=-5.55, high=95.55)
        pressure = values.number("PRESSURE", low=1.0, high=2e5)
        return ExposureInfo(
            camera=camera.name,
            exposure_id=identity.exposure_id,
            obs_id=identity.obs_id,
            controller=identity.controller,
            day_obs=identity.day_obs,
            seq_num=identity.seq_num,
            detector=detector.id,
            detector_name=detector.name,
            is_guider=values.has("N_STAMPS") or (name is not None and name.is_guider),
            image_type=image_type,
            reason=_lower(values.text("REASON", "TESTTYPE")),
            program=values.text("PROGRAM", "RUNNUM"),
            object_name=values.text("OBJECT"),
            group_id=values.text("GROUPID"),
            group_index=values.whole("CURINDEX", low=1),
            group_size=values.whole("MAXINDEX", low=1),
            begin=begin,
            end=end,
            exposure_time_s=exposure_time_s,
            # A dark time shorter than the exposure is nonsense that LATISS wrote for a while.
            dark_time_s=values.number("DARKTIME", low=max(0.0, (exposure_time_s or 0.0) - 0.5), high=1e5),
            physical_filter=physical_filter,
            band=band_of(physical_filter) or band_of(values.text("FILTBAND")),
            ra_deg=ra_deg,
            dec_deg=dec_deg,
            azimuth_deg=values.number("AZSTART", "AZ", low=-360.0, high=720.0),
            elevation_deg=elevation_deg,
            rotator_angle_deg=values.number("ROTPA", "ROTANGLE", low=-720.0, high=720.0),
            airmass=_airmass(values, elevation_deg, image_type),
            focus_z_mm=values.number("FOCUSZ", low=-100.0, high=100.0),
            can_see_sky=self.can_see_sky(values, image_type, identity, camera),
            seeing_arcsec=values.number("SEEING", "DIMMSEE", low=0.0, high=100.0),
            temperature_c=values.number("AIRTEMP", low=-100.0, high=100.0),
            pressure_pa=None if pressure is None else pressure * (1.0 if pressure > 10_000 else 100.0),
            humidity_percent=values.number("HUMIDITY", low=0.0, high=100.0),
            detector_serial=(values.text("LSST_NUM", "DETSER") or detector.serial).removesuffix("-Dev") or None,
            simulated=identity.controller in "HPQS"
            or values.is_true("SIMULATE")
            or (values.text("INSTRUME") or "").lower().endswith("sim"),
        )


class LatissTranslator(Translator):
    """The Auxiliary Telescope's spectrograph: a grating beside the filter, and headers with a history."""

    image_type_keys = ("OBSTYPE", "IMGTYPE", "TESTTYPE")

    def correct(self, header: Mapping[str, Any], camera: Camera, name: RawName | None) -> Mapping[str, Any]:  # noqa: ARG002 - as the base class
        """Return the header with what is known to be wrong put right."""
        return corrected_latiss(header)

    def exposure_time_s(self, values: Values) -> float | None:
        """Return the exposure time; LATISS measures no shutter time of its own."""
        return values.number("EXPTIME", low=0.0, high=1e5)

    def physical_filter(self, values: Values) -> str | None:
        """Return filter and grating joined by ``~``, or None if neither is told."""
        found, grating = values.text("FILTER"), values.text("GRATING")
        if found is None and grating is None:
            return None
        parts = ["unknown" if part is None else part for part in (found, grating)]
        return "~".join("empty" if _EMPTY_SLOT.fullmatch(part) else part for part in parts)


class StandTranslator(Translator):
    """Test stand 8: the date of a raw is the end of its exposure, and long was its id too."""

    def begin(self, values: Values) -> datetime | None:
        """Return the start of the exposure, TAI."""
        triggered = values.text("DATE-TRG")
        if triggered is not None and triggered == values.text("DATE-OBS"):
            end = values.moment("OBS")
            return end and end - timedelta(seconds=self.exposure_time_s(values) or 0.0)
        return super().begin(values)


TRANSLATORS: dict[str, Callable[[], Translator]] = {
    "lsst": Translator,
    "latiss": LatissTranslator,
    "ts8": StandTranslator,
}
"""Translators by the name that a camera definition gives."""


def _lower(text: str | None) -> str | None:
    return text.lower() if text else None


def _pointing(values: Values, image_type: ImageType) -> tuple[float | None, float | None]:
    """Return right ascension and declination, only as a pair, and only if the telescope followed them."""
    tracking = (values.text("TRACKSYS") or "RADEC").upper()
    if image_type in {ImageType.BIAS, ImageType.FLAT} or tracking not in {"RADEC", "SIDEREAL"}:
        return None, None
    for ra_key, dec_key in (("RASTART", "DECSTART"), ("RA", "DEC"), ("RATEL", "DECTEL")):
        ra = values.angle_deg(ra_key, low=-360.0, high=720.0, hours=True)
        dec = values.angle_deg(dec_key, low=-90.0, high=90.0)
        if ra is not None and dec is not None:
            return ra % 360.0, dec
    return None, None


def _airmass(values: Values, elevation_deg: float | None, image_type: ImageType) -> float | None:
    if image_type.is_calibration:
        return None
    told = values.number("AMSTART", "AIRMASS", low=1.0, high=40.0)
    if told is not None or elevation_deg is None or not 5.0 <= elevation_deg <= 90.0:
        return told
    return max(1.0, 1.0 / sin(radians(elevation_deg)))  # a plane atmosphere: within 1 % above 20 degrees


def translate(
    primary: Mapping[str, Any],
    *,
    segment: Mapping[str, Any] | None = None,
    camera: Camera | None = None,
    name: RawName | None = None,
) -> ExposureInfo:
    """Return the facts of one raw.

    Parameters
    ----------
    primary
        Primary header.
    segment
        Header of the first image, for what some stands only wrote there; the primary has precedence.
    camera
        The camera that is expected; chosen by the header if not given.
    name
        What the file's name tells, for what the header does not.

    Raises
    ------
    WrongCameraError
        Raised if the raw is of another camera, or of none that is defined.
    HeaderError
        Raised, naming the key, if the exposure or the detector cannot be told.
    ConfigurationError
        Raised if the camera names a translator that does not exist.
    """
    camera = choose_camera(primary, camera=camera, name=name)
    if camera.translator not in TRANSLATORS:
        raise ConfigurationError(f"{camera.name}: translator", f"no translator named {camera.translator}")
    header = (
        primary if segment is None else {**{k: segment[k] for k in ("LSST_NUM", "FILTER") if k in segment}, **primary}
    )
    try:
        return TRANSLATORS[camera.translator]().translate(header, camera=camera, name=name)
    except ValidationError as error:
        # Each value is checked as it is read; what is left are ids out of their range.
        first = error.errors()[0]
        raise HeaderError(str(first["loc"][0]), f"{first['input']!r} is impossible: {first['msg']}") from error
