"""Translate raw headers, in every style from 2018 to 2026, into one validated `ExposureInfo`.

The words of other systems live here only. Facts of the header styles: the raws of obs_lsst's public test
data, and the keys listed for the camera's data acquisition. What a header does not say, or says in
nonsense, becomes None; only identity and image type are required.

Units: FOCUSZ is in mm for the camera hexapod; PRESSURE in hPa unless it is above 20000 (then Pa); angles
in degrees; times TAI unless TIMESYS says UTC.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from rapid.camera.models import Camera, Purpose
from rapid.camera.store import list_cameras, load_camera
from rapid.errors import HeaderError, NotFoundError, WrongCameraError
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.exposure.naming import RawName, exposure_id_for, make_obs_id

TAI_MINUS_UTC = timedelta(seconds=37)
"""Since 2017-01-01; no leap second has been announced since."""

MJD_EPOCH = datetime(1858, 11, 17)  # noqa: DTZ001 - TAI has no zone; see ExposureInfo

_OBS_ID = re.compile(r"([A-Z]{2})_([A-Z])_(\d{8})_(\d{5,6})")

_IMAGE_TYPES = {
    "BIAS": ImageType.BIAS,
    "ZERO": ImageType.BIAS,
    "DARK": ImageType.DARK,
    "FLAT": ImageType.FLAT,
    "SFLAT": ImageType.FLAT,
    "FLATFIELD": ImageType.FLAT,
    "TWILIGHT": ImageType.FLAT,
    "SKYFLAT": ImageType.FLAT,
    "SKYEXP": ImageType.SCIENCE,
    "OBJECT": ImageType.SCIENCE,
    "SCIENCE": ImageType.SCIENCE,
    "SKY": ImageType.SCIENCE,
    "ACQ": ImageType.ACQ,
    "ACQUISITION": ImageType.ACQ,
    "FOCUS": ImageType.FOCUS,
    "CWFS": ImageType.CWFS,
    "ENGTEST": ImageType.ENGTEST,
    "STUTTERED": ImageType.STUTTERED,
    "SPOT": ImageType.SPOT,
}
_ASKED_TYPE_KEYS = ("IMGTYPE", "OBSTYPE", "IMGTYP")
_BANDS = re.compile(r"^(?:SDSS)?([ugrizy])(?:_\d+.*)?$")


def _text(header: Mapping[str, Any], *keys: str) -> str | None:
    """Return the first of some keys that says anything, as text."""
    for key in keys:
        value = header.get(key)
        if isinstance(value, bool) or value is None:
            continue
        text = str(value).strip()
        if text and text.lower() not in {"none", "nan", "undefined", "n/a", "null"}:
            return text
    return None


def _number(header: Mapping[str, Any], *keys: str) -> float | None:
    """Return the first of some keys that holds a finite number, also one written as text."""
    for key in keys:
        value = header.get(key)
        if value is None or isinstance(value, bool):
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(number):
            return number
    return None


def _in_range(value: float | None, low: float, high: float) -> float | None:
    return value if value is not None and low <= value <= high else None


def _whole(header: Mapping[str, Any], *keys: str) -> int | None:
    number = _number(header, *keys)
    return int(number) if number is not None and number == int(number) else None


def _flag(header: Mapping[str, Any], key: str) -> bool:
    value = header.get(key)
    return value is True or str(value).strip().upper() in {"T", "TRUE", "1"}


def _time(header: Mapping[str, Any], date_keys: tuple[str, ...], mjd_keys: tuple[str, ...]) -> datetime | None:
    """Return a moment in TAI, from an ISO date or else an MJD."""
    found: datetime | None = None
    for key in date_keys:
        text = _text(header, key)
        if text is None:
            continue
        try:
            found = datetime.fromisoformat(text.rstrip("Z")).replace(tzinfo=None)
            break
        except ValueError:
            continue
    if found is None:
        mjd = _in_range(_number(header, *mjd_keys), 40_000, 100_000)
        found = MJD_EPOCH + timedelta(days=mjd) if mjd is not None else None
    if found is not None and (_text(header, "TIMESYS") or "").upper() == "UTC":
        found += TAI_MINUS_UTC
    return found


def image_type_of(header: Mapping[str, Any]) -> ImageType:
    """Return the image type a header tells: IMGTYPE, else OBSTYPE, else the test stand's TESTTYPE.

    A spelling with a suffix (``FLAT_r``, ``BIAS_5``) is its first word; an unheard-of word is UNKNOWN.
    """
    asked = _text(header, *_ASKED_TYPE_KEYS)
    for word in (asked, _text(header, "TESTTYPE")):
        if word is None:
            continue
        key = word.upper().replace("-", "_")
        for candidate in (key, key.split("_")[0], key.split(" ")[0]):
            if candidate in _IMAGE_TYPES:
                return _IMAGE_TYPES[candidate]
    if _number(header, "EXPTIME") == 0 and asked is None:
        return ImageType.BIAS
    return ImageType.UNKNOWN


def camera_of(header: Mapping[str, Any], name: RawName | None = None) -> Camera:
    """Return the camera that took a raw, by INSTRUME in any spelling, else by code, test stand or obs id.

    Raises
    ------
    WrongCameraError
        Raised for an INSTRUME that no known camera answers to.
    HeaderError
        Raised if nothing in the header or name tells of a camera.
    """
    instrument = _text(header, "INSTRUME")
    telescope = (_text(header, "TELESCOP") or "").upper()
    stand = (_text(header, "TSTAND") or "").upper()
    if instrument is not None:
        # Test stand 8 writes lsstCam too; its obs ids and stand tell the truth.
        if stand.startswith("TS8") or "TS8" in telescope:
            return load_camera("LSST-TS8")
        try:
            return load_camera(instrument)
        except NotFoundError as error:
            code = _camera_code(header, name)
            by_code = _camera_by_code(code) if code is not None and instrument.upper().startswith("LSST") else None
            if by_code is not None:
                return by_code
            message = f"INSTRUME {instrument!r} is none of the cameras {', '.join(list_cameras())}"
            raise WrongCameraError(message, field="INSTRUME", instrument=instrument) from error
    if "AUXTEL" in telescope:
        return load_camera("LATISS")
    code = _camera_code(header, name)
    by_code = _camera_by_code(code) if code is not None else None
    if by_code is not None:
        return by_code
    if stand.startswith("BOT"):
        return load_camera("LSSTCam")
    if _text(header, "RAFTBAY") is None and _text(header, "CCDSLOT") is None:
        raise HeaderError("INSTRUME", "missing, and nothing else tells which camera took this")
    return load_camera("LSSTCam")


def _camera_code(header: Mapping[str, Any], name: RawName | None) -> str | None:
    match = _OBS_ID.search(_text(header, "OBSID", "FILENAME") or "")
    return _text(header, "CAMCODE") or (match.group(1) if match else None) or (name.code if name else None)


def _camera_by_code(code: str) -> Camera | None:
    for known in list_cameras():
        camera = load_camera(known)
        if camera.code == code.upper():
            return camera
    return None


def _identity(header: Mapping[str, Any], camera: Camera, name: RawName | None) -> tuple[str, str, int, int]:
    """Return obs id, controller, day_obs and seq_num."""
    told = _text(header, "OBSID", "IMGNAME") or ""
    match = _OBS_ID.search(told) or _OBS_ID.search(_text(header, "FILENAME") or "")
    day_obs = _whole(header, "DAYOBS")
    day_text = (_text(header, "DAYOBS") or "").replace("-", "")
    if day_text.isdigit() and len(day_text) == 8:
        day_obs = int(day_text)
    seq_num = _whole(header, "SEQNUM", "SEQNO")
    controller = _text(header, "CONTRLLR")
    if match is not None:
        controller = controller or match.group(2)
        day_obs = day_obs or int(match.group(3))
        seq_num = int(match.group(4)) if seq_num is None else seq_num
    if name is not None:
        controller = controller or name.controller
        day_obs = day_obs or name.day_obs or (name.exposure_id // 100_000 if name.exposure_id else None)
        seq_num = name.seq_num if seq_num is None else seq_num
    controller = (controller or "O").upper()
    if day_obs is None:
        begin = _time(header, ("DATE-BEG", "DATE-OBS", "DATE"), ("MJD-BEG", "MJD-OBS", "MJD"))
        if begin is None:
            raise HeaderError("DAYOBS", "missing, and no DATE-OBS, OBSID or file name to take the day from")
        day_obs = int((begin - timedelta(hours=12)).strftime("%Y%m%d"))
    if not re.fullmatch(r"(19|20|21|30|31|40|41|50|51|60|61|70|71)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])", str(day_obs)):
        raise HeaderError("DAYOBS", f"{day_obs!r} is no day of the form YYYYMMDD")
    if seq_num is None:
        raise HeaderError("SEQNUM", "missing, and neither OBSID nor the file name tells it")
    if not 0 <= seq_num < 100_000:
        raise HeaderError("SEQNUM", f"{seq_num} is not between 0 and 99999")
    if not re.fullmatch(r"[A-Z]", controller):
        raise HeaderError("CONTRLLR", f"{controller!r} is not one letter")
    obs_id = match.group(0) if match else make_obs_id(camera.code, controller, day_obs, seq_num)
    return obs_id, controller, day_obs, seq_num


def _detector(header: Mapping[str, Any], camera: Camera, name: RawName | None) -> tuple[int, str]:
    """Return number and name of the detector."""
    if len(camera.detectors) == 1:
        only = camera.detectors[0]
        return only.id, only.name
    raft, slot = _text(header, "RAFTBAY"), _text(header, "CCDSLOT")
    chip = _text(header, "CHIPID")
    candidates = [
        f"{raft}_{slot}" if raft and slot else None,
        chip,
        name.detector_name if name else None,
    ]
    for candidate in candidates:
        if candidate and candidate in camera.by_name:
            return camera.by_name[candidate].id, candidate
    single_raft = {detector.raft for detector in camera.detectors}
    if len(single_raft) == 1:
        # A stand that holds one raft names it as it was built (RTM-004, R00 ...): the slot is the place.
        bay = next(iter(single_raft))
        for candidate in [slot, *(c.split("_")[-1] for c in candidates if c)]:
            if candidate and f"{bay}_{candidate}" in camera.by_name:
                return camera.by_name[f"{bay}_{candidate}"].id, f"{bay}_{candidate}"
    serial = _text(header, "LSST_NUM")
    for detector in camera.detectors:
        if serial and detector.serial == serial:
            return detector.id, detector.name
    number = name.detector if name and name.detector is not None else _whole(header, "DETECTOR")
    if number is not None and number in camera.by_id:
        return number, camera.by_id[number].name
    told = next((c for c in candidates if c), None)
    if told is not None:
        raise HeaderError("RAFTBAY, CCDSLOT", f"{camera.name} has no detector {told}")
    raise HeaderError("RAFTBAY, CCDSLOT", "missing, and neither CHIPID, LSST_NUM nor the file name tells the detector")


def _filter_lsst(header: Mapping[str, Any]) -> str | None:
    names = [_text(header, key) for key in ("FILTER", "FILTER1", "FILTER2")]
    found = next((n for n in names if n and n.lower() not in {"empty", "unknown"}), None)
    return found or next((n for n in names if n), None)


def _filter_latiss(header: Mapping[str, Any]) -> str | None:
    """Return LATISS's filter and grating, joined as the archive does."""
    main, grating = _text(header, "FILTER"), _text(header, "GRATING")
    if main is None and grating is None:
        return None
    return f"{main or 'unknown'}~{grating or 'unknown'}" if grating else main


