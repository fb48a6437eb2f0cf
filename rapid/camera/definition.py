"""How a camera is written down, and how that becomes a `Camera`.

A definition is a YAML file. Kinds of CCD are described once (``ccd_types``); detectors refer to their kind and
are listed in the file or in a CSV table beside it. A camera may also be derived from another one: ``base``
with ``only`` (rafts, detector names or numbers to keep), ``scale_down`` (divide pixel numbers), and new
values for the simple fields.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rapid.camera.models import Amp, Box, Camera, Detector, Purpose

FALLBACK_SATURATION_E = 130_000.0
"""Full well where a definition gives none: typical of the 10 um CCDs this is for."""


class _Definition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Electronics(_Definition):
    """Nominal electronics of an amp."""

    gain: float = Field(gt=0, description="[electron/ADU]")
    read_noise: float = Field(ge=0, description="[electron]")
    saturation_e: float = Field(gt=0, description="[electron]")


class AmpShape(_Definition):
    """Pixels of a raw segment."""

    data_width: int = Field(gt=0)
    data_height: int = Field(gt=0)
    serial_prescan: int = Field(ge=0)
    serial_overscan: int = Field(ge=0)
    parallel_overscan: int = Field(ge=0)


class AmpRow(_Definition):
    """A row of amps, in the order of their HDUs."""

    amps: tuple[str, ...] = Field(min_length=1)
    row: int = Field(ge=0)
    columns: Literal["ascending", "descending"]
    flip_x: bool
    flip_y: bool


class CcdType(_Definition):
    """A kind of CCD."""

    pixel_mm: float = Field(gt=0)
    amp: AmpShape
    rows: tuple[AmpRow, ...] = Field(min_length=1)
    electronics: Electronics = Electronics(gain=1.5, read_noise=6.0, saturation_e=FALLBACK_SATURATION_E)

    @model_validator(mode="after")
    def _rows_agree(self) -> "CcdType":
        if len({len(row.amps) for row in self.rows}) != 1:
            raise ValueError("rows must have the same number of amps")
        names = [name for row in self.rows for name in row.amps]
        if len(set(names)) != len(names):
            raise ValueError("an amp is named twice")
        if sorted(row.row for row in self.rows) != list(range(len(self.rows))):
            raise ValueError("rows must be numbered 0, 1, ... from the lower edge")
        return self

    @property
    def width(self) -> int:
        """Trimmed columns [px]."""
        return self.amp.data_width * len(self.rows[0].amps)

    @property
    def height(self) -> int:
        """Trimmed rows [px]."""
        return self.amp.data_height * len(self.rows)

    def scaled_down(self, factor: int) -> "CcdType":
        """Return this kind of CCD with fewer pixels of the same size on the sky as before times ``factor``."""

        def fewer(pixels: int, least: int) -> int:
            return max(pixels // factor, min(pixels, least))

        amp = AmpShape(
            data_width=fewer(self.amp.data_width, 8),
            data_height=fewer(self.amp.data_height, 8),
            serial_prescan=fewer(self.amp.serial_prescan, 1),
            # Enough overscan must be left for a robust median.
            serial_overscan=fewer(self.amp.serial_overscan, 12),
            parallel_overscan=fewer(self.amp.parallel_overscan, 12),
        )
        return self.model_copy(update={"amp": amp, "pixel_mm": self.pixel_mm * factor})

    def make_amps(self, electronics: dict[str, Electronics]) -> tuple[Amp, ...]:
        """Return the amps of a CCD of this kind, with an individual's electronics where given."""
        shape = self.amp
        raw_width = shape.serial_prescan + shape.data_width + shape.serial_overscan
        raw_height = shape.data_height + shape.parallel_overscan
        data = Box(x0=shape.serial_prescan, y0=0, width=shape.data_width, height=shape.data_height)
        serial = (
            Box(x0=data.x1, y0=0, width=shape.serial_overscan, height=shape.data_height)
            if shape.serial_overscan
            else None
        )
        parallel = (
            Box(x0=data.x0, y0=data.y1, width=shape.data_width, height=shape.parallel_overscan)
            if shape.parallel_overscan
            else None
        )
        amps: list[Amp] = []
        for row in self.rows:
            for place, name in enumerate(row.amps):
                column = place if row.columns == "ascending" else len(row.amps) - 1 - place
                values = electronics.get(name, self.electronics)
                amps.append(
                    Amp(
                        name=name,
                        hdu=len(amps) + 1,
                        raw_width=raw_width,
                        raw_height=raw_height,
                        data=data,
                        serial_overscan=serial,
                        parallel_overscan=parallel,
                        flip_x=row.flip_x,
                        flip_y=row.flip_y,
                        trimmed=Box(
                            x0=column * shape.data_width,
                            y0=row.row * shape.data_height,
                            width=shape.data_width,
                            height=shape.data_height,
                        ),
                        gain=values.gain,
                        read_noise=values.read_noise,
                        saturation=values.saturation_e / values.gain,
                    )
                )
        return tuple(amps)


