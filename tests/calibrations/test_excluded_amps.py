"""What is switched off stays out of what is built: a calib has nothing of it, and says so."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from astropy.io import fits

from rapid.errors import PayloadError
from rapid.exclusions.models import Target
from rapid.exclusions.store import ExclusionStore
from rapid.results.models import CalibState, DetectorResult, DetectorState, DetectorStatus
from rapid.verification.models import Verification
from tests.calibrations.lab import DETECTOR, Lab

BEGIN = datetime(2026, 11, 20, 20, tzinfo=UTC)
AMP = "C10"


def taken_after(seq_num: int) -> datetime:
    """Return a time between two exposures of the bench, UTC: they are 30 s apart, and TAI is 37 s ahead."""
    return BEGIN + timedelta(seconds=30 * seq_num - 37 + 15)


def switch_off(lab: Lab, *, amp: str | None = AMP, first: int = 0, last: int | None = None) -> None:
    """Switch an amp off for the exposures after one, up to another."""
    ExclusionStore(lab.results.engine).exclude(
        "LabCam", [Target(detector=DETECTOR, detector_name="R22_S11", amp=amp)], reason="rings", author="pat",
        valid_from=taken_after(first), valid_to=None if last is None else taken_after(last), now=BEGIN,
    )  # fmt: skip


def spoil(lab: Lab) -> None:
    """Let an amp ring whenever it is read."""
    place = [amp.name for amp in lab.detector.amps].index(AMP)

    def ring(exposure, counts):
        loud = counts[place]
        loud += np.rint(np.random.default_rng(exposure).normal(400, 300, loud.shape)).astype(np.int32)
        return counts

    lab.tamper = ring


def planes(lab: Lab, result: DetectorResult) -> tuple[np.ndarray, np.ndarray | None, dict]:
    """Return a calib's image and counts in the amp, and what its table says of the amp."""
    record = lab.results.calib("LabCam", result.metrics["calib_id"])
    box = lab.detector.amp_by_name[AMP].trimmed.slices
    with fits.open(lab.folder / "calibs" / record.path) as hdus:
        counts = hdus["COUNTS"].data[box] if "COUNTS" in hdus else None
    plane = lab.worker.calibs.load(record)
    return plane.image[box], counts, dict(plane.table.get(AMP, {}))


def test_an_amp_that_is_off_is_in_no_calib_and_comes_back_with_the_next_ones(make):
    lab = make(seed=31)
    switch_off(lab, last=16)
    spoil(lab)

    def afternoon() -> dict[str, DetectorResult]:
        built = {"bias": lab.build("bias", [lab.take("bias") for _ in range(4)])}
        darks = [lab.take("dark", time_s=60.0) for _ in range(3)]
        built["dark"] = lab.build("dark", darks)
        flats = [lab.take("flat", level_e=30_000, time_s=5.0) for _ in range(3)]
        built["flat"] = lab.build("flat", flats)
        built["defects"] = lab.build("defects", [*darks, *flats])
        return built

    made = afternoon()
    empty = {"bias": 0.0, "dark": 0.0, "flat": 1.0, "defects": 8.0}
    for kind, result in made.items():
        verdict = Verification.from_stored(result.verification)
        assert result.metrics["calib_state"] == "certified", (kind, verdict.failures)
        assert verdict.excluded == {AMP: "rings (pat, since 2026-11-20 19:59 UTC)"}
        assert result.amps[AMP] == {"excluded": verdict.excluded[AMP]}
        image, counts, table = planes(lab, result)
        assert np.unique(image) == [empty[kind]]
        assert counts is None or not counts.any()
        assert table == {"excluded": 1.0}
        assert "excluded" not in lab.worker.calibs.load(
            lab.results.calib("LabCam", result.metrics["calib_id"])
        ).table.get("C11", {})
    assert made["defects"].metrics["n_bad_columns"] == 0
    assert made["bias"].metrics["n_excluded_amps"] == 1

    lab.tamper = None  # the board is replaced, and the amp switched on again: exposures 14 to 16 were the last without
    while len(lab.taken) < 16:
        lab.take("bias")
    early = lab.process(lab.take("flat", level_e=30_000, time_s=5.0))
    assert "was switched off when LabCam-094-" in str(early.amps[AMP]["excluded"]), "no calib has anything of it yet"
    assert early.amps["C11"].get("excluded") is None

    again = afternoon()
    for kind, result in again.items():
        assert result.metrics["calib_state"] == "certified", kind
        assert "excluded" not in result.amps[AMP]
        image, counts, table = planes(lab, result)
        assert "excluded" not in table
        assert counts is None or counts.max() >= 3
        assert kind == "defects" or np.unique(image).size > 100
    late = lab.process(lab.take("flat", level_e=30_000, time_s=5.0))
    assert late.amps[AMP].get("excluded") is None
    assert late.amps[AMP]["n_bad"] == 0