_FILTERS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {"lsst": _filter_lsst, "latiss": _filter_latiss}


def band_of(physical_filter: str | None) -> str | None:
    """Return the band (u g r i z y, or white) that a filter name begins with.

    Examples
    --------
    >>> band_of("r_57"), band_of("SDSSr_65mm~empty"), band_of("ef_43"), band_of("ph_5")
    ('r', 'r', 'white', None)
    """
    if physical_filter is None:
        return None
    first = physical_filter.split("~")[0]
    if first in {"ef_43", "empty", "none"} or first.lower() == "empty":
        return "white"
    match = _BANDS.match(first)
    return match.group(1) if match else None


def _can_see_sky(header: Mapping[str, Any], image_type: ImageType) -> bool | None:
    vignetting = (_text(header, "VIGN_MIN", "VIGNETTE") or "").upper()
    if vignetting:
        return {"FULLY": False, "UNKNOWN": None}.get(vignetting, True)
    return False if image_type.is_calibration else None


def _right_ascension(header: Mapping[str, Any]) -> float | None:
    value = _number(header, "RASTART", "RA")
    return value % 360.0 if value is not None and abs(value) <= 720 else None


def _airmass(header: Mapping[str, Any], elevation_deg: float | None) -> float | None:
    told = _in_range(_number(header, "AMSTART", "AIRMASS"), 1.0, 40.0)
    if told is not None or elevation_deg is None or elevation_deg < 5:
        return told
    # Secant of the zenith distance: good to 0.01 below airmass 3, and only used where the header is silent.
    return max(1.0 / math.sin(math.radians(elevation_deg)), 1.0)


