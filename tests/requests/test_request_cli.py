"""`rapid request`, as a person types it."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from rapid.cli import app
from rapid.errors import RapidError
from rapid.requests.models import RequestSpec
from tests.requests.conftest import exposure


async def run(stage, *words: str, given: str | None = None):
    """Run a command beside the desk; an error of ours is returned as what it was."""
    arguments = ["request", *words]
    if words[0] != "schema":
        arguments += ["--camera", "SmallCam9", "--redis", stage.url]
    return await asyncio.to_thread(CliRunner().invoke, app, arguments, input=given)


async def test_a_request_is_submitted_waited_for_shown_and_listed(stage):
    await stage.take(1)
    await stage.work()
    submitted = await run(stage, "submit", "-e", str(exposure(1)), "--label", "by hand", "--json")
    request_id = json.loads(submitted.stdout)["request_id"]
    waited = await run(stage, "wait", request_id, "--json")
    assert waited.exit_code == 0
    assert json.loads(waited.stdout)["state"] == "done"
    assert "9/9 detectors" in (await run(stage, "show", request_id)).stdout
    listed = (await run(stage, "list")).stdout
    assert request_id in listed
    assert "by hand" in listed
    assert (await run(stage, "list", "--state", "running")).stdout == "no requests\n"


async def test_a_wait_that_is_too_short_has_a_status_of_its_own(stage):
    submitted = await run(stage, "submit", "--next", "2", "--image-type", "bias")
    request_id = submitted.stdout.strip()
    assert (await run(stage, "wait", request_id, "--timeout", "0.2")).exit_code == 3
    cancelled = await run(stage, "cancel", request_id)
    assert "cancelled" in cancelled.stdout
    assert (await run(stage, "wait", request_id)).exit_code == 1


async def test_a_request_is_read_from_standard_input_and_options_go_before(stage):
    await stage.take(1)
    await stage.work()
    document = json.dumps({"select": {"exposures": [exposure(1)]}, "pipeline": "quicklook", "label": "file"})
    submitted = await run(
        stage, "submit", "-", "-c", "isr.flat=false", "--label", "option", "--run", "mine", given=document
    )
    request = stage.client.find(submitted.stdout.strip())
    assert await request.wait_accepted(60.0), "the desk has read it"
    record = await request.record()
    assert record.spec.label == "option"
    assert record.spec.config == {"isr": {"flat": False}}
    assert record.run == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["submit"], "select"),
        (["submit", "-e", "x"], "select.exposures.0"),
        (["submit", "-e", "2026112000001", "--pipeline", "nope"], "pipeline"),
        (["submit", "-e", "2026112000001", "-c", "isr"], "config"),
        (["submit", "/no/such/file"], "file"),
        (["show", "17-0"], "no request"),
        (["show", "../x"], "no request"),
        (["cancel", "17-0"], "no request"),
    ],
)
async def test_a_mistake_is_told(stage, words, message):
    result = await run(stage, *words)
    assert isinstance(result.exception, RapidError)
    assert message in result.exception.message


async def test_refused_requests_are_listed_with_the_reason(stage):
    await run(stage, "submit", "-e", str(exposure(1)), "--pipeline", "nope")
    assert "pipeline: no pipeline named nope" in (await run(stage, "list", "--refused")).stdout


async def test_the_schema_is_printed(stage):
    schema = json.loads((await run(stage, "schema")).stdout)
    assert set(schema["properties"]) == set(RequestSpec.model_fields)
