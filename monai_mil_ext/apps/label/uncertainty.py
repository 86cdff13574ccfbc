"""Active learning: how unsure a network is of an image, and which image to label next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .scan_labels import is_labeled
from .server_parts import ScoringMethod, Strategy

__all__ = ["MostUncertainFirst", "UncertaintyScoring", "normalized_entropy"]

UNCERTAINTY = "uncertainty"


def normalized_entropy(probability: Sequence[float]) -> float:
    r"""Entropy of class probabilities over that of a fair draw: :math:`-\sum_c p_c \log p_c / \log C`.

    Example:
        >>> normalized_entropy([0.5, 0.5]), normalized_entropy([0.0, 1.0])
        (1.0, 0.0)
    """
    entropy = -sum(p * math.log(p) for p in probability if p > 0)
    return abs(entropy) / math.log(max(2, len(probability)))


class UncertaintyScoring(ScoringMethod):
    """Asks a model for every image without a label and writes its ``uncertainty`` into the image's info.

    Args:
        infer: the app's, which takes a request.
        model: that is asked, unless the request names another.
    """

    def __init__(self, infer: Callable[[Mapping[str, Any]], Mapping[str, Any]], model: str) -> None:
        super().__init__("Entropy of the class probabilities; 1 where all are equal")
        self.infer = infer
        self.model = model

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Give the uncertainty of every image, and why there is none for some."""
        model = request.get("model") or self.model
        images = [image for image in sorted(datastore.list_images()) if not is_labeled(datastore, image)]
        scored: dict[str, float] = {}
        failed: dict[str, str] = {}
        for image in images:
            asked = {**request, "model": model, "image": image, "result_write_to_file": False, "save_label": False}
            try:
                scored[image] = self.infer(asked)["params"][UNCERTAINTY]
            except Exception as error:  # the other images still count
                failed[image] = str(getattr(error, "detail", error))
                continue
            datastore.update_image_info(image, {UNCERTAINTY: scored[image], "uncertainty_of": model})
        return {"model": model, UNCERTAINTY: scored, "failed": failed}


class MostUncertainFirst(Strategy):
    """Gives, of the images without a label, the one whose ``uncertainty`` is highest; those without one come last."""

    def __init__(self) -> None:
        super().__init__("The image that the network is least sure of")

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any] | None:
        """Give the next image; None where all have a label."""
        weights = {
            image: float(datastore.get_image_info(image).get(UNCERTAINTY, -1.0))
            for image in sorted(datastore.list_images())
            if not is_labeled(datastore, image)
        }
        if not weights:
            return None
        best = max(weights, key=lambda image: weights[image])
        return {"id": best, "weight": weights[best]}
