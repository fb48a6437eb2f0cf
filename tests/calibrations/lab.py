"""A small camera on a bench whose truth is known, and a worker that looks at its raws without a board.

Electrons come from `numpy`, are read out with gains, read noise, crosstalk and non-linearity of our choosing, and written
as the camera writes raws. Jobs run in this process, by the code of a worker's child; results go into a real store.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import convolve

from rapid.camera.models import Camera, Detector
from rapid.camera.store import load_camera
from rapid.dispatch.models import BatchKey, Job, Priority
from rapid.exposure.models import ImageType
from rapid.results.models import DetectorResult, ExposureSummary, GatherReason
from rapid.results.store import open_results
from rapid.worker.child import ChildWorker
from rapid.worker.messages import ChildSettings
from replay.fits_writer import raw_bytes
from replay.plan import PlannedExposure
from replay.simulate import primary_header

CAMERA = """
name: LabCam
code: LC
plate_scale_arcsec_per_mm: 20.0
f_ratio: 1.234
filters: [r_57]
witness_detector: 94
ccd_types:
  E2V:
    pixel_mm: 0.01
    amp: {data_width: 128, data_height: 256, serial_prescan: 10, serial_overscan: 64, parallel_overscan: 48}
    rows:
      - {amps: [C10, C11], row: 1, columns: ascending, flip_x: true, flip_y: true}
      - {amps: [C01, C00], row: 0, columns: descending, flip_x: false, flip_y: false}
    electronics: {gain: 1.5, read_noise: 5.5, saturation_e: 130000}
detectors:
  - {id: 94, name: R22_S11, physical_type: E2V, x_mm: 0.0, y_mm: 0.0}
"""
DETECTOR = 94
DAY_OBS = 20261120
BIAS_ADU = 23_000
A00 = -3.0e-6
"""Per electron: what a pixel's charge does to its own area."""
KERNEL = np.array([[0.25, 0.5, 0.25], [0.5, 0.0, 0.5], [0.25, 0.5, 0.25]]) * (-A00 / 3.0)
KERNEL[1, 1] = A00
"""Sums to zero: no charge is made or lost."""
N_STEPS = 12
"""In which light is collected where charge repels charge."""


@dataclass
class Truth:
    """Electronics of the bench, by amp name."""

    gain: Mapping[str, float]
    read_noise: Mapping[str, float]
    crosstalk: np.ndarray
    nonlinearity: float = 0.0
    brighter_fatter: bool = False
    bad: np.ndarray | None = None
    """Response of each pixel."""
    dark_rate: np.ndarray | float = 0.03
    """Electron/s."""


