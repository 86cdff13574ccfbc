"""Feature extraction for a whole cohort, by one or several processes, with a report of every scan."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from monai_mil_ext.utils import (
    RESEARCH_USE,
    BagKeys,
    check_choice,
    optional_dependency,
    run_tasks,
    write_csv,
    write_json,
)
from monai_mil_ext.utils.exceptions import root_cause
from monai_mil_ext.utils.files import remove_file
from monai_mil_ext.utils.paths import result_path

from .bad_cases import is_system_error, reason_of
from .feature_cache import EncodingStats, FeatureCache

__all__ = ["FeatureExtraction"]

tqdm = optional_dependency("", "tqdm", "tqdm")
REPORT, TABLE = "features.json", "bags.csv"
COLUMNS = (str(BagKeys.PATIENT), "label")  # of items, for the table
KILLED = ("its process was killed", None)


class FeatureExtraction:
    """Feature extraction for a cohort in one or several processes.

    It computes missing features and reports on every scan. With a process group, as ``torchrun`` starts it, the first
    process lists the missing scans and each of n processes computes every n-th of them. Without one, ``jobs`` starts
    processes, and ``scheduler`` takes the workers of Dask; both take a scan when they have none. After an interruption,
    start the run again: it computes only what is missing. For a scan that fails, the report contains the case ID and
    the cause, with the scan's paths replaced by their keys. A table of the bags, ``bags.csv``, for
    :py:func:`load_cohort` is written next to the features.

    Args:
        cache: cache of the features.
        output_dir: folder of the report ``features.json``, shared by all processes, or its address.
        on_error: ``"skip"`` continues with the next scan, ``"raise"`` ends the run. A full disk or memory always ends
            it, since the scan is not the cause.
        progress: whether to show a progress bar of the first process.
        item_names: names of scans and instances in progress bar and summary, such as slides and tiles.
        jobs: number of processes, see :py:func:`monai_mil_ext.utils.run_tasks`.
        scheduler: ``"local"`` or the address of a Dask scheduler, whose workers encode; ``None`` uses no Dask.
        gpus: number of GPUs of a scan, as the resource ``GPU`` of Dask workers.

    Raises:
        ValueError: when ``on_error`` is invalid, the cache refuses the cohort, no worker can encode, or there are both
            a process group and other processes.
        RuntimeError: when a scan fails and ``on_error`` is ``"raise"``.

    Example:
        >>> cache = FeatureCache("features", lambda item: {"image": torch.full((3, 2), item["image"])})
        >>> run = FeatureExtraction(cache, "eval", progress=False)
        >>> report = run([{"case_id": "a", "image": 1.0}, {"case_id": "b", "image": "no number"}])
        >>> report["made"], report["failed"], list(report["reasons"].values())
        (1, 1, [['b']])
    """

    def __init__(
        self,
        cache: FeatureCache,
        output_dir: str | os.PathLike[str],
        on_error: str = "skip",
        progress: bool = True,
        item_names: tuple[str, str] = ("scans", "instances"),
        jobs: int | None = 1,
        scheduler: str | None = None,
        gpus: int = 0,
    ) -> None:
        check_choice("on_error", on_error, ["skip", "raise"])
        self.cache = cache
        self.output_dir = result_path(output_dir, "output_dir")
        self.on_error = on_error
        self.progress = progress
        self.item_names = tuple(item_names)
        self.jobs, self.scheduler, self.gpus = jobs, scheduler, gpus

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Compute missing features of ``items``, and return the report, the same in every process."""
        in_group = distributed.is_available() and distributed.is_initialized()
        rank, size = (distributed.get_rank(), distributed.get_world_size()) if in_group else (0, 1)
        if size > 1 and (self.jobs != 1 or self.scheduler is not None):
            raise ValueError(f"`jobs` and `scheduler` must not be given to {size} processes of torchrun.")
        missing = self._missing(items, rank, size)
        if rank == 0:
            remove_file(self.output_dir / REPORT)  # so that an interrupted run leaves no report of another
        share = self._make([items[i] for i in missing[rank::size]], rank, size)
        write_json(self._share_file(rank), share)
        if size > 1:
            distributed.barrier()
        if rank == 0:
            self._report(items, len(items) - len(missing), size)
        if size > 1:
            distributed.barrier()
        report: dict[str, Any] = json.loads((self.output_dir / REPORT).read_text())
        return report

    def summary(self, report: Mapping[str, Any]) -> str:
        """Return a summary of the report in a few lines."""
        scans, instances = self.item_names
        counts = ", ".join(f"{report[name]} {name.replace('_', ' ')}" for name in ("done_before", "made", "failed"))
        speed = (
            f"{report['instances']} {instances} in {report['seconds']} s, {report['instances_per_second']} per second"
        )
        idle = report["encoder_waited"]
        speed += "" if idle is None else f" (the encoder was idle for {idle:.0%} of the time)"
        lines = [f"{report['scans']} {scans}: {counts}; {speed}. Features: {report['folder']} ({report['use']})"]
        lines += [f"  {', '.join(cases)}: {reason}" for reason, cases in report["reasons"].items()]
        if report["empty"]:
            lines.append(f"  without {instances}: {', '.join(report['empty'])}")
        lines += [f"  note on {case}: {notes}" for case, notes in report["notes"].items()]
        return "\n".join(lines)

    def raise_if_failed(self, report: Mapping[str, Any]) -> None:
        """Raise ``RuntimeError`` in the first process if a scan failed, so that a program exits with an error."""
        first = not distributed.is_available() or not distributed.is_initialized() or distributed.get_rank() == 0
        if report["failed"] and first:
            cases = sorted(case for group in report["reasons"].values() for case in group)
            names = self.item_names[0]
            raise RuntimeError(
                f"`cohort` must be {names} that give features, got {len(cases)} that don't: {cases[:10]}."
            )

    def _missing(self, items: Sequence[Mapping[str, Any]], rank: int, size: int) -> list[int]:
        """Return the indices of missing scans, found by the first process and sent to all others."""
        wanted = torch.zeros(len(items), dtype=torch.uint8)
        if rank == 0:
            missing = {item[BagKeys.CASE_ID] for item in self.cache.missing(items)}
            wanted[:] = torch.tensor([item[BagKeys.CASE_ID] in missing for item in items])
        if size > 1:
            on_gpu = distributed.get_backend() == "nccl"
            wanted = wanted.cuda() if on_gpu else wanted
            distributed.broadcast(wanted, 0)
        indices: list[int] = wanted.nonzero().flatten().tolist()
        return indices

    def _make(self, share: Sequence[Mapping[str, Any]], rank: int, size: int) -> dict[str, Any]:
        made: list[EncodingStats] = []
        failed, processes = {}, set()
        start = time.perf_counter()
        process = f" (process 1 of {size})" if size > 1 else ""
        encode = partial(_encode, self.cache, self.on_error)
        outcomes = run_tasks(encode, share, self.jobs, self.scheduler, self.gpus, self.cache.folder, if_killed=KILLED)
        with tqdm(
            total=len(share),
            desc=f"features{process}",
            unit=self.item_names[0].removesuffix("s"),
            disable=not self.progress or rank > 0,
        ) as bar:
            for index, (outcome, encoder) in outcomes:
                processes.add(encoder)
                if isinstance(outcome, str):
                    failed[share[index][BagKeys.CASE_ID]] = outcome
                else:
                    made.append(outcome)
                speed = sum(stats.instances for stats in made) / (time.perf_counter() - start)
                bar.set_postfix({f"{self.item_names[1]}/s": f"{speed:.0f}", "failed": len(failed)}, refresh=False)
                bar.update()
        busy = [stats.encode_seconds for stats in made if stats.encode_seconds is not None]
        return {
            "made": len(made),
            "instances": sum(stats.instances for stats in made),
            "failed": failed,
            "encoding": sum(busy) if busy else None,
            "seconds": time.perf_counter() - start,
            "processes": max(1, len(processes - {None})),
        }

    def _report(self, items: Sequence[Mapping[str, Any]], done: int, size: int) -> None:
        """Merge the reports of all processes, which are files, so that nodes need only a shared folder."""
        shares = [json.loads(self._share_file(rank).read_text()) for rank in range(size)]
        reasons: dict[str, list[str]] = {}
        for share in shares:
            for case, reason in share["failed"].items():
                reasons.setdefault(reason, []).append(case)
        instances, seconds = sum(s["instances"] for s in shares), max(s["seconds"] for s in shares)
        report = {
            "use": RESEARCH_USE,
            "fingerprint": self.cache.fingerprint,
            "folder": self.cache.folder.name,
            **self.cache.attributes,
            "scans": len(items),
            "done_before": done,
            "made": sum(s["made"] for s in shares),
            "failed": sum(len(s["failed"]) for s in shares),
            "reasons": {reason: sorted(cases) for reason, cases in sorted(reasons.items())},
            "processes": sum(s["processes"] for s in shares),
            "seconds": round(seconds, 3),
            "instances": instances,
            "instances_per_second": round(instances / seconds, 1) if instances else 0.0,
            "encoder_waited": _idle_fraction(shares),
            "empty": [],
            "notes": {},
        }
        failed = {case for cases in reasons.values() for case in cases}
        done_items = [item for item in items if item[BagKeys.CASE_ID] not in failed]
        notes = {str(item[BagKeys.CASE_ID]): self.cache.notes(item) for item in done_items}
        report["notes"] = {case: text for case, text in sorted(notes.items()) if text}
        if self.cache.on_empty == "write":
            report["empty"] = sorted(item[BagKeys.CASE_ID] for item in done_items if self.cache.is_empty(item))
        write_json(self.output_dir / REPORT, report)
        self._write_table(done_items)
        for rank in range(size):
            self._share_file(rank).unlink()

    def _write_table(self, items: Sequence[Mapping[str, Any]]) -> None:
        columns = [name for name in COLUMNS if items and all(name in item for item in items)]
        rows = [{"bag": self.cache.file(item).name, **{name: item[name] for name in columns}} for item in items]
        write_csv(self.cache.folder / TABLE, rows, ["bag", *columns])

    def _share_file(self, rank: int) -> Path:
        return self.output_dir / f".features-{rank}.json"


def _encode(
    cache: FeatureCache, on_error: str, item: Mapping[str, Any]
) -> tuple[EncodingStats | str, tuple[str, int] | None]:
    """Compute the features of a scan, and return their number, or why there are none, and the process."""
    process = (platform.node(), os.getpid())
    try:
        return cache.make(item), process
    except Exception as error:
        cause = root_cause(error)
        if on_error == "raise" or is_system_error(cause):
            raise
        return reason_of(cause, item), process


def _idle_fraction(shares: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the fraction of the time of all processes in which the encoder was idle, if known."""
    timed = [share for share in shares if share["encoding"] is not None]
    total = sum(share["seconds"] * share["processes"] for share in timed)
    return round(1 - sum(share["encoding"] for share in timed) / total, 4) if timed else None
