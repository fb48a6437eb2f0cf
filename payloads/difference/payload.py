"""The payload ``difference``: what has changed on the sky since the templates below a detector were made."""

import io
import math
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial import cKDTree

from payloads.difference.detect import DifferenceSources, detect
from payloads.difference.kernels import LANCZOS, NOTHING, warp
from payloads.difference.match import smooth
from payloads.difference.planes import (
    NODE_STEP_PX,
    choose_factor,
    empty_planes,
    node_grid,
    prepare_planes,
    warp_to_detector,
)
from payloads.difference.sky_map import SkyMap, sky_map_of, sky_map_of_pointing, tiles_below
from payloads.difference.store import TemplateStore
from payloads.difference.subtract import Difference, StarList, subtract
from payloads.difference.template_file import Template
from payloads.difference.tiles import Tile, tiles_around
from payloads.keep.payload import facts_of
from payloads.plugin import Frame, Metric, PayloadConfig, ProductFile
from payloads.quality.astrometry import Pointing, match_points, project
from payloads.quality.calibrate import FIELD_RADIUS_DEG
from payloads.quality.measure import SIGMA_TO_FWHM
from payloads.quality.photometry import MAGNITUDE
from payloads.quality.standard import band_of
from rapid.camera.models import Camera, Detector
from rapid.errors import ConfigurationError, PayloadError, StoreError

ENVIRONMENT = "RAPID_TEMPLATES"
"""Names the folder of templates where a pipeline does not."""
DIFFERENCE_METRICS = (
    "template_fraction",
    "template_n_tiles",
    "template_n_exposures",
    "template_fwhm_arcsec",
    "n_difference_sources",
    "n_difference_negative",
    "n_difference_dipoles",
    "difference_noise_ratio",
    "difference_noise_e",
    "difference_limit_e",
    "difference_zero_point_mag",
    "difference_star_residual",
    "n_difference_stars",
    "difference_offset_arcsec",
    "difference_usable_fraction",
    "difference_note",
)
"""Every key is in every result of the payload, None where it could not be measured."""
BINNED_PX = 8
"""Side of the blocks of the detector's pixels that the kept difference image is averaged over; that of the mosaics."""


class DifferenceConfig(PayloadConfig):
    """What to subtract, and what to look for."""

    templates: Path | None = Field(
        default=None, description=f"Folder of templates; that of {ENVIRONMENT} if left out, and none without either."
    )
    threshold_sigma: float = Field(default=5.0, ge=3, le=100, description="Least significance of a source.")
    min_stars: int = Field(default=8, ge=5, description="With fewer stars to match it to no template is subtracted.")
    min_fraction: float = Field(
        default=0.02, ge=0, le=1, description="With templates below less of the detector than this none is subtracted."
    )
    max_offset_arcsec: float = Field(
        default=30.0, gt=0, le=300, description="How far the image may lie beside its templates."
    )
    n_max_sources: int = Field(default=500, ge=1, description="Most sources in the table, the most significant ones.")
    cache_mb: float = Field(default=1024.0, gt=0, description="Memory for templates of a worker.")


