"""A night with one of everything: sky exposures, a focus sweep, donuts, a wavefront, verified calibrations, failures."""

import json
from datetime import datetime, timedelta

from rapid.camera.models import Camera
from rapid.results.models import DetectorState, DetectorStatus, ExposureSummary, GatherReason
from rapid.verification.models import Band, Limits, Measured, Outcome, Subject, Verification
from tests.display.stage import BEGIN, DAY_OBS, Stage
from tests.support.records import make_result

NOLL = list(range(4, 23))
BEST_MM = 0.02


def tell_night(stage: Stage) -> None:
    """Write it into the stage's stores: what a display finds when it starts."""
    detectors = sorted(stage.camera.science_ids)
    for seq_num in (1, 2):
        put(stage, seq_num, metrics={"psf_fwhm_arcsec_median": 0.8, "psf_e_median": 0.04, "sky_level_e_median": 400.0})
        for detector in detectors:
            stage.results.put_result(stage.result_of(detector, DAY_OBS * 100_000 + seq_num, "quicklook"))
    for at, z_mm in enumerate((-0.06, -0.02, 0.02, 0.06, 0.10)):
        tell_sweep_point(stage, 3 + at, z_mm, has_fit=at >= 3)
    tell_wavefront(stage, 8)
    for seq_num in (11, 12):
        tell_bias(stage, seq_num, is_bad=seq_num == 12)


def put(
    stage: Stage, seq_num: int, *, pipeline: str = "quicklook", image_type: str = "science", **facts
) -> ExposureSummary:
    """Write a summary in which all science detectors have finished."""
    detectors = sorted(stage.camera.science_ids)
    begin = BEGIN + timedelta(seconds=40 * seq_num)
    info = stage.info(seq_num, image_type) | {"begin": begin.isoformat()} | facts.pop("info", {})
    summary = ExposureSummary(
        camera=stage.camera.name,
        exposure=DAY_OBS * 100_000 + seq_num,
        day_obs=DAY_OBS,
        seq_num=seq_num,
        pipeline=pipeline,
        image_type=image_type,
        version=1,
        reason=GatherReason.COMPLETE,
        n_finished=len(detectors),
        n_expected=len(detectors),
        is_complete=True,
        detectors={number: DetectorStatus(state=DetectorState.FINISHED) for number in detectors},
        info=info,
        gathered_at=stage.now,
        **facts,
    )
    stage.results.put_summary(summary)
    return summary


def tell_sweep_point(stage: Stage, seq_num: int, z_mm: float, *, has_fit: bool) -> None:
    metrics = {
        "psf_fwhm_arcsec_median": (0.7**2 + (12.0 * (z_mm - BEST_MM)) ** 2) ** 0.5,
        "psf_fwhm_arcsec_scatter": 0.02,
        "psf_e1_median": 0.5 * (z_mm - BEST_MM),
        "psf_e2_median": 0.001,
    }
    if has_fit:
        metrics |= {"best_focus_mm": BEST_MM, "best_focus_error_mm": 0.0015, "best_fwhm_arcsec": 0.7}
    info = {"group_id": "sweep-1", "focus_z_mm": z_mm}
    put(stage, seq_num, image_type="focus", metrics=metrics, info=info)


def tell_wavefront(stage: Stage, seq_num: int) -> None:
    """Write the wavefront of an exposure, with four corners."""
    zernikes = [0.1 - 0.01 * k for k in range(len(NOLL))]
    errors = [0.01] * len(NOLL)
    sites = [
        {
            "name": name,
            "thx_deg": x,
            "thy_deg": y,
            "n_pairs": 3,
            "zernikes_um": [value + 0.02 * x for value in zernikes],
            "errors_um": errors,
            "chi2_per_dof": 1.1,
            "blur_arcsec": 0.7,
            "aberration_fwhm_arcsec": 0.15,
        }
        for name, x, y in (("R00", -1.2, -1.2), ("R04", 1.2, -1.2), ("R40", -1.2, 1.2), ("R44", 1.2, 1.2))
    ]
    report = {
        "optics": "LSSTCam",
        "band": "r",
        "noll": NOLL,
        "sites": sites,
        "field": {"coefficients_um": [zernikes], "errors_um": [errors]},
        "n_pairs": 12,
        "n_pairs_possible": 12,
    }
    key = f"{stage.camera.name}/{DAY_OBS}/{seq_num:06d}/prompt/wavefront/wavefront.v1.json"
    stage.products.put(key, json.dumps(report).encode(), content_type="application/json")
    metrics = {"wavefront_n_pairs": 12, "wavefront_n_pairs_possible": 12, "wavefront_n_sites": 4}
    metrics |= {"wavefront_focus_offset_um": 5.25, "wavefront_focus_offset_error_um": 0.5}
    metrics |= {"wavefront_field_fwhm_arcsec": 0.11}
    for j, value in zip(NOLL, zernikes, strict=True):
        metrics |= {f"wavefront_z{j}_um": value, f"wavefront_z{j}_error_um": 0.01}
    put(stage, seq_num, pipeline="wavefront", metrics=metrics, products={"wavefront": key})


def tell_bias(stage: Stage, seq_num: int, *, is_bad: bool) -> None:
    """Write a verified bias: all amps pass, or amp C03 of the first detector fails and one was not measured."""
    detectors = sorted(stage.camera.science_ids)
    failed = is_bad and f"{stage.camera.by_id[detectors[0]].name} C03 NOISE"
    verdict = {"verify_outcome": "fail" if is_bad else "pass", "verify_n_failed_amps": int(is_bad)}
    put(
        stage,
        seq_num,
        pipeline="bias",
        image_type="bias",
        metrics=verdict | ({"verify_failures": failed} if failed else {}),
        info={"physical_filter": None},
    )
    for detector in detectors:
        found = verify(stage.camera, detector, DAY_OBS * 100_000 + seq_num, is_bad=is_bad and detector == detectors[0])
        stage.results.put_result(
            make_result(
                seq_num,
                detector,
                camera=stage.camera.name,
                detector_name=stage.camera.by_id[detector].name,
                image_type="bias",
                pipeline="bias",
                metrics={"verify_outcome": found.outcome.value},
                amps={amp.name: {"read_noise_electron": 5.25} for amp in stage.camera.by_id[detector].amps},
                verification=found.model_dump(mode="json"),
            )
        )


def verify(camera: Camera, detector: int, exposure: int, *, is_bad: bool) -> Verification:
    """Return a verification in which everything passes, or C03 fails and C04 was not measured."""
    place = camera.by_id[detector]
    outcomes = {amp.name: Outcome.PASS for amp in place.amps}
    if is_bad:
        outcomes |= {"C03": Outcome.FAIL, "C04": Outcome.NOT_MEASURED}
    amps = {
        name: {
            "MEAN": Measured(value=0.01),
            "NOISE": Measured(value={Outcome.FAIL: 12.5, Outcome.PASS: 5.5}.get(outcome), outcome=outcome),
        }
        for name, outcome in outcomes.items()
    }
    return Verification(
        camera=camera.name,
        kind="bias",
        subject=Subject.EXPOSURE,
        exposure=exposure,
        detector=detector,
        detector_name=place.name,
        outcome=Outcome.FAIL if is_bad else Outcome.PASS,
        amps=amps,
        limits={"NOISE": Limits(unit="electron", error=Band(high=9.0), reason="twice the specification")},
    )


def utc(seq_num: int) -> datetime:
    """Return when an exposure began, as its header tells: TAI."""
    return BEGIN + timedelta(seconds=40 * seq_num)
