"""Results as datasets of a real Butler repository, read back by a plain client."""

import asyncio
import builtins
import json
import shutil
from collections.abc import Callable
from datetime import datetime

import numpy as np
import pytest
from astropy.io import fits
from lsst.daf.butler import Butler, CollectionType

from payloads.keep.calibrated import write_calibrated
from payloads.mask import SAT
from rapid.butler.output import ResultsShelf
from rapid.butler.repository import RepositorySettings, open_repository
from rapid.calibs.store import CalibStore, Verified
from rapid.camera.store import load_camera
from rapid.errors import ConfigurationError, StoreError
from rapid.products.naming import detector_key, summary_key
from rapid.publish.butler import ButlerDestination, ButlerSink
from rapid.results.changes import Changes
from rapid.results.models import CalibState
from tests.support.records import make_result, make_summary

CAMERA = load_camera("LSSTCam")
RUN = "LSSTCam/rapid/prompt/20261120"
LONG_S = 60.0


def fits_of(value: float) -> bytes:
    import io

    buffer = io.BytesIO()
    hdu = fits.PrimaryHDU(np.full((4, 5), value, np.float32))
    hdu.header["RAWSHA"] = "abc"
    hdu.writeto(buffer)
    return buffer.getvalue()


class Night:
    """Stores with exposures, and a sink into a repository."""

    def __init__(self, tmp_path, results, products) -> None:
        self.repo = tmp_path / "repo"
        self.results, self.products = results, products
        self.calibs = CalibStore(tmp_path / "calibs", results)
        self.opened = 0
        self.is_away = False
        where = RepositorySettings(str(self.repo))

        def open_it():
            self.opened += 1
            if self.is_away:
                raise StoreError("the database is away")
            return open_repository(where, CAMERA)

        self._open_it, self._folder = open_it, tmp_path / "calibs"
        self.start()

    def start(self) -> None:
        """Begin as a role does that was away: with nothing but what is stored."""
        root = str(self.repo)
        self.destination = ButlerDestination(self._open_it, self.results, self.products, self._folder, root=root)
        self.sink = ButlerSink(
            self.destination, self.results, camera="LSSTCam", pause_s=0.01, pause_max_s=0.05, look_s=0.05
        )

    async def catch_up(self, until: Callable[[], bool] | None = None) -> list[str]:
        """Have what was missed put; return the keys of what was sent, in order."""
        sent: list[str] = []
        send = self.destination.send
        self.destination.send = lambda parcel, data: (sent.append(parcel.key), send(parcel, data))[1]
        stop = asyncio.Event()
        running = asyncio.create_task(self.sink._outbox.run(stop))
        await asyncio.to_thread(self.destination.prepare, "LSSTCam")
        while await self.sink._catch_up.step() and not (until and until()):
            pass
        stop.set()
        await running
        self.destination.send = send
        return sent

    def certify(
        self,
        kind: str,
        physical_filter: str | None = None,
        *,
        day: str = "2026-11-01",
        value: float = 2.0,
        until: str | None = None,
    ) -> str:
        return self.calibs.certify(
            kind=kind,
            camera="LSSTCam",
            detector=94,
            image=np.full((4, 5), value, np.float32),
            valid_from=datetime.fromisoformat(f"{day}T00:00:00"),
            valid_to=None if until is None else datetime.fromisoformat(f"{until}T00:00:00"),
            physical_filter=physical_filter,
            inputs=[1],
        ).calib_id

    def take(
        self,
        seq_num: int,
        *,
        version: int = 1,
        value: float = 1.0,
        calibs=None,
        more=None,
        metrics=None,
        run="prompt",
        is_told: bool = True,
        day_obs: int = 20261120,
    ):
        exposure = day_obs * 100_000 + seq_num
        result = make_result(
            exposure=exposure, seq_num=seq_num, detector=94, detector_name="R22_S11", run=run, day_obs=day_obs
        )
        result.metrics = {"psf_fwhm_arcsec": value, "note": None, **(metrics or {})}
        result.provenance.calibs = calibs or {}
        for kind, extension, data in (
            ("binned", "fits", fits_of(value)),
            ("stars", "json", json.dumps({"x": [1.5, None], "flux": [10, 20]}).encode()),
            ("provenance", "json", json.dumps(result.provenance.model_dump(mode="json")).encode()),
            *((kind, extension, data) for kind, (extension, data) in (more or {}).items()),
        ):
            result.products[kind] = key = detector_key(result, kind=kind, extension=extension)
            self.products.put(key, data)
        self.results.put_result(result)
        summary = make_summary(seq_num, version, run=run, day_obs=day_obs)
        summary.info = {
            "camera": "LSSTCam",
            "exposure_id": summary.exposure,
            "obs_id": f"MC_O_{day_obs}_{seq_num:06d}",
            "controller": "O",
            "day_obs": day_obs,
            "seq_num": seq_num,
            "image_type": "science",
            "physical_filter": "r_57",
            "band": "r",
            "begin": "2026-11-21T03:00:00",
            "exposure_time_s": 30.0,
        }
        summary.products = {"mosaic": summary_key(summary, kind="mosaic", extension="jpg")}
        self.products.put(summary.products["mosaic"], b"\xff\xd8 mosaic %d" % version)
        self.results.put_summary(summary)
        if is_told:
            self.sink.put(summary)

    async def send_all(self) -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(self.sink._outbox.run(stop))
        is_sent = await self.sink.drain(LONG_S)
        stop.set()
        await running
        assert is_sent, self.sink.status
        assert self.sink.status.n_dead == 0, self.sink.status


