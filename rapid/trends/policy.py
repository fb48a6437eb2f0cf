"""What change of which number matters: data, not code.

``policy.yaml`` comes with the package; a site names files of its own, whose entries are asked first, in
``RAPID_TREND_POLICY`` (paths separated by colons).
"""

import os
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from payloads.trend.decompose import Scale
from payloads.trend.search import SearchConfig
from rapid.errors import ConfigurationError

DEFAULT = Path(__file__).parent / "policy.yaml"
VARIABLE = "RAPID_TREND_POLICY"

UNITS = (
    ("_e_per_s", "electron/s"),
    ("_electron_per_adu", "electron/adu"),
    ("_e_per_adu", "electron/adu"),
    ("_electron", "electron"),
    ("_adu", "adu"),
    ("_e", "electron"),
    ("_px", "pixel"),
    ("_arcsec", "arcsec"),
    ("_mm", "mm"),
    ("_um", "um"),
    ("_s", "s"),
    ("_percent", "percent"),
)
"""Units by the end of a number's name, in the spelling of astropy.units."""


def unit_of(metric: str) -> str:
    """Return a number's unit as its name says it; empty for a ratio or a count.

    Examples
    --------
    >>> unit_of("dark_current_e_per_s"), unit_of("n_hot_px"), unit_of("flat_scatter")
    ('electron/s', 'pixel', '')
    """
    return next((unit for end, unit in UNITS if metric.endswith(end)), "")


class MetricPolicy(BaseModel):
    """How one kind of number is compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str = Field(min_length=1, max_length=128, description="Name of the number; * and ? stand for any.")
    image_types: tuple[str, ...] = Field(default=(), description="Only of these; of all if empty.")
    scale: Scale = Scale.DIFFERENCE
    min_change: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="Smallest change worth an alarm.")
    alarms: bool = True
    sigma: float = Field(default=9.0, ge=4, le=100, description="Significance a step or drift needs.")
    outlier_sigma: float = Field(default=10.0, ge=4, le=1000, description="The same for a single bad exposure.")
    reason: str = Field(min_length=1, description="Why so.")

    def fits(self, metric: str, image_type: str) -> bool:
        """Return whether it is for a number."""
        return fnmatchcase(metric, self.pattern) and (not self.image_types or image_type in self.image_types)

    @property
    def search(self) -> SearchConfig:
        """What counts as a change."""
        return SearchConfig(
            step_sigma=self.sigma,
            drift_sigma=self.sigma,
            outlier_sigma=self.outlier_sigma,
            min_change=self.min_change,
        )


class TrendPolicy(BaseModel):
    """Entries in the order in which they are asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: tuple[MetricPolicy, ...]

    def of(self, metric: str, image_type: str) -> MetricPolicy:
        """Return the entry for a number."""
        for entry in self.metrics:
            if entry.fits(metric, image_type):
                return entry
        return MetricPolicy(pattern="*", reason="no entry fits")


def load_policy(*paths: Path) -> TrendPolicy:
    """Return the policy of some files, then that of the package.

    Raises
    ------
    ConfigurationError
        Raised, naming file and field, for a file that is missing or not valid.
    """
    entries: list[MetricPolicy] = []
    for path in (*paths, DEFAULT):
        try:
            read = yaml.safe_load(path.read_text(encoding="utf-8"))
            entries += TrendPolicy.model_validate(read).metrics
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigurationError(VARIABLE, f"{path} cannot be read: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(VARIABLE, f"{path}: {field}: {first['msg']}") from error
    return TrendPolicy(metrics=tuple(entries))


@lru_cache(maxsize=4)
def _policy_of(text: str) -> TrendPolicy:
    return load_policy(*(Path(part) for part in text.split(":") if part))


def site_policy() -> TrendPolicy:
    """Return the policy of this installation."""
    return _policy_of(os.environ.get(VARIABLE, ""))
