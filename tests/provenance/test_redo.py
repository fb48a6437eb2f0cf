"""A bad calib or exposure: what used it is done again in its place, and nothing else is touched."""

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from rapid.dispatch.models import BatchKey, BatchSpec, WorkerSpec
from rapid.exclusions.bad_exposures import BadExposureStore
from rapid.provenance.store import ProvenanceStore
from rapid.requests.models import RequestSpec
from rapid.results import schema
from rapid.results.models import CalibRecord, CalibState, DetectorResult, Provenance
from tests.requests.conftest import Stage, exposure

NOW = datetime(2026, 11, 20, 20, tzinfo=UTC)
BEGIN = datetime(2026, 11, 20, 20)  # noqa: DTZ001 - TAI has no zone


def certify(stage: Stage, kind: str, detector: int, sha256: str, **facts) -> CalibRecord:
    """Register a calib as a build does."""
    begin = facts.pop("begin", BEGIN)
    inputs = facts.pop("inputs", [])
    provenance = Provenance(
        software_version="0",
        pipeline=f"build_{kind}",
        pipeline_version="1",
        config_hash="0",
        payloads={},
        calibs=facts.pop("calibs", {}),
        raw="/raws/x.fits",
        raw_sha256="0",
        inputs=inputs,
    )
    camera = stage.camera.name

    def record_of(version: int) -> CalibRecord:
        return CalibRecord(
            calib_id=f"{camera}-{detector:03d}-{kind}-{begin:%Y%m%dT%H%M%S}-v{version}",
            camera=camera,
            detector=detector,
            kind=kind,
            valid_from=begin,
            version=version,
            path=f"{sha256}.fits",
            sha256=sha256,
            inputs=inputs,
            created_at=NOW,
            provenance=provenance,
            **facts,
        )

    return stage.results.add_calib(record_of)


def looked_up(stage: Stage, detector: int, *kinds: str) -> dict[str, str]:
    found = {}
    for kind in kinds:
        chosen = stage.results.calibs(stage.camera.name, kind=kind, detector=detector)
        if chosen:
            found[kind] = chosen[0].calib_id
    return found


def make_worker(stage: Stage) -> None:
    """Let the played worker note the calibs that look-up gives, and certify what it builds."""
    plain = stage.result
    bad = BadExposureStore(stage.results.engine)

    def result(job, numbers) -> DetectorResult:
        made = plain(job, numbers)
        kinds = {"build_bias": (), "build_flat": ("bias",)}.get(job.batch.pipeline, ("bias", "flat"))
        calibs = looked_up(stage, job.detector, *kinds)
        left_out = bad.excluded_inputs(job.camera, job.inputs, job.detector)
        inputs = [one for one in job.inputs if one not in left_out]
        made.provenance = made.provenance.model_copy(update={"calibs": calibs, "inputs": inputs})
        if job.batch.pipeline.startswith("build_"):
            kind = job.batch.pipeline.removeprefix("build_")
            certify(stage, kind, job.detector, f"{kind}{job.detector}{inputs}{calibs}", calibs=calibs, inputs=inputs)
        return made

    stage.result = result


def rows_of(stage: Stage) -> dict[tuple, tuple]:
    """Return every result row, by what identifies it."""
    t = schema.detector_result.c
    with stage.results.engine.connect() as connection:
        rows = connection.execute(sa.select(t.run, t.exposure, t.pipeline, t.detector, t.finished_at, t.document))
        return {tuple(row[:4]): (row[4], str(row[5])) for row in rows}


async def post_build(stage: Stage, kind: str, members: list[int]) -> None:
    last = members[-1]
    raws = {d.id: f"/raws/{last}/{d.name}.fits" for d in stage.camera.detectors}
    await stage.board.post(
        BatchSpec(
            key=BatchKey(exposure_id=last, pipeline=f"build_{kind}"),
            camera=stage.camera.name,
            image_type=kind,
            expected=frozenset(raws),
            raws=raws,
            pool="build",
            inputs=tuple(members),
        ),
        lead_token=stage.token,
    )
    await stage.work()


async def redo(stage: Stage, **affected):
    return await stage.client.submit(RequestSpec.model_validate({"select": {"affected": affected}}))


