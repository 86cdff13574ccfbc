"""Mean and deviation of features over training bags, kept beside the weights that need them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from monai_mil_ext.utils import write_json

from .bag_file import read_bag

__all__ = ["FeatureStatistics"]


class FeatureStatistics(NamedTuple):
    """What is taken off each feature, and what it is divided by, as MONAI's ``NormalizeIntensityd`` takes them.

    Attributes:
        mean: (F,), its ``subtrahend``.
        scale: (F,), its ``divisor``.

    Example:
        >>> found = FeatureStatistics.from_items([{"image": np.array([[1.0, 5.0], [3.0, 5.0]])}])
        >>> found.mean.tolist(), found.scale.tolist()
        ([2.0, 5.0], [1.0, 1.0])
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def over(cls, items: Sequence[Mapping[str, Any]], key: str = "image") -> FeatureStatistics:
        """Mean and population standard deviation over all instances, one bag in memory at a time.

        A feature that never changes is divided by 1.

        Args:
            items: of the training part; a bag's file (or several, of a patient), or its features (N, F).
            key: where they are.

        Raises:
            ValueError: when there are no items, or features that are not finite.
        """
        if not items:
            raise ValueError("`items` must be one at least, got none.")
        scaler = StandardScaler()
        for item in items:
            for bag in item[key] if isinstance(item[key], (list, tuple)) else [item[key]]:
                features = read_bag(bag)["features"] if isinstance(bag, (str, os.PathLike)) else bag
                if not np.isfinite(np.asarray(features)).all():
                    raise ValueError(f"`items` must hold finite features, got others in {item.get('case_id')!r}.")
                scaler.partial_fit(np.asarray(features, dtype=np.float64))
        return cls(scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32))

    @classmethod
    def none(cls, in_features: int) -> FeatureStatistics:
        """Statistics that change nothing."""
        return cls(np.zeros(in_features, dtype=np.float32), np.ones(in_features, dtype=np.float32))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> FeatureStatistics:
        """Read what :py:meth:`write` wrote.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it holds no statistics.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"`path` must be a file that training wrote, got no {file.name!r}.")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return cls(np.array(content["mean"], np.float32), np.array(content["scale"], np.float32))
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"`path` must be a file that FeatureStatistics wrote, got {file.name!r}.") from None

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write both as JSON, as a whole or not at all."""
        write_json(path, {"mean": self.mean.tolist(), "scale": self.scale.tolist()})
