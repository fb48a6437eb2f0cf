"""Put the charge back that bright pixels pushed into their neighbours: the brighter-fatter effect.

Charge already collected bends the field, so a bright star's later electrons land a little farther out. After Coulton
et al. (2018), the field is the gradient of the image convolved with a kernel, and to first order

    true = measured + 1/2 div(true grad(kernel * true)),

solved by iteration. The divergence is taken over the pixels' edges: what leaves one pixel enters the next, so that
no charge is made or lost (the central differences of the usual implementation lose some at every bright star).
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from payloads.plugin import PayloadConfig
from rapid.errors import PayloadError


class BrighterFatterConfig(PayloadConfig):
    """How far the iteration goes."""

    max_iterations: int = Field(default=10, ge=1, le=100, description="Most rounds.")
    tolerance_electron: float = Field(
        default=1e-3, gt=0, description="Done when a round changes a pixel by less than this on average [electron]."
    )


@dataclass
class BrighterFatterWorkspace:
    """Planes that are used again for every image of the same size."""

    measured: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    potential: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def fit(self, shape: tuple[int, ...]) -> None:
        """Make the planes of a size, unless they are already."""
        if self.measured.shape != shape:
            self.measured = np.empty(shape, np.float32)
            self.potential = np.empty(shape, np.float32)


@dataclass(frozen=True)
class BrighterFatter:
    """What the iteration did: its rounds, and by how much the last one changed a pixel on average [electron].

    If it diverged the image is as it was before.
    """

    n_iterations: int
    change_electron: float
    has_converged: bool
    has_diverged: bool = False


@njit(nogil=True, cache=True)
def _step(measured, potential, image):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Overwrite the image with the next round's; return the sum of the absolute changes."""
    height, width = image.shape
    quarter = np.float32(0.25)
    # Charge that crossed the lower edge of each pixel of a row, kept from the row before it was overwritten.
    from_below = np.zeros(width, dtype=np.float32)
    total = 0.0
    for y in range(height):
        here = image[y]
        at = potential[y]
        changed = np.float32(0)
        from_left = np.float32(0)
        for x in range(width):
            value = here[x]
            to_right = np.float32(0)
            if x + 1 < width:
                to_right = quarter * (value + here[x + 1]) * (at[x + 1] - at[x])
            to_above = np.float32(0)
            if y + 1 < height:
                to_above = quarter * (value + image[y + 1, x]) * (potential[y + 1, x] - at[x])
            new = measured[y, x] + (to_right - from_left) + (to_above - from_below[x])
            changed += abs(new - value)
            from_left = to_right
            from_below[x] = to_above
            here[x] = new
        total += float(changed)
    return total


def correct_brighter_fatter(
    image: NDArray[np.float32],
    kernel: NDArray[np.float32],
    *,
    config: BrighterFatterConfig | None = None,
    workspace: BrighterFatterWorkspace | None = None,
) -> BrighterFatter:
    """Undo the brighter-fatter effect, in place.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32, electron
        Charge as it was collected: bias subtracted, with dark and sky, not flat-fielded. Overwritten.
    kernel : ndarray of shape (n, n), float32, 1/electron
        n odd. Negative at its centre, where charge repels; symmetric or not, it is convolved, not correlated.
    config, workspace
        Limits of the iteration; planes to use again.

    Returns
    -------
    BrighterFatter

    Raises
    ------
    PayloadError
        Raised for a kernel that is not square, odd, finite and smaller than the image.

    Notes
    -----
    Beyond the image's edge the sky goes on as at the edge, and no charge crosses it.
    """
    size = kernel.shape[0] if kernel.ndim == 2 else 0
    if kernel.ndim != 2 or kernel.shape != (size, size) or size % 2 == 0 or not np.isfinite(kernel).all():
        raise PayloadError(f"a brighter-fatter kernel is square, odd-sized and finite, not {kernel.shape}")
    if size > min(image.shape):
        raise PayloadError(f"the brighter-fatter kernel, {size} px, is larger than the image")
    told = config or BrighterFatterConfig()
    work = workspace or BrighterFatterWorkspace()
    work.fit(image.shape)
    work.measured[...] = image
    turned = np.ascontiguousarray(kernel[::-1, ::-1], dtype=np.float32)
    first = change = float(np.inf)
    for iteration in range(1, told.max_iterations + 1):
        cv2.filter2D(image, cv2.CV_32F, turned, dst=work.potential, borderType=cv2.BORDER_REPLICATE)
        change = float(_step(work.measured, work.potential, image)) / image.size
        if change < told.tolerance_electron:
            return BrighterFatter(iteration, change, has_converged=True)
        first = change if iteration == 1 else first
        if not change < 2.0 * first:
            # Rounds that grow lead nowhere, and soon to what is no number: of another kernel, or another unit.
            image[...] = work.measured
            return BrighterFatter(iteration, change, has_converged=False, has_diverged=True)
    return BrighterFatter(told.max_iterations, change, has_converged=False)
