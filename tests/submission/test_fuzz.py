"""Random edits of valid packages and predictions lead to no traceback, no changed file and no wrong verdict.

An edited package that is valid has the same answers as before. An edited prediction that is scored has the score that a
plain reader gives. `make test` tries 300 edits and `make fuzz` the number in FUZZ, with three packages for each
prediction.
"""

import csv
import html
import io
import json
import os
import tempfile
import zipfile
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from evaluation import npz, predictions
from evaluation.findings import ERROR, BadRequest, Faulty, Finding
from evaluation.metrics import captioning, retrieval
from submission import package
from submission.kinds import KINDS
from tests.submission import made

EXAMPLES = int(os.environ.get("FUZZ", "300"))
TASKS = ("dcase2023-6a", "dcase2022-6b", "dcase2025-6", "dcase2026-5", "dcase2026-6")
PARTS = ("output", "metadata", "zip")

CUTS = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 12),
    st.one_of(
        st.binary(max_size=4),
        st.sampled_from(b', " \n \r \0 \t ; : # - [ ] { } & * ! nan 1e5 \xff / ../'.split()),
        st.sampled_from([b"\xef\xbb\xbf", b"\n\n", b"  ", b"PK\x03\x04", b"PK\x05\x06", b"!!python/object:os.system"]),
    ),
)
REWRITTEN = {  # changes that spreadsheets, editors and scripts make to a text
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "BOM": lambda text: "\ufeff" + text,
    "no last line end": lambda text: text.rstrip("\n"),
    "tabs for commas": lambda text: text.replace(",", "\t"),
    "semicolons for commas": lambda text: text.replace(",", ";"),
    "lower case": str.lower,
    "unescaped": html.unescape,
    "blanks at line ends": lambda text: text.replace("\n", " \n"),
    "stripped": lambda text: "\n".join(line.strip() for line in text.split("\n")),
    "no quotes": lambda text: text.replace('"', ""),
    "tabs for indents": lambda text: text.replace("  ", "\t"),
    "blank lines": lambda text: text.replace("\n", "\n\n"),
    "an index": lambda text: "\n".join(f"{number},{line}" for number, line in enumerate(text.split("\n"))),
}
LINES = {  # changes of the lines i and j
    "gone": lambda rows, i, j: rows[:i] + rows[i + 1 :],
    "twice": lambda rows, i, j: [*rows[: i + 1], *rows[i:]],
    "elsewhere": lambda rows, i, j: [*rows[:j], rows[i], *rows[j:]],
    "joined": lambda rows, i, j: [*rows[:i], "".join(rows[i : i + 2]), *rows[i + 2 :]],
    "the end gone": lambda rows, i, j: rows[:i],
}
EDITS = st.one_of(
    CUTS,
    st.sampled_from(sorted(REWRITTEN)),
    st.tuples(st.sampled_from(sorted(LINES)), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)


def edited(raw: bytes, edit) -> bytes:
    if isinstance(edit, str):
        return REWRITTEN[edit](raw.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    if isinstance(edit[0], str):
        rows = raw.decode("utf-8", "surrogateescape").split("\n")
        rows = LINES[edit[0]](rows, *(int(where * len(rows)) for where in edit[1:]))
        return "\n".join(rows).encode("utf-8", "surrogateescape")
    where, cut, text = edit
    at = int(where * len(raw))
    return raw[:at] + text + raw[at + cut :]


@cache  # not a fixture, because hypothesis would print all of it with every failure
def packaged(name: str):
    with tempfile.TemporaryDirectory() as folder:
        return made.packaged(name, Path(folder))


@settings(max_examples=EXAMPLES * 3 // 4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(TASKS), st.sampled_from(PARTS), st.lists(EDITS, min_size=1, max_size=3))
@example("dcase2022-6b", "zip", [(0.953125, 4, b"\0\0\0\0")])  # in the name of the report
def test_random_edits(name, kind, edits):
    task, files, splits = packaged(name)
    files = dict(files)
    suffix = {"output": task.output_form.suffix, "metadata": ".yaml"}.get(kind, "")
    target = next(inner for inner in files if inner.endswith(suffix))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "P.zip"
        if kind != "zip":
            for edit in edits:
                files[target] = edited(files[target], edit)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for inner, content in files.items():
                file.writestr(zipfile.ZipInfo(inner), content)
        if kind == "zip":
            raw = path.read_bytes()
            for edit in edits:
                raw = edited(raw, edit)
            path.write_bytes(raw)
        before = path.read_bytes()
        with package.checked(task, path, splits) as content:
            assert all(isinstance(finding, Finding) and str(finding).isprintable() for finding in content.findings)
            errors = [finding for finding in content.findings if finding.severity == ERROR]
            assert bool(content.systems) == all(made.is_about_report(finding) for finding in errors)
            for system in content.systems:
                unchanged(task, files, splits, system, kind)
        assert path.read_bytes() == before
        assert [entry.name for entry in Path(folder).iterdir()] == ["P.zip"]


def unchanged(task, files, splits, system, kind) -> None:
    """If a system is valid, scoring reads the same answers as a plain reader, and each query or clip has one answer."""
    index = system.label[-1]
    for split, path in system.outputs.items():
        folder = f"{task.package.folder.value.format(label=system.label)}/"
        name = task.sets[split].file.value.format(author="Wu", institute="Mila", index=index, label=system.label)
        content = path.read_bytes()
        assert content == files[folder + name]  # also from an edited zip: the answers have not changed
        text = content.decode("utf-8-sig")
        if task.kind == "moments":
            read = KINDS["moments"].read_prediction(path, splits[split])
            lines = [json.loads(line) for line in text.split("\n") if line.strip()]
            assert list(read.ids) == [str(line["qid"]) for line in lines]
            assert [each.tolist() for each in read.windows] == [line["pred_relevant_windows"] for line in lines]
            assert sorted(read.ids) == sorted(splits[split].content.by_id)
            continue
        separator = "\t" if "\t" in text.splitlines()[0] else ","
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
        if task.kind == "captioning":
            read = predictions.read_captions(path)
            assert list(zip(read.file_names, read.captions, strict=True)) == [tuple(row) for row in rows]
            asked = splits[split].file_names
        elif task.kind == "choice":
            read = KINDS["choice"].read_prediction(path, splits[split])
            assert list(zip(read.ids, read.answers, strict=True)) == [tuple(row) for row in rows]
            asked = splits[split].content.by_id
            assert all(answer in asked[name].options for name, answer in rows)
        else:
            read = predictions.read_retrieval(path)
            asked = splits[split].queries
            if task.k:
                assert [[q, *n] for q, n in zip(read.queries, read.file_names, strict=True)] == rows
                assert all(len(set(row[1:])) == task.k.value for row in rows)
            else:
                assert read.file_names == tuple(header[1:])
                assert read.scores.tolist() == [[float(cell) for cell in row[1:]] for row in rows]
        assert sorted(row[0] for row in rows) == sorted(asked)
    said = system.metadata.get("submission", {})  # a misspelt key is only a warning if the template is not known
    assert said.get("label", system.label) == system.label
    if kind == "metadata" and index == "1":
        (said,) = (files[inner] for inner in files if inner.endswith(("_1_metadata.yaml", "_1.meta.yaml")))
        assert system.metadata == yaml.safe_load(said)


CONTENT = {  # the attributes of a prediction that a changed file must not change
    "captioning": ("file_names", "captions"),
    "retrieval": ("queries", "file_names"),
    "choice": ("ids", "answers"),
    "moments": ("ids", "scores"),
}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("rewriting", REWRITTEN)
def test_what_editors_do_never_changes_a_score(name, rewriting, tmp_path):
    """A changed text is valid only if its content is the same."""
    task, files, splits = packaged(name)
    split = next(iter(task.sets))
    label = task.label.value.format(author="Wu", institute="Mila", index=1)
    named = task.sets[split].file.value.format(author="Wu", institute="Mila", index=1, label=label)
    target = next(inner for inner in files if inner.endswith(named))
    path = tmp_path / f"output{task.output_form.suffix}"
    path.write_bytes(files[target])
    kind = KINDS[task.kind]
    before = kind.read_prediction(path, splits[split])
    path.write_bytes(edited(files[target], rewriting))
    zipped = tmp_path / "P.zip"
    with zipfile.ZipFile(zipped, "w") as file:
        for inner, content in files.items():
            file.writestr(inner, path.read_bytes() if inner == target else content)
    with package.checked(task, zipped, splits) as content:
        for system in content.systems[:1]:
            after = kind.read_prediction(system.outputs[split], splits[split])
            pairs = CONTENT[task.kind]
            assert [getattr(after, key) for key in pairs] == [getattr(before, key) for key in pairs]
            if task.kind == "moments":
                assert [each.tolist() for each in after.windows] == [each.tolist() for each in before.windows]
            if not task.k and task.kind == "retrieval":
                assert after.scores.tolist() == before.scores.tolist()


# ------------------------------------------------------------------------------------------------ predictions

SPLIT = made.split("evaluation", 12)
SPLIT = replace(
    SPLIT,
    clips=tuple(replace(clip, captions=(f"Sound {n} is heard.", "It rains.")) for n, clip in enumerate(SPLIT.clips)),
)
MEMORY = 2**24  # maximum bytes of an array; the expected arrays need a ten-thousandth of it
METRICS = ("rouge_l", "bleu_1")


def similarity() -> predictions.Similarity:
    scores = np.random.default_rng(0).normal(size=(len(SPLIT.queries), len(SPLIT.clips))).round(2)
    return predictions.Similarity(SPLIT.queries, SPLIT.file_names, scores)


def table(*rows) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


@cache
def prediction_files() -> dict[str, dict[str, bytes]]:
    """Return a prediction of each kind: the content of its file, or of the files in an npz."""
    matrix = similarity()
    best = matrix.top(5)
    captions = [(name, f"Sound {n} is heard") for n, name in enumerate(SPLIT.file_names)]
    arrays = {
        "queries": np.frombuffer(json.dumps(matrix.queries).encode(), np.uint8),
        "file_names": np.frombuffer(json.dumps(matrix.file_names).encode(), np.uint8),
        "scores": matrix.scores,
    }
    inside = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array)
        inside[f"{name}.npy"] = file.getvalue()
    return {
        "captions": {"p.csv": table(predictions.CAPTION_COLUMNS, *captions)},
        "best clips": {
            "p.csv": table(range(6), *([q, *n] for q, n in zip(best.queries, best.file_names, strict=True)))
        },
        "matrix": {
            "p.csv": table(
                ["query", *matrix.file_names],
                *([q, *row] for q, row in zip(matrix.queries, matrix.scores.tolist(), strict=True)),
            )
        },
        "npz": inside,
    }


def plainly_read(kind: str, path: Path) -> object:
    """Read a prediction with the readers of Python and numpy, without any check."""
    if kind == "npz":
        with zipfile.ZipFile(path) as file:  # numpy refuses an npz with other bytes before it
            arrays = {
                name: np.load(io.BytesIO(file.read(f"{name}.npy"))) for name in ("queries", "file_names", "scores")
            }
        names = (tuple(json.loads(arrays[key].tobytes())) for key in ("queries", "file_names"))
        return predictions.Similarity(*names, arrays["scores"])
    text = path.read_bytes().decode("utf-8-sig")
    separator = "\t" if "\t" in text.splitlines()[0] else ","
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header, *rows = [row for row in lines if "".join(row).strip()]  # a line may have only blanks
    if kind == "captions":
        said = [dict(zip(header, row, strict=True)) for row in rows]
        return predictions.Captions(*(tuple(row[column] for row in said) for column in predictions.CAPTION_COLUMNS))
    queries = tuple(row[0] for row in rows)
    if kind == "best clips":
        return predictions.Ranking(queries, tuple(tuple(row[1:]) for row in rows))
    return predictions.Similarity(
        queries, tuple(header[1:]), np.array([[float(cell) for cell in row[1:]] for row in rows])
    )


def score(kind: str, prediction: object) -> dict[str, object]:
    """Return the scores of a prediction. Captions are tokenised without Java."""
    if kind == "captions":
        with ExitStack() as stack:
            plain = {
                "find_java": lambda: None,
                "token_file": lambda *_: Path("nowhere"),
                "ptb_tokenize": lambda texts, *_, **__: [" ".join(text.lower().split()) for text in texts],
            }
            for name, function in plain.items():
                stack.enter_context(mock.patch.object(captioning, name, function))
            found = captioning.evaluate(prediction, SPLIT, metrics=METRICS)
    else:
        found = retrieval.evaluate(SPLIT, prediction, metrics=["mAP@10", "R@1", "MRR"])
    return {name: (measured.estimate, measured.values.tolist()) for name, measured in found.metrics.items()}


def bounded(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array of an npz, with a limit on its memory."""
    assert npz.read_header(archive, name).bytes <= MEMORY
    return ARRAY(archive, name)


ARRAY = npz.read_array


@settings(max_examples=EXAMPLES // 4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(prediction_files())),
    st.lists(EDITS, min_size=1, max_size=3),
    st.integers(0, 2),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    st.booleans(),
)
def test_random_edits_of_a_prediction(kind, edits, which, method, whole):
    """`whole` edits the npz itself; otherwise the files in it are edited, so that their checksums are right."""
    files = dict(prediction_files()[kind])
    if kind != "npz" or not whole:
        target = sorted(files)[which % len(files)]
        for edit in edits:
            files[target] = edited(files[target], edit)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("p.npz" if kind == "npz" else "p.csv")
        if kind == "npz":
            with zipfile.ZipFile(path, "w", method) as file:
                for name, content in files.items():
                    file.writestr(name, content)
            if whole:
                for edit in edits:
                    path.write_bytes(edited(path.read_bytes(), edit))
        else:
            path.write_bytes(files["p.csv"])
        before = path.read_bytes()
        try:
            with mock.patch.object(npz, "read_array", bounded):
                asked = (len(SPLIT.queries), len(SPLIT.clips))
                if kind == "captions":
                    read = predictions.read_captions(path)
                else:
                    read = predictions.read_retrieval(path, asked)
                found = score(kind, read)
        except Faulty as faulty:
            assert faulty.findings
            assert all(str(finding).isprintable() for finding in faulty.findings)
        except BadRequest as mistake:
            assert kind != "captions" or "captions" not in str(mistake)
        else:
            assert found == score(kind, plainly_read(kind, path))
        assert path.read_bytes() == before
        assert [entry.name for entry in Path(folder).iterdir()] == [path.name]


def test_a_prediction_that_was_not_edited_is_scored(tmp_path):
    """Without edits, nothing is refused; otherwise the edits might all be refused for another reason."""
    for kind, files in prediction_files().items():
        path = tmp_path / ("p.npz" if kind == "npz" else "p.csv")
        with zipfile.ZipFile(tmp_path / "p.npz", "w") as file:
            for name, content in files.items():
                file.writestr(name, content)
        if kind != "npz":
            path.write_bytes(files["p.csv"])
        read = predictions.read_captions(path) if kind == "captions" else predictions.read_retrieval(path)
        assert score(kind, read) == score(kind, plainly_read(kind, path))
