"""Make a template look as the exposure does: one convolution for seeing, shape, small shifts and scale.

The method of Alard & Lupton (1998, ApJ 503, 325): the kernel is a sum of Gaussians times polynomials, fitted by least squares
to stamps around stars. One kernel serves the whole detector. The exposure is smoothed first by a Gaussian as wide as its own
stars: that is the matched filter of what is looked for, and the template then never has to be sharpened, in whichever of
the two the seeing was better.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payloads.difference.kernels import convolve_separable

Kernel = list[tuple[NDArray[np.float32], NDArray[np.float32]]]
"""A kernel as a sum of products: pairs of its parts along y and x."""

WIDTHS = (0.6, 1.0, 1.8)
"""Of the Gaussians, in units of the one that takes a Gaussian template to a Gaussian image."""
DEGREES = (4, 3, 2)
"""Of their polynomials."""
FEW_DEGREES = (2, 2, 0)
MANY_STARS = 15
"""With fewer stars than this the polynomials are of lower degree."""
MIN_SIGMA_PX = 0.8
"""Narrowest kernel: a Gaussian sampled in pixels is hardly one below."""
MAX_RADIUS_PX = 14
STAMP_RADIUS_FWHM = 2.0
N_ROUNDS = 3
CLIP = 3.0
"""Stars whose residual is so many times the median one vary, or have a neighbour that does."""
FLOOR = 0.01
"""Part of a star's light that no kernel explains: bright stars are not to decide alone."""
RANK_LIMIT = 1e-4


def gaussian(sigma_px: float, radius_px: int, power: int = 0) -> NDArray[np.float32]:
    """Return a Gaussian of unit sum, times a power of the distance in units of its width."""
    x = np.arange(-radius_px, radius_px + 1)
    profile = np.exp(-0.5 * (x / sigma_px) ** 2)
    return np.asarray(profile / profile.sum() * (x / sigma_px) ** power, np.float32)


def radius_of(sigma_px: float) -> int:
    """Return how far a Gaussian is followed: to 3.5 widths, a fraction of 2e-3 of its height."""
    return max(1, math.ceil(3.5 * sigma_px))


def convolve(image: NDArray[np.float32], kernel: Kernel) -> NDArray[np.float32]:
    """Return an image convolved with a kernel; zero beyond the edges."""
    out = np.zeros_like(image)
    for along_y, along_x in kernel:
        line = np.empty(image.shape[1] + len(along_x) - 1, np.float32)
        convolve_separable(image, along_y, along_x, line, out)
    return out