@pytest.fixture
def night(tmp_path, results, products):
    found = Night(tmp_path, results, products)
    yield found
    found.destination.close()


async def test_everything_of_an_exposure_is_read_back_by_a_plain_client(night) -> None:
    calibs = {"bias": night.certify("bias"), "flat": night.certify("flat", "r_57")}
    night.take(7, value=0.75, calibs=calibs)
    await night.send_all()
    assert night.sink.status.n_dead == 0
    with Butler.from_config(str(night.repo), collections="LSSTCam/rapid/defaults", instrument="LSSTCam") as butler:
        here = {"exposure": 2026112000007, "detector": 94}
        image = butler.get("rapid_quicklook_binned", here)
        assert image[0].data.tolist() == np.full((4, 5), 0.75).tolist()
        assert butler.get("rapid_quicklook_binned.header", here)["RAWSHA"] == "abc"
        table = butler.get("rapid_quicklook_stars", here)
        assert table["flux"].tolist() == [10, 20]
        assert table["x"].mask.tolist() == [False, True]
        metrics = butler.get("rapid_quicklook_metrics", here)
        assert metrics["metrics"] == {"psf_fwhm_arcsec": 0.75, "note": None}
        assert metrics["provenance"]["calibs"] == calibs
        assert butler.get("rapid_quicklook_provenance", here)["calibs"] == calibs
        assert butler.get("rapid_quicklook_summary_mosaic", exposure=2026112000007) == b"\xff\xd8 mosaic 1"
        assert butler.get("rapid_quicklook_summary", exposure=2026112000007)["version"] == 1
        assert butler.get("rapid_bias", here)[0].data.tolist() == np.full((4, 5), 2.0).tolist()
        assert butler.get("rapid_flat", {**here, "physical_filter": "r_57"})[0].header["FILTER"] == "r_57"
        assert butler.collections.get_info(RUN).type is CollectionType.RUN
        assert list(butler.collections.get_info("LSSTCam/rapid/prompt").children) == [RUN]


async def test_a_calibrated_image_is_read_back_whole_or_by_plane(night) -> None:
    image = np.arange(96 * 64, dtype=np.float32).reshape(96, 64)
    mask = np.zeros((96, 64), np.int32)
    mask[3, 4] = SAT
    data = write_calibrated(image, mask, image + 1, facts={"EXPID": 2026112000014}, noise_fraction=0.0)
    night.take(14, more={"calibrated": ("fits.fz", data)})
    await night.send_all()
    with Butler.from_config(str(night.repo), collections="LSSTCam/rapid/defaults", instrument="LSSTCam") as butler:
        here = {"exposure": 2026112000014, "detector": 94}
        whole = butler.get("rapid_quicklook_calibrated", here)
        np.testing.assert_array_equal(whole.image, image)
        assert whole.header["EXPID"] == 2026112000014
        np.testing.assert_array_equal(butler.get("rapid_quicklook_calibrated.mask", here), mask)
        np.testing.assert_array_equal(butler.get("rapid_quicklook_calibrated.variance", here), image + 1)
        assert butler.get("rapid_quicklook_calibrated.header", here)["EXPID"] == 2026112000014


