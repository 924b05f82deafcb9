"""The leaderboard's pages in a real browser: layout at two widths, both colour schemes, and hostile texts."""

import pytest

from submission import leaderboard_page as pages
from tests.browser import opened, started
from tests.submission.made_boards import EVIL, entry, hostile_board, knowing, ranked

# The centres of the labels and of the marks of the plot that is shown, from top to bottom, and the label's right end.
PLOT = """() => {
  const plot = [...document.querySelectorAll('svg')].find(each => each.getBoundingClientRect().width > 0);
  const middle = box => box.top + box.height / 2;
  const texts = [...plot.querySelectorAll('text')].filter(each => /^[1-6] .*(_x|task6b_1)$/.test(each.textContent));
  const labels = texts.map(each => each.getBoundingClientRect());
  const marks = [...plot.querySelectorAll('g > title')].map(each => each.parentNode.querySelector('use'));
  const grid = [...plot.querySelectorAll('[stroke="#d1d9e0"]')].map(each => each.getBoundingClientRect().left);
  return {
    labels: labels.map(middle),
    marks: marks.map(each => middle(each.getBoundingClientRect())),
    right: Math.max(...labels.map(box => box.right)),
    grid: Math.min(...grid),
    width: plot.getBoundingClientRect().width,
  };
}"""


@pytest.fixture(scope="module")
def browser():
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    entries = [entry(f"Longlastname{n}_x_task6b_1", knowing(n / 2, n)) for n in range(6)]
    (folder / "board.html").write_text(pages.html(ranked(*entries)), encoding="utf-8")
    return folder / "board.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_window(browser, page_file, width, scheme):
    """The page is not wider than the window, the ranking metric is visible, and labels are beside their marks."""
    with opened(browser, page_file, width, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        metric = page.locator("td b").first.bounding_box()
        assert metric["x"] + metric["width"] <= width
        plot = page.evaluate(PLOT)
        assert len(plot["labels"]) == len(plot["marks"]) == 6
        for label, mark in zip(plot["labels"], plot["marks"], strict=True):
            assert abs(label - mark) < 4
        assert plot["right"] <= plot["grid"]
        assert plot["width"] > 0.85 * width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
        assert page.locator("svg:visible").count() == 2  # of four: one width of each ranking
        page.locator("summary").first.click()
        assert page.get_by_text("Next system").first.is_visible()


@pytest.mark.parametrize("make", [pages.html, pages.findings_html])
def test_hostile_texts_show_as_text(browser, make, tmp_path):
    """`opened` checks that no dialog opens and that no request leaves the page."""
    path = tmp_path / "page.html"
    path.write_text(make(hostile_board()), encoding="utf-8", errors="backslashreplace")
    with opened(browser, path) as page:
        text = page.evaluate("document.body.textContent")
        for hostile in EVIL[:6]:
            assert hostile in text
        assert page.locator("script, img, iframe, object, [onmouseover], [onerror]").count() == 0
