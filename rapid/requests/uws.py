"""The job interface that today's OCPS drives its workers with, so that changing its URL is all it takes.

OCPS (indices 1-3) sends ``PUT /job``, asks ``GET /job/{id}`` until the phase is final, and aborts with ``DELETE /job/{id}``;
the JSON is that of the UWS worker it talks to today, names and nesting included. A job is a request: the pipeline is the name
at the end of PIPELINE_URL, the exposures and detectors are what DATA_QUERY says, RUN_OPTIONS may change settings. What such a
job never had before is its true end: phase and results are those of the processing, not of its hand-over.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Security
from fastapi import Path as PathParameter
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, Response

from rapid import access as access_module
from rapid.access import CHANGE_ERRORS, Access, Principal
from rapid.errors import NotFoundError
from rapid.requests.faults import BadRequestError, QueueFullError
from rapid.requests.http import (
    ERRORS,
    FULL,
    NOT_FOUND,
    TooManyWaitersError,
    Waiters,
    bad_request,
    post_and_hear,
    queue_full,
    too_many_waiters,
)
from rapid.requests.models import REQUEST_ID, RequestRecord, RequestSpec, RequestState
from rapid.requests.query import read_data_query
from rapid.requests.reading import read_json, read_spec
from rapid.requests.store import AsyncRequestBoard

RUN_ID = r"^[-._A-Za-z0-9]{1,63}$"
DEADLINE_S = 24 * 3600.0
"""OCPS has no deadline of its own: it aborts."""

DESTRUCTION = timedelta(days=7)
"""How long a job is remembered after it ended."""

PHASES = {
    RequestState.POSTED: "pending",
    RequestState.ACCEPTED: "queued",
    RequestState.WAITING: "queued",
    RequestState.RUNNING: "executing",
    RequestState.DONE: "completed",
    RequestState.FAILED: "error",
    RequestState.EXPIRED: "error",
    RequestState.REFUSED: "error",
    RequestState.CANCELLED: "aborted",
}

_OPTION = re.compile(r"([A-Za-z_]\w*):([A-Za-z_][\w.]*)=(.*)", re.DOTALL)
_BUILDS = re.compile(r"(?:cp|verify)(Bias|Dark|Flat|Ptc|Linearizer|Crosstalk|Defects)")
_basic = HTTPBasic(
    auto_error=False, description="For clients that take credentials from the URL: the token as password."
)


class Variable(BaseModel):
    """One environment variable of a job."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    value: str = Field(max_length=20_000)


class JobRequest(BaseModel):
    """Body of ``PUT /job``."""

    model_config = ConfigDict(extra="ignore")  # a worker takes no offence at what it does not know

    run_id: str | None = Field(default=None, pattern=RUN_ID)
    command: str = Field(default="", max_length=20_000)
    url: str | None = Field(default=None, max_length=2000)
    commit_ref: str | None = Field(default=None, max_length=200)
    environment: list[Variable] = Field(default_factory=list, max_length=100)


