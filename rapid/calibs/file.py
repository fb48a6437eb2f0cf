"""A calib as a file: plain, uncompressed FITS that anything reads.

Primary HDU: the image. Extensions, as far as there is something for them: ``VARIANCE`` (float32, of the image, its unit
squared), ``COUNTS`` (int16, exposures that each pixel is the mean of), ``AMPTABLE`` (numbers per amp: columns AMP, NAME,
VALUE). Keys of the header: INSTRUME, DETECTOR, CALTYPE, FILTER, VALIDBEG (TAI), NINPUT, INPnnnnn, and the provenance.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from rapid.results.headers import add_provenance
from rapid.results.models import Provenance

Table = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class CalibFacts:
    """What a calib's file says beside its planes.

    Attributes
    ----------
    table
        Numbers by amp name: gains, coefficients, nodes of a curve.
    """

    kind: str
    camera: str
    detector: int
    valid_from: datetime
    physical_filter: str | None = None
    table: Table = field(default_factory=dict)
    inputs: tuple[int, ...] = ()
    provenance: Provenance | None = None


def write_calib(
    facts: CalibFacts,
    image: NDArray[np.float32],
    variance: NDArray[np.float32] | None = None,
    counts: NDArray[np.integer[Any]] | None = None,
) -> bytes:
    """Return the file's bytes; the same for the same calib.

    Parameters
    ----------
    image, variance : ndarray of shape (height, width), float32
    counts : ndarray of shape (height, width), integer
    """
    primary = fits.PrimaryHDU(np.ascontiguousarray(image, dtype=np.float32))
    header = primary.header
    header["INSTRUME"] = facts.camera
    header["DETECTOR"] = facts.detector
    header["CALTYPE"] = (facts.kind, "kind of calibration")
    if facts.physical_filter:
        header["FILTER"] = facts.physical_filter
    header["VALIDBEG"] = (facts.valid_from.isoformat(), "TAI, start of validity")
    header["NINPUT"] = (len(facts.inputs), "exposures combined")
    for place, exposure_id in enumerate(sorted(facts.inputs), start=1):
        header[f"INP{place:05d}"] = exposure_id
    if facts.provenance is not None:
        add_provenance(header, facts.provenance)
    hdus = fits.HDUList([primary])
    if variance is not None:
        hdus.append(fits.ImageHDU(np.ascontiguousarray(variance, dtype=np.float32), name="VARIANCE"))
    if counts is not None:
        hdus.append(fits.ImageHDU(np.ascontiguousarray(counts, dtype=np.int16), name="COUNTS"))
    if facts.table:
        hdus.append(_table_hdu(facts.table))
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    return buffer.getvalue()


def _table_hdu(table: Table) -> fits.BinTableHDU:
    rows = [(amp, name, float(value)) for amp in sorted(table) for name, value in sorted(table[amp].items())]
    width = [max((len(row[column]) for row in rows), default=1) or 1 for column in (0, 1)]  # type: ignore[arg-type] # both are text
    return fits.BinTableHDU.from_columns(
        [
            fits.Column(name="AMP", format=f"{width[0]}A", array=[row[0] for row in rows]),
            fits.Column(name="NAME", format=f"{width[1]}A", array=[row[1] for row in rows]),
            fits.Column(name="VALUE", format="D", array=np.array([row[2] for row in rows], dtype=np.float64)),
        ],
        name="AMPTABLE",
    )


def read_table(hdus: fits.HDUList) -> dict[str, dict[str, float]]:
    """Return the numbers per amp of an open file; those of files of earlier versions are in a header key."""
    text = hdus[0].header.get("AMPTABLE")
    if isinstance(text, str):
        found: dict[str, dict[str, float]] = json.loads(text)
        return found
    table: dict[str, dict[str, float]] = {}
    if "AMPTABLE" in hdus:
        data = hdus["AMPTABLE"].data
        for amp, name, value in zip(data["AMP"], data["NAME"], data["VALUE"], strict=True):
            table.setdefault(str(amp).strip(), {})[str(name).strip()] = float(value)
    return table


def read_planes(data: bytes) -> dict[str, NDArray[np.float32]]:
    """Return image, and variance if there is one, as native float32."""
    with fits.open(io.BytesIO(data)) as hdus:
        planes = {"image": hdus[0].data}
        if "VARIANCE" in hdus:
            planes["variance"] = hdus["VARIANCE"].data
        return {name: np.ascontiguousarray(plane.astype(np.float32)) for name, plane in planes.items()}
