"""A real browser, in which the tests open the kit's pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def started() -> Iterator[Browser]:
    """Start this machine's browser. The test is skipped if the machine has none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"needs a browser ({', '.join(NAMES)}) to open the page; install one, for example with apt")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, path: Path, width: int = 1280, scheme: str = "light", requests: list[str] | None = None
) -> Iterator[Page]:
    """Open a page from disk. After the block, check that it reported no error.

    Args:
        browser: The browser.
        path: The page.
        width: Width of the window in pixels.
        scheme: `light` or `dark`.
        requests: A list that gets the address of each request (default: check that only the page itself is requested).
    """
    addresses: list[str] = [] if requests is None else requests
    errors: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("request", lambda request: addresses.append(request.url))
    page.on("console", lambda message: errors.append(message.text))
    page.on("dialog", lambda dialog: errors.append(f"a dialog: {dialog.message}"))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.absolute().as_uri())
    yield page
    page.close()
    if requests is None:
        assert addresses == [path.absolute().as_uri()]
    assert errors == []
