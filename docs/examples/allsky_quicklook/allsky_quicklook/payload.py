"""Cloud cover: where a fish-eye image of the night sky shows no stars."""

import io
from typing import ClassVar

import numpy as np
import sep
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from payloads.plugin import Frame, PayloadConfig, ProductFile
from rapid.errors import PayloadError

BIN = 8


class CloudCoverConfig(PayloadConfig):
    """How to look for clouds."""

    zenith_limit_deg: float = Field(default=70.0, gt=0, le=90, description="Sky farther from the zenith is left out.")
    horizon_radius: float = Field(default=0.5, gt=0, description="Of the horizon's circle, over the image's width.")
    n_cells: int = Field(default=12, ge=4, le=64, description="Cells of equal solid angle across the sky.")
    min_stars: int = Field(default=2, ge=1, description="A cell with fewer stars is cloudy.")
    detection_sigma: float = Field(default=5.0, gt=0, description="Threshold for a star, over the local noise.")
    daylight_level: float = Field(default=150.0, gt=0, le=255, description="A brighter sky is no night's.")


class CloudCover:
    """Fraction of the sky without stars.

    Writes ``cloud_fraction`` (None by day), ``n_stars``, ``sky_level_adu``, ``is_night``; the table ``cells``; and the
    file ``preview``, the image with clouds tinted.
    """

    name: ClassVar[str] = "cloud_cover"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[PayloadConfig]] = CloudCoverConfig

    def __init__(self, config: CloudCoverConfig) -> None:
        self.config = config

    def run(self, frame: Frame) -> None:
        """Measure the frame's image.

        Raises
        ------
        PayloadError
            Raised for a file that is no image, or not of the camera's size.
        """
        image = decode(frame.raw or b"")
        if image.shape != (frame.detector.height, frame.detector.width):
            shape = f"{image.shape[1]} x {image.shape[0]}"
            raise PayloadError(f"the image has {shape} pixels, {frame.camera.name} has another size", shape=shape)
        frame.image = image
        ny, nx = (n // BIN * BIN for n in image.shape)
        frame.binned = image[:ny, :nx].reshape(ny // BIN, BIN, nx // BIN, BIN).mean(axis=(1, 3))
        cell_of, n_cells = self._cells(image.shape)
        sky = float(np.median(image[cell_of >= 0]))
        is_night = sky < self.config.daylight_level
        frame.metrics |= {"sky_level_adu": sky, "is_night": is_night, "n_stars": None, "cloud_fraction": None}
        if not is_night:
            return
        outside = cell_of < 0
        background = sep.Background(image, mask=outside, bw=32, bh=32)
        stars = sep.extract(
            image - background.back(), self.config.detection_sigma, err=background.rms() + 0.5, mask=outside, minarea=2
        )
        # The peak, not the centroid: a source at the edge may have that one anywhere.
        homes = cell_of[stars["ypeak"], stars["xpeak"]]
        counts = np.bincount(homes[homes >= 0], minlength=n_cells)
        # Only cells that lie whole inside the limit: an eighth of one may well be without a star.
        pixels = np.bincount(cell_of[cell_of >= 0], minlength=n_cells)
        whole = np.flatnonzero(pixels > 0.5 * pixels.max())
        cloudy = counts[whole] < self.config.min_stars
        frame.metrics["n_stars"] = int(counts.sum())
        frame.metrics["cloud_fraction"] = float(cloudy.mean())
        frame.tables["cells"] = {"cell": whole.tolist(), "n_stars": counts[whole].tolist(), "cloudy": cloudy.tolist()}
        frame.files["preview"] = ProductFile(preview(image, np.isin(cell_of, whole[cloudy])), "jpg", "image/jpeg")
        frame.applied.append("cloud_cover")

    def _cells(self, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], int]:
        """Return the cell of every pixel, -1 outside the limit, and how many cells there are.

        The lens is equidistant: the distance from the centre is the zenith angle. Cells are squares in Lambert's
        projection, which keeps solid angles.
        """
        y, x = np.indices(shape, dtype=np.float64)
        dx, dy = x - (shape[1] - 1) / 2, y - (shape[0] - 1) / 2
        distance = np.hypot(dx, dy)
        zenith = distance / (self.config.horizon_radius * shape[1]) * (np.pi / 2)
        limit = np.radians(self.config.zenith_limit_deg)
        stretch = np.sin(zenith / 2) / np.sin(limit / 2) / np.maximum(distance, 1e-9)
        n = self.config.n_cells
        column, row = (np.clip(((d * stretch + 1) / 2 * n).astype(np.int64), 0, n - 1) for d in (dx, dy))
        return np.where(zenith <= limit, row * n + column, -1), n * n


def decode(data: bytes) -> NDArray[np.float32]:
    """Return a JPEG as brightness, float32, row 0 at the lower edge as everywhere in Rapid Analysis."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.ascontiguousarray(np.asarray(image.convert("L"), dtype=np.float32)[::-1])
    except (OSError, SyntaxError) as error:
        raise PayloadError(f"the raw is no image: {error}") from error


def preview(image: NDArray[np.float32], cloudy: NDArray[np.bool_]) -> bytes:
    """Return the image as a JPEG of 600 pixels at most, clouds tinted."""
    step = max(1, image.shape[0] // 600)
    grey = np.clip(image[::-step, ::step] * 2, 0, 255).astype(np.uint8)
    colours = np.stack([grey, grey, grey], axis=-1)
    colours[cloudy[::-step, ::step], 0] = np.maximum(colours[cloudy[::-step, ::step], 0], 90)
    out = io.BytesIO()
    Image.fromarray(colours).save(out, "JPEG", quality=85)
    return out.getvalue()
