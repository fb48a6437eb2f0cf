"""Walk through RubinTV's pages in a browser, and check what each shows against our stores."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import boto3
from playwright.sync_api import Page, expect

from rapid.publish.keys import date_of
from tests.publish.real_rubintv import BUCKET, LOCATION, RealRubinTV, today
from tests.support.browser import open_browser
from tests.support.s3 import CREDENTIALS

SHOWN_MS = 60_000
"""RubinTV looks at the bucket every second or so; a busy machine takes its time."""

LOADED = "image => image.complete && image.naturalWidth > 0"


class Walk:
    """A browser's tab that goes from page to page and remembers what went wrong."""

    def __init__(self, page: Page, rubintv: RealRubinTV, pictures: Path | None) -> None:
        self.page = page
        self.rubintv = rubintv
        self.pictures = pictures
        self.complaints: list[str] = []
        page.set_default_timeout(SHOWN_MS)
        page.on("pageerror", lambda error: self.complaints.append(f"error on {page.url}: {error}"))
        page.on(
            "response",
            lambda got: self.complaints.append(f"{got.status} for {got.url}") if got.status >= 500 else None,
        )

    def go(self, path: str) -> None:
        self.page.goto(self.rubintv.page(path))

    def picture(self, name: str) -> None:
        if self.pictures is not None:
            self.pictures.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(self.pictures / f"rubintv_{name}.png"), full_page=True)

    def wait_for_image(self, selector: str) -> None:
        self.page.wait_for_function(
            f"selector => [...document.querySelectorAll(selector)].some({LOADED})", arg=selector
        )


