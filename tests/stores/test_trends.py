"""The trends on real databases: what is stored comes in, once, and can be corrected."""

from datetime import date, datetime

import numpy as np
import pytest
import sqlalchemy as sa

from rapid.errors import NotFoundError
from rapid.results.models import Provenance
from rapid.results.trend_schema import trend_pending, trend_values
from rapid.trends.feed import TrendFeed
from rapid.trends.packing import pack, patched, unpack
from rapid.trends.store import TrendStore
from rapid.trends.table import history_table
from tests.support.records import make_result, make_summary


@pytest.fixture
def trends(results):
    return TrendStore(results.engine)


def bias(seq_num=1, detector=94, mean=1.0, **changes):
    facts = {
        "pipeline": "bias",
        "image_type": "bias",
        "begin": datetime(2026, 11, 20, 20, seq_num),  # noqa: DTZ001 - TAI, as headers have it
        "exposure_time_s": 0.0,
        "metrics": {"bias_mean_pull_max": 2.0, "note": "text", "flag": True},
        "amps": {"C01": {"mean_e": mean, "stdev_e": 5.0}, "C00": {"mean_e": mean + 0.5, "stdev_e": None}},
    }
    return make_result(seq_num, detector, **{**facts, **changes})


def values(trends, metric="mean_e", detector=94, **facts):
    (found,) = trends.history("LSSTCam", metric, detector=detector, **facts)
    return found


def count(results, table):
    with results.engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def test_numbers_of_a_stored_result_come_in(results, trends):
    results.put_result(bias())
    assert trends.has_pending()
    assert trends.update() == 1
    assert not trends.has_pending()
    found = values(trends)
    assert found.amps == {"C00": [1.5], "C01": [1.0]}
    assert (found.exposures, found.days, found.unit) == ([2026112000001], [20261120], "electron")
    assert found.times == [bias().begin]
    assert values(trends, "bias_mean_pull_max").amps == {"": [2.0]}
    assert values(trends, "stdev_e").amps == {"C01": [5.0]}
    assert {one.metric for one in trends.metrics("LSSTCam")} == {"mean_e", "stdev_e", "bias_mean_pull_max"}


def test_a_sky_image_leaves_no_note(results, trends):
    results.put_result(make_result())
    assert not trends.has_pending()
    assert trends.metrics("LSSTCam") == []


def test_the_same_result_twice_is_one_number(results, trends):
    for _ in range(2):
        results.put_result(bias())
        trends.update()
    assert values(trends).exposures == [2026112000001]
    assert count(results, trend_values) == 3


def test_a_redone_result_replaces_its_numbers_and_takes_away_what_it_has_no_more(results, trends):
    results.put_result(bias(detector=94))
    results.put_result(bias(detector=95, mean=7.0))
    trends.update()
    results.put_result(bias(mean=2.0, amps={"C00": {"mean_e": 2.5}}, metrics={}))
    trends.update()
    assert values(trends).amps == {"C00": [2.5]}
    assert values(trends, detector=95).amps == {"C00": [7.5], "C01": [7.0]}
    assert values(trends, "stdev_e", detector=95).amps == {"C01": [5.0]}
    assert trends.history("LSSTCam", "stdev_e", detector=94) == []


def test_a_corrected_filter_moves_the_numbers(results, trends):
    flat = {"pipeline": "flat", "image_type": "flat", "exposure_time_s": 4.0}
    results.put_result(bias(physical_filter="r_57", **flat))
    trends.update()
    results.put_result(bias(physical_filter="i_39", **flat))
    trends.update()
    assert [one.key.condition for one in trends.history("LSSTCam", "mean_e", detector=94)] == ["i_39 4 s"]
    assert {one.condition for one in trends.metrics("LSSTCam")} == {"i_39 4 s"}


def test_masters_are_apart_from_exposures(results, trends):
    results.put_result(bias())
    provenance = bias().provenance.model_dump() | {"inputs": [1, 2, 3], "pipeline": "build_bias"}
    results.put_result(bias(pipeline="build_bias", provenance=Provenance(**provenance)))
    trends.update()
    assert {one.key.pipeline for one in trends.history("LSSTCam", "mean_e", detector=94)} == {"bias", "build_bias"}
    assert len(trends.history("LSSTCam", "mean_e", detector=94, pipeline="bias")) == 1


def test_filter_and_time_of_an_old_result_are_those_of_its_summary(results, trends):
    results.put_result(bias(pipeline="flat", image_type="flat", begin=None, exposure_time_s=None))
    info = {"physical_filter": "g_6", "exposure_time_s": 2.5}
    results.put_summary(make_summary(1, pipeline="flat", image_type="flat", info=info))
    trends.update()
    assert values(trends).key.condition == "g_6 2.5 s"


