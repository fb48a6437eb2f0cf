"""Rows for ConsDB, against a server with pqserver's rules."""

import asyncio
from collections.abc import Iterator

import pytest

from rapid.errors import ConfigurationError
from rapid.publish.consdb import ConsDBClient, ConsDBSink
from rapid.results.store import ResultsStore
from tests.publish.consdb_server import ConsDBServer, serve_consdb
from tests.support.records import make_result, make_summary

LONG_S = 60.0
METRICS = {"psf_sigma_px": 1.7, "psf_fwhm_zenith_arcsec": 0.81, "n_psf_stars": 120, "image_median_electron": 880.0}


@pytest.fixture
def consdb() -> Iterator[ConsDBServer]:
    with serve_consdb() as server:
        yield server


@pytest.fixture
def sink(consdb: ConsDBServer, results: ResultsStore) -> ConsDBSink:
    client = ConsDBClient(consdb.url, token="a-token")
    return ConsDBSink(client, results, instrument="lsstcam", pause_s=0.01, pause_max_s=0.05, max_failures=4)


def send(sink: ConsDBSink, *summaries, meanwhile=None, then=()) -> None:
    async def scenario():
        stop = asyncio.Event()
        task = asyncio.create_task(sink.run(stop))
        for summary in summaries:
            sink.put(summary)
        if meanwhile is not None:
            await asyncio.wait_for(asyncio.to_thread(meanwhile), LONG_S)
        assert await sink.drain(LONG_S)
        for summary in then:
            sink.put(summary)
        assert await sink.drain(LONG_S)
        stop.set()
        await asyncio.wait_for(task, LONG_S)

    asyncio.run(scenario())


def put_three(results: ResultsStore, **changes) -> None:
    for detector in range(3):
        metrics = METRICS | {"psf_sigma_px": 1.7 + detector / 10} | changes
        results.put_result(make_result(12, detector, detector_name=f"R00_S0{detector}", metrics=metrics))


def test_an_exposure_becomes_rows_of_its_detectors_and_a_visit(consdb, sink, results):
    put_three(results)
    send(sink, make_summary(12, n_finished=3, n_expected=3))

    detector = consdb.rows["ccdvisit1_quicklook", 20261120, 12, 1]
    assert detector["psf_sigma"] == 1.8
    assert detector["n_psf_star"] == 120
    assert detector["ccdvisit_id"] == 2026112000012001
    visit = consdb.rows["visit1_quicklook", 20261120, 12]
    assert visit["visit_id"] == 2026112000012
    assert visit["n_inputs"] == 3
    assert (visit["psf_sigma_min"], visit["psf_sigma_median"], visit["psf_sigma_max"]) == (1.7, 1.8, 1.9)
    assert visit["n_psf_star_total"] == 360
    exposure = consdb.rows["exposure_quicklook", 20261120, 12]
    assert exposure["postisr_pixel_median_mean"] == 880.0
    assert consdb.tokens == {"Bearer a-token"}


def test_what_was_not_measured_is_left_out(consdb, sink, results):
    put_three(results, psf_fwhm_zenith_arcsec=None, zero_point_mag=float("nan"), sky_level_e=float("inf"))
    send(sink, make_summary(12))

    row = consdb.rows["ccdvisit1_quicklook", 20261120, 12, 0]
    assert not {"seeing_zenith_500nm", "zero_point", "sky_bg"} & row.keys()


def test_columns_of_others_stay_as_they_are(consdb, sink, results):
    consdb.rows["visit1_quicklook", 20261120, 12] = {"z4": 0.5}
    put_three(results)
    send(sink, make_summary(12))

    assert consdb.rows["visit1_quicklook", 20261120, 12]["z4"] == 0.5


@pytest.mark.parametrize("hides_schema", [False, True], ids=["schema is told", "schema is not told"])
def test_columns_the_server_lacks_are_dropped_and_reported(consdb, sink, results, hides_schema):
    consdb.hides_schema = hides_schema
    put_three(results, psf_coma1=0.01)
    send(sink, make_summary(12))

    assert consdb.rows["ccdvisit1_quicklook", 20261120, 12, 0]["psf_sigma"] == 1.7
    assert sink.status.notes
    assert any("ccdvisit1_quicklook has no column" in note and "coma_1" in note for note in sink.status.notes)
    assert sink.status.n_dead == 0


def test_a_bias_is_no_visit(consdb, sink, results):
    results.put_result(make_result(3, 0, image_type="bias", pipeline="bias", metrics={"image_median_electron": 0.1}))
    send(sink, make_summary(3, image_type="bias", pipeline="bias"), make_summary(4, pipeline="build_bias"))

    assert {key[0] for key in consdb.rows} == {"exposure_quicklook"}


def test_an_outage_is_waited_out(consdb, sink, results):
    put_three(results)
    consdb.status = 503

    def come_back() -> None:
        consdb.wait_for_requests(4)
        consdb.status = None

    send(sink, make_summary(12), meanwhile=come_back)

    assert len(consdb.rows) == 5
    assert sink.status.n_dead == 0
    assert sink.status.is_up


def test_a_row_that_is_refused_stops_no_other_and_is_told(consdb, sink, results):
    consdb.bad_detectors = {1}
    put_three(results)
    send(sink, make_summary(12))

    assert {key[3] for key in consdb.rows if key[0] == "ccdvisit1_quicklook"} == {0, 2}
    [letter] = sink.status.dead
    assert letter.key == "lsstcam/ccdvisit1_quicklook/20261120/12"
    assert "Invalid detector" in letter.error


def test_a_newer_version_replaces(consdb, sink, results):
    put_three(results)

    def change() -> None:
        consdb.wait_for_rows(5)
        put_three(results, n_psf_stars=99)

    send(sink, make_summary(12), meanwhile=change, then=[make_summary(12, version=2), make_summary(12, version=1)])

    assert consdb.rows["ccdvisit1_quicklook", 20261120, 12, 0]["n_psf_star"] == 99


def test_an_address_that_is_none_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="publish_consdb"):
        ConsDBClient("consdb:8080")
