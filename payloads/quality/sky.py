"""Sky and sources of one image, from a binned copy of it.

The full-size image is read once, to bin it; background and detection cost a quarter (2x2) or a sixteenth (4x4)
on the copy. Nothing here is exact to the last source: it finds the sky level and where to look for stars.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import sep
from numpy.typing import NDArray

from payloads.isr.statistics import clipped_statistics
from payloads.mask import BAD, CR, NO_DATA, SAT, UNMASKEDNAN
from payloads.quality.kernels import bin_image, sample_residuals, subtract_level

NOT_DETECTABLE = BAD | CR | NO_DATA | UNMASKEDNAN
"""Pixels without information. Saturated ones stay: a saturated star is to be one source, not a ring of them."""
BACKGROUND_BOX_PX = 128
"""Side of a background cell, full-resolution pixels: wider than any star's wings that matter, 1/32 of a CCD."""
N_NOISE_SAMPLES = 262_144
"""Pixels that measure the noise: their clipped scatter is good to 0.2 %."""
MIN_CELL_BLOCKS = 32
"""Background cells of at least so many blocks a side are measured on every second row and column of them: the 256 that
are left give a cell's level to a twelfth of a block's noise, for a quarter of the time."""
MIN_USABLE_FRACTION = 0.01
"""Below this share of good pixels an image has no sky worth a number."""
NO_MASK: NDArray[np.int32] = np.zeros((0, 0), dtype=np.int32)
N_DEBLEND_LEVELS = 8
"""A star has some ten blocks above threshold: more levels find one in a thousand more, for a quarter of the time."""
PIXEL_STACK = 2_000_000
"""Room for pixels above threshold in sep when its default of 300000 overflows. Not at once: it is set up anew in
every call, which takes 40 ms for this many."""


@dataclass
class Workspace:
    """Arrays that one worker uses again for every image of the same size."""

    binned: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    quality: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0), np.uint8))
    samples: NDArray[np.float32] = field(default_factory=lambda: np.empty(N_NOISE_SAMPLES, np.float32))

    def fit(self, height: int, width: int) -> None:
        """Make the planes of a binned size, unless they are already."""
        if self.binned.shape != (height, width):
            self.binned = np.empty((height, width), np.float32)
            self.quality = np.empty((height, width), np.uint8)


@dataclass(frozen=True)
class Sky:
    """Level and noise of the sky, in the unit of the image.

    Attributes
    ----------
    level
        Median of the background over the detector; None if almost no pixel is usable.
    noise
        Clipped standard deviation of single full-resolution pixels about the background.
    gradient
        Largest less smallest background cell (5th to 95th percentile).
    subtracted : ndarray of shape (height // factor, width // factor), float32
        Binned image less its background; overwritten by the next image of the same workspace.
    level_map : ndarray of shape (ceil(height / level_factor), ceil(width / level_factor)), float32
        The background itself, in blocks of ``level_factor`` full-resolution pixels.
    unusable : ndarray of the shape of ``subtracted``, bool
        Blocks with too few good pixels.
    block_noise
        Noise of a block of the binned image.
    """

    level: float | None
    noise: float | None
    gradient: float | None
    subtracted: NDArray[np.float32]
    level_map: NDArray[np.float32]
    unusable: NDArray[np.bool_]
    block_noise: float
    factor: int
    level_factor: int
    n_bad_px: int
    n_saturated_px: int


def clipped_scatter(values: NDArray[np.float32]) -> float:
    """Return the standard deviation, clipped three times at three sigma; 0 for fewer than two values."""
    found = clipped_statistics(values) if len(values) > 1 else None
    return found[2] if found else 0.0


def choose_bin_factor(pixel_scale_arcsec: float, height: int, width: int) -> int:
    """Return the side of a block: at most 0.8 arcsec, about a star's width, which detects faint stars best.

    Small images are not binned: there is nothing to gain.
    """
    if min(height, width) < 1024:
        return 1
    return max(1, min(4, math.floor(0.81 / pixel_scale_arcsec)))


