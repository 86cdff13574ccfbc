"""Inference of single items by workers, each of which has a copy of what an evaluator consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator

from .infer_or_status import InferOrStatus

__all__ = ["KILLED", "ItemInference", "Outcome"]


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


class ItemInference:
    """Inference of one item by the parts of an evaluator, which another process can get; an evaluator can't be pickled.

    Args:
        engine: evaluator that has loaded its weights.
        postprocessing: postprocessing of the evaluator.
        handler: function that returns a new handler of the results of an item, for its files, and with ``outcome``.
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

    def __call__(self, item: Mapping[str, Any]) -> Outcome:
        """Write the results of an item, and return what a table needs beside them."""
        handler = self.handler(item)
        self.parts["network"].to(self.device)
        loader = DataLoader(Dataset([dict(item)], self.transform), batch_size=1, collate_fn=self.collate_fn)
        SupervisedEvaluator(self.device, loader, **self.parts, val_handlers=[handler]).run()
        return handler.outcome()
