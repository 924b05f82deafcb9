"""The page of the leaderboard: no text of a submission becomes markup, and the plots show the tables' values."""

import base64
import hashlib
import html.parser
import re
from dataclasses import replace

from submission import leaderboard_page as pages
from tests.submission.made_boards import EVIL, entry, hostile_board, knowing, ranked

VOID = {"meta"}
TAGS = {"html", "head", "title", "style", "body", "main", "h1", "h2", "p", "b", "small", "strong", "ul", "li", "div"}
TAGS |= {"table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "desc", "line", "text", "circle", "g", *VOID}
TAGS |= {"details", "summary", "path", "use", "defs", "clippath", "rect"}
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "role", "tabindex", "aria-label", "scope"}
ATTRIBUTES |= {"dir", "id", "width", "height", "aria-labelledby", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r"}
ATTRIBUTES |= {"viewbox", "xmlns", "xmlns:xlink", "xlink:href", "d", "transform", "clip-path", "text-anchor"}
ATTRIBUTES |= {"fill", "stroke", "stroke-width", "stroke-linecap", "stroke-linejoin"}
ATTRIBUTES |= {"font-size", "font-family", "font-style", "font-weight"}


class Page(html.parser.HTMLParser):
    """A page as a browser reads it: its tags, attributes and texts. The elements must be nested correctly."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], set(), {}, []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def handle_comment(self, data):
        raise AssertionError(data)

    unknown_decl = handle_pi = handle_comment


def test_nothing_of_a_submission_is_html():
    page = Page(pages.html(hostile_board()))
    assert page.tags <= TAGS
    assert page.attributes.keys() <= ATTRIBUTES
    texts = "".join(page.texts)
    for text in EVIL[:6]:
        assert texts.count(text) > 3
    assert not any(c in texts for c in "\u202e\0\x1b\udc80\r")
    [policy] = [text for text in page.attributes["content"] if "default-src" in text]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    style = (pages.TEMPLATES / "leaderboard.css").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|//evil", style)
    links = page.attributes["xlink:href"] | {link[4:-1] for link in page.attributes["clip-path"]}
    assert all(link.startswith("#") for link in links)


def test_the_style_is_the_one_that_the_policy_lets_through():
    page = pages.html(ranked(entry("A_x_task6b_1")))
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    [digest] = re.findall(r"sha256-([^']+)'", page)
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() == digest


def test_the_page_can_be_read_aloud():
    board = ranked(*(entry(f"A{n}_x_task6b_1", knowing(n)) for n in range(3)))
    page = pages.html(board)
    assert page.count("<table") == page.count("<caption") == 5
    assert page.count("<th ") == page.count('<th scope="')
    for name in ("plot-teams", "plot-systems"):
        assert f'aria-labelledby="{name} {name}-about"' in page
        assert page.count(f'id="{name}"') == page.count(f'id="{name}-about"') == 1
    assert '<html lang="en">' in page


def test_a_plot_shows_the_interval_of_each_system():
    """The lines end where the intervals end, in the units of the plot."""
    board = ranked(*(entry(f"A{n}_x_task6b_1", knowing(n / 2, n)) for n in range(9)))
    [axes] = pages.figure(board, board.systems).axes
    low, high = axes.get_xlim()
    drawn = [tuple(line.get_xdata()) for line in axes.lines]
    for _, system in board.systems.rows:
        estimate = system.score.metrics["mAP@10"].estimate
        assert (estimate.low, estimate.high) in drawn
        assert (estimate.value,) in drawn
        assert low <= estimate.low <= estimate.high <= high
    names = [text.get_text() for text in axes.texts]
    assert names == [f"{rank}  {system.label}" for rank, system in board.systems.rows]


def test_the_same_board_gives_the_same_page():
    board = ranked(*(entry(f"A{n}_x_task6b_1", knowing(n)) for n in range(3)))
    page = pages.html(board)
    assert pages.html(board) == page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert not re.search("[0-9]{4}-[0-9]{2}-[0-9]{2}", page)  # no date


def test_no_style_that_the_policy_blocks():
    """The policy allows a single style sheet, so no plot has its own styles."""
    page = pages.html(ranked(entry("A_x_task6b_1")))
    assert page.count("<style") == 1
    assert " style=" not in page


def test_a_name_is_never_taken_for_mathematics():
    board = ranked(replace(entry("A_x_task6b_1"), label="$x^2$ and $\\nothing$"))
    texts = "".join(Page(pages.html(board)).texts)
    assert texts.count("$x^2$ and $\\nothing$") >= 3
