r"""Keys of RubinTV's bucket, exactly as its pollers and proxies parse them.

Sources in lsst-ts/rubintv (revision in `docs/rubintv.md`): ``models/models.py`` (``Event``, ``NightReportData``),
``handlers/proxies.py`` (how a key is made again from a file's name), ``background/currentpoller.py`` (which keys are
metadata or night reports). A key that these would misread is refused here, before it can be uploaded:

* camera and channel are ``\w+``, and a channel's name must not contain ``night_report`` nor the file's name end in
  ``metadata.json``;
* an image is ``{camera}_{channel}_{date}_{seq}.{ext}``: the proxies take the prefix off and split the rest at its one
  ``_`` and its one ``.``;
* a movie of a whole night has ``final`` instead of a number.
"""

import re
from datetime import date

FINAL = "final"
"""In place of a sequence number: what stands for a whole night."""

MAX_SEQ = 999_999
"""Six digits."""

_WORD = re.compile(r"[A-Za-z0-9_]+")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_EXTENSION = re.compile(r"[A-Za-z0-9]+")

EVENT = re.compile(r"(\w+)\/([\d-]+)\/(\w+)\/(\d{6}|final)\/([\w-]+)\.(\w+)$")
REPORT_TEXT = re.compile(r"(\w+)\/([\d-]+)\/night_report\/([\w-]+md)\.(\w+)$")
REPORT_PLOT = re.compile(r"(\w+)\/([\d-]+)\/night_report\/([\w-]+)\/([\w-]+)\.(\w+)$")
"""The three patterns RubinTV matches from a key's beginning; restated here, and held against the real ones in a test."""


def date_of(day_obs: int) -> str:
    """Return an observing day as RubinTV writes it.

    Examples
    --------
    >>> date_of(20261120)
    '2026-11-20'

    Raises
    ------
    ValueError
        Raised if it is no date.
    """
    return date(day_obs // 10_000, day_obs // 100 % 100, day_obs % 100).isoformat()


def day_obs_of(text: str) -> int:
    """Return the observing day of a date as RubinTV writes it.

    Examples
    --------
    >>> day_obs_of("2026-11-20")
    20261120

    Raises
    ------
    ValueError
        Raised if it is no date.
    """
    return int(date.fromisoformat(text).strftime("%Y%m%d"))


def _check(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"RubinTV cannot read {text!r} as {what}")
    return text


def image_key(camera: str, day_obs: int, channel: str, seq_num: int | str, extension: str) -> str:
    """Return the key of a channel's image or movie.

    Parameters
    ----------
    seq_num
        Number of the exposure, or `FINAL`.

    Examples
    --------
    >>> image_key("lsstcam", 20261120, "focal_plane_mosaic", 12, "jpg")
    'lsstcam/2026-11-20/focal_plane_mosaic/000012/lsstcam_focal_plane_mosaic_2026-11-20_000012.jpg'

    Raises
    ------
    ValueError
        Raised for a part that RubinTV would misread.
    """
    _check(_WORD, camera, "a camera")
    _check(_WORD, channel, "a channel")
    _check(_EXTENSION, extension, "a file's ending")
    if "night_report" in channel:
        raise ValueError(f"RubinTV takes whatever has night_report in its key for one: {channel!r}")
    if isinstance(seq_num, int):
        if not 0 <= seq_num <= MAX_SEQ:
            raise ValueError(f"RubinTV cannot read {seq_num} as a sequence number")
        number = f"{seq_num:06d}"
    else:
        number = _check(re.compile(FINAL), seq_num, "a sequence number")
    day = date_of(day_obs)
    return f"{camera}/{day}/{channel}/{number}/{camera}_{channel}_{day}_{number}.{extension}"


def metadata_key(camera: str, day_obs: int) -> str:
    """Return the key of a camera's one metadata document of a day.

    Examples
    --------
    >>> metadata_key("lsstcam", 20261120)
    'lsstcam/2026-11-20/metadata.json'
    """
    return f"{_check(_WORD, camera, 'a camera')}/{date_of(day_obs)}/metadata.json"


def report_text_key(camera: str, day_obs: int) -> str:
    """Return the key of a night report's texts; there may be only one a day.

    Examples
    --------
    >>> report_text_key("lsstcam", 20261120)
    'lsstcam/2026-11-20/night_report/lsstcam_night_report_2026-11-20_md.json'
    """
    day = date_of(day_obs)
    return f"{_check(_WORD, camera, 'a camera')}/{day}/night_report/{camera}_night_report_{day}_md.json"


def report_plot_key(camera: str, day_obs: int, group: str, name: str, extension: str = "png") -> str:
    """Return the key of a night report's plot.

    Parameters
    ----------
    group
        The tab it is shown under.

    Examples
    --------
    >>> report_plot_key("lsstcam", 20261120, "Seeing", "fwhm")
    'lsstcam/2026-11-20/night_report/Seeing/lsstcam_night_report_2026-11-20_fwhm.png'

    Raises
    ------
    ValueError
        Raised for a part that RubinTV would misread.
    """
    _check(_WORD, camera, "a camera")
    _check(_NAME, group, "a group of plots")
    _check(_NAME, name, "a plot's name")
    _check(_EXTENSION, extension, "a file's ending")
    if name.endswith("md") and extension == "json":
        raise ValueError("RubinTV would take it for the report's texts")
    day = date_of(day_obs)
    return f"{camera}/{day}/night_report/{group}/{camera}_night_report_{day}_{name}.{extension}"


def is_readable(key: str) -> bool:
    """Whether RubinTV's poller reads a key as metadata, a night report's part, or a channel's event."""
    if key.endswith("metadata.json"):
        return re.fullmatch(r"\w+/[\d-]+/metadata\.json", key) is not None
    if "night_report" in key:
        return REPORT_TEXT.match(key) is not None or REPORT_PLOT.match(key) is not None
    return EVENT.match(key) is not None