def test_a_result_that_comes_while_notes_are_worked_off_is_not_lost(results, trends, monkeypatch):
    import rapid.trends.feed as feed

    results.put_result(bias(mean=1.0))
    seen = []

    class Interrupted(feed.Fold):
        def run(self, notes):
            super().run(notes)
            seen.append(len(notes))

    monkeypatch.setattr(feed, "Fold", Interrupted)
    trends.update()
    results.put_result(bias(mean=3.0))
    trends.update()
    assert seen == [1, 1]
    assert values(trends).amps["C01"] == [3.0]


def test_what_fails_half_way_is_done_whole_next_time(results, trends, monkeypatch):
    import rapid.trends.fold as fold

    results.put_result(bias())
    with monkeypatch.context() as broken:
        broken.setattr(fold, "mark_unwatched", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            trends.update()
    assert count(results, trend_values) == 0
    assert count(results, trend_pending) == 1
    trends.update()
    assert values(trends).amps == {"C00": [1.5], "C01": [1.0]}


def test_a_rebuild_makes_the_same_of_the_stored_results(results, trends):
    for seq_num in range(1, 6):
        for detector in (90, 94):
            results.put_result(bias(seq_num, detector, mean=float(seq_num)))
    trends.update()
    before = [values(trends, detector=d) for d in (90, 94)]
    trends.put_arrays([(1, pack(np.zeros(6)))], 2026112000099, day_obs=20261120)
    assert trends.rebuild("LSSTCam", first_day=20261120, last_day=20261120) == 10
    assert [values(trends, detector=d) for d in (90, 94)] == before
    assert trends.rebuild("LSSTCam", first_day=20261121, last_day=20261122) == 0


def test_days_and_amps_can_be_chosen(results, trends):
    for day in (20261118, 20261119, 20261120):
        results.put_result(bias(day_obs=day, mean=float(day - 20261117)))
    trends.update()
    assert values(trends, first_day=20261119).amps["C01"] == [2.0, 3.0]
    assert values(trends, last_day=20261118, amp="C00").amps == {"C00": [1.5]}
    with pytest.raises(NotFoundError, match="C77"):
        trends.history("LSSTCam", "mean_e", detector=94, amp="C77")
    with pytest.raises(NotFoundError, match="no_such"):
        trends.history("LSSTCam", "no_such", detector=94)
    with pytest.raises(NotFoundError, match="17"):
        trends.history("LSSTCam", "mean_e", detector=17)


def test_the_drift_of_every_amp_comes_as_a_map(results, trends):
    for k in range(20):
        day = date(2026, 11, 1).toordinal() + k
        day_obs = int(date.fromordinal(day).strftime("%Y%m%d"))
        for detector in (90, 94):
            results.put_result(bias(1, detector, mean=10.0 + (0.1 * k if detector == 94 else 0.0), day_obs=day_obs))
    trends.update()
    drift = trends.drift_map("LSSTCam", "mean_e")
    assert (drift.n_exposures, drift.first_day, drift.last_day) == (20, 20261101, 20261120)
    moved, still = drift.amps[94]["C01"], drift.amps[90]["C01"]
    assert moved.slope_per_day == pytest.approx(0.1, rel=1e-4)
    assert moved.change == pytest.approx(1.8, rel=1e-4)
    assert moved.change_percent == pytest.approx(100 * 1.8 / 10.05, rel=1e-3)
    assert (still.change, still.slope_per_day) == (0.0, 0.0)
    with pytest.raises(NotFoundError):
        trends.drift_map("LSSTCam", "mean_e", last_day=20200101)


def test_a_history_is_a_table_with_units(results, trends):
    results.put_result(bias())
    results.put_result(bias(2, amps={"C00": {"mean_e": 3.0}}))
    trends.update()
    table = history_table(trends.history("LSSTCam", "mean_e", detector=94))
    assert len(table) == 4
    assert str(table["value"].unit) == "electron"
    row = table[(table["amp"] == "C01") & (table["exposure"] == 2026112000002)]
    assert row["value"].mask.tolist() == [True]
    assert history_table([]).colnames == table.colnames


def test_two_that_update_at_once_write_everything_once(results, results_url):
    from concurrent.futures import ThreadPoolExecutor

    for seq_num in range(1, 9):
        for detector in range(90, 96):
            results.put_result(bias(seq_num, detector))
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: TrendFeed(results.engine).update(), range(4)))
    assert sum(done) == 48
    assert count(results, trend_pending) == 0
    assert len(values(TrendStore(results.engine), detector=95).exposures) == 8


def test_arrays_are_plain_and_may_be_short():
    packed = pack(np.array([1.5, np.inf, np.nan]))
    assert len(packed) == 12
    assert np.frombuffer(packed, "<f4")[0] == 1.5
    rows = unpack([packed, packed[:4]], 4)
    assert rows.shape == (2, 4)
    assert np.isnan(rows).tolist() == [[False, True, True, True]] * 2
    longer = np.frombuffer(patched(packed, np.array([4, 0]), np.array([7.0, 2.0])), "<f4")
    assert longer.tolist()[0] == 2.0
    assert longer[4] == 7.0
    assert np.isnan(longer[1:4]).all()
