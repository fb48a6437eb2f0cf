"""What is said about focus and wavefront. Lengths along the light in mm or µm, wavefronts in µm, positive beyond focus."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SweepPoint(_Answer):
    """One exposure of a focus sweep."""

    exposure_id: int
    seq_num: int
    begin: datetime | None = Field(default=None, description="Start of the exposure, TAI.")
    z_mm: float | None = Field(default=None, description="FOCUSZ; None if the header does not tell.")
    fwhm_arcsec: float | None = Field(default=None, description="Median over the detectors.")
    fwhm_scatter_arcsec: float | None = Field(default=None, description="Scatter over the detectors.")
    e1: float | None = None
    e2: float | None = None
    n_finished: int
    n_expected: int
    is_used: bool = Field(default=False, description="Whether the curve goes by it; False for outliers.")


class Astigmatism(_Answer):
    """How the image's elongation passes through focus; see `payloads.focus.astigmatism`."""

    slope_arcsec2_per_mm: list[float] = Field(description="d(Ixx - Iyy)/dz and d(2 Ixy)/dz: like Z6 and Z5.")
    slope_error_arcsec2_per_mm: list[float]
    zero_mm: list[float | None] = Field(description="Where each component vanishes; None if it does not change.")


class FocusSweep(_Answer):
    """A focus sweep: its points, and the best focus that the gather found."""

    group_id: str
    physical_filter: str | None = None
    object_name: str | None = None
    points: list[SweepPoint] = Field(description="In the order they were taken.")
    best_focus_mm: float | None = None
    best_focus_error_mm: float | None = None
    best_fwhm_arcsec: float | None = None
    is_outside_sweep: bool = Field(
        default=False, description="Best focus lies beyond the positions that were tried: believe its direction only."
    )
    note: str | None = Field(default=None, description="Why there is no best focus.")
    curve: list[tuple[float, float]] = Field(default_factory=list, description="The fit: mm, arcsec.")
    astigmatism: Astigmatism | None = None
    plot: str | None = Field(default=None, description="Key of the gather's plot under /products/.")


class DonutSide(_Answer):
    """One exposure with donuts."""

    exposure_id: int
    seq_num: int
    begin: datetime | None = None
    z_mm: float | None = None
    diameter_px: float | None = Field(default=None, description="Median over donuts and detectors.")
    defocus_residual_um: float | None = Field(default=None, description="Measured defocus less the commanded one.")
    defocus_residual_scatter_um: float | None = None
    n_donuts: float | None = Field(default=None, description="Per detector.")
    n_finished: int
    n_expected: int


class DonutPair(_Answer):
    """Exposures on both sides of focus that belong together."""

    group_id: str
    physical_filter: str | None = None
    sides: list[DonutSide]
    focus_offset_um: float | None = Field(default=None, description="From the two diameters.")
    is_complete: bool = Field(description="Whether both sides have been measured.")


class SiteView(_Answer):
    """The wavefront at one place of the field."""

    name: str = Field(description="A corner raft, or a detector.")
    x_deg: float
    y_deg: float
    zernikes_um: list[float]
    errors_um: list[float]
    n_pairs: int
    chi2_per_dof: float | None = None
    blur_arcsec: float | None = Field(default=None, description="Seeing.")
    aberration_fwhm_arcsec: float | None = Field(default=None, description="What the aberrations add in quadrature.")


class WavefrontView(_Answer):
    """The joint wavefront of an exposure, or of it and its partner on the other side of focus."""

    exposure_id: int
    partner_id: int | None = None
    seq_num: int
    pipeline: str
    version: int
    begin: datetime | None = None
    physical_filter: str | None = None
    focus_offset_um: float | None = None
    focus_offset_error_um: float | None = None
    aberration_fwhm_arcsec: float | None = Field(default=None, description="Of the mean wavefront over the field.")
    n_pairs: int | None = None
    n_pairs_possible: int | None = None
    n_sites: int | None = None
    noll: list[int] = Field(description="Noll indices of the Zernikes, in order.")
    zernikes_um: list[float | None] = Field(description="Of the global fit, at the centre of the field.")
    errors_um: list[float | None]
    note: str | None = Field(default=None, description="Pairs that failed and why.")
    report: str | None = Field(default=None, description="Key of the whole report under /products/.")
    plots: dict[str, str] = Field(default_factory=dict, description="Keys of the plots, by kind.")


class WavefrontDetail(WavefrontView):
    """With the places of the field."""

    sites: list[SiteView]
    field_terms_um: list[list[float]] = Field(
        default_factory=list, description="Global fit: a row for each term over the field, a column for each Zernike."
    )
    field_errors_um: list[list[float]] = Field(default_factory=list)


class FocusPoint(_Answer):
    """A focus measurement of the night, whatever it is from."""

    exposure_id: int
    seq_num: int
    begin: datetime | None = None
    kind: str = Field(description="sweep, pair or wavefront.")
    focus_offset_um: float = Field(description="How far best focus lies from where the camera was commanded.")
    error_um: float | None = None


class FocusNight(_Answer):
    """Focus and wavefront of a night, newest first."""

    day_obs: int
    sweeps: list[FocusSweep]
    pairs: list[DonutPair]
    wavefronts: list[WavefrontView]
    history: list[FocusPoint] = Field(description="In order of time.")
