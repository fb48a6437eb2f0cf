"""The results store on SQLite and on PostgreSQL."""

import math
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from rapid.errors import ConfigurationError, LeaseLostError, StoreError
from rapid.results import engine as engine_module
from rapid.results import schema
from rapid.results.models import CalibRecord, DetectorState, DetectorStatus, QuarantineRecord
from rapid.results.night import each_summary
from rapid.results.store import open_results
from tests.support.records import WHEN, make_result, make_summary

EXPOSURE = 2026112000001
ROOT = Path(__file__).resolve().parents[2]


def test_the_migrations_make_the_tables_of_the_schema(results):
    with results.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_the_newest_migration_is_the_one_the_software_names():
    scripts = ScriptDirectory(str(engine_module.MIGRATIONS))
    assert scripts.get_current_head() == engine_module.NEWEST
    assert {script.revision for script in scripts.walk_revisions()} == engine_module.KNOWN


def test_a_result_comes_back_as_it_was_put(results):
    result = make_result()
    results.put_result(result)
    assert results.results(EXPOSURE) == [result]


def test_a_job_that_ran_twice_has_one_result_the_newer(results):
    results.put_result(make_result(metrics={"n_stars": 1}))
    results.put_result(make_result(metrics={"n_stars": 2}))
    assert [r.metrics["n_stars"] for r in results.results(EXPOSURE)] == [2]


def test_results_of_cameras_runs_and_pipelines_are_told_apart(results):
    results.put_result(make_result())
    results.put_result(make_result(camera="LATISS", detector=0))
    results.put_result(make_result(run="redo"))
    results.put_result(make_result(pipeline="donut", detector=191))
    assert len(results.results(EXPOSURE)) == 4
    assert [r.camera for r in results.results(EXPOSURE, camera="LATISS")] == ["LATISS"]
    assert results.finished_detectors("LSSTCam", EXPOSURE) == {
        "quicklook": frozenset({94}),
        "donut": frozenset({191}),
    }
    assert results.finished_detectors("LSSTCam", EXPOSURE, run="redo") == {"quicklook": frozenset({94})}
    assert results.finished_detectors("LSSTCam", 1) == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=["NaN", "infinity", "minus infinity"])
def test_a_number_that_is_not_finite_becomes_none(results, value):
    results.put_result(make_result(metrics={"x": value, "y": 1.5}, amps={"C00": {"z": value}}))
    results.put_summary(make_summary(metrics={"x": value}, info={"deep": [{"x": value}]}))
    found = results.results(EXPOSURE)[0]
    assert found.metrics == {"x": None, "y": 1.5}
    assert found.amps == {"C00": {"z": None}}
    summary = results.latest_summary("LSSTCam", EXPOSURE)
    assert summary.metrics == {"x": None}
    assert summary.info == {"deep": [{"x": None}]}
    with results.engine.connect() as connection:
        texts = connection.execute(sa.text("SELECT CAST(document AS TEXT) FROM detector_result")).scalars()
        assert not any("NaN" in text or "Infinity" in text for text in texts)


def test_the_history_of_a_detector_over_a_night_is_in_order(results):
    for seq_num in (3, 1, 2):
        results.put_result(make_result(seq_num))
    results.put_result(make_result(1, day_obs=20261121))
    results.put_result(make_result(1, detector=95))
    night = results.night_results("LSSTCam", 20261120, detector=94)
    assert [r.seq_num for r in night] == [1, 2, 3]


def test_only_the_newest_version_of_a_summary_is_listed_whatever_the_order_of_writing(results):
    for version in (1, 3, 2):
        results.put_summary(make_summary(version=version, n_finished=version))
    assert [s.version for s in results.summaries("LSSTCam")] == [3]
    assert results.latest_summary("LSSTCam", EXPOSURE).n_finished == 3
    assert [s.version for s in results.summary_versions("LSSTCam", EXPOSURE)] == [3, 2, 1]


