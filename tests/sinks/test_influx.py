"""Line protocol, against a real InfluxDB and against a server that refuses."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.sinks.documents import documents_of
from rapid.sinks.influx import InfluxConfig, InfluxSink, to_line
from rapid.sinks.models import MetricDocument
from tests.support.records import make_result, make_summary

WHEN = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


def make_document(**changes) -> MetricDocument:
    facts = {
        "level": "detector",
        "camera": "LSSTCam",
        "run": "prompt",
        "exposure": 2026112000012,
        "day_obs": 20261120,
        "seq_num": 12,
        "pipeline": "quicklook",
        "image_type": "science",
        "physical_filter": "r_57",
        "detector": 94,
        "detector_name": "R22_S11",
        "time": WHEN,
        "values": {"psf_fwhm_arcsec": 0.8},
    }
    return MetricDocument.model_validate({**facts, **changes})


def test_a_line_is_as_the_protocol_wants_it():
    line = to_line(make_document(values={"psf_fwhm_arcsec": 0.8, "n_stars": 12, "is_ok": True, "zero_point_mag": None},
                                 reasons={"zero_point_mag": 'no "reference"'}))  # fmt: skip
    assert line == (
        "rapid_detector,camera=LSSTCam,detector=R22_S11,image_type=science,physical_filter=r_57,pipeline=quicklook,run=prompt "
        'psf_fwhm_arcsec=0.8,n_stars=12.0,is_ok=true,zero_point_mag_reason="no \\"reference\\"",'
        "exposure=2026112000012i,day_obs=20261120i,seq_num=12i,detector_number=94i 1795230000000000000"
    )


def test_a_document_without_any_value_is_no_line():
    assert to_line(make_document(values={})) is None


def test_infinite_numbers_of_a_result_are_null_with_a_reason():
    result = make_result()
    result.metrics = {"psf_fwhm_arcsec": math.nan, "sky_level_e": math.inf, "n_stars": None, "n_stars_note": "clouds"}
    summary = make_summary()
    detector = next(one for one in documents_of(summary, [result]) if one.level == "detector")
    assert detector.values["psf_fwhm_arcsec"] is None
    assert detector.reasons == {
        "psf_fwhm_arcsec": "not a finite number",
        "sky_level_e": "not a finite number",
        "n_stars": "clouds",
    }
    assert detector.units["psf_fwhm_arcsec"] == "arcsec"
    assert "=nan" not in (to_line(detector) or "").lower()


@pytest.fixture
def database(influx, request):
    name = request.node.name.replace("[", "_").replace("]", "_")[:60]
    influx.query(f"CREATE DATABASE {name}")
    yield name
    influx.query(f"DROP DATABASE {name}")


def test_a_real_server_takes_what_is_sent_and_sending_twice_is_sending_once(influx, database):
    sink = InfluxSink(InfluxConfig(url=influx.url, database=database))
    odd = make_document(
        detector_name="R22 S11,=x", values={"psf_fwhm_arcsec": 0.8, "odd name,=": 1.5, "word": 'a "b" \\ c\nd'}
    )
    documents = [make_document(), odd]
    for _ in range(2):
        sent = sink.send(documents)
        assert (sent.rejected, sent.retry) == ({}, ())
    rows = influx.query("SELECT * FROM rapid_detector", database)
    assert len(rows) == 2
    assert {row["detector"] for row in rows} == {"R22_S11", "R22 S11,=x"}
    found = next(row for row in rows if row["detector"] != "R22_S11")
    assert (found["odd name,="], found["word"]) == (1.5, 'a "b" \\ c d')
    assert all(row["exposure"] == 2026112000012 for row in rows)
    assert all(row["time"] == 1795230000000000000 for row in rows)


def test_of_many_a_real_server_takes_all_but_the_one_it_refuses(influx, database):
    sink = InfluxSink(InfluxConfig(url=influx.url, database=database))
    assert not sink.send([make_document()]).rejected
    documents = [make_document(seq_num=n, detector_name=f"R{n:02d}_S00") for n in range(20, 31)]
    documents[4] = documents[4].model_copy(update={"values": {"psf_fwhm_arcsec": "a word where a number was"}})
    sent = sink.send(documents)
    assert list(sent.rejected) == [4]
    assert "field type conflict" in sent.rejected[4]
    assert len(influx.query("SELECT psf_fwhm_arcsec FROM rapid_detector", database)) == 11


def test_a_database_that_is_not_there_yet_is_waited_for(influx):
    sent = InfluxSink(InfluxConfig(url=influx.url, database="not_there")).send([make_document()])
    assert sent.retry == (0,)
    assert "404" in sent.why


@given(text=st.text(max_size=40), number=st.floats(allow_nan=False, allow_infinity=False))
def test_whatever_a_name_or_word_holds_it_stays_one_line(text, number):
    line = to_line(make_document(detector_name=text, values={"x": number, "word": text, f"k{text}": 1.0}))
    assert line is not None
    assert "\n" not in line
    assert line.endswith(" 1795230000000000000")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again_when_it_says(recorder, caller, status):
    recorder.answer = lambda _call: (status, b"busy", {"Retry-After": "7"})
    sink = InfluxSink(InfluxConfig(url=recorder.url, bucket="b", org="o", token="secret"), caller=caller)
    sent = sink.send([make_document(), make_document(seq_num=13)])
    assert (sent.retry, sent.wait_s) == ((0, 1), 7.0)
    assert recorder.calls[0].path == "/api/v2/write?org=o&bucket=b&precision=ns"
    assert recorder.calls[0].headers["Authorization"] == "Token secret"
    assert len(recorder.calls) == 1


def test_a_server_that_is_away_is_asked_again(caller):
    sent = InfluxSink(InfluxConfig(url="http://127.0.0.1:1", database="x"), caller=caller).send([make_document()])
    assert sent.retry == (0,)
    assert "refused" in sent.why
