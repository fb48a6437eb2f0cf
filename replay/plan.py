"""Plan a night: what is taken, when, under which sky.

A plan is a few blocks, in YAML or as parameters; `NightPlan.exposures` makes the list of exposures with
every header fact and every truth.
"""

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rapid.camera.models import Camera
from rapid.camera.store import load_camera
from rapid.errors import ConfigurationError, NotFoundError
from rapid.exposure.models import ImageType, exposure_id_of
from rapid.exposure.naming import make_obs_id

LAST_SEQ_NUM = 99_999
"""An exposure id has five digits for it."""

MAX_SEED = 2**63 - 1


class _Plan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BiasBlock(_Plan):
    """Bias exposures."""

    kind: Literal["bias"]
    n: int = Field(gt=0)


class DarkBlock(_Plan):
    """Dark exposures."""

    kind: Literal["dark"]
    n: int = Field(gt=0)
    exposure_time_s: float = Field(gt=0)


class FlatBlock(_Plan):
    """Flat exposures of one filter."""

    kind: Literal["flat"]
    n: int = Field(gt=0)
    physical_filter: str
    level_e: float = Field(default=20_000, gt=0, description="Light at the optical axis [electron/px].")
    exposure_time_s: float = Field(default=5.0, gt=0)


class ScienceBlock(_Plan):
    """Science exposures of one field and filter."""

    kind: Literal["science"]
    n: int = Field(gt=0)
    physical_filter: str
    exposure_time_s: float = Field(default=30.0, gt=0)
    seeing_arcsec: float = Field(default=0.8, gt=0)
    sky_e_s: float = Field(default=30.0, ge=0, description="Sky [electron/px/s].")
    transparency: float = Field(default=1.0, gt=0, le=1)
    zernikes_um: tuple[float, ...] = Field(
        default=(),
        max_length=3,
        description="Coma x, coma y, astigmatism [um], as the corner wavefront sensors see them.",
    )
    field: str = "DEEP_F12"
    ra_deg: float = 60.0
    dec_deg: float = -30.0
    missing: dict[int, tuple[int, ...]] = Field(
        default_factory=dict, description="By place in the block, detectors that are not read out."
    )


class SweepBlock(_Plan):
    """A focus sweep."""

    kind: Literal["focus_sweep"]
    positions_mm: tuple[float, ...] = Field(min_length=3, description="Focus positions, absolute [mm].")
    physical_filter: str
    exposure_time_s: float = Field(default=15.0, gt=0)
    seeing_arcsec: float = Field(default=0.8, gt=0)
    sky_e_s: float = Field(default=30.0, ge=0)


class DonutBlock(_Plan):
    """An intra- and an extra-focal image."""

    kind: Literal["donut_pair"]
    defocus_mm: float = Field(default=1.5, gt=0)
    physical_filter: str
    exposure_time_s: float = Field(default=15.0, gt=0)
    seeing_arcsec: float = Field(default=0.8, gt=0)
    sky_e_s: float = Field(default=30.0, ge=0)
    zernikes_um: tuple[float, ...] = Field(
        default=(0.1, -0.05, 0.15), max_length=3, description="Coma x, coma y, astigmatism [um]."
    )


Block = Annotated[
    BiasBlock | DarkBlock | FlatBlock | ScienceBlock | SweepBlock | DonutBlock, Field(discriminator="kind")
]


class PlannedExposure(_Plan):
    """One exposure to take, with its truth."""

    exposure_id: int
    obs_id: str = Field(pattern=r"^[^/\\.][^/\\]*$", description="Part of the names of files.")
    day_obs: int
    seq_num: int
    image_type: ImageType
    header_type: str
    begin: datetime
    exposure_time_s: float
    dark_time_s: float
    physical_filter: str | None
    group_id: str
    group_index: int
    group_size: int
    object_name: str | None = None
    ra_deg: float | None = None
    dec_deg: float | None = None
    elevation_deg: float | None = None
    azimuth_deg: float | None = None
    sees_sky: bool = False
    level_e: float = 0.0
    seeing_arcsec: float = 0.8
    e1: float = 0.0
    e2: float = 0.0
    transparency: float = 1.0
    focus_z_mm: float = 0.0
    best_focus_mm: float = 0.0
    defocus_mm: float = 0.0
    zernikes_um: tuple[float, ...] = ()
    field_seed: int = 0
    stars_per_detector: int = 0
    detectors: tuple[int, ...]


PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class NightPlan(_Plan):
    """A night."""

    camera: str
    day_obs: int = Field(ge=19900101, le=99991231)
    seed: int = Field(default=1, ge=0, le=MAX_SEED)
    controller: str = Field(default="O", pattern=r"^[A-Z]$")
    cadence_s: float = Field(default=34.0, gt=0)
    detectors: tuple[int, ...] = Field(default=(), description="Detectors read out; all science detectors if empty.")
    stars_per_detector: int = Field(default=400, ge=0)
    best_focus_mm: float = 0.03
    focus_drift_um: float = Field(default=0.0, description="Drift of best focus over the night [um].")
    seeing_history_arcsec: tuple[PositiveFloat, ...] = Field(
        default=(), description="Seeing over the sky exposures of the night, evenly spaced; the blocks' own if empty."
    )
    transparency_history: tuple[Fraction, ...] = Field(
        default=(), description="Transparency over them likewise: clouds that come and go."
    )
    first_seq_num: int = Field(default=1, ge=1, le=LAST_SEQ_NUM)
    blocks: tuple[Block, ...] = Field(min_length=1)

    @field_validator("day_obs")
    @classmethod
    def _is_day(cls, day_obs: int) -> int:
        try:
            datetime.strptime(str(day_obs), "%Y%m%d")  # noqa: DTZ007 - a day has no zone
        except ValueError:
            raise ValueError(f"{day_obs} is no day, YYYYMMDD") from None
        return day_obs

    def exposures(self) -> list[PlannedExposure]:
        """Return the night's exposures in order.

        Raises
        ------
        ConfigurationError
            Raised, naming the field, for a camera that nobody knows, or a detector, filter or sequence number that it
            does not have.
        """
        try:
            camera = load_camera(self.camera)
        except NotFoundError as error:
            raise ConfigurationError("camera", error.message) from error
        detectors = self.detectors or tuple(sorted(camera.science_ids))
        total = sum(_length(block) for block in self.blocks)
        self._check(camera, detectors, total)
        n_sky = sum(
            _length(block) for block in self.blocks if isinstance(block, ScienceBlock | SweepBlock | DonutBlock)
        )
        sky = 0
        day = datetime.strptime(str(self.day_obs), "%Y%m%d")  # noqa: DTZ007 - TAI has no zone
        begin = day + timedelta(hours=20)
        planned: list[PlannedExposure] = []
        for number, block in enumerate(self.blocks):
            if isinstance(block, ScienceBlock | SweepBlock | DonutBlock) and begin < day + timedelta(hours=24):
                begin = day + timedelta(hours=24)  # the night begins
            for facts in _expand(block, number, self.seed):
                seq_num = self.first_seq_num + len(planned)
                progress = len(planned) / max(total - 1, 1)
                absent: Any = facts.pop("absent", ())
                best = self.best_focus_mm + self.focus_drift_um / 1000 * progress
                values: dict[str, Any] = {
                    "exposure_id": exposure_id_of(self.day_obs, seq_num),
                    "obs_id": make_obs_id(camera.code, self.controller, self.day_obs, seq_num),
                    "day_obs": self.day_obs,
                    "seq_num": seq_num,
                    "begin": begin,
                    "group_id": f"{self.day_obs}-{number:03d}",
                    "best_focus_mm": best,
                    "focus_z_mm": best,
                    "stars_per_detector": self.stars_per_detector,
                    # A breath of the atmosphere, the same in every run.
                    "e1": 0.01 * math.sin(0.9 * seq_num),
                    "e2": 0.01 * math.cos(0.7 * seq_num),
                    "detectors": tuple(d for d in detectors if d not in absent),
                    **facts,
                }
                if values.get("sees_sky"):
                    along, sky = sky / max(n_sky - 1, 1), sky + 1
                    if self.seeing_history_arcsec:
                        values["seeing_arcsec"] = _at(self.seeing_history_arcsec, along)
                    if self.transparency_history:
                        values["transparency"] = _at(self.transparency_history, along)
                    values["seeing_arcsec"] = values["seeing_arcsec"] * (1 + 0.06 * math.sin(1.7 * seq_num))
                exposure = PlannedExposure.model_validate(values)
                planned.append(exposure)
                begin += timedelta(seconds=max(self.cadence_s, exposure.exposure_time_s + 4))
        return planned

    def _check(self, camera: Camera, detectors: tuple[int, ...], total: int) -> None:
        """Refuse what this camera cannot take."""
        _check_detectors("detectors", detectors, camera)
        if self.first_seq_num + total - 1 > LAST_SEQ_NUM:
            raise ConfigurationError(
                "blocks",
                f"{total} exposures from {self.first_seq_num} on: a day has sequence numbers to {LAST_SEQ_NUM}",
            )
        for number, block in enumerate(self.blocks):
            field = f"blocks.{number}.{block.kind}"
            taken = getattr(block, "physical_filter", None)
            # Of two wheels, FILTER~GRATING, a definition lists the first's usual ones only.
            if taken is not None and camera.filters and "~" not in taken and taken not in camera.filters:
                raise ConfigurationError(
                    f"{field}.physical_filter", f"{camera.name} has no {taken}: it has {', '.join(camera.filters)}"
                )
            if not isinstance(block, ScienceBlock):
                continue
            for place, absent in block.missing.items():
                if not 0 <= place < block.n:
                    raise ConfigurationError(
                        f"{field}.missing", f"{place} is no place in a block of {block.n}, which are counted from 0"
                    )
                _check_detectors(f"{field}.missing.{place}", absent, camera)
                if set(detectors) <= set(absent):
                    raise ConfigurationError(f"{field}.missing.{place}", "leaves no detector to read out")


