"""Campaigns: nights processed again as backlog under a name of their own."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rapid.arrival.listing import RawListing
from rapid.campaign.holes import find_holes
from rapid.cli import app
from rapid.client import RequestNotDoneError
from rapid.exposure.naming import raw_key
from rapid.requests.faults import BadRequestError
from rapid.requests.models import RequestState
from tests.requests.conftest import DAY_OBS, WAIT_S, exposure
from tests.support.night import make_plan, take_all

NIGHT = {"nights": [DAY_OBS]}


@pytest.fixture
def raws(tmp_path: Path) -> Path:
    return tmp_path / "raws"


def put_raws(stage, raws: Path, seq_num: int, *, without: frozenset[str] = frozenset()) -> None:
    """Store the raws of an exposure; nothing opens those of which a summary tells what they are."""
    for detector in stage.camera.detectors:
        if detector.name not in without:
            path = raws / raw_key(stage.camera.name, f"SC_O_{DAY_OBS}_{seq_num:06d}", detector.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not opened")


async def lead_with(stage, raws: Path) -> None:
    raws.mkdir(exist_ok=True)  # noqa: ASYNC240 - nothing else runs
    await stage.die()
    await stage.lead(listing=RawListing(str(raws), stage.camera))


async def night(stage, raws: Path, *, n: int = 3) -> None:
    """A night that has been processed: one exposure in another filter."""
    for seq_num in range(1, n + 1):
        await stage.take(seq_num, physical_filter="r_57" if seq_num != 2 else "g_6")
        put_raws(stage, raws, seq_num)
    await stage.work(metrics=lambda job: {"psf_fwhm_arcsec": 0.5 + 0.1 * (job.batch.exposure_id % 10)})
    await lead_with(stage, raws)


async def start(stage, run: str = "v2", **select):
    fields = select.pop("fields", {})
    return await stage.client.request(select={"campaign": {**NIGHT, **select}}, run=run, **fields)


async def work_until_done(stage, request) -> None:
    """Run what is queued, and what comes of that, until a request has ended."""
    waiting = asyncio.create_task(request.wait(WAIT_S))
    while not waiting.done():
        await stage.work()
    await waiting


async def test_a_night_is_processed_again_beside_the_old_results(stage, raws):
    await night(stage, raws)
    request = await start(stage)
    await stage.state_of(request, "running")
    done = await stage.work()
    assert len(done) == 27
    assert all(job.startswith("v2.") for job in done)
    campaign = (await request.wait(WAIT_S)).campaign
    assert (campaign.n_exposures, campaign.n_done, campaign.n_results, campaign.n_failed) == (3, 3, 27, 0)
    assert campaign.nights == (DAY_OBS,)
    record = await request.record()
    assert (record.progress.done, record.progress.of, record.progress.exposures_done) == (27, 27, 3)
    for run in ("prompt", "v2"):
        assert len(stage.results.results(exposure(1), run=run)) == 9


async def test_it_never_stands_in_the_way_of_the_night(stage, raws):
    await night(stage, raws)
    request = await start(stage, fields={"priority": "urgent"})
    await stage.state_of(request, "running")
    await stage.take(9)
    done = await stage.work()
    # One that was handed to a worker before the exposure came is not taken back.
    assert [job.partition(".")[0] for job in done[:10]].count("prompt") == 9
    assert (await request.wait(WAIT_S)).is_complete


@pytest.mark.parametrize(
    ("select", "seq_nums"),
    [
        ({"where": "physical_filter == 'r_57'"}, {1, 3}),
        ({"where": "psf_fwhm_arcsec_median > 0.65"}, {2, 3}),
        ({"where": "seq_num < 3 and physical_filter == 'r_57'"}, {1}),
        ({"exposures": [exposure(2), f"{exposure(3)}-{exposure(9)}"], "exclude": [exposure(3)]}, {2}),
        ({"image_types": ["science"], "exclude": [f"{exposure(1)}..{exposure(2)}"]}, {3}),
    ],
    ids=["a header", "a metric", "both", "ids without some", "a type without a range"],
)
async def test_a_selection(stage, raws, select, seq_nums):
    await night(stage, raws)
    request = await start(stage, **select)
    await stage.state_of(request, "running")
    await stage.work()
    await request.wait(WAIT_S)
    found = {s.exposure for s in stage.results.summaries(stage.camera.name, run="v2")}
    assert found == {exposure(seq_num) for seq_num in seq_nums}


@pytest.mark.parametrize(
    ("select", "field", "words"),
    [
        ({"nights": [20260101]}, "select.campaign.nights", "no raw and no result of 20260101"),
        ({"where": "psf_fwhm_arcsec_median > 99"}, "select.campaign.where", "leaves none of the 3"),
        ({"where": "psf_fhwm_arcsec_median > 1"}, "select.campaign.where", "did you mean psf_fwhm_arcsec_median"),
        ({"where": "psf_fwhm_arcsec_median >"}, "select.campaign.where", "too soon"),
        ({"image_types": ["bias"]}, "select.campaign.image_types", "leaves none"),
        ({"resume": True}, "run", "no campaign v2 to resume"),
    ],
)
async def test_a_campaign_of_nothing_is_refused_and_says_why(stage, raws, select, field, words):
    await night(stage, raws)
    with pytest.raises(RequestNotDoneError) as refused:
        await (await start(stage, **select)).wait(WAIT_S)
    error = refused.value.record.error
    assert refused.value.record.state is RequestState.REFUSED
    assert error.field == field
    assert words in error.message


@pytest.mark.parametrize(
    ("select", "field"),
    [({"nights": []}, "select.campaign.nights"), ({"nights": [20261341]}, "select.campaign.nights.0.first"),
     ({"nights": ["20261120-20261101"]}, "select.campaign.nights.0"), ({"image_types": ["banana"]}, "select.campaign.image_types.0")],
)  # fmt: skip
async def test_a_selection_that_cannot_be_read_names_its_field(stage, select, field):
    with pytest.raises(BadRequestError) as refused:
        await start(stage, **select)
    assert refused.value.field == field


async def test_what_failed_is_told_and_tried_once_more_by_who_resumes_it(stage, raws):
    await night(stage, raws)
    request = await start(stage)
    await stage.state_of(request, "running")
    await stage.work(fail={91: "cosmic weather"})
    answer = await request.wait(WAIT_S)
    assert not answer.is_complete
    assert (answer.campaign.n_done, answer.campaign.n_failed) == (0, 3)
    assert "cosmic weather" in answer.campaign.not_done[f"{exposure(1)} quicklook"]
    again = await start(stage, resume=True)
    await stage.state_of(again, "running")
    done = await stage.work()
    assert sorted(job.rpartition(".")[2] for job in done) == ["091"] * 3
    answer = await again.wait(WAIT_S)
    assert answer.is_complete
    assert (answer.campaign.n_done, answer.campaign.n_results) == (3, 27)


async def test_a_board_that_has_forgotten_a_campaign_lets_it_be_resumed(stage, raws, client):
    await night(stage, raws)
    request = await start(stage)
    await stage.state_of(request, "running")
    await stage.work(fail={91: "cosmic weather"})
    await request.wait(WAIT_S)
    await stage.die()
    client.flushall()
    await stage.lead(listing=RawListing(str(raws), stage.camera))
    again = await start(stage, resume=True)
    await stage.state_of(again, "running")
    assert len(await stage.work()) == 3
    assert (await again.wait(WAIT_S)).campaign.n_results == 27


async def test_resuming_what_is_done_does_nothing_and_what_runs_is_refused(stage, raws):
    await night(stage, raws)
    request = await start(stage)
    await stage.state_of(request, "running")
    with pytest.raises(RequestNotDoneError, match="under way"):
        await (await start(stage, resume=True)).wait(WAIT_S)
    with pytest.raises(RequestNotDoneError, match="resume goes on with it"):
        await (await start(stage)).wait(WAIT_S)
    await stage.work()
    await request.wait(WAIT_S)
    for _ in range(2):
        again = await (await start(stage, resume=True)).wait(WAIT_S)
        assert (again.campaign.n_before, again.campaign.n_done) == (3, 3)
    assert await stage.work() == []
    with pytest.raises(RequestNotDoneError, match="begun with"):
        await (await start(stage, resume=True, exclude=[exposure(1)])).wait(WAIT_S)


async def test_a_cancelled_campaign_goes_on_where_it_was(stage, raws):
    await night(stage, raws)
    request = await start(stage)
    await stage.state_of(request, "running")
    assert len(await stage.work(9)) == 9  # the newest exposure
    async for change in request.follow(WAIT_S):
        if change.progress.exposures_done == 1:
            break
    await request.cancel()
    await stage.state_of(request, "cancelled")
    assert await stage.work() == []
    record = await request.record()
    assert record.answer.campaign.n_done == 1
    again = await start(stage, resume=True)
    await stage.state_of(again, "running")
    assert len(await stage.work()) == 18
    assert (await again.wait(WAIT_S)).campaign.n_results == 27


async def test_the_next_head_goes_on_with_a_campaign_and_does_nothing_twice(stage, raws):
    await night(stage, raws)
    request = await start(stage)
    await stage.state_of(request, "running")
    done = await stage.work(12)
    await stage.die()
    await stage.lead(listing=RawListing(str(raws), stage.camera))
    await stage.state_of(request, "running")
    done += await stage.work()
    assert len(done) == len(set(done)) == 27
    assert (await request.wait(WAIT_S)).campaign.n_results == 27


async def test_only_what_has_no_result_is_caught_up_with(stage, raws):
    for seq_num in (1, 2):
        await stage.take(seq_num, later={93, 94} if seq_num == 1 else ())
        put_raws(stage, raws, seq_num)
    # Of a third one, nobody was awake: only its raws are there.
    plan = make_plan([{"kind": "science", "n": 1, "physical_filter": "r_57"}], stars_per_detector=1, first_seq_num=7)
    (missed,) = take_all(plan, raws, keep=lambda key: "R22_S11" in key)
    await stage.work()
    await stage.gather()
    await lead_with(stage, raws)
    done_before = {r.detector for r in stage.results.results(exposure(1))}
    request = await start(stage, run="catchup", holes=True, image_types=["science"])
    await stage.state_of(request, "running")
    done = await stage.work()
    answer = await request.wait(WAIT_S)
    assert answer.is_complete
    assert set(done) == {
        *(f"catchup.{exposure(1)}.quicklook.{d:03d}" for d in stage.camera.science_ids - done_before),
        f"catchup.{missed}.quicklook.094",
    }


async def test_the_guiders_pipeline_is_run_on_the_guiders_files(stage, raws):
    await night(stage, raws)
    key = raw_key(stage.camera.name, f"SC_O_{DAY_OBS}_000001", "R22_S01")
    (raws / key).with_name(f"SC_O_{DAY_OBS}_000001_R22_S01_guider.fits").write_bytes(b"not opened")
    request = await start(stage, exposures=[exposure(1)], fields={"pipeline": "guider"})
    await stage.state_of(request, "running")
    assert await stage.work() == [f"v2.{exposure(1)}.guider.091"]
    assert (await request.wait(WAIT_S)).campaign.n_results == 1


async def test_raws_that_are_gone_are_told(stage, raws):
    await night(stage, raws, n=2)
    for path in [*raws.rglob("*000001_R22_S11*"), *raws.rglob("*000002_*.fits")]:
        path.unlink()
    request = await start(stage)
    await stage.state_of(request, "running")
    assert len(await stage.work()) == 8
    answer = await request.wait(WAIT_S)
    assert not answer.is_complete
    assert answer.campaign.n_failed == 10
    assert answer.campaign.not_done[f"{exposure(1)}"] == "raws are gone: R22_S11"
    assert f"{exposure(2)}" in answer.campaign.not_done
    listing = RawListing(str(raws), stage.camera)
    report = find_holes(DAY_OBS, results=stage.results, camera=stage.camera, listing=listing, run="v2")
    assert report.n_missing == 10
    assert report.holes[0].reasons == {"its raw is gone": ("R22_S11",)}


async def test_a_folder_of_raws_that_is_away_is_no_night_without_data(stage, raws):
    await night(stage, raws)
    raws.rename(raws.with_name("elsewhere"))
    request = await stage.client.request(select={"campaign": NIGHT}, run="v2", accept_s=0.0)
    raws.with_name("elsewhere").rename(raws)  # it is mounted again: the head asks once more
    await stage.state_of(request, "running")
    await stage.work()
    assert (await request.wait(WAIT_S)).is_complete


# What has no result, and what has changed


async def test_the_holes_of_a_night_are_told_with_their_reasons(stage, raws):
    for seq_num in (1, 2):
        await stage.take(seq_num)
        put_raws(stage, raws, seq_num)
    put_raws(stage, raws, 3)  # nobody has seen it
    await stage.work(9, fail={91: "cosmic weather"})
    await stage.work()
    listing = RawListing(str(raws), stage.camera)
    report = find_holes(DAY_OBS, results=stage.results, camera=stage.camera, listing=listing)
    assert (report.n_exposures, report.n_raws, report.n_results, report.n_missing) == (3, 27, 17, 10)
    failed, unseen = report.holes
    assert failed.reasons == {"failed: cosmic weather": ("R22_S01",)}
    assert (unseen.exposure_id, unseen.n_missing, unseen.pipeline) == (exposure(3), 9, "")
    assert find_holes(20260101, results=stage.results, camera=stage.camera, listing=listing).n_exposures == 0


async def test_the_holes_of_a_campaign_are_of_its_exposures_only(stage, raws):
    await night(stage, raws)
    request = await start(stage, where="seq_num < 3")
    await stage.state_of(request, "running")
    await stage.work(fail={91: "cosmic weather"})
    await request.wait(WAIT_S)
    listing = RawListing(str(raws), stage.camera)
    report = find_holes(DAY_OBS, results=stage.results, camera=stage.camera, listing=listing, run="v2")
    assert (report.n_exposures, report.n_results, report.n_missing) == (2, 16, 2)


def run_cli(stage, *arguments: str):
    named = stage.results.engine.url.database
    return CliRunner().invoke(
        app, ["campaign", *arguments, "--camera", stage.camera.name], env={"RAPID_RESULTS_URL": str(named)}
    )


async def test_two_runs_are_compared(stage, raws, tmp_path):
    await night(stage, raws)
    request = await start(stage)
    await stage.state_of(request, "running")
    await stage.work(metrics=lambda job: {"psf_fwhm_arcsec": 0.5 + 0.1001 * (job.batch.exposure_id % 10)})
    await request.wait(WAIT_S)
    same = await asyncio.to_thread(run_cli, stage, "compare", "prompt", "v2")
    assert same.exit_code == 0, same.output
    strict = tmp_path / "strict.yaml"
    strict.write_text("default: {rel: 1.0e-9}\n")
    page = tmp_path / "report.html"
    other = await asyncio.to_thread(
        run_cli, stage, "compare", "prompt", "v2", "--tolerances", str(strict), "--html", str(page), "--json"
    )
    assert other.exit_code == 1, other.output
    found = json.loads(other.stdout)
    assert found["counts"]["other value"] >= 27
    assert "psf_fwhm_arcsec" in page.read_text()
    none = await asyncio.to_thread(run_cli, stage, "compare", "prompt", "v3")
    assert "no result of run v3" in str(none.exception)


async def test_the_commands_start_follow_and_resume(stage, raws, tmp_path):
    await night(stage, raws)
    left_out = tmp_path / "bad.txt"
    left_out.write_text(f"{exposure(1)}  # clouds\n")
    board = ("--redis", stage.url)
    begun = await asyncio.to_thread(
        run_cli, stage, "start", "v2", "-n", str(DAY_OBS), "--exclude-file", str(left_out), *board
    )
    assert begun.exit_code == 0, begun.output
    await stage.state_of(stage.client.find(begun.output.strip()), "running")
    shown = await asyncio.to_thread(run_cli, stage, "status", "v2", "--json", *board)
    assert json.loads(shown.stdout)["progress"]["exposures_of"] == 2
    gone = await asyncio.to_thread(run_cli, stage, "cancel", "v2", *board)
    assert "cancelled" in gone.output
    again = await asyncio.to_thread(run_cli, stage, "resume", "v2", *board)
    await stage.state_of(stage.client.find(again.output.strip()), "running")
    await work_until_done(stage, stage.client.find(again.output.strip()))
    holes = await asyncio.to_thread(run_cli, stage, "holes", str(DAY_OBS), "--run", "v2", "--raws", str(raws))
    assert holes.exit_code == 0, holes.output
    assert "2 exposures, 18 raws, 18 results, 0 missing" in holes.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resume", "v9"), "no campaign named v9"),
        (("status", "v9"), "no campaign named v9"),
        (("holes", "20261341"), "no day_obs"),
        (("start", "prompt", "-n", "20261120"), "prompt"),
        (("start", "v2", "-n", "tonight"), "nights"),
    ],
)
async def test_commands_that_make_no_sense_say_so(stage, arguments, words):
    answer = await asyncio.to_thread(run_cli, stage, *arguments)
    assert answer.exit_code != 0
    assert words in f"{answer.output} {answer.exception}"
