"""Fit intra- and extra-focal donuts together, site by site, and the field through the sites.

A site is a corner of the focal plane (the two halves of a wavefront sensor, in one exposure) or a detector (in two
exposures, the camera moved to either side of focus). Runs as a program of its own, ``python -m payloads.focus.joint REQUEST.json``,
so that a gather waits for it without computing: seconds per pair.
"""

import itertools
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from payloads.focus.field import fit_field
from payloads.focus.optics import fwhm_of_zernikes, z4_um_per_mm
from payloads.focus.stamps import DonutFile, FittedDonut, from_fits
from payloads.focus.wavefront import NOLL, WavefrontFit, fit_wavefront
from payloads.focus.wavefront_payload import mean_wavefront
from rapid.errors import PayloadError

SAME_STAR_PX = 200.0
"""Donuts nearer than this in two exposures of a detector are taken for one star's: pointing and distortion move it less."""
NICE = 5
"""The fits may take their time; a worker's job may not."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SiteInput(_Document):
    """Two files of fitted donuts (`payloads.focus.stamps`) that share a wavefront."""

    name: str
    extra: Path
    intra: Path


class JointInput(_Document):
    """What to fit."""

    title: str = ""
    sites: list[SiteInput] = Field(min_length=1)
    n_pairs: int = Field(default=3, ge=1, description="Pairs per site, brightest first.")
    budget_s: float = Field(default=120.0, gt=0, description="No further pair is begun after this [s].")
    folder: Path = Field(description="Where the plots go.")


class SiteWavefront(_Document):
    """The wavefront at one place of the field: weighted mean over its pairs."""

    name: str
    thx_deg: float = Field(description="Field angle in the camera's axes.")
    thy_deg: float
    n_pairs: int
    zernikes_um: list[float] = Field(description="Z4 to Z22 beyond the perfect telescope's.")
    errors_um: list[float] = Field(description="Photon noise, or the scatter of the pairs if that is larger.")
    chi2_per_dof: float
    blur_arcsec: float = Field(description="Seeing.")
    aberration_fwhm_arcsec: float = Field(description="What the aberrations add to it in quadrature.")


class FieldWavefront(_Document):
    """The wavefront over the field; see `payloads.focus.field.FieldFit`. One row per field term."""

    coefficients_um: list[list[float]]
    errors_um: list[list[float]]
    rms_um: list[float | None]
    focus_offset_um: float = Field(description="From the mean Z4: how far beyond focus the detectors are.")
    focus_offset_error_um: float
    aberration_fwhm_arcsec: float = Field(description="Of the mean wavefront.")


class JointReport(_Document):
    """What came of the joint fits."""

    optics: str
    band: str
    noll: list[int] = Field(default_factory=lambda: list(NOLL))
    sites: list[SiteWavefront]
    field: FieldWavefront | None
    n_pairs: int
    n_pairs_possible: int
    notes: list[str] = Field(default_factory=list, description="Pairs that failed and why.")


@dataclass(frozen=True)
class FittedPair:
    """An extra- and an intra-focal donut and their joint fit."""

    site: str
    extra: FittedDonut
    intra: FittedDonut
    fit: WavefrontFit


def pair_donuts(
    extra: tuple[FittedDonut, ...], intra: tuple[FittedDonut, ...], n_pairs: int
) -> list[tuple[FittedDonut, FittedDonut]]:
    """Return which donuts to fit together, brightest first.

    The same star if it can be found, as in two exposures of one detector; else the next brightest: stars of one site
    share the aberrations, and what the perfect telescope does differently between them is in the model.
    """
    left = list(intra)
    pairs = []
    for donut in extra[:n_pairs]:
        if not left:
            break
        near = min(left, key=lambda other: math.hypot(other.x - donut.x, other.y - donut.y))
        partner = near if math.hypot(near.x - donut.x, near.y - donut.y) < SAME_STAR_PX else left[0]
        left.remove(partner)
        pairs.append((donut, partner))
    return pairs


def fit_pair(site: str, extra: FittedDonut, intra: FittedDonut, *, optics: str, band: str) -> FittedPair:
    """Fit one wavefront to two donuts, from what each alone gave."""
    fit = fit_wavefront(
        [extra.stamp, intra.stamp],
        camera=optics,
        band=band,
        seeing_arcsec=0.5 * (extra.fwhm_arcsec + intra.fwhm_arcsec),
        start_um=0.5 * (extra.zernikes_um + intra.zernikes_um),
    )
    return FittedPair(site, extra, intra, fit)


def spread_over(names: list[str]) -> list[str]:
    """Return names in an order in which any first part is spread over the whole.

    Examples
    --------
    >>> spread_over(list("abcdefgh"))
    ['a', 'e', 'c', 'g', 'b', 'f', 'd', 'h']
    """
    bits = max(len(names) - 1, 1).bit_length()
    return [names[k] for k in sorted(range(len(names)), key=lambda k: int(f"{k:0{bits}b}"[::-1], 2))]


def _rounds(pairs: dict[str, list[tuple[FittedDonut, FittedDonut]]]) -> Iterator[tuple[str, FittedDonut, FittedDonut]]:
    """Yield the first pair of every site, then the second of every site, ..."""
    order = spread_over(sorted(pairs))
    for place in itertools.count():
        if all(place >= len(found) for found in pairs.values()):
            return
        for name in order:
            if place < len(pairs[name]):
                yield (name, *pairs[name][place])


def site_of(name: str, pairs: list[FittedPair]) -> SiteWavefront:
    """Return the mean wavefront of a site's pairs."""
    zernikes, errors = mean_wavefront([pair.fit for pair in pairs])
    stamps = [donut.stamp for pair in pairs for donut in (pair.extra, pair.intra)]
    return SiteWavefront(
        name=name,
        thx_deg=math.degrees(sum(stamp.thx_rad for stamp in stamps) / len(stamps)),
        thy_deg=math.degrees(sum(stamp.thy_rad for stamp in stamps) / len(stamps)),
        n_pairs=len(pairs),
        zernikes_um=zernikes.tolist(),
        errors_um=errors.tolist(),
        chi2_per_dof=float(np.median([pair.fit.chi2_per_dof for pair in pairs])),
        blur_arcsec=float(np.median([fwhm for pair in pairs for fwhm in pair.fit.fwhm_arcsec])),
        aberration_fwhm_arcsec=fwhm_of_zernikes(NOLL, zernikes),
    )


