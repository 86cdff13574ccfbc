"""Check that every epoch of a run is a whole number of passes over its data, as exact resumption needs."""

from __future__ import annotations

from typing import Any

from ignite.engine import Events

__all__ = ["WholePasses"]


class WholePasses:
    """Check of a trainer whose epochs must each be one or more whole passes over the data.

    Ignite carries an iterator that has batches left over into the next epoch, whereas a resumed run starts the data
    anew. If the data has a length, the check is made before the first batch, otherwise before the second epoch.

    Raises:
        ValueError: in a run, if an epoch ends within a pass, or if workers or a random generator of the data loader
            keep a state of their own from one epoch to the next.

    Example:
        >>> from ignite.engine import Engine
        >>> engine = Engine(lambda engine, batch: None)
        >>> WholePasses().attach(engine)
        >>> engine.run([1, 2, 3], epoch_length=2)
        Traceback (most recent call last):
        ...
        ValueError: `epoch_length` must be a multiple of the 3 batches of the data for exact resumption, got 2.
    """

    def __init__(self) -> None:
        self._given: int | None = None  # the epoch length that the user chose, before one is loaded or found
        self._new_pass = True  # whether the next batch is the first of a pass
        self._new_epoch = True

    def attach(self, engine: Any) -> None:
        """Check each epoch of a trainer at its start."""
        self._given = engine.state.epoch_length
        engine.add_event_handler(Events.STARTED, self._begin_pass)
        engine.add_event_handler(Events.EPOCH_STARTED, self._check_data)
        engine.add_event_handler(Events.DATALOADER_STOP_ITERATION, self._begin_pass)
        engine.add_event_handler(Events.TERMINATE_SINGLE_EPOCH, self._begin_pass)
        engine.add_event_handler(Events.ITERATION_STARTED, self._check_pass)

    def _begin_pass(self, _engine: Any) -> None:
        self._new_pass = True

    def _check_data(self, engine: Any) -> None:
        self._new_epoch = True
        data, epoch_length = engine.state.dataloader, engine.state.epoch_length
        length = _length(data)
        if length and epoch_length and epoch_length % length:
            raise ValueError(
                f"`epoch_length` must be a multiple of the {length} batches of the data for exact resumption, "
                f"got {epoch_length}."
            )
        if length is None and data is not None and self._given is not None:
            raise ValueError(
                f"`epoch_length` must be None for data without a length for exact resumption, got {self._given}."
            )
        _check_states(data)

    def _check_pass(self, engine: Any) -> None:
        if self._new_epoch and not self._new_pass and engine.state.dataloader is not None:
            raise ValueError(
                f"`epoch_length` must be the number of batches of the data for exact resumption, "
                f"got {engine.state.epoch_length}, which leaves batches for the next epoch."
            )
        self._new_epoch = self._new_pass = False


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:  # an iterable dataset, or a generator
        return None


def _check_states(data: Any) -> None:
    """Raise ``ValueError`` if workers or a generator keep a state that is not saved."""
    if getattr(data, "persistent_workers", False):
        raise ValueError("`persistent_workers` must be False for exact resumption, got True.")
    sampler, batch_sampler = getattr(data, "sampler", None), getattr(data, "batch_sampler", None)
    for part in (data, sampler, batch_sampler, getattr(batch_sampler, "sampler", None)):
        if getattr(part, "generator", None) is not None:
            raise ValueError(
                f"`generator` must be None for exact resumption, whose random state is PyTorch's own, "
                f"got one of a {type(part).__name__}."
            )
