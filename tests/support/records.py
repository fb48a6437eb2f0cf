"""Rows for the results store, with only what a test is about spelled out."""

from datetime import UTC, datetime, timedelta

from rapid.results.models import (
    DetectorResult,
    DetectorState,
    DetectorStatus,
    ExposureSummary,
    GatherReason,
    Provenance,
)

WHEN = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


def make_result(seq_num: int = 1, detector: int = 94, **changes) -> DetectorResult:
    day_obs = changes.pop("day_obs", 20261120)
    pipeline = changes.get("pipeline", "quicklook")
    facts = {
        "camera": "LSSTCam",
        "exposure": day_obs * 100_000 + seq_num,
        "day_obs": day_obs,
        "seq_num": seq_num,
        "detector": detector,
        "detector_name": "R22_S11",
        "image_type": "science",
        "pipeline": pipeline,
        "metrics": {"psf_fwhm_arcsec": 0.8},
        "amps": {"C00": {"read_noise_e": 5.5}},
        "provenance": Provenance(
            software_version="0.1.0",
            pipeline=pipeline,
            pipeline_version="1",
            config_hash="0" * 64,
            payloads={},
            raw=f"/raws/{seq_num}_{detector}.fits",
            raw_sha256="1" * 64,
        ),
        "finished_at": WHEN + timedelta(seconds=seq_num),
    }
    return DetectorResult(**{**facts, **changes})


def make_summary(seq_num: int = 1, version: int = 1, **changes) -> ExposureSummary:
    day_obs = changes.pop("day_obs", 20261120)
    facts = {
        "camera": "LSSTCam",
        "exposure": day_obs * 100_000 + seq_num,
        "day_obs": day_obs,
        "seq_num": seq_num,
        "pipeline": "quicklook",
        "image_type": "science",
        "version": version,
        "reason": GatherReason.COMPLETE if version == 1 else GatherReason.REGATHER,
        "n_finished": 1,
        "n_expected": 1,
        "is_complete": True,
        "detectors": {94: DetectorStatus(state=DetectorState.FINISHED)},
        "metrics": {"psf_fwhm_arcsec_median": 0.8},
        "gathered_at": WHEN + timedelta(seconds=seq_num),
    }
    return ExposureSummary(**{**facts, **changes})
