"""Debian's Chromium for tests of the pages, and an ear on what a page complains about."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Containers have a /dev/shm of 64 MB, which a page with large canvases fills.
    "--disable-dev-shm-usage",
)


class NoBrowserError(AssertionError):
    """This machine has no Chromium: the pages would go untested."""


def find_chromium() -> str:
    """Return the path of the browser.

    Raises
    ------
    NoBrowserError
        Raised if there is none: tests of the pages fail then, they do not skip.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise NoBrowserError("no Chromium found; on Debian: apt-get install -y chromium fonts-dejavu-core")
    return found


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Run a headless browser until the block ends."""
    path = find_chromium()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Ear:
    """Hears what a page complains about and whom it talks to."""

    def __init__(self, page: Page) -> None:
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("request", self._request)

    def _console(self, message) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    def _request(self, request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"}:
            self.hosts.add(parts.hostname or "")
