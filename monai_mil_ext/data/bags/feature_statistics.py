"""Mean and standard deviation of features over training bags, for the model record of the weights that need them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from monai_mil_ext.utils import optional_dependency

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
    def for_network(
        cls, net: nn.Module, items: Sequence[Mapping[str, Any]], in_features: int, standardize: bool = True
    ) -> FeatureStatistics:
        """Compute the statistics of items, or leave features unchanged if the network takes them as they are.

        Args:
            net: network with ``takes_raw_features``, or with a part that has it.
            items: items of the training part, see :py:meth:`from_items`.
            in_features: number F of features.
            standardize: whether features are standardized for any other network.
        """
        takes_raw = any(getattr(part, "takes_raw_features", False) for part in net.modules())
        return cls.identity(in_features) if takes_raw or not standardize else cls.from_items(items)

    @classmethod
    def identity(cls, in_features: int) -> FeatureStatistics:
        """Return statistics that leave features unchanged."""
        return cls(np.zeros(in_features, dtype=np.float32), np.ones(in_features, dtype=np.float32))

    @classmethod
    def from_values(
        cls, mean: Sequence[float] | None, scale: Sequence[float] | None, in_features: int
    ) -> FeatureStatistics:
        """Make statistics from lists, such as those of a model record; without them features stay unchanged.

        Raises:
            ValueError: when there are not ``in_features`` values each, or a scale is not positive.
        """
        if mean is None or scale is None:
            return cls.identity(in_features)
        if not len(mean) == len(scale) == in_features or not all(value > 0 for value in scale):
            raise ValueError(
                f"`mean` and `scale` must have {in_features} values, those of `scale` positive, "
                f"got {len(mean)} and {len(scale)}."
            )
        return cls(np.array(mean, np.float32), np.array(scale, np.float32))
