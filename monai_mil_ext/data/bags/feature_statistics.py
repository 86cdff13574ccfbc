"""Mean and standard deviation of features over training bags, saved with the weights that need them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency, write_json

from .bag_file import read_bag

__all__ = ["FeatureStatistics"]

StandardScaler = optional_dependency("", "sklearn.preprocessing", "StandardScaler")


class FeatureStatistics(NamedTuple):
    """Mean and scale of each feature, for MONAI's ``NormalizeIntensityd``.

    Attributes:
        mean: (F,), the ``subtrahend``.
        scale: (F,), the ``divisor``.

    Example:
        >>> statistics = FeatureStatistics.from_items([{"image": np.array([[1.0, 5.0], [3.0, 5.0]])}])
        >>> statistics.mean.tolist(), statistics.scale.tolist()
        ([2.0, 5.0], [1.0, 1.0])
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def from_items(cls, items: Sequence[Mapping[str, Any]], key: str = "image") -> FeatureStatistics:
        """Compute mean and population standard deviation over all instances, with one bag in memory at a time.

        The scale of a constant feature is 1.

        Args:
            items: items of the training part, with a bag file (or several, of a patient) or features (N, F).
            key: key of the file or features.

        Raises:
            ValueError: when there are no items, or features are not finite.
        """
        if not items:
            raise ValueError("`items` must not be empty, got none.")
        scaler = StandardScaler()
        for item in items:
            for bag in item[key] if isinstance(item[key], (list, tuple)) else [item[key]]:
                features = read_bag(bag)["features"] if isinstance(bag, (str, os.PathLike)) else bag
                if not np.isfinite(np.asarray(features)).all():
                    raise ValueError(f"`items` must hold finite features, got others in {item.get('case_id')!r}.")
                scaler.partial_fit(np.asarray(features, dtype=np.float64))
        return cls(scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32))

    @classmethod
    def identity(cls, in_features: int) -> FeatureStatistics:
        """Return statistics that leave features unchanged."""
        return cls(np.zeros(in_features, dtype=np.float32), np.ones(in_features, dtype=np.float32))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> FeatureStatistics:
        """Read statistics that :py:meth:`write` saved.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file contains no statistics.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"`path` must be an existing file saved by training, got {file.name!r}.")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return cls(np.array(content["mean"], np.float32), np.array(content["scale"], np.float32))
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"`path` must be a file that FeatureStatistics wrote, got {file.name!r}.") from None

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write mean and scale as JSON, atomically."""
        write_json(path, {"mean": self.mean.tolist(), "scale": self.scale.tolist()})
