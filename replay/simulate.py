"""Simulate a night: render planned exposures and lay them down as the camera would."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rapid.camera.models import Camera, Detector
from rapid.camera.store import load_camera
from rapid.errors import ConfigurationError
from rapid.exposure.naming import raw_key
from replay.fits_writer import Value, raw_bytes, write_whole
from replay.plan import NightPlan, PlannedExposure
from replay.render import Renderer, StarTruth

PLAN = "plan.json"
"""The plan, beside the truth of its exposures."""

Sink = Callable[[str, bytes], None]
"""Takes a raw: its key below the raw store's root, and its bytes."""


def directory_sink(root: Path) -> Sink:
    """Return a sink that writes files below a directory, each appearing whole."""

    def put(key: str, data: bytes) -> None:
        # The camera's own folder is the root.
        write_whole(root / key.split("/", 1)[1], data)

    return put


def primary_header(exposure: PlannedExposure, camera: Camera, detector: Detector) -> dict[str, Value]:
    """Return the primary header's keys as the camera writes them."""
    begin = exposure.begin.isoformat(timespec="milliseconds")
    mjd = (
        40587.0
        + (
            exposure.begin
            - exposure.begin.replace(year=1970, month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
        ).total_seconds()
        / 86400.0
    )
    airmass = None
    if exposure.elevation_deg is not None:
        airmass = float(1.0 / np.sin(np.radians(exposure.elevation_deg)))
    return {
        "INSTRUME": camera.name,
        "TELESCOP": "Simonyi Survey Telescope",
        "CAMCODE": camera.code,
        "CONTRLLR": exposure.obs_id.split("_")[1],
        "DAYOBS": str(exposure.day_obs),
        "SEQNUM": exposure.seq_num,
        "OBSID": exposure.obs_id,
        "FILENAME": f"{exposure.obs_id}_{detector.name}.fits",
        "IMGTYPE": exposure.header_type,
        "TESTTYPE": exposure.header_type,
        "REASON": exposure.image_type.value,
        "PROGRAM": "SIMULATED",
        "OBJECT": exposure.object_name,
        "GROUPID": exposure.group_id,
        "CURINDEX": exposure.group_index,
        "MAXINDEX": exposure.group_size,
        "TIMESYS": "TAI",
        "DATE": begin,
        "DATE-OBS": begin,
        "DATE-BEG": begin,
        "DATE-END": exposure.begin.replace(microsecond=0).isoformat()
        if not exposure.exposure_time_s
        else _end(exposure),
        "MJD-OBS": round(_mjd(exposure), 9) if mjd else None,
        "EXPTIME": float(exposure.exposure_time_s),
        "SHUTTIME": float(exposure.exposure_time_s),
        "DARKTIME": float(exposure.dark_time_s),
        "FILTER": exposure.physical_filter,
        "RA": exposure.ra_deg,
        "DEC": exposure.dec_deg,
        "RASTART": exposure.ra_deg,
        "DECSTART": exposure.dec_deg,
        "ROTPA": 0.0 if exposure.sees_sky else None,
        "ELSTART": exposure.elevation_deg,
        "AZSTART": exposure.azimuth_deg,
        "AMSTART": airmass,
        "FOCUSZ": float(exposure.focus_z_mm),
        "VIGN_MIN": "NO" if exposure.sees_sky else "FULLY",
        "SEEING": round(exposure.seeing_arcsec, 3) if exposure.sees_sky else None,
        "AIRTEMP": 8.5,
        "PRESSURE": 743.0,
        "HUMIDITY": 22.0,
        "RAFTBAY": detector.raft,
        "CCDSLOT": detector.slot,
        "LSST_NUM": detector.serial or None,
        "CCD_MANU": detector.vendor or None,
        "SIMULATE": True,
    }


def _mjd(exposure: PlannedExposure) -> float:
    epoch = exposure.begin.replace(year=1858, month=11, day=17, hour=0, minute=0, second=0, microsecond=0)
    return (exposure.begin - epoch).total_seconds() / 86400.0


def _end(exposure: PlannedExposure) -> str:
    from datetime import timedelta

    return (exposure.begin + timedelta(seconds=exposure.exposure_time_s)).isoformat(timespec="milliseconds")


def expected_sensors(exposure: PlannedExposure, camera: Camera) -> bytes:
    """Return the side-car that lists the detectors read out."""
    return json.dumps({"expectedSensors": [camera.by_id[number].name for number in exposure.detectors]}).encode()


def _truth_of_exposure(exposure: PlannedExposure, stars: dict[int, StarTruth | None], camera: Camera) -> bytes:
    facts = exposure.model_dump(mode="json")
    facts["by_detector"] = {
        camera.by_id[number].name: {
            "fwhm_px": truth.fwhm_px,
            "e1": truth.e1,
            "e2": truth.e2,
            "n_stars": len(truth.x),
            "x": np.round(truth.x, 3).tolist(),
            "y": np.round(truth.y, 3).tolist(),
            "flux_e": np.round(truth.flux_e, 1).tolist(),
        }
        for number, truth in stars.items()
        if truth is not None
    }
    return json.dumps(facts).encode()


class NightSimulator:
    """Renders a plan's exposures, several CCDs at a time.

    Parameters
    ----------
    plan
        The night.
    sink
        Takes the raws.
    truth_dir
        Where truth is written; nowhere if None.
    n_threads
        CCDs rendered at a time; the kernels release the interpreter.
    """

    def __init__(
        self, plan: NightPlan, sink: Sink, *, truth_dir: Path | None = None, n_threads: int = 1, compress: bool = True
    ) -> None:
        self.plan = plan
        self.exposures = plan.exposures()
        self.camera = load_camera(plan.camera)
        self._sink = sink
        self._truth_dir = truth_dir
        self._compress = compress
        self._renderer = Renderer(self.camera, plan.seed)
        self._pool = ThreadPoolExecutor(max_workers=n_threads, thread_name_prefix="render")
        if truth_dir is not None:
            write_whole(truth_dir / PLAN, plan.model_dump_json(indent=1).encode())
            truth = {
                detector.name: self._renderer.truth_of(detector).to_dict(detector)
                for detector in self.camera.detectors
                if detector.id in set(self.exposures[0].detectors)
            }
            write_whole(truth_dir / f"camera_{self.camera.name}.json", json.dumps(truth).encode())

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _render(self, exposure: PlannedExposure, number: int) -> tuple[int, bytes, StarTruth | None]:
        detector = self.camera.by_id[number]
        stack, stars = self._renderer.render(exposure, detector)
        header = primary_header(exposure, self.camera, detector)
        return number, raw_bytes(header, stack, detector, compress=self._compress), stars

    def raws(self, exposure: PlannedExposure) -> Iterator[tuple[str, bytes]]:
        """Yield key and bytes of everything the camera writes of an exposure: the side-car first, then each raw."""
        base = raw_key(self.camera.name, exposure.obs_id, "R").rsplit("/", 1)[0]
        yield f"{base}/{exposure.obs_id}_expectedSensors.json", expected_sensors(exposure, self.camera)
        stars: dict[int, StarTruth | None] = {}
        jobs = [self._pool.submit(self._render, exposure, number) for number in exposure.detectors]
        for job in jobs:
            number, data, truth = job.result()
            stars[number] = truth
            yield raw_key(self.camera.name, exposure.obs_id, self.camera.by_id[number].name), data
        if self._truth_dir is not None:
            path = self._truth_dir / f"{exposure.obs_id}.json"
            write_whole(path, _truth_of_exposure(exposure, stars, self.camera))

    def take(self, exposure: PlannedExposure) -> Iterator[int]:
        """Take one exposure: yield each detector's number once its raw is delivered."""
        numbers = iter(exposure.detectors)
        for key, data in self.raws(exposure):
            self._sink(key, data)
            if not key.endswith(".json"):
                yield next(numbers)


def read_truth(folder: Path) -> tuple[dict[int, PlannedExposure], int | None]:
    """Return the exposures that a simulator left the truth of, by id, and its seed.

    Raises
    ------
    ConfigurationError
        Raised, naming the file, if one cannot be read.
    """
    exposures: dict[int, PlannedExposure] = {}
    seed: int | None = None
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("camera_"):
            continue
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            if path.name == PLAN:
                seed = int(facts["seed"])
                continue
            facts.pop("by_detector", None)
            exposure = PlannedExposure.model_validate(facts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError("truth", f"{path}: {error}") from error
        exposures[exposure.exposure_id] = exposure
    return exposures, seed
