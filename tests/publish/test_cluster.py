"""Cluster status: RubinTV's documents, from a reading of the board."""

import json

import pytest

from rapid.camera.store import load_camera
from rapid.dispatch.models import BatchKey, BatchState, BoardStatus, Priority, QueueDepth, WorkerMode, WorkerState
from rapid.publish.cluster import MAXLEN, ClusterView, decide_streams, put_streams
from rapid.publish.status import DestinationStatus
from rapid.results.models import DetectorState, DetectorStatus

LSSTCAM = load_camera("LSSTCam")
NEW, OLD = 2026112000012, 2026112000005


def worker(name: str, state: str = "parked", job: str = "", *, pools: str = "science", pinned: str = "") -> WorkerState:
    jobs = (job,) if job else ()
    return WorkerState(worker_id=name, state=state, jobs=jobs, seen_ms=0, pools=pools, pinned=pinned)


def view(*workers: WorkerState, queued: tuple[int, ...] = (), **status) -> ClusterView:
    batch = BatchState(
        key=BatchKey(exposure_id=NEW, pipeline="quicklook"),
        camera="LSSTCam",
        image_type="science",
        priority=Priority.CURRENT,
        pool="science",
        version=0,
        gathering=False,
        changed=False,
        expected=frozenset(range(9)),
        finished=frozenset(),
        detectors={detector: DetectorStatus(state=DetectorState.QUEUED) for detector in queued},
        posted_ms=0,
    )
    facts = {"running": 0, "delayed": 0, "gathers_due": 0, "gathers_running": 0, "dead_letters": 0}
    board = BoardStatus(now_ms=0, mode=WorkerMode.CONSUMING, workers=workers, **facts | status)
    return ClusterView(board, (batch,))


def cells(streams: dict, name: str) -> dict[str, str]:
    return {cell: entry["status"] for cell, entry in streams[name].items() if entry["type"] == "worker_status"}


def test_pooled_workers_show_the_detectors_they_run():
    seen = view(
        worker("w0", "busy", f"prompt.{NEW}.quicklook.094"),
        worker("w1", "busy", f"prompt.{OLD}.quicklook.004"),
        worker("w2"),
        queued=(7, 8),
    )
    found = cells(decide_streams(LSSTCAM, seen), "SFM_SET_0")

    assert found["94"] == "busy"
    assert found["4"] == "guest"
    assert found["7"] == "1"
    assert found["0"] == "free"
    assert set(found) == {str(detector) for detector in range(189)}


def test_without_workers_everything_is_missing():
    streams = decide_streams(LSSTCAM, view())

    assert set(cells(streams, "SFM_SET_0").values()) == {"missing"}
    assert cells(streams, "SPAREWORKERS_SET_0") == {}
    assert streams["SPAREWORKERS_SET_0"]["numWorkers"] == {"type": "worker_count", "status": "0"}


def test_pinned_workers_stand_for_their_detectors():
    seen = view(worker("w4", pinned="4"), worker("w5", "silent", pinned="5"))
    found = cells(decide_streams(LSSTCAM, seen), "SFM_SET_0")

    assert found["4"] == "free"
    assert found["5"] == "missing"
    assert found["6"] == "missing"


def test_corner_chips_are_the_wavefront_workers():
    seen = view(worker("w0", "busy", f"prompt.{NEW}.wavefront.191", pools="wavefront"), worker("w1"))
    streams = decide_streams(LSSTCAM, seen)

    corners = cells(streams, "AOS_SET_0")
    assert corners["191"] == "busy"
    assert set(corners) == {"191", "192", "195", "196", "199", "200", "203", "204"}
    assert cells(streams, "SPAREWORKERS_SET_0") == {"0": "busy", "1": "free"}


def test_queues_and_destinations_are_texts():
    seen = view(
        queues=(QueueDepth(pool="science", current=3, backlog=40, parked=0),), dead_letters=2, gathers_due=1
    )  # fmt: skip
    down = DestinationStatus(name="rubintv", is_up=False, n_waiting=12, n_dead=1)
    streams = decide_streams(LSSTCAM, ClusterView(seen.status, seen.batches, (down,)))

    texts = {name: entry["status"] for name, entry in streams["OTHER_QUEUES"].items()}
    assert texts["science: backlog"] == "40"
    assert texts["dead letters"] == "2"
    assert texts["publish to rubintv"] == "12 (no answer), 1 given up"
    assert {entry["type"] for entry in streams["OTHER_QUEUES"].values()} == {"text_status"}


def test_a_job_that_makes_no_sense_spoils_nothing():
    seen = view(worker("w0", "busy", "garbage"), worker("w1", "busy", "a.b.c.d.007"))

    assert cells(decide_streams(LSSTCAM, seen), "SFM_SET_0")["7"] == "busy"


def test_streams_are_trimmed_and_expire():
    talk = put_streams({"SFM_SET_0": {"0": {"type": "worker_status", "status": "free"}}})

    add = next(talk)
    assert add.args[:5] == ("XADD", "stream:CLUSTER_STATUS_SFM_SET_0", "MAXLEN", MAXLEN, "*")
    assert json.loads(add.args[6]) == {"0": {"type": "worker_status", "status": "free"}}
    assert talk.send(b"1-0").args[0] == "EXPIRE"
    with pytest.raises(StopIteration):
        talk.send(1)
