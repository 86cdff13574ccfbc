"""Loggers that other packages change and that are shared by a whole process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keep_loggers", "quiet_loggers"]


@contextmanager
def quiet_loggers(*loggers: logging.Logger, level: int = logging.WARNING) -> Iterator[None]:
    """Log less than usual inside a block: Ignite shares a logger among all engines of a class.

    Args:
        loggers: loggers to quieten.
        level: lowest level that is logged inside the block.
    """
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(level)
        yield
    finally:
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)


@contextmanager
def keep_loggers() -> Iterator[None]:
    """Leave all loggers as they were before a block: Alembic, by which others prepare databases, disables them."""
    loggers = [entry for entry in logging.root.manager.loggerDict.values() if isinstance(entry, logging.Logger)]
    disabled = [(entry, entry.disabled) for entry in loggers]
    level, handlers = logging.root.level, [*logging.root.handlers]
    try:
        yield
    finally:
        for entry, state in disabled:
            entry.disabled = state
        logging.root.setLevel(level)
        logging.root.handlers[:] = handlers
