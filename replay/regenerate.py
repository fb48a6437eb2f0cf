"""Make the raws of a recording again: as they were kept, or simulated from the exposure's facts and the seed.

Whatever the pixels are, the primary header is the recorded one.
"""

from dataclasses import dataclass

import numpy as np

from rapid.camera.models import Camera, Detector, Purpose
from rapid.errors import ConfigurationError
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.exposure.naming import raw_key
from replay.fits_writer import raw_bytes
from replay.keep import read_binned, read_stamps
from replay.plan import PlannedExposure
from replay.recording import PixelKind, Recording, read_pixels
from replay.render import Renderer
from replay.simulate import expected_sensors
from replay.truth import rng_of

CUT_AT = 0.6
"""A raw that arrived truncated is cut off here again: behind its header, before its end."""

SKY_E_S = 30.0
FLAT_E = 20_000.0
"""Light of exposures of which only the header is known [electron/px/s, electron/px]."""

STARS_PER_MM2 = 0.08
"""Of exposures of which only the header is known: about 130 on a CCD of 4 cm."""


@dataclass(frozen=True)
class Raw:
    """A raw to deliver."""

    key: str
    data: bytes
    is_whole: bool = True


def exposure_of_info(info: ExposureInfo, detectors: tuple[int, ...], camera: Camera) -> PlannedExposure:
    """Return what a plan would say of an exposure of which the header is known.

    Raises
    ------
    ConfigurationError
        Raised if the header has no time.
    """
    if info.begin is None:
        raise ConfigurationError("exposures", f"{info.obs_id}: its header says no time")
    sees_sky = not info.image_type.is_calibration and info.can_see_sky is not False
    time_s = info.exposure_time_s or 0.0
    level_e = SKY_E_S * time_s if sees_sky else FLAT_E if info.image_type is ImageType.FLAT else 0.0
    area_mm2 = float(np.median([np.prod(detector.focal_plane_size_mm) for detector in camera.detectors]))
    is_donut = info.image_type is ImageType.CWFS
    return PlannedExposure(
        exposure_id=info.exposure_id,
        obs_id=info.obs_id,
        day_obs=info.day_obs,
        seq_num=info.seq_num,
        image_type=info.image_type,
        header_type=info.image_type.value.upper(),
        begin=info.begin,
        exposure_time_s=time_s,
        dark_time_s=info.dark_time_s or time_s,
        physical_filter=info.physical_filter,
        group_id=info.group_id or info.obs_id,
        group_index=info.group_index or 1,
        group_size=info.group_size or 1,
        object_name=info.object_name,
        ra_deg=info.ra_deg,
        dec_deg=info.dec_deg,
        elevation_deg=info.elevation_deg,
        azimuth_deg=info.azimuth_deg,
        sees_sky=sees_sky,
        level_e=level_e,
        seeing_arcsec=info.seeing_arcsec if info.seeing_arcsec and info.seeing_arcsec > 0 else 0.8,
        focus_z_mm=info.focus_z_mm or 0.0,
        defocus_mm=(info.focus_z_mm or 0.0) if is_donut else 0.0,
        # The pointing makes the field: exposures of one field show the same stars.
        field_seed=hash_of(info.object_name or info.group_id or info.obs_id),
        stars_per_detector=max(round(STARS_PER_MM2 * area_mm2), 12) if sees_sky else 0,
        detectors=detectors,
    )


def hash_of(text: str) -> int:
    """Return a number for a text, the same in every process."""
    return int.from_bytes(text.encode()[-6:].rjust(6, b"\0"), "big") % (1 << 31)


class Regenerator:
    """Makes raws of one recording; one per thread.

    Parameters
    ----------
    seed
        Another than the recording's: other noise, other electronics.
    """

    def __init__(self, recording: Recording, *, seed: int | None = None, compress: bool = True) -> None:
        self.recording = recording
        self.camera = recording.camera()
        self._seed = recording.manifest.seed if seed is None else seed
        self._renderer = Renderer(self.camera, self._seed)
        self._compress = compress

    def exposure(self, exposure_id: int) -> PlannedExposure:
        """Return the facts of an exposure.

        Raises
        ------
        ConfigurationError
            Raised for one that the recording says nothing about.
        """
        found = self.recording.exposures.get(exposure_id)
        if found is None:
            raise ConfigurationError("exposures.jsonl", f"exposure {exposure_id} arrives, but nothing is said of it")
        return found

    def sidecar(self, exposure_id: int, detectors: tuple[str, ...]) -> Raw:
        """Return the list of the sensors of an exposure."""
        exposure = self.exposure(exposure_id)
        base = raw_key(self.camera.name, exposure.obs_id, "R").rsplit("/", 1)[0]
        numbers = tuple(self._detector(name).id for name in detectors)
        listed = exposure.model_copy(update={"detectors": numbers})
        return Raw(f"{base}/{exposure.obs_id}_expectedSensors.json", expected_sensors(listed, self.camera))

    def raw(self, exposure_id: int, detector_name: str, *, problem: str = "") -> Raw:
        """Return a raw.

        Parameters
        ----------
        problem
            Code of the error that the recorded one was quarantined with, if it was: this one is spoilt likewise.
        """
        exposure, detector = self.exposure(exposure_id), self._detector(detector_name)
        key = raw_key(self.camera.name, exposure.obs_id, detector_name)
        if not problem and not self.recording.headers.has(exposure_id, detector_name):
            raise ConfigurationError("headers.txt", f"nothing is said of exposure {exposure_id}")
        data = self._bytes(exposure, detector, key, is_kept=not problem)
        return Raw(key, spoil(data, problem), is_whole=False) if problem else Raw(key, data)

    def _detector(self, name: str) -> Detector:
        detector = self.camera.by_name.get(name)
        if detector is None:
            raise ConfigurationError("events.jsonl", f"{self.camera.name} has no detector {name}")
        return detector

    def _bytes(self, exposure: PlannedExposure, detector: Detector, key: str, *, is_kept: bool) -> bytes:
        kind = self.recording.manifest.pixels
        kept = None if kind is PixelKind.SEED else read_pixels(self.recording, key)
        if kept is None and kind is not PixelKind.SEED and is_kept and detector.purpose is not Purpose.GUIDER:
            # Simulated pixels in its place would be taken for what was recorded.
            raise ConfigurationError(f"pixels/{key}", f"is missing: the recording says that pixels are kept as {kind}")
        if kept is not None and kind is PixelKind.RICE:
            return kept
        if kept is None:
            stack, _ = self._renderer.render(exposure, detector)
        else:
            rng = rng_of(self._seed, exposure.exposure_id, detector.id, 5)
            read = read_binned if kind is PixelKind.BINNED else read_stamps
            stack = read(kept, detector, rng)
        return raw_bytes(self._header(exposure, detector), stack, detector, compress=self._compress)

    def _header(self, exposure: PlannedExposure, detector: Detector) -> dict[str, str | int | float | bool | None]:
        return self.recording.headers.header_of(exposure.exposure_id, exposure.obs_id, detector.name)


def spoil(data: bytes, problem: str) -> bytes:
    """Return a raw spoilt so that it is refused with a given error's code, as far as that can be made again."""
    if problem == "raw_empty":
        return b""
    if problem == "raw_not_fits":
        return b"no FITS file\n" * 300
    if problem == "raw_corrupt":
        return data[:80] + b"\0" * 80 + data[160:]
    return data[: int(len(data) * CUT_AT)]
