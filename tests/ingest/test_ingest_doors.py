"""Files told of: S3 notifications over HTTP, batches of records, embargo-butler's lists, a watched bucket."""

import json
import socket
from urllib.parse import quote_plus

import httpx
import pytest
import redis

from rapid.arrival.bucket import BucketSource
from rapid.butler.place import ENDPOINT, adopt_endpoint, from_butler, to_butler
from rapid.dispatch.board import AsyncBoard
from rapid.errors import ConfigurationError
from rapid.ingest import store
from rapid.ingest.archived import Archive
from rapid.ingest.decide import Failure, RetryPolicy, Step, decide_retry
from rapid.ingest.door import DoorSettings, IngestDoor, ingest_router
from rapid.ingest.models import IngestStatus
from rapid.products.s3 import parse_store_url
from tests.ingest.conftest import CAMERA, NAMES, RUN, exposure_id, raws_in, write_raw
from tests.support.raws import make_raw, raw_name
from tests.support.s3 import serve_s3
from tests.support.users import add_users, remove_users, url_of


@pytest.fixture(scope="module")
def s3():
    with serve_s3() as server:
        yield server


@pytest.fixture
def bucket(s3, monkeypatch, request):
    """A bucket of its own, which the Butler finds by its endpoint."""
    name = "raws-" + str(abs(hash(request.node.name)))[:12]
    url = s3.make_bucket(name)
    monkeypatch.setenv(ENDPOINT, s3.endpoint_url)
    return parse_store_url(url)


def put(s3, bucket, seq_num: int, detector_name: str, folder: str = "LSSTCam/20261120") -> str:
    key = f"{folder}/{raw_name(seq_num, detector_name)}"
    s3.client().put_object(Bucket=bucket.bucket, Key=key, Body=make_raw(seq_num, *detector_name.split("_")))
    return key


def record(bucket: str, key: str, event: str = "ObjectCreated:Put", **more) -> dict:
    return {
        "eventVersion": "2.1",
        "eventSource": "ceph:s3",
        "eventName": event,
        "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key, safe="/")}},
        **more,
    }


def client_of(door: IngestDoor) -> httpx.AsyncClient:
    from fastapi import FastAPI

    app = FastAPI()
    app.include_router(ingest_router(door))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://ingest")


async def test_notifications_of_every_spelling_are_ingested_and_bad_records_stop_no_other(stage, s3, bucket) -> None:
    await stage.start(sources=())
    door = IngestDoor(CAMERA, stage.board, DoorSettings(frozenset({bucket.bucket}), endpoint_url=bucket.endpoint_url))
    keys = [put(s3, bucket, 1, NAMES[n], folder="a+b & c #1") for n in range(2)]
    async with client_of(door) as client:
        answer = await client.post(
            "/notify",
            json={
                "Records": [
                    record(bucket.bucket, keys[0]),
                    {"eventName": "ObjectCreated:Put", "s3": None},
                    "no record",
                    record(bucket.bucket, keys[1], "s3:ObjectCreated:CompleteMultipartUpload"),
                    record(bucket.bucket, keys[1], "s3:ObjectCreated:CompleteMultipartUpload"),
                    record(bucket.bucket, keys[0], "s3:ObjectRemoved:Delete"),
                    record("somebody-elses", keys[0]),
                    record(bucket.bucket, "notes.txt"),
                ]
            },
        )
        assert (answer.status_code, answer.json()) == (200, {"taken": 3, "ignored": 3, "bad": 2})
        test_event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": bucket.bucket}
        answer = await client.post("/notify", json=test_event)
        assert (answer.status_code, answer.json()["taken"]) == (200, 0)
        assert (await client.post("/notify", content=b"{")).json()["bad"] == 1
    await stage.told(1, 2)
    refs = raws_in(stage.repo)
    assert len(refs) == 2
    from lsst.daf.butler import Butler

    with Butler.from_config(str(stage.repo)) as butler:
        raw = butler.get("raw", instrument="LSSTCam", exposure=exposure_id(1), detector=0, collections=RUN)
        uri = str(butler.getURI("raw", instrument="LSSTCam", exposure=exposure_id(1), detector=0, collections=RUN))
    assert raw[0].header["SEQNUM"] == 1
    assert from_butler(uri) == bucket.uri(keys[0])

    async def nothing_in_hand() -> bool:
        with redis.Redis.from_url(stage.url) as direct:
            return not direct.keys("*ingest_taken*") and not direct.keys("*ingest_queue*")

    await stage.wait_until(nothing_in_hand, "every entry is let go")


