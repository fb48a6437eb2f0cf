"""Assemble the amps of a raw into the trimmed detector image."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from payloads.plugin import Frame, PayloadConfig
from payloads.raw.guider import measure_stamps
from payloads.raw.segments import SegmentReader, Segments, fits_detector
from rapid.camera.models import Detector
from rapid.errors import PayloadError
from rapid.exposure.fits_header import FitsStructure, scan


def assemble(segments: Segments, detector: Detector, *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Put the imaging pixels of every amp in their place; overscan and prescan are left out.

    Parameters
    ----------
    segments
        Counts of every amp.
    detector
        Gives the size of the image.
    out : ndarray of shape (height, width), float32
        Receives the image, if given.

    Returns
    -------
    image : ndarray of shape (height, width), float32, ADU
        Counts as they were read; origin at the lower left, indexed ``[y, x]``.
    """
    if out is None or out.shape != (detector.height, detector.width):
        out = np.empty((detector.height, detector.width), dtype=np.float32)
    for pixels, amp in zip(segments.pixels, segments.amps, strict=True):
        data = pixels[amp.data.slices]
        if amp.flip_x:
            data = data[:, ::-1]
        if amp.flip_y:
            data = data[::-1, :]
        out[amp.trimmed.slices] = data
    return out


def bin_image(image: NDArray[Any], n: int) -> NDArray[np.float32]:
    """Return the mean of blocks of ``n`` by ``n`` pixels; rows and columns that fill no block are left out.

    Parameters
    ----------
    image : ndarray of shape (height, width)
    n
        Pixels on a side of a block.

    Returns
    -------
    binned : ndarray of shape (height // n, width // n), float32
    """
    height, width = image.shape[0] // n, image.shape[1] // n
    # Sum rows first: contiguous reads, and an eighth of the data left for the second sum.
    rows = image[: height * n].reshape(height, n, image.shape[1]).sum(axis=1, dtype=np.float32)
    columns = rows[:, : width * n].reshape(height, width, n).sum(axis=2, dtype=np.float32)
    return np.asarray(columns / np.float32(n * n), dtype=np.float32)


def raw_detector(structure: FitsStructure, frame: Frame) -> Detector:
    """Return the frame's detector as the kind of CCD this raw is of.

    A stand's camera has had CCDs of both vendors in the same place; the sizes of the imaging sections tell which.
    """
    for detector in (
        frame.detector,
        *(d for kind in frame.camera.variants.values() for d in kind if d.id == frame.detector.id),
    ):
        if fits_detector(structure, detector):
            return detector
    return frame.detector


class AssembleRaw:
    """Payload ``assemble``: assemble and trim, nothing else; for guider files, measure the stamps."""

    name: ClassVar[str] = "assemble"
    version: ClassVar[str] = "1"

    class Config(PayloadConfig):
        """Nothing to set."""

    def __init__(self, config: "AssembleRaw.Config") -> None:
        self.config = config
        self._reader = SegmentReader()

    def run(self, frame: Frame) -> None:
        """Fill image and binned image with counts in ADU, and per-amp levels.

        Raises
        ------
        PayloadError
            Raised if the frame holds no raw.
        CorruptRawError
            Raised, naming the segment, if the raw does not hold what the camera has.
        """
        if frame.raw is None:
            raise PayloadError("the frame holds no raw to assemble")
        structure = scan(frame.raw)
        if frame.info.is_guider:
            measure_stamps(structure, frame)
            frame.applied.append("measure_stamps")
            return
        frame.detector = raw_detector(structure, frame)
        segments = self._reader.read(structure, frame.detector)
        frame.image = assemble(segments, frame.detector)
        frame.unit = "ADU"
        frame.binned = bin_image(frame.image, 8)
        frame.applied.append("assemble")
        for amp in segments.amps:
            level = frame.image[amp.trimmed.slices]
            frame.amps.setdefault(amp.name, {}).update(
                image_mean_adu=float(level.mean(dtype=np.float64)), image_max_adu=float(level.max())
            )
        frame.metrics["image_mean_adu"] = float(frame.image.mean(dtype=np.float64))
        frame.metrics["image_max_adu"] = float(frame.image.max())
