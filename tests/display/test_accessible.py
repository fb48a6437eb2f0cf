"""Every page for everybody: axe-core finds nothing, and all of it can be reached and worked by keyboard.

axe-core comes in the test extra's wheel `axe-playwright-python` (Mozilla Public License 2.0); it is no part of what is
installed for users.
"""

import importlib.util
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from pydantic import SecretStr

from rapid.nightlog.models import Flag
from rapid.nightlog.store import NightLog
from tests.display.stage import DAY_OBS, Stage
from tests.display.story import tell_night

pytestmark = pytest.mark.browser

EXPOSURE = DAY_OBS * 100_000

PAGES = {
    "now": "/",
    "night": f"/night/{DAY_OBS}",
    "exposure": f"/exposure/{EXPOSURE + 2}?detector=3",
    "focus": f"/focus/{DAY_OBS}",
    "calibrations": "/calibrations?detector=3",
    "cluster": "/cluster",
    "log": f"/log/{DAY_OBS}",
    "requests": "/requests",
    "campaigns": "/campaigns",
    "control": "/control",
    "report": f"/night/{DAY_OBS}/report",
    "error": "/exposure/2026112000099",
}


def axe_source() -> str:
    spec = importlib.util.find_spec("axe_playwright_python")
    assert spec is not None, "the test extra is not installed"
    return (Path(str(spec.origin)).parent / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Page) -> list[str]:
    page.evaluate(axe_source())
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {node['html'][:200]} {node.get('failureSummary', '')[-200:]}"
        for one in found["violations"]
        for node in one["nodes"][:3]
    ]


@pytest.fixture
def url(stage: Stage, serve):
    tell_night(stage)
    NightLog(stage.results.engine).write(
        stage.camera.name, DAY_OBS, author="ann", now=stage.now, text="clouds", exposure_id=EXPOSURE + 2, flag=Flag.JUNK
    )
    return serve(stage.settings.model_copy(update={"token": SecretStr("a-long-enough-token")}))


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing_on_any_page(open_page, url, theme):
    page = open_page(url, may_complain=True)
    page.evaluate("theme => localStorage.setItem('rapid.theme', theme)", theme)
    page.emulate_media(color_scheme=theme)
    found = {}
    for name, path in PAGES.items():
        page.goto(url + path, wait_until="networkidle" if name == "report" else "domcontentloaded")
        if name not in {"report", "error"}:
            expect(page.locator("#live")).to_have_text("live")
            page.wait_for_function("() => !document.querySelector('main')?.textContent.includes('loading…')")
        if ours := violations(page):
            found[name] = ours
    assert found == {}, "\n".join(f"{name}: {line}" for name, lines in found.items() for line in lines)
