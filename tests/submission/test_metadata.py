"""Metadata files are read and checked, also hostile ones."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from evaluation.findings import BadRequest
from submission import documents, metadata, metadata_text, tasks, teams

TASKS = {name: tasks.read(name) for name in tasks.names()}
A, B = "dcase2023-6a", "dcase2022-6b"

# The official templates, with their defects mended: `abbreviation` indented, and 1.0e-5 for 1e-5.
HEAD = """\
# Submission information for task 6
submission:
  # Submission label
  label: gontier_inr_TAG_1

  # Submission name
  name: DCASE baseline system

  # Submission name abbreviated
  abbreviation: Baseline   # Use maximum 10 characters.

  # Authors of the submitted system. Mark one of the authors corresponding.
  authors:
    # First author
    - lastname: Gontier
      firstname: Felix
      email: felix.gontier@inria.fr
      corresponding: true
      affiliation:
        abbreviation: INRIA
        institute: INRIA
        department: Multispeech
        location: Nancy, France
    - lastname: Serizel
      firstname: Romain
      email: romain.serizel@loria.fr
      affiliation:
        abbreviation: LORIA
        institute: Université de Lorraine
        location: Nancy, France

system:
  description:
    input_sampling_rate: 16kHz
    acoustic_features: VGGish
    word_embeddings: BART
    data_augmentation: !!null
    machine_learning_method: encoder-decoder
    learning_scheme: supervised
    ensemble: No
    audio_modelling: transformer
    word_modelling: transformer
    loss_function: crossentropy
    optimizer: adamw
    learning_rate: 1.0e-5
    gradient_clipping: 0
    gradient_norm: !!null
    metric_monitored: validation_loss
  complexity:
    total_parameters: 140000000
"""
DATASET = """\
    - name: Clotho
      url: https://doi.org/10.5281/zenodo.3490683
      has_audio: Yes
      has_images: No
      has_video: No
      has_captions: Yes
      nb_captions_per_audio: 5
"""
LISTS = """\
      nb_clips_per_caption: 1
      total_audio_length: 86353
      total_captions: 19195
