"""Results as datasets of a real Butler repository, read back by a plain client."""

import asyncio
import builtins
import json
from datetime import datetime

import numpy as np
import pytest
from astropy.io import fits
from lsst.daf.butler import Butler, CollectionType

from payloads.keep.calibrated import write_calibrated
from payloads.mask import SAT
from rapid.butler.repository import RepositorySettings, open_repository
from rapid.calibs.store import CalibStore
from rapid.camera.store import load_camera
from rapid.errors import ConfigurationError, StoreError
from rapid.products.naming import detector_key, summary_key
from rapid.publish.butler import ButlerDestination, ButlerSink
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

        self.destination = ButlerDestination(open_it, results, products, tmp_path / "calibs")
        self.sink = ButlerSink(self.destination, results, pause_s=0.01, pause_max_s=0.05)

    def certify(self, kind: str, physical_filter: str | None = None, *, day: str = "2026-11-01") -> str:
        return self.calibs.certify(
            kind=kind,
            camera="LSSTCam",
            detector=94,
            image=np.full((4, 5), 2.0, np.float32),
            valid_from=datetime.fromisoformat(f"{day}T00:00:00"),
            physical_filter=physical_filter,
            inputs=[1],
        ).calib_id

    def take(
        self, seq_num: int, *, version: int = 1, value: float = 1.0, calibs=None, more=None, metrics=None, run="prompt"
    ):
        result = make_result(
            exposure=2026112000000 + seq_num, seq_num=seq_num, detector=94, detector_name="R22_S11", run=run
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
        summary = make_summary(exposure=2026112000000 + seq_num, seq_num=seq_num, version=version, run=run)
        summary.info = {
            "camera": "LSSTCam",
            "exposure_id": summary.exposure,
            "obs_id": f"MC_O_20261120_{seq_num:06d}",
            "controller": "O",
            "day_obs": 20261120,
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


def test_without_the_extra_it_is_said_what_to_install(monkeypatch) -> None:
    from rapid.butler.middleware import daf_butler

    def without(name, *arguments, _import=builtins.__import__, **more):
        if name.startswith("lsst"):
            raise ImportError(f"No module named {name!r}")
        return _import(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"rapid-analysis\[butler\]"):
        daf_butler()
