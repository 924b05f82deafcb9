"""The pages of `inspect` in a real browser: sorting, filters, sounds, comparisons, hostile texts and narrow windows."""

from contextlib import contextmanager

import numpy as np
import pytest

from evaluation.data.dataset import read_dataset
from evaluation.inspection import captioning, choice, moments, retrieval, writing
from evaluation.inspection.content import Request
from evaluation.predictions import Similarity, write_captions
from tests.browser import opened as opened_page
from tests.browser import started
from tests.evaluation.inspection.small_pages import (
    CAPTIONS,
    split_of,
    write_data,
    write_predictions,
    write_questions,
    write_recordings,
    write_similarity,
)

EVIL = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</script><b>&amp; {{ 7*7 }}",
    "\u0643\u0644\u0628 \u064a\u0646\u0628\u062d \u05db\u05dc\u05d1",
    "long" * 2500,
)
EVIL_NAMES = ("<b>&amp;.wav", "q\"uo'te #1?.wav", "100%.wav", "\u0643\u0644\u0628.wav", "n" * 240 + ".wav")


@pytest.fixture(scope="module")
def browser():
    with started() as browser:
        yield browser


@contextmanager
def opened(browser, index, width=1280, scheme="light"):
    """Open a page. After the block, check that it fits the window and that every request was for a file."""
    addresses = []
    with opened_page(browser, index, width, scheme, addresses) as page:
        yield page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert all(address.startswith(("file:", "data:")) for address in addresses)


def heads(page):
    """Return the text of each head of the table, and the direction in which it sorts."""
    cells = page.locator("#table > thead th")
    return {cell.inner_text(): cell.get_attribute("aria-sort") for cell in cells.all()}


def column(page, number):
    """Return the texts in a column of the table."""
    return page.locator(f"#table > tbody > .row > :nth-child({number})").all_inner_texts()


def plays(page, audio):
    """Play a sound and return True once enough of it is loaded to play to its end."""
    audio.evaluate("each => { each.muted = true; return each.play(); }")
    page.wait_for_function("() => [...document.querySelectorAll('audio')].some(each => each.readyState === 4)")
    return audio.evaluate("each => each.readyState === 4 && each.duration > 0.5")


def queries_page(data, out, *paths, **settings):
    split = split_of(data)
    content, findings = retrieval.read_queries(paths, split, split.truth, ["mAP@10", "R@1"])
    return writing.write_page(content, paths, findings, out, **settings)[0].path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A page that compares two retrievers on synthesised sounds, some of them with several right clips."""
    folder = tmp_path_factory.mktemp("small")
    captions = (*CAPTIONS, *(("Rain falls on a roof.", f"Sound {number} is heard.") for number in range(20)))
    names = [f"clip {number}.wav" for number in range(len(captions))]
    data = write_data(folder / "data", names, captions)
    runs = [write_similarity(folder / f"{name}.npz", data, own, own) for name, own in (("old", 0), ("new", 1))]
    return queries_page(data, folder / "page", *runs)


def test_sorting_and_paging(browser, small):
    with opened(browser, small) as page:
        assert heads(page) == {
            "Query": "none",
            "old": "none",
            "new": "none",
            "Difference": "ascending",
            "Best rank": "none",
            "Right clips": "none",
            "Words": "none",
        }
        differences = [float(text.replace("−", "-")) for text in column(page, 4)]
        assert differences == sorted(differences)
        assert page.locator(".row").count() == len(differences) == 28
        page.get_by_role("button", name="new", exact=True).press("Enter")
        assert heads(page)["new"] == "ascending"
        page.keyboard.press("Enter")  # the button keeps the focus
        assert heads(page)["new"] == "descending"
        values = [float(text) for text in column(page, 3)]
        assert values == sorted(values, reverse=True)
        assert page.locator("#more").is_hidden()
        status = page.get_by_role("status").inner_text()
        assert status.startswith("28 of 28 queries; AP@10: new is better for ")


def test_filters(browser, small):
    with opened(browser, small) as page:
        page.get_by_label("Search in queries").fill("RAIN roof")
        assert column(page, 1) == ["Rain falls on a roof."]
        page.get_by_label("Search in queries").fill("")
        page.get_by_role("combobox", name="Right clips").select_option("five or more")
        assert column(page, 6) == ["21"]
        page.get_by_role("combobox", name="Right clips").select_option("all")
        page.get_by_role("combobox", name="Show").select_option("losses")
        assert all(text.startswith("−") for text in column(page, 4))
        page.get_by_role("combobox", name="Show").select_option("all")
        page.get_by_role("combobox", name="Worst").select_option("10")
        assert page.locator(".row").count() == 10
        page.get_by_role("combobox", name="Worst").select_option("all")
        page.get_by_text("Hardest and easiest").click()
        page.locator("button[data-clip]").first.click()
        assert 0 < page.locator(".row").count() < 28
        assert page.get_by_label("Clip that is").input_value().startswith("clip ")


def test_a_query_opens_with_the_keyboard(browser, small):
    with opened(browser, small) as page:
        button = page.locator(".open").first
        button.focus()
        page.keyboard.press("Enter")
        assert button.get_attribute("aria-expanded") == "true"
        lists = page.locator(".detail ol.hits")
        assert [lists.nth(number).locator("li").count() for number in range(2)] == [10, 10]
        marks = set(page.locator(".detail .badge").all_inner_texts())
        assert "✓ right" in marks
        audio = page.locator(".detail audio").first
        assert audio.get_attribute("preload") == "none"
        assert audio.get_attribute("aria-label").startswith("Sound of clip ")
        assert plays(page, audio)
        page.wait_for_function("() => document.querySelector('.detail img').naturalWidth === 320")
        page.keyboard.press("Enter")
        assert page.locator(".detail").count() == 0


def test_an_unannotated_clip_has_its_caption(browser, small):
    with opened(browser, small) as page:
        page.get_by_role("combobox", name="Show").select_option("maybe")
        page.locator(".open").first.click()
        card = page.locator(".card.maybe").first
        assert "? possibly unannotated" in card.inner_text()
        assert "(similarity 0." in card.inner_text() or "(similarity 1." in card.inner_text()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Pages of hostile texts for each kind: of retrieval with copied sounds, of captions and of answers in one file."""
    folder = tmp_path_factory.mktemp("hostile")
    captions = [(text, f"{text[:30]} again") for text in EVIL]
    data = write_data(folder / "data", EVIL_NAMES, captions)
    similarity = write_similarity(folder / "<i>.npz", data)
    index = queries_page(data, folder / "page", similarity, copy_audio=True)
    path = write_predictions(folder / "captions.csv", data, EVIL[0])
    content, findings = captioning.read_descriptions([path], split_of(data), ["rouge_l"], "")
    written, _ = writing.write_page(content, [path], findings, folder / "one.html", single_file=True)
    questions = [(text, [text, f"{text} again"], text[:40], text[:40]) for text in EVIL]
    data, paths = write_questions(folder / "choice", questions, [(place % 2,) for place in range(len(EVIL))])
    answers = written_page(choice, data, paths, folder / "choice.html", single_file=True)
    queries = [(text, name.removesuffix(".wav"), [[2, 6]]) for text, name in zip(EVIL, EVIL_NAMES, strict=True)]
    data, paths = write_recordings(folder / "moments", queries, [[[1, 6, 0.5], [30, 40, -0.25]]] * len(EVIL))
    return index, written.path, answers, written_page(moments, data, paths, folder / "moments page")