def read_job(job: JobRequest, *, instrument: str) -> tuple[RequestSpec, dict[str, str]]:
    """Return the request that a job is, and what is needed to answer in the job's own words.

    Raises
    ------
    BadRequestError
        Raised, naming the variable, for what cannot be understood.
    """
    variables = {variable.name: variable.value for variable in job.environment}
    url = variables.get("PIPELINE_URL", "")
    if not url:
        raise BadRequestError("environment.PIPELINE_URL", "is missing")
    # The file's name is that of the pipeline, wherever it lies and whichever of its tasks are meant.
    name = url.split("#")[0].rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    name = re.sub(r"\.ya?ml$", "", name)
    query = variables.get("DATA_QUERY", "")
    if not query:
        raise BadRequestError("environment.DATA_QUERY", "is missing")
    found = read_data_query(query, instrument=instrument)
    config, ignored = _read_options(variables.get("RUN_OPTIONS", ""))
    document: dict[str, Any] = {
        "select": {"exposures": list(found.exposures)},
        **_what_to_run(name),
        "config": config,
        "deadline_s": DEADLINE_S,
        "label": f"OCPS {job.run_id or ''}".strip(),
    }
    if found.detectors:
        document["detectors"] = list(found.detectors)
    try:
        spec = read_spec(document)
    except BadRequestError as error:
        where = {"pipeline": "environment.PIPELINE_URL", "config": "environment.RUN_OPTIONS"}
        field = where.get(error.field.split(".")[0], "environment.DATA_QUERY")
        raise BadRequestError(field, error.message) from error
    outside = {
        "run_id": job.run_id or "",
        "command": job.command[:2000],
        "ignored": " ".join(ignored)[:1000],
        "environment": "\n".join(f"{name}={value}" for name, value in variables.items())[:4000],
    }
    return spec, outside


def _what_to_run(name: str) -> dict[str, str]:
    """Return the fields of a request for a pipeline's name: the summit's builds of calibs are combinations here."""
    kind = _BUILDS.fullmatch(name)
    if kind is None:
        return {"pipeline": name}
    return {"combine": f"build_{kind.group(1).lower().replace('linearizer', 'linearity')}"}


