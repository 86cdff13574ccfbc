"""Random transforms that keep a subset of the instances of a bag."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils.enums import TransformBackends

from monai_mil_ext.utils import check_positive, check_rate

__all__ = [
    "RandSampleInstances",
    "RandSampleInstancesD",
    "RandSampleInstancesDict",
    "RandSampleInstancesd",
    "RandTokenDrop",
    "RandTokenDropD",
    "RandTokenDropDict",
    "RandTokenDropd",
]


class _RandSubset(RandomizableTransform):
    """Base of transforms that keep the instances chosen by :py:meth:`draw`, in their order."""

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(self, prob: float = 1.0) -> None:
        super().__init__(prob)
        self._kept: np.ndarray[Any, Any] | None = None
        self._size = 0

    def draw(self, size: int) -> np.ndarray[Any, Any]:
        """Draw the indices of the kept instances among ``size``: ascending, at least one."""
        raise NotImplementedError

    def randomize(self, data: int) -> None:
        """Draw which of ``data`` instances are kept."""
        super().randomize(None)
        if data < 1:
            raise ValueError(f"`bag` must have at least one instance, got {data}.")
        self._kept, self._size = (self.draw(data) if self._do_transform else None), data

    def __call__(self, bag: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """Select instances of a bag (N, ...); ``randomize=False`` repeats the last draw. Returns no MetaTensor."""
        if randomize:
            self.randomize(len(bag))
        if len(bag) != self._size:
            raise ValueError(f"`bag` must have the {self._size} instances of the last draw, got {len(bag)}.")
        if isinstance(bag, MetaTensor):
            bag = bag.as_tensor()  # the affine does not describe a subset
        if self._kept is None:
            return bag
        return bag[torch.as_tensor(self._kept, device=bag.device) if isinstance(bag, torch.Tensor) else self._kept]


class RandSampleInstances(_RandSubset):
    r"""Randomly keep at most ``num_instances`` instances, without replacement and in their order.

    Args:
        num_instances: number of instances to keep; smaller bags are returned unchanged.
        stratified: whether to draw one instance from each of ``num_instances`` equal segments of the ordered bag, so
            that a volume stays covered from end to end; otherwise all subsets are equally likely.
        prob: probability that a bag is sampled.
        block_size: number b of neighbors that are drawn together: the bag is cut into blocks of b instances, of which
            some are drawn, all equally likely, the last one only as far as ``num_instances`` allows. Blocks are read
            from a file with little more than their bytes, but neighbors are alike: if instances of a block correlate by
            :math:`\rho`, a mean over n instances has the variance of :math:`n / (1 + (b - 1) \rho)` single ones (the
            design effect of cluster samples; Kish, "Survey Sampling", 1965).

    Raises:
        ValueError: if ``num_instances`` or ``block_size`` is not positive, blocks are to be stratified, or a bag is
            empty.

    Example:
        >>> RandSampleInstances(3).set_random_state(0)(np.arange(10)).tolist()
        [2, 4, 8]
        >>> RandSampleInstances(5, stratified=True).set_random_state(0)(np.arange(10)).tolist()
        [1, 2, 5, 7, 9]
        >>> RandSampleInstances(4, block_size=2).set_random_state(0)(np.arange(10)).tolist()
        [4, 5, 8, 9]
    """

    def __init__(self, num_instances: int, stratified: bool = False, prob: float = 1.0, block_size: int = 1) -> None:
        super().__init__(prob)
        check_positive(num_instances=num_instances, block_size=block_size)
        if stratified and block_size > 1:
            raise ValueError(f"`block_size` must be 1 with `stratified`, got {block_size}.")
        self.num_instances = num_instances
        self.stratified = stratified
        self.block_size = block_size

    def draw(self, size: int) -> np.ndarray[Any, Any]:
        """Draw the indices of the kept instances among ``size``."""
        if size <= self.num_instances:
            return np.arange(size)
        if self.block_size > 1:
            starts = self.R.permutation(-(-size // self.block_size)) * self.block_size
            rows = (starts[:, None] + np.arange(self.block_size)).ravel()  # in the order of the draw
            return np.sort(rows[rows < size][: self.num_instances])
        if not self.stratified:
            return np.sort(self.R.permutation(size)[: self.num_instances])
        edges = np.arange(self.num_instances + 1) * size // self.num_instances
        return self.R.randint(edges[:-1], edges[1:])


class RandTokenDrop(_RandSubset):
    """Randomly drop instances, keeping at least one; for training only.

    Exactly one of ``rate`` and ``num_drop`` must be given.

    Args:
        rate: probability with which each instance is dropped independently.
        num_drop: exact number of dropped instances; of a smaller bag, all but one are dropped.
        prob: probability that instances are dropped from a bag.

    Raises:
        ValueError: if both or neither are given, ``rate`` is not in [0, 1), ``num_drop`` is not positive, or a bag is
            empty.

    Example:
        >>> RandTokenDrop(rate=0.5).set_random_state(0)(np.arange(10)).tolist()
        [0, 1, 2, 4, 6, 7, 9]
        >>> RandTokenDrop(num_drop=7).set_random_state(0)(np.arange(10)).tolist()
        [2, 4, 8]
    """

    def __init__(self, rate: float | None = None, num_drop: int | None = None, prob: float = 1.0) -> None:
        super().__init__(prob)
        if (rate is None) == (num_drop is None):
            raise ValueError(f"`rate` or `num_drop` must be given, and not both, got {rate!r} and {num_drop!r}.")
        if rate is not None:
            check_rate(rate=rate)
        if num_drop is not None:
            check_positive(num_drop=num_drop)
        self.rate = rate
        self.num_drop = num_drop

    def draw(self, size: int) -> np.ndarray[Any, Any]:
        """Draw the indices of the kept instances among ``size``."""
        if self.num_drop is not None:
            return np.sort(self.R.permutation(size)[: max(1, size - self.num_drop)])
        kept = np.flatnonzero(self.R.random_sample(size) >= self.rate)
        return kept if len(kept) else self.R.randint(size, size=1)


class _RandSubsetd(MapTransform, RandomizableTransform):
    """Base of dictionary forms with one draw for all keys."""

    backend = _RandSubset.backend

    def __init__(self, keys: KeysCollection, subset: _RandSubset, allow_missing_keys: bool) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        self.subset = subset

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> _RandSubsetd:
        """Set the random state of this transform and of the array transform that it wraps."""
        super().set_random_state(seed, state)
        self.subset.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Keep the same instances in the item of each key."""
        d = dict(data)
        sizes = {str(key): len(d[key]) for key in self.key_iterator(d)}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"`keys` must have the same number of instances, got {sizes}.")
        for size in set(sizes.values()):
            self.subset.randomize(size)
        for key in self.key_iterator(d):
            d[key] = self.subset(d[key], randomize=False)
        return d


