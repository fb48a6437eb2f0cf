"""The mount's motion of an exposure, from a real InfluxDB to its summary."""

import asyncio
import urllib.request
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from astropy.time import Time

from rapid.errors import ConfigurationError
from rapid.publish.mount import MountMotionSink
from rapid.results.models import DetectorState, DetectorStatus, ExposureSummary, GatherReason
from rapid.results.store import open_results
from rapid.telemetry.influx import TelemetryError, TelemetryReader, stored_ns
from rapid.telemetry.models import TelemetryConfig, TimeScale
from rapid.telemetry.mount import HEADLINE, measure_mount
from rapid.wiring.settings import publishes
from rapid.wiring.telemetry import make_mount_motion
from tests.support.influx import Influx, serve_influx

BEGIN = datetime(2026, 11, 21, 3, 0, 0)  # noqa: DTZ001 - TAI has no zone
END = BEGIN + timedelta(seconds=30)
WAIT_S = 60.0
AZIMUTH_ARCSEC, ELEVATION_ARCSEC = 0.4, 0.1


@pytest.fixture(scope="module")
def influx(tmp_path_factory):
    with serve_influx(tmp_path_factory.mktemp("influx")) as server:
        server.query("CREATE DATABASE efd")
        yield server


def write(influx: Influx, *, begin: datetime = BEGIN, seconds: float = 34.0, axes=("azimuth", "elevation", "rotation")):
    """Write what a tracking mount writes, at 20 Hz and with the archive's own times [UTC]; the axes shake."""
    # An oracle of its own for the scale of time: TAI was 37 s ahead of UTC.
    first = begin - timedelta(seconds=37 + 2)
    t = np.arange(0.0, seconds, 0.05)
    shakes = {"azimuth": AZIMUTH_ARCSEC, "elevation": ELEVATION_ARCSEC, "rotation": 0.0}
    names = {"azimuth": "MTMount.azimuth", "elevation": "MTMount.elevation", "rotation": "MTRotator.rotation"}
    lines = []
    for axis in axes:
        demand = {"azimuth": 120.0, "elevation": 60.0, "rotation": 10.0}[axis] + 0.003 * t
        actual = demand + shakes[axis] / 3600 * np.sin(2 * np.pi * t / 1.5)
        for at, one, other in zip(t, actual, demand, strict=True):
            stamp = (first + timedelta(seconds=float(at))).replace(tzinfo=UTC)
            ns = round((stamp - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6) * 1000
            lines.append(
                f"lsst.sal.{names[axis]} actualPosition={one!r},demandPosition={other!r} {ns}".replace(
                    "np.float64(", ""
                ).replace(")", "")
            )
    body = "\n".join(lines).encode()
    request = urllib.request.Request(f"{influx.url}/write?db=efd&precision=ns", data=body)  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own server
        assert answer.status == 204


def summary(seq_num: int = 1, *, version: int = 1, begin: datetime = BEGIN, **changes) -> ExposureSummary:
    facts = {
        "camera": "LSSTCam", "exposure": 2026112000000 + seq_num, "day_obs": 20261120, "seq_num": seq_num,
        "pipeline": "quicklook", "image_type": "science", "version": version, "reason": GatherReason.COMPLETE,
        "n_finished": 1, "n_expected": 1, "is_complete": True, "detectors": {94: DetectorStatus(state=DetectorState.FINISHED)},
        "info": {"begin": begin.isoformat(), "end": (begin + timedelta(seconds=30)).isoformat(), "can_see_sky": True},
        "metrics": {"psf_fwhm_arcsec_median": 0.8},
    }  # fmt: skip
    return ExposureSummary.model_validate(facts | changes)


class Telling:
    """What displays are told."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[ExposureSummary] = asyncio.Queue()

    async def tell(self, changed: ExposureSummary) -> None:
        await self.told.put(changed)

    async def next(self) -> ExposureSummary:
        return await asyncio.wait_for(self.told.get(), WAIT_S)


@pytest.fixture
async def serving(influx, tmp_path):
    results = await asyncio.to_thread(open_results, str(tmp_path / "results.sqlite"))
    running = []

    def start(**changes):
        config = TelemetryConfig.model_validate({"url": influx.url, "retry_s": 0.1, **changes})
        telling = Telling()
        sink = MountMotionSink(config, results, telling.tell)
        stop = asyncio.Event()
        running.append((stop, asyncio.create_task(sink.run(stop))))
        return sink, telling, results

    yield start
    for stop, task in running:
        stop.set()
        await asyncio.wait_for(task, WAIT_S)
    results.close()


def test_what_the_mount_did_is_measured(influx):
    write(influx)
    config = TelemetryConfig(url=influx.url)
    metrics = measure_mount(TelemetryReader(config), config, BEGIN, END)
    across = AZIMUTH_ARCSEC / np.sqrt(2) * np.cos(np.deg2rad(60))
    expected = np.hypot(across, ELEVATION_ARCSEC / np.sqrt(2))
    assert metrics[HEADLINE] == pytest.approx(expected, rel=0.02)
    assert metrics["mount_motion_fwhm_arcsec"] == pytest.approx(2.3548 * expected / np.sqrt(2), rel=0.02)
    assert metrics["mount_azimuth_rms_arcsec"] == pytest.approx(AZIMUTH_ARCSEC / np.sqrt(2), rel=0.02)
    assert metrics["mount_rotator_rms_arcsec"] == pytest.approx(0.0, abs=1e-3)


async def test_it_joins_the_summary_and_is_told(influx, serving):
    write(influx)
    sink, telling, results = serving()
    stored = summary()
    results.put_summary(stored)
    sink.put(stored)
    changed = await telling.next()
    assert changed.metrics[HEADLINE] == pytest.approx(0.158, rel=0.05)
    assert changed.metrics["mount_motion_share_percent"] == pytest.approx(
        100 * (changed.metrics["mount_motion_fwhm_arcsec"] / 0.8) ** 2
    )
    assert changed.metrics["psf_fwhm_arcsec_median"] == 0.8
    assert results.latest_summary("LSSTCam", stored.exposure).metrics == changed.metrics
    again = summary(version=2)
    results.put_summary(again)
    sink.put(again)
    assert (await telling.next()).version == 2
    sink.put(changed)  # it has the numbers: nothing is asked or told again
    assert sink.status.n_waiting == 0


async def test_telemetry_that_comes_late_is_waited_for(influx, serving):
    begin = BEGIN + timedelta(hours=1)
    write(influx, begin=begin, seconds=10.0)
    sink, telling, results = serving()
    stored = summary(2, begin=begin)
    results.put_summary(stored)
    sink.put(stored)
    await asyncio.to_thread(write, influx, begin=begin)
    assert (await telling.next()).metrics[HEADLINE] > 0.1


@pytest.mark.parametrize(
    "changes",
    [{}, {"url": "http://127.0.0.1:9"}, {"database": "elsewhere"}],
    ids=["no samples", "no server", "no database"],
)
async def test_what_never_comes_is_given_up_visibly(serving, changes):
    sink, telling, results = serving(give_up_s=0.3, **changes)
    stored = summary(3, begin=BEGIN + timedelta(hours=5))
    results.put_summary(stored)
    sink.put(stored)
    changed = await telling.next()
    assert changed.metrics[HEADLINE] is None
    assert "1 exposures without telemetry" in sink.status.notes
    assert sink.status.error


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'{"results": null}', b'{"results": [null]}', b'{"results": [{"series": [{"values": 7}]}]}',
        b'{"results": [{"series": [{"values": [[0, "east", 1.0]]}]}]}', b'{"results": [{"error": "no such database"}]}',
        b'{"results": [{"series": [{"values": [[0], [1]]}]}]}', b'{"results": [{"series": []}]}', b"<html>",
    ],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_no_more_than_no_answer(recorder, body):
    recorder.answer = lambda _call: (200, body, {})
    config = TelemetryConfig(url=recorder.url)
    with pytest.raises(TelemetryError):
        measure_mount(TelemetryReader(config), config, BEGIN, END)


def test_a_gap_in_the_series_is_told(influx):
    begin = BEGIN + timedelta(hours=2)
    write(influx, begin=begin, axes=("elevation", "rotation"))
    config = TelemetryConfig(url=influx.url)
    with pytest.raises(TelemetryError, match=r"MTMount.azimuth has no sample"):
        measure_mount(TelemetryReader(config), config, begin, begin + timedelta(seconds=30))


@pytest.mark.parametrize(
    "changes",
    [{"image_type": "bias"}, {"info": {"begin": BEGIN.isoformat()}}, {"run": "request-1"}, {"info": {"begin": "x", "end": "y"}}],
    ids=["no sky", "no end", "a request's", "no times"],
)  # fmt: skip
async def test_exposures_without_a_mount_to_follow_are_left_alone(influx, serving, changes):
    sink, _, _ = serving()
    sink.put(summary(4, **changes))
    assert sink.status.n_waiting == 0


def test_times_of_the_archive_are_utc_or_tai():
    assert stored_ns(BEGIN, TimeScale.TAI) - stored_ns(BEGIN, TimeScale.UTC) == 37_000_000_000
    assert stored_ns(BEGIN, TimeScale.UTC) == round(Time(BEGIN, scale="tai").unix * 1e3) * 1_000_000


def test_a_source_that_is_not_described_well_is_named():
    from rapid.wiring.settings import make_settings

    settings = make_settings(telemetry={"url": "efd:8086"})
    assert publishes(settings)
    with pytest.raises(ConfigurationError, match=r"telemetry\.url"):
        make_mount_motion(settings, None, None)
    assert make_mount_motion(make_settings(), None, None) == ()
