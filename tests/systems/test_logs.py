"""Less output from the loggers of other libraries."""

import logging

import pytest

from systems.logs import quiet


def test_the_levels_are_restored_after_the_block():
    logger = logging.getLogger("somebody.else")
    logger.setLevel(logging.INFO)
    with pytest.raises(ValueError, match="stop"), quiet(logging.ERROR, "somebody.else"):
        assert logger.level == logging.ERROR
        raise ValueError("stop")
    assert logger.level == logging.INFO
