"""Checks of the engine that a handler is attached to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.engines import Evaluator
from monai.engines.utils import IterationEvents

__all__ = ["check_evaluator", "check_not_attached", "check_trainer"]

LOOPS = "docs/how-to/plain-loops.md"


def check_trainer(engine: Any) -> None:
    """Raise ``ValueError`` unless ``engine`` fires the events of MONAI's ``SupervisedTrainer``, as Ignite's do not.

    An evaluator has these events, but never computes a loss.
    """
    if isinstance(engine, Evaluator) or not _fires_events(engine):
        raise ValueError(
            f"`engine` must be a monai.engines.SupervisedTrainer, got {type(engine).__name__}; "
            f"for other training loops see {LOOPS}."
        )


def check_evaluator(engine: Any) -> None:
    """Raise ``ValueError`` unless ``engine`` fires the events of MONAI's ``SupervisedEvaluator``."""
    if not _fires_events(engine):
        raise ValueError(
            f"`engine` must be a monai.engines.SupervisedEvaluator, got {type(engine).__name__}; "
            f"for other loops see {LOOPS}."
        )


def check_not_attached(engine: Any, method: Callable[..., Any], event: Any) -> None:
    """Raise ``ValueError`` if ``engine`` calls ``method`` of a handler already, which would then run twice."""
    if engine.has_event_handler(method, event):
        name = type(getattr(method, "__self__", method)).__name__
        raise ValueError(f"`engine` must be one that this {name} is not attached to, got one that calls it already.")


def _fires_events(engine: Any) -> bool:
    return IterationEvents.MODEL_COMPLETED in getattr(engine, "_allowed_events", ())  # Ignite has no public list
