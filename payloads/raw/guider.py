"""Measure the stamps of a guider file: level, peak and centroid of each.

A guider file holds a series of small images in time. Its raw image HDUs are the stamps in the order
taken, most named ``IMAGE``; a second image of each stamp (``RAWSTAMP``) is left out where it exists.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payloads.plugin import Frame
from payloads.raw.rice_hdu import readable_buffer
from payloads.raw.segments import decode_image, image_shape
from rapid.errors import CorruptRawError
from rapid.exposure.fits_header import FitsStructure

MAX_STAMPS = 20_000


def centroid_of_stamp(stamp: NDArray[np.float32], *, threshold_sigma: float = 5.0) -> tuple[float, float] | None:
    """Return the flux-weighted centroid of what stands out of a stamp's background, or None.

    Parameters
    ----------
    stamp : ndarray of shape (ny, nx), float32, ADU
    threshold_sigma
        How far above the background a pixel must be to count, in robust standard deviations.

    Returns
    -------
    x, y : float, px
        Origin at the centre of the first pixel. None if nothing stands out.
    """
    level = float(np.median(stamp))
    scatter = 1.4826 * float(np.median(np.abs(stamp - level)))
    signal = np.where(stamp > level + threshold_sigma * max(scatter, 1e-6), stamp - level, 0.0)
    total = float(signal.sum())
    if total <= 0 or int((signal > 0).sum()) < 3:
        return None
    ys, xs = np.indices(stamp.shape)
    return float((xs * signal).sum() / total), float((ys * signal).sum() / total)


@dataclass(frozen=True)
class Stamp:
    """One stamp of a guider file.

    Attributes
    ----------
    image : ndarray of shape (ny, nx), float32, ADU
    time
        When it was taken, as its header says: MJD [TAI], or an ISO time; None if it says nothing.
    """

    image: NDArray[np.float32]
    time: float | str | None


def read_stamps(structure: FitsStructure) -> Iterator[Stamp]:
    """Yield the stamps of a guider file in the order taken.

    Raises
    ------
    CorruptRawError
        Raised if the file holds no stamps, or they cannot be decoded.
    """
    wanted = [hdu.index for hdu in structure.hdus if hdu.is_image and hdu.name.upper() != "RAWSTAMP"][:MAX_STAMPS]
    if not wanted:
        raise CorruptRawError("a guider file without stamps")
    last = max(structure.hdus[index].data_offset + structure.hdus[index].data_length for index in wanted)
    buffer = readable_buffer(structure, last)
    for index in wanted:
        hdu = structure.hdus[index]
        counts = np.empty(image_shape(hdu), dtype=np.int32)
        other = decode_image(structure, buffer, hdu, counts)
        image = (counts if other is None else other).astype(np.float32)
        yield Stamp(image, hdu.header.get("STMPTMJD") or hdu.header.get("STMPTIME"))


def measure_stamps(structure: FitsStructure, frame: Frame) -> None:
    """Fill ``frame.tables["stamps"]`` and the guider metrics.

    Raises
    ------
    CorruptRawError
        Raised if the file holds no stamps, or they cannot be decoded.
    """
    table: dict[str, list[Any]] = {
        name: [] for name in ("stamp", "time", "mean_adu", "median_adu", "peak_adu", "x_px", "y_px", "flux_adu")
    }
    for place, taken in enumerate(read_stamps(structure)):
        stamp = taken.image
        centre = centroid_of_stamp(stamp)
        level = float(np.median(stamp))
        table["stamp"].append(place)
        table["time"].append(taken.time)
        table["mean_adu"].append(float(stamp.mean()))
        table["median_adu"].append(level)
        table["peak_adu"].append(float(stamp.max()))
        table["x_px"].append(centre[0] if centre else None)
        table["y_px"].append(centre[1] if centre else None)
        table["flux_adu"].append(float((stamp - level).sum()) if centre else None)
    frame.tables["stamps"] = table
    xs = np.array([x for x in table["x_px"] if x is not None])
    ys = np.array([y for y in table["y_px"] if y is not None])
    frame.metrics.update(
        n_stamps=len(table["stamp"]),
        n_stamps_with_star=len(xs),
        stamp_median_adu=float(np.median(table["median_adu"])),
        stamp_peak_adu=float(np.max(table["peak_adu"])),
        centroid_x_scatter_px=float(xs.std()) if len(xs) > 1 else None,
        centroid_y_scatter_px=float(ys.std()) if len(ys) > 1 else None,
    )
