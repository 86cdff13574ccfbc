"""Random transforms of features that imitate a change of scanner or stain."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils.enums import TransformBackends

__all__ = ["RandFeatureJitter", "RandFeatureJitterD", "RandFeatureJitterDict", "RandFeatureJitterd"]


class RandFeatureJitter(RandomizableTransform):
    r"""Randomly scale and shift each feature of a bag, equally for all instances.

    .. math:: x_{nf} \leftarrow (1 + s\, u_f)\, x_{nf} + t\, v_f, \quad u_f, v_f \sim N(0, 1)

    For training. A scanner, a stain or a reconstruction kernel changes all instances of a bag in the same way.
    Independent noise per instance, as MONAI's ``RandGaussianNoise`` adds to (N, F), does not model this: averaging
    over N instances reduces its variance to 1 / N. Only F pairs of numbers are drawn, and the dtype is preserved.

    Args:
        scale: standard deviation s of the factors.
        shift: standard deviation t of the offsets in units of the features: standardize the features first, or pass
            one value per feature (F,).
        prob: probability that a bag is changed.

    Raises:
        ValueError: if a standard deviation is negative or not finite, or a bag is not a floating-point (N, F) array.

    Example:
        >>> jitter = RandFeatureJitter(scale=0.1, shift=0.0).set_random_state(0)
        >>> jitter(torch.ones(2, 3))
        tensor([[1.0742, 1.1553, 0.7732],
                [1.0742, 1.1553, 0.7732]])
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(self, scale: float = 0.1, shift: float | np.ndarray[Any, Any] = 0.1, prob: float = 1.0) -> None:
        super().__init__(prob)
        if not (math.isfinite(scale) and scale >= 0):
            raise ValueError(f"`scale` must be finite and >= 0, got {scale!r}.")
        self.scale = scale
        self.shift = np.asarray(shift, dtype=float)
        if not (np.isfinite(self.shift) & (self.shift >= 0)).all() or self.shift.ndim > 1:
            raise ValueError(f"`shift` must be a number or (F,), finite and >= 0, got {shift!r}.")
        self._drawn: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None

    def randomize(self, data: int) -> None:
        """Draw factors and offsets for ``data`` features."""
        super().randomize(None)
        if self.shift.ndim and self.shift.shape != (data,):
            raise ValueError(f"`shift` must be a number or have the {data} features, got {self.shift.shape}.")
        u, v = self.R.standard_normal((2, data))
        self._drawn = 1 + self.scale * u, self.shift * v

    def __call__(self, bag: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """Jitter a bag (N, F); ``randomize=False`` repeats the last draw. Returns no MetaTensor."""
        if bag.ndim != 2 or not torch.as_tensor(bag[:0]).is_floating_point():
            raise ValueError(f"`bag` must be floating (N, F), got {tuple(bag.shape)} of {bag.dtype}.")
        if randomize:
            self.randomize(bag.shape[1])
        if self._drawn is None or len(self._drawn[0]) != bag.shape[1]:
            drawn = "none" if self._drawn is None else len(self._drawn[0])
            raise ValueError(f"`bag` must have the features of the last draw ({drawn}), got {bag.shape[1]}.")
        if isinstance(bag, MetaTensor):
            bag = bag.as_tensor()
        if not self._do_transform:
            return bag
        if isinstance(bag, torch.Tensor):
            factor, offset = (torch.as_tensor(values).to(bag) for values in self._drawn)
            return bag * factor + offset
        return bag * self._drawn[0].astype(bag.dtype) + self._drawn[1].astype(bag.dtype)


class RandFeatureJitterd(MapTransform, RandomizableTransform):
    """Dictionary form of :py:class:`RandFeatureJitter`, with one draw for all keys.

    Args:
        keys: bags (N, F) with the same features.
        scale: see :py:class:`RandFeatureJitter`.
        shift: see :py:class:`RandFeatureJitter`.
        prob: see :py:class:`RandFeatureJitter`.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: if the bags have different numbers of features.
    """

    backend = RandFeatureJitter.backend

    def __init__(
        self,
        keys: KeysCollection,
        scale: float = 0.1,
        shift: float | np.ndarray[Any, Any] = 0.1,
        prob: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        self.jitter = RandFeatureJitter(scale, shift, prob)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandFeatureJitterd:
        """Set the random state of this transform and of the array transform that it wraps."""
        super().set_random_state(seed, state)
        self.jitter.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Jitter the bag of each key with the same draw."""
        d = dict(data)
        for i, key in enumerate(self.key_iterator(d)):
            d[key] = self.jitter(d[key], randomize=i == 0)
        return d


RandFeatureJitterD = RandFeatureJitterDict = RandFeatureJitterd
