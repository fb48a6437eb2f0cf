"""A real Valkey and results store, the display served on a free port, and a browser that looks at it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from rapid.camera.store import load_camera
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.display.settings import DisplaySettings
from tests.display.stage import Stage, serve_display
from tests.support.browser import Ear, open_browser
from tests.support.valkey import flush, serve_valkey


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with serve_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A browser for this folder's tests alone: while its driver lives, no asyncio test can run in this thread."""
    # Beside another worker's processes a page may take its time; what it shows then has to be right all the same.
    expect.set_options(timeout=15_000)
    with open_browser() as browser:
        yield browser


@pytest.fixture
def make_stage(valkey: EmbeddedValkey, tmp_path: Path) -> Iterator[Callable[[str], Stage]]:
    """Make the stage of a camera, on an empty board and an empty store."""
    flush(valkey)
    stages: list[Stage] = []

    def make(camera: str = "LSSTComCam") -> Stage:
        folder = tmp_path / f"stage{len(stages)}"
        folder.mkdir()
        stages.append(Stage(load_camera(camera), valkey.url, folder))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


@pytest.fixture
def stage(make_stage: Callable[[str], Stage]) -> Stage:
    return make_stage("LSSTComCam")


@pytest.fixture
def serve(make_stage: Callable[[str], Stage]) -> Iterator[Callable[[DisplaySettings], str]]:
    """Start displays, once their stores have been filled; they stop after the pages have closed."""
    with ExitStack() as running:
        yield lambda settings: running.enter_context(serve_display(settings))


@pytest.fixture
def url(stage: Stage, serve: Callable[[DisplaySettings], str]) -> str:
    """The display of the stage, running."""
    return serve(stage.settings)


@pytest.fixture
def open_page(browser: Browser, serve: object) -> Iterator[Callable[..., Page]]:
    """Open pages; as they close, no page may have complained or talked to another host."""
    opened: list[tuple[Page, Ear, bool]] = []

    def make(address: str, *, may_complain: bool = False, width: int = 1600, height: int = 900, **options) -> Page:
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        page.set_default_timeout(15_000)
        opened.append((page, Ear(page), may_complain))
        page.goto(address, wait_until="domcontentloaded")
        return page

    yield make
    for page, ear, may_complain in opened:
        page.close()
        assert ear.hosts <= {"127.0.0.1"}, f"the page talked to {ear.hosts}"
        assert may_complain or not ear.errors, ear.errors