async def test_a_batch_of_kafka_records_is_taken_and_a_bad_one_counts(stage, s3, bucket) -> None:
    await stage.start(sources=())
    door = IngestDoor(CAMERA, stage.board, DoorSettings(frozenset({bucket.bucket}), endpoint_url=bucket.endpoint_url))
    keys = [put(s3, bucket, 2, NAMES[n]) for n in range(3)]
    one, two, three = ({"Records": [record(bucket.bucket, key)]} for key in keys)
    batch = [
        {"topic": "rubin-summit", "partition": 0, "offset": 1, "key": None, "value": one},
        {"topic": "rubin-summit", "value": json.dumps(two)},
        {"topic": "rubin-summit", "value": 7},
        {"topic": "rubin-summit"},
        {"topic": "rubin-summit", "value": {"Event": "s3:TestEvent"}},
    ]
    async with client_of(door) as client:
        answer = await client.post("/records", json=batch)
        assert (answer.status_code, answer.json()) == (200, {"taken": 2, "ignored": 1, "bad": 2})
        answer = await client.post("/records", json={"records": [{"value": three}]})
        assert answer.json() == {"taken": 1, "ignored": 0, "bad": 0}
        for body in (b"no json", b"7", b'{"records": 1}'):
            assert (await client.post("/records", content=body)).status_code == 422
    assert len(await stage.told(2, 3)) == 3


async def test_a_wrong_secret_is_refused_and_the_right_one_is_not(stage, s3, bucket) -> None:
    door = IngestDoor(CAMERA, stage.board, DoorSettings(frozenset({bucket.bucket}), secret="agreed"))
    key = put(s3, bucket, 3, NAMES[0])
    async with client_of(door) as client:
        wrong = {"Records": [record(bucket.bucket, key, opaqueData="guessed")]}
        assert (await client.post("/notify", json=wrong)).status_code == 403
        right = {"Records": [record(bucket.bucket, key, opaqueData="agreed")]}
        assert (await client.post("/notify", json=right)).json()["taken"] == 1


async def test_without_redis_the_sender_is_asked_to_come_again(bucket) -> None:

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens here
        async with AsyncBoard(f"redis://127.0.0.1:{taken.getsockname()[1]}/0", "LSSTCam", outage_s=0.2) as board:
            door = IngestDoor(CAMERA, board, DoorSettings(frozenset({"raws"})))
            async with client_of(door) as client:
                body = {"Records": [record("raws", f"x/{raw_name(1)}")]}
                assert (await client.post("/notify", json=body)).status_code == 503


async def test_embargo_butlers_lists_are_emptied_and_what_a_dead_worker_had_is_done_first(stage, s3, bucket) -> None:
    keys = [put(s3, bucket, 4, NAMES[n]) for n in range(3)]
    queue = store.foreign_queue(bucket.bucket, "ingest.test")
    nonsense = [b"\xff\xfe", b"", bucket.bucket.encode(), f"{bucket.bucket}/".encode(), b"/x.fits"]
    with redis.Redis.from_url(stage.url) as client:
        client.lpush(queue.queue, f"{bucket.bucket}/{keys[0]}", *nonsense, f"embargo@{bucket.bucket}/{keys[1]}")
        client.lpush(queue.taken, f"{bucket.bucket}/{keys[2]}")
        await stage.start(sources=(), queues=(queue,))
        assert len(await stage.told(4, 3)) == 3
        assert {one.code for one in await stage.aside(len(nonsense))} == {"bad_entry"}

        async def all_empty() -> bool:
            return not client.exists(queue.queue, queue.taken)

        await stage.wait_until(all_empty, "both lists are empty")


