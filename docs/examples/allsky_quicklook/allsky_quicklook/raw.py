"""How the all-sky camera names and writes its files: ``allsky_20261120_000123.jpg``, the time in EXIF."""

import io
import re
from datetime import datetime, timedelta
from typing import Any, ClassVar

from PIL import Image, UnidentifiedImageError

from rapid.camera.models import Camera
from rapid.camera.store import load_camera
from rapid.errors import CorruptRawError, EmptyRawError, HeaderError, TruncatedRawError
from rapid.exposure.formats import RawFacts
from rapid.exposure.models import ExposureInfo, ImageType, exposure_id_of
from rapid.exposure.naming import RawName

_NAME = re.compile(r"(?:^|/)allsky_(\d{8})_(\d{6})\.jpe?g$", re.IGNORECASE)
_EXIF, _TAKEN, _EXPOSURE_TIME = 0x8769, 0x9003, 0x829A
_TAI_MINUS_UTC = timedelta(seconds=37)
"""Since 2017; the camera's clock is UTC, and Rapid Analysis counts in TAI."""


class AllSkyJpeg:
    """Raws of the all-sky camera."""

    reads_whole: ClassVar[bool] = True

    def parse_name(self, path: str) -> RawName | None:
        """Return day and number from a path; None for any other file, which is then left alone."""
        match = _NAME.search(path)
        if match is None:
            return None
        day_obs, seq_num = int(match[1]), int(match[2])
        return RawName(day_obs=day_obs, seq_num=seq_num, exposure_id=exposure_id_of(day_obs, seq_num))

    def read(self, data: bytes, *, uri: str, camera: Camera | None) -> RawFacts:
        """Return who a raw is; raise what the arrival door understands: wait for the rest, or set it aside."""
        name = self.parse_name(uri)
        if name is None or name.exposure_id is None or name.day_obs is None or name.seq_num is None:
            raise HeaderError("file name", "is not like allsky_20261120_000123.jpg")
        if not data:
            raise EmptyRawError("the file is empty")
        if data[:2] != b"\xff\xd8":
            raise CorruptRawError("the file is no JPEG")
        if b"\xff\xd9" not in data[-64:]:
            raise TruncatedRawError("the JPEG has no end", got_bytes=len(data))
        camera = camera or load_camera("AllSkyDemo")
        header = _header(data)
        begin = _time(header.get("DateTimeOriginal"))
        exposure_time_s = header.get("ExposureTime")
        info = ExposureInfo(
            camera=camera.name,
            exposure_id=name.exposure_id,
            obs_id=f"{camera.code}_O_{name.day_obs}_{name.seq_num:06d}",
            controller="O",
            day_obs=name.day_obs,
            seq_num=name.seq_num,
            detector=camera.detectors[0].id,
            detector_name=camera.detectors[0].name,
            image_type=ImageType.SCIENCE,
            begin=begin,
            end=begin + timedelta(seconds=exposure_time_s) if begin and exposure_time_s else None,
            exposure_time_s=exposure_time_s,
        )
        return RawFacts(info=info, data=data, header=header)


def _header(data: bytes) -> dict[str, Any]:
    """Return what the file tells besides its pixels, for rules and payloads."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            exif = image.getexif().get_ifd(_EXIF)
            header: dict[str, Any] = {"Width": image.width, "Height": image.height}
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise CorruptRawError(f"the JPEG cannot be read: {error}") from error
    if _TAKEN in exif:
        header["DateTimeOriginal"] = str(exif[_TAKEN])
    if _EXPOSURE_TIME in exif:
        header["ExposureTime"] = float(exif[_EXPOSURE_TIME])
    return header


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.strptime(text, "%Y:%m:%d %H:%M:%S") + _TAI_MINUS_UTC  # noqa: DTZ007 - TAI
    except ValueError:
        return None