def _pressure_pa(header: Mapping[str, Any]) -> float | None:
    value = _number(header, "PRESSURE")
    if value is None or value <= 0:
        return None
    return value if value > 20_000 else value * 100.0


def translate(header: Mapping[str, Any], *, camera: Camera | None = None, name: RawName | None = None) -> ExposureInfo:
    """Translate the primary header of a raw.

    Parameters
    ----------
    header
        Keys and values of the primary HDU; None for an undefined value.
    camera
        The camera the raw should be from; any known one if left out.
    name
        What the file's name tells; fills what the header leaves out.

    Raises
    ------
    WrongCameraError
        Raised if another camera took it.
    HeaderError
        Raised, naming the key, if its identity cannot be told or a value is impossible.
    """
    taken_by = camera_of(header, name)
    if camera is None or camera.name == taken_by.name:
        camera = taken_by
    elif taken_by.code != camera.code and _text(header, "INSTRUME") != camera.name:
        message = f"this is a raw of {taken_by.name}, not of {camera.name}"
        raise WrongCameraError(message, field="INSTRUME", instrument=taken_by.name, wanted=camera.name)
    obs_id, controller, day_obs, seq_num = _identity(header, camera, name)
    detector, detector_name = _detector(header, camera, name)
    is_guider = bool(name and name.is_guider) or (
        camera.by_id[detector].purpose is Purpose.GUIDER and "_guider" in (_text(header, "FILENAME") or "")
    )
    image_type = image_type_of(header)
    physical_filter = _FILTERS.get(camera.translator, _filter_lsst)(header)
    elevation = _in_range(_number(header, "ELSTART", "EL"), -90, 90)
    exposure_time = _in_range(_number(header, "EXPTIME", "SHUTTIME"), 0, 1e6)
    begin = _time(header, ("DATE-BEG", "DATE-OBS"), ("MJD-BEG", "MJD-OBS"))
    try:
        return ExposureInfo(
            camera=camera.name,
            exposure_id=exposure_id_for(controller, day_obs, seq_num),
            obs_id=obs_id,
            controller=controller,
            day_obs=day_obs,
            seq_num=seq_num,
            detector=detector,
            detector_name=detector_name,
            is_guider=is_guider,
            image_type=image_type,
            reason=_text(header, "REASON"),
            program=_text(header, "PROGRAM"),
            object_name=_text(header, "OBJECT"),
            group_id=_text(header, "GROUPID"),
            group_index=_whole(header, "CURINDEX"),
            group_size=_whole(header, "MAXINDEX"),
            begin=begin,
            end=_time(header, ("DATE-END",), ("MJD-END",)),
            exposure_time_s=exposure_time,
            dark_time_s=_in_range(_number(header, "DARKTIME"), 0, 1e6),
            physical_filter=physical_filter,
            band=band_of(physical_filter),
            ra_deg=_right_ascension(header),
            dec_deg=_in_range(_number(header, "DECSTART", "DEC"), -90, 90),
            azimuth_deg=_in_range(_number(header, "AZSTART", "AZ"), -720, 720),
            elevation_deg=elevation,
            rotator_angle_deg=_in_range(_number(header, "ROTPA", "ROTANGLE"), -720, 720),
            airmass=_airmass(header, elevation),
            focus_z_mm=_in_range(_number(header, "FOCUSZ"), -1e4, 1e4),
            can_see_sky=_can_see_sky(header, image_type),
            seeing_arcsec=_in_range(_number(header, "SEEING"), 0, 100),
            temperature_c=_in_range(_number(header, "AIRTEMP"), -90, 70),
            pressure_pa=_pressure_pa(header),
            humidity_percent=_in_range(_number(header, "HUMIDITY"), 0, 100),
            detector_serial=_text(header, "LSST_NUM"),
            simulated=_is_simulated(header, controller),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise HeaderError(".".join(str(part) for part in first["loc"]), first["msg"]) from error


def _is_simulated(header: Mapping[str, Any], controller: str) -> bool:
    if controller in "HPQS" or "sim" in (_text(header, "INSTRUME") or "").lower():
        return True
    return any(
        _flag(header, key)
        for key in header
        if key.startswith("SIMULATE") and key in {"SIMULATE", "SIMULATE ATMCS", "SIMULATE MTMOUNT", "SIMULATE CAMERA"}
    )