class RandSampleInstancesd(_RandSubsetd):
    """Dictionary form of :py:class:`RandSampleInstances`, with one draw for all keys.

    Args:
        keys: per-instance items (N, ...), such as ``("image", "position")``.
        num_instances: see :py:class:`RandSampleInstances`.
        stratified: see :py:class:`RandSampleInstances`.
        prob: see :py:class:`RandSampleInstances`.
        block_size: see :py:class:`RandSampleInstances`.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: if the items differ in their number of instances.
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_instances: int,
        stratified: bool = False,
        prob: float = 1.0,
        block_size: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandSampleInstances(num_instances, stratified, prob, block_size), allow_missing_keys)


class RandTokenDropd(_RandSubsetd):
    """Dictionary form of :py:class:`RandTokenDrop`, with one draw for all keys.

    Args:
        keys: per-instance items (N, ...), such as ``("image", "position")``.
        rate: see :py:class:`RandTokenDrop`.
        num_drop: see :py:class:`RandTokenDrop`.
        prob: see :py:class:`RandTokenDrop`.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: if the items differ in their number of instances.
    """

    def __init__(
        self,
        keys: KeysCollection,
        rate: float | None = None,
        num_drop: int | None = None,
        prob: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandTokenDrop(rate, num_drop, prob), allow_missing_keys)


RandSampleInstancesD = RandSampleInstancesDict = RandSampleInstancesd
RandTokenDropD = RandTokenDropDict = RandTokenDropd
