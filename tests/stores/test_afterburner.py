"""What an afterburner adds to a stored result and to a summary, on real databases."""

import threading

import pytest

from rapid.results.afterburner import NotJoinedError, OutdatedError
from rapid.results.models import DetectorResult
from rapid.results.store import ResultsStore
from tests.support.records import make_result, make_summary

FLATS = {"flat": "LSSTCam-094-flat-v1"}


def with_provenance(result: DetectorResult, **changes) -> DetectorResult:
    return result.model_copy(update={"provenance": result.provenance.model_copy(update=changes)})


def found(**changes) -> DetectorResult:
    """What an afterburner found on the image of `make_result`."""
    facts = {
        "pipeline": "quicklook_after",
        "metrics": {"ee80_radius_arcsec": 0.9},
        "amps": {"C00": {"n_ee_stars": 3}, "C01": {"n_ee_stars": 1}},
        "products": {"growth": "growth.json"},
        "timings": {"encircled_energy_s": 0.4, "total_s": 2.0},
    }
    after = make_result(**{**facts, **changes})
    return with_provenance(after, payloads={"isr": "1", "encircled_energy": "1"}, config_hash="2" * 64)


def stored(results: ResultsStore) -> DetectorResult:
    (result,) = results.results(2026112000001)
    return result


def test_an_afterburners_numbers_stand_in_the_same_row_with_their_own_provenance(results):
    base = make_result(timings={"total_s": 1.0})
    results.put_result(base)
    joined = results.join_result(found(), pipeline="quicklook")
    assert joined == stored(results)
    assert joined.metrics == {"psf_fwhm_arcsec": 0.8, "ee80_radius_arcsec": 0.9}
    assert joined.amps == {"C00": {"read_noise_e": 5.5, "n_ee_stars": 3}, "C01": {"n_ee_stars": 1}}
    assert joined.timings == {"total_s": 1.0, "encircled_energy_s": 0.4}
    assert joined.products == {"growth": "growth.json"}
    assert joined.finished_at == base.finished_at
    assert joined.provenance.config_hash == "0" * 64
    added = joined.provenance.afterburner
    assert added.payloads == {"isr": "1", "encircled_energy": "1"}
    assert (added.config_hash, added.metrics) == ("2" * 64, ["ee80_radius_arcsec"])


def test_joining_again_takes_the_place_of_the_first_time(results):
    results.put_result(make_result())
    results.join_result(found(), pipeline="quicklook")
    results.join_result(found(metrics={"ee95_radius_arcsec": 2.0}, amps={}, products={}), pipeline="quicklook")
    assert stored(results).metrics == {"psf_fwhm_arcsec": 0.8, "ee95_radius_arcsec": 2.0}
    assert stored(results).amps == {"C00": {"read_noise_e": 5.5}}
    assert stored(results).products == {}


def test_a_result_that_is_stored_twice_keeps_what_was_added(results):
    results.put_result(make_result())
    joined = results.join_result(found(), pipeline="quicklook")
    results.put_result(make_result())
    assert stored(results) == joined


@pytest.mark.parametrize("changes", [{"calibs": FLATS}, {"raw_sha256": "3" * 64}, {"config_hash": "4" * 64}], ids=str)
def test_a_result_that_is_done_again_in_another_way_loses_what_was_added(results, changes):
    results.put_result(make_result())
    results.join_result(found(), pipeline="quicklook")
    results.put_result(with_provenance(make_result(), **changes))
    assert stored(results).provenance.afterburner is None
    assert stored(results).metrics == {"psf_fwhm_arcsec": 0.8}


@pytest.mark.parametrize(
    ("after", "error"),
    [
        (with_provenance(found(), raw_sha256="3" * 64), NotJoinedError),
        (with_provenance(found(), calibs=FLATS), OutdatedError),
        (found(metrics={"psf_fwhm_arcsec": 0.7}), NotJoinedError),
        (found(amps={"C00": {"read_noise_e": 5.0}}), NotJoinedError),
        (found(detector=95), OutdatedError),
    ],
    ids=[
        "of another raw",
        "with a flat that was not used",
        "a metric twice",
        "an amp's metric twice",
        "no such result",
    ],
)
def test_what_does_not_belong_to_a_result_is_refused_and_nothing_is_written(results, after, error):
    results.put_result(make_result())
    with pytest.raises(error) as told:
        results.join_result(after, pipeline="quicklook")
    assert type(told.value) is error
    assert stored(results) == make_result()


def test_what_comes_to_a_summary_from_two_sides_at_once_is_all_there(results):
    results.put_summary(make_summary(products={"mosaic": "m.jpg"}))
    begin = threading.Barrier(2)

    def add(**what) -> None:
        begin.wait(30)
        for _ in range(10):
            results.add_to_summary(make_summary(), **what)

    sides = [
        threading.Thread(target=add, kwargs={"products": {"fwhm_map": "f.png"}}),
        threading.Thread(target=add, kwargs={"metrics": {"ee80_radius_arcsec_median": 0.9}, "n_afterburned": 1}),
    ]
    for side in sides:
        side.start()
    for side in sides:
        side.join(60)
    summary = results.latest_summary("LSSTCam", 2026112000001)
    assert summary.products == {"mosaic": "m.jpg", "fwhm_map": "f.png"}
    assert summary.metrics == {"psf_fwhm_arcsec_median": 0.8, "ee80_radius_arcsec_median": 0.9}
    assert summary.n_afterburned == 1
    assert results.add_to_summary(make_summary(version=2), products={"a": "b"}) is None
