"""The output of automated audio captioning: a table with a caption for each clip."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from evaluation.data import caption_text
from evaluation.data.cells import audio_name_fault
from evaluation.data.dataset import Split
from evaluation.findings import WARNING, Finding
from evaluation.predictions import Captions
from evaluation.text import quoted
from submission.outputs import keys
from submission.outputs.tables import Records, Table

if TYPE_CHECKING:
    from submission.tasks import Task


class CaptionTable(Table):
    """A table with a caption for each clip."""

    term = keys.CLIP
    submitted = "one caption for each clip"
    content = "the clip and its caption"
    own_prediction = "write a CSV with the columns file_name and caption_predicted"

    def expected(self, split: Split) -> Sequence[str]:
        """Return the names of the clips."""
        return split.file_names

    def rows(
        self, task: "Task", prediction: Captions, split: Split, file: str
    ) -> tuple[list[str], Iterable[Sequence[str]]]:
        """Return the header, and the clips in the order of the split with their captions."""
        from evaluation.metrics import captioning  # imports scipy, which no other form needs

        captioning.validate(split, prediction, file)
        captions = dict(zip(prediction.file_names, prediction.captions, strict=True))
        return task.header(), [(name, captions[name]) for name in split.file_names]

    def check_rows(
        self, task: "Task", header: list[str], records: Records, split: Split | str, file: str, lines: dict[str, int]
    ) -> Iterator[Finding]:
        """Yield findings about rows whose clip is repeated or whose caption is not a line with words."""
        name, caption = task.header()
        for line, cells in records:
            yield from self.check_width(task, cells, 2, file, line)
            yield from self.add_key(lines, cells[0], line, task, file)
            if isinstance(split, str):
                fault = audio_name_fault(cells[0])
                if fault:
                    yield Finding(file, line, name, fault)
            if len(cells) != 2:
                continue
            if not cells[1].strip():
                yield Finding(file, line, caption, "must not be empty; write a caption")
            elif len((cells[1] + ".").splitlines()) > 1:
                yield Finding(file, line, caption, f"must be one line; found {quoted(cells[1])}: remove the line break")
            elif not any(character.isalnum() for character in cells[1]):
                message = f"should have a word; found {quoted(cells[1])}, which scores 0"
                yield Finding(file, line, caption, message, WARNING)
            for _, remark in caption_text.caption_remarks(cells[1]):
                yield Finding(file, line, caption, remark, WARNING)

    def describe(self, task: "Task") -> str:
        """Describe the columns."""
        name, caption = task.header()
        return (
            f"The **output** is a CSV file in UTF-8. It has the columns `{name}` and `{caption}`, and one row for each "
            f"clip. {self.layout_text(task)} All names must be exactly as in the data set."
        )
