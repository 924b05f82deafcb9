import json
import re
from base64 import b64encode
from hashlib import sha256

import pytest

from evaluation.inspection import page, retrieval
from evaluation.inspection.overview import make_overview
from evaluation.inspection.sounds import Sound
from evaluation.kinds import KINDS
from tests.evaluation.inspection.small_pages import split_of, write_data, write_similarity

EVIL = "</script><script>alert(1)</script><!-- \" ' & \u2028 \u202e \ud83d"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    captions = ((EVIL.replace("\ud83d", ""), "A dog."), ("Rain falls.", "Rain."))
    data = write_data(
        tmp_path_factory.mktemp("data") / "data", ("<img src=x onerror=alert(1)>.wav", "b.wav"), captions, sound=False
    )
    split = split_of(data)
    path = write_similarity(data / "s.npz", data)
    content, _ = retrieval.read_queries([path], split, split.truth, None)
    sounds = [Sound(clip.path) for clip in split.clips]
    links = page.Links([None, None], [None, None])
    return page.html(content, make_overview(content, sounds), sounds, links, {"s": "</code><b>"}, [])


def test_hostile_texts_are_escaped(text):
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text
    assert "<b>" not in text
    assert "\u2028" not in text
    assert "\u202e" not in text


def test_the_policy_allows_only_the_page_s_own_code(text):
    policy = re.search('Content-Security-Policy" content="(.*?)"', text)[1]
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert f"{tag}-src 'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" in policy
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    assert " style=" not in text


def test_the_data_are_json(text):
    (content,) = re.findall('<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    data = json.loads(content)
    assert data["kind"] == "queries"
    assert data["clips"] == ["<img src=x onerror=alert(1)>.wav", "b.wav"]
    assert data["queries"][0].startswith("</script><script>alert(1)</script><!-- \" ' & \\u2028 \\u202e")
    clip, score, mark, similarity, caption = data["answers"][0]["hits"][0][0]
    assert (clip, mark, similarity, caption) == (0, 1, 1, 0)
    assert 1 < score < 2


def test_json_in_a_script_element():
    assert page._embedded(["</script>&", "\u2028", "\ud83d"]) == '["\\u003c/script\\u003e\\u0026","\\u2028","\\ud83d"]'


def test_the_script_and_style_sheet_are_small():
    own_scripts = [path for path in page.TEMPLATES.glob("*.js") if path.name != "page.js"]
    assert len(own_scripts) == len(KINDS)
    for own_script in own_scripts:
        lines = 0
        for path in (page.TEMPLATES / "page.js", page.TEMPLATES / "page.css", own_script):
            lines += len(path.read_text(encoding="utf-8").splitlines())
        assert lines < 600
        for path in (page.TEMPLATES / "page.js", own_script):
            assert "innerHTML" not in path.read_text(encoding="utf-8")
