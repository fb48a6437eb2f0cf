"""Small raws with true headers, for tests that ask who a raw is and not what is on it."""

import io
from functools import lru_cache

import numpy as np
from astropy.io import fits


@lru_cache(maxsize=8)
def _template(n_segments: int, width: int) -> bytes:
    header = fits.Header()
    header["INSTRUME"] = "LSSTCam"
    header["TELESCOP"] = "Simonyi Survey Telescope"
    header["OBSID"] = "MC_O_20261120_000001"
    header["CAMCODE"] = "MC"
    header["CONTRLLR"] = "O"
    header["DAYOBS"] = "20261120"
    header["SEQNUM"] = 1
    header["RAFTBAY"] = "R22"
    header["CCDSLOT"] = "S11"
    header["IMGTYPE"] = "OBJECT"
    header["EXPTIME"] = 30.0
    header["DATE-BEG"] = "2026-11-21T03:00:00.000"
    header["FILTER"] = "r_57"
    hdus = fits.HDUList([fits.PrimaryHDU(header=header)])
    pixels = np.random.default_rng(1).integers(0, 60_000, (40, width)).astype(np.int32)
    hdus.extend(fits.ImageHDU(pixels, name=f"Segment{place:02d}") for place in range(n_segments))
    hdus[0].header["EXTEND"] = True
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    return buffer.getvalue()


def make_raw(seq_num: int = 1, raft: str = "R22", slot: str = "S11", *, n_segments: int = 16, width: int = 50) -> bytes:
    """Return the bytes of a raw of LSSTCam."""
    data = _template(n_segments, width)
    for old, new in (
        (b"MC_O_20261120_000001", b"MC_O_20261120_%06d" % seq_num),
        (b"SEQNUM  =                    1", b"SEQNUM  = %20d" % seq_num),
        (b"'R22     '", b"'%s     '" % raft.encode()),
        (b"'S11     '", b"'%s     '" % slot.encode()),
    ):
        assert old in data
        data = data.replace(old, new)
    return data


def raw_name(seq_num: int = 1, detector_name: str = "R22_S11", suffix: str = ".fits") -> str:
    """Return the summit's name of a raw."""
    return f"MC_O_20261120_{seq_num:06d}_{detector_name}{suffix}"
