"""The page of the leaderboard: no text of a submission becomes markup, and the plots show the tables' values."""

import base64
import hashlib
import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.findings import ERROR, Finding
from evaluation.metrics import retrieval
from evaluation.report import number
from submission import leaderboard_page as pages
from submission.ranking import rank
from submission.scoring import ScoredPackage
from tests.submission.made_boards import EVIL, SPLIT, TASK, entry, hostile_board, knowing, ranked

VOID = {"meta", "wbr"}
TAGS = {"html", "head", "title", "style", "body", "main", "h1", "h2", "p", "b", "small", "strong", "ul", "li", "div"}
TAGS |= {"table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "desc", "line", "text", "circle", "g", *VOID}
TAGS |= {"a", "details", "summary", "path", "use", "defs", "clippath", "rect"}
ATTRIBUTES = {
    "href",
    "lang",
    "charset",
    "http-equiv",
    "content",
    "name",
    "class",
    "role",
    "tabindex",
    "aria-label",
    "scope",
}
ATTRIBUTES |= {
    "dir",
    "href",
    "id",
    "width",
    "height",
    "aria-labelledby",
    "x",
    "y",
    "x1",
    "x2",
    "y1",
    "y2",
    "cx",
    "cy",
    "r",
}
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


@pytest.mark.parametrize("make", [pages.html, pages.findings_html])
def test_nothing_of_a_submission_is_html(make):
    page = Page(make(hostile_board()))
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
    links = page.attributes.get("xlink:href", set()) | {link[4:-1] for link in page.attributes.get("clip-path", ())}
    assert all(link.startswith("#") for link in links)
    assert all(link.startswith("reports/") for link in page.attributes.get("href", ()))
    assert make != pages.html or page.attributes["href"]


def test_the_style_is_the_one_that_the_policy_lets_through():
    page = pages.html(ranked(entry("A_x_task6b_1")))
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    [digest] = re.findall(r"sha256-([^']+)'", page)
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() == digest


def test_the_page_can_be_read_aloud():
    board = ranked(*(entry(f"A{n}_x_task6b_1", knowing(n)) for n in range(3)))
    page = pages.html(board)
    assert page.count("<table") == page.count("<caption")
    assert page.count("<th ") == page.count('<th scope="')
    for name in ("plot-teams-960", "plot-teams-360", "plot-systems-960", "plot-systems-360"):
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
    names = [text.get_text() for text in axes.get_yticklabels()]
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


def test_findings_are_only_on_the_private_page():
    board = ranked(entry("A_x_task6b_1"))
    fault = Finding("Bad.zip", 7, "caption", "must be a secret; found none", ERROR)
    board = replace(board, packages=(*board.packages, ScoredPackage("Bad.zip", (), (fault,))))
    public, private = pages.html(board), pages.findings_html(board)
    assert "1 package of 2 refused because of errors" in public
    assert "Bad.zip" not in public
    for text in (str(board), board.json(), board.csv(), board.analysis_csv()):
        assert "Bad.zip" not in text
    assert "Bad.zip:7: caption: error: must be a secret" in private
    assert private.index("Bad.zip: 0 systems") < private.index("A_x.zip: 1 system")


def test_what_people_look_for_is_on_the_page():
    metadata = {
        "submission.name": "The best one",
        "submission.authors.1.firstname": "Ada",
        "submission.authors.1.lastname": "Wu",
        "submission.authors.1.email": "ada@example.org",
        "submission.authors.1.affiliation.institute": "Mila",
        "submission.authors.2.lastname": "Xu",
        "submission.authors.2.affiliation.institute": "SJTU",
        "system.description.ensemble": "yes",
        "system.external_datasets.1.name": "AudioCaps",
        "system.external_datasets.2.name": "WavCaps",
        "system.complexity.total_parameters": "732354",
    }
    system = replace(entry("A_x_task6b_1"), metadata=metadata)
    scored = ScoredPackage(system.package, (system,), (), Path("report"))
    board = rank(TASK, [scored], SPLIT, "retrieval", date="2026-11-28")
    page = pages.html(board)
    for text in ("The best one", "Ada Wu, Xu", "Mila; SJTU", "AudioCaps, WavCaps", "732,354", ">yes<", "2026-11-28"):
        assert text in page
    assert '<a href="reports/A_x.pdf">PDF</a>' in page
    assert "example.org" not in page
    chance = number(system.score.metrics["mAP@10"].chance)
    assert re.search(rf"chance level.*<td>{chance}</td>", page, re.DOTALL)


def test_intervals_on_the_page_are_by_clip():
    """Two captions of a clip are not independent, so the shown interval leaves them out together."""
    clips = tuple(replace(clip, captions=(f"One {n}.", f"Two {n}.")) for n, clip in enumerate(SPLIT.clips))
    split = replace(SPLIT, clips=clips)
    score = retrieval.evaluate(split, knowing(2, split=split), metrics=TASK.metrics.value)
    system = replace(entry("A_x_task6b_1"), score=score)
    board = rank(TASK, [ScoredPackage("A_x.zip", (system,), ())], split, "retrieval")
    measured = score.metrics["mAP@10"]
    assert measured.by_clip.low != measured.estimate.low
    shown = f"[{measured.by_clip.low:.3f}, {measured.by_clip.high:.3f}]"
    assert shown in pages.html(board)
    assert shown in str(board)
    assert "They leave out queries that share a clip together" in pages.html(board)
    row = json.loads(board.json())["systems"][0]["metrics"]["mAP@10"]
    assert (row["low"], row["by_clip"]["low"]) == (measured.estimate.low, measured.by_clip.low)


def test_metrics_have_the_names_that_people_write():
    score = replace(entry("A_x_task6b_1").score, metrics={})
    measured = entry("A_x_task6b_1").score.metrics["mAP@10"]
    score = replace(score, metrics={"cider_d": measured, "spider_fl": measured})
    facts = TASK.metrics.model_copy(update={"value": ("cider_d", "spider_fl")})
    task = TASK.model_copy(update={"metrics": facts})
    page = pages.html(ranked(replace(entry("A_x_task6b_1"), score=score), task=task))
    assert '<th scope="col">CIDEr-D</th><th scope="col">SPIDEr-FL</th>' in page
    assert "cider_d" not in page