async def work_until(stage: Stage, request, state: str):
    """Play the worker until a request has ended: what is put on the board by stages is worked off by stages."""
    worker = WorkerSpec(worker_id="w1", pools=("science", "build", "wavefront"))
    for _ in range(200):
        record = await request.record()
        if record.state.is_final:
            assert record.state.value == state, record
            return record
        job = await stage.board.claim(worker, timeout_s=0.2)
        if job is not None:
            numbers = {"psf_fwhm_arcsec": 0.9}
            stage.results.put_result(stage.result(job, numbers))
            await stage.board.complete(job, numbers)
        await stage.gather()
    raise AssertionError(f"never {state}")


@pytest.fixture
async def night(stage: Stage):
    """Three science exposures, the last two taken with a flat that turns out bad; the first is older than that flat."""
    make_worker(stage)
    for detector in stage.camera.detectors:
        certify(stage, "bias", detector.id, f"bias{detector.id}")
        certify(stage, "flat", detector.id, f"good{detector.id}")
    await stage.take(1)
    await stage.work()
    bad_from = datetime(2026, 11, 20, 22)  # noqa: DTZ001 - TAI has no zone
    for detector in stage.camera.detectors:
        certify(stage, "flat", detector.id, f"bad{detector.id}", begin=bad_from)
    for seq_num in (2, 3):
        await stage.take(seq_num)
        await stage.work()
    return stage


BAD = "SmallCam-*-flat-20261120T220000-v1"


async def test_what_used_a_bad_flat_is_found(night: Stage):
    store = ProvenanceStore(night.results.engine)
    found = store.affected(night.camera.name, calib=BAD.replace("SmallCam", night.camera.name))
    assert {(batch.exposure, batch.detectors) for batch in found.batches} == {
        (exposure(seq_num), tuple(sorted(night.camera.science_ids))) for seq_num in (2, 3)
    }
    assert found.built == ()


async def test_a_withdrawn_flat_is_undone_and_nothing_else_is_touched(night: Stage):
    bad = BAD.replace("SmallCam", night.camera.name)
    before = rows_of(night)
    versions = {
        seq_num: night.results.latest_summary(night.camera.name, exposure(seq_num)).version for seq_num in (1, 2, 3)
    }
    for calib_id in ProvenanceStore(night.results.engine).matching_calibs(night.camera.name, bad):
        night.results.set_calib_state(
            night.camera.name, calib_id, CalibState.WITHDRAWN, author="ann", reason="lamp was off"
        )
    record = await work_until(night, await redo(night, calib=bad), "done")
    after = rows_of(night)
    assert {key for key in after if after[key] != before[key]} == {
        ("prompt", exposure(seq_num), "quicklook", detector)
        for seq_num in (2, 3)
        for detector in night.camera.science_ids
    }
    assert after.keys() == before.keys()
    for seq_num in (2, 3):
        for result in night.results.results(exposure(seq_num)):
            assert result.provenance.calibs["flat"].endswith("T200000-v1")
            assert result.metrics["psf_fwhm_arcsec"] == 0.9
    n = 2 * len(night.camera.science_ids)
    assert (record.answer.redo.n_results, record.answer.redo.n_redone) == (n, n)
    assert record.answer.is_complete
    assert record.answer.redo.not_redone == {}
    assert record.progress.done == record.progress.of == n
    now = {seq_num: night.results.latest_summary(night.camera.name, exposure(seq_num)).version for seq_num in (1, 2, 3)}
    assert now == {1: versions[1], 2: versions[2] + 1, 3: versions[3] + 1}
    assert ProvenanceStore(night.results.engine).affected(night.camera.name, calib=bad).n_results == 0


async def test_a_flat_that_is_still_certified_is_not_redone(night: Stage):
    bad = BAD.replace("SmallCam", night.camera.name)
    before = rows_of(night)
    record = await night.state_of(await redo(night, calib=bad), "failed")
    assert record.error.code == "not_bad"
    assert record.error.field == "select.affected.calib"
    assert rows_of(night) == before


