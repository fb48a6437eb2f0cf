"""How the numbers of the pipelines are named, rounded and coloured on the pages.

Facts only. A metric that is not listed is shown all the same: the pages read its unit from the key's
ending (``psf_fwhm_arcsec``), so that a new payload needs no change here.
"""

import math
from collections.abc import Mapping

from rapid.display.models import QuantityView, TileView
from rapid.display.settings import Tolerance
from rapid.errors import ConfigurationError
from rapid.results.models import Scalar


def _sequential(key: str, title: str, unit: str, decimals: int) -> QuantityView:
    return QuantityView(key=key, title=title, unit=unit, decimals=decimals, scale="sequential")


def _around(key: str, title: str, unit: str, decimals: int, nominal: float) -> QuantityView:
    return QuantityView(key=key, title=title, unit=unit, decimals=decimals, scale="diverging", nominal=nominal)


QUANTITIES: tuple[QuantityView, ...] = (
    _sequential("psf_fwhm_arcsec", "FWHM", "″", 2),
    _around("defocus_residual_um", "Defocus against command", "µm", 0, 0.0),
    _sequential("psf_e", "Ellipticity", "", 3),
    _sequential("n_stars", "Stars", "", 0),
    _sequential("sky_level_e", "Sky", "e⁻", 0),
    _sequential("sky_noise_e", "Sky noise", "e⁻", 1),
    _around("defocus_um", "Defocus", "µm", 0, 0.0),
    _sequential("donut_diameter_px", "Donut diameter", "px", 1),
    _sequential("zero_point_mag", "Zero point", "mag", 2),
    _sequential("transparency", "Transparency", "", 2),
    _sequential("magnitude_limit_5sigma", "Depth, 5σ", "mag", 2),
    _sequential("sky_brightness_mag_arcsec2", "Sky brightness", "mag/″²", 2),
    _around("psf_e1", "e1", "", 3, 0.0),
    _around("psf_e2", "e2", "", 3, 0.0),
    _sequential("psf_fwhm_direct_arcsec", "FWHM at half maximum", "″", 2),
    _sequential("psf_fwhm_zenith_arcsec", "FWHM at zenith, 500 nm", "″", 2),
    _sequential("psf_fwhm_scatter_arcsec", "FWHM scatter", "″", 3),
    _sequential("n_saturated_px", "Saturated", "px", 0),
    _sequential("mean_e", "Level", "e⁻", 1),
    _sequential("stdev_e", "Pixel scatter", "e⁻", 2),
    _sequential("read_noise_median_electron", "Read noise", "e⁻", 2),
    _sequential("read_noise_max_electron", "Read noise, worst amp", "e⁻", 2),
    _sequential("dark_current_e_per_s", "Dark current", "e⁻/s", 3),
    _sequential("n_hot_px", "Hot pixels", "px", 0),
    _sequential("flat_scatter", "Flat scatter", "", 4),
    _sequential("bias_mean_pull_max", "Bias mean, worst pull", "σ", 1),
    _sequential("amp_median_scatter", "Amp to amp", "", 4),
    _sequential("n_saturated", "Saturated", "px", 0),
    _sequential("n_bad", "Bad pixels", "px", 0),
)
"""In the order of preference: the first one a night has measured is the focal plane's colour."""


def _tile(
    ident: str,
    title: str,
    unit: str,
    decimals: int,
    *keys: str,
    notes: tuple[QuantityView, ...] = (),
    is_optional: bool = False,
) -> TileView:
    # A gather names the focal plane's number after the detectors': psf_fwhm_arcsec -> psf_fwhm_arcsec_median.
    wanted = [name for key in keys for name in (f"{key}_median", key)]
    return TileView(
        id=ident, title=title, unit=unit, decimals=decimals, keys=wanted, notes=list(notes), is_optional=is_optional
    )


TILES: dict[str, tuple[TileView, ...]] = {
    "sky": (
        _tile(
            "seeing",
            "Seeing",
            "″",
            2,
            "psf_fwhm_arcsec",
            notes=(_sequential("psf_fwhm_zenith_arcsec_median", "zenith", "″", 2),),
        ),
        _tile("ellipticity", "Ellipticity", "", 3, "psf_e", notes=(_sequential("psf_e_scatter", "spread", "", 3),)),
        _tile(
            "focus",
            "Defocus",
            "µm",
            0,
            "defocus_residual_um",
            "defocus_um",
            notes=(
                _sequential("best_focus_mm", "best", "mm", 3),
                _sequential("best_focus_error_mm", "±", "mm", 3),
            ),
        ),
        _tile(
            "transparency",
            "Transparency",
            "",
            2,
            "transparency",
            notes=(
                _sequential("zero_point_mag_median", "zero point", "mag", 2),
                _sequential("magnitude_limit_5sigma_median", "5σ", "mag", 1),
            ),
        ),
        _tile(
            "sky",
            "Sky",
            "e⁻",
            0,
            "sky_level_e",
            notes=(
                _sequential("sky_brightness_mag_arcsec2", "", "mag/″²", 1),
                _sequential("moon_separation_deg", "moon", "°", 0),
            ),
        ),
        _tile(
            "mount",
            "Mount motion",
            "″",
            3,
            "mount_motion_image_degradation_arcsec",
            "mount_motion_arcsec",
            is_optional=True,
        ),
    ),
    "calibration": (
        _tile("level", "Level", "e⁻", 1, "mean_e", "median", notes=(_sequential("mean_e_scatter", "spread", "e⁻", 2),)),
        _tile("scatter", "Pixel scatter", "e⁻", 2, "stdev_e"),
        _tile(
            "read_noise",
            "Read noise",
            "e⁻",
            2,
            "read_noise_median_electron",
            notes=(_sequential("read_noise_max_electron_median", "worst amp", "e⁻", 2),),
        ),
        _tile("dark_current", "Dark current", "e⁻/s", 3, "dark_current_e_per_s"),
        _tile("hot", "Hot pixels", "px", 0, "n_hot_px"),
        _tile("saturated", "Saturated", "px", 0, "n_saturated", notes=(_sequential("n_bad_median", "bad", "px", 0),)),
    ),
}
"""The big numbers: fixed places for the sky, and others for bias, dark and flat."""


def tiles_with(tolerances: Mapping[str, Tolerance]) -> dict[str, list[TileView]]:
    """Return the tiles with a site's tolerance bands.

    Raises
    ------
    ConfigurationError
        Raised for the band of a tile that there is none of.
    """
    known = {tile.id for tiles in TILES.values() for tile in tiles}
    for name in tolerances:
        if name not in known:
            raise ConfigurationError(f"tolerances.{name}", f"is no tile (known: {', '.join(sorted(known))})")

    def banded(tile: TileView) -> TileView:
        band = tolerances.get(tile.id)
        if band is None:
            return tile
        return tile.model_copy(update=band.model_dump())

    return {kind: [banded(tile) for tile in tiles] for kind, tiles in TILES.items()}


def with_derived(metrics: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return metrics with the ellipticity's absolute value beside its components.

    Numbers that are not finite become `None`: a page shows a dash for them, and JSON has no word for them.
    """
    out: dict[str, Scalar] = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in metrics.items()
    }
    e1, e2 = out.get("psf_e1"), out.get("psf_e2")
    if "psf_e" not in out and isinstance(e1, int | float) and isinstance(e2, int | float):
        out["psf_e"] = math.hypot(e1, e2)
    return out
