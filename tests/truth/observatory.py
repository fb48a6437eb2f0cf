"""A small camera whose truth is known, and the real chain that looks at its raws.

Raws are rendered by `replay` (light, silicon and electronics in the order of physics), written as the camera writes
them, Rice-compressed, and read, calibrated and measured by the pipelines of the installation.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from payloads.combine.payload import BuildBias, BuildConfig, BuildDark, BuildFlat
from payloads.isr.payload import Isr, IsrConfig
from payloads.plugin import CalibPlane, Frame
from rapid.camera.models import Camera, Detector
from rapid.camera.store import load_camera
from rapid.pipeline.store import load_pipeline
from rapid.worker.run import PipelineRun, PipelineRunner, RawInput, make_frame
from replay.fits_writer import raw_bytes
from replay.plan import NightPlan, PlannedExposure
from replay.render import Renderer, StarTruth
from replay.simulate import primary_header
from replay.truth import NONLINEARITY, DetectorTruth, vignetting

CAMERA = """
# A CCD of LSSTCam with a quarter of its rows and columns of light, and all of its overscan.
name: TruthCam
code: TR
plate_scale_arcsec_per_mm: 20.0
f_ratio: 1.234
latitude_deg: -30.244639
longitude_deg: -70.749417
filters: [r_57]
witness_detector: 94
ccd_types:
  E2V:
    pixel_mm: 0.01
    amp: {data_width: 128, data_height: 500, serial_prescan: 10, serial_overscan: 64, parallel_overscan: 48}
    rows:
      - {amps: [C10, C11, C12, C13, C14, C15, C16, C17], row: 1, columns: ascending, flip_x: true, flip_y: true}
      - {amps: [C07, C06, C05, C04, C03, C02, C01, C00], row: 0, columns: descending, flip_x: false, flip_y: false}
    electronics: {gain: 1.5, read_noise: 5.5, saturation_e: 130000}
detectors:
  - {id: 94, name: R22_S11, physical_type: E2V, x_mm: 60.0, y_mm: 40.0}
