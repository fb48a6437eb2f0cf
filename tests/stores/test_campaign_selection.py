"""A campaign's selection, on both databases: metrics, headers, ranges and holes, from what is stored."""

import pytest

from rapid.campaign.plan import choose_exposures
from rapid.requests.archive import RequestArchive
from rapid.requests.campaigns import CampaignSelection
from rapid.requests.faults import BadRequestError
from rapid.requests.models import RequestRecord, RequestSpec, RequestState
from rapid.results.afterburned import AfterburnedRows
from rapid.results.models import DetectorState, DetectorStatus
from tests.support.records import make_result, make_summary

CAMERA = "LSSTCam"
DAY_OBS = 20261120


@pytest.fixture
def nights(results):
    """Two nights: three exposures, one of them in another filter and with a failure, and one of the night before."""
    for day_obs, seq_num, band, fwhm_arcsec in (
        (DAY_OBS, 1, "r_57", 0.7), (DAY_OBS, 2, "g_6", 1.3), (DAY_OBS, 3, "r_57", 1.4), (DAY_OBS - 1, 9, "r_57", None),
    ):  # fmt: skip
        summary = make_summary(seq_num, day_obs=day_obs, metrics={"psf_fwhm_arcsec_median": fwhm_arcsec})
        summary.info = {"physical_filter": band, "airmass": 1.0 + seq_num / 10, "object_name": None}
        if seq_num == 2:
            summary.detectors[93] = DetectorStatus(state=DetectorState.FAILED, reason="no stars")
        results.put_summary(summary)
        results.put_result(make_result(seq_num, 94, day_obs=day_obs, exposure=day_obs * 100_000 + seq_num))
    results.put_summary(make_summary(1, run="v2", metrics={"psf_fwhm_arcsec_median": 9.0}))
    return results


@pytest.mark.parametrize(
    ("select", "chosen"),
    [
        ({}, [3, 2, 1]),
        ({"where": "physical_filter == 'r_57' and psf_fwhm_arcsec_median > 1.2"}, [3]),
        ({"where": "airmass < 1.25"}, [2, 1]),
        ({"where": "psf_fwhm_arcsec_median is null", "nights": [f"{DAY_OBS - 5}-{DAY_OBS}"]}, [9]),
        ({"where": "psf_fwhm_arcsec_median > 5", "of": "v2"}, [1]),
        ({"exclude": [f"{DAY_OBS}00002-{DAY_OBS}00003"]}, [1]),
        ({"nights": [DAY_OBS - 1, DAY_OBS], "image_types": ["science"]}, [3, 2, 1, 9]),
    ],
    ids=["a night", "a metric and a header", "a header", "no value", "another run", "an exclusion", "two nights"],
)
def test_the_selection_is_the_same_on_either_database(nights, select, chosen):
    selection = CampaignSelection.model_validate({"nights": [DAY_OBS], **select})
    found = choose_exposures(selection, results=nights, camera=CAMERA, listing=None)
    assert [one.exposure_id % 100_000 for one in found] == chosen
    assert all(one.raws.raws for one in found)


def test_a_selection_that_leaves_nothing_says_so(nights):
    for where, words in (("psf_fwhm_arcsec_median > 99", "leaves none of the 3"), ("psf_fvhm > 1", "no exposure")):
        with pytest.raises(BadRequestError, match=words):
            choose_exposures(
                CampaignSelection.model_validate({"nights": [DAY_OBS], "where": where}),
                results=nights, camera=CAMERA, listing=None,
            )  # fmt: skip


def test_campaigns_are_found_among_requests_and_what_their_afterburners_lack_among_summaries(nights):
    archive = RequestArchive(nights.engine)
    for number, select in enumerate(({"campaign": {"nights": [DAY_OBS]}}, {"exposures": [1]})):
        spec = RequestSpec.model_validate({"select": select, "run": f"v{number + 2}"})
        archive.put(
            RequestRecord(
                request_id=f"{number}-0", camera=CAMERA, state=RequestState.RUNNING, spec=spec, run=f"v{number + 2}",
                created_ms=number,
            )
        )  # fmt: skip
    assert [record.run for record in archive.campaigns(CAMERA, 10)] == ["v2"]
    assert archive.by_run(CAMERA, "v2").request_id == "0-0"
    lacking = AfterburnedRows(nights.engine).lacking
    exposure = DAY_OBS * 100_000
    assert lacking(CAMERA, run="prompt", nights=[DAY_OBS], pipelines=["quicklook"]) == [
        (exposure + n, "quicklook") for n in (3, 2, 1)
    ]
    summary = nights.latest_summary(CAMERA, exposure + 2, pipeline="quicklook")
    nights.add_to_summary(summary, n_afterburned=1)
    assert lacking(CAMERA, run="prompt", nights=[DAY_OBS], pipelines=["quicklook"]) == [
        (exposure + n, "quicklook") for n in (3, 1)
    ]
    assert lacking(CAMERA, run="v2", nights=[DAY_OBS], pipelines=["donut"]) == []