class SubtractTemplate:
    """Subtracts templates and finds what is left.

    After `isr` and `quality`, whose image, mask, variance and star table it needs. Writes `DIFFERENCE_METRICS`, the table
    ``difference_sources`` and the file ``difference``, the difference image in blocks of 8x8 pixels. Without a template it writes
    a ``template_fraction`` of 0 and, in ``difference_note``, why; that is no failure.
    """

    name: ClassVar[str] = "difference"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[PayloadConfig]] = DifferenceConfig

    def __init__(self, config: DifferenceConfig) -> None:
        self.config = config
        told = os.environ.get(ENVIRONMENT, "")
        self._directory = config.templates or (Path(told) if told else None)
        self._store: TemplateStore | None = None
        self._loaded: dict[tuple[tuple[float, float], frozenset[str]], set[tuple[str, Tile]]] = {}

    def open_store(self) -> TemplateStore | None:
        """Return the templates, opened when they are first needed; None if no folder is named.

        Raises
        ------
        ConfigurationError
            Raised, naming the field, if the folder holds none; it is looked for again the next time.
        """
        if self._store is None and self._directory is not None:
            self._store = TemplateStore(self._directory, cache_mb=self.config.cache_mb)
        return self._store

    def warm_up(self) -> None:
        """Compile the loops, or read them from the cache, before the first exposure."""
        image, mask = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32), np.zeros((64, 64), np.int32)
        planes = prepare_planes(image, np.ones_like(image), mask, factor=2)
        nodes = node_grid(planes.image.shape, lambda x, y: (x, y))
        out, variance, quality = empty_planes(planes.image.shape)
        warp(planes.image, planes.variance, 1, planes.quality, *nodes, NODE_STEP_PX, LANCZOS, out, variance, quality)
        smooth(out, 1.0)

    def preload(
        self,
        sky: tuple[float, float],
        bands: frozenset[str],
        *,
        camera: Camera | None = None,
        detector: Detector | None = None,
        angle_deg: float | None = None,
    ) -> None:
        """Read the templates of an announced field before its first exposure, as far as there is room for them.

        Parameters
        ----------
        sky
            Right ascension and declination of its centre, ICRS [deg].
        bands
            Those it may be taken in.
        camera, detector
            Whose templates; of the whole field, from its middle outward, if they are not told.
        angle_deg
            Of the camera on the sky; the templates of all angles if it is not known.
        """
        store = self.open_store()
        if store is None:
            return
        tiles = announced_tiles(sky, camera, detector, angle_deg=angle_deg, margin_arcsec=self.config.max_offset_arcsec)
        mine = self._loaded.setdefault((sky, bands), set())
        for band in sorted(bands & set(store.bands())):
            for tile in tiles:
                if (band, tile) not in store.held and not store.has_room():
                    return
                if store.get(tile, band) is not None:
                    mine.add((band, tile))

    def let_go(self, sky: tuple[float, float], bands: frozenset[str]) -> None:
        """Forget the templates that were read for a field and for no other."""
        mine = self._loaded.pop((sky, bands), set())
        others = {key for keys in self._loaded.values() for key in keys}
        if self._store is not None:
            self._store.let_go(mine - others)

    def run(self, frame: Frame) -> None:
        """Subtract the templates below the frame's image.

        Raises
        ------
        PayloadError
            Raised if the payloads that have to come before have not run.
        """
        if frame.image is None or frame.mask is None or frame.variance is None:
            raise PayloadError("difference needs a calibrated image with mask and variance: put it behind isr")
        if frame.unit != "electron":
            raise PayloadError(f"difference needs an image in electron, not {frame.unit}: put it behind isr")
        if "quality_mode" not in frame.metrics:
            raise PayloadError("difference needs the stars of payload quality: put it behind that")
        metrics: dict[str, Metric] = dict.fromkeys(DIFFERENCE_METRICS)
        metrics["template_fraction"] = 0.0
        try:
            metrics |= self._run(frame)
        except _NoDifferenceError as why:
            metrics |= {**why.metrics, "difference_note": str(why)}
        frame.metrics.update(metrics)

    def _run(self, frame: Frame) -> dict[str, Metric]:
        if frame.metrics["quality_mode"] != "photo":
            raise _NoDifferenceError(f"not an image of stars in focus, but for mode {frame.metrics['quality_mode']}")
        try:
            store = self.open_store()
        except ConfigurationError as error:
            raise _NoDifferenceError(error.message) from error
        if store is None:
            raise _NoDifferenceError(f"no folder of templates is named, by templates or {ENVIRONMENT}")
        band = band_of(frame.info.band, frame.info.physical_filter)
        if band is None:
            raise _NoDifferenceError("the band of the filter is not known")
        try:
            sky_map = _sky_map(frame)
        except PayloadError as error:
            raise _NoDifferenceError(error.message) from error
        templates = _templates_below(store, sky_map, band)
        if not templates:
            raise _NoDifferenceError(f"no template of band {band} here")
        return self._subtract(frame, sky_map, templates, store.facts.scale_arcsec)

    def _subtract(
        self, frame: Frame, sky_map: SkyMap, templates: list[Template], scale_arcsec: float
    ) -> dict[str, Metric]:
        image, mask, variance = frame.image, frame.mask, frame.variance
        assert image is not None and mask is not None and variance is not None  # noqa: S101, PT018 - run has looked
        pixel_arcsec = frame.camera.plate_scale_arcsec_per_mm * frame.detector.pixel_mm
        factor = choose_factor(pixel_arcsec, scale_arcsec)
        found: dict[str, Metric] = {
            "template_n_tiles": len(templates),
            "template_n_exposures": len({one for template in templates for one in template.exposures}),
            "template_fwhm_arcsec": float(np.median([template.fwhm_arcsec for template in templates])),
        }
        moved, offset = _aligned(sky_map, frame, templates, self.config.max_offset_arcsec)
        if moved is None:
            raise _NoDifferenceError("the stars do not match those of the templates", found)
        found["difference_offset_arcsec"] = offset
        shape = (image.shape[0] // factor, image.shape[1] // factor)
        below = empty_planes(shape)
        for template in templates:
            warp_to_detector(template, moved, factor, below)
        found["template_fraction"] = fraction = float(np.count_nonzero(below[2] != NOTHING) / below[2].size)
        if fraction < max(self.config.min_fraction, 1e-9):
            raise _NoDifferenceError(f"templates are below {fraction:.1%} of the detector alone", found)
        planes = prepare_planes(image, variance, mask, factor=factor)
        stars = _star_list(frame, factor)
        fwhm = frame.metrics.get("psf_fwhm_arcsec")
        if not isinstance(fwhm, float) or len(stars.x) < self.config.min_stars:
            raise _NoDifferenceError(f"too few stars to match the template to ({len(stars.x)})", found)
        result = subtract(
            planes,
            *below,
            stars,
            guess_sigma_px=fwhm / SIGMA_TO_FWHM / (pixel_arcsec * factor),
            min_stars=self.config.min_stars,
        )
        if isinstance(result, str):
            raise _NoDifferenceError(result, found)
        sources, is_whole = detect(
            result.image,
            result.noise,
            result.unusable,
            threshold_sigma=self.config.threshold_sigma,
            sigma_px=result.sigma_px,
            n_max=self.config.n_max_sources,
        )
        zero_point = _zero_point(frame, templates, result)
        frame.tables["difference_sources"] = _columns(sources, result, moved, factor, zero_point, frame)
        frame.files["difference"] = _picture(frame, result, factor)
        n_used = int(np.count_nonzero(result.fit.used))
        found |= {
            "n_difference_sources": len(sources),
            "n_difference_negative": int(np.count_nonzero(sources.height < 0)),
            "n_difference_dipoles": int(np.count_nonzero(sources.is_dipole)),
            "difference_noise_ratio": result.noise_ratio,
            "difference_noise_e": result.sky_noise / result.peak_fraction,
            "difference_limit_e": self.config.threshold_sigma * result.sky_noise / result.peak_fraction,
            "difference_zero_point_mag": zero_point,
            "difference_star_residual": result.star_residual,
            "n_difference_stars": n_used,
            "difference_usable_fraction": 1.0 - float(np.mean(result.unusable)),
            "difference_note": None
            if is_whole
            else f"more than {self.config.n_max_sources} sources: not all are listed",
        }
        return found


class _NoDifferenceError(Exception):
    """Why there is no difference, with what was measured on the way."""

    def __init__(self, why: str, metrics: dict[str, Metric] | None = None) -> None:
        super().__init__(why)
        self.metrics = metrics or {}


def _sky_map(frame: Frame) -> SkyMap:
    info = frame.info
    return sky_map_of(
        frame.camera, frame.detector, ra_deg=info.ra_deg, dec_deg=info.dec_deg, stars=frame.tables.get("stars")
    )


def announced_tiles(
    sky: tuple[float, float],
    camera: Camera | None,
    detector: Detector | None,
    *,
    angle_deg: float | None,
    margin_arcsec: float,
) -> list[Tile]:
    """Return the tiles that an announced exposure will lie on.

    Without a detector those of the whole field; without an angle those that it passes over as the camera turns.
    """
    if camera is None or detector is None:
        return tiles_around(*sky, 0.0, FIELD_RADIUS_DEG)
    if angle_deg is not None:
        margin_px = margin_arcsec / (camera.plate_scale_arcsec_per_mm * detector.pixel_mm)
        return tiles_below(sky_map_of_pointing(camera, detector, Pointing(*sky, angle_deg)), margin_px=margin_px)
    scale_deg = camera.plate_scale_arcsec_per_mm / 3600.0
    middle = math.hypot(detector.x_mm, detector.y_mm) * scale_deg
    half = 0.5 * math.hypot(detector.width, detector.height) * detector.pixel_mm * scale_deg
    return tiles_around(*sky, max(middle - half, 0.0), middle + half)


def _templates_below(store: TemplateStore, sky_map: SkyMap, band: str) -> list[Template]:
    try:
        found = [store.get(tile, band) for tile in tiles_below(sky_map)]
    except StoreError as error:
        raise _NoDifferenceError(error.message) from error
    return [template for template in found if template is not None]


def _aligned(
    sky_map: SkyMap, frame: Frame, templates: list[Template], radius_arcsec: float
) -> tuple[SkyMap | None, float | None]:
    """Return the map moved onto the templates' stars, and by how much the detector's middle moved [arcsec]."""
    table = frame.tables["stars"]
    places = list(zip(table["x"], table["y"], strict=True))
    points = sky_map.to_plane(*np.array(places, np.float64).reshape(-1, 2).T)
    stars = np.concatenate([template.stars for template in templates])
    stars = stars[np.argsort(-stars[:, 2], kind="stable")]
    others = project(
        stars[:, 0], stars[:, 1], centre_ra_deg=sky_map.centre_ra_deg, centre_dec_deg=sky_map.centre_dec_deg
    )
    low, high = points.min(axis=0, initial=np.inf) - radius_arcsec, points.max(axis=0, initial=-np.inf) + radius_arcsec
    others = others[((others >= low) & (others <= high)).all(axis=1)]
    match = match_points(points, _apart(others), radius_arcsec=radius_arcsec)
    if match is None:
        return None, None
    moved = sky_map.moved(match)
    middle = ((frame.detector.width - 1) / 2, (frame.detector.height - 1) / 2)
    return moved, float(np.hypot(*(moved.to_plane(*middle) - sky_map.to_plane(*middle))[0]))


def _apart(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points without those within an arcsecond of an earlier one: tiles overlap, and share stars on their edges."""
    if len(points) < 2:
        return points
    pairs = cKDTree(points).query_pairs(1.0, output_type="ndarray")
    keep = np.ones(len(points), dtype=bool)
    keep[pairs.max(axis=1)] = False
    return points[keep]


def _star_list(frame: Frame, factor: int) -> StarList:
    """Return the PSF stars, with all their light, in pixels of the binned image."""
    table = frame.tables["stars"]
    rows = [
        (x, y, flux, snr)
        for x, y, flux, snr, is_psf in zip(
            table["x"], table["y"], table["flux_e"], table["snr"], table["is_psf_star"], strict=True
        )
        if is_psf and flux is not None and flux > 0
    ]
    x, y, flux, snr = np.array(rows, np.float64).reshape(-1, 4).T
    loss = frame.metrics.get("aperture_loss_mag")
    whole = 10.0 ** (0.4 * loss) if isinstance(loss, float) else 1.0
    return StarList((x - (factor - 1) / 2) / factor, (y - (factor - 1) / 2) / factor, flux * whole, snr)


def _zero_point(frame: Frame, templates: list[Template], result: Difference) -> float | None:
    """Return the magnitude of one electron per second in the image, by the templates' scale; None if they have none."""
    time_s = frame.info.exposure_time_s
    known = [template.zero_point_mag for template in templates if template.zero_point_mag is not None]
    if len(known) < len(templates) or not time_s:
        return None
    return float(np.median(np.array(known, np.float64)) + MAGNITUDE * math.log(result.fit.scale / time_s))


def _columns(
    sources: DifferenceSources,
    result: Difference,
    sky_map: SkyMap,
    factor: int,
    zero_point: float | None,
    frame: Frame,
) -> dict[str, list[Any]]:
    """Return the table, in pixels of the detector and electrons."""
    x, y = (place * factor + (factor - 1) / 2 for place in (sources.x, sources.y))
    ra, dec = sky_map.to_sky(x, y) if len(x) else (x, y)
    flux, error = (value / result.peak_fraction for value in (sources.height, sources.error))
    rate = np.abs(flux) / (frame.info.exposure_time_s or 1.0)
    magnitude = [None if zero_point is None else zero_point - MAGNITUDE * math.log(value) for value in rate]
    return {
        "ra_deg": ra.tolist(),
        "dec_deg": dec.tolist(),
        "x": x.tolist(),
        "y": y.tolist(),
        "flux_e": flux.tolist(),
        "flux_error_e": error.tolist(),
        "snr": sources.snr.tolist(),
        "mag": magnitude,
        "is_positive": (sources.height > 0).tolist(),
        "is_dipole": sources.is_dipole.tolist(),
        "size_ratio": sources.size_ratio.tolist(),
        "e1": sources.e1.tolist(),
        "e2": sources.e2.tolist(),
    }


def _picture(frame: Frame, result: Difference, factor: int) -> ProductFile:
    """Return the difference in blocks as a FITS file, 0 where nothing was subtracted."""
    block = max(1, BINNED_PX // factor)
    height, width = (size // block for size in result.image.shape)
    image = np.where(result.unusable, np.float32(0), result.image)[: height * block, : width * block]
    used = ~result.unusable[: height * block, : width * block]
    n = used.reshape(height, block, width, block).sum(axis=(1, 3))
    blocks = image.reshape(height, block, width, block).sum(axis=(1, 3), dtype=np.float64) / np.maximum(n, 1)
    hdu = fits.PrimaryHDU(np.asarray(blocks / factor**2, np.float32))
    for key, value in facts_of(frame).items():
        hdu.header[key] = value
    hdu.header["BINNING"] = (block * factor, "[px] side of a block")
    hdu.header["COMMENT"] = "Exposure less template, mean per detector pixel"
    buffer = io.BytesIO()
    hdu.writeto(buffer)
    return ProductFile(buffer.getvalue(), "fits", "application/fits")
