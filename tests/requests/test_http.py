"""Requests over HTTP, and the OCPS job interface, as a client written from its description drives it."""

import asyncio
import json

import httpx
import pytest
from pydantic import SecretStr

from rapid.display.app import create_app
from rapid.display.settings import DisplaySettings
from tests.requests.conftest import WAIT_S, exposure

TOKEN = "correct-horse-battery"
AUTH = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def web(stage, tmp_path):
    settings = DisplaySettings(
        camera="SmallCam9",
        redis_url=stage.url,
        results_url=str(tmp_path / "results.sqlite"),
        products_url=str(tmp_path / "products"),
        token=SecretStr(TOKEN),
    )
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://rapid") as client,
    ):
        yield client


async def test_a_post_is_accepted_with_its_place_and_answered_when_it_is_done(stage, web):
    await stage.take(1)
    posted = await web.post("/api/requests", json={"select": {"exposures": [exposure(1)]}}, headers=AUTH)
    assert posted.status_code == 202
    document = posted.json()
    assert posted.headers["Location"] == document["self_url"]
    assert document["request"]["state"] in {"accepted", "running", "waiting"}
    assert document["request"]["asked_by"] == "token"
    waiting = asyncio.create_task(web.get(document["self_url"], params={"wait_s": WAIT_S}, timeout=2 * WAIT_S))
    await stage.work()
    answer = (await waiting).json()["request"]
    assert answer["state"] == "done"
    assert answer["answer"]["exposures"][0]["metrics"]["psf_fwhm_arcsec_median"] == 0.8
    listed = (await web.get("/api/requests", params={"state": "done"})).json()["requests"]
    assert [one["self_url"] for one in listed] == [document["self_url"]]


async def test_a_wait_that_is_too_short_gives_the_request_as_it_stands(stage, web):
    posted = await web.post("/api/requests", json={"select": {"exposures": [exposure(1)]}}, headers=AUTH)
    answer = await web.get(posted.json()["self_url"], params={"wait_s": 0.1})
    assert answer.status_code == 200
    assert answer.json()["request"]["state"] == "waiting"


async def test_the_changes_of_a_request_can_be_followed(stage, web):
    await stage.take(1)
    await stage.work()
    posted = await web.post("/api/requests", json={"select": {"exposures": [exposure(1)]}}, headers=AUTH)
    async with web.stream("GET", posted.json()["self_url"] + "/events") as stream:
        events = [line.removeprefix("event: ") async for line in stream.aiter_lines() if line.startswith("event: ")]
    assert events[0] == "accepted"
    assert events[-1] == "done"


async def test_a_request_is_cancelled_by_delete(stage, web):
    posted = await web.post("/api/requests", json={"select": {"exposures": [exposure(1)]}}, headers=AUTH)
    answer = await web.delete(posted.json()["self_url"], headers=AUTH)
    assert answer.status_code == 202
    assert answer.json()["request"]["state"] == "cancelled"
    again = await web.delete(posted.json()["self_url"], headers=AUTH)
    assert again.json()["request"]["state"] == "cancelled"


async def test_an_idempotency_key_makes_two_posts_one(stage, web):
    body = {"select": {"exposures": [exposure(1)]}}
    first = await web.post("/api/requests", json=body, headers=AUTH | {"Idempotency-Key": "k-1"})
    second = await web.post("/api/requests", json=body, headers=AUTH | {"Idempotency-Key": "k-1"})
    assert second.status_code == 202
    assert first.headers["Location"] == second.headers["Location"]


async def test_changes_need_the_token(stage, web):
    for method, path in (
        ("POST", "/api/requests"),
        ("DELETE", "/api/requests/1-0"),
        ("PUT", "/job"),
        ("DELETE", "/job/1-0"),
    ):
        answer = await web.request(method, path, json={})
        assert answer.status_code == 401, path
        assert answer.json()["error"]["code"] == "unauthorized"
        wrong = await web.request(method, path, json={}, headers={"Authorization": "Bearer not-the-token"})
        assert wrong.status_code == 401, path


