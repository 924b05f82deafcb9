"""The kinds of tasks. `KINDS` contains everything in which they differ, and the rest of the package reads it.

To add a kind:

1. Add its metrics and its entry in `evaluation.kinds`, as the docstring of that module says.
2. Write a form of output files in `submission.outputs`, a subclass of `Form` or of `Table`, unless a suitable form
   exists.
3. Write a subclass of `Kind`, and add it to `KINDS`.
4. Write a task file whose key `kind` names it.
"""

from typing import TYPE_CHECKING

from submission.kinds.captioning import Captioning
from submission.kinds.choice import Choice
from submission.kinds.moments import MomentRetrieval
from submission.kinds.retrieval import Retrieval

if TYPE_CHECKING:
    from submission.kinds.kind import Kind

KINDS: dict[str, "Kind"] = {kind.name: kind for kind in (Captioning(), Choice(), MomentRetrieval(), Retrieval())}
