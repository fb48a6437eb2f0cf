"""Raws looked up by night in a real Butler repository: a campaign over what was ingested there."""

from pathlib import Path

import pytest

from rapid.arrival.listing import RawListing
from rapid.arrival.source import open_source
from rapid.butler.raws import RawFile, RawShelf
from rapid.butler.repository import RepositorySettings, open_repository
from rapid.camera.store import load_camera
from rapid.campaign.holes import find_holes
from rapid.campaign.listings import ButlerListing, open_listing
from rapid.campaign.plan import choose_exposures
from rapid.errors import ConfigurationError
from rapid.requests.campaigns import CampaignSelection
from rapid.results.store import ResultsStore, open_results
from tests.support.guider import GUIDER_NAME, make_guider_raw, make_stamps
from tests.support.raws import make_raw

CAMERA = load_camera("LSSTCam")
DAY_OBS = 20261120


def exposure(seq_num: int) -> int:
    return DAY_OBS * 100_000 + seq_num


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with two exposures of two detectors and a guider; the names of its images tell nothing."""
    raws = tmp_path / "raws"
    raws.mkdir()
    contents = [make_raw(seq_num, "R22", slot) for seq_num in (1, 2) for slot in ("S10", "S11")]
    contents.append(make_guider_raw(make_stamps([25.0] * 3, [50.0] * 3), seq_num=2))
    found = []
    for number, data in enumerate(contents):
        path = raws / (f"file{number}.fits" if number < 4 else GUIDER_NAME)
        path.write_bytes(data)
        info = open_source(str(raws), camera=CAMERA).read_header(str(path)).info
        found.append(RawFile(str(path), info, len(data)))
    repository = open_repository(RepositorySettings(str(tmp_path / "repo")), CAMERA)
    RawShelf(repository, run="LSSTCam/raw/all").ingest(found)
    repository.close()
    return tmp_path / "repo"


@pytest.fixture
def results(empty_results: Path) -> ResultsStore:
    store = open_results(str(empty_results))
    yield store
    store.close()


def test_a_night_of_a_repository_is_listed_whatever_its_files_are_called(repo):
    listing = open_listing(f"butler:{repo}", CAMERA)
    night = listing.night(DAY_OBS)
    assert sorted(night) == [exposure(1), exposure(2)]
    assert {detector: Path(uri).name for detector, uri in night[exposure(1)].raws.items()} == {
        93: "file0.fits",
        94: "file1.fits",
    }
    assert [Path(uri).name for uri in night[exposure(2)].guiders.values()] == [GUIDER_NAME]
    assert listing.read_header(night[exposure(1)].raws[94]).info.seq_num == 1
    assert listing.night(20260101) == {}


def test_a_campaign_and_its_holes_find_what_nobody_has_processed(repo, results):
    listing = open_listing(f"butler:{repo}", CAMERA)
    select = CampaignSelection.model_validate({"nights": [DAY_OBS], "where": "seq_num == 2"})
    (chosen,) = choose_exposures(select, results=results, camera="LSSTCam", listing=listing)
    assert (chosen.exposure_id, sorted(chosen.raws.raws)) == (exposure(2), [93, 94])
    report = find_holes(DAY_OBS, results=results, camera=CAMERA, listing=listing)
    assert (report.n_exposures, report.n_raws, report.n_missing) == (2, 5, 5)


def test_places_that_are_no_place(tmp_path):
    assert open_listing("", CAMERA) is None
    assert isinstance(open_listing(str(tmp_path), CAMERA), RawListing)
    listing = open_listing(f"butler:{tmp_path / 'nothing'}", CAMERA)
    assert isinstance(listing, ButlerListing)
    with pytest.raises(ConfigurationError, match="no Butler repository"):
        listing.night(DAY_OBS)
    with pytest.raises(ConfigurationError):
        open_listing("butler:", CAMERA)