class DetectorRow(_Definition):
    """One detector, as listed in YAML or in a CSV table."""

    id: int = Field(ge=0)
    name: str = Field(pattern=r"^[A-Za-z0-9]+_[A-Za-z0-9]+$")
    purpose: Purpose = Purpose.SCIENCE
    physical_type: str
    vendor: str = ""
    serial: str = ""
    x_mm: float
    y_mm: float
    z_mm: float = 0.0
    n_quarter: int = Field(default=0, ge=0, le=3)


class AmpElectronicsRow(Electronics):
    """Electronics of one amp, as listed in a CSV table."""

    detector: int
    amp: str


class CameraDefinition(_Definition):
    """A camera as written down, tables already read in."""

    name: str
    aliases: tuple[str, ...] = ()
    code: str
    translator: str = "lsst"
    raw_format: str = "fits"
    plate_scale_arcsec_per_mm: float
    radial_coefficients: tuple[float, ...] = (0.0, 1.0)
    f_ratio: float
    unvignetted_radius_deg: float | None = None
    latitude_deg: float = 0.0
    longitude_deg: float = 0.0
    elevation_m: float = 0.0
    filters: tuple[str, ...] = ()
    witness_detector: int
    ccd_types: dict[str, CcdType] = Field(min_length=1)
    other_types: tuple[str, ...] = Field(default=(), description="Kinds a detector may turn out to be, by its raw.")
    detectors: tuple[DetectorRow, ...] = Field(min_length=1)
    amps: tuple[AmpElectronicsRow, ...] = ()

    @model_validator(mode="after")
    def _names_agree(self) -> "CameraDefinition":
        for kind in [*(row.physical_type for row in self.detectors), *self.other_types]:
            if kind not in self.ccd_types:
                raise ValueError(f"physical_type {kind} is not among ccd_types")
        for what in ("id", "name"):
            values = [getattr(row, what) for row in self.detectors]
            if len(set(values)) != len(values):
                raise ValueError(f"two detectors have the same {what}")
        if self.witness_detector not in {row.id for row in self.detectors}:
            raise ValueError(f"witness_detector {self.witness_detector} is not among the detectors")
        return self

    def derived(self, changes: dict[str, Any]) -> "CameraDefinition":
        """Return a definition based on this one.

        Parameters
        ----------
        changes
            New values of simple fields, and ``only`` and ``scale_down`` as in the module docstring.

        Raises
        ------
        ValueError
            Raised if ``only`` keeps nothing, or ``scale_down`` is not a positive whole number.
        """
        changes = dict(changes)
        only, factor = changes.pop("only", None), changes.pop("scale_down", 1)
        if not isinstance(factor, int) or factor < 1:
            raise ValueError("scale_down must be a positive whole number")
        rows = self.detectors
        if only is not None:
            wanted = {str(item) for item in (only if isinstance(only, list) else [only])}
            rows = tuple(r for r in rows if {r.name, r.name.split("_")[0], str(r.id)} & wanted)
            if not rows:
                raise ValueError(f"only {sorted(wanted)} keeps no detector")
        witness = changes.get("witness_detector", self.witness_detector)
        if witness not in {row.id for row in rows} and "witness_detector" not in changes:
            changes["witness_detector"] = rows[len(rows) // 2].id
        types = {name: kind.scaled_down(factor) for name, kind in self.ccd_types.items()}
        document = {**self.model_dump(), "ccd_types": types, "detectors": rows, **changes}
        return CameraDefinition.model_validate(document)

    def to_camera(self) -> Camera:
        """Return the camera this definition describes."""
        electronics: dict[int, dict[str, Electronics]] = {}
        for entry in self.amps:
            electronics.setdefault(entry.detector, {})[entry.amp] = entry
        detectors = [self._detector(row, row.physical_type, electronics.get(row.id, {})) for row in self.detectors]
        variants = {kind: tuple(self._detector(row, kind, {}) for row in self.detectors) for kind in self.other_types}
        simple = self.model_dump(exclude={"ccd_types", "detectors", "amps", "other_types"})
        return Camera(**simple, detectors=tuple(detectors), variants=variants)

    def _detector(self, row: DetectorRow, kind: str, electronics: dict[str, Electronics]) -> Detector:
        ccd = self.ccd_types[kind]
        raft, slot = row.name.split("_")
        facts = row.model_dump()
        facts["physical_type"] = kind
        if kind != row.physical_type:
            facts["vendor"] = kind.split("_")[0]
        return Detector(
            **facts,
            raft=raft,
            slot=slot,
            width=ccd.width,
            height=ccd.height,
            pixel_mm=ccd.pixel_mm,
            amps=ccd.make_amps(electronics),
        )
