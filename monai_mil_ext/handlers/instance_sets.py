"""Handler that calibrates instance sets in an evaluation with instance labels, or says whether they still hold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine

from monai_mil_ext.handlers.savers.gather import RowHandler
from monai_mil_ext.metrics import ConformalInstances, set_coverage
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, drop_padding, head_mean, load_json, write_json
from monai_mil_ext.utils.remote import as_path

__all__ = ["SETS_FILE", "InstanceSetHandler"]

SETS_FILE, COVERAGE_FILE, SPLIT_FILE = "conformal.json", "coverage.json", "split.json"


class InstanceSetHandler(RowHandler):
    """Handler of :py:class:`monai_mil_ext.metrics.ConformalInstances` for evaluations with instance labels.

    With ``calibrate`` it fits the sets and writes ``conformal.json`` beside ``model.json``, from which inference takes
    them: calibrate with patients that neither trained the network nor selected its epoch. Cases that did, according to
    the ``split.json`` beside the weights, are refused; without that file a warning is logged, and ``conformal.json``
    says ``"not checked"``. Without ``calibrate``, it compares the sets that a calibration has written with the labels
    of the evaluation, such as those of a new site, and writes ``coverage.json``, see
    :py:func:`monai_mil_ext.metrics.set_coverage`; without a calibration it does nothing.

    It reads decollated items: ``attention`` (N,) or (N, A), whose mean over A is used, ``instance_label`` (N,), and, if
    present, ``mask`` (N,), ``case_id`` and ``patient``; the bags of a patient count once. Bags without labels or
    without a positive instance are left out. In a distributed run the bags of all processes are gathered.

    Args:
        folder: folder of the weights and their record, with ``conformal.json``.
        output_dir: folder of ``coverage.json``.
        calibrate: whether to fit the sets.
        model: identity of the model; a calibration is only used with the weights of its ``sha256``.
        source: what the instances of the calibration are, for its file, such as values of
            :py:class:`monai_mil_ext.data.InstanceSource`.
        **options: options of the sets, such as ``alpha`` and ``target``.

    Raises:
        ValueError: when an option is not allowed, or at the end of a run if no bag of a calibration has labels, a bag
            of a calibration trained the network or selected its epoch, or the calibration is that of other weights.

    Example:
        >>> InstanceSetHandler("models", "eval", calibrate=True, alpha=0.05, target="all").sets.alpha
        0.05
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        output_dir: str | os.PathLike[str],
        calibrate: bool = False,
        model: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.path, self.output_dir = as_path(folder) / SETS_FILE, as_path(output_dir)
        self.calibrate = calibrate
        self.sets = ConformalInstances(**options)
        self.sha256 = (model or {}).get("sha256")
        self.source = source

    def _row(self, item: Mapping[str, Any]) -> dict[str, Any] | None:
        return _row(item) if BagKeys.ATTENTION in item and BagKeys.INSTANCE_LABEL in item else None

    def _content(self, row: Mapping[str, Any]) -> list[float]:
        return list(row["scores"])

    def _finish(self, engine: Engine, rows: list[dict[str, Any]]) -> None:
        if idist.get_rank() != 0:
            return
        bags = [torch.tensor(row["scores"]) for row in rows], [torch.tensor(row["labels"]) for row in rows]
        patients = [row["patient"] or i for i, row in enumerate(rows)]
        if self.calibrate:
            is_checked = self._check_split([row["case_id"] for row in rows])
            if not is_checked:
                engine.logger.warning(
                    f"no {SPLIT_FILE} beside the weights: the guarantee holds only if no patient of this calibration "
                    "trained the network or selected its epoch"
                )
            self._write(engine, *bags, patients, is_checked)
        elif rows and self.path.is_file():
            self._compare(engine, *bags, patients)

    def _check_split(self, cases: list[str]) -> bool:
        """Refuse cases that the weights have seen, and return whether it is known which these are."""
        file = self.path.with_name(SPLIT_FILE)
        if not file.is_file():
            return False
        split = load_json(file)
        seen = {str(case) for part in ("train", "val") for case in split.get(part, [])} & set(cases)
        if seen:
            raise ValueError(
                f"`calibrate` must be False with bags that trained the network or selected its epoch, got {len(seen)} "
                f"of {len(cases)} by {SPLIT_FILE}; evaluate the part test, or other patients."
            )
        return True

    def _write(
        self, engine: Engine, scores: list[Any], labels: list[Any], patients: list[Any], is_checked: bool
    ) -> None:
        self.sets.fit(scores, labels, patients)
        sizes = [len(y) for y in labels if (y > 0).any()]
        if not sizes:
            raise ValueError("`calibrate` must be False without bags that have a positive instance label, got none.")
        record = {
            "schema": "1.0",
            "use": RESEARCH_USE,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "weights_sha256": self.sha256,
            "source": self.source,
            "score_source": "mean",
            "split": "test" if is_checked else "not checked",
            "bag_sizes": [min(sizes), max(sizes)],
            **self.sets.to_dict(),
        }
        write_json(self.path, record)
        limit = self.sets.threshold
        too_few = f"fewer than the {self.sets.min_bags} that this needs: inference will show no sets"
        engine.logger.info(
            f"instance sets for {100 * (1 - self.sets.alpha):g} % from {self.sets.num_bags} patients with a lesion: "
            + (too_few if limit is None else f"{self.sets.by} up to {limit:g}")
        )

    def _compare(self, engine: Engine, scores: list[Any], labels: list[Any], patients: list[Any]) -> None:
        record = load_json(self.path)
        if record.get("weights_sha256") != self.sha256:
            raise ValueError(
                f"`folder` must have a {SETS_FILE} of these weights, got that of others; calibrate again or remove it."
            )
        sets = ConformalInstances.from_dict(record)
        found = set_coverage(sets, scores, labels, patients)
        report = {"use": RESEARCH_USE, "target": sets.target, "num_calibration_bags": sets.num_bags, **found}
        write_json(self.output_dir / COVERAGE_FILE, report)
        if found["num_bags"]:
            engine.logger.info(coverage_text(found))


def coverage_text(found: Mapping[str, Any]) -> str:
    """Say in a sentence whether a guarantee holds, from the result of ``set_coverage``.

    Example:
        >>> coverage_text({"covered": 12, "num_bags": 20, "nominal": 0.9, "holds": False, "shifted": True})
        'instance sets are right in 12 of 20: the guarantee of 90 % does not hold here; the data have shifted'
    """
    verdict = "is not contradicted" if found["holds"] else "does not hold here"
    shift = "; the data have shifted" if found["shifted"] else ""
    count = f"{found['covered']} of {found['num_bags']}"
    return f"instance sets are right in {count}: the guarantee of {100 * found['nominal']:g} % {verdict}{shift}"


def _row(item: Mapping[str, Any]) -> dict[str, Any]:
    scores = head_mean(drop_padding(item[BagKeys.ATTENTION], item).detach().cpu().float())
    labels = drop_padding(item[BagKeys.INSTANCE_LABEL], item).cpu()
    case = str(item.get(BagKeys.CASE_ID, ""))
    patient = str(item.get(BagKeys.PATIENT, case))
    return {"case_id": case, "patient": patient, "scores": scores.tolist(), "labels": labels.tolist()}
