"""Handler that measures how much attention on the validation set changes from epoch to epoch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from monai_mil_ext.handlers.savers.gather import gather_rows
from monai_mil_ext.metrics import attention_changes, attention_instability
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, drop_padding, head_mean, write_csv, write_json

__all__ = ["AttentionStabilityHandler"]

COLUMNS = ("epoch", "case_id", "jsd", "uniformity", "use")


class AttentionStabilityHandler:
    """Handler that compares the attention on each bag with that of the last epoch, in the validations of a run.

    Attach it to the evaluator that a trainer's ``ValidationHandler`` runs. It reads the decollated items of the
    evaluator: ``case_id`` and attention (N,) or (N, A), which is averaged over A. The bags must be the same in every
    epoch; they are matched by case id, regardless of their order and process.

    ``engine.state.metrics`` gets ``<name>_jsd``, from the second epoch on, and ``<name>_uniformity``, means over bags
    of :py:func:`attention_divergence` and :py:func:`attention_uniformity`: read both together, since attention that
    stays uniform does not change. ``<name>_stability.csv`` has a row for each epoch and bag, ``<name>_stability.json``
    the means over epochs and bags; the first process replaces both atomically after each epoch.

    To resume exactly, include it in the checkpoint: ``TrainingState(..., stability=handler)`` saves its state.

    Args:
        output_dir: folder of the two files; None writes no files.
        name: prefix of the metrics and of the files.
        key: key of the attention in an item.

    Raises:
        ValueError: when a bag is missing, new, repeated or of another size than in the last epoch, or an item has no
            case id.
    """

    def __init__(self, output_dir: str | None = None, name: str = "attention", key: str = "attention") -> None:
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.name = name
        self.key = key
        self._current: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}
        self._epochs: list[int] = []
        self._series: dict[str, list[list[float]]] = {}  # jsd and uniformity of each bag in each of the epochs

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, before handlers that print or draw its metrics."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._compare)

    def state_dict(self) -> dict[str, Any]:
        """Return the attention of the last epoch and the values of all epochs so far."""
        series = {case: torch.tensor(rows, dtype=torch.float64) for case, rows in self._series.items()}
        return {"attention": dict(self._last), "epochs": list(self._epochs), "series": series}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state that :py:meth:`state_dict` returned."""
        self._last = {case: attention.cpu() for case, attention in state["attention"].items()}
        self._epochs = list(state["epochs"])
        self._series = {case: rows.tolist() for case, rows in state["series"].items()}

    def _start(self, _engine: Engine) -> None:
        self._current = {}

    def _collect(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            item = {**batch, **output}
            if BagKeys.CASE_ID not in item:
                raise ValueError(f"`case_id` must be in an item of a bag, got {', '.join(map(str, item))}.")
            case = str(item[BagKeys.CASE_ID])
            if case in self._current:
                raise ValueError(f"`case_id` must be the name of one bag, got {case!r} twice.")
            self._current[case] = head_mean(drop_padding(item[self.key], item).detach()).float().cpu()

    def _compare(self, engine: Engine) -> None:
        attention, self._current = _gather(self._current), {}
        epoch = engine.state.epoch
        if self._epochs and epoch <= self._epochs[-1]:
            warnings.warn(
                f"Epoch {epoch} is not later than {self._epochs[-1]}: this validation is left out of the series.",
                stacklevel=2,
            )
            return
        changes = attention_changes(attention, self._last or None)
        self._last = attention
        self._epochs.append(epoch)
        for case, values in changes.items():
            self._series.setdefault(case, []).append([values["jsd"], values["uniformity"]])
        jsd, uniformity = self._table()[-1].nanmean(dim=0).tolist()
        engine.state.metrics[f"{self.name}_uniformity"] = uniformity
        if len(self._epochs) > 1:
            engine.state.metrics[f"{self.name}_jsd"] = jsd
        if self.output_dir is not None and idist.get_rank() == 0:
            self._write(self.output_dir)

    def _table(self) -> Tensor:
        """Return the values (T, B, 2) of all epochs and bags."""
        return torch.tensor(list(self._series.values()), dtype=torch.float64).transpose(0, 1)

    def _rows(self, table: Tensor) -> Iterator[dict[str, Any]]:
        for epoch, values in zip(self._epochs, table.tolist(), strict=True):
            for case, cells in zip(self._series, values, strict=True):
                jsd, uniformity = ("" if math.isnan(value) else value for value in cells)
                yield dict(zip(COLUMNS, (epoch, case, jsd, uniformity, RESEARCH_USE), strict=True))

    def _write(self, folder: Path) -> None:
        table = self._table()
        write_csv(folder / f"{self.name}_stability.csv", self._rows(table), COLUMNS)
        means = table.nanmean(dim=1).tolist()
        epochs = [
            {"epoch": epoch, "jsd": jsd, "uniformity": uniformity}
            for epoch, (jsd, uniformity) in zip(self._epochs, means, strict=True)
        ]
        summary = attention_instability(table[1:, :, 0])
        content = {"use": RESEARCH_USE, "num_bags": len(self._series), **summary, "epochs": epochs}
        write_json(folder / f"{self.name}_stability.json", content)


def _gather(attention: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the bags of all processes, sorted by case id."""
    rows = gather_rows(list(attention.items()), lambda row: row[0], lambda row: row[1].flatten().tolist())
    return dict(sorted(rows))
