"""Transform that joins bags of several encoders or magnifications to one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_mil_ext.data.features.joined_files import join_sources

__all__ = ["JoinSourcesD", "JoinSourcesDict", "JoinSourcesd"]


class JoinSourcesd(MapTransform):
    """Join the bags of several sources, such as encoders or magnifications, to one for ``SourceNet``.

    The joined bag (N, F + 1) has the instances of all sources in the order of the keys: the features, with zeros behind
    those of smaller sources, and last the index of the source. The item ``<output_key>_source`` is that index (N,).
    The items of the sources remain.

    Args:
        keys: items with bags (n, f), one for each source, in the order of ``SourceNet``.
        output_key: item of the joined bag.
        num_features: number F of features of the largest source; ``None`` takes it from the bags, which must then be
            the same for all cases, also where a source is missing.
        allow_missing_keys: whether a case may lack a source; the others keep their index.

    Raises:
        ValueError: if a bag is not (n, f), has more than ``num_features``, or a case has no source.

    Example:
        >>> item = {"10x": torch.ones(1, 2), "20x": torch.ones(2, 3)}
        >>> JoinSourcesd(["10x", "20x"], "image")(item)["image"].tolist()
        [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection,
        output_key: str = "image",
        num_features: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_key = output_key
        self.num_features = num_features

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Join the bags of all keys."""
        d = dict(data)
        indices = {key: g for g, key in enumerate(self.keys)}
        bags = {key: _checked(key, d[key]) for key in self.key_iterator(d)}
        if not bags:
            raise ValueError(f"`keys` must have at least one item, got none of {', '.join(map(str, self.keys))}.")
        largest = max(bag.shape[1] for bag in bags.values())
        size = largest if self.num_features is None else self.num_features
        if largest > size:
            raise ValueError(f"`num_features` must be at least that of the bags, {largest}, got {size}.")
        d[self.output_key], d[f"{self.output_key}_source"] = join_sources(bags, indices, size)
        return d


def _checked(key: Hashable, bag: Any) -> Tensor:
    values = torch.as_tensor(bag).as_subclass(Tensor)
    if values.ndim != 2 or not values.is_floating_point():
        raise ValueError(f"`{key!s}` must be a bag (n, f) of floating-point features, got {tuple(values.shape)}.")
    return values


JoinSourcesD = JoinSourcesDict = JoinSourcesd