def written_page(kind, data, paths, out, **settings):
    """Write the page of a kind of answers, and return its path."""
    content, findings = kind.read_page(Request(paths, data))
    return writing.write_page(content, paths, findings, out, **settings)[0].path


@pytest.mark.parametrize("number", range(4))
def test_hostile_texts_show_as_text(browser, hostile, number):
    with opened(browser, hostile[number], 390, "dark") as page:
        for button in page.locator(".open").all():
            button.click()
        text = page.locator("#table").evaluate("each => each.textContent")
        names = [name for name in EVIL_NAMES if number != 2]  # the clips of questions have other names
        assert all(each.removesuffix(".wav") in text for each in (*EVIL, *names))
        assert page.locator("#table b, #table i, #table script, [onerror]").count() == 0
        assert plays(page, page.locator(".detail audio").first)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 24)"


def test_a_captioner_on_real_sounds(browser, shared, tmp_path):
    split = read_dataset(shared / "esc50", "evaluation", sound=False)["evaluation"]
    paths = []
    for name, wrong in (("first", 3), ("second", 4)):
        paths.append(tmp_path / f"{name}.csv")
        captions = [clip.captions[0] if place % wrong else "A dog barks." for place, clip in enumerate(split.clips)]
        write_captions(paths[-1], split.file_names, captions, np.linspace(-9, -1, len(captions)).tolist())
    content, findings = captioning.read_descriptions(paths, split, ["rouge_l"], "")
    index = writing.write_page(content, paths, findings, tmp_path / "page")[0].path
    with opened(browser, index) as page:
        assert list(heads(page)) == [
            *("Clip", "first", "second", "Difference", "Prediction", "Words", "Seconds", "Log-probability")
        ]
        page.locator("#more").click()
        assert page.locator(".row").count() == len(split.clips)
        page.get_by_role("combobox", name="Show").select_option("wins")
        page.locator(".open").first.click()
        detail = page.locator(".detail")
        assert "words are in the references; log-probability −" in detail.inner_text()
        assert detail.locator("mark").count() > 0
        assert detail.locator(".references li").count() == 5
        assert plays(page, detail.locator("audio"))
        page.get_by_role("button", name="Log-probability").click()
        numbers = [float(text.replace("−", "-")) for text in column(page, 8)]
        assert numbers == sorted(numbers)