def smooth(image: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Return an image convolved with a round Gaussian of unit sum."""
    profile = gaussian(sigma_px, radius_of(sigma_px))
    return convolve(image, [(profile, profile)])


def make_basis(sigma_px: float, degrees: tuple[int, ...]) -> Kernel:
    """Return the parts that the kernel is a sum of, all of one size."""
    widest = max(width for width, degree in zip(WIDTHS, degrees, strict=True) if degree >= 0) * sigma_px
    radius = min(max(math.ceil(3.0 * widest), 3), MAX_RADIUS_PX)
    return [
        (gaussian(width * sigma_px, radius, q), gaussian(width * sigma_px, radius, p))
        for width, degree in zip(WIDTHS, degrees, strict=True)
        for p in range(degree + 1)
        for q in range(degree + 1 - p)
    ]


def decompose(kernel: NDArray[np.float64]) -> Kernel:
    """Return a kernel as few products, by its singular values: a fifth of the work of the kernel itself."""
    u, s, v = np.linalg.svd(kernel)
    n = max(1, int(np.count_nonzero(s > RANK_LIMIT * s[0])))
    root = np.sqrt(s[:n])
    return [(np.asarray(u[:, i] * root[i], np.float32), np.asarray(v[i] * root[i], np.float32)) for i in range(n)]


@dataclass(frozen=True)
class KernelFit:
    """A kernel that takes the template to the smoothed image.

    Attributes
    ----------
    kernel : ndarray of shape (2r + 1, 2r + 1), float64
    scale
        Its sum: flux in the image over flux in the template.
    power
        Sum of its squares: what it makes of the variance of uncorrelated noise.
    used : ndarray of shape (n,), bool
        Stars that it was fitted to at last.
    residual_fraction : ndarray of shape (n,), float64
        Largest residual in a star's core over the star's peak.
    """

    kernel: NDArray[np.float64]
    scale: float
    power: float
    used: NDArray[np.bool_]
    residual_fraction: NDArray[np.float64]


def cut_stamps(
    image: NDArray[np.float32], x: NDArray[np.int64], y: NDArray[np.int64], half_px: int
) -> NDArray[np.float32]:
    """Return stamps around places that are at least ``half_px`` from every edge, shape (n, 2h + 1, 2h + 1)."""
    size = 2 * half_px + 1
    stamps = np.empty((len(x), size, size), np.float32)
    for i, (cx, cy) in enumerate(zip(x, y, strict=True)):
        stamps[i] = image[cy - half_px : cy + half_px + 1, cx - half_px : cx + half_px + 1]
    return stamps


def fit_kernel(
    smoothed: NDArray[np.float32],
    template: NDArray[np.float32],
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    *,
    sigma_px: float,
    half_px: int,
    noise_variance: float,
    min_stars: int,
) -> KernelFit | None:
    """Fit the kernel to stars.

    Parameters
    ----------
    smoothed, template : ndarray of shape (height, width), float32
        Image and template on the same pixels, without sky.
    x, y : ndarray of shape (n,), int64
        Stars' central pixels, at least ``half_px`` and the basis' radius from every edge.
    sigma_px
        Width of the Gaussian that would take one to the other, if both were Gaussians.
    half_px
        Stamps reach so far.
    noise_variance
        Of the smoothed image's sky.
    min_stars
        Fewer make no kernel.

    Returns
    -------
    fit
        None if there are too few stars, or the kernel has no positive sum.

    Notes
    -----
    Every stamp has a level of its own. Stars whose residuals stand out are left out, twice at most.
    """
    if len(x) < min_stars:
        return None
    basis = make_basis(max(sigma_px, MIN_SIGMA_PX), DEGREES if len(x) >= MANY_STARS else FEW_DEGREES)
    radius = len(basis[0][0]) // 2
    size = 2 * half_px + 1
    target = cut_stamps(smoothed, x, y, half_px).astype(np.float64)
    stamps = cut_stamps(template, x, y, half_px + radius)
    # Stamps side by side make one image, which is convolved at once; what crosses a border is cut off.
    padded = stamps.shape[1]
    row = np.ascontiguousarray(stamps.transpose(1, 0, 2).reshape(padded, -1))
    design = np.empty((len(x), size * size, len(basis)))
    for k, part in enumerate(basis):
        made = convolve(row, [part]).reshape(padded, len(x), padded).transpose(1, 0, 2)
        design[:, :, k] = made[:, radius : radius + size, radius : radius + size].reshape(len(x), -1)
    data = target.reshape(len(x), -1)
    core = _core(size, half_px / STAMP_RADIUS_FWHM)
    weight = 1.0 / (noise_variance + (FLOOR * np.maximum(data, 0.0)) ** 2)
    share = weight / weight.sum(axis=1, keepdims=True)
    data = data - np.sum(share * data, axis=1, keepdims=True)
    design -= np.sum(share[:, :, None] * design, axis=1, keepdims=True)
    peak = np.maximum(target.reshape(len(x), -1)[:, core].max(axis=1), 1e-30)
    normal = np.einsum("npk,np,npl->nkl", design, weight, design, optimize=True)
    right = np.einsum("npk,np,np->nk", design, weight, data, optimize=True)
    used = np.ones(len(x), dtype=bool)
    coefficients = np.zeros(len(basis))
    residual = np.zeros(len(x))
    for turn in range(N_ROUNDS):
        coefficients = _solve(normal[used].sum(axis=0), right[used].sum(axis=0))
        left = data - design @ coefficients
        chi2 = np.mean(weight * left**2, axis=1)
        residual = np.abs(left[:, core]).max(axis=1) / peak
        good = chi2 <= CLIP * max(float(np.median(chi2[used])), 1.0)
        if turn == N_ROUNDS - 1 or (good == used).all() or np.count_nonzero(good) < min_stars:
            break
        used = good
    kernel = sum(
        (
            c * np.outer(along_y.astype(np.float64), along_x)
            for c, (along_y, along_x) in zip(coefficients, basis, strict=True)
        ),
        start=np.zeros((2 * radius + 1, 2 * radius + 1)),
    )
    scale = float(kernel.sum())
    if not (math.isfinite(scale) and scale > 0):
        return None
    return KernelFit(kernel, scale, float(np.sum(kernel**2)), used, residual)


def _core(size: int, radius_px: float) -> NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size] - size // 2
    return np.asarray((x * x + y * y <= radius_px**2).ravel())


def _solve(normal: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve normal equations whose unknowns are of very different sizes, and nearly alike."""
    size = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    found = np.linalg.lstsq(normal / np.outer(size, size), right / size, rcond=1e-9)[0]
    return np.asarray(found / size)
