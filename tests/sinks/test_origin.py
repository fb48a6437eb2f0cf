"""Every document that is sent says how its numbers came to be: software, settings, calibs, raws, and what came later."""

from datetime import UTC, datetime

from rapid.results.afterburner import join_results
from rapid.results.provenance import provenance_of
from rapid.sinks.documents import documents_of
from rapid.sinks.influx import to_line
from rapid.sinks.sasquatch import avro_name
from rapid.sinks.verify_job import to_verify_job
from tests.support.records import make_result, make_summary

BIAS = "LSSTCam-094-bias-20261120T200000-v1"


def made(**origin):
    result = make_result(1, 94)
    facts = {"payloads": {"isr": "3", "quality": "5"}, "applied": ["overscan", "bias"], "calibs": {"bias": BIAS}}
    result.provenance = result.provenance.model_copy(update=facts | origin)
    return result


def with_afterburner():
    after = made().model_copy(
        update={"metrics": {"ee50_arcsec": 0.4}, "amps": {}, "finished_at": datetime.now(UTC), "timings": {}}
    )
    after.provenance = after.provenance.model_copy(
        update={"pipeline": "quicklook+", "config_hash": "b" * 64, "payloads": {"encircled_energy": "2"}}
    )
    return join_results(made(), after)


def documents(result, *, is_new: bool = True):
    summary = make_summary()
    if is_new:
        summary.provenance = provenance_of("quicklook", [result], software_version="9.9", host="gather-0")
    return {one.level: one for one in documents_of(summary, [result])}


def test_detectors_and_amps_tell_software_settings_calibs_and_raw():
    found = documents(made())
    assert found["detector"].provenance == found["amp"].provenance
    assert found["detector"].provenance == {
        "software_version": "0.1.0",
        "pipeline_version": "1",
        "config_hash": "0" * 64,
        "payloads": "isr=3 quality=5",
        "applied": "overscan bias",
        "raw_sha256": "1" * 64,
        "calibs": BIAS,
    }


def test_an_exposure_tells_what_its_detectors_were_made_with():
    origin = documents(made())["exposure"].provenance
    assert origin["software_version"] == "9.9"
    assert (origin["config_hash"], origin["payloads"]) == ("0" * 64, "isr=3 quality=5")
    assert origin["calibs"] == "LSSTCam-*-bias-20261120T200000-v1"
    assert len(origin["raws_sha256"]) == 64
    assert documents(made(), is_new=False)["exposure"].provenance == {}, "of before it was written down"


def test_a_build_tells_its_exposures_with_their_checksums_and_no_sink_cuts_them_off():
    inputs = list(range(2026112000001, 2026112000101))
    checksums = {str(one): f"{one:064x}" for one in inputs}
    detector = documents(made(inputs=inputs, input_sha256=checksums))["detector"]
    assert detector.provenance["inputs"].split() == [str(one) for one in inputs]
    assert detector.provenance["input_sha256"].split() == list(checksums.values())
    assert list(checksums.values())[-1] in to_line(detector)


def test_what_an_afterburner_added_tells_its_own_settings():
    found = documents(with_afterburner())
    origin = found["detector"].provenance
    assert origin["afterburner_config_hash"] == "b" * 64
    assert origin["afterburner_payloads"] == "encircled_energy=2"
    assert origin["afterburner_metrics"] == "ee50_arcsec"
    assert origin["config_hash"] == "0" * 64
    assert found["exposure"].provenance["afterburner_config_hash"] == "b" * 64
    assert to_verify_job(found["detector"])["meta"]["afterburner_config_hash"] == "b" * 64


def test_no_origin_takes_the_place_of_a_number():
    found = documents(with_afterburner())
    for document in found.values():
        assert not {avro_name(name) for name in document.values} & {avro_name(name) for name in document.provenance}
