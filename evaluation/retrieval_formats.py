"""Reading the prediction of a retriever from one file.

The file may be an .npz that `Similarity.save` wrote, a matrix as CSV, .npy or .npz, a CSV with the best clips of each
query, or a run in TREC's format.
"""

from pathlib import Path

from evaluation import array_files, predictions, trec
from evaluation.data.dataset import Split
from evaluation.data.relevance import Relevance
from evaluation.findings import BadRequest, Finding
from evaluation.metrics import retrieval
from evaluation.predictions import Ranking, Similarity

NOTHING_GIVEN = array_files.Given()


def read_prediction(
    path: Path,
    split: Split,
    truth: Relevance,
    *,
    given: array_files.Given = NOTHING_GIVEN,
    direction: str = retrieval.TEXT_TO_AUDIO,
    expected: tuple[int, int] | None = None,
) -> tuple[Similarity | Ranking, list[Finding]]:
    """Read a prediction.

    Args:
        path: The file.
        split: The split that the prediction is for.
        truth: The relevant clips of each query.
        given: The names of clips and queries, for a matrix that does not contain them.
        direction: The direction of a run in TREC's format, one of `retrieval.DIRECTIONS`.
        expected: As in `predictions.read_retrieval`.

    Returns:
        The prediction, and notes about what was assumed about the file.

    Raises:
        BadRequest: The file does not exist, or is not in one of these forms.
        Faulty: The file is not valid. The exception lists all findings.
    """
    if path.suffix.lower() == ".npy" or given != NOTHING_GIVEN or array_files.is_other_matrix(path):
        return array_files.read_matrix(path, split, truth, given)
    if path.suffix.lower() in trec.SUFFIXES and path.is_file():
        if not trec.is_trec(path, len(trec.RUN_COLUMNS)):
            columns = " ".join(trec.RUN_COLUMNS)
            raise BadRequest(f"{path}: must be a run in TREC's format ({columns}); or give .npz, .npy or .csv")
        run = trec.read_run(path)
        answers: retrieval.Truth = truth
        if direction == retrieval.AUDIO_TO_TEXT:
            answers = retrieval.reversed_truth(truth)
        return run.ranking(answers), list(run.findings)
    prediction = predictions.read_retrieval(path, expected)
    if isinstance(prediction, Similarity):
        return array_files.texts_as_rows(prediction, truth, split, str(path))
    return prediction, []
