"""Tests of loggers that a whole process shares."""

import logging
from logging.config import dictConfig

import pytest

from monai_mil_ext.utils import keep_loggers, quiet_loggers


def test_quiet_loggers_have_their_levels_again_after_an_error():
    loud, plain = logging.getLogger("loud"), logging.getLogger("plain")
    loud.setLevel(logging.DEBUG)

    def fail():
        with quiet_loggers(loud, plain):
            assert not loud.isEnabledFor(logging.INFO)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert (loud.level, plain.level) == (logging.DEBUG, logging.NOTSET)


def test_loggers_that_others_disable_are_enabled_again():
    logger, handlers, level = logging.getLogger("ours"), [*logging.root.handlers], logging.root.level
    with keep_loggers():
        dictConfig({"version": 1, "root": {"level": "ERROR", "handlers": []}})
        assert logger.disabled
    assert not logger.disabled
    assert (logging.root.level, logging.root.handlers) == (level, handlers)