"""
USED = "      used_for: audio_and_word_modelling\n"
VALID = {
    A: HEAD.replace("TAG", "task6a")
    + f"  external_datasets:\n{DATASET}      total_audio_length: 24430\n{USED}"
    + "  source_code: https://github.com/audio-captioning/dcase-2023-baseline\n\nresults:\n  development_evaluation:\n"
    + "    meteor:\n    cider:\n    spice:\n    spider:\n    spiderfl:\n",
    B: HEAD.replace("TAG", "task6b")
    + "".join(f"  {name}:\n{DATASET}{LISTS}" for name in ("training_datasets", "validation_datasets"))
    + f"  external_datasets:\n{DATASET}{LISTS}{USED}      source_code: https://github.com/xieh97/x\n"
    + "\nresults:\n  development_testing:\n    R@1: 0.03\n    R@5: 0.11\n    R@10: 0.19\n    mAP@10: 0.07\n",
}


def said(name: str, content: str | bytes, folder: Path) -> list[str]:
    path = folder / "m.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [str(finding) for finding in metadata.validate(TASKS[name], path, "m.yaml")[1]]


def without(name: str, start: str, end: str) -> str:
    """Return a valid file without the part from one text up to another."""
    head, _, rest = VALID[name].partition(start)
    return head + end + rest.partition(end)[2]


AUTHORS = "must have a corresponding author; found none: add 'corresponding: true' to one author"
LABEL = "m.yaml:4: submission.label: error: must have the form {author}_{institute}_task6a_{index} with an index from "
LABEL += "1 to 4; found "
FIELD = "m.yaml:%d: system.description.%s: error: "
LENGTH = FIELD[:15] + "external_datasets.1."

# the task; the text to replace and its replacement, or the whole file; and the message
MUTATIONS = {
    # the label
    "label in lower case": (
        A,
        ("gontier_inr_task6a_1", "gontier_inr_Task6A_1"),
        LABEL + "'gontier_inr_Task6A_1': 'Task6A' must be 'task6a'; write 'gontier_inr_task6a_1'",
    ),
    "label of another task": (
        A,
        ("task6a_1", "task6_1"),
        LABEL + "'gontier_inr_task6_1': 'task6' must be 'task6a'; write 'gontier_inr_task6a_1'",
    ),
    "label of five parts": (
        A,
        ("inr_task6a", "in_ria_task6a"),
        LABEL + "'gontier_in_ria_task6a_1': it has 5 parts joined by '_', not 4: no part may contain '_'",
    ),
    "index of 5": (A, ("task6a_1", "task6a_5"), LABEL + "'gontier_inr_task6a_5': the index '5' must be 1 to 4"),
    "index of 01": (
        A,
        ("task6a_1", "task6a_01"),
        LABEL + "'gontier_inr_task6a_01': the index '01' must be 1 to 4; write 'gontier_inr_task6a_1'",
    ),
    "label with a path": (
        A,
        ("gontier_inr", "gontier_../x"),
        LABEL + "'gontier_../x_task6a_1': it must not contain '/'",
    ),
    "label of another author": (
        A,
        ("gontier_inr", "kadlcik_inr"),
        "m.yaml:4: submission.label: warning: should name the corresponding author, 'Gontier'; found 'kadlcik'",
    ),
    # missing, empty, unknown and misplaced keys
    "no abbreviation": (
        A,
        ("  abbreviation: Baseline   # Use maximum 10 characters.\n", ""),
        "m.yaml:2: submission.abbreviation: error: is missing; add it: Use maximum 10 characters.",
    ),
    "no optimizer": (
        B,
        ("    optimizer: adamw\n", ""),
        "m.yaml:33: system.description.optimizer: error: is missing; add it, or write !!null if it does not apply: "
        "such as "
        "adamw",
    ),
    "no system": (A, without(A, "system:", "results:"), "m.yaml: system: error: is missing; add it"),
    "no authors": (
        A,
        without(A, "  authors:", "\nsystem:"),
        "m.yaml:2: submission.authors: error: is missing; add it: in the order to appear; one has to be marked "
        "corresponding",
    ),
    "no institute of the second author": (
        A,
        ("        institute: Université de Lorraine\n", ""),
        "m.yaml:27: submission.authors.2.affiliation.institute: error: is missing; add it",
    ),
    "no training data": (
        B,
        without(B, "  training_datasets:", "  validation_datasets:"),
        "m.yaml:32: system.training_datasets: error: is missing; add it: List of datasets used for training the "
        "system.",
    ),
    "name empty": (
        A,
        ("name: DCASE baseline system", "name:"),
        "m.yaml:7: submission.name: error: must not be empty; fill it in: used in the results tables when space "
        "permits",
    ),
    "name blank": (
        A,
        ("name: DCASE baseline system", "name: ' '"),
        "m.yaml:7: submission.name: error: must not be empty; fill it in: used in the results tables when space "
        "permits",
    ),
    "parameters null": (
        A,
        ("140000000", "!!null"),
        "m.yaml:50: system.complexity.total_parameters: error: must not be empty; fill it in: of all subsystems and "
        "embedding "
        "extractors; do not use comma for thousands-separator",
    ),
    "training data empty": (
        B,
        without(B, "  training_datasets:", "  validation_datasets:").replace(
            "  validation", "  training_datasets: []\n  validation"
        ),
        "m.yaml:51: system.training_datasets: error: must not be empty; fill it in: List of datasets used for training "
        "the "
        "system.",
    ),
    "an empty text": (
        A,
        ("acoustic_features: VGGish", "acoustic_features: ''"),
        "m.yaml:35: system.description.acoustic_features: warning: should not be an empty text; fill it in, or "
        "write !!null if it does not apply",
    ),
    "misspelt": (
        A,
        ("  abbreviation: Base", "  abreviation: Base"),
        "m.yaml:10: submission.abreviation: error: unknown key 'abreviation'; did you mean 'abbreviation'? there are: "
        "label, name, abbreviation, authors",
    ),
    "corresponding misspelt": (
        A,
        ("      corresponding", "      Corresponding"),
        "m.yaml:18: submission.authors.1.Corresponding: error: unknown key 'Corresponding'; did you mean "
        "'corresponding'? there are: lastname, firstname, email, corresponding, affiliation",
    ),
    "one too many": (
        A,
        ("    meteor:\n", "    bleu1: 0.5\n    meteor:\n"),
        "m.yaml:65: results.development_evaluation.bleu1: error: unknown key 'bleu1'; there are: meteor, cider, spice, "
        "spider, spiderfl",
    ),
    "source code in a data set": (
        A,
        ("  source_code:", "      source_code:"),
        "m.yaml:61: system.external_datasets.1.source_code: error: belongs under system; move it there, indented like "
        "the keys there",
    ),
    "source code out of its data set": (
        B,
        ("      source_code:", "  source_code:"),
        "m.yaml:85: system.source_code: error: belongs in an entry of system.external_datasets; move it there, "
        "indented like the keys there",
    ),
    "authors at the top": (
        A,
        without(A, "  authors:", "\nsystem:")
        + re.sub("(?m)^  ", "", "  authors:" + VALID[A].partition("  authors:")[2].partition("\nsystem:")[0]),
        "m.yaml:52: authors: error: belongs under submission; move it there, indented like the keys there",
    ),
    "abbreviation at the top": (
        A,
        without(A, "  abbreviation: Base", "  # Authors") + "abbreviation: Baseline\n",
        "m.yaml:68: abbreviation: error: belongs under submission; move it there, indented like the keys there",
    ),
    "abbreviation at the top and empty": (
        A,
        ("  abbreviation: Baseline ", "abbreviation: "),
        "m.yaml:10: abbreviation: error: belongs under submission; move it there, indented like the keys there",
    ),
    "name twice": (
        A,
        ("  name: DCASE baseline system\n", "  name: One\n  name: Two\n"),
        "m.yaml:8: submission.name: error: must not be repeated; it is in line 7 already: keep one of the two",
    ),
    "a number as key": (
        A,
        ("    meteor:", "    5: 1\n    meteor:"),
        "m.yaml:65: results.development_evaluation: error: every key must be text; found '5': put it in quotes, or "
        "remove it",
    ),
    # types
    "1e-5": (
        A,
        ("1.0e-5", "1e-5"),
        FIELD % (45, "learning_rate") + "must be a number; found 1e-5, which YAML reads as text: write 1.0e-5",
    ),
    "1.5e3": (
        A,
        ("1.0e-5", "1.5e3"),
        FIELD % (45, "learning_rate") + "must be a number; found 1.5e3, which YAML reads as text: write 1.5e+3",
    ),
    "a rate in quotes": (
        A,
        ("1.0e-5", "'0.001'"),
        FIELD % (45, "learning_rate") + "must be a number; found the text '0.001': write 0.001, without quotes",
    ),
    "none for a number": (
        A,
        ("gradient_clipping: 0", "gradient_clipping: none"),
        FIELD % (46, "gradient_clipping") + "must be a number; found 'none': write !!null if it does not apply",
    ),
    "a rate that is no number": (
        A,
        ("1.0e-5", "cosine schedule"),
        FIELD % (45, "learning_rate") + "must be a number; found the text 'cosine schedule'",
    ),
    "not a number": (
        A,
        ("1.0e-5", ".nan"),
        FIELD % (45, "learning_rate") + "must be a number, and finite; found nan",
    ),
    "infinite": (A, ("1.0e-5", "-.inf"), FIELD % (45, "learning_rate") + "must be a number, and finite; found -inf"),
    "commas": (
        A,
        ("140000000", "140,000,000"),
        "m.yaml:50: system.complexity.total_parameters: error: must be a whole number; found the text '140,000,000': "
        "write 140000000",
    ),
    "millions": (
        B,
        ("140000000", "12.5 M"),
        "m.yaml:50: system.complexity.total_parameters: error: must be a whole number; found the text '12.5 M': write "
        "12500000",
    ),
    "parameters with a point": (
        B,
        ("140000000", "1.4e+8"),
        "m.yaml:50: system.complexity.total_parameters: error: must be a whole number; found 140000000.0: write "
        "140000000",
    ),
    "parameters less than none": (
        B,
        ("140000000", "-1"),
        "m.yaml:50: system.complexity.total_parameters: error: must not be negative; found -1",
    ),
    "parameters yes": (
        B,
        ("140000000", "Yes"),
        "m.yaml:50: system.complexity.total_parameters: error: must be a whole number; found True",
    ),
    "quoted yes": (
        A,
        ("ensemble: No", 'ensemble: "Yes"'),
        FIELD % (40, "ensemble") + "must be Yes or No, not text; found 'Yes'; write Yes, without quotes",
    ),
    "quoted true": (
        A,
        ("corresponding: true", "corresponding: 'true'"),
        "m.yaml:18: submission.authors.1.corresponding: error: must be Yes or No, not text; found 'true'; write Yes, "
        "without quotes",
    ),
    "five for yes": (A, ("ensemble: No", "ensemble: 5"), FIELD % (40, "ensemble") + "must be Yes or No; found 5"),
    "a long abbreviation": (
        A,
        ("Baseline ", "CarelessWhisperLarge "),
        "m.yaml:10: submission.abbreviation: error: must not have more than 10 characters; found 20: "
        "'CarelessWhisperLarge'",
    ),
    "a number for text": (
        A,
        ("Baseline ", "2023 "),
        "m.yaml:10: submission.abbreviation: warning: must be text; found 2023, which YAML reads as a number: "
        "put it in quotes",
    ),
    "a rate in hertz": (
        A,
        ("16kHz", "44100"),
        "m.yaml:34: system.description.input_sampling_rate: warning: must be text; found 44100, which YAML reads as a "
        "number: put it in quotes",
    ),
    "no for text": (
        A,
        ("data_augmentation: !!null", "data_augmentation: No"),
        "m.yaml:37: system.description.data_augmentation: warning: must be text; found False, which YAML reads as yes "
        "or "
        "no: put it in quotes",
    ),
    "a date for text": (
        A,
        ("DCASE baseline system", "2023-05-15"),
        "m.yaml:7: submission.name: warning: must be text; found 2023-05-15, which YAML reads as a date: put it in "
        "quotes: '2023-05-15'",
    ),
    "augmentation as a list": (
        A,
        ("data_augmentation: !!null", "data_augmentation:\n      - mixup\n      - pitch shifting"),
        FIELD % (37, "data_augmentation")
        + "must be text; found a list: join the entries with commas: 'mixup, pitch shifting'",
    ),
    "keys for text": (
        A,
        ("optimizer: adamw", "optimizer: {adamw: 1}"),
        FIELD % (44, "optimizer") + "must be text; found keys and values: put a text that contains ': ' in quotes",
    ),
    "one data set without its dash": (
        A,
        ("    - name: Clotho", "      name: Clotho"),
        "m.yaml:51: system.external_datasets: error: must be a list; found keys and values: put '- ' before "
        "the first key, and indent the others by 2 more blanks",
    ),
    "a text for a list": (
        A,
        without(A, "    - name: Clotho", "  source_code").replace("datasets:", "datasets: Clotho"),
        "m.yaml:51: system.external_datasets: error: must be a list; found 'Clotho': write each entry in a line "
        "that starts with '- '",
    ),
    "a text for keys": (
        A,
        ("  complexity:\n    total_parameters: ", "  complexity: "),
        "m.yaml:49: system.complexity: error: must be keys and values (total_parameters); found 140000000",
    ),
    # authors
    "no corresponding author": (
        A,
        ("      corresponding: true\n", ""),
        f"m.yaml:13: submission.authors: error: {AUTHORS}",
    ),
    "a corresponding author that is none": (
        A,
        ("corresponding: true", "corresponding: false"),
        f"m.yaml:13: submission.authors: error: {AUTHORS}",
    ),
    "two corresponding authors": (
        A,
        ("romain.serizel@loria.fr\n", "romain.serizel@loria.fr\n      corresponding: true\n"),
        "m.yaml:27: submission.authors.2.corresponding: error: must have only one corresponding author; found 2 "
        "(lines 18 and 27): keep one of them",
    ),
    "no e-mail address": (
        A,
        ("felix.gontier@inria.fr", "felix at inria.fr"),
        "m.yaml:17: submission.authors.1.email: warning: should be an e-mail address; found 'felix at inria.fr'",
    ),
    # results
    "per cent": (
        B,
        ("mAP@10: 0.07", "mAP@10: 35.23"),
        "m.yaml:92: results.development_testing.mAP@10: warning: must be between 0 and 1; found 35.23: if it is "
        "in per cent, write 0.3523",
    ),
    "a negative result": (
        A,
        ("    cider:", "    cider: -0.2"),
        "m.yaml:66: results.development_evaluation.cider: warning: must be between 0 and 10; found -0.2",
    ),
    "a result that is text": (
        A,
        ("    spiderfl:", "    spiderfl: 27 %"),
        "m.yaml:69: results.development_evaluation.spiderfl: error: must be a number; found the text '27 %'",
    ),
    # YAML
    "tabs": (
        A,
        ("    cider:\n    spice:", "\tcider:\n\tspice:"),
        "m.yaml:66: error: is indented by a tab (and so is a line below); YAML requires spaces: replace each tab by "
        "spaces",
    ),
    "tab after the colon": (
        A,
        ("name: DCASE", "name:\tDCASE"),
        "m.yaml:7: error: has a tab between key and value; use a space",
    ),
    "colon in a value": (
        A,
        ("name: DCASE baseline", "name: DCASE: baseline"),
        "m.yaml:7: error: the value contains ': '; put it in quotes",
    ),
    "no colon": (
        A,
        ("word_embeddings: BART", "word_embeddings BART"),
        "m.yaml:36: error: must be a key, a colon, a space and a value, such as 'name: My system'",
    ),
    "an open quote": (
        A,
        ("Nancy, France\n    - ", "'Nancy, France\n    - "),
        "m.yaml:23: error: a quotation mark is opened here and never closed; close it, or double it if it is "
        "part of the text",
    ),
    "a quote within quotes": (
        A,
        ("DCASE baseline system", "'Felix's system'"),
        "m.yaml:7: error: there is text after the closing quotation mark; put all of it in quotes, and double a mark "
        "inside it",
    ),
    "an @": (A, ("name: DCASE", "name: @DCASE"), "m.yaml:7: error: a value must not start with '@'; put it in quotes"),
    "a star": (
        A,
        ("name: DCASE", "name: *DCASE"),
        "m.yaml:7: error: a value that starts with '*' is an alias, but its anchor does not exist; put it in quotes",
    ),
    "deeper": (
        A,
        ("    optimizer", "     optimizer"),
        "m.yaml:44: error: is indented deeper than line 43, which already has a value; indent both lines equally",
    ),
    "less deep": (
        A,
        ("    optimizer", "   optimizer"),
        "m.yaml:44: error: is indented by 3 spaces, unlike every line above; indent it by 0 or 2 or 4",
    ),
    "an open bracket": (
        A,
        ("acoustic_features: VGGish", "acoustic_features: [VGGish"),
        "m.yaml:35: error: the '[' here is never closed; add ']' and put commas between the entries, or put the text "
        "in quotes",
    ),
    "two documents": (
        A,
        ("\nsystem:", "---\nsystem:"),
        "m.yaml:31: error: must be one document; found a second one after '---': remove it",
    ),
    "an object": (
        A,
        ("DCASE baseline system", "!!python/object/apply:os.system ['touch hacked']"),
        "m.yaml:7: submission.name: error: must not have the tag 'tag:yaml.org,2002:python/object/apply:os.system'; "
        "remove it",
    ),
    "BOM": (A, VALID[A].encode("utf-8-sig"), "m.yaml:1: warning: starts with a BOM; save it as plain UTF-8"),
    "UTF-16": (A, VALID[A].encode("utf-16"), "m.yaml: error: must be UTF-8; this is UTF-16: save it as UTF-8"),
    "Latin-1": (
        A,
        VALID[A].encode("latin-1"),
        "m.yaml:29: error: must be UTF-8; byte 0xE9 is not (Latin-1 'é'?): save the file as UTF-8",
    ),
    "NUL": (
        A,
        ("BART", "BA\0RT"),
        "m.yaml:36: error: must be text; found a NUL byte: save the file as UTF-8 text",
    ),
    "a control character": (
        A,
        ("BART", "BA\x07RT"),
        "m.yaml:36: error: must be text; found the control character U+0007: remove it",
    ),
    "no character": (
        A,
        ("BART", r'"\UFFFFFFFF"'),
        "m.yaml:36: error: has an escape sequence or number that does not exist; correct it",
    ),
    "a line too many in a text": (
        A,
        ("name: DCASE baseline system", "name: DCASE\n     baseline\n   system: x"),
        "m.yaml:9: error: is indented by 3 spaces, unlike every line above; indent it by 0 or 2 or 5",
    ),
    "label with a control character": (
        A,
        ("gontier_inr_task6a_1", r'"gontier_i\0nr_task6a_1"'),
        LABEL + r"'gontier_i\x00nr_task6a_1': it must not contain control characters, or start or end with a blank",
    ),
    "half a character": (
        A,
        ("BART", r'"BA\ud800RT"'),
        "m.yaml:36: system.description.word_embeddings: error: must not contain half a character (a surrogate); "
        r"found 'BA\ud800RT': write all of it",
    ),
    "a number without end": (
        A,
        ("140000000", "9" * 5000),
        "m.yaml:50: system.complexity.total_parameters: error: must be a number, because YAML reads it as one; found "
        f"'{'9' * 200}…': correct it, or put it in quotes",
    ),
    "empty": (A, b"# nothing\n", "m.yaml: error: must have keys and values; found nothing"),
    "a list": (A, b"- a\n", "m.yaml:1: error: must have keys and values, such as 'name: My system'"),
}


@pytest.mark.parametrize("name", VALID)
def test_valid_files_have_no_finding(name, tmp_path):
    assert said(name, VALID[name], tmp_path) == []
    assert said(name, VALID[name].replace("\n", "\r\n"), tmp_path) == []
    assert documents.read(tmp_path / "m.yaml").values == yaml.safe_load(VALID[name])
    assert len(MUTATIONS) >= 40


@pytest.mark.parametrize(("name", "change", "message"), MUTATIONS.values(), ids=MUTATIONS)
def test_one_mutation_gives_one_finding(name, change, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = change
    if isinstance(change, tuple):
        assert change[0] in VALID[name]
        content = VALID[name].replace(*change, 1)
    assert said(name, content, tmp_path) == [message]
    assert [path.name for path in tmp_path.iterdir()] == ["m.yaml"]


@pytest.mark.parametrize(("number", "expected"), [(8_000_000_000, []), (100_000_000_001, ["'100000000001'"])])
def test_a_system_in_no_track_gets_a_warning(number, expected):
    document = documents.Document({"system": {"complexity": {"total_parameters": number}}})
    findings = metadata.check(tasks.read("dcase2026-5"), document, "m.yaml")
    warnings = [finding.message for finding in findings if "track" in finding.message]
    must = (
        "must be a whole number within the limit of a track: under 10B parameters (below 10,000,000,000), up to 100B "
    )
    must += "parameters (at most 100,000,000,000); found "
    end = ": the system is in no track; correct the number"
    assert warnings == [f"{must}{found}{end}" for found in expected]


# ------------------------------------------------------------------------------------------------ as seen


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("comment", ["  # Authors", ""], ids=["with comments", "without"])
def test_the_template_as_published(name, comment, tmp_path):
    """Its `abbreviation` is at column 0; once that is corrected, its learning rate is a text."""
    published = VALID[name].replace("  abbreviation: Base", "abbreviation: Base", 1).replace("1.0e-5", "1e-5")
    if not comment:
        published = re.sub(r"(?m)^ *#.*\n|^\n| *#.*$", "", published)
    line = published.splitlines().index(next(row for row in published.splitlines() if row.startswith("abbreviation")))
    (found,) = said(name, published, tmp_path)
    assert found == (
        f"m.yaml:{line + 1}: error: 'abbreviation' must be indented like the keys around it: put 2 spaces before it, "
        f"as before 'name' in line {7 if comment else 3}; the official template indents it wrongly"
    )
    (found,) = said(name, published.replace("\nabbreviation", "\n  abbreviation"), tmp_path)
    assert found.endswith("learning_rate: error: must be a number; found 1e-5, which YAML reads as text: write 1.0e-5")


def test_a_template_repaired_by_moving_keys_to_the_top(tmp_path):
    """A team changed the published template in this way in 2023. There is a message about every fault."""
    authors = "authors:" + VALID[A].partition("  authors:")[2].partition("\nsystem:")[0].replace("\n  ", "\n")
    authors = authors.replace("loria.fr\n", "loria.fr\n    corresponding: true\n")
    authors = re.sub(" +department: .*\n", "", authors)
    wild = without(A, "  abbreviation: Base", "\nsystem:").replace("gontier_inr", "kadlcik_jku")
    wild = wild.replace("!!null", "[mixup, noise]", 1) + "abbreviation: CarelessWhisperLarge\n" + authors
    assert sorted(re.sub(r"^m.yaml:\d+: ", "", found) for found in said(A, wild, tmp_path)) == [
        "abbreviation: error: belongs under submission; move it there, indented like the keys there",
        "abbreviation: error: must not have more than 10 characters; found 20: 'CarelessWhisperLarge'",
        "authors.2.corresponding: error: must have only one corresponding author; found 2 (lines 55 and 63): "
        "keep one of them",
        "authors: error: belongs under submission; move it there, indented like the keys there",
        "submission.label: warning: should name the corresponding author, 'Gontier'; found 'kadlcik'",
        "system.description.data_augmentation: error: must be text; found a list: join the entries with commas: "
        "'mixup, noise'",
    ]


def test_other_keys_without_a_template_are_a_warning(tmp_path):
    name = "dcase2024-8"
    content = VALID[B].replace("task6b", "task8")
    assert said(name, content, tmp_path) == []
    other = content.replace("word_modelling: tr", "text_modelling: tr").replace("    optimizer: adamw\n", "")
    assert [re.sub(r";.*", "", found) for found in said(name, other, tmp_path)] == [
        "m.yaml:33: system.description.optimizer: warning: is missing",
        "m.yaml:42: system.description.text_modelling: warning: unknown key 'text_modelling'",
    ]
    missing, unknown = said(name, content.replace("  name: DC", "  title: DC"), tmp_path)
    assert ":2: submission.name: error: is missing" in missing
    assert ":7: submission.title: warning: unknown key 'title'" in unknown


@pytest.mark.parametrize(
    ("label", "lastname", "clear"),
    [
        ("deSouza", "de Souza", False),
        ("Mueller", "Müller", False),
        ("MULLER", "Müller", False),
        ("Lukasik", "Łukasik", False),
        ("Wang", "王", False),
        ("JongHyun", "Jong-Hyun", False),
        ("Wang", "Li", True),
    ],
)
def test_spellings_of_a_name(label, lastname, clear, tmp_path):
    content = VALID[A].replace("gontier_inr", f"{label}_inr").replace("lastname: Gontier", f"lastname: {lastname}")
    assert len(said(A, content, tmp_path)) == clear


def test_aliases_and_several_affiliations(tmp_path):
    content = VALID[A].replace(
        "corresponding: true\n      affiliation:", "corresponding: true\n      affiliation: &inria"
    )
    again = re.sub(
        r"affiliation:\n        abbreviation: LORIA(\n        .*)*", "affiliation:\n        <<: *inria\n", content
    )
    assert said(A, again, tmp_path) == []
    authors = documents.read(tmp_path / "m.yaml").values["submission"]["authors"]
    assert (
        authors[1]["affiliation"]
        == authors[0]["affiliation"]
        == yaml.safe_load(VALID[A])["submission"]["authors"][0]["affiliation"]
    )
    several = again.replace("affiliation:\n        <<: *inria", "affiliation:\n        - *inria\n        - *inria")
    assert said(A, several, tmp_path) == []
    values = documents.read(tmp_path / "m.yaml").values
    assert yaml.safe_load(metadata_text.text(TASKS[A], values)) == values


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(BadRequest, match="no such file"):
            documents.read(path)
        with pytest.raises(BadRequest, match="no such file"):
            teams.read(TASKS[A], path)


# ------------------------------------------------------------------------------------------------ hostile files

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000))
HOSTILE = {
    "10 GB": (None, "must not be larger than 262144 bytes"),
    "laughs": (LAUGHS, "must not hold more than 10000 values"),
    "merges": (MERGES, "must not hold more than 10000 values"),
    "alias of itself": ("a: &a\n  b: *a\n", "of a value that contains it"),
    "merge of itself": ("a: &a\n  <<: *a\n", "of a value that contains it"),
    "chain of aliases": (CHAIN, "must not be nested more than 50 levels"),
    "deep lists": ("[" * 100_000, "must not be nested more than 50 levels"),
    "deep keys": ("{a: " * 50_000, "must not be nested more than 50 levels"),
    "deep dashes": ("- " * 100_000, "must not be nested more than 50 levels"),
    "deep question marks": ("? " * 100_000, "must not be nested more than 50 levels"),
    "many values": ("a: [" + "x," * 120_000 + "]", "must not hold more than 10000 values"),
    "many keys": ("".join(f"k{n}: 1\n" for n in range(4000)), "more than 100 findings"),
    "many keys twice": ("k: 1\n" * 4000, "more than 100 findings"),
    "long": ("name: " + "x" * 250_000, "belongs under submission"),
    "long key": ("? " + "x" * 250_000, "unknown key 'xxx"),
    "long quotes": ("a: '" + "''" * 120_000, "never closed"),
    "comments": ("#" * 250_000, "found nothing"),
    "blank lines": ("\n" * 250_000, "found nothing"),
    "base 60": ("a: 1" + ":1" * 120_000, "must be a number, because YAML reads it as one"),
    "hexadecimal": ("a: 0x" + "f" * 250_000, "must be a number, because YAML reads it as one"),
    "tabs": ("a:\n" + "\tb: 1\n" * 40_000, "is indented by a tab"),
    "odd indentation": ("".join(" " * (n % 40) + "a: b\n" for n in range(8_000)), "must be indented|is indented"),
    "odd steps": ("a:\n" + "  b: 1\n" * 4000 + " c: 1\n", "is indented by 1 space,"),
    "dashes in a text": ("a: |\n  " + "- " * 120_000 + "\n b: 1\n", "must be|is in|is no"),
    "tags": ("a: !!python/object/apply:os.system [touch hacked]\n", "must not have the tag"),
    "directive": ("%TAG ! tag:x,2000:\n---\na: !b c\n", "must not have the tag"),
}


def test_hostile_files_are_found_fast_and_in_bounded_memory(tmp_path):
    """The check runs in a separate process with 1 GB of memory. A file that needs more ends the process."""
    for number, (content, _) in enumerate(HOSTILE.values()):
        with (tmp_path / f"{number}.yaml").open("wb") as file:
            if content is None:
                file.truncate(10**10)
            else:
                file.write(content.encode())
    code = (
        "import resource, sys, time; from pathlib import Path; resource.setrlimit(resource.RLIMIT_AS, (10**9,) * 2);"
        "from submission import metadata, tasks\n"
        f"task = tasks.read({A!r})\n"
        "for number in range(int(sys.argv[1])):\n"
        "    start = time.perf_counter()\n"
        "    found = list(map(str, metadata.validate(task, Path(f'{number}.yaml'))[1]))\n"
        "    print(len(found), max(map(len, found)), time.perf_counter() - start, *found, sep='\\x1f')\n"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, str(len(HOSTILE))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    for (kind, (_, message)), line in zip(HOSTILE.items(), done.stdout.splitlines(), strict=True):
        count, longest, seconds, *found = line.split("\x1f")
        assert 1 <= int(count) <= documents.LISTED + 1, kind
        assert int(longest) < 2000, kind
        assert float(seconds) < 10, kind
        assert any(re.search(message, finding) for finding in found), (kind, found[:2])
    assert not (tmp_path / "hacked").exists()
    assert time.perf_counter() - start < 60


def test_starts_fast():
    heavy = {"torch", "scipy", "pandas", "lightning"}
    code = f"import sys; from submission import metadata; print(*{heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert not done.stdout.strip()
