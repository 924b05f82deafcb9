"""Audio question answering: an option for each multiple-choice question about a clip."""

import json
from pathlib import Path

from evaluation.choice_formats import Answers, read_answers
from evaluation.data.dataset import EVALUATION
from submission.kinds.files import FileKind
from submission.outputs.choices import ChoiceTable
from submission.outputs.form import FileSplit


class Choice(FileKind):
    """Audio question answering."""

    name = "choice"
    forms = {"choices": ChoiceTable()}  # noqa: RUF012, nothing changes it
    memory = 2 * 2**30
    suffixes = (".csv", ".jsonl")
    answers = "answers to questions"
    of_system = "answers to questions"
    system = "question answering system"
    scored = "answers"
    score_name = f"{EVALUATION}-choice"
    about = (
        "Audio question answering systems answer multiple-choice questions about audio clips. You run your system on "
        "the questions and clips of the evaluation set and submit {submitted}. The answers are compared with the right "
        "ones."
    )
    signature = "truth:questions"

    def sizes(self, split: FileSplit) -> dict[str, int]:
        """Return the number of questions."""
        return {"questions": len(split.content.questions)}

    def read_prediction(self, path: Path, split: FileSplit) -> Answers:
        """Read the answers of a CSV or of JSON lines."""
        return read_answers(path)

    def write_data(self, split: FileSplit, truth: bool, folder: Path) -> None:
        """Write the questions as JSON lines."""
        with (folder / f"{self.stem}_{split.name}.jsonl").open("w", encoding="utf-8") as file:
            for question in split.content.questions:
                content = {
                    "id": question.id,
                    "audio_path": question.audio,
                    "question_text": question.text,
                    "multi_choice": question.options,
                    "question_type": question.type,
                    "source_dataset": question.part,
                }
                if truth:
                    content["answer"] = question.answer
                file.write(json.dumps(content, ensure_ascii=False) + "\n")