async def test_a_calib_is_there_once_it_is_certified_and_a_refused_one_is_not(night) -> None:
    certified, refused = night.certify("dark"), night.certify("defects")
    night.take(15, metrics={"calib_id": certified, "calib_state": "certified"})
    night.take(16, metrics={"calib_id": refused, "calib_state": "rejected"})
    await night.send_all()
    with Butler.from_config(str(night.repo), collections="LSSTCam/rapid/defaults", instrument="LSSTCam") as butler:
        assert butler.get("rapid_dark", exposure=2026112000015, detector=94)[0].data[0, 0] == 2.0
        assert not butler.registry.queryDatasetTypes("rapid_defects")


async def test_a_regather_takes_the_place_of_what_it_changes_and_of_no_more(night) -> None:
    night.take(8)
    night.take(9)
    await night.send_all()
    with Butler.from_config(str(night.repo)) as butler:
        before = {ref.dataId["exposure"]: butler.getURI(ref).ospath for ref in _binned(butler)}
    night.take(8, version=2, value=3.0)
    night.sink.put(night.results.latest_summary("LSSTCam", 2026112000009, pipeline="quicklook", run="prompt"))
    await night.send_all()
    with Butler.from_config(str(night.repo)) as butler:
        assert len(_binned(butler)) == 2
        image = butler.get(
            "rapid_quicklook_binned", instrument="LSSTCam", exposure=2026112000008, detector=94, collections=RUN
        )
        summary = butler.get("rapid_quicklook_summary", instrument="LSSTCam", exposure=2026112000008, collections=RUN)
        after = {ref.dataId["exposure"]: butler.getURI(ref).ospath for ref in _binned(butler)}
    assert image[0].data[0, 0] == 3.0
    assert summary["version"] == 2
    assert before[2026112000009] == after[2026112000009]


def _binned(butler):
    return butler.query_datasets("rapid_quicklook_binned", collections=RUN)


async def test_a_campaigns_results_stand_beside_the_nights_and_take_nobodys_place(night) -> None:
    night.take(20, value=1.0)
    night.take(20, value=2.0, run="newpsf")
    await night.send_all()
    here = {"instrument": "LSSTCam", "exposure": 2026112000020, "detector": 94}
    with Butler.from_config(str(night.repo)) as butler:
        values = {
            name: butler.get("rapid_quicklook_metrics", here, collections=f"LSSTCam/rapid/{name}")["metrics"]
            for name in ("defaults", "prompt", "newpsf")
        }
        assert {name: found["psf_fwhm_arcsec"] for name, found in values.items()} == {
            "defaults": 1.0, "prompt": 1.0, "newpsf": 2.0,
        }  # fmt: skip
        assert "LSSTCam/rapid/newpsf" not in butler.collections.get_info("LSSTCam/rapid/defaults").children


async def test_a_later_calib_takes_over_from_an_earlier_one(night) -> None:
    night.take(10, calibs={"bias": night.certify("bias")})
    night.take(11, calibs={"bias": night.certify("bias", day="2026-11-15")})
    await night.send_all()
    assert night.sink.status.n_dead == 0
    with Butler.from_config(str(night.repo)) as butler:
        associations = butler.registry.queryDatasetAssociations(
            "rapid_bias", collections="LSSTCam/calib/rapid", collectionTypes={CollectionType.CALIBRATION}
        )
        found = [one.timespan for one in associations]
    begins = sorted(span.begin.tai.isot[:10] for span in found)
    assert begins == ["2026-11-01", "2026-11-15"]
    assert not found[0].overlaps(found[1])


async def test_a_repository_that_is_away_is_waited_for_and_nothing_is_given_up(night) -> None:
    night.is_away = True
    night.take(12)
    stop = asyncio.Event()
    running = asyncio.create_task(night.sink._outbox.run(stop))
    while night.opened < 4:
        await asyncio.wait({running}, timeout=0.05)
    assert night.sink.status.n_waiting == 1
    night.is_away = False
    assert await night.sink.drain(LONG_S)
    stop.set()
    await running
    with Butler.from_config(str(night.repo)) as butler:
        assert len(_binned(butler)) == 1


