"""A summary says of what it is made, and what that was made with; those of before it was written down stay readable."""

import json
from datetime import UTC, datetime

from rapid.results.models import AfterburnerProvenance, ExposureSummary
from rapid.results.provenance import checksum_of, provenance_of
from tests.support.records import make_result, make_summary


def result_of(detector: int, **origin):
    result = make_result(1, detector)
    facts = {"raw_sha256": f"{detector:064x}", "payloads": {"isr": "3"}, "calibs": {}} | origin
    result.provenance = result.provenance.model_copy(update=facts)
    return result


def bias(detector: int, version: int = 1) -> dict[str, str]:
    return {"bias": f"LSSTCam-{detector:03d}-bias-20261120T200000-v{version}"}


def test_what_is_alike_is_said_once_and_every_raw_has_its_checksum():
    results = [result_of(d, calibs=bias(d, 2 if d == 4 else 1)) for d in (3, 1, 2, 4)]
    made = provenance_of("quicklook", results, software_version="9.9", host="gather-0")
    assert (made.software_version, made.pipeline, made.host) == ("9.9", "quicklook", "gather-0")
    assert (made.results, made.pipeline_versions) == ({"0.1.0": "1-4"}, {"1": "1-4"})
    assert made.config_hashes == {"0" * 64: "1-4"}
    assert made.payloads == {"isr": ["3"]}
    assert made.calibs == {
        "bias": {"LSSTCam-*-bias-20261120T200000-v1": "1-3", "LSSTCam-*-bias-20261120T200000-v2": "4"}
    }
    assert made.raw_sha256 == {d: f"{d:064x}" for d in (1, 2, 3, 4)}
    assert made.raws_sha256 == checksum_of(made.raw_sha256)
    other = provenance_of("quicklook", results[:3], software_version="9.9", host="gather-0")
    assert other.raws_sha256 != made.raws_sha256


def test_two_configurations_side_by_side_are_both_told():
    results = [result_of(1), result_of(2, config_hash="f" * 64), result_of(3, payloads={"isr": "4"})]
    made = provenance_of("quicklook", results, software_version="9.9", host="")
    assert made.config_hashes == {"0" * 64: "1,3", "f" * 64: "2"}
    assert made.payloads == {"isr": ["3", "4"]}


def test_a_build_tells_its_exposures_and_an_afterburner_its_settings():
    added = AfterburnerProvenance(
        software_version="1", pipeline="quicklook+", pipeline_version="1", config_hash="a" * 64, payloads={},
        finished_at=datetime.now(UTC),
    )  # fmt: skip
    made = provenance_of(
        "build_bias", [result_of(1, inputs=[5, 4]), result_of(2, inputs=[4], afterburner=added)],
        software_version="9.9", host="",
    )  # fmt: skip
    assert made.inputs == [4, 5]
    assert made.afterburners == {"a" * 64: "2"}


def test_a_summary_of_nothing_has_a_provenance_of_nothing():
    made = provenance_of("quicklook", [], software_version="9.9", host="")
    assert (made.calibs, made.raw_sha256, made.raws_sha256) == ({}, {}, "")


def test_a_row_of_before_it_was_written_down_is_readable():
    summary = make_summary()
    assert summary.provenance is None
    document = json.loads(summary.model_dump_json())
    del document["provenance"]
    assert ExposureSummary.model_validate(document) == summary
    summary.provenance = provenance_of("quicklook", [result_of(94)], software_version="9.9", host="")
    assert ExposureSummary.model_validate_json(summary.model_dump_json()) == summary
