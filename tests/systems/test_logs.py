"""Quieter logs of other libraries."""

import logging

import pytest

from systems.logs import quiet


def test_levels_are_as_before_after_the_block():
    logger = logging.getLogger("somebody.else")
    logger.setLevel(logging.INFO)
    with pytest.raises(ValueError, match="stop"), quiet(logging.ERROR, "somebody.else"):
        assert logger.level == logging.ERROR
        raise ValueError("stop")
    assert logger.level == logging.INFO
