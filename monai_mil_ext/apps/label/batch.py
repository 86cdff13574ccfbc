"""Many images in one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch

from .scan_labels import is_labeled
from .server_parts import BatchInferTask

__all__ = ["TolerantBatch"]

logger = logging.getLogger(__name__)


class TolerantBatch(BatchInferTask):
    """Goes on when an image fails, which gets an ``error`` in place of its answer, and works without a GPU.

    MONAI Label's own divides by the number of GPUs unless it is told ``"multi_gpu": false``.
    """

    def get_images(self, request: Mapping[str, Any], datastore: Any) -> Any:
        """Which images a request means; one with a label in its info is no unlabelled one."""
        images = super().get_images(request, datastore)
        if request.get("images") == "unlabeled":
            return [image for image in images if not is_labeled(datastore, image)]
        return images

    def __call__(self, request: Mapping[str, Any], datastore: Any, infer: Callable[..., Any]) -> dict[str, Any]:
        """Give the answer to every image by its id."""

        def tolerant(one: Mapping[str, Any], store: Any) -> Any:
            try:
                return infer(one, store)
            except Exception as error:
                logger.warning("no answer to an image of a batch: %s", getattr(error, "detail", type(error).__name__))
                return {"error": str(getattr(error, "detail", type(error).__name__))}

        several = torch.cuda.device_count() > 1 and request.get("multi_gpu", True)
        answers: dict[str, Any] = super().__call__({**request, "multi_gpu": several}, datastore, tolerant)
        return answers
