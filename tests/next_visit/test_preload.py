"""What an announced visit will need is loaded before its first exposure, and let go if it does not come."""

from datetime import date, datetime

import numpy as np
import pytest

from rapid.calibs.store import CalibCache, CalibStore
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.results.store import open_results
from rapid.worker.messages import Preload
from rapid.worker.preload import share_of
from rapid.worker.preparing import Preloads

SHAPE = (40, 64)
DAY = datetime.fromisoformat("2026-11-20T20:00:00")


class Shelf:
    """A cache of calibs that notes which files were loaded."""

    def __init__(self, root) -> None:
        self.results = open_results(str(root / "results.sqlite"))
        self.store = CalibStore(root / "calibs", self.results)
        self.loads: list[str] = []
        load = self.store.load

        def noted(record):
            self.loads.append(record.calib_id)
            return load(record)

        self.store.load = noted
        self.cache = CalibCache(self.store, self.results)
        self.payloads: list = []
        self.preloads = Preloads(self.results, self.cache, lambda: self.payloads)

    def certify(self, kind: str, physical_filter: str | None = None, detector: int = 94) -> str:
        value = float(len(kind) + len(physical_filter or "") + detector)
        record = self.store.certify(
            kind=kind,
            camera="LSSTCam",
            detector=detector,
            image=np.full(SHAPE, value, np.float32),
            variance=np.ones(SHAPE, np.float32),
            valid_from=DAY,
            physical_filter=physical_filter,
            inputs=[1],
        )
        return record.calib_id

    def get(self, kind: str, physical_filter: str):
        info = ExposureInfo(
            camera="LSSTCam",
            exposure_id=2026112000100,
            obs_id="MC_O_20261120_000100",
            controller="O",
            day_obs=20261120,
            seq_num=100,
            detector=94,
            detector_name="R22_S11",
            image_type=ImageType.SCIENCE,
            begin=DAY,
            physical_filter=physical_filter,
        )
        self.cache.refresh()
        return self.cache.get(info, kind)

    def take_all(self, **facts) -> int:
        """Take every step of a preload; return how many there were."""
        defaults = {"group_id": "g", "camera": "LSSTCam", "detector": 94, "filters": ("r_57",), "begin": DAY}
        for step in range(100):
            if not self.preloads.take(Preload(**{**defaults, **facts}, step=step)):
                return step
        raise AssertionError("it has no end")


@pytest.fixture
def shelf(tmp_path):
    found = Shelf(tmp_path)
    yield found
    found.results.close()


def test_the_calibs_of_the_announced_filter_are_loaded_and_no_others(shelf) -> None:
    wanted = {shelf.certify("bias"), shelf.certify("flat", "r_57")}
    shelf.certify("flat", "g_6")
    shelf.certify("bias", detector=95)
    assert shelf.take_all() == 2
    assert set(shelf.loads) == wanted
    assert shelf.get("flat", "r_57").image[0, 0] > 0
    assert shelf.get("bias", "r_57") is not None
    assert len(shelf.loads) == 2  # neither is loaded again for the exposure


@pytest.mark.parametrize(("filters", "n"), [(("r",), 1), ((), 2), (("y",), 0)], ids=["by its band", "any", "none"])
def test_a_filter_may_be_told_by_its_band_or_be_any(shelf, filters, n) -> None:
    shelf.certify("flat", "r_57")
    shelf.certify("flat", "g_6")
    assert shelf.take_all(filters=filters) == n


def test_a_canceled_visit_lets_go_of_what_was_loaded_for_it_alone(shelf) -> None:
    shelf.certify("bias")
    flat = shelf.certify("flat", "r_57")
    shelf.certify("flat", "g_6")
    shelf.get("bias", "r_57")  # an exposure has it
    shelf.take_all(group_id="one")
    shelf.take_all(group_id="other", filters=("g_6", "r_57"))
    n_loads = len(shelf.loads)
    shelf.preloads.take(Preload(group_id="one", is_release=True))
    shelf.get("flat", "r_57")
    assert len(shelf.loads) == n_loads  # the other visit wants it
    shelf.preloads.take(Preload(group_id="other", is_release=True))
    shelf.get("bias", "r_57")
    assert len(shelf.loads) == n_loads
    shelf.get("flat", "r_57")
    assert shelf.loads[n_loads:] == [flat]