@dataclass
class Lab:
    """One CCD on a bench, a camera control and a worker."""

    folder: Path
    seed: int = 11
    thresholds: Path | None = None
    taken: dict[int, tuple[ImageType, Path]] = field(default_factory=dict)
    results_of_build: dict[str, DetectorResult] = field(default_factory=dict)
    tamper: Callable[[int, np.ndarray], np.ndarray] | None = None
    """What is done to an exposure's stack of counts before it is written."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        names = [amp.name for amp in self.detector.amps]
        self.truth = Truth(
            gain={name: 1.5 * (1 + 0.02 * rng.uniform(-1, 1)) for name in names},
            read_noise={name: 5.5 * (1 + 0.04 * rng.uniform(-1, 1)) for name in names},
            crosstalk=np.zeros((len(names), len(names))),
        )

    @cached_property
    def camera(self) -> Camera:
        return load_camera("LabCam")

    @property
    def detector(self) -> Detector:
        return self.camera.by_id[DETECTOR]

    @cached_property
    def worker(self) -> ChildWorker:
        return ChildWorker(
            ChildSettings(
                results_url=str(self.folder / "results.sqlite"),
                products_url=str(self.folder / "products"),
                calibs_path=self.folder / "calibs",
                thresholds=self.thresholds,
            )
        )

    @cached_property
    def results(self):
        return open_results(str(self.folder / "results.sqlite"))

    # The camera

    def take(
        self,
        kind: str,
        *,
        level_e: float = 0.0,
        time_s: float = 0.0,
        image: np.ndarray | None = None,
        group: tuple[str, int, int] | None = None,
        offset_e: float = 0.0,
    ) -> int:
        """Expose, read out, and write the raw; return the exposure id.

        Parameters
        ----------
        level_e
            Mean light of a pixel [electron].
        image
            Light on top of it.
        group
            GROUPID, CURINDEX and MAXINDEX.
        """
        seq_num = len(self.taken) + 1
        exposure = DAY_OBS * 100_000 + seq_num
        rng = np.random.default_rng([self.seed, seq_num])
        det, truth = self.detector, self.truth
        shape = (det.height, det.width)
        response = 1.0 if truth.bad is None else truth.bad
        light = (level_e + (0.0 if image is None else image)) * response + np.broadcast_to(
            truth.dark_rate, shape
        ) * time_s
        light = np.maximum(np.broadcast_to(light, shape), 0.0)
        if truth.brighter_fatter and level_e:
            # As it happens: charge that is there already changes the area that what comes next falls on.
            electrons = np.zeros(shape)
            for _ in range(N_STEPS):
                area = 1.0 + convolve(electrons, KERNEL, mode="nearest")
                electrons += rng.poisson(np.maximum(light / N_STEPS * area, 0.0))
        else:
            electrons = rng.poisson(light).astype(np.float64)
        first = det.amps[0]
        stack = np.zeros((len(det.amps), first.raw_height, first.raw_width))
        for place, amp in enumerate(det.amps):
            part = np.zeros(stack.shape[1:])
            seen = np.minimum(electrons[amp.trimmed.slices], 150_000.0)
            seen = seen - truth.nonlinearity * seen**2
            part[amp.data.slices] = seen[:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1] + offset_e
            stack[place] = part
        flat = stack.reshape(len(stack), -1)
        flat += truth.crosstalk @ flat
        for place, amp in enumerate(det.amps):
            noise = rng.normal(0.0, truth.read_noise[amp.name], stack.shape[1:])
            stack[place] = (stack[place] + noise) / truth.gain[amp.name] + BIAS_ADU
        counts = np.clip(np.rint(stack), 0, 262143).astype(np.int32)
        if self.tamper is not None:
            counts = self.tamper(exposure, counts)
        planned = PlannedExposure(
            exposure_id=exposure,
            obs_id=f"LC_O_{DAY_OBS}_{seq_num:06d}",
            day_obs=DAY_OBS,
            seq_num=seq_num,
            image_type=ImageType(kind),
            header_type={"spot": "SPOT"}.get(kind, kind.upper()),
            begin=datetime(2026, 11, 20, 20) + timedelta(seconds=30 * seq_num),  # noqa: DTZ001 - TAI has no zone
            exposure_time_s=time_s,
            dark_time_s=time_s,
            physical_filter=None if kind in {"bias", "dark"} else "r_57",
            group_id=group[0] if group else f"g{seq_num}",
            group_index=group[1] if group else 1,
            group_size=group[2] if group else 1,
            detectors=(DETECTOR,),
        )
        raws = self.folder / "raws"
        raws.mkdir(exist_ok=True)
        path = raws / f"{planned.obs_id}_{det.name}.fits"
        path.write_bytes(raw_bytes(primary_header(planned, self.camera, det), counts, det, compress=False))
        self.taken[exposure] = (ImageType(kind), path)
        return exposure

    # The worker

    def _job(self, exposure: int, pipeline: str, inputs: tuple[int, ...], run: str, config: dict[str, Any]) -> Job:
        kind, path = self.taken[exposure]
        return Job(
            job_id=f"{run}/{exposure}/{pipeline}/{DETECTOR}",
            batch=BatchKey(run=run, exposure_id=exposure, pipeline=pipeline),
            detector=DETECTOR,
            raw_uri=str(path),
            camera="LabCam",
            image_type=kind.value,
            priority=Priority.CURRENT,
            attempt=1,
            token=1,
            lease_ms=10_000,
            time_limit_ms=60_000,
            posted_ms=0,
            claimed_ms=0,
            inputs=inputs,
            config=config,
        )

    def process(self, exposure: int, pipeline: str = "", run: str = "prompt", **config: Any) -> DetectorResult:
        """Run an exposure's pipeline and keep its result."""
        name = pipeline or {"spot": "quicklook"}.get(self.taken[exposure][0].value, self.taken[exposure][0].value)
        result = self.worker.run_job(self._job(exposure, name, (), run, config)).result
        assert result is not None
        self.results.put_result(result)
        return result

    def build(self, kind: str, exposures: list[int], **config: Any) -> DetectorResult:
        """Build a calib; every input is processed first, as the head has it."""
        for exposure in exposures:
            if not self.results.results(exposure, run="prompt"):
                self.process(exposure)
        job = self._job(
            exposures[-1], f"build_{kind}", tuple(exposures), "prompt", {f"build_{kind}": config} if config else {}
        )
        result = self.worker.run_job(job).result
        assert result is not None
        self.results.put_result(result)
        self.results_of_build[kind] = result
        return result

    def summarise(self, result: DetectorResult, **info: Any) -> ExposureSummary:
        """Return the summary of a result: what the gather of one detector says."""
        return ExposureSummary(
            camera="LabCam",
            exposure=result.exposure,
            day_obs=result.day_obs,
            seq_num=result.seq_num,
            pipeline=result.pipeline,
            image_type=result.image_type,
            version=1,
            reason=GatherReason.COMPLETE,
            n_finished=1,
            n_expected=1,
            is_complete=True,
            detectors={},
            info=info,
        )


def make_lab(folder: Path, monkeypatch: Any, **settings: Any) -> Lab:
    """Define the camera in a folder that every reader of this process searches."""
    (folder / "LabCam.yaml").write_text(CAMERA)
    monkeypatch.setenv("RAPID_CAMERA_PATH", str(folder))
    return Lab(folder, **settings)
