"""What the metrics are: unit and meaning of each, as data.

A metric that the list does not have gets its unit from the ending of its name (``psf_fwhm_arcsec``), so that a payload of
somebody else has units without a change here.
"""

from functools import cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict

SUFFIXES = {
    "arcsec": "arcsec",
    "px": "pix",
    "um": "um",
    "mm": "mm",
    "nm": "nm",
    "deg": "deg",
    "s": "s",
    "ms": "ms",
    "mb": "Mbyte",
    "adu": "adu",
    "e": "electron",
    "electron": "electron",
    "electrons": "electron",
    "mag": "mag",
    "percent": "%",
    "bytes": "byte",
    "e_per_s": "electron / s",
    "electron_per_s": "electron / s",
    "e_per_adu": "electron / adu",
    "electron_per_adu": "electron / adu",
    "rad": "rad",
    "hpa": "hPa",
    "degc": "deg_C",
}
"""Endings of names, and the unit they stand for, as astropy spells it."""

STATISTICS = frozenset(
    {"median", "mean", "scatter", "min", "max", "total", "error", "stdev", "rms", "spread", "p10", "p90"}
)
"""Endings that say which number of many; the unit is that of what stands before."""


class MetricFacts(BaseModel):
    """What a metric is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str = ""
    description: str = ""


@cache
def metric_catalogue() -> dict[str, MetricFacts]:
    """Return the metrics that are described, by name."""
    text = (resources.files("rapid.sinks") / "data" / "metrics.yaml").read_text(encoding="utf-8")
    return {name: MetricFacts.model_validate(facts) for name, facts in yaml.safe_load(text).items()}


@cache
def unit_of(name: str) -> str:
    """Return the unit of a metric as astropy spells it; empty for a plain number, or if nobody said.

    Examples
    --------
    >>> unit_of("psf_fwhm_arcsec_median"), unit_of("n_stars"), unit_of("dark_current_e_per_s")
    ('arcsec', '', 'electron / s')
    """
    known = metric_catalogue().get(name)
    if known is not None:
        return known.unit
    words = name.lower().split("_")
    while len(words) > 1 and words[-1] in STATISTICS:
        words.pop()
    if words[0] == "n":
        return ""
    base = "_".join(words)
    if base != name and (known := metric_catalogue().get(base)) is not None:
        return known.unit
    for n_words in (3, 1):
        ending = "_".join(words[-n_words:])
        if len(words) > n_words and ending in SUFFIXES:
            return SUFFIXES[ending]
    return ""
