"""Seeing as it would be at the zenith at 500 nm, so that images can be compared through a night."""

import re

EFFECTIVE_WAVELENGTH_NM: dict[str, float] = {
    "u": 365.1,
    "g": 475.6,
    "r": 618.6,
    "i": 753.5,
    "z": 868.1,
    "y": 972.6,
}
"""Effective wavelength of the LSSTCam bands [nm]; those of the other cameras differ by less than 2 % of seeing."""
REFERENCE_WAVELENGTH_NM = 500.0
AIRMASS_POWER = -0.6
WAVELENGTH_POWER = 0.2
"""Kolmogorov turbulence: FWHM grows as airmass^0.6 and shrinks as wavelength^0.2."""


def band_of(band: str | None, physical_filter: str | None) -> str | None:
    """Return the band letter, read from the filter's name (``r_03``, ``SDSSr_65mm~empty``) if need be.

    Examples
    --------
    >>> band_of(None, "i_39"), band_of("r", None), band_of(None, "SDSSr_65mm~empty"), band_of(None, "empty")
    ('i', 'r', 'r', None)
    """
    if band is not None and band.lower() in EFFECTIVE_WAVELENGTH_NM:
        return band.lower()
    found = re.match(r"(?:SDSS)?([ugrizy])(?:_|$|~|\d)", physical_filter or "")
    return found.group(1) if found else None


def standardise_fwhm(fwhm_arcsec: float, *, airmass: float | None, band: str | None) -> float | None:
    """Return the FWHM scaled to airmass 1 and 500 nm; None if airmass or band is not known.

    Examples
    --------
    >>> round(standardise_fwhm(1.0, airmass=2.0, band="y"), 4)
    0.7537
    """
    wavelength_nm = EFFECTIVE_WAVELENGTH_NM.get(band or "")
    if airmass is None or wavelength_nm is None:
        return None
    scale = (wavelength_nm / REFERENCE_WAVELENGTH_NM) ** WAVELENGTH_POWER
    return float(fwhm_arcsec * airmass**AIRMASS_POWER * scale)