def test_a_calib_that_cannot_be_read_stops_no_other(shelf) -> None:
    broken = shelf.certify("bias")
    shelf.certify("flat", "r_57")
    (shelf.store.root / next(iter(shelf.results.calibs("LSSTCam", kind="bias"))).path).unlink()
    assert shelf.take_all() == 2
    assert broken in shelf.loads
    assert len(shelf.cache._loaded) == 1


def test_payloads_are_told_where_to_look_on_the_sky(shelf) -> None:
    class Catalogue:
        def __init__(self, error=None) -> None:
            self.told, self.error = [], error

        def preload(self, sky, bands) -> None:
            self.told.append((sky, bands))
            if self.error:
                raise self.error

    shelf.certify("flat", "i_39")
    shelf.payloads = [Catalogue(OSError("away")), object(), Catalogue()]
    shelf.take_all(filters=("r", "i_39"), sky=(10.0, -20.0))
    assert shelf.payloads[2].told == [((10.0, -20.0), frozenset({"r", "i"}))]
    shelf.take_all(filters=("r",))
    assert len(shelf.payloads[0].told) == 1


def test_payloads_let_go_of_a_field_with_the_last_of_its_visits(shelf) -> None:
    class Templates:
        def __init__(self, error=None) -> None:
            self.held, self.error = [], error

        def preload(self, sky, bands) -> None:
            self.held.append((sky, bands))

        def let_go(self, sky, bands) -> None:
            self.held.remove((sky, bands))
            if self.error:
                raise self.error

    shelf.payloads = [Templates(OSError("away")), object(), Templates()]
    here, there = {"sky": (10.0, -20.0)}, {"sky": (11.0, -20.0)}
    for group_id, sky in (("one", here), ("again", here), ("other", there)):
        shelf.take_all(group_id=group_id, filters=("r",), **sky)
    for group_id, n_left in (("one", 3), ("again", 2), ("again", 2), ("nobody", 2), ("other", 1)):
        shelf.preloads.take(Preload(group_id=group_id, is_release=True))
        assert [len(payload.held) for payload in shelf.payloads[::2]] == [n_left, n_left], group_id


def test_the_tiles_of_an_announced_field_are_read_before_they_are_needed(tmp_path) -> None:
    from payloads.quality.calibrate import StarCalibrator
    from payloads.quality.catalogue import write_catalogue
    from payloads.quality.payload import PACKAGED, load_reference_values

    ra = np.linspace(9.5, 10.5, 20)
    stars = {"name": "x", "system": "AB", "made_on": date(2026, 11, 1)}
    write_catalogue(tmp_path / "stars", ra, np.full(20, -20.0), {"r": np.full(20, 18.0)}, **stars)
    calibrator = StarCalibrator(tmp_path / "stars", load_reference_values(PACKAGED), max_pointing_error_arcsec=60.0)
    calibrator.preload((10.0, -20.0), frozenset({"r", "q"}))
    for tile in (tmp_path / "stars/tiles").iterdir():
        tile.unlink()
    assert len(calibrator._catalogue.stars_around(10.0, -20.0, 0.4, "r")) > 5


def test_workers_share_what_nobody_ran_and_keep_what_they_ran() -> None:
    own = {1: "a", 2: "gone", 3: "b"}
    shares = {name: share_of(list(range(8)), own=own, workers=["a", "b"], worker_id=name) for name in "ab"}
    assert shares["a"][0] == 1
    assert shares["b"][0] == 3
    assert sorted(shares["a"] + shares["b"]) == list(range(8))
    assert len(share_of(list(range(300)), own={}, workers=["a"], worker_id="a", limit=16)) == 16
