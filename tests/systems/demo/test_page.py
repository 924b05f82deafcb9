"""The page of the demo in a real browser. Nothing that the page or the server does reaches another machine."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.data.dataset import read_dataset
from evaluation.findings import BadRequest
from tests.browser import started
from tests.systems.made import NAME, make_data, make_module, make_run, tone

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="the extra `demo` is not installed")
LOCAL = ("127.0.0.1", "::1", "localhost")

_contacted: list[set[str]] = []  # the sets that collect the names of machines at the moment


def _note_machine(event, arguments):
    """Note the machines that this process looks up or connects to."""
    if _contacted and event == "socket.getaddrinfo":
        _contacted[-1].add(str(arguments[0]))
    if _contacted and event == "socket.connect" and isinstance(arguments[1], tuple):
        _contacted[-1].add(str(arguments[1][0]))


sys.addaudithook(_note_machine)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a retriever, a captioner and data. The module of the runs can be imported."""
    folder = tmp_path_factory.mktemp("demo")
    make_module(folder)
    make_run(folder / "retriever", "Retriever")
    make_run(folder / "captioner", "Captioner")
    make_data(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("GRADIO_TEMP_DIR", str(folder))  # the demo sets another folder
        patch.setenv("DCASE_KIT_CACHE", str(folder / "cache"))
        yield folder
    sys.modules.pop(NAME, None)


@pytest.fixture(scope="module")
def url(folder):
    """The address of the page."""
    from systems.demo.page import serving

    split = read_dataset(folder / "data")["evaluation"]
    contacted = set()
    _contacted.append(contacted)
    with serving([folder / "retriever", folder / "captioner"], split, [NAME]) as url:
        yield url
    _contacted.remove(contacted)
    assert contacted <= set(LOCAL)


@pytest.fixture(scope="module")
def page(url):
    """The page, which all tests share. At the end, it is checked that it requested nothing from another machine."""
    outside = []

    def refuse(route):
        outside.append(route.request.url)
        route.abort()

    with started() as browser:
        page = browser.new_page()
        page.route(re.compile(r"^(?!http://127\.0\.0\.1:|blob:|data:)"), refuse)
        page.goto(url)
        page.get_by_label("Text").wait_for()
        yield page
    assert outside == []


def visible(page, label):
    """The visible buttons with a label."""
    return page.locator(f"button[aria-label={label}]").locator("visible=true")


def press(page, role, name):
    """Press a button or a tab, even if a message covers it."""
    page.get_by_role(role, name=name, exact=True).locator("visible=true").first.dispatch_event("click")


def upload(page, path):
    """Choose a file in the captioner's tab, and ask for its captions."""
    press(page, "tab", "captioner")
    if visible(page, "Clear").count():
        press(page, "button", "Clear")
    page.locator("input[type=file]").first.set_input_files(str(path))
    visible(page, "Clear").first.wait_for()
    press(page, "button", "Caption")


def test_a_text_finds_clips_to_hear(page):
    page.get_by_label("Text").fill("a high tone")
    with page.expect_response(re.compile(r"clip(,|%2C)(%20| )2\.wav")) as sound:
        press(page, "button", "Search")
    assert sound.value.status in (200, 206)
    page.get_by_text("A <b>high</b> tone. · clip, 5.wav").wait_for()
    names = page.get_by_text(re.compile(r"0\.\d{3} · ")).all_inner_texts()
    assert len(names) == 5
    assert {name.rpartition(" · ")[2].strip() for name in names[:2]} == {"clip, 2.wav", "clip, 5.wav"}
    assert visible(page, "Play").count() == 5
    assert visible(page, "Share").count() == 0  # this button would upload the sound


def test_an_uploaded_sound_gets_captions(page, tmp_path):
    upload(page, tone(tmp_path / "up.wav", 2000))
    page.locator("table").wait_for()
    rows = [row.split("\t") for row in page.locator("table").inner_text().splitlines()]
    assert [row[0] for row in rows] == ["caption", "a high tone", "a low tone"]
    assert 0 > float(rows[1][1]) > float(rows[2][1])


def test_wrong_input_gets_a_clear_message(page, tmp_path):
    press(page, "tab", "retriever")
    page.get_by_label("Text").fill(" ")
    press(page, "button", "Search")
    page.get_by_text("Write a text to search for.").wait_for()
    (tmp_path / "text.wav").write_text("not audio")
    upload(page, tmp_path / "text.wav")
    page.get_by_text("text.wav: does not decode (Format not recognised); replace the file").wait_for()
    soundfile.write(tmp_path / "long.wav", np.zeros(600_000), 1000)
    upload(page, tmp_path / "long.wav")
    page.get_by_text("long.wav: must last at most 300 s; found 600 s: cut it").wait_for()
    press(page, "button", "Clear")
    press(page, "button", "Caption")
    page.get_by_text("Upload or record a sound first.").wait_for()


def test_the_browser_may_not_contact_other_machines(page):
    """The page's own policy forbids it, before the test would refuse the request."""
    failure = page.evaluate("fetch('https://example.org/').then(() => 'loaded', error => String(error))")
    assert "TypeError" in failure


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    press(page, "tab", "retriever")
    page.get_by_label("Text").fill("low")
    press(page, "button", "Search")
    page.get_by_text("clip, 0.wav").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_retriever_needs_clips(folder):
    from systems.demo.page import serving

    with (
        pytest.raises(BadRequest, match=f"{NAME} is a retriever, which needs clips to search; give --data DIR"),
        serving([folder / "retriever"], None, [NAME]),
    ):
        pass
    assert not list(Path(folder).glob("demo-*"))
