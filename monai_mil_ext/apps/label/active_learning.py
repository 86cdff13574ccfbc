"""Active learning: uncertainty of predictions, choice of the next image to label, and batch inference."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ._monailabel import BatchInferTask, ScoringMethod, Strategy
from .scan_labels import is_labeled

__all__ = [
    "BatchInfer",
    "ImageScoring",
    "UncertaintyScoring",
    "UncertaintyStrategy",
    "normalized_entropy",
    "nothing_to_label",
]

UNCERTAINTY = "uncertainty"
NOT_SCORED = "no image has a score: POST /scoring/uncertainty, and ask again when GET /scoring/ says DONE"
ALL_LABELED = "all images have a label: add studies"
NO_IMAGES = "there are no studies: add some"
logger = logging.getLogger(__name__)


def normalized_entropy(probability: Sequence[float]) -> float:
    r"""Compute the entropy of class probabilities, divided by that of a uniform distribution.

    .. math:: -\sum_c p_c \log p_c / \log C

    Example:
        >>> normalized_entropy([0.5, 0.5]), normalized_entropy([0.0, 1.0])
        (1.0, 0.0)
    """
    entropy = -sum(p * math.log(p) for p in probability if p > 0)
    return abs(entropy) / math.log(max(2, len(probability)))


class BatchInfer(BatchInferTask):
    """Batch inference that continues when an image fails, and works without a GPU.

    A failed image gets an ``error`` instead of a result. The base class divides by the number of GPUs unless a request
    has ``"multi_gpu": false``.
    """

    def get_images(self, request: Mapping[str, Any], datastore: Any) -> Any:
        """Return the images of a request; a label in the info of an image counts as a label."""
        images = super().get_images(request, datastore)
        if request.get("images") == "unlabeled":
            return [image for image in images if not is_labeled(datastore, image)]
        return images

    def __call__(self, request: Mapping[str, Any], datastore: Any, infer: Callable[..., Any]) -> dict[str, Any]:
        """Return the result of every image, by its ID."""

        def infer_or_error(image_request: Mapping[str, Any], store: Any) -> Any:
            try:
                return infer(image_request, store)
            except Exception as error:
                reason = str(getattr(error, "detail", type(error).__name__))
                logger.warning("no result for an image of a batch: %s", reason)
                return {"error": reason}

        several = torch.cuda.device_count() > 1 and request.get("multi_gpu", True)
        results: dict[str, Any] = super().__call__({**request, "multi_gpu": several}, datastore, infer_or_error)
        return results


class ImageScoring(ScoringMethod):
    """Base class of scoring methods that infer images one by one; an image that fails does not stop the others.

    Args:
        description: what the scores are, for viewers.
        infer: inference function of the app, called with a request.
        model: name of the default model; a request may name another.
    """

    def __init__(self, description: str, infer: Callable[[Mapping[str, Any]], Mapping[str, Any]], model: str) -> None:
        super().__init__(description)
        self.infer = infer
        self.model = model

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Return the score of every image that has one, and the reasons of failures."""
        model = request.get("model") or self.model
        scored: dict[str, Any] = {}
        failed: dict[str, str] = {}
        for image in sorted(datastore.list_images()):
            try:
                score = self.score(image, {**request, "model": model}, datastore)
            except Exception as error:  # a failed image must not stop the others
                failed[image] = str(getattr(error, "detail", error))
                continue
            if score is not None:
                scored[image] = score
                datastore.update_image_info(image, self.image_info(score, model))
        return {"model": model, **self.result(scored), "failed": failed}

    def answer(self, image: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Infer an image, and return what the answer says of it."""
        options = {"result_write_to_file": False, "save_label": False, "image": image}
        params: Mapping[str, Any] = self.infer({**request, **options})["params"]
        return params

    @abstractmethod
    def score(self, image: str, request: Mapping[str, Any], datastore: Any) -> Any:
        """Return the score of an image, or None if it is to have none."""

    @abstractmethod
    def image_info(self, score: Any, model: str) -> dict[str, Any]:
        """Return what the info of an image has of its score."""

    @abstractmethod
    def result(self, scored: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of the answer, from the scores by image."""


class UncertaintyScoring(ImageScoring):
    """Scoring method that infers every unlabeled image and saves its ``uncertainty`` in the info of the image.

    Args:
        infer: inference function of the app, called with a request.
        model: name of the default model; a request may name another.
    """

    def __init__(self, infer: Callable[[Mapping[str, Any]], Mapping[str, Any]], model: str) -> None:
        super().__init__("Entropy of the class probabilities; 1 where all are equal", infer, model)

    def score(self, image: str, request: Mapping[str, Any], datastore: Any) -> float | None:
        """Return the uncertainty of an image without a label."""
        return None if is_labeled(datastore, image) else _known(self.answer(image, request)[UNCERTAINTY])

    def image_info(self, score: float, model: str) -> dict[str, Any]:
        """Return the uncertainty, and of which model it is."""
        return {UNCERTAINTY: score, "uncertainty_of": model}

    def result(self, scored: Mapping[str, float]) -> dict[str, Any]:
        """Return the uncertainty by image."""
        return {UNCERTAINTY: dict(scored)}


def _known(uncertainty: float | None) -> float:
    if uncertainty is None:
        raise ValueError("a model without classes has no uncertainty")
    return uncertainty


class UncertaintyStrategy(Strategy):
    """Strategy that selects the unlabeled image with the highest ``uncertainty``; unscored images come last.

    An image without a score has the weight -1 and a ``waits_for`` that says what to do first.
    """

    def __init__(self) -> None:
        super().__init__("Image of the highest uncertainty")

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any] | None:
        """Return the next image to label, or None if all have a label."""
        weights = {
            image: float(datastore.get_image_info(image).get(UNCERTAINTY, -1.0))
            for image in sorted(datastore.list_images())
            if not is_labeled(datastore, image)
        }
        if not weights:
            return None
        best = max(weights, key=lambda image: weights[image])
        hint = {"waits_for": NOT_SCORED} if weights[best] < 0 else {}
        return {"id": best, "weight": weights[best], **hint}


def nothing_to_label(datastore: Any) -> str:
    """Return why no strategy has an image to label."""
    return ALL_LABELED if datastore.list_images() else NO_IMAGES