INVALID = [
    (b"", 422, "request"),
    (b"{", 422, "request"),
    (b"[]", 422, "request"),
    (b"\xff\xfe", 422, "request"),
    (b"[" * 100_000, 422, "request"),
    (b'{"select": {"exposures": [1e999]}}', 422, "select.exposures.0"),
    (b'{"select": {"exposures": [NaN]}}', 422, "request"),
    (b'{"select": {}}', 422, "select"),
    (b'{"select": {"exposures": [2026112000001]}, "pipeline": "nope"}', 422, "pipeline"),
    (b'{"select": {"exposures": [2026112000001]}, "pipeline": "../../etc/passwd"}', 422, "pipeline"),
    (b'{"select": {"exposures": [2026112000001]}, "run": "../up"}', 422, "run"),
    (b'{"select": {"exposures": [2026112000001]}, "client_key": "../up"}', 422, "client_key"),
    (b'{"select": {"exposures": [2026112000001]}, "detectors": [400]}', 422, "detectors.0"),
    (b'{"select": {"exposures": [2026112000001]}, "detectors": "R22 &&"}', 422, "detectors"),
    (b'{"select": {"exposures": [2026112000001]}, "pipeline": "quicklook", "config": {"isr": {"x": 1}}}', 422, "config.isr.x"),
    (b'{"select": {"exposures": [2026112000001]}, "pipeline": "quicklook", "config": {"x": {}}}', 422, "config.x"),
    (b'{"select": {"exposures": [2026112000001]}, "surprise": 1}', 422, "surprise"),
    (b'{"select": {"exposures": [2026112000001]}, "version": 2}', 422, "version"),
    (b'{"select": {"exposures": ["2026112000001-2026112010000"]}}', 422, "select.exposures.0"),
    (json.dumps({"select": {"exposures": list(range(1, 10_001))}}).encode(), 422, "select.exposures"),
    (b'{"label": "' + b"x" * 2_000_000 + b'"}', 413, None),
    (b'{"label": "' + b"x" * 300_000 + b'"}', 422, "request"),
    (b'{"select": {"exposures": [2026112000001]}, "label": "\\ud800"}', 422, "request"),
    (b'{"select": {"exposures": [2026112000001]}, "combine": "focus_sweep"}', 422, "select.exposures"),
    (b'{"select": {"exposures": [2026112000001]}, "deadline_s": -1}', 422, "deadline_s"),
]  # fmt: skip


async def test_what_is_not_valid_is_refused_with_the_field(stage, web):
    for body, status, field in INVALID:
        answer = await web.post("/api/requests", content=body, headers=AUTH)
        assert answer.status_code == status, (body[:100], answer.text)
        error = answer.json()["error"]
        assert error["field"] == field, (body[:100], error)
        assert error["message"]
        assert len(answer.content) < 3000
    assert await stage.client.recent() == []


async def test_what_the_door_refuses_is_counted_and_listed(stage, web):
    for body in (
        b"{",
        b'{"select": {"exposures": [2026112000001]}, "pipeline": "nope"}',
        b'{"select": {"exposures": ["../x"]}}',
    ):
        assert (await web.post("/api/requests", content=body, headers=AUTH)).status_code in {400, 422}
    async with asyncio.timeout(WAIT_S):
        while len(refused := (await web.get("/api/requests", params={"state": "refused"})).json()["requests"]) < 3:
            await stage.board.now_ms()
    assert {one["request"]["source"] for one in refused} == {"http"}
    assert (await stage.board.status()).counters["requests_refused"] == 3


async def test_an_exposure_that_there_is_not_is_refused_by_the_head_with_the_field(stage, web):
    await stage.take(5)
    await stage.settle_in()
    answer = await web.post("/api/requests", json={"select": {"exposures": [2024010100001]}}, headers=AUTH)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "select.exposures.0"
    assert answer.json()["error"]["code"] == "unknown_exposure"
    refused = (await web.get("/api/requests", params={"state": "refused"})).json()["requests"]
    assert [one["request"]["error"]["code"] for one in refused] == ["unknown_exposure"]


async def test_what_is_not_there_is_not_found(stage, web):
    for path in ("/api/requests/17-0", "/api/requests/17-0/events", "/job/17-0"):
        assert (await web.get(path)).status_code == 404
    assert (await web.get("/api/requests/x")).status_code == 422


async def test_openapi_describes_every_route(stage, web):
    paths = (await web.get("/openapi.json")).json()["paths"]
    assert set(paths["/api/requests"]) == {"get", "post"}
    assert paths["/api/requests"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"][
        "select"
    ]
    assert set(paths["/api/requests/{request_id}"]) == {"get", "delete"}
    assert set(paths["/job/{request_id}"]) == {"get", "delete"}
    assert "put" in paths["/job"]


# The OCPS job interface


class OcpsClient:
    """What OCPS does with a worker: PUT, check the echo, GET until the phase is one of its final ones."""

    DONE = ("completed", "error", "aborted", "unknown")
    ENVIRONMENT = ("IMAGE_TAG", "PIPELINE_URL", "BUTLER_REPO", "RUN_OPTIONS", "OUTPUT_GLOB", "DATA_QUERY")

    def __init__(self, web: httpx.AsyncClient) -> None:
        # Its URL is all that is configured: http://ocps:TOKEN@host/
        self.web = web
        self.auth = ("ocps", TOKEN)

    async def execute(self, run_id: str, **variables: str) -> dict:
        environment = [{"name": name, "value": variables.get(name, "")} for name in self.ENVIRONMENT]
        body = {"run_id": run_id, "command": "cd $JOB_SOURCE_DIR && bash bin/pipetask.sh", "url": "https://example.org/ocps.git",
                "commit_ref": "main", "environment": environment}  # fmt: skip
        answer = await self.web.put("/job", json=body, auth=self.auth)
        answer.raise_for_status()
        job = answer.json()
        assert job["runId"] == run_id
        assert job["jobId"]
        return job

    async def get(self, job_id: str, **parameters: float) -> dict:
        answer = await self.web.get(f"/job/{job_id}", params=parameters, timeout=2 * WAIT_S)
        answer.raise_for_status()
        return answer.json()

    async def abort(self, job_id: str) -> dict:
        answer = await self.web.delete(f"/job/{job_id}", auth=self.auth)
        answer.raise_for_status()
        return answer.json()