def metadata_of(rubintv: RealRubinTV, camera: str = "lsstcam") -> dict:
    """Return a camera's metadata as it is in the bucket."""
    client = boto3.client(
        "s3",
        endpoint_url=rubintv.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    body = client.get_object(Bucket=BUCKET, Key=f"{camera}/{date_of(today())}/metadata.json")["Body"]
    return json.loads(body.read())


def walk_through(rubintv: RealRubinTV, *, pictures: Path | None = None) -> Iterator[str]:
    """Go through the pages; yield a line for each that shows what it should."""
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        walk = Walk(page, rubintv, pictures)
        for step in (_table, _columns, _picture, _movie, _report, _aos, _cluster, _admin):
            yield step(walk)
        assert walk.complaints == []


def _table(walk: Walk) -> str:
    walk.go(f"{LOCATION}/lsstcam")
    rows = walk.page.locator("table.camera-table tbody tr")
    expect(rows).to_have_count(len(walk.rubintv.exposures), timeout=SHOWN_MS)
    numbers = [int(text) for text in walk.page.locator("td.grid-cell.seq").all_inner_texts()]
    assert numbers == sorted((exposure % 100_000 for exposure in walk.rubintv.exposures), reverse=True)
    mosaics = walk.page.locator("a.button-table.focal_plane_mosaic")
    expect(mosaics).to_have_count(len(numbers), timeout=SHOWN_MS)
    n_sky = sum(row["Image type"] not in {"bias", "flat"} for row in metadata_of(walk.rubintv).values())
    for channel in ("psf_shape_azel", "fwhm_focal_plane", "calexp_mosaic"):
        expect(walk.page.locator(f"a.button-table.{channel}")).to_have_count(n_sky, timeout=SHOWN_MS)
    for channel in ("witness_detector", "event_timeline"):
        expect(walk.page.locator(f"a.button-table.{channel}")).to_have_count(len(numbers), timeout=SHOWN_MS)
    # What its clock since the last image needs; the clock itself misses its first message now and then.
    assert all({"Date begin", "Exposure time"} <= row.keys() for row in metadata_of(walk.rubintv).values())
    walk.picture("table")
    return f"table: {len(numbers)} exposures, newest first, with their channels"


def _columns(walk: Walk) -> str:
    """Have every column shown, and compare with the bucket."""
    table = metadata_of(walk.rubintv)
    names = sorted({name for row in table.values() for name in row if name[0] not in "_@"})
    # As its panel "Add/Remove Columns" stores a choice (``columnStorage.ts``).
    walk.page.evaluate(
        "([key, columns]) => localStorage.setItem(key, JSON.stringify({version: '1', columns}))",
        [f"{LOCATION}/lsstcam", names],
    )
    walk.page.reload()
    header = walk.page.locator(".grid-title.meta")
    expect(header).to_have_count(len(names), timeout=SHOWN_MS)
    newest = str(max(map(int, table)))
    cells = walk.page.locator("table.camera-table tbody tr").first.locator("td.meta")
    titles = [text.strip() for text in header.all_inner_texts()]
    shown = dict(zip(titles, cells.all_inner_texts(), strict=True))
    row = metadata_of(walk.rubintv)[newest]
    assert shown["Image type"] == row["Image type"]
    assert shown["Detectors"] == row["Detectors"]
    assert shown["PSF FWHM"] == f"{row['PSF FWHM']:.2f}"
    assert walk.page.locator("td.meta.r_color").count() >= 4
    walk.picture("columns")
    walk.page.locator("td.meta button", has_text=re.compile(r"^\d+$")).first.click()
    expect(walk.page.locator("table.cell-dict tr").first).to_be_visible()
    n_rows = walk.page.locator("table.cell-dict tr").count()
    assert n_rows > 20
    walk.picture("fold_out")
    return f"columns: {len(names)}, as in the bucket; a fold-out of {n_rows} numbers opens"


def _picture(walk: Walk) -> str:
    newest = max(walk.rubintv.exposures) % 100_000
    for channel in ("focal_plane_mosaic", "calexp_mosaic", "psf_shape_azel", "witness_detector", "event_timeline"):
        walk.go(f"{LOCATION}/lsstcam/current/{channel}")
        walk.wait_for_image(f'img[src*="event_image"][src*="_{newest:06d}"]')
        walk.picture(f"current_{channel}")
    return f"current images of exposure {newest}"


def _movie(walk: Walk) -> str:
    walk.go(f"{LOCATION}/lsstcam/mosaic")
    walk.page.wait_for_function(
        "() => { const video = document.querySelector('video'); return video && video.readyState >= 2 && video.duration > 0 }"
    )
    seconds = walk.page.evaluate("document.querySelector('video').duration")
    walk.picture("movie")
    return f"movie of the night: {seconds:.1f} s, plays"


def _report(walk: Walk) -> str:
    walk.go(f"{LOCATION}/lsstcam/night_report")
    expect(walk.page.locator("#tabtitle-efficiency")).to_be_visible(timeout=SHOWN_MS)
    walk.page.locator("#tabtitle-efficiency").click()
    expect(walk.page.locator("#tabgroup-efficiency")).to_contain_text(
        f"{len(walk.rubintv.exposures)} exposures", timeout=SHOWN_MS
    )
    walk.picture("night_report")
    walk.page.locator("#tabtitle-image_quality").click()
    walk.wait_for_image("figure.plot img")
    n_plots = walk.page.locator("figure.plot").count()
    walk.picture("night_report_plots")
    return f"night report: texts and {n_plots} plots of image quality"


def _aos(walk: Walk) -> str:
    walk.go(f"{LOCATION}/lsstcam_aos")
    sweeps = walk.page.locator("a.button-table.focus_sweep")
    expect(sweeps.first).to_be_visible(timeout=SHOWN_MS)
    walk.picture("aos")
    return f"active optics: {sweeps.count()} plots of the focus sweep"


def _cluster(walk: Walk) -> str:
    walk.go(f"{LOCATION}/cluster-status")
    expect(walk.page.get_by_role("cell", name="science: backlog", exact=True)).to_be_visible(timeout=SHOWN_MS)
    cells = walk.page.locator(".spareworkers-cells .detector-cell.status-free")
    expect(cells.first).to_be_visible(timeout=SHOWN_MS)
    walk.picture("cluster")
    return f"cluster status: {cells.count()} free workers, queues"


def _admin(walk: Walk) -> str:
    walk.go("admin")
    menus = walk.page.locator(".dropdown-menu")
    expect(menus.first).to_be_visible(timeout=SHOWN_MS)
    chips = menus.nth(1)
    chips.locator("button").first.click()
    chips.locator("li", has_text=re.compile("^RAFT_CHECKERBOARD$")).click()
    expect(walk.page.locator("body")).to_contain_text("RAFT_CHECKERBOARD", timeout=SHOWN_MS)
    walk.page.wait_for_function(
        """async url => { const got = await (await fetch(url)).json();
             return got.some(entry => entry.value === "RAFT_CHECKERBOARD") }""",
        arg=walk.rubintv.page("api/redis/controlvalues"),
    )
    walk.picture("admin")
    return "admin page: a chip selection, confirmed by its readback"