def test_two_versions_written_at_once_leave_one_newest(results):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda version: results.put_summary(make_summary(version=version)), range(1, 17)))
    t = schema.exposure_summary.c
    with results.engine.connect() as connection:
        assert connection.execute(sa.select(t.version).where(t.newest)).scalars().all() == [16]


def test_a_gather_that_was_silent_too_long_does_not_overwrite_the_summary_of_the_one_after_it(results):
    results.put_summary(make_summary(version=1, n_finished=9, token=1_800_000_000_000_002))
    with pytest.raises(LeaseLostError, match="summary 1 of quicklook"):
        results.put_summary(make_summary(version=1, n_finished=7, token=1_800_000_000_000_001))
    assert results.latest_summary("LSSTCam", EXPOSURE).n_finished == 9
    results.put_summary(make_summary(version=1, n_finished=10, token=1_800_000_000_000_002))  # said again
    results.put_summary(make_summary(version=2, n_finished=11, token=1))  # versions are fenced one by one
    assert [s.n_finished for s in results.summary_versions("LSSTCam", EXPOSURE)] == [11, 10]


def test_a_night_is_listed_newest_first_in_pages(results):
    for seq_num in range(1, 8):
        results.put_summary(make_summary(seq_num))
    results.put_summary(make_summary(1, day_obs=20261121))
    page = results.summaries("LSSTCam", day_obs=20261120, limit=3)
    assert [s.seq_num for s in page] == [7, 6, 5]
    rest = results.summaries("LSSTCam", day_obs=20261120, before=page[-1].exposure)
    assert [s.seq_num for s in rest] == [4, 3, 2, 1]
    assert results.nights("LSSTCam") == [(20261121, 1), (20261120, 7)]
    assert results.nights("LATISS") == []


@pytest.mark.parametrize("page", [1, 2, 3, 5, 100])
def test_a_night_is_read_summary_by_summary_and_none_is_left_out_where_a_page_ends(results, page):
    for seq_num in range(1, 6):
        for pipeline in ("quicklook", "donut", "wavefront")[: 1 + seq_num % 3]:
            results.put_summary(make_summary(seq_num, pipeline=pipeline))
    results.put_summary(make_summary(1, day_obs=20261121))
    night = list(each_summary(results, "LSSTCam", day_obs=20261120, page=page))
    assert night == results.summaries("LSSTCam", day_obs=20261120)
    assert len(night) == 11
    assert list(each_summary(results, "LATISS", day_obs=20261120, page=page)) == []


def test_the_complete_batches_of_a_night_are_those_whose_newest_version_is_complete(results):
    results.put_summary(make_summary(1, is_complete=False))
    results.put_summary(make_summary(2, is_complete=False))
    results.put_summary(make_summary(2, version=2))
    assert results.complete_batches("LSSTCam", day_obs=20261120) == {(2026112000002, "quicklook")}


def test_the_missing_detectors_of_a_summary_keep_their_reasons(results):
    detectors = {94: DetectorStatus(state=DetectorState.FAILED, reason="no amp 'C00'; naïve")}
    results.put_summary(make_summary(detectors=detectors, is_complete=False))
    assert results.summaries("LSSTCam")[0].detectors == detectors


def test_a_raw_quarantined_again_is_one_row_with_the_newest_reason_until_released(results):
    def record(reason):
        return QuarantineRecord(
            camera="LSSTCam", uri="/raws/x.fits", code="raw_truncated", reason=reason, size_bytes=5, quarantined_at=WHEN
        )

    results.put_quarantine(record("first"))
    results.put_quarantine(record("then" * 2000))
    found = results.quarantined("LSSTCam")
    assert len(found) == 1
    assert found[0].reason.startswith("then")
    assert found[0].quarantined_at == WHEN
    results.release_quarantine("LSSTCam", "/raws/x.fits")
    assert results.quarantined("LSSTCam") == []


