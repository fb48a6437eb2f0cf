"""Raws that land in a bucket, over a real S3 API."""

import json
import os
import threading
import time

import httpx
import pytest
from fastapi import FastAPI
from httpx import ASGITransport

from rapid.arrival.bucket import BucketSource
from rapid.arrival.models import ExpectedSensors, RawArrived, RawQuarantined
from rapid.arrival.source import open_source, read_raw
from rapid.arrival.webhook import notify_router
from rapid.errors import ConfigurationError, NotFoundError, StoreError
from rapid.products.s3 import parse_store_url
from tests.support.raws import make_raw, raw_name
from tests.support.s3 import serve_s3

DAY = 20261120 * 100_000


class Bucket:
    """A bucket of raws."""

    def __init__(self, server) -> None:
        self.name = f"raws-{os.urandom(6).hex()}"
        self.url = server.make_bucket(self.name)
        self._client = server.client()

    def key(self, seq_num: int, detector_name: str = "R22_S11") -> str:
        return f"LSSTCam/20261120/MC_O_20261120_{seq_num:06d}/{raw_name(seq_num, detector_name)}"

    def put(self, key: str, data: bytes) -> str:
        return self._client.put_object(Bucket=self.name, Key=key, Body=data)["ETag"]

    def put_raw(self, seq_num: int, raft: str = "R22") -> str:
        key = self.key(seq_num, f"{raft}_S11")
        self.put(key, make_raw(seq_num, raft))
        return key

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)

    def record(self, key: str, **changes) -> dict:
        thing = {"key": key.replace("+", "%2B").replace(" ", "+"), "size": 1, **changes}
        return {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": self.name}, "object": thing}}

    def record_of(self, key: str, **changes) -> dict:
        about = self._client.head_object(Bucket=self.name, Key=key)
        facts = {"size": about["ContentLength"], "eTag": about["ETag"].strip('"')}
        return self.record(key, **(facts | changes))


@pytest.fixture
def bucket(s3_server):
    return Bucket(s3_server)


@pytest.fixture
async def told(bucket, watch, lsstcam):
    """A watch that lists only at its start: what comes later comes by notifications."""
    bucket.put_raw(99_999)
    one = watch(BucketSource(parse_store_url(bucket.url), camera=lsstcam, sweep_s=600.0))
    one.source.is_told = True
    await one.count(1)
    one.said.clear()
    return one


def body_of(*records) -> bytes:
    return json.dumps({"Records": records}).encode()


async def test_what_is_there_comes_newest_first_and_can_be_read_from_its_uri_alone(bucket, watch, lsstcam):
    for seq_num in (1, 2, 3):
        bucket.put_raw(seq_num)
    one = watch(open_source(bucket.url, camera=lsstcam))
    said = await one.count(3)
    assert {raw.exposure_id for raw in said} == {DAY + 1, DAY + 2, DAY + 3}
    for raw in said:
        assert read_raw(raw.uri) == make_raw(raw.exposure_id - DAY)
        assert one.source.read_header(raw.uri).info.exposure_id == raw.exposure_id
        assert one.source.read_header(raw.uri).info.exposure_id == raw.exposure_id
        assert raw.name.exposure_id == raw.exposure_id


async def test_without_notifications_listing_finds_what_comes(bucket, watch, lsstcam):
    one = watch(open_source(bucket.url, camera=lsstcam))
    bucket.put_raw(1)
    await one.count(1)
    bucket.put_raw(2)
    await one.count(2)
    await one.nothing_more(2.5)


async def test_a_notification_brings_a_raw_at_once(bucket, told):
    key = bucket.put_raw(1)
    begin = time.monotonic()
    receipt = told.source.notify(body_of(bucket.record_of(key)))
    (raw,) = await told.count(1)
    assert receipt.n_taken == 1
    assert raw.exposure_id == DAY + 1
    assert raw.arrived_monotonic_s - begin < 1.0


@pytest.mark.parametrize("size", [0, 1, 2880, 1 << 40], ids=["none", "a byte", "a part", "too much"])
async def test_a_size_that_is_told_wrongly_makes_no_raw_bad(bucket, told, size):
    told.source.notify(body_of(bucket.record_of(bucket.put_raw(1), size=size)))
    (raw,) = await told.count(1)
    assert isinstance(raw, RawArrived)
    assert (raw.exposure_id, raw.size_bytes) == (DAY + 1, len(make_raw(1)))


async def test_three_notifications_in_one_millisecond_are_three_exposures(bucket, told):
    records = [bucket.record_of(bucket.put_raw(seq_num)) for seq_num in (1, 2, 3)]
    for record in records:
        told.source.notify(body_of(record))
    said = await told.count(3)
    assert {raw.exposure_id for raw in said} == {DAY + 1, DAY + 2, DAY + 3}


async def test_a_notification_that_comes_three_times_is_one_raw(bucket, told):
    record = bucket.record_of(bucket.put_raw(1), sequencer="0A")
    for _ in range(3):
        told.source.notify(body_of(record, record))
    await told.count(1)
    await told.nothing_more()


async def test_a_late_notification_of_an_earlier_upload_changes_nothing(bucket, told):
    key = bucket.put_raw(1)
    first = bucket.record_of(key, sequencer="0A")
    bucket.put(key, make_raw(1, n_segments=17))
    told.source.notify(body_of(bucket.record_of(key, sequencer="0B")))
    await told.count(1)
    told.source.notify(body_of(first))
    await told.nothing_more()


async def test_an_upload_that_replaces_another_says_so(bucket, told):
    key = bucket.put_raw(1)
    told.source.notify(body_of(bucket.record_of(key, sequencer="0A")))
    (first,) = await told.count(1)
    bucket.put(key, make_raw(1, n_segments=17))
    told.source.notify(body_of(bucket.record_of(key, sequencer="0B")))
    said = await told.count(2)
    assert said[1].replaces == first.uri


async def test_a_notification_without_size_and_etag_is_enough_and_the_next_listing_adds_nothing(bucket, watch, lsstcam):
    one = watch(BucketSource(parse_store_url(bucket.url), camera=lsstcam, sweep_s=1.0))
    key = bucket.put_raw(1)
    record = bucket.record(key)
    del record["s3"]["object"]["size"]
    one.source.notify(body_of(record))
    await one.count(1)
    await one.nothing_more(2.5)


@pytest.mark.parametrize(
    ("data", "code"),
    [(make_raw(1)[:30_000], "raw_truncated"), (b"", "raw_empty"), (b"x" * 9000, "raw_not_fits")],
    ids=["truncated", "empty", "not FITS"],
)
async def test_an_unreadable_object_is_quarantined_with_its_reason(bucket, told, data, code):
    key = bucket.key(1)
    bucket.put(key, data)
    told.source.notify(body_of(bucket.record_of(key)))
    (said,) = await told.count(1)
    assert isinstance(said, RawQuarantined)
    assert (said.code, said.size_bytes, said.exposure_id) == (code, len(data), DAY + 1)
    await told.nothing_more()


async def test_the_expected_sensors_and_what_is_no_raw(bucket, told):
    prefix = "LSSTCam/20261120/MC_O_20261120_000001/MC_O_20261120_000001"
    bucket.put(f"{prefix}_expectedSensors.json", b'{"expectedSensors": ["R22_S11"]}')
    bucket.put(f"{prefix}_R22_S11.json", b"{}")
    for name in ("_expectedSensors.json", "_R22_S11.json"):
        told.source.notify(body_of(bucket.record_of(prefix + name)))
    (said,) = await told.count(1)
    assert isinstance(said, ExpectedSensors)
    assert said.detector_names == {"R22_S11"}
    await told.nothing_more()


async def test_an_object_that_is_deleted_before_we_look_is_forgotten(bucket, told):
    key = bucket.put_raw(1)
    record = bucket.record_of(key)
    bucket.delete(key)
    told.source.notify(body_of(record))
    await told.nothing_more()


async def test_keys_with_blanks_and_plus_signs(bucket, told):
    key = f"LSSTCam/a b+c%20d/{raw_name(1)}"
    bucket.put(key, make_raw(1))
    record = bucket.record_of(key)
    record["s3"]["object"]["key"] = key.replace("%", "%25").replace("+", "%2B").replace(" ", "+")
    told.source.notify(body_of(record))
    (raw,) = await told.count(1)
    assert read_raw(raw.uri) == make_raw(1)


async def test_only_the_newest_days_are_listed_if_asked(bucket, watch, lsstcam):
    for day in ("20261118", "20261119", "20261120"):
        bucket.put(f"LSSTCam/{day}/x/{raw_name(int(day[-2:]))}", make_raw(int(day[-2:])))
    one = watch(BucketSource(parse_store_url(bucket.url), camera=lsstcam, n_days=2))
    said = await one.count(2)
    assert {raw.exposure_id - DAY for raw in said} == {19, 20}
    await one.nothing_more()


async def test_a_prefix_limits_what_is_ours(bucket, watch, lsstcam):
    bucket.put_raw(1)
    bucket.put(f"other/{raw_name(2)}", make_raw(2))
    one = watch(open_source(bucket.url.replace("?", "/LSSTCam?"), camera=lsstcam))
    (raw,) = await one.count(1)
    assert raw.exposure_id == DAY + 1
    one.source.notify(body_of(bucket.record_of(f"other/{raw_name(2)}")))
    await one.nothing_more()


async def test_a_server_that_is_away_and_comes_back_loses_nothing(watch, lsstcam, monkeypatch):
    monkeypatch.setattr("rapid.arrival.bucket.UNTOLD_SWEEP_S", 0.3)
    monkeypatch.setattr("rapid.arrival.bucket.RETRY_S", 0.3)
    with serve_s3() as server:
        bucket = Bucket(server)
        bucket.put_raw(1)
        source = BucketSource(parse_store_url(bucket.url), camera=lsstcam)
        is_away = threading.Event()
        fetch, sweep = source._fetch, source.sweep

        def away(*arguments):
            if is_away.is_set():
                raise StoreError("the server is away")
            return fetch(*arguments)

        def away_too():
            if is_away.is_set():
                raise StoreError("the server is away")
            return sweep()

        monkeypatch.setattr(source, "_fetch", away)
        monkeypatch.setattr(source, "sweep", away_too)
        one = watch(source)
        await one.count(1)
        is_away.set()
        bucket.put_raw(2)
        key = bucket.put_raw(3)
        source.notify(body_of(bucket.record_of(key)))
        await one.nothing_more(1.0)
        is_away.clear()
        said = await one.count(3)
        assert {raw.exposure_id for raw in said if isinstance(raw, RawArrived)} == {DAY + 1, DAY + 2, DAY + 3}
        await one.stop()


async def post(source, body: bytes) -> httpx.Response:
    app = FastAPI()
    app.include_router(notify_router(source))
    async with httpx.AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        return await client.post("/notify", content=body)


async def test_the_webhook_takes_notifications(bucket, told):
    answer = await post(told.source, body_of(bucket.record_of(bucket.put_raw(1)), "nonsense"))
    assert (answer.status_code, answer.json()) == (200, {"taken": 1, "ignored": 0, "bad": 1})
    await told.count(1)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"Service": "Amazon S3", "Event": "s3:TestEvent"}', 200),
        (b"not json", 200),
        (b'{"Records": [1, null, {}]}', 200),
        (b" " * (5 << 20), 413),
    ],
    ids=["a test event", "no JSON", "bad records", "a flood"],
)
async def test_the_webhook_answers_whatever_comes(bucket, body, status):
    assert (await post(BucketSource(parse_store_url(bucket.url)), body)).status_code == status


async def test_the_webhook_refuses_records_without_the_secret(bucket):
    source = BucketSource(parse_store_url(bucket.url), secret="hush")
    record = bucket.record("a/b.fits")
    assert (await post(source, body_of(record))).status_code == 403
    assert (await post(source, body_of({**record, "opaqueData": "wrong"}))).status_code == 403
    assert (await post(source, body_of({**record, "opaqueData": "hush"}))).status_code == 200


def test_reading_an_object_that_is_not_there(bucket):
    source = BucketSource(parse_store_url(bucket.url))
    uri = source.place.uri(bucket.key(1))
    for read in (read_raw, source.read, source.read_header):
        with pytest.raises(NotFoundError):
            read(uri)
    with pytest.raises(StoreError):
        read_raw("s3+http://127.0.0.1:1/b/x.fits")
    with pytest.raises(ConfigurationError):
        read_raw("ftp://host/x.fits")
