"""Tell from a header, with the file's name as help, whose raw this is: camera, exposure, detector."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from rapid.camera.models import Camera, Detector
from rapid.camera.store import list_cameras, load_camera
from rapid.errors import HeaderError, NotFoundError, WrongCameraError
from rapid.exposure.models import exposure_id_of
from rapid.exposure.naming import CONTROLLERS, RawName, exposure_id_for, make_obs_id
from rapid.exposure.values import Values, day_obs_of

_OBS_ID = re.compile(r"([A-Z]{2})_([A-Z])_(\d{8})_(\d{1,6})")
_CHIP = re.compile(r"(R[0-9X]{2})[-_]?(S[0-9GW][0-9])")
_GENERIC = {"lsstcamera", "camera"}
"""INSTRUME of more than one camera; the two-letter code decides."""

_STAND_TIME_ENDED = datetime.fromisoformat("2023-05-24T23:00:00")
"""Test stand 8 numbered exposures by their date until here (first one after: TS_C_20230524_000906)."""


@dataclass(frozen=True)
class Identity:
    """Which exposure a raw is of."""

    exposure_id: int
    obs_id: str
    controller: str
    day_obs: int
    seq_num: int


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


@lru_cache(maxsize=64)
def _plain_names(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(_plain, names))


def _spellings(camera: Camera) -> frozenset[str]:
    return _plain_names((camera.name, *camera.aliases))


def _code_of(values: Values, name: RawName | None) -> str | None:
    code = values.text("CAMCODE", "TELCODE")
    if code is None and (match := _OBS_ID.match(values.text("OBSID", "IMGNAME") or "")):
        code = match[1]
    return code or (name.code if name else None)


def _stand_of(values: Values, code: str | None) -> str | None:
    """Return the instrument that a header without a usable INSTRUME still tells of."""
    stand = values.text("TSTAND") or ""
    if stand.upper().startswith("TS8") or (code is None and "RTM" in (values.text("RAFTNAME") or "") and stand == ""):
        return "LSST-TS8"
    if values.text("DETNAME") == "RXX_S00" or "aux" in (values.text("TELESCOP") or "").lower():
        return "LATISS"
    return None


def choose_camera(header: Mapping[str, Any], *, camera: Camera | None = None, name: RawName | None = None) -> Camera:
    """Return the camera that a raw is of.

    Parameters
    ----------
    header
        Primary header.
    camera
        The camera that is expected, if any.
    name
        What the file's name tells.

    Raises
    ------
    WrongCameraError
        Raised if the header tells of another camera than ``camera``, or of none that is defined.
    """
    values = Values(header)
    code = _code_of(values, name)
    instrument = values.text("INSTRUME")
    if instrument is None or _plain(instrument) in _GENERIC:
        is_ours = camera is not None and instrument is not None and _plain(instrument) in _spellings(camera)
        instrument = _stand_of(values, code) or (
            instrument if is_ours and code in {None, camera and camera.code} else None
        )
    if camera is not None:
        told = instrument or code
        fits = _plain(instrument) in _spellings(camera) if instrument else code in {None, camera.code}
        if not fits:
            raise WrongCameraError(
                f"this raw is of {told}, not of {camera.name}", camera=camera.name, instrument=str(told)
            )
        return camera
    if instrument is not None:
        try:
            return load_camera(instrument)
        except NotFoundError:
            for known in list_cameras():
                if _plain(instrument) in _spellings(load_camera(known)):
                    return load_camera(known)
            raise WrongCameraError(
                f"INSTRUME {instrument!r} is no camera that is defined here", instrument=instrument
            ) from None
    for known in list_cameras():
        if load_camera(known).code == code:
            return load_camera(known)
    raise WrongCameraError(
        "the header does not tell of any camera: no INSTRUME, CAMCODE or OBSID", code_found=code or ""
    )


def _day(values: Values, begin: datetime | None) -> int | None:
    for key in ("DAYOBS", "OBS-NITE"):
        digits = re.sub(r"\D", "", (values.text(key) or "").split("T")[0].removesuffix(".0"))
        if len(digits) == 8 and "19900101" <= digits <= "99991231":
            return int(digits)
    return None if begin is None else day_obs_of(begin)


def identify_exposure(
    header: Mapping[str, Any], *, camera: Camera, name: RawName | None, begin: datetime | None
) -> Identity:
    """Return the ids of the exposure that a raw is of.

    DAYOBS, SEQNUM and CONTRLLR decide; OBSID fills what is missing, then the file's name.

    Raises
    ------
    HeaderError
        Raised, naming the key, if neither tells.
    """
    values = Values(header)
    obs_id = values.text("OBSID", "IMGNAME")
    told = _OBS_ID.match(obs_id or "") or _OBS_ID.match((name.obs_id if name else None) or "")
    if camera.translator == "ts8" and begin is not None and (begin < _STAND_TIME_ENDED or told is None):
        return _stand_identity(values, begin, obs_id)
    controller = (values.text("CONTRLLR") or (told[2] if told else "O")).upper()
    if len(controller) != 1 or controller not in CONTROLLERS:
        raise HeaderError("CONTRLLR", f"is {controller!r}, not one of {', '.join(CONTROLLERS)}")
    day_obs = _day(values, None) or (int(told[3]) if told else None) or (name.day_obs if name else None)
    day_obs = day_obs or _day(values, begin)
    if day_obs is None:
        raise HeaderError("DAYOBS", "missing, and neither OBSID nor a date tells the day")
    seq_num = values.whole("SEQNUM", high=99_999)
    if seq_num is None and told:
        seq_num = int(told[4])
    if seq_num is None and name:
        seq_num = name.seq_num
    if seq_num is None or seq_num > 99_999:
        raise HeaderError("SEQNUM", "missing or not a number from 0 to 99999, and OBSID does not tell it")
    made = make_obs_id(told[1] if told else camera.code, controller, day_obs, seq_num)
    return Identity(
        exposure_id=exposure_id_for(controller, day_obs, seq_num),
        obs_id=obs_id if obs_id and _OBS_ID.fullmatch(obs_id) else made,
        controller=controller,
        day_obs=day_obs,
        seq_num=seq_num,
    )


def _stand_identity(values: Values, begin: datetime, obs_id: str | None) -> Identity:
    # The stand counted several series a day, so its numbers repeat: the date to a tenth of a second is the id, and
    # the date as the header has it, whether it says the begin or the end of the exposure.
    date = values.text("DATE-OBS", "DATE-BEG") or begin.isoformat()
    exposure_id = int(re.sub(r"\D", "", date[:21]) or 0)
    day_obs = _day(values, begin + timedelta(hours=4))  # the stand's day began at 8 h UTC
    if exposure_id == 0 or day_obs is None:
        raise HeaderError("DATE-OBS", "missing, and this stand's exposures are known by their date")
    seq_num = values.whole("SEQNUM", high=99_999) or 0
    file_name = (values.text("FILENAME") or "").removesuffix(".fits")
    return Identity(
        exposure_id=exposure_id,
        obs_id=obs_id or file_name or str(exposure_id_of(day_obs, seq_num)),
        controller=(values.text("CONTRLLR") or "C")[:1].upper(),
        day_obs=day_obs,
        seq_num=seq_num,
    )


def identify_detector(header: Mapping[str, Any], *, camera: Camera, name: RawName | None) -> Detector:
    """Return the detector that a raw is of.

    RAFTBAY and CCDSLOT decide, then CHIPID, the file's name, and the CCD's serial number. A camera of one raft
    takes any raft's name: test stands call their bay as they like.

    Raises
    ------
    HeaderError
        Raised if nothing tells, or tells of a detector that this camera does not have.
    """
    if len(camera.detectors) == 1:
        return camera.detectors[0]
    values = Values(header)
    rafts, slots = values.text("RAFTBAY", "RAFTNAME"), values.text("CCDSLOT", "SENSNAME")
    tried: list[str] = []
    if rafts and slots:
        tried.append(f"{rafts}_{slots}")
    if match := _CHIP.search(values.text("CHIPID", "DETNAME", "CCDNAME") or ""):
        tried.append(f"{match[1]}_{match[2]}")
    if name and name.detector_name:
        tried.append(name.detector_name)
    for candidate in tried:
        if candidate in camera.by_name:
            return camera.by_name[candidate]
    if len({detector.raft for detector in camera.detectors}) == 1:
        by_slot = {detector.slot: detector for detector in camera.detectors}
        for slot in (slots, *(candidate.rsplit("_", 1)[-1] for candidate in tried)):
            if slot in by_slot:
                return by_slot[slot]
        if found := by_slot.get(_slot_of_serial(values)):
            return found
    serial = _serial(values)
    for detector in camera.detectors:
        if serial and detector.serial == serial:
            return detector
    if not tried and name and name.detector is not None and name.detector in camera.by_id:
        return camera.by_id[name.detector]
    if tried:
        raise HeaderError("RAFTBAY, CCDSLOT", f"{tried[0]} is no detector of {camera.name}", detector_name=tried[0])
    raise HeaderError("RAFTBAY, CCDSLOT", "missing, and nothing else tells which detector this is")


def _serial(values: Values) -> str | None:
    serial = values.text("LSST_NUM", "DETSER")
    return serial.removesuffix("-Dev") if serial else None


def _slot_of_serial(values: Values) -> str:
    """Return the slot of a CCD on a stand that did not note it: rafts went whole into LSSTCam or ComCam."""
    serial = _serial(values)
    for home in ("LSSTCam", "LSSTComCam"):
        for detector in load_camera(home).detectors:
            if serial and detector.serial == serial:
                return detector.slot
    return ""


def tell_ccd_type(header: Mapping[str, Any], segment: Mapping[str, Any]) -> str | None:
    """Return the kind of CCD a raw is of, E2V or ITL, or None if it does not tell.

    For `Camera.detector`, on stands that tested both vendors' CCDs.

    Parameters
    ----------
    header, segment
        Primary header, and header of the first image segment.
    """
    for text in (Values(header).text("CCD_MANU"), _serial(Values(header))):
        for vendor in ("E2V", "ITL"):
            if (text or "").upper().startswith(vendor):
                return vendor
    section = re.sub(r"\s", "", Values(segment).text("DATASEC") or "")
    return {"[11:522,1:2002]": "E2V", "[4:512,1:2000]": "ITL"}.get(section)
