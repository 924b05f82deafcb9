"""Runs and qrels: scores are those of trec_eval if no scores are equal, and wrong lines are listed."""

import random
from pathlib import Path

import pytest
import pytrec_eval

from evaluation.findings import BadRequest, Faulty
from evaluation.metrics.retrieval import evaluate
from evaluation.trec import is_trec, read_qrels, read_run

METRICS = {
    "mAP@10": "map_cut_10",
    "R@5": "recall_5",
    "nDCG@10": "ndcg_cut_10",
    "success@1": "success_1",
    "MRR": "recip_rank",
}


def write(path: Path, lines) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def files(tmp_path, seed: int, ties: bool = False):
    chance = random.Random(seed)  # noqa: S311, not for cryptography
    clips = [f"d{number}" for number in range(40)]
    qrels, run = {}, {}
    for query in (f"q{number}" for number in range(8)):
        qrels[query] = {clip: chance.choice([0, 0, 1, 2]) for clip in chance.sample(clips[:30], 12)}
        qrels[query][chance.choice(list(qrels[query]))] = 1
        scores = [1.0] * 40 if ties else chance.sample(range(-50, 50), 40)
        run[query] = dict(zip(chance.sample(clips, 25), scores, strict=False))
    lines = [f"{query} 0 {clip} {grade}" for query, grades in qrels.items() for clip, grade in grades.items()]
    write(tmp_path / "qrels.txt", lines)
    lines = [f"{query}\tQ0\t{clip}\t1\t{score}\ttag" for query, scores in run.items() for clip, score in scores.items()]
    write(tmp_path / "s.run", lines)
    return qrels, run


@pytest.mark.parametrize("seed", range(4))
def test_equals_trec_eval(seed, tmp_path):
    qrels, scores = files(tmp_path, seed)
    split, warnings = read_qrels(tmp_path / "qrels.txt")
    run = read_run(tmp_path / "s.run")
    assert warnings == []
    score = evaluate(split, run.ranking(split.truth), metrics=list(METRICS), lists_all_clips=False)
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {*METRICS.values()}).evaluate(scores)
    for name, measure in METRICS.items():
        for query, value in zip(score.items.names, score.metrics[name].values, strict=True):
            assert value == pytest.approx(theirs[query][measure], abs=1e-12)
        assert score.metrics[name].chance is None
    assert "clips:not-listed" in score.signature.split("|")
    assert not [finding for finding in score.findings if "counts as wrong" in finding.message]


def test_equal_scores_rank_the_relevant_clips_last(tmp_path):
    """trec_eval ranks them by falling names."""
    write(tmp_path / "qrels", ["q 0 z 2", "q 0 y 1", "q 0 x 0"])
    write(tmp_path / "run", ["q Q0 z 1 0.5 t", "q Q0 y 2 0.5 t", "q Q0 x 3 0.5 t", "q Q0 w 4 0.5 t", "q Q0 v 5 0.1 t"])
    split, _ = read_qrels(tmp_path / "qrels")
    ranking = read_run(tmp_path / "run").ranking(split.truth)
    assert ranking.file_names == (("x", "w", "y", "z", "v"),)
    assert ranking.lines == (1,)


def test_queries_without_a_relevant_clip_are_left_out(tmp_path):
    write(tmp_path / "qrels", ["q 0 z 1", "p 0 z 0", "p 0 y -1"])
    split, warnings = read_qrels(tmp_path / "qrels")
    assert split.truth == {"q": {"z": 1.0}}
    assert [str(warning) for warning in warnings] == [
        f"{tmp_path}/qrels: warning: 1 query has no clip with a grade above 0; left out"
    ]


def test_names_with_blanks_need_tabs(tmp_path):
    write(tmp_path / "qrels", ["A dog barks.\t0\t dog, one.wav\t1"])
    write(tmp_path / "run", ["A dog barks.\tQ0\t dog, one.wav\t1\t.5\tmy run"])
    split, _ = read_qrels(tmp_path / "qrels")
    assert split.file_names == (" dog, one.wav",)
    assert read_run(tmp_path / "run").ranking(split.truth).file_names == ((" dog, one.wav",),)
    assert is_trec(tmp_path / "run", 6)
    assert not is_trec(tmp_path / "run", 4)


def test_ranks_that_contradict_the_scores(tmp_path):
    write(tmp_path / "run", ["q Q0 a 1 0.1 t", "q Q0 b 2 0.2 t", "p Q0 a 1 0.2 t", "p Q0 b 2 0.2 t"])
    (warning,) = read_run(tmp_path / "run").findings
    assert str(warning) == (
        f"{tmp_path}/run:1: rank: warning: the ranks of 1 list contradict the scores, for example those of 'q'; "
        "the scores count, and a larger score is better"
    )


@pytest.mark.parametrize(
    ("read", "lines", "expected"),
    [
        (
            read_run,
            ["q Q0 a 1 0.5"],
            ["1: error: must have 6 columns, query Q0 clip rank score tag; found 5: separate"],
        ),
        (read_run, ["", "q Q0 a 1 x t"], ["2: score: error: must be a finite number; found 'x'"]),
        (read_run, ["q Q0 a 1 nan t", "q Q0 a 1 inf t"], ["1: score: error: must be", "2: score: error: must be a"]),
        (read_qrels, ["q 0 a"], ["1: error: must have 4 columns, query iteration clip grade; found 3: separate names"]),
        (read_qrels, ["q 0 a yes"], ["1: grade: error: must be a number; found 'yes'"]),
        (
            read_qrels,
            ["q 0 a 1", "q 0 a 2"],
            ["2: clip: error: 'a' is given twice for the query 'q'; remove one of the"],
        ),
        (read_qrels, ["q 0 a 0"], [" error: must have a clip with a grade above 0; found none"]),
        (read_qrels, [], [" error: must have a clip with a grade above 0; found none"]),
    ],
)
def test_lines_that_are_wrong(read, lines, expected, tmp_path):
    path = write(tmp_path / "file", lines)
    with pytest.raises(Faulty) as faulty:
        read(path)
    for line, beginning in zip(str(faulty.value).splitlines(), expected, strict=True):
        assert line.removeprefix(f"{path}:").startswith(beginning)


def test_no_such_file(tmp_path):
    for read, columns in ((read_run, "query Q0 clip rank score tag"), (read_qrels, "query iteration clip grade")):
        with pytest.raises(BadRequest, match=f"no such file; give .* in TREC's format: {columns}"):
            read(tmp_path / "no")


def test_a_run_of_another_collection(tmp_path):
    write(tmp_path / "qrels", ["q 0 a 1"])
    write(tmp_path / "run", ["q Q0 x 1 0.5 t"])
    split, _ = read_qrels(tmp_path / "qrels")
    with pytest.raises(Faulty, match="names none of the split's 1 clips"):
        evaluate(split, read_run(tmp_path / "run").ranking(split.truth), lists_all_clips=False)