KEYS = {
    "jobId", "runId", "ownerId", "phase", "creationTime", "startTime", "endTime", "executionDuration", "destruction", "parameters",
    "results", "errorSummary", "jobInfo",
}  # fmt: skip


async def test_ocps_drives_a_job_to_its_true_end(stage, web):
    ocps = OcpsClient(web)
    await stage.take(1)
    await stage.work()
    job = await ocps.execute(
        "LSSTCam.2026-11-20.17_quick-look",
        IMAGE_TAG="w_2026_47",
        PIPELINE_URL="${RAPID_DIR}/pipelines/LSSTCam/quicklook.yaml#isr",
        BUTLER_REPO="/repo/LSSTCam",
        RUN_OPTIONS="-j 8 -i LSSTCam/raw/all -c isr:flat=False --register-dataset-types",
        DATA_QUERY=f"instrument='SmallCam9' AND detector IN (90..92) AND exposure={exposure(1)}",
    )
    assert set(job) == KEYS
    assert job["phase"] in {"queued", "executing"}
    assert job["ownerId"] == "ocps (token)"
    assert {one["name"]: one["value"] for one in job["parameters"]["environment"]}["IMAGE_TAG"] == "w_2026_47"
    assert job["errorSummary"] is None
    waiting = asyncio.create_task(ocps.get(job["jobId"], WAIT=WAIT_S))
    await stage.state_of(stage.client.find(job["jobId"]), "running")
    done = await stage.work()
    assert sorted(int(item.rpartition(".")[2]) for item in done) == [90, 91, 92]
    ended = await waiting
    assert ended["phase"] in ocps.DONE
    assert ended["phase"] == "completed"
    assert ended["results"][0]["id"] == "answer"
    answer = await web.get(ended["results"][0]["uri"])
    assert answer.json()["request"]["answer"]["exposures"][0]["n_finished"] == 3
    assert ended["endTime"] >= ended["startTime"] >= ended["creationTime"]
    assert "--register-dataset-types" in ended["jobInfo"]["ignoredOptions"]


async def test_ocps_aborts_a_job(stage, web):
    ocps = OcpsClient(web)
    job = await ocps.execute("r1", PIPELINE_URL="quicklook", DATA_QUERY=f"visit IN ({exposure(1)}, {exposure(2)})")
    assert (await ocps.abort(job["jobId"]))["phase"] == "aborted"
    assert (await ocps.get(job["jobId"]))["phase"] == "aborted"


async def test_ocps_hears_why_a_job_cannot_be_done(stage, web):
    ocps = OcpsClient(web)
    job = await ocps.execute("r2", PIPELINE_URL="nope.yaml", DATA_QUERY=f"exposure={exposure(1)}")
    assert job["phase"] == "error"
    assert "no pipeline named nope" in job["errorSummary"]["message"]


INVALID_JOBS = [
    ({"run_id": "a b"}, "run_id"),
    ({"run_id": "x" * 64}, "run_id"),
    ({"environment": []}, "environment.PIPELINE_URL"),
    ({"environment": [{"name": "PIPELINE_URL", "value": "quicklook"}]}, "environment.DATA_QUERY"),
    ({"environment": [{"name": "PIPELINE_URL", "value": "quicklook"}, {"name": "DATA_QUERY", "value": "exposure > 1"}]}, "environment.DATA_QUERY"),
    ({"environment": [{"name": "PIPELINE_URL", "value": "../../x y"}, {"name": "DATA_QUERY", "value": "exposure=1"}]}, "environment.PIPELINE_URL"),
    ({"environment": [{"name": "PIPELINE_URL", "value": "quicklook"}, {"name": "DATA_QUERY", "value": "exposure=1"}, {"name": "RUN_OPTIONS", "value": "-c nonsense"}]}, "environment.RUN_OPTIONS"),
    ({"environment": [{"nome": "x"}]}, "environment.0.name"),
]  # fmt: skip


async def test_a_job_that_cannot_be_read_is_refused_with_the_field(stage, web):
    for change, field in INVALID_JOBS:
        body = {"run_id": "r", "command": "", "url": "", "commit_ref": "", "environment": []} | change
        answer = await web.put("/job", json=body, auth=("ocps", TOKEN))
        assert answer.status_code == 422, change
        assert answer.json()["error"]["field"] == field, change