async def test_an_object_that_is_not_there_is_tried_and_then_set_aside(stage, bucket) -> None:
    await stage.start(sources=())
    gone = bucket.uri(f"LSSTCam/{raw_name(5)}")
    await stage.board.connection.run(store.tell_files(stage.board.prefix, [gone, "/nowhere/" + raw_name(6)]))
    records = {record.uri: record for record in await stage.aside(2)}
    assert {record.code for record in records.values()} == {"file_gone"}
    assert records[gone].attempts == 3


async def test_what_was_set_aside_is_ingested_when_a_person_has_mended_it(stage, tmp_path) -> None:
    await stage.start(sources=())
    path = tmp_path / raw_name(7)
    await stage.board.connection.run(store.tell_files(stage.board.prefix, [str(path)]))
    await stage.aside(1)
    write_raw(tmp_path, 7, "R22_S11")
    retried = await stage.board.connection.run(store.retry_set_aside(stage.board.prefix, [str(path), "/other"]))
    assert retried == [str(path)]
    assert await stage.told(7, 1) == {94}
    assert await stage.board.connection.run(store.get_set_aside(stage.board.prefix)) == []


async def test_what_a_dead_process_had_in_hand_goes_to_the_others(stage, tmp_path) -> None:
    path = write_raw(tmp_path, 8, "R22_S11")
    with redis.Redis.from_url(stage.url) as client:
        client.lpush(f"{stage.board.prefix}ingest_taken:ingest.dead", str(path))
        client.sadd(f"{stage.board.prefix}ingest_names", "ingest.dead")
    await stage.start(sources=())
    assert await stage.told(8, 1) == {94}


async def test_what_a_dead_process_took_off_embargo_butlers_list_goes_to_the_others(stage, s3, bucket) -> None:
    key = put(s3, bucket, 8, NAMES[1])
    dead = store.foreign_queue(bucket.bucket, "ingest.dead")
    status = IngestStatus(
        name="ingest.dead", camera="LSSTCam", repository="", at_ms=0, is_up=True, n_waiting=1
    )  # what it said before it was killed with the object in hand
    await stage.board.connection.run(store.put_status(stage.board.prefix, status, [dead]))
    with redis.Redis.from_url(stage.url) as client:
        client.lpush(dead.taken, f"{bucket.bucket}/{key}")
        client.delete(f"{stage.board.prefix}{store.STATUS}ingest.dead")  # silent for a minute
        await stage.start(sources=(), queues=(store.foreign_queue(bucket.bucket, "ingest.test"),))
        assert len(await stage.told(8, 1)) == 1
        assert not client.exists(dead.taken)


async def test_a_file_whose_server_does_not_answer_holds_up_no_other(stage, s3, bucket) -> None:
    patient = RetryPolicy(max_attempts=1, pause_s=600.0, pause_max_s=600.0)
    process = await stage.start(sources=(), policy=patient)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens here
        away = f"s3+http://127.0.0.1:{taken.getsockname()[1]}/raws/{raw_name(11)}"
        await stage.board.connection.run(store.tell_files(stage.board.prefix, [away, "s3://A bucket/x.fits"]))
        assert [one.code for one in await stage.aside(1)] == ["raw_unusable"]
        for n in range(2):
            uri = bucket.uri(put(s3, bucket, 11, NAMES[n]))
            await stage.board.connection.run(store.tell_files(stage.board.prefix, [uri]))
            await stage.told(11, n + 1)

    async def waits() -> bool:
        (status,) = await stage.board.connection.run(store.get_statuses(stage.board.prefix))
        return status.n_waiting == 1

    await stage.wait_until(waits, "the file whose server is away waits")
    assert dict(process.ingester.counts) == {"set_aside": 1, "ingested": 2}
    assert decide_retry(Failure.UNREACHABLE, attempts=99, age_s=0.0, policy=patient)[0] is Step.RETRY