def test_a_failure_is_listed_until_it_is_forgotten(results):
    error = {"code": "payload_crashed", "message": "x" * 9000, "traceback": "...", "value": math.nan}
    results.put_failure(
        job_id="j", camera="LSSTCam", exposure=1, detector=2, pipeline="p", attempts=3, error=error, failed_at=WHEN
    )
    (failure,) = results.failures("LSSTCam", exposure=1)
    assert failure["attempts"] == 3
    assert failure["document"]["value"] is None
    assert results.failures("LSSTCam", exposure=2) == []
    results.forget_failure("j")
    assert results.failures("LSSTCam") == []


def _calib(sha256):
    def make(version):
        return CalibRecord(
            calib_id=f"bias-v{version}",
            camera="LSSTCam",
            detector=94,
            kind="bias",
            valid_from=datetime(2026, 11, 20, 20),  # noqa: DTZ001 - TAI has no zone
            version=version,
            path="x.fits",
            sha256=sha256,
            created_at=WHEN,
        )

    return make


def test_calibs_certified_at_once_get_versions_of_their_own(results):
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda i: results.add_calib(_calib(f"{i}")), range(12)))
    assert sorted(record.version for record in records) == list(range(1, 13))
    assert results.calib_generation() >= 12


def test_the_same_calib_registered_twice_is_one(results):
    first = results.add_calib(_calib("a"))
    generation = results.calib_generation()
    assert results.add_calib(_calib("a")) == first
    assert results.calib_generation() == generation
    assert results.add_calib(_calib("b")).version == 2
    assert results.calib_generation() > generation


def test_a_thousand_exposures_of_a_night_are_listed_in_a_tenth_of_a_second(results):
    for seq_num in range(1, 1001):
        results.put_summary(make_summary(seq_num))
    t = schema.exposure_summary.c
    statement = sa.select(t.exposure).where(t.camera == "LSSTCam", t.day_obs == 20261120, t.newest)
    with results.engine.connect() as connection:
        begin = time.process_time()  # of ours: others may have the machine meanwhile
        assert len(connection.execute(statement.order_by(t.exposure.desc())).all()) == 1000
        assert time.process_time() - begin < 0.1
    assert len(results.summaries("LSSTCam", day_obs=20261120, limit=1000)) == 1000


_OPEN_AND_WRITE = """
import sys
from rapid.results.store import open_results
from tests.support.records import make_result
sys.stdin.readline()
store = open_results(sys.argv[1])
for seq_num in range(1, 51):
    store.put_result(make_result(seq_num, detector=int(sys.argv[2])))
print(len(store.night_results("LSSTCam", 20261120, detector=int(sys.argv[2]))))
"""


def test_roles_that_start_together_open_one_empty_database_and_write_to_it(results_url):
    """Six processes create, migrate and write at the same time; no row is lost."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN_AND_WRITE, results_url, str(detector)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for detector in range(6)
    ]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120) for process in processes]
    assert [(out.strip(), err) for out, err in answers] == [("50", "")] * 6
    store = open_results(results_url)
    assert store.finished_detectors("LSSTCam", EXPOSURE) == {"quicklook": frozenset(range(6))}
    store.close()


def test_readers_go_on_while_a_writer_is_in_a_transaction(results):
    results.put_summary(make_summary())
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with results.engine.begin() as connection:
            connection.execute(schema.failure.delete())
            inside.set()
            leave.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(20)
    begin = time.monotonic()
    assert len(results.summaries("LSSTCam")) == 1
    assert time.monotonic() - begin < 5
    leave.set()
    holder.join(20)


def test_a_database_of_newer_software_is_left_alone(results_url):
    store = open_results(results_url)
    with store.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(ConfigurationError, match="9999"):
        open_results(results_url)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("nosuchdb://host/x", ConfigurationError),
        ("postgresql://nobody:secret@127.0.0.1:1/x", StoreError),
        ("/proc/nowhere/results.sqlite", StoreError),
    ],
    ids=["an unknown kind of database", "a server that is not there", "a folder that cannot be made"],
)
def test_a_database_that_cannot_be_opened_is_an_error_without_its_password(url, error):
    with pytest.raises(error) as caught:
        open_results(url)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_a_store_error(tmp_path):
    path = tmp_path / "results.sqlite"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        open_results(str(path))
