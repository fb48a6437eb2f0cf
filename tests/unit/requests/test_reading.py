"""Whatever comes in, a valid request or an error that names the field goes out."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapid.camera.store import load_camera
from rapid.errors import RapidError
from rapid.pipeline.store import packaged_book
from rapid.requests.checks import check_spec
from rapid.requests.faults import BadRequestError
from rapid.requests.models import RequestSpec, request_schema
from rapid.requests.query import read_data_query
from rapid.requests.reading import MAX_BYTES, read_request
from rapid.requests.uws import JobRequest, read_job

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted(RequestSpec.model_fields)
NAMES = sorted(
    {"exposures", "group", "next", "sequence", "n", "group_id", "image_type", "of", "first", "last", "isr", "flat"}
)
REQUEST_LIKE = st.dictionaries(
    st.sampled_from(FIELDS),
    JSON
    | st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3)
    | st.sampled_from(["focus_sweep", "quicklook", "R22 &", "../x"]),
    max_size=6,
)
VALID_SELECT = {"select": {"exposures": [2026112000001]}}
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def fault_of(do):
    """The error that something ends in, and what it returns."""
    try:
        return None, do()
    except RapidError as error:
        return error, None


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_named_error(data):
    error, spec = fault_of(lambda: read_request(data))
    assert spec is not None or error.facts["field"]


@FUZZ
@given(REQUEST_LIKE, st.booleans())
def test_any_document_is_a_request_or_a_named_error(document, with_select):
    text = json.dumps({**document, **(VALID_SELECT if with_select else {})})
    camera, book = load_camera("LSSTCam"), packaged_book()
    error, spec = fault_of(lambda: read_request(text))
    if error is None:
        error, _ = fault_of(lambda: check_spec(spec, camera, book))
    if error is not None:
        assert error.facts["field"]
        assert len(error.message) < 2000
        return
    assert RequestSpec.model_validate_json(spec.model_dump_json()) == spec


@FUZZ
@given(
    st.text(max_size=80)
    | st.from_regex(r"\A(exposure|visit|detector|day_obs) ?(=|IN) ?\(?[0-9., :]{0,40}\)?( AND .{0,20})?\Z")
)
def test_any_query_is_understood_or_a_named_error(text):
    error, found = fault_of(lambda: read_data_query(text, instrument="LSSTCam"))
    if error is None:
        assert 1 <= len(found.exposures) <= 1000
    else:
        assert error.facts["field"] == "environment.DATA_QUERY"


@FUZZ
@given(
    st.lists(
        st.tuples(st.sampled_from(["PIPELINE_URL", "DATA_QUERY", "RUN_OPTIONS", "X"]), st.text(max_size=40)), max_size=5
    )
)
def test_any_job_is_understood_or_a_named_error(variables):
    job = JobRequest.model_validate({"environment": [{"name": n, "value": v} for n, v in variables]})
    error, read = fault_of(lambda: read_job(job, instrument="LSSTCam"))
    assert read is not None or str(error.facts["field"]).startswith("environment.")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"select": {"exposures": [1], "next": {"n": 1}}}, "select"),
        ({"select": {"exposures": []}}, "select.exposures"),
        ({"select": {"exposures": ["12-3"]}}, "select.exposures.0"),
        ({"select": {"next": {"n": 0}}}, "select.next.n"),
        ({"select": {"group": {"group_id": ""}}}, "select.group.group_id"),
        ({"combine": "donut_pair"}, "select.exposures"),
        ({"combine": "build_bias", "pipeline": "bias"}, "pipeline"),
        ({"run": "prompt"}, "run"),
        ({"guaranteed": True, "detectors": [1]}, "detectors"),
        ({"priority": "now"}, "priority"),
        ({"config": {"isr": 1}}, "config.isr"),
        ({"select": {"exposures": [99999999999999]}}, "select.exposures.0"),
    ],
)
def test_an_error_names_the_field(change, field):
    with pytest.raises(BadRequestError) as caught:
        read_request(json.dumps({**VALID_SELECT, **change}))
    assert caught.value.field == field


@pytest.mark.parametrize("which", ["exposures", "exclude"])
def test_a_campaign_of_exposures_that_cannot_be_is_refused_by_name(which):
    campaign = {"nights": [20261120], which: [10**30]}
    with pytest.raises(BadRequestError) as caught:
        read_request(json.dumps({"select": {"campaign": campaign}}))
    assert caught.value.field.startswith(f"select.campaign.{which}.0")


def test_ranges_and_ids_are_listed_in_order_and_once():
    spec = read_request(
        json.dumps({"select": {"exposures": ["2026112000003..2026112000005", 2026112000004, "2026112000001"]}})
    )
    assert [item % 100 for item in spec.select.listed()] == [3, 4, 5, 1]


def test_a_text_without_end_is_refused_unread():
    with pytest.raises(BadRequestError, match="larger than"):
        read_request(b"[" * (MAX_BYTES + 1))


def test_the_schema_names_every_field_with_its_meaning():
    schema = request_schema()
    assert set(schema["properties"]) == set(RequestSpec.model_fields)
    assert schema["required"] == ["select"]


@pytest.mark.parametrize(
    ("text", "exposures", "detectors"),
    [
        ("exposure=1", (1,), ()),
        ("visit in (1, 3..7:2) and detector = 5", (1, 3, 5, 7), (5,)),
        ("instrument=\"LSSTCam\" AND day_obs=20261120 AND seq_num IN (1..2)", (2026112000001, 2026112000002), ()),
    ],
)  # fmt: skip
def test_a_query_selects(text, exposures, detectors):
    found = read_data_query(text, instrument="LSSTCam")
    assert (found.exposures, found.detectors) == (exposures, detectors)


@pytest.mark.parametrize(
    "text",
    ["", "exposure=1 OR visit=2", "exposure>1", "exposure=1 AND", "detector=1", "instrument='LATISS' AND exposure=1",
     "exposure IN (1..99999)", "exposure IN (1", "exposure=1 AND exposure=2", "exposure=1;DROP TABLE x", "exposure=1 AND seq_num=2"],
)  # fmt: skip
def test_half_a_query_is_not_understood(text):
    with pytest.raises(BadRequestError):
        read_data_query(text, instrument="LSSTCam")
