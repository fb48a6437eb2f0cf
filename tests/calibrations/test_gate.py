"""A bad bias is refused, kept, overridden with a reason, and all of that is written down."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from rapid.exclusions.models import Target
from rapid.exclusions.store import ExclusionStore
from rapid.requests.calibs import CalibRefusedError, certify_calibs, reject_calibs, verify_calibs
from rapid.results.models import CalibState
from rapid.verification.models import Outcome, Subject, Verification
from tests.calibrations.lab import DETECTOR, Lab


def verdict(result) -> Verification:
    return Verification.from_stored(result.verification)


@pytest.fixture(scope="module")
def lab(make) -> Lab:
    return make()


@pytest.fixture(scope="module")
def good(lab):
    """A bias of six quiet exposures."""
    return lab.build("bias", [lab.take("bias") for _ in range(6)])


@pytest.fixture(scope="module")
def bad(lab, good):
    """A later bias in which C10 is dead and C01 rings."""
    assert good is not None
    names = [amp.name for amp in lab.detector.amps]

    def spoil(exposure, counts):
        rng = np.random.default_rng(exposure)
        counts[names.index("C10")] = 23_000
        loud = counts[names.index("C01")]
        loud += np.rint(rng.normal(0, 60, loud.shape)).astype(np.int32)
        return counts

    lab.tamper = spoil
    try:
        return lab.build("bias", [lab.take("bias") for _ in range(6)])
    finally:
        lab.tamper = None


def test_a_good_bias_is_certified_by_its_build(lab, good):
    (record,) = lab.results.calibs("LabCam", kind="bias", at=datetime(2026, 11, 20, 20, 3, 5))  # noqa: DTZ001 - TAI
    assert (record.calib_id, record.state, record.outcome) == (good.metrics["calib_id"], CalibState.CERTIFIED, "pass")
    found = Verification.from_stored(record.verification)
    assert found == verdict(good)
    assert (found.subject, found.inputs) == (Subject.MASTER, tuple(record.inputs))
    assert set(found.amps) == {"C10", "C11", "C01", "C00"}
    assert abs(found.amps["C00"]["MEAN"].value) < 5


def test_a_bad_bias_is_refused_and_its_amps_are_named(lab, bad):
    found = verdict(bad)
    assert found.outcome is Outcome.FAIL
    assert set(found.failing_amps) == {"C10", "C01"}
    assert {"C10 READ_NOISE", "C01 READ_NOISE"} <= set(found.failures)
    record = lab.results.calib("LabCam", bad.metrics["calib_id"])
    assert record.state is CalibState.REJECTED
    assert "C01" in record.state_reason
    assert bad.metrics["verify_outcome"] == "fail"
    assert bad.metrics["verify_n_failed_amps"] == 2


def test_no_look_up_finds_what_was_refused(lab, good, bad):
    later = datetime(2026, 11, 20, 21)  # noqa: DTZ001 - TAI has no zone
    chosen = lab.worker.calibs.choose("LabCam", DETECTOR, "bias", at=later)
    assert chosen.calib_id == good.metrics["calib_id"]
    everything = {record.calib_id for record in lab.results.calibs("LabCam", kind="bias", state=None)}
    assert everything == {good.metrics["calib_id"], bad.metrics["calib_id"]}
    plane = lab.worker.calibs.load(lab.results.calib("LabCam", bad.metrics["calib_id"]))
    assert plane.image.shape == (lab.detector.height, lab.detector.width), "kept, and can be shown"


def test_an_override_needs_a_reason_and_is_written_down(lab, good, bad):
    calib_id = bad.metrics["calib_id"]
    with pytest.raises(CalibRefusedError, match="C10"):
        certify_calibs(lab.results, "LabCam", [calib_id], author="pat")
    with pytest.raises(CalibRefusedError, match="needs a reason"):
        certify_calibs(lab.results, "LabCam", [calib_id], author="pat", override=True, reason=" ")
    assert lab.results.calib("LabCam", calib_id).state is CalibState.REJECTED
    before, generation = datetime.now(UTC), lab.results.calib_generation()
    (record,) = certify_calibs(
        lab.results, "LabCam", [calib_id], author="pat", override=True, reason="only C10 is dead"
    )
    assert (record.state, record.is_overridden, record.certified_by) == (CalibState.CERTIFIED, True, "pat")
    assert lab.results.calib_generation() > generation, "workers are told"
    history = lab.results.calib_events("LabCam", calib_id)
    assert [(event.state.value, event.author, event.is_override) for event in history] == [
        ("rejected", "policy", False),
        ("certified", "pat", True),
    ]
    assert history[1].reason == "only C10 is dead"
    later = datetime(2026, 11, 20, 21)  # noqa: DTZ001 - TAI has no zone
    choose = lab.worker.calibs.choose
    assert choose("LabCam", DETECTOR, "bias", at=later).calib_id == calib_id
    assert choose("LabCam", DETECTOR, "bias", at=later, as_of=before).calib_id == good.metrics["calib_id"]
    reject_calibs(lab.results, "LabCam", [calib_id], author="kim", reason="it was not")
    assert choose("LabCam", DETECTOR, "bias", at=later).calib_id == good.metrics["calib_id"]
    assert choose("LabCam", DETECTOR, "bias", at=later, as_of=history[1].at).calib_id == calib_id


def test_a_build_that_runs_twice_has_one_effect(lab, good):
    again = lab.build("bias", list(lab.results.calib("LabCam", good.metrics["calib_id"]).inputs))
    assert again.metrics["calib_id"] == good.metrics["calib_id"]
    assert len(lab.results.calib_events("LabCam", good.metrics["calib_id"])) == 1


def test_an_exposure_is_verified_as_it_arrives(lab, good):
    assert good is not None
    found = verdict(lab.process(lab.take("bias")))
    assert (found.subject, found.outcome, found.failures) == (Subject.EXPOSURE, Outcome.PASS, ())
    spoiled = lab.process(lab.take("bias", offset_e=40.0))
    found = verdict(spoiled)
    assert found.outcome is Outcome.FAIL
    assert {what.split()[1] for what in found.failures} == {"MEAN", "AMP_CORNER"}
    assert spoiled.metrics["verify_n_failed_amps"] == 4
    assert lab.results.results(spoiled.exposure)[0].verification == spoiled.verification


def test_what_cannot_be_measured_is_neither_good_nor_zero(make):
    fresh = make(seed=5)
    found = verdict(fresh.process(fresh.take("bias")))
    assert found.amps["C00"]["MEAN"].value is None
    assert found.amps["C00"]["MEAN"].outcome is Outcome.NOT_MEASURED
    assert "no certified calib" in found.amps["C00"]["MEAN"].note


def test_an_amp_that_is_switched_off_keeps_no_bias_from_being_certified(make):
    lab = make(seed=6)
    place = [amp.name for amp in lab.detector.amps].index("C10")

    def kill(_exposure, counts):
        counts[place] = 23_000
        return counts

    lab.tamper = kill
    exposures = [lab.take("bias") for _ in range(3)]
    assert verdict(lab.build("bias", exposures)).outcome is Outcome.FAIL
    store = ExclusionStore(lab.results.engine)
    day = datetime(2026, 11, 20, tzinfo=UTC)
    store.exclude(
        "LabCam", [Target(detector=DETECTOR, detector_name="R22_S11", amp="C10")], reason="dead", author="pat",
        valid_from=day, valid_to=None, now=day,
    )  # fmt: skip
    found = verdict(lab.build("bias", [*exposures, lab.take("bias")]))
    assert found.outcome.is_success, found.failures
    assert found.excluded == {"C10": "dead (pat, since 2026-11-20 00:00 UTC)"}
    assert "C10" not in found.amps


def test_a_site_s_own_limit_is_in_force_from_its_day(make, tmp_path):
    own = tmp_path / "limits.yaml"
    entry = (
        "  - {test: READ_NOISE, kinds: [bias], error: {high: 0.5}, reason: a strict day, valid_from: %s, amps: [C00]}\n"
    )
    own.write_text("thresholds:\n" + entry % "2026-11-20")
    lab = make(seed=7, thresholds=own)
    built = lab.build("bias", [lab.take("bias") for _ in range(3)])
    assert verdict(built).failures == ("C00 READ_NOISE",)
    own.write_text("thresholds:\n" + entry % "2026-11-21")
    (again,) = verify_calibs(lab.results, lab.camera, [built.metrics["calib_id"]], thresholds=own)
    assert again.outcome.is_success
    record = lab.results.calib("LabCam", built.metrics["calib_id"])
    assert (record.state, record.outcome) == (CalibState.REJECTED, again.outcome.value), "a person certifies it"
    certify_calibs(lab.results, "LabCam", [record.calib_id], author="pat")
    assert lab.results.calib("LabCam", record.calib_id).is_overridden is False
    assert verdict(lab.process(lab.take("bias"))).outcome.is_success
    own.write_text("thresholds: [")
    assert verdict(lab.process(lab.take("bias"))).outcome.is_success, "the limits of before go on"


def test_a_dark_and_a_flat_pass_and_a_flat_without_light_does_not(lab, good):
    assert good is not None
    dark = lab.build("dark", [lab.take("dark", time_s=60.0) for _ in range(4)])
    flat = lab.build("flat", [lab.take("flat", level_e=20_000.0, time_s=5.0) for _ in range(4)])
    assert [verdict(one).failures for one in (dark, flat)] == [(), ()]
    assert [verdict(one).outcome.is_success for one in (dark, flat)] == [True, True]
    weak = lab.build("flat", [lab.take("flat", level_e=60.0, time_s=5.0) for _ in range(4)])
    assert {what.split()[1] for what in verdict(weak).failures} >= {"LEVEL"}
    lamp = [lab.take("flat", level_e=level, time_s=5.0) for level in (20_000.0, 20_000.0, 8_000.0, 20_000.0)]
    assert "DET LEVELS" in (*verdict(lab.build("flat", lamp)).failures, *verdict(lab.build("flat", lamp)).warnings)


def test_counts_and_variance_are_kept_in_a_file_that_anything_reads(lab, good):
    from astropy.io import fits

    record = lab.results.calib("LabCam", good.metrics["calib_id"])
    with fits.open(lab.folder / "calibs" / record.path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "VARIANCE", "COUNTS", "AMPTABLE"]
        assert hdus["COUNTS"].data.max() == 6
        assert set(hdus["AMPTABLE"].data["AMP"]) == {"C00", "C01", "C10", "C11"}
        assert hdus[0].header["NINPUT"] == 6
    assert record.created_at - datetime.now(UTC) < timedelta(0)
