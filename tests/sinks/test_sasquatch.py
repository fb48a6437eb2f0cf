"""Sasquatch's REST proxy: Avro as JSON, one schema per topic, errors of single records."""

import json

import pytest

from rapid.sinks.sasquatch import SasquatchConfig, SasquatchSink, avro_name
from rapid.sinks.verify_job import to_verify_job, to_verify_text
from tests.sinks.test_influx import make_document


@pytest.fixture
def sink(recorder, caller, tmp_path) -> SasquatchSink:
    return SasquatchSink(SasquatchConfig(url=recorder.url, namespace="lsst.rapid", token="t"), tmp_path, caller=caller)


def fields_of(call) -> dict:
    schema = json.loads(call.json["value_schema"])
    return {field["name"]: field["type"] for field in schema["fields"]}


def test_a_record_is_avro_as_json(recorder, sink):
    sent = sink.send([make_document(values={"psf_fwhm_arcsec": 0.8, "mjd": 61365.123456789, "n_stars": None})])
    assert (sent.rejected, sent.retry) == ({}, ())
    (call,) = recorder.calls
    assert call.path == "/topics/lsst.rapid.quicklook_detector"
    assert call.headers["Content-Type"] == "application/vnd.kafka.avro.v2+json"
    assert call.headers["Authorization"] == "Bearer t"
    value = call.json["records"][0]["value"]
    assert value["exposure"] == "2026112000012"
    assert value["detector"] == "94"
    assert value["timestamp"] == 1795230000.0
    assert value["psf_fwhm_arcsec"] == {"double": 0.8}
    assert value["mjd"] == {"double": 61365.123456789}
    assert "n_stars" not in value  # never measured by anybody: it has no type yet
    assert fields_of(call)["psf_fwhm_arcsec"] == ["null", "double"]
    schema = json.loads(call.json["value_schema"])
    assert (schema["namespace"], schema["name"]) == ("lsst.rapid", "quicklook_detector")
    assert set(value) == set(fields_of(call))


def test_the_schema_of_a_topic_stays_whatever_was_measured(recorder, sink, caller, tmp_path):
    sink.send([make_document(values={"a": 1.0})])
    sink.send([make_document(values={"b": 2.0, "a": None}, reasons={"a": "clouds"})])
    # After a restart, too.
    again = SasquatchSink(SasquatchConfig(url=recorder.url, namespace="lsst.rapid"), tmp_path, caller=caller)
    again.send([make_document(values={"c": 3.0})])
    names = [list(fields_of(call)) for call in recorder.calls]
    assert names[1][: len(names[0])] == names[0]
    assert names[2][: len(names[1])] == names[1]
    value = recorder.calls[2].json["records"][0]["value"]
    assert (value["a"], value["b"], value["c"]) == (None, None, {"double": 3.0})
    assert recorder.calls[1].json["records"][0]["value"]["a_reason"] == {"string": "clouds"}


def test_the_schema_is_of_all_records_and_not_of_the_first(recorder, sink):
    sink.send([make_document(values={"a": 1.0}), make_document(values={"b": 1.0}, detector=95)])
    first, second = recorder.calls[0].json["records"]
    assert {"a", "b"} <= set(first["value"])
    assert set(first["value"]) == set(second["value"])


def test_a_metric_that_becomes_a_word_is_refused_by_name(recorder, sink):
    sink.send([make_document(values={"a": 1.0})])
    sent = sink.send([make_document(values={"a": "word"}), make_document(values={"a": 2.0})])
    assert sent.rejected == {0: "a is a string, and lsst.rapid.quicklook_detector has it as double"}
    assert len(recorder.calls[1].json["records"]) == 1


def test_errors_of_single_records_in_a_good_answer_are_heard(recorder, sink):
    offsets = [{"offset": 1}, {"error_code": 1, "error": "bad"}, {"error_code": 2, "error": "later"}]
    recorder.answer = lambda _call: (200, json.dumps({"offsets": offsets}).encode(), {})
    sent = sink.send([make_document(detector=n) for n in (1, 2, 3)])
    assert sent.rejected == {1: "1: bad"}
    assert sent.retry == (2,)


def test_of_a_refused_body_the_bad_record_is_found(recorder, sink):
    def answer(call):
        bad = any(record["value"]["detector"] == "3" for record in call.json["records"])
        return (422, b'{"error_code": 42203, "message": "conversion"}', {}) if bad else (200, b"{}", {})

    recorder.answer = answer
    sent = sink.send([make_document(detector=n) for n in range(6)])
    assert list(sent.rejected) == [3]
    assert "42203" in sent.rejected[3]
    taken = [r["value"]["detector"] for c in recorder.calls if answer(c)[0] == 200 for r in c.json["records"]]
    assert sorted(taken) == ["0", "1", "2", "4", "5"]


@pytest.mark.parametrize("status", [401, 429, 500])
def test_what_may_be_taken_later_comes_back(recorder, sink, status):
    recorder.answer = lambda _call: (status, b"", {"Retry-After": "3"})
    sent = sink.send([make_document()])
    assert (sent.retry, sent.wait_s) == ((0,), 3.0)


@pytest.mark.parametrize(("name", "plain"), [("psf.fwhm", "psf_fwhm"), ("1a", "_1a"), ("µ", "_")])
def test_names_are_as_avro_allows(name, plain):
    assert avro_name(name) == plain


def test_a_job_of_lsst_verify_has_units_and_null_with_a_reason():
    document = make_document(
        values={"psf_fwhm_arcsec": 0.8, "zero_point_mag": None, "n_stars": 3, "catalogue": "monster"},
        units={"psf_fwhm_arcsec": "arcsec", "zero_point_mag": "mag"},
        reasons={"zero_point_mag": "no reference"},
    )
    job = to_verify_job(document)
    assert set(job) == {"measurements", "blobs", "metrics", "specs", "meta"}
    by_metric = {one["metric"]: one for one in job["measurements"]}
    fwhm = by_metric["rapid.psf_fwhm_arcsec"]
    assert (fwhm["value"], fwhm["unit"], fwhm["blob_refs"]) == (0.8, "arcsec", [])
    assert len(fwhm["identifier"]) == 32
    assert by_metric["rapid.zero_point_mag"]["value"] is None
    assert job["meta"]["not_measured"] == {"zero_point_mag": "no reference"}
    assert job["meta"]["notes"] == {"catalogue": "monster"}
    assert to_verify_job(document) == job
    assert json.loads(to_verify_text([document])) == [job]
