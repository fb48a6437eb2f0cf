"""What a camera is: detectors, where they sit, and how their amps are read.

Cameras are data. These models describe any mosaic of CCDs; `rapid.camera.store` fills them from the
definitions that come with the package or that a site adds as YAML.

Frames
------
Raw amp pixels are indexed ``[y, x]`` as stored in the file: serial direction along x, prescan first.
Trimmed detector pixels have their origin at the lower left in the DM orientation (C00 at the lower
left, C10 above it). Focal-plane millimetres are DVCS: x to the right, y up, R22_S11 at the origin.
"""

from enum import StrEnum
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field


class Purpose(StrEnum):
    """What a detector is for."""

    SCIENCE = "SCIENCE"
    GUIDER = "GUIDER"
    WAVEFRONT = "WAVEFRONT"


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Box(_Fact):
    """A rectangle of pixels; `x1` and `y1` are one past the last pixel."""

    x0: int = Field(ge=0)
    y0: int = Field(ge=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)

    @property
    def x1(self) -> int:
        """First column right of the box."""
        return self.x0 + self.width

    @property
    def y1(self) -> int:
        """First row above the box."""
        return self.y0 + self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this box in an array ``[y, x]``."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


class Amp(_Fact):
    """One amplifier: its place in the raw file, in the detector, and its electronics."""

    name: str = Field(description="Field's name, e.g. C10; the file's extension is Segment10.")
    hdu: int = Field(ge=1, description="Position of the segment among the image HDUs of a raw, from 1.")
    raw_width: int = Field(gt=0, description="Columns in the raw segment [px].")
    raw_height: int = Field(gt=0, description="Rows in the raw segment [px].")
    data: Box = Field(description="Imaging pixels in the raw segment.")
    serial_overscan: Box | None = Field(description="Serial overscan columns, over the imaging rows.")
    parallel_overscan: Box | None = Field(description="Parallel overscan rows, over the imaging columns.")
    flip_x: bool = Field(description="Raw columns run against detector x.")
    flip_y: bool = Field(description="Raw rows run against detector y.")
    trimmed: Box = Field(description="Where the imaging pixels go in the trimmed detector image.")
    gain: float = Field(gt=0, description="Nominal gain [electron/ADU].")
    read_noise: float = Field(ge=0, description="Nominal read noise [electron].")
    saturation: float = Field(gt=0, description="Nominal saturation level [ADU above bias].")


class Detector(_Fact):
    """One CCD."""

    id: int = Field(ge=0, description="Detector number, unique in the camera.")
    name: str = Field(description="Name, e.g. R22_S11.")
    raft: str
    slot: str
    purpose: Purpose
    physical_type: str = Field(description="E2V, ITL, ITL_G, ITL_WF, ...")
    vendor: str
    serial: str = Field(default="", description="Manufacturer's serial, as in the LSST_NUM header.")
    x_mm: float = Field(description="Centre in the focal plane [mm].")
    y_mm: float = Field(description="Centre in the focal plane [mm].")
    z_mm: float = Field(default=0.0, description="Height above the focal plane [mm]; +-1.5 for wavefront halves.")
    n_quarter: int = Field(
        default=0,
        ge=0,
        le=3,
        description="Quarter turns, counter-clockwise, from the detector to the focal-plane frame.",
    )
    width: int = Field(gt=0, description="Trimmed columns [px].")
    height: int = Field(gt=0, description="Trimmed rows [px].")
    pixel_mm: float = Field(gt=0, description="Pixel pitch [mm].")
    amps: tuple[Amp, ...] = Field(min_length=1)

    @cached_property
    def amp_by_name(self) -> dict[str, Amp]:
        """Amps by field's name."""
        return {amp.name: amp for amp in self.amps}

    @property
    def focal_plane_size_mm(self) -> tuple[float, float]:
        """Width and height in the focal plane, after its quarter turns [mm]."""
        w, h = self.width * self.pixel_mm, self.height * self.pixel_mm
        return (h, w) if self.n_quarter % 2 else (w, h)


class Camera(_Fact):
    """A camera and its detectors."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")
    aliases: tuple[str, ...] = Field(default=(), description="Other spellings of INSTRUME, compared without case.")
    code: str = Field(pattern=r"^[A-Z]{2}$", description="Two letters that begin the obs id, e.g. MC.")
    translator: str = Field(default="lsst", description="Header translator that reads its raws.")
    raw_format: str = Field(default="fits", description="How its raws are named and read: an entry of rapid.formats.")
    plate_scale_arcsec_per_mm: float = Field(gt=0)
    radial_coefficients: tuple[float, ...] = Field(
        default=(0.0, 1.0),
        description="Distortion: field angle / plate scale as a polynomial of the radius, r in mm, from power 0 on.",
    )
    f_ratio: float = Field(gt=0)
    unvignetted_radius_deg: float | None = Field(
        default=None, gt=0, le=90, description="Field radius beyond which the telescope cuts the beam [deg]."
    )
    latitude_deg: float = 0.0
    longitude_deg: float = 0.0
    elevation_m: float = 0.0
    filters: tuple[str, ...] = ()
    witness_detector: int = Field(description="Detector shown when one stands for all.")
    detectors: tuple[Detector, ...] = Field(min_length=1)
    variants: dict[str, tuple[Detector, ...]] = Field(
        default_factory=dict,
        description="The same detectors as other kinds of CCD, for stands that tested both vendors'.",
    )

    @cached_property
    def by_id(self) -> dict[int, Detector]:
        """Detectors by number."""
        return {detector.id: detector for detector in self.detectors}

    @cached_property
    def by_name(self) -> dict[str, Detector]:
        """Detectors by name."""
        return {detector.name: detector for detector in self.detectors}

    @cached_property
    def science_ids(self) -> frozenset[int]:
        """Numbers of the science detectors."""
        return frozenset(d.id for d in self.detectors if d.purpose is Purpose.SCIENCE)

    def detector(self, detector_id: int, *, physical_type: str | None = None) -> Detector | None:
        """Return a detector by number, as the kind of CCD its raw tells of if that can differ here."""
        found = self.by_id.get(detector_id)
        if found is None or physical_type in {None, found.physical_type}:
            return found
        others = self.variants.get(str(physical_type), ())
        return next((other for other in others if other.id == detector_id), found)

    @property
    def pixel_scale_arcsec(self) -> float:
        """Size of a pixel of the first detector on the sky [arcsec]."""
        return self.plate_scale_arcsec_per_mm * self.detectors[0].pixel_mm