async def test_a_watched_bucket_is_ingested_by_listing_and_by_notification(stage, s3, bucket) -> None:
    before = put(s3, bucket, 9, NAMES[0])
    source = BucketSource(bucket, camera=CAMERA, sweep_s=600.0)
    await stage.start(sources=(source,))
    await stage.told(9, 1)
    source.is_told = True  # from now on listing takes ten minutes: only a notification can be in time
    door = IngestDoor(CAMERA, stage.board, DoorSettings(), source=source)
    after = put(s3, bucket, 9, NAMES[1])
    async with client_of(door) as client:
        answer = await client.post("/notify", json={"Records": [record(bucket.bucket, key) for key in (before, after)]})
        assert answer.json()["taken"] == 2
    await stage.told(9, 2)
    with redis.Redis.from_url(stage.url) as client:
        assert not client.exists(f"{stage.board.prefix}ingest_queue")  # a listed bucket needs no list


@pytest.mark.parametrize(
    "uri", ["/data/a b/x#1.fits", "/data/ü/x+y%20z.fits", "s3://raws/a b/c+d#e%2F.fits"], ids=["path", "odd", "s3"]
)
def test_a_files_name_survives_the_way_to_the_butler_and_back(uri, monkeypatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert from_butler(to_butler(uri)) == uri


def test_the_butler_reaches_one_s3_server_only(monkeypatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://one:9000")
    adopt_endpoint("s3://raws?endpoint_url=http://one:9000/")
    adopt_endpoint("/data/raws")
    with pytest.raises(ConfigurationError, match="the Butler knows one"):
        adopt_endpoint("s3://raws?endpoint_url=http://two:9000")


async def test_the_role_needs_no_more_than_its_redis_user_may(stage, s3, bucket) -> None:
    await stage.board.load()  # by somebody who may: a head
    queue = store.foreign_queue(bucket.bucket, "ingest.test")
    add_users(stage.url, "LSSTCam")
    try:
        with redis.Redis.from_url(stage.url) as client:
            client.lpush(queue.queue, f"{bucket.bucket}/{put(s3, bucket, 10, NAMES[0])}")
        async with AsyncBoard(url_of("ingest", stage.url), "LSSTCam", outage_s=5.0) as own:
            by_default, stage.board = stage.board, own
            process = await stage.start(queues=(queue,))
            stage.raws.mkdir(exist_ok=True)
            (stage.raws / raw_name(10, "R22_S12")).write_bytes(b"no FITS")
            assert await stage.told(10, 1) == {0}
            await stage.aside(1)
            await process.end()
            stage.board = by_default
    finally:
        remove_users(stage.url)


async def test_a_restart_reads_no_object_of_a_bucket_that_is_in_and_lists_the_newest_days_alone(
    stage, s3, bucket, monkeypatch
) -> None:
    old = put(s3, bucket, 5, NAMES[9], folder="LSSTCam/20261118")
    keys = [put(s3, bucket, 5, NAMES[n]) for n in range(2)]
    first = await stage.start(sources=(BucketSource(bucket, camera=CAMERA, n_days=1),))
    told = await stage.told(5, 2)
    await first.end()
    assert told == {CAMERA.by_name[name].id for name in NAMES[:2]}, f"{old} is of an older folder"
    archive = Archive(str(stage.repo), CAMERA, run=RUN, told=lambda _exposure, _kind: told)
    fetched: list[str] = []
    fetch = BucketSource._fetch
    monkeypatch.setattr(
        BucketSource, "_fetch", lambda self, key, *where: fetched.append(key) or fetch(self, key, *where)
    )
    put(s3, bucket, 6, NAMES[0])
    again = await stage.start(sources=(BucketSource(bucket, camera=CAMERA, is_done=archive.holds),))
    await stage.told(6, 1)
    await stage.told(5, 3)
    await again.end()
    archive.close()
    assert not set(fetched) & set(keys)
    assert dict(again.ingester.counts) == {"ingested": 2}
