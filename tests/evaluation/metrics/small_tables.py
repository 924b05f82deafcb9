"""A small table of paraphrases for METEOR, which needs many seconds to read its own 5.3 million paraphrases."""

import gzip
from pathlib import Path

import pytest

from evaluation.metrics import java, meteor

PARAPHRASES = [
    ("0.5", "a dog", "a hound"),
    ("0.4", "car", "automobile"),
    ("0.3", "is driving", "drives"),
    ("0.3", "speaks", "talks"),
    ("0.2", "cheers", "clap"),
    ("0.1", "is poured", "pours"),
]


def make_small_table(references: list[str], cache: Path) -> Path:
    """Make the table of paraphrases of these references from `PARAPHRASES` instead of METEOR's whole table.

    Args:
        references: Tokenised captions.
        cache: Folder of the cache, where `evaluate` finds the table.

    Returns:
        The table.
    """
    jars = cache / "small"
    whole = jars / "meteor" / "data" / "paraphrase-en.gz"
    whole.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(whole, "wt", encoding="utf-8") as file:
        for row in PARAPHRASES:
            file.writelines(f"{cell}\n" for cell in row)
    java.lay_out_jars(cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meteor, "lay_out_jars", lambda _: jars)
        return meteor.make_paraphrase_table(references, cache)
