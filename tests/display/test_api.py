"""What programs get from the display: JSON, products, the live stream, health."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import sqlalchemy as sa

from rapid.errors import ConfigurationError
from tests.display.stage import DAY_OBS, WAIT_S, serve_display

EXPOSURE = DAY_OBS * 100_000 + 1


class Listener:
    """A viewer without a browser."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()

    def next(self, kind: str) -> tuple[str, dict]:
        """Return id and data of the next message of a kind."""
        event_id, event = "", ""
        deadline = time.monotonic() + 3 * WAIT_S
        for line in self._lines:
            # Heartbeats never end, so a read time-out alone would let a lost message wait for ever.
            assert time.monotonic() < deadline, f"no {kind} came"
            name, _, value = line.partition(": ")
            if name == "id":
                event_id = value
            elif name == "event":
                event = value
            elif name == "data" and event == kind:
                return event_id, json.loads(value)
        raise AssertionError(f"the stream ended before {kind}")


@contextmanager
def listen(url: str, **headers: str) -> Iterator[Listener]:
    query = headers.pop("query", "")
    with httpx.stream("GET", f"{url}/api/events{query}", headers=headers, timeout=WAIT_S) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Listener(response)


def get(url: str, path: str, **options) -> httpx.Response:
    return httpx.get(url + path, timeout=WAIT_S, **options)


def test_the_camera_has_every_detector_in_place(stage, url):
    camera = get(url, "/api/camera").json()
    assert [place["id"] for place in camera["detectors"]] == [d.id for d in stage.camera.detectors]
    assert camera["detectors"][4]["name"] == "R22_S11"
    assert {tile["id"] for tile in camera["tiles"]["sky"]} >= {"seeing", "ellipticity", "focus"}


def test_an_exposure_says_which_detectors_are_missing_and_why(stage, url):
    stage.post(1, gather_timeout_ms=1)
    stage.finish(range(8))
    stage.fail(8, "no overscan")
    stage.gather()
    with listen(url, query="?after=0-0") as stream:
        while stream.next("exposures")[1]["exposures"][0]["row"]["version"] == 0:
            pass
    view = get(url, f"/api/exposures/{EXPOSURE}").json()
    assert view["row"]["state"] == "partial"
    assert (view["row"]["n_finished"], view["row"]["n_expected"], view["row"]["n_failed"]) == (8, 9, 1)
    [missing] = view["row"]["missing"]
    assert (missing["detector"], missing["state"]) == (8, "failed")
    assert "no overscan" in missing["reason"]
    assert [failure["detector"] for failure in get(url, f"/api/exposures/{EXPOSURE}/failures").json()["failures"]] == [
        8
    ]


def test_a_restarted_display_knows_what_the_one_before_knew(stage):
    stage.post(1)
    stage.finish(range(9))
    stage.gather()
    stage.post(2)
    stage.finish([3])
    with serve_display(stage.settings) as url:
        wait_for_rebuild(url)
        before = get(url, f"/api/nights/{DAY_OBS}").json()
    with serve_display(stage.settings) as url:
        wait_for_rebuild(url)
        after = get(url, f"/api/nights/{DAY_OBS}").json()
    facts = ("exposure_id", "state", "n_finished", "n_expected", "metrics", "version")
    assert [[row[fact] for fact in facts] for row in before["exposures"]] == [
        [row[fact] for fact in facts] for row in after["exposures"]
    ]
    assert [row["n_finished"] for row in after["exposures"]] == [1, 9]


def wait_for_rebuild(url: str) -> None:
    """Return once the display has read the night in: what happens from then on, it tells as it happens."""
    with listen(url) as stream:
        stream.next("heartbeat")
        if get(url, "/readyz").status_code != 200:
            assert stream.next("reset")[1]["reason"] == "rebuilt"
    assert get(url, "/readyz").status_code == 200


@pytest.fixture
def url(stage, serve) -> str:
    served = serve(stage.settings)
    wait_for_rebuild(served)
    return served


