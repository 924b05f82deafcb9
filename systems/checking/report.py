"""The findings of `dcase-systems check`. Each broken rule gives one finding, even if several inputs break it."""

import contextlib
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.text import cut, first_items
from systems.modules import UntrustedModule

PLACES = 3  # maximum number of inputs that a finding names
FIX = "fix it"


@dataclass
class BrokenRule:
    """A rule of `systems.contract` that a system breaks.

    Attributes:
        found: What was found when the rule was first broken.
        advice: What to do.
        places: The inputs that break the rule. A place is an empty text if the rule does not depend on the input.
    """

    found: str
    advice: str
    places: list[str] = field(default_factory=list)


class Report:
    """A collection of the rules that a system breaks.

    Args:
        name: The system's import name.
    """

    def __init__(self, name: str):
        self.name = name
        self.rules: dict[tuple[str, str], BrokenRule] = {}  # from a part of the system and what it must do

    def add(self, part: str, must: str, found: str, advice: str, place: str = "") -> None:
        """Add a broken rule. If the report contains the rule already, only add the input to it.

        Args:
            part: The part of the system, such as `embed_audio`.
            must: What the part must do.
            found: What was found.
            advice: What to do.
            place: The input that breaks the rule, if any.
        """
        rule = self.rules.setdefault((part, must), BrokenRule(found, advice))
        rule.places.append(place)

    @property
    def findings(self) -> list[Finding]:
        """A finding for each broken rule, in the order in which they were broken."""
        findings = []
        for (part, must), rule in self.rules.items():
            message = f"must {must}; found {rule.found}{_named(rule.places)}: {rule.advice}"
            findings.append(Finding(self.name, column=part, message=message))
        return findings

    @contextlib.contextmanager
    def catching(self, part: str, must: str, place: str = "") -> Iterator[None]:
        """Within the block, report exceptions that the system's code raises, and suppress them.

        For most exceptions, the finding names the file and the line. `UntrustedModule` and KeyboardInterrupt are not
        suppressed.

        Args:
            part: The part of the system that the block runs.
            must: What the part must do.
            place: The input, if any.
        """
        try:
            yield
        except UntrustedModule:
            raise
        except (BadRequest, Faulty) as error:
            self.add(part, must, cut(str(error)), FIX, place)
        except (Exception, SystemExit) as error:
            raised = type(error).__name__
            message = cut(" ".join(str(error).split()))
            if message:
                raised += f" ({message})"
            self.add(part, must, raised + self._line(error), FIX, place)

    def _line(self, error: BaseException) -> str:
        """Return the file and the line where an exception was raised.

        This is the last line that was running in the system's own files, or if there is none, in any file outside this
        folder. If there is no such line either, the text is empty.
        """
        if isinstance(error, SyntaxError):
            return f" at {error.filename}:{error.lineno}"
        check = Path(__file__).parent
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent != check]
        of_system = [frame for frame in frames if self._is_of_system(frame.filename)]
        if of_system:
            frames = of_system
        if not frames:
            return ""
        return f" at {frames[-1].filename}:{frames[-1].lineno}"

    def _is_of_system(self, file: str) -> bool:
        """Return whether a source file is the system's module, or is in the system's package."""
        source = getattr(sys.modules.get(self.name), "__file__", None)
        if file == source:
            return True
        if source and source.endswith("__init__.py"):
            return Path(source).parent in Path(file).parents
        return False


def _named(places: list[str]) -> str:
    """Return a text with the first inputs and the number of the others, or an empty text if there are no inputs."""
    different = list(dict.fromkeys(place for place in places if place))
    if not different:
        return ""
    return f" for {first_items(different, PLACES)}"
