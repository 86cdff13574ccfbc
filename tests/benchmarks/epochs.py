"""Epochs of training: cost of the data path relative to computation, for small bags and for large ones on disk."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import PrepareBatchExtraInput, SupervisedTrainer
from torch import Tensor, nn

from monai_mil_ext.data import BagBatchSampler, BagCollate, bag_sizes, write_bag
from monai_mil_ext.networks.nets import ABMIL
from monai_mil_ext.transforms import LoadBagd, RandLoadBagd
from tests.benchmarks.measure import Measurement, of_values, paired_ratio, spend

__all__ = ["disk_epoch", "sampled_epoch", "small_bags_epoch"]

MUSK1 = {"bags": 92, "instances": 476, "features": 166, "longest": 40}


def small_bags_epoch(batch_size: int = 16, epochs: int = 20, repeats: int = 15) -> Measurement:
    """Measure the seconds of epochs of MONAI's trainer over those of a plain loop, on bags with the sizes of MUSK1.

    Values are random, since time does not depend on them. Both do the same computation with the mask; the loop indexes
    one tensor of all bags, padded to 40.
    """
    bags = _musk_like()
    calls = {"trainer": _trainer_run(bags, batch_size, epochs), "loop": _loop(bags, batch_size, epochs)}
    measured = paired_ratio(calls, "trainer", "loop", repeats)
    return measured._replace(detail={"steps": -(-len(bags) // batch_size), "epochs": epochs})


def disk_epoch(num_bags: int = 40, longest: int = 20_000, workers: int = 2, repeats: int = 6) -> Measurement:
    """Measure the fraction of an epoch, after its first batch, that is spent waiting for float16 features from disk.

    Sizes are log-uniform from a twentieth of ``longest`` to ``longest``; instances have 1,024 features. Batches hold up
    to ``longest`` instances. The files were just written, so they may be in the cache of the system.
    """
    with tempfile.TemporaryDirectory() as folder:
        items = list(_write_bags(Path(folder), num_bags, longest))
        sizes = bag_sizes(items)
        loader = DataLoader(
            Dataset(items, LoadBagd("image", dtype=None)),
            batch_sampler=BagBatchSampler(sizes, max_instances=longest),
            num_workers=workers,
            collate_fn=BagCollate("image"),
        )
        measured = _waiting(loader, repeats)
    return measured._replace(detail={**measured.detail, "instances": sum(sizes), "workers": workers})


def sampled_epoch(
    num_bags: int = 24, instances: int = 10_000, block_size: int = 1, workers: int = 1, repeats: int = 6
) -> Measurement:
    """Measure the fraction of an epoch spent waiting for 2,048 rows of each float16 bag, none of it in the cache.

    Detail: bytes that the workers read from the disk over the bytes of the rows, with files of 1,024 features.
    """
    with tempfile.TemporaryDirectory() as folder:
        values = np.random.default_rng(0).standard_normal((instances, 1024), dtype=np.float32).astype(np.float16)
        for i in range(num_bags):
            write_bag(Path(folder) / f"{i}.h5", {"features": values})
        items = [{"image": str(path), "label": i % 2} for i, path in enumerate(sorted(Path(folder).iterdir()))]
        load = RandLoadBagd("image", 2048, dtype=None, block_size=block_size)
        _forget(items)
        before = _bytes_read()
        rows = sum(load(item)["image"].nbytes for item in items[:20])
        amplification = (_bytes_read() - before) / rows
        loader = DataLoader(Dataset(items, load), num_workers=workers, collate_fn=BagCollate("image"))
        measured = _waiting(loader, repeats, partial(_forget, items))
    return measured._replace(detail={**measured.detail, "bytes_read": round(amplification, 3), "workers": workers})


def _waiting(loader: DataLoader, repeats: int, prepare: Callable[[], None] = lambda: None) -> Measurement:
    """Measure the share of waiting in epochs of a trainer on float16 features, after an uncounted one.

    Seconds of the processor are those of the trainer's process, without its workers.
    """
    network = ABMIL(1024, 2, hidden_size=512, attention_size=256)
    spent, epochs = [], []
    for _ in range(repeats + 1):
        prepare()
        trainer = _trainer(network, loader, 1, waits := Waits())
        trainer.prepare_batch = _as_float
        spent.append(spend(trainer.run))
        epochs.append(waits)
    del spent[0], epochs[0]
    detail = {f"{name}_s": round(median(getattr(w, name) for w in epochs), 3) for name in ("waiting", "total")}
    return of_values([w.waiting / w.total for w in epochs], {"epoch": spent}, detail=detail)


def _bytes_read() -> int:
    """Return the bytes that this process has read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _forget(items: Sequence[dict[str, Any]]) -> None:
    """Drop files from the cache of the system."""
    for item in items:
        with open(item["image"], "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Waits:
    """Handler that measures the time of waiting for batches, except for the first of each epoch, when workers start."""

    def __init__(self) -> None:
        self.waiting = self.total = 0.0

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._start_wait)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._end_wait)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)

    def _start_wait(self, _engine: Any) -> None:
        self._requested = time.perf_counter()

    def _end_wait(self, engine: Any) -> None:
        now = time.perf_counter()
        if engine.state.iteration % engine.state.epoch_length == 0:
            self._start = now
        else:
            self.waiting += now - self._requested

    def _end_epoch(self, _engine: Any) -> None:
        self.total += time.perf_counter() - self._start


