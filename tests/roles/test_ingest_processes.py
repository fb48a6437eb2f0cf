"""Ingest as a process that really gets killed, and a head that begins when raws are ingested."""

from lsst.daf.butler import Butler

from rapid.ingest import store
from tests.support.night import make_plan, take_all

SCIENCE = [{"kind": "science", "n": 1, "physical_filter": "r_57"}]


def test_a_killed_ingest_loses_and_doubles_nothing_and_the_head_begins_when_raws_are_in(roles):
    repo = roles.folder / "butler"
    options = {"butler_repo": repo, "ingest_batch": 4, "ingest_linger_s": 0}
    roles.start("ingest", "ingest-0", **options)
    roles.start("head", "head", raws=f"butler:{repo}")
    roles.start("gather", "gather")
    roles.start("worker", "worker-0")
    exposures = take_all(make_plan(SCIENCE), roles.raws)
    told = []
    for _ in range(10):
        told = told or roles.board.connection.run(store.follow_ingested(roles.board.prefix, "0-0"))
    assert told
    roles.kill("ingest-0")
    roles.start("ingest", "ingest-0", **options)
    roles.wait_for_summary(exposures[-1])
    for exposure_id in exposures:
        assert len(roles.board.connection.run(store.get_told(roles.board.prefix, exposure_id))) == 9
    with Butler.from_config(str(repo)) as butler:
        refs = butler.query_datasets("raw", collections="SmallCam9/raw/all", limit=None)
        assert len(refs) == 9
        raw = butler.get(refs[0])
    assert raw[0].header["INSTRUME"]
    (summary,) = roles.results.summaries("SmallCam9", day_obs=20261120, limit=1)
    assert summary.is_complete
    assert roles.stop("ingest-0") == 0
    assert roles.stop("head") == 0
