"""The summit's names of exposures and raws, and the older ones.

A name tells which detector of which exposure a file is before a byte is read; where it does not follow
any known habit, the header decides.
"""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rapid.exposure.models import exposure_id_of

CONTROLLERS = "OCHPQS"
"""Who may take an exposure; all but O add thousands of years to the day in the exposure id."""

_LAST_DAY_OF_OFFSET = {"C": 20231004, "P": 20250417, "S": 20250417, "Q": 20250417}
"""From the next day on, these controllers count on without the thousand years."""

_OBS_ID = re.compile(r"(?P<code>[A-Z]{2})_(?P<controller>[A-Z])_(?P<day_obs>\d{8})_(?P<seq_num>\d{5,6})")
_SENSOR = re.compile(r"(?P<raft>R[0-9X]{2})[-_](?P<slot>S[0-9GW][0-9])")
_OLD = re.compile(r"(?P<exposure>\d{13,15})(?:-(?P<raft>R[\dTM-]+)-(?P<slot>S\w\d))?-det(?P<detector>\d{3})")
_RAW_SUFFIX = re.compile(r"\.fits?(\.(fz|gz))?$", re.IGNORECASE)


class RawName(BaseModel):
    """What the name of a raw tells."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    obs_id: str | None = None
    code: str | None = Field(default=None, description="Two letters of the camera: MC, CC, AT, TS.")
    controller: str | None = None
    day_obs: int | None = None
    seq_num: int | None = None
    exposure_id: int | None = None
    detector_name: str | None = None
    detector: int | None = None
    is_guider: bool = False


def controller_offset(controller: str, day_obs: int) -> int:
    """Return what a controller adds to ``day_obs`` in the exposure id: thousands of years, or nothing.

    Examples
    --------
    >>> controller_offset("C", 20190319), controller_offset("C", 20240918), controller_offset("O", 20260101)
    (10000000, 0, 0)
    """
    place = CONTROLLERS.find(controller)
    if place <= 0 or day_obs > _LAST_DAY_OF_OFFSET.get(controller, 99991231):
        return 0
    return place * 1000 * 10_000


def exposure_id_for(controller: str, day_obs: int, seq_num: int) -> int:
    """Return the exposure id of a controller's day and sequence number.

    Examples
    --------
    >>> exposure_id_for("S", 20240321, 720)
    7024032100720
    """
    return exposure_id_of(day_obs + controller_offset(controller, day_obs), seq_num)


def make_obs_id(code: str, controller: str, day_obs: int, seq_num: int) -> str:
    """Return the summit's name of an exposure.

    Examples
    --------
    >>> make_obs_id("MC", "O", 20251115, 226)
    'MC_O_20251115_000226'
    """
    return f"{code}_{controller}_{day_obs}_{seq_num:06d}"


def raw_key(camera: str, obs_id: str, detector_name: str, *, guider: bool = False) -> str:
    """Return the summit's key of a raw, relative to the bucket or directory.

    Examples
    --------
    >>> raw_key("LSSTCam", "MC_O_20251115_000226", "R22_S11")
    'LSSTCam/20251115/MC_O_20251115_000226/MC_O_20251115_000226_R22_S11.fits'
    """
    day_obs = obs_id.split("_")[2]
    suffix = "_guider" if guider else ""
    return f"{camera}/{day_obs}/{obs_id}/{obs_id}_{detector_name}{suffix}.fits"


def parse_raw_name(path: str) -> RawName | None:
    """Read what a raw's path tells, or return None if the file is no raw by its name.

    A FITS file whose name follows no known habit gives an empty `RawName`: its header decides.
    """
    name = path.rsplit("/", 1)[-1]
    if name.startswith(".") or not _RAW_SUFFIX.search(name):
        return None
    facts: dict[str, Any] = {"is_guider": "_guider" in name}
    stem = _RAW_SUFFIX.sub("", name)
    if old := _OLD.fullmatch(stem):
        if len(old["exposure"]) == 13:  # longer ones are dates of a test stand, or count in six digits
            exposure_id = int(old["exposure"])
            facts.update(exposure_id=exposure_id, seq_num=exposure_id % 100_000)
        if old["raft"]:
            facts["detector_name"] = f"{old['raft']}_{old['slot']}"
        if not (old["raft"] or "").startswith("RTM"):  # a stand numbers its rafts' detectors on and on
            facts["detector"] = int(old["detector"])
        return RawName(**facts)
    if obs := _OBS_ID.search(stem):
        day_obs, seq_num = int(obs["day_obs"]), int(obs["seq_num"])
        facts.update(
            obs_id=make_obs_id(obs["code"], obs["controller"], day_obs, seq_num),
            code=obs["code"],
            controller=obs["controller"],
            day_obs=day_obs,
            seq_num=seq_num,
            exposure_id=exposure_id_for(obs["controller"], day_obs, seq_num) if seq_num < 100_000 else None,
        )
    if sensor := _SENSOR.search(stem):
        facts["detector_name"] = f"{sensor['raft']}_{sensor['slot']}"
    return RawName(**facts)


def is_expected_sensors(path: str) -> bool:
    """Whether a path is the side-car that lists the sensors an exposure was read out for."""
    return path.endswith("_expectedSensors.json")


def parse_expected_sensors(document: Any) -> frozenset[str]:
    """Return the detector names that an ``_expectedSensors.json`` document lists.

    Parameters
    ----------
    document
        The decoded JSON; ``expectedSensors`` may be a list of names or a mapping by name.

    Raises
    ------
    ValueError
        Raised if it lists nothing readable as detector names.
    """
    sensors = document.get("expectedSensors") if isinstance(document, dict) else None
    if isinstance(sensors, dict):
        sensors = list(sensors)
    if not isinstance(sensors, list) or not all(isinstance(name, str) for name in sensors):
        raise ValueError("expectedSensors must be a list of detector names, or a mapping by name")
    names = set()
    for name in sensors:
        match = _SENSOR.search(name.replace("/", "_"))
        if match is None:
            raise ValueError(f"expectedSensors: {name!r} is not a detector name")
        names.add(f"{match['raft']}_{match['slot']}")
    return frozenset(names)
