"""FSD50K as a source of noisy captions: the descriptions and tags that Freesound users gave to their uploads.

The folder has the layout of the published data. `FSD50K.metadata/dev_clips_info_FSD50K.json` maps each clip's number to
its title, description, tags, licence and uploader. `FSD50K.dev_audio/NUMBER.wav` contains the audio of a clip.

A clip has two captions. One is its description, without HTML and cut after 500 characters. The other consists of its
tags in their given order, separated by spaces. Empty captions are left out. The development set has 40,966 clips. The
published system was trained on half of the clips, which gives 40,966 pairs of a clip and a caption.

Sources: Weck et al. 2022, section 3.1; Fonseca et al. 2022, zenodo.org/records/4060432.
"""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import TypeGuard

from evaluation.data.dataset import DEVELOPMENT, Clip, Split
from evaluation.findings import BadRequest, Faulty, Finding

ADDRESS = "https://zenodo.org/records/4060432"
METADATA = Path("FSD50K.metadata") / "dev_clips_info_FSD50K.json"
SOUNDS = "FSD50K.dev_audio"
LONGEST = 500  # maximum number of characters in a description


def read_fsd50k(folder: Path) -> Split:
    """Read the development set. Clips without a caption are left out.

    Raises:
        BadRequest: The folder does not contain the metadata, or the metadata are not JSON of the published form.
        Faulty: The description or the tags of a clip do not have the published form, or its audio file is missing. The
            exception lists all findings.
    """
    path = folder / METADATA
    advice = f"fetch it again from {ADDRESS}"
    if not path.is_file():
        message = "no such file; give the folder with FSD50K.metadata and FSD50K.dev_audio, as published"
        raise BadRequest(f"{path}: {message}")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path}: must be JSON; found an error: {error}; {advice}") from None
    if not isinstance(entries, dict):
        raise BadRequest(
            f"{path}: must map each clip's number to its metadata; found a {type(entries).__name__}; {advice}"
        )
    audio_files = {file.name for file in (folder / SOUNDS).glob("*.wav")}
    clips, malformed, absent = [], [], []
    for number, entry in entries.items():
        name = f"{number}.wav"
        if name not in audio_files:
            absent.append(Finding(str(path), column=number, message=f"no file {name!r} in {SOUNDS}/; fetch it too"))
        description = tags = None
        if isinstance(entry, dict):
            description, tags = entry.get("description"), entry.get("tags")
        if not isinstance(description, str) or not _are_texts(tags):
            message = "must have a description (a text) and tags (a list of texts); fetch the file again"
            malformed.append(Finding(str(path), column=number, message=message))
            continue
        captions = (plain(description)[:LONGEST].rstrip(), " ".join(" ".join(tags).split()))
        clips.append(Clip(name, tuple(filter(None, captions)), folder / SOUNDS / name))
    if malformed or absent:
        raise Faulty([*malformed, *absent])
    return Split(DEVELOPMENT, tuple(clip for clip in clips if clip.captions))


def plain(text: str) -> str:
    """Remove HTML from a text and put it on one line.

    >>> plain('Rain &amp; <a href="https://example.org">thunder</a>.<br>Recorded at   home')
    'Rain & thunder. Recorded at home'
    """
    parser = _Text()
    parser.feed(text)
    parser.close()
    return " ".join("".join(parser.parts).split())


class _Text(HTMLParser):
    """A parser that keeps only text: no tags, style or script. It replaces tags that break the line by spaces."""

    BREAKS = frozenset({"br", "p", "div", "li", "ul", "ol", "tr", "td", "hr", "h1", "h2", "h3"})

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None:  # not inside style or script
            self.parts.append(data)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag in self.BREAKS:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self.handle_starttag(tag, [])


def _are_texts(tags: object) -> TypeGuard[list[str]]:
    return isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)
