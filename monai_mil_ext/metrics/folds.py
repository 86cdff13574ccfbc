"""Summary of a cross-validation: metrics of each fold, mean and standard deviation."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_mil_ext.utils import RESEARCH_USE, write_json
from monai_mil_ext.utils.remote import as_path

from .bag_classification import bag_values
from .calibration import brier_score, expected_calibration_error
from .seeds import seed_summary

__all__ = ["fold_summary", "summarize_folds"]


def fold_summary(
    folds: Mapping[int, tuple[Sequence[int], np.ndarray[Any, Any]]], kappa_weights: str | None = None
) -> dict[str, Any]:
    """Compute the metrics of each fold, their mean and their sample standard deviation.

    The metrics are those of :py:func:`bag_values`, :py:func:`expected_calibration_error` and :py:func:`brier_score`.
    They are computed within each fold, so that probabilities of different networks are never ranked together.

    Args:
        folds: labels (B,) and predicted class probabilities (B, C) of the test part of each fold.
        kappa_weights: see :py:func:`bag_values`.

    Returns:
        ``values`` (means), ``sd``, ``folds`` (metrics of each fold), ``num_folds``, ``num_bags`` and ``use``.

    Raises:
        ValueError: if there is no fold, or the arrays don't match.

    Example:
        >>> probability = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> summary = fold_summary({0: ([0, 1], probability), 1: ([1, 0], probability)})
        >>> summary["values"]["bag_auroc"], round(summary["sd"]["bag_auroc"], 3), summary["num_bags"]
        (0.5, 0.707, 4)
    """
    by_fold: dict[Any, dict[str, float]] = {}
    for fold, (label, probability) in folds.items():
        calibration = {
            "calibration_error": expected_calibration_error(label, probability),
            "brier_score": brier_score(label, probability),
        }
        by_fold[fold] = {**bag_values(label, probability, kappa_weights), **calibration}
    summary = seed_summary(by_fold)
    # sample standard deviation for all metrics: the folds are a sample of the possible splits
    spread = {
        name: float(np.std([values[name] for values in by_fold.values()], ddof=1)) if len(by_fold) > 1 else float("nan")
        for name in summary["values"]
    }
    return {
        "use": RESEARCH_USE,
        "num_folds": len(by_fold),
        "num_bags": sum(len(label) for label, _ in folds.values()),
        "values": summary["values"],
        "sd": spread,
        "folds": by_fold,
    }


def summarize_folds(folder: str | os.PathLike[str], kappa_weights: str | None = None) -> dict[str, Any]:
    """Summarize all ``fold_<k>/bags.csv`` of a folder by :py:func:`fold_summary` and write ``folds.json``.

    Returns:
        The summary.

    Raises:
        ValueError: if there is no such file, or a file lacks columns.
    """
    root = as_path(folder)
    folds = {}
    for file in root.glob("fold_*/bags.csv"):
        number = re.fullmatch(r"fold_(\d+)", file.parent.name)
        if number:
            folds[int(number[1])] = _predictions(file)
    if not folds:
        raise ValueError(f"`folder` must hold fold_<k>/bags.csv of an evaluation, got none in {root.name!r}.")
    summary = fold_summary(dict(sorted(folds.items())), kappa_weights)
    write_json(root / "folds.json", summary)
    return summary


def _predictions(file: Path) -> tuple[list[int], np.ndarray[Any, Any]]:
    with file.open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    names = [name for name in (rows[0] if rows else {}) if re.fullmatch(r"probability_\d+", name)]
    if not names or "label" not in rows[0]:
        raise ValueError(f"`folder` must hold bags.csv with labels and probabilities, got {file.parent.name!r}.")
    return [int(row["label"]) for row in rows], np.array([[float(row[name]) for name in names] for row in rows])
