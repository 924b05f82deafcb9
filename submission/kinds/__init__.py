"""The kinds of tasks. All that differs between them is here: the rest of the package asks `KINDS`.

To add a kind:

1. Add its metrics and the function that scores a prediction to `evaluation.kinds`.
2. Write a form of output files in `submission.outputs`, a subclass of `Form` or of `Table`, unless there is one.
3. Write a subclass of `Kind`, and add it to `KINDS`.
4. Write a task file with this `kind`.
"""

from typing import TYPE_CHECKING

from submission.kinds.captioning import Captioning
from submission.kinds.choice import Choice
from submission.kinds.moments import MomentRetrieval
from submission.kinds.retrieval import Retrieval

if TYPE_CHECKING:
    from submission.kinds.kind import Kind

KINDS: dict[str, "Kind"] = {kind.name: kind for kind in (Captioning(), Choice(), MomentRetrieval(), Retrieval())}
