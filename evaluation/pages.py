"""What the HTML pages of the kit share: templates that escape texts, and parts of Content Security Policies."""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from evaluation.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment


def page_environment(templates: Path) -> "Environment":
    """Return the environment of the templates in a folder.

    Every text is escaped and shown without control characters. If a template uses a name without a value, the template
    raises an error.
    """
    import jinja2  # imported here, so that the error message of a wrong request appears quickly

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _printable(value: object) -> object:
    """Return a value as text without control characters, or markup unchanged."""
    if isinstance(value, Markup):
        return value
    return printable(str(value))


def policy_source(text: str) -> str:
    """Return the source of a Content Security Policy that allows one style sheet or script with exactly this text."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