async def test_a_product_that_is_gone_is_left_out_and_the_rest_is_put(night) -> None:
    night.take(13)
    for key in list(night.products.list()):
        if "stars" in key:
            night.products.delete(key)
    await night.send_all()
    with Butler.from_config(str(night.repo)) as butler:
        assert len(_binned(butler)) == 1


async def test_what_came_while_nobody_published_is_put_newest_first_and_once(night) -> None:
    for seq_num in (1, 3, 2):
        night.take(seq_num, is_told=False)
    night.take(5, run="newpsf", is_told=False)
    night.take(6, run="newpsf", is_told=False, day_obs=20250317)
    night.take(7, run="request-1-0", is_told=False)
    assert night.sink.status.n_behind == 0
    sent = await night.catch_up()
    assert [key.removeprefix("LSSTCam/").removesuffix("/quicklook") for key in sent] == [
        "prompt/20261120/3", "prompt/20261120/2", "prompt/20261120/1", "newpsf/20261120/5", "newpsf/20250317/6",
    ]  # fmt: skip
    assert night.sink.status.n_behind == 0
    with Butler.from_config(str(night.repo)) as butler:
        nights = {name: butler.collections.get_info(f"LSSTCam/rapid/{name}").children for name in ("prompt", "newpsf")}
        assert not butler.collections.query("LSSTCam/rapid/request*")
    assert nights == {
        "prompt": (RUN,), "newpsf": ("LSSTCam/rapid/newpsf/20261120", "LSSTCam/rapid/newpsf/20250317"),
    }  # fmt: skip
    assert await night.catch_up() == []
    night.destination.close()
    night.start()
    assert await night.catch_up() == [], "the next role knows what is there"
    summary = night.results.latest_summary("LSSTCam", 2025031700006, pipeline="quicklook", run="newpsf")
    night.results.add_to_summary(summary, n_afterburned=1)
    assert await night.catch_up() == ["LSSTCam/newpsf/20250317/6/quicklook"]


async def test_it_goes_on_where_it_was_broken_off_and_the_night_goes_first(night, monkeypatch) -> None:
    monkeypatch.setattr("rapid.publish.catch_up.N_SLICE", 2)
    for seq_num in range(1, 6):
        night.take(seq_num, is_told=False, day_obs=20261119)
    first = await night.catch_up(until=lambda: True)
    assert [int(key.split("/")[3]) for key in first] == [5, 4]
    assert night.sink.status.n_behind == 3
    assert night.sink.status.notes == ["3 summaries of 1 night to be put"]
    night.destination.close()
    night.start()
    night.take(9)  # of the night that goes on
    rest = await night.catch_up()
    assert [int(key.split("/")[3]) for key in rest] == [9, 3, 2, 1]


async def test_what_nobody_told_of_is_found_all_the_same(night) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(night.sink._outbox.run(stop))
    looking = asyncio.create_task(night.sink.catch_up())
    changes, place = Changes(night.results.engine), night.destination.place
    for seq_num in (1, 2):
        night.take(seq_num, is_told=False)
        night.sink.look_again()
        async with asyncio.timeout(5 * LONG_S):
            while changes.n_due(place, "LSSTCam"):
                await asyncio.wait({running, looking}, timeout=0.05)
    looking.cancel()
    stop.set()
    await asyncio.gather(running, looking, return_exceptions=True)
    with Butler.from_config(str(night.repo)) as butler:
        assert len(_binned(butler)) == 2


async def test_what_the_repository_refuses_is_not_sent_over_and_over(night, monkeypatch) -> None:
    night.take(1, is_told=False)
    night.take(2, is_told=False)
    put = ResultsShelf.put_exposure

    def put_exposure(self, summary, pieces):
        if summary.seq_num == 2:
            raise ValueError("no such thing")
        return put(self, summary, pieces)

    monkeypatch.setattr(ResultsShelf, "put_exposure", put_exposure)
    sent = await night.catch_up()
    assert [int(key.split("/")[3]) for key in sent].count(1) == 1
    assert night.sink.status.n_dead == 1
    assert night.sink.status.n_behind == 1
    assert "1 of them given up" in night.sink.status.notes[0]
    assert await night.catch_up() == []
    monkeypatch.undo()
    night.destination.close()
    night.start()
    assert len(await night.catch_up()) == 1


