"""Batch sampler of bags with a limit on the instances of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import Sampler

from monai_mil_ext.utils import check_choice, check_positive

from .bag_file import inspect_bag

__all__ = ["BagBatchSampler", "bag_sizes"]

JITTER = 0.25  # on log N: only bags whose sizes differ by a factor below e^0.5 share a batch, so padding stays small
DRAWS = 8  # trial orders; the largest number of batches among them is that of every epoch


class BagBatchSampler(Sampler[list[int]]):
    r"""Batch sampler that limits the instances of a batch, for the ``batch_sampler`` of a ``DataLoader``.

    A batch of :math:`B` bags of sizes :math:`N_b` counts as :math:`B \max_b N_b` instances if padded, and as
    :math:`\sum_b N_b` if packed. A bag that exceeds the limit forms a batch alone. Each epoch has every bag exactly
    once.

    Padded batches contain bags of similar size: bags are sorted by :math:`\log N + u` with uniform :math:`u` and split
    into batches, whose order is shuffled. Packed batches contain any bags. Without ``shuffle`` bags are sorted by
    decreasing size, so that a batch too large for the memory fails at once.

    The order depends on ``seed`` and epoch only. Each iteration is the next epoch; :py:meth:`set_epoch` selects any
    epoch, and ``TrainingState(..., sampler=sampler)`` saves the position of a run. All epochs have the same number of
    batches, since MONAI's engines read it once only; in an epoch with fewer, the batches with most bags are halved.

    In distributed training each process gets its own batches. Batches are halved until all processes have the same
    number; if too few batches have two bags, the last processes get one batch less, unless ``drop_last`` is set.

    Args:
        sizes: number of instances of each bag; see :py:func:`bag_sizes`.
        max_instances: largest number of instances of a batch.
        max_bags: largest number of bags of a batch.
        cost: how instances are counted, ``"padded"`` or ``"packed"``.
        shuffle: whether every epoch has another order.
        seed: seed of the order, the same in all processes.
        drop_last: whether to drop batches, different ones in each epoch, instead of halving some, to give all processes
            the same number.
        num_replicas: number of processes; ``None`` takes that of ``torch.distributed``.
        rank: index of this process; ``None`` takes that of ``torch.distributed``.

    Raises:
        ValueError: when a size, limit or number is not positive, or there is not a batch for every process.

    Example:
        >>> sampler = BagBatchSampler([3, 100, 4, 2, 900], max_instances=200, shuffle=False)
        >>> list(sampler)
        [[4], [1, 2], [0, 3]]
    """

    def __init__(
        self,
        sizes: Sequence[int],
        max_instances: int,
        max_bags: int | None = None,
        cost: str = "padded",
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        distributed = dist.is_available() and dist.is_initialized()
        self.num_replicas = num_replicas or (dist.get_world_size() if distributed else 1)
        self.rank = rank if rank is not None else dist.get_rank() if distributed else 0
        check_positive(max_instances=max_instances, num_replicas=self.num_replicas)
        check_choice("cost", cost, ("padded", "packed"))
        self.sizes = np.asarray(sizes)
        self.max_instances, self.max_bags = max_instances, len(self.sizes) if max_bags is None else max_bags
        self.packed, self.shuffle, self.seed = cost == "packed", shuffle, seed
        self.epoch = 0
        self._check()
        most = max(len(self._cut(self._order(-1, draw))) for draw in range(DRAWS if shuffle else 1))
        self._max_batches = most
        even = -(-most // self.num_replicas) * self.num_replicas
        if drop_last:
            even = most - most % self.num_replicas
        self._total = even if even <= len(self.sizes) else most
        if self._total < self.num_replicas:
            raise ValueError(
                f"`sizes` must give a batch for each of {self.num_replicas} processes, got {len(self.sizes)} bags."
            )

    def __len__(self) -> int:
        """Return the number of batches of this process, the same in every epoch."""
        return len(range(self.rank, self._total, self.num_replicas))

    def __iter__(self) -> Iterator[list[int]]:
        """Iterate over the batches of the next epoch."""
        epoch = self.epoch
        self.epoch += 1
        return iter(self._batches(epoch)[self.rank :: self.num_replicas])

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, of the next iteration."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the index of the next epoch."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the epoch of a state that :py:meth:`state_dict` returned."""
        self.set_epoch(int(state["epoch"]))

    def _batches(self, epoch: int) -> list[list[int]]:
        """Return all batches of an epoch, with those of the same step of all processes next to each other."""
        generator = self._generator(epoch, DRAWS)
        batches = self._split(self._plan(epoch))
        surplus = len(batches) - self._total
        if surplus > 0:
            dropped = {int(i) for i in generator.permutation(len(batches))[:surplus]}
            batches = [batch for i, batch in enumerate(batches) if i not in dropped]
        if not self.shuffle:
            return batches
        # batches of the same step have similar sizes, so that no process waits long for another
        steps = [batches[i : i + self.num_replicas] for i in range(0, len(batches), self.num_replicas)]
        whole = steps if len(steps[-1]) == self.num_replicas else steps[:-1]
        order = [*generator.permutation(len(whole)), *range(len(whole), len(steps))]
        return [steps[i][int(j)] for i in order for j in generator.permutation(len(steps[i]))]

    def _plan(self, epoch: int) -> list[list[int]]:
        """Return the batches of the first draw that needs no more of them than every epoch has."""
        for draw in range(DRAWS):
            batches = self._cut(self._order(epoch, draw))
            if len(batches) <= self._max_batches:
                return batches
        return self._cut(self._order(-1, 0))

    def _order(self, epoch: int, draw: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.argsort(-self.sizes, kind="stable")
        generator = self._generator(epoch, draw)
        if self.packed:
            return generator.permutation(len(self.sizes))
        return np.argsort(-np.log(self.sizes) + generator.uniform(-JITTER, JITTER, len(self.sizes)), kind="stable")

    def _generator(self, epoch: int, draw: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch + 1, draw])

    def _cut(self, order: NDArray[np.int64]) -> list[list[int]]:
        """Split an order of bags into batches within the limits."""
        batches: list[list[int]] = [[]]
        longest = total = 0
        for i, size in zip(order.tolist(), self.sizes[order].tolist(), strict=True):
            count = len(batches[-1]) + 1
            cost = total + size if self.packed else max(longest, size) * count
            if count > 1 and (cost > self.max_instances or count > self.max_bags):
                batches.append([])
                longest = total = 0
            batches[-1].append(i)
            longest, total = max(longest, size), total + size
        return batches

    def _split(self, batches: list[list[int]]) -> list[list[int]]:
        """Halve the batches with most bags until there are as many batches as in every epoch."""
        batches = list(batches)
        while len(batches) < self._total:
            index = max(range(len(batches)), key=lambda i: len(batches[i]))
            middle = len(batches[index]) // 2
            batches[index : index + 1] = [batches[index][:middle], batches[index][middle:]]
        return batches

    def _check(self) -> None:
        check_positive(max_bags=self.max_bags)
        if self.sizes.ndim != 1 or self.sizes.dtype.kind not in "iu" or (self.sizes < 1).any():
            raise ValueError(f"`sizes` must be positive integers, one per bag, got {self.sizes.tolist()}.")
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(f"`rank` must be from 0 to {self.num_replicas - 1}, got {self.rank}.")


def bag_sizes(items: Sequence[Mapping[str, Any]], key: str = "image", max_instances: int | None = None) -> list[int]:
    """Return the number of instances of each item once it is loaded.

    Args:
        items: items with ``start`` and ``stop``, or with ``num_instances`` (see :py:func:`load_cohort`), or with the
            path of a bag file, or the bag itself, under ``key``.
        key: key of the bag.
        max_instances: upper limit, if bags are sampled by
            :py:class:`monai_mil_ext.transforms.RandSampleInstancesd`.

    Example:
        >>> items = [{"image": "a.h5", "num_instances": 7000}, {"image": "b.h5", "start": 3, "stop": 8}]
        >>> bag_sizes(items, max_instances=2000)
        [2000, 5]
    """
    sizes = [_size(item, key) for item in items]
    return sizes if max_instances is None else [min(size, max_instances) for size in sizes]


def _size(item: Mapping[str, Any], key: str) -> int:
    if "start" in item and "stop" in item:
        return int(item["stop"]) - int(item["start"])
    if "num_instances" in item:
        return int(item["num_instances"])
    bag = item[key]
    return inspect_bag(bag).num_instances if isinstance(bag, (str, Path)) else len(bag)
