"""Read a raw's headers: which exposure and detector it is, and where its data lie."""

from typing import Any

from rapid.camera.models import Camera
from rapid.errors import CorruptRawError
from rapid.exposure.fits_header import FitsStructure, scan
from rapid.exposure.models import ExposureInfo
from rapid.exposure.naming import parse_raw_name
from rapid.exposure.translate import translate


def read_info(data: Any, *, uri: str, camera: Camera | None = None) -> tuple[ExposureInfo, FitsStructure]:
    """Read the headers of a raw.

    Parameters
    ----------
    data
        Bytes of the file, plain or gzipped (or a memoryview or mmap of them).
    uri
        Where it is from; its name fills what the header leaves out.
    camera
        The camera it should be from; any known one if left out.

    Returns
    -------
    info : ExposureInfo
    structure : FitsStructure

    Raises
    ------
    RawError
        Raised, as the subclass that names the problem, if the raw cannot be used.
    """
    structure = scan(data)
    if not any(hdu.is_image for hdu in structure.hdus):
        raise CorruptRawError("no HDU holds an image")
    return translate(structure.primary, camera=camera, name=parse_raw_name(uri)), structure