def test_a_night_without_exposures_is_empty_not_an_error(url):
    night = get(url, "/api/nights/20200101").json()
    assert night["exposures"] == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/exposures/2026112099999", 404, "not_found"),
        ("/api/exposures/none", 422, "bad_request"),
        ("/api/nights/20261399999", 422, "bad_request"),
        ("/api/nothing", 404, "not_found"),
        ("/products/LSSTComCam/none.jpg", 404, "not_found"),
    ],
)
def test_a_refusal_is_json_with_a_code(url, path, status, code):
    answer = get(url, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/", "/api/now", "/api/exposures/1", "/products/a.jpg", "/api/status"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(url, path, method):
    assert httpx.request(method, url + path, timeout=WAIT_S).status_code == 405


@pytest.mark.parametrize(
    "key",
    [
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/results.sqlite",
        "a/..%2f..%2fresults.sqlite",
        "%2fetc%2fpasswd",
        ".hidden",
        "a%00b",
        "a//b",
    ],
)
def test_no_key_leads_out_of_the_products(url, key):
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=WAIT_S) as connection:
        # By hand: a client would tidy the path up before sending it.
        connection.sendall(f"GET /products/{key} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        answer = connection.makefile("rb").read()
    assert answer.split(b"\r\n", 1)[0].endswith(b"404 Not Found"), answer[:200]


def test_a_version_of_a_mosaic_is_cached_for_good_and_checked_by_its_tag(stage, url):
    stage.post(1)
    stage.finish(range(9))
    key = stage.gather().products["mosaic"]
    first = get(url, f"/products/{key}")
    assert first.headers["content-type"] == "image/jpeg"
    assert "immutable" in first.headers["cache-control"]
    assert first.content == stage.products.get(key)
    again = get(url, f"/products/{key}", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_product_never_runs_as_a_page(stage, url):
    stage.products.put("LSSTComCam/evil.html", b"<script>alert(1)</script>")
    answer = get(url, "/products/LSSTComCam/evil.html")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_viewer_resumes_after_the_last_message_it_saw(stage, url):
    with listen(url, query="?after=0-0") as stream:
        stage.post(1)
        seen, data = stream.next("exposures")
        assert data["exposures"][0]["row"]["exposure_id"] == EXPOSURE
    stage.finish([0])
    stage.post(2)
    found: set[int] = set()
    with listen(url, **{"Last-Event-ID": seen}) as stream:
        while EXPOSURE + 1 not in found:
            _, data = stream.next("exposures")
            found |= {update["row"]["exposure_id"] for update in data["exposures"]}
    assert found == {EXPOSURE, EXPOSURE + 1}


def test_a_viewer_that_was_away_too_long_is_told_to_load_anew(stage):
    settings = stage.settings.model_copy(update={"history": 2})
    with serve_display(settings) as url:
        wait_for_rebuild(url)
        with listen(url, query="?after=0-0") as stream:
            for seq_num in (1, 2, 3, 4):
                stage.post(seq_num)
                stream.next("exposures")
        with listen(url, query="?after=1-0") as stream:
            assert stream.next("reset")[1]["reason"]


def test_silence_is_broken_by_heartbeats_with_the_servers_time(url):
    with listen(url) as stream:
        assert stream.next("heartbeat")[1]["server_time"].endswith("+00:00")


def test_fifty_viewers_hear_the_same(stage, url):
    wait_for_rebuild(url)
    heard: list[str] = []
    connected = threading.Barrier(51)

    def view() -> None:
        with listen(url) as stream:
            stream.next("sources")
            connected.wait(WAIT_S)
            _, data = stream.next("exposures")
            heard.append(json.dumps(data["exposures"][0]["row"]["exposure_id"]))

    viewers = [threading.Thread(target=view) for _ in range(50)]
    for viewer in viewers:
        viewer.start()
    connected.wait(WAIT_S)
    assert get(url, "/api/status").json()["viewers"] == 50
    stage.post(1)
    for viewer in viewers:
        viewer.join(WAIT_S)
    assert heard == [str(EXPOSURE)] * 50


def test_it_is_alive_but_not_ready_without_a_board(make_stage):
    stage = make_stage("LSSTComCam")
    away = stage.settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0"})
    with serve_display(away) as url:
        assert get(url, "/healthz").status_code == 200
        answer = get(url, "/readyz")
        assert answer.status_code == 503
        assert {source["name"]: source["is_up"] for source in answer.json()["sources"]}["board"] is False
        assert get(url, "/api/status").json()["error"]["code"] == "store_failed"
        assert get(url, "/").status_code == 200


def test_a_night_can_be_had_as_csv(stage):
    stage.put_night(3)
    with serve_display(stage.settings) as url:
        wait_for_rebuild(url)
        lines = get(url, f"/api/nights/{DAY_OBS}/csv").text.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith(f"{EXPOSURE},{DAY_OBS},1,science,r_57,DEEP_F12")


def test_every_route_is_documented(url):
    paths = get(url, "/openapi.json").json()["paths"]
    for path in ("/api/now", "/api/nights/{day_obs}", "/api/exposures/{exposure_id}", "/api/events", "/products/{key}"):
        assert list(paths[path]) == ["get"]
        assert paths[path]["get"]["summary"]


def test_a_port_in_use_is_an_error_not_a_hang(stage, url):
    with (
        pytest.raises(ConfigurationError, match="in use"),
        serve_display(stage.settings, port=int(url.rsplit(":", 1)[1])),
    ):
        pass


def test_a_summary_that_cannot_be_read_shows_as_failed_and_hides_no_other(stage):
    stage.put_night(3)

    def write(sql: str) -> None:
        with stage.results.engine.begin() as connection:
            connection.execute(sa.text(sql))

    write("CREATE TABLE kept AS SELECT id, document FROM exposure_summary")
    write('UPDATE exposure_summary SET document = \'{"version": "none"}\' WHERE seq_num = 2')
    with serve_display(stage.settings) as url:
        newest, damaged, oldest = get(url, f"/api/nights/{DAY_OBS}").json()["exposures"]
        assert (newest["state"], oldest["state"]) == ("complete", "complete")
        assert (damaged["seq_num"], damaged["state"]) == (2, "failed")
        assert "stored summary cannot be read: camera: Field required" in damaged["metrics"]["summary_note"]
        page = get(url, f"/api/exposures/{damaged['exposure_id']}").json()
        assert page["row"]["state"] == "failed"
        assert get(url, "/readyz").status_code == 200
    write("UPDATE exposure_summary SET document = (SELECT document FROM kept WHERE kept.id = exposure_summary.id)")
    with serve_display(stage.settings) as url:
        assert {row["state"] for row in get(url, f"/api/nights/{DAY_OBS}").json()["exposures"]} == {"complete"}


def test_prometheus_is_told_who_watches_and_what_answers(url):
    with listen(url) as stream:
        stream.next("heartbeat")
        text = get(url, "/metrics").text
    assert "rapid_display_viewers 1.0" in text
    assert 'rapid_display_source_up{source="board"} 1.0' in text
