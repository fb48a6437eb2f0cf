"""S3 event notifications, as servers send them and as they should not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.arrival.notification import (
    NotificationReceipt,
    ObjectCreated,
    Sequencers,
    is_newer,
    parse_notification,
)


def record(key="LSSTCam/x.fits", name="ObjectCreated:Put", **thing):
    facts = {"key": key, "size": 10, "eTag": "abc", "sequencer": "0A", **thing}
    return {
        "eventVersion": "2.1",
        "eventSource": "ceph:s3",
        "eventTime": "2026-11-21T03:00:00.000Z",
        "eventName": name,
        "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": "raws", "arn": "arn:aws:s3:::raws"}, "object": facts},
        "opaqueData": "hush",
    }


def body(*records):
    return json.dumps({"Records": list(records)})


@pytest.mark.parametrize(
    "name", ["ObjectCreated:Put", "s3:ObjectCreated:Put", "ObjectCreated:CompleteMultipartUpload", "ObjectCreated:Copy"]
)
def test_every_kind_of_creation_is_taken(name):
    created, receipt = parse_notification(body(record(name=name)))
    assert created == [ObjectCreated("raws", "LSSTCam/x.fits", 10, "abc", "0A")]
    assert receipt == NotificationReceipt(n_taken=1)


@pytest.mark.parametrize("name", ["ObjectRemoved:Delete", "s3:ObjectAccessed:Get", "ObjectCreatedness", "", None])
def test_other_events_are_ignored(name):
    assert parse_notification(body(record(name=name))) == ([], NotificationReceipt(n_ignored=1))


@pytest.mark.parametrize(
    ("written", "key"),
    [("a/b.fits", "a/b.fits"), ("a+b%2Bc%20d.fits", "a b+c d.fits"), ("%C3%A9.fits", "é.fits"), ("a%252Fb", "a%2Fb")],
)
def test_keys_are_unquoted(written, key):
    assert parse_notification(body(record(written)))[0][0].key == key


@pytest.mark.parametrize(
    "text",
    ['{"Service":"Amazon S3","Event":"s3:TestEvent"}', "{}", "[]", "null", "3", '{"Records": null}', '{"Records": {}}'],
)
def test_a_body_without_records_is_ignored(text):
    assert parse_notification(text) == ([], NotificationReceipt(n_ignored=1))


@pytest.mark.parametrize(
    "text", ["", "{", b"\xff\xfe", "[" * 100_000, " " * (5 << 20)], ids=["empty", "cut", "bytes", "deep", "long"]
)
def test_a_body_that_is_no_json_is_bad_and_no_more(text):
    assert parse_notification(text) == ([], NotificationReceipt(n_bad=1))


@pytest.mark.parametrize(
    "bad",
    [
        7,
        {"eventName": "ObjectCreated:Put"},
        {"eventName": "ObjectCreated:Put", "s3": {"bucket": "raws", "object": {"key": "x"}}},
        {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "raws"}, "object": {"key": 5}}},
        {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": ""}, "object": {"key": "x"}}},
        record("LSSTCam/\ud800.fits"),
        record("LSSTCam/%00.fits"),
        record("LSSTCam/" + "x" * 1017),
        {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "r\udfff"}, "object": {"key": "x"}}},
    ],
)
def test_a_bad_record_is_counted_and_the_rest_is_taken(bad):
    created, receipt = parse_notification(body(record("a"), bad, record("b")))
    assert [one.key for one in created] == ["a", "b"]
    assert receipt == NotificationReceipt(n_taken=2, n_bad=1)


@pytest.mark.parametrize("size", [None, "10", -1, True, 1.5])
def test_a_size_that_is_none_is_unknown(size):
    assert parse_notification(body(record(size=size)))[0][0].size_bytes is None


@pytest.mark.parametrize("given_", ["wrong", "", None, "Hush", 5, "\ud800"])
def test_a_record_without_the_secret_is_refused_and_the_others_are_taken(given_):
    wrong = {**record("a"), "opaqueData": given_}
    created, receipt = parse_notification(body(wrong, record("b")), secret="hush")
    assert [one.key for one in created] == ["b"]
    assert receipt == NotificationReceipt(n_taken=1, n_refused=1)


def test_sequencers_order_the_events_of_one_key_only():
    sequencers = Sequencers()
    events = [("a", "0B"), ("b", "0A"), ("a", "0A"), ("a", "0B"), ("a", "0B1"), ("a", ""), ("a", "01")]
    taken = [sequencers.take(ObjectCreated("raws", key, sequencer=s)) for key, s in events]
    assert taken == [True, True, False, False, True, True, True]


@given(st.text("0123456789abcdefABCDEF", min_size=1), st.text("0123456789abcdefABCDEF", min_size=1))
def test_of_two_sequencers_at_most_one_is_newer(one, other):
    assert not (is_newer(one, other) and is_newer(other, one))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(st.sampled_from(["Records", "s3", "bucket", "object", "eventName", "key", "name"]), x)
        ),
    )
)
def test_no_document_breaks_the_reader(document):
    created, receipt = parse_notification(json.dumps(document))
    assert len(created) == receipt.n_taken
