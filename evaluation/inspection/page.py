"""The HTML file of a page, which is made from a template, a style sheet, a script, and the data as JSON.

The HTML file contains its style sheet, script and data, so a browser can open it from disk. Images and sounds are in
files next to it, or also in the HTML file. The Content Security Policy forbids the browser to load anything else. The
script makes the rows of the tables from the data. It never interprets texts as HTML.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from evaluation.findings import Finding
from evaluation.inspection.content import TEMPLATES, Content, is_pseudo
from evaluation.inspection.overview import Overview
from evaluation.inspection.sounds import Sound
from evaluation.metrics import catalogue
from evaluation.pages import page_environment, policy_source
from evaluation.text import plural, printable

GENERATOR = "dcase-evaluation inspect"
# The mark of a page that this kit wrote. An existing file without the mark is not replaced.
MARK = f'<meta name="generator" content="{GENERATOR}">'
DIGITS = 4  # number of digits of the values in the data


@dataclass(frozen=True)
class Links:
    """The addresses of the sounds and spectrograms.

    Attributes:
        sounds: For each clip, the address of its sound, or None if the clip does not have a sound.
        images: For each clip, the address of its spectrogram, or None if the clip does not have a spectrogram.
    """

    sounds: Sequence[str | None]
    images: Sequence[str | None]


def html(
    content: Content,
    overview: Overview,
    sounds: Sequence[Sound],
    links: Links,
    files: Mapping[str, str],
    findings: Sequence[Finding],
) -> str:
    """Return the HTML text of the page.

    Args:
        content: The clips and the predictions of the systems.
        overview: The top of the page.
        sounds: The sound of each clip.
        links: The addresses of the sounds and spectrograms.
        files: A dict from the name of each system to its prediction file.
        findings: Warnings and notes about the predictions and sounds.
    """
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    own_script = content.templates.with_suffix(".js").read_text(encoding="utf-8")
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8") + own_script
    score = content.systems[0].score
    playable = sum(sound.is_playable for sound in sounds)
    return (
        page_environment(TEMPLATES)
        .get_template("page.html.j2")
        .render(
            mark=Markup(MARK),  # noqa: S704, a constant
            style=Markup(style),  # noqa: S704, the file is part of the kit
            script=Markup(script),  # noqa: S704, the file is part of the kit
            policy=Markup(_policy(style, script)),  # noqa: S704, made of digests
            data=Markup(_embedded(data(content, sounds, links))),  # noqa: S704, escaped for a script element
            content=content,
            about=Markup(_about(content)),  # noqa: S704, made from a template of the kit
            items=f"{len(score.items.names):,} {score.items.kind}",
            clips=plural(len(content.clips), content.clip_noun),
            systems=[system.name for system in content.systems],
            signatures={system.name: system.score.signature for system in content.systems},
            unavailable=_unavailable(content),
            files=files,
            overview=overview,
            playable=playable,
            findings=[str(finding) for finding in findings],
        )
    )


def _about(content: Content) -> str:
    """Return the text about the page of one kind of answers, as HTML."""
    templates = content.templates
    return page_environment(templates.parent).get_template(f"{templates.name}.html.j2").render(content=content)


def _policy(style: str, script: str) -> str:
    """Return the Content Security Policy. It allows the page's own style sheet, script, images and sounds only."""
    own = "'self' file: data:"  # in some browsers, 'self' does not include files on disk
    rules = [
        "default-src 'none'",
        f"script-src {policy_source(script)}",
        f"style-src {policy_source(style)}",
        f"img-src {own}",
        f"media-src {own}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join(rules)


def _embedded(content: Any) -> str:
    """Return content as JSON for a script element. Characters that could end the element are escaped."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _unavailable(content: Content) -> list[str]:
    reasons: dict[str, None] = {}
    for system in content.systems:
        for name, reason in system.score.unavailable.items():
            reasons[f"{catalogue.heading(name)} is not available: {reason}"] = None
    return list(reasons)


# Data -----------------------------------------------------------------------------------------------------------------


def data(content: Content, sounds: Sequence[Sound], links: Links) -> dict[str, Any]:
    """Return the data that the page's script reads."""
    metrics = content.item_metrics(content.systems[0].score)
    shared = []
    for name in metrics:
        if all(name in system.score.items.values for system in content.systems):
            shared.append(name)
    result: dict[str, Any] = {
        "kind": content.noun,
        "systems": [printable(system.name) for system in content.systems],
        "metrics": [_metric(name) for name in shared],
        "values": [[_rounded(system.score.items.values[name]) for name in shared] for system in content.systems],
        "clips": [printable(clip.file_name) for clip in content.clips],
        "seconds": [None if sound.seconds is None else round(sound.seconds, 1) for sound in sounds],
        "sounds": links.sounds,
        "images": links.images,
    }
    return result | content.data()


def _metric(name: str) -> dict[str, Any]:
    title = catalogue.heading(name)
    if is_pseudo(name):
        title += " (pseudo-value)"
    return {"title": title, "lower": catalogue.lower_is_better(name)}


def _rounded(values: np.ndarray) -> list[float]:
    return [round(value, DIGITS) for value in values.tolist()]
