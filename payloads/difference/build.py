"""Make templates: calibrated images of one band, put onto the sky's grid and averaged, without what was there only once."""

import math
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rapid
from payloads.difference.align import Aligned, Contribution
from payloads.difference.kernels import BAD, NOTHING, SATURATED, combine
from payloads.difference.planes import Planes, choose_factor, prepare_planes, warp_to_tile
from payloads.difference.store import TemplateStore
from payloads.difference.template_file import Template, block_mean, template_bytes
from payloads.difference.tiles import Tile, TileGeometry, geometry_of
from payloads.mask import MASK_PLANES
from payloads.quality.measure import SIGMA_TO_FWHM, measure_quality
from rapid.errors import PayloadError

CLIP_SIGMA = 5.0
CLIP_FRACTION = 1.0
"""A star's core may be twice as high in a sharper image."""
N_HELD = 8
"""Binned images that stay in memory: 36 MB for a detector of LSSTCam."""
STRIP_ROWS = 256
"""Rows that are averaged at a time: 2 MB for each exposure."""


@dataclass(frozen=True)
class TileReport:
    """What became of a tile.

    Attributes
    ----------
    version
        None if no template was written.
    is_new
        Whether it differs from what was there.
    fraction
        Of its pixels that have an image.
    reason
        Why there is none, or empty.
    """

    tile: Tile
    band: str
    exposures: tuple[int, ...]
    version: int | None
    is_new: bool
    fraction: float
    fwhm_arcsec: float | None
    reason: str


def build_templates(
    aligned: Sequence[Aligned],
    store: TemplateStore,
    *,
    band: str,
    min_exposures: int = 3,
    max_exposures: int = 20,
    work: Path | None = None,
) -> Iterator[TileReport]:
    """Make the templates of all tiles that images of one band lie on, one after the other.

    Parameters
    ----------
    aligned
        Images on one common scale and place, from `payloads.difference.align.align`.
    min_exposures
        Tiles, and pixels of them, of fewer exposures get no template: what was there once would be in it.
    max_exposures
        Of more, those with the best seeing are taken.
    work
        Folder for planes on their way; the system's own if None. An exposure needs 45 MB for a tile of 0.4 arcsec.

    Yields
    ------
    report
        Of each tile, in order. The same images make the same bytes.

    Raises
    ------
    StoreError
        Raised if a template cannot be written.
    """
    below: dict[Tile, list[Aligned]] = {}
    for one in aligned:
        for tile in one.tiles:
            below.setdefault(tile, []).append(one)
    held = _Held()
    for tile in sorted(below):
        by_exposure: OrderedDict[int, list[Aligned]] = OrderedDict()
        for one in sorted(below[tile], key=lambda one: (one.contribution.exposure_id, one.contribution.detector.id)):
            by_exposure.setdefault(one.contribution.exposure_id, []).append(one)
        layers = sorted(
            by_exposure.values(),
            key=lambda layer: (layer[0].contribution.fwhm_arcsec, layer[0].contribution.exposure_id),
        )
        layers = sorted(layers[:max_exposures], key=lambda layer: layer[0].contribution.exposure_id)
        exposures = tuple(layer[0].contribution.exposure_id for layer in layers)
        nothing = TileReport(tile, band, exposures, None, False, 0.0, None, "")
        if len(layers) < min_exposures:
            yield replace(nothing, reason=f"only {len(layers)} of {min_exposures} exposures")
            continue
        yield _build(tile, band, layers, store, held, nothing, min_exposures=min_exposures, work=work)


class _Held:
    """The binned images that were used last."""

    def __init__(self) -> None:
        self._planes: OrderedDict[tuple[int, int], tuple[Planes | None, str]] = OrderedDict()

    def get(self, contribution: Contribution, scale_arcsec: float) -> tuple[Planes | None, str]:
        """Return an image; None, and why, if it cannot be used."""
        key = (contribution.exposure_id, contribution.detector.id)
        if key not in self._planes:
            try:
                image, variance, mask = contribution.load()
                factor = choose_factor(contribution.pixel_arcsec, scale_arcsec)
                found: tuple[Planes | None, str] = prepare_planes(image, variance, mask, factor=factor), ""
            except PayloadError as error:
                found = None, error.message
            self._planes[key] = found
            while len(self._planes) > N_HELD:
                self._planes.popitem(last=False)
        self._planes.move_to_end(key)
        return self._planes[key]