def test_a_retriever_on_real_sounds(browser, shared, tmp_path):
    """The similarity knows the class of a clip, which its file name has, and nothing else."""
    split = read_dataset(shared / "esc50", "evaluation", sound=False)["evaluation"]
    kinds = [name.rpartition("-")[2] for name in split.file_names]
    rows = []
    for relevant in split.truth.values():
        of_query = {name.rpartition("-")[2] for name in relevant}
        rows.append([float(kind in of_query) - place / 1000 for place, kind in enumerate(kinds)])
    Similarity(tuple(split.truth), split.file_names, rows).save(tmp_path / "oracle.npz")
    paths = [tmp_path / "oracle.npz"]
    content, findings = retrieval.read_queries(paths, split, split.truth, None)
    index = writing.write_page(content, paths, findings, tmp_path / "page")[0].path
    with opened(browser, index, 390) as page:
        page.locator(".open").first.click()
        assert page.locator(".detail .card.right").count() >= 2
        assert plays(page, page.locator(".detail audio").first)
        assert set(column(page, 2)) == {"1.000"}
        assert page.locator(".row").count() == 100


def test_answers_to_questions(browser, tmp_path):
    questions = [(f"What is {place}?", ["rain", f"wind {place}"], f"type {place % 2}", "A") for place in range(6)]
    chosen = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1)]
    data, paths = write_questions(tmp_path, questions, chosen)
    with opened(browser, written_page(choice, data, paths, tmp_path / "page")) as page:
        assert list(heads(page)) == ["Question", "0", "1", "Difference", "Answer", "Right answer", "Type"]
        assert column(page, 1) == ["What is 1?", "What is 5?", "What is 0?", "What is 3?", "What is 4?", "What is 2?"]
        assert (column(page, 2)[0], column(page, 3)[0], column(page, 5)[0]) == ("✓ right", "✗ wrong", "wind 1")
        page.get_by_role("combobox", name="Show").select_option("wrong")
        assert column(page, 1) == ["What is 1?", "What is 5?", "What is 3?"]
        page.get_by_role("combobox", name="Show").select_option("never")
        assert column(page, 1) == ["What is 3?"]
        page.get_by_role("combobox", name="Show").select_option("all")
        page.get_by_role("combobox", name="Type").select_option("type 0")
        assert column(page, 1) == ["What is 0?", "What is 4?", "What is 2?"]
        page.get_by_label("Search in questions").fill("wind 2")
        page.locator(".open").press("Enter")
        options = page.locator(".detail .options tbody tr").all_inner_texts()
        assert [text.split() for text in options] == [
            ["rain", "✓", "right", "answer", "not", "chosen", "✓", "right"],
            ["wind", "2", "✗", "wrong", "not", "chosen"],
        ]
        assert plays(page, page.locator(".detail audio"))


def test_windows_of_recordings(browser, tmp_path):
    queries = [("a dog", "one", [[4, 8], [12, 16]]), ("rain", "two", [[0, 10]])]
    good = [[[5, 8, 0.9], [12, 16, 0.8]], [[0, 10, 0.5]]]
    bad = [[[18, 20]], [[12, 16], [0, 9]]]
    data, paths = write_recordings(tmp_path, queries, good, bad)
    with opened(browser, written_page(moments, data, paths, tmp_path / "page")) as page:
        assert list(heads(page)) == [
            *("Query", "0", "1", "Difference", "First IoU", "Best IoU", "Right windows", "Seconds")
        ]
        page.get_by_role("button", name="Best IoU").press("Enter")
        assert (column(page, 1), column(page, 6)) == (["a dog", "rain"], ["0.00", "0.90"])
        page.get_by_role("combobox", name="Show").select_option("late")
        assert column(page, 1) == ["rain"]
        page.get_by_role("combobox", name="Show").select_option("all")
        page.locator(".open").first.press("Enter")
        detail = page.locator(".detail")
        assert "R1@0.5 ✓ right · R1@0.7 ✓ right · IoU of the first window 0.750 · best IoU 1.000" in detail.inner_text()
        buttons = [button.get_attribute("aria-label") for button in detail.locator(".window").all()]
        assert buttons == [
            "Play from 0:04.0 to 0:08.0, right window 1",
            "Play from 0:12.0 to 0:16.0, right window 2",
            "Play from 0:05.0 to 0:08.0, rank 1, score 0.9, IoU 0.75",
            "Play from 0:12.0 to 0:16.0, rank 2, score 0.8, IoU 1.00",
            "Play from 0:18.0 to 0:20.0, rank 1, IoU 0.00",
        ]
        track, window = (detail.locator(each).nth(1).bounding_box() for each in (".track", ".window"))
        assert (window["x"] - track["x"]) / track["width"] == pytest.approx(12 / 20, abs=0.01)
        assert window["width"] / track["width"] == pytest.approx(4 / 20, abs=0.01)
        detail.locator("audio").evaluate("each => { each.muted = true; }")
        detail.locator(".window").nth(3).press("Enter")
        page.wait_for_function("() => document.querySelector('.detail audio').currentTime > 12")
        page.wait_for_function("() => parseFloat(document.querySelector('.now').style.left) >= 60")