def test_an_amp_that_was_off_for_some_exposures_is_built_from_the_others(make):
    lab = make(seed=32)
    switch_off(lab, first=0, last=2)
    result = lab.build("bias", [lab.take("bias") for _ in range(6)])
    assert result.metrics["calib_state"] == "certified"
    assert "excluded" not in result.amps[AMP]
    _, counts, table = planes(lab, result)
    assert counts.max() == 4
    assert "excluded" not in table


def test_gains_have_no_row_of_an_amp_that_is_off(make):
    lab = make(seed=33)
    switch_off(lab)
    levels = (2000, 8000, 15_000, 25_000, 40_000, 55_000)
    flats = [lab.take("flat", level_e=level, time_s=level / 5000) for level in levels for _ in range(2)]
    for kind in ("linearity", "ptc"):
        result = lab.build(kind, flats)
        assert result.amps[AMP] == {"excluded": "rings (pat, since 2026-11-20 19:59 UTC)"}
        assert AMP in Verification.from_stored(result.verification).excluded
        record = lab.results.calib("LabCam", result.metrics["calib_id"])
        assert record.state is CalibState.CERTIFIED, record.failures
        assert "gain" not in lab.worker.calibs.load(record).table.get(AMP, {})


def test_exposures_in_which_the_detector_was_off_are_left_out(make):
    lab = make(seed=34)
    exposures = [lab.take("bias") for _ in range(5)]
    for exposure in exposures:
        lab.process(exposure)
    switch_off(lab, amp=None, first=0, last=2)
    result = lab.build("bias", exposures)
    assert result.provenance.inputs == exposures[2:]
    assert result.metrics["n_inputs_excluded"] == 2
    assert "rings" in result.metrics["inputs_excluded"]
    switch_off(lab, amp=None, first=2)
    with pytest.raises(PayloadError, match="0 exposures to build a bias from"):
        lab.build("bias", exposures)


def test_an_exposure_whose_raw_could_not_be_read_is_left_out(make):
    lab = make(seed=35)
    exposures = [lab.take("bias") for _ in range(5)]
    unreadable = exposures.pop(1)
    for exposure in exposures:
        last = lab.process(exposure)
    status = DetectorStatus(state=DetectorState.QUARANTINED, reason="truncated")
    summary = lab.summarise(last).model_copy(
        update={"exposure": unreadable, "seq_num": unreadable % 100_000, "detectors": {DETECTOR: status}}
    )
    job = lab._job(exposures[-1], "build_bias", tuple(sorted([*exposures, unreadable])), "prompt", {})
    with pytest.raises(PayloadError, match=f"no result of exposure {unreadable}"):
        lab.worker.run_job(job)  # nobody knows yet what became of it
    lab.results.put_summary(summary)
    result = lab.worker.run_job(job).result
    assert result.provenance.inputs == exposures
    assert result.metrics["inputs_excluded"] == f"{unreadable}: quarantined: truncated"
    assert result.metrics["calib_state"] == "certified"