def _build(
    tile: Tile,
    band: str,
    layers: list[list[Aligned]],
    store: TemplateStore,
    held: _Held,
    nothing: TileReport,
    *,
    min_exposures: int,
    work: Path | None,
) -> TileReport:
    geometry = geometry_of(tile, store.facts.scale_arcsec)
    shape = (geometry.height, geometry.width)
    inputs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rapid-templates-", dir=work) as folder:
        values, variances, quality = (
            np.memmap(Path(folder) / name, dtype=dtype, mode="w+", shape=(len(layers), *shape))
            for name, dtype in (("values", np.float32), ("variances", np.float32), ("quality", np.uint8))
        )
        weights = np.zeros(len(layers))
        for i, layer in enumerate(layers):
            quality[i] = NOTHING
            for one in layer:
                planes, why = held.get(one.contribution, geometry.scale_arcsec)
                if planes is None:
                    inputs.append({**one.facts(), "left_out": why})
                    continue
                scaled = _scaled(planes, one.scale)
                warp_to_tile(scaled, one.sky_map, geometry, (values[i], variances[i], quality[i]))
                weights[i] = weights[i] or 1.0 / scaled.sky_variance
                inputs.append(one.facts())
        out, variance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        out_quality, counts = np.full(shape, NOTHING, np.uint8), np.zeros(shape, np.uint8)
        for row in range(0, shape[0], STRIP_ROWS):
            rows = slice(row, min(row + STRIP_ROWS, shape[0]))
            combine(
                np.ascontiguousarray(values[:, rows]),
                np.ascontiguousarray(variances[:, rows]),
                np.ascontiguousarray(quality[:, rows]),
                weights,
                CLIP_SIGMA,
                CLIP_FRACTION,
                min_exposures,
                out[rows],
                variance[rows],
                out_quality[rows],
                counts[rows],
            )
        del values, variances, quality
    fraction = float(np.mean(out_quality < NOTHING))
    if not (out_quality < BAD).any():
        return replace(nothing, reason=f"no pixel has {min_exposures} exposures")
    return _put(tile, band, geometry, (out, variance, out_quality, counts), layers, inputs, store, nothing, fraction)


def _scaled(planes: Planes, scale: float) -> Planes:
    """Return an image in the templates' unit."""
    factor = np.float32(scale)
    return replace(
        planes,
        image=planes.image * factor,
        variance=planes.variance * factor**2,
        sky_variance=planes.sky_variance * scale**2,
    )


def _put(
    tile: Tile,
    band: str,
    geometry: TileGeometry,
    planes: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]],
    layers: list[list[Aligned]],
    inputs: list[dict[str, Any]],
    store: TemplateStore,
    nothing: TileReport,
    fraction: float,
) -> TileReport:
    image, variance, quality, counts = planes
    stars, fwhm = measure_stars(image, quality, geometry)
    if fwhm is None:
        # A corner of a tile may have no star at all: it is worth having, and its images know how wide one would be.
        stars, fwhm = stars_of_inputs(layers, geometry)
    first = layers[0][0]
    template = Template(
        tile=tile,
        band=band,
        version=0,
        geometry=geometry,
        image=image,
        variance=block_mean(variance),
        quality=quality,
        stars=stars,
        zero_point_mag=first.zero_point_mag,
        zero_point_system=first.zero_point_system,
        fwhm_arcsec=fwhm,
        exposures=nothing.exposures,
    )
    facts = {
        "inputs": inputs,
        "clip_sigma": CLIP_SIGMA,
        "clip_fraction": CLIP_FRACTION,
        "software_version": rapid.__version__,
    }
    version, is_new = store.put(tile, band, template_bytes(template, variance=variance, counts=counts, facts=facts))
    return replace(nothing, version=version, is_new=is_new, fraction=fraction, fwhm_arcsec=fwhm)


def stars_of_inputs(layers: list[list[Aligned]], geometry: TileGeometry) -> tuple[NDArray[np.float64], float]:
    """Return the stars on a tile, and the median width, as the exposure with most of them has it; as `measure_stars`."""
    found = np.zeros((0, 3))
    for layer in layers:
        rows = [np.zeros((0, 3))]
        for one in layer:
            x, y, flux = one.contribution.stars.T
            ra, dec = one.sky_map.to_sky(x, y)
            x_px, y_px = geometry.to_px(ra, dec)
            inside = (x_px >= 0) & (y_px >= 0) & (x_px <= geometry.width - 1) & (y_px <= geometry.height - 1)
            rows.append(np.column_stack((ra, dec, flux * one.scale))[inside])
        table = np.concatenate(rows)
        found = table if len(table) > len(found) else found
    widths = [one.contribution.fwhm_arcsec for layer in layers for one in layer]
    return found[np.argsort(-found[:, 2], kind="stable")], float(np.median(widths))


def measure_stars(
    image: NDArray[np.float32], quality: NDArray[np.uint8], geometry: TileGeometry
) -> tuple[NDArray[np.float64], float | None]:
    """Return a template's stars and their width.

    Returns
    -------
    stars : ndarray of shape (n, 3), float64
        Right ascension, declination [deg] and flux, brightest first.
    fwhm_arcsec
        2.355 times the median width of adaptive moments; None with fewer than three stars alike.
    """
    bits = np.zeros(4, np.int32)
    bits[BAD], bits[SATURATED], bits[NOTHING] = (1 << MASK_PLANES[name] for name in ("BAD", "SAT", "NO_DATA"))
    found = measure_quality(image, bits[quality], pixel_scale_arcsec=geometry.scale_arcsec)
    stars = found.stars
    if not found.has_psf:
        return np.zeros((0, 3)), None
    good = np.isfinite(found.fluxes.flux) & (found.fluxes.flux > 0)
    ra, dec = geometry.to_sky(stars.x[good], stars.y[good])
    table = np.column_stack((ra, dec, found.fluxes.flux[good]))
    table = table[np.argsort(-table[:, 2], kind="stable")]
    fwhm = SIGMA_TO_FWHM * float(np.median(stars.sigma_px[stars.is_psf])) * geometry.scale_arcsec
    return table, fwhm if math.isfinite(fwhm) else None
