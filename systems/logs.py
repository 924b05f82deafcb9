"""A context manager that reduces the log output of other libraries."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(level: int, *names: str) -> Iterator[None]:
    """Within the block, log only messages of at least a given level.

    Args:
        level: The minimum level, such as `logging.WARNING`.
        names: Names of the loggers.
    """
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)