"""
DETECTOR = 94
FILTER = "r_57"
N_BIAS, N_DARK, N_FLAT = 12, 8, 16
DARK_TIME_S = 200.0
FLAT_LEVEL_E = 60_000.0
EMPTY = np.empty((0, 0), np.float32)


class Calibs:
    """Calibs by kind."""

    def __init__(self, **calibs: CalibPlane) -> None:
        self.calibs = calibs

    def get(self, kind: str) -> CalibPlane | None:
        return self.calibs.get(kind)


@dataclass
class Observatory:
    """Renders exposures of one CCD and runs the chain on them; builds what the chain needs from its own raws."""

    camera: Camera
    seed: int = 7
    builds: dict[str, Frame] = field(default_factory=dict)

    @cached_property
    def detector(self) -> Detector:
        return self.camera.by_id[DETECTOR]

    @cached_property
    def renderer(self) -> Renderer:
        return Renderer(self.camera, self.seed)

    @property
    def truth(self) -> DetectorTruth:
        return self.renderer.truth_of(self.detector)

    def plan(self, *blocks: dict[str, Any], **changes: Any) -> list[PlannedExposure]:
        facts = {"camera": "TruthCam", "day_obs": 20261120, "seed": self.seed, "detectors": (DETECTOR,)}
        return NightPlan.model_validate(facts | {"blocks": blocks} | changes).exposures()

    def take(self, exposure: PlannedExposure) -> tuple[bytes, StarTruth | None]:
        stack, stars = self.renderer.render(exposure, self.detector)
        return raw_bytes(primary_header(exposure, self.camera, self.detector), stack, self.detector), stars

    def frame(self, exposure: PlannedExposure, calibs: Calibs | None = None) -> tuple[Frame, StarTruth | None]:
        raw, stars = self.take(exposure)
        frame, _ = make_frame(RawInput(exposure.obs_id, raw), camera=self.camera)
        if calibs is not None:
            frame.calibs = calibs
        return frame, stars

    def isr(self, exposure: PlannedExposure, calibs: Calibs | None = None, **config: Any) -> Frame:
        frame, _ = self.frame(exposure, calibs)
        Isr(IsrConfig(**config)).run(frame)
        return frame

    def run(
        self, exposure: PlannedExposure, pipeline: str | None = None, *, calibs: Calibs | None = None
    ) -> tuple[PipelineRun, StarTruth | None]:
        raw, stars = self.take(exposure)
        runner = PipelineRunner(calibs_for=(lambda _info: calibs) if calibs else None)
        wanted = load_pipeline(pipeline) if pipeline else None
        return runner.run(RawInput(exposure.obs_id, raw), pipeline=wanted, camera=self.camera), stars

    def project_spots(self, exposure: PlannedExposure, *, n_spots: int = 30, level_e: float = 60_000.0) -> bytes:
        """Return a raw of a spot projector: no two amps have light at the same moment of the read-out."""
        rng = np.random.default_rng(exposure.seq_num)
        det, signal = self.detector, np.full((self.detector.height, self.detector.width), 20.0, np.float32)
        box, size = det.amps[0].data, 8
        cells = [(y, x) for y in range(0, box.height - size, size + 2) for x in range(0, box.width - size, size + 2)]
        chosen = rng.permutation(len(cells))[: n_spots * len(det.amps)].reshape(len(det.amps), n_spots)
        for amp, spots in zip(det.amps, chosen, strict=True):
            part = signal[amp.trimmed.slices][:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
            for y, x in (cells[spot] for spot in spots):
                part[y : y + size, x : x + size] += level_e
        fixed = np.random.default_rng(1)
        stack = self.renderer._read_out(signal, det, self.truth, rng, fixed)
        return raw_bytes(primary_header(exposure, self.camera, det), stack, det)

    def build(self, payload: Any, exposures: list[PlannedExposure], calibs: Calibs) -> CalibPlane:
        frame, _ = self.frame(exposures[0])
        frame.inputs = [(lambda e=exposure: self.frame(e, calibs)[0]) for exposure in exposures]
        payload(BuildConfig()).run(frame)
        self.builds[payload.kind] = frame
        return CalibPlane(f"{payload.kind}-1", frame.image, frame.variance)

    @cached_property
    def electronics(self) -> dict[str, CalibPlane]:
        """What the laboratory would have measured: gains and noise, crosstalk, linearity."""
        names = [amp.name for amp in self.detector.amps]
        ptc = {
            name: {"gain": amp.gain, "read_noise": amp.read_noise}
            for name, amp in zip(names, self.truth.amps, strict=True)
        }
        levels = (2e3, 1e4, 3e4, 6e4, 1e5, 1.3e5)
        # seen = e - a e^2; what to subtract from the seen level: -a e^2.
        linearity = {name: {str(e - NONLINEARITY * e * e): -NONLINEARITY * e * e for e in levels} for name in names}
        return {
            "ptc": CalibPlane("ptc-1", EMPTY, table=ptc),
            "crosstalk": CalibPlane("crosstalk-1", EMPTY, table=self.crosstalk_table(1.0)),
            "linearity": CalibPlane("linearity-1", EMPTY, table=linearity),
        }

    def crosstalk_table(self, factor: float) -> dict[str, dict[str, float]]:
        names = [amp.name for amp in self.detector.amps]
        return {
            target: {
                source: factor * float(self.truth.crosstalk[i, j]) for j, source in enumerate(names) if source != target
            }
            for i, target in enumerate(names)
        }

    @cached_property
    def calibration_night(self) -> list[PlannedExposure]:
        return self.plan(
            {"kind": "bias", "n": N_BIAS},
            {"kind": "dark", "n": N_DARK, "exposure_time_s": DARK_TIME_S},
            {"kind": "flat", "n": N_FLAT, "physical_filter": FILTER, "level_e": FLAT_LEVEL_E},
        )

    @cached_property
    def calibs(self) -> Calibs:
        """Bias, dark and flat built from raws, one upon the other, with the electronics' numbers."""
        night, known = self.calibration_night, dict(self.electronics)
        known["bias"] = self.build(BuildBias, night[:N_BIAS], Calibs(**known))
        known["dark"] = self.build(BuildDark, night[N_BIAS : N_BIAS + N_DARK], Calibs(**known))
        known["flat"] = self.build(BuildFlat, night[N_BIAS + N_DARK :], Calibs(**known))
        return Calibs(**known)

    def shade(self) -> np.ndarray:
        """Return the mean light of every pixel as a part of that on the axis: the vignetting, without the pixels' own."""
        det, (a, b) = self.detector, vignetting(self.camera)
        w_mm, h_mm = det.focal_plane_size_mm
        x = det.x_mm - w_mm / 2 + np.arange(det.width) * det.pixel_mm
        y = det.y_mm - h_mm / 2 + np.arange(det.height) * det.pixel_mm
        r2 = x[None, :] ** 2 + y[:, None] ** 2
        return 1.0 - a * r2 - b * r2 * r2


def make_observatory(folder: Any, monkeypatch: Any) -> Observatory:
    """Define the camera in a folder that every reader of this process searches."""
    (folder / "TruthCam.yaml").write_text(CAMERA)
    monkeypatch.setenv("RAPID_CAMERA_PATH", str(folder))
    return Observatory(load_camera("TruthCam"))