def field_of(sites: list[SiteWavefront], *, optics: str, band: str) -> FieldWavefront:
    """Return the wavefront over the field through some sites."""
    fit = fit_field(
        np.array([site.thx_deg for site in sites]),
        np.array([site.thy_deg for site in sites]),
        np.array([site.zernikes_um for site in sites]),
        np.array([site.errors_um for site in sites]),
    )
    mean: NDArray[np.float64] = fit.coefficients_um[0]
    slope = z4_um_per_mm(optics, band) / 1000.0
    return FieldWavefront(
        coefficients_um=fit.coefficients_um.tolist(),
        errors_um=fit.errors_um.tolist(),
        rms_um=[float(value) if math.isfinite(value) else None for value in fit.rms_um],
        focus_offset_um=float(mean[0] / slope),
        focus_offset_error_um=float(fit.errors_um[0, 0] / slope),
        aberration_fwhm_arcsec=fwhm_of_zernikes(NOLL, mean),
    )


def fit_sites(
    files: dict[str, tuple[DonutFile, DonutFile]], *, n_pairs: int = 3, budget_s: float = 120.0
) -> tuple[JointReport, list[FittedPair]]:
    """Fit the pairs of all sites, as far as the time goes, and the field.

    Parameters
    ----------
    files
        By site, the extra- and the intra-focal donuts.
    n_pairs
        Pairs per site.
    budget_s
        No further pair is begun after this; every site's first pair comes before any site's second.

    Raises
    ------
    ValueError
        Raised if files are of different optics or filters.
    """
    kinds = {(file.optics, file.band) for both in files.values() for file in both}
    if len(kinds) != 1:
        raise ValueError(f"donuts of different optics or filters: {sorted(kinds)}")
    ((optics, band),) = kinds
    pairs = {name: pair_donuts(extra.donuts, intra.donuts, n_pairs) for name, (extra, intra) in files.items()}
    n_possible = sum(len(found) for found in pairs.values())
    begin = time.monotonic()
    fitted: list[FittedPair] = []
    notes: list[str] = []
    for name, extra, intra in _rounds(pairs):
        if time.monotonic() - begin > budget_s:
            notes.append(f"{n_possible - len(fitted) - len(notes)} pairs left out: {budget_s:g} s are over")
            break
        try:
            pair = fit_pair(name, extra, intra, optics=optics, band=band)
        except (PayloadError, ArithmeticError, np.linalg.LinAlgError) as error:
            notes.append(f"{name}: {error}")
            continue
        if pair.fit.converged:
            fitted.append(pair)
        else:
            notes.append(f"{name}: a fit did not come to rest")
    sites = [site_of(name, mine) for name in sorted(files) if (mine := [pair for pair in fitted if pair.site == name])]
    return (
        JointReport(
            optics=optics,
            band=band,
            sites=sites,
            field=field_of(sites, optics=optics, band=band) if sites else None,
            n_pairs=len(fitted),
            n_pairs_possible=n_possible,
            notes=notes,
        ),
        fitted,
    )


def _end_with_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def main(arguments: list[str]) -> int:
    """Read a `JointInput` from a file; write a `JointReport` to standard output, and the plots to its folder.

    With ``--while-input`` it ends when its standard input does: nobody is left to read the answer.
    """
    if not arguments or arguments[1:] not in ([], ["--while-input"]):
        sys.stderr.write("usage: python -m payloads.focus.joint REQUEST.json [--while-input]\n")
        return 2
    os.nice(NICE)
    request = JointInput.model_validate_json(Path(arguments[0]).read_bytes())
    if arguments[1:]:
        threading.Thread(target=_end_with_input, daemon=True).start()
    files = {
        site.name: (from_fits(site.extra.read_bytes()), from_fits(site.intra.read_bytes())) for site in request.sites
    }
    report, pairs = fit_sites(files, n_pairs=request.n_pairs, budget_s=request.budget_s)
    if report.field is not None:
        from payloads.focus.wavefront_plot import plot_donuts, plot_wavefront

        (request.folder / "wavefront.png").write_bytes(plot_wavefront(report, title=request.title))
        (request.folder / "wavefront_donuts.png").write_bytes(plot_donuts(pairs, title=request.title))
    sys.stdout.write(report.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