async def test_a_replacement_takes_the_place_of_the_bad_flat(night: Stage):
    camera = night.camera.name
    bad, good = BAD.replace("SmallCam", camera), f"{camera}-*-flat-20261120T200000-v1"
    record = await work_until(night, await redo(night, calib=bad, replacement=good), "done")
    assert record.answer.is_complete
    for result in night.results.results(exposure(3)):
        used = night.results.calib(camera, result.provenance.calibs["flat"])
        assert used.sha256 == f"good{result.detector}"
        assert used.calib_id.endswith("T220000-v2")
        assert used.provenance.calibs["copy_of"].endswith("T200000-v1")
    first = night.camera.detectors[0].id
    withdrawn = night.results.calib(camera, f"{camera}-{first:03d}-flat-20261120T220000-v1")
    assert withdrawn.state is CalibState.WITHDRAWN
    # Whoever finds out later that the good one was bad, too, finds these results again.
    assert ProvenanceStore(night.results.engine).affected(camera, calib=good).n_exposures == 3


async def test_without_anything_in_its_place_results_stay_and_the_answer_says_so(stage: Stage):
    make_worker(stage)
    for detector in stage.camera.detectors:
        certify(stage, "flat", detector.id, f"only{detector.id}")
    await stage.take(1)
    await stage.work()
    before = rows_of(stage)
    only = f"{stage.camera.name}-*-flat-*"
    for calib_id in ProvenanceStore(stage.results.engine).matching_calibs(stage.camera.name, only):
        stage.results.set_calib_state(stage.camera.name, calib_id, CalibState.WITHDRAWN, author="ann", reason="bad")
    record = await stage.state_of(await redo(stage, calib=only), "failed")
    assert record.error.code == "nothing_redone"
    assert "there is no certified flat in the place of" in record.error.message
    assert not record.answer.is_complete
    assert record.answer.redo.n_redone == 0
    assert all("no certified flat" in why for why in record.answer.redo.not_redone.values())
    assert rows_of(stage) == before


async def test_masters_are_rebuilt_before_what_used_them_when_an_exposure_is_bad(stage: Stage):
    make_worker(stage)
    biases = [exposure(seq_num) for seq_num in (1, 2, 3)]
    await post_build(stage, "bias", biases)
    flats = [exposure(seq_num) for seq_num in (4, 5)]
    await post_build(stage, "flat", flats)
    await stage.take(10)
    await stage.work()
    first = stage.camera.detectors[0].id
    flat_before = stage.results.results(exposure(10), detector=first)[0].provenance.calibs["flat"]
    BadExposureStore(stage.results.engine).exclude(
        stage.camera.name, [biases[1]], reason="light leak", author="ann", now=NOW
    )
    record = await work_until(stage, await redo(stage, exposure=biases[1]), "done")
    bias, flat = (
        stage.results.results(biases[-1], pipeline="build_bias", detector=first)[0],
        stage.results.results(flats[-1], pipeline="build_flat", detector=first)[0],
    )
    assert bias.provenance.inputs == [biases[0], biases[2]]
    assert flat.provenance.calibs["bias"].endswith("-v2")
    now = stage.results.results(exposure(10), detector=first)[0].provenance.calibs
    assert now["bias"].endswith("-v2")
    assert now["flat"] != flat_before
    assert record.answer.is_complete
    assert record.answer.redo.rebuilt[flat_before] == now["flat"]
    assert record.answer.redo.n_results == 2 * len(stage.camera.detectors) + len(stage.camera.science_ids)
    assert ProvenanceStore(stage.results.engine).affected(stage.camera.name, exposure=biases[1]).n_results == 0


async def test_a_board_that_has_forgotten_the_night_gets_the_batches_anew(night: Stage):
    bad = BAD.replace("SmallCam", night.camera.name)
    some = sorted(night.camera.science_ids)[0]
    one = bad.replace("*", f"{some:03d}")
    await night.die()
    await night.board.connection.run(_flush())
    await night.lead("head-b")
    before = rows_of(night)
    night.results.set_calib_state(night.camera.name, one, CalibState.WITHDRAWN, author="ann", reason="bad")
    record = await work_until(night, await redo(night, calib=one), "done")
    after = rows_of(night)
    assert {key for key in after if after[key] != before[key]} == {
        ("prompt", exposure(seq_num), "quicklook", some) for seq_num in (2, 3)
    }
    assert record.answer.is_complete
    summary = night.results.latest_summary(night.camera.name, exposure(3))
    assert summary.version == 2
    assert (summary.n_finished, summary.is_complete) == (len(night.camera.science_ids), True)


def _flush():
    from rapid.dispatch.talk import Command

    yield Command(("FLUSHDB",))
