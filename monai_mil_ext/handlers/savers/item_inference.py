"""Inference of single items by workers, each of which has a copy of what an evaluator consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator

from monai_mil_ext.utils import run_tasks

from .infer_or_status import InferOrStatus

__all__ = ["KILLED", "ItemInference", "Outcome", "outcomes_of_workers"]


class Outcome(NamedTuple):
    """Part of the results of an item that a worker returns, beside its files.

    Attributes:
        failed: reason why it has no result, or ``None``.
        facts: columns of its input by its ID, if it failed.
        seconds: seconds that it took by its ID, if it has a result.
    """

    failed: str | None
    facts: Mapping[str, dict[str, Any]] = {}
    seconds: Mapping[str, float] = {}


KILLED = Outcome("failed: the process was killed each time, perhaps for lack of memory")


def outcomes_of_workers(
    engine: Any,
    postprocessing: Callable[..., Any] | None,
    handler: Callable[[Mapping[str, Any]], Any],
    scheduler: str | None,
    gpus: int,
    folder: Path,
) -> Iterator[tuple[int, Any]]:
    """Infer the items of an evaluator on workers of Dask, which get one after the other.

    Workers have a copy of the network, the transforms and the new handler, but of no other handlers; the item of a lost
    worker is inferred again.

    Args:
        engine: evaluator, whose handlers load the weights when it starts.
        postprocessing: postprocessing of the evaluator.
        handler: function that returns a new handler of the results of an item, with ``outcome``.
        scheduler: ``"local"`` or the address of a Dask scheduler.
        gpus: number of GPUs of an item, as the resource ``GPU`` of Dask workers.
        folder: folder of the results.

    Yields:
        The index of an item and the outcome of its handler as soon as it is there; ``KILLED`` for an item whose process
        is killed each time.

    Raises:
        ValueError: when no worker can infer the items, see :py:func:`monai_mil_ext.utils.run_tasks`.
    """
    engine.fire_event(Events.STARTED)  # loads the weights
    work = ItemInference(engine, postprocessing, handler, gpus > 0)
    yield from run_tasks(work, engine.data_loader.dataset.data, None, scheduler, gpus, folder, if_killed=KILLED)


class ItemInference:
    """Inference of one item by the parts of an evaluator, which another process can get; an evaluator can't be pickled.

    Args:
        engine: evaluator that has loaded its weights.
        postprocessing: postprocessing of the evaluator.
        handler: function that returns a new handler of the results of an item, with ``outcome``.
        on_gpu: whether a worker moves the network to its first GPU.
    """

    def __init__(
        self, engine: Any, postprocessing: Any, handler: Callable[[Mapping[str, Any]], Any], on_gpu: bool
    ) -> None:
        loader, inferer = engine.data_loader, engine.inferer
        self.transform, self.collate_fn = loader.dataset.transform, loader.collate_fn
        self.device = torch.device("cuda", 0) if on_gpu else engine.state.device
        self.handler = handler
        self.parts = {
            "network": engine.network,
            "inferer": inferer.inferer if isinstance(inferer, InferOrStatus) else inferer,
            "prepare_batch": engine.prepare_batch,
            "postprocessing": postprocessing,
            "non_blocking": engine.non_blocking,
            "amp": engine.amp,
            "to_kwargs": engine.to_kwargs,
            "amp_kwargs": engine.amp_kwargs,
        }

    def __call__(self, item: Mapping[str, Any]) -> Any:
        """Infer an item, and return the outcome of its handler."""
        handler = self.handler(item)
        self.parts["network"].to(self.device)
        loader = DataLoader(Dataset([dict(item)], self.transform), batch_size=1, collate_fn=self.collate_fn)
        SupervisedEvaluator(self.device, loader, **self.parts, val_handlers=[handler]).run()
        return handler.outcome()