def _read_options(text: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return settings from ``-c payload:setting=value``, and the options that mean nothing here."""
    config: dict[str, dict[str, Any]] = {}
    ignored: list[str] = []
    parts = iter(text.split())
    for part in parts:
        option = next(parts, "") if part in {"-c", "--config"} else part.removeprefix("-c=").removeprefix("--config=")
        found = _OPTION.fullmatch(option)
        if found is None and (part in {"-c", "--config"} or option is not part):
            raise BadRequestError("environment.RUN_OPTIONS", f"{option[:60]!r} is not PAYLOAD:SETTING=VALUE")
        if found is None:
            ignored.append(part)
            continue
        payload, setting, value = found.groups()
        try:
            read = read_json({"True": "true", "False": "false", "None": "null"}.get(value, value), what="value")
        except BadRequestError:
            read = value
        config.setdefault(payload, {})[setting] = read
    return config, ignored


def _when(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def job_document(record: RequestRecord, base_url: str) -> dict[str, Any]:
    """Return a job as the UWS worker's JSON has it.

    Parameters
    ----------
    base_url
        Where we are reached, without a slash at the end.
    """
    environment = [
        {"name": name, "value": value}
        for line in record.outside.get("environment", "").splitlines()
        if (name := line.partition("=")[0]) and (value := line.partition("=")[2]) is not None
    ]
    duration = None
    if record.started_ms is not None and record.finished_ms is not None:
        duration = (record.finished_ms - record.started_ms) / 1000
    results = []
    if record.answer is not None:
        results.append({"id": "answer", "uri": f"{base_url}/api/requests/{record.request_id}"})
        results += [
            {"id": f"{one.exposure_id}.{kind}", "uri": f"{base_url}/products/{key}"}
            for one in record.answer.exposures
            for kind, key in one.products.items()
        ]
    ended = record.finished_ms or record.created_ms
    progress = record.progress
    return {
        "jobId": record.request_id,
        "runId": record.outside.get("run_id") or None,
        "ownerId": record.asked_by or None,
        "phase": PHASES[record.state],
        "creationTime": _when(record.created_ms),
        "startTime": _when(record.started_ms),
        "endTime": _when(record.finished_ms),
        "executionDuration": duration,
        "destruction": _when(ended + int(DESTRUCTION.total_seconds() * 1000)),
        "parameters": {"command": record.outside.get("command", ""), "environment": environment},
        "results": results,
        "errorSummary": {"message": f"{record.error.code}: {record.error.message}"} if record.error else None,
        "jobInfo": {
            "request": f"{base_url}/api/requests/{record.request_id}",
            "done": progress.done,
            "of": progress.of,
            "ignoredOptions": record.outside.get("ignored", ""),
        },
    }


def uws_routes(
    board: AsyncRequestBoard, instrument: str, access: Access, *, waiters: Waiters | None = None
) -> APIRouter:
    """Return ``PUT /job``, ``GET /job/{id}`` and ``DELETE /job/{id}``."""
    router = APIRouter(tags=["OCPS"], responses=ERRORS)
    waiting = waiters or Waiters()
    job_id = Annotated[str, PathParameter(pattern=REQUEST_ID, description="As PUT answered it.")]

    def may_change(
        request: Request, credentials: Annotated[HTTPBasicCredentials | None, Security(_basic)] = None
    ) -> Principal:
        """Tell who asks; a password from the URL counts as the token."""
        if credentials is None:
            return access.may_change(request)
        headers = [(name, value) for name, value in request.scope["headers"] if name != b"authorization"]
        headers.append((b"authorization", b"Bearer " + credentials.password.encode()))
        if credentials.username:
            headers.append(
                (access_module.USER_HEADER.lower().encode(), credentials.username.encode("latin-1", "replace"))
            )
        return access.may_change(Request({**request.scope, "headers": headers}))

    def answer(request: Request, record: RequestRecord, status: int = 200) -> Response:
        base = str(request.base_url).rstrip("/")
        return JSONResponse(job_document(record, base), status_code=status)

    @router.put("/job", summary="Start a job", responses=CHANGE_ERRORS | FULL,
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _job_schema()}}}},
    )  # fmt: skip
    async def start_job(request: Request, who: Annotated[Principal, Depends(may_change)]) -> Response:
        """Answer with the job. One that cannot be understood has phase ``error``, and says why."""
        try:
            document = read_json(await request.body())
            try:
                job = JobRequest.model_validate(document)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                raise BadRequestError(".".join(str(part) for part in first["loc"])[:200], first["msg"]) from error
            spec, outside = read_job(job, instrument=instrument)
            record = await post_and_hear(board, spec, by=who.name, door="uws", outside=outside)
        except BadRequestError as error:
            raise bad_request(error) from error
        except QueueFullError as error:
            return queue_full(error)
        return answer(request, record)

    @router.get("/job/{request_id}", summary="A job", responses=NOT_FOUND)
    async def show_job(
        request: Request,
        request_id: job_id,
        wait: Annotated[float, Query(alias="WAIT", ge=0, le=300, description="Wait so long for its end [s].")] = 0.0,
    ) -> Response:
        """Return the job as it stands."""
        record = await _read(board, request_id)
        if wait > 0 and not record.state.is_final:
            try:
                async with waiting:
                    record = await board.wait(record.request_id, timeout_s=wait) or await _read(board, request_id)
            except TooManyWaitersError:
                return too_many_waiters()
        return answer(request, record)

    @router.delete("/job/{request_id}", summary="Abort a job", responses=CHANGE_ERRORS | NOT_FOUND)
    async def abort_job(
        request: Request,
        request_id: job_id,
        who: Annotated[Principal, Depends(may_change)],
    ) -> Response:
        """Abort the job; one that has ended stays as it is."""
        record = await _read(board, request_id)
        if not record.state.is_final:
            await board.cancel(record.request_id, by=who.name)
            record = await board.wait(record.request_id, timeout_s=2.0) or await _read(board, request_id)
        return answer(request, record)

    return router


async def _read(board: AsyncRequestBoard, request_id: str) -> RequestRecord:
    try:
        return await board.read(request_id)
    except NotFoundError as error:
        raise NotFoundError("job", request_id) from error


def _job_schema() -> dict[str, Any]:
    schema = JobRequest.model_json_schema()
    variable = schema.pop("$defs", {}).get("Variable", {})
    schema["properties"]["environment"]["items"] = variable
    return schema
