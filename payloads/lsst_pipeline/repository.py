"""A Butler repository for one image: what a PipelineTask reads from and writes to.

Registry in a temporary folder, datasets in memory: the arrays are handed over, not copied, and nothing is left behind.
Needs the package lsst-pipe-base (the extra ``rapid-analysis[lsst]``), which is imported when first used: seconds.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from payloads.plugin import Frame
from rapid.errors import PayloadError

INPUT_RUN = "rapid/input"
OUTPUT_RUN = "rapid/output"
_PREFIX = "rapid-lsst-"
_DATASTORE = "lsst.daf.butler.datastores.inMemoryDatastore.InMemoryDatastore"
_LARGEST_EXPOSURE = 10**15
_VISIT_SYSTEM = 0
"""One exposure is one visit."""


def middleware() -> Any:
    """Return the package ``lsst.pipe.base``.

    Raises
    ------
    PayloadError
        Raised if it is not installed.
    """
    try:
        import lsst.daf.butler
        import lsst.pipe.base
        import lsst.pipe.base.simple_pipeline_executor
    except ImportError as error:
        message = f"lsst_pipeline needs the extra lsst (pip install 'rapid-analysis[lsst]'): {error}"
        raise PayloadError(message) from error
    return lsst


@dataclass(frozen=True)
class Repository:
    """A writable Butler and what its one image is called.

    Attributes
    ----------
    data_id
        Instrument, exposure, visit and detector.
    """

    butler: Any
    data_id: dict[str, Any]

    def put(self, node: Any, value: Any) -> None:
        """Store an input under the dataset type that a pipeline graph resolved."""
        self.butler.registry.registerDatasetType(node.dataset_type)
        wanted = {name: self.data_id[name] for name in node.dimensions.required if name in self.data_id}
        self.butler.put(value, node.dataset_type, **wanted)

    def outputs(self, name: str) -> list[Any]:
        """Return the datasets of a type that tasks wrote; none if a task found nothing to do."""
        refs = self.butler.registry.queryDatasets(name, collections=[OUTPUT_RUN])
        return [self.butler.get(ref) for ref in sorted(refs)]


@contextlib.contextmanager
def open_repository(frame: Frame) -> Iterator[Repository]:
    """Make a repository that knows a frame's exposure and detector; gone at the end."""
    butler_module = middleware().daf.butler
    _remove_orphans()
    folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
    try:
        config = butler_module.Config()
        config["datastore", "cls"] = _DATASTORE
        butler_module.Butler.makeRepo(folder, config=config)
        butler = butler_module.Butler.from_config(folder, writeable=True, run=INPUT_RUN)
        try:
            yield Repository(butler, _describe(butler.registry, frame))
        finally:
            butler.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _describe(registry: Any, frame: Frame) -> dict[str, Any]:
    """Tell the registry of the exposure; return the image's data id."""
    info, detector = frame.info, frame.detector
    here = {"instrument": frame.camera.name}
    exposure_id, physical_filter = info.exposure_id, info.physical_filter or "unknown"
    facts: list[tuple[str, dict[str, Any]]] = [
        (
            "instrument",
            {
                "name": frame.camera.name,
                "visit_max": _LARGEST_EXPOSURE,
                "exposure_max": _LARGEST_EXPOSURE,
                "visit_system": _VISIT_SYSTEM,
                "detector_max": max(other.id for other in frame.camera.detectors) + 1,
                "class_name": "",
            },
        ),
        ("physical_filter", {**here, "name": physical_filter, "band": info.band or "unknown"}),
        (
            "detector",
            {
                **here,
                "id": detector.id,
                "full_name": detector.name,
                "raft": detector.raft,
                "name_in_raft": detector.slot,
                "purpose": detector.purpose.value,
            },
        ),
        ("day_obs", {**here, "id": info.day_obs}),
        ("group", {**here, "name": info.group_id or info.obs_id}),
        (
            "exposure",
            {
                **here,
                "id": exposure_id,
                "day_obs": info.day_obs,
                "seq_num": info.seq_num,
                "group": info.group_id or info.obs_id,
                "physical_filter": physical_filter,
                "obs_id": info.obs_id,
                "exposure_time": info.exposure_time_s,
                "dark_time": info.dark_time_s,
                "observation_type": info.image_type.value,
                "observation_reason": info.reason,
                "science_program": info.program,
                "target_name": info.object_name,
                "tracking_ra": info.ra_deg,
                "tracking_dec": info.dec_deg,
                "sky_angle": info.rotator_angle_deg,
                "azimuth": info.azimuth_deg,
                "zenith_angle": None if info.elevation_deg is None else 90.0 - info.elevation_deg,
            },
        ),
        ("visit_system", {**here, "id": _VISIT_SYSTEM, "name": "one-to-one"}),
        (
            "visit",
            {
                **here,
                "id": exposure_id,
                "day_obs": info.day_obs,
                "seq_num": info.seq_num,
                "physical_filter": physical_filter,
                "name": info.obs_id,
                "exposure_time": info.exposure_time_s,
                "observation_reason": info.reason,
                "science_program": info.program,
                "target_name": info.object_name,
            },
        ),
        ("visit_definition", {**here, "exposure": exposure_id, "visit": exposure_id}),
        ("visit_system_membership", {**here, "visit_system": _VISIT_SYSTEM, "visit": exposure_id}),
        ("visit_detector_region", {**here, "visit": exposure_id, "detector": detector.id}),
    ]
    for element, record in facts:
        registry.insertDimensionData(element, record)
    return {**here, "exposure": exposure_id, "visit": exposure_id, "detector": detector.id}


def _remove_orphans() -> None:
    """Remove the folders of processes that were killed while they had one."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