def _check_detectors(field: str, numbers: tuple[int, ...], camera: Camera) -> None:
    unknown = [number for number in numbers if number not in camera.by_id]
    if unknown:
        raise ConfigurationError(field, f"{camera.name} has no detector {unknown[0]}")
    twice = [number for place, number in enumerate(numbers) if number in numbers[:place]]
    if twice:
        raise ConfigurationError(field, f"detector {twice[0]} is there twice")


def _at(history: tuple[float, ...], along: float) -> float:
    """Return the value of a history at a fraction of the night, on straight lines between its points."""
    place = along * (len(history) - 1)
    before = min(int(place), len(history) - 1)
    after = min(before + 1, len(history) - 1)
    return history[before] + (history[after] - history[before]) * (place - before)


def _length(block: Block) -> int:
    if isinstance(block, SweepBlock):
        return len(block.positions_mm)
    return 2 if isinstance(block, DonutBlock) else block.n


def _expand(block: Block, number: int, seed: int) -> Iterator[dict[str, object]]:
    """Yield the facts of each exposure of a block."""
    n = _length(block)
    for place in range(n):
        facts: dict[str, object] = {"group_index": place + 1, "group_size": n, "physical_filter": None}
        if isinstance(block, BiasBlock):
            facts |= {"image_type": ImageType.BIAS, "header_type": "BIAS", "exposure_time_s": 0.0, "dark_time_s": 0.0}
        elif isinstance(block, DarkBlock):
            facts |= {
                "image_type": ImageType.DARK,
                "header_type": "DARK",
                "exposure_time_s": block.exposure_time_s,
                "dark_time_s": block.exposure_time_s,
            }
        elif isinstance(block, FlatBlock):
            facts |= {
                "image_type": ImageType.FLAT,
                "header_type": "FLAT",
                "exposure_time_s": block.exposure_time_s,
                "dark_time_s": block.exposure_time_s,
                "physical_filter": block.physical_filter,
                "level_e": block.level_e,
            }
        else:
            facts |= {
                "exposure_time_s": block.exposure_time_s,
                "dark_time_s": block.exposure_time_s,
                "physical_filter": block.physical_filter,
                "sees_sky": True,
                "seeing_arcsec": block.seeing_arcsec,
                "level_e": block.sky_e_s * block.exposure_time_s,
                "elevation_deg": 62.0 + 2.0 * number + 0.4 * place,
                "azimuth_deg": 110.0 + 3.0 * number,
                "ra_deg": 60.0,
                "dec_deg": -30.0,
                "field_seed": seed * 1000 + number,
                "object_name": f"FIELD_{number:02d}",
            }
            facts |= _sky_facts(block, place)
        yield facts


def _sky_facts(block: ScienceBlock | SweepBlock | DonutBlock, place: int) -> dict[str, object]:
    if isinstance(block, ScienceBlock):
        return {
            "image_type": ImageType.SCIENCE,
            "header_type": "OBJECT",
            "transparency": block.transparency,
            "zernikes_um": block.zernikes_um,
            "object_name": block.field,
            "ra_deg": block.ra_deg,
            "dec_deg": block.dec_deg,
            "absent": block.missing.get(place, ()),
            # Science images stand alone: each its own group.
            "group_id": f"{block.field}-{place:03d}",
            "group_index": 1,
            "group_size": 1,
        }
    if isinstance(block, SweepBlock):
        return {"image_type": ImageType.FOCUS, "header_type": "FOCUS", "focus_z_mm": block.positions_mm[place]}
    sign = -1.0 if place == 0 else 1.0
    return {
        "image_type": ImageType.CWFS,
        "header_type": "CWFS",
        "defocus_mm": sign * block.defocus_mm,
        "focus_z_mm": sign * block.defocus_mm,
        "zernikes_um": block.zernikes_um,
    }


def load_plan(path: Path) -> NightPlan:
    """Read a plan from YAML.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for a plan that is not valid.
    """
    try:
        return make_plan(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError("plan", f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError("plan", f"{path} is not YAML: {error}") from error


def make_plan(facts: Any) -> NightPlan:
    """Return a plan from its facts.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for facts that are not valid.
    """
    if not isinstance(facts, dict):
        raise ConfigurationError("plan", "is no mapping: camera, day_obs, blocks, ...")
    try:
        return NightPlan.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(".".join(str(part) for part in first["loc"]) or "plan", first["msg"]) from error
