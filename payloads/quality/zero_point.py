"""Zero point and transparency: how much of the stars' light arrived.

The zero point is the magnitude of a star that gives one electron per second in this image; the transparency is the
light that arrived as a part of what the instrument gives under a clear sky at the same airmass. The clear-sky values
are data with a date (`zero_points.yaml`, or a site's own file of the same form).
"""

import math
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from payloads.quality.kernels import MAD_TO_SIGMA
from rapid.errors import ConfigurationError

PACKAGED = Path(__file__).parent / "data" / "zero_points.yaml"
MIN_STARS = 3
"""Fewer matched stars make no zero point."""
MIN_SCATTER_MAG = 0.01
"""Floor of a star's error: flat field, aperture and catalogue are not better."""
N_CLIP = 3.0


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BandValues(_Fact):
    """One band under a clear sky."""

    zero_point_mag: float = Field(gt=0, lt=40, description="Magnitude of one electron per second at airmass 1.")
    extinction_mag: float = Field(ge=0, lt=5, description="Magnitudes lost per further airmass.")


class InstrumentValues(_Fact):
    """Values of some cameras from a date on."""

    cameras: tuple[str, ...] = Field(min_length=1)
    valid_from: date
    source: str = Field(min_length=1)
    bands: dict[str, BandValues] = Field(min_length=1)


class ReferenceValues(_Fact):
    """All that is known of clear skies."""

    entries: tuple[InstrumentValues, ...]

    def of(self, camera: str, band: str | None, day_obs: int) -> BandValues | None:
        """Return the values in force on an observing day, None if there are none."""
        day = date(day_obs // 10000, day_obs // 100 % 100, day_obs % 100)
        known = [
            entry
            for entry in self.entries
            if camera.lower() in {name.lower() for name in entry.cameras} and entry.valid_from <= day
        ]
        return max(known, key=lambda entry: entry.valid_from).bands.get(band or "") if known else None


@lru_cache(maxsize=8)
def load_reference_values(path: Path = PACKAGED) -> ReferenceValues:
    """Read clear-sky values.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for a file that cannot be read or is not of the form.
    """
    try:
        return ReferenceValues.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("reference_values", f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError("reference_values", f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "reference_values"
        raise ConfigurationError(f"{path.name}: {field}", first["msg"]) from error


@dataclass(frozen=True)
class ZeroPoint:
    """A zero point, its error, the scatter of single stars about it (all mag), and how many stars it is of."""

    zero_point_mag: float
    error_mag: float
    scatter_mag: float
    n_stars: int


def fit_zero_point(
    catalogue_mag: NDArray[np.float64], instrument_mag: NDArray[np.float64], error_mag: NDArray[np.float64]
) -> ZeroPoint | None:
    """Return the weighted mean of catalogue less instrument magnitudes, outliers clipped.

    Parameters
    ----------
    catalogue_mag, instrument_mag, error_mag : ndarray of shape (n,), mag
        Of the same stars; the error is that of the two together. Stars with a value that is not finite are left out.

    Returns
    -------
    zero_point
        None with fewer than three stars left.

    Notes
    -----
    No colour term: for a field's mix of stars it is of the order of 0.01 mag, the same in every image. The error is
    that of the mean by the stars' scatter, as outliers and the flat field are in it, too.
    """
    good = np.isfinite(catalogue_mag) & np.isfinite(instrument_mag) & np.isfinite(error_mag)
    difference = (catalogue_mag - instrument_mag)[good]
    error = np.hypot(error_mag[good], MIN_SCATTER_MAG)
    if len(difference) < MIN_STARS:
        return None
    centre = float(np.median(difference))
    keep = np.ones(len(difference), dtype=bool)
    for _ in range(5):
        # The stars' own errors where they are few and faint, their scatter where it is larger.
        spread = MAD_TO_SIGMA * float(np.median(np.abs(difference[keep] - centre)))
        new = np.abs(difference - centre) <= N_CLIP * np.maximum(error, spread)
        if np.count_nonzero(new) < MIN_STARS:
            return None
        weight = 1.0 / error[new] ** 2
        centre = float(np.sum(weight * difference[new]) / weight.sum())
        if (new == keep).all():
            break
        keep = new
    kept, weight = difference[keep], 1.0 / error[keep] ** 2
    n = len(kept)
    scatter = float(np.sqrt(np.sum((kept - centre) ** 2) / max(n - 1, 1)))
    chi2 = float(np.sum(weight * (kept - centre) ** 2)) / max(n - 1, 1)
    mean_error = math.sqrt(max(chi2, 1.0) / float(weight.sum()))
    return ZeroPoint(centre, mean_error, scatter, n)


def transparency_of(zero_point_mag: float, *, clear_mag: float, extinction_mag: float, airmass: float) -> float:
    """Return the part of the light that arrived: 1 under a clear sky.

    Examples
    --------
    >>> transparency_of(28.0, clear_mag=28.0, extinction_mag=0.1, airmass=1.0)
    1.0
    >>> round(transparency_of(27.15, clear_mag=28.0, extinction_mag=0.1, airmass=2.0), 3)
    0.501
    """
    return float(10.0 ** (0.4 * (zero_point_mag - (clear_mag - extinction_mag * (airmass - 1.0)))))


def magnitude_limit(
    zero_point_mag: float, *, sky_noise_e: float, n_effective_px: float, exposure_time_s: float, snr: float = 5.0
) -> float:
    """Return the magnitude of a star with the given signal to noise ratio.

    Parameters
    ----------
    sky_noise_e
        Noise of one sky pixel, read noise included [electron].
    n_effective_px
        Noise-equivalent area of the PSF; 4 pi sigma^2 for a Gaussian.

    Notes
    -----
    C^2 / (C + n noise^2) = snr^2 solved for the counts C, as in the summary statistics of the LSST pipelines.
    """
    counts = 0.5 * snr**2 + math.sqrt(0.25 * snr**4 + snr**2 * n_effective_px * sky_noise_e**2)
    return zero_point_mag - 2.5 * math.log10(counts / exposure_time_s)
