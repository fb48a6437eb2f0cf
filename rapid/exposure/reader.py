"""Read who a raw is from its bytes: structure, names and headers together.

The door of this package: `rapid.arrival` and workers call `read_info` and get facts, or one exact reason.
"""

from rapid.camera.models import Camera
from rapid.errors import CorruptRawError
from rapid.exposure.fits_header import FitsStructure, scan
from rapid.exposure.models import ExposureInfo
from rapid.exposure.naming import parse_raw_name
from rapid.exposure.translate import translate


def read_info(
    data: bytes | memoryview, *, uri: str, camera: Camera | None = None
) -> tuple[ExposureInfo, FitsStructure]:
    """Return the facts of a raw, and where its headers and pixels lie.

    Parameters
    ----------
    data
        The whole file, gzipped or not.
    uri
        Where it came from; its last part helps where the header is silent.
    camera
        The camera that is expected; chosen by the header if not given.

    Returns
    -------
    info : ExposureInfo
    structure : FitsStructure
        Its ``data`` are the bytes to read pixels from: expanded if the file was gzipped.

    Raises
    ------
    RawError
        Raised as the subclass that says what is wrong: empty, not FITS, truncated, corrupt, of the wrong
        camera, or a needed header key missing.
    """
    structure = scan(data)
    images = [hdu for hdu in structure.hdus[1:] if hdu.is_image]
    info = translate(
        structure.primary,
        segment=images[0].header if images else None,
        camera=camera,
        name=parse_raw_name(uri),
    )
    if not images:
        raise CorruptRawError(f"no image among {len(structure.hdus)} HDUs", n_hdus=len(structure.hdus))
    return info, structure