def _musk_like(seed: int = 0) -> list[dict[str, Tensor]]:
    """Return 92 random bags with 476 instances, the largest with 40, all with at least 2."""
    generator = np.random.default_rng(seed)
    sizes = np.full(MUSK1["bags"], 2)
    sizes[0] = MUSK1["longest"]
    while sizes.sum() < MUSK1["instances"]:
        i = generator.integers(1, len(sizes))
        sizes[i] += sizes[i] < MUSK1["longest"]
    return [
        {"image": torch.randn(n, MUSK1["features"]), "label": torch.tensor(i % 2)} for i, n in enumerate(sizes.tolist())
    ]


def _network() -> nn.Module:
    torch.manual_seed(0)
    return ABMIL(MUSK1["features"], 2, hidden_size=128)


def _trainer(network: nn.Module, loader: Any, epochs: int, *handlers: Any) -> SupervisedTrainer:
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-4),
        loss_function=nn.CrossEntropyLoss(),
        prepare_batch=PrepareBatchExtraInput({"mask": "mask"}),
        train_handlers=handlers,
        decollate=False,  # no handler needs decollated items
    )


def _trainer_run(bags: Sequence[dict[str, Tensor]], batch_size: int, epochs: int) -> Callable[[], Any]:
    sizes = bag_sizes(bags)
    sampler = BagBatchSampler(sizes, max_instances=batch_size * max(sizes), max_bags=batch_size)
    loader = DataLoader(Dataset(bags), batch_sampler=sampler, collate_fn=BagCollate("image"))
    assert len(loader) == -(-len(bags) // batch_size)
    return lambda: _trainer(_network(), loader, epochs).run()


def _loop(bags: Sequence[dict[str, Tensor]], batch_size: int, epochs: int) -> Callable[[], None]:
    batch = BagCollate("image")(bags)

    def loop() -> None:
        network = _network().train()
        optimizer, loss_function = torch.optim.Adam(network.parameters(), lr=1e-4), nn.CrossEntropyLoss()
        for _ in range(epochs):
            for rows in torch.randperm(len(bags)).split(batch_size):
                optimizer.zero_grad()
                loss_function(network(batch["image"][rows], batch["mask"][rows]), batch["label"][rows]).backward()
                optimizer.step()

    return loop


def _write_bags(folder: Path, num_bags: int, longest: int) -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(0)
    source = generator.standard_normal((longest, 1024), dtype=np.float32).astype(np.float16)
    for i, size in enumerate(np.exp(generator.uniform(np.log(longest / 20), np.log(longest), num_bags)).astype(int)):
        write_bag(folder / f"{i}.h5", {"features": source[:size]})
        yield {"image": str(folder / f"{i}.h5"), "label": i % 2}


def _as_float(batch: Any, device: Any = None, non_blocking: bool = False, **_: Any) -> Any:
    """Move features to the device, then convert them to float32."""
    return batch["image"].to(device).float(), batch["label"], (), {"mask": batch["mask"]}