def measure_sky(
    image: NDArray[np.float32],
    mask: NDArray[np.int32] | None,
    *,
    factor: int,
    box_px: int = BACKGROUND_BOX_PX,
    workspace: Workspace | None = None,
) -> Sky:
    """Measure the background and its noise.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
        Not modified.
    mask : ndarray of the same shape, int32, or None
        Planes of `payloads.mask`.
    factor
        Side of the blocks that are averaged before the background is measured [px].
    box_px
        Side of a background cell [px]; to be several times wider than the sources.
    workspace
        Arrays to use again; made anew if None.

    Returns
    -------
    sky
        Of `Sky.level` None when less than 1 % of the pixels are good and unsaturated.

    Notes
    -----
    Background: mode estimate per cell with a 3x3 median filter over the cells (the SExtractor method, from
    sep). Noise: single pixels, not blocks, because charge diffusion and brighter-fatter correlate neighbours.
    """
    work = workspace or Workspace()
    height, width = image.shape[0] // factor, image.shape[1] // factor
    work.fit(height, width)
    planes = NO_MASK if mask is None else mask
    n_bad, n_saturated = bin_image(image, planes, NOT_DETECTABLE, SAT, factor, work.binned, work.quality)
    unusable = work.quality == 2
    not_sky = work.quality > 0
    binned = work.binned
    n_sky = not_sky.size - int(np.count_nonzero(not_sky))
    if not_sky.size == 0 or n_sky < MIN_USABLE_FRACTION * not_sky.size:
        binned[:] = 0.0
        return Sky(None, None, None, binned, binned, unusable, 0.0, factor, factor, n_bad, n_saturated)
    cell = max(8, box_px // factor)
    every = 2 if cell >= MIN_CELL_BLOCKS else 1
    seen, hidden = (np.ascontiguousarray(plane[::every, ::every]) for plane in (binned, not_sky))
    cell //= every
    background = sep.Background(seen, mask=hidden, bw=min(cell, seen.shape[1]), bh=min(cell, seen.shape[0]), fw=3, fh=3)
    level_map = background.back(dtype=np.float32)
    cells = level_map[:: max(1, cell // 2), :: max(1, cell // 2)]
    step = max(1, math.isqrt(image.size // N_NOISE_SAMPLES) + 1)
    n = sample_residuals(image, planes, NOT_DETECTABLE | SAT, level_map, factor * every, step, work.samples)
    subtract_level(binned, level_map, every)
    low, high = np.percentile(cells, (5.0, 95.0))
    return Sky(
        level=float(np.median(cells)),
        noise=clipped_scatter(work.samples[:n]),
        gradient=float(high - low),
        subtracted=binned,
        level_map=level_map,
        unusable=unusable,
        block_noise=float(background.globalrms),
        factor=factor,
        level_factor=factor * every,
        n_bad_px=n_bad,
        n_saturated_px=n_saturated,
    )


def level_at(sky: Sky, x_px: NDArray[np.float64], y_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the background at places of the image; NaN without a sky."""
    if sky.level is None:
        return np.full(len(x_px), np.nan)
    height, width = sky.level_map.shape
    column = np.clip(np.asarray(x_px).astype(np.int64) // sky.level_factor, 0, width - 1)
    row = np.clip(np.asarray(y_px).astype(np.int64) // sky.level_factor, 0, height - 1)
    return sky.level_map[row, column].astype(np.float64)


@dataclass(frozen=True)
class Sources:
    """What was detected; arrays of shape (n,), brightest first.

    Attributes
    ----------
    x, y
        Centroid in full-resolution pixels, (0, 0) the centre of the lower left pixel.
    flux
        Isophotal flux, unit of the image.
    sigma_px, major_px
        Isophotal width: geometric mean, and along the longer axis; full-resolution pixels.
    is_blended
        Overlaps another source, or is cut by the image's edge.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]
    sigma_px: NDArray[np.float64]
    major_px: NDArray[np.float64]
    is_blended: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.x)


def detect_sources(sky: Sky, *, threshold_sigma: float = 5.0, min_blocks: int | None = None) -> Sources:
    """Detect sources in a background-subtracted binned image.

    Parameters
    ----------
    threshold_sigma
        Height above the sky, in units of a block's noise, after a matched 3x3 filter.
    min_blocks
        Fewest connected blocks above it; None: one if a block holds most of a star, else three.

    Returns
    -------
    sources
        None at all if the image has no sky. A field so crowded that sep's buffers overflow is searched
        again at ten times the threshold.
    """
    empty = np.zeros(0)
    if sky.level is None or sky.block_noise <= 0.0:
        return Sources(empty, empty, empty, empty, empty, np.zeros(0, dtype=bool))
    mask = sky.unusable if sky.unusable.any() else None
    options = {
        "mask": mask,
        "minarea": min_blocks or (1 if sky.factor > 2 else 3),
        "deblend_nthresh": N_DEBLEND_LEVELS,
        "clean": False,
    }
    try:
        found = sep.extract(sky.subtracted, threshold_sigma, err=sky.block_noise, **options)
    except Exception as error:
        # sep raises bare Exception for its buffer overflows and nothing else distinguishes them.
        if "full" not in str(error) and "overflow" not in str(error):
            raise
        usual = sep.get_extract_pixstack()
        sep.set_extract_pixstack(PIXEL_STACK)
        try:
            found = sep.extract(sky.subtracted, 10 * threshold_sigma, err=sky.block_noise, deblend_cont=1.0, **options)
        finally:
            sep.set_extract_pixstack(usual)
    found = found[np.argsort(-found["flux"], kind="stable")]
    offset = (sky.factor - 1) / 2.0
    return Sources(
        x=found["x"] * sky.factor + offset,
        y=found["y"] * sky.factor + offset,
        flux=found["flux"] * sky.factor**2,
        sigma_px=np.sqrt(np.maximum(found["a"] * found["b"], 0.0)) * sky.factor,
        major_px=found["a"] * sky.factor,
        is_blended=(found["flag"] & (sep.OBJ_MERGED | sep.OBJ_TRUNC)) != 0,
    )