async def test_a_repository_that_is_made_anew_gets_everything_again(night) -> None:
    night.take(1, is_told=False)
    await night.catch_up()
    night.destination.close()
    shutil.rmtree(night.repo)
    night.start()
    assert await night.catch_up() == ["LSSTCam/prompt/20261120/1/quicklook"]


def _spans(night, kind: str = "bias") -> list[tuple[str, str, str]]:
    """Return run, begin and end of all that is certified, in order of time."""
    with Butler.from_config(str(night.repo)) as butler:
        associations = butler.registry.queryDatasetAssociations(
            f"rapid_{kind}", collections="LSSTCam/calib/rapid", collectionTypes={CollectionType.CALIBRATION}
        )
        return sorted(
            (
                one.timespan.begin.tai.isot[:10],
                "" if one.timespan.end is None else one.timespan.end.tai.isot[:10],
                one.ref.run.removeprefix("LSSTCam/calib/rapid/"),
            )
            for one in associations
        )


async def test_calibs_certified_and_withdrawn_by_hand_reach_the_calibration_collection(night) -> None:
    first = night.certify("bias")
    night.certify("bias", day="2026-11-10", until="2026-11-12", value=3.0)
    night.certify("flat", "r_57")
    await night.catch_up()
    one, two = "20261101T000000/v1", "20261110T000000/v1"
    assert _spans(night) == [
        ("2026-11-01", "2026-11-10", one),
        ("2026-11-10", "2026-11-12", two),
        ("2026-11-12", "", one),
    ]
    assert _spans(night, "flat") == [("2026-11-01", "", one)]
    with Butler.from_config(str(night.repo)) as butler:
        assert "LSSTCam/calib/rapid" in butler.collections.get_info("LSSTCam/rapid/defaults").children
    assert await night.catch_up() == []

    night.results.set_calib_state("LSSTCam", first, CalibState.WITHDRAWN, author="me", reason="bad")
    assert await night.catch_up() == ["LSSTCam/calib/bias/94/"]
    assert _spans(night) == [("2026-11-10", "2026-11-12", two)]
    assert _spans(night, "flat") == [("2026-11-01", "", one)]
    # Meanwhile nobody publishes: another calib takes its place, and in the end it comes back.
    night.destination.close()
    night.certify("bias", value=4.0)
    night.results.set_calib_state("LSSTCam", first, CalibState.CERTIFIED, author="me")
    night.start()
    await night.catch_up()
    newer = "20261101T000000/v2"
    assert _spans(night) == [
        ("2026-11-01", "2026-11-10", newer), ("2026-11-10", "2026-11-12", two), ("2026-11-12", "", newer),
    ]  # fmt: skip


async def test_a_calib_that_was_withdrawn_is_not_certified_by_a_result_that_used_it(night) -> None:
    bad = night.certify("bias")
    night.results.set_calib_state("LSSTCam", bad, CalibState.WITHDRAWN, author="me", reason="bad")
    night.take(1, calibs={"bias": bad}, is_told=False)
    await night.catch_up()
    assert _spans(night) == []
    with Butler.from_config(str(night.repo)) as butler:
        (ref,) = butler.query_datasets("rapid_bias", collections="LSSTCam/calib/rapid/20261101T000000/v1")
        assert butler.get(ref)[0].data[0, 0] == 2.0, "what it was made with is there"


async def test_what_was_never_certified_is_not_put(night) -> None:
    night.calibs.certify(
        kind="bias", camera="LSSTCam", detector=94, image=np.full((4, 5), 2.0, np.float32),
        valid_from=datetime(2026, 11, 1), verified=Verified("failed", False, ("noise",), {}),  # noqa: DTZ001 - TAI has no zone
    )  # fmt: skip
    await night.catch_up()
    with Butler.from_config(str(night.repo)) as butler:
        assert not butler.registry.queryDatasetTypes("rapid_bias")


def test_without_the_extra_it_is_said_what_to_install(monkeypatch) -> None:
    from rapid.butler.middleware import daf_butler

    def without(name, *arguments, _import=builtins.__import__, **more):
        if name.startswith("lsst"):
            raise ImportError(f"No module named {name!r}")
        return _import(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"rapid-analysis\[butler\]"):
        daf_butler()
